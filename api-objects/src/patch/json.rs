//! JSON patch (RFC 6902), with the bounds and the leniency of upstream's.

use json_patch::{Patch, PatchOperation};

use super::{decode, malformed, unprocessable};
use crate::object::Value;
use crate::status::Status;

/// As many operations as upstream takes.
const MAX_OPERATIONS: usize = 10_000;
/// How much `copy` may add in all: repeated copies of a growing value would grow without end.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Applies a JSON patch.
///
/// # Errors
/// 400 when it is none, 413 when it is too long, 422 when an operation fails.
pub fn apply(current: &Value, patch: &[u8]) -> Result<Value, Status> {
    let document = decode(patch)?;
    if !document.is_array() {
        return Err(malformed(&document, "[]handlers.jsonPatchOp"));
    }
    let count = document.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(Status::too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    // An operation that is none fails like one that cannot be applied.
    let operations: Patch = serde_json::from_value(document).map_err(|_| unprocessable())?;
    let mut patched = current.clone();
    let mut copied = 0;
    for operation in &operations.0 {
        match operation {
            // Upstream takes a missing value for null, so that absence can be tested for.
            PatchOperation::Test(test)
                if test.value.is_null() && patched.pointer(test.path.as_str()).is_none() =>
            {
                continue;
            }
            PatchOperation::Copy(copy) => {
                copied += patched.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
                if copied > MAX_COPIED_BYTES {
                    return Err(unprocessable());
                }
            }
            _ => {}
        }
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation))
            .map_err(|_| unprocessable())?;
    }
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_apply_in_order() {
        let current = json!({"a": 1, "list": [1, 2]});
        let patch = br#"[{"op":"test","path":"/a","value":1},{"op":"add","path":"/list/-","value":3},
            {"op":"remove","path":"/a"},{"op":"copy","from":"/list","path":"/b"},
            {"op":"test","path":"/missing","value":null},{"op":"replace","path":"/list/0","value":{"c":"d"}}]"#;
        assert_eq!(apply(&current, patch).unwrap(), json!({"list": [{"c": "d"}, 2, 3], "b": [1, 2, 3]}));
    }

    #[test]
    fn failures_have_upstreams_codes() {
        let current = json!({"a": 1});
        let failed = apply(&current, br#"[{"op":"test","path":"/a","value":2}]"#).unwrap_err();
        assert_eq!((failed.code, failed.reason.as_str()), (422, "Invalid"));
        assert_eq!(failed.message, "the server rejected our request due to an error in our request");
        assert_eq!(apply(&current, br#"[{"op":"remove","path":"/x"}]"#).unwrap_err().code, 422);
        assert_eq!(apply(&current, b"{").unwrap_err().code, 400);
        assert_eq!(apply(&current, br#"{"a":2}"#).unwrap_err().code, 400);
        let many = format!("[{}]", vec![r#"{"op":"add","path":"/a","value":1}"#; 10_001].join(","));
        assert_eq!(apply(&current, many.as_bytes()).unwrap_err().code, 413);
    }

    #[test]
    fn copies_are_bounded() {
        let current = json!({"a": {"text": "x".repeat(1000)}});
        let doubling: Vec<String> =
            (0..40).map(|n| format!(r#"{{"op":"copy","from":"/a","path":"/a/{n}"}}"#)).collect();
        assert_eq!(apply(&current, format!("[{}]", doubling.join(",")).as_bytes()).unwrap_err().code, 422);
    }
}
