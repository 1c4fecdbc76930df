//! Whether objects are acceptable, with upstream's field paths and texts.
//!
//! Metadata is checked for every kind. Rules of their own have the kinds that something here acts on: Pod,
//! ReplicaSet, CertificateSigningRequest, Node, Namespace, ConfigMap, Secret, Service, ServiceAccount, RBAC, Lease, Event and
//! PriorityClass; the others are checked as far as `docs/compatibility.md` says. Objects come here checked
//! against their schema and with defaults. Sources: `k8s.io/kubernetes/pkg/apis/*/validation` and
//! `k8s.io/apimachinery/pkg/api/validation`.

mod certificates;
mod cluster;
mod configuration;
mod containers;
mod events;
mod findings;
mod metadata;
mod mounts;
mod others;
mod pods;
mod rbac;
mod resize;
mod resources;
mod scheduling;
mod services;
mod storage;
mod volumes;
mod workloads;

use api_objects::{Resource, Value, field::FieldError};

use findings::{Findings, Spot};

/// What is wrong with a new object.
#[must_use]
pub fn validate_create(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    // Core events are as old clients write them: their metadata is not held to today's rules.
    if !is_core_event(resource) {
        metadata::check_new(resource, &object["metadata"], &mut findings);
    }
    check(resource, object, None, &mut findings);
    findings.into_errors()
}

/// What is wrong with an object that was changed through itself (an empty `subresource`) or through a subresource
/// other than its status.
#[must_use]
pub fn validate_update(resource: &Resource, subresource: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    if !is_core_event(resource) {
        metadata::check_changed(&new["metadata"], &old["metadata"], &mut findings);
    }
    match (resource.group.as_ref(), resource.kind.as_ref(), subresource) {
        ("", "Pod", "ephemeralcontainers") => pods::ephemeral_containers(new, old, &mut findings),
        ("", "Pod", "resize") => resize::pod(new, old, &mut findings),
        _ => check(resource, new, Some(old), &mut findings),
    }
    findings.into_errors()
}

/// What is wrong with a changed status.
#[must_use]
pub fn validate_status_update(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    metadata::check_changed(&new["metadata"], &old["metadata"], &mut findings);
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            certificates::request(new, &mut findings);
            certificates::changes(new, old, certificates::Door::Status, &mut findings);
        }
        ("", "Namespace") => cluster::namespace_status(new, &mut findings),
        ("", "Node") => cluster::node_status(new, &mut findings),
        ("", "Pod") => pods::status(new, old, &mut findings),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => {
            workloads::replicas_status(new, &mut findings)
        }
        _ => {}
    }
    findings.into_errors()
}

/// What is wrong with a changed approval; only certificate requests have one.
#[must_use]
pub fn validate_approval_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    metadata::check_changed(&new["metadata"], &old["metadata"], &mut findings);
    certificates::request(new, &mut findings);
    certificates::changes(new, old, certificates::Door::Approval, &mut findings);
    findings.into_errors()
}

fn is_core_event(resource: &Resource) -> bool {
    resource.kind == "Event" && resource.group.is_empty()
}

/// The kind's own rules; `old` is the object before an update.
fn check(resource: &Resource, new: &Value, old: Option<&Value>, findings: &mut Findings) {
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("", "Pod") => pods::pod(new, old, findings),
        ("", "PodTemplate") => {
            let template = Spot::root("template");
            pods::template(&new["template"], &template, findings);
        }
        ("", "ReplicationController") => workloads::replication_controller(new, findings),
        ("", "ConfigMap") => configuration::config_map(new, old, findings),
        ("", "Secret") => configuration::secret(new, old, findings),
        ("", "Namespace") => cluster::namespace(new, findings),
        ("", "Node") => cluster::node(new, old, findings),
        ("", "Service") => services::service(new, old, findings),
        ("", "PersistentVolumeClaim") => storage::claim(new, old, findings),
        ("", "PersistentVolume") => storage::volume(new, old, findings),
        ("", "Event") => events::core(new, findings),
        ("events.k8s.io", "Event") => events::strict(new, old, findings),
        ("apps", "ReplicaSet") => workloads::replica_set(new, old, findings),
        ("apps", "Deployment") => workloads::deployment(new, old, findings),
        ("apps", "StatefulSet") => workloads::stateful_set(new, old, findings),
        ("apps", "DaemonSet") => workloads::daemon_set(new, old, findings),
        ("batch", "Job") => workloads::job(new, old, findings),
        ("batch", "CronJob") => workloads::cron_job(new, findings),
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            certificates::request(new, findings);
            if let Some(old) = old {
                certificates::changes(new, old, certificates::Door::Main, findings);
            }
        }
        ("coordination.k8s.io", "Lease") => cluster::lease(new, findings),
        ("scheduling.k8s.io", "PriorityClass") => cluster::priority_class(new, old, findings),
        ("rbac.authorization.k8s.io", "Role") => rbac::role(new, true, findings),
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::cluster_role(new, findings),
        ("rbac.authorization.k8s.io", "RoleBinding") => rbac::binding(new, old, true, findings),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => rbac::binding(new, old, false, findings),
        _ => others::check(resource, new, old, findings),
    }
}

/// A text, or empty.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A whole number, or 0.
fn integer(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

/// The elements of a list; none if it is none.
fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The entries of a map; none if it is none.
fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// Whether anything was given: absent and `null` are the same.
fn given(value: &Value) -> bool {
    !value.is_null()
}

#[cfg(test)]
mod tests;
