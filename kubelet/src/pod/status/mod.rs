//! The status of a pod, out of what the runtime shows and what the worker knows.
//!
//! Pure, so that a restarted kubelet computes the same status from the same world: nothing is lost, and an
//! unchanged pod is not written. The shapes follow upstream's `convertStatusToAPIStatus` and
//! `pkg/kubelet/status/generate.go`; [`patch`] turns old and new into the patch that is sent.

mod conditions;
mod patch;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
        ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kubelet_runtime::{ContainerState, ContainerView, PodView};
use serde_json::value::RawValue;

pub use conditions::{ALL_RESTARTING, conditions, is_kubelets};
pub use patch::patch;

use super::{
    account, all_containers, ephemeral_containers, init_containers, is_sidecar, latest_run, parse_time,
    phase::phase,
    plain,
    plan::newest_sandbox,
    resize::{self, Resize},
    resources::{effective, qos_class},
    spec, volume_mounts, whole_seconds,
};

/// Why a container waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// `ImagePullBackOff` …
    pub reason: String,
    /// For people.
    pub message: String,
}

/// A status that holds whatever the containers do: a rejection, a passed deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `status.reason`.
    pub reason: String,
    /// `status.message`.
    pub message: String,
    /// Whether the pod never got as far as containers.
    pub rejected: bool,
}

/// What a status rests on besides the pod and the runtime's view.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The scheme of container ids.
    pub runtime: String,
    /// Containers that wait, and why.
    pub waiting: BTreeMap<String, Waiting>,
    /// Running containers whose readiness probe does not pass.
    pub not_ready: BTreeSet<String>,
    /// Running containers whose startup probe has not passed.
    pub not_started: BTreeSet<String>,
    /// Termination messages by container id.
    pub termination_messages: BTreeMap<String, String>,
    /// Addresses of the pod.
    pub pod_ips: Vec<IpAddr>,
    /// Addresses of the node.
    pub host_ips: Vec<IpAddr>,
    /// Whether mounts can be read-only with everything below them.
    pub recursive_read_only: bool,
    /// Whether sandbox and network stand.
    pub network_ready: bool,
    /// Set once the pod fails as a whole.
    pub verdict: Option<Verdict>,
    /// Set while the node does not give the pod what it asks for: `Deferred` or `Infeasible`, and why.
    pub resize_pending: Option<(&'static str, String)>,
    /// Set while a container does not have what its pod was given; with what went wrong, if something did.
    pub resizing: Option<Option<String>>,
    /// Set if the kubelet ends the pod for the node's sake, to what the condition `DisruptionTarget` says.
    pub disruption: Option<String>,
    /// Whether all containers are being taken away, to start anew in the same sandbox.
    pub restarting_all: bool,
    /// Whether nothing of the pod will run again and all of it has stopped.
    pub finished: bool,
}

/// A pod as the API has it, for the status writer.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// `metadata.uid`.
    pub uid: &'a str,
    /// `metadata.namespace`.
    pub namespace: &'a str,
    /// `metadata.name`.
    pub name: &'a str,
}

/// The JSON text of an object's `status`, `null` without. It is kept for every pod and read for each write only: as a
/// tree it would be ten times as large.
#[must_use]
pub fn as_it_came(object: &[u8]) -> Box<str> {
    #[derive(serde::Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        status: Option<&'a RawValue>,
    }
    let read = serde_json::from_slice(object).ok().and_then(|Object { status }| status);
    read.map_or("null", RawValue::get).into()
}

