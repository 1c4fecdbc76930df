//! Signatures of `kube-public/cluster-info` by bootstrap tokens: who knows a token can tell that a cluster that knows
//! it too has written what is there.
//!
//! As upstream's `k8s.io/cluster-bootstrap/token/jws`: a JSON Web Signature in its compact form without the content
//! (RFC 7515, appendix F), HMAC-SHA256 with the token's secret, its id in the header.

use api_objects::Value;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto, errors::Error};

/// What the keys of signatures in the ConfigMap's data begin with; the token's id follows.
pub const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";
/// The key of what is signed.
pub const SIGNED: &str = "kubeconfig";

/// The header of a token's signatures, encoded.
fn header(id: &str) -> String {
    // In the order in which upstream's library writes it: signatures are compared as text there.
    encode(format!(r#"{{"alg":"HS256","kid":{}}}"#, Value::from(id)).as_bytes())
}

fn encode(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(bytes)
}

fn message(header: &str, content: &str) -> Vec<u8> {
    format!("{header}.{}", encode(content.as_bytes())).into_bytes()
}

/// Signs a text with a token.
///
/// # Errors
/// If the token cannot be a key.
pub fn sign(content: &str, id: &str, secret: &str) -> Result<String, Error> {
    let header = header(id);
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = crypto::sign(&message(&header, content), &key, Algorithm::HS256)?;
    Ok(format!("{header}..{signature}"))
}

/// Whether a signature of a text is that of a token.
#[must_use]
pub fn is_signed(signature: &str, content: &str, id: &str, secret: &str) -> bool {
    let Some((given, signature)) = signature.split_once("..") else { return false };
    let header = header(id);
    let key = DecodingKey::from_secret(secret.as_bytes());
    given == header
        && crypto::verify(signature, &message(&header, content), &key, Algorithm::HS256).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of upstream's own test (`token/jws/jws_test.go`).
    const CONTENT: &str = "Hello from the other side. I must have called a thousand times.";
    const SECRET: &str = "my voice is my passcode";
    const SIGNATURE: &str =
        "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8";

    #[test]
    fn signatures_are_upstreams() {
        assert_eq!(sign(CONTENT, "joshua", SECRET).unwrap(), SIGNATURE);
        assert!(is_signed(SIGNATURE, CONTENT, "joshua", SECRET));
        let cut = &SIGNATURE[..SIGNATURE.len() - 1];
        for (signature, content, id, secret) in [
            (SIGNATURE, "Hello", "joshua", SECRET),
            (SIGNATURE, CONTENT, "joshua", "guess"),
            (SIGNATURE, CONTENT, "other", SECRET),
            (cut, CONTENT, "joshua", SECRET),
            ("", CONTENT, "joshua", SECRET),
            ("eyJhbGciOiJub25lIn0..", CONTENT, "joshua", SECRET),
        ] {
            assert!(!is_signed(signature, content, id, secret), "{signature} {content} {id} {secret}");
        }
    }
}
