//! Deletes bootstrap tokens once they have expired.
//!
//! As upstream's `pkg/controller/bootstrap/tokencleaner.go`. An expired token is refused from its moment on; this
//! only takes its Secret away.

use std::{sync::Arc, time::Duration};

use api_objects::{Resource, Value, object::ObjectMeta};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use client::{Client, Error, Informer, Key, Scope, WorkQueue};
use jiff::Timestamp;
use serde_json::json;

use super::{Action, Context, Reconciler, feed, resource, spawn_workers, typed};

/// What is kept of a token.
#[derive(Debug, PartialEq, Eq)]
struct TokenView {
    uid: String,
    /// As it stands there; empty for tokens that do not expire.
    expiration: String,
}

impl TokenView {
    fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let secret: Value = typed(bytes)?;
        let encoded = secret["data"]["expiration"].as_str().unwrap_or_default();
        let expiration = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        Some(Self { uid: meta.uid.clone(), expiration: expiration.unwrap_or_default() })
    }

    /// How long the token is still good; `None` for ever. A time that cannot be read counts as past.
    fn left(&self, now: Timestamp) -> Option<Duration> {
        if self.expiration.is_empty() {
            return None;
        }
        let end: Option<Timestamp> = self.expiration.parse().ok();
        Some(end.and_then(|end| Duration::try_from(end.duration_since(now)).ok()).unwrap_or_default())
    }
}

/// The controller. Keys are Secrets.
pub struct TokenCleaner {
    client: Client,
    secrets_resource: Arc<Resource>,
    tokens: Informer<TokenView>,
}

/// Starts the controller.
pub fn start(context: &Context) {
    let secrets_resource = resource("", "v1", "secrets");
    let scope = Scope {
        namespace: "kube-system".into(),
        field_selector: "type=bootstrap.kubernetes.io/token".into(),
        ..Scope::default()
    };
    let tokens = context.informers.watch(&secrets_resource, &scope, TokenView::project);
    let cleaner =
        Arc::new(TokenCleaner { client: context.client.clone(), secrets_resource, tokens: tokens.clone() });
    let queue: Arc<WorkQueue<Key>> = Arc::new(WorkQueue::new());
    feed(context, &tokens, &queue, |change| vec![change.key.clone()]);
    spawn_workers(context, &cleaner, &queue, 1);
}

impl Reconciler for TokenCleaner {
    type Key = Key;
    const NAME: &'static str = "token-cleaner";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        let token = self.tokens.get(key);
        let Some((token, left)) =
            token.and_then(|token| Some((token.clone(), token.left(Timestamp::now())?)))
        else {
            return Ok(Action::AwaitChange);
        };
        if !left.is_zero() {
            return Ok(Action::RequeueAfter(left));
        }
        let options = json!({"preconditions": {"uid": token.uid}});
        match self.client.delete(&self.secrets_resource, &key.namespace, &key.name, &options).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(Action::AwaitChange),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_nonsense_is_past() {
        let left = |expiration: &str| {
            TokenView { uid: String::new(), expiration: expiration.into() }.left(Timestamp::UNIX_EPOCH)
        };
        assert_eq!(left(""), None);
        assert_eq!(left("1970-01-01T00:01:00Z"), Some(Duration::from_secs(60)));
        assert_eq!(left("1969-01-01T00:01:00Z"), Some(Duration::ZERO));
        assert_eq!(left("tomorrow"), Some(Duration::ZERO));
    }
}
