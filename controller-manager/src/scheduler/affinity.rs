//! Affinity of pods to nodes and to one another, and the spreading of pods over topologies.
//!
//! The rules of upstream's plug-ins NodeAffinity, InterPodAffinity and PodTopologySpread, for one pod against
//! one node in a snapshot.

use std::collections::{BTreeMap, HashMap};

use api_objects::selector::LabelSelector;
use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as WireSelector;

use super::snapshot::{NodeInfo, NodeState, PodInfo, Snapshot};

/// Whether a node meets the pod's `nodeSelector` and required node affinity.
#[must_use]
pub fn node_matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    if !pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value)) {
        return false;
    }
    let required = pod
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| selects(required, node))
}

/// The sum of the weights of the preferred node affinity terms that a node meets.
#[must_use]
pub fn node_preference(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let preferred = pod
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
    preferred
        .into_iter()
        .flatten()
        .filter(|term| term_matches(&term.preference, node))
        .map(|term| i64::from(term.weight))
        .sum()
}

/// Whether a node selector (a volume's, for one) selects a node. Terms are alternatives; none matches nothing.
#[must_use]
pub fn selects(selector: &NodeSelector, node: &NodeInfo) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // An empty term matches nothing.
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|requirement| {
            requirement_matches(requirement, node.labels.get(&requirement.key).map(String::as_str))
        })
        && fields.iter().all(|requirement| {
            requirement.key == "metadata.name" && requirement_matches(requirement, Some(&node.name))
        })
}

fn requirement_matches(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let compare = |greater: bool| {
        let (Some(found), Some(limit)) = (found.and_then(|text| text.parse::<i64>().ok()), values.first())
        else {
            return false;
        };
        limit.parse::<i64>().is_ok_and(|limit| if greater { found > limit } else { found < limit })
    };
    match requirement.operator.as_str() {
        "In" => found.is_some_and(|found| values.iter().any(|value| value == found)),
        "NotIn" => found.is_none_or(|found| values.iter().all(|value| value != found)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(true),
        "Lt" => compare(false),
        _ => false,
    }
}

fn selector(wire: Option<&WireSelector>) -> LabelSelector {
    let value = wire.and_then(|wire| serde_json::to_value(wire).ok());
    LabelSelector::from_object(value.as_ref()).unwrap_or(LabelSelector::Nothing)
}

/// Namespaces are compared by name; a `namespaceSelector` that is present and empty means all of them.
fn in_namespaces(term: &PodAffinityTerm, own: &str, other: &str) -> bool {
    let listed = term.namespaces.as_deref().unwrap_or_default();
    if listed.is_empty() && term.namespace_selector.is_none() {
        return own == other;
    }
    listed.iter().any(|name| name == other)
        || term.namespace_selector.as_ref().is_some_and(|selector| {
            selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
                && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
        })
}

fn same_topology(key: &str, left: &NodeInfo, right: &NodeInfo) -> bool {
    left.labels.get(key).is_some_and(|value| right.labels.get(key) == Some(value))
}

/// Why a node cannot take a pod for the sake of other pods.
#[must_use]
pub fn pod_affinity_obstacle(
    namespace: &str,
    pod: &PodInfo,
    node: &NodeState,
    snapshot: &Snapshot,
) -> Option<&'static str> {
    let affinity = pod.affinity.as_ref();
    let required = affinity
        .and_then(|affinity| affinity.pod_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default();
    for term in required {
        let wanted = selector(term.label_selector.as_ref());
        let matches = |(key, other): (&client::Key, &std::sync::Arc<PodInfo>)| {
            in_namespaces(term, namespace, &key.namespace) && wanted.matches(&other.labels)
        };
        let mut anywhere = snapshot.nodes().filter(|other| other.pods.iter().any(matches)).peekable();
        if anywhere.peek().is_none() {
            // The first pod of a group that wants to be together may go anywhere the topology exists.
            let itself = in_namespaces(term, namespace, namespace) && wanted.matches(&pod.labels);
            if itself && node.info.labels.contains_key(&term.topology_key) {
                continue;
            }
            return Some("node(s) didn't match pod affinity rules");
        }
        if !anywhere.any(|other| same_topology(&term.topology_key, &node.info, &other.info)) {
            return Some("node(s) didn't match pod affinity rules");
        }
    }
    let anti = |pod: &PodInfo| {
        pod.affinity
            .as_ref()
            .and_then(|affinity| affinity.pod_anti_affinity.as_ref())
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.clone())
            .unwrap_or_default()
    };
    for term in anti(pod) {
        let unwanted = selector(term.label_selector.as_ref());
        let clash = snapshot
            .nodes()
            .filter(|other| same_topology(&term.topology_key, &node.info, &other.info))
            .any(|other| {
                other.pods.iter().any(|(key, other)| {
                    in_namespaces(&term, namespace, &key.namespace) && unwanted.matches(&other.labels)
                })
            });
        if clash {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
    }
    // The pods that are there may not want this one beside them.
    for other in snapshot.nodes() {
        for (key, existing) in other.pods.iter().filter(|(_, existing)| existing.affinity.is_some()) {
            for term in anti(existing) {
                if same_topology(&term.topology_key, &node.info, &other.info)
                    && in_namespaces(&term, &key.namespace, namespace)
                    && selector(term.label_selector.as_ref()).matches(&pod.labels)
                {
                    return Some("node(s) didn't satisfy existing pods anti-affinity rules");
                }
            }
        }
    }
    None
}

/// How many pods of a constraint stand in each value of its topology, over the nodes the pod may use.
fn spread_counts<'a>(
    namespace: &str,
    pod: &PodInfo,
    constraint: &TopologySpreadConstraint,
    snapshot: &'a Snapshot,
) -> HashMap<&'a str, i64> {
    let mut wanted = constraint.label_selector.clone();
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.labels.get(key) {
            let labels = wanted.get_or_insert_default().match_labels.get_or_insert_default();
            labels.insert(key.clone(), value.clone());
        }
    }
    let wanted = selector(wanted.as_ref());
    let mut counts = HashMap::new();
    for node in snapshot.nodes().filter(|node| node_matches(pod, &node.info)) {
        let Some(value) = node.info.labels.get(&constraint.topology_key) else { continue };
        let here = node
            .pods
            .iter()
            .filter(|(key, other)| {
                &*key.namespace == namespace && !other.deleting && wanted.matches(&other.labels)
            })
            .count();
        *counts.entry(value.as_str()).or_insert(0) += i64::try_from(here).unwrap_or(i64::MAX);
    }
    counts
}

/// Why a node cannot take a pod for the sake of an even spread.
#[must_use]
pub fn spread_obstacle(
    namespace: &str,
    pod: &PodInfo,
    node: &NodeState,
    snapshot: &Snapshot,
) -> Option<&'static str> {
    for constraint in pod.spread.iter().filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule")
    {
        let Some(value) = node.info.labels.get(&constraint.topology_key) else {
            return Some("node(s) didn't match pod topology spread constraints (missing required label)");
        };
        let counts = spread_counts(namespace, pod, constraint, snapshot);
        let domains = i64::try_from(counts.len()).unwrap_or(i64::MAX);
        let fewest = if domains < i64::from(constraint.min_domains.unwrap_or(1)) {
            0
        } else {
            counts.values().min().copied().unwrap_or(0)
        };
        let itself = i64::from(selector(constraint.label_selector.as_ref()).matches(&pod.labels));
        let here = counts.get(value.as_str()).copied().unwrap_or(0);
        if here + itself - fewest > i64::from(constraint.max_skew) {
            return Some("node(s) didn't match pod topology spread constraints");
        }
    }
    None
}
