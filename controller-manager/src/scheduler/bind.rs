//! The only part of the scheduler that writes: bindings, events, and the `PodScheduled` condition.

use std::sync::Arc;

use api_objects::{Resource, time::rfc3339};
use client::{Client, Error, EventType, Key, ObjectRef, PatchType, Recorder};
use jiff::Timestamp;
use serde_json::json;

use super::snapshot::PodInfo;

/// Writes what was decided.
#[derive(Clone)]
pub struct Binder {
    pub(super) client: Client,
    pub(super) recorder: Recorder,
    pub(super) pods: Arc<Resource>,
}

impl Binder {
    fn about(key: &Key, pod: &PodInfo) -> ObjectRef {
        ObjectRef {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: pod.uid.clone(),
            field_path: String::new(),
        }
    }

    /// Gives a pod its node.
    pub(super) async fn bind(&self, key: &Key, pod: &PodInfo, node: &str) -> Result<(), Error> {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "name": &*key.name, "namespace": &*key.namespace, "uid": pod.uid },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        self.client.create_subresource(&self.pods, &key.namespace, &key.name, "binding", &binding).await?;
        let message = format!("Successfully assigned {key} to {node}");
        self.recorder.event(&Self::about(key, pod), EventType::Normal, "Scheduled", message);
        Ok(())
    }

    /// Says why a pod has no node. Nothing is written if it stands there already.
    pub(super) async fn report(
        &self,
        key: &Key,
        pod: &PodInfo,
        reason: &str,
        message: &str,
    ) -> Result<(), Error> {
        let known = pod.waiting_for.as_ref();
        if known
            .is_some_and(|(known_reason, known_message)| known_reason == reason && known_message == message)
        {
            return Ok(());
        }
        if reason != GATED {
            self.recorder.event(&Self::about(key, pod), EventType::Warning, "FailedScheduling", message);
        }
        let patch = json!({ "metadata": { "uid": pod.uid }, "status": { "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "observedGeneration": pod.generation,
            "lastTransitionTime": rfc3339(Timestamp::now()) }] } });
        let patched = self
            .client
            .patch(&self.pods, &key.namespace, &key.name, Some("status"), PatchType::Strategic, &patch)
            .await;
        match patched {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The reason of a pod that waits for its scheduling gates.
pub(super) const GATED: &str = "SchedulingGated";
/// The reason of a pod that no node can take.
pub(super) const UNSCHEDULABLE: &str = "Unschedulable";
/// The reason of a pod whose binding failed.
pub(super) const ERROR: &str = "SchedulerError";
