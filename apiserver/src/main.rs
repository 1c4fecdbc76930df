//! The API server on its own: flags, logging, signals; everything else is the library's.

use std::process::ExitCode;

use apiserver::config::Options;
use apiserver_storage::tools::StoreCommand;
use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Every request makes and frees some hundreds of small objects: the C library's allocator would take a fifth of the
/// processor time and, with many threads, twice the memory (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The API server of minik8s: Kubernetes' API over HTTPS, with the store built in
#[derive(Parser)]
#[command(name = "apiserver", version = apiserver::health::GIT_VERSION, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    options: Options,

    /// What to log, as in RUST_LOG
    #[arg(long, env = "MINIK8S_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

#[derive(Subcommand)]
enum Command {
    /// Look after a store while no server has it open
    #[command(subcommand)]
    Store(StoreCommand),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&cli.log)).with_writer(std::io::stderr).init();
    let outcome = match cli.command {
        None => serve(cli.options).await,
        Some(Command::Store(command)) => command.run(&mut std::io::stdout()).await.map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone())?);
    apiserver::run(options.resolve()?, shutdown).await?;
    Ok(())
}

/// Cancels on the first SIGTERM or SIGINT.
fn cancel_on_signal(shutdown: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        shutdown.cancel();
    })
}
