//! From a client through this server to a kubelet or a pod: logs, exec, attach and HTTP proxies.
//!
//! Kubelets are called over TLS with this server's client certificate, and must show a certificate of the
//! cluster's authority for the address that is called. WebSocket streams are relayed byte for byte: this
//! server agrees to what the kubelet agreed to, and carries frames without reading them. Everything here ends
//! when the server stops. SPDY and port-forwarding come later and are refused by name.

mod connect;
mod pod;
mod relay;

use std::sync::Arc;

use api_objects::{Status, Value};
use axum::body::Body;
use http::{HeaderMap, Method, Request, Response, header};

use self::connect::Target;
use crate::{
    RequestContext, Server,
    auth::authz::{self, Action, Decision},
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
        ("pods", "log") => log(server, context, request.uri().query().unwrap_or_default()).await,
        ("pods", stream @ ("exec" | "attach")) => stream_to_pod(server, context, stream, request).await,
        ("pods", "portforward") => {
            Err(not_implemented("port-forwarding is not supported by this server yet"))
        }
        ("pods", "proxy") => {
            let target = pod_target(server, &info.namespace, &info.name).await?;
            relay::http(server, &target, &format!("/{}", info.rest), request).await
        }
        ("nodes", "proxy") => {
            let target = node_target(server, &info.name).await?;
            relay::http(server, &target, &format!("/{}", info.rest), request).await
        }
        ("services", "proxy") => {
            Err(not_implemented("proxying to Services is not supported by this server yet"))
        }
        _ => Err(Status::no_such_resource()),
    }
}

fn not_implemented(message: &str) -> Status {
    Status::failure(501, "NotImplemented", message)
}

/// The decoded object of the core group.
async fn find(server: &Server, resource: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    let resource = api_objects::resource::find("", "v1", resource).expect("the resource must be built in");
    match crate::registry::lookup(server, resource, namespace, name).await? {
        Some(object) => Ok(object),
        None => Err(Status::not_found("", &resource.plural, name)),
    }
}

async fn log(server: &Arc<Server>, context: &RequestContext, query: &str) -> Result<Response<Body>, Status> {
    let info = &context.info;
    let pod = find(server, "pods", &info.namespace, &info.name).await?;
    let options = pod::LogOptions::parse(query, &info.name)?;
    let container = pod::choose_container(&pod, options.container.as_deref())?;
    let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) else {
        // Not bound yet: nothing has been said.
        return Ok(Response::new(Body::empty()));
    };
    let target = node_target(server, node).await?;
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
    require_websocket(request.headers())?;
    may_create(server, context).await?;
    let query = request.uri().query().unwrap_or_default();
    let options = pod::StreamOptions::parse(query, stream)?;
    let pod = find(server, "pods", &info.namespace, &info.name).await?;
    let container = pod::choose_container(&pod, options.container.as_deref())?;
    let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) else {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", info.name)));
    };
    let target = node_target(server, node).await?;
    let path = format!("/{stream}/{}/{}/{container}?{}", info.namespace, info.name, options.query);
    relay::websocket(server, &target, &path, request).await
}

/// Streams need an upgrade, and of the two kinds that clients know, the newer.
fn require_websocket(headers: &HeaderMap) -> Result<(), Status> {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if upgrade.eq_ignore_ascii_case("websocket") {
        Ok(())
    } else if upgrade.to_ascii_lowercase().starts_with("spdy/") {
        Err(not_implemented(
            "SPDY streams are not supported by this server yet: use a client that speaks WebSocket, \
             such as kubectl 1.30 or newer",
        ))
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

/// Where a node's kubelet answers.
async fn node_target(server: &Server, name: &str) -> Result<Target, Status> {
    let (name, port) = name.split_once(':').map_or((name, None), |(name, port)| (name, Some(port)));
    let node = find(server, "nodes", "", name).await?;
    let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
    // Addresses before names: they need no resolver.
    let host = ["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"]
        .iter()
        .find_map(|kind| addresses.iter().find(|address| address["type"] == *kind))
        .and_then(|address| address["address"].as_str())
        .ok_or_else(|| Status::unavailable(format!("node {name:?} has no address yet")))?;
    let port = match port {
        Some(port) => port.parse().map_err(|_| Status::bad_request(format!("{port:?} is not a port")))?,
        None => node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(10_250),
    };
    Ok(Target { host: host.to_owned(), port, kubelet: true })
}

/// Where a pod answers: `name`, `name:port` or `http:name:port`.
async fn pod_target(server: &Server, namespace: &str, name: &str) -> Result<Target, Status> {
    let parts: Vec<&str> = name.split(':').collect();
    let (name, port) = match parts.as_slice() {
        [name] => (*name, ""),
        [name, port] | ["" | "http", name, port] => (*name, *port),
        ["https", ..] => {
            return Err(not_implemented("proxying to pods over HTTPS is not supported by this server yet"));
        }
        _ => return Err(Status::bad_request(format!("invalid pod request {name:?}"))),
    };
    let pod = find(server, "pods", namespace, name).await?;
    let address = pod["status"]["podIP"].as_str().filter(|address| !address.is_empty());
    let host = address.ok_or_else(|| Status::bad_request("address not allowed"))?;
    let port = if port.is_empty() {
        pod["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64().unwrap_or(80)
    } else {
        pod::port_number(&pod, port)
            .ok_or_else(|| Status::bad_request(format!("pod {name:?} has no port {port:?}")))?
    };
    let port = u16::try_from(port).map_err(|_| Status::bad_request(format!("{port} is not a port")))?;
    Ok(Target { host: host.to_owned(), port, kubelet: false })
}
