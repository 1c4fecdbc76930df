//! POST to a collection: a new object.

use api_objects::{
    Status,
    params::{WriteParams, WriteVerb},
};
use axum::body::Body;
use http::{Response, StatusCode};

use super::{Exchange, body, refuse, respond, shape, warn};
use crate::registry;

/// Creates the object in the body and answers it.
pub(super) async fn serve(mut exchange: Exchange) -> Result<Response<Body>, Status> {
    let params = WriteParams::parse(exchange.query(), WriteVerb::Create)?;
    let json = exchange.read_json().await?;
    let (object, warnings) = body::decode(&exchange.resource, &json, params.field_validation)?;
    let call = exchange.call(exchange.manager(&params.field_manager), params.dry_run);
    match registry::create(&call, object).await {
        Ok(stored) => exchange.answer(StatusCode::CREATED, &stored, &warnings),
        Err(status) => refuse(status, &warnings, exchange.accepted),
    }
}

impl Exchange {
    /// The body as JSON; it can be taken once.
    pub(super) async fn read_json(&mut self) -> Result<bytes::Bytes, Status> {
        let taken = std::mem::replace(&mut self.body, Body::empty());
        body::as_json(&self.parts.headers, body::read(taken).await?)
    }

    /// The answer to a write.
    pub(super) fn answer(
        &self,
        code: StatusCode,
        stored: &registry::Stored,
        warnings: &[String],
    ) -> Result<Response<Body>, Status> {
        let view = shape::View {
            resource: &self.resource,
            shape: self.accepted.shape,
            include: shape::Include::parse(self.query())?,
            now: jiff::Timestamp::now(),
        };
        let bytes = view.object(&stored.canonical, stored.revision);
        let mut response = respond::json(code, bytes, self.accepted);
        warn(&mut response, warnings);
        Ok(response)
    }
}
