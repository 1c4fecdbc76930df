//! Pods from the API's create to Running as a watch sees it, beside the same Docker calls made bare.
//!
//! One at a time the two take turns, and so do the crowds, so that both meet the same machine. The watch also
//! says when a pod was scheduled and when its sandbox stood.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::{
    connection::{Call, Target},
    docker::Docker,
    measure::{Latencies, Stretch, allocated_mb, resident_mb},
};

/// How long a crowd may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Connections over which a crowd is created.
const CONNECTIONS: usize = 16;
/// What the watch tells of a pod, in order.
const STAGES: [&str; 4] = ["created", "scheduled", "sandbox", "running"];
/// The pod whose containers the bare calls start again.
const PATTERN: &str = "pattern";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// What to measure.
pub(crate) struct Options {
    pub(crate) target: Target,
    /// The kubelet's process.
    pub(crate) pid: Option<u32>,
    pub(crate) docker_socket: PathBuf,
    pub(crate) image: String,
    /// Pods one after another.
    pub(crate) rounds: usize,
    /// Pods at once.
    pub(crate) crowd: usize,
    /// Pods beside which the idle kubelet is looked at, and for how long.
    pub(crate) idle_pods: usize,
    pub(crate) idle: Duration,
}

/// When a pod reached each of the [`STAGES`], as the watch saw it.
type Reached = [Option<Instant>; STAGES.len()];

/// Measures and prints.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let mut pods = Pods::watch(&options).await?;

    // The first pod warms everything up, and is the pattern of the bare calls: they use its files.
    let pattern = [PATTERN.to_owned()];
    pods.create(&options, &pattern).await?;
    let docker = Docker::like(&options.docker_socket, PATTERN).await?;
    bare_crowd(&docker, "warm", 1).await?;
    println!(
        "| | bare calls, network `none` | bare calls as ours | ours | ratios | scheduled / sandbox / running after |\n\
         |---|---|---|---|---|---|"
    );
    compare(&mut pods, &docker, &options, 1, options.rounds).await?;
    compare(&mut pods, &docker, &options, options.crowd, 3).await?;
    pods.delete(&options, &pattern).await?;

    if let Some(pid) = options.pid {
        pods.idle(&options, pid).await?;
    }
    Ok(())
}

/// Starts so many pods at once, again and again, in turns with the bare calls; prints the medians.
async fn compare(
    pods: &mut Pods,
    docker: &Docker,
    options: &Options,
    count: usize,
    rounds: usize,
) -> anyhow::Result<()> {
    let plain = docker.with_network_none();
    let [mut plain_took, mut same_took, mut ours_took] = [(); 3].map(|()| Latencies::default());
    let mut stages = Vec::new();
    for round in 0..rounds {
        let name = format!("of-{count}-{round}");
        plain_took.add(bare_crowd(&plain, &name, count).await?);
        same_took.add(bare_crowd(docker, &name, count).await?);
        let names: Vec<String> = (0..count).map(|number| format!("{name}-{number}")).collect();
        let crowd = pods.create(options, &names).await?;
        pods.delete(options, &names).await?;
        ours_took.add(crowd.running);
        stages.extend(crowd.stages);
    }
    let [plain, same, ours] = [plain_took, same_took, ours_took].map(|took| took.percentile(0.5));
    let Stages([scheduled, sandbox, running]) = Stages::of(&stages);
    println!(
        "| {count} at once, median of {rounds} | {plain:.0} ms | {same:.0} ms | {ours:.0} ms | **{:.2}**, **{:.2}** \
         | {scheduled:.0} / {sandbox:.0} / {running:.0} ms |",
        ours / plain,
        ours / same
    );
    Ok(())
}

/// Medians of the time from a pod's creation to each later stage, in milliseconds.
struct Stages([f64; STAGES.len() - 1]);

impl Stages {
    fn of(pods: &[Reached]) -> Self {
        let mut medians = [0.0; STAGES.len() - 1];
        for (at, median) in medians.iter_mut().enumerate() {
            let mut latencies = Latencies::default();
            for reached in pods {
                if let [Some(created), ..] = reached
                    && let Some(then) = reached[at + 1]
                {
                    latencies.add(then.saturating_duration_since(*created));
                }
            }
            *median = latencies.percentile(0.5);
        }
        Self(medians)
    }
}

/// Starts so many pods' containers at once by bare calls; answers how long it took until all ran.
async fn bare_crowd(docker: &Docker, name: &str, count: usize) -> anyhow::Result<Duration> {
    let names: Vec<String> = (0..count).map(|number| format!("minik8s-bench-{name}-{number}")).collect();
    let begun = Instant::now();
    each(&names, |name| {
        let docker = docker.clone();
        async move { docker.start_pod(&name).await }
    })
    .await?;
    let took = begun.elapsed();
    each(&names, |name| {
        let docker = docker.clone();
        async move { docker.remove_pod(&name).await }
    })
    .await?;
    Ok(took)
}

/// Does something for each at once.
async fn each<F>(names: &[String], work: impl Fn(String) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut working = JoinSet::new();
    for name in names {
        working.spawn(work(name.clone()));
    }
    while let Some(done) = working.join_next().await {
        done??;
    }
    Ok(())
}

/// What a crowd of pods took.
struct Crowd {
    /// From before the first create until the last ran.
    running: Duration,
    stages: Vec<Reached>,
}

/// What the watch says of a pod, at some moment.
struct Seen {
    name: String,
    at: Instant,
    /// How far it has come: an index into [`STAGES`]; none for a pod that is gone.
    stage: Option<usize>,
}

