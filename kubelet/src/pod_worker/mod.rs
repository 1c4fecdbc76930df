//! One worker per pod uid: observes, asks the pure decisions, carries them out, reports, waits.
//!
//! A worker has one inbox that always holds the newest desired state, so nothing piles up: a change of the
//! object, a hint of the runtime, a probe's result and a timer all only wake it, and it looks at the world
//! afresh. It never trusts what it remembers over what the runtime shows; the little that it keeps (back-off,
//! waiting reasons, probe counts) may be lost with the process without harm.
//!
//! Life: admitted → running ⇄ restarting → terminating (deletion, deadline, completion) → terminated → gone.

mod actions;
mod carrying_out;
mod collecting;
mod files;
mod ground;
mod grouping;
mod health_check;
mod image_volumes;
mod lifecycle;
mod mirrored;
mod probing;
mod publishing;
mod resizing;
mod start;
mod stop;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use client::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kubelet_runtime::{ContainerResources, ContainerState, PodView};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    context::Context,
    measures::Turn,
    pod::{
        self, all_containers, any_container, described, is_terminal, latest_run, parse_time,
        plan::{self, Plan, backoff_key, newest_sandbox, plan},
        restart::BackOff,
        spec,
        status::{Verdict, Waiting},
        uid,
    },
    pressure::victims::Eviction,
    static_pods::mirror::Mirror,
};
use grouping::Grouped;
use probing::{Before, Probes};

/// A worker looks at its pod at least this often, should a hint ever get lost.
const RESYNC: Duration = Duration::from_secs(300);
/// Rounds of plan and action in one go; then others get their turn.
const ROUNDS: usize = 16;
/// How long a pod waits for the network of a node that starts before it says so.
const NETWORK_PATIENCE: Duration = Duration::from_secs(5);
/// Wait before a resize that did not fit, or failed, is tried again.
const RESIZE_RETRY: Duration = Duration::from_secs(30);
/// Wait before a mirror pod that could not be made or taken away is tried again.
const MIRROR_RETRY: Duration = Duration::from_secs(10);
/// Wait after a failure of the runtime or of a volume: doubled up to two minutes.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(122);

/// What a pod should be.
#[derive(Debug, Clone)]
pub(crate) enum Desired {
    /// The object as the API has it.
    Object(Bytes),
    /// The object is gone.
    Gone,
}

/// An eviction and what tells, once it is dropped, that the pod has come to its end.
type EvictionSlot = Arc<Mutex<Option<(Eviction, DropGuard)>>>;

/// The way to a worker.
#[derive(Clone)]
pub(crate) struct Handle {
    inbox: Arc<Mutex<Desired>>,
    /// What the API has of a static pod.
    mirror: Arc<Mutex<Option<Mirror>>>,
    /// Set once the node cannot keep the pod; taken by the worker.
    eviction: EvictionSlot,
    wake: Arc<Notify>,
}

impl Handle {
    /// Hands over a new desired state.
    pub(crate) fn desire(&self, desired: Desired) {
        *self.inbox.lock() = desired;
        self.wake.notify_one();
    }

    /// Shows a static pod's worker what the API has of it.
    pub(crate) fn show_mirror(&self, mirror: Option<Mirror>) {
        let mut known = self.mirror.lock();
        if *known != mirror {
            *known = mirror;
            drop(known);
            self.wake.notify_one();
        }
    }

    /// Ends the pod, whatever it is doing: the node cannot keep it. What is given is cancelled once nothing of the pod
    /// runs any more.
    pub(crate) fn evict(&self, eviction: Eviction) -> CancellationToken {
        let ended = CancellationToken::new();
        *self.eviction.lock() = Some((eviction, ended.clone().drop_guard()));
        self.wake.notify_one();
        ended
    }

    /// Wakes the worker: something may have changed.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }
}

