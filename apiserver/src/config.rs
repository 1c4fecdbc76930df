//! The API server's configuration: flags, then environment, then a YAML file, then defaults.
//!
//! [`Options`] is what a person wrote (every field optional, the same names in all three places);
//! [`Options::resolve`] turns it into [`Config`], which has no holes and is passed down. Nothing below this
//! module reads the environment.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use ipnet::IpNet;
use serde::Deserialize;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file named by `--config` cannot be read.
    #[error("failed to read the configuration file `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file named by `--config` is not valid; the message says where.
    #[error("the configuration file `{path}` is not valid: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// Neither a data directory nor a home directory is known.
    #[error("no data directory: set --data-dir, MINIK8S_HOME or HOME")]
    NoHome,
    /// A combination of options makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// Which store holds the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// The built-in log, under the data directory.
    #[default]
    Embedded,
    /// A real etcd.
    Etcd,
    /// Memory only: everything is lost at exit. For tests and tries.
    Memory,
}

/// The API server's options as a person writes them. Each may be given as a flag, as an environment variable
/// or in the YAML file (in camel case, `serviceClusterIpRange`), in this order of precedence.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// YAML file with these options in camel case
    #[arg(long, env = "MINIK8S_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Directory of certificates, keys, kubeconfigs and the embedded store [default: ~/.minik8s]
    #[arg(long, env = "MINIK8S_HOME", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Address to listen on [default: 0.0.0.0]
    #[arg(long, env = "MINIK8S_BIND_ADDRESS", value_name = "IP")]
    pub bind_address: Option<IpAddr>,

    /// Port for HTTPS; 0 takes any free one [default: 6443]
    #[arg(long, env = "MINIK8S_SECURE_PORT", value_name = "PORT")]
    pub secure_port: Option<u16>,

    /// Address under which other machines and pods reach this server [default: the bind address, or, if that
    /// is loopback or all addresses, that of the default route]
    #[arg(long, env = "MINIK8S_ADVERTISE_ADDRESS", value_name = "IP")]
    pub advertise_address: Option<IpAddr>,

    /// Further names and addresses for the serving certificate, separated by commas
    #[arg(long, env = "MINIK8S_TLS_SANS", value_name = "NAME,…", value_delimiter = ',')]
    pub tls_sans: Option<Vec<String>>,

    /// Range from which Services get their cluster IP [default: 10.96.0.0/16]
    #[arg(long, env = "MINIK8S_SERVICE_CLUSTER_IP_RANGE", value_name = "CIDR")]
    pub service_cluster_ip_range: Option<IpNet>,

    /// First and last port that Services of type NodePort may get [default: 30000-32767]
    #[arg(long, env = "MINIK8S_SERVICE_NODE_PORT_RANGE", value_name = "FIRST-LAST")]
    pub service_node_port_range: Option<String>,

    /// DNS suffix of the cluster [default: cluster.local]
    #[arg(long, env = "MINIK8S_CLUSTER_DOMAIN", value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,

    /// Issuer of ServiceAccount tokens [default: https://kubernetes.default.svc.<cluster domain>]
    #[arg(long, env = "MINIK8S_SERVICE_ACCOUNT_ISSUER", value_name = "URL")]
    pub service_account_issuer: Option<String>,

    /// Audiences that this server accepts in tokens, separated by commas [default: the issuer]
    #[arg(long, env = "MINIK8S_API_AUDIENCES", value_name = "AUDIENCE,…", value_delimiter = ',')]
    pub api_audiences: Option<Vec<String>>,

    /// CSV file of static bearer tokens: token,user,uid,"group1,group2"
    #[arg(long, env = "MINIK8S_TOKEN_AUTH_FILE", value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,

    /// Which store holds the truth [default: embedded]
    #[arg(long, env = "MINIK8S_STORE", value_name = "STORE")]
    pub store: Option<StoreKind>,

    /// Endpoints of etcd, separated by commas; implies --store etcd
    #[arg(long, env = "MINIK8S_ETCD_SERVERS", value_name = "URL,…", value_delimiter = ',')]
    pub etcd_servers: Option<Vec<String>>,

    /// Prefix of all keys in etcd [default: none]
    #[arg(long, env = "MINIK8S_ETCD_PREFIX", value_name = "PREFIX")]
    pub etcd_prefix: Option<String>,

    /// CA that signed etcd's certificate
    #[arg(long, env = "MINIK8S_ETCD_CAFILE", value_name = "FILE")]
    pub etcd_cafile: Option<PathBuf>,

    /// Client certificate for etcd
    #[arg(long, env = "MINIK8S_ETCD_CERTFILE", value_name = "FILE")]
    pub etcd_certfile: Option<PathBuf>,

    /// Key of the client certificate for etcd
    #[arg(long, env = "MINIK8S_ETCD_KEYFILE", value_name = "FILE")]
    pub etcd_keyfile: Option<PathBuf>,

    /// User name for etcd
    #[arg(long, env = "MINIK8S_ETCD_USERNAME", value_name = "NAME")]
    pub etcd_username: Option<String>,

    /// File that holds the password for etcd
    #[arg(long, env = "MINIK8S_ETCD_PASSWORD_FILE", value_name = "FILE")]
    pub etcd_password_file: Option<PathBuf>,

    /// How long events are kept, in seconds [default: 3600]
    #[arg(long, env = "MINIK8S_EVENT_TTL", value_name = "SECONDS")]
    pub event_ttl: Option<u64>,

    /// The most connections served at once; further ones wait [default: 20000]
    #[arg(long, env = "MINIK8S_MAX_CONNECTIONS", value_name = "COUNT")]
    pub max_connections: Option<usize>,

    /// Seconds that requests in flight get when the server stops [default: 10]
    #[arg(long, env = "MINIK8S_SHUTDOWN_GRACE", value_name = "SECONDS")]
    pub shutdown_grace: Option<u64>,
}

