//! Arguments of commands about any object.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{
    BudgetArgs, CronJobArgs, DryRunArgs, FileArgs, JobArgs, OutputArgs, PriorityClassArgs, QuotaArgs,
    RegistrySecretArgs, SelectArgs, ServiceKind, TlsSecretArgs,
};

/// `kubectl apply`
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Where the manifests are.
    #[command(flatten)]
    pub files: FileArgs,
    /// Which of the manifests' objects.
    #[arg(long, short = 'l')]
    pub selector: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Whether to write.
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Let the server merge (server-side apply)
    #[arg(long)]
    pub server_side: bool,
    /// Take fields from other managers in server-side apply
    #[arg(long)]
    pub force_conflicts: bool,
    /// Who owns the fields
    #[arg(long)]
    pub field_manager: Option<String>,
    /// What becomes of unknown fields: strict (refused), warn, ignore
    #[arg(long, default_value = "strict", num_args = 0..=1, default_missing_value = "strict")]
    pub validate: String,
    /// Delete and create anew what cannot be changed
    #[arg(long)]
    pub force: bool,
    /// Replace fields that were changed elsewhere
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub overwrite: bool,
}

/// `kubectl create`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CreateArgs {
    /// Where the manifests are.
    #[command(flatten)]
    pub files: FileArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Whether to write.
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Store the configuration for later applies
    #[arg(long)]
    pub save_config: bool,
    /// Who owns the fields
    #[arg(long)]
    pub field_manager: Option<String>,
    /// What becomes of unknown fields: strict (refused), warn, ignore
    #[arg(long, default_value = "strict", num_args = 0..=1, default_missing_value = "strict")]
    pub validate: String,
    /// A kind to make without a manifest.
    #[command(subcommand)]
    pub kind: Option<CreateKind>,
}

impl CreateArgs {
    /// Whether a RoleBinding or ClusterRoleBinding is to be made.
    pub(crate) fn is_binding(&self) -> bool {
        matches!(self.kind, Some(CreateKind::RoleBinding { .. } | CreateKind::ClusterRoleBinding { .. }))
    }
}

