//! The end of a pod: termination with its grace, the final status, and what is cleaned up when.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::{ContainerState, LogOptions, PodView};

use super::{RESYNC, Worker, parse, stop};
use crate::{
    context::Context,
    pod::{
        container, grace_seconds,
        plan::{Kill, Unhealthy, newest_sandbox},
        uid,
    },
};

/// Lines and bytes of a log that stand in for a missing termination message (upstream's limits).
const TAIL_LINES: u64 = 80;
const TAIL_BYTES: usize = 2048;
/// Least grace of a pod that vanished from the API: its containers get the chance to end.
const FORCED_GRACE: Duration = Duration::from_secs(2);

impl Worker {
    /// Stops a pod for good and reports how it ended. With `delete` the object goes once that is written.
    pub(super) async fn terminate(&mut self, pod: &Arc<Pod>, delete: bool) -> Result<Duration, String> {
        if delete {
            self.probes.stop_all_but_readiness();
        } else {
            self.probes.stop();
        }
        let view = self.observe(pod).await?;
        if let Some(known) = &view
            && has_running(known)
        {
            self.publish(pod, view.as_ref(), false);
            self.stop_everything(pod, known).await;
            let after = self.observe(pod).await?;
            if after.as_ref().is_some_and(has_running) {
                return Err("some containers are still running after their grace period".to_owned());
            }
            return Box::pin(self.wind_up(pod, after, delete)).await;
        }
        Box::pin(self.wind_up(pod, view, delete)).await
    }

    /// All containers have stopped: the sandbox, the network and the volumes go, and the last status is sent.
    async fn wind_up(
        &mut self,
        pod: &Arc<Pod>,
        view: Option<PodView>,
        delete: bool,
    ) -> Result<Duration, String> {
        self.probes.stop();
        if let Some(sandbox) = newest_sandbox(view.as_ref())
            && sandbox.ready
        {
            let stopped = self.context.runtime.stop_sandbox(uid(pod), sandbox.attempt).await;
            stopped.map_err(|error| format!("cannot stop the sandbox: {error}"))?;
        }
        self.release_network(pod).await?;
        self.remove_group(pod).await?;
        let view = self.observe(pod).await?;
        self.finished = true;
        self.waiting.clear();
        // Messages have been read; what is left of the pod's directory is of no use to anyone.
        self.context.volumes.tear_down(uid(pod)).await?;
        self.volumes = None;
        self.files_written = false;
        self.context.images.forget(uid(pod));
        self.publish(pod, view.as_ref(), delete);
        self.evicting = None;
        self.balance().await;
        Ok(RESYNC)
    }

    /// Stops all containers; a deletion with less grace that comes meanwhile shortens the wait.
    async fn stop_everything(&mut self, pod: &Arc<Pod>, view: &PodView) {
        let mut grace = grace_of(pod);
        if let Some(most) = self.evicted.as_ref().and_then(|eviction| eviction.grace) {
            grace = grace.min(most);
        }
        let mut newest = Arc::clone(pod);
        loop {
            let current = Arc::clone(&newest);
            let stopping = stop::stop_all(&self.context, &current, view, grace);
            tokio::pin!(stopping);
            loop {
                tokio::select! {
                    () = &mut stopping => return,
                    () = self.wake.notified() => {}
                }
                let desired = self.inbox.lock().clone();
                let shorter = match desired {
                    super::Desired::Gone => Some((Arc::clone(&newest), FORCED_GRACE)),
                    super::Desired::Object(bytes) => parse(&bytes).ok().map(|pod| {
                        let grace = grace_of(&pod);
                        (Arc::new(pod), grace)
                    }),
                };
                if let Some((pod, wanted)) = shorter
                    && wanted < grace
                {
                    (newest, grace) = (pod, wanted);
                    break;
                }
            }
        }
    }

    /// Gives the pod's address and ports back.
    pub(super) async fn release_network(&mut self, pod: &Pod) -> Result<(), String> {
        let network = self.context.network.borrow().clone();
        if let Some(network) = network {
            network.detach(uid(pod)).await?;
        }
        self.address = None;
        self.files_written = false;
        Ok(())
    }

    /// The pod is gone from the API: whatever is left of it goes too.
    pub(super) async fn clean_up(&mut self, pod: &Arc<Pod>) -> Result<(), String> {
        self.probes.stop();
        // The scheduler counts it no more: what comes in its place must not be refused while this one is being ended
        // (upstream's kubelet counts what the API has, too).
        self.context.admission.lock().release(uid(pod));
        let view = self.context.runtime.pod(uid(pod)).await.map_err(|error| error.to_string())?;
        if let Some(view) = &view
            && has_running(view)
        {
            let grace = grace_of(pod).min(Duration::from_secs(30));
            stop::stop_all(&self.context, pod, view, grace.max(FORCED_GRACE)).await;
        }
        self.release_network(pod).await?;
        if view.is_some() {
            self.context.runtime.remove_pod(uid(pod)).await.map_err(|error| error.to_string())?;
        }
        self.remove_group(pod).await?;
        self.context.volumes.tear_down(uid(pod)).await?;
        self.context.images.forget(uid(pod));
        self.context.statuses.forget(uid(pod));
        self.balance().await;
        Ok(())
    }
}

fn has_running(view: &PodView) -> bool {
    view.containers.iter().any(|run| matches!(run.state, ContainerState::Running { .. }))
}

/// How long the containers of a pod may take to end.
pub(super) fn grace_of(pod: &Pod) -> Duration {
    Duration::from_secs(u64::try_from(grace_seconds(pod)).unwrap_or_default())
}

/// The grace of a single container that is to be replaced: its probe's own, or the pod's.
pub(super) fn kill_grace(pod: &Pod, kill: &Kill) -> Duration {
    let probe = kill.probe.and_then(|which| {
        let container = container(pod, &kill.name)?;
        match which {
            Unhealthy::Liveness => container.liveness_probe.as_ref(),
            Unhealthy::Startup => container.startup_probe.as_ref(),
        }
    });
    match probe.and_then(|probe| probe.termination_grace_period_seconds) {
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        None => grace_of(pod),
    }
}

/// The end of a run's log, for `FallbackToLogsOnError`.
pub(super) async fn log_tail(context: &Context, uid: &str, name: &str, attempt: u32) -> String {
    let options = LogOptions { tail: Some(TAIL_LINES), ..LogOptions::default() };
    let Ok(mut stream) = context.runtime.logs(uid, name, attempt, &options).await else {
        return String::new();
    };
    let mut tail = Vec::new();
    while let Some(Ok(piece)) = stream.next().await {
        tail.extend_from_slice(&piece);
        let excess = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..excess);
    }
    String::from_utf8_lossy(&tail).into_owned()
}
