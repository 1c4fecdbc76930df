//! The same cluster on a real etcd: the part of the suite that shows that nothing depends on the store.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, ChildStderr, Command, Stdio},
    sync::mpsc::sync_channel,
};

use crate::{
    harness::{Cluster, PATIENCE},
    survival,
};

/// An etcd of the test's own, on ports of its own.
struct Etcd {
    child: Child,
    url: String,
    _data: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory must be had");
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port must be free");
            listener.local_addr().expect("it must have an address").port()
        };
        let (url, peers) = (format!("http://127.0.0.1:{}", free()), format!("http://127.0.0.1:{}", free()));
        let mut child = Command::new("etcd")
            .args(["--data-dir", data.path().to_str().expect("the path must be UTF-8")])
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
                "--listen-peer-urls",
                &peers,
            ])
            .args(["--initial-advertise-peer-urls", &peers, "--initial-cluster", &format!("default={peers}")])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcd must be installed: run scripts/setup.sh --test");
        wait_until_it_serves(child.stderr.take().expect("there must be a log"));
        Self { child, url, _data: data }
    }
}

/// Reads etcd's log until it says that it serves; the rest is read, too, so that etcd is never held up by it.
fn wait_until_it_serves(log: ChildStderr) {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if line.contains("client requests") {
                // Only the first is waited for.
                let _ = sender.try_send(());
            }
        }
    });
    receiver.recv_timeout(PATIENCE).expect("etcd must come up");
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_cluster_on_etcd_survives_kill_nine() {
    let etcd = Etcd::start();
    let cluster = Cluster::start(&["--store", "etcd", "--etcd-servers", &etcd.url]);
    survival::survives(&cluster);
}
