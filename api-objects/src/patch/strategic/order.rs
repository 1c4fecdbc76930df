//! The order of a merged list: what the patch names stands in the patch's order, what only the server has keeps
//! its place relative to what it stood beside.

use crate::object::Value;

/// Whether two items are the same one: by merge key, or by value in lists of primitives.
fn same(left: &Value, right: &Value, merge_key: Option<&str>) -> bool {
    match merge_key {
        Some(key) => left.get(key).is_some() && left.get(key) == right.get(key),
        None => left == right,
    }
}

fn position(list: &[Value], item: &Value, merge_key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| same(other, item, merge_key))
}

/// Arranges the items of a merged list. `order` is what the patch wants (for lists of objects only the keys
/// matter), `before` the list as it was. The two groups are merged like sorted lists; where `before` does not
/// know how two items stand to each other, the patch's goes first.
pub(super) fn arrange(
    items: Vec<Value>,
    order: &[Value],
    before: &[Value],
    merge_key: Option<&str>,
) -> Vec<Value> {
    let mut named: Vec<(usize, Value)> = Vec::new();
    let mut others: Vec<(usize, Value)> = Vec::new();
    for item in items {
        match position(order, &item, merge_key) {
            Some(at) => named.push((at, item)),
            None => others.push((position(before, &item, merge_key).unwrap_or(usize::MAX), item)),
        }
    }
    named.sort_by_key(|(at, _)| *at);
    others.sort_by_key(|(at, _)| *at);
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, item) in named {
        let place = position(before, &item, merge_key);
        while let Some((_, other)) =
            others.next_if(|(at, _)| place.is_some_and(|place| *at != usize::MAX && *at < place))
        {
            arranged.push(other);
        }
        arranged.push(item);
    }
    arranged.extend(others.map(|(_, item)| item));
    arranged
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arranged(items: &Value, order: &Value, before: &Value) -> Value {
        let list = |value: &Value| value.as_array().unwrap().clone();
        Value::Array(arrange(list(items), &list(order), &list(before), None))
    }

    #[test]
    fn strangers_keep_their_place() {
        // The server added x between a and b; the patch swaps nothing.
        assert_eq!(
            arranged(&json!(["a", "x", "b"]), &json!(["a", "b"]), &json!(["a", "x", "b"])),
            json!(["a", "x", "b"])
        );
        // The patch puts c first and x stays before b.
        assert_eq!(
            arranged(&json!(["a", "x", "b", "c"]), &json!(["c", "a", "b"]), &json!(["a", "x", "b"])),
            json!(["c", "a", "x", "b"])
        );
        assert_eq!(arranged(&json!(["x"]), &json!([]), &json!(["x"])), json!(["x"]));
    }
}
