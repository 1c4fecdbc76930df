//! Nodes that fall silent: conditions become Unknown, and conditions become taints.
//!
//! As upstream's `pkg/controller/nodelifecycle`: a node whose Lease (or status) has not changed for the grace
//! period, by this controller's own clock, is marked Unknown and its pods not ready; taints follow the
//! conditions. Who is evicted for a taint is `taint_eviction`'s business. Writes `Node.spec.taints` of the
//! `node.kubernetes.io/` family, the listed conditions of silent nodes, and `Ready` of pods on them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api_objects::{Resource, Value, object::ObjectMeta, time::rfc3339};
use client::{Client, Error, EventType, Informer, Key, ObjectRef, PatchType, Recorder, Scope, WorkQueue};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::{Action, Context, Reconciler, feed, resource, spawn_workers, typed};

/// The conditions that a silent node loses, as upstream's `nodeConditionTypes`.
const WATCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The keys that this controller owns.
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, status that taints, key.
const PRESSURE: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// A taint of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// Qualified key.
    pub key: String,
    /// May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule`, `NoExecute`.
    pub effect: String,
    /// Since when; only on `NoExecute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_added: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

/// What is kept of a node.
#[derive(Debug)]
struct NodeView {
    uid: String,
    resource_version: String,
    unschedulable: bool,
    taints: Vec<Taint>,
    conditions: Vec<Condition>,
    /// The heartbeat of the Ready condition: a kubelet without Leases still counts as alive.
    heartbeat: String,
}

impl NodeView {
    fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let node: Value = typed(bytes)?;
        let conditions = &node["status"]["conditions"];
        let ready =
            conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == "Ready");
        Some(Self {
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            unschedulable: node["spec"]["unschedulable"].as_bool().unwrap_or(false),
            taints: serde_json::from_value(node["spec"]["taints"].clone()).unwrap_or_default(),
            conditions: serde_json::from_value(conditions.clone()).unwrap_or_default(),
            heartbeat: ready.map(|ready| ready["lastHeartbeatTime"].to_string()).unwrap_or_default(),
        })
    }

    fn condition(&self, kind: &str) -> Option<&str> {
        self.conditions
            .iter()
            .find(|condition| condition.r#type == kind)
            .map(|condition| condition.status.as_str())
    }
}

#[derive(Debug)]
struct PodView {
    node: String,
    ready: bool,
}

impl PodView {
    fn project(bytes: &[u8], _: &ObjectMeta) -> Option<Self> {
        let pod: Value = typed(bytes)?;
        let conditions = pod["status"]["conditions"].as_array();
        Some(Self {
            node: pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(),
            ready: conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
        })
    }
}

/// The taints a node should have: ours follow from its state, foreign ones stay. Pure. A `NoExecute` taint
/// that is there already keeps its time: tolerations count from it.
fn wanted_taints(node: &NodeView, now: Timestamp) -> Vec<Taint> {
    let ours = |key: &str| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key)
            || PRESSURE.iter().any(|(_, _, known)| *known == key)
    };
    let mut wanted: Vec<Taint> = node.taints.iter().filter(|taint| !ours(&taint.key)).cloned().collect();
    let mut want = |key: &str, effect: &str| {
        let known = node.taints.iter().find(|taint| taint.key == key && taint.effect == effect);
        wanted.push(known.cloned().unwrap_or_else(|| Taint {
            key: key.to_owned(),
            value: String::new(),
            effect: effect.to_owned(),
            time_added: (effect == "NoExecute").then(|| rfc3339(now)),
        }));
    };
    match node.condition("Ready") {
        Some("True") => {}
        // No condition yet: the node has just been made and is not ready.
        Some("False") | None => {
            want(NOT_READY, "NoSchedule");
            if node.condition("Ready").is_some() {
                want(NOT_READY, "NoExecute");
            }
        }
        Some(_) => {
            want(UNREACHABLE, "NoSchedule");
            want(UNREACHABLE, "NoExecute");
        }
    }
    for (kind, status, key) in PRESSURE {
        if node.condition(kind) == Some(status) {
            want(key, "NoSchedule");
        }
    }
    if node.unschedulable {
        want(UNSCHEDULABLE, "NoSchedule");
    }
    wanted
}

