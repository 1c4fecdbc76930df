//! The listener: TCP, TLS, HTTP/1.1 and HTTP/2, and an orderly end.
//!
//! Accepting never waits for a handshake: each connection is a task of its own from the first byte on, with a
//! deadline until its handshake is done. When the server stops, the listener closes, connections finish the
//! requests that they have (watches end on [`Server::shutdown`]), and what is left after the grace is dropped.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    auth::authn::{Origin, PeerCertificate},
    chain,
    state::Server,
    tls::PeerVerifier,
};

/// A client that has not shaken hands by then is gone or means no good.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's head over HTTP/1.1.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// Many clients hold all their watches on one connection.
const MAX_STREAMS: u32 = 2_000;
/// A client that vanished without a word is noticed within a minute.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The listener's parts.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) verifier: Arc<PeerVerifier>,
}

/// Serves until the server's shutdown is cancelled; answers once every connection is over or the grace has
/// passed.
pub(crate) async fn serve(server: Arc<Server>, listener: Listener) {
    let Listener { socket, tls, verifier } = listener;
    let acceptor = TlsAcceptor::from(tls);
    let slots = Arc::new(Semaphore::new(server.config.max_connections));
    let mut failures = 0_u32;
    loop {
        // The slot first: at the limit, clients wait in the kernel's queue instead of being turned away.
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot.expect("the semaphore must not be closed"),
            () = server.shutdown.cancelled() => break,
        };
        let (stream, address) = tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, usually: give connections time to close.
                    failures = (failures + 1).min(6);
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(Duration::from_millis(10 << failures)).await;
                    continue;
                }
            },
            () = server.shutdown.cancelled() => break,
        };
        failures = 0;
        let connection = Connection { server: Arc::clone(&server), verifier: Arc::clone(&verifier), address };
        let acceptor = acceptor.clone();
        server.tasks.spawn(async move {
            connection.run(stream, &acceptor).await;
            drop(slot);
        });
    }
    drop(socket);
    server.tasks.close();
    if tokio::time::timeout(server.config.shutdown_grace, server.tasks.wait()).await.is_err() {
        tracing::warn!(left = server.tasks.len(), "connections were still open when the grace was over");
    }
}

struct Connection {
    server: Arc<Server>,
    verifier: Arc<PeerVerifier>,
    address: SocketAddr,
}

impl Connection {
    async fn run(self, stream: TcpStream, acceptor: &TlsAcceptor) {
        let Self { server, verifier, address } = self;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "failed to turn off Nagle's algorithm");
        }
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
        let stream = tokio::select! {
            done = handshake => match done {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%address, %error, "TLS handshake failed");
                    return;
                }
                Err(_) => {
                    tracing::debug!(%address, "TLS handshake took too long");
                    return;
                }
            },
            () = server.shutdown.cancelled() => return,
        };
        let certificate = match stream.get_ref().1.peer_certificates() {
            Some(chain) => verifier.identify(chain),
            None => PeerCertificate::None,
        };
        if let PeerCertificate::Refused(why) = &certificate {
            tracing::info!(%address, why, "a client certificate was refused");
        }
        serve_http(server, stream, Origin::Connection(certificate), address).await;
    }
}

async fn serve_http(server: Arc<Server>, stream: TlsStream<TcpStream>, origin: Origin, address: SocketAddr) {
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let origin = Arc::new(origin);
    let shutdown = server.shutdown.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, origin) = (Arc::clone(&server), Arc::clone(&origin));
        async move { Ok::<_, Infallible>(chain::serve(server, &origin, request.map(Body::new)).await) }
    });
    let io = TokioIo::new(stream);
    // Both arms are the same but for the type of the connection: serve, and once the server stops, say so to
    // the client and finish what is under way.
    let result = if http2 {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(1 << 18)
            .initial_connection_window_size(1 << 20)
            .max_send_buf_size(1 << 20)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL)
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => result,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => result,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%address, %error, "connection ended");
    }
}
