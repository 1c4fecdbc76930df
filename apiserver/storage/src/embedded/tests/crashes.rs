//! Power cuts at every step: what was acknowledged is there, what was not is there whole or not at all.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::StreamExt;

use super::simulated::SimulatedDisk;
use crate::{
    embedded::{EmbeddedStore, HistoryBounds, OpenError, Options},
    store::{At, Event, ListOptions, Revision, Store, StoreError, WatchMessage},
};

const DIR: &str = "/store";

/// So small that fifty writes rotate segments and replace checkpoints several times.
fn tiny() -> Options {
    Options {
        segment_bytes: 4096,
        first_segment_bytes: 4096,
        checkpoint_bytes: 4096,
        history: HistoryBounds { events: 12, ..Options::default().history },
        ..Options::default()
    }
}

fn open(disk: &SimulatedDisk) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(Path::new(DIR), &tiny(), Arc::new(disk.clone()))
}

type State = BTreeMap<String, (Vec<u8>, Revision)>;

/// One client that writes one thing after the other, and what it knows.
#[derive(Default, Clone)]
struct Client {
    /// The last state that was acknowledged.
    known: State,
    revision: Revision,
    /// The write whose answer never came: the key, and its value if it is not a deletion.
    open: Option<(String, Option<Vec<u8>>)>,
}

impl Client {
    /// Carries out the script until a write fails.
    async fn run(&mut self, store: &EmbeddedStore, steps: std::ops::Range<u64>) {
        for step in steps {
            let key = format!("/registry/things/{}", step * 7 % 5);
            let value =
                vec![u8::try_from(step % 251).unwrap() + 1; 100 + usize::try_from(step * 97 % 900).unwrap()];
            let current = self.known.get(&key).map(|(_, revision)| *revision);
            let delete = step % 6 == 5;
            self.open = Some((key.clone(), (!delete || current.is_none()).then(|| value.clone())));
            let answer = match current {
                None => store.create(&key, value.clone().into(), None).await,
                Some(current) if delete => store.delete(&key, current).await,
                Some(current) => store.update(&key, value.clone().into(), current, None).await,
            };
            match answer {
                Ok(revision) => {
                    assert!(revision > self.revision, "revisions grow");
                    self.revision = revision;
                    self.known = self.with_open(revision);
                    self.open = None;
                }
                Err(StoreError::Unavailable(_)) => return,
                Err(other) => panic!("step {step}: {other}"),
            }
        }
    }

    /// The state if the open write happened at `revision`.
    fn with_open(&self, revision: Revision) -> State {
        let mut state = self.known.clone();
        match self.open.clone() {
            Some((key, Some(value))) => drop(state.insert(key, (value, revision))),
            Some((key, None)) => drop(state.remove(&key)),
            None => {}
        }
        state
    }

    /// Compares a recovered store with what the client knows, and takes over what is open.
    async fn check(&mut self, store: &EmbeddedStore, context: &str) {
        let revision = store.current_revision().await.unwrap();
        let listing = store.list("/", &ListOptions::default()).await.unwrap();
        let found: State = listing
            .entries
            .iter()
            .map(|entry| (entry.key.to_string(), (entry.value.to_vec(), entry.revision)))
            .collect();
        if revision == self.revision {
            assert_eq!(found, self.known, "{context}: acknowledged state");
        } else {
            assert_eq!(revision, self.revision + 1, "{context}: at most the open write more");
            assert_eq!(found, self.with_open(revision), "{context}: the open write whole");
        }
        check_history(store, &found, context).await;
        self.known = found;
        self.revision = revision;
        self.open = None;
    }
}

