//! Certificate requests carry who made them: facts of the request, never of its body.
//!
//! Upstream does this in the kind's strategy (`pkg/registry/certificates/certificates`), which knows the user.

use api_objects::Value;
use serde_json::json;

use super::{Attributes, Operation};

/// Writes the requester into a new request.
pub(super) fn mutate(attributes: &Attributes<'_>, request: &mut Value) {
    let is_new = attributes.operation == Operation::Create
        && attributes.is("certificates.k8s.io", "certificatesigningrequests");
    let Some(spec) = request.get_mut("spec").and_then(Value::as_object_mut).filter(|_| is_new) else {
        return;
    };
    let user = attributes.call.user;
    for (field, value, given) in [
        ("username", json!(user.name), !user.name.is_empty()),
        ("uid", json!(user.uid), !user.uid.is_empty()),
        ("groups", json!(user.groups), !user.groups.is_empty()),
        ("extra", json!(user.extra), !user.extra.is_empty()),
    ] {
        spec.remove(field);
        if given {
            spec.insert(field.to_owned(), value);
        }
    }
}
