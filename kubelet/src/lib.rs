//! What runs on this node: the kubelet.
//!
//! Observes the API's pods of its node and the runtime's containers, decides in pure functions ([`pod`]) and
//! carries out through `kubelet-runtime` and `kubelet-network`. Everything can be killed at any time: a
//! restarted kubelet rebuilds its world from labels, links and the API, and running containers do not notice.
//!
//! What stands where: [`config`] · `node` and `heartbeat` (this node in the API) · `pod_manager` (which pods)
//! · `pod_worker` (one pod's life) · [`pod`] (decisions) · `volumes` · `images` · `status_writer` · `server`
//! (logs, exec, metrics) · [`simulated`] (a thousand nodes that only pretend).

mod admission;
mod allocations;
mod api;
pub mod config;
mod context;
mod events;
mod heartbeat;
mod images;
pub mod join;
mod measures;
mod network;
mod node;
pub mod pod;
mod pod_manager;
mod pod_worker;
pub mod pressure;
mod server;
pub mod simulated;
mod static_pods;
mod status_writer;
mod volumes;

use std::{net::IpAddr, sync::Arc, time::Duration};

use api_objects::{Value, object::ObjectMeta};
use bytes::Bytes;
use client::{Client, EventType, Informer, Informers, Recorder, Scope};
use kubelet_network::{Attachment, NetworkConfig, Peer, PodNetwork, Redirect};
use kubelet_runtime::{
    PodRuntime, RuntimeError,
    docker::{DockerOptions, DockerRuntime},
    simulated::{SimulatedOptions, SimulatedRuntime},
};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{Args, Config, ConfigError, RuntimeKind};

use admission::Admission;
use allocations::Allocations;
use context::Context;
use events::Events;
use images::Images;
use measures::{Measures, runtime::MeasuredRuntime};
use network::{BridgeNetwork, Network, RuntimeNetwork};
use node::{Machine, NodeKeeper};
use pod::{admit::NodeFacts, environment::ServiceFacts, identity::NameService, resources::Demand};
use pod_manager::PodManager;
use pressure::{Monitor, thresholds::Pressure};
use status_writer::StatusWriter;
use volumes::{Layout, Volumes, claims::Claims, objects::Objects, tokens::Tokens};