fn same_taints(left: &[Taint], right: &[Taint]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .all(|taint| right.iter().any(|other| taint.key == other.key && taint.effect == other.effect))
}

/// The controller.
pub struct NodeLifecycleController {
    client: Client,
    recorder: Recorder,
    nodes_resource: Arc<Resource>,
    pods_resource: Arc<Resource>,
    nodes: Informer<NodeView>,
    leases: Informer<String>,
    pods: Informer<PodView>,
    /// The last sign of life of each node and when it was seen, by our own clock: clocks of nodes may differ.
    signs: Mutex<HashMap<Key, (String, Instant)>>,
    /// Silence after which a node counts as unreachable (upstream's `--node-monitor-grace-period`).
    grace_period: Duration,
}

/// Starts the controller.
pub fn start(context: &Context, grace_period: Duration) {
    let nodes_resource = resource("", "v1", "nodes");
    let pods_resource = resource("", "v1", "pods");
    let nodes = context.informers.watch(&nodes_resource, &Scope::default(), NodeView::project);
    let scope = Scope { namespace: "kube-node-lease".into(), ..Scope::default() };
    let leases =
        context.informers.watch(&resource("coordination.k8s.io", "v1", "leases"), &scope, |bytes, _| {
            let lease: Value = typed(bytes)?;
            Some(lease["spec"]["renewTime"].as_str().unwrap_or_default().to_owned())
        });
    let pods =
        context.informers.watch_indexed(&pods_resource, &Scope::default(), PodView::project, |_, pod| {
            vec![pod.node.clone()]
        });
    let controller = Arc::new(NodeLifecycleController {
        client: context.client.clone(),
        recorder: context.recorder("node-controller"),
        nodes_resource,
        pods_resource,
        nodes: nodes.clone(),
        leases: leases.clone(),
        pods: pods.clone(),
        signs: Mutex::default(),
        grace_period,
    });
    let queue = Arc::new(WorkQueue::new());
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        let synced = async { tokio::join!(nodes.synced(), leases.synced(), pods.synced()) };
        if context.shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        feed(&context, &nodes, &queue, |change| vec![change.key.clone()]);
        // A renewed Lease needs no look at once: the node is looked at when its grace period would end.
        // Only a Lease that comes back after a silence matters, and the kubelet then posts its status too.
        spawn_workers(&context, &controller, &queue, 4);
    });
}

impl Reconciler for NodeLifecycleController {
    type Key = Key;
    const NAME: &'static str = "node-lifecycle";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        let Some(node) = self.nodes.get(key) else {
            self.signs.lock().remove(key);
            return Ok(Action::AwaitChange);
        };
        let silent_for = self.silence(key, &node);
        if silent_for >= self.grace_period && node.condition("Ready") != Some("Unknown") {
            self.mark_unknown(key, &node).await?;
            return Ok(Action::AwaitChange);
        }
        let taints = wanted_taints(&node, Timestamp::now());
        if !same_taints(&taints, &node.taints) {
            let patch = json!({
                "metadata": { "resourceVersion": node.resource_version, "uid": node.uid },
                "spec": { "taints": taints },
            });
            self.client.patch(&self.nodes_resource, "", &key.name, None, PatchType::Merge, &patch).await?;
        }
        if node.condition("Ready") == Some("Unknown") {
            self.mark_pods_not_ready(key).await?;
        }
        Ok(Action::RequeueAfter(self.grace_period.saturating_sub(silent_for).max(Duration::from_secs(1))))
    }
}

impl NodeLifecycleController {
    /// How long the node has given no sign of life.
    fn silence(&self, key: &Key, node: &NodeView) -> Duration {
        let lease = self.leases.get(&Key::new("kube-node-lease", &key.name));
        let sign =
            format!("{}/{}", lease.map_or_else(String::new, |renewed| renewed.to_string()), node.heartbeat);
        let mut signs = self.signs.lock();
        let known = signs.entry(key.clone()).or_insert_with(|| (sign.clone(), Instant::now()));
        if known.0 != sign {
            *known = (sign, Instant::now());
        }
        known.1.elapsed()
    }

