//! What to do next for a pod: the pure heart of the worker.
//!
//! From the spec, what the runtime shows and what the probes said, [`plan`] names the next actions: kill all,
//! make a sandbox, kill single containers, start single containers, or nothing until a time. It follows
//! upstream's `computePodActions` (`pkg/kubelet/kuberuntime`): init containers run in order, sidecars keep
//! running beside the others (KEP-753), a dead sandbox takes every container with it, and a container that
//! ended starts again as the restart policy and the back-off allow. Carrying out a plan and planning again
//! must come to rest; the property test below holds it to that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kubelet_runtime::{ContainerResources, ContainerState, ContainerView, PodView, SandboxView};
use sha2::{Digest, Sha256};

use super::{
    HASH_ANNOTATION, SANDBOX_ANNOTATION, all_containers, ephemeral_containers, init_containers, is_sidecar,
    latest_run, parse_time,
    resize::{self, Resize},
    restart::{BackOff, container_restarts, restarts_all},
    spec,
};

/// What the plan rests on besides the pod and the runtime's view.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Restart counts that the API remembers: a run never counts below them.
    pub restart_floor: BTreeMap<String, u32>,
    /// Containers whose liveness or startup probe failed, with the attempt that it failed for.
    pub unhealthy: BTreeMap<String, (u32, Unhealthy)>,
    /// Sidecars whose startup probe has not passed yet.
    pub not_started: BTreeSet<String>,
    /// The limits that runs were to be given last: what did not help is not done again.
    pub resized: BTreeMap<String, (u32, ContainerResources)>,
    /// Starts that failed before there was a run (config, image): not before this time again.
    pub not_before: BTreeMap<String, Timestamp>,
}

/// Which probe failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unhealthy {
    /// The liveness probe.
    Liveness,
    /// The startup probe.
    Startup,
}

/// The next actions, to be done in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Stop every container and the sandbox: it is dead.
    pub reset: bool,
    /// Kill and remove every container at once, so that all of them start anew in the same sandbox: one of them
    /// ended as its rules say. It is removed last, for it is what says so.
    pub restart_all: Option<String>,
    /// Nothing will run again: stop what still runs and the sandbox.
    pub finished: bool,
    /// Make this attempt of the sandbox.
    pub create_sandbox: Option<u32>,
    /// Stop these.
    pub kill: Vec<Kill>,
    /// Give these other limits while they run.
    pub resize: Vec<(String, u32, ContainerResources)>,
    /// Start these, in order.
    pub start: Vec<Start>,
    /// Containers that wait for their back-off, with what is left of it.
    pub backing_off: Vec<(String, Duration)>,
    /// When to look again although nothing happened.
    pub wake_after: Option<Duration>,
}

impl Plan {
    /// Whether there is nothing to do now.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.reset
            && self.restart_all.is_none()
            && self.create_sandbox.is_none()
            && self.kill.is_empty()
            && self.resize.is_empty()
            && self.start.is_empty()
    }

    fn wake_in(&mut self, time: Duration) {
        self.wake_after = Some(self.wake_after.map_or(time, |before| before.min(time)));
    }
}

/// A container to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// Name.
    pub name: String,
    /// Attempt.
    pub attempt: u32,
    /// Why, in upstream's words.
    pub message: String,
    /// Which probe asked for it: its own grace period holds.
    pub probe: Option<Unhealthy>,
}

/// A container to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Name.
    pub name: String,
    /// Attempt, which is also the restart count.
    pub attempt: u32,
    /// When the run before ended; `None` for a first run.
    pub after_end: Option<Timestamp>,
    /// A container of that attempt was made and never started: it is removed first.
    pub replace: bool,
}

/// The hash whose change restarts a container: its name and image, the only mutable part (upstream's
/// `HashContainer` since resources are resized in place).
#[must_use]
pub fn container_hash(container: &Container) -> String {
    let mut hash = Sha256::new();
    hash.update(container.name.as_bytes());
    hash.update([0]);
    hash.update(container.image.as_deref().unwrap_or_default().as_bytes());
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The key of a container's restart back-off.
#[must_use]
pub fn backoff_key(container: &Container) -> String {
    format!("{}/{}", container.name, container_hash(container))
}

/// The newest sandbox.
#[must_use]
pub fn newest_sandbox(view: Option<&PodView>) -> Option<&SandboxView> {
    view?.sandboxes.iter().max_by_key(|sandbox| sandbox.attempt)
}

/// Whether a run belongs to the sandbox of that attempt.
#[must_use]
pub fn in_sandbox(run: &ContainerView, attempt: u32) -> bool {
    run.annotations
        .get(SANDBOX_ANNOTATION)
        .and_then(|text| text.parse::<u32>().ok())
        .is_none_or(|of| of == attempt)
}

/// The newest run of a container inside the newest sandbox.
#[must_use]
pub fn current_run<'a>(view: Option<&'a PodView>, name: &str) -> Option<&'a ContainerView> {
    let sandbox = newest_sandbox(view)?;
    latest_run(view, name).filter(|run| in_sandbox(run, sandbox.attempt))
}