/// The history leads from the oldest state to the present one, event by event.
async fn check_history(store: &EmbeddedStore, present: &State, context: &str) {
    let (oldest, current) = (store.oldest_revision(), store.current_revision().await.unwrap());
    let options = ListOptions { at: At::Exact(oldest), ..ListOptions::default() };
    let mut state: State = store
        .list("/", &options)
        .await
        .unwrap()
        .entries
        .iter()
        .map(|entry| (entry.key.to_string(), (entry.value.to_vec(), entry.revision)))
        .collect();
    let mut watch = store.watch("/", oldest, true).await.unwrap();
    let mut position = oldest;
    while position < current {
        let message = watch.next().await.expect("the watch goes on").unwrap();
        let WatchMessage::Events(events) = message else { continue };
        for event in events {
            position += 1;
            assert_eq!(event.revision, position, "{context}: no gap");
            step(&mut state, &event, context);
        }
    }
    assert_eq!(&state, present, "{context}: the history leads here");
}

fn step(state: &mut State, event: &Event, context: &str) {
    let before = event.previous.as_ref().map(|entry| (entry.value.to_vec(), entry.revision));
    assert_eq!(state.get(&*event.key).cloned(), before, "{context}: the event knows what it replaced");
    match &event.entry {
        Some(entry) => drop(state.insert(event.key.to_string(), (entry.value.to_vec(), entry.revision))),
        None => drop(state.remove(&*event.key)),
    }
}

/// How much of what was not synced reaches the platter.
const KEPT: [f64; 4] = [0.0, 0.5, 0.9, 1.0];

#[tokio::test]
async fn power_cuts_at_every_step_lose_nothing_acknowledged() {
    const STEPS: u64 = 60;
    let disk = SimulatedDisk::new(0);
    let store = open(&disk).unwrap();
    Client::default().run(&store, 0..STEPS).await;
    store.close().await;
    let operations = disk.operations();
    assert!(operations > 150, "the script must reach rotation and checkpoints: {operations} operations");

    for fails_after in 0..operations {
        for (seed, kept) in (fails_after..).zip(KEPT) {
            let context = format!("power fails after {fails_after} operations, {kept} kept, seed {seed}");
            let disk = SimulatedDisk::new(seed);
            disk.fail_after(fails_after);
            let mut client = Client::default();
            if let Ok(store) = open(&disk) {
                client.run(&store, 0..STEPS).await;
            }
            disk.cut_power(kept);
            // The power fails again in the middle of the recovery, twice.
            for count in [fails_after % 5, fails_after % 3] {
                disk.fail_after(count);
                drop(open(&disk));
                disk.cut_power(kept);
            }
            let store = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            client.check(&store, &context).await;
            // What was recovered is durable: nothing of it hangs on the page cache.
            drop(store);
            disk.cut_power(0.0);
            let store = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            client.check(&store, &format!("{context}, opened again")).await;
            client.run(&store, STEPS..STEPS + 12).await;
            assert_eq!(client.open, None, "{context}: it goes on");
            drop(store);
            disk.cut_power(0.5);
            client.check(&open(&disk).unwrap(), &format!("{context}, in the end")).await;
        }
    }
}

/// After `kill -9` the page cache may hold a batch that was never synced. Who reads it at the next start may act
/// on it, so it must not be lost afterwards.
#[tokio::test]
async fn what_a_restarted_process_shows_survives_a_power_cut() {
    for fails_after in 10..200 {
        let context = format!("killed after {fails_after} operations");
        let disk = SimulatedDisk::new(fails_after);
        disk.fail_after(fails_after);
        let mut client = Client::default();
        if let Ok(store) = open(&disk) {
            client.run(&store, 0..60).await;
        }
        disk.restart_process();
        let store = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
        client.check(&store, &context).await;
        drop(store);
        disk.cut_power(0.0);
        let store = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
        client.check(&store, &format!("{context}, after a power cut")).await;
    }
}

