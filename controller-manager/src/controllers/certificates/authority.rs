//! Makes a certificate out of a request, as upstream's `PermissiveSigningPolicy`.
//!
//! Subject, key and alternative names are taken over as they were asked for, byte for byte where they are copied
//! whole; every other extension is the policy's. The structure is RFC 5280's.

use std::{net::IpAddr, time::Duration};

use api_objects::certificates::SigningRequest;
use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use x509_parser::{
    extensions::ParsedExtension,
    pem::{Pem, parse_x509_pem},
};
use yasna::{
    DERWriter, DERWriterSeq, Tag,
    models::ObjectIdentifier,
    tags::{TAG_GENERALIZEDTIME, TAG_UTCTIME},
};

/// Clocks differ: certificates are good from a little before they were made.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// Certificates that live shorter than this do not end earlier for having begun earlier.
const SHORT: Duration = Duration::from_secs(8 * 3600);
/// From this year on times are written with four digits.
const FOUR_DIGITS_FROM: i16 = 2050;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum SignError {
    /// The authority's certificate is not one.
    #[error("the signing certificate cannot be read: {0}")]
    Certificate(String),
    /// The authority's key is not one.
    #[error("the signing key cannot be used")]
    Key(#[source] rcgen::Error),
    /// Keys of that kind are not known here.
    #[error("signing keys of this kind are not supported: use ECDSA P-256 or P-384, Ed25519 or RSA")]
    Algorithm,
    /// The certificate belongs to another key.
    #[error("the signing certificate and the signing key do not belong together")]
    Pair,
}

/// From when until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Validity {
    /// `lifetime` from `now` on, but not longer than the authority's own certificate.
    pub(super) fn new(now: Timestamp, lifetime: Duration, authority_ends: Timestamp) -> Self {
        let not_before = now - BACKDATE;
        let start = if lifetime < SHORT { now } else { not_before };
        let end =
            SignedDuration::try_from(lifetime).ok().and_then(|lifetime| start.checked_add(lifetime).ok());
        Self { not_before, not_after: end.map_or(authority_ends, |end| end.min(authority_ends)) }
    }
}

/// What is to be signed.
#[derive(Debug)]
pub(super) struct Certificate<'a> {
    pub(super) request: &'a SigningRequest,
    pub(super) usages: &'a [&'a str],
    pub(super) validity: Validity,
}

/// A certificate authority, loaded to sign.
pub(super) struct Authority {
    key: KeyPair,
    /// Its subject, DER.
    subject: Vec<u8>,
    /// Its subject key identifier.
    key_identifier: Option<Vec<u8>>,
    not_after: Timestamp,
}

