//! The certificate that the listener presents, exchangeable while the server runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{Issued, PkiError};

/// Hands the current certificate to each handshake.
#[derive(Debug)]
pub struct ServingCertificate {
    current: ArcSwap<CertifiedKey>,
}

impl ServingCertificate {
    pub(super) fn new(issued: &Issued) -> Result<Self, PkiError> {
        Ok(Self { current: ArcSwap::from_pointee(certified_key(issued)?) })
    }

    /// Presents another certificate from the next handshake on.
    pub(super) fn replace(&self, issued: &Issued) -> Result<(), PkiError> {
        let next = certified_key(issued)?;
        if self.current.load().cert != next.cert {
            tracing::info!("serving a renewed certificate");
            self.current.store(Arc::new(next));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn fingerprint(&self) -> Vec<u8> {
        self.current.load().cert[0].to_vec()
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// The rustls form of a certificate and its key.
pub(crate) fn certified_key(issued: &Issued) -> Result<CertifiedKey, PkiError> {
    let invalid =
        |error: rustls_pki_types::pem::Error| PkiError::Tls(rustls::Error::General(error.to_string()));
    let chain = CertificateDer::pem_slice_iter(issued.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(invalid)?;
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).map_err(invalid)?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider()).map_err(PkiError::Tls)
}
