//! Which pod has to go, and what its status says. Pure.
//!
//! Upstream's `pkg/kubelet/eviction/helpers.go`: those that use more than they asked for come first, then those of
//! lower priority, then those that are furthest above their request. Critical pods stay.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::api::resource::Quantity,
};

use super::thresholds::{Met, Signal, bytes};
use crate::pod::{all_containers, resources::units, spec};

/// Priority from which a pod counts as critical (`scheduling.SystemCriticalPriority`).
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What a pod uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory of each running container (working set).
    pub memory: BTreeMap<String, u64>,
    /// Bytes that each container wrote into its own file system and its log.
    pub written: BTreeMap<String, u64>,
    /// Bytes in each of the pod's directories on disk.
    pub empty_dirs: BTreeMap<String, u64>,
    /// Files in them.
    pub inodes: u64,
}

impl Usage {
    fn disk(&self) -> u64 {
        self.written.values().chain(self.empty_dirs.values()).sum()
    }
}

/// A pod that could be evicted.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What it uses.
    pub usage: Usage,
}

/// Why a pod is evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// `status.message`.
    pub message: String,
    /// Whether the node needed it: the pod then gets the condition `DisruptionTarget`.
    pub disruption: bool,
    /// Most time that the pod gets to end; `None` for all that it asks for.
    pub grace: Option<Duration>,
    /// What it is counted under: the signal, or the limit that the pod did not keep.
    pub signal: &'static str,
}

/// Grace of a pod that has to go at once (upstream's `immediateEvictionGracePeriodSeconds`).
const IMMEDIATELY: Duration = Duration::from_secs(1);

/// Whether a pod is never evicted: by its priority, or because a file of this node is its source.
#[must_use]
pub fn is_critical(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let has = |key: &str| annotations.is_some_and(|annotations| annotations.contains_key(key));
    let source = annotations.and_then(|annotations| annotations.get("kubernetes.io/config.source"));
    has("kubernetes.io/config.mirror")
        || source.is_some_and(|source| source != "api")
        || spec(pod).priority.is_some_and(|priority| priority >= CRITICAL_PRIORITY)
}

fn quantity(list: Option<&BTreeMap<String, Quantity>>, name: &str) -> Option<u64> {
    list?.get(name).map(units).and_then(|units| u64::try_from(units).ok())
}

fn request(container: &Container, name: &str) -> u64 {
    let resources = container.resources.as_ref();
    quantity(resources.and_then(|resources| resources.requests.as_ref()), name)
        .or_else(|| limit(container, name))
        .unwrap_or(0)
}

fn limit(container: &Container, name: &str) -> Option<u64> {
    quantity(container.resources.as_ref()?.limits.as_ref(), name)
}

/// What a pod uses of a signal's resource, and what it asked for.
fn standing(candidate: &Candidate<'_>, signal: Signal) -> (u64, u64) {
    let asked = |name: &str| all_containers(candidate.pod).map(|container| request(container, name)).sum();
    match signal.resource() {
        "memory" => (candidate.usage.memory.values().sum(), asked("memory")),
        "inodes" => (candidate.usage.inodes, 0),
        "ephemeral-storage" => (candidate.usage.disk(), asked("ephemeral-storage")),
        // Process ids are asked for by nobody: priority decides, and memory between equals.
        _ => (candidate.usage.memory.values().sum(), u64::MAX),
    }
}

/// The pod that is evicted for a threshold, if any can be; for a soft one it gets that much time at most.
#[must_use]
pub fn choose(
    candidates: &[Candidate<'_>],
    met: &Met,
    soft_grace: Option<Duration>,
) -> Option<(usize, Eviction)> {
    let rank = |(_, candidate): &(usize, &Candidate<'_>)| {
        let (used, asked) = standing(candidate, met.signal);
        let above = i128::from(used) - i128::from(asked);
        (Reverse(used > asked), spec(candidate.pod).priority.unwrap_or(0), Reverse(above))
    };
    let (index, victim) = candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| !is_critical(candidate.pod))
        .min_by_key(rank)?;
    let grace = if met.soft { soft_grace } else { Some(IMMEDIATELY) };
    let message = message(victim, met);
    Some((index, Eviction { message, disruption: true, grace, signal: met.signal.name() }))
}

fn message(victim: &Candidate<'_>, met: &Met) -> String {
    let mut message = met.message();
    let used = match met.signal.resource() {
        "memory" => &victim.usage.memory,
        "ephemeral-storage" => &victim.usage.written,
        _ => return message,
    };
    let resource = met.signal.resource();
    for container in all_containers(victim.pod) {
        let asked = request(container, resource);
        if let Some(used) = used.get(&container.name).filter(|used| **used > asked) {
            message.push_str(&format!(
                "Container {} was using {}, request is {}, has larger consumption of {resource}. ",
                container.name,
                bytes(*used),
                bytes(asked)
            ));
        }
    }
    message
}

