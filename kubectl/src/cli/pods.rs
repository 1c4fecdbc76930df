//! Arguments of commands about pods and what runs in them.

use clap::{Args, ValueEnum};

use super::{DryRunArgs, OutputArgs};

/// `kubectl logs`
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// POD or TYPE/NAME
    pub pod: Option<String>,
    /// CONTAINER
    pub container: Option<String>,
    /// Which container
    #[arg(long = "container", short = 'c', id = "container_flag")]
    pub container_flag: Option<String>,
    /// All containers of the pods
    #[arg(long)]
    pub all_containers: bool,
    /// All pods of TYPE/NAME, each line with its pod and container
    #[arg(long)]
    pub all_pods: bool,
    /// Go on as the container writes
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// The container before its last restart
    #[arg(long, short = 'p')]
    pub previous: bool,
    /// Only so many lines from the end; -1 for all
    #[arg(long, allow_negative_numbers = true)]
    pub tail: Option<i64>,
    /// Only the last so long: 5s, 2m, 3h
    #[arg(long)]
    pub since: Option<String>,
    /// Only from then on (RFC 3339)
    #[arg(long)]
    pub since_time: Option<String>,
    /// Begin each line with its time
    #[arg(long)]
    pub timestamps: bool,
    /// At most so many bytes
    #[arg(long, allow_negative_numbers = true)]
    pub limit_bytes: Option<i64>,
    /// Begin each line with its pod and container
    #[arg(long)]
    pub prefix: bool,
    /// Logs of the pods with these labels
    #[arg(long, short = 'l')]
    pub selector: Option<String>,
    /// How many logs to follow at once
    #[arg(long, default_value_t = 5)]
    pub max_log_requests: usize,
    /// Go on when one of the logs fails
    #[arg(long)]
    pub ignore_errors: bool,
    /// How long to wait for a followed container to start
    #[arg(long, default_value = "20s")]
    pub pod_running_timeout: String,
}

/// `kubectl exec`
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// POD or TYPE/NAME
    pub pod: String,
    /// Which container
    #[arg(long, short = 'c')]
    pub container: Option<String>,
    /// Send standard input
    #[arg(long, short = 'i')]
    pub stdin: bool,
    /// Standard input is a terminal
    #[arg(long, short = 't')]
    pub tty: bool,
    /// Only print output of the command
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// The command and its arguments, after --
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<String>,
}

/// `kubectl attach`
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// POD or TYPE/NAME
    pub pod: String,
    /// Which container
    #[arg(long, short = 'c')]
    pub container: Option<String>,
    /// Send standard input
    #[arg(long, short = 'i')]
    pub stdin: bool,
    /// Standard input is a terminal
    #[arg(long, short = 't')]
    pub tty: bool,
    /// Only print output of the command
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

/// `kubectl port-forward`
#[derive(Debug, Args)]
pub struct PortForwardArgs {
    /// POD or TYPE/NAME
    pub target: String,
    /// [LOCAL_PORT:]REMOTE_PORT; without a number before the colon, any free port
    #[arg(required = true, value_name = "PORTS")]
    pub ports: Vec<String>,
    /// Addresses to listen on: IPs or localhost
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    pub address: Vec<String>,
}

/// `kubectl cp`
#[derive(Debug, Args)]
pub struct CpArgs {
    /// FILE, POD:FILE or NAMESPACE/POD:FILE
    pub source: String,
    /// FILE, POD:FILE or NAMESPACE/POD:FILE
    pub destination: String,
    /// Which container
    #[arg(long, short = 'c')]
    pub container: Option<String>,
    /// Do not keep permissions and owner in the container
    #[arg(long)]
    pub no_preserve: bool,
    /// How often a copy out of a container goes on after it broke off; negative without end
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub retries: i32,
}

/// `kubectl run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The pod's name
    pub name: String,
    /// The image to run
    #[arg(long)]
    pub image: String,
    /// When the image is pulled: Always, IfNotPresent, Never
    #[arg(long)]
    pub image_pull_policy: Option<String>,
    /// A port that the container opens
    #[arg(long)]
    pub port: Option<u16>,
    /// Environment: KEY=VALUE (may be repeated)
    #[arg(long)]
    pub env: Vec<String>,
    /// Labels: a=b,c=d
    #[arg(long, short = 'l')]
    pub labels: Option<String>,
    /// Annotations: a=b (may be repeated)
    #[arg(long)]
    pub annotations: Vec<String>,
    /// When the container is restarted
    #[arg(long, value_enum, default_value = "Always")]
    pub restart: Restart,
    /// Take the arguments as the command instead of the command's arguments
    #[arg(long)]
    pub command: bool,
    /// Attach to the container when it runs
    #[arg(long)]
    pub attach: bool,
    /// Keep standard input open
    #[arg(long, short = 'i')]
    pub stdin: bool,
    /// The container has a terminal
    #[arg(long, short = 't')]
    pub tty: bool,
    /// Delete the pod when it is done (with --attach or -i)
    #[arg(long)]
    pub rm: bool,
    /// Only print output of the command
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// Fields of the pod to set, as JSON
    #[arg(long)]
    pub overrides: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Whether to write.
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Arguments of the container, after --
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// Restart policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Restart {
    /// Whenever it ends.
    #[value(name = "Always")]
    Always,
    /// When it fails.
    #[value(name = "OnFailure")]
    OnFailure,
    /// Not at all.
    #[value(name = "Never")]
    Never,
}

impl Restart {
    /// The policy's name in a pod.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::OnFailure => "OnFailure",
            Self::Never => "Never",
        }
    }
}

/// `kubectl cordon` and `kubectl uncordon`
#[derive(Debug, Args)]
pub struct CordonArgs {
    /// The nodes
    pub nodes: Vec<String>,
    /// The nodes with these labels
    #[arg(long, short = 'l')]
    pub selector: Option<String>,
    /// Whether to write.
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// `kubectl drain`
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The nodes
    pub nodes: Vec<String>,
    /// The nodes with these labels
    #[arg(long, short = 'l')]
    pub selector: Option<String>,
    /// Also pods that nothing will make anew
    #[arg(long)]
    pub force: bool,
    /// Leave the pods of DaemonSets
    #[arg(long)]
    pub ignore_daemonsets: bool,
    /// Also pods that lose data in emptyDir volumes
    #[arg(long)]
    pub delete_emptydir_data: bool,
    /// Seconds for a graceful end; -1 for the pod's own
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub grace_period: i64,
    /// How long to try; 0s for as long as it takes
    #[arg(long, default_value = "0s")]
    pub timeout: String,
    /// Only pods with these labels
    #[arg(long)]
    pub pod_selector: Option<String>,
    /// Delete pods even where eviction is served
    #[arg(long)]
    pub disable_eviction: bool,
    /// Whether to write.
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

impl DrainArgs {
    /// The part that `cordon` needs.
    pub(crate) fn cordon(&self) -> CordonArgs {
        CordonArgs { nodes: self.nodes.clone(), selector: self.selector.clone(), dry_run: self.dry_run }
    }
}
