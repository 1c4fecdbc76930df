//! Pods that nobody will ever clean up: on nodes that are gone, deleted before they were bound, or too many
//! of the finished.
//!
//! As upstream's `pkg/controller/podgc`. Deletes pods by force, and marks those of lost nodes Failed first.

use std::{sync::Arc, time::Duration};

use api_objects::{Resource, Value, object::ObjectMeta, time::rfc3339};
use client::{Client, Error, Informer, Key, PatchType, Scope, WorkQueue};
use jiff::Timestamp;
use serde_json::json;

use super::{Action, Context, Reconciler, feed, resource, spawn_workers, typed};

/// A node may be re-registered: its pods are left alone for so long (upstream's quarantine).
const QUARANTINE: Duration = Duration::from_secs(40);
/// Finished pods kept (upstream's `--terminated-pod-gc-threshold`).
const KEPT: usize = 12_500;
/// The key under which finished pods are counted; no node can have this name.
const FINISHED: &str = "\u{0}finished";

#[derive(Debug)]
struct PodView {
    uid: String,
    node: String,
    phase: String,
    deleting: bool,
    created: String,
}

impl PodView {
    fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let pod: Value = typed(bytes)?;
        Some(Self {
            uid: meta.uid.clone(),
            node: pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(),
            phase: pod["status"]["phase"].as_str().unwrap_or_default().to_owned(),
            deleting: meta.deletion_timestamp.is_some(),
            created: meta.creation_timestamp.clone().unwrap_or_default(),
        })
    }

    fn is_finished(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    fn index(_: &Key, pod: &Self) -> Vec<String> {
        let mut values = vec![pod.node.clone()];
        if pod.is_finished() {
            values.push(FINISHED.to_owned());
        }
        values
    }
}

/// The controller. Keys are node names (empty for pods that are not bound).
pub struct PodGarbageController {
    client: Client,
    pods_resource: Arc<Resource>,
    nodes_resource: Arc<Resource>,
    nodes: Informer<()>,
    pods: Informer<PodView>,
}

/// Starts the controller.
pub fn start(context: &Context) {
    let (pods_resource, nodes_resource) = (resource("", "v1", "pods"), resource("", "v1", "nodes"));
    let nodes = context.informers.watch(&nodes_resource, &Scope::default(), |_, _| Some(()));
    let pods =
        context.informers.watch_indexed(&pods_resource, &Scope::default(), PodView::project, PodView::index);
    let controller = Arc::new(PodGarbageController {
        client: context.client.clone(),
        pods_resource,
        nodes_resource,
        nodes: nodes.clone(),
        pods: pods.clone(),
    });
    let queue: Arc<WorkQueue<Key>> = Arc::new(WorkQueue::new());
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        let synced = async { tokio::join!(nodes.synced(), pods.synced()) };
        if context.shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        let known = nodes.clone();
        let later = queue.clone();
        feed(&context, &pods, &queue, move |change| {
            let Some(pod) = &change.after else { return Vec::new() };
            if pod.is_finished() && change.before.as_ref().is_none_or(|before| !before.is_finished()) {
                return vec![Key::new("", FINISHED)];
            }
            let node = Key::new("", &pod.node);
            if pod.node.is_empty() {
                return if pod.deleting { vec![node] } else { Vec::new() };
            }
            if known.get(&node).is_none() {
                later.add_after(node, QUARANTINE);
            }
            Vec::new()
        });
        let later = queue.clone();
        feed(&context, &nodes, &queue, move |change| {
            if change.after.is_none() {
                later.add_after(change.key.clone(), QUARANTINE);
            }
            Vec::new()
        });
        spawn_workers(&context, &controller, &queue, 1);
    });
}

impl Reconciler for PodGarbageController {
    type Key = Key;
    const NAME: &'static str = "pod-garbage-collector";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        if &*key.name == FINISHED {
            let mut finished = self.pods.by_index(FINISHED);
            if finished.len() > KEPT {
                finished.sort_by(|(_, left), (_, right)| left.created.cmp(&right.created));
                let surplus = finished.len() - KEPT;
                for (pod_key, pod) in finished.into_iter().take(surplus) {
                    self.delete(&pod_key, &pod).await?;
                }
            }
            return Ok(Action::AwaitChange);
        }
        if key.name.is_empty() {
            for (pod_key, pod) in self.pods.by_index("").into_iter().filter(|(_, pod)| pod.deleting) {
                self.delete(&pod_key, &pod).await?;
            }
            return Ok(Action::AwaitChange);
        }
        if self.nodes.get(key).is_some() {
            return Ok(Action::AwaitChange);
        }
        // The cache may lag: deleting pods by force is worth one question to the server.
        match self.client.get(&self.nodes_resource, "", &key.name).await {
            Ok(_) => return Ok(Action::RequeueAfter(QUARANTINE)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        for (pod_key, pod) in self.pods.by_index(&key.name) {
            if !pod.is_finished() {
                self.mark_failed(&pod_key, &pod).await?;
            }
            self.delete(&pod_key, &pod).await?;
        }
        Ok(Action::AwaitChange)
    }
}

impl PodGarbageController {
    async fn mark_failed(&self, key: &Key, pod: &PodView) -> Result<(), Error> {
        let now = rfc3339(Timestamp::now());
        let patch = json!({ "metadata": { "uid": pod.uid }, "status": { "phase": "Failed", "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "lastTransitionTime": now }] } });
        let patched = self
            .client
            .patch(
                &self.pods_resource,
                &key.namespace,
                &key.name,
                Some("status"),
                PatchType::Strategic,
                &patch,
            )
            .await;
        ignore_gone(patched)
    }

    async fn delete(&self, key: &Key, pod: &PodView) -> Result<(), Error> {
        let options = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": pod.uid } });
        ignore_gone(self.client.delete(&self.pods_resource, &key.namespace, &key.name, &options).await)
    }
}

fn ignore_gone(outcome: Result<Value, Error>) -> Result<(), Error> {
    match outcome {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
