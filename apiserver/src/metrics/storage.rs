//! What the watch cache and the store hold and did, read when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};

use apiserver_storage::{backend::Backend, cacher::CacherStats, embedded::Stats};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use crate::state::Storage;

/// Gauges and counters that are set from the storage's own figures.
#[derive(Default)]
pub(super) struct StorageMetrics {
    revision: Gauge,
    objects: Gauge,
    watchers: Gauge,
    terminated_watchers: Counter,
    cache_resets: Counter,
    live_bytes: Gauge,
    log_bytes: Gauge,
    oldest_revision: Gauge,
    syncs: Counter,
    writes: Counter,
    written_bytes: Counter,
    sync_seconds: Counter<f64, AtomicU64>,
}

impl StorageMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self {
            revision,
            objects,
            watchers,
            terminated_watchers,
            cache_resets,
            live_bytes,
            log_bytes,
            oldest_revision,
            syncs,
            writes,
            written_bytes,
            sync_seconds,
        } = &metrics;
        registry.register(
            "minik8s_watch_cache_revision",
            "The newest revision that the watch cache has",
            revision.clone(),
        );
        registry.register("minik8s_watch_cache_objects", "Objects in the watch cache", objects.clone());
        registry.register("minik8s_watch_cache_watchers", "Watches that are open", watchers.clone());
        registry.register(
            "apiserver_terminated_watchers",
            "Watches that were ended because their reader did not keep up",
            terminated_watchers.clone(),
        );
        registry.register(
            "minik8s_watch_cache_resets",
            "How often the watch cache began anew from a list",
            cache_resets.clone(),
        );
        registry.register(
            "minik8s_store_live_bytes",
            "Bytes of all live entries of the embedded store",
            live_bytes.clone(),
        );
        registry.register(
            "apiserver_storage_size_bytes",
            "Bytes of the store's sealed log on disk",
            log_bytes.clone(),
        );
        registry.register(
            "minik8s_store_oldest_revision",
            "The oldest revision that the embedded store can still show",
            oldest_revision.clone(),
        );
        registry.register("minik8s_store_syncs", "Batches made durable by the embedded store", syncs.clone());
        registry.register(
            "minik8s_store_writes",
            "Writes made durable by the embedded store",
            writes.clone(),
        );
        registry.register(
            "minik8s_store_written_bytes",
            "Bytes written by the embedded store",
            written_bytes.clone(),
        );
        registry.register(
            "minik8s_store_sync_seconds",
            "Time that the embedded store spent on making batches durable",
            sync_seconds.clone(),
        );
        metrics
    }

    pub(super) fn update(&self, storage: &Storage) {
        let CacherStats { items, watchers, slow_watchers, resets } = storage.stats();
        set(&self.revision, storage.revision());
        set(&self.objects, items as u64);
        set(&self.watchers, watchers as u64);
        self.terminated_watchers.inner().store(slow_watchers, Ordering::Relaxed);
        self.cache_resets.inner().store(resets, Ordering::Relaxed);
        let Backend::Embedded(store) = &**storage.store() else { return };
        let Stats {
            oldest_revision,
            live_bytes,
            sealed_bytes,
            batches,
            writes,
            written_bytes,
            sync_time,
            ..
        } = store.stats();
        set(&self.oldest_revision, oldest_revision);
        set(&self.live_bytes, live_bytes);
        set(&self.log_bytes, sealed_bytes);
        self.syncs.inner().store(batches, Ordering::Relaxed);
        self.writes.inner().store(writes, Ordering::Relaxed);
        self.written_bytes.inner().store(written_bytes, Ordering::Relaxed);
        self.sync_seconds.inner().store(sync_time.as_secs_f64().to_bits(), Ordering::Relaxed);
    }
}

fn set(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}
