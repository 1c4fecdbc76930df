//! Certificates of the server, read again when their files change.

use std::{path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::{ServerError, access::User};
use crate::config::ServerTls;

/// How often the files are looked at: a node that joins has its certificate signed while it serves already.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The current certificates.
pub(super) struct TlsSource {
    files: ServerTls,
    current: Mutex<Current>,
}

struct Current {
    acceptor: TlsAcceptor,
    stamp: Option<std::time::SystemTime>,
    looked: Instant,
}

impl TlsSource {
    /// Reads the files.
    pub(super) fn load(files: ServerTls) -> Result<Arc<Self>, ServerError> {
        let acceptor = read(&files)?;
        let current = Current { acceptor, stamp: stamp(&files.certificate), looked: Instant::now() };
        Ok(Arc::new(Self { files, current: Mutex::new(current) }))
    }

    /// What accepts handshakes, with the newest certificate.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock();
        if current.looked.elapsed() >= LOOK_EVERY {
            current.looked = Instant::now();
            let stamp = stamp(&self.files.certificate);
            if stamp != current.stamp {
                match read(&self.files) {
                    Ok(acceptor) => (current.acceptor, current.stamp) = (acceptor, stamp),
                    // Half written, maybe: the old one holds, and the next look tries again.
                    Err(error) => tracing::warn!("the new certificate is not taken: {error}"),
                }
            }
        }
        current.acceptor.clone()
    }
}

/// Whom the client of a connection has proved to be: its certificate's common name and organisations. The handshake
/// has checked the certificate.
pub(super) fn peer(connection: &ServerConnection) -> Option<User> {
    let certificate = connection.peer_certificates()?.first()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let organisations =
        subject.iter_organization().filter_map(|value| value.as_str().ok()).map(str::to_owned).collect();
    Some(User::of_certificate(name, organisations))
}

fn stamp(path: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(path).and_then(|found| found.modified()).ok()
}

fn read(files: &ServerTls) -> Result<TlsAcceptor, ServerError> {
    let wrong = |path: &Path, message: String| ServerError::Certificate { path: path.to_owned(), message };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, ServerError> {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        read.map_err(|error| wrong(path, error.to_string()))
    };
    let chain = certificates(&files.certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for root in certificates(&files.client_ca)? {
        roots.add(root).map_err(|error| wrong(&files.client_ca, error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        // Others bring a token.
        .allow_unauthenticated()
        .build()
        .map_err(|error| wrong(&files.client_ca, error.to_string()))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key));
    let mut config = config.map_err(|error| wrong(&files.certificate, error.to_string()))?;
    // WebSockets over HTTP/2 are another protocol; the API server speaks HTTP/1.1 to kubelets.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
