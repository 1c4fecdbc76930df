//! GET of one object: a lookup in the watch cache, and its bytes with the resource version spliced in.

use api_objects::{Status, params::Query};
use apiserver_storage::At;
use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;

use super::{
    Exchange, respond,
    shape::{Include, View},
};
use crate::{negotiate::Shape, registry};

/// Answers the object.
pub(super) async fn serve(exchange: Exchange) -> Result<Response<Body>, Status> {
    let query = exchange.query();
    let at = match query {
        "" => At::Latest,
        query => freshness(Query::parse(query).first("resourceVersion").unwrap_or_default())?,
    };
    let item = registry::read(&exchange.call("", false), at).await?;
    let include =
        if exchange.accepted.shape == Shape::Table { Include::parse(query)? } else { Include::Metadata };
    let view =
        View { resource: &exchange.resource, shape: exchange.accepted.shape, include, now: Timestamp::now() };
    let bytes = view.object(&item.entry.value, item.entry.revision);
    Ok(respond::json(StatusCode::OK, bytes, exchange.accepted))
}

/// What a `resourceVersion` parameter asks for: nothing for the latest state, `0` for any, else not older.
pub(super) fn freshness(resource_version: &str) -> Result<At, Status> {
    Ok(match resource_version {
        "" => At::Latest,
        "0" => At::Any,
        text => At::NotOlderThan(parse_revision(text)?),
    })
}

/// A resource version as a number.
pub(super) fn parse_revision(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        Status::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}
