//! In-place resize: what the pod is given, and the change of containers that run.

use std::{collections::BTreeMap, sync::Arc};

use client::EventType;
use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::{ContainerResources, ContainerState, PodView, usage::PodUsage};
use tokio::time::Instant;

use super::{RESIZE_RETRY, Worker, grouping::Grouped};
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

    /// Gives running containers other limits. What fails is tried again after a while.
    pub(super) async fn resize(
        &mut self,
        pod: &Pod,
        view: Option<&PodView>,
        wanted: &[(String, u32, ContainerResources)],
    ) {
        if wanted.is_empty() {
            return;
        }
        let failed_before = self.resize_error.take();
        let too_small = self.too_small(pod, view, wanted).await;
        for (name, attempt, resources) in wanted {
            if failed_before.is_none() {
                let text = format!("Container {name} is resized in place");
                self.context.events.container(pod, name, EventType::Normal, "ResizeStarted", &text);
            }
            let done = match too_small.get(name) {
                Some(text) => Err(text.clone()),
                None => {
                    let runtime = &self.context.runtime;
                    let done = runtime.resize_container(uid(pod), name, *attempt, resources).await;
                    done.map_err(|error| error.to_string())
                }
            };
            match done {
                Ok(()) => {
                    let text = format!("Container {name} was resized");
                    self.context.events.container(pod, name, EventType::Normal, "ResizeCompleted", &text);
                }
                Err(error) => {
                    let text = format!("Container {name} could not be resized: {error}");
                    if failed_before.as_ref() != Some(&text) {
                        self.context.events.container(pod, name, EventType::Warning, "ResizeError", &text);
                    }
                    self.resize_error = Some(text);
                    self.resize_again = Instant::now() + RESIZE_RETRY;
                }
            }
            self.resized.insert(name.clone(), (*attempt, *resources));
        }
    }

    /// Containers that use more memory than they are to have, and that in words. The kernel would refuse the limit, or
    /// end them. Rule and texts are upstream's (`validateMemoryResizeAction` of `pkg/kubelet/kuberuntime`).
    async fn too_small(
        &self,
        pod: &Pod,
        view: Option<&PodView>,
        wanted: &[(String, u32, ContainerResources)],
    ) -> BTreeMap<String, String> {
        let shrinking: Vec<(&str, u64)> = wanted
            .iter()
            .filter_map(|(name, _, resources)| {
                let limit = resources.memory_limit?;
                let had = latest_run(view, name)?.resources.as_ref()?.memory_limit;
                let limit = u64::try_from(limit).ok().filter(|_| had.is_none_or(|had| limit < had))?;
                Some((name.as_str(), limit))
            })
            .collect();
        if shrinking.is_empty() {
            return BTreeMap::new();
        }
        let used = self.usage(pod).await;
        let used = |name: &str| {
            let container = used.as_ref()?.containers.iter().find(|container| container.name == name)?;
            Some(container.usage.memory.usage)
        };
        let too_small = shrinking.into_iter().filter_map(|(name, limit)| {
            let used = used(name).filter(|used| *used >= limit)?;
            let text = format!(
                "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
            );
            Some((name.to_owned(), text))
        });
        too_small.collect()
    }

    /// Whether the pod as a whole uses less than it is to have.
    pub(super) async fn has_room(&self, pod: &Pod, limit: Option<i64>) -> Result<(), String> {
        let Some(limit) = limit.and_then(|bytes| u64::try_from(bytes).ok()) else { return Ok(()) };
        let usage = self.usage(pod).await;
        let used = usage.and_then(|usage| usage.group).map(|group| group.usage.memory.usage);
        match used.filter(|used| *used >= limit) {
            Some(used) => {
                Err(format!("attempting to set pod memory limit ({limit}) below current usage ({used})"))
            }
            None => Ok(()),
        }
    }

    /// What the pod uses; `None` where that cannot be told, and the kernel has the last word.
    async fn usage(&self, pod: &Pod) -> Option<PodUsage> {
        match self.context.runtime.usage().await {
            Ok(all) => all.pods.into_iter().find(|usage| usage.pod.uid == uid(pod)),
            Err(error) => {
                tracing::debug!("what pods use cannot be told: {error}");
                None
            }
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
                && resize::decide(pod, container, run) != Resize::Settled
        })
    })
}
