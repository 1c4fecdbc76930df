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
            return Err(unrecognized(expected.kind, &why, json));
        }
        Err(error) => {
            return Err(Status::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: {error}",
                expected.kind, expected.version, expected.kind
            )));
        }
    };
    check_type(&mut value, expected)?;
    Ok((value, warnings))
}

/// A body says what it is, and that is what the path expects; a missing word is filled in.
pub(super) fn check_type(value: &mut Value, expected: &Expected<'_>) -> Result<(), Status> {
    let Some(object) = value.as_object_mut() else {
        return Err(unrecognized(expected.kind, "json: cannot unmarshal into an object", b""));
    };
    let text = |object: &serde_json::Map<String, Value>, field: &str| {
        object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let (kind, api_version) = (text(object, "kind"), text(object, "apiVersion"));
    if !api_version.is_empty() && api_version != expected.api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version
        )));
    }
    if !kind.is_empty() && kind != expected.kind {
        return Err(Status::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}: the kind in the data does not match the expected kind",
            expected.version, expected.kind
        )));
    }
    object.insert("kind".to_owned(), expected.kind.into());
    object.insert("apiVersion".to_owned(), expected.api_version.into());
    Ok(())
}

fn unrecognized(kind: &str, why: &str, body: &[u8]) -> Status {
    let shown: String = body.iter().take(30).map(|byte| format!("{byte:02x}")).collect();
    let dots = if body.len() > 30 { " ..." } else { "" };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: {why} ({shown}{dots})"
    ))
}
