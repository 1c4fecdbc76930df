//! What is used, and what the kubelet does: `/metrics`, `/metrics/resource`, `/metrics/cadvisor`,
//! `/metrics/probes` and `/stats/summary`.
//!
//! A request reads the kernel's files once ([`Figures`]); what is written of them is pure, one file for each
//! page. Names, labels and units are upstream's and cAdvisor's.

mod cadvisor;
mod filesystems;
mod machine;
mod own;
mod process;
mod resource;
mod summary;

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use kubelet_runtime::usage::{self, GroupUsage, RuntimeUsage, disk::DiskMeter, interfaces::Interface};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use self::{
    filesystems::{Disk, Filesystem, Volume},
    machine::Processors,
};
use super::{Failure, Shared, logs::is_set};
use crate::measures::text::{CONTENT_TYPE, Text};

/// Two samples nearer to one another than this say little of a rate: the one before is kept.
const RATE_OVER: Duration = Duration::from_secs(5);

/// What the pages remember from request to request.
#[derive(Debug)]
pub(super) struct Memory {
    disk: Arc<DiskMeter>,
    /// By control group: the sample that the next rate is taken from, and the last rate.
    rates: Mutex<HashMap<String, Rate>>,
    processors: Processors,
}

impl Memory {
    /// Directories are walked again once their figures are that old.
    pub(super) fn new(disk_age: Duration) -> Self {
        let disk = Arc::new(DiskMeter::new(disk_age));
        Self { disk, rates: Mutex::default(), processors: Processors::read() }
    }
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    at: Instant,
    nanos: u64,
    /// Nanoseconds of CPU in a second.
    nano_cores: Option<u64>,
}

/// Everything that is read for a page.
#[derive(Debug, Default)]
struct Figures {
    now: Timestamp,
    /// Pods and their containers.
    pods: RuntimeUsage,
    /// The node's root control group.
    node: GroupUsage,
    /// The node's interfaces.
    interfaces: Vec<Interface>,
    /// The name of that with the default route.
    default_interface: String,
    /// Disks of the node.
    disks: Vec<Disk>,
    /// The file system of the kubelet's directory.
    root: Option<Filesystem>,
    /// The file system of the runtime's directory.
    storage: Option<Filesystem>,
    /// By pod uid: its volumes.
    volumes: HashMap<String, Vec<Volume>>,
    /// By control group: nanoseconds of CPU in a second.
    nano_cores: HashMap<String, u64>,
}

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// What control groups and interfaces say.
    Groups,
    /// Volumes of claims as well.
    Claims,
    /// All volumes as well.
    Volumes,
}

async fn read(shared: &Shared, depth: Depth) -> Result<Figures, Failure> {
    let failed = |message: String| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, message);
    let pods = shared.context.runtime.usage().await.map_err(|error| failed(error.to_string()))?;
    let pods_directory = shared.context.volumes.layout().pods();
    let disk = Arc::clone(&shared.metrics.disk);
    let known = shared.context.measures.volumes.of_pods();
    let read = move || {
        let mut figures = read_node(pods, &pods_directory, &disk, depth);
        if depth != Depth::Groups {
            for (uid, claimed) in filesystems::claimed(&known, &disk) {
                figures.volumes.entry(uid).or_default().extend(claimed);
            }
        }
        figures
    };
    let mut figures = tokio::task::spawn_blocking(read).await.map_err(|error| failed(error.to_string()))?;
    figures.nano_cores = rates(&mut shared.metrics.rates.lock(), &figures, Instant::now());
    Ok(figures)
}

/// Reads the node's own files. Blocks.
fn read_node(pods: RuntimeUsage, directory: &Path, disk: &DiskMeter, depth: Depth) -> Figures {
    let volumes = match depth {
        Depth::Groups | Depth::Claims => HashMap::new(),
        Depth::Volumes => filesystems::volumes(directory, disk),
    };
    Figures {
        now: Timestamp::now(),
        node: usage::of_node(),
        interfaces: machine::interfaces_of_node(),
        default_interface: machine::default_interface(),
        disks: filesystems::disks(),
        root: Filesystem::of(directory),
        storage: pods.storage.as_deref().and_then(Filesystem::of),
        pods,
        volumes,
        nano_cores: HashMap::new(),
    }
}

