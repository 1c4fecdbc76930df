//! `minik8s up --detach`: the cluster in a process of its own, and the wait until it is ready.

use std::{
    fs::OpenOptions,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use client::Client;

use crate::{home, up};

/// Longer than the slowest start: a store that must be read back and a node that must make its image.
const READY_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Starts the cluster unless it runs, and waits until it is ready.
pub(crate) fn run(options: &up::UpOptions) -> anyhow::Result<()> {
    let directory = home::resolve(options.server.data_dir.as_ref())?;
    if let Some(pid) = home::running(&directory) {
        say(&format!("the cluster runs already (process {pid}, data in {})", directory.display()));
        return Ok(());
    }
    std::fs::create_dir_all(&directory).with_context(|| format!("failed to make {}", directory.display()))?;
    let log_path = directory.join("minik8s.log");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .with_context(|| format!("failed to open {}", log_path.display()))?;
    let started = Instant::now();
    let mut child = Command::new(std::env::current_exe().context("failed to find this program's file")?)
        .args(std::env::args_os().skip(1).filter(|arg| arg != "--detach"))
        .env_remove("MINIK8S_DETACH")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own: the terminal's interrupt is not meant for it.
        .process_group(0)
        .spawn()
        .context("failed to start the cluster's process")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    runtime.block_on(wait_until_ready(&mut child, &directory, &log_path))?;
    say(&format!(
        "the cluster is ready after {:.2} s (process {}, log in {})",
        started.elapsed().as_secs_f64(),
        child.id(),
        log_path.display()
    ));
    Ok(())
}

async fn wait_until_ready(child: &mut Child, directory: &Path, log: &Path) -> anyhow::Result<()> {
    let kubeconfig = directory.join("kubeconfig");
    let deadline = Instant::now() + READY_WITHIN;
    let mut last = String::from("the API server has not answered");
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("the cluster did not start ({status}); the end of its log:\n{}", tail(log));
        }
        // Another process's readiness can only be asked for.
        tokio::time::sleep(LOOK_EVERY).await;
        let Ok(client) = Client::from_kubeconfig(Some(&kubeconfig), None).await else { continue };
        match client.request(http::Method::GET, "/readyz", None, None).await {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    anyhow::bail!("the cluster is not ready after {READY_WITHIN:?}: {last}; its log is {}", log.display())
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

#[expect(clippy::print_stdout, reason = "what the command has to say")]
fn say(text: &str) {
    println!("{text}");
}
