//! TLS on the listener, and what a client certificate says about its bearer.
//!
//! The handshake asks for a client certificate but refuses nobody for it, as upstream does: a certificate
//! that this cluster's authority did not sign is an answer of 401, which a person can understand, rather than
//! a broken handshake. Possession of the key is always proven; trust is decided by [`PeerVerifier::identify`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::FromDer;

use crate::{
    auth::{UserInfo, authn::PeerCertificate},
    pki::{Pki, PkiError},
};

/// Makes `aws-lc-rs` the process's crypto provider; harmless when called again.
pub(crate) fn install_crypto_provider() {
    // An error means that one is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The listener's TLS configuration.
///
/// # Errors
///
/// If the authority's certificate is not usable as a root.
pub(crate) fn server_config(pki: &Pki) -> Result<(Arc<ServerConfig>, Arc<PeerVerifier>), PkiError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(PeerVerifier::new(pki.ca_der(), &provider)?);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(PkiError::Tls)?
        .with_client_cert_verifier(Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>)
        .with_cert_resolver(pki.serving());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(PkiError::Tls)?;
    config.send_tls13_tickets = 1;
    Ok((Arc::new(config), verifier))
}

/// Asks for client certificates and judges them.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    inner: Arc<dyn ClientCertVerifier>,
}

impl PeerVerifier {
    fn new(ca: &CertificateDer<'static>, provider: &Arc<CryptoProvider>) -> Result<Self, PkiError> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).map_err(PkiError::Tls)?;
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| PkiError::Tls(rustls::Error::General(error.to_string())))?;
        Ok(Self { inner })
    }

    /// Who a connection's certificate chain says is calling.
    #[must_use]
    pub(crate) fn identify(&self, chain: &[CertificateDer<'_>]) -> PeerCertificate {
        let Some((leaf, intermediates)) = chain.split_first() else { return PeerCertificate::None };
        if let Err(error) = self.inner.verify_client_cert(leaf, intermediates, UnixTime::now()) {
            return PeerCertificate::Refused(error.to_string());
        }
        match x509_parser::certificate::X509Certificate::from_der(leaf) {
            Ok((_, certificate)) => identity(&certificate),
            Err(error) => PeerCertificate::Refused(error.to_string()),
        }
    }
}

/// Common name → user, organizations → groups (`k8s.io/apiserver/pkg/authentication/request/x509`).
fn identity(certificate: &x509_parser::certificate::X509Certificate<'_>) -> PeerCertificate {
    let subject = certificate.subject();
    let Some(name) =
        subject.iter_common_name().find_map(|name| name.as_str().ok()).filter(|it| !it.is_empty())
    else {
        return PeerCertificate::Refused("the certificate has no common name".to_owned());
    };
    let groups: Vec<&str> = subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    let mut user = UserInfo::new(name, &groups);
    let fingerprint: String = {
        use sha2::{Digest, Sha256};
        Sha256::digest(certificate.as_ref()).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    user.extra = BTreeMap::from([(
        "authentication.kubernetes.io/credential-id".to_owned(),
        vec![format!("X509SHA256={fingerprint}")],
    )]);
    let expires = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    PeerCertificate::Valid {
        user: Arc::new(user),
        expires: UnixTime::since_unix_epoch(Duration::from_secs(expires)),
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        // Judged after the handshake by `identify`; see the module's documentation.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
