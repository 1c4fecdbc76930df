//! Moving a cluster's state from one store to another.
//!
//! Resource versions never go back: the new store continues above the old one's revision (embedded moves its
//! counter, etcd stores an offset), and its history begins there, so that a client that resumes with an older
//! resource version is told to list anew instead of missing changes.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    backend::Backend,
    store::{At, Entry, ListOptions, Revision, Store, StoreError},
};

/// All of the API server's keys. What a backend stores for itself stands elsewhere.
const EVERYTHING: &str = "/registry/";
/// Entries that are read at a time: bounds memory, not speed.
const PAGE: usize = 1000;
/// Writes under way at a time, so that the new store can take them in batches.
const CONCURRENT_WRITES: usize = 64;

/// Why nothing, or not everything, was moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The target holds something already.
    #[error("the new store is not empty: it holds `{0}`")]
    NotEmpty(Arc<str>),
    /// The old store could not be read.
    #[error("failed to read the old store")]
    Read(#[source] StoreError),
    /// The new store could not be written; it holds a part and must be emptied before it is tried again.
    #[error("failed to write the new store")]
    Write(#[source] StoreError),
}

/// What was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// Number of entries.
    pub entries: usize,
    /// The old store's revision.
    pub from: Revision,
    /// The new store's revision.
    pub to: Revision,
}

/// Copies everything from one store to an empty one. No API server may run on either.
///
/// # Errors
/// If the target is not empty, or either store fails.
pub async fn migrate(from: &Backend, to: &Backend) -> Result<Migrated, MigrateError> {
    let first = ListOptions { limit: Some(1), ..ListOptions::default() };
    if let Some(entry) = to.list(EVERYTHING, &first).await.map_err(MigrateError::Write)?.entries.first() {
        return Err(MigrateError::NotEmpty(Arc::clone(&entry.key)));
    }
    let revision = from.current_revision().await.map_err(MigrateError::Read)?;
    to.raise_revision(revision).await.map_err(MigrateError::Write)?;
    let mut options = ListOptions { at: At::Exact(revision), limit: Some(PAGE), ..ListOptions::default() };
    let mut entries = 0;
    loop {
        let page = from.list(EVERYTHING, &options).await.map_err(MigrateError::Read)?;
        entries += page.entries.len();
        options.after_key = page.entries.last().map(|entry| entry.key.to_string());
        stream::iter(page.entries)
            .map(|entry| copy(from, to, entry))
            .buffer_unordered(CONCURRENT_WRITES)
            .try_collect::<()>()
            .await?;
        if page.remaining == 0 {
            break;
        }
    }
    let reached = to.current_revision().await.map_err(MigrateError::Write)?;
    // Deletions of the old store are not in the new one's history: who resumes before this lists anew.
    to.compact(reached).await.map_err(MigrateError::Write)?;
    Ok(Migrated { entries, from: revision, to: reached })
}

async fn copy(from: &Backend, to: &Backend, entry: Arc<Entry>) -> Result<(), MigrateError> {
    let ttl: Option<Duration> = from.ttl_left(&entry).await.map_err(MigrateError::Read)?;
    to.create(&entry.key, entry.value.clone(), ttl).await.map_err(MigrateError::Write).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        embedded::{EmbeddedStore, Options, RealIo},
        etcd::{EtcdOptions, EtcdStore, tests::EtcdServer},
        memory::MemoryStore,
    };

    fn embedded(dir: &std::path::Path) -> Backend {
        Backend::Embedded(EmbeddedStore::open(dir, &Options::default(), Arc::new(RealIo::default())).unwrap())
    }

    async fn contents(store: &Backend) -> Vec<(String, Bytes)> {
        let listing = store.list(EVERYTHING, &ListOptions::default()).await.unwrap();
        listing.entries.iter().map(|entry| (entry.key.to_string(), entry.value.clone())).collect()
    }

    #[tokio::test]
    async fn to_etcd_and_back_nothing_is_lost_and_revisions_only_grow() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let server = EtcdServer::start().await;
        let from = embedded(first.path());
        // More than a page, and a revision that a new etcd is far from.
        for number in 0..1100 {
            let key = format!("/registry/core/configmaps/default/{number:04}");
            from.create(&key, Bytes::from(number.to_string()), None).await.unwrap();
        }
        let ttl = Duration::from_secs(600);
        from.create("/registry/core/events/default/e", Bytes::from("e"), Some(ttl)).await.unwrap();
        from.raise_revision(50_000).await.unwrap();

        let etcd = EtcdStore::connect(EtcdOptions::new(vec![server.url().to_owned()])).await.unwrap();
        let etcd = Backend::Etcd(Box::new(etcd));
        let moved = migrate(&from, &etcd).await.unwrap();
        assert_eq!((moved.entries, moved.from), (1101, 50_000));
        assert!(moved.to >= 50_000 + 1101, "{moved:?}");
        assert_eq!(contents(&etcd).await, contents(&from).await);
        // etcd tells on the stream that the past is gone.
        let resumed = etcd.watch(EVERYTHING, 50_000, false).await.unwrap().next().await.unwrap();
        assert!(matches!(resumed, Err(StoreError::Compacted { .. })), "{resumed:?}");
        let again = migrate(&from, &etcd).await;
        assert!(matches!(again, Err(MigrateError::NotEmpty(_))), "{again:?}");

        let back = embedded(second.path());
        let returned = migrate(&etcd, &back).await.unwrap();
        assert_eq!(returned.from, moved.to);
        assert!(returned.to > moved.to);
        assert_eq!(contents(&back).await, contents(&from).await);
        let event = back.get("/registry/core/events/default/e", At::Latest).await.unwrap().entry.unwrap();
        let left = back.ttl_left(&event).await.unwrap().unwrap();
        assert!(left > ttl / 2 && left < ttl * 2, "{left:?}");
        for store in [from, etcd, back] {
            store.close().await;
        }
    }

    #[tokio::test]
    async fn what_the_target_holds_is_never_touched() {
        let (from, to) = (Backend::Memory(MemoryStore::new()), Backend::Memory(MemoryStore::new()));
        from.create("/registry/a", Bytes::from("1"), None).await.unwrap();
        to.create("/registry/b", Bytes::from("2"), None).await.unwrap();
        assert!(
            matches!(migrate(&from, &to).await, Err(MigrateError::NotEmpty(key)) if &*key == "/registry/b")
        );
        assert_eq!(contents(&to).await.len(), 1);
    }
}
