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
use http::{Request, Response, request::Parts};
use jiff::Timestamp;

use crate::{
    RequestContext, Server, discovery,
    negotiate::{self, Accepted, Encoding, Offer},
    openapi,
    registry::Call,
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
    if !verbs.iter().any(|verb| *verb == info.verb) {
        return Err(Status::method_not_allowed());
    }
    // Collections are created in and deleted from; only single objects have names in their paths.
    if info.verb == "create" && info.subresource.is_empty() && !info.name.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let query = parts.uri.query().unwrap_or_default();
    let accepted = if subresources::is_stream(&info.subresource) {
        Accepted::default()
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

/// Watches and other streams of objects are JSON only.
fn require_json(accepted: Accepted) -> Result<(), Status> {
    match accepted.encoding {
        Encoding::Json => Ok(()),
        Encoding::Yaml => Err(Status::not_acceptable(&["application/json"])),
    }
}