/// Whether a pod has limits on what it may write, so that it has to be measured.
#[must_use]
pub fn has_local_limits(pod: &Pod) -> bool {
    let sized = spec(pod).volumes.iter().flatten().any(|volume| {
        volume.empty_dir.as_ref().is_some_and(|source| {
            source.size_limit.is_some() && source.medium.as_deref().unwrap_or_default().is_empty()
        })
    });
    sized || all_containers(pod).any(|container| limit(container, "ephemeral-storage").is_some())
}

/// Whether a pod wrote more than it may (upstream's `localStorageEviction`).
#[must_use]
pub fn exceeds_local_limits(candidate: &Candidate<'_>) -> Option<Eviction> {
    let Candidate { pod, usage } = candidate;
    let evicted = |signal: &'static str, message: String| {
        Some(Eviction { message, disruption: false, grace: Some(IMMEDIATELY), signal })
    };
    for volume in spec(pod).volumes.iter().flatten() {
        let Some(limit) = volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref()) else {
            continue;
        };
        let most = u64::try_from(units(limit)).unwrap_or_default();
        if most > 0 && usage.empty_dirs.get(&volume.name).is_some_and(|used| *used > most) {
            return evicted(
                "emptydirfs.limit",
                format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", volume.name, limit.0),
            );
        }
    }
    let limits: Vec<u64> =
        spec(pod).containers.iter().filter_map(|container| limit(container, "ephemeral-storage")).collect();
    let whole: u64 = limits.iter().sum();
    // Upstream sums the limits that there are; a pod without any has none as a whole.
    if !limits.is_empty() && usage.disk() > whole {
        return evicted(
            "ephemeralpodfs.limit",
            format!(
                "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
                bytes(whole)
            ),
        );
    }
    let over = spec(pod).containers.iter().find_map(|container| {
        let most = limit(container, "ephemeral-storage")?;
        usage.written.get(&container.name).is_some_and(|used| *used > most).then_some((container, most))
    });
    let (container, most) = over?;
    evicted(
        "ephemeralcontainerfs.limit",
        format!(
            "Container {} exceeded its local ephemeral storage limit \"{}\". ",
            container.name,
            bytes(most)
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::pod;

    fn using(memory: u64) -> Usage {
        Usage { memory: [("a".to_owned(), memory << 20)].into(), ..Usage::default() }
    }

    fn asking(memory: &str, priority: i32) -> Pod {
        pod(
            json!({"priority": priority, "containers": [{"name": "a", "resources": {"requests": {"memory": memory}}}]}),
        )
    }

    #[test]
    fn above_its_request_then_low_priority_then_far_above() {
        let met =
            Met { signal: Signal::MemoryAvailable, threshold: 100 << 20, available: 1 << 20, soft: false };
        let first = |pods: &[(Pod, u64)]| {
            let candidates: Vec<_> =
                pods.iter().map(|(pod, memory)| Candidate { pod, usage: using(*memory) }).collect();
            choose(&candidates, &met, None).map(|(index, _)| index)
        };
        assert_eq!(first(&[(asking("100Mi", 0), 90), (asking("10Mi", 5), 11)]), Some(1));
        assert_eq!(first(&[(asking("0", 5), 90), (asking("0", 1), 11)]), Some(1));
        assert_eq!(first(&[(asking("0", 1), 11), (asking("50Mi", 1), 90)]), Some(1));
        assert_eq!(first(&[(asking("0", CRITICAL_PRIORITY), 900)]), None);
        let pod = asking("10Mi", 0);
        let victim = [Candidate { pod: &pod, usage: using(64) }];
        let (_, eviction) = choose(&victim, &met, None).unwrap();
        assert_eq!((eviction.grace, eviction.signal), (Some(IMMEDIATELY), "memory.available"));
        let most = Some(Duration::from_secs(90));
        let soft = choose(&victim, &Met { soft: true, ..met.clone() }, most).unwrap();
        assert_eq!(soft.1.grace, most);
        assert_eq!(
            eviction.message,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 1Mi. \
             Container a was using 64Mi, request is 10Mi, has larger consumption of memory. "
        );
    }

    #[test]
    fn local_limits() {
        let pod = pod(
            json!({"containers": [{"name": "a", "resources": {"limits": {"ephemeral-storage": "10Mi"}}}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "4Mi"}}]}),
        );
        assert!(has_local_limits(&pod));
        let judge = |written: u64, volume: u64| {
            let usage = Usage {
                written: [("a".to_owned(), written << 20)].into(),
                empty_dirs: [("v".to_owned(), volume << 20)].into(),
                ..Usage::default()
            };
            exceeds_local_limits(&Candidate { pod: &pod, usage }).map(|eviction| eviction.message)
        };
        assert_eq!(judge(1, 4), None);
        assert_eq!(judge(0, 5).unwrap(), "Usage of EmptyDir volume \"v\" exceeds the limit \"4Mi\". ");
        assert_eq!(
            judge(8, 3).unwrap(),
            "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "
        );
    }
}
