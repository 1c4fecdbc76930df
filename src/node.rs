//! `minik8s kubelet`: a node alone, of a cluster elsewhere; and how it leaves that cluster.

use anyhow::Context;
use clap::{Args, Subcommand};
use kubelet::{config::Config, join::JoinArgs};

use crate::{down, home};

/// What a kubelet is started with.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct KubeletOptions {
    #[command(subcommand)]
    command: Option<KubeletCommand>,

    #[command(flatten)]
    args: kubelet::config::Args,

    #[command(flatten)]
    join: JoinArgs,
}

#[derive(Subcommand)]
enum KubeletCommand {
    /// Stop the kubelet of this machine, take its node out of the cluster and remove containers, network and rules
    Leave(Box<kubelet::config::Args>),
}

/// Runs what was asked for.
pub(crate) async fn run(options: KubeletOptions) -> anyhow::Result<()> {
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match options.command {
        Some(KubeletCommand::Leave(args)) => leave(&args.resolve()?).await,
        None => serve(options.args.resolve()?, options.join).await,
    }
}

async fn serve(config: Config, join: JoinArgs) -> anyhow::Result<()> {
    let _claim = home::claim(&config.root_dir)?;
    Ok(kubelet::join::serve(config, join, home::shutdown_on_signal()?).await?)
}

/// Everything is tried, whatever fails: what is left is told.
async fn leave(config: &Config) -> anyhow::Result<()> {
    down::stop(&config.root_dir).await.context("failed to stop the kubelet")?;
    let mut failures = Vec::new();
    if let Err(failure) = kubelet::join::leave(config).await {
        failures.push(failure);
    }
    if let Err(more) = kubelet::remove_everything(config).await {
        failures.extend(more);
    }
    anyhow::ensure!(failures.is_empty(), "failed to leave in full: {}", failures.join("; "));
    down::say(&format!("the node {} has left its cluster", config.node_name));
    Ok(())
}
