//! A real etcd for a test.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use super::log_line::wait_for_line;

/// An etcd of the test's own, on ports of its own.
pub(crate) struct Etcd {
    child: Child,
    url: String,
    _data: tempfile::TempDir,
}

impl Etcd {
    /// Starts one, empty.
    pub(crate) fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory must be had");
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port must be free");
            listener.local_addr().expect("it must have an address").port()
        };
        let (url, peers) = (format!("http://127.0.0.1:{}", free()), format!("http://127.0.0.1:{}", free()));
        let program = std::env::var("MINIK8S_TEST_ETCD").unwrap_or_else(|_| "etcd".to_owned());
        let mut child = Command::new(program)
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
        wait_for_line(child.stderr.take().expect("there must be a log"), "client requests");
        Self { child, url, _data: data }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What makes a cluster use it.
    pub(crate) fn flags(&self) -> [String; 4] {
        ["--store", "etcd", "--etcd-servers", &self.url].map(str::to_owned)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
