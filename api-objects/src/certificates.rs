//! What a certificate signing request asks for, and which ones the signers of Kubernetes take.
//!
//! Read by the API server (validation, admission), the certificate controllers and kubelets, so that all of them
//! mean the same. Upstream: `pkg/apis/certificates/helpers.go`, and
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>.

use std::{collections::BTreeSet, net::IpAddr};

use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    pem::Pem,
    prelude::FromDer,
};

/// Signs certificates with which anybody calls the API server; never approved by itself.
pub const API_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// Signs certificates with which kubelets call the API server.
pub const KUBELET_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signs certificates that kubelets serve with.
pub const KUBELET_SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Of old versions of the API; v1 refuses it.
pub const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// The group of all kubelets.
pub const NODES_GROUP: &str = "system:nodes";
/// What a kubelet's user name begins with; the node's name follows.
pub const NODE_USER_PREFIX: &str = "system:node:";
/// The type of the PEM block.
pub const REQUEST_BLOCK: &str = "CERTIFICATE REQUEST";

/// The usages that a request may name, sorted (`allValidUsages`).
pub const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Why a request cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It is not a PEM block of a request.
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    Block,
    /// Its content is not a request.
    #[error("the certificate request cannot be read: {0}")]
    Content(String),
    /// Who made it does not have the key.
    #[error("the signature of the certificate request is not valid")]
    Signature,
}

/// A PKCS#10 request, its signature checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SigningRequest {
    /// The subject's common name: the user.
    pub common_name: String,
    /// The subject's organizations: the groups.
    pub organizations: Vec<String>,
    /// Alternative names: DNS.
    pub dns_names: Vec<String>,
    /// Alternative names: addresses.
    pub addresses: Vec<IpAddr>,
    /// Alternative names: mail addresses.
    pub emails: Vec<String>,
    /// Alternative names: URIs.
    pub uris: Vec<String>,
    /// The whole subject, DER.
    pub subject: Vec<u8>,
    /// The public key (SubjectPublicKeyInfo), DER.
    pub public_key: Vec<u8>,
}

impl SigningRequest {
    /// Reads a PEM block.
    ///
    /// # Errors
    /// If it is no request, or not signed with its own key.
    pub fn parse(pem: &[u8]) -> Result<Self, RequestError> {
        let block = Pem::iter_from_buffer(pem).next().and_then(Result::ok);
        let block = block.filter(|block| block.label == REQUEST_BLOCK).ok_or(RequestError::Block)?;
        let (rest, request) = X509CertificationRequest::from_der(&block.contents)
            .map_err(|error| RequestError::Content(error.to_string()))?;
        if !rest.is_empty() {
            return Err(RequestError::Content("trailing data".to_owned()));
        }
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        let info = &request.certification_request_info;
        let texts = |found: &mut dyn Iterator<Item = &x509_parser::x509::AttributeTypeAndValue<'_>>| {
            found.filter_map(|value| value.as_str().ok().map(str::to_owned)).collect::<Vec<_>>()
        };
        let mut parsed = Self {
            // As Go reads it: the last one counts.
            common_name: texts(&mut info.subject.iter_common_name()).pop().unwrap_or_default(),
            organizations: texts(&mut info.subject.iter_organization()),
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().try_for_each(|name| parsed.add_name(name))?;
            }
        }
        Ok(parsed)
    }

    fn add_name(&mut self, name: &GeneralName<'_>) -> Result<(), RequestError> {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                let wrong = |_| RequestError::Content(format!("an address of {} bytes", bytes.len()));
                self.addresses.push(address.map_err(wrong)?);
            }
            // Go leaves out names of other kinds, and so they are never in a certificate either.
            _ => {}
        }
        Ok(())
    }

    /// Why this is no request for a kubelet's client certificate; `None` if it is one.
    #[must_use]
    pub fn kubelet_client_problem(&self, usages: &[&str]) -> Option<String> {
        let problem = if self.organizations != [NODES_GROUP] {
            "subject organization is not system:nodes"
        } else if !self.dns_names.is_empty() {
            "DNS subjectAltNames are not allowed"
        } else if !self.emails.is_empty() {
            "Email subjectAltNames are not allowed"
        } else if !self.addresses.is_empty() {
            "IP subjectAltNames are not allowed"
        } else if !self.uris.is_empty() {
            "URI subjectAltNames are not allowed"
        } else if !self.common_name.starts_with(NODE_USER_PREFIX) {
            "subject common name does not begin with system:node:"
        } else {
            return usages_problem(usages, "client auth");
        };
        Some(problem.to_owned())
    }

    /// Why this is no request for a kubelet's serving certificate; `None` if it is one.
    #[must_use]
    pub fn kubelet_serving_problem(&self, usages: &[&str]) -> Option<String> {
        let problem = if self.organizations != [NODES_GROUP] {
            "subject organization is not system:nodes"
        } else if self.dns_names.is_empty() && self.addresses.is_empty() {
            "DNS or IP subjectAltName is required"
        } else if !self.emails.is_empty() {
            "Email subjectAltNames are not allowed"
        } else if !self.uris.is_empty() {
            "URI subjectAltNames are not allowed"
        } else if let Some(problem) = usages_problem(usages, "server auth") {
            return Some(problem);
        } else if !self.common_name.starts_with(NODE_USER_PREFIX) {
            "subject common name does not begin with system:node:"
        } else {
            return None;
        };
        Some(problem.to_owned())
    }
}

