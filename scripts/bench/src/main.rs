//! The project's load program: measures an API server beside a bare server in the same run.
//!
//! The client runs on the machine that it measures, on one thread, so every figure comes with the processor
//! time that server and client took: a rate says what the machine gave, the time per request says what the
//! server needed. See `docs/performance.md`.

// A program whose product is what it prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod baseline;
mod connection;
mod docker;
mod load;
mod measure;
mod pods;
mod server;
mod suite;
mod watch;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};

use crate::connection::Target;

/// Loads an API server and says what it gave and what it took
#[derive(Parser)]
#[command(name = "minik8s-bench", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a server, run every measurement of docs/performance.md against it, and print the table
    Suite {
        /// Also write each measurement as a line of JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// A tenth of the requests and objects: to see that it works, not to measure
        #[arg(long)]
        quick: bool,
        /// Only rows whose name contains this
        #[arg(long, value_name = "TEXT", default_value = "")]
        only: String,
        /// The server's command; `{data}` and `{port}` stand for its directory and port
        #[arg(last = true, required = true, value_name = "COMMAND")]
        server: Vec<String>,
    },
    /// Run one kind of request against a running server
    Load {
        #[command(flatten)]
        target: TargetOptions,
        /// What to do
        #[arg(value_enum)]
        what: load::What,
        /// Which kind of object
        #[arg(long, value_enum, default_value = "config-map")]
        kind: load::Kind,
        /// How many requests
        #[arg(long, default_value_t = 1000)]
        requests: usize,
        /// Over how many connections
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// How the objects' names begin
        #[arg(long, default_value = "b")]
        prefix: String,
        /// How many objects there are to get or to patch
        #[arg(long, default_value_t = 100)]
        objects: usize,
    },
    /// Start pods on a running cluster of one node, beside the same Docker calls made bare, and print both
    Pods {
        #[command(flatten)]
        target: TargetOptions,
        /// Where the daemon listens
        #[arg(long, default_value = "/var/run/docker.sock", value_name = "PATH")]
        docker_socket: PathBuf,
        /// Image of the containers, which must be there and have a `sleep`
        #[arg(long, default_value = "minik8s/busybox:quickstart")]
        image: String,
        /// How many pods one after another
        #[arg(long, default_value_t = 20)]
        rounds: usize,
        /// How many pods at once
        #[arg(long, default_value_t = 100)]
        crowd: usize,
        /// Beside how many pods the idle kubelet (`--pid`) is looked at
        #[arg(long, default_value_t = 50)]
        idle_pods: usize,
        /// For how many seconds
        #[arg(long, default_value_t = 30)]
        idle_seconds: u64,
    },
    /// Serve fixed bytes over TLS with nothing but hyper and rustls: what the machine can give
    Baseline {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Where to write the kubeconfig that reaches it
        #[arg(long, value_name = "FILE")]
        kubeconfig: PathBuf,
    },
}

#[derive(clap::Args)]
struct TargetOptions {
    /// How to reach the server
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: PathBuf,
    /// The server's process (the kubelet's, for pods), for the processor time that it takes
    #[arg(long)]
    pid: Option<u32>,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another cryptography provider is installed"))?;
    match cli.command {
        Command::Suite { json, quick, only, server } => {
            on_one_thread(suite::run(suite::Options { json, quick, only, server }))
        }
        Command::Load { target, what, kind, requests, connections, prefix, objects } => {
            let reach = Target::from_kubeconfig(&target.kubeconfig)?;
            let plan = load::Plan { what, kind, requests, connections, prefix, objects };
            let outcome = on_one_thread(load::run(&reach, target.pid, &plan))?;
            println!("{}", outcome.to_json());
            Ok(())
        }
        Command::Pods { target, docker_socket, image, rounds, crowd, idle_pods, idle_seconds } => {
            on_one_thread(pods::run(pods::Options {
                target: Target::from_kubeconfig(&target.kubeconfig)?,
                pid: target.pid,
                docker_socket,
                image,
                rounds,
                crowd,
                idle_pods,
                idle: Duration::from_secs(idle_seconds),
            }))
        }
        // As many threads as an API server would have.
        Command::Baseline { listen, kubeconfig } => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(baseline::serve(listen, &kubeconfig)),
    }
}

/// The client takes one thread, so that it leaves the server the rest and its own limit is known.
fn on_one_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
