//! The Docker runtime against the contract, on the Docker of this machine (`scripts/lib/docker.sh` starts one).

use std::{fs, os::unix::fs::PermissionsExt, process::Command, thread, time::Duration};

use futures_util::StreamExt;
use kubelet_runtime::{
    ContainerResources, ContainerState, ContainerView, LogOptions, Mount, MountPropagation, NetworkMode,
    PodIdentity, PodRuntime, SandboxSpec,
    docker::{DockerOptions, DockerRuntime},
    testing::{self, Harness},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

struct Docker(DockerRuntime);

impl Harness for Docker {
    fn runtime(&self) -> &dyn PodRuntime {
        &self.0
    }

    async fn kill(&self, _pod: &PodIdentity, container: &ContainerView) {
        let ContainerState::Running { pid, .. } = container.state else { panic!("{container:?} must run") };
        let pid = Pid::from_raw(i32::try_from(pid).expect("a process id must be one"));
        kill(pid, Signal::SIGKILL).expect("the process must be there");
    }
}

/// Removes a test's containers when it ends, however it ends.
struct CleanUp(String);

impl Drop for CleanUp {
    fn drop(&mut self) {
        let script =
            format!("docker ps -aq --filter label=minik8s.io/node={} | xargs -r docker rm -f", self.0);
        let output = Command::new("sh").args(["-c", &script]).output();
        assert!(thread::panicking() || output.expect("sh must be there").status.success());
    }
}

fn node(test: &str) -> CleanUp {
    CleanUp(format!("test-{test}-{}", std::process::id()))
}

/// A runtime that sees only what that test made, with the test image present.
async fn connect(node: &CleanUp) -> DockerRuntime {
    let options = DockerOptions::new(&node.0);
    let runtime =
        DockerRuntime::connect(options).await.expect("docker must run: scripts/lib/docker.sh starts it");
    if runtime.image(testing::IMAGE).await.expect("images must be told").is_none() {
        let busybox = fs::read("/bin/busybox").expect("busybox-static must be installed");
        runtime.import_busybox(testing::IMAGE, &busybox, &[]).await.expect("the image must be made");
    }
    runtime
}

#[tokio::test]
async fn conforms() {
    let node = node("conforms");
    let docker = Docker(connect(&node).await);
    testing::conformance(&docker).await;
    assert_eq!(docker.0.remove_everything().await.expect("cleaning up must succeed"), 0);
}

/// Runs a command in the container `app`.
async fn run(runtime: &DockerRuntime, uid: &str, script: &str) -> String {
    let command = ["sh", "-c", script].map(str::to_owned);
    let output = runtime.exec_sync(uid, "app", &command, Duration::from_secs(60)).await;
    String::from_utf8_lossy(&output.expect("a command must run").output).trim().to_owned()
}

#[tokio::test]
async fn a_restarted_kubelet_finds_its_pods_and_no_others() {
    let node = node("restart");
    let first = connect(&node).await;
    let sandbox = SandboxSpec { share_process_namespace: true, ..testing::sandbox_spec("stays") };
    let uid = &sandbox.pod.uid;
    first.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");
    first.run_container(&sandbox.pod, &testing::long_running("app")).await.expect("a container must run");
    let before = first.pod(uid).await.expect("pod must answer").expect("the pod must be there");
    drop(first);

    let stranger = connect(&self::node("stranger")).await;
    assert!(stranger.list().await.expect("list must answer").is_empty(), "another node's are not ours");
    stranger.remove_pod(uid).await.expect("removing what is not ours must do nothing");
    assert_eq!(stranger.remove_everything().await.expect("cleaning up must succeed"), 0);

    let second = connect(&node).await;
    assert_eq!(second.list().await.expect("list must answer"), [before], "the same processes");
    // What only the sandbox's labels tell: a new container joins the same namespaces.
    let mut late = testing::long_running("late");
    late.command = ["sh", "-c", "cat /proc/1/comm; exec sleep 1000"].map(str::to_owned).to_vec();
    second.run_container(&sandbox.pod, &late).await.expect("a container must run");
    assert_eq!(run(&second, uid, "cat /proc/1/comm").await, "pause");
    second.stop_container(uid, "app", 0, Duration::from_secs(30)).await.expect("stopping must succeed");
    assert_eq!(second.remove_everything().await.expect("cleaning up must succeed"), 3);
    assert!(second.list().await.expect("list must answer").is_empty());
}

#[tokio::test]
async fn the_node_s_namespaces_are_shared_when_asked_for() {
    let node = node("host");
    let runtime = connect(&node).await;
    let sandbox = SandboxSpec {
        network: NetworkMode::Host,
        host_pid: true,
        host_ipc: true,
        ..testing::sandbox_spec("host")
    };
    let view = runtime.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");
    let app = runtime.run_container(&sandbox.pod, &testing::long_running("app")).await;
    let ContainerState::Running { pid, .. } = app.expect("a container must run").state else {
        panic!("it must run")
    };
    for process in [Some(pid), view.pid] {
        let process = process.expect("it must have a process");
        for namespace in ["net", "pid", "ipc"] {
            let of = |process: &str| {
                fs::read_link(format!("/proc/{process}/ns/{namespace}")).expect("must be told")
            };
            assert_eq!(of(&process.to_string()), of("self"), "{namespace}");
        }
    }
}

/// The handlers are those that Docker lists: here its usual one, and containerd's shim for it under its own name.
#[tokio::test]
async fn a_pod_is_carried_by_its_handler() {
    let node = node("handler");
    let runtime = connect(&node).await;
    let handlers = runtime.facts().await.expect("docker must tell").handlers;
    let other = "io.containerd.runc.v2".to_owned();
    assert!(handlers.contains(&other), "{handlers:?}");
    let sandbox = SandboxSpec { handler: Some(other), ..testing::sandbox_spec("carried") };
    let view = runtime.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");
    // Another process knows the handler by the sandbox alone.
    let again = connect(&node).await;
    let app = again.run_container(&sandbox.pod, &testing::long_running("app")).await;
    for id in [view.id, app.expect("a container must run").id] {
        let inspect = ["inspect", "-f", "{{.HostConfig.Runtime}}", &id];
        let output = Command::new("docker").args(inspect).output().expect("docker must be there");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "io.containerd.runc.v2");
    }
    let unknown = SandboxSpec { handler: Some("no-such".to_owned()), ..testing::sandbox_spec("unknown") };
    let error = runtime.ensure_sandbox(&unknown).await.expect_err("it must be refused");
    assert_eq!(error.to_string(), "failed to get sandbox runtime: no runtime for \"no-such\" is configured");
}

