//! `minik8s up`: every component in one process, each under its own identity.
//!
//! Components talk to the API server through its own service: the same chain, authorization, admission and
//! encoding as any request, without socket and TLS. There is no other door.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use apiserver::{auth::UserInfo, local_service};
use clap::Args;
use client::Client;
use controller_manager::{
    ControllerManagerConfig,
    config::{DEFAULT_NODE_MONITOR_GRACE_PERIOD, DEFAULT_SIGNING_DURATION},
};
use ipnet::Ipv4Net;
use kubelet::config::RuntimeKind;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::home;

/// What can be set of a cluster in one process.
#[derive(Args)]
pub(crate) struct UpOptions {
    #[command(flatten)]
    pub(crate) server: apiserver::config::Options,

    /// Start the cluster in the background and return once it is ready
    #[arg(long)]
    pub(crate) detach: bool,

    #[command(flatten)]
    pub(crate) node: NodeOptions,

    /// How long certificates live that are signed on request, in seconds [default: a year]
    #[arg(long, env = "MINIK8S_CLUSTER_SIGNING_DURATION", value_name = "SECONDS")]
    cluster_signing_duration: Option<u64>,

    /// Silence after which a node counts as unreachable, in seconds [default: 50]
    #[arg(long, env = "MINIK8S_NODE_MONITOR_GRACE_PERIOD", value_name = "SECONDS")]
    node_monitor_grace_period: Option<u64>,

    /// Nodes that only pretend, beside the real one; for load tests
    #[arg(long, env = "MINIK8S_SIMULATED_NODES", value_name = "COUNT", default_value_t = 0)]
    simulated_nodes: usize,

    /// How long a container takes to start on a simulated node
    #[arg(long, env = "MINIK8S_SIMULATED_START_DELAY", value_name = "MILLISECONDS", default_value_t = 0)]
    simulated_start_delay: u64,

    /// Share of containers that fail to start on simulated nodes, 0 to 1
    #[arg(long, env = "MINIK8S_SIMULATED_FAILURE_RATE", value_name = "SHARE", default_value_t = 0.0)]
    simulated_failure_rate: f64,
}

/// What can be set of the cluster's own node. `down` takes the same, to find what it made.
#[derive(Args, Clone)]
pub(crate) struct NodeOptions {
    /// Name of the node; the machine's host name without it
    #[arg(long, env = "MINIK8S_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,

    /// Address of the node, if not that of the route to the outside
    #[arg(long, env = "MINIK8S_NODE_IP", value_name = "IP")]
    node_ip: Option<IpAddr>,

    /// What carries pods on the node
    #[arg(long, env = "MINIK8S_RUNTIME", value_enum)]
    container_runtime: Option<RuntimeKind>,

    /// Docker's socket
    #[arg(long, env = "MINIK8S_DOCKER_SOCKET", value_name = "PATH")]
    docker_socket: Option<PathBuf>,

    /// Image for sandboxes instead of the kubelet's own
    #[arg(long, env = "MINIK8S_POD_INFRA_CONTAINER_IMAGE", value_name = "IMAGE")]
    pod_infra_container_image: Option<String>,

    /// Most pods on the node
    #[arg(long, env = "MINIK8S_MAX_PODS", value_name = "NUMBER")]
    max_pods: Option<u32>,

    /// Folder of manifests of pods that run whether or not there is an API server
    #[arg(long, env = "MINIK8S_POD_MANIFEST_PATH", value_name = "DIR")]
    pod_manifest_path: Option<PathBuf>,

    /// Percent of the disk in use above which images that no container uses are removed; 100 for never
    #[arg(long, env = "MINIK8S_IMAGE_GC_HIGH_THRESHOLD", value_name = "PERCENT")]
    image_gc_high_threshold: Option<u64>,

    #[command(flatten)]
    eviction: kubelet::pressure::options::EvictionArgs,

    /// Control group that holds the groups of the node's pods, and nothing else; /minik8s-NODE without it
    #[arg(long, env = "MINIK8S_CGROUP_ROOT", value_name = "GROUP")]
    cgroup_root: Option<String>,

