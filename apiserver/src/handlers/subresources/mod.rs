//! What hangs below an object, and the resources that are questions rather than objects.
//!
//! A subresource that shows the object itself (`status`, `approval`) goes through the same handlers as the
//! object; the others have a file each.

mod binding;
mod eviction;
mod finalize;
mod reviews;
mod scale;
mod streams;
mod token;

use api_objects::{Resource, Status};
use axum::body::Body;
use http::Response;

use super::{Exchange, get, patch, update};

/// Whether a subresource carries bytes between a client and a kubelet instead of objects.
pub(super) fn is_stream(subresource: &str) -> bool {
    matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

/// Whether a resource has no objects: creating one asks a question or gives an order.
pub(super) fn is_virtual(resource: &Resource) -> bool {
    matches!(resource.verbs.as_slice(), [only] if only == "create")
}

/// Answers a request about a subresource or a virtual resource.
pub(super) async fn serve(exchange: Exchange) -> Result<Response<Body>, Status> {
    let info = &exchange.context.info;
    if info.subresource.is_empty() {
        return match &*exchange.resource.plural {
            "bindings" => binding::serve(exchange).await,
            _ => reviews::serve(exchange).await,
        };
    }
    let group = &*exchange.resource.group;
    let plural = &*exchange.resource.plural;
    match (group, plural, info.subresource.as_str(), info.verb.as_str()) {
        (_, _, stream, _) if is_stream(stream) => streams::serve(exchange).await,
        ("", "pods", "binding", _) => binding::serve(exchange).await,
        ("", "pods", "eviction", _) => eviction::serve(exchange).await,
        ("", "serviceaccounts", "token", _) => token::serve(exchange).await,
        ("", "namespaces", "finalize", _) => finalize::serve(exchange).await,
        (_, _, "scale", verb) => match verb {
            "get" => scale::get(exchange).await,
            "update" => scale::update(exchange).await,
            _ => scale::patch(exchange).await,
        },
        (_, _, _, "get") => get::serve(exchange).await,
        (_, _, _, "update") => update::serve(exchange).await,
        (_, _, _, "patch") => patch::serve(exchange).await,
        _ => Err(Status::method_not_allowed()),
    }
}
