//! What the scheduler knows: nodes, the pods on them, and what is left of each node.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use api_objects::{Value, object::ObjectMeta};
use client::Key;
use k8s_openapi::api::core::v1::{Affinity, Container, Node, Pod, TopologySpreadConstraint};

use super::{
    requests::{Amounts, requests},
    tolerations::Toleration,
    volumes::PodClaim,
};
use crate::controllers::{node_lifecycle::Taint, typed};

/// A port of the node that a pod wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// `0.0.0.0` for every address.
    pub ip: String,
    /// Port.
    pub port: i32,
    /// Protocol.
    pub protocol: String,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == "0.0.0.0" || other.ip == "0.0.0.0")
    }
}

/// What is kept of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodInfo {
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) labels: BTreeMap<String, String>,
    /// Uid of the controller: pods of one owner are spread.
    pub(super) controller: Option<String>,
    pub(super) node: String,
    pub(super) priority: i32,
    pub(super) scheduler: String,
    pub(super) finished: bool,
    pub(super) deleting: bool,
    pub(super) gated: bool,
    pub(super) requests: Amounts,
    pub(super) ports: Vec<HostPort>,
    pub(super) images: Vec<String>,
    pub(super) node_selector: BTreeMap<String, String>,
    pub(super) affinity: Option<Box<Affinity>>,
    pub(super) spread: Vec<TopologySpreadConstraint>,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) claims: Vec<PodClaim>,
    /// The PodScheduled condition as it stands: reason and message.
    pub(super) waiting_for: Option<(String, String)>,
}

impl PodInfo {
    pub(super) fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let pod: Pod = typed(bytes)?;
        let spec = pod.spec?;
        let status = pod.status.unwrap_or_default();
        let tolerations = serde_json::to_value(&spec.tolerations).ok()?;
        let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
        let scheduled = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
        Some(Self {
            uid: meta.uid.clone(),
            generation: meta.generation,
            labels: meta.labels.clone(),
            controller: meta.controller().map(|owner| owner.uid.clone()),
            node: spec.node_name.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            scheduler: spec.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".into()),
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            deleting: meta.deletion_timestamp.is_some(),
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            requests: requests(&spec, &status),
            ports: containers().flat_map(host_ports).collect(),
            images: containers().filter_map(|container| container.image.clone()).collect(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            affinity: spec.affinity.clone().map(Box::new),
            spread: spec.topology_spread_constraints.clone().unwrap_or_default(),
            tolerations: serde_json::from_value(tolerations).unwrap_or_default(),
            claims: spec.volumes.as_ref().map_or_else(Vec::new, |volumes| PodClaim::of(&meta.name, volumes)),
            waiting_for: scheduled.map(|condition| {
                (condition.reason.clone().unwrap_or_default(), condition.message.clone().unwrap_or_default())
            }),
        })
    }
}

fn host_ports(container: &Container) -> impl Iterator<Item = HostPort> {
    container.ports.iter().flatten().filter(|port| port.host_port.unwrap_or(0) > 0).map(|port| HostPort {
        ip: port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into()),
        port: port.host_port.unwrap_or(0),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
    })
}

/// What is kept of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeInfo {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) unschedulable: bool,
    pub(super) taints: Vec<Taint>,
    pub(super) allocatable: Amounts,
    /// Size in bytes of each image by name.
    pub(super) images: HashMap<String, i64>,
}

impl NodeInfo {
    pub(super) fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let node: Node = typed(bytes)?;
        let spec = node.spec.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let taints: Value = serde_json::to_value(&spec.taints).ok()?;
        Some(Self {
            name: meta.name.clone(),
            labels: meta.labels.clone(),
            unschedulable: spec.unschedulable.unwrap_or(false),
            taints: serde_json::from_value(taints).unwrap_or_default(),
            allocatable: Amounts::read(status.allocatable.as_ref()),
            images: status
                .images
                .into_iter()
                .flatten()
                .flat_map(|image| {
                    let size = image.size_bytes.unwrap_or(0);
                    image.names.unwrap_or_default().into_iter().map(move |name| (name, size))
                })
                .collect(),
        })
    }
}

/// A node with the pods on it.
#[derive(Debug, Clone)]
pub struct NodeState {
    /// The node.
    pub info: Arc<NodeInfo>,
    /// The pods on it, bound or about to be.
    pub pods: BTreeMap<Key, Arc<PodInfo>>,
    /// The sum of what they request.
    pub requested: Amounts,
}

/// All nodes and the pods on them. Kept by the scheduler's one task.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeState>,
    /// Pods on nodes that are not known (yet): they count once the node appears.
    homeless: HashMap<Key, Arc<PodInfo>>,
    /// Where each pod is counted.
    places: HashMap<Key, String>,
}

impl Snapshot {
    /// Every node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.values()
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds or replaces a node.
    pub fn set_node(&mut self, info: Arc<NodeInfo>) {
        let name = info.name.clone();
        if let Some(state) = self.nodes.get_mut(&name) {
            state.info = info;
            return;
        }
        self.nodes
            .insert(name.clone(), NodeState { info, pods: BTreeMap::new(), requested: Amounts::default() });
        let here: Vec<Key> =
            self.homeless.iter().filter(|(_, pod)| pod.node == name).map(|(key, _)| key.clone()).collect();
        for key in here {
            if let Some(pod) = self.homeless.remove(&key) {
                self.place(&key, &pod, &name);
            }
        }
    }

    /// Takes a node away; its pods wait for it to come back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(state) = self.nodes.remove(name) else { return };
        for (key, pod) in state.pods {
            self.places.remove(&key);
            self.homeless.insert(key, pod);
        }
    }

    /// Counts a pod on a node, wherever it was counted before.
    pub fn place(&mut self, key: &Key, pod: &Arc<PodInfo>, node: &str) {
        self.remove_pod(key);
        match self.nodes.get_mut(node) {
            Some(state) => {
                state.requested.add(&pod.requests);
                state.pods.insert(key.clone(), pod.clone());
                self.places.insert(key.clone(), node.to_owned());
            }
            None => {
                self.homeless.insert(key.clone(), pod.clone());
            }
        }
    }

    /// Stops counting a pod; answers whether it was counted on a node.
    pub fn remove_pod(&mut self, key: &Key) -> bool {
        self.homeless.remove(key);
        let Some(state) = self.places.remove(key).and_then(|node| self.nodes.get_mut(&node)) else {
            return false;
        };
        if let Some(pod) = state.pods.remove(key) {
            state.requested.subtract(&pod.requests);
        }
        true
    }
}
