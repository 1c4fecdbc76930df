//! Containers of every sort: app, init and ephemeral ones.

use std::collections::{BTreeMap, BTreeSet};

use api_objects::{Value, names};

use super::findings::{Findings, Spot};
use super::{entries, given, integer, items, mounts, resources, text, volumes};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
pub(super) const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const MAX_ID: i64 = i32::MAX as i64;

/// All containers of a spec; `volumes` are those that may be used, by name.
pub(super) fn all(spec: &Value, volumes: &BTreeMap<&str, &Value>, at: &Spot<'_>, findings: &mut Findings) {
    let apps = items(&spec["containers"]);
    let apps_at = at.field("containers");
    if apps.is_empty() {
        findings.required(&apps_at, "");
    }
    // A wrong one is found where it stands, not again in every hook.
    let grace = spec["terminationGracePeriodSeconds"].as_i64();
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for (index, container) in apps.iter().enumerate() {
        let at = apps_at.index(index);
        common(spec, container, volumes, &at, findings);
        unique_name(container, &mut taken, &at, findings);
        probes_and_lifecycle(container, grace, &at, findings);
        host_ports(container, &mut ports, &at, findings);
        restart_policy(container, &at, findings);
    }
    let inits_at = at.field("initContainers");
    for (index, container) in items(&spec["initContainers"]).iter().enumerate() {
        let at = inits_at.index(index);
        common(spec, container, volumes, &at, findings);
        unique_name(container, &mut taken, &at, findings);
        // They run one by one: ports clash only within one.
        host_ports(container, &mut BTreeSet::new(), &at, findings);
        restart_policy(container, &at, findings);
        if container["restartPolicy"] == "Always" {
            probes_and_lifecycle(container, grace, &at, findings);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if given(&container[field]) {
                let detail = "may not be set for init containers without restartPolicy=Always";
                findings.forbidden(&at.field(field), detail);
            }
        }
    }
    let ephemeral_at = at.field("ephemeralContainers");
    for (index, container) in items(&spec["ephemeralContainers"]).iter().enumerate() {
        let at = ephemeral_at.index(index);
        common(spec, container, volumes, &at, findings);
        unique_name(container, &mut taken, &at, findings);
        for (field, value) in entries(container) {
            // What is given and empty is absent.
            let empty = value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(serde_json::Map::is_empty);
            if given(value) && !empty && !EPHEMERAL_FIELDS.contains(&field) {
                findings.forbidden(&at.field(field), NOT_EPHEMERAL);
            }
        }
        let mounts_at = at.field("volumeMounts");
        for (index, mount) in items(&container["volumeMounts"]).iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(&mount[field]).is_empty() {
                    findings.forbidden(&mounts_at.index(index).field(field), NOT_EPHEMERAL);
                }
            }
        }
        let target = text(&container["targetContainerName"]);
        let known = ["containers", "initContainers"]
            .into_iter()
            .flat_map(|list| items(&spec[list]))
            .any(|container| container["name"] == target);
        if !target.is_empty() && !known {
            findings.not_found(&at.field("targetContainerName"), target);
        }
    }
}

