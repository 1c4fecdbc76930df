//! The pod's control group: there before anything runs in it, as wide as its containers, and gone after them.

use client::EventType;
use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::control_groups::{GroupSettings, Mode};

use super::{Worker, resizing::OF_POD};
use crate::pod::{group::NO_LIMIT, uid};

/// What a group was set to last.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grouped {
    settings: GroupSettings,
    /// Whether that holds exactly, or only as far as limits had to grow.
    mode: Mode,
    /// Whether it was set otherwise before.
    was_changed: bool,
    /// Bytes of memory that it may use until it is set exactly; negative without limit.
    memory_held: i64,
}

impl Grouped {
    /// Whether a change is under way.
    pub(super) fn is_changing(&self) -> bool {
        self.was_changed && self.mode == Mode::Raise
    }

    /// The memory limit that is still to be set, where it is below the one that holds.
    pub(super) fn shrinks_to(&self) -> Option<i64> {
        let limit = self.settings.memory_limit.filter(|limit| *limit >= 0 && self.mode == Mode::Raise)?;
        Some(limit).filter(|limit| self.memory_held < 0 || *limit < self.memory_held)
    }
}

impl Worker {
    /// Makes the group, or lets it grow before its containers do: the kernel lets none have more than its group.
    pub(super) async fn ensure_group(&mut self, pod: &Pod) -> Result<(), String> {
        let Some(settings) = self.context.groups.settings(pod) else { return Ok(()) };
        if self.grouped.as_ref().is_some_and(|known| known.settings == settings) {
            return Ok(());
        }
        let done = self.context.groups.ensure(pod, settings.clone(), Mode::Raise).await;
        done.map_err(|error| {
            // Upstream's reason and words (`pkg/kubelet/kubelet.go`).
            let text = format!("unable to ensure pod container exists: {error}");
            self.context.events.pod(pod, EventType::Warning, "FailedCreatePodContainer", &text);
            text
        })?;
        let was_changed = self.grouped.is_some();
        let limit = settings.memory_limit.unwrap_or(NO_LIMIT);
        // A group that this kubelet has not set before has no containers yet, or is as its predecessor left it.
        let memory_held = match self.grouped.as_ref().map(|known| known.memory_held) {
            Some(held) if held < 0 || limit < 0 => NO_LIMIT,
            Some(held) => held.max(limit),
            None => limit,
        };
        self.resize_failures.remove(OF_POD);
        self.grouped = Some(Grouped { settings, mode: Mode::Raise, was_changed, memory_held });
        self.balance().await;
        Ok(())
    }

    /// Lets the group shrink after its containers have.
    pub(super) async fn settle_group(&mut self, pod: &Pod) -> Result<(), String> {
        let Some(known) = self.grouped.as_ref().filter(|known| known.mode == Mode::Raise) else {
            return Ok(());
        };
        let settings = known.settings.clone();
        self.has_room(pod, None, &[]).await?;
        let limit = settings.memory_limit.unwrap_or(NO_LIMIT);
        self.context.groups.ensure(pod, settings, Mode::Exact).await?;
        if let Some(known) = &mut self.grouped {
            (known.mode, known.memory_held) = (Mode::Exact, limit);
        }
        Ok(())
    }

    /// Nothing of the pod runs any more, or will.
    pub(super) async fn remove_group(&mut self, pod: &Pod) -> Result<(), String> {
        self.context.groups.remove(uid(pod)).await?;
        self.grouped = None;
        Ok(())
    }

    /// What pods ask for together has changed.
    pub(super) async fn balance(&self) {
        let context = &self.context;
        context.groups.balance(|| context.admission.lock().burstable_cpu()).await;
    }
}
