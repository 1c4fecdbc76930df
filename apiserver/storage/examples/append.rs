//! Measures durable appends to the embedded store: `append [clients…]`, by default 1, 16, 64 and 512.
//!
//! The directory is made in the working directory, so that the disk under test is the one chosen by whoever
//! runs it.

#![allow(clippy::print_stderr, reason = "this is a program that a person runs")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use apiserver_storage::{
    Store,
    embedded::{EmbeddedStore, Options, RealIo},
};
use bytes::Bytes;

/// How long each number of clients is measured.
const TIME: Duration = Duration::from_secs(4);
/// A small ConfigMap.
const VALUE_BYTES: usize = 1024;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut clients: Vec<usize> =
        std::env::args().skip(1).map(|argument| argument.parse().expect("a number of clients")).collect();
    if clients.is_empty() {
        clients = vec![1, 16, 64, 512];
    }
    for clients in clients {
        measure(clients).await;
    }
}

async fn measure(clients: usize) {
    let dir = tempfile::tempdir_in(".").expect("the working directory must be writable");
    let opening = Instant::now();
    let io = Arc::new(RealIo::default());
    let store = EmbeddedStore::open(dir.path(), &Options::default(), io).expect("the store must open");
    let (store, opening) = (Arc::new(store), opening.elapsed());
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let begun = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (store, value) = (Arc::clone(&store), value.clone());
            tokio::spawn(async move {
                let mut count = 0_u64;
                while begun.elapsed() < TIME {
                    let key = format!("/registry/core/configmaps/default/{client}-{count}");
                    store.create(&key, value.clone(), None).await.expect("the write must succeed");
                    count += 1;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("clients must not panic");
    }
    let (stats, seconds) = (store.stats(), begun.elapsed().as_secs_f64());
    store.close().await;
    drop(store);
    let reopening = Instant::now();
    let io = Arc::new(RealIo::default());
    drop(EmbeddedStore::open(dir.path(), &Options::default(), io).expect("the store must open again"));
    eprintln!(
        "{clients:>4} clients: {:>7.0} writes/s in batches of {:>5.1}; {:>4.0} us in write and sync (slowest {:.1} ms); \
         opened empty in {:.1} ms, with {} entries in {:.0} ms",
        stats.writes as f64 / seconds,
        stats.writes as f64 / stats.batches as f64,
        stats.sync_time.as_secs_f64() * 1e6 / stats.batches as f64,
        stats.slowest_sync.as_secs_f64() * 1e3,
        opening.as_secs_f64() * 1e3,
        stats.entries,
        reopening.elapsed().as_secs_f64() * 1e3,
    );
}
