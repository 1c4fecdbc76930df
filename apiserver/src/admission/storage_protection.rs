//! StorageObjectInUseProtection: new claims and volumes carry a finalizer, so that they outlive their use.
//!
//! Upstream: `plugin/pkg/admission/storage/storageobjectinuseprotection`. The volume protection controller takes the
//! finalizers away.

use api_objects::Value;
use serde_json::json;

use super::{Attributes, Operation};

/// Adds the finalizer of the kind.
pub(super) fn mutate(attributes: &Attributes<'_>, object: &mut Value) {
    if attributes.operation != Operation::Create {
        return;
    }
    let finalizer = if attributes.is("", "persistentvolumeclaims") {
        "kubernetes.io/pvc-protection"
    } else if attributes.is("", "persistentvolumes") {
        "kubernetes.io/pv-protection"
    } else if attributes.is("storage.k8s.io", "volumeattributesclasses") {
        "kubernetes.io/vac-protection"
    } else {
        return;
    };
    add(object, finalizer);
}

fn add(object: &mut Value, finalizer: &str) {
    let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|known| known == finalizer) {
        finalizers.push(json!(finalizer));
        object["metadata"]["finalizers"] = Value::Array(finalizers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_and_beside_others() {
        let mut object = json!({"metadata": {"name": "c", "finalizers": ["a/b"]}});
        add(&mut object, "x/y");
        add(&mut object, "x/y");
        assert_eq!(object["metadata"]["finalizers"], json!(["a/b", "x/y"]));
    }
}
