//! The strategic merge patch that `kubectl apply` sends.

use serde_json::{Map, json};

use super::{DELETE_PRIMITIVES, DIRECTIVE, Fields, RETAIN_KEYS, SET_ORDER};
use crate::object::Value;
use crate::schema::Schema;

/// Makes the patch of a client-side apply: what `modified` sets is set, what `original` (the configuration applied
/// last) set and `modified` no longer does is deleted, and the rest of `current` is left alone. Empty when there
/// is nothing to do.
#[must_use]
pub fn three_way(original: &Value, modified: &Value, current: &Value, schema: Option<&Schema>) -> Value {
    let empty = Map::new();
    let fields = |value: &'_ Value| value.as_object().cloned().unwrap_or_default();
    let (original, modified) = (fields(original), fields(modified));
    Value::Object(map_patch(&original, &modified, current.as_object().unwrap_or(&empty), schema))
}

fn map_patch(original: &Fields, modified: &Fields, current: &Fields, schema: Option<&Schema>) -> Fields {
    let mut patch = Map::new();
    let empty = Map::new();
    for (name, wanted) in modified {
        let below = schema.and_then(|schema| schema.field(name));
        let strategies = below.map(Schema::patch_strategies).unwrap_or_default();
        match (current.get(name), wanted) {
            (Some(found), _) if found == wanted => {}
            (None, Value::Null) => {}
            (Some(Value::Object(found)), Value::Object(wanted)) if !strategies.replace => {
                let before = original.get(name).and_then(Value::as_object).unwrap_or(&empty);
                let mut part = map_patch(before, wanted, found, below);
                if strategies.retain_keys {
                    retain(&mut part, wanted, found);
                }
                if !part.is_empty() {
                    patch.insert(name.clone(), Value::Object(part));
                }
            }
            (Some(Value::Array(found)), Value::Array(wanted)) if strategies.merge => {
                let before = original.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                let items = below.and_then(Schema::items);
                match below.and_then(Schema::merge_key) {
                    Some(key) => {
                        let lists = Lists { before, wanted, found };
                        object_list_patch(&mut patch, name, key, &lists, strategies.retain_keys, items);
                    }
                    None => primitive_list_patch(&mut patch, name, &Lists { before, wanted, found }),
                }
            }
            (_, wanted) => {
                patch.insert(name.clone(), wanted.clone());
            }
        }
    }
    for name in original.keys() {
        if !modified.contains_key(name) && current.contains_key(name) {
            patch.insert(name.clone(), Value::Null);
        }
    }
    patch
}

/// Adds `$retainKeys` where a union changes or has keys that are not wanted.
fn retain(part: &mut Fields, wanted: &Fields, found: &Fields) {
    let stale = found.keys().any(|key| !wanted.contains_key(key));
    if stale || !part.is_empty() {
        part.insert(RETAIN_KEYS.to_owned(), json!(wanted.keys().collect::<Vec<_>>()));
    }
}

struct Lists<'v> {
    before: &'v [Value],
    wanted: &'v [Value],
    found: &'v [Value],
}

fn object_list_patch(
    patch: &mut Fields,
    name: &str,
    key: &str,
    lists: &Lists<'_>,
    retain_keys: bool,
    schema: Option<&Schema>,
) {
    let empty = Map::new();
    let by_key = |list: &'_ [Value], identity: &Value| -> Option<Fields> {
        list.iter().find(|item| item.get(key) == Some(identity)).and_then(Value::as_object).cloned()
    };
    if lists.wanted.iter().any(|item| item.get(key).is_none_or(Value::is_null)) {
        // Left for the server to refuse: it names the missing key.
        patch.insert(name.to_owned(), Value::Array(lists.wanted.to_vec()));
        return;
    }
    let mut changes = Vec::new();
    for item in lists.wanted.iter().filter_map(Value::as_object) {
        let identity = &item[key];
        let Some(found) = by_key(lists.found, identity) else {
            changes.push(Value::Object(item.clone()));
            continue;
        };
        let before = by_key(lists.before, identity);
        let mut part = map_patch(before.as_ref().unwrap_or(&empty), item, &found, schema);
        if retain_keys {
            retain(&mut part, item, &found);
        }
        if !part.is_empty() {
            part.insert(key.to_owned(), identity.clone());
            changes.push(Value::Object(part));
        }
    }
    for item in lists.before {
        let Some(identity) = item.get(key) else { continue };
        if by_key(lists.wanted, identity).is_none() && by_key(lists.found, identity).is_some() {
            changes.push(json!({ DIRECTIVE: "delete", key: identity }));
        }
    }
    let identities =
        |list: &[Value]| -> Vec<Value> { list.iter().filter_map(|item| item.get(key).cloned()).collect() };
    let wanted = identities(lists.wanted);
    let kept: Vec<Value> = identities(lists.found).into_iter().filter(|item| wanted.contains(item)).collect();
    if changes.is_empty() && kept == wanted {
        return;
    }
    let order: Vec<Value> = wanted.into_iter().map(|identity| json!({ key: identity })).collect();
    patch.insert(format!("{SET_ORDER}{name}"), Value::Array(order));
    if !changes.is_empty() {
        patch.insert(name.to_owned(), Value::Array(changes));
    }
}

fn primitive_list_patch(patch: &mut Fields, name: &str, lists: &Lists<'_>) {
    let added: Vec<&Value> = lists.wanted.iter().filter(|item| !lists.found.contains(item)).collect();
    let gone: Vec<&Value> = lists
        .before
        .iter()
        .filter(|item| !lists.wanted.contains(item) && lists.found.contains(item))
        .collect();
    let kept: Vec<&Value> = lists.found.iter().filter(|item| lists.wanted.contains(item)).collect();
    let in_order = kept.iter().copied().eq(lists.wanted.iter());
    if added.is_empty() && gone.is_empty() && in_order {
        return;
    }
    if !added.is_empty() {
        patch.insert(name.to_owned(), json!(added));
    }
    if !gone.is_empty() {
        patch.insert(format!("{DELETE_PRIMITIVES}{name}"), json!(gone));
    }
    patch.insert(format!("{SET_ORDER}{name}"), json!(lists.wanted));
}
