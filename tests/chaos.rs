//! Chaos: the whole process, containers, sandboxes and Docker itself are killed at random while clients write and
//! pods come and go. Afterwards what is asked for and what runs agree, no acknowledged write is lost, and nothing is
//! left behind.
//!
//! `scripts/test.sh --long` goes on for minutes. `MINIK8S_TEST_SEED` repeats a run's choices, though not its
//! timing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::Kubeconfig,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::{Cluster, IMAGE, run, takes_its_time};

/// Clients that write beside one another, each to objects of its own.
const WRITERS: usize = 4;
/// Disturbances that there are at least, however slow the machine is.
const ENOUGH: usize = 10;
/// A port of the node that leads to a pod.
const HOST_PORT: u16 = 18_473;

struct Times {
    /// How long everything is disturbed.
    lasts: Duration,
    /// After how long Docker is restarted, each time: that stops everything.
    restarts: Duration,
    /// How long it may take to come to rest: a container that was killed often waits for its back-off.
    rest: Duration,
}

fn times() -> Times {
    if takes_its_time() {
        Times {
            lasts: Duration::from_secs(300),
            restarts: Duration::from_secs(60),
            rest: Duration::from_secs(420),
        }
    } else {
        Times {
            lasts: Duration::from_secs(20),
            restarts: Duration::from_secs(8),
            rest: Duration::from_secs(120),
        }
    }
}

#[test]
fn chaos_leaves_nothing_wrong() {
    let seed = std::env::var("MINIK8S_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random());
    println!("MINIK8S_TEST_SEED={seed}");
    let times = times();
    let mut cluster = Cluster::start_with_a_daemon();
    make_pods(&cluster);

    let over = CancellationToken::new();
    let (failed, failures) = sync_channel(WRITERS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime must be had");
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let (kubeconfig, over, failed) = (cluster.kubeconfig(), over.clone(), failed.clone());
            runtime.spawn(async move {
                let outcome = write_until(over, &kubeconfig, number).await;
                if let Err(lost) = &outcome {
                    // Only the first is waited for.
                    let _ = failed.try_send(lost.clone());
                }
                outcome
            })
        })
        .collect();

    let mut chaos =
        Chaos { cluster: &mut cluster, random: StdRng::seed_from_u64(seed), done: BTreeMap::new() };
    let ends = Instant::now() + times.lasts;
    let mut restart = Instant::now() + times.restarts;
    while Instant::now() < ends || chaos.done.values().sum::<usize>() < ENOUGH {
        if restart < Instant::now() {
            chaos.restart_docker();
            restart = Instant::now() + times.restarts;
        } else {
            chaos.disturb();
        }
        let moment = Duration::from_millis(chaos.random.random_range(0..700));
        match failures.recv_timeout(moment) {
            Err(RecvTimeoutError::Timeout) => {}
            lost => panic!("a write was lost: {lost:?}\n{}", chaos.cluster.log()),
        }
    }
    let replicas = chaos.random.random_range(2..6);
    let done = chaos.done;
    scale(&cluster, replicas).ok();
    over.cancel();
    let mut acknowledged = 0;
    for writer in writers {
        let writer = runtime.block_on(writer).expect("a writer must not panic");
        acknowledged += writer.expect("no acknowledged write may be lost");
    }
    println!("{acknowledged} writes acknowledged; {done:?}");
    assert!(acknowledged > 100, "too few writes to prove anything: {acknowledged}");
    assert!(done.keys().any(|what| what.starts_with("Docker")), "{done:?}");

    let rest = Rest { cluster: &cluster, deadline: Instant::now() + times.rest };
    rest.until("what is asked for and what runs agree", || agrees(&cluster, replicas));
    cluster.kubectl(&["delete", "replicaset,pod", "--all", "--wait=false"]).ok();
    rest.until("nothing is left behind", || nothing_left(&cluster));
}

/// A ReplicaSet whose pods have volumes, and a pod with a port of the node.
fn make_pods(cluster: &Cluster) {
    cluster.apply(
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}}"#,
    );
    let container = |name: &str, more: Value| {
        let mut container = json!({"name": name, "image": IMAGE, "imagePullPolicy": "Never",
            "command": ["sleep", "100000"]});
        container
            .as_object_mut()
            .expect("it is an object")
            .extend(more.as_object().cloned().unwrap_or_default());
        container
    };
    let volumes = json!([
        {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "settings", "configMap": {"name": "settings"}},
    ]);
    let mounts = json!({"volumeMounts": [
        {"name": "scratch", "mountPath": "/scratch"}, {"name": "settings", "mountPath": "/settings"}]});
    let labels = json!({"app": "crowd"});
    let crowd = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "crowd"},
        "spec": {"replicas": 4, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 1, "volumes": volumes,
                "containers": [container("one", mounts), container("two", json!({}))]}}}});
    let ported = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ported"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            container("main", json!({"ports": [{"containerPort": 80, "hostPort": HOST_PORT}]}))]}});
    for object in [crowd, ported] {
        cluster.apply(&object.to_string());
    }
    cluster.wait("replicaset/crowd", "jsonpath={.status.readyReplicas}=4");
    cluster.wait("pod/ported", "condition=Ready");
}

