//! PATCH of one object: JSON patch, merge patch or strategic merge patch, applied to the current object and
//! again whenever somebody else was faster.
//!
//! Server-side apply is refused with 415 until it is there.

use api_objects::{
    Status, Value,
    field::{FieldError, Path},
    params::{WriteParams, WriteVerb},
    patch::{self, PatchKind},
    schema::{self, FieldValidation},
};
use axum::body::Body;
use http::{Response, StatusCode};
use parking_lot::Mutex;

use super::{Exchange, body};
use crate::{negotiate, registry};

/// The forms of patch that are read here.
const ACCEPTED: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

fn kind_of(media_type: &str) -> Result<PatchKind, Status> {
    match media_type {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
        "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
            let mut status = Status::unsupported_media_type(&ACCEPTED);
            status.message = format!(
                "server-side apply is not supported by this server yet; use client-side apply, or one of the media types: {}",
                ACCEPTED.join(", ")
            );
            Err(status)
        }
        _ => Err(Status::unsupported_media_type(&ACCEPTED)),
    }
}

/// Patches the object, or its subresource where that shows the same object, and answers it.
pub(super) async fn serve(mut exchange: Exchange) -> Result<Response<Body>, Status> {
    let kind = kind_of(negotiate::media_type(&exchange.parts.headers))?;
    let params = WriteParams::parse(exchange.query(), WriteVerb::Patch)?;
    let taken = std::mem::replace(&mut exchange.body, Body::empty());
    let patch = body::read(taken).await?;
    let schema = schema::for_resource(&exchange.resource);
    let mode = params.field_validation;
    let findings = findings_of_patch(kind, &patch, mode);
    // Of the last attempt: the one whose result is answered.
    let warnings = Mutex::new(Vec::new());
    let resource = &*exchange.resource;
    let make = |current: &Value| {
        let mut patched = patch::apply(kind, current, &patch, Some(schema))?;
        let before = patched.clone();
        let refuse = |why: &str| Err(refused(kind, &before, &patch, why));
        let found = match schema::check(schema, &mut patched, mode) {
            Ok(unknown) => [findings.clone(), unknown].concat(),
            Err(schema::CheckError::Strict(unknown)) => [findings.clone(), unknown].concat(),
            Err(schema::CheckError::Type(why)) => return refuse(&why),
        };
        if mode == FieldValidation::Strict && !found.is_empty() {
            return refuse(&format!("strict decoding error: {}", found.join(", ")));
        }
        *warnings.lock() = found;
        let expected = body::Expected {
            kind: &resource.kind,
            api_version: &resource.api_version(),
            version: &resource.version,
            definition: &resource.definition,
        };
        body::check_type(&mut patched, &expected, b"")
            .map_err(|status| refused(kind, &before, &patch, &status.message))?;
        Ok(patched)
    };
    let call = exchange.call(exchange.manager(&params.field_manager), params.dry_run);
    let stored = registry::update(&call, &make).await?;
    let warnings = std::mem::take(&mut *warnings.lock());
    exchange.answer(StatusCode::OK, &stored, &warnings)
}

/// 422 for a patch whose outcome is no object of the kind. Upstream names no kind, and shows the whole outcome
/// of a JSON or merge patch, but of a strategic merge patch the patch as Go prints a map.
fn refused(kind: PatchKind, patched: &Value, patch: &[u8], why: &str) -> Status {
    let shown = match kind {
        PatchKind::Strategic => {
            let patch: Value = serde_json::from_slice(patch).unwrap_or_default();
            let mut text = String::new();
            write_go(&patch, &mut text);
            text
        }
        _ => patched.to_string(),
    };
    let error = FieldError::invalid(&Path::new("patch"), shown, why);
    Status::invalid("", "", "", &[error])
}

/// A value as Go's `%+v` prints it: `map[a:1 b:[x y]]`.
fn write_go(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                write_go(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push_str("map[");
            for (index, (name, value)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(name);
                out.push(':');
                write_go(value, out);
            }
            out.push(']');
        }
        Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
    }
}

/// Fields that stand twice in the patch itself, and fields that an operation of a JSON patch does not have.
fn findings_of_patch(kind: PatchKind, patch: &[u8], mode: FieldValidation) -> Vec<String> {
    if mode == FieldValidation::Ignore {
        return Vec::new();
    }
    let Ok((value, mut findings)) = schema::parse_json(patch, FieldValidation::Warn) else {
        // What is no JSON is refused where the patch is applied.
        return Vec::new();
    };
    if kind != PatchKind::Json {
        return findings;
    }
    for (index, operation) in value.as_array().into_iter().flatten().enumerate() {
        let names = operation.as_object().into_iter().flat_map(|operation| operation.keys());
        let unknown = names.filter(|name| !matches!(name.as_str(), "op" | "path" | "from" | "value"));
        findings.extend(unknown.map(|name| format!("unknown field \"[{index}].{name}\"")));
    }
    findings.into_iter().map(|finding| format!("json patch {finding}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn refusals_show_what_upstream_shows() {
        let patched = json!({"a": 1});
        let patch = br#"{"spec":{"x":[1,"b",null],"y":true}}"#;
        let message = |kind| refused(kind, &patched, patch, "why").message;
        assert_eq!(message(PatchKind::Merge), r#" "" is invalid: patch: Invalid value: "{\"a\":1}": why"#);
        assert_eq!(
            message(PatchKind::Strategic),
            r#" "" is invalid: patch: Invalid value: "map[spec:map[x:[1 b <nil>] y:true]]": why"#
        );
    }

    #[test]
    fn a_patch_is_read_strictly_itself() {
        let find = |kind, patch: &[u8]| findings_of_patch(kind, patch, FieldValidation::Warn);
        assert_eq!(find(PatchKind::Merge, br#"{"a":{"b":1,"b":2}}"#), [r#"duplicate field "a.b""#]);
        let operations = br#"[{"op":"add","path":"/a","value":{},"valeu":1}]"#;
        assert_eq!(find(PatchKind::Json, operations), [r#"json patch unknown field "[0].valeu""#]);
        assert!(findings_of_patch(PatchKind::Json, operations, FieldValidation::Ignore).is_empty());
    }
}
