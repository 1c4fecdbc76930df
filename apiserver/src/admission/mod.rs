//! Admission: rules about objects that need to know more than the object.
//!
//! Mutating plug-ins run before the strategy's validation, validating ones after it, each in the order below,
//! which is upstream's (`pkg/kubeapiserver/options/plugins.go`). A plug-in is one file with a function per
//! side; webhooks and policies will join the same two lists.

mod certificate_requests;
mod default_toleration_seconds;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod runtime_class;
mod service_account;
mod storage_class;
mod storage_protection;
mod taint_nodes;

use api_objects::{Status, Value};

use crate::registry::Call;

/// What is about to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object.
    Update,
    /// A deletion.
    Delete,
}

/// What plug-ins go by.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    /// Where, by whom, how.
    pub call: &'a Call<'a>,
    /// What.
    pub operation: Operation,
}

impl<'a> Attributes<'a> {
    /// Attributes of an operation.
    #[must_use]
    pub fn new(call: &'a Call<'a>, operation: Operation) -> Self {
        Self { call, operation }
    }

    /// Whether this is about the object itself (no subresource) of a resource.
    #[must_use]
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.call.subresource.is_empty()
            && self.call.resource.group == group
            && self.call.resource.plural == plural
    }

    /// 403 with upstream's opening words.
    #[must_use]
    pub fn forbidden(&self, why: &str) -> Status {
        self.call.forbidden(why)
    }
}

/// Lets every mutating plug-in change `object`.
///
/// # Errors
/// The first refusal.
pub async fn mutate(
    attributes: &Attributes<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    namespace_lifecycle::check(attributes).await?;
    certificate_requests::mutate(attributes, object);
    taint_nodes::mutate(attributes, object);
    service_account::mutate(attributes, object).await?;
    priority::mutate(attributes, object, old).await?;
    default_toleration_seconds::mutate(attributes, object);
    storage_class::mutate(attributes, object).await?;
    storage_protection::mutate(attributes, object);
    runtime_class::mutate(attributes, object).await
}

/// Lets every validating plug-in refuse. `object` is `None` for a deletion, `old` for a creation.
///
/// # Errors
/// The first refusal.
pub async fn validate(
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    if attributes.operation == Operation::Delete {
        namespace_lifecycle::check(attributes).await?;
    }
    storage_class::validate(attributes, object, old).await?;
    runtime_class::validate(attributes, object).await?;
    certificate_requests::validate(attributes, object, old).await?;
    node_restriction::validate(attributes, object, old).await
}