const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
/// What an ephemeral container may say (upstream's `allowedEphemeralContainerFields`).
const EPHEMERAL_FIELDS: [&str; 17] = [
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "name",
    "securityContext",
    "stdin",
    "stdinOnce",
    "targetContainerName",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

/// Upstream's bounds on a container's own restart rules.
const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// A container's own restart policy and rules (KEP-5307, KEP-5532).
fn restart_policy(container: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let policy_at = at.field("restartPolicy");
    let policy = &container["restartPolicy"];
    let rules = items(&container["restartPolicyRules"]);
    if given(policy) {
        findings.one_of_in_order(&policy_at, policy, &["Always", "OnFailure", "Never"]);
    } else if !rules.is_empty() {
        findings.required(&policy_at, "must specify restartPolicy when restart rules are used");
    }
    let rules_at = at.field("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        findings.too_many(&rules_at, rules.len(), MAX_RESTART_RULES);
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = rules_at.index(index);
        let action = text(&rule["action"]);
        if !matches!(action, "Restart" | "RestartAllContainers") {
            findings.not_supported(&at.field("action"), action, &["Restart", "RestartAllContainers"]);
        }
        let (at, codes) = (at.field("exitCodes"), &rule["exitCodes"]);
        if !given(codes) {
            findings.required(&at, "must be specified");
            continue;
        }
        let operator = text(&codes["operator"]);
        if !matches!(operator, "In" | "NotIn") {
            findings.not_supported(&at.field("operator"), operator, &["In", "NotIn"]);
        }
        let count = items(&codes["values"]).len();
        if count > MAX_EXIT_CODES {
            findings.too_many(&at.field("values"), count, MAX_EXIT_CODES);
        }
    }
}

/// Whether a container that ended with that code may run again; `pod_policy` is the pod's.
pub(super) fn may_restart(container: Option<&Value>, pod_policy: &str, exit_code: i64) -> bool {
    let container = container.unwrap_or(&Value::Null);
    let matches = |rule: &Value| {
        let codes = &rule["exitCodes"];
        let listed = items(&codes["values"]).iter().any(|code| integer(code) == exit_code);
        given(codes) && (codes["operator"] == "NotIn") != listed
    };
    if items(&container["restartPolicyRules"]).iter().any(matches) {
        return true;
    }
    match container["restartPolicy"].as_str().unwrap_or(pod_policy) {
        "Always" => true,
        "OnFailure" => exit_code != 0,
        _ => false,
    }
}

fn unique_name<'a>(
    container: &'a Value,
    taken: &mut BTreeSet<&'a str>,
    at: &Spot<'_>,
    findings: &mut Findings,
) {
    let name = text(&container["name"]);
    if !name.is_empty() && !taken.insert(name) {
        findings.duplicate(&at.field("name"), name);
    }
}

fn common(
    spec: &Value,
    container: &Value,
    volumes: &BTreeMap<&str, &Value>,
    at: &Spot<'_>,
    findings: &mut Findings,
) {
    match text(&container["name"]) {
        "" => findings.required(&at.field("name"), ""),
        name => findings.invalid_each(&at.field("name"), name, names::dns1123_label(name)),
    }
    match text(&container["image"]) {
        "" => findings.required(&at.field("image"), ""),
        image if image.trim() != image => {
            findings.invalid(&at.field("image"), image, "must not have leading or trailing whitespace");
        }
        _ => {}
    }
    findings.one_of(
        &at.field("terminationMessagePolicy"),
        &container["terminationMessagePolicy"],
        &["File", "FallbackToLogsOnError"],
    );
    ports(&container["ports"], &at.field("ports"), findings);
    environment(&container["env"], &at.field("env"), findings);
    environment_files(spec, container, &at.field("env"), findings);
    environment_sources(&container["envFrom"], &at.field("envFrom"), findings);
    mounts::mounts(container, volumes, at, findings);
    mounts::devices(container, volumes, at, findings);
    findings.one_of(&at.field("imagePullPolicy"), &container["imagePullPolicy"], &PULL_POLICIES);
    resources::container(&container["resources"], &at.field("resources"), findings);
    let host_users = spec["hostUsers"] != false;
    security_context(&container["securityContext"], host_users, &at.field("securityContext"), findings);
}

fn ports(ports: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let mut taken = BTreeSet::new();
    for (index, port) in items(ports).iter().enumerate() {
        let at = at.index(index);
        let name = text(&port["name"]);
        if !name.is_empty() {
            let problems = names::port_name(name);
            if problems.is_empty() && !taken.insert(name) {
                findings.duplicate(&at.field("name"), name);
            }
            findings.invalid_each(&at.field("name"), name, problems);
        }
        match integer(&port["containerPort"]) {
            0 => findings.required(&at.field("containerPort"), ""),
            number => port_number(number, &at.field("containerPort"), findings),
        }
        match integer(&port["hostPort"]) {
            0 => {}
            number => port_number(number, &at.field("hostPort"), findings),
        }
        findings.one_of(&at.field("protocol"), &port["protocol"], &PROTOCOLS);
    }
}