/// Computes the status. `before` is the last one, for what only it remembers: transition times, the start
/// time, restart counts and states of runs that the runtime has forgotten.
#[must_use]
pub fn status(
    pod: &Pod,
    view: Option<&PodView>,
    inputs: &Inputs,
    before: Option<&PodStatus>,
    now: Timestamp,
) -> PodStatus {
    let start_time =
        before.and_then(|before| before.start_time.clone()).unwrap_or_else(|| Time(whole_seconds(now)));
    let mut status = PodStatus {
        start_time: Some(start_time),
        qos_class: Some(qos_class(pod).to_owned()),
        observed_generation: pod.metadata.generation,
        nominated_node_name: before.and_then(|before| before.nominated_node_name.clone()),
        ..PodStatus::default()
    };
    let whole = effective(pod);
    status.allocated_resources.clone_from(&whole.requests);
    // What holds is what held before, until containers and group have the rest.
    let held = before.and_then(|before| before.resources.clone()).filter(|_| inputs.resizing.is_some());
    status.resources = held.or(Some(whole));
    if let Some(verdict) = &inputs.verdict {
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone());
    }
    if inputs.verdict.as_ref().is_some_and(|verdict| verdict.rejected) {
        status.phase = Some("Failed".to_owned());
        // The scheduler's own condition stays; nothing else was ever true of this pod.
        status.conditions = before.and_then(|before| before.conditions.clone());
        return status;
    }
    let of = |container: &Container, init: bool| {
        let old = before.and_then(|before| {
            let list = if init { &before.init_container_statuses } else { &before.container_statuses };
            list.iter().flatten().find(|old| old.name == container.name)
        });
        container_status(pod, container, init, view, inputs, old)
    };
    let init: Vec<_> = init_containers(pod).map(|container| of(container, true)).collect();
    let main: Vec<_> = spec(pod).containers.iter().map(|container| of(container, false)).collect();
    status.ephemeral_container_statuses = ephemeral_statuses(pod, view, inputs, before);
    let computed = phase(pod, &init, &main, inputs.finished);
    let settled = before
        .and_then(|before| before.phase.as_deref())
        .filter(|old| matches!(*old, "Failed" | "Succeeded"));
    let phase = match settled {
        // A terminal phase is final (upstream keeps it too).
        Some(settled) => settled,
        None if inputs.verdict.is_some() && inputs.finished => "Failed",
        None => computed,
    };
    status.phase = Some(phase.to_owned());
    if settled.is_some() && inputs.verdict.is_none() {
        // Why a pod ended is as final as that it did.
        status.reason = before.and_then(|before| before.reason.clone());
        status.message = before.and_then(|before| before.message.clone());
    }
    if !inputs.host_ips.is_empty() {
        status.host_ip = inputs.host_ips.first().map(ToString::to_string);
        status.host_ips = Some(inputs.host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect());
    }
    let host_network = spec(pod).host_network == Some(true);
    let pod_ips = if host_network && view.is_some() { &inputs.host_ips } else { &inputs.pod_ips };
    if !pod_ips.is_empty() {
        status.pod_ip = pod_ips.first().map(ToString::to_string);
        status.pod_ips = Some(pod_ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect());
    } else if inputs.finished || matches!(phase, "Failed" | "Succeeded") {
        // A pod that has ended keeps showing the address that it had.
        status.pod_ip = before.and_then(|before| before.pod_ip.clone());
        status.pod_ips = before.and_then(|before| before.pod_ips.clone());
    }
    status.conditions = Some(conditions(pod, &init, &main, phase, inputs, before, now));
    status.init_container_statuses = Some(init).filter(|list| !list.is_empty());
    status.container_statuses = Some(main);
    status
}

/// Ephemeral containers are neither ready nor started, whatever they do, and what has run is over for good.
fn ephemeral_statuses(
    pod: &Pod,
    view: Option<&PodView>,
    inputs: &Inputs,
    before: Option<&PodStatus>,
) -> Option<Vec<ContainerStatus>> {
    ephemeral_containers(pod).next()?;
    let inputs = Inputs { finished: true, ..inputs.clone() };
    let before = before.and_then(|before| before.ephemeral_container_statuses.as_deref()).unwrap_or_default();
    let of = |container| {
        let container = plain(container);
        let old = before.iter().find(|old| old.name == container.name);
        let status = container_status(pod, &container, false, view, &inputs, old);
        ContainerStatus { ready: false, started: None, ..status }
    };
    Some(ephemeral_containers(pod).map(of).collect())
}

