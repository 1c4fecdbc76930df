//! Counters of the store, for metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::store::Revision;

/// What the store has done and holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The last published revision.
    pub revision: Revision,
    /// The oldest state that can still be read.
    pub oldest_revision: Revision,
    /// Keys that exist.
    pub entries: usize,
    /// Bytes of their keys and values.
    pub live_bytes: u64,
    /// Watches that are open.
    pub watchers: usize,
    /// Full log segments on disk.
    pub sealed_segments: usize,
    /// Their bytes.
    pub sealed_bytes: u64,
    /// Batches made durable since the store was opened.
    pub batches: u64,
    /// Writes in those batches.
    pub writes: u64,
    /// Bytes written for them.
    pub written_bytes: u64,
    /// Time spent in writing and syncing batches.
    pub sync_time: Duration,
    /// The longest of these.
    pub slowest_sync: Duration,
}

/// Written by the writer only; read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    batches: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    sync_nanos: AtomicU64,
    slowest_sync_nanos: AtomicU64,
}

impl Counters {
    pub(crate) fn batch(&self, writes: usize, bytes: usize, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.batches.fetch_add(1, Relaxed);
        self.writes.fetch_add(writes as u64, Relaxed);
        self.written_bytes.fetch_add(bytes as u64, Relaxed);
        self.sync_nanos.fetch_add(nanos, Relaxed);
        self.slowest_sync_nanos.fetch_max(nanos, Relaxed);
    }

    /// Completes `stats` with the counters.
    pub(crate) fn stats(&self, stats: Stats) -> Stats {
        Stats {
            batches: self.batches.load(Relaxed),
            writes: self.writes.load(Relaxed),
            written_bytes: self.written_bytes.load(Relaxed),
            sync_time: Duration::from_nanos(self.sync_nanos.load(Relaxed)),
            slowest_sync: Duration::from_nanos(self.slowest_sync_nanos.load(Relaxed)),
            ..stats
        }
    }
}
