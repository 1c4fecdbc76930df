//! Which of the nodes that can take a pod is the best.
//!
//! The default weighs upstream's score plug-ins; the other strategies are those of the course project that
//! this cluster grew from, where one number decided.

use std::collections::HashMap;

use serde::Deserialize;

use super::{
    affinity,
    snapshot::{NodeState, PodInfo},
};

/// How nodes are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Upstream's plug-ins with upstream's weights: least allocated, spread, image present, preferences.
    #[default]
    Default,
    /// Any.
    Random,
    /// The node with the fewest pods.
    MinPods,
    /// The node with the most pods.
    MaxPods,
    /// The node with the smallest share of its CPU requested.
    MinCpu,
    /// The node with the smallest share of its memory requested.
    MinMem,
}

impl Strategy {
    /// The strategy of that name (`random`, `min-pods` …).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
    }
}

/// The highest score of one plug-in.
const BEST: f64 = 100.0;

/// Chooses among nodes; the first by name of equals, but for `Random`, which takes what `random` draws.
#[must_use]
pub fn choose<'a>(
    strategy: Strategy,
    pod: &PodInfo,
    nodes: &[&'a NodeState],
    random: impl FnOnce(usize) -> usize,
) -> Option<&'a NodeState> {
    let count = |node: &NodeState| f64::from(u32::try_from(node.pods.len()).unwrap_or(u32::MAX));
    match strategy {
        Strategy::Default => best(nodes, &default_scores(pod, nodes)),
        Strategy::Random => (!nodes.is_empty()).then(|| nodes[random(nodes.len()).min(nodes.len() - 1)]),
        Strategy::MinPods => best(nodes, &nodes.iter().map(|node| -count(node)).collect::<Vec<_>>()),
        Strategy::MaxPods => best(nodes, &nodes.iter().map(|node| count(node)).collect::<Vec<_>>()),
        Strategy::MinCpu => {
            best(nodes, &nodes.iter().map(|node| -share(node, None, "cpu")).collect::<Vec<_>>())
        }
        Strategy::MinMem => {
            best(nodes, &nodes.iter().map(|node| -share(node, None, "memory")).collect::<Vec<_>>())
        }
    }
}

fn best<'a>(nodes: &[&'a NodeState], scores: &[f64]) -> Option<&'a NodeState> {
    let mut chosen: Option<(f64, &'a NodeState)> = None;
    for (&node, &score) in nodes.iter().zip(scores) {
        if chosen.is_none_or(|(known, _)| score > known) {
            chosen = Some((score, node));
        }
    }
    chosen.map(|(_, node)| node)
}

/// The share of a resource that is requested, with `pod` added: 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "a share needs no exact bytes")]
fn share(node: &NodeState, pod: Option<&PodInfo>, name: &str) -> f64 {
    let capacity = node.info.allocatable.get(name);
    if capacity <= 0 {
        return 1.0;
    }
    let requested = node.requested.get(name) + pod.map_or(0, |pod| pod.requests.get(name));
    (requested as f64 / capacity as f64).min(1.0)
}

/// Upstream's default weights: TaintToleration 3, NodeAffinity 2, spreading 2, resources, balance and images 1.
fn default_scores(pod: &PodInfo, nodes: &[&NodeState]) -> Vec<f64> {
    let mut images: HashMap<&str, f64> = HashMap::new();
    for image in &pod.images {
        let having = nodes.iter().filter(|node| image_size(node, image).is_some()).count();
        images.insert(image, ratio(having, nodes.len()));
    }
    let taints = normalised(nodes, true, |node| {
        let untolerated = node.info.taints.iter().filter(|taint| {
            taint.effect == "PreferNoSchedule"
                && !pod
                    .tolerations
                    .iter()
                    .any(|toleration| toleration.tolerates(&taint.key, &taint.value, &taint.effect))
        });
        untolerated.count() as f64
    });
    #[expect(clippy::cast_precision_loss, reason = "weights are small")]
    let affinity = normalised(nodes, false, |node| affinity::node_preference(pod, &node.info) as f64);
    let siblings = normalised(nodes, true, |node| {
        node.pods
            .values()
            .filter(|other| other.controller.is_some() && other.controller == pod.controller)
            .count() as f64
    });
    nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let (cpu, memory) = (share(node, Some(pod), "cpu"), share(node, Some(pod), "memory"));
            let least_allocated = (2.0 - cpu - memory) / 2.0 * BEST;
            let balanced = (1.0 - (cpu - memory).abs() / 2.0) * BEST;
            3.0 * taints[index]
                + 2.0 * affinity[index]
                + 2.0 * siblings[index]
                + least_allocated
                + balanced
                + image_locality(pod, node, &images)
        })
        .collect()
}

