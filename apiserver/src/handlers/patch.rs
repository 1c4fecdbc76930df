//! PATCH of one object: JSON patch, merge patch or strategic merge patch, applied to the current object and
//! again whenever somebody else was faster.
//!
//! Server-side apply is refused with 415 until it is there.

use api_objects::{
    Status,
    params::{WriteParams, WriteVerb},
    patch::{self, PatchKind},
    schema,
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
    // Of the last attempt: the one whose result is answered.
    let warnings = Mutex::new(Vec::new());
    let resource = &*exchange.resource;
    let make = |current: &api_objects::Value| {
        let mut patched = patch::apply(kind, current, &patch, Some(schema))?;
        *warnings.lock() = schema::check(schema, &mut patched, mode).map_err(|error| {
            let path = api_objects::field::Path::new("patch");
            let shown = String::from_utf8_lossy(&patch).into_owned();
            let error = api_objects::field::FieldError::invalid(&path, shown, &error.to_string());
            Status::invalid(&resource.group, &resource.kind, "", &[error])
        })?;
        let expected = body::Expected {
            kind: &resource.kind,
            api_version: &resource.api_version(),
            version: &resource.version,
            definition: &resource.definition,
        };
        body::check_type(&mut patched, &expected)?;
        Ok(patched)
    };
    let call = exchange.call(exchange.manager(&params.field_manager), params.dry_run);
    let stored = registry::update(&call, &make).await?;
    let warnings = std::mem::take(&mut *warnings.lock());
    exchange.answer(StatusCode::OK, &stored, &warnings)
}
