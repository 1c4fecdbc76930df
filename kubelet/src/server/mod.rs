//! The kubelet's HTTPS server: pods, logs, exec, attach, port-forward, metrics.
//!
//! It takes requests only over TLS, and only from whom the API server knows and allows ([`access`]), the API server
//! itself included. There is no other way in. Paths are upstream's.

mod access;
mod counted;
mod logs;
mod metrics;
mod streams;
mod tls;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use client::{Client, Informer, Key};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use k8s_openapi::api::core::v1::Pod;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

use crate::{config::Config, context::Context};
use access::{Access, Peer};
use tls::TlsSource;

/// Connections at once: the API server opens one for each log, exec and attach.
const MAX_CONNECTIONS: usize = 1024;
/// Time for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why the server cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A certificate or key cannot be used.
    #[error("cannot use {path}: {message}")]
    Certificate {
        /// Which file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// What handlers share.
pub(crate) struct Shared {
    context: Arc<Context>,
    pods: Informer<Bytes>,
    metrics: metrics::Memory,
}

impl Shared {
    /// The pod of that name on this node.
    fn pod(&self, namespace: &str, name: &str) -> Result<Pod, Failure> {
        let missing = || Failure::new(StatusCode::NOT_FOUND, format!("pod \"{name}_{namespace}\" not found"));
        let bytes = self.pods.get(&Key::new(namespace, name)).ok_or_else(missing)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }
}

/// An answer that is not one: code and plain text, as upstream's kubelet gives it.
#[derive(Debug)]
pub(crate) struct Failure {
    code: StatusCode,
    message: String,
    headers: HeaderMap,
}

impl Failure {
    fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), headers: HeaderMap::new() }
    }

    fn add_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.append(name, value);
    }

    #[cfg(test)]
    fn message(&self) -> &str {
        &self.message
    }
}

impl IntoResponse for Failure {
    fn into_response(mut self) -> Response {
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        self.headers.insert(header::CONTENT_TYPE, text);
        (self.code, self.headers, self.message).into_response()
    }
}

/// The server's socket and certificates, before it serves: the node says the port that was found.
pub(crate) struct Bound {
    listener: TcpListener,
    tls: Arc<TlsSource>,
    port: u16,
    /// How old the figure of what a volume holds may be.
    disk_age: Duration,
}

impl Bound {
    /// The port that is listened on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Serves until the context's shutdown.
    pub(crate) fn serve(self, context: Arc<Context>, pods: Informer<Bytes>, client: Client) {
        let tasks = context.tasks.clone();
        let access = Arc::new(Access::new(client, context.node.clone()));
        let metrics = metrics::Memory::new(self.disk_age);
        let router = router(Arc::new(Shared { context: Arc::clone(&context), pods, metrics }))
            .layer(axum::middleware::from_fn_with_state(access, access::guard))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&context.measures), counted::count));
        tasks.spawn(serve(self.listener, self.tls, router, context));
    }
}

/// Binds the server's address, if there are certificates for it.
pub(crate) async fn bind(config: &Config) -> Result<Option<Bound>, ServerError> {
    let Some(files) = config.server_tls.clone() else {
        tracing::warn!("no certificates are given: logs, exec and attach do not work on this node");
        return Ok(None);
    };
    let tls = TlsSource::load(files)?;
    let address = std::net::SocketAddr::new(config.address, config.port);
    let failed = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok(Some(Bound { listener, tls, port, disk_age: config.pressure.disk_age }))
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(list_pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::container))
        .route("/exec/{namespace}/{pod}/{container}", get(streams::exec).post(streams::exec))
        .route("/attach/{namespace}/{pod}/{container}", get(streams::attach).post(streams::attach))
        .route("/portForward/{namespace}/{pod}", get(streams::port_forward).post(streams::port_forward))
        .route("/metrics", get(metrics::own))
        .route("/metrics/cadvisor", get(metrics::cadvisor))
        .route("/metrics/probes", get(metrics::probes))
        .route("/metrics/resource", get(metrics::resource))
        .route("/stats/summary", get(metrics::summary).post(metrics::summary))
        .with_state(shared)
}

async fn list_pods(State(shared): State<Arc<Shared>>) -> Response {
    let mut body = Vec::from(&br#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":["#[..]);
    for (index, (_, bytes)) in shared.pods.list().iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(bytes);
    }
    body.extend_from_slice(b"]}");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Accepts until shutdown; handshakes happen off the accept loop.
async fn serve(listener: TcpListener, tls: Arc<TlsSource>, router: Router, context: Arc<Context>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = context.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, _) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, as a rule: give others time to end.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let (tls, router, shutdown) = (Arc::clone(&tls), router.clone(), context.shutdown.clone());
        context.tasks.spawn(async move {
            let _permit = permit;
            let _ = stream.set_nodelay(true);
            let stream = match timeout(HANDSHAKE, tls.acceptor().accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!("a TLS handshake failed: {error}");
                    return;
                }
                Err(_) => return,
            };
            let router = router.layer(axum::Extension(Peer(tls::peer(stream.get_ref().1))));
            let builder = Builder::new(TokioExecutor::new());
            let connection = builder
                .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router));
            tokio::select! {
                () = shutdown.cancelled() => {}
                result = connection => if let Err(error) = result {
                    tracing::debug!("a connection ended: {error}");
                }
            }
        });
    }
}

/// A stream of bytes as a body.
fn streaming<S, E>(stream: S) -> Response
where
    S: futures_util::Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let mut response = Response::new(Body::from_stream(stream));
    let kind = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
