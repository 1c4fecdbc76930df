//! The scheduling queue: what to try now, what to try after a pause, and what waits for the cluster to change.
//!
//! As upstream's `pkg/scheduler/backend/queue`: *active* by priority and then age; *back-off* from 1 to 10
//! seconds, doubling with each failed attempt; *unschedulable* until something changes that may help, or
//! five minutes have passed. Plain data under a clock that is passed in.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use client::Key;
use tokio::time::Instant;

const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Upstream's `--pod-max-in-unschedulable-pods-duration`.
const MAX_UNSCHEDULABLE: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active,
    Backoff {
        until: Instant,
    },
    Unschedulable {
        since: Instant,
    },
    /// Popped and not yet given back.
    InFlight,
}

impl Place {
    /// When a pod that rests becomes ready by itself.
    fn ready_at(self) -> Option<Instant> {
        match self {
            Self::Backoff { until } => Some(until),
            Self::Unschedulable { since } => Some(since + MAX_UNSCHEDULABLE),
            Self::Active | Self::InFlight => None,
        }
    }
}

#[derive(Debug)]
struct Waiting {
    priority: i32,
    sequence: u64,
    attempts: u32,
    place: Place,
    /// The cluster changed while the pod was being tried: it may not rest.
    moved: bool,
}

/// Pods that wait for a node. Bounded by the pods that exist.
#[derive(Debug, Default)]
pub struct SchedulingQueue {
    pods: HashMap<Key, Waiting>,
    active: BTreeSet<(Reverse<i32>, u64, Key)>,
    sequence: u64,
    /// Not later than the first time at which a resting pod becomes ready by itself: spares every pop a
    /// look at all resting pods.
    earliest: Option<Instant>,
}

impl SchedulingQueue {
    /// Adds a pod that wants a node, or notes that its spec changed (it is tried again at once).
    pub fn add(&mut self, key: &Key, priority: i32) {
        self.sequence += 1;
        let sequence = self.sequence;
        let waiting = self.pods.entry(key.clone()).or_insert_with(|| Waiting {
            priority,
            sequence,
            attempts: 0,
            place: Place::Unschedulable { since: Instant::now() },
            moved: false,
        });
        if waiting.place == Place::InFlight {
            waiting.moved = true;
            return;
        }
        self.activate(key);
    }

    /// Forgets a pod: it has a node or is gone.
    pub fn remove(&mut self, key: &Key) {
        if let Some(waiting) = self.pods.remove(key) {
            self.active.remove(&(Reverse(waiting.priority), waiting.sequence, key.clone()));
        }
        if self.pods.is_empty() {
            self.earliest = None;
        }
    }

    /// Takes the next pod to try.
    pub fn pop(&mut self, now: Instant) -> Option<Key> {
        self.flush(now);
        let (_, _, key) = self.active.pop_first()?;
        if let Some(waiting) = self.pods.get_mut(&key) {
            waiting.place = Place::InFlight;
            waiting.attempts += 1;
            waiting.moved = false;
        }
        Some(key)
    }

    /// Gives back a pod for which there was no place.
    pub fn unschedulable(&mut self, key: &Key, now: Instant) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        waiting.place = if waiting.moved {
            Place::Backoff { until: now + backoff(waiting.attempts) }
        } else {
            Place::Unschedulable { since: now }
        };
        let ready_at = waiting.place.ready_at();
        self.note(ready_at);
    }

    /// Gives back a pod whose attempt failed for another reason (the server did not answer).
    pub fn failed(&mut self, key: &Key, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.place = Place::Backoff { until: now + backoff(waiting.attempts) };
            let ready_at = waiting.place.ready_at();
            self.note(ready_at);
        }
    }

    /// The cluster changed in a way that may help: what is unschedulable is tried after its back-off.
    pub fn cluster_changed(&mut self, now: Instant) {
        for waiting in self.pods.values_mut() {
            match waiting.place {
                Place::Unschedulable { since } => {
                    waiting.place = Place::Backoff { until: since + backoff(waiting.attempts) };
                }
                Place::InFlight => waiting.moved = true,
                Place::Active | Place::Backoff { .. } => {}
            }
        }
        self.earliest = self.first_ready();
        self.flush(now);
    }

    /// When to look again because something may become ready by itself.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        self.earliest
    }

    /// Whether a pod can be taken without waiting.
    #[must_use]
    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    fn flush(&mut self, now: Instant) {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return;
        }
        let is_ready = |waiting: &Waiting| waiting.place.ready_at().is_some_and(|at| at <= now);
        let ready: Vec<Key> =
            self.pods.iter().filter(|(_, waiting)| is_ready(waiting)).map(|(key, _)| key.clone()).collect();
        for key in ready {
            self.activate(&key);
        }
        self.earliest = self.first_ready();
    }

    fn first_ready(&self) -> Option<Instant> {
        self.pods.values().filter_map(|waiting| waiting.place.ready_at()).min()
    }

    fn note(&mut self, ready_at: Option<Instant>) {
        self.earliest = [self.earliest, ready_at].into_iter().flatten().min();
    }

    fn activate(&mut self, key: &Key) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.place = Place::Active;
            self.active.insert((Reverse(waiting.priority), waiting.sequence, key.clone()));
        }
    }
}

fn backoff(attempts: u32) -> Duration {
    INITIAL_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(8)).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[tokio::test(start_paused = true)]
    async fn priority_then_age() {
        let mut queue = SchedulingQueue::default();
        queue.add(&key("old"), 0);
        queue.add(&key("young"), 0);
        queue.add(&key("important"), 100);
        let now = Instant::now();
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(now)).map(|key| key.name.to_string()).collect();
        assert_eq!(order, ["important", "old", "young"]);
    }

    #[tokio::test(start_paused = true)]
    async fn unschedulable_waits_for_a_change_and_backs_off() {
        let mut queue = SchedulingQueue::default();
        queue.add(&key("a"), 0);
        for (attempt, pause) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (6, 10)] {
            let now = Instant::now();
            assert!(queue.pop(now).is_some(), "attempt {attempt}");
            queue.unschedulable(&key("a"), now);
            assert!(queue.pop(now).is_none());
            queue.cluster_changed(now);
            assert!(queue.pop(now).is_none(), "the back-off has not passed");
            assert_eq!(queue.next_wake(), Some(now + Duration::from_secs(pause)));
            tokio::time::advance(Duration::from_secs(pause)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_during_the_attempt_is_not_lost() {
        let mut queue = SchedulingQueue::default();
        queue.add(&key("a"), 0);
        let now = Instant::now();
        assert!(queue.pop(now).is_some());
        queue.cluster_changed(now);
        queue.unschedulable(&key("a"), now);
        assert!(queue.pop(now + Duration::from_secs(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_rests_for_ever() {
        let mut queue = SchedulingQueue::default();
        queue.add(&key("a"), 0);
        let now = Instant::now();
        queue.pop(now);
        queue.unschedulable(&key("a"), now);
        assert!(queue.pop(now + MAX_UNSCHEDULABLE).is_some());
        queue.remove(&key("a"));
        assert_eq!(queue.next_wake(), None);
    }
}
