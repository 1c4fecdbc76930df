//! One resource in the cache: its items, its recent events, its watchers.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use parking_lot::RwLock;
use tokio::time::Instant;

use super::{
    Item, ItemEvent,
    ring::{Ring, RingOptions},
    sorted::Sorted,
    watchers::{Scope, Watcher, Watchers},
};
use crate::store::{Revision, StoreError};

/// How many states are kept for the next pages of lists that have begun.
const PAGED_STATES: usize = 16;
/// How long such a state is kept; upstream's continue tokens live as long (etcd's compaction interval).
const PAGED_AGE: Duration = Duration::from_mins(5);

/// The length of `/registry/<group>/<resource>/` in a key or prefix; `None` if it is not that long.
pub(super) fn resource_prefix(key: &str) -> Option<usize> {
    let rest = key.strip_prefix("/registry/")?;
    let group = rest.find('/')?;
    let resource = rest[group + 1..].find('/')?;
    Some("/registry/".len() + group + 1 + resource + 1)
}

/// One resource.
pub(super) struct Resource<I> {
    state: RwLock<State<I>>,
    /// The length of the resource's prefix in its keys.
    skip: usize,
}

struct State<I> {
    items: Sorted<I>,
    /// The revision of the last event that was applied, or of the list that the items came from.
    last: Revision,
    ring: Ring<I>,
    watchers: Watchers<I>,
    paged: VecDeque<Paged<I>>,
}

/// A state that a list has shown a page of.
struct Paged<I> {
    revision: Revision,
    items: Sorted<I>,
    at: Instant,
}

/// A change before it is known what it replaces.
pub(super) struct Change<I> {
    pub(super) revision: Revision,
    pub(super) key: Arc<str>,
    pub(super) item: Option<Arc<Item<I>>>,
}

