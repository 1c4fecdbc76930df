//! Connections to a server across a network, and how a dead one is noticed.
//!
//! A watch is silent for as long as nothing changes, so silence says nothing; the kernel finds out. A peer that
//! answers no keep-alive for 45 seconds, or acknowledges nothing for 30, is gone, and whatever waits on the
//! connection ends with an error (client-go: a ping after 30 seconds without a frame, 15 seconds for its answer).

use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Config, Error,
    client::{Body, ClientBuilder, ConfigExt, retry::RetryPolicy},
};
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};

/// Silence after which the peer is asked for a sign of life, how often, and how many may be missed.
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(5), 3);
/// How long sent bytes may go unacknowledged. The kernel's own limit is a quarter of an hour, with pauses of
/// minutes between its last attempts: a network that came back would be noticed that much later.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// Connections kept for the next request. What a crowd of requests opened beyond them is closed after it: each is
/// tens of kilobytes here, and as much on the server.
const IDLE: usize = 4;

/// kube's client as a configuration says.
///
/// # Errors
/// If the configuration's certificates or keys cannot be used.
pub(crate) fn client(config: Config) -> Result<kube::Client, Error> {
    // Proxies and credentials from programs are kube's own business; its connections have the kernel's patience.
    if config.proxy_url.is_some() || config.auth_info.exec.is_some() {
        return kube::Client::try_from(config);
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let (idle, interval, missed) = KEEP_ALIVE;
    http.set_keepalive(Some(idle));
    http.set_keepalive_interval(Some(interval));
    http.set_keepalive_retries(Some(missed));
    http.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    // With its handshake: a server that hangs takes connections all the same, and its kernel acknowledges.
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(http)?);
    connector.set_connect_timeout(config.connect_timeout);
    let connections = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(IDLE)
        .pool_timer(TokioTimer::new())
        .build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(connections);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