#[tokio::test]
async fn mounts_are_what_they_were_asked_to_be() {
    let node = node("mounts");
    let runtime = connect(&node).await;
    let directory = tempfile::tempdir().expect("a directory must be had");
    let path = directory.path().join("with: colon, and comma");
    fs::create_dir(&path).expect("a directory must be made");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("it must be opened");
    fs::write(path.join("file"), "from the node").expect("a file must be written");
    let mount = |source: &std::path::Path, target: &str, read_only| Mount {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
        propagation: MountPropagation::Private,
    };
    let sandbox = testing::sandbox_spec("mounts");
    let uid = &sandbox.pod.uid;
    runtime.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");
    let mut app = testing::long_running("app");
    app.mounts = vec![
        mount(&path, "/data", false),
        mount(&path, "/fixed", true),
        mount(&path.join("file"), "/etc/hosts", true),
        mount(&directory.path().join("made"), "/made", false),
        // Docker's own directory is below it.
        mount(std::path::Path::new("/"), "/node", true),
    ];
    runtime.run_container(&sandbox.pod, &app).await.expect("a container must run");
    assert_eq!(run(&runtime, uid, "cat /data/file /etc/hosts").await, "from the nodefrom the node");
    let script = "echo back > /data/answer; (echo x > /fixed/x) 2>/dev/null || echo refused";
    assert_eq!(run(&runtime, uid, script).await, "refused");
    assert_eq!(fs::read_to_string(path.join("answer")).expect("it must be there"), "back\n");
    assert!(directory.path().join("made").is_dir(), "a missing directory is made");
    let through = std::path::Path::new("/node").join(path.strip_prefix("/").expect("it is absolute"));
    assert_eq!(run(&runtime, uid, &format!("cat '{}/answer'", through.display())).await, "back");
}

