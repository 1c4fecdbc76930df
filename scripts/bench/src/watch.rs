//! Fan-out: writers change objects at a rate, and every watcher of the collection receives every change.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use http_body_util::BodyExt;
use hyper::Method;
use tokio::task::LocalSet;

use crate::{
    connection::{Call, Target},
    load::Kind,
    measure::{Latencies, Outcome, Stretch},
};

/// How long the last event may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that write; each sends its next change when its time has come.
const WRITERS: usize = 8;

/// What stands before the time of a change in its event. A name of its own, so that a search finds it.
const MARK: &[u8] = b"\"sentAt\":\"";

/// Delivers `changes` changes, `rate` per second (0: as fast as possible), to `watchers` watchers. A latency
/// is from just before a change was sent until a watcher had read it; `requests` counts deliveries.
pub(crate) async fn fan_out(
    target: &Target,
    pid: Option<u32>,
    watchers: usize,
    changes: usize,
    rate: usize,
) -> anyhow::Result<Outcome> {
    LocalSet::new().run_until(run(target, pid, watchers, changes, rate)).await
}

async fn run(
    target: &Target,
    pid: Option<u32>,
    watchers: usize,
    changes: usize,
    rate: usize,
) -> anyhow::Result<Outcome> {
    let collection = Kind::ConfigMap.collection();
    let mut first = target.connect().await?;
    for writer in 0..WRITERS {
        let manifest = Kind::ConfigMap.manifest(&format!("watched-{writer}"));
        // There already from the round before.
        let _made = first.call(Call::post(collection.clone(), manifest)).await;
    }
    let list = first.call(Call::new(Method::GET, format!("{collection}?limit=1"))).await?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let revision = list["metadata"]["resourceVersion"].as_str().context("a list has a resourceVersion")?;

    // One clock for all: writers and watchers share this thread.
    let epoch = Instant::now();
    let mut reading = Vec::with_capacity(watchers);
    for _ in 0..watchers {
        let mut connection = target.connect().await?;
        let path = format!("{collection}?watch=true&resourceVersion={revision}");
        let answer = connection.send(Call::new(Method::GET, path)).await?;
        if !answer.status().is_success() {
            bail!("watch: {}", answer.status());
        }
        reading.push(tokio::task::spawn_local(async move {
            let outcome =
                tokio::time::timeout(PATIENCE + deadline(changes, rate), read(answer, changes, epoch));
            let outcome = outcome.await.context("events are missing");
            drop(connection);
            outcome?
        }));
    }

    let stretch = Stretch::begin(pid);
    let next = Rc::new(Cell::new(0));
    let mut writing = Vec::with_capacity(WRITERS);
    for writer in 0..WRITERS {
        let mut connection = target.connect().await?;
        let (next, path) = (Rc::clone(&next), format!("{collection}/watched-{writer}"));
        writing.push(tokio::task::spawn_local(async move {
            let begun = Instant::now();
            loop {
                let number = next.get();
                if number == changes {
                    return anyhow::Ok(());
                }
                next.set(number + 1);
                if let Some(due) = (number as u64 * 1_000_000).checked_div(rate as u64) {
                    tokio::time::sleep_until((begun + Duration::from_micros(due)).into()).await;
                }
                let now = epoch.elapsed().as_nanos();
                let patch = format!(r#"{{"data":{{"sentAt":"{now}"}}}}"#);
                connection.call(Call::merge_patch(path.clone(), patch)).await?;
            }
        }));
    }
    for writer in writing {
        writer.await??;
    }
    let mut outcome = Outcome::default();
    for reader in reading {
        outcome.latencies.merge(&reader.await??);
    }
    outcome.cost = stretch.end();
    Ok(outcome)
}

/// How long the changes take to be written at their rate.
fn deadline(changes: usize, rate: usize) -> Duration {
    Duration::from_secs((changes / rate.max(1)) as u64)
}

/// Reads a watch until so many events have come.
async fn read(
    answer: hyper::Response<hyper::body::Incoming>,
    changes: usize,
    epoch: Instant,
) -> anyhow::Result<Latencies> {
    let mut body = answer.into_body();
    let mut latencies = Latencies::default();
    let mut line: Vec<u8> = Vec::new();
    while latencies.len() < changes {
        let frame = body.frame().await.context("the watch ended")??;
        let Some(data) = frame.data_ref() else { continue };
        let now = epoch.elapsed();
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.last() == Some(&b'\n') {
                if let Some(sent) = sent_at(&line) {
                    latencies.add(now.saturating_sub(sent));
                }
                line.clear();
            }
        }
    }
    Ok(latencies)
}

/// The time in an event.
fn sent_at(line: &[u8]) -> Option<Duration> {
    // From the end: `data` comes after `metadata`, whose managedFields name the field as well.
    let at = line.windows(MARK.len()).rposition(|window| window == MARK)? + MARK.len();
    let digits = line[at..].split(|byte| *byte == b'"').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(Duration::from_nanos)
}
