//! Arguments of commands about the cluster and about kubectl itself.

use clap::{Args, Subcommand};
use clap_complete::Shell;

use super::OutputArgs;

/// `kubectl explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// TYPE[.FIELD…]
    pub target: String,
    /// Print all fields below, without descriptions
    #[arg(long)]
    pub recursive: bool,
    /// Of this group and version
    #[arg(long)]
    pub api_version: Option<String>,
}

/// `kubectl api-resources`
#[derive(Debug, Args)]
pub struct ApiResourcesArgs {
    /// Only of this group
    #[arg(long)]
    pub api_group: Option<String>,
    /// Only namespaced ones (or, =false, others)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub namespaced: Option<bool>,
    /// Only those with these verbs
    #[arg(long, value_delimiter = ',')]
    pub verbs: Vec<String>,
    /// Leave out the headings
    #[arg(long)]
    pub no_headers: bool,
    /// wide or name
    #[arg(long, short = 'o')]
    pub output: Option<String>,
    /// Sort by name or kind
    #[arg(long)]
    pub sort_by: Option<String>,
}

/// `kubectl version`
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Only of the client
    #[arg(long)]
    pub client: bool,
    /// json or yaml
    #[arg(long, short = 'o')]
    pub output: Option<String>,
}

/// `kubectl config`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// Commands below `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the kubeconfig
    View {
        /// Print secrets too
        #[arg(long)]
        raw: bool,
        /// Only what the current context uses
        #[arg(long)]
        minify: bool,
        /// How to print.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print the current context
    CurrentContext,
    /// Make another context the current one
    #[command(visible_alias = "use")]
    UseContext {
        /// Its name
        name: String,
    },
    /// Print contexts
    GetContexts {
        /// Only these
        names: Vec<String>,
        /// Leave out the headings
        #[arg(long)]
        no_headers: bool,
        /// name
        #[arg(long, short = 'o')]
        output: Option<String>,
    },
    /// Print clusters
    GetClusters,
    /// Print users
    GetUsers,
    /// Set parts of a context (--cluster, --user, --namespace)
    SetContext {
        /// Its name
        name: Option<String>,
        /// The current one
        #[arg(long)]
        current: bool,
    },
    /// Set parts of a cluster (--server, --certificate-authority, --insecure-skip-tls-verify)
    SetCluster {
        /// Its name
        name: String,
        /// Put the certificate into the file
        #[arg(long)]
        embed_certs: bool,
    },
    /// Set parts of a user (--token, --client-certificate, --client-key)
    SetCredentials {
        /// Its name
        name: String,
        /// Put certificate and key into the file
        #[arg(long)]
        embed_certs: bool,
    },
    /// Delete a context
    DeleteContext {
        /// Its name
        name: String,
    },
    /// Delete a cluster
    DeleteCluster {
        /// Its name
        name: String,
    },
    /// Delete a user
    DeleteUser {
        /// Its name
        name: String,
    },
    /// Rename a context
    RenameContext {
        /// Its name
        from: String,
        /// Its new name
        to: String,
    },
}

/// `kubectl cfg`
#[derive(Debug, Args)]
pub struct CfgArgs {
    /// sched=STRATEGY
    #[arg(required = true)]
    pub settings: Vec<String>,
}

/// `kubectl reset`
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// `kubectl completion`
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// bash, zsh or fish
    #[arg(value_enum)]
    pub shell: Shell,
}
