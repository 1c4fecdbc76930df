//! The certificate authority, and the leaf certificates that it signs.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use super::{PkiError, files};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long the authority itself is good, as kubeadm's.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates are good from a little before they were made: clocks differ.
const BACKDATE: Duration = Duration::from_secs(300);

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// To show who calls.
    Client,
    /// To show who answers, under these names and addresses.
    Server {
        /// DNS names and IP addresses.
        names: Vec<String>,
    },
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM.
    pub certificate: String,
    /// PKCS#8 PEM.
    pub key: String,
}

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    /// Loads `ca.crt` and `ca.key`, or makes them if neither is there.
    pub(super) fn ensure(pki_dir: &Path) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (pki_dir.join("ca.crt"), pki_dir.join("ca.key"));
        let issued = match (files::read_optional(&certificate_path)?, files::read_optional(&key_path)?) {
            (Some(certificate), Some(key)) => Issued { certificate, key },
            (None, None) => {
                let issued = new_authority()
                    .map_err(|source| PkiError::Issue { subject: "kubernetes".to_owned(), source })?;
                // The key first: without its certificate it can be told from a whole authority.
                files::write_private(&key_path, issued.key.as_bytes())?;
                files::write_private(&certificate_path, issued.certificate.as_bytes())?;
                issued
            }
            // A crash between the two writes above: nothing has been signed with this key.
            (None, Some(_)) => {
                std::fs::remove_file(&key_path)
                    .map_err(|source| PkiError::Write { path: key_path.clone(), source })?;
                return Self::ensure(pki_dir);
            }
            (Some(_), None) => {
                return Err(PkiError::Unusable {
                    path: certificate_path,
                    message: "its key `ca.key` is missing; put it back, or remove the whole directory \
                              to make a new authority"
                        .to_owned(),
                });
            }
        };
        Self::load(&issued).map_err(|message| PkiError::Unusable { path: certificate_path, message })
    }

    fn load(issued: &Issued) -> Result<Self, String> {
        let key = KeyPair::from_pem(&issued.key).map_err(|error| error.to_string())?;
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes())
            .map_err(|error| error.to_string())?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| error.to_string())?;
        Ok(Self { issuer, pem: issued.certificate.clone(), der })
    }

    /// The authority's own certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The authority's own certificate, DER.
    #[must_use]
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Signs a certificate for a new key, good for a year.
    ///
    /// # Errors
    ///
    /// If the names cannot stand in a certificate, or there are more than two organizations.
    pub fn issue(&self, user: &str, organizations: &[&str], purpose: &Purpose) -> Result<Issued, PkiError> {
        self.issue_at(user, organizations, purpose, SystemTime::now())
            .map_err(|source| PkiError::Issue { subject: user.to_owned(), source })
    }

    fn issue_at(
        &self,
        user: &str,
        organizations: &[&str],
        purpose: &Purpose,
        now: SystemTime,
    ) -> Result<Issued, rcgen::Error> {
        let mut params = match purpose {
            Purpose::Client => CertificateParams::default(),
            Purpose::Server { names } => CertificateParams::new(names.as_slice())?,
        };
        params.distinguished_name = distinguished_name(user, organizations)?;
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + YEAR).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match purpose {
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Purpose::Server { .. } => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Loads `<stem>.crt` and `<stem>.key`, or signs anew if they are missing, another authority's, about to
    /// expire or without one of the names.
    pub(super) fn ensure_leaf(
        &self,
        stem: &Path,
        user: &str,
        organizations: &[&str],
        purpose: &Purpose,
    ) -> Result<Issued, PkiError> {
        let certificate_path = stem.with_added_extension("crt");
        let key_path = stem.with_added_extension("key");
        if let (Some(certificate), Some(key)) =
            (files::read_optional(&certificate_path)?, files::read_optional(&key_path)?)
            && self.is_current(&certificate, user, purpose)
            && matches_key(&certificate, &key)
        {
            return Ok(Issued { certificate, key });
        }
        let issued = self.issue(user, organizations, purpose)?;
        files::write_private(&key_path, issued.key.as_bytes())?;
        files::write_private(&certificate_path, issued.certificate.as_bytes())?;
        Ok(issued)
    }

    /// Whether a certificate is ours, is `user`'s, has all names, and has more than a third of its life left.
    pub(super) fn is_current(&self, certificate: &str, user: &str, purpose: &Purpose) -> bool {
        self.is_current_at(certificate, user, purpose, SystemTime::now())
    }

    fn is_current_at(&self, certificate: &str, user: &str, purpose: &Purpose, now: SystemTime) -> bool {
        let Ok(der) = CertificateDer::from_pem_slice(certificate.as_bytes()) else { return false };
        let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(&der) else {
            return false;
        };
        let Ok((_, authority)) = x509_parser::certificate::X509Certificate::from_der(&self.der) else {
            return false;
        };
        let ours = parsed.verify_signature(Some(authority.public_key())).is_ok();
        let named = parsed.subject().iter_common_name().any(|name| name.as_str() == Ok(user));
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let validity = parsed.validity();
        let (start, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let fresh = i64::try_from(seconds).is_ok_and(|now| start <= now && end - now > (end - start) / 3);
        let covers = match purpose {
            Purpose::Client => true,
            Purpose::Server { names } => {
                let present = alternative_names(&parsed);
                names.iter().all(|name| present.contains(name))
            }
        };
        ours && named && fresh && covers
    }
}

fn matches_key(certificate: &str, key: &str) -> bool {
    let (Ok(der), Ok(key)) = (CertificateDer::from_pem_slice(certificate.as_bytes()), KeyPair::from_pem(key))
    else {
        return false;
    };
    x509_parser::certificate::X509Certificate::from_der(&der)
        .is_ok_and(|(_, parsed)| parsed.public_key().subject_public_key.data == key.public_key_raw())
}

fn alternative_names(certificate: &x509_parser::certificate::X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return BTreeSet::new() };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
                16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

fn new_authority() -> Result<Issued, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name("kubernetes", &[])?;
    let now = SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + AUTHORITY_LIFETIME).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// `O=…, CN=user`. The library keeps one value per attribute type; a second organization goes under the same
