//! The kubelet's conditions of a pod, with upstream's reasons and messages (`pkg/kubelet/status`).

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::Inputs;
use crate::pod::{init_containers, is_sidecar, spec, whole_seconds};

/// Holds while all containers are taken away, to start anew in the same sandbox (KEP-5532).
pub const ALL_RESTARTING: &str = "AllContainersRestarting";

/// All conditions: the kubelet's own, then those that others own, as they were.
#[must_use]
pub fn conditions(
    pod: &Pod,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    phase: &str,
    inputs: &Inputs,
    before: Option<&PodStatus>,
    now: Timestamp,
) -> Vec<PodCondition> {
    let old = before.and_then(|before| before.conditions.as_deref()).unwrap_or_default();
    let containers = containers_ready(pod, init, main, phase);
    let ready = gates(pod, old, &containers);
    let mut own = vec![
        ("PodReadyToStartContainers", Verdict::of(inputs.network_ready)),
        ("Initialized", initialized(pod, init, main, phase)),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", Verdict::of(true)),
    ];
    if inputs.restarting_all || old.iter().any(|condition| condition.type_ == ALL_RESTARTING) {
        own.push((ALL_RESTARTING, Verdict::of(inputs.restarting_all)));
    }
    if let Some((reason, message)) = &inputs.resize_pending {
        let verdict = Verdict { holds: true, reason: Some(reason), message: Some(message.clone()) };
        own.push((RESIZE_PENDING, verdict));
    }
    if let Some(error) = &inputs.resizing {
        let reason = error.as_ref().map(|_| "Error");
        own.push((RESIZE_IN_PROGRESS, Verdict { holds: true, reason, message: error.clone() }));
    }
    if let Some(message) = &inputs.disruption {
        let reason = Some("TerminationByKubelet");
        own.push((DISRUPTION, Verdict { holds: true, reason, message: Some(message.clone()) }));
    }
    let mut all: Vec<PodCondition> = Vec::with_capacity(own.len());
    for (kind, verdict) in own {
        let past = old.iter().find(|condition| condition.type_ == kind);
        if let (Some(scheduled), "PodScheduled") = (past, kind)
            && scheduled.status == "True"
        {
            // The scheduler's own, kept as it wrote it; upstream's kubelet tells only that it has seen this generation.
            all.push(PodCondition { observed_generation: pod.metadata.generation, ..scheduled.clone() });
            continue;
        }
        let status = if verdict.holds { "True" } else { "False" };
        let transition =
            past.filter(|past| past.status == status).and_then(|past| past.last_transition_time.clone());
        all.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.map(str::to_owned),
            message: verdict.message,
            last_transition_time: Some(transition.unwrap_or_else(|| Time(whole_seconds(now)))),
            last_probe_time: None,
            observed_generation: pod.metadata.generation,
        });
    }
    let foreign = old.iter().filter(|condition| {
        !own_kind(&condition.type_) && (inputs.disruption.is_none() || condition.type_ != DISRUPTION)
    });
    all.extend(foreign.cloned());
    all
}

/// The pod asks for more than the node gives it (yet).
const RESIZE_PENDING: &str = "PodResizePending";
/// A container does not have yet what its pod was given.
const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";
/// Conditions that are not there while they do not hold (upstream leaves them out as well).
pub(super) const PASSING: [&str; 2] = [RESIZE_PENDING, RESIZE_IN_PROGRESS];

/// The pod is ended for the sake of something else (KEP-3329); others set it too.
const DISRUPTION: &str = "DisruptionTarget";

/// Whether the kubelet alone writes conditions of that type.
#[must_use]
pub fn is_kubelets(kind: &str) -> bool {
    PASSING.contains(&kind)
        || matches!(
            kind,
            "PodReadyToStartContainers" | "Initialized" | "Ready" | "ContainersReady" | ALL_RESTARTING
        )
}

fn own_kind(kind: &str) -> bool {
    is_kubelets(kind) || kind == "PodScheduled"
}

#[derive(Clone)]
struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn of(holds: bool) -> Self {
        Self { holds, reason: None, message: None }
    }

    fn because(holds: bool, reason: &'static str) -> Self {
        Self { holds, reason: Some(reason), message: None }
    }

    fn naming(reason: &'static str, what: &str, names: &[&str]) -> Self {
        Self { holds: false, reason: Some(reason), message: Some(format!("{what}: [{}]", names.join(" "))) }
    }
}

fn initialized(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], phase: &str) -> Verdict {
    if phase == "Succeeded" {
        return Verdict::because(true, "PodCompleted");
    }
    let begun = main.iter().any(|status| {
        status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            || status.last_state.as_ref().is_some_and(|state| state.terminated.is_some())
    });
    let incomplete: Vec<&str> = init_containers(pod)
        .filter(|container| {
            !init.iter().any(|status| {
                status.name == container.name
                    && if is_sidecar(container) { status.started == Some(true) } else { status.ready }
            })
        })
        .map(|container| container.name.as_str())
        .collect();
    if begun || incomplete.is_empty() {
        return Verdict::of(true);
    }
    Verdict::naming("ContainersNotInitialized", "containers with incomplete status", &incomplete)
}

fn containers_ready(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::because(false, "PodCompleted"),
        "Failed" => return Verdict::because(false, "PodFailed"),
        _ => {}
    }
    let ready =
        |list: &[ContainerStatus], name: &str| list.iter().any(|status| status.name == name && status.ready);
    let sidecars =
        init_containers(pod).filter(|container| is_sidecar(container) && !ready(init, &container.name));
    let others = spec(pod).containers.iter().filter(|container| !ready(main, &container.name));
    let unready: Vec<&str> = sidecars.chain(others).map(|container| container.name.as_str()).collect();
    if unready.is_empty() {
        Verdict::of(true)
    } else {
        Verdict::naming("ContainersNotReady", "containers with unready status", &unready)
    }
}

/// Ready: the containers are, and every readiness gate's condition is true (KEP-580).
fn gates(pod: &Pod, conditions: &[PodCondition], containers: &Verdict) -> Verdict {
    if !containers.holds {
        return containers.clone();
    }
    let failing: Vec<String> = spec(pod)
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match conditions.iter().find(|condition| condition.type_ == *kind) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist."))
                }
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if failing.is_empty() {
        return Verdict::of(true);
    }
    Verdict { holds: false, reason: Some("ReadinessGatesNotReady"), message: Some(failing.join(", ")) }
}