    /// Most processes and threads of each pod; -1 for no limit
    #[arg(long, env = "MINIK8S_POD_MAX_PIDS", value_name = "NUMBER", allow_negative_numbers = true)]
    pod_max_pids: Option<i64>,

    /// Range of all pods; each node gets a /24 of it
    #[arg(long, env = "MINIK8S_CLUSTER_CIDR", value_name = "CIDR", default_value = controller_manager::config::DEFAULT_CLUSTER_CIDR)]
    cluster_cidr: Ipv4Net,

    /// Name of the bridge that pods hang on; two clusters on one machine need two
    #[arg(long, env = "MINIK8S_BRIDGE", value_name = "NAME")]
    bridge: Option<String>,

    /// How long the node's Lease is good; it is renewed four times as often
    #[arg(long, env = "MINIK8S_NODE_LEASE_DURATION_SECONDS", value_name = "SECONDS")]
    node_lease_duration_seconds: Option<u32>,

    /// Port of the kubelet's server; 0 for any
    #[arg(long, env = "MINIK8S_KUBELET_PORT", value_name = "PORT")]
    kubelet_port: Option<u16>,
}

/// When the cluster's own node is short of something, unless a flag says otherwise. Upstream's thresholds keep 15 % of
/// the disk free, on a machine that does nothing else; this one is somebody's, and its disk may be large and well filled.
const EVICTION_HARD: [&str; 5] = [
    "memory.available<100Mi",
    "nodefs.available<1Gi",
    "imagefs.available<1Gi",
    "nodefs.inodesFree<5%",
    "imagefs.inodesFree<5%",
];

impl NodeOptions {
    /// The node's configuration, its directory under the cluster's.
    pub(crate) fn kubelet(&self, home: &std::path::Path) -> anyhow::Result<kubelet::config::Config> {
        let mut eviction = self.eviction.clone();
        if eviction.eviction_hard.is_empty() {
            eviction.eviction_hard = EVICTION_HARD.map(str::to_owned).to_vec();
        }
        let args = kubelet::config::Args {
            hostname_override: self.node_name.clone(),
            node_ip: self.node_ip,
            container_runtime: self.container_runtime,
            docker_socket: self.docker_socket.clone(),
            pod_infra_container_image: self.pod_infra_container_image.clone(),
            max_pods: self.max_pods,
            pod_manifest_path: self.pod_manifest_path.clone(),
            image_gc_high_threshold: self.image_gc_high_threshold,
            eviction,
            cgroup_root: self.cgroup_root.clone(),
            pod_max_pids: self.pod_max_pids,
            cluster_cidr: Some(self.cluster_cidr),
            bridge: self.bridge.clone(),
            port: self.kubelet_port,
            node_lease_duration_seconds: self.node_lease_duration_seconds,
            root_dir: Some(home.join("kubelet")),
            ..kubelet::config::Args::default()
        };
        Ok(args.resolve()?)
    }
}

