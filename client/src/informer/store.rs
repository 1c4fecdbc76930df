//! The state behind an informer: objects by key, an index, and the merged changes of each subscriber.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
    sync::{Arc, Weak},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use super::{Index, Key};

/// What became of one key since a subscriber last asked.
#[derive(Debug)]
pub struct Change<T> {
    /// Which object.
    pub key: Key,
    /// As the subscriber knew it; `None` if it did not exist.
    pub before: Option<Arc<T>>,
    /// As it is now; `None` if it is gone.
    pub after: Option<Arc<T>>,
}

/// A reader of changes. Dropping it ends the subscription.
pub struct Subscription<T> {
    queue: Arc<ChangeQueue<T>>,
}

impl<T> Subscription<T> {
    /// Waits for changes and takes all that there are.
    pub async fn recv(&mut self) -> Vec<Change<T>> {
        loop {
            let notified = self.queue.changed.notified();
            let changes = self.queue.take();
            if !changes.is_empty() {
                return changes;
            }
            notified.await;
        }
    }
}

/// Bounded by the number of distinct keys: changes of one key are merged.
struct ChangeQueue<T> {
    pending: Mutex<Pending<T>>,
    changed: Notify,
}

struct Pending<T> {
    order: VecDeque<Key>,
    changes: HashMap<Key, Change<T>>,
}

impl<T> ChangeQueue<T> {
    fn new() -> Self {
        let pending = Pending { order: VecDeque::new(), changes: HashMap::new() };
        Self { pending: Mutex::new(pending), changed: Notify::new() }
    }

    fn push(&self, key: &Key, before: Option<&Arc<T>>, after: Option<&Arc<T>>) {
        {
            let mut pending = self.pending.lock();
            if let Some(change) = pending.changes.get_mut(key) {
                change.after = after.cloned();
                return;
            }
            let change = Change { key: key.clone(), before: before.cloned(), after: after.cloned() };
            pending.changes.insert(key.clone(), change);
            pending.order.push_back(key.clone());
        }
        self.changed.notify_one();
    }

    fn take(&self) -> Vec<Change<T>> {
        let mut pending = self.pending.lock();
        let order = std::mem::take(&mut pending.order);
        let mut changes = std::mem::take(&mut pending.changes);
        drop(pending);
        // An object that came and went between two reads leaves nothing to tell.
        order
            .iter()
            .filter_map(|key| changes.remove(key))
            .filter(|change| change.before.is_some() || change.after.is_some())
            .collect()
    }
}

pub(super) struct Store<T> {
    state: RwLock<State<T>>,
    index: Index<T>,
    synced: watch::Sender<bool>,
}

struct State<T> {
    objects: BTreeMap<Key, Arc<T>>,
    by_index: HashMap<String, BTreeSet<Key>>,
    subscribers: Vec<Weak<ChangeQueue<T>>>,
}

impl<T> Store<T> {
    pub(super) fn new(index: Index<T>) -> Self {
        let state = State { objects: BTreeMap::new(), by_index: HashMap::new(), subscribers: Vec::new() };
        Self { state: RwLock::new(state), index, synced: watch::Sender::new(false) }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.state.read().objects.get(key).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    pub(super) fn list(&self, namespace: Option<&str>) -> Vec<(Key, Arc<T>)> {
        let state = self.state.read();
        let copy = |(key, object): (&Key, &Arc<T>)| (key.clone(), object.clone());
        match namespace {
            None => state.objects.iter().map(copy).collect(),
            Some(namespace) => {
                let start = Bound::Included(Key::new(namespace, ""));
                state
                    .objects
                    .range((start, Bound::Unbounded))
                    .take_while(|(key, _)| &*key.namespace == namespace)
                    .map(copy)
                    .collect()
            }
        }
    }

    pub(super) fn by_index(&self, value: &str) -> Vec<(Key, Arc<T>)> {
        let state = self.state.read();
        let keys = state.by_index.get(value).into_iter().flatten();
        keys.filter_map(|key| Some((key.clone(), state.objects.get(key)?.clone()))).collect()
    }

    pub(super) async fn synced(&self) {
        let mut receiver = self.synced.subscribe();
        // The sender lives in this store, so waiting cannot fail while somebody holds it.
        let _ = receiver.wait_for(|synced| *synced).await;
    }

    pub(super) fn has_synced(&self) -> bool {
        *self.synced.borrow()
    }

    pub(super) fn mark_synced(&self) {
        self.synced.send_replace(true);
    }

    pub(super) fn subscribe(&self) -> Subscription<T> {
        let queue = Arc::new(ChangeQueue::new());
        let mut state = self.state.write();
        for (key, object) in &state.objects {
            queue.push(key, None, Some(object));
        }
        state.subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        state.subscribers.push(Arc::downgrade(&queue));
        Subscription { queue }
    }

    /// Sets or removes one object and tells the subscribers.
    pub(super) fn set(&self, key: &Key, object: Option<&Arc<T>>) {
        self.state.write().set(self.index, key, object);
    }

    /// Replaces everything, telling only what differs.
    pub(super) fn replace(&self, objects: BTreeMap<Key, Arc<T>>) {
        let mut state = self.state.write();
        let gone: Vec<Key> =
            state.objects.keys().filter(|key| !objects.contains_key(*key)).cloned().collect();
        for key in gone {
            state.set(self.index, &key, None);
        }
        for (key, object) in objects {
            state.set(self.index, &key, Some(&object));
        }
    }
}

impl<T> State<T> {
    fn set(&mut self, index: Index<T>, key: &Key, object: Option<&Arc<T>>) {
        let before = match object {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(key),
        };
        if before.is_none() && object.is_none() {
            return;
        }
        if let Some(before) = &before {
            for value in index(key, before) {
                if let Some(keys) = self.by_index.get_mut(&value) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.by_index.remove(&value);
                    }
                }
            }
        }
        if let Some(object) = object {
            for value in index(key, object) {
                self.by_index.entry(value).or_default().insert(key.clone());
            }
        }
        for subscriber in self.subscribers.iter().filter_map(Weak::upgrade) {
            subscriber.push(key, before.as_ref(), object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store<u32> {
        Store::new(|_, value| vec![(value % 2).to_string()])
    }

    #[tokio::test]
    async fn changes_of_a_key_are_merged() {
        let store = store();
        let mut subscription = store.subscribe();
        let key = Key::new("ns", "a");
        store.set(&key, Some(&Arc::new(1)));
        store.set(&key, Some(&Arc::new(2)));
        store.set(&Key::new("ns", "came-and-went"), Some(&Arc::new(9)));
        store.set(&Key::new("ns", "came-and-went"), None);
        let changes = subscription.recv().await;
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].before.as_deref(), changes[0].after.as_deref()), (None, Some(&2)));
        store.set(&key, None);
        let changes = subscription.recv().await;
        assert_eq!((changes[0].before.as_deref(), changes[0].after.as_deref()), (Some(&2), None));
    }

    #[test]
    fn index_and_namespaces_follow() {
        let store = store();
        store.set(&Key::new("a", "x"), Some(&Arc::new(1)));
        store.set(&Key::new("b", "y"), Some(&Arc::new(3)));
        assert_eq!(store.by_index("1").len(), 2);
        assert_eq!(store.list(Some("a")).len(), 1);
        store.replace(BTreeMap::from([(Key::new("b", "y"), Arc::new(4))]));
        assert_eq!((store.by_index("1").len(), store.by_index("0").len(), store.len()), (0, 1, 1));
    }
}
