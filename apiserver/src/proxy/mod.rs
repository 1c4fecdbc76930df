//! From a client through this server to a kubelet or a pod: logs, exec, attach and HTTP proxies.
//!
//! Kubelets are called over TLS with this server's client certificate, and must show a certificate of the
//! cluster's authority for the address that is called. Upgraded streams, WebSocket and SPDY alike, are relayed byte
//! for byte: this server agrees to what the kubelet agreed to, and carries frames without reading them. What comes
//! in them is the kubelet's business. Everything here ends when the server stops.

mod connect;
mod locate;
mod pod;
mod relay;

use std::sync::Arc;

use api_objects::{Status, Value};
use axum::body::Body;
use http::{HeaderMap, Method, Request, Response, header};

use self::{connect::Target, relay::Along};
use crate::{
    RequestContext, Server,
    auth::authz::{self, Action, Decision},
    sockets::{self, Content},
};

/// Answers a request for `pods/log|exec|attach|portforward|proxy`, `nodes/proxy` and `services/proxy`.
///
/// # Errors
///
/// If the pod or node does not exist or cannot be reached, or the request makes no sense.
pub async fn serve(
    server: &Arc<Server>,
    context: &RequestContext,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let info = &context.info;
    match (info.resource.as_str(), info.subresource.as_str()) {
        ("pods", "log") => {
            let (mut parts, _) = request.into_parts();
            let answer = log(server, context, parts.uri.query().unwrap_or_default()).await?;
            sockets::carry(server, &mut parts, Content::Log, answer).await
        }
        ("pods", stream @ ("exec" | "attach")) => stream_to_pod(server, context, stream, request).await,
        ("pods", "portforward") => forward_ports(server, context, request).await,
        ("pods", "proxy") => {
            let target = locate::pod(server, &info.namespace, &info.name).await?;
            relay::http(server, &target, &format!("/{}", info.rest), request).await
        }
        ("nodes", "proxy") => {
            let target = locate::node(server, &info.name).await?;
            relay::http(server, &target, &format!("/{}", info.rest), request).await
        }
        ("services", "proxy") => {
            let target = locate::service(server, &info.namespace, &info.name).await?;
            relay::http(server, &target, &format!("/{}", info.rest), request).await
        }
        _ => Err(Status::no_such_resource()),
    }
}

async fn log(server: &Arc<Server>, context: &RequestContext, query: &str) -> Result<Response<Body>, Status> {
    let info = &context.info;
    let pod = locate::find(server, "pods", &info.namespace, &info.name).await?;
    let options = pod::LogOptions::parse(query, &info.name)?;
    let container = pod::choose_container(&pod, options.container.as_deref())?;
    let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) else {
        // Not bound yet: nothing has been said.
        return Ok(Response::new(Body::empty()));
    };
    let target = locate::node(server, node).await?;
    let path = format!("/containerLogs/{}/{}/{container}?{}", info.namespace, info.name, options.query);
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .body(Body::empty())
        .map_err(|error| Status::bad_request(error.to_string()))?;
    relay::text(server, &target, request, &info.name).await
}

async fn stream_to_pod(
    server: &Arc<Server>,
    context: &RequestContext,
    stream: &str,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let info = &context.info;
    require_upgrade(request.headers())?;
    may_create(server, context).await?;
    let query = request.uri().query().unwrap_or_default();
    let options = pod::StreamOptions::parse(query, stream)?;
    let pod = locate::find(server, "pods", &info.namespace, &info.name).await?;
    let container = pod::choose_container(&pod, options.container.as_deref())?;
    let target = kubelet_of(server, &pod).await?;
    let path = format!("/{stream}/{}/{}/{container}?{}", info.namespace, info.name, options.query);
    relay::upgrade(server, &target, &path, request, Along::Streams).await
}

async fn forward_ports(
    server: &Arc<Server>,
    context: &RequestContext,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let info = &context.info;
    require_upgrade(request.headers())?;
    may_create(server, context).await?;
    let query = pod::port_forward_query(request.uri().query().unwrap_or_default())?;
    let pod = locate::find(server, "pods", &info.namespace, &info.name).await?;
    let target = kubelet_of(server, &pod).await?;
    let path = format!("/portForward/{}/{}{query}", info.namespace, info.name);
    relay::upgrade(server, &target, &path, request, Along::Streams).await
}

/// The kubelet of a pod's node.
async fn kubelet_of(server: &Server, pod: &Value) -> Result<Target, Status> {
    let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) else {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    };
    locate::node(server, node).await
}

/// Streams need an upgrade, to what the kubelet knows.
fn require_upgrade(headers: &HeaderMap) -> Result<(), Status> {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if upgrade.eq_ignore_ascii_case("websocket") || upgrade.eq_ignore_ascii_case("SPDY/3.1") {
        Ok(())
    } else {
        Err(Status::bad_request("Upgrade request required"))
    }
}

/// A WebSocket begins with GET, and yet runs something: it takes the right to `create`, however the stream
/// is opened (upstream: `AuthorizePodWebsocketUpgradeCreatePermission`).
async fn may_create(server: &Server, context: &RequestContext) -> Result<(), Status> {
    let info = &context.info;
    if info.verb == "create" {
        return Ok(());
    }
    let action = Action::Resource {
        verb: "create",
        group: &info.api_group,
        version: &info.api_version,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        field_selector: "",
    };
    match server.authorizer.authorize(&server.storage, &context.user, action).await {
        Decision::Allowed(_) => Ok(()),
        Decision::NoOpinion(reason) => {
            let why = authz::refusal(&context.user, action, &reason);
            Err(Status::forbidden(&info.api_group, &info.resource, &info.name, &why))
        }
    }
}
