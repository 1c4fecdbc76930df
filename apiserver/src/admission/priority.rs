//! Priority: the class that a pod names becomes a number, and there is at most one default class.
//!
//! Upstream: `plugin/pkg/admission/priority`.

use api_objects::{Resource, Status, Value, resource};
use apiserver_storage::ListOptions;
use serde_json::json;

use super::{Attributes, Operation};
use crate::{
    registry::{self, decode, metadata},
    status::{Subject, from_store},
};

/// Resolves the class of a new pod; checks that a class does not become a second default.
pub(super) async fn mutate(
    attributes: &Attributes<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let classes = resource::find("scheduling.k8s.io", "v1", "priorityclasses")
        .expect("priority classes must be in the table");
    if attributes.is("", "pods") && attributes.operation == Operation::Create && object["spec"].is_object() {
        return resolve(attributes, classes, object).await;
    }
    let becomes_default =
        object["globalDefault"] == json!(true) && old.is_none_or(|old| old["globalDefault"] != json!(true));
    if attributes.is("scheduling.k8s.io", "priorityclasses")
        && attributes.operation != Operation::Delete
        && becomes_default
        && let Some(present) = default_class(attributes, classes).await?
        && metadata::text(&present, "name") != metadata::text(object, "name")
    {
        let named = registry::Call { name: metadata::text(object, "name"), ..*attributes.call };
        return Err(named.forbidden(&format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            metadata::text(&present, "name")
        )));
    }
    Ok(())
}

/// The class that pods without one belong to. Only candidates are decoded: this runs for every pod.
async fn default_class(attributes: &Attributes<'_>, classes: &Resource) -> Result<Option<Value>, Status> {
    let marker: &[u8] = br#""globalDefault":true"#;
    let listing = attributes
        .call
        .server
        .storage
        .list(
            &classes.key_prefix(""),
            &ListOptions { at: apiserver_storage::At::Any, ..ListOptions::default() },
            None,
        )
        .await
        .map_err(|error| from_store(&error, Subject { resource: classes, name: "" }))?;
    let mut defaults: Vec<Value> = listing
        .items
        .iter()
        .filter(|item| item.entry.value.windows(marker.len()).any(|window| window == marker))
        .map(|item| decode(&item.entry.value, item.entry.revision, classes))
        .filter(|class| class["globalDefault"] == json!(true))
        .collect();
    // Of several (made at the same moment) the least wins, as upstream decides.
    defaults.sort_by_key(|class| class["value"].as_i64());
    Ok(defaults.into_iter().next())
}

async fn resolve(attributes: &Attributes<'_>, classes: &Resource, pod: &mut Value) -> Result<(), Status> {
    let named = registry::Call { name: metadata::text(pod, "name"), ..*attributes.call };
    let asked = pod["spec"]["priorityClassName"].as_str().unwrap_or_default();
    let class = if asked.is_empty() {
        default_class(attributes, classes).await?
    } else {
        let found = registry::lookup(attributes.call.server, classes, "", asked).await?;
        Some(found.ok_or_else(|| named.forbidden(&format!("no PriorityClass with name {asked} was found")))?)
    };
    let priority = class.as_ref().and_then(|class| class["value"].as_i64()).unwrap_or(0);
    let preemption =
        class.as_ref().and_then(|class| class["preemptionPolicy"].as_str()).unwrap_or("PreemptLowerPriority");
    let spec = &pod["spec"];
    if let Some(given) = spec["priority"].as_i64().filter(|given| *given != priority) {
        return Err(named.forbidden(&format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        )));
    }
    if let Some(given) = spec["preemptionPolicy"].as_str().filter(|given| *given != preemption) {
        return Err(named.forbidden(&format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {preemption} from the given PriorityClass name"
        )));
    }
    if let Some(class) = &class {
        pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
    }
    pod["spec"]["priority"] = json!(priority);
    pod["spec"]["preemptionPolicy"] = json!(preemption);
    Ok(())
}
