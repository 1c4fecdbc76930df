//! Pods.

use api_objects::Value;

use super::{Report, Subject, head, items_at, labels, long_time, text_at, text_of};

/// Describes a pod.
pub(super) fn describe(report: &mut Report, subject: &Subject<'_>) {
    let pod = subject.object;
    head(report, subject);
    report.field(0, "Priority", &pod.pointer("/spec/priority").map_or_else(|| "0".to_owned(), text_of));
    if let Some(class) = pod.pointer("/spec/priorityClassName").and_then(Value::as_str) {
        report.field(0, "Priority Class Name", class);
    }
    if let Some(class) = pod.pointer("/spec/runtimeClassName").and_then(Value::as_str) {
        report.field(0, "Runtime Class Name", class);
    }
    report.field(0, "Service Account", text_at(pod, "/spec/serviceAccountName", ""));
    let node = match (text_at(pod, "/spec/nodeName", ""), text_at(pod, "/status/hostIP", "")) {
        ("", _) => "<none>".to_owned(),
        (node, host) => format!("{node}/{host}"),
    };
    report.field(0, "Node", &node);
    if pod.pointer("/status/startTime").is_some() {
        report.field(0, "Start Time", &long_time(pod.pointer("/status/startTime")));
    }
    labels(report, pod);
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        let since = long_time(pod.pointer("/metadata/deletionTimestamp"));
        report.field(0, "Status", &format!("Terminating (lasts until {since})"));
        let grace = pod.pointer("/metadata/deletionGracePeriodSeconds").map_or_else(String::new, text_of);
        report.field(0, "Termination Grace Period", &format!("{grace}s"));
    } else {
        report.field(0, "Status", text_at(pod, "/status/phase", ""));
    }
    for (name, pointer) in [("Reason", "/status/reason"), ("Message", "/status/message")] {
        if let Some(text) = pod.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            report.field(0, name, text);
        }
    }
    report.field(0, "IP", text_at(pod, "/status/podIP", ""));
    let addresses = items_at(pod, "/status/podIPs");
    if addresses.is_empty() {
        report.field(0, "IPs", "<none>");
    } else {
        report.line(0, "IPs:");
        for address in addresses {
            report.field(1, "IP", text_at(address, "/ip", ""));
        }
    }
    if let Some(owner) =
        items_at(pod, "/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true)
    {
        let owner = format!("{}/{}", text_at(owner, "/kind", ""), text_at(owner, "/name", ""));
        report.field(0, "Controlled By", &owner);
    }
    if !items_at(pod, "/spec/initContainers").is_empty() {
        containers(report, pod, "Init Containers", "/spec/initContainers", "/status/initContainerStatuses");
    }
    containers(report, pod, "Containers", "/spec/containers", "/status/containerStatuses");
    let conditions = items_at(pod, "/status/conditions");
    if !conditions.is_empty() {
        report.line(0, "Conditions:");
        report.line(1, "Type\tStatus");
        for condition in conditions {
            report.line(
                1,
                &format!("{} \t{} ", text_at(condition, "/type", ""), text_at(condition, "/status", "")),
            );
        }
    }
    volumes(report, 0, pod);
    report.field(0, "QoS Class", text_at(pod, "/status/qosClass", "BestEffort"));
    report.map(0, "Node-Selectors", pod.pointer("/spec/nodeSelector"));
    let tolerations: Vec<String> = items_at(pod, "/spec/tolerations").iter().map(toleration).collect();
    report.list(0, "Tolerations", &tolerations);
}

pub(super) fn toleration(toleration: &Value) -> String {
    let mut text = text_at(toleration, "/key", "").to_owned();
    if let Some(value) = toleration["value"].as_str().filter(|value| !value.is_empty()) {
        text.push_str(&format!("={value}"));
    }
    if let Some(effect) = toleration["effect"].as_str().filter(|effect| !effect.is_empty()) {
        text.push_str(&format!(":{effect}"));
    }
    if toleration["operator"] == "Exists" && toleration.get("value").is_none() {
        text.push_str(if text.is_empty() { "op=Exists" } else { " op=Exists" });
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        text.push_str(&format!(" for {seconds}s"));
    }
    text
}

/// The containers of a pod or template.
pub(super) fn containers(report: &mut Report, pod: &Value, title: &str, list: &str, statuses: &str) {
    report.line(0, &format!("{title}:"));
    for container in items_at(pod, list) {
        let name = text_at(container, "/name", "");
        let status = items_at(pod, statuses).iter().find(|status| status["name"] == name);
        // In a template the names stand one deeper, and nothing else does.
        let nested = if title.starts_with(' ') { " " } else { "" };
        container_lines(report, container, status, &format!("{nested}{name}"));
    }
}

