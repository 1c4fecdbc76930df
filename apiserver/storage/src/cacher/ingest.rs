//! How the cache follows the store: one list, then one watch for as long as it lasts.
//!
//! A watch that breaks is resumed after the last revision that was applied. If that history is gone the
//! cache begins anew from a list, and its own watchers are ended as compacted: they list again, too.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::StreamExt;
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    Item, ItemEvent, PROGRESS_PERIOD, Projector, Shared,
    resource::{Change, Resource, resource_prefix},
};
use crate::store::{Event, ListOptions, Revision, Store, StoreError, WatchMessage, WatchStream};

/// Everything that API objects are stored under.
const ROOT: &str = "/registry/";
/// How long the start waits for the store's retained history before it goes on without.
const HISTORY_WAIT: Duration = Duration::from_secs(2);
/// The first and the longest pause between attempts to reach a store that has gone away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

type ByResource<'a, I> = HashMap<&'a str, Vec<Arc<Item<I>>>>;

impl<P: Projector> Shared<P> {
    /// Reads everything, then the retained history; answers the watch to follow from there.
    pub(super) async fn begin(&self) -> Result<WatchStream, StoreError> {
        let revision = self.read_everything().await?;
        match self.read_history(revision).await {
            Some(stream) => Ok(stream),
            None => self.store.watch(ROOT, revision, true).await,
        }
    }

    /// Replaces whatever is held by a list of the store; answers its revision.
    async fn read_everything(&self) -> Result<Revision, StoreError> {
        let listing = self.store.list(ROOT, &ListOptions::default()).await?;
        let revision = listing.revision;
        let mut groups: ByResource<'_, P::Index> = HashMap::new();
        for entry in &listing.entries {
            if let Some(skip) = resource_prefix(&entry.key) {
                groups.entry(&entry.key[..skip]).or_default().push(self.item(entry));
            }
        }
        let mut resources = self.resources.write();
        let gone = StoreError::Compacted { asked: self.ingested(), oldest: revision };
        for (prefix, resource) in resources.iter() {
            resource.reset(groups.remove(&**prefix).unwrap_or_default(), revision, &gone);
        }
        for (prefix, items) in groups {
            resources.insert(prefix.into(), Arc::new(Resource::new(prefix.len(), items, revision)));
        }
        self.floor.store(revision, Ordering::Release);
        self.advance(revision);
        Ok(revision)
    }

    /// Begins anew while readers are being served: without history, which they could see half filled in.
    async fn begin_anew(&self) -> Result<WatchStream, StoreError> {
        let revision = self.read_everything().await?;
        self.store.watch(ROOT, revision, true).await
    }

    /// Fills the rings with what the store still knows of the time before `revision`, so that watches
    /// resume over a restart. Answers the stream that has arrived at `revision`, if all went well; the cache
    /// is whole without.
    async fn read_history(&self, revision: Revision) -> Option<WatchStream> {
        let mut from = revision.saturating_sub(self.options.history);
        // A store may say at once or in the stream that it does not reach back so far.
        loop {
            match self.read_history_after(from, revision).await {
                Ok(stream) => return Some(stream),
                Err(StoreError::Compacted { oldest, .. }) if from < oldest && oldest < revision => {
                    from = oldest
                }
                Err(error) => {
                    tracing::debug!(%error, from, revision, "went on without the store's history");
                    for resource in self.resources.read().values() {
                        resource.forget(revision);
                    }
                    self.floor.store(revision, Ordering::Release);
                    return None;
                }
            }
        }
    }

    async fn read_history_after(
        &self,
        from: Revision,
        revision: Revision,
    ) -> Result<WatchStream, StoreError> {
        let mut stream = self.store.watch(ROOT, from, true).await?;
        for resource in self.resources.read().values() {
            resource.begin_history(from);
        }
        self.floor.store(from, Ordering::Release);
        let deadline = Instant::now() + HISTORY_WAIT;
        let mut reached = from;
        while reached < revision {
            if Instant::now() >= deadline {
                return Err(StoreError::Unavailable("history did not arrive in time".to_owned()));
            }
            let Ok(message) = tokio::time::timeout(PROGRESS_PERIOD, stream.next()).await else {
                // The last revisions may be of keys that are not watched here: the store has to say so.
                self.store.request_progress();
                continue;
            };
            match message {
                Some(Ok(WatchMessage::Progress(progress))) => {
                    reached = progress;
                    self.advance(progress.max(revision));
                }
                Some(Ok(WatchMessage::Events(events))) => {
                    reached = events.last().map_or(reached, |event| event.revision);
                    let new = events.partition_point(|event| event.revision <= revision);
                    for event in &events[..new] {
                        self.remember(event);
                    }
                    self.ingest(&events[new..]);
                }
                Some(Err(error)) => return Err(error),
                None => return Err(StoreError::Unavailable("the watch was closed".to_owned())),
            }
        }
        Ok(stream)
    }

