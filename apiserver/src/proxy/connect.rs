//! Connections to kubelets (TLS, both sides proven) and to pods (plain).

use std::{sync::Arc, time::Duration};

use api_objects::Status;
use axum::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{Server, pki};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Whom to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// A name or an address.
    pub(super) host: String,
    pub(super) port: u16,
    /// A kubelet, to be called over TLS; otherwise a pod.
    pub(super) kubelet: bool,
}

impl Target {
    /// `host:port`, with brackets around IPv6.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// An HTTP/1.1 connection of its own: streams live long, and an upgrade takes the connection anyway.
pub(super) async fn connect(server: &Arc<Server>, target: &Target) -> Result<SendRequest<Body>, Status> {
    let failed = |why: String| {
        Status::internal(&format!("error dialing backend: dial tcp {}: {why}", target.authority()))
    };
    let connecting = async {
        let stream = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .map_err(|error| failed(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        if !target.kubelet {
            return handshake(server, stream).await.map_err(failed);
        }
        let config = client_config(server).map_err(|error| failed(error.to_string()))?;
        let name = ServerName::try_from(target.host.clone()).map_err(|error| failed(error.to_string()))?;
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| failed(error.to_string()))?;
        handshake(server, stream).await.map_err(failed)
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| Err(failed("i/o timeout".to_owned())))
}

async fn handshake<S>(server: &Server, stream: S) -> Result<SendRequest<Body>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let shutdown = server.shutdown.clone();
    server.tasks.spawn(async move {
        tokio::select! {
            ended = connection.with_upgrades() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a proxied connection ended");
                }
            }
            () = shutdown.cancelled() => {}
        }
    });
    Ok(sender)
}

/// Made anew for each connection: certificates are renewed while the server runs, and loading one costs less
/// than the handshake that follows.
fn client_config(server: &Server) -> Result<Arc<ClientConfig>, pki::PkiError> {
    let mut roots = RootCertStore::empty();
    roots.add(server.pki.ca_der().clone()).map_err(pki::PkiError::Tls)?;
    let identity = pki::certified_key(&server.pki.kubelet_client())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pki::PkiError::Tls)?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity)));
    Ok(Arc::new(config))
}
