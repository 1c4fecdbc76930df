//! When entries with a time to live end.
//!
//! An expiry is an ordinary durable delete that the writer makes by itself. The heap is rebuilt from the
//! entries at start; an entry that was written again leaves its old place in the heap behind, which is seen
//! (its revision is not the entry's any more) when its turn comes.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::store::Revision;

/// Unix time that never goes back while the process lives, so that setting the clock neither ends entries
/// early nor keeps them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    wall: u64,
    started: Instant,
}

impl Clock {
    /// Starts from the system's clock, but not before `not_before` (unix ms).
    pub(crate) fn start(not_before: u64) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: millis(wall).max(not_before), started: Instant::now() }
    }

    /// Unix milliseconds, rounded down: what is due by it is due.
    pub(crate) fn now(&self) -> u64 {
        self.wall.saturating_add(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Whole milliseconds, rounded up: an entry never ends early.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The entries that end, soonest first.
#[derive(Debug, Default)]
pub(crate) struct Expiries {
    heap: BinaryHeap<Reverse<(u64, Revision, Arc<str>)>>,
}

impl Expiries {
    /// The version of `key` written at `revision` ends at `at` (unix ms).
    pub(crate) fn push(&mut self, at: u64, revision: Revision, key: Arc<str>) {
        self.heap.push(Reverse((at, revision, key)));
    }

    /// When the next one ends.
    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Takes the next version that has ended.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<(u64, Revision, Arc<str>)> {
        self.next().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse(due)| due)
    }

    /// Forgets the versions that are not live, once they are most of the heap.
    pub(crate) fn tidy(&mut self, live: usize, is_live: impl Fn(&str, Revision) -> bool) {
        const SLACK: usize = 1024;
        if self.heap.len() > 2 * live + SLACK {
            self.heap.retain(|Reverse((_, revision, key))| is_live(key, *revision));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_entries_come_soonest_first_and_never_early() {
        let mut expiries = Expiries::default();
        expiries.push(30, 2, "/b".into());
        expiries.push(10, 1, "/a".into());
        assert_eq!(expiries.pop_due(9), None);
        assert_eq!(expiries.pop_due(29), Some((10, 1, "/a".into())));
        assert_eq!(expiries.pop_due(29), None);
        assert_eq!(expiries.next(), Some(30));
    }

    #[test]
    fn a_renewed_entry_does_not_grow_the_heap_for_ever() {
        let mut expiries = Expiries::default();
        for revision in 0..100_000 {
            expiries.push(revision + 1000, revision, "/lease".into());
            expiries.tidy(1, |_, live| live == revision);
        }
        assert!(expiries.heap.len() < 2000);
    }

    #[test]
    fn part_of_a_millisecond_counts_as_a_whole() {
        assert_eq!(millis(Duration::from_micros(1)), 1);
        assert_eq!(millis(Duration::from_millis(5)), 5);
    }
}
