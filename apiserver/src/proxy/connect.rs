//! Connections to kubelets (TLS, both sides proven) and to pods (plain).

use std::{sync::Arc, time::Duration};

use api_objects::Status;
use axum::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
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
    pub(super) peer: Peer,
}

/// Who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// A kubelet: over TLS, both sides proven.
    Kubelet,
    /// A pod.
    Plain,
    /// A pod that speaks TLS, with whatever certificate it has: nobody could say which would be right (upstream's
    /// proxy transport does not verify either).
    Tls,
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
        let config = match target.peer {
            Peer::Plain => return handshake(server, stream).await.map_err(failed),
            Peer::Kubelet => client_config(server),
            Peer::Tls => unverified_config(),
        };
        let config = config.map_err(|error| failed(error.to_string()))?;
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

/// TLS without knowing with whom.
fn unverified_config() -> Result<Arc<ClientConfig>, pki::PkiError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(pki::PkiError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Takes any certificate whose key the other side has.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