/// Starts a worker. `verdict` is set for a pod that the node refuses; `on_end` runs once the pod is gone and
/// nothing of it is left.
pub(crate) fn spawn(
    context: &Arc<Context>,
    object: Bytes,
    verdict: Option<Verdict>,
    on_end: impl FnOnce() + Send + 'static,
) -> Handle {
    let wake = Arc::new(Notify::new());
    let handle = Handle {
        inbox: Arc::new(Mutex::new(Desired::Object(object))),
        mirror: Arc::default(),
        eviction: Arc::default(),
        wake: Arc::clone(&wake),
    };
    let shared = handle.clone();
    let context = Arc::clone(context);
    let tasks = context.tasks.clone();
    tasks.spawn(async move {
        let shutdown = context.shutdown.clone();
        let measures = Arc::clone(&context.measures);
        let mut worker = Worker::new(context, shared, verdict);
        let mut turn = Turn::Create;
        loop {
            let begun = Instant::now();
            let pause = tokio::select! {
                () = shutdown.cancelled() => return,
                pause = Box::pin(worker.sync()) => pause,
            };
            measures.turn(turn, begun.elapsed());
            turn = Turn::Sync;
            let Some(pause) = pause else {
                on_end();
                return;
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
    handle
}

struct Worker {
    context: Arc<Context>,
    inbox: Arc<Mutex<Desired>>,
    mirror: Arc<Mutex<Option<Mirror>>>,
    /// The mirror pod that statuses were written to last.
    mirrored: Option<String>,
    eviction: EvictionSlot,
    /// The eviction that ends the pod, once it was taken up.
    evicted: Option<Eviction>,
    /// Who evicted it waits until this is dropped.
    evicting: Option<DropGuard>,
    wake: Arc<Notify>,
    /// The newest object; kept over `Gone`, whose end still needs it. It is read anew for each look, for most pods rest
    /// most of the time, and one that has been read takes fifteen kilobytes in some seventy pieces.
    object: Option<Bytes>,
    status: Option<PodStatus>,
    backoff: BackOff,
    /// Why containers wait, and until when they are not tried again.
    waiting: BTreeMap<String, (Waiting, Timestamp)>,
    probes: Probes,
    /// Until the probes know it.
    before: Before,
    messages: HashMap<String, String>,
    verdict: Option<Verdict>,
    address: Option<IpAddr>,
    volumes: Option<(BTreeMap<String, PathBuf>, Option<Instant>)>,
    files_written: bool,
    waits_for_network: bool,
    /// Failures in a row, for the next retry.
    failures: u32,
    /// Why the pod does not get the resources that it asks for.
    resize_pending: Option<(&'static str, String)>,
    /// The limits that runs were to be given last.
    resized: BTreeMap<String, (u32, ContainerResources)>,
    /// What went wrong with that, by container, and with the group of the pod as a whole.
    resize_failures: BTreeMap<String, resizing::Failure>,
    /// The pod's control group, once this worker has seen to it.
    grouped: Option<Grouped>,
    /// Everything has stopped and nothing will start again.
    finished: bool,
}

impl Worker {
    fn new(context: Arc<Context>, handle: Handle, verdict: Option<Verdict>) -> Self {
        let Handle { inbox, mirror, eviction, wake } = handle;
        let pretending = !context.runtime.capabilities().exec;
        Self {
            context,
            inbox,
            mirror,
            mirrored: None,
            eviction,
            evicted: None,
            evicting: None,
            probes: Probes::new(Arc::clone(&wake), pretending),
            wake,
            object: None,
            status: None,
            backoff: BackOff::default(),
            waiting: BTreeMap::new(),
            before: Before::default(),
            messages: HashMap::new(),
            verdict,
            address: None,
            volumes: None,
            files_written: false,
            waits_for_network: false,
            failures: 0,
            resize_pending: None,
            resized: BTreeMap::new(),
            resize_failures: BTreeMap::new(),
            grouped: None,
            finished: false,
        }
    }

    /// Takes the newest object in and reads it: whether the API still has the pod, and the last that it had.
    fn take_desired(&mut self) -> (bool, Option<Arc<Pod>>) {
        let (exists, newest) = match self.inbox.lock().clone() {
            Desired::Gone => (false, self.object.clone()),
            Desired::Object(bytes) => (true, Some(bytes)),
        };
        let Some(bytes) = newest else { return (exists, None) };
        match parse(&bytes) {
            Ok(pod) => {
                if self.object.is_none() {
                    self.remember(&pod);
                }
                self.object = Some(bytes);
                (exists, Some(Arc::new(pod)))
            }
            Err(error) => {
                tracing::error!("a pod cannot be read: {error}");
                let before = self.object.as_ref().and_then(|bytes| parse(bytes).ok());
                (exists, before.map(Arc::new))
            }
        }
    }

    /// What the API's status tells a worker that begins.
    fn remember(&mut self, pod: &Pod) {
        self.status.clone_from(&pod.status);
        if let Some(status) = pod.status.as_ref().filter(|status| status.container_statuses.is_none())
            && is_terminal(pod.status.as_ref())
        {
            // Refused before the kubelet was restarted, and so it stays.
            self.verdict = Some(Verdict {
                reason: status.reason.clone().unwrap_or_default(),
                message: status.message.clone().unwrap_or_default(),
                rejected: true,
            });
        }
        self.before = Before::of(pod);
        self.address = self.context.network.borrow().as_ref().and_then(|network| network.address(uid(pod)));
    }

    /// Looks at the world and acts; gives the time until the next look, or `None` once the pod is gone.
    async fn sync(&mut self) -> Option<Duration> {
        let (exists, pod) = self.take_desired();
        let Some(pod) = pod else {
            return if exists { Some(RESYNC) } else { None };
        };
        let mirrored = !exists || self.keep_mirror(&pod).await;
        let outcome = if !exists {
            self.end_mirror(&pod).await;
            self.clean_up(&pod).await.map(|()| None)
        } else if self.verdict.as_ref().is_some_and(|verdict| verdict.rejected) {
            self.reject(&pod).map(Some)
        } else if pod.metadata.deletion_timestamp.is_some() {
            self.terminate(&pod, true).await.map(Some)
        } else {
            self.run(&pod).await.map(Some)
        };
        match outcome {
            Ok(pause) => {
                self.failures = 0;
                pause.map(|pause| if mirrored { pause } else { pause.min(MIRROR_RETRY) })
            }
            Err(message) => {
                let pause =
                    FIRST_RETRY.saturating_mul(2u32.saturating_pow(self.failures.min(8))).min(LAST_RETRY);
                self.failures += 1;
                tracing::warn!(pod = described(&pod), ?pause, "{message}");
                Some(pause)
            }
        }
    }

    fn reject(&mut self, pod: &Arc<Pod>) -> Result<Duration, String> {
        if pod.metadata.deletion_timestamp.is_some() {
            self.finished = true;
        }
        self.publish(pod, None, pod.metadata.deletion_timestamp.is_some());
        Ok(RESYNC)
    }

    /// The ordinary life of a pod.
    async fn run(&mut self, pod: &Arc<Pod>) -> Result<Duration, String> {
        let overdue = deadline_left(pod, self.status.as_ref()).is_some_and(|left| left.is_zero());
        if overdue && self.verdict.is_none() && !self.finished {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            self.context.events.pod(pod, EventType::Normal, "DeadlineExceeded", &message);
            self.verdict = Some(Verdict { reason: "DeadlineExceeded".to_owned(), message, rejected: false });
        }
        if let Some((eviction, ended)) = self.eviction.lock().take()
            && self.verdict.is_none()
            && !self.finished
        {
            let message = eviction.message.clone();
            self.verdict = Some(Verdict { reason: "Evicted".to_owned(), message, rejected: false });
            self.evicted = Some(eviction);
            self.evicting = Some(ended);
        }
        if self.finished {
            return Ok(RESYNC);
        }
        if self.verdict.is_some() || is_terminal(self.status.as_ref()) {
            return self.terminate(pod, false).await;
        }
        if spec(pod).host_network != Some(true) && self.context.network.borrow().is_none() {
            // The manager wakes every worker once the network stands. A kubelet that has just started only
            // needs a moment; after that it is worth an event.
            if !self.waits_for_network {
                self.waits_for_network = true;
                return Ok(NETWORK_PATIENCE);
            }
            let text =
                "network is not ready: container runtime network not ready: the node has no podCIDR yet";
            self.context.events.pod(pod, EventType::Warning, "NetworkNotReady", text);
            return Ok(RESYNC);
        }
        let pod = &self.allocate(pod);
        self.ensure_group(pod).await?;
        let mut view = self.observe(pod).await?;
        for _ in 0..ROUNDS {
            if !self.is_current(pod) {
                // The object changed meanwhile: begin again with the new one.
                return Ok(Duration::ZERO);
            }
            self.recover(pod, view.as_ref());
            let decided = self.plan(pod, view.as_ref());
            self.note_back_offs(pod, &decided);
            self.publish(pod, view.as_ref(), false);
            if decided.finished {
                return self.terminate(pod, false).await;
            }
            if decided.is_idle() {
                return self.settle(pod, view.as_ref(), &decided).await;
            }
            view = self.carry_out(pod, view, &decided).await?;
        }
        Ok(Duration::ZERO)
    }

    fn is_current(&self, pod: &Pod) -> bool {
        match &*self.inbox.lock() {
            Desired::Gone => false,
            Desired::Object(bytes) => {
                // Status writes of our own come back as changes; only a deletion must not wait.
                self.object.as_ref() == Some(bytes)
                    || !is_deleted(bytes)
                    || pod.metadata.deletion_timestamp.is_some()
            }
        }
    }

    async fn observe(&mut self, pod: &Pod) -> Result<Option<PodView>, String> {
        let view = self.context.runtime.pod(uid(pod)).await.map_err(|error| error.to_string())?;
        if let Some(view) = &view {
            self.read_messages(pod, view).await;
        }
        Ok(view)
    }

    /// Reads the termination messages of runs that have ended.
    async fn read_messages(&mut self, pod: &Pod, view: &PodView) {
        let files = self.files(pod);
        for run in &view.containers {
            let ContainerState::Exited { exit_code, .. } = &run.state else { continue };
            if self.messages.contains_key(&run.id) {
                continue;
            }
            let mut message = files.message(&run.name, run.attempt).await;
            let policy =
                any_container(pod, &run.name).and_then(|found| found.termination_message_policy.clone());
            let from_log = policy.as_deref() == Some("FallbackToLogsOnError");
            if message.is_empty() && *exit_code != 0 && from_log {
                message = lifecycle::log_tail(&self.context, uid(pod), &run.name, run.attempt).await;
            }
            self.messages.insert(run.id.clone(), message);
        }
        self.messages.retain(|id, _| view.containers.iter().any(|run| run.id == *id));
    }

    /// Takes up what a restarted kubelet finds: back-offs and the address.
    fn recover(&mut self, pod: &Pod, view: Option<&PodView>) {
        for container in all_containers(pod) {
            let Some(run) = latest_run(view, &container.name) else { continue };
            if let ContainerState::Exited { started_at, .. } | ContainerState::Running { started_at, .. } =
                &run.state
            {
                let started = parse_time(started_at).unwrap_or_else(Timestamp::now);
                self.backoff.resume(&backoff_key(container), run.attempt, started);
            }
        }
        if self.address.is_none() {
            self.address = self.address_of(pod, newest_sandbox(view));
        }
    }

    fn plan(&self, pod: &Pod, view: Option<&PodView>) -> Plan {
        let now = Timestamp::now();
        let mut inputs = plan::Inputs { unhealthy: self.probes.unhealthy(), ..plan::Inputs::default() };
        inputs.resized = self.resized();
        (_, inputs.not_started) = self.probes.held_back(pod);
        for (name, (_, not_before)) in &self.waiting {
            inputs.not_before.insert(name.clone(), *not_before);
        }
        let known = self.status.iter().flat_map(|status| {
            let lists = [
                &status.init_container_statuses,
                &status.container_statuses,
                &status.ephemeral_container_statuses,
            ];
            lists.into_iter().flatten().flatten()
        });
        for status in known.filter(|status| status.container_id.is_some()) {
            // A run that the runtime has forgotten is followed by the next one.
            let forgotten = u32::from(latest_run(view, &status.name).is_none());
            let count = u32::try_from(status.restart_count).unwrap_or_default();
            inputs.restart_floor.insert(status.name.clone(), count + forgotten);
        }
        plan(pod, view, &inputs, &self.backoff, now)
    }

    /// Turns back-offs into waiting reasons and events.
    fn note_back_offs(&mut self, pod: &Pod, decided: &Plan) {
        for (name, _) in &decided.backing_off {
            let delay =
                pod::container(pod, name).and_then(|container| self.backoff.delay(&backoff_key(container)));
            let delay = crate::images::go_duration(delay.unwrap_or_default());
            let message =
                format!("back-off {delay} restarting failed container={name} pod={}", described(pod));
            let waiting = Waiting { reason: "CrashLoopBackOff".to_owned(), message };
            let fresh = self.waiting.get(name).is_none_or(|(known, _)| known.reason != waiting.reason);
            if fresh {
                let text = format!("Back-off restarting failed container {name} in pod {}", described(pod));
                self.context.events.container(pod, name, EventType::Warning, "BackOff", &text);
            }
            self.waiting.insert(name.clone(), (waiting, Timestamp::UNIX_EPOCH));
        }
    }

    /// Nothing to do: probes follow the containers, volumes are kept fresh, and the next look is timed.
    async fn settle(
        &mut self,
        pod: &Arc<Pod>,
        view: Option<&PodView>,
        decided: &Plan,
    ) -> Result<Duration, String> {
        let before = std::mem::take(&mut self.before);
        let address = self.probe_address(pod);
        self.probes.follow(&self.context, pod, view, address, &before);
        self.collect_garbage(pod, view);
        let mut pause = decided.wake_after.unwrap_or(RESYNC).min(RESYNC);
        self.settle_resize(pod, view).await;
        if self.resize_pending.is_some() || !self.resize_failures.is_empty() {
            pause = pause.min(RESIZE_RETRY);
        }
        if let Some(left) = deadline_left(pod, self.status.as_ref()) {
            pause = pause.min(left);
        }
        if let Some(next) = self.refresh_volumes(pod).await {
            pause = pause.min(next);
        }
        self.publish(pod, view, false);
        Ok(pause.max(Duration::from_millis(10)))
    }

    fn probe_address(&self, pod: &Pod) -> Option<IpAddr> {
        if spec(pod).host_network == Some(true) {
            self.context.host_ips.first().copied()
        } else {
            self.address
        }
    }
}

/// The typed view of an object.
fn parse(bytes: &Bytes) -> Result<Pod, serde_json::Error> {
    let mut pod: Pod = serde_json::from_slice(bytes)?;
    // Nothing here asks who wrote what, and it is half of what a probe would hold on to.
    pod.metadata.managed_fields = None;
    Ok(pod)
}

fn is_deleted(bytes: &[u8]) -> bool {
    api_objects::object::ObjectMeta::from_bytes(bytes).deletion_timestamp.is_some()
}

/// What is left of `activeDeadlineSeconds`; zero once it has passed.
fn deadline_left(pod: &Pod, status: Option<&PodStatus>) -> Option<Duration> {
    let limit = Duration::from_secs(u64::try_from(spec(pod).active_deadline_seconds?).unwrap_or_default());
    let started = status?.start_time.as_ref()?.0;
    Some(limit.saturating_sub(pod::restart::elapsed(started, Timestamp::now())))
}