impl Authority {
    /// Loads certificate and key, PEM.
    pub(super) fn load(certificate: &str, key: &str) -> Result<Self, SignError> {
        let key = KeyPair::from_pem(key).map_err(SignError::Key)?;
        let wrong = |message: String| SignError::Certificate(message);
        let (_, block): (_, Pem) =
            parse_x509_pem(certificate.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let parsed = block.parse_x509().map_err(|error| wrong(error.to_string()))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(SignError::Pair);
        }
        let key_identifier =
            parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
                _ => None,
            });
        let end = Timestamp::from_second(parsed.validity().not_after.timestamp());
        Ok(Self {
            subject: parsed.subject().as_raw().to_vec(),
            key_identifier,
            not_after: end.map_err(|error| wrong(error.to_string()))?,
            key,
        })
    }

    /// When the authority itself ends.
    pub(super) fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Signs; answers PEM.
    pub(super) fn sign(&self, certificate: &Certificate<'_>) -> Result<String, SignError> {
        let algorithm = self.algorithm()?;
        let body = yasna::construct_der(|writer| self.write_body(writer, certificate, &algorithm));
        let signature = self.key.sign(&body).map_err(SignError::Key)?;
        let der = yasna::construct_der(|writer| {
            writer.write_sequence(|sequence| {
                sequence.next().write_der(&body);
                sequence.next().write_der(&algorithm);
                sequence.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(pem("CERTIFICATE", &der))
    }

    /// How the key signs: an AlgorithmIdentifier, DER.
    fn algorithm(&self) -> Result<Vec<u8>, SignError> {
        let known: [(&rcgen::SignatureAlgorithm, &[u64], bool); 4] = [
            (&rcgen::PKCS_ECDSA_P256_SHA256, &[1, 2, 840, 10045, 4, 3, 2], false),
            (&rcgen::PKCS_ECDSA_P384_SHA384, &[1, 2, 840, 10045, 4, 3, 3], false),
            (&rcgen::PKCS_ED25519, &[1, 3, 101, 112], false),
            (&rcgen::PKCS_RSA_SHA256, &[1, 2, 840, 113_549, 1, 1, 11], true),
        ];
        let found = known.into_iter().find(|(algorithm, ..)| *algorithm == self.key.algorithm());
        let (_, identifier, has_null) = found.ok_or(SignError::Algorithm)?;
        Ok(yasna::construct_der(|writer| {
            writer.write_sequence(|sequence| {
                sequence.next().write_oid(&ObjectIdentifier::from_slice(identifier));
                if has_null {
                    sequence.next().write_null();
                }
            });
        }))
    }

    fn write_body(&self, writer: DERWriter<'_>, certificate: &Certificate<'_>, algorithm: &[u8]) {
        let Certificate { request, usages, validity } = certificate;
        writer.write_sequence(|sequence| {
            // Version 3.
            sequence.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
            sequence.next().write_bigint_bytes(&serial(), true);
            sequence.next().write_der(algorithm);
            sequence.next().write_der(&self.subject);
            sequence.next().write_sequence(|sequence| {
                write_time(sequence.next(), validity.not_before);
                write_time(sequence.next(), validity.not_after);
            });
            sequence.next().write_der(&request.subject);
            sequence.next().write_der(&request.public_key);
            sequence.next().write_tagged(Tag::context(3), |writer| {
                writer.write_sequence(|extensions| self.write_extensions(extensions, request, usages));
            });
        });
    }

    fn write_extensions(&self, extensions: &mut DERWriterSeq<'_>, request: &SigningRequest, usages: &[&str]) {
        let (mut bits, mut last) = (0_u8, 0);
        for (usage, bit) in [("digital signature", 0), ("key encipherment", 2)] {
            if usages.contains(&usage) {
                (bits, last) = (bits | 0x80 >> bit, bit + 1);
            }
        }
        if last > 0 {
            write_extension(extensions, &[2, 5, 29, 15], true, |writer| {
                writer.write_bitvec_bytes(&[bits], last);
            });
        }
        write_extension(extensions, &[2, 5, 29, 37], false, |writer| {
            writer.write_sequence(|sequence| {
                for (usage, number) in [("server auth", 1), ("client auth", 2)] {
                    if usages.contains(&usage) {
                        let purpose = ObjectIdentifier::from_slice(&[1, 3, 6, 1, 5, 5, 7, 3, number]);
                        sequence.next().write_oid(&purpose);
                    }
                }
            });
        });
        // No authority: an empty sequence.
        write_extension(extensions, &[2, 5, 29, 19], true, |writer| writer.write_sequence(|_| ()));
        if let Some(identifier) = &self.key_identifier {
            write_extension(extensions, &[2, 5, 29, 35], false, |writer| {
                writer.write_sequence(|sequence| {
                    sequence
                        .next()
                        .write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(identifier));
                });
            });
        }
        let names = alternative_names(request);
        if !names.is_empty() {
            write_extension(extensions, &[2, 5, 29, 17], false, |writer| {
                writer.write_sequence(|sequence| {
                    for (tag, bytes) in names {
                        sequence
                            .next()
                            .write_tagged_implicit(Tag::context(tag), |writer| writer.write_bytes(&bytes));
                    }
                });
            });
        }
    }
}

/// The names with their tags: `rfc822Name [1]`, `dNSName [2]`, `uniformResourceIdentifier [6]`, `iPAddress [7]`.
fn alternative_names(request: &SigningRequest) -> Vec<(u64, Vec<u8>)> {
    let texts = |tag: u64, names: &[String]| -> Vec<(u64, Vec<u8>)> {
        names.iter().map(|name| (tag, name.clone().into_bytes())).collect()
    };
    let mut names = texts(2, &request.dns_names);
    names.extend(texts(1, &request.emails));
    names.extend(request.addresses.iter().map(|address| match address {
        IpAddr::V4(address) => (7, address.octets().to_vec()),
        IpAddr::V6(address) => (7, address.octets().to_vec()),
    }));
    names.extend(texts(6, &request.uris));
    names
}

fn write_extension(
    extensions: &mut DERWriterSeq<'_>,
    identifier: &[u64],
    critical: bool,
    content: impl FnOnce(DERWriter<'_>),
) {
    extensions.next().write_sequence(|sequence| {
        sequence.next().write_oid(&ObjectIdentifier::from_slice(identifier));
        if critical {
            sequence.next().write_bool(true);
        }
        sequence.next().write_bytes(&yasna::construct_der(content));
    });
}

/// `UTCTime` as long as two digits say the year, `GeneralizedTime` after that.
fn write_time(writer: DERWriter<'_>, time: Timestamp) {
    let short = time.to_zoned(jiff::tz::TimeZone::UTC).year() < FOUR_DIGITS_FROM;
    let (tag, form) =
        if short { (TAG_UTCTIME, "%y%m%d%H%M%SZ") } else { (TAG_GENERALIZEDTIME, "%Y%m%d%H%M%SZ") };
    let text = time.strftime(form).to_string();
    writer.write_tagged_implicit(tag, |writer| writer.write_bytes(text.as_bytes()));
}

/// A number that no other certificate has: 127 random bits.
fn serial() -> [u8; 16] {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    bytes
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, IsCa};

    use super::*;

    fn authority() -> (Authority, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let certificate = params.self_signed(&key).unwrap().pem();
        (Authority::load(&certificate, &key.serialize_pem()).unwrap(), certificate)
    }

    #[test]
    fn a_certificate_says_what_was_asked_for_and_is_signed() {
        let (authority, authority_pem) = authority();
        let key = KeyPair::generate().unwrap();
        let names = ["a.example".to_owned(), "10.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names.to_vec()).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:a");
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let request = SigningRequest::parse(pem.as_bytes()).unwrap();
        let now = Timestamp::now();
        let signed = authority
            .sign(&Certificate {
                request: &request,
                usages: &["server auth", "digital signature"],
                validity: Validity::new(now, Duration::from_secs(3600), authority.not_after()),
            })
            .unwrap();

        let (_, authority_block) = parse_x509_pem(authority_pem.as_bytes()).unwrap();
        let authority_certificate = authority_block.parse_x509().unwrap();
        let (_, block) = parse_x509_pem(signed.as_bytes()).unwrap();
        let certificate = block.parse_x509().unwrap();
        certificate.verify_signature(Some(authority_certificate.public_key())).unwrap();
        assert_eq!(certificate.issuer().as_raw(), authority_certificate.subject().as_raw());
        assert_eq!(certificate.subject().as_raw(), request.subject);
        assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
        assert_eq!(certificate.validity().not_after.timestamp(), now.as_second() + 3600);
        assert!(!certificate.is_ca());
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_encipherment() && !usage.key_cert_sign());
        let extended = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && !extended.client_auth);
        let names = certificate.subject_alternative_name().unwrap().unwrap().value;
        assert_eq!(names.general_names.len(), 2);
    }

    #[test]
    fn nothing_outlives_its_authority_and_short_lives_are_whole() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let hour = Duration::from_secs(3600);
        let short = Validity::new(at(1_000), hour, at(1 << 33));
        assert_eq!(short, Validity { not_before: at(700), not_after: at(4_600) });
        let long = Validity::new(at(1_000), hour * 24, at(1 << 33));
        assert_eq!(long, Validity { not_before: at(700), not_after: at(700 + 86_400) });
        assert_eq!(Validity::new(at(1_000), hour, at(2_000)).not_after, at(2_000));
    }

    #[test]
    fn a_foreign_key_is_refused() {
        let (_, certificate) = authority();
        let key = KeyPair::generate().unwrap().serialize_pem();
        assert!(matches!(Authority::load(&certificate, &key), Err(SignError::Pair)));
    }
}
