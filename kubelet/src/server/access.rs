//! Who may ask this kubelet for what: both questions are put to the API server, and its answers kept for a while.
//!
//! A client shows a certificate of the cluster's authority, whose common name and organisations it is then, or a bearer
//! token, which a TokenReview tells about; nobody else gets any further (upstream with
//! `authentication.anonymous.enabled: false`, `authentication.webhook` and `authorization.mode: Webhook`). What is
//! asked for becomes a verb on a subresource of this node, which a SubjectAccessReview allows or not
//! (<https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/>).

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use api_objects::Value;
use axum::{
    extract::{Extension, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use client::Client;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Failure;
use crate::api;

/// How long a token's owner is remembered (upstream's `authentication.webhook.cacheTTL`).
const TOKEN_TTL: Duration = Duration::from_secs(2 * 60);
/// How long a permission is remembered (upstream's `authorization.webhook.cacheAuthorizedTTL`).
const ALLOWED_TTL: Duration = Duration::from_secs(5 * 60);
/// How long a refusal is remembered (upstream's `cacheUnauthorizedTTL`).
const REFUSED_TTL: Duration = Duration::from_secs(30);
/// Answers that are remembered of each kind. A few clients ask a node for a few things.
const REMEMBERED: usize = 1024;

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct User {
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Whom a certificate names. Whoever has one is authenticated.
    pub(super) fn of_certificate(name: String, mut organisations: Vec<String>) -> Self {
        organisations.push("system:authenticated".to_owned());
        Self { username: name, groups: organisations, ..Self::default() }
    }
}

/// The client of a connection, if it has shown a certificate.
#[derive(Debug, Clone)]
pub(super) struct Peer(pub(super) Option<User>);

/// What is asked for: a verb and the subresources of the node of which one must be allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    user: User,
    verb: &'static str,
    subresource: &'static str,
}

/// Answers for a while, so many and no more.
struct Memory<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    fn recall(&self, key: &K) -> Option<V> {
        let known = self.0.lock();
        let (until, value) = known.get(key)?;
        (*until > Instant::now()).then(|| value.clone())
    }

    fn keep(&self, key: K, value: V, ttl: Duration) {
        let mut known = self.0.lock();
        let now = Instant::now();
        if known.len() >= REMEMBERED {
            known.retain(|_, (until, _)| *until > now);
        }
        if known.len() >= REMEMBERED {
            // Someone asks for more than anyone has use for; the API server tells the rest again.
            known.clear();
        }
        known.insert(key, (now + ttl, value));
    }
}

/// Asks the API server, and remembers.
pub(super) struct Access {
    client: Client,
    node: String,
    /// Owners by the hash of their tokens: no token is kept.
    tokens: Memory<[u8; 32], Option<User>>,
    decisions: Memory<Question, bool>,
}

impl Access {
    pub(super) fn new(client: Client, node: String) -> Self {
        Self { client, node, tokens: Memory::new(), decisions: Memory::new() }
    }

    async fn user(&self, peer: Option<User>, headers: &HeaderMap) -> Result<User, Failure> {
        if let Some(user) = peer {
            return Ok(user);
        }
        let unauthorized = || Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized");
        let token = bearer(headers).ok_or_else(unauthorized)?;
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.recall(&hash) {
            return known.ok_or_else(unauthorized);
        }
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        let answer = self.client.create(api::token_reviews(), "", &review).await.map_err(|error| {
            tracing::warn!("cannot ask whose a token is: {}", client::error::chain(&error));
            unauthorized()
        })?;
        let authenticated = answer["status"]["authenticated"] == true;
        let user = authenticated.then(|| answer["status"]["user"].clone());
        let user: Option<User> = user.and_then(|user: Value| serde_json::from_value(user).ok());
        self.tokens.keep(hash, user.clone(), TOKEN_TTL);
        user.ok_or_else(unauthorized)
    }

    async fn is_allowed(&self, question: Question) -> Result<bool, client::Error> {
        if let Some(known) = self.decisions.recall(&question) {
            return Ok(known);
        }
        let User { username, uid, groups, extra } = &question.user;
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": username, "uid": uid, "groups": groups, "extra": extra,
                "resourceAttributes": {"verb": question.verb, "version": "v1", "resource": "nodes",
                    "subresource": question.subresource, "name": self.node},
            },
        });
        let answer = self.client.create(api::subject_access_reviews(), "", &review).await?;
        let allowed = answer["status"]["allowed"] == true;
        self.decisions.keep(question, allowed, if allowed { ALLOWED_TTL } else { REFUSED_TTL });
        Ok(allowed)
    }
}

/// Lets a request through to its handler if its sender may.
pub(super) async fn guard(
    State(access): State<Arc<Access>>,
    Extension(Peer(peer)): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let user = access.user(peer, request.headers()).await?;
    let verb = verb_of(request.method());
    let subresources = subresources_of(request.uri().path());
    for &subresource in subresources {
        let question = Question { user: user.clone(), verb, subresource };
        match access.is_allowed(question).await {
            Ok(true) => {
                // A handler has no use for a credential.
                request.headers_mut().remove(header::AUTHORIZATION);
                return Ok(next.run(request).await);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    "cannot ask what {:?} may do: {}",
                    user.username,
                    client::error::chain(&error)
                );
                let text = format!(
                    "Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                    user.username
                );
                return Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, text));
            }
        }
    }
    let text = format!(
        "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
        user.username,
        subresources.join(" ")
    );
    Err(Failure::new(StatusCode::FORBIDDEN, text))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        // No role names it, and so nobody but who may do everything is allowed it.
        _ => "",
    }
}

/// The subresources of which one must be allowed: the narrow ones first, `proxy` for everything (v1.36 with
/// `KubeletFineGrainedAuthz`).
fn subresources_of(path: &str) -> &'static [&'static str] {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_asked_for_is_a_subresource_of_the_node() {
        for (path, expected) in [
            ("/stats/summary", &["stats"][..]),
            ("/metrics", &["metrics"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/metricsfoo", &["proxy"]),
            ("/pods", &["pods", "proxy"]),
            ("/healthz", &["healthz", "proxy"]),
            ("/exec/n/p/c", &["proxy"]),
            ("/containerLogs/n/p/c", &["proxy"]),
            ("/", &["proxy"]),
        ] {
            assert_eq!(subresources_of(path), expected, "{path}");
        }
    }

    #[test]
    fn tokens_are_taken_as_bearers_carry_them() {
        let carrying = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(carrying("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(carrying("bearer  abc ").as_deref(), Some("abc"));
        for nothing in ["Basic abc", "Bearer", "Bearer "] {
            assert_eq!(carrying(nothing), None, "{nothing:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_remembered_for_a_while_and_not_without_end() {
        let memory = Memory::new();
        memory.keep(1, "yes", Duration::from_secs(5));
        assert_eq!(memory.recall(&1), Some("yes"));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(memory.recall(&1), None);
        for key in 0..3 * REMEMBERED {
            memory.keep(key, "", Duration::from_secs(60));
            assert!(memory.0.lock().len() <= REMEMBERED);
        }
    }
}