/// Kubelets ask for exactly these usages; key encipherment is of use to RSA keys only.
fn usages_problem(usages: &[&str], purpose: &str) -> Option<String> {
    let asked: BTreeSet<&str> = usages.iter().copied().collect();
    let short = BTreeSet::from(["digital signature", purpose]);
    let long = BTreeSet::from(["digital signature", "key encipherment", purpose]);
    let wanted: Vec<&str> = long.iter().copied().collect();
    (asked != short && asked != long).then(|| format!("usages did not match [{}]", wanted.join(" ")))
}

/// Why these are not the usages of a client certificate for the API server; `None` if they are.
#[must_use]
pub fn api_client_usages_problem(usages: &[&str]) -> Option<String> {
    let known = ["digital signature", "key encipherment", "client auth"];
    if let Some(usage) = usages.iter().find(|usage| !known.contains(usage)) {
        return Some(format!("invalid usage for client certificate: {usage}"));
    }
    let missing = !usages.contains(&"client auth");
    missing.then(|| "missing required usage for client certificate: client auth".to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn request(user: &str, group: &str, names: &[&str]) -> SigningRequest {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, user);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        SigningRequest::parse(pem.as_bytes()).unwrap()
    }

    const CLIENT: [&str; 2] = ["client auth", "digital signature"];
    const SERVING: [&str; 3] = ["server auth", "digital signature", "key encipherment"];

    #[test]
    fn kubelets_ask_in_one_way_only() {
        let good = request("system:node:a", "system:nodes", &[]);
        assert_eq!(
            (good.common_name.as_str(), good.kubelet_client_problem(&CLIENT)),
            ("system:node:a", None)
        );
        let problem =
            |request: SigningRequest, usages: &[&str]| request.kubelet_client_problem(usages).unwrap();
        assert_eq!(
            problem(good, &SERVING),
            "usages did not match [client auth digital signature key encipherment]"
        );
        assert_eq!(
            problem(request("system:node:a", "system:masters", &[]), &CLIENT),
            "subject organization is not system:nodes"
        );
        assert_eq!(
            problem(request("admin", "system:nodes", &[]), &CLIENT),
            "subject common name does not begin with system:node:"
        );
        assert_eq!(
            problem(request("system:node:a", "system:nodes", &["10.0.0.1"]), &CLIENT),
            "IP subjectAltNames are not allowed"
        );
        let serving = request("system:node:a", "system:nodes", &["a", "10.0.0.1"]);
        assert_eq!((serving.dns_names.len(), serving.addresses.len()), (1, 1));
        assert_eq!(serving.kubelet_serving_problem(&SERVING), None);
        assert_eq!(
            request("system:node:a", "system:nodes", &[]).kubelet_serving_problem(&SERVING).unwrap(),
            "DNS or IP subjectAltName is required"
        );
    }

    #[test]
    fn only_a_request_with_its_own_signature_is_one() {
        assert_eq!(SigningRequest::parse(b"x"), Err(RequestError::Block));
        let params = CertificateParams::default();
        let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
        let mut der = request.der().to_vec();
        // The last byte is the signature's.
        *der.last_mut().unwrap() ^= 1;
        let pem = x509_parser_pem(&der);
        assert_eq!(SigningRequest::parse(pem.as_bytes()), Err(RequestError::Signature));
    }

    fn x509_parser_pem(der: &[u8]) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};
        format!("-----BEGIN {REQUEST_BLOCK}-----\n{}\n-----END {REQUEST_BLOCK}-----\n", STANDARD.encode(der))
    }

    #[test]
    fn client_usages() {
        assert_eq!(api_client_usages_problem(&CLIENT), None);
        assert_eq!(
            api_client_usages_problem(&["server auth"]).unwrap(),
            "invalid usage for client certificate: server auth"
        );
        assert_eq!(
            api_client_usages_problem(&["digital signature"]).unwrap(),
            "missing required usage for client certificate: client auth"
        );
    }
}