pub(super) fn port_number(number: i64, at: &Spot<'_>, findings: &mut Findings) {
    for problem in names::port_number(number) {
        findings.invalid(at, number, &problem);
    }
}

/// A port by number or by name.
pub(super) fn port_reference(port: &Value, at: &Spot<'_>, findings: &mut Findings) {
    match port.as_str() {
        Some(name) => findings.invalid_each(at, name, names::port_name(name)),
        None => port_number(integer(port), at, findings),
    }
}

/// Two containers cannot have the same port of the host.
fn host_ports(container: &Value, taken: &mut BTreeSet<String>, at: &Spot<'_>, findings: &mut Findings) {
    let at = at.field("ports");
    for (index, port) in items(&container["ports"]).iter().enumerate() {
        let number = integer(&port["hostPort"]);
        if number == 0 {
            continue;
        }
        let key = format!("{}/{}/{number}", text(&port["protocol"]), text(&port["hostIP"]));
        if !taken.insert(key.clone()) {
            findings.duplicate(&at.index(index).field("hostPort"), key);
        }
    }
}

/// In the host's network a container's port is the host's.
pub(super) fn host_network_ports(spec: &Value, at: &Spot<'_>, findings: &mut Findings) {
    for list in ["containers", "initContainers"] {
        let at = at.field(list);
        for (index, container) in items(&spec[list]).iter().enumerate() {
            let at = at.index(index);
            let at = at.field("ports");
            for (index, port) in items(&container["ports"]).iter().enumerate() {
                // Templates get no default here: no host port is no contradiction.
                if integer(&port["hostPort"]) != 0 && port["hostPort"] != port["containerPort"] {
                    let detail = "must match `hostPort` when `hostNetwork` is true";
                    findings.invalid(
                        &at.index(index).field("containerPort"),
                        port["containerPort"].clone(),
                        detail,
                    );
                }
            }
        }
    }
}

const ENVIRONMENT_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const ENVIRONMENT_RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

fn environment(variables: &Value, at: &Spot<'_>, findings: &mut Findings) {
    for (index, variable) in items(variables).iter().enumerate() {
        let at = at.index(index);
        match text(&variable["name"]) {
            "" => findings.required(&at.field("name"), ""),
            name => findings.invalid_each(&at.field("name"), name, names::environment_name(name)),
        }
        let source = &variable["valueFrom"];
        if given(source) {
            environment_source(source, &at.field("valueFrom"), findings);
            let sources = entries(source).count();
            let problem = if sources == 0 {
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
            } else if !text(&variable["value"]).is_empty() {
                "may not be specified when `value` is not empty"
            } else if sources > 1 {
                "may not have more than one field specified at a time"
            } else {
                continue;
            };
            findings.invalid(&at.field("valueFrom"), "", problem);
        }
    }
}

fn environment_source(source: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let field = &source["fieldRef"];
    if given(field) {
        let at = at.field("fieldRef");
        field_reference(field, &ENVIRONMENT_FIELDS, &at, findings);
    }
    let resource = &source["resourceFieldRef"];
    if given(resource) {
        let at = at.field("resourceFieldRef");
        match text(&resource["resource"]) {
            "" => findings.required(&at.field("resource"), ""),
            name if ENVIRONMENT_RESOURCES.contains(&name) || name.contains(".hugepages-") => {}
            name => findings.not_supported(&at.field("resource"), name, &ENVIRONMENT_RESOURCES),
        }
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        let reference = &source[name];
        if given(reference) {
            let at = at.field(name);
            let object = text(&reference["name"]);
            findings.invalid_each(&at.field("name"), object, names::dns1123_subdomain(object));
            match text(&reference["key"]) {
                "" => findings.required(&at.field("key"), ""),
                key => findings.invalid_each(&at.field("key"), key, names::config_map_key(key)),
            }
        }
    }
}

