//! Defaults of Pods, pod templates, containers and volumes.

use serde_json::{Value, json};

use crate::pod_resources::{POD_LEVEL, aggregate, is_pod_level};

use super::{Fields, absent, each, ensure, inside, number, storage, text, text_of};

/// A Pod: the template's defaults, and those that only a Pod has.
pub(super) fn pod(object: &mut Fields) {
    ensure(object, "spec", |spec| {
        pod_spec(spec);
        for list in ["initContainers", "containers"] {
            each(spec, list, |container| inside(container, "resources", requests_from_limits));
        }
        pod_requests(spec);
        // Of a Pod only, not of templates (upstream: the conversion of `core/v1` Pods).
        if spec
            .get("terminationGracePeriodSeconds")
            .and_then(Value::as_i64)
            .is_some_and(|seconds| seconds < 0)
        {
            spec.insert("terminationGracePeriodSeconds".to_owned(), json!(1));
        }
        absent(spec, "enableServiceLinks", true);
        if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
            for list in ["initContainers", "containers"] {
                each(spec, list, |container| each(container, "ports", host_port_from_container_port));
            }
        }
    });
}

/// A pod template, as it stands in workloads.
pub(super) fn template(template: &mut Fields) {
    inside(template, "spec", pod_spec);
}

/// The spec of a Pod or of a pod template.
pub(super) fn pod_spec(spec: &mut Fields) {
    each(spec, "volumes", volume);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, list, container);
    }
    text(spec, "dnsPolicy", "ClusterFirst");
    text(spec, "restartPolicy", "Always");
    absent(spec, "securityContext", json!({}));
    absent(spec, "terminationGracePeriodSeconds", 30);
    text(spec, "schedulerName", "default-scheduler");
    mirror_service_account(spec);
}

/// `serviceAccount` is the deprecated twin of `serviceAccountName`: either is read, both are written.
fn mirror_service_account(spec: &mut Fields) {
    let name = match text_of(spec, "serviceAccountName") {
        "" => text_of(spec, "serviceAccount"),
        name => name,
    };
    if !name.is_empty() {
        let name = Value::String(name.to_owned());
        spec.insert("serviceAccountName".to_owned(), name.clone());
        spec.insert("serviceAccount".to_owned(), name);
    }
}

/// What is limited but not requested is requested up to its limit.
fn requests_from_limits(resources: &mut Fields) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else {
        return;
    };
    ensure(resources, "requests", |requests| {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    });
}

/// A pod that is limited as a whole requests what its containers do together; what none of them requests, up to its
/// limit (upstream's `defaultPodRequests`).
fn pod_requests(spec: &mut Fields) {
    let Some(Value::Object(limits)) = spec.get("resources").and_then(|own| own.get("limits")).cloned() else {
        return;
    };
    if limits.is_empty() {
        return;
    }
    let list = |name: &str| spec.get(name).cloned().unwrap_or_default();
    let containers = json!({"containers": list("containers"), "initContainers": list("initContainers")});
    let sums = aggregate(&containers, "requests");
    inside(spec, "resources", |resources| {
        ensure(resources, "requests", |requests| {
            // Huge pages are not requested beyond what is limited.
            for (name, sum) in sums.iter().filter(|(name, _)| POD_LEVEL.contains(&name.as_str())) {
                requests.entry(name.as_str()).or_insert_with(|| json!(sum.to_string()));
            }
            for (name, limit) in limits.iter().filter(|(name, _)| is_pod_level(name)) {
                requests.entry(name.as_str()).or_insert_with(|| limit.clone());
            }
        });
    });
}

fn host_port_from_container_port(port: &mut Fields) {
    if let Some(container_port) = port.get("containerPort").and_then(Value::as_i64) {
        number(port, "hostPort", i32::try_from(container_port).unwrap_or_default());
    }
}

fn container(container: &mut Fields) {
    if text_of(container, "imagePullPolicy").is_empty() {
        let policy = pull_policy(text_of(container, "image"));
        text(container, "imagePullPolicy", policy);
    }
    text(container, "terminationMessagePath", "/dev/termination-log");
    text(container, "terminationMessagePolicy", "File");
    each(container, "ports", |port| text(port, "protocol", "TCP"));
    each(container, "env", |variable| {
        inside(variable, "valueFrom", |source| {
            inside(source, "fieldRef", field_reference);
            inside(source, "fileKeyRef", |reference| absent(reference, "optional", false));
        });
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        inside(container, name, probe);
    }
    inside(container, "lifecycle", |lifecycle| {
        for name in ["postStart", "preStop"] {
            inside(lifecycle, name, |handler| inside(handler, "httpGet", http_get));
        }
    });
}

fn probe(probe: &mut Fields) {
    number(probe, "timeoutSeconds", 1);
    number(probe, "periodSeconds", 10);
    number(probe, "successThreshold", 1);
    number(probe, "failureThreshold", 3);
    inside(probe, "httpGet", http_get);
    inside(probe, "grpc", |action| absent(action, "service", ""));
}

fn http_get(action: &mut Fields) {
    text(action, "path", "/");
    text(action, "scheme", "HTTP");
}

fn field_reference(reference: &mut Fields) {
    text(reference, "apiVersion", "v1");
}

/// `Always` for the tag `latest`, named or implied; `IfNotPresent` for anything else, a reference that cannot
/// be read included.
fn pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or_default();
    let latest = match (last.contains('@'), last.split_once(':')) {
        (true, _) => false,
        (false, Some((_, tag))) => tag == "latest",
        // Upper case in the repository's name makes it unreadable.
        (false, None) => !last.is_empty() && !last.contains(|letter: char| letter.is_ascii_uppercase()),
    };
    // `name:latest@sha256:…` names the tag as well.
    let tagged_latest = last.split('@').next().is_some_and(|name| name.ends_with(":latest"));
    if latest || tagged_latest { "Always" } else { "IfNotPresent" }
}

fn volume(volume: &mut Fields) {
    if volume.keys().all(|name| name == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
        return;
    }
    for name in ["secret", "configMap"] {
        inside(volume, name, |source| absent(source, "defaultMode", 0o644));
    }
    inside(volume, "downwardAPI", |source| {
        absent(source, "defaultMode", 0o644);
        each(source, "items", |item| inside(item, "fieldRef", field_reference));
    });
    inside(volume, "projected", |projected| {
        absent(projected, "defaultMode", 0o644);
        each(projected, "sources", |source| {
            inside(source, "serviceAccountToken", |token| absent(token, "expirationSeconds", 3600));
            inside(source, "downwardAPI", |files| {
                each(files, "items", |item| inside(item, "fieldRef", field_reference));
            });
        });
    });
    inside(volume, "ephemeral", |ephemeral| {
        inside(ephemeral, "volumeClaimTemplate", |claim| {
            inside(claim, "spec", |spec| absent(spec, "volumeMode", "Filesystem"));
        });
    });
    inside(volume, "image", |image| {
        if text_of(image, "pullPolicy").is_empty() {
            let policy = pull_policy(text_of(image, "reference"));
            text(image, "pullPolicy", policy);
        }
    });
    storage::volume_source(volume);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_latest_is_always_pulled() {
        for image in ["nginx", "nginx:latest", "reg.io:5000/a/b", "a/b:latest", "a:latest@sha256:1"] {
            assert_eq!(pull_policy(image), "Always", "{image}");
        }
        for image in ["nginx:1.27", "reg.io:5000/a/b:v1", "a@sha256:1", "", "NGINX"] {
            assert_eq!(pull_policy(image), "IfNotPresent", "{image}");
        }
    }
}
