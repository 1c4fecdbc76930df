//! The command line, as types: nothing here does anything.

mod cluster;
mod create;
mod objects;
mod pods;
pub(crate) mod refusal;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use cluster::*;
pub use create::*;
pub use objects::*;
pub use pods::*;

/// kubectl controls a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl",
    version = concat!("v1.36.0-minik8s-", env!("CARGO_PKG_VERSION")),
    disable_version_flag = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 120
)]
pub struct Cli {
    /// How to reach the cluster.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct GlobalArgs {
    /// Path to the kubeconfig file [default: $KUBECONFIG, ~/.kube/config, the local cluster's]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The name of the kubeconfig context to use
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The name of the kubeconfig cluster to use
    #[arg(long, global = true)]
    pub cluster: Option<String>,
    /// The name of the kubeconfig user to use (below 'create rolebinding': a subject; may be repeated)
    #[arg(long, global = true)]
    pub user: Vec<String>,
    /// The namespace to work in
    #[arg(long, short = 'n', global = true)]
    pub namespace: Option<String>,
    /// The address of the API server
    #[arg(long, short = 's', global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Bearer token for authentication
    #[arg(long, global = true)]
    pub token: Option<String>,
    /// Do not check the server's certificate: the connection is then open to interception
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// Path to the certificate authority's certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub certificate_authority: Option<PathBuf>,
    /// Path to a client certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub client_certificate: Option<PathBuf>,
    /// Path to the client certificate's key
    #[arg(long, global = true, value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// How long one request may take: 5s, 2m, or a number of seconds; 0 for as long as it takes
    #[arg(long, global = true, value_name = "TIME")]
    pub request_timeout: Option<String>,
    /// Act as this user
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,
    /// Act as a member of this group (may be repeated)
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub impersonate_group: Vec<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Apply a configuration to objects by file, directory, URL or stdin
    Apply(ApplyArgs),
    /// Create an object from a file, or of a common kind
    Create(CreateArgs),
    /// Display one or many objects
    Get(GetArgs),
    /// Show details of an object or a group of objects
    Describe(DescribeArgs),
    /// Delete objects by file, name or selector
    Delete(DeleteArgs),
    /// Print the logs of a container
    #[command(visible_alias = "log")]
    Logs(LogsArgs),
    /// Execute a command in a container
    Exec(ExecArgs),
    /// Attach to a running container
    Attach(AttachArgs),
    /// Forward local ports to a pod
    PortForward(PortForwardArgs),
    /// Copy files to and from containers
    Cp(CpArgs),
    /// Run an image in a pod
    Run(RunArgs),
    /// Set a new size for a ReplicaSet, Deployment or StatefulSet
    Scale(ScaleArgs),
    /// Update the labels of an object
    Label(MarkArgs),
    /// Update the annotations of an object
    Annotate(MarkArgs),
    /// Update fields of an object by a patch
    Patch(PatchArgs),
    /// Edit an object in an editor
    Edit(EditArgs),
    /// Wait for a condition of objects
    Wait(WaitArgs),
    /// Describe the fields of a kind
    Explain(ExplainArgs),
    /// Print the resources that the server serves
    ApiResources(ApiResourcesArgs),
    /// Print the API versions that the server serves
    ApiVersions,
    /// Say where the cluster is
    ClusterInfo,
    /// Print the versions of client and server
    Version(VersionArgs),
    /// Read and change kubeconfig files
    Config(ConfigArgs),
    /// Mark a node as unschedulable
    Cordon(CordonArgs),
    /// Mark a node as schedulable
    Uncordon(CordonArgs),
    /// Empty a node of its pods
    Drain(DrainArgs),
    /// Change settings of a local cluster: sched=random|min-pods|max-pods|min-cpu|min-mem|default
    Cfg(CfgArgs),
    /// Remove every object that a user made from a local cluster
    Reset(ResetArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
}

/// Where manifests come from.
#[derive(Debug, Clone, Default, Args)]
pub struct FileArgs {
    /// File, directory or URL with manifests; - is stdin (may be repeated)
    #[arg(
        long = "filename",
        short = 'f',
        visible_alias = "filePath",
        value_name = "FILE",
        value_delimiter = ','
    )]
    pub filenames: Vec<String>,
    /// Go through directories recursively
    #[arg(long, short = 'R')]
    pub recursive: bool,
}

/// Which objects of a kind.
#[derive(Debug, Clone, Default, Args)]
pub struct SelectArgs {
    /// Label selector: a=b,c!=d,e in (x,y),!f
    #[arg(long, short = 'l')]
    pub selector: Option<String>,
    /// Field selector: metadata.name=a,status.phase!=Running
    #[arg(long)]
    pub field_selector: Option<String>,
}

/// How results are printed.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArgs {
    /// json, yaml, name, wide, jsonpath=…, jsonpath-file=…, custom-columns=…, custom-columns-file=…
    #[arg(long, short = 'o')]
    pub output: Option<String>,
    /// Keep managedFields in JSON and YAML
    #[arg(long)]
    pub show_managed_fields: bool,
    /// Whether missing keys print nothing in templates instead of failing
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub allow_missing_template_keys: bool,
}

/// Whether a write takes place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// It does.
    #[default]
    #[value(alias = "false")]
    None,
    /// Nothing is sent.
    #[value(alias = "true")]
    Client,
    /// Everything is done but the write.
    Server,
}

/// The flag for it.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct DryRunArgs {
    /// none, server (everything is done but the write) or client (nothing is sent)
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, default_missing_value = "client", require_equals = true, hide_possible_values = true)]
    pub dry_run: DryRun,
}

impl DryRun {
    /// What a message about the object says after the verb.
    pub(crate) fn note(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usual_lines_are_read() {
        for line in [
            "kubectl get pods -A -o wide",
            "kubectl get po,svc -n kube-system -l app=x --show-labels",
            "kubectl get pod a -o jsonpath={.status.phase} -w",
            "kubectl apply -f a.yaml -f b.yaml --dry-run=server",
            "kubectl apply --filePath a.yaml",
            "kubectl delete pod a b --grace-period=0 --force --wait=false",
            "kubectl delete pods --all",
            "kubectl logs a -c b -f --tail=10 --since=1h --timestamps",
            "kubectl exec -it a -c b -- sh -c 'echo hi'",
            "kubectl run a --image=nginx --restart=Never --rm -it -- sh",
            "kubectl scale rs/a --replicas=3",
            "kubectl label node a disktype=ssd --overwrite",
            "kubectl label pods --all x-",
            "kubectl patch pod a --type=merge -p {}",
            "kubectl wait --for=condition=Ready pod/a --timeout=30s",
            "kubectl drain n --ignore-daemonsets --delete-emptydir-data --force",
            "kubectl config set-context --current --namespace=x",
            "kubectl explain pods.spec.containers --recursive",
            "kubectl cfg sched=random",
            "kubectl reset --yes",
            "kubectl create configmap a --from-literal=k=v --dry-run=client -o yaml",
            "kubectl create rolebinding a --role=r --user=u --user=v",
            "kubectl create service clusterip a --tcp=80:8080",
            "kubectl create deployment a --image=nginx --replicas=2",
            "kubectl completion bash",
            "kubectl version --client -o json",
        ] {
            let words = line.split(' ').map(|word| word.trim_matches('\''));
            assert!(
                Cli::try_parse_from(words.clone()).is_ok(),
                "{line}: {:?}",
                Cli::try_parse_from(words).err()
            );
        }
        assert!(Cli::try_parse_from(["kubectl", "get", "pods", "--nonsense"]).is_err());
    }
}
