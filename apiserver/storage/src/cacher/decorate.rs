//! The cache is a [`Store`] too: writes go below, reads and watches come out of memory.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;

use super::{CacheWatchOptions, Cacher, ItemMessage, Projector, resource::resource_prefix};
use crate::store::{
    At, Event, Got, ListOptions, Listing, Revision, Store, StoreError, WatchMessage, WatchStream,
};

impl<P: Projector> Store for Cacher<P> {
    async fn get(&self, key: &str, at: At) -> Result<Got, StoreError> {
        let Some(skip) = resource_prefix(key) else {
            return self.shared.store.get(key, at).await;
        };
        // Through the list of one key, whose answer carries the revision that it belongs to.
        let directly = at == At::Latest && self.shared.store.is_remote();
        if directly || !self.shared.freshen(at).await? {
            return self.shared.store.get(key, at).await;
        }
        let resource = self.shared.resource(&key[..skip]);
        let (items, revision) = match at {
            At::Exact(revision) => match resource.at(revision) {
                Some(items) => (items, revision),
                None => return self.shared.store.get(key, at).await,
            },
            At::Latest | At::NotOlderThan(_) | At::Any => resource.current(self.shared.ingested()),
        };
        Ok(Got { entry: items.get(key).map(|item| Arc::clone(&item.entry)), revision })
    }

    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<Listing, StoreError> {
        let listing = Self::list(self, prefix, options, None).await?;
        let entries = listing.items.iter().map(|item| Arc::clone(&item.entry)).collect();
        Ok(Listing { entries, revision: listing.revision, remaining: listing.remaining })
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, StoreError> {
        self.shared.store.create(key, value, ttl).await
    }

    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, StoreError> {
        self.shared.store.update(key, value, expected, ttl).await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        self.shared.store.delete(key, expected).await
    }

    async fn watch(&self, prefix: &str, after: Revision, progress: bool) -> Result<WatchStream, StoreError> {
        let options = CacheWatchOptions { progress, ..CacheWatchOptions::default() };
        let watch = Self::watch(self, prefix, after, options).await?;
        Ok(Box::pin(watch.map(|message| {
            Ok(match message? {
                ItemMessage::Progress(revision) => WatchMessage::Progress(revision),
                ItemMessage::Events(events) => WatchMessage::Events(
                    events
                        .iter()
                        .map(|event| {
                            let entry = event.item.as_ref().map(|item| Arc::clone(&item.entry));
                            let previous = event.previous.as_ref().map(|item| Arc::clone(&item.entry));
                            Arc::new(Event {
                                revision: event.revision,
                                key: event.key().into(),
                                entry,
                                previous,
                            })
                        })
                        .collect(),
                ),
            })
        })))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.shared.store.current_revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.shared.store.compact(revision).await?;
        // What the store has forgotten is not served from here either.
        for resource in self.shared.resources.read().values() {
            resource.forget(revision);
        }
        self.shared.floor.fetch_max(revision, std::sync::atomic::Ordering::AcqRel);
        Ok(())
    }
}