/// What the commands below `create` share.
#[derive(Debug, Clone, Args)]
pub struct CreateCommon {
    /// The name of the new object
    pub name: String,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Whether to write.
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// Data of a ConfigMap or Secret.
#[derive(Debug, Clone, Default, Args)]
pub struct DataArgs {
    /// A key and its value: key=value (may be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    pub from_literal: Vec<String>,
    /// A file, a directory of files, or key=file (may be repeated)
    #[arg(long, value_name = "[KEY=]FILE")]
    pub from_file: Vec<String>,
    /// A file of key=value lines
    #[arg(long, value_name = "FILE")]
    pub from_env_file: Vec<PathBuf>,
}

/// Kinds that `kubectl create` makes without a manifest.
#[derive(Debug, Subcommand)]
pub enum CreateKind {
    /// Create a namespace
    #[command(visible_alias = "ns")]
    Namespace(CreateCommon),
    /// Create a ServiceAccount
    #[command(name = "serviceaccount", visible_alias = "sa")]
    ServiceAccount(CreateCommon),
    /// Create a ConfigMap
    #[command(name = "configmap", visible_alias = "cm")]
    ConfigMap {
        /// Name and flags of all.
        #[command(flatten)]
        common: CreateCommon,
        /// What is in it.
        #[command(flatten)]
        data: DataArgs,
    },
    /// Create a Service: kubectl create service clusterip NAME …
    #[command(visible_alias = "svc")]
    Service {
        /// Which type.
        #[command(subcommand)]
        kind: ServiceKind,
    },
    /// Create a Job from an image or a CronJob
    Job(JobArgs),
    /// Create a CronJob
    #[command(name = "cronjob", visible_alias = "cj")]
    CronJob(CronJobArgs),
    /// Create a ResourceQuota
    #[command(visible_alias = "resourcequota")]
    Quota(QuotaArgs),
    /// Create a PodDisruptionBudget
    #[command(name = "poddisruptionbudget", visible_alias = "pdb")]
    PodDisruptionBudget(BudgetArgs),
    /// Create a PriorityClass
    #[command(name = "priorityclass", visible_alias = "pc")]
    PriorityClass(PriorityClassArgs),
    /// Create a Secret: kubectl create secret generic NAME …
    Secret {
        /// Which type.
        #[command(subcommand)]
        kind: SecretKind,
    },
    /// Create a Deployment
    #[command(visible_alias = "deploy")]
    Deployment {
        /// Name and flags of all.
        #[command(flatten)]
        common: CreateCommon,
        /// The image to run (may be repeated)
        #[arg(long, required = true)]
        image: Vec<String>,
        /// How many pods
        #[arg(long, short = 'r', default_value_t = 1)]
        replicas: u32,
        /// A port that the container opens
        #[arg(long)]
        port: Option<u16>,
        /// The command to run instead of the image's
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Ask for a token of a ServiceAccount
    Token {
        /// The ServiceAccount
        name: String,
        /// How long the token is to be good: 1h
        #[arg(long)]
        duration: Option<String>,
        /// Who the token is for (may be repeated)
        #[arg(long)]
        audience: Vec<String>,
    },
    /// Create a Role
    Role {
        /// Name and flags of all.
        #[command(flatten)]
        common: CreateCommon,
        /// What it allows.
        #[command(flatten)]
        rule: RuleArgs,
    },
    /// Create a ClusterRole
    #[command(name = "clusterrole")]
    ClusterRole {
        /// Name and flags of all.
        #[command(flatten)]
        common: CreateCommon,
        /// What it allows.
        #[command(flatten)]
        rule: RuleArgs,
    },
    /// Create a RoleBinding
    #[command(name = "rolebinding")]
    RoleBinding {
        /// Name and flags of all.
        #[command(flatten)]
        common: CreateCommon,
        /// Whom it binds to what.
        #[command(flatten)]
        binding: BindingArgs,
    },
    /// Create a ClusterRoleBinding
    #[command(name = "clusterrolebinding")]
    ClusterRoleBinding {
        /// Name and flags of all.
        #[command(flatten)]
        common: CreateCommon,
        /// Whom it binds to what.
        #[command(flatten)]
        binding: BindingArgs,
    },
}

/// Types of Secrets.
#[derive(Debug, Subcommand)]
pub enum SecretKind {
    /// Create a Secret with the login for a registry
    #[command(name = "docker-registry")]
    DockerRegistry(RegistrySecretArgs),
    /// Create a Secret with a certificate and its key
    Tls(TlsSecretArgs),
    /// Create a Secret from files and literals
    Generic {
        /// Name and flags of all.
        #[command(flatten)]
        common: CreateCommon,
        /// What is in it.
        #[command(flatten)]
        data: DataArgs,
        /// The type of the Secret
        #[arg(long = "type")]
        secret_type: Option<String>,
    },
}

/// One rule of a Role.
#[derive(Debug, Clone, Args)]
pub struct RuleArgs {
    /// Verbs, apart by commas
    #[arg(long, value_delimiter = ',', required = true)]
    pub verb: Vec<String>,
    /// Resources, apart by commas: pods, deployments.apps, pods/log
    #[arg(long, value_delimiter = ',', required = true)]
    pub resource: Vec<String>,
    /// Names of objects to which the rule is confined
    #[arg(long)]
    pub resource_name: Vec<String>,
}

/// Subjects and role of a binding.
#[derive(Debug, Clone, Args)]
pub struct BindingArgs {
    /// The ClusterRole to bind
    #[arg(long)]
    pub clusterrole: Option<String>,
    /// The Role to bind
    #[arg(long, conflicts_with = "clusterrole")]
    pub role: Option<String>,
    /// A group
    #[arg(long = "group")]
    pub groups: Vec<String>,
    /// A ServiceAccount: namespace:name
    #[arg(long = "serviceaccount")]
    pub service_accounts: Vec<String>,
}

/// `kubectl get`
#[derive(Debug, Args)]
pub struct GetArgs {
    /// TYPE[,TYPE…] [NAME…], or TYPE/NAME…
    pub targets: Vec<String>,
    /// Where the manifests are.
    #[command(flatten)]
    pub files: FileArgs,
    /// Which objects.
    #[command(flatten)]
    pub select: SelectArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Objects of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// After printing, watch for changes
    #[arg(long, short = 'w')]
    pub watch: bool,
    /// Watch for changes without printing first
    #[arg(long)]
    pub watch_only: bool,
    /// Print the kind of each event of a watch
    #[arg(long)]
    pub output_watch_events: bool,
    /// Leave out the headings
    #[arg(long)]
    pub no_headers: bool,
    /// Add a column with all labels
    #[arg(long)]
    pub show_labels: bool,
    /// Print the kind before each name
    #[arg(long)]
    pub show_kind: bool,
    /// Add a column for these labels
    #[arg(long, short = 'L', value_delimiter = ',')]
    pub label_columns: Vec<String>,
    /// Sort by a field, given as a JSONPath
    #[arg(long)]
    pub sort_by: Option<String>,
    /// Succeed and print nothing when the object does not exist
    #[arg(long)]
    pub ignore_not_found: bool,
    /// How many objects to ask for at a time; 0 for all at once
    #[arg(long, default_value_t = 500)]
    pub chunk_size: u64,
    /// A subresource of the object
    #[arg(long)]
    pub subresource: Option<String>,
    /// A path to ask the server for, printed as it comes
    #[arg(long)]
    pub raw: Option<String>,
}

/// `kubectl describe`
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// TYPE [NAME or beginning of names…], or TYPE/NAME…
    pub targets: Vec<String>,
    /// Where the manifests are.
    #[command(flatten)]
    pub files: FileArgs,
    /// Which objects.
    #[arg(long, short = 'l')]
    pub selector: Option<String>,
    /// Objects of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Whether to print events about the object
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub show_events: bool,
}

/// `kubectl delete`
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// TYPE NAME…, or TYPE/NAME…
    pub targets: Vec<String>,
    /// Where the manifests are.
    #[command(flatten)]
    pub files: FileArgs,
    /// Which objects.
    #[command(flatten)]
    pub select: SelectArgs,
    /// All objects of the type
    #[arg(long)]
    pub all: bool,
    /// Objects of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Seconds for a graceful end; -1 for the object's own
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub grace_period: i64,
    /// End at once, without waiting for confirmation (with --grace-period=0)
    #[arg(long)]
    pub force: bool,
    /// End as soon as possible (a grace period of one second)
    #[arg(long, conflicts_with = "grace_period")]
    pub now: bool,
    /// Succeed when the object does not exist
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub wait: bool,
    /// How long to wait; 0s for as long as it takes
    #[arg(long, default_value = "0s")]
    pub timeout: String,
    /// What happens to dependents: background, orphan, foreground
    #[arg(long, value_enum, default_value = "background", num_args = 0..=1, default_missing_value = "background", require_equals = true)]
    pub cascade: Cascade,
    /// How to print: name, or nothing
    #[arg(long, short = 'o')]
    pub output: Option<String>,
    /// Whether to write.
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// What happens to dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cascade {
    /// They are deleted afterwards.
    #[value(alias = "true")]
    Background,
    /// They live on.
    #[value(alias = "false")]
    Orphan,
    /// They are deleted before.
    Foreground,
}

