//! Which nodes can take a pod, and the reason of each that cannot.
//!
//! One function for each of upstream's filter plug-ins, in upstream's order; the first obstacle of a node is
//! its reason, but for resources, where every one that is short is named. The texts are upstream's: people
//! and tools read them.

use super::{
    affinity,
    snapshot::{NodeState, PodInfo, Snapshot},
};

/// Why a node cannot take a pod; more than one only for resources.
pub type Reasons = Vec<String>;

/// Looks for what keeps `pod` (of `namespace`) off a node.
#[must_use]
pub fn obstacles(namespace: &str, pod: &PodInfo, node: &NodeState, snapshot: &Snapshot) -> Reasons {
    let single = [unschedulable, untolerated, selector, ports];
    for filter in single {
        if let Some(reason) = filter(pod, node) {
            return vec![reason.to_owned()];
        }
    }
    let short = resources(pod, node);
    if !short.is_empty() {
        return short;
    }
    affinity::spread_obstacle(namespace, pod, node, snapshot)
        .or_else(|| affinity::pod_affinity_obstacle(namespace, pod, node, snapshot))
        .map(|reason| vec![reason.to_owned()])
        .unwrap_or_default()
}

/// NodeUnschedulable
fn unschedulable(pod: &PodInfo, node: &NodeState) -> Option<&'static str> {
    let tolerated = || {
        pod.tolerations
            .iter()
            .any(|toleration| toleration.tolerates("node.kubernetes.io/unschedulable", "", "NoSchedule"))
    };
    (node.info.unschedulable && !tolerated()).then_some("node(s) were unschedulable")
}

/// TaintToleration
fn untolerated(pod: &PodInfo, node: &NodeState) -> Option<&'static str> {
    let untolerated =
        node.info.taints.iter().filter(|taint| taint.effect != "PreferNoSchedule").any(|taint| {
            !pod.tolerations
                .iter()
                .any(|toleration| toleration.tolerates(&taint.key, &taint.value, &taint.effect))
        });
    untolerated.then_some("node(s) had untolerated taint(s)")
}

/// NodeAffinity (with `nodeSelector`)
fn selector(pod: &PodInfo, node: &NodeState) -> Option<&'static str> {
    (!affinity::node_matches(pod, &node.info)).then_some("node(s) didn't match Pod's node affinity/selector")
}

/// NodePorts
fn ports(pod: &PodInfo, node: &NodeState) -> Option<&'static str> {
    let taken = !pod.ports.is_empty()
        && node
            .pods
            .values()
            .flat_map(|other| &other.ports)
            .any(|taken| pod.ports.iter().any(|wanted| wanted.conflicts(taken)));
    taken.then_some("node(s) didn't have free ports for the requested pod ports")
}

/// NodeResourcesFit
fn resources(pod: &PodInfo, node: &NodeState) -> Reasons {
    let mut short = Vec::new();
    for (name, wanted) in pod.requests.iter() {
        let free = node.info.allocatable.get(name).saturating_sub(node.requested.get(name));
        if wanted > 0 && wanted > free {
            short.push(if name == "pods" {
                "Too many pods".to_owned()
            } else {
                format!("Insufficient {name}")
            });
        }
    }
    short
}

/// VolumeRestrictions: another pod has a claim that only one may have.
pub(super) const CLAIM_TAKEN: &str =
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

/// What is said of a pod that no node was even looked at for.
#[must_use]
pub fn refused(nodes: usize, why: &str) -> String {
    format!("0/{nodes} nodes are available: {why}.")
}

/// What is said of a pod that no node can take: `0/3 nodes are available: 1 Insufficient cpu, 2 …`.
#[must_use]
pub fn explain(nodes: usize, reasons: &[Reasons]) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for reason in reasons.iter().flatten() {
        *counts.entry(reason).or_default() += 1;
    }
    let mut texts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    // Upstream sorts the finished texts, so that the count decides before the reason.
    texts.sort_unstable();
    format!("0/{nodes} nodes are available: {}.", texts.join(", "))
}

#[cfg(test)]
mod tests;
