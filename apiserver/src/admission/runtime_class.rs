//! RuntimeClass: what a pod's class costs and where it runs becomes part of the pod.
//!
//! Upstream: `plugin/pkg/admission/runtimeclass`, and `pkg/util/tolerations` for the merge.

use api_objects::{Resource, Status, Value, quantity::Quantity, resource};

use super::{Attributes, Operation};
use crate::registry::{self, metadata};

/// Gives a new pod the overhead and the places of its class.
pub(super) async fn mutate(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    if !is_new_pod(attributes) {
        return Ok(());
    }
    let Some(class) = class_of(attributes, pod).await? else { return Ok(()) };
    let name = metadata::text(pod, "name").to_owned();
    let named = registry::Call { name: &name, ..*attributes.call };
    let overhead = &class["overhead"];
    if !overhead.is_null() {
        if !pod["spec"]["overhead"].is_null()
            && !same_amounts(&overhead["podFixed"], &pod["spec"]["overhead"])
        {
            return Err(named.forbidden(MISMATCH));
        }
        if overhead["podFixed"].is_object() {
            pod["spec"]["overhead"] = overhead["podFixed"].clone();
        }
    }
    let scheduling = &class["scheduling"];
    for (key, wanted) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let present = &pod["spec"]["nodeSelector"][key];
        if !present.is_null() && present != wanted {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            return Err(named.forbidden(&format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(wanted),
                text(present)
            )));
        }
        pod["spec"]["nodeSelector"][key] = wanted.clone();
    }
    let none = Vec::new();
    let list = |value: &Value| value.as_array().unwrap_or(&none).clone();
    let more = list(&scheduling["tolerations"]);
    if !more.is_empty() {
        pod["spec"]["tolerations"] = Value::Array(merge(list(&pod["spec"]["tolerations"]), more));
    }
    Ok(())
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

/// Refuses a new pod whose overhead is not its class's.
pub(super) async fn validate(attributes: &Attributes<'_>, pod: Option<&Value>) -> Result<(), Status> {
    let Some(pod) = pod.filter(|_| is_new_pod(attributes)) else { return Ok(()) };
    let own = &pod["spec"]["overhead"];
    if own.is_null() && pod["spec"]["runtimeClassName"].is_null() {
        return Ok(());
    }
    let class = class_of(attributes, pod).await?.unwrap_or_default();
    let named = registry::Call { name: metadata::text(pod, "name"), ..*attributes.call };
    match (class["overhead"].is_null(), own.is_null()) {
        (true, false) => Err(named
            .forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")),
        (false, _) if !same_amounts(&class["overhead"]["podFixed"], own) => Err(named.forbidden(MISMATCH)),
        _ => Ok(()),
    }
}

fn is_new_pod(attributes: &Attributes<'_>) -> bool {
    attributes.is("", "pods") && attributes.operation == Operation::Create
}

async fn class_of(attributes: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, Status> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
    let classes: &Resource =
        resource::find("node.k8s.io", "v1", "runtimeclasses").expect("runtime classes must be in the table");
    let found = registry::lookup(attributes.call.server, classes, "", name).await?;
    let named = registry::Call { name: metadata::text(pod, "name"), ..*attributes.call };
    found.map(Some).ok_or_else(|| named.forbidden(&format!("pod rejected: RuntimeClass {name:?} not found")))
}

/// Whether two lists of amounts mean the same, however they are written.
fn same_amounts(one: &Value, other: &Value) -> bool {
    let read = |value: &Value| -> Vec<(String, Option<Quantity>)> {
        let list = value.as_object().into_iter().flatten();
        list.map(|(name, amount)| (name.clone(), Quantity::from_value(amount).ok())).collect()
    };
    read(one) == read(other)
}

/// Both lists without what another of them tolerates as well (`MergeTolerations`).
fn merge(first: Vec<Value>, second: Vec<Value>) -> Vec<Value> {
    let all: Vec<Value> = first.into_iter().chain(second).collect();
    let mut merged: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let covered = merged.iter().any(|other| covers(other, toleration))
            || all[index + 1..].iter().any(|other| other != toleration && covers(other, toleration));
        if !covered {
            merged.push(toleration.clone());
        }
    }
    merged
}

/// Whether a toleration tolerates all that another does (`isSuperset`).
fn covers(more: &Value, less: &Value) -> bool {
    if more == less {
        return true;
    }
    let text = |toleration: &Value, field: &str| toleration[field].as_str().unwrap_or_default().to_owned();
    let exists = text(more, "operator") == "Exists";
    if text(less, "key") != text(more, "key") && !(text(more, "key").is_empty() && exists) {
        return false;
    }
    let effect = text(more, "effect");
    if !effect.is_empty() && text(less, "effect") != effect {
        return false;
    }
    let seconds = |toleration: &Value| toleration["tolerationSeconds"].as_i64();
    if effect == "NoExecute"
        && let Some(most) = seconds(more)
        && seconds(less).is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    match text(more, "operator").as_str() {
        "Equal" | "" => text(less, "operator") == "Equal" && text(less, "value") == text(more, "value"),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The cases of upstream's `TestMergeTolerations` that matter here.
    #[test]
    fn what_is_tolerated_already_is_not_added() {
        let all = json!({"operator": "Exists"});
        let key = json!({"key": "foo", "operator": "Exists"});
        let value = json!({"key": "foo", "operator": "Equal", "value": "bar", "effect": "NoSchedule"});
        let long =
            json!({"key": "foo", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60});
        let short =
            json!({"key": "foo", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10});
        let merges = |first: &[&Value], second: &[&Value], expected: &[&Value]| {
            let owned = |list: &[&Value]| list.iter().map(|&one| one.clone()).collect::<Vec<_>>();
            assert_eq!(merge(owned(first), owned(second)), owned(expected));
        };
        merges(&[&key], &[&value], &[&key]);
        merges(&[&value], &[&key], &[&key]);
        merges(&[&value], &[&value], &[&value]);
        merges(&[&value, &long], &[&all], &[&all]);
        merges(&[&short], &[&long], &[&long]);
        merges(&[&value], &[&long], &[&value, &long]);
    }

    #[test]
    fn amounts_are_compared_by_what_they_mean() {
        assert!(same_amounts(&json!({"cpu": "1"}), &json!({"cpu": "1000m"})));
        assert!(!same_amounts(&json!({"cpu": "1"}), &json!({"cpu": "1", "memory": "1Mi"})));
    }
}
