//! In-place resize: what the pod is given, and the change of containers that run.

use std::{collections::BTreeMap, sync::Arc};

use client::EventType;
use k8s_openapi::api::core::v1::{Container, Pod};
use kubelet_runtime::{ContainerResources, ContainerState, PodView};
use tokio::time::Instant;

use super::{RESIZE_RETRY, Worker, grouping::Grouped};
use crate::pod::{
    all_containers, any_container, described, latest_run,
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
        let room = self.has_room(pod, view, wanted).await;
        for (name, attempt, resources) in wanted {
            let failed_before = self.resize_failures.remove(name).is_some();
            let is_retry = failed_before && self.resized.get(name) == Some(&(*attempt, *resources));
            if !is_retry {
                let text = format!("Container {name} is resized in place");
                self.context.events.container(pod, name, EventType::Normal, "ResizeStarted", &text);
            }
            let done = match &room {
                Err(text) => Err(text.clone()),
                Ok(()) => {
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
                    if !is_retry {
                        self.context.events.container(pod, name, EventType::Warning, "ResizeError", &text);
                    }
                    self.resize_failures.insert(name.clone(), Failure::now(text));
                }
            }
            self.resized.insert(name.clone(), (*attempt, *resources));
        }
    }

    /// Whether pod and containers use less memory than they are to have, where that is less than before. The kernel would
    /// refuse the limit, or end them. Rule and texts are upstream's (`validateMemoryResizeAction` of
    /// `pkg/kubelet/kuberuntime`).
    pub(super) async fn has_room(
        &self,
        pod: &Pod,
        view: Option<&PodView>,
        wanted: &[(String, u32, ContainerResources)],
    ) -> Result<(), String> {
        let bytes = |limit: i64| u64::try_from(limit).ok();
        let of_pod = self.grouped.as_ref().and_then(Grouped::shrinks_to).and_then(bytes);
        let shrinking: Vec<(&str, u64)> = wanted
            .iter()
            .filter_map(|(name, _, resources)| {
                let limit = resources.memory_limit?;
                let had = latest_run(view, name)?.resources.as_ref()?.memory_limit;
                Some((name.as_str(), bytes(limit)?)).filter(|_| had.is_none_or(|had| limit < had))
            })
            .collect();
        if of_pod.is_none() && shrinking.is_empty() {
            return Ok(());
        }
        let all = self.context.runtime.usage().await;
        let all = all.map_err(|error| format!("unable to read memory usage for pod: {error}"))?;
        let usage = all.pods.iter().find(|usage| usage.pod.uid == uid(pod));
        let mut found = Vec::new();
        if let Some(limit) = of_pod {
            match usage.and_then(|usage| usage.group.as_ref()).map(|group| group.usage.memory.usage) {
                None => found.push("missing pod memory usage".to_owned()),
                Some(used) if used >= limit => found.push(format!(
                    "attempting to set pod memory limit ({limit}) below current usage ({used})"
                )),
                Some(_) => {}
            }
        }
        for (name, limit) in shrinking {
            let containers = usage.map(|usage| usage.containers.as_slice()).unwrap_or_default();
            let container = containers.iter().find(|container| container.name == name);
            match container.map(|container| container.usage.memory.usage) {
                None => found.push(format!("missing container {name:?} memory usage")),
                Some(used) if used >= limit => found.push(format!(
                    "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
                )),
                Some(_) => {}
            }
        }
        match found.as_slice() {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            several => Err(format!("cannot decrease memory limits: [{}]", several.join(", "))),
        }
    }

    /// Lets the pod's group have exactly what the pod was given, once its containers have.
    pub(super) async fn settle_resize(&mut self, pod: &Pod, view: Option<&PodView>) {
        self.resize_failures.retain(|name, _| {
            name == OF_POD
                || any_container(pod, name).is_some_and(|container| is_unsettled(pod, &container, view))
        });
        let is_due = self.resize_failures.get(OF_POD).is_none_or(Failure::is_due);
        if has_unsettled(pod, view) || !is_due {
            return;
        }
        match self.settle_group(pod).await {
            Ok(()) => drop(self.resize_failures.remove(OF_POD)),
            Err(error) => {
                tracing::warn!(
                    pod = described(pod),
                    "the pod's control group stays as it is for now: {error}"
                );
                self.resize_failures.insert(OF_POD.to_owned(), Failure::now(error));
            }
        }
    }

    /// What containers were resized to, for as long as that is not to be tried again.
    pub(super) fn resized(&self) -> BTreeMap<String, (u32, ContainerResources)> {
        let mut resized = self.resized.clone();
        resized.retain(|name, _| !self.resize_failures.get(name).is_some_and(Failure::is_due));
        resized
    }

    /// Whether a container or the pod as a whole does not have what the pod was given, and what went wrong.
    pub(super) fn resizing(&self, pod: &Pod, view: Option<&PodView>) -> Option<Option<String>> {
        let of_pod = self.grouped.as_ref().is_some_and(Grouped::is_changing);
        (of_pod || has_unsettled(pod, view)).then(|| {
            let texts: Vec<&str> =
                self.resize_failures.values().map(|failure| failure.text.as_str()).collect();
            Some(texts.join("; ")).filter(|text| !text.is_empty())
        })
    }
}

/// Stands for the pod as a whole where failures are told by container.
pub(super) const OF_POD: &str = "";

/// A resize that went wrong.
#[derive(Debug)]
pub(super) struct Failure {
    text: String,
    again: Instant,
}

impl Failure {
    fn now(text: String) -> Self {
        Self { text, again: Instant::now() + RESIZE_RETRY }
    }

    /// Whether it is to be tried again.
    fn is_due(&self) -> bool {
        Instant::now() >= self.again
    }
}

/// Whether a running container does not have what its pod was given.
fn has_unsettled(pod: &Pod, view: Option<&PodView>) -> bool {
    all_containers(pod).any(|container| is_unsettled(pod, container, view))
}

fn is_unsettled(pod: &Pod, container: &Container, view: Option<&PodView>) -> bool {
    latest_run(view, &container.name).is_some_and(|run| {
        matches!(run.state, ContainerState::Running { .. })
            && resize::decide(pod, container, run) != Resize::Settled
    })
}
