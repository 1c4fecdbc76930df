//! Configuration: flags, environment and a file, in that order of precedence.
//!
//! The file is a `KubeletConfiguration` of `kubelet.config.k8s.io/v1beta1` as far as it has a field for
//! something here; a field that this kubelet does not know is refused rather than ignored.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddrV4},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args as ClapArgs, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    heartbeat,
    pod::sysctls::check_pattern,
    pressure::{
        Policy,
        options::{EvictionArgs, EvictionFields, duration},
        thresholds::Given,
    },
};

/// Which runtime carries pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuntimeKind {
    /// Docker.
    Docker,
    /// Pods that only pretend.
    Simulated,
}

/// The kubelet's flags. Every one may also come from the environment.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Args {
    /// Configuration file (KubeletConfiguration); flags and environment win over it
    #[arg(long, env = "MINIK8S_KUBELET_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kubeconfig of this node's identity
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of the node; the machine's host name without it
    #[arg(long, visible_alias = "node-name", env = "MINIK8S_NODE_NAME", value_name = "NAME")]
    pub hostname_override: Option<String>,
    /// Directory for pods and volumes
    #[arg(long, env = "MINIK8S_KUBELET_ROOT", value_name = "DIRECTORY")]
    pub root_dir: Option<PathBuf>,
    /// What carries pods
    #[arg(long, env = "MINIK8S_RUNTIME", value_enum)]
    pub container_runtime: Option<RuntimeKind>,
    /// Docker's socket
    #[arg(long, env = "MINIK8S_DOCKER_SOCKET", value_name = "PATH")]
    pub docker_socket: Option<PathBuf>,
    /// Image for sandboxes instead of the kubelet's own
    #[arg(long, env = "MINIK8S_POD_INFRA_CONTAINER_IMAGE", value_name = "IMAGE")]
    pub pod_infra_container_image: Option<String>,
    /// Address of the node, if not that of the route to the outside
    #[arg(long, env = "MINIK8S_NODE_IP", value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// Labels to register the node with: key=value,...
    #[arg(long, env = "MINIK8S_NODE_LABELS", value_name = "LABELS", value_delimiter = ',')]
    pub node_labels: Vec<String>,
    /// Taints to register the node with: key=value:Effect,...
    #[arg(long, env = "MINIK8S_REGISTER_WITH_TAINTS", value_name = "TAINTS", value_delimiter = ',')]
    pub register_with_taints: Vec<String>,
    /// Most pods on the node
    #[arg(long, env = "MINIK8S_MAX_PODS", value_name = "NUMBER")]
    pub max_pods: Option<u32>,
    /// Control group that holds the groups of this kubelet's pods, and nothing else; /minik8s-NODE without it
    #[arg(long, env = "MINIK8S_CGROUP_ROOT", value_name = "GROUP")]
    pub cgroup_root: Option<String>,
    /// Most processes and threads of each pod; -1 for no limit
    #[arg(long, env = "MINIK8S_POD_MAX_PIDS", value_name = "NUMBER", allow_negative_numbers = true)]
    pub pod_max_pids: Option<i64>,
    /// Kernel parameters that pods may set although they may disturb others: names, or beginnings with a * behind
    #[arg(long, env = "MINIK8S_ALLOWED_UNSAFE_SYSCTLS", value_name = "NAMES", value_delimiter = ',')]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Folder of manifests of pods that run whether or not there is an API server
    #[arg(long, env = "MINIK8S_POD_MANIFEST_PATH", value_name = "DIR")]
    pub pod_manifest_path: Option<PathBuf>,
    /// Percent of the disk in use above which images that no container uses are removed; 100 for never
    #[arg(long, env = "MINIK8S_IMAGE_GC_HIGH_THRESHOLD", value_name = "PERCENT")]
    pub image_gc_high_threshold: Option<u64>,
    /// When pods are evicted.
    #[command(flatten)]
    pub eviction: EvictionArgs,
    /// Range for pods if the cluster gives the node none
    #[arg(long, env = "MINIK8S_POD_CIDR", value_name = "CIDR")]
    pub pod_cidr: Option<ipnet::Ipv4Net>,
    /// Range of all pods of the cluster: traffic inside it keeps its source address
    #[arg(long, env = "MINIK8S_CLUSTER_CIDR", value_name = "CIDR")]
    pub cluster_cidr: Option<ipnet::Ipv4Net>,
    /// Name of the bridge that pods hang on
    #[arg(long, env = "MINIK8S_BRIDGE", value_name = "NAME")]
    pub bridge: Option<String>,
    /// DNS servers of the cluster
    #[arg(long, env = "MINIK8S_CLUSTER_DNS", value_name = "IPS", value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster
    #[arg(long, env = "MINIK8S_CLUSTER_DOMAIN", value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
    /// The node's resolver configuration
    #[arg(long, env = "MINIK8S_RESOLV_CONF", value_name = "FILE")]
    pub resolv_conf: Option<PathBuf>,
    /// Address that the server listens on
    #[arg(long, env = "MINIK8S_KUBELET_ADDRESS", value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Port that the server listens on; 0 for any
    #[arg(long, env = "MINIK8S_KUBELET_PORT", value_name = "PORT")]
    pub port: Option<u16>,
    /// The server's certificate (PEM)
    #[arg(long, env = "MINIK8S_KUBELET_TLS_CERT_FILE", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// The key of the server's certificate (PEM)
    #[arg(long, env = "MINIK8S_KUBELET_TLS_PRIVATE_KEY_FILE", value_name = "FILE")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Certificate authority of clients of the server (PEM)
    #[arg(long, env = "MINIK8S_KUBELET_CLIENT_CA_FILE", value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// How long the node's Lease is good; it is renewed four times as often
    #[arg(long, env = "MINIK8S_NODE_LEASE_DURATION_SECONDS", value_name = "SECONDS")]
    pub node_lease_duration_seconds: Option<u32>,
    /// How long a container of the simulated runtime takes to start, in milliseconds
    #[arg(long, env = "MINIK8S_SIMULATED_START_DELAY", value_name = "MILLISECONDS")]
    pub simulated_start_delay: Option<u64>,
    /// Share of starts that fail in the simulated runtime, 0 to 1
    #[arg(long, env = "MINIK8S_SIMULATED_FAILURE_RATE", value_name = "SHARE")]
    pub simulated_failure_rate: Option<f64>,
}

