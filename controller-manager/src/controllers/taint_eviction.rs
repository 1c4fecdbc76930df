//! Pods leave nodes whose `NoExecute` taints they do not tolerate, or no longer.
//!
//! As upstream's `pkg/controller/tainteviction`: a pod that tolerates all such taints for a limited time goes
//! when the shortest of these times is over, counted from when the taint was added. Deletes pods and sets
//! their `DisruptionTarget` condition.

use std::{sync::Arc, time::Duration};

use api_objects::{Resource, Value, object::ObjectMeta, time::rfc3339};
use client::{Client, Error, EventType, Informer, Key, ObjectRef, PatchType, Recorder, Scope, WorkQueue};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{Action, Context, Reconciler, feed, node_lifecycle::Taint, resource, spawn_workers, typed};
use crate::scheduler::tolerations::Toleration;

#[derive(Debug)]
struct PodView {
    uid: String,
    node: String,
    done: bool,
    tolerations: Vec<Toleration>,
}

impl PodView {
    fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct Raw {
            spec: Spec,
            status: Status,
        }
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct Spec {
            node_name: String,
            tolerations: Vec<Toleration>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Status {
            phase: String,
        }
        let raw: Raw = typed(bytes)?;
        Some(Self {
            uid: meta.uid.clone(),
            node: raw.spec.node_name,
            done: meta.deletion_timestamp.is_some()
                || matches!(raw.status.phase.as_str(), "Succeeded" | "Failed"),
            tolerations: raw.spec.tolerations,
        })
    }
}

/// How long a pod may still stay, given a node's `NoExecute` taints: `None` for ever, zero to go at once.
fn time_left(tolerations: &[Toleration], taints: &[Taint], now: Timestamp) -> Option<Duration> {
    let mut left: Option<Duration> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        // Of several tolerations for one taint the shortest time counts, as upstream's `getMinTolerationTime`.
        let mut tolerated = false;
        let mut seconds: Option<i64> = None;
        for toleration in tolerations
            .iter()
            .filter(|toleration| toleration.tolerates(&taint.key, &taint.value, &taint.effect))
        {
            tolerated = true;
            if let Some(limit) = toleration.toleration_seconds {
                seconds = Some(seconds.map_or(limit, |known| known.min(limit)));
            }
        }
        let for_this = match (tolerated, seconds) {
            (false, _) => Duration::ZERO,
            (true, None) => continue,
            (true, Some(seconds)) => {
                let added = taint.time_added.as_ref().and_then(|time| time.parse().ok()).unwrap_or(now);
                let passed = Duration::try_from(now.duration_since(added)).unwrap_or(Duration::ZERO);
                Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).saturating_sub(passed)
            }
        };
        left = Some(left.map_or(for_this, |left| left.min(for_this)));
    }
    left
}

/// The controller. Keys are nodes.
pub struct TaintEvictionController {
    client: Client,
    recorder: Recorder,
    pods_resource: Arc<Resource>,
    nodes: Informer<Vec<Taint>>,
    pods: Informer<PodView>,
}

/// Starts the controller.
pub fn start(context: &Context) {
    let pods_resource = resource("", "v1", "pods");
    let nodes = context.informers.watch(&resource("", "v1", "nodes"), &Scope::default(), |bytes, _| {
        let node: Value = typed(bytes)?;
        Some(serde_json::from_value(node["spec"]["taints"].clone()).unwrap_or_default())
    });
    let pods =
        context.informers.watch_indexed(&pods_resource, &Scope::default(), PodView::project, |_, pod| {
            vec![pod.node.clone()]
        });
    let controller = Arc::new(TaintEvictionController {
        client: context.client.clone(),
        recorder: context.recorder("taint-eviction-controller"),
        pods_resource,
        nodes: nodes.clone(),
        pods: pods.clone(),
    });
    let queue = Arc::new(WorkQueue::new());
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        let synced = async { tokio::join!(nodes.synced(), pods.synced()) };
        if context.shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        feed(&context, &nodes, &queue, |change| vec![change.key.clone()]);
        let tainted = nodes.clone();
        feed(&context, &pods, &queue, move |change| {
            let Some(pod) = change.after.as_ref().filter(|pod| !pod.node.is_empty()) else {
                return Vec::new();
            };
            let node = Key::new("", &pod.node);
            let matters = tainted
                .get(&node)
                .is_some_and(|taints| taints.iter().any(|taint| taint.effect == "NoExecute"));
            if matters { vec![node] } else { Vec::new() }
        });
        spawn_workers(&context, &controller, &queue, 4);
    });
}

impl Reconciler for TaintEvictionController {
    type Key = Key;
    const NAME: &'static str = "taint-eviction";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        let Some(taints) = self.nodes.get(key) else { return Ok(Action::AwaitChange) };
        let now = Timestamp::now();
        let mut next: Option<Duration> = None;
        for (pod_key, pod) in self.pods.by_index(&key.name).into_iter().filter(|(_, pod)| !pod.done) {
            match time_left(&pod.tolerations, &taints, now) {
                None => {}
                Some(left) if left.is_zero() => self.evict(&pod_key, &pod).await?,
                Some(left) => next = Some(next.map_or(left, |next| next.min(left))),
            }
        }
        Ok(next.map_or(Action::AwaitChange, Action::RequeueAfter))
    }
}

impl TaintEvictionController {
    async fn evict(&self, key: &Key, pod: &PodView) -> Result<(), Error> {
        let about = ObjectRef {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: pod.uid.clone(),
            field_path: String::new(),
        };
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.event(&about, EventType::Normal, "TaintManagerEviction", message);
        let now = rfc3339(Timestamp::now());
        let patch = json!({ "metadata": { "uid": pod.uid }, "status": { "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": now }] } });
        let outcome = async {
            self.client
                .patch(
                    &self.pods_resource,
                    &key.namespace,
                    &key.name,
                    Some("status"),
                    PatchType::Strategic,
                    &patch,
                )
                .await?;
            let options = json!({ "preconditions": { "uid": pod.uid } });
            self.client.delete(&self.pods_resource, &key.namespace, &key.name, &options).await
        };
        match outcome.await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(added: &str) -> Taint {
        Taint {
            key: "k".into(),
            value: String::new(),
            effect: "NoExecute".into(),
            time_added: Some(added.into()),
        }
    }

    fn toleration(seconds: Option<i64>) -> Toleration {
        Toleration {
            key: "k".into(),
            operator: "Exists".into(),
            toleration_seconds: seconds,
            ..Toleration::default()
        }
    }

    #[test]
    fn the_shortest_toleration_counts_from_the_taint() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let taints = [taint("2026-01-01T00:00:00Z")];
        assert_eq!(time_left(&[], &taints, now), Some(Duration::ZERO));
        assert_eq!(time_left(&[toleration(None)], &taints, now), None);
        assert_eq!(
            time_left(&[toleration(Some(300)), toleration(None)], &taints, now),
            Some(Duration::from_secs(240))
        );
        assert_eq!(time_left(&[toleration(Some(30))], &taints, now), Some(Duration::ZERO));
        assert_eq!(time_left(&[], &[], now), None);
    }
}
