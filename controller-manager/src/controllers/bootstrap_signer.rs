//! Signs `kube-public/cluster-info` with every bootstrap token that may sign, so that a machine that has nothing but a
//! token can tell whether it talks to the right cluster.
//!
//! As upstream's `pkg/controller/bootstrap/bootstrapsigner.go`. Writes the keys `jws-kubeconfig-…` of that ConfigMap
//! only.

use std::{collections::BTreeMap, sync::Arc};

use api_objects::{Resource, Value, object::ObjectMeta};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use client::{
    Client, Error, Informer, Key, Scope, WorkQueue,
    bootstrap_token::{SIGNATURE_PREFIX, SIGNED, sign},
};
use jiff::Timestamp;

use super::{Action, Context, Reconciler, feed, resource, spawn_workers, typed};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const SECRET_PREFIX: &str = "bootstrap-token-";

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TokenView {
    id: String,
    secret: String,
    /// As it stands there; empty for tokens that do not expire.
    expiration: String,
    /// Whether its Secret is named after it and says that it may sign.
    signs: bool,
}

impl TokenView {
    fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let object: Value = typed(bytes)?;
        let text = |key: &str| {
            let encoded = object["data"][key].as_str().unwrap_or_default();
            STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
        };
        let id = text("token-id");
        let named = meta.name.strip_prefix(SECRET_PREFIX) == Some(&id);
        let signs = named && text("usage-bootstrap-signing") == "true";
        Some(Self { id, secret: text("token-secret"), expiration: text("expiration"), signs })
    }

    /// Upstream's `validateSecretForSigning`.
    fn may_sign(&self, now: Timestamp) -> bool {
        let lives =
            self.expiration.is_empty() || self.expiration.parse().is_ok_and(|end: Timestamp| now < end);
        self.signs && lives && !self.id.is_empty() && !self.secret.is_empty()
    }
}

/// The ConfigMap with the signatures that it should have; `None` if it has them. Pure.
fn signed(map: &Value, tokens: &[Arc<TokenView>], now: Timestamp) -> Option<Value> {
    let data = map["data"].as_object()?;
    let content = data.get(SIGNED)?.as_str()?;
    let mut wanted = BTreeMap::new();
    for token in tokens.iter().filter(|token| token.may_sign(now)) {
        match sign(content, &token.id, &token.secret) {
            Ok(signature) => {
                wanted.insert(format!("{SIGNATURE_PREFIX}{}", token.id), Value::from(signature));
            }
            Err(error) => tracing::warn!(token = token.id, "a bootstrap token cannot sign: {error}"),
        }
    }
    let is_signature = |key: &str| key.starts_with(SIGNATURE_PREFIX);
    let there: BTreeMap<String, Value> = data
        .iter()
        .filter(|(key, _)| is_signature(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if there == wanted {
        return None;
    }
    let mut next = map.clone();
    let data = next["data"].as_object_mut()?;
    data.retain(|key, _| !is_signature(key));
    data.extend(wanted);
    Some(next)
}

/// The controller. The one key is the ConfigMap.
pub struct BootstrapSigner {
    client: Client,
    maps_resource: Arc<Resource>,
    maps: Informer<Value>,
    tokens: Informer<TokenView>,
}

/// Starts the controller.
pub fn start(context: &Context) {
    let maps_resource = resource("", "v1", "configmaps");
    let scope = Scope {
        namespace: NAMESPACE.into(),
        field_selector: format!("metadata.name={NAME}"),
        ..Scope::default()
    };
    let maps = context.informers.watch(&maps_resource, &scope, |bytes, _| typed(bytes));
    let scope = Scope {
        namespace: "kube-system".into(),
        field_selector: "type=bootstrap.kubernetes.io/token".into(),
        ..Scope::default()
    };
    let tokens = context.informers.watch(&resource("", "v1", "secrets"), &scope, TokenView::project);
    let signer = Arc::new(BootstrapSigner {
        client: context.client.clone(),
        maps_resource,
        maps: maps.clone(),
        tokens: tokens.clone(),
    });
    let queue: Arc<WorkQueue<Key>> = Arc::new(WorkQueue::new());
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        // Before all tokens are known, signatures of good ones would be taken away.
        if context.shutdown.run_until_cancelled(tokens.synced()).await.is_none() {
            return;
        }
        feed(&context, &maps, &queue, |change| vec![change.key.clone()]);
        feed(&context, &tokens, &queue, |_| vec![Key::new(NAMESPACE, NAME)]);
        spawn_workers(&context, &signer, &queue, 1);
    });
}

impl Reconciler for BootstrapSigner {
    type Key = Key;
    const NAME: &'static str = "bootstrap-signer";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        let Some(map) = self.maps.get(key) else { return Ok(Action::AwaitChange) };
        let tokens: Vec<_> = self.tokens.list().into_iter().map(|(_, token)| token).collect();
        let Some(next) = signed(&map, &tokens, Timestamp::now()) else { return Ok(Action::AwaitChange) };
        match self.client.update(&self.maps_resource, NAMESPACE, NAME, &next).await {
            // Somebody else wrote meanwhile: what they wrote comes as a change.
            Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(Action::AwaitChange),
        }
    }
}

#[cfg(test)]
mod tests {
    use client::bootstrap_token::is_signed;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_token_that_may_sign_signs_and_no_other() {
        let token = |id: &str, expiration: &str, signs| {
            Arc::new(TokenView {
                id: id.into(),
                secret: "0123456789abcdef".into(),
                expiration: expiration.into(),
                signs,
            })
        };
        let map = json!({"metadata": {"name": NAME, "resourceVersion": "7"},
            "data": {"kubeconfig": "x", "jws-kubeconfig-gone": "y", "other": "z"}});
        let tokens = [
            token("good00", "", true),
            token("later0", "1970-01-01T00:01:00Z", true),
            token("past00", "1969-01-01T00:01:00Z", true),
            token("mute00", "", false),
        ];
        let next = signed(&map, &tokens, Timestamp::UNIX_EPOCH).expect("it has to be written");
        let keys: Vec<&String> = next["data"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["jws-kubeconfig-good00", "jws-kubeconfig-later0", "kubeconfig", "other"]);
        let signature = next["data"]["jws-kubeconfig-good00"].as_str().unwrap();
        assert!(is_signed(signature, "x", "good00", "0123456789abcdef"));
        assert_eq!(next["metadata"], map["metadata"], "at the revision that was read");
        assert_eq!(signed(&next, &tokens, Timestamp::UNIX_EPOCH), None, "once is enough");
        let mut moved = next.clone();
        moved["data"]["kubeconfig"] = json!("elsewhere");
        assert!(
            signed(&moved, &tokens, Timestamp::UNIX_EPOCH).is_some(),
            "other content needs other signatures"
        );
    }

    #[test]
    fn a_secret_that_is_not_named_after_its_token_signs_nothing() {
        let read = |name: &str, usage: &str| {
            let object = json!({"metadata": {"name": name}, "data": {"token-id": STANDARD.encode("abcdef"),
                "token-secret": STANDARD.encode("s"), "usage-bootstrap-signing": STANDARD.encode(usage)}});
            let meta = ObjectMeta::from_value(&object);
            TokenView::project(object.to_string().as_bytes(), &meta).unwrap().may_sign(Timestamp::UNIX_EPOCH)
        };
        assert!(read("bootstrap-token-abcdef", "true"));
        assert!(!read("bootstrap-token-other0", "true"));
        assert!(!read("bootstrap-token-abcdef", "yes"));
    }
}