#[tokio::test]
async fn a_sandbox_that_is_killed_is_seen_and_its_next_attempt_works() {
    let node = node("pause");
    let runtime = connect(&node).await;
    let mut sandbox = testing::sandbox_spec("pause");
    let uid = sandbox.pod.uid.clone();
    let view = runtime.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");
    let pid = Pid::from_raw(
        i32::try_from(view.pid.expect("it must have a process")).expect("a process id must be one"),
    );
    // SIGTERM from outside reaches process 1 of its namespace only because it waits for it.
    let mut events = runtime.events().await.expect("events must be had");
    // Docker says that it runs before its first instruction: until it waits for signals the kernel drops them.
    let mut signals = tokio::time::interval(Duration::from_millis(100));
    let gone = async {
        loop {
            let pod = runtime.pod(&uid).await.expect("pod must answer").expect("the pod must be there");
            if !pod.sandboxes[0].ready {
                break;
            }
            tokio::select! {
                _ = events.next() => {}
                _ = signals.tick() => { let _ = kill(pid, Signal::SIGTERM); }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("it must end by SIGTERM alone");
    let refused = runtime.run_container(&sandbox.pod, &testing::long_running("app")).await;
    assert!(refused.is_err(), "a dead sandbox takes nobody: {refused:?}");
    sandbox.attempt = 1;
    runtime.ensure_sandbox(&sandbox).await.expect("the next attempt must be made");
    runtime.run_container(&sandbox.pod, &testing::long_running("app")).await.expect("a container must run");
}

#[tokio::test]
async fn the_busybox_image_serves_and_fetches() {
    let node = node("busybox");
    let runtime = connect(&node).await;
    let sandbox = testing::sandbox_spec("busybox");
    let uid = &sandbox.pod.uid;
    runtime.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");
    let script = "ip link set lo up; mkdir -p /tmp/www/a; echo hello > /tmp/www/a/b; httpd -p 8080 -h /tmp/www; \
                  wget -qO- http://127.0.0.1:8080/a/b";
    let mut app = testing::container_spec("net", &["sh", "-c", script]);
    app.security.add_capabilities = vec!["NET_ADMIN".to_owned()];
    runtime.run_container(&sandbox.pod, &app).await.expect("a container must run");
    let follow = LogOptions { follow: true, ..LogOptions::default() };
    let pieces: Vec<_> =
        runtime.logs(uid, "net", 0, &follow).await.expect("there must be a log").collect().await;
    let log: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.expect("the log must be read")).collect();
    let log = String::from_utf8_lossy(&log);
    assert_eq!(log, "hello\n");
}

/// What the conformance suite leaves to Docker: a simulation has no limits, no disk and no images.
#[tokio::test]
async fn limits_change_writes_are_counted_and_only_unused_images_go() {
    let node = node("resize");
    let runtime = connect(&node).await;
    let sandbox = testing::sandbox_spec("resize");
    let uid = &sandbox.pod.uid;
    runtime.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");
    let mut spec = testing::long_running("app");
    let limits = |quota: i64, memory: i64| ContainerResources {
        cpu_shares: Some(102),
        cpu_quota: Some(quota),
        cpu_period: Some(100_000),
        memory_limit: Some(memory << 20),
        oom_score_adj: None,
    };
    spec.resources = limits(20_000, 32);
    let app = runtime.run_container(&sandbox.pod, &spec).await.expect("a container must run");
    assert_eq!(app.resources, Some(limits(20_000, 32)));
    let wanted = limits(30_000, 64);
    runtime.resize_container(uid, "app", 0, &wanted).await.expect("the limits must change");
    let pod = runtime.pod(uid).await.expect("pod must answer").expect("the pod must be there");
    assert_eq!((pod.containers[0].resources, &pod.containers[0].state), (Some(wanted), &app.state));

    run(&runtime, uid, "dd if=/dev/zero of=/file bs=1M count=2").await;
    let used = runtime.usage().await.expect("usage must be measured");
    let used = used.pods.iter().find(|used| used.pod.uid == *uid).expect("the pod must be among them");
    assert_eq!(used.containers.iter().map(|used| used.name.as_str()).collect::<Vec<_>>(), ["app"]);
    let layer = used.containers[0].layer.expect("the layer must be measured");
    assert!((2 << 20..3 << 20).contains(&layer.bytes), "{layer:?}");
    assert!(runtime.image_root().await.expect("docker must say").is_some_and(|path| path.is_dir()));

    let name = format!("minik8s.test/unused-{}:1", std::process::id());
    runtime.import_image(&name, &[("file", b"x")], &[]).await.expect("the image must be made");
    let unused = runtime.image(&name).await.expect("images must be told").expect("it must be there");
    for _ in 0..2 {
        runtime.remove_image(&unused.id).await.expect("removing must succeed, twice");
    }
    assert_eq!(runtime.image(&name).await.expect("images must be told"), None);
    runtime.remove_image(&app.image_id).await.expect_err("a container is made of it");
    assert!(runtime.image(testing::IMAGE).await.expect("images must be told").is_some());
    runtime.remove_everything().await.expect("cleaning up must succeed");
}