/// The fields of a `KubeletConfiguration` that mean something here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    api_version: String,
    kind: String,
    address: Option<IpAddr>,
    port: Option<u16>,
    tls_cert_file: Option<PathBuf>,
    tls_private_key_file: Option<PathBuf>,
    authentication: Authentication,
    #[serde(rename = "clusterDNS")]
    cluster_dns: Vec<IpAddr>,
    cluster_domain: Option<String>,
    cgroup_root: Option<String>,
    max_pods: Option<u32>,
    allowed_unsafe_sysctls: Vec<String>,
    pod_pids_limit: Option<i64>,
    node_lease_duration_seconds: Option<u32>,
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<ipnet::Ipv4Net>,
    resolv_conf: Option<PathBuf>,
    register_with_taints: Vec<Taint>,
    static_pod_path: Option<PathBuf>,
    eviction_hard: Given,
    eviction_soft: Given,
    eviction_soft_grace_period: Given,
    eviction_max_pod_grace_period: Option<i32>,
    eviction_pressure_transition_period: Option<String>,
    eviction_minimum_reclaim: Given,
    volume_stats_agg_period: Option<String>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    image_gc_high_threshold_percent: Option<u64>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    image_gc_low_threshold_percent: Option<u64>,
    #[serde(rename = "imageMinimumGCAge")]
    image_minimum_gc_age: Option<String>,
}

