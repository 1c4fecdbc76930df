//! Which certificate authority a cluster has: said by the server, trusted by its hash.
//!
//! The server publishes it in `kube-public/cluster-info`, as kubeadm does, for everybody to read. The hash is
//! kubeadm's `--discovery-token-ca-cert-hash`: SHA-256 of the authority's SubjectPublicKeyInfo. Who was given none
//! believes what is signed with the token.

use api_objects::Value;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use client::{
    Client, Error as ClientError,
    bootstrap_token::{SIGNATURE_PREFIX, SIGNED, is_signed},
};
use http::Method;
use sha2::{Digest, Sha256};
use x509_parser::pem::Pem;

use super::JoinError;

const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
/// What a hash begins with; no other is known.
const ALGORITHM: &str = "sha256:";

/// Whom to believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// Whoever it is.
    Anybody,
    /// The authority with one of these hashes, lower case.
    Pinned(Vec<String>),
    /// Whoever knows the token, by its signature: the cluster, and all who have the token too.
    Token {
        /// The token's id.
        id: String,
        /// Its secret.
        secret: String,
    },
}

impl Trust {
    pub(super) fn new(hashes: &[String], anybody: bool, token: &str) -> Result<Self, JoinError> {
        let hashes: Vec<&String> = hashes.iter().filter(|hash| !hash.is_empty()).collect();
        if hashes.is_empty() {
            if anybody {
                return Ok(Self::Anybody);
            }
            let (id, secret) = token
                .split_once('.')
                .ok_or_else(|| JoinError::Invalid("--token is not of the form <id>.<secret>".to_owned()))?;
            return Ok(Self::Token { id: id.to_owned(), secret: secret.to_owned() });
        }
        let read = |hash: &&String| {
            let digits = hash.strip_prefix(ALGORITHM).unwrap_or_default();
            let fits = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            fits.then(|| hash.to_lowercase()).ok_or_else(|| {
                JoinError::Invalid(format!(
                    "{hash:?} is not the hash of a key: expected sha256:<64 hex digits>"
                ))
            })
        };
        Ok(Self::Pinned(hashes.iter().map(read).collect::<Result<_, _>>()?))
    }

    /// Lets the authority pass, or says why not.
    fn check(&self, map: &Value, hash: &str) -> Result<(), JoinError> {
        match self {
            Self::Anybody => Ok(()),
            Self::Pinned(hashes) if hashes.iter().any(|pinned| pinned == hash) => Ok(()),
            Self::Pinned(_) => Err(JoinError::Authority(hash.to_owned())),
            Self::Token { id, secret } => {
                let text = |key: &str| map["data"][key].as_str();
                let signature = text(&format!("{SIGNATURE_PREFIX}{id}"));
                let signature = signature.ok_or_else(|| JoinError::NotSigned(id.clone()))?;
                if is_signed(signature, text(SIGNED).unwrap_or_default(), id, secret) {
                    Ok(())
                } else {
                    Err(JoinError::Signature(id.clone()))
                }
            }
        }
    }
}

/// Where a cluster is, and its authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// URL.
    pub server: String,
    /// PEM.
    pub authority: String,
}

impl ClusterInfo {
    /// Reads the ConfigMap `kube-public/cluster-info`.
    ///
    /// # Errors
    /// In words, what is missing from it.
    pub fn read(config_map: &Value) -> Result<Self, String> {
        let text = config_map["data"]["kubeconfig"].as_str().ok_or("it has no kubeconfig")?;
        let kubeconfig: Value = api_objects::yaml::from_str(text).map_err(|error| error.to_string())?;
        let cluster = &kubeconfig["clusters"][0]["cluster"];
        let encoded = cluster["certificate-authority-data"].as_str().unwrap_or_default();
        let bytes = STANDARD.decode(encoded).map_err(|error| error.to_string())?;
        Ok(Self {
            server: cluster["server"].as_str().unwrap_or_default().to_owned(),
            authority: String::from_utf8(bytes).map_err(|error| error.to_string())?,
        })
    }

    /// A client that shows a token, and trusts the authority only.
    pub(super) fn client_with_token(&self, token: &str) -> Result<Client, JoinError> {
        let mut config = kube_config(&self.server)?;
        let roots: Result<Vec<Vec<u8>>, _> = Pem::iter_from_buffer(self.authority.as_bytes())
            .map(|block| block.map(|block| block.contents))
            .collect();
        config.root_cert = Some(roots.map_err(|error| JoinError::ClusterInfo(error.to_string()))?);
        config.auth_info.token = Some(token.to_owned().into());
        let client = Client::from_config(config);
        client.map_err(|source| JoinError::Api { action: "use the cluster's authority", source })
    }
}

