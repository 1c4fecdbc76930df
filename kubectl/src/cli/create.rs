//! Arguments of the kinds that `kubectl create` makes from flags, as far as they are not in `objects`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::CreateCommon;

/// Types of Services.
#[derive(Debug, Subcommand)]
pub enum ServiceKind {
    /// Create a Service with an address inside the cluster
    #[command(name = "clusterip")]
    ClusterIp {
        /// Name and flags of all.
        #[command(flatten)]
        common: CreateCommon,
        /// Its ports.
        #[command(flatten)]
        ports: PortArgs,
        /// The address, or None for a headless Service
        #[arg(long)]
        clusterip: Option<String>,
    },
    /// Create a Service with a port on every node
    #[command(name = "nodeport")]
    NodePort {
        /// Name and flags of all.
        #[command(flatten)]
        common: CreateCommon,
        /// Its ports.
        #[command(flatten)]
        ports: PortArgs,
        /// The port on the nodes
        #[arg(long)]
        node_port: Option<u16>,
    },
    /// Create a Service with a load balancer
    #[command(name = "loadbalancer")]
    LoadBalancer {
        /// Name and flags of all.
        #[command(flatten)]
        common: CreateCommon,
        /// Its ports.
        #[command(flatten)]
        ports: PortArgs,
    },
    /// Create a Service that stands for another DNS name
    #[command(name = "externalname")]
    ExternalName {
        /// Name and flags of all.
        #[command(flatten)]
        common: CreateCommon,
        /// Its ports.
        #[command(flatten)]
        ports: PortArgs,
        /// The name that it stands for
        #[arg(long)]
        external_name: String,
    },
}

/// Ports of a Service.
#[derive(Debug, Clone, Default, Args)]
pub struct PortArgs {
    /// A port and the one behind it: 80 or 80:8080 (may be repeated)
    #[arg(long, value_delimiter = ',', value_name = "PORT[:TARGET]")]
    pub tcp: Vec<String>,
}

/// `kubectl create job`
#[derive(Debug, Args)]
pub struct JobArgs {
    /// Name and flags of all.
    #[command(flatten)]
    pub common: CreateCommon,
    /// The image to run
    #[arg(long)]
    pub image: Option<String>,
    /// A CronJob to take the Job from: cronjob/NAME
    #[arg(long, value_name = "CRONJOB")]
    pub from: Option<String>,
    /// The command to run instead of the image's
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// `kubectl create cronjob`
#[derive(Debug, Args)]
pub struct CronJobArgs {
    /// Name and flags of all.
    #[command(flatten)]
    pub common: CreateCommon,
    /// The image to run
    #[arg(long)]
    pub image: String,
    /// When: minute, hour, day of the month, month, day of the week
    #[arg(long)]
    pub schedule: String,
    /// Always, OnFailure or Never
    #[arg(long, default_value = "OnFailure")]
    pub restart: String,
    /// The command to run instead of the image's
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// `kubectl create secret docker-registry`
#[derive(Debug, Args)]
pub struct RegistrySecretArgs {
    /// Name and flags of all.
    #[command(flatten)]
    pub common: CreateCommon,
    /// The registry
    #[arg(long, default_value = "https://index.docker.io/v1/")]
    pub docker_server: String,
    /// Who logs in
    #[arg(long)]
    pub docker_username: String,
    /// The password
    #[arg(long)]
    pub docker_password: String,
    /// An address, for registries that ask for one
    #[arg(long)]
    pub docker_email: Option<String>,
}

/// `kubectl create secret tls`
#[derive(Debug, Args)]
pub struct TlsSecretArgs {
    /// Name and flags of all.
    #[command(flatten)]
    pub common: CreateCommon,
    /// A file with the certificate, in PEM
    #[arg(long, value_name = "FILE")]
    pub cert: PathBuf,
    /// A file with its private key, in PEM
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
}

/// `kubectl create quota`
#[derive(Debug, Args)]
pub struct QuotaArgs {
    /// Name and flags of all.
    #[command(flatten)]
    pub common: CreateCommon,
    /// Limits: pods=1,cpu=2
    #[arg(long, value_delimiter = ',', value_name = "RESOURCE=AMOUNT")]
    pub hard: Vec<String>,
    /// What it counts: BestEffort, NotTerminating, …
    #[arg(long, value_delimiter = ',')]
    pub scopes: Vec<String>,
}

/// `kubectl create poddisruptionbudget`
#[derive(Debug, Args)]
pub struct BudgetArgs {
    /// Name and flags of all.
    #[command(flatten)]
    pub common: CreateCommon,
    /// Which pods
    #[arg(long)]
    pub selector: String,
    /// How many must be there: a number or a share
    #[arg(long, conflicts_with = "max_unavailable")]
    pub min_available: Option<String>,
    /// How many may be away: a number or a share
    #[arg(long)]
    pub max_unavailable: Option<String>,
}

/// `kubectl create priorityclass`
#[derive(Debug, Args)]
pub struct PriorityClassArgs {
    /// Name and flags of all.
    #[command(flatten)]
    pub common: CreateCommon,
    /// The priority
    #[arg(long, allow_negative_numbers = true)]
    pub value: i32,
    /// Whether pods without a class get this one
    #[arg(long)]
    pub global_default: bool,
    /// What it is for
    #[arg(long, default_value = "")]
    pub description: String,
    /// PreemptLowerPriority or Never
    #[arg(long, default_value = "PreemptLowerPriority")]
    pub preemption_policy: String,
}
