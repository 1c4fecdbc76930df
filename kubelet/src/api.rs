//! The resources that a kubelet speaks of, out of the one table.

use std::sync::Arc;

use api_objects::{Resource, resource::find};

fn row(group: &str, version: &str, plural: &str) -> &'static Arc<Resource> {
    find(group, version, plural).expect("the table of resources must hold every kind that a kubelet uses")
}

/// `pods`
#[must_use]
pub(crate) fn pods() -> &'static Arc<Resource> {
    row("", "v1", "pods")
}

/// `nodes`
#[must_use]
pub(crate) fn nodes() -> &'static Arc<Resource> {
    row("", "v1", "nodes")
}

/// `configmaps`
#[must_use]
pub(crate) fn config_maps() -> &'static Arc<Resource> {
    row("", "v1", "configmaps")
}

/// `secrets`
#[must_use]
pub(crate) fn secrets() -> &'static Arc<Resource> {
    row("", "v1", "secrets")
}

/// `services`
#[must_use]
pub(crate) fn services() -> &'static Arc<Resource> {
    row("", "v1", "services")
}

/// `serviceaccounts`
#[must_use]
pub(crate) fn service_accounts() -> &'static Arc<Resource> {
    row("", "v1", "serviceaccounts")
}

/// `persistentvolumeclaims`
#[must_use]
pub(crate) fn claims() -> &'static Arc<Resource> {
    row("", "v1", "persistentvolumeclaims")
}

/// `persistentvolumes`
#[must_use]
pub(crate) fn volumes() -> &'static Arc<Resource> {
    row("", "v1", "persistentvolumes")
}

/// `runtimeclasses`
#[must_use]
pub(crate) fn runtime_classes() -> &'static Arc<Resource> {
    row("node.k8s.io", "v1", "runtimeclasses")
}

/// `leases`
#[must_use]
pub(crate) fn leases() -> &'static Arc<Resource> {
    row("coordination.k8s.io", "v1", "leases")
}

/// `tokenreviews`
#[must_use]
pub(crate) fn token_reviews() -> &'static Arc<Resource> {
    row("authentication.k8s.io", "v1", "tokenreviews")
}

/// `subjectaccessreviews`
#[must_use]
pub(crate) fn subject_access_reviews() -> &'static Arc<Resource> {
    row("authorization.k8s.io", "v1", "subjectaccessreviews")
}
