//! JSON merge patch (RFC 7396): applied, and made between two documents or three.

use serde_json::Map;

use super::{decode, malformed};
use crate::object::Value;
use crate::status::Status;

/// Applies a merge patch that comes as bytes.
///
/// # Errors
/// 400 when it is not a JSON object.
pub fn apply_bytes(current: &Value, patch: &[u8]) -> Result<Value, Status> {
    let patch = decode(patch)?;
    if !patch.is_object() {
        return Err(malformed(&patch, "map[string]interface {}"));
    }
    let mut patched = current.clone();
    apply(&mut patched, patch);
    Ok(patched)
}

/// Applies a merge patch.
pub fn apply(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let fields = target.as_object_mut().expect("the target must be an object now");
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(&name);
        } else {
            apply(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// The patch that makes `to` out of `from`; an empty object when they are equal.
#[must_use]
pub fn diff(from: &Value, to: &Value) -> Value {
    three_way(from, to, from)
}

/// The patch that `kubectl apply` sends for kinds without a schema: what `modified` sets is set, and what
/// `original` set and `modified` no longer does is deleted from `current`; the rest of `current` is left alone.
#[must_use]
pub fn three_way(original: &Value, modified: &Value, current: &Value) -> Value {
    let mut patch = Map::new();
    let empty = Map::new();
    let (original, modified, current) = (
        original.as_object().unwrap_or(&empty),
        modified.as_object().unwrap_or(&empty),
        current.as_object().unwrap_or(&empty),
    );
    for (name, wanted) in modified {
        match current.get(name) {
            Some(found) if found == wanted => {}
            Some(found) if found.is_object() && wanted.is_object() => {
                let part = three_way(original.get(name).unwrap_or(&Value::Null), wanted, found);
                if part.as_object().is_some_and(|part| !part.is_empty()) {
                    patch.insert(name.clone(), part);
                }
            }
            None if wanted.is_null() => {}
            _ => {
                patch.insert(name.clone(), wanted.clone());
            }
        }
    }
    for name in original.keys() {
        if !modified.contains_key(name) && current.contains_key(name) {
            patch.insert(name.clone(), Value::Null);
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Documents without nulls, which a merge patch cannot set.
    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..3).prop_map(Value::from),
            "[ab]?".prop_map(Value::from),
            Just(json!([1, 2])),
        ];
        let value = leaf.prop_recursive(3, 16, 4, |inner| {
            proptest::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect()))
        });
        proptest::collection::btree_map("[a-d]", value, 0..4)
            .prop_map(|fields| Value::Object(fields.into_iter().collect()))
    }

    #[test]
    fn examples_of_rfc_7396() {
        // Appendix A of the RFC.
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            assert_eq!(apply_bytes(&target, patch.to_string().as_bytes()).unwrap(), result);
        }
        assert_eq!(apply_bytes(&json!({}), b"[1]").unwrap_err().code, 400);
    }

    #[test]
    fn three_ways_leave_strangers_alone() {
        let original = json!({"spec": {"a": 1, "b": 2}});
        let modified = json!({"spec": {"a": 3}});
        let current = json!({"spec": {"a": 1, "b": 2, "c": 4}});
        assert_eq!(three_way(&original, &modified, &current), json!({"spec": {"a": 3, "b": null}}));
    }

    proptest! {
        #[test]
        fn a_diff_leads_from_one_to_the_other(from in document(), to in document()) {
            let mut patched = from.clone();
            apply(&mut patched, diff(&from, &to));
            prop_assert_eq!(patched, to);
        }

        #[test]
        fn applying_twice_is_applying_once(current in document(), patch in document()) {
            let mut once = current;
            apply(&mut once, patch.clone());
            let mut twice = once.clone();
            apply(&mut twice, patch);
            prop_assert_eq!(once, twice);
        }
    }
}
