//! The stores that a server can be started on, as one type.
//!
//! The set is closed, so this is an enum and not a trait object: the calls stay static and the cache above
//! needs no type parameter for what is below it.

use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::{
    embedded::EmbeddedStore,
    etcd::EtcdStore,
    memory::MemoryStore,
    store::{At, Entry, Got, ListOptions, Listing, Revision, Store, StoreError, WatchStream},
};

/// One of the stores.
#[derive(Debug)]
pub enum Backend {
    /// In memory; nothing is durable.
    Memory(MemoryStore),
    /// In a directory of this machine.
    Embedded(EmbeddedStore),
    /// On an etcd cluster.
    Etcd(Box<EtcdStore>),
}

impl Backend {
    /// Whether a watch of this store tells how far it is soon after [`Backend::request_progress`], so that
    /// a cache that follows it can answer consistent reads. Without, such reads go to the store itself.
    #[must_use]
    pub fn tells_progress(&self) -> bool {
        match self {
            Self::Memory(_) | Self::Embedded(_) => true,
            Self::Etcd(store) => store.tells_progress(),
        }
    }

    /// Asks the store to tell its watches how far they are.
    pub fn request_progress(&self) {
        match self {
            // These tell of every advance unasked.
            Self::Memory(_) | Self::Embedded(_) => {}
            Self::Etcd(store) => store.request_progress(),
        }
    }

    /// Cancelled when the store has failed for good, so that the process must end; `None` for a store that
    /// cannot.
    #[must_use]
    pub fn failed(&self) -> Option<CancellationToken> {
        match self {
            Self::Memory(_) | Self::Etcd(_) => None,
            Self::Embedded(store) => Some(store.poisoned()),
        }
    }

    /// Makes sure that the next write gets a revision after `revision`. For moving a cluster here, before any
    /// API server runs on it.
    ///
    /// # Errors
    /// As any write.
    pub async fn raise_revision(&self, revision: Revision) -> Result<(), StoreError> {
        match self {
            Self::Memory(store) => {
                store.raise_revision(revision);
                Ok(())
            }
            Self::Embedded(store) => store.raise_revision(revision).await,
            Self::Etcd(store) => Box::pin(store.raise_revision(revision)).await,
        }
    }

    /// How long an entry still lives; `None` for one without a time to live.
    ///
    /// # Errors
    /// As any read.
    pub async fn ttl_left(&self, entry: &Entry) -> Result<Option<Duration>, StoreError> {
        match self {
            // Its timers are tasks that know nothing of the entries.
            Self::Memory(_) => Ok(None),
            Self::Embedded(store) => Ok(store.ttl_left(entry)),
            Self::Etcd(store) => Box::pin(store.ttl_left(entry)).await,
        }
    }

    /// Ends what the store has running, after what is being written.
    pub async fn close(&self) {
        match self {
            Self::Memory(_) => {}
            Self::Embedded(store) => store.close().await,
            Self::Etcd(store) => store.close().await,
        }
    }

    /// Whether a read of one key costs no more here than learning how far the store is: then a cache need
    /// not be asked to catch up for it.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Etcd(_))
    }
}

/// Calls the same method of whichever store it is.
macro_rules! each {
    ($backend:expr, $store:ident => $call:expr) => {
        match $backend {
            Backend::Memory($store) => $call.await,
            Backend::Embedded($store) => $call.await,
            // Boxed: a network client's future is many times as large as the others', and every layer above would
            // carry and move that size, whichever store it is.
            Backend::Etcd($store) => Box::pin($call).await,
        }
    };
}

impl Store for Backend {
    async fn get(&self, key: &str, at: At) -> Result<Got, StoreError> {
        each!(self, store => store.get(key, at))
    }

    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<Listing, StoreError> {
        each!(self, store => store.list(prefix, options))
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, StoreError> {
        each!(self, store => store.create(key, value, ttl))
    }

    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, StoreError> {
        each!(self, store => store.update(key, value, expected, ttl))
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        each!(self, store => store.delete(key, expected))
    }

    async fn watch(&self, prefix: &str, after: Revision, progress: bool) -> Result<WatchStream, StoreError> {
        each!(self, store => store.watch(prefix, after, progress))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        each!(self, store => store.current_revision())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        each!(self, store => store.compact(revision))
    }
}
