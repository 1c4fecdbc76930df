//! DefaultStorageClass and PersistentVolumeClaimResize: a claim that names no class gets the default one, and only
//! claims of classes that allow it may grow.
//!
//! Upstream: `plugin/pkg/admission/storage/storageclass/setdefault` and `…/persistentvolume/resize`.

use api_objects::{Resource, Status, Value, quantity::Quantity, resource};
use apiserver_storage::{At, ListOptions};

use super::{Attributes, Operation};
use crate::{
    registry::{self, decode, metadata},
    status::{Subject, from_store},
};

const IS_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

fn classes() -> &'static Resource {
    resource::find("storage.k8s.io", "v1", "storageclasses").expect("storage classes must be in the table")
}

/// Gives a new claim the default class.
pub(super) async fn mutate(attributes: &Attributes<'_>, claim: &mut Value) -> Result<(), Status> {
    let is_new_claim =
        attributes.is("", "persistentvolumeclaims") && attributes.operation == Operation::Create;
    // An empty name is a name: "no class".
    if !is_new_claim
        || !claim["spec"].is_object()
        || !claim["spec"]["storageClassName"].is_null()
        || !claim["metadata"]["annotations"][CLASS_ANNOTATION].is_null()
    {
        return Ok(());
    }
    let options = ListOptions { at: At::Any, ..ListOptions::default() };
    let listing = attributes.call.server.storage.list(&classes().key_prefix(""), &options, None).await;
    let listing = listing.map_err(|error| from_store(&error, Subject { resource: classes(), name: "" }))?;
    let all = listing.items.iter().map(|item| decode(&item.entry.value, item.entry.revision, classes()));
    if let Some(class) = youngest_default(all) {
        claim["spec"]["storageClassName"] = class["metadata"]["name"].clone();
    }
    Ok(())
}

/// Of several defaults the youngest, of equally young ones the first by name.
fn youngest_default(classes: impl Iterator<Item = Value>) -> Option<Value> {
    let is_default =
        |class: &Value| IS_DEFAULT.iter().any(|mark| class["metadata"]["annotations"][mark] == "true");
    let rank = |class: &Value| {
        let name = metadata::text(class, "name").to_owned();
        (metadata::text(class, "creationTimestamp").to_owned(), std::cmp::Reverse(name))
    };
    classes.filter(is_default).max_by_key(rank)
}

/// Refuses that a claim grows where its class does not let it.
pub(super) async fn validate(
    attributes: &Attributes<'_>,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    let (Some(new), Some(old)) = (new, old) else { return Ok(()) };
    if !attributes.is("", "persistentvolumeclaims") || attributes.operation != Operation::Update {
        return Ok(());
    }
    let size = |claim: &Value| Quantity::from_value(&claim["spec"]["resources"]["requests"]["storage"]).ok();
    match (size(new), size(old)) {
        (Some(new), Some(old)) if new.value() > old.value() => {}
        _ => return Ok(()),
    }
    if old["status"]["phase"] != "Bound" {
        return Err(attributes.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let class = old["spec"]["storageClassName"].as_str().unwrap_or_default();
    let class = match class {
        "" => None,
        name => registry::lookup(attributes.call.server, classes(), "", name).await?,
    };
    if class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    Err(attributes.forbidden(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_youngest_default_wins() {
        let class = |name: &str, created: &str, default: &str| json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": {IS_DEFAULT[0]: default}}});
        let chosen = |classes: Vec<Value>| {
            youngest_default(classes.into_iter()).map(|class| class["metadata"]["name"].clone())
        };
        let (old, young) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        assert_eq!(
            chosen(vec![class("a", old, "true"), class("b", young, "true"), class("c", young, "false")]),
            Some(json!("b"))
        );
        assert_eq!(chosen(vec![class("b", old, "true"), class("a", old, "true")]), Some(json!("a")));
        assert_eq!(chosen(vec![class("a", old, "false")]), None);
    }
}
