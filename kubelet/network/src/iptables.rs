//! Runs the iptables programs: they agree with whatever variant (nft or legacy) Docker uses on this machine.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt, process::Command};

use crate::NetworkError;

const SAVE: &str = "iptables-save";
const RESTORE: &str = "iptables-restore";
/// Seconds to wait for others that change rules at this moment.
const LOCK_WAIT: &str = "10";

/// Every rule of the node.
pub(crate) async fn save() -> Result<String, NetworkError> {
    let output = Command::new(SAVE).stdin(Stdio::null()).output().await;
    let output = output.map_err(|error| not_run(SAVE, &error))?;
    if !output.status.success() {
        return Err(failed(SAVE, &output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Applies a text of rules in one step, leaving what it does not name.
pub(crate) async fn restore(rules: &str) -> Result<(), NetworkError> {
    let mut child = Command::new(RESTORE)
        .args(["--noflush", "--wait", LOCK_WAIT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| not_run(RESTORE, &error))?;
    let mut stdin = child.stdin.take().expect("standard input must be piped");
    // One that fails early closes its end; its words are worth more than the broken pipe.
    let written = stdin.write_all(rules.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.map_err(|error| not_run(RESTORE, &error))?;
    if !output.status.success() {
        tracing::debug!(rules, "refused rules");
        return Err(failed(RESTORE, &output.stderr));
    }
    written.map_err(|error| not_run(RESTORE, &error))
}

fn not_run(program: &'static str, error: &std::io::Error) -> NetworkError {
    let message = match error.kind() {
        std::io::ErrorKind::NotFound => "it is not installed (package iptables)".to_owned(),
        _ => error.to_string(),
    };
    NetworkError::Iptables { program, message }
}

fn failed(program: &'static str, stderr: &[u8]) -> NetworkError {
    NetworkError::Iptables { program, message: String::from_utf8_lossy(stderr).trim().to_owned() }
}
