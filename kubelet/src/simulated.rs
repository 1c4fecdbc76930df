//! Nodes that only pretend, by the hundreds in one process, for load tests.
//!
//! A simulated node has an object and a Lease of its own, and its pods become Running after a delay and go
//! when they are deleted. All nodes share one informer on pods and a few workers: a node costs some hundred
//! bytes, a pod its bytes.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use api_objects::{Value, object::ObjectMeta};
use client::{Client, Error, Informer, Informers, Key, PatchType, Scope, WorkQueue};
use jiff::Timestamp;
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api,
    config::{Args, Config},
    heartbeat,
    machine::Machine,
    node::{self, Condition},
};

/// Workers for all pods of all nodes: enough to keep an API server of this machine busy.
const WORKERS: usize = 16;
/// Nodes that register at once.
const REGISTRARS: usize = 16;

/// What the pretending looks like.
#[derive(Clone)]
pub struct Options {
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// The API as that node: its own identity, so that its writes are its own.
    pub client_for: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    /// The API as somebody who may read all pods.
    pub reader: Client,
    /// How long a pod takes to run.
    pub start_delay: Duration,
    /// Share of pods that fail instead of running, 0 to 1; which ones is settled by their uids.
    pub failure_rate: f64,
}

/// What is kept of a pod.
struct PodFacts {
    uid: String,
    node: String,
    phase: String,
    deleted: bool,
    containers: Vec<(String, String)>,
    generation: Option<i64>,
}

