//! Every request's way in: who is it, what does it want, may it; then its handler.
//!
//! One readable function, [`serve`], in upstream's order (`DefaultBuildHandlerChain` of
//! `k8s.io/apiserver/pkg/server`). Nothing gets past it: the listener and the in-process door both end here.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use api_objects::Status;
use axum::body::Body;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, header};

use crate::{
    auth::{
        authn::Origin,
        authz::{self, Action, Decision},
        tokens,
    },
    handlers, health,
    request_info::RequestInfo,
    sockets,
    state::{RequestContext, Server},
};

/// How long a request may take that is not long-running by nature, as upstream's `--request-timeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves one request.
pub(crate) async fn serve(server: Arc<Server>, origin: &Origin, request: Request<Body>) -> Response<Body> {
    // 1. What is it about? Needed by everything below, metrics of refusals included.
    let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
    let measured = server.metrics.start(&info);
    // A handler that panics costs its own request a 500, and nobody else anything.
    let response = AssertUnwindSafe(authenticated(&server, origin, info, request))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            tracing::error!("a request handler panicked");
            failure(&Status::internal(
                "This request caused apiserver to panic. Look in the logs for details.",
            ))
        });
    measured.finish(response)
}

async fn authenticated(
    server: &Arc<Server>,
    origin: &Origin,
    info: RequestInfo,
    mut request: Request<Body>,
) -> Response<Body> {
    // 2. Who is it?
    sockets::move_token(request.headers_mut());
    let user = match server.authenticator.authenticate(server, origin, &info.path, request.headers()).await {
        Ok(user) => user,
        Err(error) => {
            tracing::debug!(path = info.path, %error, "unauthenticated");
            return failure(&Status::unauthorized());
        }
    };
    // To go on as the caller would be to do the right thing as the wrong person.
    if request.headers().keys().any(|name| name.as_str().starts_with("impersonate-")) {
        let message =
            "impersonation is not supported by this server yet: leave out --as, --as-group and --as-uid";
        return failure(&Status::failure(501, "NotImplemented", message));
    }
    // 3. May they?
    let action = Action::from(&info);
    if let Decision::NoOpinion(reason) = server.authorizer.authorize(&server.storage, &user, action).await {
        let why = authz::refusal(&user, action, &reason);
        let name = if info.is_resource_request { info.name.as_str() } else { "" };
        return failure(&Status::forbidden(&info.api_group, &info.resource, name, &why));
    }
    // 4. The handler, within its time.
    let user_agent = request
        .headers()
        .get(header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let long_running = info.is_long_running();
    let context = RequestContext { info, user, user_agent };
    let handled = route(Arc::clone(server), context, request);
    if long_running {
        return handled.await;
    }
    tokio::time::timeout(REQUEST_TIMEOUT, handled).await.unwrap_or_else(|_| {
        failure(&Status::timeout("Timeout: request did not complete within the allotted timeout", 0))
    })
}

/// The server's own paths, and everything else by the API's handlers.
async fn route(server: Arc<Server>, context: RequestContext, request: Request<Body>) -> Response<Body> {
    let path = context.info.path.as_str();
    if context.info.is_resource_request {
        return Box::pin(handlers::dispatch(server, context, request)).await;
    }
    if let Some((endpoint, check)) = health::Endpoint::of(path) {
        return health::answer(&server, endpoint, check, request.uri().query().unwrap_or_default()).await;
    }
    match path {
        "/version" | "/version/" => json(StatusCode::OK, health::version()),
        tokens::JWKS_PATH => {
            let mut response = json(StatusCode::OK, server.tokens.jwks().to_owned());
            let media_type = HeaderValue::from_static("application/jwk-set+json");
            response.headers_mut().insert(header::CONTENT_TYPE, media_type);
            response
        }
        tokens::DISCOVERY_PATH => {
            let document = server.tokens.discovery(server.config.advertise_address, server.port);
            json(StatusCode::OK, document.to_string())
        }
        "/metrics" => server.metrics.answer(&server.storage),
        _ => Box::pin(handlers::dispatch(server, context, request)).await,
    }
}

/// A `Status` as a response.
pub(crate) fn failure(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, serde_json::to_vec(status).expect("a Status must serialise"));
    if let Some(seconds) = status.details.as_ref().and_then(|details| details.retry_after_seconds) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// JSON bytes as a response.
pub(crate) fn json(code: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