/// How to reach etcd.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EtcdConfig {
    /// Endpoints, `http://…` or `https://…`.
    pub servers: Vec<String>,
    /// Prefix of all keys; may be empty.
    pub prefix: String,
    /// CA of the servers.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and its key.
    pub client_files: Option<(PathBuf, PathBuf)>,
    /// User name and the file that holds the password.
    pub user: Option<(String, PathBuf)>,
}

/// The resolved configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Holds `pki/`, `kubeconfig`, `kubeconfigs/` and `store/`.
    pub data_dir: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// What is published as the `kubernetes` Service's endpoint, and stands in kubeconfigs of other machines.
    pub advertise_address: IpAddr,
    /// Further subject alternative names of the serving certificate.
    pub tls_sans: Vec<String>,
    /// Range of cluster IPs; its first address is the `kubernetes` Service's.
    pub service_cidr: IpNet,
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Issuer of ServiceAccount tokens.
    pub issuer: String,
    /// Audiences accepted in tokens; never empty.
    pub audiences: Vec<String>,
    /// Static tokens.
    pub token_auth_file: Option<PathBuf>,
    /// Which store.
    pub store: StoreKind,
    /// How to reach etcd, if it is the store.
    pub etcd: EtcdConfig,
    /// How long events live.
    pub event_ttl: Duration,
    /// The most connections at once.
    pub max_connections: usize,
    /// What requests in flight get at the end.
    pub shutdown_grace: Duration,
}

impl Config {
    /// A configuration with every default, for a data directory of one's own: port 0 on loopback and a store
    /// in memory. Made for tests and embedders, who change what they need.
    #[must_use]
    pub fn for_directory(data_dir: &Path) -> Self {
        let options = Options {
            data_dir: Some(data_dir.to_owned()),
            bind_address: Some(Ipv4Addr::LOCALHOST.into()),
            secure_port: Some(0),
            store: Some(StoreKind::Memory),
            ..Options::default()
        };
        options.fill().expect("the defaults must resolve")
    }

    /// The cluster IP of the Service `kubernetes`: the first address of the range.
    #[must_use]
    pub fn kubernetes_service_ip(&self) -> IpAddr {
        self.service_cidr.hosts().next().unwrap_or_else(|| self.service_cidr.network())
    }

    /// Where certificates and keys are.
    #[must_use]
    pub fn pki_dir(&self) -> PathBuf {
        self.data_dir.join("pki")
    }

