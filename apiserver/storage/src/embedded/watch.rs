//! Who follows the store, and what they are told.
//!
//! A watch is joined under the same lock under which the writer publishes: what happened before comes from
//! the history, what happens after through the watcher's feed, and nothing falls between or comes twice.
//! A watcher whose feed is full is ended; the writer never waits.

use std::sync::Arc;

use super::state::History;
use crate::{
    feed::{Feed, feed},
    store::{Event, Revision, StoreError, WatchMessage, WatchStream},
};

/// Events of one message when history is replayed: large enough to be cheap, small enough that a reader
/// gets to other work in between.
const REPLAY_CHUNK: usize = 512;

/// The history and those who follow it. Lives under one lock; see the module's documentation.
pub(crate) struct Hub {
    pub(crate) history: History,
    watchers: Vec<Watcher>,
    /// Set when the store has ended: why nobody can join any more.
    ended: Option<StoreError>,
}

struct Watcher {
    prefix: Box<str>,
    /// Events up to here are not for this watcher (it asked to begin in the future).
    after: Revision,
    progress: bool,
    feed: Feed<WatchMessage>,
}

impl Hub {
    pub(crate) fn new(history: History) -> Self {
        Self { history, watchers: Vec::new(), ended: None }
    }

    /// Begins a watch. `current` is the published revision, `limit` the events that a reader may lag.
    pub(crate) fn join(
        &mut self,
        prefix: &str,
        after: Revision,
        progress: bool,
        current: Revision,
        limit: usize,
    ) -> Result<WatchStream, StoreError> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        let oldest = self.history.floor();
        if after < oldest {
            return Err(StoreError::Compacted { asked: after, oldest });
        }
        let (feed, tail) = feed(limit);
        let past: Vec<Arc<Event>> =
            self.history.after(after).filter(|event| event.key.starts_with(prefix)).cloned().collect();
        let mut replay: Vec<_> =
            past.chunks(REPLAY_CHUNK).map(|chunk| WatchMessage::Events(chunk.to_vec())).collect();
        if progress && current > after {
            replay.push(WatchMessage::Progress(current));
        }
        for message in replay {
            // Weightless: the history is bounded by itself, and must not end a reader that has not begun.
            feed.push(message, 0).expect("a weightless message must fit");
        }
        self.watchers.retain(|watcher| !watcher.feed.is_gone());
        self.watchers.push(Watcher { prefix: prefix.into(), after, progress, feed });
        Ok(Box::pin(tail))
    }

    /// Tells everybody of the events of one batch, which bring the store to `revision`.
    pub(crate) fn publish(&mut self, events: &[Arc<Event>], revision: Revision) {
        self.watchers.retain(|watcher| watcher.tell(events, revision));
    }

    /// Ends all watches and lets nobody join any more.
    pub(crate) fn end(&mut self, why: &StoreError) {
        self.ended.get_or_insert_with(|| why.clone());
        for watcher in self.watchers.drain(..) {
            watcher.feed.end(why.clone());
        }
    }

    pub(crate) fn watchers(&self) -> usize {
        self.watchers.iter().filter(|watcher| !watcher.feed.is_gone()).count()
    }
}

impl Watcher {
    /// Answers whether the watcher stays.
    fn tell(&self, events: &[Arc<Event>], revision: Revision) -> bool {
        let mine: Vec<Arc<Event>> = events
            .iter()
            .filter(|event| event.revision > self.after && event.key.starts_with(&*self.prefix))
            .cloned()
            .collect();
        let told = mine.last().map(|event| event.revision);
        let weight = mine.len();
        if weight > 0 && self.feed.push(WatchMessage::Events(mine), weight).is_err() {
            return false;
        }
        if self.progress && revision > self.after && told != Some(revision) {
            return self.feed.push(WatchMessage::Progress(revision), 1).is_ok();
        }
        weight > 0 || !self.feed.is_gone()
    }
}