/// Runs simulated nodes until `shutdown`.
pub async fn run(options: Options, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    let Options { nodes, client_for, reader, start_delay, failure_rate } = options;
    let clients: HashMap<String, Client> =
        nodes.iter().map(|name| (name.clone(), client_for(name))).collect();
    let shared = Arc::new(Shared {
        pods: Informers::new(reader, shutdown.clone(), tasks.clone()).watch(
            api::pods(),
            &Scope::default(),
            project,
        ),
        clients,
        queue: WorkQueue::new(),
        start_delay,
        failure_rate,
    });
    for _ in 0..WORKERS {
        let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
        tasks.spawn(async move { shutdown.run_until_cancelled(shared.work()).await });
    }
    let share = nodes.len().div_ceil(REGISTRARS).max(1);
    for part in nodes.chunks(share) {
        let (shared, shutdown, part) = (Arc::clone(&shared), shutdown.clone(), part.to_vec());
        tasks.spawn(async move { shutdown.run_until_cancelled(shared.keep_nodes(&part)).await });
    }
    let mut changes = shared.pods.subscribe();
    loop {
        let batch = tokio::select! {
            () = shutdown.cancelled() => break,
            batch = changes.recv() => batch,
        };
        for change in batch {
            let ours = change.after.as_ref().is_some_and(|pod| shared.clients.contains_key(&pod.node));
            if ours {
                shared.queue.add(change.key);
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<PodFacts> {
    let pod: Value = serde_json::from_slice(bytes).ok()?;
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let field = |container: &Value, name: &str| {
        container.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    Some(PodFacts {
        uid: meta.uid.clone(),
        node: text("/spec/nodeName"),
        phase: text("/status/phase"),
        deleted: meta.deletion_timestamp.is_some(),
        containers: containers
            .map(|container| (field(container, "name"), field(container, "image")))
            .collect(),
        generation: Some(meta.generation).filter(|generation| *generation > 0),
    })
}

struct Shared {
    pods: Informer<PodFacts>,
    clients: HashMap<String, Client>,
    queue: WorkQueue<Key>,
    start_delay: Duration,
    failure_rate: f64,
}

impl Shared {
    async fn work(&self) {
        let mut delayed: HashSet<String> = HashSet::new();
        while let Some(key) = self.queue.get().await {
            match self.sync(&key, &mut delayed).await {
                Ok(None) => self.queue.forget(&key),
                Ok(Some(delay)) => self.queue.add_after(key.clone(), delay),
                Err(error) => {
                    tracing::debug!(%key, "a simulated pod is tried again: {}", client::error::chain(&error));
                    self.queue.add_rate_limited(key.clone());
                }
            }
            self.queue.done(&key);
        }
    }

    /// Brings one pod on; gives the delay after which to come back.
    async fn sync(&self, key: &Key, delayed: &mut HashSet<String>) -> Result<Option<Duration>, Error> {
        let Some(pod) = self.pods.get(key) else { return Ok(None) };
        let Some(client) = self.clients.get(&pod.node) else { return Ok(None) };
        if pod.deleted {
            let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                "preconditions": {"uid": pod.uid}});
            let gone = client.delete(api::pods(), &key.namespace, &key.name, &options).await;
            return ignore_gone(gone.map(drop)).map(|()| None);
        }
        if !matches!(pod.phase.as_str(), "" | "Pending") {
            return Ok(None);
        }
        if !self.start_delay.is_zero() && delayed.insert(pod.uid.clone()) {
            return Ok(Some(self.start_delay));
        }
        delayed.remove(&pod.uid);
        let patch = json!({"metadata": {"uid": pod.uid}, "status": status(&pod, fails(&pod.uid, self.failure_rate), Timestamp::now())});
        let sent = client
            .patch(api::pods(), &key.namespace, &key.name, Some("status"), PatchType::Strategic, &patch)
            .await;
        ignore_gone(sent.map(drop)).map(|()| None)
    }

    /// Registers nodes and renews their Leases, one after the other within each round.
    async fn keep_nodes(&self, names: &[String]) {
        let mut registered: HashMap<String, String> = HashMap::new();
        loop {
            let began = tokio::time::Instant::now();
            for name in names {
                let Some(client) = self.clients.get(name) else { continue };
                let uid = match registered.get(name) {
                    Some(uid) => uid.clone(),
                    None => match register(client, name).await {
                        Ok(uid) => {
                            registered.insert(name.clone(), uid.clone());
                            uid
                        }
                        Err(error) => {
                            tracing::debug!(
                                name,
                                "a simulated node is tried again: {}",
                                client::error::chain(&error)
                            );
                            continue;
                        }
                    },
                };
                if let Err(error) = heartbeat::renew(client, name, &uid, heartbeat::RENEW_EVERY).await {
                    tracing::debug!(name, "a lease is not renewed: {}", client::error::chain(&error));
                }
            }
            let pause =
                if registered.len() == names.len() { heartbeat::RENEW_EVERY } else { Duration::from_secs(1) };
            tokio::time::sleep(pause.saturating_sub(began.elapsed())).await;
        }
    }
}

fn ignore_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        other => other,
    }
}

/// Registers a node that says that it is ready; gives its uid.
async fn register(client: &Client, name: &str) -> Result<String, Error> {
    let config = config(name);
    let machine = machine();
    let ready = Condition { runtime_version: "simulated://1".to_owned(), ..Condition::default() };
    let status = node::status(&config, &machine, &[address(name)], &ready, &Value::Null, Timestamp::now());
    let wanted = node::object(&config, &machine, &status);
    match client.create(api::nodes(), "", &wanted).await {
        Ok(node) => return Ok(ObjectMeta::from_value(&node).uid),
        Err(error) if error.is_already_exists() => {}
        Err(error) => return Err(error),
    }
    let patch = json!({"status": status});
    let node = client.patch(api::nodes(), "", name, Some("status"), PatchType::Strategic, &patch).await?;
    Ok(ObjectMeta::from_value(&node).uid)
}

fn config(name: &str) -> Config {
    let mut args = Args { hostname_override: Some(name.to_owned()), ..Args::default() };
    args.node_labels = vec!["type=simulated".to_owned()];
    args.resolve().expect("a configuration without a file must resolve")
}

/// A machine as upstream's load tests describe one: 32 processors, 256 GiB.
fn machine() -> Machine {
    Machine {
        cpus: 32,
        memory: 256 << 30,
        disk: 1 << 40,
        kernel: "simulated".to_owned(),
        os_image: "simulated".to_owned(),
        ..Machine::default()
    }
}

/// An address out of 198.18.0.0/15, which is set aside for benchmarks (RFC 2544); settled by the name.
fn address(name: &str) -> IpAddr {
    let base = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    IpAddr::V4(Ipv4Addr::from(base | (hash(name) & 0x0001_ffff)))
}

/// Whether a pod is one of those that fail.
fn fails(uid: &str, rate: f64) -> bool {
    f64::from(hash(uid) % 1_000_000) < rate * 1_000_000.0
}

/// FNV-1a: the same in every run.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn status(pod: &PodFacts, failed: bool, now: Timestamp) -> Value {
    let now = crate::pod::whole_seconds(now).to_string();
    let condition = |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": now});
    let containers: Vec<Value> = pod
        .containers
        .iter()
        .map(|(name, image)| {
            let state = if failed {
                json!({"terminated": {"exitCode": 1, "reason": "Error", "startedAt": now, "finishedAt": now}})
            } else {
                json!({"running": {"startedAt": now}})
            };
            json!({"name": name, "image": image, "imageID": image, "ready": !failed, "started": !failed,
                "restartCount": 0, "state": state, "containerID": format!("simulated://{}-{name}", pod.uid)})
        })
        .collect();
    let ip = address(&pod.uid).to_string();
    json!({
        "phase": if failed { "Failed" } else { "Running" },
        "startTime": now, "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": address(&pod.node).to_string(),
        "observedGeneration": pod.generation,
        "containerStatuses": containers,
        "conditions": [condition("PodReadyToStartContainers", true), condition("Initialized", true),
            condition("Ready", !failed), condition("ContainersReady", !failed)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_pods_fail_every_time() {
        let failing = (0..1000).filter(|number| fails(&format!("uid-{number}"), 0.1)).count();
        assert!((50..200).contains(&failing), "{failing}");
        assert!(!fails("x", 0.0) && fails("x", 1.0));
    }

    #[test]
    fn a_pod_that_runs() {
        let pod = PodFacts {
            uid: "u".into(),
            node: "n".into(),
            phase: String::new(),
            deleted: false,
            containers: vec![("a".into(), "i".into())],
            generation: Some(1),
        };
        let status = status(&pod, false, Timestamp::from_second(1_800_000_000).unwrap());
        assert_eq!(status["phase"], "Running");
        assert_eq!(status["containerStatuses"][0]["ready"], true);
        assert_eq!(status["conditions"][2]["type"], "Ready");
    }
}
