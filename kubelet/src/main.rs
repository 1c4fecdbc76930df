//! The kubelet as a program of its own.

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use tokio_util::sync::CancellationToken;

/// The node agent: runs the pods that are bound to this node
#[derive(Debug, Parser)]
#[command(name = "kubelet", version)]
struct Cli {
    #[command(flatten)]
    args: kubelet::Args,

    #[command(flatten)]
    join: kubelet::join::JoinArgs,
}

/// As in the other programs: half of what the C library's allocator keeps (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let _ = rustls::crypto::CryptoProvider::install_default(rustls::crypto::aws_lc_rs::default_provider());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = cli.args.resolve()?;
        let shutdown = CancellationToken::new();
        let watcher = Arc::new(shutdown.clone());
        let signals = tokio::spawn(async move {
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            watcher.cancel();
            Ok::<(), std::io::Error>(())
        });
        let result = kubelet::join::serve(config, cli.join, shutdown).await;
        signals.abort();
        Ok(result?)
    })
}
