//! Defaults of the core group's kinds other than Pods.

use serde_json::{Value, json};

use super::{Fields, absent, each, ensure, inside, is_empty, pod, storage, text, text_of};

/// Selector and labels come from the template.
pub(super) fn replication_controller(object: &mut Fields) {
    let mut labels = Value::Null;
    inside(object, "spec", |spec| {
        absent(spec, "replicas", 1);
        inside(spec, "template", pod::template);
        labels = spec.get("template").map_or(Value::Null, |template| template["metadata"]["labels"].clone());
        if is_empty(spec, "selector") && labels.is_object() {
            spec.insert("selector".to_owned(), labels.clone());
        }
    });
    inherit_labels(object, labels);
}

/// An object without labels takes its template's.
pub(super) fn inherit_labels(object: &mut Fields, labels: Value) {
    if labels.is_object() {
        ensure(object, "metadata", |metadata| {
            if is_empty(metadata, "labels") {
                metadata.insert("labels".to_owned(), labels);
            }
        });
    }
}

/// Three hours: how long a client sticks to an endpoint.
const SESSION_SECONDS: i32 = 10_800;

/// A Service; addresses, families and node ports are the allocators' business.
pub(super) fn service(object: &mut Fields) {
    let mut balanced = false;
    ensure(object, "spec", |spec| {
        text(spec, "sessionAffinity", "None");
        if text_of(spec, "sessionAffinity") == "None" {
            spec.remove("sessionAffinityConfig");
        } else if text_of(spec, "sessionAffinity") == "ClientIP" {
            ensure(spec, "sessionAffinityConfig", |config| {
                ensure(config, "clientIP", |client| absent(client, "timeoutSeconds", SESSION_SECONDS));
            });
        }
        text(spec, "type", "ClusterIP");
        each(spec, "ports", service_port);
        let kind = text_of(spec, "type").to_owned();
        balanced = kind == "LoadBalancer";
        let reachable_from_outside =
            balanced || kind == "NodePort" || (kind == "ClusterIP" && !is_empty(spec, "externalIPs"));
        if reachable_from_outside {
            text(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind != "ExternalName" {
            absent(spec, "internalTrafficPolicy", "Cluster");
        }
        if balanced {
            absent(spec, "allocateLoadBalancerNodePorts", true);
        }
    });
    if balanced {
        inside(object, "status", |status| {
            inside(status, "loadBalancer", |balancer| {
                each(balancer, "ingress", |ingress| {
                    if !text_of(ingress, "ip").is_empty() {
                        absent(ingress, "ipMode", "VIP");
                    }
                });
            });
        });
    }
}

fn service_port(port: &mut Fields) {
    text(port, "protocol", "TCP");
    let unset = match port.get("targetPort") {
        Some(Value::String(name)) => name.is_empty(),
        Some(value) => value.is_null() || value.as_i64() == Some(0),
        None => true,
    };
    if unset {
        let same = port.get("port").cloned().unwrap_or_else(|| 0.into());
        port.insert("targetPort".to_owned(), same);
    }
}

/// Every namespace carries its own name as a label.
pub(super) fn namespace(object: &mut Fields) {
    ensure(object, "metadata", |metadata| {
        let name = text_of(metadata, "name").to_owned();
        if !name.is_empty() {
            ensure(metadata, "labels", |labels| {
                labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
            });
        }
    });
    ensure(object, "status", |status| text(status, "phase", "Active"));
}

/// Everything that a node has may be allocated, unless it says otherwise.
pub(super) fn node(object: &mut Fields) {
    inside(object, "status", |status| {
        if let Some(capacity) = status.get("capacity").cloned() {
            absent(status, "allocatable", capacity);
        }
    });
}

pub(super) fn endpoints(object: &mut Fields) {
    each(object, "subsets", |subset| each(subset, "ports", |port| text(port, "protocol", "TCP")));
}

/// Limits of containers: a default limit from the maximum, a default request from the default limit, else
/// from the minimum.
pub(super) fn limit_range(object: &mut Fields) {
    inside(object, "spec", |spec| {
        each(spec, "limits", |item| {
            if text_of(item, "type") == "Container" {
                fill(item, "default", "max");
                fill(item, "defaultRequest", "default");
                fill(item, "defaultRequest", "min");
            }
        });
    });
}

/// Takes over entries of the map `from` that the map `to` lacks.
fn fill(item: &mut Fields, to: &str, from: &str) {
    let Some(Value::Object(source)) = item.get(from).cloned() else {
        return;
    };
    ensure(item, to, |entries| {
        for (name, quantity) in source {
            entries.entry(name).or_insert(quantity);
        }
    });
}

pub(super) fn persistent_volume(object: &mut Fields) {
    ensure(object, "spec", |spec| {
        text(spec, "persistentVolumeReclaimPolicy", "Retain");
        absent(spec, "volumeMode", "Filesystem");
        storage::volume_source(spec);
    });
    ensure(object, "status", |status| text(status, "phase", "Pending"));
}

pub(super) fn persistent_volume_claim(object: &mut Fields) {
    absent(object, "spec", json!({}));
    inside(object, "spec", |spec| absent(spec, "volumeMode", "Filesystem"));
    ensure(object, "status", |status| text(status, "phase", "Pending"));
}
