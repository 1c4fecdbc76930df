//! Pods and pod templates: the spec as a whole, and what may change of it.

use api_objects::{Value, names, sysctls};

use super::findings::{Findings, Spot};
use super::{cluster, containers, given, integer, items, metadata, resources, scheduling, text, volumes};

pub(super) const SPEC: Spot<'static> = Spot::root("spec");
const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const MAX_ACTIVE_SECONDS: i64 = i32::MAX as i64;

/// A Pod: what every spec must keep to, and on update also what may change.
pub(super) fn pod(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    let spec = &new["spec"];
    // A spec that did not change was judged when it was written: most updates are of metadata.
    if old.is_none_or(|old| old["spec"] != *spec) {
        check_spec(spec, &SPEC, findings);
    }
    match old {
        None => {
            if !items(&spec["ephemeralContainers"]).is_empty() {
                let detail = "cannot be set on create";
                findings.forbidden(&SPEC.field("ephemeralContainers"), detail);
            }
            if !items(&spec["schedulingGates"]).is_empty() && !text(&spec["nodeName"]).is_empty() {
                findings.forbidden(
                    &SPEC.field("nodeName"),
                    "cannot be set until all schedulingGates have been cleared",
                );
            }
        }
        Some(old) => check_change(spec, &old["spec"], findings),
    }
}

/// A pod whose ephemeral containers changed: they can be added, and that is all (upstream's
/// `ValidatePodEphemeralContainersUpdate`).
pub(super) fn ephemeral_containers(new: &Value, old: &Value, findings: &mut Findings) {
    if given(&old["metadata"]["annotations"]["kubernetes.io/config.mirror"]) {
        findings.forbidden(&Spot::root(""), "static pods do not support ephemeral containers");
        return;
    }
    check_spec(&new["spec"], &SPEC, findings);
    let at = SPEC.field("ephemeralContainers");
    for before in items(&old["spec"]["ephemeralContainers"]) {
        let name = text(&before["name"]);
        match items(&new["spec"]["ephemeralContainers"]).iter().find(|now| now["name"] == name) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                findings.forbidden(&at, &detail);
            }
            Some(now) if now != before => {
                let detail = format!(
                    "existing ephemeral containers {name:?} may not be changed\n{}",
                    differences(before, now)
                );
                findings.forbidden(&at, &detail);
            }
            Some(_) => {}
        }
    }
}

