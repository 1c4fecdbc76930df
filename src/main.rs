//! `minik8s`: a whole Kubernetes in one binary.
//!
//! `up` composes every component in one process; the other commands are the components themselves, and what a
//! person needs around them.

mod detach;
mod down;
mod home;
mod node;
mod token;
mod up;

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

use apiserver_storage::tools::StoreCommand;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Every request makes and frees some hundreds of small objects: the C library's allocator would take a fifth of the
/// processor time and, with many threads, twice the memory (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Kubernetes in one small binary
#[derive(Parser)]
#[command(name = "minik8s", version = apiserver::health::GIT_VERSION, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// What to log, as in RUST_LOG
    #[arg(long, global = true, env = "MINIK8S_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

#[derive(Subcommand)]
enum Command {
    /// Run a cluster: API server, store, scheduler, controllers and a node, in one process
    Up(Box<up::UpOptions>),
    /// Stop the cluster of this machine and remove its containers, network, mounts and rules
    Down(down::DownOptions),
    /// Stop the cluster and remove its data as well
    Reset(down::ResetOptions),
    /// Run the API server alone
    Apiserver(Box<apiserver::config::Options>),
    /// Run controllers and scheduler alone
    ControllerManager(controller_manager::config::Args),
    /// Run a node alone: with a kubeconfig of its own, or joining a cluster with a token
    Kubelet(Box<node::KubeletOptions>),
    /// Make, show and delete the tokens with which machines join
    Token(token::TokenOptions),
    /// Look after the store of a cluster: verify, repair, back up, restore, migrate
    #[command(subcommand)]
    Store(StoreCommand),
    /// Talk to a cluster; takes everything that the binary kubectl takes
    #[command(disable_help_flag = true)]
    Kubectl {
        /// What kubectl is given
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    // kubectl has flags of its own in every place: it gets its arguments as they are. A link of that name is kubectl, so
    // that one file is all that a machine needs.
    let is_kubectl = |word: &OsString| Path::new(word).file_name() == Some(OsStr::new("kubectl"));
    let mut args = std::env::args_os().peekable();
    args.next_if(|program| !is_kubectl(program));
    if args.peek().is_some_and(is_kubectl) {
        return kubectl::main(args);
    }
    let cli = Cli::parse();
    if let Command::Up(options) = &cli.command
        && options.detach
    {
        // Before there are threads: the cluster is another process.
        return report(detach::run(options));
    }
    tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&cli.log)).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(Err(error.into())),
    };
    report(runtime.block_on(run(cli.command)))
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(options) => Box::pin(up::run(*options)).await,
        Command::Down(options) => down::down(&options).await,
        Command::Reset(options) => down::reset(&options).await,
        Command::Apiserver(options) => {
            Ok(apiserver::run(options.resolve()?, home::shutdown_on_signal()?).await?)
        }
        Command::ControllerManager(args) => {
            controller_manager::run(args.resolve()?, home::shutdown_on_signal()?).await
        }
        Command::Kubelet(options) => Box::pin(node::run(*options)).await,
        Command::Token(options) => token::run(options).await,
        Command::Store(command) => Ok(Box::pin(command.run(&mut std::io::stdout())).await?),
        Command::Kubectl { .. } => anyhow::bail!("kubectl must be the first word"),
    }
}

#[expect(clippy::print_stderr, reason = "the last words of a command")]
fn report(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
