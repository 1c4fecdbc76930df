//! `namespaces/finalize`: the only place where a namespace's own finalizers change.
//!
//! A namespace that is being deleted goes with the last of them. Upstream: `pkg/registry/core/namespace`.

use api_objects::{
    Status,
    params::{WriteParams, WriteVerb},
};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::json;

use super::super::{Exchange, body};
use crate::registry::{self, metadata};

/// Takes the finalizers from the body.
pub(super) async fn serve(mut exchange: Exchange) -> Result<Response<Body>, Status> {
    let params = WriteParams::parse(exchange.query(), WriteVerb::Update)?;
    let json = exchange.read_json().await?;
    let (given, warnings) = body::decode(&exchange.resource, &json, params.field_validation)?;
    let call = exchange.call(exchange.manager(&params.field_manager), params.dry_run);
    let make = |namespace: &api_objects::Value| {
        let mut changed = namespace.clone();
        let finalizers = given["spec"]["finalizers"].as_array().filter(|list| !list.is_empty());
        changed["spec"] = finalizers.map_or_else(|| json!({}), |list| json!({ "finalizers": list }));
        for field in ["uid", "resourceVersion"] {
            match metadata::text(&given, field) {
                "" => {}
                text => changed["metadata"][field] = json!(text),
            }
        }
        Ok(changed)
    };
    let stored = registry::update(&call, &make).await?;
    exchange.answer(StatusCode::OK, &stored, &warnings)
}
