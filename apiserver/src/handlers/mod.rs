//! From a request to an answer: one file per verb, the same for every kind.
//!
//! [`dispatch`] is where the chain hands over a request that is authenticated and authorized. Handlers read
//! parameters and bodies, call the registry, and answer through [`respond`]; every refusal on the way is a
//! `Status` that is encoded in one place.

mod body;
mod create;
mod delete;
mod get;
mod list;
mod patch;
pub(crate) mod respond;
mod selection;
mod shape;
mod subresources;
mod update;
mod watch;

use std::{borrow::Cow, sync::Arc};

use api_objects::{Resource, Status, resource};
use axum::body::Body;
use http::{Method, Request, Response, request::Parts};
use jiff::Timestamp;

use crate::{
    RequestContext, Server, discovery,
    negotiate::{self, Accepted, Encoding, Offer},
    openapi,
    registry::Call,
    request_info::RequestInfo,
};

/// One request with everything that a handler needs.
pub(crate) struct Exchange {
    server: Arc<Server>,
    context: RequestContext,
    resource: Arc<Resource>,
    parts: Parts,
    body: Body,
    accepted: Accepted,
}

impl Exchange {
    /// The raw query.
    fn query(&self) -> &str {
        self.parts.uri.query().unwrap_or_default()
    }

    /// The namespace, for namespaced resources only: a Namespace's own requests carry its name there.
    fn namespace(&self) -> &str {
        if self.resource.namespaced { &self.context.info.namespace } else { "" }
    }

    /// The registry call of this request.
    fn call<'a>(&'a self, manager: &'a str, dry_run: bool) -> Call<'a> {
        Call {
            server: &self.server,
            resource: &self.resource,
            subresource: &self.context.info.subresource,
            namespace: self.namespace(),
            name: &self.context.info.name,
            user: &self.context.user,
            manager,
            dry_run,
            now: Timestamp::now(),
        }
    }

    /// Who owns the fields that this request writes: the given manager, or the start of the user agent
    /// (`managerOrUserAgent` of `k8s.io/apiserver/pkg/endpoints/handlers`).
    fn manager<'a>(&'a self, given: &'a str) -> &'a str {
        if given.is_empty() { self.context.user_agent.split('/').next().unwrap_or_default() } else { given }
    }
}

/// Answers a request that has passed the chain.
pub async fn dispatch(
    server: Arc<Server>,
    context: RequestContext,
    request: Request<Body>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let encoding = error_encoding(&parts);
    let outcome = if context.info.is_resource_request {
        resource_request(server, context, parts, body).await
    } else {
        plain_request(&server, &parts).await
    };
    outcome.unwrap_or_else(|status| respond::status(&status, encoding))
}

/// Errors are encoded as asked, and as JSON where what was asked for cannot be served.
fn error_encoding(parts: &Parts) -> Accepted {
    let query = parts.uri.query().unwrap_or_default();
    let accepted = negotiate::accept(&parts.headers, query, Offer::Objects).unwrap_or_default();
    Accepted { shape: negotiate::Shape::Object, ..accepted }
}

/// Discovery and OpenAPI: what is served under paths that name no resource.
async fn plain_request(server: &Arc<Server>, parts: &Parts) -> Result<Response<Body>, Status> {
    let path = parts.uri.path();
    if path == "/openapi" || path.starts_with("/openapi/") {
        return openapi::serve(parts).await;
    }
    discovery::serve(server, parts)
}

