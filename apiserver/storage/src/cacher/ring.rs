//! The recent events of one resource, for watches that resume and reads of the recent past.
//!
//! Bounded by number, bytes and age. It keeps what an event was made of and not the event that watchers
//! shared, so that the encoded frames go as soon as the last watcher has sent them.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Item, ItemEvent, sorted::Sorted};
use crate::store::Revision;

/// How much history a resource keeps.
#[derive(Debug, Clone, Copy)]
pub struct RingOptions {
    /// At most this many events.
    pub max_events: usize,
    /// At most this many bytes of superseded values.
    pub max_bytes: usize,
    /// Older events go.
    pub max_age: Duration,
}

impl Default for RingOptions {
    /// Thousands of events, as upstream's watch cache at its larger sizes, for the five minutes after which
    /// upstream's API server compacts etcd.
    fn default() -> Self {
        Self { max_events: 8_192, max_bytes: 16 << 20, max_age: Duration::from_mins(5) }
    }
}

/// Recent events, oldest first.
#[derive(Debug)]
pub(super) struct Ring<I> {
    events: VecDeque<Past<I>>,
    /// What the events keep alive beyond the current state.
    bytes: usize,
    /// Every event after this revision is here.
    floor: Revision,
}

#[derive(Debug)]
struct Past<I> {
    revision: Revision,
    item: Option<Arc<Item<I>>>,
    previous: Option<Arc<Item<I>>>,
    at: Instant,
}

impl<I> Past<I> {
    fn bytes(&self) -> usize {
        self.previous.as_ref().map_or(0, |item| item.entry.value.len())
    }
}

impl<I> Ring<I> {
    pub(super) fn new(floor: Revision) -> Self {
        Self { events: VecDeque::new(), bytes: 0, floor }
    }

    /// Every event after this revision can be replayed.
    pub(super) fn floor(&self) -> Revision {
        self.floor
    }

    pub(super) fn push(&mut self, event: &ItemEvent<I>, now: Instant, options: &RingOptions) {
        let past = Past {
            revision: event.revision,
            item: event.item.clone(),
            previous: event.previous.clone(),
            at: now,
        };
        self.bytes += past.bytes();
        self.events.push_back(past);
        while self.events.len() > options.max_events || self.bytes > options.max_bytes {
            self.pop();
        }
    }

    /// Forgets what is too old. Called from time to time, so that an idle resource gives its memory back.
    pub(super) fn expire(&mut self, now: Instant, options: &RingOptions) {
        while self.events.front().is_some_and(|past| now.duration_since(past.at) > options.max_age) {
            self.pop();
        }
        if self.events.capacity() > 64 && self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to(self.events.len() * 2);
        }
    }

    /// Forgets every event up to a revision.
    pub(super) fn forget(&mut self, revision: Revision) {
        while self.events.front().is_some_and(|past| past.revision <= revision) {
            self.pop();
        }
        self.floor = self.floor.max(revision);
    }

    fn pop(&mut self) {
        if let Some(past) = self.events.pop_front() {
            self.bytes -= past.bytes();
            // Others of the same revision may follow; a watch from here on skips them all or none.
            self.floor = self.floor.max(past.revision);
        }
    }

    fn after(&self, revision: Revision) -> impl DoubleEndedIterator<Item = &Past<I>> {
        let from = self.events.partition_point(|past| past.revision <= revision);
        self.events.range(from..)
    }

    /// The events after a revision that `wanted` takes, made anew. The caller has compared with the floor.
    pub(super) fn replay(
        &self,
        revision: Revision,
        wanted: impl Fn(&ItemEvent<I>) -> bool,
    ) -> Vec<Arc<ItemEvent<I>>> {
        self.after(revision)
            .map(|past| ItemEvent::new(past.revision, past.item.clone(), past.previous.clone()))
            .filter(wanted)
            .map(Arc::new)
            .collect()
    }

    /// Takes the events after a revision back, newest first, from a state that holds them.
    pub(super) fn undo(&self, mut state: Sorted<I>, revision: Revision) -> Sorted<I> {
        for past in self.after(revision).rev() {
            match (&past.previous, &past.item) {
                (Some(previous), _) => drop(state.insert(Arc::clone(previous))),
                (None, Some(item)) => drop(state.remove(&item.entry.key)),
                (None, None) => {}
            }
        }
        state
    }
}
