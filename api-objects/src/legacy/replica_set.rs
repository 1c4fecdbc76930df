//! ReplicaSets: `v1`, no selector, no labels in the template.

use serde_json::json;

use super::{pod, set_version};
use crate::object::Value;

/// The label that ties pods to a ReplicaSet whose template has none.
const OWN_LABEL: &str = "minik8s.io/replicaset";

/// Gives the ReplicaSet what Kubernetes requires: a selector, and labels in the template that it matches.
pub(super) fn translate(document: &mut Value, notes: &mut Vec<String>) {
    set_version(document, "apps/v1", notes);
    let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(spec) = document.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    super::number(spec, "replicas", "spec", notes);
    let wanted = |value: Option<&Value>| {
        value.filter(|value| value.as_object().is_some_and(|map| !map.is_empty())).cloned()
    };
    let mut labels = wanted(spec.pointer("/template/metadata/labels"));
    let selected = wanted(spec.pointer("/selector/matchLabels"));
    let by_expressions = spec.pointer("/selector/matchExpressions").is_some();
    if spec.get("template").is_some_and(Value::is_object) {
        if labels.is_none() && !by_expressions {
            let derived = selected.clone().unwrap_or_else(|| json!({ OWN_LABEL: name }));
            let metadata = spec["template"]
                .as_object_mut()
                .map(|template| template.entry("metadata").or_insert_with(|| json!({})));
            if let Some(metadata) = metadata {
                if !metadata.is_object() {
                    *metadata = json!({});
                }
                metadata["labels"] = derived.clone();
            }
            notes.push(format!("spec.template.metadata.labels: absent, set to {derived}"));
            labels = Some(derived);
        }
        if let Some(template) = spec.pointer_mut("/template/spec") {
            pod::translate(template, "spec.template.spec", notes);
        }
    }
    if let (None, false, Some(labels)) = (selected, by_expressions, labels) {
        notes.push(format!("spec.selector: absent, derived from the template's labels {labels}"));
        spec["selector"] = json!({ "matchLabels": labels });
    }
}