fn scale(cluster: &Cluster, replicas: usize) -> crate::harness::Answer {
    cluster.kubectl(&["scale", "replicaset", "crowd", &format!("--replicas={replicas}")])
}

/// Who disturbs.
struct Chaos<'a> {
    cluster: &'a mut Cluster,
    random: StdRng,
    /// What was done how often.
    done: BTreeMap<&'static str, usize>,
}

impl Chaos<'_> {
    fn disturb(&mut self) {
        let what = match self.random.random_range(0..12) {
            0..3 => {
                self.cluster.kill();
                self.cluster.up();
                "process killed"
            }
            3..6 => self.docker("kill", "label=io.kubernetes.docker.type=container", "container killed"),
            6..8 => self.docker("kill", "label=io.kubernetes.docker.type=podsandbox", "sandbox killed"),
            8 => self.docker("rm", "label=io.kubernetes.docker.type", "container removed"),
            9 => {
                let pods = self.cluster.kubectl(&["get", "pods", "-l", "app=crowd", "-o", "name"]).ok();
                let pods: Vec<&str> = pods.lines().collect();
                if let Some(pod) = pods.choose(&mut self.random) {
                    // It may have gone by itself meanwhile.
                    self.cluster.kubectl(&["delete", pod, "--wait=false"]);
                }
                "pod deleted"
            }
            _ => {
                scale(self.cluster, self.random.random_range(1..8)).ok();
                "scaled"
            }
        };
        *self.done.entry(what).or_default() += 1;
    }

    /// Restarts Docker, with warning or without.
    fn restart_docker(&mut self) {
        let (signal, what) =
            if self.random.random() { ("-KILL", "Docker killed") } else { ("-TERM", "Docker stopped") };
        self.cluster.daemon().restart(signal);
        *self.done.entry(what).or_default() += 1;
    }

    /// Does something to one of the node's running containers.
    fn docker(&mut self, verb: &str, filter: &str, done: &'static str) -> &'static str {
        let containers = self.cluster.containers(filter);
        let Some(container) = containers.choose(&mut self.random) else { return "nothing to disturb" };
        let force: &[&str] = if verb == "rm" { &["--force"] } else { &[] };
        // It may have ended by itself meanwhile.
        run(self.cluster.docker().arg(verb).args(force).arg(container));
        done
    }
}

/// A client of the server as it is now: each has a port of its own.
async fn maps(kubeconfig: &Path) -> Api<ConfigMap> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("the kubeconfig must be readable");
    let config =
        Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.expect("it must be usable");
    Api::default_namespaced(Client::try_from(config).expect("a client must be had"))
}

/// What a writer knows of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It is there with this count, or is not there.
    Surely(Option<u64>),
    /// The outcome of a write is open: one or the other.
    Either(Option<u64>, Option<u64>),
}

/// Creates, changes and deletes an object again and again, and compares it with what is known of it whenever an
/// outcome was open. Answers the number of acknowledged writes, or what was lost.
async fn write_until(over: CancellationToken, kubeconfig: &Path, number: usize) -> Result<u64, String> {
    let mut server = maps(kubeconfig).await;
    let name = format!("written-by-{number}");
    let (mut known, mut count, mut acknowledged) = (Known::Surely(None), 0, 0);
    loop {
        let found = match (known, over.is_cancelled()) {
            (Known::Surely(found), false) => found,
            // The truth, by a read that sees every acknowledged write.
            _ => match server.get_opt(&name).await {
                Ok(map) => {
                    let found = map.map(|map| count_of(&map));
                    let (one, other) = match known {
                        Known::Surely(one) => (one, one),
                        Known::Either(one, other) => (one, other),
                    };
                    if found != one && found != other {
                        return Err(format!("{name}: {found:?} was found, not {one:?} or {other:?}"));
                    }
                    if over.is_cancelled() {
                        return Ok(acknowledged);
                    }
                    found
                }
                Err(_) => {
                    server = again(kubeconfig).await;
                    continue;
                }
            },
        };
        count += 1;
        let content = json!({"metadata": {"name": name}, "data": {"count": count.to_string()}});
        let (wanted, outcome) = match found {
            None => {
                let map = serde_json::from_value(content).expect("the map must be valid");
                (Some(count), server.create(&PostParams::default(), &map).await.map(drop))
            }
            Some(_) if count % 7 == 0 => {
                (None, server.delete(&name, &DeleteParams::default()).await.map(drop))
            }
            Some(_) => {
                let patch = Patch::Merge(content);
                (Some(count), server.patch(&name, &PatchParams::default(), &patch).await.map(drop))
            }
        };
        known = match outcome {
            Ok(()) => {
                acknowledged += 1;
                Known::Surely(wanted)
            }
            Err(_) => {
                server = again(kubeconfig).await;
                Known::Either(found, wanted)
            }
        };
    }
}

