//! Namespaces: alive until their own finalizer has emptied them.
//!
//! A namespace carries `spec.finalizers: [kubernetes]` from its creation; only the `finalize` subresource
//! changes that list, and the namespace goes when it is being deleted and the list is empty (upstream:
//! `pkg/registry/core/namespace`).

use api_objects::Value;
use serde_json::json;

/// The finalizer that the namespace controller takes away.
const KUBERNETES: &str = "kubernetes";

/// A new namespace is active and waits, in its time, to be emptied.
pub fn prepare_for_create(namespace: &mut Value) {
    let listed = namespace.pointer("/spec/finalizers").and_then(Value::as_array);
    let mut finalizers = listed.cloned().unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == KUBERNETES) {
        finalizers.push(json!(KUBERNETES));
    }
    namespace["spec"] = json!({ "finalizers": finalizers });
    namespace["status"] = json!({ "phase": "Active" });
}

/// The finalizers are kept; only `finalize` changes them.
pub fn prepare_for_update(new: &mut Value, old: &Value) {
    if let Some(spec) = old.get("spec") {
        new["spec"] = spec.clone();
    }
}

/// `kubernetes.io/metadata.name` lets selectors pick a namespace by name.
pub fn label_with_name(namespace: &mut Value) {
    if let Some(name) = namespace.pointer("/metadata/name").cloned() {
        if !namespace["metadata"]["labels"].is_object() {
            namespace["metadata"]["labels"] = json!({});
        }
        namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    }
}

/// Whether a namespace that is being deleted has nothing left to wait for in its spec.
#[must_use]
pub fn is_emptied(namespace: &Value) -> bool {
    namespace.pointer("/spec/finalizers").and_then(Value::as_array).is_none_or(Vec::is_empty)
}
