//! Logs, exec, attach, port-forward and proxies: handed to the proxy, which talks to the kubelet.

use api_objects::Status;
use axum::body::Body;
use http::{Request, Response};

use super::super::Exchange;
use crate::proxy;

/// Passes the request on.
pub(super) async fn serve(exchange: Exchange) -> Result<Response<Body>, Status> {
    let Exchange { server, context, parts, body, .. } = exchange;
    proxy::serve(&server, &context, Request::from_parts(parts, body)).await
}
