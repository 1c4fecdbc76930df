//! Workloads: what makes pods, and what watches over them.

use api_objects::time;
use serde_json::Value;

use super::{
    AGE, CONTAINERS, Column, IMAGES, NAME, Printer, Row, SELECTOR, condition_is_true, containers,
    int_or_string, integer, items, labels, length, selector, text, text_or,
};

const DESIRED: Column = Column::integer("Desired", "How many pods there should be.");
const CURRENT: Column = Column::integer("Current", "How many pods there are.");
const READY: Column = Column::integer("Ready", "How many pods are ready.");

pub(super) const REPLICATION_CONTROLLER: Printer = Printer {
    columns: &[NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR],
    cells: |row| replicas(row, labels(&row.object["spec"]["selector"])),
};

pub(super) const REPLICA_SET: Printer = Printer {
    columns: &[NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR],
    cells: |row| replicas(row, selector(&row.object["spec"]["selector"])),
};

fn replicas(row: &Row<'_>, selector: String) -> Vec<Value> {
    let (spec, status) = (&row.object["spec"], &row.object["status"]);
    let [names, images] = containers(&spec["template"]);
    vec![
        row.name(),
        integer(&spec["replicas"]).into(),
        integer(&status["replicas"]).into(),
        integer(&status["readyReplicas"]).into(),
        row.age(),
        names,
        images,
        selector.into(),
    ]
}

pub(super) const DEPLOYMENT: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Ready", "How many pods are ready, of how many."),
        Column::text("Up-to-date", "How many pods follow the newest template."),
        Column::text("Available", "How many pods have been ready for long enough."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |row| {
        let (spec, status) = (&row.object["spec"], &row.object["status"]);
        let [names, images] = containers(&spec["template"]);
        vec![
            row.name(),
            format!("{}/{}", integer(&status["readyReplicas"]), integer(&spec["replicas"])).into(),
            integer(&status["updatedReplicas"]).into(),
            integer(&status["availableReplicas"]).into(),
            row.age(),
            names,
            images,
            selector(&spec["selector"]).into(),
        ]
    },
};

pub(super) const STATEFUL_SET: Printer = Printer {
    columns: &[NAME, Column::text("Ready", "How many pods are ready, of how many."), AGE, CONTAINERS, IMAGES],
    cells: |row| {
        let (spec, status) = (&row.object["spec"], &row.object["status"]);
        let [names, images] = containers(&spec["template"]);
        let ready = format!("{}/{}", integer(&status["readyReplicas"]), integer(&spec["replicas"]));
        vec![row.name(), ready.into(), row.age(), names, images]
    },
};

pub(super) const DAEMON_SET: Printer = Printer {
    columns: &[
        NAME,
        Column::integer("Desired", "How many nodes should run the pod."),
        Column::integer("Current", "How many nodes run the pod and should."),
        Column::integer("Ready", "On how many nodes the pod is ready."),
        Column::integer("Up-to-date", "On how many nodes the pod follows the newest template."),
        Column::integer("Available", "On how many nodes the pod has been ready for long enough."),
        Column::text("Node Selector", "Which nodes run the pod."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |row| {
        let (spec, status) = (&row.object["spec"], &row.object["status"]);
        let [names, images] = containers(&spec["template"]);
        vec![
            row.name(),
            integer(&status["desiredNumberScheduled"]).into(),
            integer(&status["currentNumberScheduled"]).into(),
            integer(&status["numberReady"]).into(),
            integer(&status["updatedNumberScheduled"]).into(),
            integer(&status["numberAvailable"]).into(),
            labels(&spec["template"]["spec"]["nodeSelector"]).into(),
            row.age(),
            names,
            images,
            selector(&spec["selector"]).into(),
        ]
    },
};

pub(super) const CONTROLLER_REVISION: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Controller", "What the revision belongs to."),
        Column::text("Revision", "The revision's number."),
        AGE,
    ],
    cells: |row| {
        let owner = items(&row.object["metadata"]["ownerReferences"])
            .iter()
            .find(|owner| owner["controller"] == true);
        let controller = owner.map_or_else(
            || "<none>".to_owned(),
            |owner| {
                let group = text(&owner["apiVersion"]).split_once('/').map(|(group, _)| format!(".{group}"));
                let kind = format!("{}{}", text(&owner["kind"]), group.unwrap_or_default()).to_lowercase();
                format!("{kind}/{}", text(&owner["name"]))
            },
        );
        vec![row.name(), controller.into(), integer(&row.object["revision"]).into(), row.age()]
    },
};

pub(super) const JOB: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Status", "How the job stands."),
        Column::text("Completions", "How many pods succeeded, of how many."),
        Column::text("Duration", "How long the job has been, or was, at work."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |row| {
        let (spec, status) = (&row.object["spec"], &row.object["status"]);
        let succeeded = integer(&status["succeeded"]);
        let completions = match (spec["completions"].as_i64(), integer(&spec["parallelism"])) {
            (Some(wanted), _) => format!("{succeeded}/{wanted}"),
            (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}"),
            (None, _) => format!("{succeeded}/1"),
        };
        let started = status["startTime"].as_str().and_then(time::parse);
        let ended = status["completionTime"].as_str().and_then(time::parse);
        let took = started.map(|started| time::age(started, ended.unwrap_or(row.now))).unwrap_or_default();
        let [names, images] = containers(&spec["template"]);
        vec![
            row.name(),
            job_status(row).into(),
            completions.into(),
            took.into(),
            row.age(),
            names,
            images,
            selector(&spec["selector"]).into(),
        ]
    },
};

