//! Defaults of the built-in kinds: our own tables, one file per group.
//!
//! The rules are those of the API reference and of upstream's `k8s.io/kubernetes/pkg/apis/*/defaults.go`. They
//! run on a checked object ([`super::check`]), never change what the client gave, and change nothing when run
//! again. Values that only a registry can know (addresses, node ports, uids, phases of what a controller has
//! not seen yet) are no defaults: strategies set them.

mod apps;
mod autoscaling;
mod batch;
mod core;
mod discovery;
mod dynamic_resources;
mod extensions;
mod flowcontrol;
mod networking;
mod pod;
mod rbac;
mod scheduling;
mod storage;

use serde_json::{Map, Value};

use crate::resource::Resource;

/// The fields of a struct.
type Fields = Map<String, Value>;

/// Fills in what the client left out. A kind that is not built in stays as it is.
///
/// What is always on the wire is there afterwards, too: a status that was taken away comes back as `{}`, or
/// with the counts that are written even when zero.
pub fn apply_defaults(resource: &Resource, value: &mut Value) {
    let Some(object) = value.as_object_mut() else {
        return;
    };
    if let Some(definition) = super::definition(&resource.definition).and_then(super::Schema::definition) {
        super::check::complete(definition, object);
    }
    let defaults: fn(&mut Fields) = match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("", "Pod") => pod::pod,
        ("", "PodTemplate") => |object| inside(object, "template", pod::template),
        ("", "ReplicationController") => core::replication_controller,
        ("", "Service") => core::service,
        ("", "Secret") => |object| text(object, "type", "Opaque"),
        ("", "Namespace") => core::namespace,
        ("", "Node") => core::node,
        ("", "Endpoints") => core::endpoints,
        ("", "LimitRange") => core::limit_range,
        ("", "PersistentVolume") => core::persistent_volume,
        ("", "PersistentVolumeClaim") => core::persistent_volume_claim,
        ("apps", "Deployment") => apps::deployment,
        ("apps", "ReplicaSet") => apps::replica_set,
        ("apps", "StatefulSet") => apps::stateful_set,
        ("apps", "DaemonSet") => apps::daemon_set,
        ("batch", "Job") => batch::job,
        ("batch", "CronJob") => batch::cron_job,
        ("autoscaling", "HorizontalPodAutoscaler") => match resource.version.as_ref() {
            "v1" => autoscaling::horizontal_pod_autoscaler_v1,
            _ => autoscaling::horizontal_pod_autoscaler_v2,
        },
        ("networking.k8s.io", "NetworkPolicy") => networking::network_policy,
        ("networking.k8s.io", "IngressClass") => networking::ingress_class,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => rbac::binding,
        ("storage.k8s.io", "StorageClass") => storage::storage_class,
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver,
        ("storage.k8s.io", "VolumeAttachment") => storage::volume_attachment,
        ("scheduling.k8s.io", "PriorityClass") => scheduling::priority_class,
        ("discovery.k8s.io", "EndpointSlice") => discovery::endpoint_slice,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flowcontrol::flow_schema,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => flowcontrol::priority_level,
        ("resource.k8s.io", "ResourceClaim") => dynamic_resources::claim,
        ("resource.k8s.io", "ResourceClaimTemplate") => dynamic_resources::claim_template,
        ("resource.k8s.io", "ResourceSlice") => dynamic_resources::slice,
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => extensions::validating_webhooks,
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => extensions::mutating_webhooks,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy") => {
            extensions::admission_policy
        }
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding",
        ) => extensions::admission_policy_binding,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => extensions::custom_resource_definition,
        ("apiregistration.k8s.io", "APIService") => extensions::api_service,
        _ => return,
    };
    defaults(object);
}

/// Sets a field that is absent: a pointer that was not given.
fn absent(fields: &mut Fields, name: &str, default: impl Into<Value>) {
    match fields.get_mut(name) {
        None => {
            fields.insert(name.to_owned(), default.into());
        }
        Some(value) if value.is_null() => *value = default.into(),
        Some(_) => {}
    }
}

/// Sets a text that is absent or empty.
fn text(fields: &mut Fields, name: &str, default: &str) {
    match fields.get_mut(name) {
        Some(Value::String(given)) if !given.is_empty() => {}
        Some(value) => *value = default.into(),
        None => {
            fields.insert(name.to_owned(), default.into());
        }
    }
}

/// Sets a number that is absent or zero.
fn number(fields: &mut Fields, name: &str, default: i32) {
    if fields.get(name).is_none_or(|value| value.is_null() || value.as_i64() == Some(0)) {
        fields.insert(name.to_owned(), default.into());
    }
}

/// The text of a field; empty if there is none.
fn text_of<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a list or map has anything in it.
fn is_empty(fields: &Fields, name: &str) -> bool {
    match fields.get(name) {
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(entries)) => entries.is_empty(),
        Some(value) => value.is_null(),
        None => true,
    }
}

/// Goes into a struct, if it is there.
fn inside(fields: &mut Fields, name: &str, defaults: impl FnOnce(&mut Fields)) {
    if let Some(Value::Object(inner)) = fields.get_mut(name) {
        defaults(inner);
    }
}

/// Goes into a struct, made if it is not there.
fn ensure(fields: &mut Fields, name: &str, defaults: impl FnOnce(&mut Fields)) {
    absent(fields, name, Value::Object(Fields::new()));
    inside(fields, name, defaults);
}

/// Goes into every struct of a list.
fn each(fields: &mut Fields, name: &str, mut defaults: impl FnMut(&mut Fields)) {
    if let Some(Value::Array(items)) = fields.get_mut(name) {
        items.iter_mut().filter_map(Value::as_object_mut).for_each(&mut defaults);
    }
}
