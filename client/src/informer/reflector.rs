//! List, then watch, for ever: the loop that feeds an informer's store.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api_objects::{Resource, object::ObjectMeta};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::{debug, warn};

use super::{Key, Project, store::Store};
use crate::{Backoff, Client, Error, ListQuery, WatchEvent, WatchEventType};

pub(super) struct Reflector<T> {
    pub(super) client: Client,
    pub(super) resource: Arc<Resource>,
    pub(super) namespace: String,
    pub(super) query: ListQuery,
    pub(super) project: Project<T>,
    pub(super) store: Arc<Store<T>>,
}

#[derive(Deserialize)]
struct List<'a> {
    metadata: ListMeta,
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
}

impl<T: Send + Sync + 'static> Reflector<T> {
    /// Runs until dropped. Errors are waited out; a resource version is kept as long as the server still
    /// serves what follows it.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let mut resume: Option<String> = None;
        loop {
            let version = match resume.take() {
                Some(version) => version,
                None => match self.list().await {
                    Ok(version) => version,
                    Err(error) => {
                        warn!(resource = %self.resource.plural, error = %error, "failed to list; trying again");
                        tokio::time::sleep(backoff.next_delay()).await;
                        continue;
                    }
                },
            };
            match self.follow(version, &mut backoff).await {
                Ok(version) => resume = Some(version),
                Err((error, _)) if error.is_expired() => {
                    debug!(resource = %self.resource.plural, "watch history is gone; listing anew");
                }
                Err((error, version)) => {
                    debug!(resource = %self.resource.plural, error = %error, "watch broke; resuming");
                    resume = Some(version);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    async fn list(&self) -> Result<String, Error> {
        let path = self.resource.collection_path(&self.namespace);
        let query = self.query.to_query();
        let path = if query.is_empty() { path } else { format!("{path}?{query}") };
        let body = self.client.request(http::Method::GET, &path, None, None).await?;
        let list: List<'_> =
            serde_json::from_slice(&body).map_err(|error| Error::Decode(error.to_string()))?;
        let mut objects = BTreeMap::new();
        for item in list.items {
            if let Some((key, _, object)) = self.read(item.get().as_bytes()) {
                objects.insert(key, object);
            }
        }
        self.store.replace(objects);
        self.store.mark_synced();
        Ok(list.metadata.resource_version)
    }

    /// Follows one watch; answers where to resume after it ended by itself.
    async fn follow(&self, mut version: String, backoff: &mut Backoff) -> Result<String, (Error, String)> {
        let mut events = match self.client.watch(&self.resource, &self.namespace, &self.query, &version).await
        {
            Ok(events) => events,
            Err(error) => return Err((error, version)),
        };
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    backoff.reset();
                    if let Some(seen) = self.apply(&event) {
                        version = seen;
                    }
                }
                Err(error) => return Err((error, version)),
            }
        }
        Ok(version)
    }

    /// Applies an event; answers the resource version that has been seen with it.
    fn apply(&self, event: &WatchEvent) -> Option<String> {
        if event.kind == WatchEventType::Bookmark {
            return Some(ObjectMeta::from_bytes(&event.object).resource_version);
        }
        let (key, meta, object) = self.read(&event.object)?;
        let object = (event.kind != WatchEventType::Deleted).then_some(object);
        self.store.set(&key, object.as_ref());
        Some(meta.resource_version)
    }

    fn read(&self, bytes: &[u8]) -> Option<(Key, ObjectMeta, Arc<T>)> {
        let meta = ObjectMeta::from_bytes(bytes);
        let key = Key::new(&meta.namespace, &meta.name);
        let Some(object) = (self.project)(bytes, &meta) else {
            warn!(resource = %self.resource.plural, %key, "object cannot be read; left out");
            return None;
        };
        Some((key, meta, Arc::new(object)))
    }
}
