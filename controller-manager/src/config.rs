//! Configuration of the controller manager: flags, then environment, then a YAML file.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Parser;
use ipnet::Ipv4Net;
use serde::Deserialize;

/// What the controllers need to know.
#[derive(Debug, Clone)]
pub struct ControllerManagerConfig {
    /// The range that nodes' podCIDRs come from.
    pub cluster_cidr: Ipv4Net,
    /// The CA's certificates in PEM, published to every namespace.
    pub root_ca: String,
    /// Where volumes of the built-in provisioner stand, on whichever node.
    pub volumes: PathBuf,
    /// With what certificate requests are signed; without it nothing is signed.
    pub signing: Option<Signing>,
    /// Silence after which a node counts as unreachable.
    pub node_monitor_grace_period: Duration,
}

/// The authority that signs certificate requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    /// Its certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// How long certificates live that do not ask for less.
    pub duration: Duration,
}

/// The default place of volumes.
const DEFAULT_VOLUMES: &str = "/var/lib/minik8s/volumes";
/// How long certificates live where nothing is configured: a year, as upstream.
pub const DEFAULT_SIGNING_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);
/// Upstream's default of `--node-monitor-grace-period`.
pub const DEFAULT_NODE_MONITOR_GRACE_PERIOD: Duration = Duration::from_secs(50);

/// The default range of pod addresses.
pub const DEFAULT_CLUSTER_CIDR: &str = "10.244.0.0/16";

/// Runs the controllers and the scheduler of a minik8s cluster.
#[derive(Debug, Parser)]
#[command(name = "controller-manager", version)]
pub struct Args {
    /// Kubeconfig with which the API server is reached
    #[arg(long, env = "MINIK8S_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Kubeconfig of the scheduler, if it has an identity of its own
    #[arg(long, env = "MINIK8S_SCHEDULER_KUBECONFIG")]
    scheduler_kubeconfig: Option<PathBuf>,
    /// Range that nodes' podCIDRs come from [default: 10.244.0.0/16]
    #[arg(long, env = "MINIK8S_CLUSTER_CIDR")]
    cluster_cidr: Option<Ipv4Net>,
    /// File with the CA's certificates, published to every namespace as kube-root-ca.crt
    #[arg(long, env = "MINIK8S_ROOT_CA_FILE")]
    root_ca_file: Option<PathBuf>,
    /// Directory on the nodes for volumes of the built-in provisioner [default: /var/lib/minik8s/volumes]
    #[arg(long, env = "MINIK8S_VOLUMES_DIR")]
    volumes_dir: Option<PathBuf>,
    /// Certificate of the authority that signs certificate requests (PEM); without it none is signed
    #[arg(long, env = "MINIK8S_CLUSTER_SIGNING_CERT_FILE")]
    cluster_signing_cert_file: Option<PathBuf>,
    /// Key of the authority that signs certificate requests (PEM)
    #[arg(long, env = "MINIK8S_CLUSTER_SIGNING_KEY_FILE")]
    cluster_signing_key_file: Option<PathBuf>,
    /// How long signed certificates live, in seconds [default: a year]
    #[arg(long, env = "MINIK8S_CLUSTER_SIGNING_DURATION", value_name = "SECONDS")]
    cluster_signing_duration: Option<u64>,
    /// Silence after which a node counts as unreachable, in seconds [default: 50]
    #[arg(long, env = "MINIK8S_NODE_MONITOR_GRACE_PERIOD", value_name = "SECONDS")]
    node_monitor_grace_period: Option<u64>,
    /// Elect a leader before acting, for several controller managers in one cluster
    #[arg(long, env = "MINIK8S_LEADER_ELECT", num_args = 0..=1, default_missing_value = "true")]
    leader_elect: Option<bool>,
    /// YAML file with the same settings in camelCase; flags and environment win over it
    #[arg(long, env = "MINIK8S_CONTROLLER_MANAGER_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    kubeconfig: Option<PathBuf>,
    scheduler_kubeconfig: Option<PathBuf>,
    cluster_cidr: Option<Ipv4Net>,
    root_ca_file: Option<PathBuf>,
    volumes_dir: Option<PathBuf>,
    cluster_signing_cert_file: Option<PathBuf>,
    cluster_signing_key_file: Option<PathBuf>,
    cluster_signing_duration: Option<u64>,
    node_monitor_grace_period: Option<u64>,
    leader_elect: Option<bool>,
}

/// Everything resolved.
#[derive(Debug)]
pub struct Settings {
    /// Kubeconfig of the controllers.
    pub kubeconfig: PathBuf,
    /// Kubeconfig of the scheduler.
    pub scheduler_kubeconfig: PathBuf,
    /// Whether to elect a leader.
    pub leader_elect: bool,
    /// What the controllers need.
    pub controllers: ControllerManagerConfig,
}

impl Args {
    /// Merges flags, environment and file.
    ///
    /// # Errors
    /// If a file cannot be read or something required is missing.
    pub fn resolve(self) -> anyhow::Result<Settings> {
        let Self {
            kubeconfig,
            scheduler_kubeconfig,
            cluster_cidr,
            root_ca_file,
            volumes_dir,
            cluster_signing_cert_file,
            cluster_signing_key_file,
            cluster_signing_duration,
            node_monitor_grace_period,
            leader_elect,
            config,
        } = self;
        let file: File = match config {
            Some(path) => {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("failed to read {}", path.display()))?;
                serde_yaml::from_str(&text).with_context(|| format!("failed to parse {}", path.display()))?
            }
            None => File::default(),
        };
        let kubeconfig = kubeconfig
            .or(file.kubeconfig)
            .context("--kubeconfig is required: the file with which the API server is reached")?;
        let root_ca = match root_ca_file.or(file.root_ca_file) {
            Some(path) => std::fs::read_to_string(&path)
                .with_context(|| format!("failed to read {}", path.display()))?,
            None => anyhow::bail!("--root-ca-file is required: the CA that every namespace is told of"),
        };
        let certificate = cluster_signing_cert_file.or(file.cluster_signing_cert_file);
        let seconds = cluster_signing_duration.or(file.cluster_signing_duration);
        let duration = seconds.map_or(DEFAULT_SIGNING_DURATION, Duration::from_secs);
        let signing = match (certificate, cluster_signing_key_file.or(file.cluster_signing_key_file)) {
            (Some(certificate), Some(key)) => Some(Signing { certificate, key, duration }),
            (None, None) => None,
            _ => anyhow::bail!("--cluster-signing-cert-file and --cluster-signing-key-file go together"),
        };
        let default = DEFAULT_CLUSTER_CIDR.parse().expect("the default range must be valid");
        Ok(Settings {
            scheduler_kubeconfig: scheduler_kubeconfig
                .or(file.scheduler_kubeconfig)
                .unwrap_or_else(|| kubeconfig.clone()),
            kubeconfig,
            leader_elect: leader_elect.or(file.leader_elect).unwrap_or(false),
            controllers: ControllerManagerConfig {
                cluster_cidr: cluster_cidr.or(file.cluster_cidr).unwrap_or(default),
                root_ca,
                volumes: volumes_dir.or(file.volumes_dir).unwrap_or_else(|| DEFAULT_VOLUMES.into()),
                signing,
                node_monitor_grace_period: node_monitor_grace_period
                    .or(file.node_monitor_grace_period)
                    .map_or(DEFAULT_NODE_MONITOR_GRACE_PERIOD, Duration::from_secs),
            },
        })
    }
}
