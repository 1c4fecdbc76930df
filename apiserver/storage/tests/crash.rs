//! `kill -9` at random moments, a hundred times, while clients write: every acknowledged write is there.
//!
//! The program runs itself again as the process that is killed. That one says on its standard output what was
//! acknowledged to its clients; what it said before it died must be true of the files afterwards. (The page
//! cache outlives a process, so this says nothing about sync: the simulated disk of the unit tests does.)

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test, though without the test harness")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use apiserver_storage::{
    At, ListOptions, Store,
    embedded::{EmbeddedStore, OpenError, Options, RealIo, verify},
};
use bytes::Bytes;
use rand::Rng;

/// How often the process is killed.
const KILLS: usize = 100;
/// Clients that write at the same time, each to a key of its own.
const CLIENTS: usize = 8;
/// The argument that makes this program the one that is killed.
const CHILD: &str = "--write-until-killed";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match args.iter().position(|argument| argument == CHILD) {
        Some(position) => runtime.block_on(write_until_killed(Path::new(&args[position + 1]))),
        None => runtime.block_on(kill_and_check()),
    }
    ExitCode::SUCCESS
}

/// Small segments, so that kills meet rotation, checkpoints and removal.
fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        first_segment_bytes: 16 << 10,
        checkpoint_bytes: 64 << 10,
        ..Options::default()
    }
}

fn open(dir: &Path) -> EmbeddedStore {
    let opened = EmbeddedStore::open(dir, &options(), Arc::new(RealIo::default()));
    opened.unwrap_or_else(|error| panic!("the store must open after a kill: {error}"))
}

fn key(client: usize) -> String {
    format!("/registry/things/{client}")
}

/// The value of a client's `count`th write: recognisable, and of changing size.
fn value(client: usize, count: u64) -> Bytes {
    let size = usize::try_from(count * 131 % 3000).unwrap();
    Bytes::from(format!("{client} {count} {}", "x".repeat(size)))
}

/// The number of the write that wrote these bytes, which must be all of what it wrote.
fn count_of(bytes: &[u8], client: usize) -> u64 {
    let count = std::str::from_utf8(bytes).unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(bytes, value(client, count), "no torn value");
    count
}

async fn write_until_killed(dir: &Path) {
    let store = open(dir);
    let clients = (0..CLIENTS).map(|client| {
        let store = &store;
        async move {
            let found = store.get(&key(client), At::Latest).await.unwrap().entry;
            let (mut revision, mut count) =
                found.map_or((0, 0), |entry| (entry.revision, count_of(&entry.value, client)));
            loop {
                count += 1;
                let value = value(client, count);
                let written = match revision {
                    0 => store.create(&key(client), value, None).await,
                    _ => store.update(&key(client), value, revision, None).await,
                };
                revision = written.unwrap();
                // One write of one short line: it arrives whole or not at all.
                let line = format!("{client} {count} {revision}\n");
                std::io::stdout().write_all(line.as_bytes()).unwrap();
                std::io::stdout().flush().unwrap();
            }
        }
    });
    futures_util::future::join_all(clients).await;
}

async fn kill_and_check() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    let mut writes = 0;
    for kill in 0..KILLS {
        let lines = run_and_kill(dir.path());
        writes += lines.len();
        for line in lines {
            let [client, count, revision] = line[..] else { panic!("not a line of ours: {line:?}") };
            let before = acknowledged.insert(usize::try_from(client).unwrap(), (count, revision));
            assert!(before.is_none_or(|(_, before)| before < revision), "revisions grow");
        }
        match verify(dir.path(), &RealIo::default()) {
            Ok(report) => assert_eq!(report.damage, [], "after kill {kill}"),
            // The first processes may die before there is a store at all.
            Err(OpenError::Missing(_)) if acknowledged.is_empty() => continue,
            Err(other) => panic!("after kill {kill}: {other}"),
        }
        check(dir.path(), &acknowledged, kill).await;
    }
    assert!(writes > KILLS * CLIENTS, "only {writes} writes: the kills came too early to prove anything");
    eprintln!("{KILLS} kills, {writes} acknowledged writes, none lost");
}

/// Starts the process, kills it at some moment, and answers what it said.
fn run_and_kill(dir: &Path) -> Vec<Vec<u64>> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg(CHILD)
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = Vec::new();
    let mut line = String::new();
    // Some die while they open the store, most while they write.
    let lives_for = Duration::from_millis(rand::rng().random_range(0..60));
    if !lives_for.as_millis().is_multiple_of(8) {
        output.read_line(&mut line).unwrap();
        lines.push(line.clone());
    }
    let begun = Instant::now();
    while begun.elapsed() < lives_for && !lines.is_empty() {
        line.clear();
        output.read_line(&mut line).unwrap();
        lines.push(line.clone());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said before it died counts, too.
    lines.extend(output.lines().map(Result::unwrap));
    lines.iter().map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect()).collect()
}

async fn check(dir: &Path, acknowledged: &BTreeMap<usize, (u64, u64)>, kill: usize) {
    let store = open(dir);
    let listing = store.list("/registry/things/", &ListOptions::default()).await.unwrap();
    let current = store.current_revision().await.unwrap();
    for (client, (count, revision)) in acknowledged {
        let entry = listing.entries.iter().find(|entry| *entry.key == *key(*client));
        let entry = entry.unwrap_or_else(|| panic!("kill {kill}: the key of client {client} is lost"));
        let found = count_of(&entry.value, *client);
        assert!(found >= *count, "kill {kill}: client {client} was told of write {count}, found {found}");
        assert!(entry.revision >= *revision && entry.revision <= current, "kill {kill}");
        if found == *count {
            assert_eq!(entry.revision, *revision, "kill {kill}: client {client}");
        }
    }
    store.close().await;
}
