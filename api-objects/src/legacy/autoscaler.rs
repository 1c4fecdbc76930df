//! Autoscalers: a nested reference to the target, and metrics as a map of percentages.

use serde_json::json;

use super::{drop_field, number, set_version};
use crate::object::Value;

const METRICS: [(&str, &str); 2] =
    [("CPUUtilizationPercentage", "cpu"), ("MemUtilizationPercentage", "memory")];

/// Translates to `autoscaling/v2`, the first version that scales on memory.
pub(super) fn translate(document: &mut Value, notes: &mut Vec<String>) {
    let Some(spec) = document.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    number(spec, "minReplicas", "spec", notes);
    number(spec, "maxReplicas", "spec", notes);
    drop_field(spec, "scaleInterval", "spec", "the interval is the controller's", notes);
    if let Some(target) = spec.get_mut("scaleTargetRef").and_then(Value::as_object_mut)
        && let Some(metadata) = target.remove("metadata")
    {
        target.insert("name".to_owned(), metadata["name"].clone());
        if target.get("kind").is_some_and(|kind| kind == "ReplicaSet") {
            target.insert("apiVersion".to_owned(), json!("apps/v1"));
        }
        notes.push("spec.scaleTargetRef.metadata: read as the target's name".to_owned());
    }
    let Some(percentages) = spec.get("metrics").filter(|metrics| metrics.is_object()).cloned() else {
        return;
    };
    let metric = |(field, resource): (&str, &str)| {
        let value = percentages.get(field)?;
        let percent = value.as_i64().or_else(|| value.as_str()?.trim_end_matches('%').parse().ok())?;
        Some(json!({ "type": "Resource", "resource": {
            "name": resource, "target": { "type": "Utilization", "averageUtilization": percent } } }))
    };
    spec["metrics"] = METRICS.into_iter().filter_map(metric).collect();
    notes.push("spec.metrics: percentages read as resource metrics".to_owned());
    set_version(document, "autoscaling/v2", notes);
}