/// Runs the cluster until a signal comes. Containers go on running after it.
pub(crate) async fn run(options: UpOptions) -> anyhow::Result<()> {
    let UpOptions {
        server: server_options,
        detach: _,
        node,
        cluster_signing_duration,
        node_monitor_grace_period,
        simulated_nodes,
        simulated_start_delay,
        simulated_failure_rate,
    } = options;
    let home = home::resolve(server_options.data_dir.as_ref())?;
    let _claim = home::claim(&home)?;
    let signal = home::shutdown_on_signal()?;

    // The server outlives the components: what they write while they stop must arrive.
    let server_shutdown = CancellationToken::new();
    let config = server_options.resolve()?;
    let running =
        apiserver::start(config, server_shutdown.clone()).await.context("failed to start the API server")?;
    let as_user = |name: &str, groups: &[&str]| {
        Client::from_service(local_service(running.server.clone(), UserInfo::new(name, groups)))
    };

    // Components are refused until their roles are there.
    if signal.run_until_cancelled(running.ready()).await.is_none() {
        server_shutdown.cancel();
        running.wait().await;
        return Ok(());
    }

    let components = signal.child_token();
    let tasks = TaskTracker::new();
    let controllers = ControllerManagerConfig {
        cluster_cidr: node.cluster_cidr,
        root_ca: running.server.pki.ca_pem().to_owned(),
        volumes: home.join("volumes"),
        // As upstream: who signs gets the authority's files by name, and reads them when it signs.
        signing: Some(controller_manager::config::Signing {
            certificate: running.server.config.pki_dir().join("ca.crt"),
            key: running.server.config.pki_dir().join("ca.key"),
            duration: cluster_signing_duration.map_or(DEFAULT_SIGNING_DURATION, Duration::from_secs),
        }),
        node_monitor_grace_period: node_monitor_grace_period
            .map_or(DEFAULT_NODE_MONITOR_GRACE_PERIOD, Duration::from_secs),
    };
    controller_manager::start_controllers(
        &as_user("system:kube-controller-manager", &[]),
        &controllers,
        &components,
        &tasks,
    );
    controller_manager::start_scheduler(&as_user("system:kube-scheduler", &[]), &components, &tasks);

    let mut kubelet_config = node.kubelet(&home)?;
    let name = kubelet_config.node_name.clone();
    let files =
        running.server.pki.ensure_node(&name, &[]).context("failed to make the node's certificates")?;
    kubelet_config.server_tls = Some(kubelet::config::ServerTls {
        certificate: files.certificate,
        key: files.key,
        client_ca: running.server.config.pki_dir().join("ca.crt"),
    });
    kubelet_config.api_server = match running.server.config.advertise_address {
        IpAddr::V4(address) => Some(std::net::SocketAddrV4::new(address, running.address.port())),
        IpAddr::V6(_) => None,
    };
    let kubelet_client = as_user(&format!("system:node:{name}"), &["system:nodes"]);
    let stop = components.clone();
    let node_task = tasks.spawn(async move {
        let outcome = Box::pin(kubelet::run(kubelet_config, kubelet_client, stop.clone())).await;
        // A cluster without its node must not look healthy.
        stop.cancel();
        outcome
    });

    if simulated_nodes > 0 {
        let server = running.server.clone();
        let simulated = kubelet::simulated::Options {
            nodes: (0..simulated_nodes).map(|number| format!("simulated-{number}")).collect(),
            client_for: Arc::new(move |name: &str| {
                let user = UserInfo::new(&format!("system:node:{name}"), &["system:nodes"]);
                Client::from_service(local_service(server.clone(), user))
            }),
            // One watch of all pods serves all simulated nodes; the scheduler may read them, too.
            reader: as_user("system:kube-scheduler", &[]),
            start_delay: Duration::from_millis(simulated_start_delay),
            failure_rate: simulated_failure_rate,
        };
        tasks.spawn(kubelet::simulated::run(simulated, components.clone()));
    }

    components.cancelled().await;
    tasks.close();
    tasks.wait().await;
    server_shutdown.cancel();
    running.wait().await;
    node_task.await.context("the kubelet was cut short")?.context("the kubelet stopped")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        node: NodeOptions,
    }

    /// What the node's thresholds are with these flags.
    fn thresholds(flags: &[&str]) -> kubelet::pressure::thresholds::Thresholds {
        let cli = Cli::parse_from([&["up"], flags].concat());
        cli.node.kubelet(Path::new("/nowhere")).expect("the flags must make sense").pressure.thresholds
    }

    #[test]
    fn the_node_s_thresholds_are_its_own_unless_given() {
        let given = thresholds(&["--eviction-hard", &EVICTION_HARD.join(",")]);
        assert_eq!(thresholds(&[]), given);
        assert_ne!(given, kubelet::pressure::Policy::default().thresholds, "upstream's");
        assert_ne!(given, thresholds(&["--eviction-hard", "memory.available<1Gi"]));
    }
}
