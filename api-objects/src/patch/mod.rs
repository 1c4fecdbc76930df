//! Patches: pure functions from an object and a patch to the patched object.
//!
//! The server applies them, kubectl makes them. Codes and texts of errors follow the patch handler of
//! `k8s.io/apiserver/pkg/endpoints/handlers`.

mod field_set;
pub mod json;
pub mod managed_fields;
pub mod merge;
pub mod strategic;

use crate::object::Value;
use crate::schema::{Schema, syntax};
use crate::status::{Status, StatusDetails};

/// What a patch is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902: a list of operations.
    Json,
    /// RFC 7396: a document whose nulls delete.
    Merge,
    /// A merge patch that knows the lists of the kind.
    Strategic,
    /// A configuration for server-side apply.
    Apply,
}

impl PatchKind {
    /// The kinds in the order in which upstream lists their media types.
    pub const ALL: [Self; 4] = [Self::Json, Self::Merge, Self::Strategic, Self::Apply];

    /// The media type of its documents.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }

    /// The kind of a Content-Type header; parameters are ignored.
    #[must_use]
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        Self::ALL.into_iter().find(|kind| kind.media_type().eq_ignore_ascii_case(essence))
    }
}

/// 422 as upstream's generic answer to a patch that cannot be applied: it does not say why.
fn unprocessable() -> Status {
    let text = "the server rejected our request due to an error in our request";
    let mut status = Status::failure(422, "Invalid", text);
    status.details = Some(StatusDetails::default());
    status
}

fn decode(patch: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(patch).map_err(|error| {
        let why = syntax::error(patch).unwrap_or_else(|| error.to_string());
        Status::bad_request(format!("error decoding patch: {why}"))
    })
}

/// 400 for a patch that is JSON, but not of the wanted form, in the words of Go's decoder.
fn malformed(patch: &Value, wanted: &str) -> Status {
    let found = match patch {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Status::bad_request(format!(
        "error decoding patch: json: cannot unmarshal {found} into Go value of type {wanted}"
    ))
}

/// Applies a patch to the current object.
///
/// # Errors
/// A bad request for a patch that cannot be read, 422 for one that cannot be applied, 415 for server-side apply,
/// which is not here yet.
pub fn apply(
    kind: PatchKind,
    current: &Value,
    patch: &[u8],
    schema: Option<&Schema>,
) -> Result<Value, Status> {
    match kind {
        PatchKind::Json => json::apply(current, patch),
        PatchKind::Merge => merge::apply_bytes(current, patch),
        PatchKind::Strategic => {
            let mut patched = current.clone();
            // Of this form alone, upstream says what is wrong without saying of what.
            let bare = |mut status: Status| {
                status.message = status.message.replacen("error decoding patch: ", "", 1);
                status
            };
            strategic::apply(&mut patched, decode(patch).map_err(bare)?, schema).map_err(bare)?;
            Ok(patched)
        }
        PatchKind::Apply => Err(Status::unsupported_media_type(
            &PatchKind::ALL[..3].iter().map(|kind| kind.media_type()).collect::<Vec<_>>(),
        )),
    }
}
