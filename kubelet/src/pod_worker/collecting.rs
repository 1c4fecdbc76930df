//! Takes away what a running pod has left behind, as `pod::garbage` names it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::PodView;

use super::Worker;
use crate::pod::{garbage::garbage, uid};

impl Worker {
    /// Removes what the pod has left behind, beside everything else; what stays for now is found again.
    pub(super) fn collect_garbage(&self, pod: &Arc<Pod>, view: Option<&PodView>) {
        let found = view.map(garbage).unwrap_or_default();
        if found.is_empty() {
            return;
        }
        let (context, files, uid) = (Arc::clone(&self.context), self.files(pod), uid(pod).to_owned());
        self.context.tasks.spawn(async move {
            for (name, attempt) in found.containers {
                if let Err(error) = context.runtime.remove_container(&uid, &name, attempt).await {
                    tracing::debug!(uid, name, attempt, "an old container stays for now: {error}");
                }
                files.forget_message(&name, attempt).await;
            }
            for attempt in found.sandboxes {
                if let Err(error) = context.runtime.remove_sandbox(&uid, attempt).await {
                    tracing::debug!(uid, attempt, "an old sandbox stays for now: {error}");
                }
            }
        });
    }
}
