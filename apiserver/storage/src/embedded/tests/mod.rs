//! The embedded store on a real directory.

mod crashes;
mod damage;
mod hostile;
mod offline;
mod simulated;

use std::{ops::Deref, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;

use super::{EmbeddedStore, Io, OpenError, Options, RealIo};
use crate::store::{At, ListOptions, Store, StoreError, WatchMessage};

/// Small files, so that a few writes reach every path.
fn small() -> Options {
    Options {
        segment_bytes: 16 << 10,
        first_segment_bytes: 4 << 10,
        checkpoint_bytes: 16 << 10,
        ..Options::default()
    }
}

fn real() -> Arc<dyn Io> {
    Arc::new(RealIo::default())
}

fn try_open(dir: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(dir, &small(), Arc::new(RealIo::default()))
}

fn open(dir: &Path) -> EmbeddedStore {
    try_open(dir).unwrap_or_else(|error| panic!("{error}"))
}

/// A store with a directory of its own.
struct Fixture {
    store: EmbeddedStore,
    _dir: tempfile::TempDir,
}

impl Deref for Fixture {
    type Target = EmbeddedStore;

    fn deref(&self) -> &EmbeddedStore {
        &self.store
    }
}

fn fresh(options: &Options) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), options, Arc::new(RealIo::default())).unwrap();
    Fixture { store, _dir: dir }
}

mod conformance {
    crate::testing::conformance!(async { super::fresh(&super::Options::default()) });
}

/// The same where segments are full all the time.
mod conformance_of_small_segments {
    crate::testing::conformance!(async { super::fresh(&super::small()) });
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 1..=300_u64 {
        let key = format!("/registry/pods/default/{number:03}");
        assert_eq!(store.create(&key, Bytes::from(vec![b'x'; 100]), None).await.unwrap(), number);
    }
    assert_eq!(store.delete("/registry/pods/default/007", 7).await.unwrap(), 301);
    assert_eq!(store.update("/registry/pods/default/008", Bytes::from("new"), 8, None).await.unwrap(), 302);
    store.close().await;
    drop(store);

    let store = open(dir.path());
    assert_eq!(store.current_revision().await.unwrap(), 302);
    let list = store.list("/registry/pods/", &ListOptions::default()).await.unwrap();
    assert_eq!(list.entries.len(), 299);
    let eight = store.get("/registry/pods/default/008", At::Latest).await.unwrap().entry.unwrap();
    assert_eq!((&eight.value[..], eight.revision), (&b"new"[..], 302));
    assert_eq!(store.get("/registry/pods/default/007", At::Latest).await.unwrap().entry, None);
    assert_eq!(store.create("/after", Bytes::new(), None).await.unwrap(), 303);
}

#[tokio::test]
async fn watches_resume_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create("/a", Bytes::from("1"), None).await.unwrap();
    store.update("/a", Bytes::from("2"), 1, None).await.unwrap();
    store.create("/b", Bytes::from("3"), None).await.unwrap();
    drop(store);
    let store = open(dir.path());
    let mut watch = store.watch("/a", 1, false).await.unwrap();
    let Some(Ok(WatchMessage::Events(events))) = watch.next().await else { panic!("events expected") };
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].revision, 2);
    assert_eq!(events[0].previous.as_ref().unwrap().value, "1");
}

#[tokio::test]
async fn two_stores_never_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    assert!(matches!(try_open(dir.path()), Err(OpenError::InUse(_))));
}

#[tokio::test]
async fn advancing_ends_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create("/a", Bytes::new(), None).await.unwrap();
    store.raise_revision(1000).await.unwrap();
    store.raise_revision(10).await.unwrap();
    assert_eq!(store.current_revision().await.unwrap(), 1000, "never back");
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.create("/b", Bytes::new(), None).await.unwrap(), 1001);
    let refused = store.watch("/", 1, false).await.err();
    assert!(matches!(refused, Some(StoreError::Compacted { asked: 1, oldest: 1000 })), "{refused:?}");
}

#[tokio::test]
async fn a_time_to_live_goes_on_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create("/event", Bytes::new(), Some(Duration::from_millis(300))).await.unwrap();
    store.create("/later", Bytes::new(), Some(Duration::from_secs(3600))).await.unwrap();
    drop(store);
    let store = open(dir.path());
    let mut watch = store.watch("/", 2, false).await.unwrap();
    let message = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap();
    let Some(Ok(WatchMessage::Events(events))) = message else { panic!("{message:?}") };
    assert_eq!((&*events[0].key, &events[0].entry), ("/event", &None));
    assert!(store.get("/later", At::Latest).await.unwrap().entry.is_some());
}