/// The pods of the cluster, watched.
struct Pods {
    seen: mpsc::Receiver<anyhow::Result<Seen>>,
    reader: JoinHandle<()>,
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Pods {
    async fn watch(options: &Options) -> anyhow::Result<Self> {
        let mut connection = options.target.connect().await?;
        let list = connection.call(Call::new(Method::GET, format!("{PODS}?limit=1"))).await?;
        let list: Value = serde_json::from_slice(&list)?;
        let revision =
            list["metadata"]["resourceVersion"].as_str().context("a list has a resourceVersion")?;
        let path = format!("{PODS}?watch=true&resourceVersion={revision}");
        let answer = connection.send(Call::new(Method::GET, path)).await?;
        if !answer.status().is_success() {
            bail!("watch: {}", answer.status());
        }
        let (sender, seen) = mpsc::channel(4096);
        let reader = tokio::spawn(async move {
            let mut body = answer.into_body();
            let mut line: Vec<u8> = Vec::new();
            loop {
                let frame = match body.frame().await {
                    Some(Ok(frame)) => frame,
                    Some(Err(error)) => return drop(sender.send(Err(error.into())).await),
                    None => return drop(sender.send(Err(anyhow::anyhow!("the watch ended"))).await),
                };
                let at = Instant::now();
                for part in frame
                    .data_ref()
                    .map(|data| data.split_inclusive(|byte| *byte == b'\n'))
                    .into_iter()
                    .flatten()
                {
                    line.extend_from_slice(part);
                    if line.last() == Some(&b'\n') {
                        let seen = serde_json::from_slice(&line).map(|event| Seen::of(&event, at));
                        if sender.send(seen.map_err(Into::into)).await.is_err() {
                            return;
                        }
                        line.clear();
                    }
                }
            }
        });
        Ok(Self { seen, reader })
    }

    async fn next(&mut self) -> anyhow::Result<Seen> {
        timeout(PATIENCE, self.seen.recv())
            .await
            .context("the pods take too long")?
            .context("the watch ended")?
    }

    /// Creates pods at once and waits until all run.
    async fn create(&mut self, options: &Options, names: &[String]) -> anyhow::Result<Crowd> {
        let connections = names.len().min(CONNECTIONS);
        let mut creators = Vec::new();
        for creator in 0..connections {
            let mine: Vec<Call> = names
                .iter()
                .skip(creator)
                .step_by(connections)
                .map(|name| create(name, &options.image))
                .collect();
            creators.push((options.target.connect().await?, mine));
        }
        let begun = Instant::now();
        let mut working = JoinSet::new();
        for (mut connection, calls) in creators {
            working.spawn(async move {
                for call in calls {
                    connection.call(call).await?;
                }
                anyhow::Ok(())
            });
        }
        let mut pods: BTreeMap<&str, Reached> =
            names.iter().map(|name| (name.as_str(), Reached::default())).collect();
        let mut waiting = names.len();
        while waiting > 0 {
            let seen = self.next().await?;
            let (Some(reached), Some(stage)) = (pods.get_mut(seen.name.as_str()), seen.stage) else {
                continue;
            };
            waiting -= usize::from(stage == STAGES.len() - 1 && reached[stage].is_none());
            for earlier in &mut reached[..=stage] {
                earlier.get_or_insert(seen.at);
            }
        }
        let running = begun.elapsed();
        while let Some(done) = working.join_next().await {
            done??;
        }
        let stages = pods.into_values().collect();
        Ok(Crowd { running, stages })
    }

    /// Deletes pods and waits until they are gone.
    async fn delete(&mut self, options: &Options, names: &[String]) -> anyhow::Result<()> {
        let mut connection = options.target.connect().await?;
        for name in names {
            connection.call(Call::new(Method::DELETE, format!("{PODS}/{name}"))).await?;
        }
        let mut left = names.len();
        while left > 0 {
            let seen = self.next().await?;
            left -= usize::from(seen.stage.is_none() && names.contains(&seen.name));
        }
        Ok(())
    }

    /// What the kubelet takes while its pods do nothing.
    async fn idle(&mut self, options: &Options, pid: u32) -> anyhow::Result<()> {
        let count = options.idle_pods;
        let names: Vec<String> = (0..count).map(|number| format!("idle-{number}")).collect();
        self.create(options, &names).await?;
        tokio::time::sleep(options.idle / 3).await;
        let stretch = Stretch::begin(Some(pid));
        tokio::time::sleep(options.idle).await;
        let cost = stretch.end();
        println!(
            "\nThe kubelet beside {count} idle pods: {:.0} MB RSS, of which {:.0} MB allocated; {:.2} % of a core over {:.0} s.",
            resident_mb(pid),
            allocated_mb(pid),
            cost.server / cost.wall * 100.0,
            cost.wall
        );
        self.delete(options, &names).await
    }
}

impl Seen {
    fn of(event: &Value, at: Instant) -> Self {
        let object = &event["object"];
        let has = |kind: &str| {
            let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            conditions.into_iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
        };
        let stage = if event["type"] == "DELETED" {
            None
        } else if object["status"]["phase"] == "Running" {
            Some(3)
        } else if has("PodReadyToStartContainers") {
            Some(2)
        } else {
            Some(usize::from(object["spec"]["nodeName"].is_string()))
        };
        Self { name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(), at, stage }
    }
}

/// The creation of a pod of one container that sleeps.
fn create(name: &str, image: &str) -> Call {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "app", "image": image, "imagePullPolicy": "Never", "command": ["sleep", "100000"]}],
        },
    });
    Call::post(PODS, pod.to_string())
}
