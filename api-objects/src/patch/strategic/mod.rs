//! Strategic merge patch: a merge patch that merges lists of a kind by their keys.
//!
//! Directives (`$patch`, `$deleteFromPrimitiveList/…`, `$setElementOrder/…`, `$retainKeys`) and the order of merged
//! lists follow `k8s.io/apimachinery/pkg/util/strategicpatch` and the API conventions' page on it. A place that
//! the schema does not know is merged as a merge patch would: maps by key, lists replaced.

mod diff;
mod order;

use serde_json::Map;

pub use diff::three_way;

use crate::object::Value;
use crate::schema::Schema;
use crate::status::Status;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

type Fields = Map<String, Value>;

/// Applies a strategic merge patch to an object.
///
/// # Errors
/// A bad request when the patch is no object, or a directive or list item in it is malformed.
pub fn apply(target: &mut Value, patch: Value, schema: Option<&Schema>) -> Result<(), Status> {
    let Value::Object(patch) = patch else {
        return Err(super::malformed(&patch, "map[string]interface {}"));
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    merge_map(target.as_object_mut().expect("the target must be an object now"), patch, schema)
}

fn merge_map(target: &mut Fields, mut patch: Fields, schema: Option<&Schema>) -> Result<(), Status> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => {
                *target = patch;
                return Ok(());
            }
            Some("delete") => {
                target.clear();
                return Ok(());
            }
            Some("merge") => {}
            _ => {
                return Err(Status::bad_request(format!(
                    "unknown patch type: {} in map: {}",
                    directive.as_str().unwrap_or_default(),
                    Value::Object(patch)
                )));
            }
        }
    }
    retain_keys(target, &mut patch)?;
    let mut orders = Vec::new();
    let mut deletions = Vec::new();
    for name in patch.keys() {
        if let Some(list) = name.strip_prefix(SET_ORDER) {
            orders.push((name.clone(), list.to_owned()));
        } else if let Some(list) = name.strip_prefix(DELETE_PRIMITIVES) {
            deletions.push((name.clone(), list.to_owned()));
        }
    }
    let orders: Vec<(String, Value)> =
        orders.into_iter().filter_map(|(key, list)| Some((list, patch.remove(&key)?))).collect();
    for (key, list) in deletions {
        let Some(Value::Array(unwanted)) = patch.remove(&key) else {
            return Err(Status::bad_request("The primitive list to delete from must be a list"));
        };
        if let Some(Value::Array(present)) = target.get_mut(&list) {
            present.retain(|item| !unwanted.contains(item));
        }
    }
    // The order of the lists as they were: what only the server has keeps its place among the others.
    let before: Vec<Option<Vec<Value>>> =
        orders.iter().map(|(list, _)| target.get(list).and_then(Value::as_array).cloned()).collect();
    for (name, value) in patch {
        let below = schema.and_then(|schema| schema.field(&name));
        merge_field(target, name, value, below)?;
    }
    for ((list, order), before) in orders.into_iter().zip(before) {
        let Value::Array(order) = order else {
            return Err(Status::bad_request(format!("{SET_ORDER}{list} must be a list")));
        };
        let merge_key = schema.and_then(|schema| schema.field(&list)).and_then(Schema::merge_key);
        if let Some(Value::Array(merged)) = target.get_mut(&list) {
            let items = std::mem::take(merged);
            *merged = order::arrange(items, &order, before.as_deref().unwrap_or_default(), merge_key);
        }
    }
    Ok(())
}

/// `$retainKeys` clears the target of every other key; the patch must not set what it does not retain.
fn retain_keys(target: &mut Fields, patch: &mut Fields) -> Result<(), Status> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let malformed = || Status::bad_request("invalid patch format of retainKeys");
    let retained: Vec<&str> = retained
        .as_array()
        .ok_or_else(malformed)?
        .iter()
        .map(|key| key.as_str().ok_or_else(malformed))
        .collect::<Result<_, _>>()?;
    let sets_another = |(name, value): (&String, &Value)| {
        !name.starts_with('$') && !value.is_null() && !retained.contains(&name.as_str())
    };
    if patch.iter().any(sets_another) {
        return Err(malformed());
    }
    target.retain(|name, _| retained.contains(&name.as_str()));
    Ok(())
}