#[tokio::test]
async fn power_cuts_under_concurrent_writers_lose_nothing_acknowledged() {
    const WRITERS: u64 = 8;
    for seed in 0..60 {
        let disk = SimulatedDisk::new(seed);
        let store = Arc::new(open(&disk).unwrap());
        disk.fail_after(10 + seed * 3);
        let writers = (0..WRITERS).map(|writer| {
            let store = Arc::clone(&store);
            async move {
                let key = format!("/registry/things/{writer}");
                let mut revisions: Vec<Revision> = Vec::new();
                loop {
                    let value = Bytes::from(revisions.len().to_string());
                    let answer = match revisions.last() {
                        None => store.create(&key, value, None).await,
                        Some(last) => store.update(&key, value, *last, None).await,
                    };
                    match answer {
                        Ok(revision) => revisions.push(revision),
                        Err(error) => {
                            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                            return (key, revisions);
                        }
                    }
                }
            }
        });
        let known = futures_util::future::join_all(writers).await;
        drop(store);
        disk.cut_power(0.5);
        let store = open(&disk).unwrap();
        for (key, revisions) in known {
            let found = store.get(&key, At::Latest).await.unwrap().entry;
            let acknowledged = revisions.len();
            match found {
                None => assert_eq!(acknowledged, 0, "{key}, seed {seed}"),
                Some(entry) => {
                    let writes = std::str::from_utf8(&entry.value).unwrap().parse::<usize>().unwrap() + 1;
                    assert!(
                        writes == acknowledged || writes == acknowledged + 1,
                        "{key}, seed {seed}: {writes} writes found, {acknowledged} acknowledged"
                    );
                    if writes == acknowledged {
                        assert_eq!(Some(&entry.revision), revisions.last());
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_failed_sync_poisons_the_store() {
    let disk = SimulatedDisk::new(1);
    let store = open(&disk).unwrap();
    store.create("/a", Bytes::from("1"), None).await.unwrap();
    let mut watch = store.watch("/", 1, false).await.unwrap();
    disk.fail_syncs();
    let refused = store.create("/b", Bytes::from("2"), None).await.unwrap_err();
    assert!(!refused.is_definite(), "the outcome is unknown: {refused}");
    assert!(store.poisoned().is_cancelled());
    assert!(matches!(store.get("/a", At::Latest).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.update("/a", Bytes::new(), 1, None).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.watch("/", 1, false).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(watch.next().await, Some(Err(StoreError::Unavailable(_)))));
    drop(store);
    disk.cut_power(0.0);
    let store = open(&disk).unwrap();
    assert!(store.get("/a", At::Latest).await.unwrap().entry.is_some());
    assert_eq!(store.current_revision().await.unwrap(), 1);
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    let disk = SimulatedDisk::new(1);
    let store = open(&disk).unwrap();
    disk.set_capacity(disk.used() + 6000);
    let mut written = 0;
    let refused = loop {
        match store.create(&format!("/things/{written}"), Bytes::from(vec![7; 300]), None).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::NoSpace), "{refused}");
    assert!(refused.is_definite());
    assert!(written > 10, "the room that was there is used: {written} writes");
    assert!(!store.poisoned().is_cancelled());
    let listing = store.list("/things/", &ListOptions::default()).await.unwrap();
    assert_eq!(listing.entries.len(), written, "reads go on");
    assert_eq!(store.current_revision().await.unwrap(), written as u64, "a refused write takes no revision");

    disk.set_capacity(usize::MAX);
    let revision = store.create("/things/after", Bytes::from(vec![7; 300]), None).await.unwrap();
    assert_eq!(revision, written as u64 + 1);
    drop(store);
    disk.cut_power(0.5);
    let store = open(&disk).unwrap();
    assert_eq!(store.list("/things/", &ListOptions::default()).await.unwrap().entries.len(), written + 1);
}

#[tokio::test]
async fn the_disk_does_not_grow_with_the_number_of_writes() {
    let disk = SimulatedDisk::new(1);
    let store = open(&disk).unwrap();
    let mut revision = store.create("/lease", Bytes::from(vec![1; 200]), None).await.unwrap();
    for writes in 0.. {
        revision = store.update("/lease", Bytes::from(vec![1; 200]), revision, None).await.unwrap();
        // The housekeeper works beside the writes: it gets the time that it needs, but not for ever.
        if writes > 2000 && disk.used() < 48 << 10 {
            break;
        }
        assert!(writes < 200_000, "{} bytes for one live entry", disk.used());
    }
    store.close().await;
    let names = crate::embedded::io::Io::list(&disk, &PathBuf::from(DIR)).unwrap();
    assert_eq!(names.iter().filter(|name| name.ends_with(".checkpoint")).count(), 1, "{names:?}");
}
