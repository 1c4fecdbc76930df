//! The work queue: an item is queued at most once, never worked on twice at once, and queued again if it
//! was touched while being worked on.
//!
//! The rules are those of `k8s.io/client-go/util/workqueue`: a *dirty* set (what needs work), a *processing*
//! set (what is being worked on) and a FIFO of what is dirty and not processing. Delayed items wait in a heap
//! by time; failures of an item double its delay from 5 ms to 1000 s, as client-go's controller default.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    hash::Hash,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

const BASE_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(1000);

/// A queue of keys to work on. Bounded by the number of distinct keys.
pub struct WorkQueue<K> {
    /// Short sections only; never held across an await.
    state: Mutex<State<K>>,
    /// Wakes one waiter per change.
    changed: Notify,
}

struct State<K> {
    queue: VecDeque<K>,
    dirty: HashSet<K>,
    processing: HashSet<K>,
    failures: HashMap<K, u32>,
    delayed: BinaryHeap<Reverse<Delayed<K>>>,
    /// The earliest time of each delayed key: later entries of the heap for the same key are stale.
    due: HashMap<K, Instant>,
    sequence: u64,
    shut_down: bool,
}

struct Delayed<K> {
    at: Instant,
    sequence: u64,
    key: K,
}

impl<K> PartialEq for Delayed<K> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}
impl<K> Eq for Delayed<K> {}
impl<K> PartialOrd for Delayed<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Delayed<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl<K: Hash + Eq + Clone> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Hash + Eq + Clone> WorkQueue<K> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                dirty: HashSet::new(),
                processing: HashSet::new(),
                failures: HashMap::new(),
                delayed: BinaryHeap::new(),
                due: HashMap::new(),
                sequence: 0,
                shut_down: false,
            }),
            changed: Notify::new(),
        }
    }

    /// Says that `key` needs work.
    pub fn add(&self, key: K) {
        {
            let mut state = self.state.lock();
            if state.shut_down || !state.add(key) {
                return;
            }
        }
        self.changed.notify_one();
    }

    /// Says that `key` will need work after `delay`; an earlier time that is known already stands.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        {
            let mut state = self.state.lock();
            let at = Instant::now() + delay;
            if state.shut_down || state.due.get(&key).is_some_and(|&due| due <= at) {
                return;
            }
            state.due.insert(key.clone(), at);
            state.sequence += 1;
            let sequence = state.sequence;
            state.delayed.push(Reverse(Delayed { at, sequence, key }));
        }
        self.changed.notify_one();
    }

    /// Says that work on `key` failed: it comes back after a delay that doubles with every failure.
    pub fn add_rate_limited(&self, key: K) {
        let delay = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay = BASE_DELAY.saturating_mul(1_u32 << (*failures).min(18)).min(MAX_DELAY);
            *failures = failures.saturating_add(1);
            delay
        };
        self.add_after(key, delay);
    }

    /// Forgets the failures of `key`.
    pub fn forget(&self, key: &K) {
        self.state.lock().failures.remove(key);
    }

    /// How often work on `key` failed since it was last forgotten.
    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key to work on; [`WorkQueue::done`] must follow. `None` once the queue is shut down and
    /// empty.
    pub async fn get(&self) -> Option<K> {
        loop {
            let notified = self.changed.notified();
            let wait_until = {
                let mut state = self.state.lock();
                let now = Instant::now();
                state.promote_due(now);
                if let Some(key) = state.queue.pop_front() {
                    state.dirty.remove(&key);
                    state.processing.insert(key.clone());
                    let more = !state.queue.is_empty();
                    drop(state);
                    if more {
                        // notify_one stores one permit only: hand the wake-up on.
                        self.changed.notify_one();
                    }
                    return Some(key);
                }
                if state.shut_down {
                    drop(state);
                    self.changed.notify_waiters();
                    return None;
                }
                state.delayed.peek().map(|Reverse(delayed)| delayed.at)
            };
            match wait_until {
                Some(at) => {
                    tokio::select! {
                        () = notified => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => notified.await,
            }
        }
    }

    /// Ends work on `key`; it is queued again if it was added meanwhile.
    pub fn done(&self, key: &K) {
        {
            let mut state = self.state.lock();
            state.processing.remove(key);
            if !state.dirty.contains(key) {
                return;
            }
            state.queue.push_back(key.clone());
        }
        self.changed.notify_one();
    }

    /// Takes no more keys; waiting workers end once the queue is empty.
    pub fn shut_down(&self) {
        {
            let mut state = self.state.lock();
            state.shut_down = true;
            state.delayed.clear();
            state.due.clear();
        }
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// Keys that wait, without delayed ones.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Hash + Eq + Clone> State<K> {
    /// Marks dirty; answers whether the queue grew.
    fn add(&mut self, key: K) -> bool {
        if !self.dirty.insert(key.clone()) || self.processing.contains(&key) {
            return false;
        }
        self.queue.push_back(key);
        true
    }

    fn promote_due(&mut self, now: Instant) {
        while self.delayed.peek().is_some_and(|Reverse(delayed)| delayed.at <= now) {
            let Some(Reverse(Delayed { at, key, .. })) = self.delayed.pop() else { return };
            if self.due.get(&key) == Some(&at) {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_key_is_never_worked_on_twice_at_once() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.get().await, Some("a"));
        queue.add("a");
        assert!(queue.is_empty(), "touched while processing: waits for done");
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("a"));
        queue.done(&"a");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn delays_and_failures_under_virtual_time() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("late", Duration::from_secs(10));
        queue.add_after("late", Duration::from_secs(60));
        assert_eq!(queue.get().await, Some("late"));
        assert_eq!(start.elapsed().as_secs(), 10, "the earlier time stands");
        queue.done(&"late");

        let start = Instant::now();
        for expected in [5_u128, 10, 20, 40] {
            let before = start.elapsed();
            queue.add_rate_limited("bad");
            assert_eq!(queue.get().await, Some("bad"));
            // tokio's timer has a resolution of one millisecond.
            let waited = (start.elapsed() - before).as_millis();
            assert!((expected..=expected + 1).contains(&waited), "waited {waited} ms, not {expected}");
            queue.done(&"bad");
        }
        queue.forget(&"bad");
        assert_eq!(queue.failures(&"bad"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn every_worker_ends_at_shut_down() {
        let queue = Arc::new(WorkQueue::<u32>::new());
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    while let Some(key) = queue.get().await {
                        queue.done(&key)
                    }
                })
            })
            .collect();
        for key in 0..100 {
            queue.add(key);
        }
        queue.shut_down();
        for worker in workers {
            tokio::time::timeout(Duration::from_secs(5), worker).await.unwrap().unwrap();
        }
    }
}
