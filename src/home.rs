//! The cluster's directory on this machine: who runs in it, and how to stop that.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a running cluster leaves for `down` and the next `up`.
const PID_FILE: &str = "minik8s.pid";

/// A claim on the directory by the one process that runs a cluster in it; ends with the process.
pub(crate) struct Claim {
    _file: File,
}

/// `--data-dir`, `$MINIK8S_HOME` or `~/.minik8s`.
pub(crate) fn resolve(given: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    let home = given.cloned().or_else(|| std::env::home_dir().map(|home| home.join(".minik8s")));
    let home = home.context("there is no home directory: give --data-dir")?;
    std::path::absolute(&home).with_context(|| format!("failed to resolve {}", home.display()))
}

/// Takes the directory, or says whose it is.
pub(crate) fn claim(home: &Path) -> anyhow::Result<Claim> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(home)
        .with_context(|| format!("failed to make {}", home.display()))?;
    let path = home.join(PID_FILE);
    let mut file = open(&path).with_context(|| format!("failed to open {}", path.display()))?;
    if file.try_lock().is_err() {
        anyhow::bail!("a cluster runs in {} already (process {})", home.display(), read_pid(&mut file));
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Claim { _file: file })
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn read_pid(file: &mut File) -> String {
    let mut text = String::new();
    // A pid that cannot be read is told as unknown; the lock alone decides.
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    let pid = text.trim();
    if pid.is_empty() { "unknown".to_owned() } else { pid.to_owned() }
}

/// The process that runs a cluster in the directory, if one does.
pub(crate) fn running(home: &Path) -> Option<i32> {
    let mut file = OpenOptions::new().read(true).write(true).open(home.join(PID_FILE)).ok()?;
    // A lock that can be had means that nobody runs; a pid left behind may by now be anybody's.
    match file.try_lock() {
        Ok(()) => None,
        Err(_) => read_pid(&mut file).parse().ok(),
    }
}

/// Waits until nobody runs in the directory; answers whether that came about in time.
pub(crate) async fn wait_until_free(home: &Path, within: std::time::Duration) -> bool {
    let path = home.join(PID_FILE);
    let wait =
        tokio::task::spawn_blocking(move || match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file.lock().is_ok(),
            Err(_) => true,
        });
    matches!(tokio::time::timeout(within, wait).await, Ok(Ok(true)))
}

/// A token that is cancelled by the first SIGTERM or SIGINT.
pub(crate) fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = shutdown.clone();
    // Detached on purpose: it waits for signals as long as the process lives.
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // First: a log whose reader is gone must not keep a process from ending.
        stop.cancel();
        tracing::info!("stopping");
    });
    Ok(shutdown)
}
