//! What runs on this node: the kubelet.
//!
//! Observes the API's pods of its node and the runtime's containers, decides in pure functions ([`pod`]) and
//! carries out through `kubelet-runtime` and `kubelet-network`. Everything can be killed at any time: a
//! restarted kubelet rebuilds its world from labels, links and the API, and running containers do not notice.
//!
//! What stands where: [`config`] · `node` and `heartbeat` (this node in the API) · `pod_manager` (which pods)
//! · `pod_worker` (one pod's life) · [`pod`] (decisions) · `volumes` · `images` · `status_writer` · `server`
//! (logs, exec, metrics) · [`simulated`] (a thousand nodes that only pretend).

mod accounts;
mod admission;
mod allocations;
mod api;
pub mod config;
mod context;
mod events;
mod files;
mod groups;
mod heartbeat;
mod huge_pages;
mod images;
pub mod join;
mod machine;
mod measures;
mod memory;
mod network;
mod node;
pub mod pod;
mod pod_manager;
mod pod_worker;
pub mod pressure;
mod probe_client;
mod server;
pub mod simulated;
mod static_pods;
mod status_writer;
mod volumes;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use api_objects::{Value, object::ObjectMeta};
use client::{Client, EventType, Informers, Recorder, Scope};
use kubelet_network::Peer;
use kubelet_runtime::{
    PodRuntime, RuntimeError,
    docker::{DockerOptions, DockerRuntime},
    simulated::{SimulatedOptions, SimulatedRuntime},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{Args, Config, ConfigError, RuntimeKind};

use accounts::Accounts;
use admission::Admission;
use allocations::Allocations;
use context::Context;
use events::Events;
use groups::Groups;
use images::Images;
use machine::Machine;
use measures::{Measures, runtime::MeasuredRuntime};
use network::setup::{NetworkSetup, chain_prefix};
use node::NodeKeeper;
use pod::{admit::NodeFacts, environment::ServiceFacts, identity::NameService, resources::Demand};
use pod_manager::PodManager;
use pressure::{Monitor, thresholds::Pressure};
use status_writer::StatusWriter;
use volumes::{Layout, Volumes, claims::Claims, image::ImageVolumes, objects::Objects, tokens::Tokens};

/// Why a kubelet could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The runtime cannot be reached.
    #[error("the container runtime cannot be used")]
    Runtime(#[from] RuntimeError),
    /// The server cannot be started.
    #[error("the kubelet's server cannot be started")]
    Server(#[from] server::ServerError),
    /// The kubelet's directory cannot be made.
    #[error("cannot make {path}")]
    Directory {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs a kubelet until `shutdown`. Containers go on running after it.
///
/// # Errors
/// If what must be there at start is not: the runtime, the directory, the server's certificates and port.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let runtime: Arc<dyn PodRuntime> = match config.runtime {
        RuntimeKind::Docker => {
            let mut options = DockerOptions::new(config.node_name.clone());
            options.socket.clone_from(&config.docker_socket);
            options.sandbox_image.clone_from(&config.sandbox_image);
            options.disk_age = Some(config.pressure.disk_age);
            Arc::new(DockerRuntime::connect(options).await?)
        }
        RuntimeKind::Simulated => {
            let range = config.pod_cidr.unwrap_or(config.cluster_cidr);
            Arc::new(SimulatedRuntime::new(SimulatedOptions {
                start_delay: config.simulated_start_delay,
                failure_rate: config.simulated_failure_rate,
                first_address: range.hosts().nth(1),
                address_count: u32::try_from(range.hosts().count().saturating_sub(2)).unwrap_or(u32::MAX),
            }))
        }
    };
    run_on(config, client, runtime, shutdown).await
}

/// Runs a kubelet on a runtime of the caller's until `shutdown`.
///
/// # Errors
/// See [`run`].
pub async fn run_on(
    config: Config,
    client: Client,
    runtime: Arc<dyn PodRuntime>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let tasks = TaskTracker::new();
    let result = Box::pin(start(config, client, runtime, &shutdown, &tasks)).await;
    if result.is_ok() {
        shutdown.cancelled().await;
    } else {
        shutdown.cancel();
    }
    tasks.close();
    tasks.wait().await;
    result
}

/// A client out of a kubeconfig, and where pods can reach the API server that it names (IPv4 only; a server
/// on the loopback is reached by the node's own address).
///
/// # Errors
/// If the kubeconfig cannot be used.
pub async fn connect(
    kubeconfig: Option<&std::path::Path>,
) -> Result<(Client, Option<std::net::SocketAddrV4>), client::Error> {
    let wrong = |error: &dyn std::error::Error| client::Error::Config(client::error::chain(error));
    let options = kube::config::KubeConfigOptions::default();
    let config = match kubeconfig {
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
            kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|error| wrong(&error))?
        }
        None => kube::Config::from_kubeconfig(&options).await.map_err(|error| wrong(&error))?,
    };
    let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let found = tokio::net::lookup_host((host.as_str(), port)).await.ok();
    let address =
        found.into_iter().flatten().find_map(|address| match (address.ip(), node::outward_address()) {
            (IpAddr::V4(ip), IpAddr::V4(own)) if ip.is_loopback() => {
                Some(std::net::SocketAddrV4::new(own, port))
            }
            (IpAddr::V4(ip), _) => Some(std::net::SocketAddrV4::new(ip, port)),
            (IpAddr::V6(_), _) => None,
        });
    Ok((Client::from_config(config)?, address))
}

