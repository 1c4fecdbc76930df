//! NamespaceLifecycle: nothing is created in a namespace that is absent or going, and some never go.
//!
//! Upstream: `k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle`.

use api_objects::{Status, resource, status::StatusCause};
use apiserver_storage::At;

use super::{Attributes, Operation};
use crate::{
    projector::field_value,
    status::{Subject, from_store},
};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Checks the namespace that the operation is in, or about.
pub(super) async fn check(attributes: &Attributes<'_>) -> Result<(), Status> {
    let call = attributes.call;
    if attributes.is("", "namespaces") {
        let immortal = attributes.operation == Operation::Delete && IMMORTAL.contains(&call.name);
        return if immortal {
            Err(attributes.forbidden("this namespace may not be deleted"))
        } else {
            Ok(())
        };
    }
    if call.namespace.is_empty() || attributes.operation != Operation::Create {
        return Ok(());
    }
    let namespaces = resource::find("", "v1", "namespaces").expect("namespaces must be in the table");
    let key = namespaces.key("", call.namespace);
    let storage = &call.server.storage;
    let failed = |error| from_store(&error, Subject { resource: namespaces, name: call.namespace });
    // The cache may be a moment behind a namespace that was just made, never the other way round.
    let found = match storage.get(&key, At::Any).await.map_err(failed)? {
        Some(item) => Some(item),
        None => storage.get(&key, At::Latest).await.map_err(failed)?,
    };
    let Some(namespace) = found else {
        return Err(Status::not_found("", "namespaces", call.namespace));
    };
    if field_value(&namespace, "status.phase") == Some("Terminating") {
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            call.namespace
        );
        return Err(attributes.forbidden(&why).with_causes(vec![StatusCause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {} is being terminated", call.namespace),
            field: "metadata.namespace".to_owned(),
        }]));
    }
    Ok(())
}
