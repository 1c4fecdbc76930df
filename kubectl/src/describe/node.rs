//! Nodes.

use api_objects::pod_resources::total;
use api_objects::quantity::{Format, Quantity};
use api_objects::{Value, time};

use super::{Report, Subject, items_at, labels, long_time, text_at, text_of};

/// Describes a node.
pub(super) fn describe(report: &mut Report, subject: &Subject<'_>) {
    let node = subject.object;
    report.field(0, "Name", text_at(node, "/metadata/name", ""));
    let roles: Vec<&str> = node
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    report.field(0, "Roles", &if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") });
    labels(report, node);
    report.field(0, "CreationTimestamp", &long_time(node.pointer("/metadata/creationTimestamp")));
    let taints: Vec<String> = items_at(node, "/spec/taints")
        .iter()
        .map(|taint| {
            let value = taint["value"].as_str().filter(|value| !value.is_empty());
            let value = value.map(|value| format!("={value}")).unwrap_or_default();
            format!("{}{value}:{}", text_at(taint, "/key", ""), text_at(taint, "/effect", ""))
        })
        .collect();
    report.list(0, "Taints", &taints);
    report.field(
        0,
        "Unschedulable",
        if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) { "true" } else { "false" },
    );
    let conditions = items_at(node, "/status/conditions");
    if !conditions.is_empty() {
        report.line(0, "Conditions:");
        report.line(1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
        report.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
        for condition in conditions {
            let cells = [
                text_at(condition, "/type", "").to_owned(),
                text_at(condition, "/status", "").to_owned(),
                long_time(condition.get("lastHeartbeatTime")),
                long_time(condition.get("lastTransitionTime")),
                text_at(condition, "/reason", "").to_owned(),
                text_at(condition, "/message", "").to_owned(),
            ];
            report.line(1, &cells.join("\t"));
        }
    }
    report.line(0, "Addresses:");
    for address in items_at(node, "/status/addresses") {
        report.field(1, text_at(address, "/type", ""), text_at(address, "/address", ""));
    }
    for (title, pointer) in [("Capacity", "/status/capacity"), ("Allocatable", "/status/allocatable")] {
        report.line(0, &format!("{title}:"));
        for (resource, amount) in node.pointer(pointer).and_then(Value::as_object).into_iter().flatten() {
            report.field(1, resource, &text_of(amount));
        }
    }
    report.line(0, "System Info:");
    for (title, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ] {
        report.field(1, title, text_at(node, &format!("/status/nodeInfo/{field}"), ""));
    }
    for (title, pointer) in [("PodCIDR", "/spec/podCIDR"), ("ProviderID", "/spec/providerID")] {
        if let Some(text) = node.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            report.field(0, title, text);
        }
    }
    pods(report, subject);
}

/// What the pods on the node ask for, against what it has.
fn pods(report: &mut Report, subject: &Subject<'_>) {
    let node = subject.object;
    let live: Vec<&Value> = subject
        .pods
        .iter()
        .filter(|pod| !matches!(text_at(pod, "/status/phase", ""), "Succeeded" | "Failed"))
        .collect();
    let columns = [("cpu", "requests"), ("cpu", "limits"), ("memory", "requests"), ("memory", "limits")];
    let room = |resource: &str| -> Quantity {
        let amount = node.pointer("/status/allocatable").and_then(|amounts| amounts.get(resource));
        amount.and_then(|amount| Quantity::from_value(amount).ok()).unwrap_or_default()
    };
    let cell = |resource: &str, amount: Quantity| {
        let room = room(resource).as_f64();
        let percent = if room > 0.0 { (amount.as_f64() / room * 100.0).trunc() } else { 0.0 };
        format!("{amount} ({percent:.0}%)")
    };
    report.field(0, "Non-terminated Pods", &format!("({} in total)", live.len()));
    report.line(1, "Namespace\tName\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    report.line(1, "---------\t----\t------------\t----------\t---------------\t-------------\t---");
    let mut totals = [
        Quantity::default(),
        Quantity::default(),
        Quantity::from_units(0, Format::BinarySi),
        Quantity::from_units(0, Format::BinarySi),
    ];
    for pod in live {
        let mut cells = vec![
            text_at(pod, "/metadata/namespace", "").to_owned(),
            text_at(pod, "/metadata/name", "").to_owned(),
        ];
        for (at, (resource, kind)) in columns.iter().enumerate() {
            let amount = sum(pod, kind, resource);
            totals[at] = totals[at] + amount;
            cells.push(cell(resource, amount));
        }
        cells.push(time::age_of(pod.pointer("/metadata/creationTimestamp"), subject.now));
        report.line(1, &cells.join("\t"));
    }
    report.line(0, "Allocated resources:");
    report.line(1, "(Total limits may be over 100 percent, i.e., overcommitted.)");
    report.line(1, "Resource\tRequests\tLimits");
    report.line(1, "--------\t--------\t------");
    report.line(1, &format!("cpu\t{}\t{}", cell("cpu", totals[0]), cell("cpu", totals[1])));
    report.line(1, &format!("memory\t{}\t{}", cell("memory", totals[2]), cell("memory", totals[3])));
}

fn sum(pod: &Value, kind: &str, resource: &str) -> Quantity {
    total(&pod["spec"], kind).remove(resource).unwrap_or_default()
}
