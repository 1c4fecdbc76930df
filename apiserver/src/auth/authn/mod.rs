//! Who a request is from.
//!
//! In upstream's order: the connection's client certificate, then a bearer token (static file, ServiceAccount,
//! bootstrap), then nobody. A credential that is shown and not good is 401, never "nobody". Nobody may
//! ask for health, version and the cluster's authority only; what they may see there, RBAC decides
//! (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/>).

mod bootstrap_tokens;
pub mod static_tokens;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, header};
use parking_lot::Mutex;
use rustls_pki_types::UnixTime;
use sha2::{Digest, Sha256};

use self::static_tokens::StaticTokens;
use super::{
    UserInfo,
    tokens::{self, TokenError},
};
use crate::state::Server;

/// What a connection's client certificate came to.
#[derive(Debug, Clone)]
pub enum PeerCertificate {
    /// None was shown.
    None,
    /// Ours.
    Valid {
        /// Whose.
        user: Arc<UserInfo>,
        /// Until when: a connection may outlive its certificate.
        expires: UnixTime,
    },
    /// Shown, and not good; the text is for the log.
    Refused(String),
}

/// Where a request comes from. Only this crate can make one: nothing that is read from a socket turns into
/// [`Origin::InProcess`].
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// The TLS listener.
    Connection(PeerCertificate),
    /// A component in this process, under its own identity.
    InProcess(Arc<UserInfo>),
}

/// Why nobody could be made out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticationError {
    /// No credential at all, where one is needed.
    #[error("no credential was given")]
    Missing,
    /// The client certificate is not good.
    #[error("the client certificate is not valid: {0}")]
    Certificate(String),
    /// The bearer token is not good.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// The store could not be asked.
    #[error("{0}")]
    Store(String),
}

/// Checked tokens are believed for this long without another look, as upstream's token cache does.
const TOKEN_MEMORY: Duration = Duration::from_secs(10);
/// How many checked tokens are remembered: some for each pod of a large node, a hundred bytes each.
const TOKENS_REMEMBERED: usize = 4_096;

/// Tells who a request is from.
pub struct Authenticator {
    static_tokens: StaticTokens,
    anonymous: Arc<UserInfo>,
    /// By digest, so that no token can be read out of memory dumps of this map.
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
}

/// A checked token's user, and until when that is believed.
type Remembered = (Arc<UserInfo>, Instant);

/// Paths that nobody in particular may ask for.
const ANONYMOUS_PATHS: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", CLUSTER_INFO];
/// What a machine that is to join reads before it has anything to show.
const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

impl Authenticator {
    /// An authenticator with the tokens of a file.
    #[must_use]
    pub fn new(static_tokens: StaticTokens) -> Self {
        let anonymous = UserInfo {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..UserInfo::default()
        };
        Self { static_tokens, anonymous: Arc::new(anonymous), remembered: Mutex::default() }
    }

    /// Who a request is from.
    ///
    /// # Errors
    ///
    /// If a credential is not good, or none was given where one is needed.
    pub(crate) async fn authenticate(
        &self,
        server: &Server,
        origin: &Origin,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Arc<UserInfo>, AuthenticationError> {
        let mut refused = None;
        match origin {
            Origin::InProcess(user) => return Ok(Arc::clone(user)),
            Origin::Connection(PeerCertificate::Valid { user, expires }) => {
                if *expires > UnixTime::now() {
                    return Ok(Arc::clone(user));
                }
                refused = Some(AuthenticationError::Certificate("it has expired".to_owned()));
            }
            Origin::Connection(PeerCertificate::Refused(why)) => {
                refused = Some(AuthenticationError::Certificate(why.clone()));
            }
            Origin::Connection(PeerCertificate::None) => {}
        }
        if let Some(token) = bearer_token(headers) {
            return self.remembered_or_checked(server, token).await;
        }
        if let Some(error) = refused {
            return Err(error);
        }
        if is_anonymous_path(path) {
            return Ok(Arc::clone(&self.anonymous));
        }
        Err(AuthenticationError::Missing)
    }

    async fn remembered_or_checked(
        &self,
        server: &Server,
        token: &str,
    ) -> Result<Arc<UserInfo>, AuthenticationError> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let now = Instant::now();
        if let Some((user, until)) = self.remembered.lock().get(&digest)
            && *until > now
        {
            return Ok(Arc::clone(user));
        }
        let (user, _) = self.authenticate_token(server, token, &[]).await?;
        let mut remembered = self.remembered.lock();
        if remembered.len() >= TOKENS_REMEMBERED {
            remembered.retain(|_, (_, until)| *until > now);
            if remembered.len() >= TOKENS_REMEMBERED {
                remembered.clear();
            }
        }
        remembered.insert(digest, (Arc::clone(&user), now + TOKEN_MEMORY));
        Ok(user)
    }

    /// Whose token this is, and for which of the audiences (none: this server's own) it is good.
    ///
    /// # Errors
    ///
    /// If the token is not good.
    pub(crate) async fn authenticate_token(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<(Arc<UserInfo>, Vec<String>), AuthenticationError> {
        let issuer = &server.tokens;
        if let Some(user) = self.static_tokens.find(token) {
            // A static token says nothing of audiences: it is good for this server.
            let own = issuer.audiences();
            let common: Vec<String> = own.iter().filter(|own| audiences.contains(own)).cloned().collect();
            if common.is_empty() && !audiences.is_empty() {
                return Err(TokenError::Audience { token: own.to_vec(), target: audiences.to_vec() }.into());
            }
            return Ok((user, common));
        }
        if !issuer.is_ours(token) {
            let bootstrap = bootstrap_tokens::authenticate(server, token).await;
            let bootstrap = bootstrap.map_err(|status| AuthenticationError::Store(status.message))?;
            // For this server only, as a static token.
            if let Some(user) = bootstrap.filter(|_| audiences.is_empty()) {
                return Ok((Arc::new(user), Vec::new()));
            }
            return Err(TokenError::Invalid("invalid bearer token".to_owned()).into());
        }
        let asked = if audiences.is_empty() { issuer.audiences() } else { audiences };
        let (claims, common) = issuer.verify(token, asked)?;
        let user = tokens::user_of(&server.storage, &claims).await?;
        Ok((Arc::new(user), common))
    }
}

fn is_anonymous_path(path: &str) -> bool {
    ANONYMOUS_PATHS.iter().any(|allowed| {
        path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The token of `Authorization: Bearer …`; the scheme's case does not matter.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
