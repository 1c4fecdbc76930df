//! A store under load for a while: writers, watchers, compaction and restarts. Nothing is lost or skipped, and
//! neither the files nor the process grow with the number of writes.
//!
//! Seconds in every test run, minutes under `scripts/test.sh --long`. A program of its own, so that the memory
//! that is measured is the store's.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use apiserver_storage::{
    ListOptions, Revision, Store, StoreError, WatchMessage,
    embedded::{EmbeddedStore, HistoryBounds, Options, RealIo, verify},
};
use bytes::Bytes;
use futures_util::{StreamExt, future::join_all};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio_util::sync::CancellationToken;

const WRITERS: u64 = 6;
const WATCHERS: usize = 4;
/// Keys of each writer, and the largest value.
const KEYS: u64 = 30;
const VALUE_BYTES: usize = 4096;
/// How long the entries live that nobody deletes.
const TTL: Duration = Duration::from_secs(1);
/// Everything that may be on disk once the housekeeper has caught up: what is live, twice while a checkpoint
/// replaces another; the log until the next one is due; the history; and segments that are begun or kept ready.
const DISK_BYTES: u64 = 16 << 20;
/// What the process may grow by after its first lives: history and live state are full by then.
const GROWTH_BYTES: u64 = 32 << 20;

fn options() -> Options {
    Options {
        segment_bytes: 1 << 20,
        first_segment_bytes: 256 << 10,
        checkpoint_bytes: 2 << 20,
        history: HistoryBounds { events: 4000, bytes: 2 << 20, ..Options::default().history },
        ..Options::default()
    }
}

/// How long in all, and how long between restarts.
fn times() -> (Duration, Duration) {
    if std::env::var("MINIK8S_TEST_LONG").is_ok_and(|set| !set.is_empty()) {
        (Duration::from_secs(180), Duration::from_secs(6))
    } else {
        (Duration::from_secs(5), Duration::from_secs(1))
    }
}

/// What a writer knows of its keys: revision and value of those that exist.
type Known = BTreeMap<String, (Revision, Bytes)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_under_load_stays_whole_and_small() {
    let (lasts, life) = times();
    let dir = tempfile::tempdir().unwrap();
    let mut known: Vec<Known> = vec![Known::new(); usize::try_from(WRITERS).unwrap()];
    let mut watched: Vec<Revision> = vec![0; WATCHERS];
    let (begun, mut lives, mut warm, mut writes) = (Instant::now(), 0, 0, 0);
    while begun.elapsed() < lasts {
        let opened = EmbeddedStore::open(dir.path(), &options(), Arc::new(RealIo::default()));
        let store = Arc::new(opened.unwrap_or_else(|error| panic!("life {lives}: {error}")));
        compare(&store, &known).await;
        let over = CancellationToken::new();
        let watchers: Vec<_> = watched
            .iter()
            .map(|after| tokio::spawn(watch(Arc::clone(&store), *after, over.clone())))
            .collect();
        let ends = Instant::now() + life;
        let writers = (0..).zip(&mut known).map(|(number, known)| {
            write(&store, number, known, SmallRng::seed_from_u64(lives * WRITERS + number), ends)
        });
        writes += join_all(writers).await.into_iter().sum::<u64>();
        over.cancel();
        let last = store.current_revision().await.unwrap();
        watched.clear();
        for watcher in watchers {
            watched.push(watcher.await.unwrap());
        }
        assert!(watched.contains(&last), "{watched:?}, and the store is at {last}");
        let stats = store.stats();
        assert!(stats.live_bytes < 4 << 20, "{stats:?}");
        store.close().await;
        drop(store);
        lives += 1;
        let disk = disk_bytes(dir.path());
        assert!(disk < DISK_BYTES, "life {lives}: {disk} bytes on disk for {} live ones", stats.live_bytes);
        if begun.elapsed() < lasts / 3 {
            warm = resident_bytes();
        }
    }
    let grown = resident_bytes().saturating_sub(warm);
    assert!(grown < GROWTH_BYTES, "{grown} bytes more than the {warm} after the first lives");
    assert!(lives >= 3 && writes > 1000, "{lives} lives and {writes} writes prove little");
    assert_eq!(verify(dir.path(), &RealIo::default()).unwrap().damage, []);
    eprintln!("{lives} lives, {writes} writes, {grown} bytes grown, {} on disk", disk_bytes(dir.path()));
}

async fn compare(store: &EmbeddedStore, known: &[Known]) {
    let listing = store.list("/registry/things/", &ListOptions::default()).await.unwrap();
    let found = listing.entries.iter().map(|entry| {
        let key = entry.key.to_string();
        (key, (entry.revision, entry.value.clone()))
    });
    let all: Known = known.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    assert_eq!(found.collect::<Known>(), all);
}

/// Writes until a moment; answers how often.
async fn write(
    store: &EmbeddedStore,
    number: u64,
    known: &mut Known,
    mut random: SmallRng,
    ends: Instant,
) -> u64 {
    let mut writes = 0;
    while Instant::now() < ends {
        let key = format!("/registry/things/{number}/{}", random.random_range(0..KEYS));
        let value = Bytes::from(vec![random.random(); random.random_range(0..VALUE_BYTES)]);
        let current = known.get(&key).map(|(revision, _)| *revision);
        match current {
            Some(at) if random.random_bool(0.2) => {
                store.delete(&key, at).await.unwrap();
                known.remove(&key);
            }
            Some(at) => {
                let revision = store.update(&key, value.clone(), at, None).await.unwrap();
                known.insert(key, (revision, value));
            }
            None => {
                let revision = store.create(&key, value.clone(), None).await.unwrap();
                known.insert(key, (revision, value));
            }
        }
        if random.random_bool(0.1) {
            let key = format!("/registry/events/{number}/{}", random.random::<u64>());
            store.create(&key, Bytes::from_static(&[7; 300]), Some(TTL)).await.unwrap();
        }
        if random.random_bool(0.002) {
            let current = store.current_revision().await.unwrap();
            store.compact(current.saturating_sub(random.random_range(0..2000))).await.unwrap();
        }
        writes += 1;
    }
    writes
}

/// Follows everything, and begins again where it was; answers how far it came. Revisions follow one another
/// without a gap, for every write is below the prefix.
async fn watch(store: Arc<EmbeddedStore>, mut after: Revision, over: CancellationToken) -> Revision {
    'begin: loop {
        let mut stream = match store.watch("/registry/", after, true).await {
            Ok(stream) => stream,
            // What was compacted cannot be told any more; nothing was skipped in silence.
            Err(StoreError::Compacted { oldest, .. }) => {
                after = oldest;
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        loop {
            let message = match over.run_until_cancelled(stream.next()).await {
                Some(message) => message.expect("it must say why it ends"),
                // What is there already is still read.
                None => match futures_util::FutureExt::now_or_never(stream.next()) {
                    Some(message) => message.expect("it must say why it ends"),
                    None => return after,
                },
            };
            match message {
                Ok(WatchMessage::Events(events)) => {
                    for event in events {
                        assert_eq!(event.revision, after + 1, "a gap or a repetition");
                        after = event.revision;
                    }
                }
                Ok(WatchMessage::Progress(revision)) => assert!(revision >= after),
                Err(StoreError::Compacted { .. } | StoreError::SlowWatcher) => continue 'begin,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn disk_bytes(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// What the process holds in memory.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