impl<I> Resource<I> {
    pub(super) fn new(skip: usize, items: Vec<Arc<Item<I>>>, revision: Revision) -> Self {
        Self {
            state: RwLock::new(State {
                items: Sorted::from_sorted(items),
                last: revision,
                ring: Ring::new(revision),
                watchers: Watchers::default(),
                paged: VecDeque::new(),
            }),
            skip,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<Item<I>>> {
        self.state.read().items.get(key).cloned()
    }

    /// The current state, and the revision that it belongs to: at least `ingested`, up to which every event
    /// has been applied.
    pub(super) fn current(&self, ingested: Revision) -> (Sorted<I>, Revision) {
        let state = self.state.read();
        (state.items.clone(), state.last.max(ingested))
    }

    /// The state at a revision that the cache has reached; `None` if it is no longer known here.
    pub(super) fn at(&self, revision: Revision) -> Option<Sorted<I>> {
        let state = self.state.read();
        if state.last <= revision {
            return Some(state.items.clone());
        }
        if let Some(paged) = state.paged.iter().find(|paged| paged.revision == revision) {
            return Some(paged.items.clone());
        }
        (state.ring.floor() <= revision).then(|| state.ring.undo(state.items.clone(), revision))
    }

    /// Keeps a state for the pages to come.
    pub(super) fn keep_paged(&self, items: Sorted<I>, revision: Revision) {
        let mut state = self.state.write();
        if state.paged.iter().any(|paged| paged.revision == revision) {
            return;
        }
        if state.paged.len() == PAGED_STATES {
            state.paged.pop_front();
        }
        state.paged.push_back(Paged { revision, items, at: Instant::now() });
    }

    /// Applies changes, oldest first, and hands them to the watchers.
    pub(super) fn apply(&self, changes: Vec<Change<I>>, ring: &RingOptions, slow: &AtomicU64) {
        let now = Instant::now();
        let mut state = self.state.write();
        let mut batch = Vec::with_capacity(changes.len());
        for Change { revision, key, item } in changes {
            let previous = match &item {
                Some(item) => state.items.insert(Arc::clone(item)),
                None => state.items.remove(&key),
            };
            if item.is_none() && previous.is_none() {
                continue;
            }
            state.last = revision;
            let event = ItemEvent::new(revision, item, previous);
            state.ring.push(&event, now, ring);
            batch.push(Arc::new(event));
        }
        if !batch.is_empty() {
            state.watchers.deliver(&batch.into(), self.skip, slow);
        }
    }

    /// Puts an event of the time before the items were listed into the ring.
    pub(super) fn remember(&self, event: &ItemEvent<I>, options: &RingOptions) {
        self.state.write().ring.push(event, Instant::now(), options);
    }

    /// Begins the ring earlier: the caller will [`Self::remember`] every event since.
    pub(super) fn begin_history(&self, floor: Revision) {
        self.state.write().ring = Ring::new(floor);
    }

    /// Forgets what was remembered: the history before `floor` did not arrive whole.
    pub(super) fn forget(&self, floor: Revision) {
        let mut state = self.state.write();
        state.ring.forget(floor);
        state.paged.retain(|paged| paged.revision >= floor);
    }

    /// Adds a watcher of everything after `watcher.after`, which the ring must reach back to; answers the
    /// state that the watch begins with.
    pub(super) fn watch(
        &self,
        scope: Scope,
        mut watcher: Watcher<I>,
        ingested: Revision,
    ) -> Result<(), StoreError> {
        let mut state = self.state.write();
        let floor = state.ring.floor();
        if watcher.after < floor && watcher.after < state.last {
            return Err(StoreError::Compacted { asked: watcher.after, oldest: floor });
        }
        let past = state.ring.replay(watcher.after, |event| {
            scope.holds(&event.key()[self.skip..])
                && watcher.interest.as_ref().is_none_or(|interest| interest(event))
        });
        watcher.told = watcher.after;
        if !past.is_empty() {
            let weight = past.len();
            let message = super::ItemMessage::Events(past.into());
            watcher.feed.push(message, weight).expect("an empty queue must take a message");
        }
        let reached = ingested.max(state.last);
        if watcher.progress && reached > watcher.after {
            watcher.told = reached;
            let message = super::ItemMessage::Progress(reached);
            watcher.feed.push(message, 0).expect("a weightless message must fit");
        }
        state.watchers.add(scope, watcher);
        Ok(())
    }

    /// Adds a watcher of everything from now on; answers the state that it begins after.
    pub(super) fn list_and_watch(
        &self,
        scope: Scope,
        mut watcher: Watcher<I>,
        ingested: Revision,
    ) -> (Sorted<I>, Revision) {
        let mut state = self.state.write();
        let revision = state.last.max(ingested);
        watcher.after = revision;
        watcher.told = revision;
        state.watchers.add(scope, watcher);
        (state.items.clone(), revision)
    }

    /// Housekeeping: tells of progress and forgets what is too old.
    pub(super) fn tick(&self, ingested: Revision, ring: &RingOptions) {
        let now = Instant::now();
        let mut state = self.state.write();
        state.watchers.tell(ingested);
        state.ring.expire(now, ring);
        while state.paged.front().is_some_and(|paged| now.duration_since(paged.at) > PAGED_AGE) {
            state.paged.pop_front();
        }
    }

    /// Ends every watch and begins anew from a list.
    pub(super) fn reset(&self, items: Vec<Arc<Item<I>>>, revision: Revision, error: &StoreError) {
        let mut state = self.state.write();
        state.watchers.end(error);
        state.items = Sorted::from_sorted(items);
        state.last = revision;
        state.ring = Ring::new(revision);
        state.paged.clear();
    }

    /// Ends every watch.
    pub(super) fn end(&self, error: &StoreError) {
        self.state.write().watchers.end(error);
    }

    /// How many items, and how many watchers there are.
    pub(super) fn count(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.items.len(), state.watchers.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_the_first_two_segments() {
        let prefix = |key: &'static str| resource_prefix(key).map(|length| &key[..length]);
        assert_eq!(prefix("/registry/core/pods/default/a"), Some("/registry/core/pods/"));
        assert_eq!(prefix("/registry/core/pods/"), Some("/registry/core/pods/"));
        assert_eq!(prefix("/registry/core/nodes/n1"), Some("/registry/core/nodes/"));
        assert_eq!(prefix("/registry/core/pods"), None);
        assert_eq!(prefix("/registry/"), None);
        assert_eq!(prefix("/other/core/pods/"), None);
    }
}
