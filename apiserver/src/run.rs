//! From a configuration to a running server, and to its end.
//!
//! The order is the one that a restart needs: the socket first (its port stands in kubeconfigs), then keys,
//! store, watch cache and roles, then the listener; the bootstrap objects are written while requests are
//! already served, and `/readyz` says when they are there.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use apiserver_storage::{
    StoreError,
    cacher::{Cacher, CacherOptions},
};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::{
        authn::{Authenticator, static_tokens::StaticTokens},
        authz::{self, Authorizer},
        tokens::{KeyError, TokenIssuer},
    },
    bootstrap,
    config::{Config, ConfigError},
    health::Health,
    metrics::Metrics,
    pki::{Pki, PkiConfig, PkiError},
    projector::ObjectProjector,
    server::{self, Listener},
    state::Server,
    storage, tls,
};

/// How often certificates are looked at; a look costs a few milliseconds.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(3600);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration makes no sense, or a file that it names is not usable.
    #[error("the configuration is not usable")]
    Config(#[from] ConfigError),
    /// The address is taken, or not ours.
    #[error("failed to listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Certificates or keys could not be had.
    #[error("failed to prepare certificates and keys")]
    Pki(#[from] PkiError),
    /// The key of ServiceAccount tokens is not usable.
    #[error("failed to load the ServiceAccount signing key")]
    Tokens(#[from] KeyError),
    /// The store could not be opened.
    #[error("failed to open the store")]
    OpenStore(#[from] storage::OpenStoreError),
    /// The store could not be read.
    #[error("failed to read the store")]
    Store(#[from] StoreError),
    /// Work on files was cut short.
    #[error("failed to prepare files in `{0}`")]
    Interrupted(PathBuf),
}

/// A server that runs.
pub struct Running {
    /// Its parts; the in-process door takes it.
    pub server: Arc<Server>,
    /// Where it listens, with the real port.
    pub address: SocketAddr,
    listening: JoinHandle<()>,
}

impl Running {
    /// Waits until the bootstrap objects are there: from then on `/readyz` says ok.
    pub async fn ready(&self) {
        self.server.health.bootstrapped().await;
    }

    /// Waits for the end: until the shutdown given to [`start`] is cancelled and everything under way is done.
    pub async fn wait(self) {
        let Self { server, listening, .. } = self;
        if let Err(error) = listening.await {
            tracing::error!(%error, "the listener ended abnormally");
        }
        server.storage.stop();
        server.storage.join().await;
        server.storage.store().close().await;
    }
}

/// Starts a server and waits for its end.
///
/// # Errors
///
/// If it cannot start.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), StartError> {
    start(config, shutdown).await?.wait().await;
    Ok(())
}

/// Starts a server. Cancel `shutdown` to stop it, then [`Running::wait`].
///
/// # Errors
///
/// If the address is taken, a file is not usable, or the store cannot be opened.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Running, StartError> {
    tls::install_crypto_provider();
    let socket = TcpListener::bind(config.listen)
        .await
        .map_err(|source| StartError::Listen { address: config.listen, source })?;
    let address =
        socket.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;

    // Keys are made while the store is read: both take some milliseconds of their own.
    let pki_config = PkiConfig::new(&config, address.port());
    let pki_task = tokio::task::spawn_blocking(move || Pki::ensure(pki_config));
    let store = storage::open(&config).await?;
    let failed = store.failed();
    let storage = Cacher::start(Arc::new(store), ObjectProjector, CacherOptions::default()).await?;
    let pki = pki_task.await.map_err(|_| StartError::Interrupted(config.pki_dir()))??;
    let static_tokens = match &config.token_auth_file {
        Some(path) => StaticTokens::read(path)?,
        None => StaticTokens::default(),
    };
    let tokens = TokenIssuer::new(&config.issuer, &config.audiences, pki.service_account_key())?;
    let (tls, verifier) = tls::server_config(&pki)?;

    let server = Arc::new(Server {
        port: address.port(),
        storage,
        pki: Arc::new(pki),
        authenticator: Authenticator::new(static_tokens),
        authorizer: Authorizer::default(),
        tokens,
        metrics: Metrics::new(),
        health: Health::default(),
        shutdown,
        tasks: TaskTracker::new(),
        config,
    });
    // Before the first request: the roles of an earlier run count from the start.
    authz::follow::refresh(&server).await?;
    server.tasks.spawn(authz::follow::follow(Arc::clone(&server)));
    server.tasks.spawn(bootstrap::run(Arc::clone(&server)));
    server.tasks.spawn(renew_certificates(Arc::clone(&server)));
    if let Some(failed) = failed {
        server.tasks.spawn(stop_with_store(Arc::clone(&server), failed));
    }
    let listening = tokio::spawn(server::serve(Arc::clone(&server), Listener { socket, tls, verifier }));
    tracing::info!(%address, "the API server listens");
    Ok(Running { server, address, listening })
}

/// Stops the server when its store cannot go on: what is durable is recovered by the next start.
async fn stop_with_store(server: Arc<Server>, failed: CancellationToken) {
    if server.shutdown.run_until_cancelled(failed.cancelled()).await.is_some() {
        tracing::error!("the store cannot go on; the server stops");
        server.shutdown.cancel();
    }
}

/// Looks at the certificates from time to time, and renews what is about to expire.
async fn renew_certificates(server: Arc<Server>) {
    // The start has just looked.
    let mut timer = tokio::time::interval_at(Instant::now() + RENEWAL_INTERVAL, RENEWAL_INTERVAL);
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            () = server.shutdown.cancelled() => return,
        }
        let pki = Arc::clone(&server.pki);
        match tokio::task::spawn_blocking(move || pki.renew()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "failed to renew certificates")
            }
            Err(error) => tracing::error!(%error, "renewing certificates was cut short"),
        }
    }
}
