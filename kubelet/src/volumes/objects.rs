//! ConfigMaps and Secrets as volumes and environments want them: read on demand, kept for a while.
//!
//! The cache only spares repeated reads of one object by many pods (every pod mounts `kube-root-ca.crt`). A
//! caller says how old an answer may be, and a pod that starts asks for a fresh one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api_objects::Value;
use base64::{Engine, prelude::BASE64_STANDARD};
use client::Client;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    api,
    pod::environment::{Data, DataKind},
};

/// Entries that nobody asked for in this time are dropped when the cache is next used.
const FORGET_AFTER: Duration = Duration::from_secs(300);

type Key = (DataKind, String, String);

struct Entry {
    read_at: Instant,
    data: Option<Arc<Data>>,
}

/// Reads data objects through the API, with a cache.
pub(crate) struct Objects {
    client: Client,
    cache: Mutex<HashMap<Key, Entry>>,
}

impl Objects {
    /// Reads through `client`.
    #[must_use]
    pub(crate) fn new(client: Client) -> Self {
        Self { client, cache: Mutex::default() }
    }

    /// The data of an object, `None` if there is no such object; the answer is at most `max_age` old. The
    /// error is the API server's.
    pub(crate) async fn fetch(
        &self,
        kind: DataKind,
        namespace: &str,
        name: &str,
        max_age: Duration,
    ) -> Result<Option<Arc<Data>>, String> {
        let key = (kind, namespace.to_owned(), name.to_owned());
        let now = Instant::now();
        {
            let mut cache = self.cache.lock();
            cache.retain(|_, entry| now - entry.read_at < FORGET_AFTER);
            if let Some(entry) = cache.get(&key)
                && now - entry.read_at < max_age
            {
                return Ok(entry.data.clone());
            }
        }
        let resource = match kind {
            DataKind::ConfigMap => api::config_maps(),
            DataKind::Secret => api::secrets(),
        };
        let data = match self.client.get(resource, namespace, name).await {
            Ok(object) => Some(Arc::new(decode(kind, &object))),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(client::error::chain(&error)),
        };
        self.cache.lock().insert(key, Entry { read_at: now, data: data.clone() });
        Ok(data)
    }

    /// The registry credentials in a Secret of a pod's `imagePullSecrets`, as decoded JSON.
    pub(crate) async fn docker_config(&self, namespace: &str, name: &str) -> Option<Value> {
        let data = self.fetch(DataKind::Secret, namespace, name, Duration::from_secs(60)).await.ok()??;
        if let Some(config) = data.get(".dockerconfigjson") {
            let config: Value = serde_json::from_slice(config).ok()?;
            return config.get("auths").cloned();
        }
        serde_json::from_slice(data.get(".dockercfg")?).ok()
    }
}

/// The bytes by key: a ConfigMap's `data` and `binaryData`, a Secret's `data`.
fn decode(kind: DataKind, object: &Value) -> Data {
    let entries = |field: &str| object.get(field).and_then(Value::as_object).into_iter().flatten();
    let binary = |value: &Value| value.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    let mut data = Data::new();
    match kind {
        DataKind::ConfigMap => {
            for (key, value) in entries("data") {
                data.insert(key.clone(), value.as_str().unwrap_or_default().as_bytes().to_vec());
            }
            data.extend(entries("binaryData").filter_map(|(key, value)| Some((key.clone(), binary(value)?))));
        }
        DataKind::Secret => {
            data.extend(entries("data").filter_map(|(key, value)| Some((key.clone(), binary(value)?))));
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decodes_both_kinds() {
        let map = decode(DataKind::ConfigMap, &json!({"data": {"a": "1"}, "binaryData": {"b": "Mg=="}}));
        assert_eq!(map, [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())].into());
        assert_eq!(decode(DataKind::Secret, &json!({"data": {"k": "djE="}}))["k"], b"v1");
    }
}
