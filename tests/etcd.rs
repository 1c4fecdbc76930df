//! The same cluster on a real etcd: the part of the suite that shows that nothing depends on the store.
//! (`scripts/test.sh --long` runs all of the suite on etcd: `MINIK8S_TEST_STORE=etcd`.)

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use crate::{
    harness::{Answer, Cluster, Etcd, Kubectl, PATIENCE, run},
    survival,
};

#[test]
fn a_cluster_on_etcd_survives_kill_nine() {
    let etcd = Etcd::start();
    let cluster = Cluster::start(&etcd.flags().each_ref().map(String::as_str));
    survival::survives(&cluster);
}

/// An API server by itself, beside a cluster on the same etcd.
struct SecondServer {
    child: Child,
    home: tempfile::TempDir,
}

impl SecondServer {
    /// Starts it with the cluster's authority and keys.
    fn start(cluster: &Cluster, etcd: &Etcd) -> Self {
        let home = tempfile::tempdir().expect("a directory must be had");
        run(Command::new("cp").arg("-a").arg(cluster.home().join("pki")).arg(home.path())).ok();
        let child = Command::new(env!("CARGO_BIN_EXE_minik8s"))
            .args(["apiserver", "--secure-port", "0"])
            .args(etcd.flags())
            .env("MINIK8S_HOME", home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server must start");
        let second = Self { child, home };
        let deadline = Instant::now() + PATIENCE;
        while second.kubectl(cluster, &["get", "namespace", "default"]).code != 0 {
            assert!(Instant::now() < deadline, "the second server does not answer");
        }
        second
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn kubectl(&self, cluster: &Cluster, args: &[&str]) -> Answer {
        let mut command = cluster.command(&Kubectl::ours(), args);
        run(command.env("KUBECONFIG", self.home().join("kubeconfig")))
    }
}

impl Drop for SecondServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn two_api_servers_on_one_etcd_are_one_cluster() {
    let etcd = Etcd::start();
    let cluster = Cluster::start(&etcd.flags().each_ref().map(String::as_str));
    let second = SecondServer::start(&cluster, &etcd);
    // Written through one, read at once through the other.
    cluster.kubectl(&["create", "configmap", "shared", "--from-literal=by=first"]).ok();
    let path = "jsonpath={.data.by}";
    assert_eq!(second.kubectl(&cluster, &["get", "configmap", "shared", "-o", path]).ok(), "first");
    let patch = ["patch", "configmap", "shared", "--type=merge", "-p", r#"{"data":{"by":"second"}}"#];
    second.kubectl(&cluster, &patch).ok();
    assert_eq!(cluster.kubectl(&["get", "configmap", "shared", "-o", path]).ok(), "second");
    // Written through one, told by a watch of the other.
    let told = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Again until it is told of: a watch begins when it begins.
            let deadline = Instant::now() + PATIENCE;
            for round in 0.. {
                let mark = format!("round={round}");
                second.kubectl(&cluster, &["label", "configmap", "shared", &mark, "--overwrite"]).ok();
                if told.load(Ordering::Relaxed) || Instant::now() > deadline {
                    return;
                }
            }
        });
        let watch = ["get", "configmaps", "--watch-only", "--show-labels"];
        cluster.watch_with(&Kubectl::upstream(), &watch, |line| line.contains("round="));
        told.store(true, Ordering::Relaxed);
    });
    // What the scheduler and the node of the first do, they do for the second's pods.
    second.kubectl(&cluster, &["apply", "-f", "examples/quickstart/pod.yaml"]).ok();
    cluster.wait("pod/hello", "condition=Ready");
}
