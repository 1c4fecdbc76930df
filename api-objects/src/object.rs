//! An object as canonical JSON bytes, and the few parts of it that machinery reads.
//!
//! Canonical bytes carry `kind`, `apiVersion` and `metadata` first and in this order, then the other fields
//! sorted by name, and never a `metadata.resourceVersion`: a stored value cannot know its own revision, and
//! a write that changes nothing is recognised by comparing bytes. The revision is spliced in when an object
//! leaves the server.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

/// A decoded object: what patches, defaults and validation work on.
pub type Value = serde_json::Value;

/// The text that stands directly before the place of the resource version in canonical bytes.
const METADATA_OPEN: &[u8] = b"\"metadata\":{";

/// Encodes an object canonically. Anything but an object at the root is encoded as plain JSON.
#[must_use]
pub fn encode_canonical(value: &Value) -> Bytes {
    let Some(root) = value.as_object() else {
        return Bytes::from(value.to_string());
    };
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    for key in ["kind", "apiVersion"] {
        if let Some(field) = root.get(key) {
            write_member(&mut out, key, field);
        }
    }
    if let Some(metadata) = root.get("metadata") {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(METADATA_OPEN);
        let before = out.len();
        for (key, field) in metadata.as_object().into_iter().flatten() {
            if key == "resourceVersion" {
                continue;
            }
            if out.len() > before {
                out.push(b',');
            }
            write_pair(&mut out, key, field);
        }
        out.push(b'}');
    }
    for (key, field) in root {
        if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
            write_member(&mut out, key, field);
        }
    }
    out.push(b'}');
    Bytes::from(out)
}

fn write_member(out: &mut Vec<u8>, key: &str, field: &Value) {
    if out.len() > 1 {
        out.push(b',');
    }
    write_pair(out, key, field);
}

fn write_pair(out: &mut Vec<u8>, key: &str, field: &Value) {
    serde_json::to_writer(&mut *out, key).expect("writing to a Vec must succeed");
    out.push(b':');
    serde_json::to_writer(&mut *out, field).expect("writing to a Vec must succeed");
}

/// Where `"metadata":{` ends in canonical bytes: the place of the resource version. It stands near the
/// front, so the search is short; `kind` and `apiVersion` cannot contain the text, as quotes are escaped.
fn splice_point(canonical: &[u8]) -> Option<usize> {
    canonical
        .windows(METADATA_OPEN.len())
        .position(|window| window == METADATA_OPEN)
        .map(|at| at + METADATA_OPEN.len())
}

/// Appends the object with its resource version to `out`.
pub fn write_with_revision(canonical: &[u8], revision: u64, out: &mut Vec<u8>) {
    write_spliced(canonical, 0, revision, out);
}

/// Appends the object as an item of a list of a built-in kind: with its resource version and without `kind`
/// and `apiVersion`, which upstream leaves out of the items of typed lists.
pub fn write_list_item(canonical: &[u8], revision: u64, out: &mut Vec<u8>) {
    match splice_point(canonical) {
        Some(point) => {
            out.push(b'{');
            write_spliced(canonical, point - METADATA_OPEN.len(), revision, out);
        }
        None => out.extend_from_slice(canonical),
    }
}

fn write_spliced(canonical: &[u8], from: usize, revision: u64, out: &mut Vec<u8>) {
    let Some(point) = splice_point(canonical) else {
        out.extend_from_slice(&canonical[from..]);
        return;
    };
    out.reserve(canonical.len() - from + 48);
    out.extend_from_slice(&canonical[from..point]);
    out.extend_from_slice(b"\"resourceVersion\":\"");
    out.extend_from_slice(revision.to_string().as_bytes());
    out.push(b'"');
    if canonical[point] != b'}' {
        out.push(b',');
    }
    out.extend_from_slice(&canonical[point..]);
}

/// The object with its resource version.
#[must_use]
pub fn with_revision(canonical: &[u8], revision: u64) -> Bytes {
    let mut out = Vec::with_capacity(canonical.len() + 48);
    write_with_revision(canonical, revision, &mut out);
    Bytes::from(out)
}

/// The parts of an object's metadata that machinery reads, decoded without the rest of the object.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// The object's name.
    pub name: String,
    /// Prefix of a generated name.
    pub generate_name: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Unique over time and space.
    pub uid: String,
    /// The store's revision of the last write, in decimal.
    pub resource_version: String,
    /// Counts changes of the desired state.
    pub generation: i64,
    /// RFC 3339.
    pub creation_timestamp: Option<String>,
    /// RFC 3339; present while the object is being deleted.
    pub deletion_timestamp: Option<String>,
    /// Seconds granted for graceful deletion.
    pub deletion_grace_period_seconds: Option<i64>,
    /// What selectors match on.
    pub labels: BTreeMap<String, String>,
    /// Arbitrary notes.
    pub annotations: BTreeMap<String, String>,
    /// Names that must be taken away before the object goes.
    pub finalizers: Vec<String>,
    /// The objects that this one depends on.
    pub owner_references: Vec<OwnerReference>,
}

/// A reference to an owner in `metadata.ownerReferences`.
#[derive(Debug, Clone, Default, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// Group and version of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Uid of the owner.
    pub uid: String,
    /// Whether this owner is the managing controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether foreground deletion of the owner waits for this object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

impl ObjectMeta {
    /// Reads the metadata out of an encoded object. What cannot be read is left at its default: stored
    /// bytes were checked when they were written, and one odd object must not stop a list.
    #[must_use]
    pub fn from_bytes(object: &[u8]) -> Self {
        #[derive(Deserialize, Default)]
        struct Holder {
            #[serde(default)]
            metadata: ObjectMeta,
        }
        serde_json::from_slice::<Holder>(object).unwrap_or_default().metadata
    }

    /// Reads the metadata out of a decoded object.
    #[must_use]
    pub fn from_value(object: &Value) -> Self {
        object.get("metadata").and_then(|metadata| Self::deserialize(metadata).ok()).unwrap_or_default()
    }

    /// The owner that is the managing controller, if there is one.
    #[must_use]
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller == Some(true))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn canonical_order_and_splice() {
        let object = json!({"spec": {"a": 1}, "metadata": {"name": "x", "resourceVersion": "9"},
            "apiVersion": "v1", "kind": "Pod"});
        let canonical = encode_canonical(&object);
        assert_eq!(
            &canonical[..],
            br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"},"spec":{"a":1}}"#
        );
        assert_eq!(
            &with_revision(&canonical, 42)[..],
            br#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"42","name":"x"},"spec":{"a":1}}"#
        );
        let mut item = Vec::new();
        write_list_item(&canonical, 42, &mut item);
        assert_eq!(&item[..], br#"{"metadata":{"resourceVersion":"42","name":"x"},"spec":{"a":1}}"#);
    }

    #[test]
    fn splice_into_empty_metadata() {
        let canonical = encode_canonical(&json!({"kind": "Status", "metadata": {}}));
        assert_eq!(
            &with_revision(&canonical, 1)[..],
            br#"{"kind":"Status","metadata":{"resourceVersion":"1"}}"#
        );
    }
}