fn container_lines(report: &mut Report, container: &Value, status: Option<&Value>, name: &str) {
    report.line(1, &format!("{name}:"));
    if let Some(status) = status {
        report.field(2, "Container ID", text_at(status, "/containerID", ""));
    }
    report.field(2, "Image", text_at(container, "/image", ""));
    if let Some(status) = status {
        report.field(2, "Image ID", text_at(status, "/imageID", ""));
    }
    let ports = |field: &str| -> Vec<String> {
        let ports = items_at(container, "/ports").iter();
        ports
            .map(|port| {
                format!("{}/{}", port[field].as_i64().unwrap_or(0), text_at(port, "/protocol", "TCP"))
            })
            .collect()
    };
    let joined = |ports: Vec<String>| if ports.is_empty() { "<none>".to_owned() } else { ports.join(", ") };
    let plural =
        if items_at(container, "/ports").len() > 1 { ("Ports", "Host Ports") } else { ("Port", "Host Port") };
    report.field(2, plural.0, &joined(ports("containerPort")));
    report.field(2, plural.1, &joined(ports("hostPort")));
    for (title, pointer) in [("Command", "/command"), ("Args", "/args")] {
        let words = items_at(container, pointer);
        if !words.is_empty() {
            report.line(2, &format!("{title}:"));
            for word in words {
                report.line(3, &text_of(word));
            }
        }
    }
    if let Some(status) = status {
        state(report, "State", &status["state"]);
        if status["lastState"].as_object().is_some_and(|state| !state.is_empty()) {
            state(report, "Last State", &status["lastState"]);
        }
        let ready = if status["ready"] == true { "True" } else { "False" };
        report.field(2, "Ready", ready);
        report.field(2, "Restart Count", &status["restartCount"].as_i64().unwrap_or(0).to_string());
    }
    for (title, pointer) in [("Limits", "/resources/limits"), ("Requests", "/resources/requests")] {
        if let Some(amounts) =
            container.pointer(pointer).and_then(Value::as_object).filter(|map| !map.is_empty())
        {
            report.line(2, &format!("{title}:"));
            for (resource, amount) in amounts {
                report.field(3, resource, &text_of(amount));
            }
        }
    }
    for (title, field) in
        [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
    {
        if let Some(probe) = container.get(field) {
            report.field(2, title, &probe_text(probe));
        }
    }
    environment(report, container);
    let mounts = items_at(container, "/volumeMounts");
    if mounts.is_empty() {
        report.field(2, "Mounts", "<none>");
    } else {
        report.line(2, "Mounts:");
        for mount in mounts {
            let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
            let (path, volume) = (text_at(mount, "/mountPath", ""), text_at(mount, "/name", ""));
            report.line(3, &format!("{path} from {volume} ({mode})"));
        }
    }
}

fn environment(report: &mut Report, container: &Value) {
    let variables = items_at(container, "/env");
    if variables.is_empty() {
        report.field(2, "Environment", "<none>");
        return;
    }
    report.line(2, "Environment:");
    for variable in variables {
        let source = |kind: &str, field: &str| {
            let reference = variable.pointer(&format!("/valueFrom/{kind}"))?;
            let (name, key) = (text_at(reference, "/name", ""), text_at(reference, &format!("/{field}"), ""));
            Some(if name.is_empty() { key.to_owned() } else { format!("{key} of {name}") })
        };
        let value = if let Some(key) = source("secretKeyRef", "key") {
            format!("<set to the key {key}>\tin a secret")
        } else if let Some(key) = source("configMapKeyRef", "key") {
            format!("<set to the key {key}>\tin a config map")
        } else if let Some(path) = source("fieldRef", "fieldPath") {
            format!(" (v1:{path})")
        } else if let Some(resource) = source("resourceFieldRef", "resource") {
            format!("({resource})")
        } else {
            text_at(variable, "/value", "").to_owned()
        };
        report.field(3, text_at(variable, "/name", ""), &value);
    }
}

fn state(report: &mut Report, title: &str, state: &Value) {
    if let Some(running) = state.get("running") {
        report.field(2, title, "Running");
        report.field(3, "Started", &long_time(running.get("startedAt")));
    } else if let Some(ended) = state.get("terminated") {
        report.field(2, title, "Terminated");
        for (name, field) in [("Reason", "/reason"), ("Message", "/message")] {
            if let Some(text) = ended.pointer(field).and_then(Value::as_str).filter(|text| !text.is_empty()) {
                report.field(3, name, text);
            }
        }
        report.field(3, "Exit Code", &ended["exitCode"].as_i64().unwrap_or(0).to_string());
        report.field(3, "Started", &long_time(ended.get("startedAt")));
        report.field(3, "Finished", &long_time(ended.get("finishedAt")));
    } else {
        report.field(2, title, "Waiting");
        if let Some(reason) = state.pointer("/waiting/reason").and_then(Value::as_str) {
            report.field(3, "Reason", reason);
        }
    }
}

fn probe_text(probe: &Value) -> String {
    let action = if let Some(http) = probe.get("httpGet") {
        format!(
            "http-get {}://{}:{}{}",
            text_at(http, "/scheme", "HTTP").to_lowercase(),
            text_at(http, "/host", ""),
            text_of(&http["port"]),
            text_at(http, "/path", "")
        )
    } else if let Some(socket) = probe.get("tcpSocket") {
        format!("tcp-socket {}:{}", text_at(socket, "/host", ""), text_of(&socket["port"]))
    } else if let Some(exec) = probe.get("exec") {
        let words: Vec<String> = items_at(exec, "/command").iter().map(text_of).collect();
        format!("exec [{}]", words.join(" "))
    } else {
        "unknown".to_owned()
    };
    let number = |field: &str, otherwise: i64| probe[field].as_i64().unwrap_or(otherwise);
    format!(
        "{action} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    )
}

pub(super) fn volumes(report: &mut Report, depth: usize, pod: &Value) {
    let volumes = items_at(pod, "/spec/volumes");
    if volumes.is_empty() {
        report.field(depth, "Volumes", "<none>");
        return;
    }
    report.line(depth, "Volumes:");
    for volume in volumes {
        report.line(depth + 1, &format!("{}:", text_at(volume, "/name", "")));
        if let Some(source) = volume.get("hostPath") {
            report.field(depth + 2, "Type", "HostPath (bare host directory volume)");
            report.field(depth + 2, "Path", text_at(source, "/path", ""));
            report.field(depth + 2, "HostPathType", text_at(source, "/type", ""));
        } else if let Some(source) = volume.get("emptyDir") {
            report.field(depth + 2, "Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
            report.field(depth + 2, "Medium", text_at(source, "/medium", ""));
            report.field(depth + 2, "SizeLimit", text_at(source, "/sizeLimit", "<unset>"));
        } else if let Some(source) = volume.get("configMap") {
            report.field(depth + 2, "Type", "ConfigMap (a volume populated by a ConfigMap)");
            report.field(depth + 2, "Name", text_at(source, "/name", ""));
            report.field(depth + 2, "Optional", if source["optional"] == true { "true" } else { "false" });
        } else if let Some(source) = volume.get("secret") {
            report.field(depth + 2, "Type", "Secret (a volume populated by a Secret)");
            report.field(depth + 2, "SecretName", text_at(source, "/secretName", ""));
            report.field(depth + 2, "Optional", if source["optional"] == true { "true" } else { "false" });
        } else if let Some(source) = volume.get("projected") {
            report.field(
                depth + 2,
                "Type",
                "Projected (a volume that contains injected data from multiple sources)",
            );
            for part in items_at(source, "/sources") {
                if let Some(token) = part.get("serviceAccountToken") {
                    let seconds = token["expirationSeconds"].as_i64().unwrap_or(3600);
                    report.field(depth + 2, "TokenExpirationSeconds", &seconds.to_string());
                } else if let Some(map) = part.get("configMap") {
                    report.field(depth + 2, "ConfigMapName", text_at(map, "/name", ""));
                    report.field(
                        depth + 2,
                        "Optional",
                        if map["optional"] == true { "true" } else { "false" },
                    );
                } else if let Some(secret) = part.get("secret") {
                    report.field(depth + 2, "SecretName", text_at(secret, "/name", ""));
                } else if part.get("downwardAPI").is_some() {
                    report.field(depth + 2, "DownwardAPI", "true");
                }
            }
        } else {
            let kind = volume.as_object().and_then(|fields| fields.keys().find(|key| *key != "name"));
            report.field(depth + 2, "Type", kind.map_or("<unknown>", String::as_str));
        }
    }
}
