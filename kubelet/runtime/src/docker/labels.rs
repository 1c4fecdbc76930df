//! How pods are written into Docker: container names and labels, and back.
//!
//! Labels are all that survives a restart of the kubelet, so everything that `list` must give back stands in
//! them. The `io.kubernetes.*` names are those that people and tools (Portainer, `docker ps --filter`) know from
//! Kubernetes on Docker; names follow the same custom, `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`.

use std::collections::{BTreeMap, HashMap};

use crate::{ContainerSpec, NetworkMode, PodIdentity, SandboxSpec};

/// Which kubelet a container belongs to: two on one daemon do not see each other's.
pub(super) const NODE: &str = "minik8s.io/node";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's uid.
pub(super) const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Tells sandboxes from containers.
pub(super) const TYPE: &str = "io.kubernetes.docker.type";
/// Value of [`TYPE`] for the pause container.
pub(super) const TYPE_SANDBOX: &str = "podsandbox";
const TYPE_CONTAINER: &str = "container";
/// Value of [`TYPE`] for what an image is unpacked from: no pod's.
pub(super) const TYPE_IMAGE_VOLUME: &str = "image-volume";
const ATTEMPT: &str = "minik8s.io/attempt";
const IMAGE: &str = "minik8s.io/image";
const PID_NAMESPACE: &str = "minik8s.io/pid-namespace";
const IPC_NAMESPACE: &str = "minik8s.io/ipc-namespace";
/// What carries a sandbox, and with it its containers.
const HANDLER: &str = "minik8s.io/runtime-handler";
const ANNOTATION_PREFIX: &str = "annotation.";

/// Where the containers of a sandbox find their PID namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PidNamespace {
    /// Each has its own.
    Own,
    /// The sandbox's.
    Sandbox,
    /// The node's.
    Host,
}

/// The namespaces that a sandbox offers to its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Namespaces {
    /// PID.
    pub(super) pid: PidNamespace,
    /// Whether IPC is the node's.
    pub(super) host_ipc: bool,
}

/// What the labels of one of our containers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Whose.
    pub(super) pod: PodIdentity,
    /// Container name; `None` for a sandbox.
    pub(super) container: Option<String>,
    /// Attempt.
    pub(super) attempt: u32,
    /// Image reference of the spec.
    pub(super) image: String,
    /// Notes of the spec.
    pub(super) annotations: BTreeMap<String, String>,
    /// Of a sandbox.
    pub(super) namespaces: Namespaces,
    /// Of a sandbox: what carries it, if not Docker's usual runtime.
    pub(super) handler: Option<String>,
}

impl From<&SandboxSpec> for Namespaces {
    fn from(spec: &SandboxSpec) -> Self {
        let pid = match (spec.host_pid, spec.share_process_namespace) {
            (true, _) => PidNamespace::Host,
            (false, true) => PidNamespace::Sandbox,
            (false, false) => PidNamespace::Own,
        };
        Self { pid, host_ipc: spec.host_ipc }
    }
}

/// The container's name in Docker. Unique by uid and attempt, so that a second creation is refused there.
pub(super) fn container_name(pod: &PodIdentity, container: Option<&str>, attempt: u32) -> String {
    let container = container.unwrap_or("POD");
    format!("k8s_{container}_{}_{}_{}_{attempt}", pod.name, pod.namespace, pod.uid)
}

/// The labels of a sandbox.
pub(super) fn of_sandbox(node: &str, spec: &SandboxSpec) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = spec.labels.clone().into_iter().collect();
    common(&mut labels, node, &spec.pod, spec.attempt, &spec.annotations);
    let namespaces = Namespaces::from(spec);
    let pid = match namespaces.pid {
        PidNamespace::Own => "own",
        PidNamespace::Sandbox => "sandbox",
        PidNamespace::Host => "host",
    };
    labels.insert(PID_NAMESPACE.into(), pid.into());
    labels.insert(IPC_NAMESPACE.into(), if namespaces.host_ipc { "host" } else { "sandbox" }.into());
    labels.insert(TYPE.into(), TYPE_SANDBOX.into());
    if let Some(handler) = &spec.handler {
        labels.insert(HANDLER.into(), handler.clone());
    }
    labels.insert(CONTAINER_NAME.into(), "POD".into());
    if spec.network == NetworkMode::Host {
        labels.insert("minik8s.io/network-namespace".into(), "host".into());
    }
    labels
}

/// The labels of a container.
pub(super) fn of_container(node: &str, pod: &PodIdentity, spec: &ContainerSpec) -> HashMap<String, String> {
    let mut labels = HashMap::new();
    common(&mut labels, node, pod, spec.attempt, &spec.annotations);
    labels.insert(TYPE.into(), TYPE_CONTAINER.into());
    labels.insert(CONTAINER_NAME.into(), spec.name.clone());
    labels.insert(IMAGE.into(), spec.image.clone());
    labels
}

