//! Nodes, namespaces, leases, priority classes.

use api_objects::{Value, names, pod_resources::is_extended, quantity::Quantity};

use super::findings::{Findings, Spot};
use super::{entries, given, integer, items, metadata, text};

const SPEC: Spot<'static> = Spot::root("spec");
const STATUS: Spot<'static> = Spot::root("status");

/// Users' classes end here; what is above belongs to the system's.
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;
const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn namespace(new: &Value, findings: &mut Findings) {
    for finalizer in items(&new["spec"]["finalizers"]) {
        metadata::finalizer_name(text(finalizer), &SPEC.field("finalizers"), findings);
    }
}

pub(super) fn namespace_status(new: &Value, findings: &mut Findings) {
    let phase = text(&new["status"]["phase"]);
    let at = STATUS.field("Phase");
    if given(&new["metadata"]["deletionTimestamp"]) {
        if phase != "Terminating" {
            findings.invalid(&at, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
        }
    } else if phase != "Active" {
        findings.invalid(&at, phase, "may only be 'Active' if `deletionTimestamp` is empty");
    }
}

pub(super) fn node(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    // Upstream reports taints under `metadata`; clients match on what it says.
    taints(&new["spec"]["taints"], &Spot::root("metadata").field("taints"), findings);
    node_status(new, findings);
    let ranges = items(&new["spec"]["podCIDRs"]);
    let at = SPEC.field("podCIDRs");
    match old {
        None => {
            for (index, range) in ranges.iter().enumerate() {
                if text(range).parse::<ipnet::IpNet>().is_err() {
                    let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                    findings.invalid(&at.index(index), range.clone(), detail);
                }
            }
            if ranges.len() > 2 || (ranges.len() == 2 && !is_dual_stack(ranges)) {
                let detail = "may specify no more than one CIDR for each IP family";
                findings.invalid(&at, new["spec"]["podCIDRs"].clone(), detail);
            }
        }
        Some(old) => {
            let before = items(&old["spec"]["podCIDRs"]);
            if !before.is_empty() && before != ranges {
                findings.forbidden(&at, "node updates may not change podCIDR except from \"\" to valid");
            }
            let before = text(&old["spec"]["providerID"]);
            if !before.is_empty() && new["spec"]["providerID"] != before {
                let detail = "node updates may not change providerID except from \"\" to valid";
                findings.forbidden(&SPEC.field("providerID"), detail);
            }
        }
    }
}

fn is_dual_stack(ranges: &[Value]) -> bool {
    let sixes = ranges.iter().filter(|range| text(range).contains(':')).count();
    sixes == 1
}

fn taints(taints: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, taint) in items(taints).iter().enumerate() {
        let at = at.index(index);
        let (key, value, effect) = (text(&taint["key"]), text(&taint["value"]), text(&taint["effect"]));
        findings.invalid_each(&at.field("key"), key, names::qualified_name(key));
        let problems = names::label_value(value);
        if !problems.is_empty() {
            findings.invalid(&at.field("value"), value, &problems.join(";"));
        }
        findings.one_of(&at.field("effect"), &taint["effect"], &TAINT_EFFECTS);
        if seen.contains(&(key, effect)) {
            findings.duplicate(&at, taint.clone());
        }
        seen.push((key, effect));
    }
}

pub(super) fn node_status(new: &Value, findings: &mut Findings) {
    for list in ["capacity", "allocatable"] {
        let at = STATUS.field(list);
        for (name, quantity) in entries(&new["status"][list]) {
            resource_quantity(name, quantity, &at.field(name), findings);
        }
    }
    let addresses = items(&new["status"]["addresses"]);
    let at = STATUS.field("addresses");
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            findings.duplicate(&at.index(index), address.clone());
        }
    }
}

/// A quantity of a resource: not negative, and whole where the resource comes in pieces.
pub(super) fn resource_quantity(name: &str, value: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let Ok(quantity) = Quantity::from_value(value) else {
        return;
    };
    if quantity.signum() < 0 {
        findings.invalid(at, quantity.to_string(), "must be greater than or equal to 0");
    }
    if comes_in_pieces(name) && quantity.milli_value() % 1000 != 0 {
        findings.invalid(at, quantity.to_string(), "must be an integer");
    }
}

/// Counted objects and extended resources.
fn comes_in_pieces(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "services"
            | "replicationcontrollers"
            | "resourcequotas"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || is_extended(name)
}

pub(super) fn lease(new: &Value, findings: &mut Findings) {
    let spec = &new["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
        let at = SPEC.field("leaseDurationSeconds");
        findings.invalid(&at, spec["leaseDurationSeconds"].clone(), "must be greater than 0");
    }
    findings.not_negative(&SPEC.field("leaseTransitions"), &spec["leaseTransitions"]);
    if !text(&spec["preferredHolder"]).is_empty() && text(&spec["strategy"]).is_empty() {
        findings.forbidden(&SPEC.field("preferredHolder"), "may only be specified if `strategy` is defined");
    }
}

/// The classes that the system brings, with their values.
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

pub(super) fn priority_class(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    let at = Spot::root("value");
    if let Some(old) = old {
        if new["value"] != old["value"] {
            findings.forbidden(&at, "may not be changed in an update.");
        }
        findings.immutable(
            &Spot::root("preemptionPolicy"),
            &new["preemptionPolicy"],
            &old["preemptionPolicy"],
        );
        return;
    }
    let (name, value) = (text(&new["metadata"]["name"]), integer(&new["value"]));
    if name.starts_with("system-") {
        if let Some(problem) = not_a_system_class(name, value, new["globalDefault"] == true) {
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {problem}"
            );
            findings.forbidden(&Spot::root("metadata").field("name"), &detail);
        }
    } else if value > HIGHEST_USER_PRIORITY {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
        findings.forbidden(&at, &detail);
    }
    if given(&new["preemptionPolicy"]) {
        preemption_policy(&new["preemptionPolicy"], &Spot::root("preemptionPolicy"), findings);
    }
}

fn not_a_system_class(name: &str, value: i64, global_default: bool) -> Option<String> {
    match SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some((_, known)) if *known != value => Some(format!("value of {name} PriorityClass must be {known}")),
        Some(_) if global_default => Some(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => None,
    }
}

pub(super) fn preemption_policy(policy: &Value, at: &Spot<'_>, findings: &mut Findings) {
    findings.one_of(at, policy, &["PreemptLowerPriority", "Never"]);
}