/// The server that may be there after one was killed.
async fn again(kubeconfig: &Path) -> Api<ConfigMap> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    maps(kubeconfig).await
}

fn count_of(map: &ConfigMap) -> u64 {
    let count = map.data.as_ref().and_then(|data| data.get("count"));
    count.and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// Waits for things to come to rest.
struct Rest<'a> {
    cluster: &'a Cluster,
    deadline: Instant,
}

impl Rest<'_> {
    /// Asks again until there is nothing to say against it. (Each question runs programs: it paces itself.)
    fn until(&self, what: &str, mut wrong: impl FnMut() -> Vec<String>) {
        loop {
            let found = wrong();
            if found.is_empty() {
                return;
            }
            assert!(
                Instant::now() < self.deadline,
                "{what}? No: {found:#?}\n{}\n{}",
                self.cluster.kubectl(&["get", "pods", "-o", "wide"]).stdout,
                self.cluster.log()
            );
        }
    }
}

/// What does not agree between the API, the ReplicaSet's spec and Docker.
fn agrees(cluster: &Cluster, replicas: usize) -> Vec<String> {
    let pods = cluster.kubectl(&["get", "pods", "-o", "json"]).ok();
    let pods: Value = serde_json::from_str(&pods).expect("a list must be JSON");
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let mut wrong = Vec::new();
    if pods.len() != replicas + 1 {
        wrong.push(format!("{} pods instead of {}", pods.len(), replicas + 1));
    }
    let mut told = BTreeSet::new();
    let mut sandboxes = 0;
    for pod in &pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        if statuses.len() != pod["spec"]["containers"].as_array().map_or(0, Vec::len) {
            wrong.push(format!("{name} tells of {} containers", statuses.len()));
        }
        for status in statuses {
            if status["ready"] != true {
                wrong.push(format!("{name}: {} is not ready: {}", status["name"], status["state"]));
            }
            let id = status["containerID"].as_str().and_then(|id| id.strip_prefix("docker://"));
            told.extend(id.map(str::to_owned));
        }
        sandboxes += 1;
    }
    let running: BTreeSet<String> =
        cluster.containers("label=io.kubernetes.docker.type=container").into_iter().collect();
    if told != running {
        wrong.push(format!("the API tells of {told:?}, Docker runs {running:?}"));
    }
    let paused = cluster.containers("label=io.kubernetes.docker.type=podsandbox").len();
    if paused != sandboxes {
        wrong.push(format!("{paused} sandboxes for {sandboxes} pods"));
    }
    // Every sandbox hangs on the bridge, and nothing else does.
    let links = links(cluster).len();
    if links != sandboxes {
        wrong.push(format!("{links} links for {sandboxes} pods"));
    }
    let rules = rules();
    if rules.len() != 1 {
        wrong.push(format!("the node's port leads to {rules:?}"));
    }
    wrong
}

/// What is there though there are no pods any more.
fn nothing_left(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.kubectl(&["get", "pods", "-o", "name"]).ok();
    let home = cluster.home().to_str().expect("the path must be UTF-8").to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the mounts must be readable");
    let directories = std::fs::read_dir(cluster.home().join("kubelet/pods")).into_iter().flatten().flatten();
    pods.lines()
        .map(str::to_owned)
        .chain(cluster.all_containers().into_iter().map(|id| format!("container {id}")))
        .chain(links(cluster).into_iter().map(|link| format!("link {link}")))
        .chain(rules().into_iter().map(|rule| format!("rule {rule}")))
        .chain(mounts.lines().filter(|line| line.contains(&home)).map(|line| format!("mount {line}")))
        .chain(directories.map(|entry| format!("directory {}", entry.path().display())))
        .collect()
}

/// The pods' ends of the network on the node.
fn links(cluster: &Cluster) -> Vec<String> {
    let links = run(Command::new("ip").args(["-o", "link", "show", "master", cluster.bridge()]));
    links.stdout.lines().map(str::to_owned).collect()
}

/// The rules for the port of the node.
fn rules() -> Vec<String> {
    let rules = run(Command::new("iptables-save").args(["-t", "nat"])).ok();
    let port = format!("--dport {HOST_PORT} ");
    rules.lines().filter(|rule| rule.contains(&port)).map(str::to_owned).collect()
}