fn container_status(
    pod: &Pod,
    container: &Container,
    init: bool,
    view: Option<&PodView>,
    inputs: &Inputs,
    before: Option<&ContainerStatus>,
) -> ContainerStatus {
    let name = &container.name;
    let id = |run: &ContainerView| format!("{}://{}", inputs.runtime, run.id);
    let run = latest_run(view, name);
    let waiting = inputs.waiting.get(name);
    let mut status = ContainerStatus {
        name: name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        volume_mounts: volume_mounts::statuses(container, inputs.recursive_read_only),
        ..ContainerStatus::default()
    };
    let floor = before.map_or(0, |before| before.restart_count);
    if let Some(run) = run {
        status.container_id = Some(id(run));
        status.image.clone_from(&run.image);
        status.image_id.clone_from(&run.image_id);
        status.user = account::of_run(run);
        status.restart_count = i32::try_from(run.attempt).unwrap_or(i32::MAX).max(floor);
    } else if let Some(before) = before {
        status.container_id.clone_from(&before.container_id);
        status.image_id.clone_from(&before.image_id);
        status.user.clone_from(&before.user);
        status.restart_count = floor;
    }
    let ended = run.and_then(|run| terminated(run, inputs));
    status.last_state = previous(view, name, run, inputs)
        .map(terminated_state)
        .or_else(|| before.and_then(|before| remembered(before, run.map(&id).as_deref())));
    let will_wait = |reason: &str, message: &str| ApiState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()).filter(|text| !text.is_empty()),
        }),
        ..ApiState::default()
    };
    let has_init = init_containers(pod).next().is_some();
    let default_reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let state = match run.map(|run| &run.state) {
        Some(ContainerState::Running { started_at, .. }) => {
            let started = !inputs.not_started.contains(name);
            status.started = Some(started);
            status.ready = started && !inputs.not_ready.contains(name) && (!init || is_sidecar(container));
            if let Some(resources) = &container.resources {
                status.allocated_resources.clone_from(&resources.requests);
            }
            status.resources = match run.map_or(Resize::Settled, |run| resize::decide(pod, container, run)) {
                Resize::Settled => container.resources.clone(),
                // What it had before still holds.
                _ => before.and_then(|before| before.resources.clone()),
            };
            ApiState {
                running: Some(ContainerStateRunning {
                    started_at: parse_time(started_at).map(whole_seconds).map(Time),
                }),
                ..ApiState::default()
            }
        }
        Some(ContainerState::Exited { .. }) => {
            let ended = ended.unwrap_or_default();
            match waiting {
                Some(waiting) if !inputs.finished => {
                    status.last_state = Some(terminated_state(ended));
                    will_wait(&waiting.reason, &waiting.message)
                }
                _ => {
                    status.ready = init && ended.exit_code == 0;
                    terminated_state(ended)
                }
            }
        }
        Some(ContainerState::Created) | None => match waiting {
            Some(waiting) => will_wait(&waiting.reason, &waiting.message),
            None if inputs.restarting_all => {
                // It was removed with its end, which upstream tells so.
                if before.is_some_and(|before| !is_waiting(before)) {
                    status.last_state = Some(terminated_state(ContainerStateTerminated {
                        exit_code: 137,
                        reason: Some(RESTARTING_ALL.to_owned()),
                        message: Some(REMOVED.to_owned()),
                        ..ContainerStateTerminated::default()
                    }));
                }
                will_wait(RESTARTING_ALL, REMOVED)
            }
            None => lost(before, inputs).unwrap_or_else(|| {
                // The pod has run, and does not go back to Pending.
                if run.is_none() && status.last_state.is_none() && before.is_some_and(was_running) {
                    status.last_state = Some(unknown_end(LOST_WHILE_RUNNING));
                }
                will_wait(default_reason, "")
            }),
        },
    };
    status.state = Some(state);
    keep_messages(&mut status, before);
    status
}

/// Why a container waits, and how the run before it ended, while all containers of its pod start anew.
const RESTARTING_ALL: &str = "RestartingAllContainers";
const REMOVED: &str = "The container is removed because RestartAllContainers in place";

/// How a run ended that vanished from the runtime (upstream's `convertToAPIContainerStatuses`).
const LOST_WHILE_RUNNING: &str =
    "The container could not be located when the pod was deleted.  The container used to be Running";
const LOST_FOR_GOOD: &str = "The container could not be located when the pod was terminated";

