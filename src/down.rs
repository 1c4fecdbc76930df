//! `minik8s down` and `minik8s reset`: stop the cluster and take away what it made on this machine.

use std::{
    io::{BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;

use crate::{home, up::NodeOptions};

/// Longer than the server's own patience with requests that are under way.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// Which cluster.
#[derive(Args)]
pub(crate) struct DownOptions {
    /// The cluster's directory
    #[arg(long, env = "MINIK8S_HOME", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    #[command(flatten)]
    node: NodeOptions,
}

/// Which cluster, and whether to ask.
#[derive(Args)]
pub(crate) struct ResetOptions {
    #[command(flatten)]
    options: DownOptions,

    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Stops the process and removes containers, network, mounts and rules. The data stays.
pub(crate) async fn down(options: &DownOptions) -> anyhow::Result<()> {
    let directory = home::resolve(options.data_dir.as_ref())?;
    stop(&directory).await?;
    let kubelet = options.node.kubelet(&directory)?;
    kubelet::remove_everything(&kubelet)
        .await
        .map_err(|failures| anyhow::anyhow!("failed to remove: {}", failures.join("; ")))?;
    say("the cluster is down; its data stays until `minik8s reset`");
    Ok(())
}

/// As `down`, and the data as well.
pub(crate) async fn reset(options: &ResetOptions) -> anyhow::Result<()> {
    let directory = home::resolve(options.options.data_dir.as_ref())?;
    if !options.yes && !confirm(&directory)? {
        anyhow::bail!("nothing was done");
    }
    down(&options.options).await?;
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", directory.display()))
        }
        Ok(()) | Err(_) => {
            say(&format!("removed {}", directory.display()));
            Ok(())
        }
    }
}

/// Stops the process that runs in a directory, if one does.
pub(crate) async fn stop(directory: &Path) -> anyhow::Result<()> {
    let Some(pid) = home::running(directory) else { return Ok(()) };
    let process = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM)
        .with_context(|| format!("failed to stop process {pid}"))?;
    if home::wait_until_free(directory, STOPS_WITHIN).await {
        return Ok(());
    }
    anyhow::bail!(
        "process {pid} did not stop within {STOPS_WITHIN:?}; end it with kill -9 {pid} and try again"
    )
}

fn confirm(directory: &Path) -> anyhow::Result<bool> {
    anyhow::ensure!(std::io::stdin().is_terminal(), "nobody is there to ask: give --yes");
    let mut out = std::io::stdout();
    write!(out, "Remove the cluster with all its data in {}? [y/N] ", directory.display())?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[expect(clippy::print_stdout, reason = "what the command has to say")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}