    /// Puts an event of the past into its ring.
    fn remember(&self, event: &Arc<Event>) {
        let Some(skip) = resource_prefix(&event.key) else {
            return;
        };
        let resource = self.resource(&event.key[..skip]);
        // What is current is shared, so that it is held once.
        let item = event.entry.as_ref().map(|entry| {
            let current = resource.get(&event.key).filter(|item| item.entry.revision == entry.revision);
            current.unwrap_or_else(|| self.item(entry))
        });
        let previous = event.previous.as_ref().map(|entry| self.item(entry));
        resource.remember(&ItemEvent::new(event.revision, item, previous), &self.options.ring);
    }

    /// Follows the store until the cache is stopped.
    pub(super) async fn follow(self: Arc<Self>, stream: WatchStream) {
        let mut stream = Some(stream);
        let mut backoff = BACKOFF.0;
        while !self.stopped.is_cancelled() {
            let mut ended = None;
            if let Some(stream) = stream.take() {
                let Some(error) = self.follow_one(stream).await else {
                    break;
                };
                tracing::debug!(%error, revision = self.ingested(), "the store's watch ended");
                ended = Some(error);
            }
            let resumed = match ended {
                Some(error @ StoreError::Compacted { .. }) => Err(error),
                _ => self.store.watch(ROOT, self.ingested(), true).await,
            };
            let resumed = match resumed {
                Err(StoreError::Compacted { .. }) => {
                    tracing::warn!(revision = self.ingested(), "history is gone; the cache begins anew");
                    self.resets.fetch_add(1, Ordering::Relaxed);
                    self.begin_anew().await
                }
                resumed => resumed,
            };
            match resumed {
                Ok(resumed) => {
                    stream = Some(resumed);
                    backoff = BACKOFF.0;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot follow the store; trying again");
                    let pause = tokio::time::sleep(backoff);
                    let _stopped = self.stopped.run_until_cancelled(pause).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
        let closed = StoreError::Unavailable("the server is shutting down".to_owned());
        for resource in self.resources.read().values() {
            resource.end(&closed);
        }
    }

    /// Follows one watch until it ends (with why) or the cache is stopped (`None`).
    async fn follow_one(&self, mut stream: WatchStream) -> Option<StoreError> {
        let mut tick = tokio::time::interval(self.options.progress_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                biased;
                () = self.stopped.cancelled() => return None,
                _ = tick.tick() => {
                    self.tick();
                    continue;
                }
                message = stream.next() => message,
            };
            match message {
                Some(Ok(WatchMessage::Events(events))) => self.ingest(&events),
                Some(Ok(WatchMessage::Progress(revision))) => self.advance(revision),
                Some(Err(error)) => return Some(error),
                None => return Some(StoreError::Unavailable("the watch was closed".to_owned())),
            }
        }
    }

    fn tick(&self) {
        let ingested = self.ingested();
        for resource in self.resources.read().values() {
            resource.tick(ingested, &self.options.ring);
        }
    }

    /// Applies events, oldest first. Resources are independent, so each takes its part under one lock.
    fn ingest(&self, events: &[Arc<Event>]) {
        let Some(last) = events.last() else {
            return;
        };
        let mut groups: Vec<(&str, Vec<Change<P::Index>>)> = Vec::with_capacity(1);
        for event in events {
            let Some(skip) = resource_prefix(&event.key) else {
                continue;
            };
            let prefix = &event.key[..skip];
            let item = event.entry.as_ref().map(|entry| self.item(entry));
            let change = Change { revision: event.revision, key: Arc::clone(&event.key), item };
            match groups.iter_mut().find(|(other, _)| *other == prefix) {
                Some((_, changes)) => changes.push(change),
                None => groups.push((prefix, vec![change])),
            }
        }
        for (prefix, changes) in groups {
            self.resource(prefix).apply(changes, &self.options.ring, &self.slow_watchers);
        }
        self.advance(last.revision);
    }

    /// Makes it known that everything up to a revision has been applied.
    fn advance(&self, revision: Revision) {
        self.ingested.fetch_max(revision, Ordering::AcqRel);
        self.advanced.notify_waiters();
    }
}