impl File {
    /// When pods are evicted and images removed; flags win.
    fn pressure(&self, flags: &Args) -> Result<Policy, ConfigError> {
        let wrong = ConfigError::Invalid;
        let fields = EvictionFields {
            hard: self.eviction_hard.clone(),
            soft: self.eviction_soft.clone(),
            soft_grace_period: self.eviction_soft_grace_period.clone(),
            max_pod_grace_period: self.eviction_max_pod_grace_period,
            pressure_transition_period: self.eviction_pressure_transition_period.clone(),
            minimum_reclaim: self.eviction_minimum_reclaim.clone(),
            volume_stats_agg_period: self.volume_stats_agg_period.clone(),
        };
        let mut policy = Policy::read(&flags.eviction, &fields).map_err(wrong)?;
        if let Some(age) = &self.image_minimum_gc_age {
            policy.images.minimum_age = duration(age).map_err(wrong)?;
        }
        let images = &mut policy.images;
        images.high_percent = flags
            .image_gc_high_threshold
            .or(self.image_gc_high_threshold_percent)
            .unwrap_or(images.high_percent);
        images.low_percent = self.image_gc_low_threshold_percent.unwrap_or(images.low_percent);
        if images.high_percent > 100 || images.low_percent >= images.high_percent {
            return Err(wrong(format!(
                "invalid configuration: imageGCLowThresholdPercent {} must be less than imageGCHighThresholdPercent {}, which must be at most 100",
                images.low_percent, images.high_percent
            )));
        }
        Ok(policy)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Authentication {
    x509: X509,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct X509 {
    #[serde(rename = "clientCAFile")]
    client_ca_file: Option<PathBuf>,
}

/// A taint that the node is registered with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value.
    #[serde(default)]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl Taint {
    /// Reads `key=value:Effect` or `key:Effect`.
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::Invalid(format!("{text:?} is not a taint: expected key=value:Effect"));
        let (left, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
        if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") || left.is_empty() {
            return Err(wrong());
        }
        let (key, value) = left.split_once('=').unwrap_or((left, ""));
        Ok(Self { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
    }

    /// As in `spec.taints`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut value = json!({"key": self.key, "effect": self.effect});
        if !self.value.is_empty() {
            value["value"] = json!(self.value);
        }
        value
    }
}

/// The certificates of the kubelet's server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Key, PEM.
    pub key: PathBuf,
    /// Authority that clients' certificates come from, PEM.
    pub client_ca: PathBuf,
}

/// Everything resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the node.
    pub node_name: String,
    /// Whether the name was given rather than taken from the machine.
    pub node_name_given: bool,
    /// Kubeconfig of the node's identity; unused when a client is given.
    pub kubeconfig: Option<PathBuf>,
    /// Directory for pods and volumes.
    pub root_dir: PathBuf,
    /// What carries pods.
    pub runtime: RuntimeKind,
    /// Docker's socket.
    pub docker_socket: PathBuf,
    /// Image for sandboxes.
    pub sandbox_image: Option<String>,
    /// Address of the node.
    pub node_ip: Option<IpAddr>,
    /// Labels to register with.
    pub node_labels: BTreeMap<String, String>,
    /// Taints to register with.
    pub taints: Vec<Taint>,
    /// Most pods.
    pub max_pods: u32,
    /// Control group that holds those of all pods.
    pub cgroup_root: String,
    /// Most processes and threads of each pod.
    pub pod_pids_limit: Option<i64>,
    /// Kernel parameters that pods may set besides those that harm nobody else.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Folder of static pods.
    pub static_pod_path: Option<PathBuf>,
    /// When pods are evicted and images removed.
    pub pressure: Policy,
    /// Range for pods if the cluster gives none.
    pub pod_cidr: Option<ipnet::Ipv4Net>,
    /// Range of all pods.
    pub cluster_cidr: ipnet::Ipv4Net,
    /// Name of the bridge.
    pub bridge: String,
    /// DNS servers of the cluster.
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// The node's resolver configuration.
    pub resolv_conf: PathBuf,
    /// Address and port of the server.
    pub address: IpAddr,
    /// Port of the server; 0 for any.
    pub port: u16,
    /// Certificates of the server; without them it is not started and logs and exec do not work.
    pub server_tls: Option<ServerTls>,
    /// Where pods reach the API server behind the Service `kubernetes`; `None` to take the address that the
    /// client is configured with.
    pub api_server: Option<SocketAddrV4>,
    /// How often the Lease is renewed.
    pub renew_every: Duration,
    /// Delay of starts in the simulated runtime.
    pub simulated_start_delay: Duration,
    /// Share of failing starts in the simulated runtime.
    pub simulated_failure_rate: f64,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file cannot be understood.
    #[error("{path}: {message}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong in it.
        message: String,
    },
    /// A value makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl Args {
    /// Resolves flags and environment (already merged here), the file and the defaults.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let file = match &self.config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        let pressure = file.pressure(&self)?;
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let node_name_given = self.hostname_override.is_some();
        let node_name = self.hostname_override.unwrap_or_else(|| hostname.trim().to_owned()).to_lowercase();
        if node_name.is_empty() {
            return Err(ConfigError::Invalid("the node needs a name: give --hostname-override".to_owned()));
        }
        let mut node_labels = BTreeMap::new();
        for label in self.node_labels.iter().filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').ok_or_else(|| {
                ConfigError::Invalid(format!("{label:?} is not a label: expected key=value"))
            })?;
            node_labels.insert(key.to_owned(), value.to_owned());
        }
        let mut taints = file.register_with_taints;
        if !self.register_with_taints.is_empty() {
            taints =
                self.register_with_taints.iter().map(|text| Taint::parse(text)).collect::<Result<_, _>>()?;
        }
        let certificate = self.tls_cert_file.or(file.tls_cert_file);
        let key = self.tls_private_key_file.or(file.tls_private_key_file);
        let client_ca = self.client_ca_file.or(file.authentication.x509.client_ca_file);
        let server_tls = match (certificate, key, client_ca) {
            (Some(certificate), Some(key), Some(client_ca)) => {
                Some(ServerTls { certificate, key, client_ca })
            }
            (None, None, None) => None,
            _ => {
                return Err(ConfigError::Invalid(
                    "--tls-cert-file, --tls-private-key-file and --client-ca-file belong together".to_owned(),
                ));
            }
        };
        // Docker is shared, by kubelets too, each of which sweeps what is below its own.
        let cgroup_root =
            self.cgroup_root.or(file.cgroup_root).unwrap_or_else(|| format!("/minik8s-{node_name}"));
        let given = |list: Vec<IpAddr>, other: Vec<IpAddr>| if list.is_empty() { other } else { list };
        let mut allowed_unsafe_sysctls = self.allowed_unsafe_sysctls;
        if allowed_unsafe_sysctls.is_empty() {
            allowed_unsafe_sysctls = file.allowed_unsafe_sysctls;
        }
        for pattern in &allowed_unsafe_sysctls {
            check_pattern(pattern).map_err(ConfigError::Invalid)?;
        }
        Ok(Config {
            node_name,
            node_name_given,
            kubeconfig: self.kubeconfig,
            root_dir: self.root_dir.unwrap_or_else(|| home().join("kubelet")),
            runtime: self.container_runtime.unwrap_or(RuntimeKind::Docker),
            docker_socket: self.docker_socket.unwrap_or_else(|| PathBuf::from("/var/run/docker.sock")),
            sandbox_image: self.pod_infra_container_image,
            node_ip: self.node_ip,
            node_labels,
            taints,
            max_pods: self.max_pods.or(file.max_pods).unwrap_or(110),
            cgroup_root,
            pod_pids_limit: self.pod_max_pids.or(file.pod_pids_limit),
            allowed_unsafe_sysctls,
            static_pod_path: self.pod_manifest_path.or(file.static_pod_path),
            pressure,
            pod_cidr: self.pod_cidr.or(file.pod_cidr),
            cluster_cidr: self.cluster_cidr.unwrap_or_else(default_cluster_cidr),
            bridge: self.bridge.unwrap_or_else(|| "minik8s0".to_owned()),
            cluster_dns: given(self.cluster_dns, file.cluster_dns),
            cluster_domain: self
                .cluster_domain
                .or(file.cluster_domain)
                .unwrap_or_else(|| "cluster.local".to_owned()),
            resolv_conf: self
                .resolv_conf
                .or(file.resolv_conf)
                .unwrap_or_else(|| PathBuf::from("/etc/resolv.conf")),
            address: self.address.or(file.address).unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
            port: self.port.or(file.port).unwrap_or(10250),
            server_tls,
            api_server: None,
            renew_every: self
                .node_lease_duration_seconds
                .or(file.node_lease_duration_seconds)
                .map_or(heartbeat::RENEW_EVERY, |seconds| Duration::from_secs(seconds.max(1).into()) / 4),
            simulated_start_delay: Duration::from_millis(self.simulated_start_delay.unwrap_or(0)),
            simulated_failure_rate: self.simulated_failure_rate.unwrap_or(0.0),
        })
    }
}