fn job_status(row: &Row<'_>) -> &'static str {
    let has = |condition| condition_is_true(row.object, condition);
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if row.deleted() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

pub(super) const CRON_JOB: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Schedule", "When jobs are made, in Cron's notation."),
        Column::text("Timezone", "The time zone of the schedule."),
        Column::boolean("Suspend", "Whether no jobs are made for now."),
        Column::integer("Active", "How many jobs are at work."),
        Column::text("Last Schedule", "How long ago a job was last made."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |row| {
        let (spec, status) = (&row.object["spec"], &row.object["status"]);
        let suspend = match spec["suspend"].as_bool() {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let last = &status["lastScheduleTime"];
        let job = &spec["jobTemplate"]["spec"];
        let [names, images] = containers(&job["template"]);
        vec![
            row.name(),
            text(&spec["schedule"]).into(),
            text_or(&spec["timeZone"], "<none>").into(),
            suspend.into(),
            length(&status["active"]).into(),
            if last.is_null() { "<none>".into() } else { row.since(last) },
            row.age(),
            names,
            images,
            selector(&job["selector"]).into(),
        ]
    },
};

pub(super) const HORIZONTAL_POD_AUTOSCALER: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Reference", "What is scaled."),
        Column::text("Targets", "The metrics now, and what they should be."),
        Column::text("MinPods", "The least number of pods."),
        Column::text("MaxPods", "The greatest number of pods."),
        Column::text("Replicas", "How many pods there are."),
        AGE,
    ],
    cells: |row| {
        let (spec, status) = (&row.object["spec"], &row.object["status"]);
        let target = &spec["scaleTargetRef"];
        let minimum =
            spec["minReplicas"].as_i64().map_or_else(|| "<unset>".to_owned(), |minimum| minimum.to_string());
        vec![
            row.name(),
            format!("{}/{}", text(&target["kind"]), text(&target["name"])).into(),
            metrics(spec, status).into(),
            minimum.into(),
            integer(&spec["maxReplicas"]).into(),
            integer(&status["currentReplicas"]).into(),
            row.age(),
        ]
    },
};

/// The first two metrics as `current/target`; version 1 knows only the CPU.
fn metrics(spec: &Value, status: &Value) -> String {
    if let Some(target) = percent(&spec["targetCPUUtilizationPercentage"]) {
        return format!(
            "cpu: {}/{target}",
            percent(&status["currentCPUUtilizationPercentage"]).unwrap_or_else(unknown)
        );
    }
    let specs = items(&spec["metrics"]);
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let shown: Vec<String> = specs
        .iter()
        .take(2)
        .enumerate()
        .map(|(index, spec)| metric(spec, &status["currentMetrics"][index]))
        .collect();
    match specs.len() {
        0..=2 => shown.join(", "),
        many => format!("{} + {} more...", shown.join(", "), many - 2),
    }
}

fn metric(spec: &Value, status: &Value) -> String {
    let field = match text(&spec["type"]) {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (&spec[field]["target"], &status[field]["current"]);
    let is_resource = matches!(field, "resource" | "containerResource");
    let name = if is_resource { format!("{}: ", text(&spec[field]["name"])) } else { String::new() };
    if is_resource && target["averageValue"].is_null() {
        let current = percent(&current["averageUtilization"]).unwrap_or_else(unknown);
        let target = percent(&target["averageUtilization"]).unwrap_or_else(|| "<auto>".to_owned());
        return format!("{name}{current}/{target}");
    }
    let value = if target["averageValue"].is_null() { "value" } else { "averageValue" };
    // Where either may stand, an average says so.
    let average =
        if value == "averageValue" && matches!(field, "object" | "external") { " (avg)" } else { "" };
    format!("{name}{}/{}{average}", text_or(&current[value], "<unknown>"), text(&target[value]))
}

fn percent(value: &Value) -> Option<String> {
    value.as_i64().map(|percent| format!("{percent}%"))
}

fn unknown() -> String {
    "<unknown>".to_owned()
}

pub(super) const POD_DISRUPTION_BUDGET: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Min Available", "How many pods must stay available."),
        Column::text("Max Unavailable", "How many pods may be unavailable."),
        Column::integer("Allowed Disruptions", "How many pods may be evicted now."),
        AGE,
    ],
    cells: |row| {
        let spec = &row.object["spec"];
        let bound = |value: &Value| if value.is_null() { "N/A".to_owned() } else { int_or_string(value) };
        vec![
            row.name(),
            bound(&spec["minAvailable"]).into(),
            bound(&spec["maxUnavailable"]).into(),
            integer(&row.object["status"]["disruptionsAllowed"]).into(),
            row.age(),
        ]
    },
};