fn merge_field(
    target: &mut Fields,
    name: String,
    value: Value,
    schema: Option<&Schema>,
) -> Result<(), Status> {
    if value.is_null() {
        target.remove(&name);
        return Ok(());
    }
    let strategies = schema.map(Schema::patch_strategies).unwrap_or_default();
    match (target.get_mut(&name), value) {
        (Some(Value::Object(current)), Value::Object(patch)) => {
            if strategies.replace {
                *current = patch;
                current.remove(DIRECTIVE);
                Ok(())
            } else {
                merge_map(current, patch, schema)
            }
        }
        (Some(Value::Array(current)), Value::Array(patch)) if strategies.merge => {
            let merge_key = schema.and_then(Schema::merge_key);
            merge_list(current, patch, merge_key, schema.and_then(Schema::items))
        }
        (_, mut value) => {
            if strip_directives(&mut value) {
                target.insert(name, value);
            } else {
                target.remove(&name);
            }
            Ok(())
        }
    }
}

fn merge_list(
    current: &mut Vec<Value>,
    patch: Vec<Value>,
    merge_key: Option<&str>,
    schema: Option<&Schema>,
) -> Result<(), Status> {
    let before = current.clone();
    let Some(key) = merge_key else {
        let mut order = patch.clone();
        for value in patch {
            if value.is_object() || value.is_array() {
                return Err(Status::bad_request("cannot merge lists without merge key"));
            }
            if !current.contains(&value) {
                current.push(value);
            }
        }
        order.dedup();
        *current = order::arrange(std::mem::take(current), &order, &before, None);
        return Ok(());
    };
    let mut order = Vec::with_capacity(patch.len());
    let mut replacing = false;
    let mut changes = Vec::with_capacity(patch.len());
    for item in patch {
        let Value::Object(mut item) = item else {
            return Err(Status::bad_request(format!(
                "list item {item} is not an object with merge key {key}"
            )));
        };
        let directive = item.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
        if directive.as_deref() == Some("replace") {
            // The marker may stand alone or in an item that belongs to the new list.
            replacing = true;
            item.remove(DIRECTIVE);
            if item.is_empty() {
                continue;
            }
        }
        let Some(identity) = item.get(key).cloned() else {
            return Err(Status::bad_request(format!(
                "map: {} does not contain declared merge key: {key}",
                Value::Object(item)
            )));
        };
        match directive.as_deref() {
            Some("delete") => current.retain(|other| other.get(key) != Some(&identity)),
            Some("replace" | "merge") | None => {
                order.push(Value::Object(Map::from_iter([(key.to_owned(), identity.clone())])));
                changes.push((identity, item));
            }
            Some(other) => {
                let item = Value::Object(item.clone());
                return Err(Status::bad_request(format!("unknown patch type: {other} in map: {item}")));
            }
        }
    }
    if replacing {
        current.clear();
    }
    for (identity, item) in changes {
        match current.iter_mut().find(|other| other.get(key) == Some(&identity)) {
            Some(Value::Object(found)) => merge_map(found, item, schema)?,
            _ => {
                let mut item = Value::Object(item);
                strip_directives(&mut item);
                current.push(item);
            }
        }
    }
    *current = order::arrange(std::mem::take(current), &order, &before, Some(key));
    Ok(())
}

/// Clears directives and nulls out of a part of a patch that becomes part of the object as it is. False when a
/// directive says that nothing is to be there.
fn strip_directives(value: &mut Value) -> bool {
    match value {
        Value::Object(fields) => {
            if fields.remove(DIRECTIVE).is_some_and(|directive| directive == "delete") {
                return false;
            }
            fields.retain(|name, value| {
                let directive =
                    name == RETAIN_KEYS || name.starts_with(SET_ORDER) || name.starts_with(DELETE_PRIMITIVES);
                !directive && !value.is_null() && strip_directives(value)
            });
        }
        Value::Array(items) => items.retain_mut(|item| {
            let only_marker =
                item.as_object().is_some_and(|item| item.len() == 1 && item.contains_key(DIRECTIVE));
            !only_marker && strip_directives(item)
        }),
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests;
