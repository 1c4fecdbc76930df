//! PUT of one object: the whole of it replaced, at the resource version that it names.

use api_objects::{
    Status,
    params::{WriteParams, WriteVerb},
};
use axum::body::Body;
use http::{Response, StatusCode};

use super::{Exchange, body, refuse};
use crate::registry::{self, metadata, strategy};

/// Replaces the object with the body and answers it.
pub(super) async fn serve(mut exchange: Exchange) -> Result<Response<Body>, Status> {
    let params = WriteParams::parse(exchange.query(), WriteVerb::Update)?;
    let json = exchange.read_json().await?;
    let (object, warnings) = body::decode(&exchange.resource, &json, params.field_validation)?;
    let call = exchange.call(exchange.manager(&params.field_manager), params.dry_run);
    metadata::check_name(call.name, &object)?;
    match registry::update(&call, &|_| Ok(object.clone())).await {
        Ok(stored) => exchange.answer(StatusCode::OK, &stored, &warnings),
        // A few kinds can be created under a name that the client chooses by PUT.
        Err(status)
            if status.is_not_found()
                && call.subresource.is_empty()
                && strategy::of(call.resource).create_on_update
                && metadata::text(&object, "resourceVersion").is_empty()
                && metadata::text(&object, "uid").is_empty() =>
        {
            let stored = registry::create(&call, object).await?;
            exchange.answer(StatusCode::CREATED, &stored, &warnings)
        }
        Err(status) => refuse(status, &warnings, exchange.accepted),
    }
}