/// Variables out of files: the file stands in a volume of the pod's own (upstream's `validateFileKeyRefVolumes`).
fn environment_files(spec: &Value, container: &Value, at: &Spot<'_>, findings: &mut Findings) {
    for (index, variable) in items(&container["env"]).iter().enumerate() {
        let reference = &variable["valueFrom"]["fileKeyRef"];
        if !given(reference) {
            continue;
        }
        let at = at.index(index);
        let at = at.field("valueFrom");
        let at = at.field("fileKeyRef");
        match text(&reference["key"]) {
            "" => findings.required(&at.field("key"), ""),
            key => findings.invalid_each(&at.field("key"), key, names::environment_name(key)),
        }
        match text(&reference["path"]) {
            "" => findings.required(&at.field("path"), ""),
            path => volumes::local_path(path, &at.field("path"), findings),
        }
        let (at, name) = (at.field("volumeName"), text(&reference["volumeName"]));
        match items(&spec["volumes"]).iter().find(|volume| volume["name"] == name) {
            _ if name.is_empty() => findings.required(&at, ""),
            None => findings.not_found(&at, name),
            Some(volume) if !given(&volume["emptyDir"]) => {
                findings.invalid(&at, name, "referenced volume must be of type emptyDir");
            }
            Some(_) => {}
        }
    }
}

/// A reference to a field of the pod: a plain path, or one entry of its labels or annotations.
pub(super) fn field_reference(reference: &Value, fields: &[&str], at: &Spot<'_>, findings: &mut Findings) {
    let at_path = at.field("fieldPath");
    let path = text(&reference["fieldPath"]);
    if path.is_empty() {
        findings.required(&at_path, "");
        return;
    }
    let subscript = path.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => {
            findings.invalid_each(&at_path, key, names::qualified_name(&key.to_lowercase()));
        }
        Some(("metadata.labels", key)) => findings.invalid_each(&at_path, key, names::qualified_name(key)),
        Some((path, _)) => findings.invalid(&at_path, path, "does not support subscript"),
        None if fields.contains(&path) => {}
        None => findings.not_supported(&at_path, path, fields),
    }
}

fn environment_sources(sources: &Value, at: &Spot<'_>, findings: &mut Findings) {
    for (index, source) in items(sources).iter().enumerate() {
        let prefix = text(&source["prefix"]);
        if !prefix.is_empty() {
            let at = at.index(index);
            findings.invalid_each(&at.field("prefix"), prefix, names::environment_name(prefix));
        }
        for name in ["configMapRef", "secretRef"] {
            if given(&source[name]) {
                let at = at.index(index);
                let at = at.field(name);
                let object = text(&source[name]["name"]);
                if object.is_empty() {
                    findings.required(&at.field("name"), "");
                } else {
                    findings.invalid_each(&at.field("name"), object, names::dns1123_subdomain(object));
                }
            }
        }
        match (given(&source["configMapRef"]), given(&source["secretRef"])) {
            (false, false) => findings.invalid(at, "", "must specify one of: `configMapRef` or `secretRef`"),
            (true, true) => findings.invalid(at, "", "may not have more than one field specified at a time"),
            _ => {}
        }
    }
}

/// A path must not lead upwards.
pub(super) fn no_backsteps(path: &str, at: &Spot<'_>, findings: &mut Findings) {
    if path.split('/').any(|part| part == "..") {
        findings.invalid(at, path, "must not contain '..'");
    }
}

fn security_context(context: &Value, host_users: bool, at: &Spot<'_>, findings: &mut Findings) {
    if !given(context) {
        return;
    }
    user_ids(context, at, findings);
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            findings.invalid(at, context.clone(), detail);
        }
        if items(&context["capabilities"]["add"]).iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            findings.invalid(at, context.clone(), detail);
        }
    }
    if given(&context["procMount"]) {
        let at = at.field("procMount");
        findings.one_of(&at, &context["procMount"], &["Default", "Unmasked"]);
        // An unmasked /proc shows the node's where root inside is root outside.
        if host_users && context["procMount"] == "Unmasked" {
            findings.invalid(&at, "Unmasked", "`hostUsers` must be false to use `Unmasked`");
        }
    }
}