    async fn mark_unknown(&self, key: &Key, node: &NodeView) -> Result<(), Error> {
        let now = rfc3339(Timestamp::now());
        let conditions: Vec<Value> = WATCHED
            .iter()
            .map(|kind| {
                let (reason, message) = match node.condition(kind) {
                    Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                    None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
                };
                json!({ "type": kind, "status": "Unknown", "reason": reason, "message": message,
                    "lastTransitionTime": now })
            })
            .collect();
        let patch = json!({
            "metadata": { "resourceVersion": node.resource_version, "uid": node.uid },
            "status": { "conditions": conditions },
        });
        self.client
            .patch(&self.nodes_resource, "", &key.name, Some("status"), PatchType::Strategic, &patch)
            .await?;
        let about = ObjectRef {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: key.name.to_string(),
            uid: node.uid.clone(),
            ..ObjectRef::default()
        };
        let message = format!("Node {} status is now: NodeNotReady", key.name);
        self.recorder.event(&about, EventType::Normal, "NodeNotReady", message);
        Ok(())
    }

    async fn mark_pods_not_ready(&self, node: &Key) -> Result<(), Error> {
        for (pod, _) in self.pods.by_index(&node.name).into_iter().filter(|(_, pod)| pod.ready) {
            let patch = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False",
                "lastTransitionTime": rfc3339(Timestamp::now()) }] } });
            let patched = self
                .client
                .patch(
                    &self.pods_resource,
                    &pod.namespace,
                    &pod.name,
                    Some("status"),
                    PatchType::Strategic,
                    &patch,
                )
                .await;
            match patched {
                Err(error) if !error.is_not_found() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(conditions: &[(&str, &str)], taints: &[(&str, &str)]) -> NodeView {
        NodeView {
            uid: "u".into(),
            resource_version: "1".into(),
            unschedulable: false,
            taints: taints
                .iter()
                .map(|(key, effect)| Taint {
                    key: (*key).into(),
                    value: String::new(),
                    effect: (*effect).into(),
                    time_added: Some("2026-01-01T00:00:00Z".into()),
                })
                .collect(),
            conditions: conditions
                .iter()
                .map(|(kind, status)| Condition { r#type: (*kind).into(), status: (*status).into() })
                .collect(),
            heartbeat: String::new(),
        }
    }

    fn keys(node: &NodeView) -> Vec<(String, String)> {
        wanted_taints(node, Timestamp::UNIX_EPOCH)
            .into_iter()
            .map(|taint| (taint.key, taint.effect))
            .collect()
    }

    #[test]
    fn taints_follow_conditions_and_leave_foreign_ones() {
        assert_eq!(
            keys(&node(&[("Ready", "True")], &[("mine", "NoSchedule"), (NOT_READY, "NoSchedule")])),
            [("mine".to_owned(), "NoSchedule".to_owned())]
        );
        assert_eq!(keys(&node(&[], &[])), [(NOT_READY.to_owned(), "NoSchedule".to_owned())]);
        let unknown = keys(&node(&[("Ready", "Unknown"), ("DiskPressure", "True")], &[]));
        assert_eq!(unknown.len(), 3);
        assert!(unknown.contains(&(UNREACHABLE.to_owned(), "NoExecute".to_owned())));
        assert!(unknown.contains(&("node.kubernetes.io/disk-pressure".to_owned(), "NoSchedule".to_owned())));
    }

    #[test]
    fn a_no_execute_taint_keeps_its_time() {
        let node = node(&[("Ready", "Unknown")], &[(UNREACHABLE, "NoExecute")]);
        let taint = wanted_taints(&node, Timestamp::UNIX_EPOCH)
            .into_iter()
            .find(|taint| taint.effect == "NoExecute")
            .unwrap();
        assert_eq!(taint.time_added.as_deref(), Some("2026-01-01T00:00:00Z"));
    }
}
