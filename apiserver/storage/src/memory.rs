//! The naive store: the contract in its plainest form, in memory.
//!
//! It is the model that the property tests compare every other store with, and the store of tests and
//! throw-away servers. Everything happens under one mutex, and the state at an old revision is rebuilt by
//! replaying history: slow where that makes it obviously right. Nothing is durable.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    feed::{Feed, feed},
    store::{
        At, Entry, Event, FRESHNESS_WAIT, Got, ListOptions, Listing, MAX_VALUE_BYTES, Revision, Store,
        StoreError, WatchMessage, WatchStream,
    },
};

/// How many events a watcher may be behind.
const WATCHER_EVENTS: usize = 65_536;
/// How much history is kept before the older half is forgotten by itself.
const HISTORY_EVENTS: usize = 200_000;

/// The naive store. Cheap to clone; all clones are one store.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Told after every write: reads that wait for a revision look again.
    advanced: Notify,
    /// Ends the timers of entries with a time to live.
    closed: CancellationToken,
    _close_on_drop: DropGuard,
}

type Entries = BTreeMap<Arc<str>, Arc<Entry>>;

#[derive(Debug)]
struct State {
    revision: Revision,
    current: Entries,
    /// The state at `compacted`; `history` leads from it to `current`.
    base: Entries,
    compacted: Revision,
    history: Vec<Arc<Event>>,
    watchers: Vec<Watcher>,
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    after: Revision,
    progress: bool,
    feed: Feed<WatchMessage>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store at revision 0.
    #[must_use]
    pub fn new() -> Self {
        Self::starting_at(0)
    }

    /// An empty store whose first write gets the revision after `revision`.
    #[must_use]
    pub fn starting_at(revision: Revision) -> Self {
        let closed = CancellationToken::new();
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(State {
                    revision,
                    current: Entries::new(),
                    base: Entries::new(),
                    compacted: revision,
                    history: Vec::new(),
                    watchers: Vec::new(),
                }),
                advanced: Notify::new(),
                _close_on_drop: closed.clone().drop_guard(),
                closed,
            }),
        }
    }

    /// Moves the revision to at least `revision` and forgets the history, which does not lead there.
    pub fn raise_revision(&self, revision: Revision) {
        let mut state = self.inner.state.lock();
        if revision > state.revision {
            state.compact(revision);
            state.revision = revision;
        }
        drop(state);
        self.inner.advanced.notify_waiters();
    }

    /// Waits until the store is at least at `revision`.
    async fn wait_for(&self, revision: Revision) -> Result<(), StoreError> {
        let deadline = tokio::time::Instant::now() + FRESHNESS_WAIT;
        loop {
            let advanced = self.inner.advanced.notified();
            let current = self.inner.state.lock().revision;
            if current >= revision {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, advanced).await.is_err() {
                return Err(StoreError::Future { asked: revision, current });
            }
        }
    }

    /// The state that a read asked for, and its revision.
    async fn read<T>(
        &self,
        at: At,
        look: impl FnOnce(&Entries, Revision) -> T + Send,
    ) -> Result<T, StoreError> {
        if let At::NotOlderThan(revision) | At::Exact(revision) = at {
            self.wait_for(revision).await?;
        }
        let state = self.inner.state.lock();
        match at {
            At::Exact(revision) => Ok(look(&state.at(revision)?, revision)),
            At::Latest | At::NotOlderThan(_) | At::Any => Ok(look(&state.current, state.revision)),
        }
    }

    /// Starts the time to live of an entry. One timer per write is wasteful and obviously right.
    fn expire(&self, key: &str, revision: Revision, ttl: Duration) {
        let weak: Weak<Inner> = Arc::downgrade(&self.inner);
        let closed = self.inner.closed.clone();
        let key = key.to_owned();
        tokio::spawn(async move {
            let expired = async {
                tokio::time::sleep(ttl).await;
                if let Some(inner) = weak.upgrade() {
                    // A later write has moved the revision on, and started a timer of its own.
                    let _conflict = Self { inner }.delete(&key, revision).await;
                }
            };
            closed.run_until_cancelled(expired).await;
        });
    }
}

impl State {
    /// The state at an old revision, rebuilt from the oldest one that is kept.
    fn at(&self, revision: Revision) -> Result<Entries, StoreError> {
        if revision < self.compacted {
            return Err(StoreError::Compacted { asked: revision, oldest: self.compacted });
        }
        let mut entries = self.base.clone();
        for event in self.history.iter().take_while(|event| event.revision <= revision) {
            apply(&mut entries, event);
        }
        Ok(entries)
    }

    /// Checks a write's expectation: `None` is absence.
    fn expect(&self, key: &str, expected: Option<Revision>) -> Result<Option<Arc<Entry>>, StoreError> {
        match (self.current.get(key), expected) {
            (None, None) => Ok(None),
            (Some(entry), None) => Err(StoreError::AlreadyExists(Arc::clone(entry))),
            (Some(entry), Some(expected)) if entry.revision == expected => Ok(Some(Arc::clone(entry))),
            (current, Some(_)) => Err(StoreError::Conflict { key: key.into(), current: current.cloned() }),
        }
    }