fn common(
    labels: &mut HashMap<String, String>,
    node: &str,
    pod: &PodIdentity,
    attempt: u32,
    annotations: &BTreeMap<String, String>,
) {
    for (key, value) in annotations {
        labels.insert(format!("{ANNOTATION_PREFIX}{key}"), value.clone());
    }
    labels.insert(NODE.into(), node.into());
    labels.insert(POD_NAME.into(), pod.name.clone());
    labels.insert(POD_NAMESPACE.into(), pod.namespace.clone());
    labels.insert(POD_UID.into(), pod.uid.clone());
    labels.insert(ATTEMPT.into(), attempt.to_string());
}

/// Reads the labels back; `None` if they are not of our making.
pub(super) fn parse(labels: &HashMap<String, String>) -> Option<Identity> {
    let text = |key: &str| labels.get(key).cloned();
    let container = match text(TYPE)?.as_str() {
        TYPE_SANDBOX => None,
        TYPE_CONTAINER => Some(text(CONTAINER_NAME)?),
        _ => return None,
    };
    let pid = match labels.get(PID_NAMESPACE).map(String::as_str) {
        Some("sandbox") => PidNamespace::Sandbox,
        Some("host") => PidNamespace::Host,
        _ => PidNamespace::Own,
    };
    let annotations = labels
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(ANNOTATION_PREFIX)?.to_owned(), value.clone())))
        .collect();
    Some(Identity {
        pod: PodIdentity { uid: text(POD_UID)?, namespace: text(POD_NAMESPACE)?, name: text(POD_NAME)? },
        container,
        attempt: labels.get(ATTEMPT)?.parse().ok()?,
        image: text(IMAGE).unwrap_or_default(),
        annotations,
        namespaces: Namespaces {
            pid,
            host_ipc: labels.get(IPC_NAMESPACE).is_some_and(|value| value == "host"),
        },
        handler: text(HANDLER),
    })
}

/// A Docker filter on labels (and on more, through `further`).
pub(super) fn filter(node: &str, further: &[(&str, &str)]) -> HashMap<String, Vec<String>> {
    let mut labels = vec![format!("{NODE}={node}")];
    let mut filters: HashMap<String, Vec<String>> = HashMap::new();
    for (key, value) in further {
        match *key {
            "status" | "type" | "event" => filters.entry((*key).into()).or_default().push((*value).into()),
            label => labels.push(format!("{label}={value}")),
        }
    }
    filters.insert("label".into(), labels);
    filters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_sandbox_is_read_back_from_its_labels() {
        let mut spec = testing::sandbox_spec("web-1");
        spec.share_process_namespace = true;
        spec.host_ipc = true;
        spec.attempt = 3;
        spec.handler = Some("second".into());
        spec.labels.insert("app".into(), "web".into());
        spec.labels.insert(POD_UID.into(), "forged".into());
        spec.annotations.insert("minik8s.io/pod-address".into(), "10.244.0.5".into());
        let labels = of_sandbox("node-a", &spec);
        assert_eq!(labels["app"], "web");
        let identity = parse(&labels).expect("our own labels must be read back");
        assert_eq!(identity.pod, spec.pod, "a pod's own label cannot replace ours");
        assert_eq!(identity.container, None);
        assert_eq!(identity.handler, spec.handler);
        assert_eq!(identity.attempt, 3);
        assert_eq!(identity.annotations, spec.annotations);
        assert_eq!(identity.namespaces, Namespaces { pid: PidNamespace::Sandbox, host_ipc: true });
    }

    #[test]
    fn a_container_is_read_back_from_its_labels() {
        let pod = testing::pod_identity("web-1");
        let mut spec = testing::container_spec("app", &["sh"]);
        spec.attempt = 7;
        spec.annotations.insert("hash".into(), "abc".into());
        let identity = parse(&of_container("node-a", &pod, &spec)).expect("our own labels must be read back");
        assert_eq!(identity.container.as_deref(), Some("app"));
        assert_eq!((identity.attempt, identity.image), (7, spec.image));
        assert_eq!(identity.annotations, spec.annotations);
    }

    #[test]
    fn foreign_labels_are_not_ours() {
        assert_eq!(parse(&HashMap::new()), None);
        assert_eq!(parse(&HashMap::from([(TYPE.to_owned(), "other".to_owned())])), None);
    }

    #[test]
    fn names_follow_the_custom() {
        let pod = PodIdentity { uid: "u-1".into(), namespace: "default".into(), name: "web".into() };
        assert_eq!(container_name(&pod, None, 0), "k8s_POD_web_default_u-1_0");
        assert_eq!(container_name(&pod, Some("app"), 2), "k8s_app_web_default_u-1_2");
    }
}