/// What is known of this node's object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NodeView {
    uid: String,
    labels: BTreeMap<String, String>,
    pod_cidr: Option<ipnet::Ipv4Net>,
    /// The extended resources that somebody has told its capacity of.
    extended: BTreeMap<String, String>,
    /// Whether somebody has declared a condition unknown that this kubelet reports.
    doubted: bool,
}

async fn start(
    config: Config,
    client: Client,
    runtime: Arc<dyn PodRuntime>,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<(), Error> {
    let measures = Arc::<Measures>::default();
    let runtime: Arc<dyn PodRuntime> = Arc::new(MeasuredRuntime::new(runtime, Arc::clone(&measures)));
    let mut config = config;
    let server = server::bind(&config).await?;
    if let Some(server) = &server {
        config.port = server.port();
    }
    let config = Arc::new(config);
    let root = config.root_dir.clone();
    std::fs::create_dir_all(&root).map_err(|source| Error::Directory { path: root.clone(), source })?;
    let machine = Machine::measure(&root);
    let addresses = vec![config.node_ip.unwrap_or_else(node::outward_address)];
    let (network_sender, network) = watch::channel(None);
    let (registered_sender, registered) = watch::channel(None);
    let name = config.node_name.clone();
    // What says that the node lives is said again soon: upstream gives these requests no longer either.
    let lifeline = client.clone().with_patience(config.renew_every.min(heartbeat::RENEW_EVERY));
    let runtime_facts = runtime.facts().await.map_err(|error| error.to_string());
    let handlers = runtime_facts.as_ref().map(|facts| facts.handlers.clone()).unwrap_or_default();
    tasks.spawn(heartbeat::keep(
        lifeline.clone(),
        name.clone(),
        registered.clone(),
        config.renew_every,
        shutdown.clone(),
    ));
    let (pressure_sender, pressure) = watch::channel(Pressure::default());

    let informers = Informers::new(client.clone(), shutdown.clone(), tasks.clone());
    let field = |field: &str| Scope { field_selector: format!("{field}={name}"), ..Scope::default() };
    let nodes = informers.watch(api::nodes(), &field("metadata.name"), project_node);
    let keeper = NodeKeeper {
        handlers,
        config: Arc::clone(&config),
        machine: machine.clone(),
        client: lifeline,
        runtime: Arc::clone(&runtime),
        network: network.clone(),
        addresses: addresses.clone(),
        images: None,
        nodes: nodes.clone(),
        registered: registered_sender,
        pressure,
    };
    // A runtime with a network of its own knows the ways in it.
    let is_ours = runtime.capabilities().network;
    let peers = is_ours.then(|| informers.watch(api::nodes(), &Scope::default(), project_peer));
    let services = informers.watch(api::services(), &Scope::default(), project_service);
    let pods = informers.watch(api::pods(), &field("spec.nodeName"), |bytes, meta| {
        Some(static_pods::mirror::project(bytes, meta))
    });

    let events = Events::new(Recorder::new(client.clone(), "kubelet", &name, shutdown.clone(), tasks));
    events.node(&name, EventType::Normal, "Starting", "Starting kubelet.");
    let objects = Arc::new(Objects::new(client.clone()));
    let tokens = Arc::new(Tokens::new(client.clone()));
    let layout = Layout::new(&root);
    let unpacked = ImageVolumes::new(layout.clone(), Arc::clone(&runtime));
    let claims = Claims::new(client.clone(), name.clone());
    if runtime.capabilities().volumes {
        let reclaiming =
            volumes::reclaim::keep(client.clone(), informers.clone(), name.clone(), shutdown.clone());
        tasks.spawn(reclaiming);
    }
    let allocatable = Demand {
        cpu: i64::try_from(machine.cpus).unwrap_or(i64::MAX).saturating_mul(1000),
        memory: i64::try_from(machine.allocatable_memory()).unwrap_or(i64::MAX),
        storage: i64::try_from(machine.allocatable_disk()).unwrap_or(i64::MAX),
    };
    let huge_page_sizes = machine.huge_pages.iter().map(|pages| pages.size).collect();
    let groups = Groups::open(&config, runtime_facts, allocatable, huge_page_sizes).await;
    let facts = NodeFacts {
        name: name.clone(),
        // Until the API says what others have put there.
        labels: node::labels(&config, &machine),
        allocatable,
        scarce: machine.scarce(&BTreeMap::new()),
        max_pods: usize::try_from(config.max_pods).unwrap_or(usize::MAX),
        pressure: Pressure::default(),
        unsafe_sysctls: config.allowed_unsafe_sysctls.clone(),
        has_app_armor: machine.has_app_armor,
    };
    let reviewer = client.clone();
    let context = Arc::new(Context {
        node: name.clone(),
        runtime: Arc::clone(&runtime),
        groups,
        network,
        volumes: Volumes::new(layout, Arc::clone(&objects), tokens, claims, unpacked, Arc::clone(&measures)),
        objects,
        accounts: Accounts::new(Arc::clone(&runtime)),
        images: Images::new(Arc::clone(&runtime), root.join("pulled-images")),
        client: client.clone(),
        registered,
        statuses: StatusWriter::start(client, tasks, shutdown),
        events,
        services: services.clone(),
        admission: parking_lot::Mutex::new(Admission::new(facts, Allocations::new(Layout::new(&root)))),
        names: NameService {
            cluster_dns: config.cluster_dns.clone(),
            cluster_domain: config.cluster_domain.clone(),
            node_resolv_conf: std::fs::read_to_string(&config.resolv_conf).unwrap_or_default(),
            node_hostname: machine.hostname.clone(),
        },
        host_ips: addresses,
        allocatable,
        machine,
        measures,
        sandbox_image: config.sandbox_image.clone(),
        http: probe_client::new(),
        seccomp_root: root.join("seccomp"),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
    });
    if let Some(server) = server {
        server.serve(Arc::clone(&context), pods.clone(), reviewer);
    }
    tasks.spawn(keeper.keep(shutdown.clone()));
    let (policy, static_path) = (config.pressure.clone(), config.static_pod_path.clone());
    let setup = NetworkSetup {
        config,
        context: Arc::clone(&context),
        nodes,
        peers,
        services,
        pods: pods.clone(),
        sender: network_sender,
    };
    tasks.spawn(setup.run());
    let mut folder = static_path.map(|path| static_pods::folder::Folder::new(path, name));
    // Known before anything is swept away that no pod owns.
    let first = folder.as_mut().map(static_pods::folder::Folder::scan).unwrap_or_default();
    let (found, static_pods) = watch::channel(first);
    if let Some(folder) = folder {
        tasks.spawn(folder.follow(found, shutdown.clone()));
    }
    let manager = PodManager::new(Arc::clone(&context), pods.clone(), static_pods);
    let workers = manager.workers();
    tasks.spawn(manager.run());
    tasks.spawn(Monitor { context, pods, workers, policy, root, pressure: pressure_sender }.run());
    Ok(())
}

fn project_node(bytes: &[u8], meta: &ObjectMeta) -> Option<NodeView> {
    let node: Value = serde_json::from_slice(bytes).ok()?;
    let pod_cidr = node.pointer("/spec/podCIDR").and_then(Value::as_str).and_then(|range| range.parse().ok());
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    let of_kubelet = |kind: &Value| kind.as_str().is_some_and(|kind| node::CONDITIONS.contains(&kind));
    let doubted = conditions
        .into_iter()
        .flatten()
        .any(|condition| of_kubelet(&condition["type"]) && condition["status"] == "Unknown");
    let extended = machine::extended(node.pointer("/status/capacity"));
    Some(NodeView { uid: meta.uid.clone(), labels: meta.labels.clone(), pod_cidr, extended, doubted })
}

/// How a node's pods are reached; `None` until it has an address and a range.
fn project_peer(bytes: &[u8], _: &ObjectMeta) -> Option<Option<Peer>> {
    let node: Value = serde_json::from_slice(bytes).ok()?;
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array).into_iter().flatten();
    let address = addresses
        .filter(|entry| entry["type"] == "InternalIP")
        .find_map(|entry| entry["address"].as_str()?.parse().ok());
    let range = node.pointer("/spec/podCIDR").and_then(Value::as_str).and_then(|range| range.parse().ok());
    Some(address.zip(range).map(|(address, pod_cidr)| Peer { address, pod_cidr }))
}