/// Takes rates from the last samples to these, and forgets groups that are gone.
fn rates(known: &mut HashMap<String, Rate>, figures: &Figures, now: Instant) -> HashMap<String, u64> {
    let pods = figures.pods.pods.iter();
    let groups = pods
        .flat_map(|pod| pod.sandbox.iter().chain(&pod.containers))
        .map(|container| (container.group.as_str(), container.usage.cpu.total_nanos));
    let of_pods = figures.pods.pods.iter().filter_map(|pod| pod.group.as_ref());
    let of_pods = of_pods.map(|group| (group.group.as_str(), group.usage.cpu.total_nanos));
    let node = [("/", figures.node.cpu.total_nanos)];
    let current: HashMap<&str, u64> = groups.chain(of_pods).chain(node).collect();
    known.retain(|group, _| current.contains_key(group.as_str()));
    let mut found = HashMap::new();
    for (group, nanos) in current {
        let first = Rate { at: now, nanos, nano_cores: None };
        let rate = known.entry(group.to_owned()).or_insert(first);
        let passed = now.saturating_duration_since(rate.at);
        if passed >= RATE_OVER {
            let used = nanos.saturating_sub(rate.nanos);
            let nano_cores = (used as f64 / passed.as_secs_f64()) as u64;
            *rate = Rate { at: now, nanos, nano_cores: Some(nano_cores) };
        }
        if let Some(nano_cores) = rate.nano_cores {
            found.insert(group.to_owned(), nano_cores);
        }
    }
    found
}

fn page(text: Text) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text.finish()).into_response()
}

/// `/metrics`: the kubelet's own.
pub(super) async fn own(State(shared): State<Arc<Shared>>) -> Result<Response, Failure> {
    let figures = read(&shared, Depth::Claims).await?;
    let mut text = Text::default();
    let pods: Vec<_> = shared.pods.list().into_iter().map(|(_, bytes)| bytes).collect();
    own::write(&mut text, &shared.context, &figures, &own::desired_volumes(&shared.context, &pods));
    Ok(page(text))
}

/// `/metrics/resource`: CPU and memory of containers, pods and the node, as the metrics server reads them.
pub(super) async fn resource(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = Text::default();
    match read(&shared, Depth::Groups).await {
        Ok(figures) => resource::write(&mut text, &figures),
        Err(Failure { message, .. }) => {
            tracing::warn!("no resource metrics: {message}");
            resource::write_result(&mut text, 1);
        }
    }
    page(text)
}

/// `/metrics/cadvisor`: everything about containers, under cAdvisor's names.
pub(super) async fn cadvisor(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = Text::default();
    match read(&shared, Depth::Groups).await {
        Ok(figures) => {
            cadvisor::write(&mut text, &figures, &shared.context.machine);
            cadvisor::write_result(&mut text, 0);
            machine::write(&mut text, &shared.context.machine, &shared.metrics.processors);
        }
        Err(Failure { message, .. }) => {
            tracing::warn!("no container metrics: {message}");
            cadvisor::write_result(&mut text, 1);
        }
    }
    page(text)
}

/// `/metrics/probes`: what probes found.
pub(super) async fn probes(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = Text::default();
    shared.context.measures.write_probes(&mut text);
    page(text)
}

/// The query of `/stats/summary`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct SummaryQuery {
    only_cpu_and_memory: Option<String>,
}

/// `/stats/summary`: all of it as JSON (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`).
pub(super) async fn summary(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<SummaryQuery>,
) -> Result<Response, Failure> {
    let brief = is_set(query.only_cpu_and_memory.as_deref());
    let figures = read(&shared, if brief { Depth::Groups } else { Depth::Volumes }).await?;
    let started = |uid: &str| {
        let pods = shared.pods.list();
        let bytes = pods.iter().map(|(_, bytes)| bytes);
        let mut found = bytes.filter(|bytes| api_objects::object::ObjectMeta::from_bytes(bytes).uid == uid);
        found.next().and_then(|bytes| summary::start_time(bytes))
    };
    let summary = summary::summary(&figures, &shared.context.node, &shared.context.machine, started);
    Ok(Json(if brief { summary::only_cpu_and_memory(summary) } else { summary }).into_response())
}

#[cfg(test)]
mod testing {
    //! Figures for the tests of the pages: one pod on a node.

    use kubelet_runtime::{
        PodIdentity,
        usage::{
            ContainerUsage, CpuUsage, DeviceUsage, GroupLimits, MemoryUsage, PodUsage, disk::DiskUsage,
            interfaces::Traffic,
        },
    };

