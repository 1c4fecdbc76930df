//! Workloads: ReplicaSets wholly, the others as far as their selectors, counts and templates go.

use api_objects::Value;

use super::findings::{Findings, Spot};
use super::{entries, given, integer, items, metadata, pods, scheduling, text};

const SPEC: Spot<'static> = Spot::root("spec");

/// Counts, selector and template: what all of them share. `name` is what messages call the kind.
fn selected_template(new: &Value, name: &str, findings: &mut Findings) {
    let spec = &new["spec"];
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        findings.not_negative(&SPEC.field(field), &spec[field]);
    }
    let selector = &spec["selector"];
    let at = SPEC.field("selector");
    let template_at = SPEC.field("template");
    if given(selector) {
        metadata::label_selector(selector, &at, findings);
        if entries(&selector["matchLabels"]).next().is_none()
            && items(&selector["matchExpressions"]).is_empty()
        {
            findings.invalid(&at, selector.clone(), &format!("empty selector is invalid for {name}"));
        } else if !scheduling::selects(selector, &spec["template"]["metadata"]["labels"]) {
            not_selected(spec, &template_at, findings);
        }
    } else {
        findings.required(&at, "");
    }
    always_running(&spec["template"], name, &template_at, findings);
}

fn not_selected(spec: &Value, template: &Spot<'_>, findings: &mut Findings) {
    let at = template.field("metadata");
    let labels = spec["template"]["metadata"]["labels"].clone();
    findings.invalid(&at.field("labels"), labels, "`selector` does not match template `labels`");
}

/// A template of pods that are meant to run for ever.
fn always_running(template: &Value, name: &str, at: &Spot<'_>, findings: &mut Findings) {
    pods::template(template, at, findings);
    let at = at.field("spec");
    let policy = text(&template["spec"]["restartPolicy"]);
    if policy != "Always" {
        findings.not_supported(&at.field("restartPolicy"), policy, &["Always"]);
    }
    if given(&template["spec"]["activeDeadlineSeconds"]) {
        let kind = match name {
            "deployment" => "ReplicaSet",
            other => other,
        };
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        findings.forbidden(&at.field("activeDeadlineSeconds"), &detail);
    }
}

fn selector_is_immutable(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    if let Some(old) = old {
        findings.immutable(&SPEC.field("selector"), &new["spec"]["selector"], &old["spec"]["selector"]);
    }
}

pub(super) fn replica_set(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    // Upstream's message for an empty selector says `deployment` here too.
    selected_template(new, "deployment", findings);
    selector_is_immutable(new, old, findings);
}

pub(super) fn deployment(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    selected_template(new, "deployment", findings);
    selector_is_immutable(new, old, findings);
    let (strategy, at) = (&new["spec"]["strategy"], SPEC.field("strategy"));
    match text(&strategy["type"]) {
        "Recreate" if given(&strategy["rollingUpdate"]) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            findings.forbidden(&at.field("rollingUpdate"), detail);
        }
        "RollingUpdate" if !given(&strategy["rollingUpdate"]) => {
            findings.required(&at.field("rollingUpdate"), "this should be defaulted and never be nil");
        }
        "Recreate" | "RollingUpdate" => {}
        kind => findings.not_supported(&at, kind, &["Recreate", "RollingUpdate"]),
    }
    let spec = &new["spec"];
    if let Some(deadline) = spec["progressDeadlineSeconds"].as_i64()
        && deadline <= integer(&spec["minReadySeconds"])
    {
        let detail = "must be greater than minReadySeconds";
        findings.invalid(&SPEC.field("progressDeadlineSeconds"), deadline, detail);
    }
}

pub(super) fn stateful_set(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    selected_template(new, "statefulset", findings);
    let (spec, Some(old)) = (&new["spec"], old) else {
        return;
    };
    const MUTABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let mut fields = entries(spec).chain(entries(&old["spec"])).map(|(name, _)| name);
    if fields.any(|name| !MUTABLE.contains(&name) && spec[name] != old["spec"][name]) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        findings.forbidden(&SPEC, detail);
    }
}

