//! From an old status and a new one to the patch that is sent to the status subresource.
//!
//! A strategic merge patch with the pod's uid in it, as upstream's `PatchPodStatus`: conditions and pod
//! addresses are merged by their keys, so what others wrote meanwhile stays; fields that went away are
//! deleted by name.

use serde_json::{Map, Value, json};

use super::conditions::PASSING;

/// The lists that strategic merge merges by key rather than replacing them.
const MERGED: [(&str, &str); 2] = [("conditions", "type"), ("podIPs", "ip")];

/// The patch, or `None` if nothing changed.
#[must_use]
pub fn patch(uid: &str, old: &Value, new: &Value) -> Option<Value> {
    let empty = Map::new();
    let old = old.as_object().unwrap_or(&empty);
    let new = new.as_object().unwrap_or(&empty);
    let mut changed = Map::new();
    for (name, value) in new {
        let before = old.get(name).unwrap_or(&Value::Null);
        if before == value {
            continue;
        }
        let merged = MERGED.iter().find(|(list, _)| list == name);
        let value = match merged {
            Some((_, key)) => Value::Array(merge_items(before, value, key)),
            None => value.clone(),
        };
        changed.insert(name.clone(), value);
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        changed.insert(name.clone(), Value::Null);
    }
    if changed.is_empty() {
        return None;
    }
    Some(json!({"metadata": {"uid": uid}, "status": changed}))
}

/// Changed and new items whole, with `null` for fields that went away; removed ones by `$patch: delete`.
fn merge_items(old: &Value, new: &Value, key: &str) -> Vec<Value> {
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let (old, new) = (items(old), items(new));
    let mut out = Vec::new();
    for item in &new {
        let before = old.iter().find(|before| before.get(key) == item.get(key));
        if before == Some(item) {
            continue;
        }
        let mut item = item.clone();
        if let (Some(Value::Object(before)), Value::Object(item)) = (before, &mut item) {
            for name in before.keys() {
                item.entry(name.clone()).or_insert(Value::Null);
            }
        }
        out.push(item);
    }
    // Conditions of others that this status does not know of yet are theirs to take away.
    let removable =
        |item: &Value| key != "type" || item[key].as_str().is_some_and(|kind| PASSING.contains(&kind));
    for gone in old
        .iter()
        .filter(|before| removable(before))
        .filter(|before| !new.iter().any(|item| item.get(key) == before.get(key)))
    {
        out.push(json!({"$patch": "delete", key: gone.get(key)}));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changed() {
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(patch("u", &status, &status), None);
    }

    #[test]
    fn only_what_changed_is_sent() {
        let old = json!({"phase": "Pending", "message": "x", "hostIP": "1.1.1.1",
            "conditions": [{"type": "Ready", "status": "False", "reason": "r"}, {"type": "PodScheduled", "status": "True"}],
            "podIPs": [{"ip": "10.0.0.1"}]});
        let new = json!({"phase": "Running", "hostIP": "1.1.1.1",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
            "podIPs": [{"ip": "10.0.0.2"}]});
        assert_eq!(
            patch("u", &old, &new).unwrap(),
            json!({"metadata": {"uid": "u"}, "status": {
                "phase": "Running", "message": null,
                "conditions": [{"type": "Ready", "status": "True", "reason": null}],
                "podIPs": [{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}],
            }})
        );
    }
}
