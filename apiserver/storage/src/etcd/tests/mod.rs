//! The store on the etcd that is installed here.
//!
//! Each test starts a server of its own on loopback; `MINIK8S_TEST_ETCD` names another program than `etcd`
//! on the PATH (3.4, 3.5 and 3.6 are meant to pass).

use std::{
    net::TcpListener,
    ops::Deref,
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::*;
use crate::{
    backend::Backend,
    cacher::{Cacher, CacherOptions, Projector},
    testing::{self, create, update, within},
};

/// Few servers at a time: each syncs its own log to the same disk.
static SERVERS: Semaphore = Semaphore::const_new(3);

/// The program under test.
static PROGRAM: LazyLock<String> =
    LazyLock::new(|| std::env::var("MINIK8S_TEST_ETCD").unwrap_or_else(|_| "etcd".to_owned()));

/// A running etcd. Dropping it ends the process.
pub(crate) struct EtcdServer {
    child: Child,
    client: String,
    peer: String,
    directory: TempDir,
    permit: Option<SemaphorePermit<'static>>,
}

impl EtcdServer {
    /// Starts an empty one and waits until it answers.
    pub(crate) async fn start() -> Self {
        let mut permit = Some(SERVERS.acquire().await.unwrap());
        // Ports that were free a moment ago; should another process be faster, the next pair is tried.
        for _ in 0..5 {
            let directory = tempfile::tempdir().unwrap();
            let ports: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let urls: Vec<_> =
                ports.iter().map(|port| format!("http://{}", port.local_addr().unwrap())).collect();
            drop(ports);
            let child = spawn(&urls[0], &urls[1], &directory);
            let mut server =
                Self { child, client: urls[0].clone(), peer: urls[1].clone(), directory, permit: None };
            if server.answers().await {
                server.permit = permit.take();
                return server;
            }
        }
        panic!("{} did not start", *PROGRAM);
    }

    /// Its URL.
    pub(crate) fn url(&self) -> &str {
        &self.client
    }

    /// Kills it and starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.client, &self.peer, &self.directory);
        assert!(self.answers().await, "{} did not start again", *PROGRAM);
    }

    /// Waits until it answers; `false` if it has ended.
    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let options = EtcdOptions {
                request_timeout: Duration::from_millis(500),
                ..EtcdOptions::new(vec![self.client.clone()])
            };
            if let Ok(store) = EtcdStore::connect(options).await
                && store.current_revision().await.is_ok()
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        false
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn spawn(client: &str, peer: &str, directory: &TempDir) -> Child {
    Command::new(&*PROGRAM)
        .arg("--data-dir")
        .arg(directory.path())
        .args(["--listen-client-urls", client, "--advertise-client-urls", client])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{} must be installed (apt install etcd-server): {error}", *PROGRAM))
}

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

fn options(server: &EtcdServer) -> EtcdOptions {
    EtcdOptions { compaction_interval: None, ..EtcdOptions::new(vec![server.url().to_owned()]) }
}

async fn fixture() -> Fixture {
    let server = EtcdServer::start().await;
    // A prefix, so that nothing passes by mistaking etcd's keys for the contract's.
    let options = EtcdOptions { prefix: "/cluster-a".to_owned(), ..options(&server) };
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
async fn a_watch_outlives_a_restart_of_etcd() {
    let mut fixture = fixture().await;
    let first = create(&*fixture, "a", "1").await;
    let mut watching = testing::watch(&*fixture, first).await;
    let second = update(&*fixture, "a", "2", first).await;
    assert_eq!(testing::events(&mut watching, 1).await[0].0, second);
    fixture.server.restart().await;
    // A client that reconnects may find its first requests refused.
    let third = loop {
        match within(fixture.update(&testing::key("a"), testing::value("3"), second, None)).await {
            Ok(revision) => break revision,
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(StoreError::Conflict { current: Some(current), .. }) => break current.revision,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert_eq!(testing::events(&mut watching, 1).await[0].0, third);
}

#[tokio::test]
async fn two_servers_on_one_etcd_are_one_store() {
    let Fixture { store, server } = fixture().await;
    let other = EtcdStore::connect(EtcdOptions { prefix: "/cluster-a".to_owned(), ..options(&server) });
    let start = async |store| {
        Cacher::start(Arc::new(Backend::Etcd(Box::new(store))), Nothing, CacherOptions::default()).await
    };
    let one = start(store).await.unwrap();
    let two = start(other.await.unwrap()).await.unwrap();
    let mut revision = create(&*one, "a", "0").await;
    for round in 0..20 {
        let (writer, reader) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        revision = update(&**writer, "a", &round.to_string(), revision).await;
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
    let other = EtcdOptions { prefix: "/cluster-b".to_owned(), ..options(&fixture.server) };
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
    let again = EtcdOptions { prefix: "/cluster-a".to_owned(), ..options(&server) };
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
        EtcdStore::connect(EtcdOptions { compaction_interval: interval, ..options(&server) }).await.unwrap()
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