/// Wait between attempts to reach what must be there (the API, the runtime).
const RETRY: Duration = Duration::from_secs(1);

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
    labels: std::collections::BTreeMap<String, String>,
    pod_cidr: Option<ipnet::Ipv4Net>,
    /// Whether somebody has declared a condition of it unknown.
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
    let (pressure_sender, pressure) = watch::channel(Pressure::default());

    // What says that the node lives is said again soon: upstream gives these requests no longer either.
    let lifeline = client.clone().with_patience(config.renew_every.min(heartbeat::RENEW_EVERY));
    let mut keeper = NodeKeeper {
        config: Arc::clone(&config),
        machine: machine.clone(),
        client: lifeline.clone(),
        runtime: Arc::clone(&runtime),
        network: network.clone(),
        addresses: addresses.clone(),
        doubted: Arc::default(),
        images: None,
        pressure,
    };
    let doubted = Arc::clone(&keeper.doubted);
    let Some(registered) = register(&mut keeper, shutdown).await else { return Ok(()) };
    let node_uid = ObjectMeta::from_value(&registered).uid;
    let name = config.node_name.clone();
    tasks.spawn(heartbeat::keep(
        lifeline,
        name.clone(),
        node_uid.clone(),
        config.renew_every,
        shutdown.clone(),
    ));

    let informers = Informers::new(client.clone(), shutdown.clone(), tasks.clone());
    let field = |field: &str| Scope { field_selector: format!("{field}={name}"), ..Scope::default() };
    let nodes = informers.watch(api::nodes(), &field("metadata.name"), project_node);
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
    let claims = Claims::new(client.clone(), name.clone());
    if runtime.capabilities().volumes {
        let reclaiming =
            volumes::reclaim::keep(client.clone(), informers.clone(), name.clone(), shutdown.clone());
        tasks.spawn(reclaiming);
    }
    let allocatable = Demand {
        cpu: i64::try_from(machine.cpus).unwrap_or(i64::MAX).saturating_mul(1000),
        memory: i64::try_from(machine.memory).unwrap_or(i64::MAX),
    };
    let facts = NodeFacts {
        name: name.clone(),
        labels: ObjectMeta::from_value(&registered).labels,
        allocatable,
        max_pods: usize::try_from(config.max_pods).unwrap_or(usize::MAX),
        pressure: Pressure::default(),
    };
    let reviewer = client.clone();
    let context = Arc::new(Context {
        node: name.clone(),
        runtime: Arc::clone(&runtime),
        network,
        volumes: Volumes::new(Layout::new(&root), Arc::clone(&objects), tokens, claims),
        objects,
        images: Images::new(Arc::clone(&runtime), root.join("pulled-images")),
        client: client.clone(),
        node_uid,
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
        memory_capacity: allocatable.memory,
        machine,
        measures,
        sandbox_image: config.sandbox_image.clone(),
        http: probe_client(),
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
        doubted,
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

/// Registers the node; `None` if shutdown comes first.
async fn register(keeper: &mut NodeKeeper, shutdown: &CancellationToken) -> Option<Value> {
    loop {
        match keeper.register().await {
            Ok(node) => return Some(node),
            Err(error) => tracing::warn!("cannot register the node: {}", client::error::chain(&error)),
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// The HTTP client of probes and hooks: no proxy, no pool, certificates unchecked as documented.
fn probe_client() -> reqwest::Client {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::limited(10))
        .danger_accept_invalid_certs(true)
        .danger_accept_invalid_hostnames(true);
    builder.build().expect("a client without files must build")
}

fn project_node(bytes: &[u8], meta: &ObjectMeta) -> Option<NodeView> {
    let node: Value = serde_json::from_slice(bytes).ok()?;
    let pod_cidr = node.pointer("/spec/podCIDR").and_then(Value::as_str).and_then(|range| range.parse().ok());
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    let doubted = conditions.into_iter().flatten().any(|condition| condition["status"] == "Unknown");
    Some(NodeView { labels: meta.labels.clone(), pod_cidr, doubted })
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

/// Brings the pod network up once the node has a range.
struct NetworkSetup {
    config: Arc<Config>,
    /// Told when the API doubts that the node is well.
    doubted: Arc<Notify>,
    context: Arc<Context>,
    nodes: Informer<NodeView>,
    /// All nodes, this one included; none where the runtime has a network of its own.
    peers: Option<Informer<Option<Peer>>>,
    services: Informer<ServiceFacts>,
    pods: Informer<Bytes>,
    sender: watch::Sender<Option<Arc<dyn Network>>>,
}

impl NetworkSetup {
    async fn run(self) {
        let shutdown = self.context.shutdown.clone();
        let _ = shutdown.run_until_cancelled(self.follow()).await;
    }

    async fn follow(self) {
        if !self.context.runtime.capabilities().network {
            self.sender.send_replace(Some(Arc::new(RuntimeNetwork)));
        }
        let mut changes = self.nodes.subscribe();
        loop {
            for change in changes.recv().await {
                let Some(node) = change.after else { continue };
                self.context.admission.lock().set_labels(node.labels.clone());
                if node.doubted {
                    self.doubted.notify_one();
                }
                if self.sender.borrow().is_none()
                    && let Some(range) = node.pod_cidr.or(self.config.pod_cidr)
                {
                    self.bring_up(range).await;
                }
            }
        }
    }

    /// Tries until it stands: pods wait for it.
    async fn bring_up(&self, range: ipnet::Ipv4Net) {
        self.pods.synced().await;
        let redirects = self.redirects().await;
        if !self.config.cluster_cidr.contains(&range) {
            let cluster = self.config.cluster_cidr;
            tracing::warn!(%range, "the node's range is outside of --cluster-cidr {cluster}: pods of other nodes will not be reached");
        }
        loop {
            let config = NetworkConfig {
                bridge: self.config.bridge.clone(),
                chain_prefix: chain_prefix(&self.config.bridge),
                pod_cidr: range,
                cluster_cidr: self.config.cluster_cidr,
                node_address: match self.context.host_ips.first() {
                    Some(IpAddr::V4(address)) => *address,
                    _ => std::net::Ipv4Addr::UNSPECIFIED,
                },
                redirects: redirects.clone(),
            };
            match self.try_bring_up(config).await {
                Ok(network) => {
                    tracing::info!(%range, bridge = self.config.bridge, "the pod network stands");
                    let network = Arc::new(network);
                    if let Some(peers) = self.peers.clone() {
                        let (network, shutdown) = (Arc::clone(&network), self.context.shutdown.clone());
                        self.context.tasks.spawn(async move {
                            let _ = shutdown.run_until_cancelled(follow_peers(network, peers)).await;
                        });
                    }
                    self.sender.send_replace(Some(Arc::new(BridgeNetwork(network))));
                    return;
                }
                Err(message) => {
                    tracing::warn!("cannot set the pod network up: {message}");
                    self.context.events.node(
                        &self.context.node,
                        EventType::Warning,
                        "NetworkNotReady",
                        &message,
                    );
                }
            }
            tokio::time::sleep(RETRY * 5).await;
        }
    }

    async fn try_bring_up(&self, config: NetworkConfig) -> Result<PodNetwork, String> {
        let chain = |error: &dyn std::error::Error| client::error::chain(error);
        let network = PodNetwork::new(config).await.map_err(|error| chain(&error))?;
        let views = self.context.runtime.list().await.map_err(|error| chain(&error))?;
        let alive: std::collections::HashSet<&str> = views
            .iter()
            .filter(|view| view.sandboxes.iter().any(|sandbox| sandbox.ready))
            .map(|view| view.pod.uid.as_str())
            .collect();
        let ports = self.host_ports();
        let running: Vec<Attachment> = network
            .found()
            .await
            .map_err(|error| chain(&error))?
            .into_iter()
            .filter(|(uid, _)| alive.contains(uid.as_str()))
            .map(|(pod_uid, address)| {
                let host_ports = ports.get(&pod_uid).cloned().unwrap_or_default();
                Attachment { pod_uid, address, host_ports }
            })
            .collect();
        network.restore(&running).await.map_err(|error| chain(&error))?;
        Ok(network)
    }

    /// Host ports of the pods that the API has, by uid.
    fn host_ports(&self) -> std::collections::HashMap<String, Vec<kubelet_network::HostPort>> {
        let pods = self.pods.list();
        let typed = pods
            .iter()
            .filter_map(|(_, bytes)| serde_json::from_slice::<k8s_openapi::api::core::v1::Pod>(bytes).ok());
        typed.map(|pod| (pod::uid(&pod).to_owned(), network::host_ports(&pod))).collect()
    }

    /// The way of the Service `kubernetes` to the API server.
    async fn redirects(&self) -> Vec<Redirect> {
        let Some(target) = self.config.api_server else {
            tracing::warn!(
                "the API server's address is not known: pods cannot reach it as kubernetes.default"
            );
            return Vec::new();
        };
        let found = async {
            loop {
                self.services.synced().await;
                if let Some(service) = self.services.get(&client::Key::new("default", "kubernetes")) {
                    return service;
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        let Ok(service) = tokio::time::timeout(RETRY * 10, found).await else {
            tracing::warn!("there is no Service default/kubernetes");
            return Vec::new();
        };
        let (IpAddr::V4(address), Some((_, port, _))) = (service.address, service.ports.first()) else {
            return Vec::new();
        };
        let port = u16::try_from(*port).unwrap_or(443);
        vec![Redirect { address, port, to: *target.ip(), to_port: target.port() }]
    }
}

/// Keeps the ways to the other nodes' pods as the API has the nodes.
async fn follow_peers(network: Arc<PodNetwork>, nodes: Informer<Option<Peer>>) {
    nodes.synced().await;
    let mut changes = nodes.subscribe();
    let mut known: Option<Vec<Peer>> = None;
    loop {
        // Nodes change all the time, and their ways almost never.
        let mut peers: Vec<Peer> =
            nodes.list().iter().filter_map(|(_, peer)| peer.as_ref().clone()).collect();
        peers.sort_unstable();
        if known.as_ref() != Some(&peers) {
            match network.set_peers(&peers).await {
                Ok(()) => known = Some(peers),
                Err(error) => {
                    tracing::warn!("cannot set the ways to other nodes: {}", client::error::chain(&error));
                    tokio::time::sleep(RETRY * 5).await;
                    continue;
                }
            }
        }
        changes.recv().await;
    }
}

/// The prefix of this kubelet's iptables chains: one per bridge, so that two kubelets do not meet.
fn chain_prefix(bridge: &str) -> String {
    let name: String = bridge.chars().filter(char::is_ascii_alphanumeric).collect();
    name.to_uppercase()
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
    if let Err(message) = volumes::remove_tree(&config.root_dir.join("pods")) {
        failures.push(format!("volumes: {message}"));
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}