pub(super) fn daemon_set(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    selected_template(new, "daemonset", findings);
    selector_is_immutable(new, old, findings);
}

/// A ReplicationController's selector is a plain map of labels.
pub(super) fn replication_controller(new: &Value, findings: &mut Findings) {
    let spec = &new["spec"];
    for field in ["replicas", "minReadySeconds"] {
        findings.not_negative(&SPEC.field(field), &spec[field]);
    }
    let selector = &spec["selector"];
    if entries(selector).next().is_none() {
        findings.required(&SPEC.field("selector"), "");
    }
    let template_at = SPEC.field("template");
    if !given(&spec["template"]) {
        findings.required(&template_at, "");
        return;
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if entries(selector).any(|(key, value)| labels[key] != *value) {
        not_selected(spec, &template_at, findings);
    }
    always_running(&spec["template"], "ReplicationController", &template_at, findings);
}

pub(super) fn job(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    job_spec(&new["spec"], &SPEC, findings);
    if let Some(old) = old {
        for field in ["completions", "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"]
        {
            let indexed = field == "completions" && new["spec"]["completionMode"] == "Indexed";
            if !indexed {
                findings.immutable(&SPEC.field(field), &new["spec"][field], &old["spec"][field]);
            }
        }
        if old["spec"]["suspend"] != true {
            findings.immutable(&SPEC.field("template"), &new["spec"]["template"], &old["spec"]["template"]);
        }
    }
}

fn job_spec(spec: &Value, at: &Spot<'_>, findings: &mut Findings) {
    for field in
        ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"]
    {
        findings.not_negative(&at.field(field), &spec[field]);
    }
    let at = at.field("template");
    pods::template(&spec["template"], &at, findings);
    let policy = text(&spec["template"]["spec"]["restartPolicy"]);
    if !matches!(policy, "OnFailure" | "Never") {
        let at = at.field("spec");
        if policy == "Always" {
            findings.required(&at.field("restartPolicy"), "valid values: \"OnFailure\", \"Never\"");
        } else {
            findings.not_supported(&at.field("restartPolicy"), policy, &["OnFailure", "Never"]);
        }
    }
}

pub(super) fn cron_job(new: &Value, findings: &mut Findings) {
    let spec = &new["spec"];
    if text(&spec["schedule"]).is_empty() {
        findings.required(&SPEC.field("schedule"), "");
    }
    let name = text(&new["metadata"]["name"]);
    if name.len() > 52 {
        let metadata = Spot::root("metadata");
        findings.invalid(&metadata.field("name"), name, "must be no more than 52 characters");
    }
    findings.one_of(
        &SPEC.field("concurrencyPolicy"),
        &spec["concurrencyPolicy"],
        &["Allow", "Forbid", "Replace"],
    );
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        findings.not_negative(&SPEC.field(field), &spec[field]);
    }
    let at = SPEC.field("jobTemplate");
    job_spec(&spec["jobTemplate"]["spec"], &at.field("spec"), findings);
}

/// The counts in a ReplicaSet's status cannot contradict one another.
pub(super) fn replicas_status(new: &Value, findings: &mut Findings) {
    let status = &new["status"];
    let at = Spot::root("status");
    for field in
        ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"]
    {
        findings.not_negative(&at.field(field), &status[field]);
    }
    for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        if integer(&status[field]) > integer(&status["replicas"]) {
            findings.invalid(
                &at.field(field),
                status[field].clone(),
                "cannot be greater than status.replicas",
            );
        }
    }
    if integer(&status["availableReplicas"]) > integer(&status["readyReplicas"]) {
        let detail = "cannot be greater than readyReplicas";
        findings.invalid(&at.field("availableReplicas"), status["availableReplicas"].clone(), detail);
    }
}
