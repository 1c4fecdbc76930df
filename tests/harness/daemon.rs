//! A Docker daemon of a test's own, which may be killed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{log_line::wait_for_line, run};

/// A daemon with a containerd and a directory of its own. Dropping it takes everything away.
pub(crate) struct Daemon {
    directory: TempDir,
    /// A process beside it, as init systems have it: containers outlive a daemon that is killed.
    containerd: Child,
    child: Child,
}

impl Daemon {
    /// Starts one, without images.
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory must be had");
        let containerd = start_containerd(directory.path());
        let child = start_daemon(directory.path());
        Self { directory, containerd, child }
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// Ends it by a signal and starts it again. Whatever the signal, none of its containers runs afterwards: it stops
    /// them as it ends, or as it finds them when it starts.
    pub(crate) fn restart(&mut self, signal: &str) {
        end(&mut self.child, signal);
        self.child = start_daemon(self.directory.path());
    }
}

/// Ends a program that may have ended by itself.
fn end(child: &mut Child, signal: &str) {
    run(Command::new("kill").args([signal, &child.id().to_string()]));
    let _ = child.wait();
}

fn start_containerd(directory: &Path) -> Child {
    let place = |name: &str| directory.join(name).display().to_string();
    let config = directory.join("containerd.toml");
    let content = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
    fs::write(&config, content).expect("the configuration must be written");
    let mut command = Command::new("containerd");
    command.arg("--config").arg(config);
    command.args(["--root", &place("containerd"), "--state", &place("containerd-state")]);
    command.args(["--address", &place("containerd.sock")]);
    start(command, "containerd successfully booted")
}

fn start_daemon(directory: &Path) -> Child {
    let place = |name: &str| directory.join(name).display().to_string();
    let mut command = Command::new("dockerd");
    command
        .args(["--data-root", &place("data"), "--exec-root", &place("exec"), "--pidfile", &place("pid")])
        .args(["--host", &format!("unix://{}", place("docker.sock"))])
        .args(["--containerd", &place("containerd.sock")])
        .args(["--bridge", "none", "--iptables=false", "--ip-forward=false"])
        // Containers of tests have nothing to finish.
        .args(["--shutdown-timeout", "1"]);
    start(command, "API listen on")
}

/// Starts a program and waits until its log says that it serves.
fn start(mut command: Command, phrase: &str) -> Child {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("Docker must be installed: run scripts/setup.sh");
    wait_for_line(child.stderr.take().expect("there must be a log"), phrase);
    child
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end(&mut self.child, "-TERM");
        end(&mut self.containerd, "-TERM");
        // What was left mounted would keep the directory from going.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let directory = self.directory.path().display().to_string();
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if mount.starts_with(&directory) {
                run(Command::new("umount").args(["-l", mount]));
            }
        }
    }
}
