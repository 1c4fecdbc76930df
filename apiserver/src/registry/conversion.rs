//! Between the served and the stored version of a kind, for the few kinds where they differ.
//!
//! HorizontalPodAutoscalers are stored as autoscaling/v2 and Events as core/v1, as upstream stores them
//! (`pkg/apis/autoscaling/v1/conversion.go`, `pkg/apis/events/v1/conversion.go`).

use api_objects::{Resource, Value};
use serde_json::{Map, json};

/// Whether objects of this row are stored in another form than the one that it serves.
#[must_use]
pub fn is_needed(resource: &Resource) -> bool {
    resource.storage.version != resource.version
        || (resource.storage.group != resource.group
            && !(resource.group.is_empty() && resource.storage.group == "core"))
}

/// The stored version's `apiVersion`.
fn stored_api_version(resource: &Resource) -> String {
    let storage = &resource.storage;
    if storage.group == "core" {
        storage.version.to_string()
    } else {
        format!("{}/{}", storage.group, storage.version)
    }
}

/// Turns a decoded stored object into the version of `resource`.
pub fn to_served(resource: &Resource, object: &mut Value) {
    if !object.is_object() {
        return;
    }
    match (&*resource.group, &*resource.plural) {
        ("events.k8s.io", "events") => event_to_new(object),
        ("autoscaling", "horizontalpodautoscalers") => autoscaler_to_v1(object),
        _ => {}
    }
    object["apiVersion"] = json!(resource.api_version());
}

/// Turns an object in the version of `resource` into the stored one.
pub fn to_stored(resource: &Resource, object: &mut Value) {
    match (&*resource.group, &*resource.plural) {
        ("events.k8s.io", "events") => event_to_core(object),
        ("autoscaling", "horizontalpodautoscalers") => autoscaler_to_v2(object),
        _ => {}
    }
    object["apiVersion"] = json!(stored_api_version(resource));
}

/// Renames fields, both ways by swapping the pairs.
fn rename(object: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.insert(to.to_owned(), value);
    }
}

/// `events.k8s.io/v1` beside `v1`: the same event, other names.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn event_to_new(object: &mut Value) {
    if let Some(event) = object.as_object_mut() {
        EVENT_FIELDS.iter().for_each(|(core, new)| rename(event, core, new));
    }
}

fn event_to_core(object: &mut Value) {
    if let Some(event) = object.as_object_mut() {
        EVENT_FIELDS.iter().for_each(|(core, new)| rename(event, new, core));
    }
}

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

/// v1 knows one metric, the CPU's utilisation; the others travel in an annotation, as upstream's do.
const OTHER_METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn autoscaler_to_v1(object: &mut Value) {
    let metrics = object["spec"]["metrics"].as_array().cloned().unwrap_or_default();
    let behavior = object["spec"].get("behavior").cloned();
    let current = object["status"]["currentMetrics"].as_array().cloned().unwrap_or_default();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("metrics");
        spec.remove("behavior");
        let cpu = metrics.iter().find(|metric| is_cpu(metric));
        if let Some(target) = cpu
            .and_then(|metric| metric.pointer("/resource/target/averageUtilization"))
            .filter(|v| !v.is_null())
        {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), target.clone());
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("currentMetrics");
        status.remove("conditions");
        let cpu = current.iter().find(|metric| is_cpu(metric));
        if let Some(value) = cpu.and_then(|metric| metric.pointer("/resource/current/averageUtilization")) {
            status.insert("currentCPUUtilizationPercentage".to_owned(), value.clone());
        }
    }
    let others: Vec<Value> = metrics.into_iter().filter(|metric| !is_cpu(metric)).collect();
    let metadata = super::metadata::of(object);
    for (annotation, value) in
        [(OTHER_METRICS, (!others.is_empty()).then(|| json!(others))), (BEHAVIOR, behavior)]
    {
        if let Some(value) = value {
            let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
            annotations[annotation] = json!(value.to_string());
        }
    }
}

fn autoscaler_to_v2(object: &mut Value) {
    let mut carried = |name: &str| -> Option<Value> {
        let text = object.pointer_mut("/metadata/annotations")?.as_object_mut()?.remove(name)?;
        serde_json::from_str(text.as_str()?).ok()
    };
    let others = carried(OTHER_METRICS);
    let behavior = carried(BEHAVIOR);
    if object["metadata"]["annotations"].as_object().is_some_and(Map::is_empty) {
        super::metadata::of(object).remove("annotations");
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let mut metrics = Vec::new();
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": percent}}}));
        }
        metrics.extend(others.and_then(|others| others.as_array().cloned()).unwrap_or_default());
        if !metrics.is_empty() {
            spec.insert("metrics".to_owned(), json!(metrics));
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut)
        && let Some(percent) = status.remove("currentCPUUtilizationPercentage")
    {
        status.insert(
            "currentMetrics".to_owned(),
            json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}]),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autoscalers_come_back_whole() {
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 70}}});
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
        let stored = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "metrics": [cpu, memory]}});
        let mut object = stored.clone();
        autoscaler_to_v1(&mut object);
        assert_eq!(object["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        autoscaler_to_v2(&mut object);
        assert_eq!(object, stored);
    }

    #[test]
    fn events_have_two_sets_of_names() {
        let stored =
            json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"}, "message": "m", "count": 2});
        let mut object = stored.clone();
        event_to_new(&mut object);
        assert_eq!(object["regarding"]["kind"], "Pod");
        assert_eq!((&object["note"], &object["deprecatedCount"]), (&json!("m"), &json!(2)));
        event_to_core(&mut object);
        assert_eq!(object, stored);
    }
}
