//! The manifest dialect of the first Minik8s, translated into Kubernetes' own.
//!
//! Pods with `cmd` and ports as text, Nodes with an `ip`, ReplicaSets without a selector, autoscalers with nested
//! references: such manifests are still around, and are applied unchanged. Only what Kubernetes itself would refuse
//! or ignore is touched, so that a manifest of Kubernetes passes through unaltered and without a word.

mod autoscaler;
mod node;
mod pod;
mod replica_set;

use crate::object::Value;

/// Translates a manifest in place and says, for people, what was translated.
pub fn translate(document: &mut Value) -> Vec<String> {
    let mut notes = Vec::new();
    let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    match kind.as_str() {
        "Pod" => {
            if let Some(spec) = document.get_mut("spec") {
                pod::translate(spec, "spec", &mut notes);
            }
        }
        "Node" => node::translate(document, &mut notes),
        "ReplicaSet" => replica_set::translate(document, &mut notes),
        "HorizontalPodAutoscaler" => autoscaler::translate(document, &mut notes),
        "Service" => {
            for (index, port) in items(document.pointer_mut("/spec/ports")).enumerate() {
                let path = format!("spec.ports[{index}]");
                number(port, "port", &path, &mut notes);
                number(port, "nodePort", &path, &mut notes);
                // A port's name always holds a letter, so that digits can only mean the number.
                number(port, "targetPort", &path, &mut notes);
            }
        }
        _ => {}
    }
    notes
}

/// The plural names that the first Minik8s' `get` took, as resources of Kubernetes.
#[must_use]
pub fn resource_alias(name: &str) -> Option<&'static str> {
    match name {
        "rss" => Some("replicasets"),
        "hpas" => Some("horizontalpodautoscalers"),
        _ => None,
    }
}

fn items(list: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    list.and_then(Value::as_array_mut).into_iter().flatten()
}

/// Turns digits in a text into the number that Kubernetes wants.
fn number(parent: &mut Value, field: &str, path: &str, notes: &mut Vec<String>) {
    let Some(value) = parent.get_mut(field) else { return };
    let parsed = value.as_str().and_then(|text| text.trim().parse::<i64>().ok());
    if let Some(parsed) = parsed {
        *value = Value::from(parsed);
        notes.push(format!("{path}.{field}: text read as the number {parsed}"));
    }
}

/// Renames a field, unless the new name is taken.
fn rename(parent: &mut Value, old: &str, new: &str, path: &str, notes: &mut Vec<String>) {
    let Some(fields) = parent.as_object_mut() else { return };
    if fields.contains_key(new) {
        return;
    }
    if let Some(value) = fields.remove(old) {
        fields.insert(new.to_owned(), value);
        notes.push(format!("{path}.{old}: read as {new}"));
    }
}

/// Drops a field that Kubernetes has no place for.
fn drop_field(parent: &mut Value, field: &str, path: &str, why: &str, notes: &mut Vec<String>) {
    if parent.as_object_mut().is_some_and(|fields| fields.remove(field).is_some()) {
        notes.push(format!("{path}.{field}: ignored, {why}"));
    }
}

/// Brings a manifest to the group and version in which Kubernetes serves its kind.
fn set_version(document: &mut Value, version: &str, notes: &mut Vec<String>) {
    let given = document.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if given != version {
        notes.push(format!("apiVersion: {given:?} read as {version}"));
        document["apiVersion"] = Value::from(version);
    }
}

#[cfg(test)]
mod tests;