    /// Where the embedded store is.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }
}

impl Options {
    /// Fills holes from the file named by `config`, then from the defaults.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is not valid, or if the options contradict one another.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let options = match &self.config {
            None => self,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
                let file: Self = serde_yaml::from_str(&text)
                    .map_err(|error| ConfigError::Parse { path: path.clone(), message: error.to_string() })?;
                self.or(file)
            }
        };
        options.fill()
    }

    /// These options, with holes filled from `other`.
    fn or(self, other: Self) -> Self {
        // Destructured in full, so that a new option cannot be forgotten here.
        let Self {
            config,
            data_dir,
            bind_address,
            secure_port,
            advertise_address,
            tls_sans,
            service_cluster_ip_range,
            service_node_port_range,
            cluster_domain,
            service_account_issuer,
            api_audiences,
            token_auth_file,
            store,
            etcd_servers,
            etcd_prefix,
            etcd_cafile,
            etcd_certfile,
            etcd_keyfile,
            etcd_username,
            etcd_password_file,
            event_ttl,
            max_connections,
            shutdown_grace,
        } = self;
        Self {
            config,
            data_dir: data_dir.or(other.data_dir),
            bind_address: bind_address.or(other.bind_address),
            secure_port: secure_port.or(other.secure_port),
            advertise_address: advertise_address.or(other.advertise_address),
            tls_sans: tls_sans.or(other.tls_sans),
            service_cluster_ip_range: service_cluster_ip_range.or(other.service_cluster_ip_range),
            service_node_port_range: service_node_port_range.or(other.service_node_port_range),
            cluster_domain: cluster_domain.or(other.cluster_domain),
            service_account_issuer: service_account_issuer.or(other.service_account_issuer),
            api_audiences: api_audiences.or(other.api_audiences),
            token_auth_file: token_auth_file.or(other.token_auth_file),
            store: store.or(other.store),
            etcd_servers: etcd_servers.or(other.etcd_servers),
            etcd_prefix: etcd_prefix.or(other.etcd_prefix),
            etcd_cafile: etcd_cafile.or(other.etcd_cafile),
            etcd_certfile: etcd_certfile.or(other.etcd_certfile),
            etcd_keyfile: etcd_keyfile.or(other.etcd_keyfile),
            etcd_username: etcd_username.or(other.etcd_username),
            etcd_password_file: etcd_password_file.or(other.etcd_password_file),
            event_ttl: event_ttl.or(other.event_ttl),
            max_connections: max_connections.or(other.max_connections),
            shutdown_grace: shutdown_grace.or(other.shutdown_grace),
        }
    }

    fn fill(self) -> Result<Config, ConfigError> {
        let data_dir = self
            .data_dir
            .or_else(|| std::env::home_dir().map(|home| home.join(".minik8s")))
            .ok_or(ConfigError::NoHome)?;
        let bind = self.bind_address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let service_cidr = self
            .service_cluster_ip_range
            .unwrap_or_else(|| "10.96.0.0/16".parse().expect("the range must parse"));
        if service_cidr.hosts().nth(7).is_none() {
            return Err(ConfigError::Invalid(format!(
                "the service range {service_cidr} is too small: give it at least eight addresses"
            )));
        }
        let cluster_domain = self.cluster_domain.unwrap_or_else(|| "cluster.local".to_owned());
        let issuer = self
            .service_account_issuer
            .unwrap_or_else(|| format!("https://kubernetes.default.svc.{cluster_domain}"));
        let etcd_servers = self.etcd_servers.unwrap_or_default();
        let store =
            self.store.unwrap_or(if etcd_servers.is_empty() { StoreKind::Embedded } else { StoreKind::Etcd });
        if store == StoreKind::Etcd && etcd_servers.is_empty() {
            return Err(ConfigError::Invalid("--store etcd needs --etcd-servers".to_owned()));
        }
        Ok(Config {
            data_dir,
            listen: SocketAddr::new(bind, self.secure_port.unwrap_or(6443)),
            advertise_address: self.advertise_address.unwrap_or_else(|| advertised(bind)),
            tls_sans: self.tls_sans.unwrap_or_default(),
            service_cidr,
            node_ports: parse_port_range(self.service_node_port_range.as_deref().unwrap_or("30000-32767"))?,
            cluster_domain,
            audiences: self
                .api_audiences
                .filter(|audiences| !audiences.is_empty())
                .unwrap_or_else(|| vec![issuer.clone()]),
            issuer,
            token_auth_file: self.token_auth_file,
            store,
            etcd: EtcdConfig {
                servers: etcd_servers,
                prefix: self.etcd_prefix.unwrap_or_default(),
                ca_file: self.etcd_cafile,
                client_files: pair(
                    self.etcd_certfile,
                    self.etcd_keyfile,
                    "--etcd-certfile and --etcd-keyfile go together",
                )?,
                user: pair(
                    self.etcd_username,
                    self.etcd_password_file,
                    "--etcd-username and --etcd-password-file go together",
                )?,
            },
            event_ttl: Duration::from_secs(self.event_ttl.unwrap_or(3600)),
            max_connections: self.max_connections.unwrap_or(20_000).max(1),
            shutdown_grace: Duration::from_secs(self.shutdown_grace.unwrap_or(10)),
        })
    }
}

