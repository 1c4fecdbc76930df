//! Pods and pod templates.

use api_objects::time;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    AGE, Column, NAME, Printer, Row, condition_is_true, containers, integer, items, labels, text, text_or,
};

pub(super) const POD: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Ready", "How many containers are ready, of how many."),
        Column::text("Status", "What the pod and its containers are doing."),
        Column::text("Restarts", "How often containers were restarted, and how long ago the last time was."),
        AGE,
        Column::text("IP", "The pod's address.").wide(),
        Column::text("Node", "The node that the pod is bound to.").wide(),
        Column::text("Nominated Node", "Where the pod may run once lower priorities have made way.").wide(),
        Column::text("Readiness Gates", "How many further conditions for readiness hold, of how many.")
            .wide(),
    ],
    cells: pod,
};

pub(super) const POD_TEMPLATE: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Containers", "The names of the template's containers."),
        Column::text("Images", "The images of the template's containers."),
        Column::text("Pod Labels", "The labels that the template's pods get."),
    ],
    cells: |row| {
        let template = &row.object["template"];
        let [names, images] = containers(template);
        vec![row.name(), names, images, labels(&template["metadata"]["labels"]).into()]
    },
};

fn pod(row: &Row<'_>) -> Vec<Value> {
    let (spec, status) = (&row.object["spec"], &row.object["status"]);
    let summary = summarize(row.object);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, time::age(last, row.now))
        }
        _ => summary.restarts.to_string(),
    };
    let gates = items(&spec["readinessGates"]);
    let gates = if gates.is_empty() {
        "<none>".to_owned()
    } else {
        let open =
            gates.iter().filter(|gate| condition_is_true(row.object, text(&gate["conditionType"]))).count();
        format!("{open}/{}", gates.len())
    };
    vec![
        row.name(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        row.age(),
        text_or(&status["podIPs"][0]["ip"], "<none>").into(),
        text_or(&spec["nodeName"], "<none>").into(),
        text_or(&status["nominatedNodeName"], "<none>").into(),
        gates.into(),
    ]
}

/// A pod in one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

/// Restarts of some containers, and when the last of them ended.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += integer(&container["restartCount"]);
        let ended = container["lastState"]["terminated"]["finishedAt"].as_str().and_then(time::parse);
        self.last = self.last.max(ended);
    }
}

/// Reads the pod's state off its conditions and container statuses, the most telling one winning: what a
/// person needs to know first (init containers before the others, errors before completion).
pub(super) fn summarize(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let phase = text(&status["phase"]);
    let mut reason = text_or(&status["reason"], phase).to_owned();
    let gated = items(&status["conditions"])
        .iter()
        .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated");
    if gated {
        "SchedulingGated".clone_into(&mut reason);
    }

    let init_containers = items(&spec["initContainers"]);
    let is_sidecar = |name: &Value| {
        init_containers
            .iter()
            .any(|container| container["name"] == *name && container["restartPolicy"] == "Always")
    };
    let sidecars = init_containers.iter().filter(|container| container["restartPolicy"] == "Always").count();
    let total = items(&spec["containers"]).len() + sidecars;

    let mut ready = 0;
    let mut restarts = Restarts::default();
    let mut sidecar_restarts = Restarts::default();
    let mut initializing = None;
    for (index, container) in items(&status["initContainerStatuses"]).iter().enumerate() {
        restarts.add(container);
        let sidecar = is_sidecar(&container["name"]);
        if sidecar {
            sidecar_restarts.add(container);
        }
        let state = &container["state"];
        let waiting = text(&state["waiting"]["reason"]);
        if state["terminated"].is_object() && integer(&state["terminated"]["exitCode"]) == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            ready += usize::from(container["ready"] == true);
            continue;
        }
        initializing = Some(if state["terminated"].is_object() {
            format!("Init:{}", termination(&state["terminated"]))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", init_containers.len())
        });
        break;
    }
    let initialized = initializing.is_none() || condition_is_true(pod, "Initialized");
    if let Some(progress) = initializing {
        reason = progress;
    }
    if initialized {
        restarts = sidecar_restarts;
        reason = app_containers(pod, reason, &mut ready, &mut restarts);
    }

    if pod["metadata"]["deletionTimestamp"].is_string() {
        if status["reason"] == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut reason);
        }
    }
    Summary { reason, ready, total, restarts: restarts.count, last_restart: restarts.last }
}

/// What the app containers say; the first one listed has the last word.
fn app_containers(pod: &Value, mut reason: String, ready: &mut usize, restarts: &mut Restarts) -> String {
    let mut running = false;
    let mut error = None;
    for container in items(&pod["status"]["containerStatuses"]).iter().rev() {
        restarts.add(container);
        let state = &container["state"];
        let waiting = text(&state["waiting"]["reason"]);
        if !waiting.is_empty() {
            waiting.clone_into(&mut reason);
        } else if state["terminated"].is_object() {
            reason = termination(&state["terminated"]);
            if integer(&state["terminated"]["exitCode"]) != 0 {
                error = Some(reason.clone());
            }
        } else if container["ready"] == true && state["running"].is_object() {
            running = true;
            *ready += 1;
        }
    }
    // Completion of one container is not the pod's as long as another one runs or has failed.
    if reason == "Completed" {
        if running && condition_is_true(pod, "Ready") {
            return "Running".to_owned();
        }
        if let Some(error) = error {
            return error;
        }
        if running {
            return "NotReady".to_owned();
        }
    }
    reason
}

/// Why a container ended: its reason, else its signal, else its exit code.
fn termination(terminated: &Value) -> String {
    let (reason, signal) = (text(&terminated["reason"]), integer(&terminated["signal"]));
    if !reason.is_empty() {
        reason.to_owned()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", integer(&terminated["exitCode"]))
    }
}
