//! Pure decisions about a pod: no IO, no clock, no tokio.
//!
//! A worker observes (runtime, API object, probe results), asks these modules what to do and what to report,
//! and carries it out. Restart, back-off, probes and hooks are decided here, once, for every runtime.

pub mod account;
pub mod admit;
pub mod downward;
pub mod env_file;
pub mod environment;
mod ephemeral;
pub mod garbage;
pub mod group;
pub mod identity;
pub mod phase;
pub mod plan;
pub mod probes;
pub mod resize;
pub mod resources;
pub mod restart;
pub mod security;
pub mod status;
pub mod supported;
pub mod sysctls;
pub mod volume_mounts;

#[cfg(test)]
pub(crate) mod testing;

pub use ephemeral::{any_container, ephemeral_containers, is_ephemeral, plain, target};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use kubelet_runtime::{ContainerView, PodIdentity, PodView};

/// Annotation of a container: hash of the part of its spec whose change restarts it.
pub const HASH_ANNOTATION: &str = "io.kubernetes.container.hash";
/// Annotation of a container: the attempt of the sandbox that it was started in.
pub const SANDBOX_ANNOTATION: &str = "io.minik8s.sandbox.attempt";

/// The pod's identity for the runtime.
#[must_use]
pub fn identity(pod: &Pod) -> PodIdentity {
    PodIdentity { uid: uid(pod).to_owned(), namespace: namespace(pod).to_owned(), name: name(pod).to_owned() }
}

/// `metadata.uid`.
#[must_use]
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `metadata.namespace`.
#[must_use]
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `metadata.name`.
#[must_use]
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// How upstream's messages name a pod: `name_namespace(uid)` (`pkg/kubelet/util/format`).
#[must_use]
pub fn described(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// The spec; an object without one (impossible past validation) reads as an empty one.
#[must_use]
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// The init containers in order.
#[must_use = "an iterator does nothing by itself"]
pub fn init_containers(pod: &Pod) -> impl DoubleEndedIterator<Item = &Container> {
    spec(pod).init_containers.iter().flatten()
}

/// Init containers, then the others, in listed order.
pub fn all_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    init_containers(pod).chain(&spec(pod).containers)
}

/// Whether a pod has come to its end, by what its status says.
#[must_use]
pub fn has_ended(pod: &Pod) -> bool {
    is_terminal(pod.status.as_ref())
}

/// Whether that is the status of a pod that has come to its end.
#[must_use]
pub fn is_terminal(status: Option<&PodStatus>) -> bool {
    let phase = status.and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The container of that name, of either list.
#[must_use]
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    all_containers(pod).find(|container| container.name == name)
}

/// Whether an init container is a sidecar: it keeps running beside the others (KEP-753).
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether that name is one of the init containers.
#[must_use]
pub fn is_init(pod: &Pod, name: &str) -> bool {
    init_containers(pod).any(|container| container.name == name)
}

/// The newest run of a container.
#[must_use]
pub fn latest_run<'a>(view: Option<&'a PodView>, name: &str) -> Option<&'a ContainerView> {
    view?.containers.iter().filter(|run| run.name == name).max_by_key(|run| run.attempt)
}

/// The grace that a deletion in progress gives, or what the spec gives. Never negative.
#[must_use]
pub fn grace_seconds(pod: &Pod) -> i64 {
    pod.metadata
        .deletion_grace_period_seconds
        .or_else(|| spec(pod).termination_grace_period_seconds)
        .unwrap_or(30)
        .max(0)
}

/// Reads a runtime's RFC 3339 time; `None` for the empty or zero time of what never happened.
#[must_use]
pub fn parse_time(text: &str) -> Option<Timestamp> {
    if text.is_empty() || text.starts_with("0001-") {
        return None;
    }
    text.parse().ok()
}

/// Cuts a time to whole seconds, the precision of `metav1.Time`.
#[must_use]
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
