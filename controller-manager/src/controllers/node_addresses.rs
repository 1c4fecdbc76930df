//! Each node gets a podCIDR out of the cluster's range.
//!
//! The truth is in the nodes: what is taken is read from their specs each time, and a claim is a write at the
//! resource version that was read. When the range is spent a node goes without and says so in an event, as
//! upstream's range allocator does (`CIDRNotAvailable`). Writes `Node.spec.podCIDR(s)` only.

use std::{collections::HashSet, sync::Arc};

use api_objects::{Resource, Value, object::ObjectMeta};
use client::{Client, Error, EventType, Informer, Key, ObjectRef, PatchType, Recorder, Scope, WorkQueue};
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use serde_json::json;

use super::{Action, Context, Reconciler, feed, resource, spawn_workers, typed};

/// Bits of a node's range: 254 addresses for 110 pods, upstream's default for IPv4.
const NODE_PREFIX: u8 = 24;

/// What is kept of a node.
#[derive(Debug)]
pub struct NodeView {
    uid: String,
    resource_version: String,
    pod_cidr: Option<Ipv4Net>,
    /// Simulated nodes do without a range: their pods have no network.
    simulated: bool,
}

impl NodeView {
    fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let node: Value = typed(bytes)?;
        Some(Self {
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            pod_cidr: node["spec"]["podCIDR"].as_str().and_then(|cidr| cidr.parse().ok()),
            simulated: meta.labels.get("type").is_some_and(|kind| kind == "simulated"),
        })
    }
}

/// The controller.
pub struct NodeAddressController {
    client: Client,
    recorder: Recorder,
    nodes_resource: Arc<Resource>,
    nodes: Informer<NodeView>,
    cluster: Ipv4Net,
    /// Claims that the cache may not show yet, by node. A hint only: losing it costs at most a conflict.
    claims: Mutex<std::collections::HashMap<Key, Ipv4Net>>,
}

/// Starts the controller for the cluster's range.
pub fn start(context: &Context, cluster: Ipv4Net) {
    let nodes_resource = resource("", "v1", "nodes");
    let nodes = context.informers.watch(&nodes_resource, &Scope::default(), NodeView::project);
    let controller = Arc::new(NodeAddressController {
        client: context.client.clone(),
        recorder: context.recorder("cidrAllocator"),
        nodes_resource,
        nodes: nodes.clone(),
        cluster,
        claims: Mutex::default(),
    });
    let queue = Arc::new(WorkQueue::new());
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        if context.shutdown.run_until_cancelled(nodes.synced()).await.is_none() {
            return;
        }
        feed(&context, &nodes, &queue, |change| vec![change.key.clone()]);
        // One worker: two would choose the same range.
        spawn_workers(&context, &controller, &queue, 1);
    });
}

/// The first range of the cluster that nobody has. Pure.
#[must_use]
pub fn free_range(cluster: Ipv4Net, taken: &HashSet<Ipv4Net>) -> Option<Ipv4Net> {
    let prefix = NODE_PREFIX.max(cluster.prefix_len());
    cluster.subnets(prefix).ok()?.find(|range| !taken.contains(range))
}

impl Reconciler for NodeAddressController {
    type Key = Key;
    const NAME: &'static str = "node-addresses";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        let Some(node) = self.nodes.get(key) else {
            self.claims.lock().remove(key);
            return Ok(Action::AwaitChange);
        };
        if node.pod_cidr.is_some() {
            self.claims.lock().remove(key);
            return Ok(Action::AwaitChange);
        }
        let claimed = self.claims.lock().get(key).copied();
        let range = claimed.or_else(|| {
            let mut taken: HashSet<Ipv4Net> =
                self.nodes.list().into_iter().filter_map(|(_, node)| node.pod_cidr).collect();
            taken.extend(self.claims.lock().values());
            free_range(self.cluster, &taken)
        });
        let Some(range) = range else {
            if !node.simulated {
                let about = ObjectRef {
                    api_version: "v1".into(),
                    kind: "Node".into(),
                    name: key.name.to_string(),
                    uid: node.uid.clone(),
                    ..ObjectRef::default()
                };
                let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
                self.recorder.event(&about, EventType::Normal, "CIDRNotAvailable", message);
            }
            return Ok(Action::AwaitChange);
        };
        self.claims.lock().insert(key.clone(), range);
        let patch = json!({
            "metadata": { "resourceVersion": node.resource_version, "uid": node.uid },
            "spec": { "podCIDR": range.to_string(), "podCIDRs": [range.to_string()] },
        });
        match self.client.patch(&self.nodes_resource, "", &key.name, None, PatchType::Merge, &patch).await {
            Ok(_) => Ok(Action::AwaitChange),
            // The node has changed: its next version queues it again.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(Action::AwaitChange),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_handed_out_in_order_and_run_out() {
        let cluster: Ipv4Net = "10.244.0.0/22".parse().unwrap();
        let mut taken = HashSet::new();
        for expected in ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"] {
            let range = free_range(cluster, &taken).unwrap();
            assert_eq!(range.to_string(), expected);
            taken.insert(range);
        }
        assert_eq!(free_range(cluster, &taken), None);
        taken.remove(&"10.244.1.0/24".parse::<Ipv4Net>().unwrap());
        assert_eq!(free_range(cluster, &taken).unwrap().to_string(), "10.244.1.0/24");
    }
}
