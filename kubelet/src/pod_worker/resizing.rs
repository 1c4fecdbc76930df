//! In-place resize: what the pod is given, and the change of containers that run.

use std::sync::Arc;

use client::EventType;
use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::{ContainerResources, ContainerState, PodView};

use super::{Worker, grouping::Grouped};
use crate::pod::{
    all_containers, latest_run,
    resize::{self, Resize},
    uid,
};

impl Worker {
    /// The pod as this node gives it: with the resources that it was given before where what it asks for does not fit.
    pub(super) fn allocate(&mut self, pod: &Arc<Pod>) -> Arc<Pod> {
        let outcome = self.context.admission.lock().resize(pod);
        match outcome {
            Ok(()) => {
                self.resize_pending = None;
                Arc::clone(pod)
            }
            Err((reason, message, allocated)) => {
                if self.resize_pending.as_ref().is_none_or(|(known, _)| *known != reason) {
                    let text = format!("Pod resize {reason}: {message}");
                    self.context.events.pod(pod, EventType::Warning, &format!("Resize{reason}"), &text);
                }
                self.resize_pending = Some((reason, message));
                Arc::new(resize::with_resources(pod, &allocated))
            }
        }
    }

    /// Gives running containers other limits.
    pub(super) async fn resize(&mut self, pod: &Pod, wanted: &[(String, u32, ContainerResources)]) {
        if wanted.is_empty() {
            return;
        }
        self.resize_error = None;
        for (name, attempt, resources) in wanted {
            let text = format!("Container {name} is resized in place");
            self.context.events.container(pod, name, EventType::Normal, "ResizeStarted", &text);
            let done = self.context.runtime.resize_container(uid(pod), name, *attempt, resources).await;
            match done {
                Ok(()) => {
                    let text = format!("Container {name} was resized");
                    self.context.events.container(pod, name, EventType::Normal, "ResizeCompleted", &text);
                }
                Err(error) => {
                    let text = format!("Container {name} could not be resized: {error}");
                    self.context.events.container(pod, name, EventType::Warning, "ResizeError", &text);
                    self.resize_error = Some(text);
                }
            }
            self.resized.insert(name.clone(), (*attempt, *resources));
        }
    }

    /// Whether a container or the pod as a whole does not have what the pod was given, and what went wrong.
    pub(super) fn resizing(&self, pod: &Pod, view: Option<&PodView>) -> Option<Option<String>> {
        let of_pod = self.grouped.as_ref().is_some_and(Grouped::is_changing);
        (of_pod || has_unsettled(pod, view)).then(|| self.resize_error.clone())
    }
}

/// Whether a running container does not have what its pod was given.
pub(super) fn has_unsettled(pod: &Pod, view: Option<&PodView>) -> bool {
    all_containers(pod).any(|container| {
        latest_run(view, &container.name).is_some_and(|run| {
            matches!(run.state, ContainerState::Running { .. })
                && resize::decide(pod, container, run.resources.as_ref()) != Resize::Settled
        })
    })
}