    /// Makes a change: the next revision, the state, the history, the watchers.
    fn commit(&mut self, key: &str, value: Option<Bytes>, previous: Option<Arc<Entry>>) -> Revision {
        self.revision += 1;
        let revision = self.revision;
        let key: Arc<str> = previous.as_ref().map_or_else(|| key.into(), |entry| Arc::clone(&entry.key));
        let entry = value.map(|value| Arc::new(Entry { key: Arc::clone(&key), value, revision }));
        let event = Arc::new(Event { revision, key, entry, previous });
        apply(&mut self.current, &event);
        self.history.push(Arc::clone(&event));
        if self.history.len() > HISTORY_EVENTS {
            let middle = self.history[HISTORY_EVENTS / 2].revision;
            self.compact(middle);
        }
        self.watchers.retain(|watcher| {
            if watcher.after >= revision {
                return !watcher.feed.is_gone();
            }
            let message = if event.key.starts_with(&watcher.prefix) {
                WatchMessage::Events(vec![Arc::clone(&event)])
            } else if watcher.progress {
                WatchMessage::Progress(revision)
            } else {
                return !watcher.feed.is_gone();
            };
            watcher.feed.push(message, 1).is_ok()
        });
        revision
    }

    fn compact(&mut self, revision: Revision) {
        let kept = self.history.partition_point(|event| event.revision <= revision);
        for event in self.history.drain(..kept) {
            apply(&mut self.base, &event);
        }
        self.compacted = self.compacted.max(revision);
    }
}

fn apply(entries: &mut Entries, event: &Event) {
    match &event.entry {
        Some(entry) => entries.insert(Arc::clone(&event.key), Arc::clone(entry)),
        None => entries.remove(&event.key),
    };
}

fn check_size(value: &Bytes) -> Result<(), StoreError> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(StoreError::TooLarge { size: value.len(), limit: MAX_VALUE_BYTES });
    }
    Ok(())
}

// === impl Store ===

impl Store for MemoryStore {
    async fn get(&self, key: &str, at: At) -> Result<Got, StoreError> {
        self.read(at, |entries, revision| Got { entry: entries.get(key).cloned(), revision }).await
    }

    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<Listing, StoreError> {
        self.read(options.at, |entries, revision| {
            let mut found: Vec<_> = entries
                .values()
                .filter(|entry| entry.key.starts_with(prefix))
                .filter(|entry| options.after_key.as_deref().is_none_or(|after| &*entry.key > after))
                .cloned()
                .collect();
            let all = found.len();
            found.truncate(options.limit.unwrap_or(usize::MAX));
            Listing { remaining: all - found.len(), entries: found, revision }
        })
        .await
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, StoreError> {
        check_size(&value)?;
        let revision = {
            let mut state = self.inner.state.lock();
            state.expect(key, None)?;
            state.commit(key, Some(value), None)
        };
        self.inner.advanced.notify_waiters();
        if let Some(ttl) = ttl {
            self.expire(key, revision, ttl);
        }
        Ok(revision)
    }

    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, StoreError> {
        check_size(&value)?;
        let revision = {
            let mut state = self.inner.state.lock();
            let previous = state.expect(key, Some(expected))?;
            state.commit(key, Some(value), previous)
        };
        self.inner.advanced.notify_waiters();
        if let Some(ttl) = ttl {
            self.expire(key, revision, ttl);
        }
        Ok(revision)
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        let revision = {
            let mut state = self.inner.state.lock();
            let previous = state.expect(key, Some(expected))?;
            state.commit(key, None, previous)
        };
        self.inner.advanced.notify_waiters();
        Ok(revision)
    }

    async fn watch(&self, prefix: &str, after: Revision, progress: bool) -> Result<WatchStream, StoreError> {
        let mut state = self.inner.state.lock();
        if after < state.compacted {
            return Err(StoreError::Compacted { asked: after, oldest: state.compacted });
        }
        let (feed, tail) = feed(WATCHER_EVENTS);
        let past: Vec<_> = state
            .history
            .iter()
            .filter(|event| event.revision > after && event.key.starts_with(prefix))
            .cloned()
            .collect();
        if !past.is_empty() {
            let weight = past.len();
            feed.push(WatchMessage::Events(past), weight).expect("an empty queue must take a message");
        }
        if progress && state.revision > after {
            // Weightless: it must not count against a reader that has not begun.
            feed.push(WatchMessage::Progress(state.revision), 0).expect("a weightless message must fit");
        }
        state.watchers.push(Watcher { prefix: prefix.to_owned(), after, progress, feed });
        Ok(Box::pin(tail))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        Ok(self.inner.state.lock().revision)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let mut state = self.inner.state.lock();
        if revision > state.revision {
            return Err(StoreError::Future { asked: revision, current: state.revision });
        }
        if revision > state.compacted {
            state.compact(revision);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    testing::conformance!(async { Box::new(MemoryStore::new()) });

    #[tokio::test]
    async fn an_idle_watch_is_told_of_progress() {
        testing::watches::an_idle_watch_is_told_of_progress(&MemoryStore::new()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn expires_on_time_and_not_before() {
        let store = MemoryStore::new();
        store.create("/a", Bytes::new(), Some(Duration::from_secs(60))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(59_999)).await;
        assert!(store.get("/a", At::Latest).await.unwrap().entry.is_some());
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(store.get("/a", At::Latest).await.unwrap().entry.is_none());
    }
}