fn pair<A, B>(first: Option<A>, second: Option<B>, message: &str) -> Result<Option<(A, B)>, ConfigError> {
    match (first, second) {
        (Some(first), Some(second)) => Ok(Some((first, second))),
        (None, None) => Ok(None),
        _ => Err(ConfigError::Invalid(message.to_owned())),
    }
}

fn parse_port_range(text: &str) -> Result<(u16, u16), ConfigError> {
    let invalid = || ConfigError::Invalid(format!("`{text}` is not a range of ports such as 30000-32767"));
    let (first, last) = text.split_once('-').ok_or_else(invalid)?;
    let first: u16 = first.trim().parse().map_err(|_| invalid())?;
    let last: u16 = last.trim().parse().map_err(|_| invalid())?;
    if first == 0 || first > last {
        return Err(invalid());
    }
    Ok((first, last))
}

/// The address to advertise for a bind address: itself, or for loopback and all addresses the one that the
/// default route would use. Connecting a UDP socket sends nothing; it only asks the routing table.
fn advertised(bind: IpAddr) -> IpAddr {
    // Loopback is of no use to anybody else, and no endpoint of a Service.
    if !bind.is_unspecified() && !bind.is_loopback() {
        return bind;
    }
    let probe = if bind.is_ipv4() { ("0.0.0.0:0", "192.0.2.1:9") } else { ("[::]:0", "[2001:db8::1]:9") };
    std::net::UdpSocket::bind(probe.0)
        .and_then(|socket| {
            socket.connect(probe.1)?;
            socket.local_addr()
        })
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("apiserver.yaml");
        std::fs::write(&file, "securePort: 7000\nserviceClusterIpRange: 10.7.0.0/24\ntlsSans: [a.example]\n")
            .unwrap();
        let cli = Cli::parse_from([
            "apiserver",
            "--config",
            file.to_str().unwrap(),
            "--secure-port",
            "7001",
            "--data-dir",
            "/d",
        ]);
        let config = cli.options.resolve().unwrap();
        assert_eq!(config.listen.port(), 7001);
        assert_eq!(config.kubernetes_service_ip().to_string(), "10.7.0.1");
        assert_eq!(config.tls_sans, ["a.example"]);
        assert_eq!(config.cluster_domain, "cluster.local");
        assert_eq!(config.audiences, ["https://kubernetes.default.svc.cluster.local"]);
    }

    #[test]
    fn nonsense_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("apiserver.yaml");
        std::fs::write(&file, "sercurePort: 1\n").unwrap();
        let error = Options { config: Some(file), ..Options::default() }.resolve().unwrap_err();
        assert!(error.to_string().contains("sercurePort"), "{error}");
        let error = Options { store: Some(StoreKind::Etcd), ..Options::default() }.resolve().unwrap_err();
        assert_eq!(error.to_string(), "--store etcd needs --etcd-servers");
        assert!(parse_port_range("9-3").is_err());
    }
}