/// Whether every init container has done its part, or the others have begun.
#[must_use]
pub fn initialized(pod: &Pod, view: Option<&PodView>, inputs: &Inputs) -> bool {
    let begun = spec(pod).containers.iter().any(|container| current_run(view, &container.name).is_some());
    begun
        || init_containers(pod).all(|container| {
            current_run(view, &container.name).is_some_and(|run| match &run.state {
                ContainerState::Exited { exit_code, .. } => !is_sidecar(container) && *exit_code == 0,
                ContainerState::Running { .. } => {
                    is_sidecar(container) && !inputs.not_started.contains(&container.name)
                }
                ContainerState::Created => false,
            })
        })
}

/// The container, if there is one, whose end restarts all of them: its newest run has ended so.
#[must_use]
pub fn restart_all(pod: &Pod, view: Option<&PodView>) -> Option<String> {
    let ended_so = |container: &&Container| {
        matches!(latest_run(view, &container.name).map(|run| &run.state),
            Some(ContainerState::Exited { exit_code, .. }) if restarts_all(container, *exit_code))
    };
    all_containers(pod).find(ended_so).map(|container| container.name.clone())
}

/// Decides the next actions.
#[must_use]
pub fn plan(pod: &Pod, view: Option<&PodView>, inputs: &Inputs, backoff: &BackOff, now: Timestamp) -> Plan {
    let planner = Planner { pod, view, inputs, backoff, now };
    planner.run()
}

struct Planner<'a> {
    pod: &'a Pod,
    view: Option<&'a PodView>,
    inputs: &'a Inputs,
    backoff: &'a BackOff,
    now: Timestamp,
}

/// What is to become of one container.
enum Fate {
    Keep,
    Start(Start),
    Kill(Kill),
    Resize(String, u32, ContainerResources),
    BackOff(Duration),
    Later(Duration),
    Done,
}