/// The URL of a server that was given as host, host:port or URL.
fn url(server: &str) -> String {
    let bare = server.strip_prefix("https://").unwrap_or(server).trim_end_matches('/');
    let has_port = bare.rsplit_once(':').is_some_and(|(host, port)| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']'))
    });
    if has_port { format!("https://{bare}") } else { format!("https://{bare}:6443") }
}

fn kube_config(server: &str) -> Result<kube::Config, JoinError> {
    let parsed =
        server.parse().map_err(|_| JoinError::Invalid(format!("{server:?} is no address of a server")))?;
    let mut config = kube::Config::new(parsed);
    // A proxy of this machine's environment is not meant for the cluster.
    config.proxy_url = None;
    Ok(config)
}

/// SHA-256 of a certificate's public key (SubjectPublicKeyInfo), as `sha256:<hex>`.
///
/// # Errors
/// If the text holds no certificate.
pub fn key_hash(pem: &str) -> Result<String, String> {
    let block = Pem::iter_from_buffer(pem.as_bytes()).next();
    let block = block.ok_or("there is no certificate")?.map_err(|error| error.to_string())?;
    let certificate = block.parse_x509().map_err(|error| error.to_string())?;
    let digest = Sha256::digest(certificate.public_key().raw);
    Ok(digest.iter().fold(ALGORITHM.to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

/// Asks the server for its authority, and trusts it as far as it may be trusted.
pub(super) async fn discover(server: &str, trust: &Trust) -> Result<ClusterInfo, JoinError> {
    let server = url(server);
    let mut config = kube_config(&server)?;
    // Nothing is believed yet, and nothing secret is sent.
    config.accept_invalid_certs = true;
    let failed = |source: ClientError| JoinError::Api { action: "read the server's cluster-info", source };
    let client = Client::from_config(config).map_err(failed)?;
    let answer = client.request(Method::GET, CLUSTER_INFO, None, None).await.map_err(failed)?;
    let map: Value =
        serde_json::from_slice(&answer).map_err(|error| JoinError::ClusterInfo(error.to_string()))?;
    let info = ClusterInfo::read(&map).map_err(JoinError::ClusterInfo)?;
    trust.check(&map, &key_hash(&info.authority).map_err(JoinError::ClusterInfo)?)?;
    // The way that was given leads there; what the server calls itself may not, from here.
    Ok(ClusterInfo { server, ..info })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_given_in_many_ways() {
        for (given, expected) in [
            ("10.0.0.1", "https://10.0.0.1:6443"),
            ("10.0.0.1:7443", "https://10.0.0.1:7443"),
            ("https://server.example/", "https://server.example:6443"),
            ("[::1]:7443", "https://[::1]:7443"),
            ("[::1]", "https://[::1]:6443"),
        ] {
            assert_eq!(url(given), expected);
        }
    }

    #[test]
    fn nobody_is_trusted_without_a_word() {
        assert!(Trust::new(&[], false, "token").is_err());
        assert_eq!(Trust::new(&[], true, "a.b").unwrap(), Trust::Anybody);
        assert!(Trust::new(&["sha256:12".into()], false, "a.b").is_err());
        let hash = format!("sha256:{}", "A".repeat(64));
        let trust = Trust::new(&[hash], true, "a.b").unwrap();
        assert!(trust.check(&Value::Null, &format!("sha256:{}", "a".repeat(64))).is_ok());
        assert!(matches!(trust.check(&Value::Null, "sha256:b"), Err(JoinError::Authority(_))));
    }

    #[test]
    fn who_only_has_a_token_trusts_who_knows_it_too() {
        let trust = Trust::new(&[], false, "abcdef.0123456789abcdef").unwrap();
        let signature = client::bootstrap_token::sign("here", "abcdef", "0123456789abcdef").unwrap();
        let check = |content: &str, key: &str| {
            trust.check(&serde_json::json!({"data": {"kubeconfig": content, key: signature}}), "")
        };
        assert!(check("here", "jws-kubeconfig-abcdef").is_ok());
        assert!(matches!(check("there", "jws-kubeconfig-abcdef"), Err(JoinError::Signature(_))));
        assert!(matches!(check("here", "jws-kubeconfig-other0"), Err(JoinError::NotSigned(_))));
    }

    #[test]
    fn the_hash_is_of_the_key_alone() {
        let key = rcgen::KeyPair::generate().unwrap();
        let hash = |name: &str| {
            let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
            key_hash(&params.self_signed(&key).unwrap().pem()).unwrap()
        };
        assert_eq!(hash("a"), hash("b"));
        assert!(hash("a").starts_with(ALGORITHM) && hash("a").len() == ALGORITHM.len() + 64);
    }
}
