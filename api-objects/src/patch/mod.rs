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
use crate::schema::Schema;
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
    serde_json::from_slice(patch)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
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
            strategic::apply(&mut patched, decode(patch)?, schema)?;
            Ok(patched)
        }
        PatchKind::Apply => Err(Status::unsupported_media_type(
            &PatchKind::ALL[..3].iter().map(|kind| kind.media_type()).collect::<Vec<_>>(),
        )),
    }
}
