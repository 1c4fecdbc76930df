//! Leases for entries with a time to live, shared by entries that are written about the same time.
//!
//! An event per second would be a lease per second, and leases are dear in etcd: as upstream
//! (`storage/etcd3/lease_manager.go`) a lease is granted for a twentieth (at most a minute) longer than asked
//! for, and serves every entry that is written meanwhile, up to a thousand.

use std::{collections::HashMap, time::Duration};

use etcd_client::{Error, LeaseClient};
use tokio::{sync::Mutex, time::Instant};

/// How many entries share a lease at most: when it ends, etcd deletes all of them in one go.
const ENTRIES: usize = 1000;
/// The longest that a lease is handed out for.
const LONGEST_REUSE: Duration = Duration::from_mins(1);

/// Hands out leases.
pub(super) struct Leases {
    client: LeaseClient,
    /// By time to live in seconds. An asynchronous lock: whoever comes while a lease is being granted waits
    /// for it instead of asking for another.
    current: Mutex<HashMap<u64, Lease>>,
}

struct Lease {
    id: i64,
    until: Instant,
    entries: usize,
}

impl Leases {
    pub(super) fn new(client: LeaseClient) -> Self {
        Self { client, current: Mutex::default() }
    }

    /// What is left of a lease; `None` if it has ended.
    pub(super) async fn left(&self, id: i64) -> Result<Option<Duration>, Error> {
        let answer = self.client.clone().time_to_live(id, None).await?;
        Ok(u64::try_from(answer.ttl()).ok().map(Duration::from_secs))
    }

    /// A lease that lasts at least `ttl` from now.
    pub(super) async fn get(&self, ttl: Duration) -> Result<i64, Error> {
        // Rounded up, and one more for the time that the write itself takes.
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0) + 1;
        let reuse = (ttl / 20).min(LONGEST_REUSE);
        let mut current = self.current.lock().await;
        let now = Instant::now();
        current.retain(|_, lease| lease.until > now && lease.entries < ENTRIES);
        if let Some(lease) = current.get_mut(&seconds) {
            lease.entries += 1;
            return Ok(lease.id);
        }
        let granted = i64::try_from(seconds + reuse.as_secs()).unwrap_or(i64::MAX);
        let id = self.client.clone().grant(granted, None).await?.id();
        if reuse >= Duration::from_secs(1) {
            let until = now + Duration::from_secs(reuse.as_secs());
            current.insert(seconds, Lease { id, until, entries: 1 });
        }
        Ok(id)
    }
}
