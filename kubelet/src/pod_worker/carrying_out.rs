//! Carries out what was planned, step by step.

use std::{collections::BTreeMap, sync::Arc};

use client::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::PodView;
use serde_json::Value;

use super::{
    Worker, lifecycle,
    start::{Ground, start},
    stop::{self, stop_container},
};
use crate::pod::{
    self, any_container, is_ephemeral, is_init,
    plan::{Plan, backoff_key, newest_sandbox},
};

impl Worker {
    /// Carries a plan out and gives the view after it.
    pub(super) async fn carry_out(
        &mut self,
        pod: &Arc<Pod>,
        view: Option<PodView>,
        decided: &Plan,
    ) -> Result<Option<PodView>, String> {
        let mut view = view;
        if let (Some(last), Some(known)) = (&decided.restart_all, &view) {
            self.probes.stop();
            stop::clear(&self.context, pod, known, last).await?;
            self.waiting.clear();
            return self.observe(pod).await;
        }
        if decided.reset
            && let Some(known) = &view
        {
            let text = "Pod sandbox changed, it will be killed and re-created.";
            self.context.events.pod(pod, EventType::Normal, "SandboxChanged", text);
            self.probes.stop();
            stop::stop_all(&self.context, pod, known, lifecycle::grace_of(pod)).await;
            self.release_network(pod).await?;
            return self.observe(pod).await;
        }
        if let Some(attempt) = decided.create_sandbox {
            if view.is_some() {
                self.release_network(pod).await?;
            }
            let sandbox = self.make_sandbox(pod, attempt).await?;
            view.get_or_insert_with(|| PodView {
                pod: pod::identity(pod),
                sandboxes: vec![],
                containers: vec![],
            })
            .sandboxes
            .insert(0, sandbox);
        } else {
            self.ensure_ground(pod, view.as_ref()).await?;
        }
        for kill in &decided.kill {
            let run = view
                .iter()
                .flat_map(|view| &view.containers)
                .find(|run| run.name == kill.name && run.attempt == kill.attempt);
            if let Some(run) = run {
                let grace = lifecycle::kill_grace(pod, kill);
                stop_container(&self.context, pod, run, &kill.message, grace).await;
            }
        }
        self.resize(pod, view.as_ref(), &decided.resize).await;
        if !decided.kill.is_empty() || !decided.resize.is_empty() {
            return self.observe(pod).await;
        }
        if !decided.start.is_empty() {
            self.publish(pod, view.as_ref(), false);
        }
        for wanted in &decided.start {
            if !self.is_current(pod) {
                break;
            }
            let Some(container) = any_container(pod, &wanted.name) else { continue };
            let container = container.as_ref();
            let sandbox = newest_sandbox(view.as_ref()).map_or(0, |sandbox| sandbox.attempt);
            let around = self.around(pod);
            let files = self.files(pod);
            let none = BTreeMap::new();
            let volumes = self.volumes.as_ref().map_or(&none, |(paths, _)| paths);
            let unsupported = self.unsupported_ephemeral(pod, &wanted.name);
            let ground = Ground {
                volumes,
                files: &files,
                around: &around,
                sandbox,
                view: view.as_ref(),
                unsupported: unsupported.as_deref(),
            };
            let now = Timestamp::now();
            let result = start(&self.context, pod, container, wanted, &ground).await;
            let failure = result.as_ref().err().map(|failure| failure.waiting.reason.as_str());
            self.context.measures.containers.started(pod, &wanted.name, failure);
            if let Some(ended) = wanted.after_end {
                self.backoff.advance(&backoff_key(container), ended, now);
            }
            match result {
                Ok(run) => {
                    self.waiting.remove(&wanted.name);
                    if let Some(view) = &mut view {
                        view.containers.retain(|old| old.id != run.id);
                        view.containers.insert(0, run);
                    }
                    self.publish(pod, view.as_ref(), false);
                }
                Err(failure) => {
                    let not_before = Timestamp::now() + failure.retry_in;
                    self.waiting.insert(wanted.name.clone(), (failure.waiting, not_before));
                    if failure.left_container {
                        view = self.observe(pod).await?;
                    }
                    self.publish(pod, view.as_ref(), false);
                    if is_init(pod, &wanted.name) {
                        break;
                    }
                }
            }
        }
        Ok(view)
    }

    /// The field of an ephemeral container that is not supported: the pod was taken before it was added.
    fn unsupported_ephemeral(&self, pod: &Pod, name: &str) -> Option<String> {
        if !is_ephemeral(pod, name) {
            return None;
        }
        let object: Value = serde_json::from_slice(self.object.as_ref()?).ok()?;
        pod::supported::first_unsupported_ephemeral(object.get("spec")?, name)
    }
}
