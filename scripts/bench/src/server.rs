//! The servers under test: started, waited for, ended.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use hyper::Method;

use crate::connection::{Call, Target};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    /// How to reach it.
    pub(crate) target: Target,
    /// From its start until it answered that it was ready.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// Starts a command, in which `{data}` and `{port}` are replaced, and waits until `/readyz` answers 200.
    pub(crate) async fn start(command: &[String], data: &Path, port: u16) -> anyhow::Result<Self> {
        let data_text = data.display().to_string();
        let fill = |text: &String| text.replace("{data}", &data_text).replace("{port}", &port.to_string());
        let words: Vec<String> = command.iter().map(fill).collect();
        let log = std::fs::File::create(data.join("bench-server.log"))?;
        Self::spawn(&words, &data.join("kubeconfig"), "/readyz", log.into()).await
    }

    /// Starts this program's own baseline.
    pub(crate) async fn baseline(directory: &Path) -> anyhow::Result<Self> {
        let kubeconfig = directory.join("baseline.kubeconfig");
        let own = std::env::current_exe()?.display().to_string();
        let words = [own, "baseline".into(), "--kubeconfig".into(), kubeconfig.display().to_string()];
        Self::spawn(&words, &kubeconfig, "/bytes/2", Stdio::null()).await
    }

    async fn spawn(words: &[String], kubeconfig: &Path, ready: &str, log: Stdio) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", words[0]))?;
        loop {
            // The kubeconfig may be missing, half written or of an earlier port: that is not ready either.
            if let Ok(target) = Target::from_kubeconfig(kubeconfig)
                && let Ok(mut connection) = target.connect().await
                && connection.call(Call::new(Method::GET, ready)).await.is_ok()
            {
                return Ok(Self { child, target, ready_after: begun.elapsed() });
            }
            if let Some(status) = child.try_wait()? {
                bail!("`{}` ended with {status} before it was ready", words.join(" "));
            }
            if begun.elapsed() > PATIENCE {
                let _ended = child.kill();
                bail!("`{}` was not ready after {PATIENCE:?}", words.join(" "));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits for that.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = libc::pid_t::try_from(self.child.id())?;
        terminate(pid);
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > PATIENCE {
                bail!("the server did not end within {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

#[expect(unsafe_code, reason = "sends a signal to a child of ours; the call touches no memory")]
fn terminate(pid: libc::pid_t) {
    // SAFETY: `kill` reads its two arguments only.
    unsafe { libc::kill(pid, libc::SIGTERM) };
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A port that is free now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A directory for a server's data on a real disk: a temporary directory in memory would make syncs free.
pub(crate) fn data_directory() -> anyhow::Result<tempfile::TempDir> {
    let parent =
        std::env::var_os("MINIK8S_BENCH_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    tempfile::Builder::new().prefix("minik8s-bench-").tempdir_in(&parent).with_context(|| {
        format!("making a directory in {} (MINIK8S_BENCH_DIR names another)", parent.display())
    })
}
