//! ServiceAccount tokens: JSON Web Tokens that this server signs, checks and publishes the key of.
//!
//! A token names its ServiceAccount and, if it was asked for, the Pod, Secret or Node that it lives with; it
//! is good as long as all of them do (`bound`). Claims are upstream's
//! (`k8s.io/kubernetes/pkg/serviceaccount`,
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>).

mod bound;
mod request;

use api_objects::Value;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

pub(crate) use self::bound::user_of;
pub use self::request::request_token;

/// Where the public key is, below the issuer.
pub(crate) const JWKS_PATH: &str = "/openid/v1/jwks";
/// Where the OpenID discovery document is, below the issuer.
pub(crate) const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// Why tokens cannot be signed.
#[derive(Debug, thiserror::Error)]
#[error("the ServiceAccount signing key is not an ECDSA P-256 key in PKCS#8 PEM: {0}")]
pub struct KeyError(String);

/// Why a token is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not a token of this issuer, signed by its key, within its time.
    #[error("{0}")]
    Invalid(String),
    /// Good, but for somebody else.
    #[error("token audiences {token:?} is invalid for the target audiences {target:?}")]
    Audience {
        /// Whom it is for.
        token: Vec<String>,
        /// Who was asked.
        target: Vec<String>,
    },
    /// What it is bound to is gone or was made anew.
    #[error("{0}")]
    Gone(String),
}

/// An object that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The private claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    /// Of the account.
    pub namespace: String,
    /// The account.
    pub serviceaccount: Reference,
    /// The pod that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The node that it is bound to, or that its pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
}

/// All claims of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whom the token is for.
    pub aud: Vec<String>,
    /// Good until, seconds since the epoch.
    pub exp: i64,
    /// Made at.
    pub iat: i64,
    /// Made by.
    pub iss: String,
    /// Its own name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    /// Good from.
    pub nbf: i64,
    /// `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
}

/// Signs and checks tokens.
pub struct TokenIssuer {
    issuer: String,
    audiences: Vec<String>,
    header: Header,
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
    jwks: String,
}

impl TokenIssuer {
    /// An issuer with its key (PKCS#8 PEM, ECDSA P-256) and the audiences that this server itself answers to.
    ///
    /// # Errors
    ///
    /// If the key is of another kind.
    pub fn new(issuer: &str, audiences: &[String], key_pem: &str) -> Result<Self, KeyError> {
        let key = rcgen::KeyPair::from_pem(key_pem).map_err(|error| KeyError(error.to_string()))?;
        if !key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) {
            return Err(KeyError("it is of another kind".to_owned()));
        }
        let public_pem = key.public_key_pem();
        let to_error = |error: jsonwebtoken::errors::Error| KeyError(error.to_string());
        let signing = EncodingKey::from_ec_pem(key_pem.as_bytes()).map_err(to_error)?;
        let verifying = DecodingKey::from_ec_pem(public_pem.as_bytes()).map_err(to_error)?;
        // The key's name is the digest of its public half, as upstream's.
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(spki(&public_pem)?));
        let mut header = Header::new(Algorithm::ES256);
        header.typ = None;
        header.kid = Some(key_id.clone());
        let mut validation = Validation::new(Algorithm::ES256);
        validation.leeway = 0;
        validation.validate_nbf = true;
        // Audiences are compared below, where the answer can name them.
        validation.validate_aud = false;
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        // An uncompressed point: 4, then x and y of 32 bytes each (SEC 1, 2.3.3).
        let point = key.public_key_raw();
        if point.len() != 65 {
            return Err(KeyError("its public half has an unknown form".to_owned()));
        }
        let jwks = json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
        }]})
        .to_string();
        Ok(Self {
            issuer: issuer.to_owned(),
            audiences: audiences.to_vec(),
            header,
            signing,
            verifying,
            validation,
            jwks,
        })
    }

    /// The audiences that this server itself answers to.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Signs claims.
    ///
    /// # Errors
    ///
    /// If the key refuses to sign.
    pub fn sign(&self, claims: &Claims) -> Result<String, KeyError> {
        jsonwebtoken::encode(&self.header, claims, &self.signing).map_err(|error| KeyError(error.to_string()))
    }

    /// Whether a token says that it is of this issuer. Cheap, and no proof: for choosing who checks it.
    #[must_use]
    pub fn is_ours(&self, token: &str) -> bool {
        #[derive(Deserialize)]
        struct Issuer {
            iss: String,
        }
        let mut parts = token.split('.');
        let (Some(_), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        URL_SAFE_NO_PAD
            .decode(payload)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Issuer>(&bytes).ok())
            .is_some_and(|claims| claims.iss == self.issuer)
    }

    /// The claims of a token that this issuer signed, whose time is now, for one of `audiences` at least;
    /// with the audiences that both have.
    ///
    /// # Errors
    ///
    /// If it is not good, or for somebody else. Whether what it is bound to still lives is another matter.
    pub fn verify(&self, token: &str, audiences: &[String]) -> Result<(Claims, Vec<String>), TokenError> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &self.validation)
            .map_err(|error| TokenError::Invalid(format!("invalid bearer token: {error}")))?
            .claims;
        let common: Vec<String> =
            claims.aud.iter().filter(|audience| audiences.contains(audience)).cloned().collect();
        if common.is_empty() {
            return Err(TokenError::Audience { token: claims.aud, target: audiences.to_vec() });
        }
        let KubernetesClaims { namespace, serviceaccount, .. } = &claims.kubernetes;
        if claims.sub != username(namespace, &serviceaccount.name) {
            return Err(TokenError::Invalid("the token's subject is not its account".to_owned()));
        }
        Ok((claims, common))
    }

    /// The public key, as a JSON Web Key Set.
    #[must_use]
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// The OpenID Connect discovery document.
    #[must_use]
    pub fn discovery(&self, server: std::net::IpAddr, port: u16) -> Value {
        // Whoever verifies tokens finds the key at this server, whatever the issuer is called.
        let address = std::net::SocketAddr::new(server, port);
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("https://{address}{JWKS_PATH}"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

/// `system:serviceaccount:<namespace>:<name>`.
pub(crate) fn username(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// The bytes inside a PEM block.
fn spki(pem: &str) -> Result<Vec<u8>, KeyError> {
    use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
    SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
        .map(|der| der.to_vec())
        .map_err(|error| KeyError(error.to_string()))
}

#[cfg(test)]
mod tests;
