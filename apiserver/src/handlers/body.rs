//! Bodies: how the bytes that a client sent become an object of the expected kind.
//!
//! Limits, forms and texts are those of `k8s.io/apiserver/pkg/endpoints/handlers` (`create.go`, `rest.go`).

use api_objects::{
    Resource, Status, Value,
    schema::{self, FieldValidation},
    yaml,
};
use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Limited};

use crate::{
    negotiate::{BodyForm, body_form},
    protobuf,
};

/// The largest body that is read (`MaxRequestBodyBytes`).
const LIMIT: usize = 3 * 1024 * 1024;

/// Reads a whole body.
pub(super) async fn read(body: Body) -> Result<Bytes, Status> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Status::too_large(format!("Request entity is too large: limit is {LIMIT}")))
        }
        Err(error) => Err(Status::bad_request(format!("unable to read the request body: {error}"))),
    }
}

/// A body as JSON, whatever of the accepted forms it has.
pub(super) fn as_json(headers: &HeaderMap, bytes: Bytes) -> Result<Bytes, Status> {
    match body_form(headers)? {
        BodyForm::Json => Ok(bytes),
        BodyForm::Yaml => {
            let text = std::str::from_utf8(&bytes)
                .map_err(|error| Status::bad_request(format!("the body is not UTF-8: {error}")))?;
            let documents = yaml::documents(text)
                .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))?;
            Ok(documents.into_iter().next().unwrap_or_default().to_string().into())
        }
        BodyForm::Protobuf if bytes.is_empty() => Ok(bytes),
        BodyForm::Protobuf => match protobuf::decode(&bytes) {
            Ok(object) => Ok(object.to_string().into()),
            Err(error) => Err(Status::bad_request(error.to_string())),
        },
    }
}

/// The kind that a body is expected to hold.
pub(super) struct Expected<'a> {
    pub(super) kind: &'a str,
    pub(super) api_version: &'a str,
    pub(super) version: &'a str,
    pub(super) definition: &'a str,
}

/// Decodes an object of a resource; answers it with warnings about its fields.
pub(super) fn decode(
    resource: &Resource,
    json: &[u8],
    mode: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    decode_as(
        &Expected {
            kind: &resource.kind,
            api_version: &resource.api_version(),
            version: &resource.version,
            definition: &resource.definition,
        },
        json,
        mode,
    )
}

/// Decodes an object of any kind that the schema knows.
pub(super) fn decode_as(
    expected: &Expected<'_>,
    json: &[u8],
    mode: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let schema = schema::definition(expected.definition)
        .ok_or_else(|| Status::internal(&format!("no schema for {}", expected.kind)))?;
    let (mut value, warnings) = match schema::decode(schema, json, mode) {
        Ok(decoded) => decoded,
        Err(schema::DecodeError::Parse(schema::ParseError::Syntax(why))) => {
            let why = schema::syntax::error(json).unwrap_or(why);
            return Err(unrecognized(expected.kind, &why, json));
        }
        Err(error) => {
            // What the body says it is comes before what is wrong with it.
            if let Ok((mut value, _)) = schema::parse_json(json, FieldValidation::Ignore) {
                check_type(&mut value, expected, json)?;
            }
            return Err(cannot_be_handled(expected.kind, expected.version, expected, &error.to_string()));
        }
    };
    check_type(&mut value, expected, json)?;
    Ok((value, warnings))
}

/// A body says what it is, and that is what the path expects; a missing word is filled in.
///
/// Upstream finds the kind in its scheme, decodes the body as that, and converts it to what is expected.
pub(super) fn check_type(value: &mut Value, expected: &Expected<'_>, body: &[u8]) -> Result<(), Status> {
    let found = found_type(value);
    let Some(object) = value.as_object_mut() else {
        let into = r#"Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
        return Err(unrecognized(
            expected.kind,
            &format!("json: cannot unmarshal {found} into {into}"),
            body,
        ));
    };
    for field in ["apiVersion", "kind"] {
        let held = object.get(field).unwrap_or(&Value::Null);
        if !held.is_null() && !held.is_string() {
            let found = found_type(held);
            let why = format!("json: cannot unmarshal {found} into Go struct field .{field} of type string");
            return Err(unrecognized(expected.kind, &why, body));
        }
    }
    let text = |field: &str, default: &str| {
        let given = object.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        given.unwrap_or(default).to_owned()
    };
    let (kind, api_version) = (text("kind", expected.kind), text("apiVersion", expected.api_version));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    if (kind.as_str(), api_version.as_str()) != (expected.kind, expected.api_version) {
        if !is_registered(group, version, &kind) {
            let why = format!(
                "no kind {kind:?} is registered for version {api_version:?} in scheme \"pkg/runtime/scheme.go:111\""
            );
            return Err(cannot_be_handled(&kind, version, expected, &why));
        }
        if kind != expected.kind {
            let why = format!(
                "converting ({version}.{kind}) to ({}.{}): unknown conversion",
                internal_package(expected.api_version),
                expected.kind
            );
            return Err(cannot_be_handled(&kind, version, expected, &why));
        }
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version
        )));
    }
    object.insert("kind".to_owned(), kind.into());
    object.insert("apiVersion".to_owned(), api_version.into());
    Ok(())
}

/// What stands there, as Go's decoder names it.
fn found_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether a kind is known at all.
fn is_registered(group: &str, version: &str, kind: &str) -> bool {
    schema::definitions().iter().any(|definition| {
        definition.group_version_kind.as_ref().is_some_and(|[its_group, its_version, its_kind]| {
            (&**its_group, &**its_version, &**its_kind) == (group, version, kind)
        })
    })
}

/// The Go package of a group's internal types, as conversions name it.
fn internal_package(api_version: &str) -> &str {
    match api_version.split_once('/') {
        None | Some(("events.k8s.io", _)) => "core",
        Some((group, _)) => group.split('.').next().unwrap_or(group),
    }
}

fn cannot_be_handled(kind: &str, version: &str, expected: &Expected<'_>, why: &str) -> Status {
    Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {}: {why}",
        expected.kind
    ))
}

fn unrecognized(kind: &str, why: &str, body: &[u8]) -> Status {
    let start = &body[..body.len().min(30)];
    let dots = if body.len() > 30 { " ..." } else { "" };
    let shown = match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(start).into_owned(),
        Some(_) => start.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: {why} ({shown}{dots})"
    ))
}
