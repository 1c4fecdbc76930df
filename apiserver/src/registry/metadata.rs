//! The rules of `metadata` that hold for every kind: who may set what, and when.
//!
//! uid, resourceVersion, creationTimestamp, generation and the deletion marks are the server's; what a
//! client sends there is dropped or put back. See `k8s.io/apiserver/pkg/registry/rest` (`create.go`,
//! `update.go`) and `pkg/storage/names`.

use api_objects::{Resource, Status, Value, time::rfc3339};
use rand::seq::IndexedRandom as _;
use serde_json::{Map, json};

use super::{Call, strategy};

/// Letters of generated suffixes: no vowels and nothing that reads like one, as upstream's
/// `k8s.io/apimachinery/pkg/util/rand`.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Characters of a generated suffix.
const SUFFIX_LENGTH: usize = 5;
/// The longest generated name (`storage/names/generate.go`).
const LONGEST_GENERATED: usize = 63;

/// A random suffix of generated names.
#[must_use]
pub fn random_suffix() -> String {
    let mut random = rand::rng();
    (0..SUFFIX_LENGTH)
        .map(|_| char::from(*ALPHABET.choose(&mut random).expect("the alphabet must not be empty")))
        .collect()
}

/// A name from a `generateName`.
#[must_use]
pub fn generate_name(base: &str) -> String {
    let mut end = base.len().min(LONGEST_GENERATED - SUFFIX_LENGTH);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], random_suffix())
}

/// The object's metadata, made if it is missing.
pub fn of(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"].as_object_mut().expect("metadata must be an object by now")
}

/// A string of the metadata; empty if absent.
#[must_use]
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Whether the object is being deleted.
#[must_use]
pub fn is_being_deleted(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// The object's finalizers.
#[must_use]
pub fn finalizers(object: &Value) -> Vec<&str> {
    let listed = object["metadata"]["finalizers"].as_array();
    listed.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Brings the namespace of a body into line with that of the request; an object of the whole cluster has none,
/// whatever its author wrote (upstream: `EnsureObjectNamespaceMatchesRequestNamespace`).
///
/// # Errors
/// 400 if they differ.
pub fn fit_namespace(resource: &Resource, namespace: &str, object: &mut Value) -> Result<(), Status> {
    match text(object, "namespace") {
        given if given == namespace => {}
        "" => {
            of(object).insert("namespace".to_owned(), json!(namespace));
        }
        _ if !resource.namespaced => {
            of(object).remove("namespace");
        }
        _ => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// Shapes the metadata of a new object.
///
/// # Errors
/// 400 for a wrong namespace, 500 for a resource version, as upstream answers.
pub fn prepare_for_create(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    fit_namespace(call.resource, call.namespace, object)?;
    let metadata = of(object);
    if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|v| !matches!(v, "" | "0")) {
        return Err(Status::failure(500, "", "resourceVersion should not be set on objects to be created"));
    }
    for field in
        ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"]
    {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), json!(rfc3339(call.now)));
    if strategy::of(call.resource).counts_generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
    Ok(())
}

/// The object that a client sends has the name of its path (upstream: `checkName` of `endpoints/handlers`).
///
/// # Errors
/// 400 if it has none or another one.
pub fn check_name(name: &str, object: &Value) -> Result<(), Status> {
    match text(object, "name") {
        "" => Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        own if own != name => Err(Status::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        ))),
        _ => Ok(()),
    }
}

/// Shapes the metadata of a changed object: what is the server's comes from the old one.
///
/// # Errors
/// 400 for a wrong name or namespace, 409 for another uid.
pub fn prepare_for_update(call: &Call<'_>, new: &mut Value, old: &Value) -> Result<(), Status> {
    fit_namespace(call.resource, call.namespace, new)?;
    check_name(call.name, new)?;
    let (asked, present) = (text(new, "uid"), text(old, "uid"));
    if !asked.is_empty() && asked != present {
        return Err(call.conflict(&format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {present}"
        )));
    }
    let metadata = of(new);
    metadata.remove("selfLink");
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        match &old["metadata"][field] {
            Value::Null => {
                metadata.remove(field);
            }
            value => {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
    }
    Ok(())
}

/// Counts a change of the desired state.
pub fn count_generation(new: &mut Value, old: &Value) {
    if strategy::desired_state_differs(new, old) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        of(new).insert("generation".to_owned(), json!(generation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit() {
        let name = generate_name("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert!(name.bytes().skip(4).all(|letter| ALPHABET.contains(&letter)), "{name}");
        assert_eq!(generate_name(&"a".repeat(70)).len(), 63);
    }
}
