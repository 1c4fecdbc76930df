//! What the store holds in memory: the state as a persistent map, and the recent history.
//!
//! The map shares its nodes between versions, so that a snapshot costs two reference counts, lists page over
//! one without copying it, and a checkpoint is written from one while writes go on. A past state is the present
//! one with the events since then undone.

use std::{collections::VecDeque, ops::Bound, sync::Arc, time::Duration};

use rpds::RedBlackTreeMapSync;

use super::record::{Operation, Record};
use crate::store::{Entry, Event, Listing, Revision};

/// The whole state at one revision.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) revision: Revision,
    pub(crate) entries: RedBlackTreeMapSync<Arc<str>, Arc<Entry>>,
    /// When versions with a time to live end (unix ms), by the revision of the version. Holds the superseded
    /// versions that the history still names, too, so that a past state knows its own.
    pub(crate) expiries: RedBlackTreeMapSync<Revision, u64>,
    /// Bytes of all keys and values.
    pub(crate) bytes: u64,
}

impl Snapshot {
    /// Nothing, before the first write.
    pub(crate) fn empty() -> Self {
        Self {
            revision: 0,
            entries: RedBlackTreeMapSync::new_sync(),
            expiries: RedBlackTreeMapSync::new_sync(),
            bytes: 0,
        }
    }

    /// Carries out a durable record; answers the event that it makes.
    pub(crate) fn apply(&mut self, revision: Revision, written_at: u64, record: &Record) -> Option<Event> {
        self.revision = revision;
        let key = Arc::clone(&record.key);
        let (entry, previous) = match record.operation {
            Operation::Put => {
                let entry = Arc::new(Entry { key: Arc::clone(&key), value: record.value.clone(), revision });
                if record.ttl_millis > 0 {
                    self.expiries.insert_mut(revision, written_at.saturating_add(record.ttl_millis));
                }
                let previous = self.put(Arc::clone(&entry));
                (Some(entry), previous)
            }
            Operation::Delete => (None, self.take(&key)),
            Operation::Advance => return None,
        };
        Some(Event { revision, key, entry, previous })
    }

    /// Goes back to the state before an event, which must be the last one of this state.
    pub(crate) fn undo(&mut self, event: &Event) {
        match &event.previous {
            Some(previous) => drop(self.put(Arc::clone(previous))),
            None => drop(self.take(&event.key)),
        }
    }

    /// Sets an entry; answers the one that was there.
    pub(crate) fn put(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let previous = self.entries.get(&entry.key).cloned();
        self.bytes += size(&entry);
        self.bytes -= previous.as_deref().map_or(0, size);
        self.entries.insert_mut(Arc::clone(&entry.key), entry);
        previous
    }

    fn take(&mut self, key: &str) -> Option<Arc<Entry>> {
        let previous = self.entries.get(key).cloned()?;
        self.bytes -= size(&previous);
        self.entries.remove_mut(key);
        Some(previous)
    }

    /// The entries under a prefix, after a key, at most `limit` of them, and how many follow.
    pub(crate) fn list(&self, prefix: &str, after_key: Option<&str>, limit: Option<usize>) -> Listing {
        let begin = match after_key {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let mut under = self
            .entries
            .range::<str, _>((begin, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry);
        let entries = under.by_ref().take(limit.unwrap_or(usize::MAX)).cloned().collect();
        Listing { entries, revision: self.revision, remaining: under.count() }
    }
}

fn size(entry: &Entry) -> u64 {
    (entry.key.len() + entry.value.len()) as u64
}

/// How much history is kept for watches and for reads of past states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryBounds {
    /// Younger events are kept as long as the other two bounds allow.
    pub age: Duration,
    /// At most this many events.
    pub events: usize,
    /// At most this many bytes of superseded values.
    pub bytes: u64,
}

/// The events of the recent past.
pub(crate) struct History {
    /// The oldest state that can still be read; every event after it is held.
    floor: Revision,
    /// Oldest first; revisions ascend without gaps.
    events: VecDeque<Recent>,
    /// What the superseded values of `events` take.
    bytes: u64,
    bounds: HistoryBounds,
}

struct Recent {
    event: Arc<Event>,
    /// Unix milliseconds.
    written_at: u64,
}

impl History {
    pub(crate) fn new(floor: Revision, bounds: HistoryBounds) -> Self {
        Self { floor, events: VecDeque::new(), bytes: 0, bounds }
    }

    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    pub(crate) fn push(&mut self, event: Arc<Event>, written_at: u64) {
        self.bytes += superseded(&event);
        self.events.push_back(Recent { event, written_at });
    }

    /// The events after a revision, oldest first. Meaningful from the floor on.
    pub(crate) fn after(&self, revision: Revision) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        let begin = self.events.partition_point(|recent| recent.event.revision <= revision);
        self.events.range(begin..).map(|recent| &recent.event)
    }

    /// Forgets what the bounds do not hold; `forgotten` learns which versions nobody can ask for any more.
    pub(crate) fn trim(&mut self, now: u64, forgotten: impl FnMut(Revision)) {
        let oldest_kept = now.saturating_sub(u64::try_from(self.bounds.age.as_millis()).unwrap_or(u64::MAX));
        let bounds = self.bounds;
        self.forget_while(forgotten, |recent, count, bytes| {
            recent.written_at < oldest_kept || count > bounds.events || bytes > bounds.bytes
        });
    }

    /// Forgets everything before the state at `floor`.
    pub(crate) fn compact(&mut self, floor: Revision, forgotten: impl FnMut(Revision)) {
        self.forget_while(forgotten, |recent, _, _| recent.event.revision <= floor);
        self.floor = self.floor.max(floor);
    }

    fn forget_while(
        &mut self,
        mut forgotten: impl FnMut(Revision),
        goes: impl Fn(&Recent, usize, u64) -> bool,
    ) {
        while let Some(oldest) = self.events.front()
            && goes(oldest, self.events.len(), self.bytes)
        {
            self.floor = oldest.event.revision;
            self.bytes -= superseded(&oldest.event);
            if let Some(previous) = &oldest.event.previous {
                forgotten(previous.revision);
            }
            self.events.pop_front();
        }
    }
}

/// What keeping an event costs beyond the live state: the version that it replaced, and the event itself.
fn superseded(event: &Event) -> u64 {
    const EVENT_BYTES: u64 = 128;
    EVENT_BYTES + event.previous.as_deref().map_or(0, size)
}
