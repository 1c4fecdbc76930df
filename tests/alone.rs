//! A kubelet alone: its API server does not answer, and static pods run on real Docker all the same.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use crate::harness::{IMAGE, PATIENCE, make_image, run};

/// A kubelet whose kubeconfig leads to nobody.
struct Alone {
    folder: tempfile::TempDir,
    node: String,
    flags: Vec<String>,
    process: Option<Child>,
}

impl Alone {
    fn new() -> Self {
        make_image();
        let folder = tempfile::tempdir().expect("a directory must be had");
        let inside = |name: &str| folder.path().join(name).display().to_string();
        for name in ["manifests", "shared"] {
            std::fs::create_dir(inside(name)).expect("a folder must be made");
        }
        run(Command::new("mkfifo").arg(inside("shared/told"))).ok();
        let kubeconfig = "{apiVersion: v1, kind: Config, current-context: x, clusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}], \
            contexts: [{name: x, context: {cluster: x, user: x}}], users: [{name: x, user: {}}]}";
        std::fs::write(inside("kubeconfig"), kubeconfig).expect("the kubeconfig must be written");
        let pid = std::process::id();
        let node = format!("alone-{pid}");
        // Beside the ranges of the harness's clusters.
        let range = format!("10.{}.0.0/24", pid % 8 * 32 + 25);
        let flags = [
            ("--node-name", node.clone()),
            ("--root-dir", inside("kubelet")),
            ("--bridge", format!("mka{}", pid % 100_000)),
            ("--cluster-cidr", range.clone()),
            ("--pod-cidr", range),
            ("--kubeconfig", inside("kubeconfig")),
            ("--pod-manifest-path", inside("manifests")),
            ("--image-gc-high-threshold", "100".to_owned()),
            ("--eviction-hard", "memory.available<50Mi".to_owned()),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        Self { folder, node, flags, process: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&mut self) {
        let log =
            File::options().create(true).append(true).open(self.path("log")).expect("a log must be had");
        let process = Command::new(env!("CARGO_BIN_EXE_minik8s"))
            .arg("kubelet")
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.process = Some(process.expect("the kubelet must start"));
    }

    fn kill(&mut self) {
        let mut process = self.process.take().expect("it must run");
        process.kill().expect("it must be killed");
        process.wait().expect("it must end");
    }

    /// What a pod writes into the pipe.
    fn told(&self) -> String {
        let (sender, receiver) = mpsc::sync_channel(1);
        let path = self.path("shared/told");
        // Opening it waits for who writes; the thread of a test that fails ends with the process.
        std::thread::spawn(move || {
            let mut text = String::new();
            let read = File::open(path).and_then(|mut pipe| pipe.read_to_string(&mut text));
            let _ = sender.send(read.map(|_| text));
        });
        let told = receiver.recv_timeout(PATIENCE);
        let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
        told.unwrap_or_else(|_| panic!("the pod says nothing:\n{}", log())).expect("the pipe must be read")
    }

    /// Names and ids of all of its containers, sandboxes too: one that is started anew leaves the one before.
    fn containers(&self) -> String {
        let filter = format!("label=minik8s.io/node={}", self.node);
        let args = ["ps", "--all", "--no-trunc", "--filter", &filter, "--format", "{{.Names}} {{.ID}}"];
        run(Command::new("docker").args(args)).ok()
    }

    fn write(&self, name: &str, word: &str) {
        let shared = self.path("shared").display().to_string();
        let manifest = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, \
             volumes: [{{name: shared, hostPath: {{path: {shared}}}}}], \
             containers: [{{name: main, image: '{IMAGE}', imagePullPolicy: Never, volumeMounts: [{{name: shared, mountPath: /shared}}], \
             ports: [{{containerPort: 80}}], command: [sh, -c, 'echo {word} > /shared/told; exec sleep 100000']}}]}}}}"
        );
        std::fs::write(self.path("manifests").join(name), manifest).expect("the manifest must be written");
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let flags: Vec<&String> =
            self.flags.chunks(2).filter(|pair| pair[0] != "--kubeconfig").flatten().collect();
        let left =
            Command::new(env!("CARGO_BIN_EXE_minik8s")).args(["kubelet", "leave"]).args(flags).output();
        if left.is_ok_and(|left| !left.status.success()) {
            let _ = writeln!(std::io::stderr(), "what a kubelet alone has made is still there");
        }
    }
}

#[test]
fn a_kubelet_without_an_api_server_runs_static_pods() {
    let mut alone = Alone::new();
    alone.write("first", "hello");
    alone.start();
    assert_eq!(alone.told(), "hello\n");
    let first = alone.containers();
    assert_eq!(first.lines().count(), 2, "a container and its sandbox: {first}");

    // Killed and started again, it finds the network as it was; what runs does not notice, and others start.
    alone.kill();
    let noted = Path::new(&alone.path("kubelet/network.json")).exists();
    assert!(noted, "the network is noted");
    let cidr = alone.flags.iter().position(|flag| flag == "--pod-cidr").expect("it was given");
    alone.flags.drain(cidr..cidr + 2);
    alone.start();
    alone.write("second", "again");
    assert_eq!(alone.told(), "again\n");
    let both = alone.containers();
    assert!(first.lines().all(|container| both.contains(container)), "{both} does not hold {first}");
    assert_eq!(both.lines().count(), 4, "{both}");
}