    use super::*;

    fn group(part: u64) -> GroupUsage {
        GroupUsage {
            cpu: CpuUsage {
                total_nanos: part * 1_500_000_000,
                user_nanos: part * 1_000_000_000,
                system_nanos: part * 500_000_000,
                ..CpuUsage::default()
            },
            memory: MemoryUsage {
                usage: part * 1000,
                working_set: part * 800,
                rss: part * 500,
                cache: part * 300,
                page_faults: part * 7,
                ..MemoryUsage::default()
            },
            devices: vec![DeviceUsage {
                device: (254, 0),
                read_bytes: part * 4096,
                reads: part,
                ..DeviceUsage::default()
            }],
            tasks: part,
            limits: GroupLimits::default(),
        }
    }

    pub(super) fn figures() -> Figures {
        let mut app = group(2);
        app.limits = GroupLimits {
            cpu_shares: 512,
            cpu_quota: Some(50_000),
            cpu_period: 100_000,
            memory: 64 << 20,
            tasks: 0,
        };
        app.cpu.periods = 10;
        let started_at = "2026-11-25T10:00:00Z".to_owned();
        let container = |name: &str, image: &str, id: &str, usage: GroupUsage| ContainerUsage {
            name: name.into(),
            runtime_name: format!("k8s_{name}_web_shop_u-1_0"),
            image: image.into(),
            started_at: started_at.clone(),
            group: format!("/docker/{id}"),
            usage,
            layer: None,
            log_bytes: 0,
        };
        let mut running = container("app", "busybox:1", "abc", app);
        running.layer = Some(DiskUsage { bytes: 8192, inodes: 3 });
        running.log_bytes = 100;
        let interface = |name: &str, bytes: u64| Interface {
            name: name.into(),
            received: Traffic { bytes, packets: 11, errors: 1, dropped: 2 },
            sent: Traffic { bytes: 806, packets: 9, errors: 3, dropped: 4 },
        };
        let pod = PodUsage {
            pod: PodIdentity { uid: "u-1".into(), namespace: "shop".into(), name: "web".into() },
            group: None,
            sandbox: Some(container("POD", "pause:1", "def", group(1))),
            containers: vec![running],
            interfaces: vec![interface("eth0", 1146)],
        };
        let filesystem = Filesystem {
            device: (254, 0),
            capacity: 1_000_000,
            available: 400_000,
            used: 600_000,
            inodes: 100,
            inodes_free: 40,
        };
        Figures {
            now: "2026-11-25T10:01:00Z".parse().unwrap(),
            pods: RuntimeUsage { pods: vec![pod], created: 1, exited: 2, storage: Some("/docker".into()) },
            node: group(10),
            interfaces: vec![interface("ens3", 5000)],
            default_interface: "ens3".into(),
            disks: vec![Disk {
                device: (254, 0),
                name: "vda".into(),
                reads: 5,
                read_bytes: 2560,
                writes: 6,
                written_bytes: 3072,
            }],
            root: Some(filesystem),
            storage: Some(filesystem),
            volumes: HashMap::from([(
                "u-1".to_owned(),
                vec![Volume {
                    name: "scratch".into(),
                    plugin: "kubernetes.io~empty-dir".into(),
                    claim: None,
                    used: 4096,
                    inodes_used: 1,
                    on: filesystem,
                }],
            )]),
            nano_cores: HashMap::from([("/docker/abc".to_owned(), 250_000_000)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_taken_over_some_seconds_and_kept_between() {
        let mut known = HashMap::new();
        let mut figures = testing::figures();
        let first = rates(&mut known, &figures, Instant::now());
        assert_eq!(first, HashMap::new(), "one sample has no rate");
        tokio::time::advance(Duration::from_secs(10)).await;
        figures.pods.pods[0].containers[0].usage.cpu.total_nanos += 5_000_000_000;
        let second = rates(&mut known, &figures, Instant::now());
        assert_eq!((second["/docker/abc"], second["/"]), (500_000_000, 0));
        tokio::time::advance(Duration::from_secs(1)).await;
        figures.pods.pods[0].containers[0].usage.cpu.total_nanos += 1_000_000_000;
        assert_eq!(rates(&mut known, &figures, Instant::now())["/docker/abc"], 500_000_000, "too near");
        figures.pods.pods.clear();
        rates(&mut known, &figures, Instant::now());
        assert_eq!(known.len(), 1, "only the node is left");
    }
}
