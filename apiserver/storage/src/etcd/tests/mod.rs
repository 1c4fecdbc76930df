//! The store on a real etcd: the one that is installed here, or the one that `MINIK8S_TEST_ETCD` names.

mod failures;
mod options;
mod server;

use std::{ops::Deref, time::Duration};

pub(crate) use self::server::EtcdServer;
use super::*;
use crate::{
    backend::Backend,
    cacher::{Cacher, CacherOptions, Projector},
    testing::{self, create, update, within},
};

/// A store with the server that it is on.
pub(crate) struct Fixture {
    store: EtcdStore,
    server: EtcdServer,
}

impl Deref for Fixture {
    type Target = EtcdStore;
    fn deref(&self) -> &EtcdStore {
        &self.store
    }
}

async fn fixture() -> Fixture {
    let server = EtcdServer::start().await;
    // A prefix, so that nothing passes by mistaking etcd's keys for the contract's.
    let options = EtcdOptions { prefix: "/cluster-a".to_owned(), ..server.options() };
    Fixture { store: EtcdStore::connect(options).await.unwrap(), server }
}

testing::conformance!(fixture());

struct Nothing;

impl Projector for Nothing {
    type Index = ();
    fn project(&self, _: &Entry) {}
}

/// A cache over etcd, with the server below.
struct Cached {
    cache: Arc<Cacher<Nothing>>,
    _server: EtcdServer,
}

impl Deref for Cached {
    type Target = Cacher<Nothing>;
    fn deref(&self) -> &Self::Target {
        &self.cache
    }
}

mod through_the_cache {
    use super::*;

    async fn cached() -> Cached {
        let Fixture { store, server } = fixture().await;
        let options =
            CacherOptions { progress_interval: Duration::from_millis(50), ..CacherOptions::default() };
        let cache = Cacher::start(Arc::new(Backend::Etcd(Box::new(store))), Nothing, options).await.unwrap();
        Cached { cache, _server: server }
    }

    testing::conformance!(cached());
}

#[test]
fn progress_is_relied_on_where_it_is_right() {
    for (version, relied_on) in [
        ("3.3.27", false),
        ("3.4.23", false),
        ("3.4.30", false),
        ("3.4.31", true),
        ("3.5.0", false),
        ("3.5.12", false),
        ("3.5.13", true),
        ("3.5.21", true),
        ("3.6.0", true),
        ("3.6.0-rc.0", true),
        ("4.0.0", true),
        ("none", false),
    ] {
        assert_eq!(version_tells_progress(version), relied_on, "{version}");
    }
}

#[tokio::test]
async fn an_idle_watch_is_told_of_progress_when_asked() {
    let store = fixture().await;
    if !store.tells_progress() {
        // An etcd that old is never asked; that it is known to be so is the other half of this test.
        assert!(version_of(&store).await.starts_with("3.4."), "only old releases are not asked");
        return;
    }
    let asking = async {
        loop {
            store.request_progress();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = testing::watches::an_idle_watch_is_told_of_progress(&*store) => {}
        () = asking => {}
    }
}

async fn version_of(fixture: &Fixture) -> String {
    let client = Client::connect([fixture.server.url()], None).await.unwrap();
    client.maintenance_client().status().await.unwrap().version().to_owned()
}

#[tokio::test]
async fn two_servers_on_one_etcd_are_one_store() {
    let Fixture { store, server } = fixture().await;
    let other = EtcdStore::connect(EtcdOptions { prefix: "/cluster-a".to_owned(), ..server.options() });
    let start = async |store| {
        Cacher::start(Arc::new(Backend::Etcd(Box::new(store))), Nothing, CacherOptions::default()).await
    };
    let one = start(store).await.unwrap();
    let two = start(other.await.unwrap()).await.unwrap();
    let mut revision = create(&*one, "a", "0").await;
    let mut watching = [testing::watch(&*one, revision).await, testing::watch(&*two, revision).await];
    for round in 0..20 {
        let (writer, reader) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        revision = update(&**writer, "a", &round.to_string(), revision).await;
        // Whichever wrote it, both tell of it.
        for watching in &mut watching {
            assert_eq!(testing::events(watching, 1).await[0].0, revision);
        }
        // A write acknowledged by one is seen by a consistent read of the other.
        let read = within(Store::get(&**reader, &testing::key("a"), At::Latest)).await.unwrap();
        assert_eq!(read.entry.unwrap().revision, revision);
        let listing = within(Store::list(&**reader, testing::PREFIX, &ListOptions::default())).await.unwrap();
        assert_eq!(listing.entries[0].revision, revision);
    }
}

#[tokio::test]
async fn clusters_with_different_prefixes_do_not_meet() {
    let fixture = fixture().await;
    let other = EtcdOptions { prefix: "/cluster-b".to_owned(), ..fixture.server.options() };
    let other = EtcdStore::connect(other).await.unwrap();
    create(&*fixture, "a", "1").await;
    create(&other, "a", "2").await;
    for (store, value) in [(&*fixture, "1"), (&other, "2")] {
        let listing = within(store.list("", &ListOptions::default())).await.unwrap();
        assert_eq!(listing.entries.len(), 1);
        assert_eq!(listing.entries[0].value, value);
        assert_eq!(&*listing.entries[0].key, testing::key("a"));
    }
}

#[tokio::test]
async fn a_raised_revision_stays_raised() {
    let Fixture { store, server } = fixture().await;
    let first = create(&store, "a", "1").await;
    store.raise_revision(first + 1000).await.unwrap();
    store.raise_revision(5).await.unwrap();
    let second = create(&store, "b", "1").await;
    assert!(second > first + 1000, "{second}");
    store.close().await;
    let again = EtcdOptions { prefix: "/cluster-a".to_owned(), ..server.options() };
    let again = EtcdStore::connect(again).await.unwrap();
    assert!(again.current_revision().await.unwrap() >= second);
    let entry = again.get(&testing::key("b"), At::Exact(second)).await.unwrap().entry.unwrap();
    assert_eq!(entry.revision, second);
    let third = update(&again, "b", "2", second).await;
    let mut watching = testing::watch(&again, second).await;
    assert_eq!(testing::events(&mut watching, 1).await[0].0, third);
}

#[tokio::test]
async fn history_is_compacted_by_whoever_has_the_turn() {
    let server = EtcdServer::start().await;
    let interval = Some(Duration::from_millis(200));
    let open = async || {
        EtcdStore::connect(EtcdOptions { compaction_interval: interval, ..server.options() }).await.unwrap()
    };
    let (one, _two) = (open().await, open().await);
    let first = create(&one, "a", "1").await;
    let mut revision = first;
    let compacted = async {
        loop {
            match one.get(&testing::key("a"), At::Exact(first)).await {
                Err(StoreError::Compacted { .. }) => return,
                _ => revision = update(&one, "a", "2", revision).await,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    Box::pin(within(compacted)).await;
}