impl File {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let wrong = |message: String| ConfigError::File { path: path.to_owned(), message };
        let file: Self = api_objects::yaml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let known = matches!(
            file.api_version.as_str(),
            "" | "kubelet.config.k8s.io/v1beta1" | "kubelet.config.k8s.io/v1"
        ) && matches!(file.kind.as_str(), "" | "KubeletConfiguration");
        if known {
            Ok(file)
        } else {
            Err(wrong(format!("{} {} is not a KubeletConfiguration", file.api_version, file.kind)))
        }
    }
}

/// `$MINIK8S_HOME`, `~/.minik8s` without it.
#[must_use]
pub fn home() -> PathBuf {
    let given = std::env::var_os("MINIK8S_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    given.unwrap_or_else(|| {
        std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from).join(".minik8s")
    })
}

fn default_cluster_cidr() -> ipnet::Ipv4Net {
    ipnet::Ipv4Net::new([10, 244, 0, 0].into(), 16).expect("a constant range must be valid")
}

impl Config {
    /// A configuration for tests: simulated, in a directory that does not exist.
    #[cfg(test)]
    pub(crate) fn for_tests(node: &str) -> Self {
        let args = Args {
            hostname_override: Some(node.to_owned()),
            root_dir: Some(PathBuf::from("/nonexistent")),
            container_runtime: Some(RuntimeKind::Simulated),
            ..Args::default()
        };
        args.resolve().expect("the defaults must resolve")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::thresholds::Thresholds;

    #[test]
    fn flags_win_over_the_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("kubelet.yaml");
        std::fs::write(
            &path,
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 7\nport: 1234\nclusterDNS: [10.96.0.10]\n",
        )
        .unwrap();
        let args = Args {
            config: Some(path),
            port: Some(4321),
            hostname_override: Some("N1".into()),
            ..Args::default()
        };
        let config = args.resolve().unwrap();
        assert_eq!((config.max_pods, config.port, config.node_name.as_str()), (7, 4321, "n1"));
        assert_eq!(config.cluster_dns, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(config.pressure, Policy::default());
    }

    #[test]
    fn when_a_node_is_short() {
        let read = |text: &str| {
            let file: File = api_objects::yaml::from_str(text).unwrap();
            file.pressure(&Args::default())
        };
        let given = |value: &str| Given::from([("memory.available".to_owned(), value.to_owned())]);
        let policy = read(
            "evictionHard: {memory.available: 1Gi}\nevictionSoft: {memory.available: 2Gi}\nevictionSoftGracePeriod: {memory.available: 1m30s}\nevictionMaxPodGracePeriod: 60\nevictionMinimumReclaim: {memory.available: 3Gi}\nevictionPressureTransitionPeriod: 30s\nvolumeStatsAggPeriod: 2m\nimageGCHighThresholdPercent: 90\nimageMinimumGCAge: 1h0m0s\n",
        )
        .unwrap();
        let hard = Thresholds::hard(&given("1Gi")).unwrap();
        let thresholds = hard.with(&given("2Gi"), &given("90s"), &given("3Gi")).unwrap();
        assert_eq!(policy.thresholds, thresholds);
        let seconds = Duration::from_secs;
        assert_eq!((policy.transition.0, policy.soft_grace), (seconds(30), Some(seconds(60))));
        assert_eq!((policy.disk_age, policy.round), (seconds(120), seconds(10)));
        assert_eq!((policy.images.high_percent, policy.images.minimum_age), (90, seconds(3600)));
        assert!(read("imageGCHighThresholdPercent: 70\n").is_err(), "not above the low one");
        assert!(read("evictionHard: {memory.free: 1Gi}\n").is_err());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("kubelet.yaml");
        std::fs::write(&path, "cgroupDriver: systemd\n").unwrap();
        let error = Args { config: Some(path), ..Args::default() }.resolve().unwrap_err().to_string();
        assert!(error.contains("cgroupDriver"), "{error}");
        assert!(Taint::parse("a=b").is_err());
        assert_eq!(Taint::parse("a=b:NoSchedule").unwrap().value, "b");
    }
}