impl Planner<'_> {
    fn run(&self) -> Plan {
        let mut plan = Plan { restart_all: restart_all(self.pod, self.view), ..Plan::default() };
        if plan.restart_all.is_some() {
            return plan;
        }
        if self.is_finished() {
            plan.finished = true;
            return plan;
        }
        let sandbox = newest_sandbox(self.view);
        match sandbox {
            Some(sandbox) if sandbox.ready => {}
            _ => {
                let running = self.view.into_iter().flat_map(|view| &view.containers);
                plan.reset = running.clone().any(|run| matches!(run.state, ContainerState::Running { .. }));
                plan.create_sandbox = Some(sandbox.map_or(0, |dead| dead.attempt + 1));
            }
        }
        let fresh = plan.create_sandbox.is_some();
        self.ephemeral_containers(&mut plan);
        self.init_containers(&mut plan, fresh);
        plan
    }

    /// Whether nothing will run again: all main containers ended for good, or an init container failed for
    /// good.
    fn is_finished(&self) -> bool {
        let ended_for_good = |container: &Container| {
            matches!(latest_run(self.view, &container.name).map(|run| &run.state),
                Some(ContainerState::Exited { exit_code, .. })
                    if !container_restarts(self.pod, container, *exit_code))
        };
        let containers = &spec(self.pod).containers;
        if !containers.is_empty() && containers.iter().all(ended_for_good) {
            return true;
        }
        containers.iter().all(|container| latest_run(self.view, &container.name).is_none())
            && init_containers(self.pod).any(|container| {
                matches!(latest_run(self.view, &container.name).map(|run| &run.state),
                    Some(ContainerState::Exited { exit_code, .. })
                        if *exit_code != 0 && !container_restarts(self.pod, container, *exit_code))
            })
    }

    /// Ephemeral containers run once, whether or not the others have come to run yet.
    fn ephemeral_containers(&self, plan: &mut Plan) {
        for container in ephemeral_containers(self.pod) {
            let name = container.name.as_str();
            let fate = match latest_run(self.view, name).map(|run| (run.attempt, &run.state)) {
                Some((attempt, ContainerState::Created)) => {
                    Fate::Start(Start { name: name.to_owned(), attempt, after_end: None, replace: true })
                }
                Some(_) => Fate::Keep,
                // One that the API remembers and the runtime does not has run.
                None if self.inputs.restart_floor.contains_key(name) => Fate::Done,
                None => self.start(name, None, false),
            };
            apply(fate, name, plan);
        }
    }

    fn init_containers(&self, plan: &mut Plan, fresh: bool) {
        let begun = !fresh
            && spec(self.pod).containers.iter().any(|container| self.current(container, fresh).is_some());
        let mut ready = true;
        for container in init_containers(self.pod) {
            let sidecar = is_sidecar(container);
            if begun && !sidecar {
                continue;
            }
            let run = self.current(container, fresh);
            if !sidecar
                && matches!(run.map(|run| &run.state), Some(ContainerState::Exited { exit_code: 0, .. }))
            {
                continue;
            }
            if ready || begun {
                apply(self.fate(container, fresh), &container.name, plan);
            }
            let running = matches!(run.map(|run| &run.state), Some(ContainerState::Running { .. }));
            ready &= sidecar && running && !self.inputs.not_started.contains(&container.name);
            if !ready && !begun {
                return;
            }
        }
        for container in &spec(self.pod).containers {
            apply(self.fate(container, fresh), &container.name, plan);
        }
    }

    fn current(&self, container: &Container, fresh: bool) -> Option<&ContainerView> {
        if fresh { None } else { current_run(self.view, &container.name) }
    }

    fn fate(&self, container: &Container, fresh: bool) -> Fate {
        let name = container.name.as_str();
        let Some(run) = self.current(container, fresh) else {
            let old = latest_run(self.view, name);
            if let Some(ContainerState::Exited { exit_code, .. }) = old.map(|run| &run.state)
                && !super::is_init(self.pod, name)
                && !container_restarts(self.pod, container, *exit_code)
            {
                return Fate::Done;
            }
            return self.start(name, None, false);
        };
        match &run.state {
            ContainerState::Created => Fate::Start(Start {
                name: name.to_owned(),
                attempt: run.attempt,
                after_end: None,
                replace: true,
            }),
            ContainerState::Running { .. } => self.running(container, run),
            ContainerState::Exited { exit_code, finished_at, .. } => {
                if !container_restarts(self.pod, container, *exit_code) {
                    return Fate::Done;
                }
                let ended = parse_time(finished_at).unwrap_or(self.now);
                match self.backoff.remaining(&backoff_key(container), ended, self.now) {
                    Some(left) => Fate::BackOff(left),
                    None => self.start(name, Some(ended), false),
                }
            }
        }
    }

    fn running(&self, container: &Container, run: &ContainerView) -> Fate {
        let name = container.name.as_str();
        let kill = |message: String, probe| {
            Fate::Kill(Kill { name: name.to_owned(), attempt: run.attempt, message, probe })
        };
        if run.annotations.get(HASH_ANNOTATION).is_some_and(|hash| *hash != container_hash(container)) {
            return kill(format!("Container {name} definition changed, will be restarted"), None);
        }
        // What the kill will end with is not known yet: 137 stands for a failure.
        let outcome = if container_restarts(self.pod, container, 137) { ", will be restarted" } else { "" };
        match self.inputs.unhealthy.get(name) {
            Some((attempt, probe)) if *attempt == run.attempt => {
                let which = match probe {
                    Unhealthy::Liveness => "liveness",
                    Unhealthy::Startup => "startup",
                };
                return kill(format!("Container {name} failed {which} probe{outcome}"), Some(*probe));
            }
            _ => {}
        }
        match resize::decide(self.pod, container, run) {
            Resize::Restart => kill(format!("Container {name} resize requires restart"), None),
            Resize::InPlace(wanted) if self.inputs.resized.get(name) != Some(&(run.attempt, wanted)) => {
                Fate::Resize(name.to_owned(), run.attempt, wanted)
            }
            Resize::InPlace(_) | Resize::Settled => Fate::Keep,
        }
    }

    fn start(&self, name: &str, after_end: Option<Timestamp>, replace: bool) -> Fate {
        if let Some(left) = self.inputs.not_before.get(name).map(|at| super::restart::elapsed(self.now, *at))
            && !left.is_zero()
        {
            return Fate::Later(left);
        }
        let next = latest_run(self.view, name).map(|run| run.attempt + 1);
        let floor = self.inputs.restart_floor.get(name).copied();
        let attempt = next.or(floor).unwrap_or(0).max(floor.unwrap_or(0));
        Fate::Start(Start { name: name.to_owned(), attempt, after_end, replace })
    }
}

fn apply(fate: Fate, name: &str, plan: &mut Plan) {
    match fate {
        Fate::Keep | Fate::Done => {}
        Fate::Start(start) => plan.start.push(start),
        Fate::Kill(kill) => plan.kill.push(kill),
        Fate::Resize(name, attempt, wanted) => plan.resize.push((name, attempt, wanted)),
        Fate::BackOff(left) => {
            plan.backing_off.push((name.to_owned(), left));
            plan.wake_in(left);
        }
        Fate::Later(left) => plan.wake_in(left),
    }
}

#[cfg(test)]
mod tests;