/// A pod template.
pub(super) fn template(template: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let metadata_at = at.field("metadata");
    metadata::labels(&template["metadata"]["labels"], &metadata_at.field("labels"), findings);
    let spec_at = at.field("spec");
    check_spec(&template["spec"], &spec_at, findings);
    if !items(&template["spec"]["ephemeralContainers"]).is_empty() {
        findings.forbidden(
            &spec_at.field("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

pub(super) fn check_spec(spec: &Value, at: &Spot<'_>, findings: &mut Findings) {
    if !given(&spec["terminationGracePeriodSeconds"]) {
        findings.required(&at.field("terminationGracePeriodSeconds"), "");
    }
    let volumes = volumes::volumes(&spec["volumes"], &at.field("volumes"), findings);
    containers::all(spec, &volumes, at, findings);
    if spec["hostNetwork"] == true {
        containers::host_network_ports(spec, at, findings);
    }
    findings.one_of_in_order(&at.field("restartPolicy"), &spec["restartPolicy"], &RESTART_POLICIES);
    findings.one_of_in_order(&at.field("dnsPolicy"), &spec["dnsPolicy"], &DNS_POLICIES);
    metadata::labels(&spec["nodeSelector"], &at.field("nodeSelector"), findings);
    resources::pod(spec, &at.field("resources"), findings);
    if given(&spec["overhead"]) {
        resources::overhead(&spec["overhead"], &at.field("overhead"), findings);
    }
    check_security_context(spec, at, findings);
    scheduling::affinity(&spec["affinity"], &at.field("affinity"), findings);
    check_dns(spec, at, findings);
    check_gates(spec, at, findings);
    scheduling::spread_constraints(spec, &at.field("topologySpreadConstraints"), findings);
    for (field, rule) in [
        ("serviceAccountName", names::dns1123_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::dns1123_subdomain),
        ("priorityClassName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
    ] {
        let name = text(&spec[field]);
        if !name.is_empty() {
            findings.invalid_each(&at.field(field), name, rule(name));
        }
    }
    if let Some(name) = spec["runtimeClassName"].as_str() {
        findings.invalid_each(&at.field("runtimeClassName"), name, names::dns1123_subdomain(name));
    }
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64()
        && !(1..=MAX_ACTIVE_SECONDS).contains(&seconds)
    {
        let detail = format!("must be between 1 and {MAX_ACTIVE_SECONDS}, inclusive");
        findings.invalid(&at.field("activeDeadlineSeconds"), seconds, &detail);
    }
    scheduling::tolerations(&spec["tolerations"], &at.field("tolerations"), findings);
    let aliases = at.field("hostAliases");
    for (index, alias) in items(&spec["hostAliases"]).iter().enumerate() {
        let at = aliases.index(index);
        check_address(text(&alias["ip"]), &at.field("ip"), findings);
        let at = at.field("hostnames");
        for (index, name) in items(&alias["hostnames"]).iter().enumerate() {
            findings.invalid_each(&at.index(index), text(name), names::dns1123_subdomain(text(name)));
        }
    }
    if given(&spec["preemptionPolicy"]) {
        cluster::preemption_policy(&spec["preemptionPolicy"], &at.field("preemptionPolicy"), findings);
    }
    if given(&spec["os"]) {
        let (at, os) = (at.field("os"), text(&spec["os"]["name"]));
        if os.is_empty() {
            findings.required(&at.field("name"), "");
        } else if !matches!(os, "linux" | "windows") {
            findings.not_supported(&at, os, &["linux", "windows"]);
        }
    }
}

pub(super) fn check_address(address: &str, at: &Spot<'_>, findings: &mut Findings) {
    if address.parse::<std::net::IpAddr>().is_err() {
        findings.invalid(at, address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
}

fn check_security_context(spec: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let context = &spec["securityContext"];
    let at = at.field("securityContext");
    containers::user_ids(context, &at, findings);
    if let Some(group) = context["fsGroup"].as_i64() {
        containers::id_in_range(group, &at.field("fsGroup"), findings);
    }
    let groups = at.field("supplementalGroups");
    for (index, group) in items(&context["supplementalGroups"]).iter().enumerate() {
        containers::id_in_range(integer(group), &groups.index(index), findings);
    }
    check_sysctls(spec, &at.field("sysctls"), findings);
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        findings.invalid(&at.field("shareProcessNamespace"), true, detail);
    }
    if let Some(policy) = context["fsGroupChangePolicy"].as_str()
        && !matches!(policy, "OnRootMismatch" | "Always")
    {
        findings.not_supported(&at.field("fsGroupChangePolicy"), policy, &["OnRootMismatch", "Always"]);
    }
}

/// Upstream's bound on the name of a kernel parameter, and its form.
const MAX_SYSCTL: usize = 253;
const SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Kernel parameters have names, each once, and belong to a namespace that is the pod's own (upstream: `validateSysctls`).
fn check_sysctls(spec: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let list = items(&spec["securityContext"]["sysctls"]);
    for (index, sysctl) in list.iter().enumerate() {
        let at = at.index(index);
        let (at, name) = (at.field("name"), text(&sysctl["name"]));
        if name.is_empty() {
            findings.required(&at, "");
        } else if !is_sysctl_name(name) {
            let detail = format!("must have at most {MAX_SYSCTL} characters and match regex {SYSCTL}");
            findings.invalid(&at, name, &detail);
        } else if list[..index].iter().any(|other| other["name"] == name) {
            findings.duplicate(&at, name);
        }
        let shared = match sysctls::namespace(&sysctls::normalized(name)) {
            Some(sysctls::Namespace::Network) => "hostNetwork",
            Some(sysctls::Namespace::Ipc) => "hostIPC",
            None => continue,
        };
        if spec[shared] == true {
            findings.invalid(&at, name, &format!("may not be specified when '{shared}' is true"));
        }
    }
}

/// Whether a name has the form of [`SYSCTL`].
fn is_sysctl_name(name: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_segment = |segment: &[u8]| {
        segment.first().is_some_and(alphanumeric)
            && segment.last().is_some_and(alphanumeric)
            && segment.iter().all(|byte| alphanumeric(byte) || matches!(byte, b'-' | b'_'))
    };
    name.len() <= MAX_SYSCTL && name.as_bytes().split(|byte| matches!(byte, b'.' | b'/')).all(is_segment)
}

/// Upstream's bounds on a pod's own resolver configuration.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

fn check_dns(spec: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let config = &spec["dnsConfig"];
    let at = at.field("dnsConfig");
    let servers = items(&config["nameservers"]);
    if spec["dnsPolicy"] == "None" && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        findings.required(&at.field("nameservers"), detail);
    }
    let servers_at = at.field("nameservers");
    if servers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        findings.invalid(&servers_at, config["nameservers"].clone(), &detail);
    }
    for (index, server) in servers.iter().enumerate() {
        check_address(text(server), &servers_at.index(index), findings);
    }
    let searches = items(&config["searches"]);
    if searches.len() > MAX_SEARCHES {
        let detail = format!("must not have more than {MAX_SEARCHES} search paths");
        findings.invalid(&at.field("searches"), config["searches"].clone(), &detail);
    }
    let options = at.field("options");
    for (index, option) in items(&config["options"]).iter().enumerate() {
        if text(&option["name"]).is_empty() {
            findings.required(&options.index(index), "must not be empty");
        }
    }
}

fn check_gates(spec: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let readiness = at.field("readinessGates");
    for (index, gate) in items(&spec["readinessGates"]).iter().enumerate() {
        let kind = text(&gate["conditionType"]);
        findings.invalid_each(
            &readiness.index(index).field("conditionType"),
            kind,
            names::qualified_name(kind),
        );
    }
    let scheduling = at.field("schedulingGates");
    let gates = items(&spec["schedulingGates"]);
    for (index, gate) in gates.iter().enumerate() {
        let (at, name) = (scheduling.index(index), text(&gate["name"]));
        findings.invalid_each(&at, name, names::qualified_name(name));
        if gates[..index].contains(gate) {
            findings.duplicate(&at, name);
        }
    }
}

// === what may change ===

const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

fn check_change(new: &Value, old: &Value, findings: &mut Findings) {
    if new == old {
        return;
    }
    for list in ["containers", "initContainers"] {
        let at = SPEC.field(list);
        if items(&new[list]).len() != items(&old[list]).len() {
            findings.forbidden(&at, "pod updates may not add or remove containers");
            return;
        }
        for (index, container) in items(&new[list]).iter().enumerate() {
            let image = text(&container["image"]);
            if image.trim() != image {
                let detail = "must not have leading or trailing whitespace";
                findings.invalid(&at.index(index).field("image"), image, detail);
            }
        }
    }
    let at = SPEC.field("activeDeadlineSeconds");
    match (new["activeDeadlineSeconds"].as_i64(), old["activeDeadlineSeconds"].as_i64()) {
        (Some(now), Some(before)) if before < now => {
            findings.invalid(&at, now, "must be less than or equal to previous value");
            return;
        }
        (None, Some(_)) => {
            findings.invalid(&at, Value::Null, "must not update from a positive integer to nil value");
        }
        _ => {}
    }
    scheduling::only_added_tolerations(new, old, &SPEC.field("tolerations"), findings);
    let gates = SPEC.field("schedulingGates");
    for (index, gate) in items(&new["schedulingGates"]).iter().enumerate() {
        if !items(&old["schedulingGates"]).contains(gate) {
            let detail = "only deletion is allowed, but found new scheduling gate '";
            findings.forbidden(&gates.index(index), &format!("{detail}{}'", text(&gate["name"])));
        }
    }

    let mut kept = new.clone();
    restore(&mut kept, old);
    if kept != *old {
        findings.forbidden(&SPEC, &format!("{MUTABLE}\n{}", differences(old, &kept)));
    }
}

/// Puts back the fields that may change, so that what is left differs only if it must not.
fn restore(spec: &mut Value, old: &Value) {
    for list in ["containers", "initContainers"] {
        let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        for (container, before) in containers.iter_mut().zip(items(&old[list])) {
            container["image"] = before["image"].clone();
        }
    }
    let Some(fields) = spec.as_object_mut() else {
        return;
    };
    let was_negative = integer(&old["terminationGracePeriodSeconds"]) < 0;
    let hastened =
        was_negative && fields.get("terminationGracePeriodSeconds").and_then(Value::as_i64) == Some(1);
    let mut free = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    if hastened {
        free.push("terminationGracePeriodSeconds");
    }
    // A gated pod is not placed yet: where it may go can still be narrowed.
    if !items(&old["schedulingGates"]).is_empty() {
        let before = old["nodeSelector"].as_object();
        let now = fields.get("nodeSelector").and_then(Value::as_object);
        let only_added =
            before.into_iter().flatten().all(|(key, value)| now.and_then(|now| now.get(key)) == Some(value));
        if only_added {
            free.push("nodeSelector");
        }
    }
    for field in free {
        match old.get(field) {
            Some(value) => fields.insert(field.to_owned(), value.clone()),
            None => fields.remove(field),
        };
    }
}

/// The fields in which two specs differ, a line each: what a person needs in order to find their mistake.
fn differences(old: &Value, new: &Value) -> String {
    let names: std::collections::BTreeSet<&str> =
        super::entries(old).chain(super::entries(new)).map(|(name, _)| name).collect();
    let mut lines = String::new();
    for name in names {
        let (before, after) = (&old[name], &new[name]);
        if before != after {
            lines.push_str(&format!("- {name}: {before}\n+ {name}: {after}\n"));
        }
    }
    lines
}

/// A Pod's status: what has ended does not begin again where the policy forbids it.
pub(super) fn status(new: &Value, old: &Value, findings: &mut Findings) {
    let at = Spot::root("status");
    let before = text(&old["status"]["nominatedNodeName"]);
    let now = text(&new["status"]["nominatedNodeName"]);
    if now != before && !now.is_empty() {
        findings.invalid_each(&at.field("nominatedNodeName"), now, names::dns1123_subdomain(now));
    }
    let policy = text(&new["spec"]["restartPolicy"]);
    if policy == "Always" {
        return;
    }
    let at = at.field("containerStatuses");
    let spec = &new["spec"];
    let containers = || ["containers", "initContainers"].into_iter().flat_map(|list| items(&spec[list]));
    let any_restarts_all = containers()
        .flat_map(|container| items(&container["restartPolicyRules"]))
        .any(|rule| rule["action"] == "RestartAllContainers");
    if any_restarts_all {
        return;
    }
    for (index, status) in items(&new["status"]["containerStatuses"]).iter().enumerate() {
        let before =
            items(&old["status"]["containerStatuses"]).iter().find(|other| other["name"] == status["name"]);
        let Some(ended) = before.map(|before| &before["state"]["terminated"]).filter(|ended| given(ended))
        else {
            continue;
        };
        let own = containers().find(|container| container["name"] == status["name"]);
        let may_restart = containers::may_restart(own, policy, integer(&ended["exitCode"]));
        if !may_restart && !given(&status["state"]["terminated"]) {
            findings.forbidden(
                &at.index(index).field("state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}