fn unknown_end(message: &str) -> ApiState {
    terminated_state(ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some(message.to_owned()),
        ..ContainerStateTerminated::default()
    })
}

fn was_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn is_waiting(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.waiting.is_some())
}

/// A termination message is read once; later statuses of the same run keep it although its file is gone.
fn keep_messages(status: &mut ContainerStatus, before: Option<&ContainerStatus>) {
    let known = before.into_iter().flat_map(|before| [before.state.as_ref(), before.last_state.as_ref()]);
    let known: Vec<&ContainerStateTerminated> =
        known.flatten().filter_map(|state| state.terminated.as_ref()).collect();
    for state in [&mut status.state, &mut status.last_state].into_iter().flatten() {
        if let Some(ended) = &mut state.terminated
            && ended.message.is_none()
        {
            let same = known.iter().find(|known| known.container_id == ended.container_id);
            ended.message = same.and_then(|known| known.message.clone());
        }
    }
}

fn terminated_state(terminated: ContainerStateTerminated) -> ApiState {
    ApiState { terminated: Some(terminated), ..ApiState::default() }
}

/// How a run ended, with upstream's reasons.
fn terminated(run: &ContainerView, inputs: &Inputs) -> Option<ContainerStateTerminated> {
    let ContainerState::Exited { started_at, finished_at, exit_code, oom_killed, error } = &run.state else {
        return None;
    };
    let started = parse_time(started_at);
    let reason = match exit_code {
        _ if *oom_killed => "OOMKilled",
        _ if started.is_none() => "StartError",
        0 => "Completed",
        _ => "Error",
    };
    let message = inputs.termination_messages.get(&run.id).filter(|text| !text.is_empty()).cloned();
    Some(ContainerStateTerminated {
        container_id: Some(format!("{}://{}", inputs.runtime, run.id)),
        exit_code: *exit_code,
        finished_at: parse_time(finished_at).map(whole_seconds).map(Time),
        message: message.or_else(|| Some(error.clone()).filter(|text| !text.is_empty())),
        reason: Some(reason.to_owned()),
        signal: None,
        started_at: started.map(whole_seconds).map(Time),
    })
}

/// How the run before the newest ended, as the runtime still knows it.
fn previous(
    view: Option<&PodView>,
    name: &str,
    newest: Option<&ContainerView>,
    inputs: &Inputs,
) -> Option<ContainerStateTerminated> {
    let newest = newest?;
    let before = view?
        .containers
        .iter()
        .filter(|run| run.name == name && run.attempt < newest.attempt)
        .max_by_key(|run| run.attempt)?;
    terminated(before, inputs)
}

/// How the run before ended, as the last status remembers it. `current` is the id of the newest run.
fn remembered(before: &ContainerStatus, current: Option<&str>) -> Option<ApiState> {
    let ended = before.state.as_ref().and_then(|state| state.terminated.clone());
    if current.is_some()
        && before.container_id.as_deref() != current
        && let Some(ended) = ended
    {
        return Some(terminated_state(ended));
    }
    before.last_state.clone().filter(|state| state.terminated.is_some())
}

/// The state of a container that the runtime has forgotten: its end if that is known, or an unknown one if
/// it was running when last seen and will not run again.
fn lost(before: Option<&ContainerStatus>, inputs: &Inputs) -> Option<ApiState> {
    let state = before?.state.as_ref()?;
    if let Some(ended) = &state.terminated {
        return Some(terminated_state(ended.clone()));
    }
    (state.running.is_some() && inputs.finished).then(|| unknown_end(LOST_FOR_GOOD))
}

/// Whether sandbox and network stand, for the condition and for inputs.
#[must_use]
pub fn sandbox_ready(pod: &Pod, view: Option<&PodView>, pod_ips: &[IpAddr]) -> bool {
    newest_sandbox(view).is_some_and(|sandbox| sandbox.ready)
        && (spec(pod).host_network == Some(true) || !pod_ips.is_empty())
}

/// The names of all containers, for tests and messages.
#[must_use]
pub fn names(pod: &Pod) -> Vec<&str> {
    all_containers(pod).map(|container| container.name.as_str()).collect()
}

#[cfg(test)]
mod tests;
