//! Events: lenient in the core group, strict in events.k8s.io.

use api_objects::{Value, names};

use super::findings::{Findings, Spot};
use super::{given, integer, text};

const REPORTING_INSTANCE_MAX: usize = 128;
const ACTION_MAX: usize = 128;
const REASON_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

/// The names of the fields that differ between the groups.
struct Names {
    object: &'static str,
    controller: &'static str,
    note: &'static str,
}

const CORE: Names = Names { object: "involvedObject", controller: "reportingComponent", note: "message" };
const EVENTS: Names = Names { object: "regarding", controller: "reportingController", note: "note" };

pub(super) fn core(new: &Value, findings: &mut Findings) {
    legacy(new, &CORE, findings);
}

/// What holds for both groups. Errors name the fields as the core group does, but for the controller.
fn legacy(event: &Value, names: &Names, findings: &mut Findings) {
    let namespace = text(&event["metadata"]["namespace"]);
    let object_namespace = text(&event[names.object]["namespace"]);
    let involved = Spot::root("involvedObject");
    let mismatch = if given(&event["eventTime"]) {
        check_new_style(event, names, findings);
        object_namespace.is_empty() && !matches!(namespace, "default" | "kube-system")
    } else if object_namespace.is_empty() {
        !matches!(namespace, "" | "default")
    } else {
        object_namespace != namespace
    };
    if mismatch {
        findings.invalid(&involved.field("namespace"), object_namespace, "does not match event.namespace");
    }
    findings.invalid_each(&Spot::root("namespace"), namespace, names::dns1123_subdomain(namespace));
}

fn check_new_style(event: &Value, names: &Names, findings: &mut Findings) {
    let controller = text(&event[names.controller]);
    let at = Spot::root(names.controller);
    if controller.is_empty() {
        findings.required(&at, "");
    }
    findings.invalid_each(&at, controller, names::qualified_name(controller));
    let mut bounded = |name: &'static str, value: &str, max: usize, required: bool| {
        if required && value.is_empty() {
            findings.required(&Spot::root(name), "");
        }
        if value.len() > max {
            findings.invalid(&Spot::root(name), "", &format!("can have at most {max} characters"));
        }
    };
    bounded("reportingInstance", text(&event["reportingInstance"]), REPORTING_INSTANCE_MAX, true);
    bounded("action", text(&event["action"]), ACTION_MAX, true);
    bounded("reason", text(&event["reason"]), REASON_MAX, true);
    bounded("message", text(&event[names.note]), NOTE_MAX, false);
}

pub(super) fn strict(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    legacy(new, &EVENTS, findings);
    let Some(old) = old else {
        check_series(new, findings);
        if !given(&new["eventTime"]) {
            findings.required(&Spot::root("eventTime"), "");
        }
        let kind = text(&new["type"]);
        if !matches!(kind, "Normal" | "Warning") {
            findings.invalid(&Spot::root("type"), "", &format!("has invalid value: {kind}"));
        }
        for (field, name) in
            [("deprecatedFirstTimestamp", "firstTimestamp"), ("deprecatedLastTimestamp", "lastTimestamp")]
        {
            if given(&new[field]) {
                findings.invalid(&Spot::root(name), "", "needs to be unset");
            }
        }
        if integer(&new["deprecatedCount"]) != 0 {
            findings.invalid(&Spot::root("count"), "", "needs to be unset");
        }
        let source = &new["deprecatedSource"];
        if !text(&source["component"]).is_empty() || !text(&source["host"]).is_empty() {
            findings.invalid(&Spot::root("source"), "", "needs to be unset");
        }
        return;
    };
    if new["series"] != old["series"] {
        check_series(new, findings);
    }
    for (field, name) in [
        ("regarding", "involvedObject"),
        ("reason", "reason"),
        ("note", "message"),
        ("deprecatedSource", "source"),
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingController", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        findings.immutable(&Spot::root(name), &new[field], &old[field]);
    }
}

fn check_series(event: &Value, findings: &mut Findings) {
    let series = &event["series"];
    if !given(series) {
        return;
    }
    if integer(&series["count"]) < 2 {
        findings.invalid(&Spot::root("series.count"), "", "should be at least 2");
    }
    if !given(&series["lastObservedTime"]) {
        findings.required(&Spot::root("series.lastObservedTime"), "");
    }
}