async fn resource_request(
    server: Arc<Server>,
    context: RequestContext,
    parts: Parts,
    body: Body,
) -> Result<Response<Body>, Status> {
    let info = &context.info;
    let found = resource::find(&info.api_group, &info.api_version, &info.resource);
    let resource = Arc::clone(found.ok_or_else(Status::no_such_resource)?);
    let verbs = if info.subresource.is_empty() {
        &resource.verbs
    } else {
        &resource.subresource(&info.subresource).ok_or_else(Status::no_such_resource)?.verbs
    };
    check_route(&resource, info, &parts.method)?;
    if !verbs.iter().any(|verb| *verb == info.verb) {
        return Err(Status::method_not_allowed());
    }
    let query = parts.uri.query().unwrap_or_default();
    let accepted = if subresources::is_stream(&info.subresource) {
        Accepted::default()
    } else if subresources::is_virtual(&resource) {
        // An answer to a question is nothing to list in a table.
        negotiate::accept(&parts.headers, query, Offer::Plain)?
    } else {
        negotiate::accept(&parts.headers, query, Offer::Objects)?
    };
    let exchange = Exchange { server, context, resource, parts, body, accepted };
    if !exchange.context.info.subresource.is_empty() || subresources::is_virtual(&exchange.resource) {
        return Box::pin(subresources::serve(exchange)).await;
    }
    let verb = exchange.context.info.verb.clone();
    match verb.as_str() {
        "get" => get::serve(exchange).await,
        "list" => list::serve(exchange).await,
        "watch" => watch::serve(exchange).await,
        // Boxed: a read must not carry the size of a write's future through every layer above.
        "create" => Box::pin(create::serve(exchange)).await,
        "update" => Box::pin(update::serve(exchange)).await,
        "patch" => Box::pin(patch::serve(exchange)).await,
        "delete" => Box::pin(delete::serve(exchange)).await,
        "deletecollection" => Box::pin(delete::serve_collection(exchange)).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// Whether there is such a path for a resource, and whether the method may stand with it, as the routes that
/// upstream installs say (`k8s.io/apiserver/pkg/endpoints/installer.go`).
///
/// Authorization has gone by the namespace in the path: what does not belong to that namespace must not be
/// served under it, or a role in one namespace would reach the whole cluster.
fn check_route(resource: &Resource, info: &RequestInfo, method: &Method) -> Result<(), Status> {
    // `//api/v1/pods` and the old form `/api/v1/proxy/…` lead nowhere.
    if !info.path[1..].starts_with(&info.api_prefix) || info.verb == "proxy" {
        return Err(Status::no_such_resource());
    }
    let collection = info.depth == 1;
    let across_namespaces = resource.namespaced && !info.in_namespace;
    let exists = match info.depth {
        1 => !across_namespaces || resource.verbs.iter().any(|verb| verb == "list"),
        2 => !across_namespaces,
        3 => !across_namespaces && !info.subresource.is_empty(),
        // Only what is proxied has a path of its own.
        _ => !across_namespaces && info.subresource == "proxy",
    };
    // The old form of a watch has its name where others have theirs, and no subresources.
    let named = collection || !info.name.is_empty();
    if !exists || !named || (info.in_namespace && !resource.namespaced) {
        return Err(Status::no_such_resource());
    }
    let of_collections = matches!(info.verb.as_str(), "list" | "watch" | "create" | "deletecollection");
    let of_objects = info.verb == "watch" || !matches!(info.verb.as_str(), "list" | "deletecollection");
    let fits = match info.depth {
        1 if across_namespaces => matches!(info.verb.as_str(), "list" | "watch"),
        1 => of_collections,
        // Objects are created in their collection; below them, creating asks for something.
        2 => of_objects && info.verb != "create",
        _ => of_objects,
    };
    if !fits || (info.verb == "watch" && !matches!(*method, Method::GET | Method::HEAD)) {
        return Err(Status::method_not_allowed());
    }
    Ok(())
}

/// The kind of a list of the resource.
fn list_kind(resource: &Resource) -> String {
    format!("{}List", resource.kind)
}

/// `Warning` headers, as client-go prints them (RFC 7234, code 299).
fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let quoted: Cow<'_, str> = warning.replace('\\', "\\\\").replace('"', "\\\"").into();
        if let Ok(value) = http::HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}

/// A refusal of a body that there was something to say about: the warnings come with it.
fn refuse(status: Status, warnings: &[String], accepted: Accepted) -> Result<Response<Body>, Status> {
    if warnings.is_empty() {
        return Err(status);
    }
    let shape = negotiate::Shape::Object;
    let mut response = respond::status(&status, Accepted { shape, ..accepted });
    warn(&mut response, warnings);
    Ok(response)
}

/// Watches and other streams of objects are JSON only.
fn require_json(accepted: Accepted) -> Result<(), Status> {
    match accepted.encoding {
        Encoding::Json => Ok(()),
        Encoding::Yaml => Err(Status::not_acceptable(&["application/json"])),
    }
}
