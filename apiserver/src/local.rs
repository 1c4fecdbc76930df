//! The door for components in the same process: the server's own chain without socket and TLS.
//!
//! Only the transport is left out. Authorization, admission, validation and encoding are those of any request,
//! under the component's own identity, which is given here once and cannot be set by anything that a socket
//! delivers. Upgraded streams (exec, attach, port-forward) need a socket and are refused here.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};

use crate::{
    auth::{UserInfo, authn::Origin},
    chain,
    state::Server,
};

/// Requests straight into the chain, as one user.
#[derive(Clone)]
pub struct LocalService {
    server: Arc<Server>,
    origin: Arc<Origin>,
    /// What a request without a `User-Agent` has there: the name of its writes in `managedFields`.
    agent: HeaderValue,
}

/// The server as a service for one component of the same process.
#[must_use]
pub fn local_service(server: Arc<Server>, user: UserInfo) -> LocalService {
    let agent = HeaderValue::from_str(component(&user.name));
    let agent = agent.unwrap_or_else(|_| HeaderValue::from_static("unknown"));
    LocalService { server, origin: Arc::new(Origin::InProcess(Arc::new(user))), agent }
}

/// The component behind a user, under the name of upstream's program.
fn component(user: &str) -> &str {
    match user.strip_prefix("system:") {
        Some(node) if node.starts_with("node:") => "kubelet",
        Some(name) => name,
        None => user,
    }
}

impl<B> tower::Service<Request<B>> for LocalService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Self { server, origin, agent } = self.clone();
        request.headers_mut().entry(header::USER_AGENT).or_insert(agent);
        Box::pin(async move { Ok(chain::serve(server, &origin, request.map(Body::new)).await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_write_under_the_names_of_upstreams_programs() {
        assert_eq!(component("system:node:n1"), "kubelet");
        assert_eq!(component("system:kube-scheduler"), "kube-scheduler");
        assert_eq!(component("ann"), "ann");
    }
}