/// The user and group that processes run as, and the profile that confines them.
pub(super) fn user_ids(context: &Value, at: &Spot<'_>, findings: &mut Findings) {
    for field in ["runAsUser", "runAsGroup"] {
        if let Some(id) = context[field].as_i64() {
            id_in_range(id, &at.field(field), findings);
        }
    }
    let profile = &context["seccompProfile"];
    if given(profile) {
        let at = at.field("seccompProfile");
        findings.one_of(&at.field("type"), &profile["type"], &["Localhost", "RuntimeDefault", "Unconfined"]);
        let local = !text(&profile["localhostProfile"]).is_empty();
        if profile["type"] == "Localhost" && !local {
            findings.required(&at.field("localhostProfile"), "must be set when seccomp type is Localhost");
        } else if profile["type"] == "Localhost" {
            let (at, path) = (at.field("localhostProfile"), text(&profile["localhostProfile"]));
            if path.starts_with('/') {
                findings.invalid(&at, path, "must be a relative path");
            }
            no_backsteps(path, &at, findings);
        } else if profile["type"] != "Localhost" && local {
            let detail = "can only be set when seccomp type is Localhost";
            findings.invalid(&at.field("localhostProfile"), profile["localhostProfile"].clone(), detail);
        }
    }
}

pub(super) fn id_in_range(id: i64, at: &Spot<'_>, findings: &mut Findings) {
    if !(0..=MAX_ID).contains(&id) {
        findings.invalid(at, id, &format!("must be between 0 and {MAX_ID}, inclusive"));
    }
}

fn probes_and_lifecycle(container: &Value, grace: Option<i64>, at: &Spot<'_>, findings: &mut Findings) {
    for (name, once) in [("livenessProbe", true), ("readinessProbe", false), ("startupProbe", true)] {
        let value = &container[name];
        if given(value) {
            probe(value, once, &at.field(name), findings);
            if name == "readinessProbe" && given(&value["terminationGracePeriodSeconds"]) {
                let detail = "must not be set for readinessProbes";
                let at = at.field(name);
                let seconds = value["terminationGracePeriodSeconds"].clone();
                findings.invalid(&at.field("terminationGracePeriodSeconds"), seconds, detail);
            }
        }
    }
    let at = at.field("lifecycle");
    for name in ["postStart", "preStop"] {
        let hook = &container["lifecycle"][name];
        if given(hook) {
            let at = at.field(name);
            handler(hook, &["exec", "httpGet", "tcpSocket", "sleep"], &at, findings);
            let seconds = integer(&hook["sleep"]["seconds"]);
            if let Some(grace) = grace
                && given(&hook["sleep"])
                && !(0..=grace).contains(&seconds)
            {
                let detail =
                    format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                findings.invalid(&at.field("sleep"), seconds, &detail);
            }
        }
    }
}

fn probe(probe: &Value, once: bool, at: &Spot<'_>, findings: &mut Findings) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], at, findings);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        findings.not_negative(&at.field(field), &probe[field]);
    }
    if let Some(seconds) = probe["terminationGracePeriodSeconds"].as_i64()
        && seconds <= 0
    {
        findings.invalid(&at.field("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
    if once && integer(&probe["successThreshold"]) != 1 {
        findings.invalid(&at.field("successThreshold"), probe["successThreshold"].clone(), "must be 1");
    }
}

fn handler(handler: &Value, kinds: &[&str], at: &Spot<'_>, findings: &mut Findings) {
    let mut first = true;
    for kind in kinds {
        let action = &handler[*kind];
        if !given(action) {
            continue;
        }
        let at = at.field(kind);
        if !std::mem::take(&mut first) {
            findings.forbidden(&at, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" if items(&action["command"]).is_empty() => findings.required(&at.field("command"), ""),
            "httpGet" => {
                if text(&action["path"]).is_empty() {
                    findings.required(&at.field("path"), "");
                }
                port_reference(&action["port"], &at.field("port"), findings);
                if !matches!(text(&action["scheme"]), "HTTP" | "HTTPS") {
                    findings.not_supported(&at.field("scheme"), text(&action["scheme"]), &["HTTP", "HTTPS"]);
                }
            }
            "tcpSocket" => port_reference(&action["port"], &at.field("port"), findings),
            "grpc" => port_number(integer(&action["port"]), &at.field("port"), findings),
            _ => {}
        }
    }
    if first {
        findings.required(at, "must specify a handler type");
    }
}