/// Stands for the address of a Service without one.
const UNSPECIFIED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// A Service that has an address of its own; headless and external ones make no variables.
fn project_service(bytes: &[u8], meta: &ObjectMeta) -> Option<ServiceFacts> {
    let service: Value = serde_json::from_slice(bytes).ok()?;
    let address = service.pointer("/spec/clusterIP").and_then(Value::as_str)?.parse::<IpAddr>();
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    let text =
        |port: &Value, field: &str| port.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(ServiceFacts {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        // Kept without ports, so that the informer does not warn about every headless Service.
        ports: match address {
            Ok(_) => ports
                .filter_map(|port| {
                    let number = i32::try_from(port.get("port")?.as_i64()?).ok()?;
                    let protocol = Some(text(port, "protocol")).filter(|text| !text.is_empty());
                    Some((text(port, "name"), number, protocol.unwrap_or_else(|| "TCP".to_owned())))
                })
                .collect(),
            Err(_) => Vec::new(),
        },
        address: address.unwrap_or(UNSPECIFIED),
    })
}

/// Removes everything of a kubelet from its node: containers, network, mounts, directories. For
/// `minik8s down` and `reset`; no kubelet of that configuration may be running.
///
/// # Errors
/// What could not be removed, in words; the rest is removed all the same.
pub async fn remove_everything(config: &Config) -> Result<(), Vec<String>> {
    let mut failures = Vec::new();
    if config.runtime == RuntimeKind::Docker {
        let mut options = DockerOptions::new(config.node_name.clone());
        options.socket.clone_from(&config.docker_socket);
        match DockerRuntime::connect(options).await {
            Ok(runtime) => {
                if let Err(error) = runtime.remove_everything().await {
                    failures.push(format!("containers: {error}"));
                }
                if let Err(message) = groups::remove_everything(config, &runtime).await {
                    failures.push(format!("control groups: {message}"));
                }
            }
            Err(error) => failures.push(format!("containers: {error}")),
        }
        if let Err(error) = kubelet_network::remove_everything(
            &config.bridge,
            &chain_prefix(&config.bridge),
            config.cluster_cidr,
        )
        .await
        {
            failures.push(format!("network: {}", client::error::chain(&error)));
        }
    }
    if let Err(error) = network::setup::forget(&config.root_dir) {
        failures.push(format!("network: {error}"));
    }
    let layout = Layout::new(&config.root_dir);
    for directory in [layout.pods(), layout.image_volumes()] {
        if let Err(message) = volumes::remove_tree(&directory) {
            failures.push(format!("volumes: {message}"));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}
