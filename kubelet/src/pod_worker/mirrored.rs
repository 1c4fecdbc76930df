//! A static pod's copy in the API: kept there, written to, and taken away with it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::Value;
use tokio::time::timeout;

use super::Worker;
use crate::{
    pod::{described, name, namespace, status::Object, uid},
    static_pods::mirror::{Mirror, Step, create, decide, is_static, remove},
};

/// How long the API server may take over a mirror pod: the pod itself waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

impl Worker {
    /// Sees to the mirror pod of a static pod. A failure (there need not be an API server) costs the pod nothing:
    /// the next look tries again. `false` if it has to.
    pub(super) async fn keep_mirror(&mut self, pod: &Pod) -> bool {
        if !is_static(pod) {
            return true;
        }
        // Until there is a node that could own the copy, there is nobody who could be told; its registration wakes us.
        let Some(node) = self.context.registered.borrow().clone() else { return true };
        let mirror = self.mirror.lock().clone();
        let outcome = match (decide(mirror.as_ref(), uid(pod)), mirror) {
            (Step::Create, _) => {
                let Some(bytes) = &self.object else { return true };
                let Ok(object) = serde_json::from_slice::<Value>(bytes) else { return true };
                timeout(PATIENCE, create(&self.context.client, &object, &node.uid)).await
            }
            (Step::Remove, Some(Mirror { uid, .. })) => {
                timeout(PATIENCE, remove(&self.context.client, namespace(pod), name(pod), &uid)).await
            }
            (_, mirror) => {
                // A new copy is told what the one before knew; a pod that has ended says it only once.
                let fresh = mirror.is_some_and(|mirror| self.mirrored.as_ref() != Some(&mirror.uid));
                if let Some(status) = self.status.clone().filter(|_| fresh && self.finished) {
                    self.publish_to_mirror(pod, &status);
                }
                return true;
            }
        };
        match outcome {
            Ok(Ok(())) => true,
            Err(_) => {
                tracing::warn!(
                    pod = described(pod),
                    "the mirror pod cannot be kept: the server does not answer"
                );
                false
            }
            Ok(Err(error)) => {
                let why = client::error::chain(&error);
                tracing::warn!(pod = described(pod), "the mirror pod cannot be kept: {why}");
                false
            }
        }
    }

    /// Hands a static pod's status over for its mirror pod, if there is one.
    pub(super) fn publish_to_mirror(&mut self, pod: &Pod, status: &PodStatus) {
        let mirror = self.mirror.lock().clone();
        let Some(mirror) = mirror.filter(|mirror| decide(Some(mirror), uid(pod)) == Step::Keep) else {
            return;
        };
        if let Some(before) = self.mirrored.replace(mirror.uid.clone())
            && before != mirror.uid
        {
            self.context.statuses.forget(&before);
        }
        let object = Object { uid: &mirror.uid, namespace: namespace(pod), name: name(pod) };
        self.context.statuses.set(&object, || mirror.status.clone(), status, false);
    }

    /// The static pod is gone: so is its copy.
    pub(super) async fn end_mirror(&mut self, pod: &Pod) {
        let mirror = self.mirror.lock().clone();
        let Some(mirror) = mirror.filter(|mirror| is_static(pod) && mirror.hash == uid(pod)) else { return };
        self.context.statuses.forget(&mirror.uid);
        if let Err(error) = remove(&self.context.client, namespace(pod), name(pod), &mirror.uid).await {
            // The manager takes away what mirrors nothing, when it next hears of it.
            tracing::warn!(pod = described(pod), "a mirror pod stays: {}", client::error::chain(&error));
        }
    }
}