/// `kubectl scale`
#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// TYPE NAME…, or TYPE/NAME…
    pub targets: Vec<String>,
    /// Where the manifests are.
    #[command(flatten)]
    pub files: FileArgs,
    /// The new number of pods
    #[arg(long)]
    pub replicas: u32,
    /// Only if this is the number now
    #[arg(long)]
    pub current_replicas: Option<u32>,
    /// Only if this is the object's version
    #[arg(long)]
    pub resource_version: Option<String>,
    /// Which objects.
    #[arg(long, short = 'l')]
    pub selector: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Whether to write.
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// `kubectl label` and `kubectl annotate`
#[derive(Debug, Args)]
pub struct MarkArgs {
    /// TYPE NAME… KEY=VALUE… KEY-…
    pub targets: Vec<String>,
    /// Where the manifests are.
    #[command(flatten)]
    pub files: FileArgs,
    /// Which objects.
    #[command(flatten)]
    pub select: SelectArgs,
    /// All objects of the type
    #[arg(long)]
    pub all: bool,
    /// Objects of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Replace values that are there
    #[arg(long)]
    pub overwrite: bool,
    /// Print what is there
    #[arg(long)]
    pub list: bool,
    /// Only if this is the object's version
    #[arg(long)]
    pub resource_version: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Whether to write.
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// `kubectl patch`
#[derive(Debug, Args)]
pub struct PatchArgs {
    /// TYPE NAME, or TYPE/NAME
    pub targets: Vec<String>,
    /// Where the manifests are.
    #[command(flatten)]
    pub files: FileArgs,
    /// The patch, as JSON or YAML
    #[arg(long, short = 'p')]
    pub patch: Option<String>,
    /// A file that holds the patch
    #[arg(long, value_name = "FILE")]
    pub patch_file: Option<PathBuf>,
    /// strategic, merge or json
    #[arg(long = "type", value_enum, default_value = "strategic")]
    pub kind: PatchFlavor,
    /// A subresource of the object
    #[arg(long)]
    pub subresource: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Whether to write.
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// Kinds of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PatchFlavor {
    /// Kubernetes' own.
    Strategic,
    /// RFC 7396.
    Merge,
    /// RFC 6902.
    Json,
}

/// `kubectl edit`
#[derive(Debug, Args)]
pub struct EditArgs {
    /// TYPE NAME, or TYPE/NAME
    pub targets: Vec<String>,
    /// yaml or json
    #[arg(long, short = 'o', default_value = "yaml")]
    pub output: String,
}

/// `kubectl wait`
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// TYPE NAME…, or TYPE/NAME…
    pub targets: Vec<String>,
    /// Where the manifests are.
    #[command(flatten)]
    pub files: FileArgs,
    /// delete, create, condition=NAME[=VALUE] or jsonpath='{…}'[=VALUE]
    #[arg(long = "for", required = true, value_name = "CONDITION")]
    pub condition: String,
    /// Which objects.
    #[command(flatten)]
    pub select: SelectArgs,
    /// All objects of the type
    #[arg(long)]
    pub all: bool,
    /// Objects of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// How long to wait: 30s, 5m; 0 looks once, negative waits a week
    #[arg(long, default_value = "30s", allow_hyphen_values = true)]
    pub timeout: String,
}