/// Scales raw numbers to 0..100; `fewer` turns them around. All equal scores as nothing to choose by.
fn normalised(nodes: &[&NodeState], fewer: bool, raw: impl Fn(&NodeState) -> f64) -> Vec<f64> {
    let raw: Vec<f64> = nodes.iter().map(|node| raw(node)).collect();
    let most = raw.iter().copied().fold(0.0, f64::max);
    raw.iter()
        .map(|&value| match (most > 0.0, fewer) {
            (false, true) => BEST,
            (false, false) => 0.0,
            (true, true) => (1.0 - value / most) * BEST,
            (true, false) => value / most * BEST,
        })
        .collect()
}

fn image_size(node: &NodeState, image: &str) -> Option<i64> {
    let sizes = &node.info.images;
    sizes.get(image).or_else(|| sizes.get(&format!("docker.io/library/{image}"))).copied()
}

/// ImageLocality: sizes of the images that are there, weighed by how many nodes have them, between 23 MB and
/// 1000 MB for each container.
#[expect(clippy::cast_precision_loss, reason = "a score needs no exact bytes")]
fn image_locality(pod: &PodInfo, node: &NodeState, having: &HashMap<&str, f64>) -> f64 {
    const LEAST: f64 = 23.0 * 1024.0 * 1024.0;
    const MOST: f64 = 1000.0 * 1024.0 * 1024.0;
    let present = |image: &String| {
        image_size(node, image).map(|size| size as f64 * having.get(image.as_str()).copied().unwrap_or(0.0))
    };
    let sum: f64 = pod.images.iter().filter_map(present).sum();
    let most = MOST * pod.images.len().max(1) as f64;
    (sum.clamp(LEAST, most) - LEAST) / (most - LEAST) * BEST
}

#[expect(clippy::cast_precision_loss, reason = "counts of nodes are small")]
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api_objects::object::ObjectMeta;
    use client::Key;
    use serde_json::json;

    use super::*;
    use crate::scheduler::snapshot::{NodeInfo, Snapshot};

    fn pod(cpu: &str) -> Arc<PodInfo> {
        let object =
            json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "big:1",
            "resources": { "requests": { "cpu": cpu, "memory": "1Gi" } } }] } })
            .to_string();
        Arc::new(PodInfo::project(object.as_bytes(), &ObjectMeta::default()).unwrap())
    }

    fn snapshot(nodes: &[(&str, usize)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, pods) in nodes {
            let object = json!({ "metadata": { "name": name }, "status": { "allocatable": { "cpu": "8", "memory": "16Gi", "pods": "110" } } })
                .to_string();
            let meta = ObjectMeta { name: (*name).to_owned(), ..ObjectMeta::default() };
            snapshot.set_node(Arc::new(NodeInfo::project(object.as_bytes(), &meta).unwrap()));
            for index in 0..*pods {
                snapshot.place(&Key::new("ns", &format!("{name}-{index}")), &pod("1"), name);
            }
        }
        snapshot
    }

    fn chosen(strategy: Strategy, snapshot: &Snapshot) -> String {
        let nodes: Vec<&NodeState> = snapshot.nodes().collect();
        choose(strategy, &pod("1"), &nodes, |count| count - 1).unwrap().info.name.clone()
    }

    #[test]
    fn strategies_choose_what_they_say() {
        let snapshot = snapshot(&[("a", 2), ("b", 0), ("c", 1)]);
        assert_eq!(chosen(Strategy::Default, &snapshot), "b");
        assert_eq!(chosen(Strategy::MinPods, &snapshot), "b");
        assert_eq!(chosen(Strategy::MaxPods, &snapshot), "a");
        assert_eq!(chosen(Strategy::MinCpu, &snapshot), "b");
        assert_eq!(chosen(Strategy::MinMem, &snapshot), "b");
        assert_eq!(chosen(Strategy::Random, &snapshot), "c");
    }

    #[test]
    fn names() {
        assert_eq!(Strategy::from_name("min-mem"), Some(Strategy::MinMem));
        assert_eq!(Strategy::from_name("nonsense"), None);
    }
}