/// object identifier given by hand.
fn distinguished_name(user: &str, organizations: &[&str]) -> Result<DistinguishedName, rcgen::Error> {
    let mut name = DistinguishedName::new();
    let types = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    if organizations.len() > types.len() {
        return Err(rcgen::Error::InvalidNameType);
    }
    for (kind, organization) in types.into_iter().zip(organizations) {
        name.push(kind, *organization);
    }
    name.push(DnType::CommonName, user);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_renewed_when_a_third_of_its_life_is_left_or_a_name_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::ensure(directory.path()).unwrap();
        let purpose = Purpose::Server { names: vec!["a.example".into(), "10.0.0.1".into(), "::1".into()] };
        let made = SystemTime::now();
        let issued = authority.issue_at("x", &["g"], &purpose, made).unwrap();
        let current = |user: &str, purpose: &Purpose, after: Duration| {
            authority.is_current_at(&issued.certificate, user, purpose, made + after)
        };
        assert!(current("x", &purpose, Duration::ZERO));
        assert!(current("x", &purpose, YEAR * 6 / 10));
        assert!(!current("x", &purpose, YEAR * 7 / 10));
        assert!(!current("y", &purpose, Duration::ZERO));
        assert!(!current("x", &Purpose::Server { names: vec!["b.example".into()] }, Duration::ZERO));

        let other = Authority::ensure(tempfile::tempdir().unwrap().path()).unwrap();
        assert!(!other.is_current_at(&issued.certificate, "x", &purpose, made));
    }

    #[test]
    fn an_authority_without_its_key_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let first = Authority::ensure(directory.path()).unwrap().pem;
        assert_eq!(Authority::ensure(directory.path()).unwrap().pem, first);
        std::fs::remove_file(directory.path().join("ca.key")).unwrap();
        let Err(error) = Authority::ensure(directory.path()) else { panic!("must fail") };
        assert!(error.to_string().contains("ca.key"), "{error}");
    }
}
