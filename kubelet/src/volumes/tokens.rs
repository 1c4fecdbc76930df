//! ServiceAccount tokens for projected volumes: requested through the API, renewed in time.
//!
//! A token is renewed once 80 % of its life or 24 hours have passed (`pkg/kubelet/token`). While the server
//! cannot be asked, a token that still holds goes on being used.

use std::{collections::HashMap, time::Duration};

use client::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    api,
    pod::{name, namespace, restart::elapsed, spec, uid},
};

/// Longest that one token is used.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    pod_uid: String,
    audience: String,
    seconds: i64,
}

#[derive(Debug, Clone)]
struct Token {
    text: String,
    issued: Timestamp,
    expires: Timestamp,
}

impl Token {
    /// How long the token goes on being used.
    fn fresh_for(&self, now: Timestamp) -> Duration {
        let life = elapsed(self.issued, self.expires);
        (life * 4 / 5).min(MAX_AGE).saturating_sub(elapsed(self.issued, now))
    }
}

/// Requests and keeps tokens.
pub(crate) struct Tokens {
    client: Client,
    held: Mutex<HashMap<Key, Token>>,
}

impl Tokens {
    /// Requests through `client`.
    #[must_use]
    pub(crate) fn new(client: Client) -> Self {
        Self { client, held: Mutex::default() }
    }

    /// A valid token for a projection of a pod, and when to come back for the next one.
    pub(crate) async fn token(
        &self,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<(String, Duration), String> {
        let key = Key {
            pod_uid: uid(pod).to_owned(),
            audience: projection.audience.clone().unwrap_or_default(),
            seconds: projection.expiration_seconds.unwrap_or(3600),
        };
        let now = Timestamp::now();
        let held = self.held.lock().get(&key).cloned();
        if let Some(token) = &held
            && !token.fresh_for(now).is_zero()
        {
            return Ok((token.text.clone(), token.fresh_for(now)));
        }
        match self.request(pod, &key, now).await {
            Ok(token) => {
                let answer = (token.text.clone(), token.fresh_for(now).max(Duration::from_secs(1)));
                self.held.lock().insert(key, token);
                Ok(answer)
            }
            Err(message) => match held.filter(|token| token.expires > now) {
                Some(token) => {
                    tracing::warn!(
                        pod = name(pod),
                        "cannot renew a token, its old one still holds: {message}"
                    );
                    Ok((token.text, Duration::from_secs(30)))
                }
                None => Err(format!("failed to fetch token: {message}")),
            },
        }
    }

    async fn request(&self, pod: &Pod, key: &Key, now: Timestamp) -> Result<Token, String> {
        let account =
            spec(pod).service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
        let audiences: Vec<&str> =
            Some(key.audience.as_str()).filter(|audience| !audience.is_empty()).into_iter().collect();
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {
                "audiences": audiences, "expirationSeconds": key.seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name(pod), "uid": uid(pod)},
            },
        });
        let answer = self
            .client
            .create_subresource(api::service_accounts(), namespace(pod), account, "token", &body)
            .await
            .map_err(|error| client::error::chain(&error))?;
        let status = |field: &str| answer.pointer(&format!("/status/{field}")).and_then(Value::as_str);
        let text = status("token").ok_or("the server answered without a token")?.to_owned();
        let expires = status("expirationTimestamp").and_then(|time| time.parse().ok()).unwrap_or(now);
        Ok(Token { text, issued: now, expires })
    }

    /// Forgets the tokens of a pod.
    pub(crate) fn forget(&self, pod_uid: &str) {
        self.held.lock().retain(|key, _| key.pod_uid != pod_uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewed_at_four_fifths_of_its_life() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let token = Token { text: "t".into(), issued: at(0), expires: at(3600) };
        assert_eq!(token.fresh_for(at(0)), Duration::from_secs(2880));
        assert_eq!(token.fresh_for(at(2879)), Duration::from_secs(1));
        assert!(token.fresh_for(at(2880)).is_zero());
        let long = Token { expires: at(365 * 86_400), ..token };
        assert_eq!(long.fresh_for(at(0)), MAX_AGE);
    }
}
