//! Events about pods and this node, in upstream's words and with upstream's reasons.

use client::{EventType, ObjectRef, Recorder};
use k8s_openapi::api::core::v1::Pod;

use crate::pod::{is_ephemeral, is_init, name, namespace, uid};

/// Records events.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: Recorder,
}

impl Events {
    /// Through a recorder.
    #[must_use]
    pub(crate) fn new(recorder: Recorder) -> Self {
        Self { recorder }
    }

    /// About a pod as a whole.
    pub(crate) fn pod(&self, pod: &Pod, kind: EventType, reason: &str, message: &str) {
        self.recorder.event(&reference(pod, ""), kind, reason, message);
    }

    /// About one container of a pod.
    pub(crate) fn container(&self, pod: &Pod, container: &str, kind: EventType, reason: &str, message: &str) {
        let list = match container {
            name if is_init(pod, name) => "initContainers",
            name if is_ephemeral(pod, name) => "ephemeralContainers",
            _ => "containers",
        };
        self.recorder.event(&reference(pod, &format!("spec.{list}{{{container}}}")), kind, reason, message);
    }

    /// About the node. Upstream refers to nodes by name in the uid, and so does `kubectl describe node`.
    pub(crate) fn node(&self, node: &str, kind: EventType, reason: &str, message: &str) {
        let reference = ObjectRef {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            namespace: String::new(),
            name: node.to_owned(),
            uid: node.to_owned(),
            field_path: String::new(),
        };
        self.recorder.event(&reference, kind, reason, message);
    }
}

fn reference(pod: &Pod, field_path: &str) -> ObjectRef {
    ObjectRef {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        namespace: namespace(pod).to_owned(),
        name: name(pod).to_owned(),
        uid: uid(pod).to_owned(),
        field_path: field_path.to_owned(),
    }
}
