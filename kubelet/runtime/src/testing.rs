//! The conformance suite of [`PodRuntime`](crate::PodRuntime): what every runtime must do, run by each with one line.
//!
//! Expectations come from the trait's contract. What a runtime says it cannot do must be refused as unsupported;
//! everything else is exercised.

use std::{
    future::Future,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::StreamExt;

use crate::{
    AccountFiles, ContainerResources, ContainerSecurity, ContainerSpec, ContainerState, ContainerView,
    ExecSpec, LogOptions, NetworkMode, Output, PodIdentity, PodRuntime, PodView, RuntimeError, SandboxSpec,
};

/// The image that the suite's containers are made of: a busybox whose entrypoint is empty.
pub const IMAGE: &str = "minik8s.test/busybox:1";
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A runtime under test.
pub trait Harness {
    /// The runtime.
    fn runtime(&self) -> &dyn PodRuntime;
    /// Ends a running container from outside, with SIGKILL's exit code 137.
    fn kill(&self, pod: &PodIdentity, container: &ContainerView) -> impl Future<Output = ()>;
}

/// A pod nobody had before.
#[must_use]
pub fn pod_identity(name: &str) -> PodIdentity {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    PodIdentity { uid: format!("{nanos:x}-{count}"), namespace: "default".to_owned(), name: name.to_owned() }
}

/// A plain sandbox.
#[must_use]
pub fn sandbox_spec(name: &str) -> SandboxSpec {
    SandboxSpec {
        pod: pod_identity(name),
        attempt: 0,
        hostname: name.to_owned(),
        network: NetworkMode::Pod,
        host_ipc: false,
        host_pid: false,
        share_process_namespace: false,
        sysctls: Default::default(),
        shm_size: None,
        labels: Default::default(),
        annotations: Default::default(),
        image: None,
        security_options: Vec::new(),
        group: None,
        handler: None,
    }
}

/// A plain container of [`IMAGE`].
#[must_use]
pub fn container_spec(name: &str, command: &[&str]) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        attempt: 0,
        image: IMAGE.to_owned(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        mounts: Vec::new(),
        devices: Vec::new(),
        joins: None,
        resources: ContainerResources::default(),
        security: ContainerSecurity::default(),
        stdin: false,
        stdin_once: false,
        tty: false,
        stop_signal: None,
        annotations: Default::default(),
        group: None,
    }
}

/// A container that runs until it is stopped, and stops at once when asked.
#[must_use]
pub fn long_running(name: &str) -> ContainerSpec {
    container_spec(name, &["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.1; done"])
}

/// Runs the whole suite.
pub async fn conformance(harness: &impl Harness) {
    sandboxes(harness).await;
    containers(harness).await;
    ends_are_seen(harness).await;
    what_is_not_there(harness).await;
    if harness.runtime().capabilities().exec {
        processes(harness).await;
        starts_that_fail(harness).await;
        logs(harness).await;
        commands(harness).await;
        images_are_unpacked(harness).await;
    } else {
        refuses_commands(harness).await;
    }
}

async fn view(runtime: &dyn PodRuntime, uid: &str) -> PodView {
    runtime.pod(uid).await.expect("pod must answer").expect("the pod must be there")
}

/// Waits until a container has ended, by events as the kubelet does.
async fn ended(runtime: &dyn PodRuntime, uid: &str, name: &str) -> ContainerView {
    let wait = async {
        loop {
            let mut events = runtime.events().await.expect("events must be had");
            loop {
                let pod = view(runtime, uid).await;
                let container = pod.containers.into_iter().find(|container| container.name == name);
                let container = container.expect("the container must be listed");
                if matches!(container.state, ContainerState::Exited { .. }) {
                    return container;
                }
                match events.next().await {
                    Some(_) => {}
                    None => break,
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{name} must end"))
}

fn exit_code(container: &ContainerView) -> i32 {
    match &container.state {
        ContainerState::Exited { exit_code, .. } => *exit_code,
        other => panic!("{} must have ended, but is {other:?}", container.name),
    }
}

async fn sandboxes(harness: &impl Harness) {
    let runtime = harness.runtime();
    let mut spec = sandbox_spec("sandboxes");
    spec.annotations.insert("note".to_owned(), "kept: as it is".to_owned());
    let made = runtime.ensure_sandbox(&spec).await.expect("a sandbox must be made");
    assert!(made.ready);
    if runtime.capabilities().network {
        assert!(made.pid.is_some(), "the network is found by process id");
    }
    let again = runtime.ensure_sandbox(&spec).await.expect("ensuring what exists must succeed");
    assert_eq!((&again.id, again.pid), (&made.id, made.pid), "it must be the same one");

    let pod = view(runtime, &spec.pod.uid).await;
    assert_eq!(pod.pod, spec.pod);
    assert_eq!((pod.sandboxes.len(), pod.sandboxes[0].ready), (1, true));
    assert_eq!(pod.sandboxes[0].annotations["note"], "kept: as it is");
    assert!(runtime.list().await.expect("list must answer").iter().any(|listed| listed.pod == spec.pod));

    for _ in 0..2 {
        runtime.stop_sandbox(&spec.pod.uid, 0).await.expect("stopping must succeed, twice");
    }
    let pod = view(runtime, &spec.pod.uid).await;
    assert_eq!((pod.sandboxes[0].ready, pod.sandboxes[0].pid), (false, None));
    spec.attempt = 1;
    runtime.ensure_sandbox(&spec).await.expect("the next attempt must be made beside the dead one");
    let attempts: Vec<u32> =
        view(runtime, &spec.pod.uid).await.sandboxes.iter().map(|sandbox| sandbox.attempt).collect();
    assert_eq!(attempts, [1, 0], "newest first");
    for _ in 0..2 {
        runtime.remove_sandbox(&spec.pod.uid, 0).await.expect("removing must succeed, twice");
    }
    assert_eq!(view(runtime, &spec.pod.uid).await.sandboxes.len(), 1);
    for _ in 0..2 {
        runtime.remove_pod(&spec.pod.uid).await.expect("removing must succeed, twice");
    }
    assert_eq!(runtime.pod(&spec.pod.uid).await.expect("pod must answer"), None);
}

async fn containers(harness: &impl Harness) {
    let runtime = harness.runtime();
    let sandbox = sandbox_spec("containers");
    let uid = &sandbox.pod.uid;
    let mut spec = long_running("app");
    spec.annotations.insert("hash".to_owned(), "abc".to_owned());
    let refused = runtime.run_container(&sandbox.pod, &spec).await;
    assert!(matches!(refused, Err(RuntimeError::NotFound(_))), "no sandbox, no container: {refused:?}");

    runtime.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");
    let made = runtime.run_container(&sandbox.pod, &spec).await.expect("a container must run");
    assert!(matches!(made.state, ContainerState::Running { .. }), "{made:?}");
    let listed = view(runtime, uid).await.containers;
    assert_eq!(listed, std::slice::from_ref(&made), "what run gives is what list shows");
    assert_eq!((made.name.as_str(), made.attempt, made.image.as_str()), ("app", 0, IMAGE));
    assert_eq!(made.annotations["hash"], "abc");
    let again = runtime.run_container(&sandbox.pod, &spec).await.expect("running what runs must succeed");
    assert_eq!(again, made, "at most one start for an attempt");

    for _ in 0..2 {
        runtime.stop_container(uid, "app", 0, Duration::from_secs(30)).await.expect("stopping must succeed");
    }
    let stopped = ended(runtime, uid, "app").await;
    assert_eq!(exit_code(&stopped), 0, "it was asked before it was killed");
    let again = runtime.run_container(&sandbox.pod, &spec).await.expect("the ended run must be shown");
    assert_eq!(again.state, stopped.state, "an attempt that ended is never started again");

    spec.attempt = 1;
    runtime.run_container(&sandbox.pod, &spec).await.expect("the next attempt must run");
    let attempts: Vec<u32> =
        view(runtime, uid).await.containers.iter().map(|container| container.attempt).collect();
    assert_eq!(attempts, [1, 0], "newest first, and the dead one stays for its log");
    for _ in 0..2 {
        runtime.remove_container(uid, "app", 0).await.expect("removing must succeed, twice");
    }
    assert_eq!(view(runtime, uid).await.containers.len(), 1);
    runtime.remove_pod(uid).await.expect("a running pod must be removed");
    assert_eq!(runtime.pod(uid).await.expect("pod must answer"), None);
}

async fn ends_are_seen(harness: &impl Harness) {
    let runtime = harness.runtime();
    let sandbox = sandbox_spec("killed");
    runtime.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");
    let app = runtime.run_container(&sandbox.pod, &long_running("app")).await.expect("a container must run");
    let mut events = runtime.events().await.expect("events must be had");
    harness.kill(&sandbox.pod, &app).await;
    let hint = async { while events.next().await.expect("events must go on").pod_uid != sandbox.pod.uid {} };
    tokio::time::timeout(PATIENCE, hint).await.expect("the end must be told");
    assert_eq!(exit_code(&ended(runtime, &sandbox.pod.uid, "app").await), 137);
    runtime.remove_pod(&sandbox.pod.uid).await.expect("the pod must be removed");
}

async fn what_is_not_there(harness: &impl Harness) {
    let runtime = harness.runtime();
    let nobody = pod_identity("nobody").uid;
    assert_eq!(runtime.pod(&nobody).await.expect("pod must answer"), None);
    runtime.stop_container(&nobody, "app", 0, Duration::ZERO).await.expect("stopping nothing must succeed");
    runtime.remove_container(&nobody, "app", 0).await.expect("removing nothing must succeed");
    runtime.stop_sandbox(&nobody, 0).await.expect("stopping nothing must succeed");
    runtime.remove_pod(&nobody).await.expect("removing nothing must succeed");
    let usage = runtime.usage().await.expect("usage must answer");
    assert!(usage.pods.iter().all(|pod| pod.pod.uid != nobody));
    let refused = runtime.logs(&nobody, "app", 0, &LogOptions::default()).await;
    assert!(matches!(refused.err(), Some(RuntimeError::NotFound(_))));
}

async fn refuses_commands(harness: &impl Harness) {
    let runtime = harness.runtime();
    let command = ["true".to_owned()];
    let refused = runtime.exec_sync("uid", "app", &command, PATIENCE).await;
    assert!(matches!(refused, Err(RuntimeError::Unsupported(_))));
    let spec = ExecSpec { command: command.to_vec(), ..ExecSpec::default() };
    assert!(matches!(runtime.exec("uid", "app", &spec).await.err(), Some(RuntimeError::Unsupported(_))));
    assert!(matches!(runtime.attach("uid", "app", &spec).await.err(), Some(RuntimeError::Unsupported(_))));
    assert!(matches!(runtime.port_forward("uid", 80).await.err(), Some(RuntimeError::Unsupported(_))));
    let unpacked = runtime.unpack_image(IMAGE, Path::new("/nowhere")).await;
    assert!(matches!(unpacked, Err(RuntimeError::Unsupported(_))), "{unpacked:?}");
    assert!(matches!(runtime.image_accounts(IMAGE).await, Err(RuntimeError::Unsupported(_))));
}

async fn images_are_unpacked(harness: &impl Harness) {
    let runtime = harness.runtime();
    let image = runtime.image(IMAGE).await.expect("image must answer").expect("the test image must be there");
    let home = std::env::temp_dir().join(pod_identity("unpacked").uid);
    for name in ["one", "two"] {
        let into = home.join(name);
        std::fs::create_dir_all(&into).expect("a directory must be made");
        runtime.unpack_image(&image.id, &into).await.expect("an image must be unpacked, twice");
        let program = std::fs::metadata(into.join("bin/busybox")).expect("the image's file must be there");
        assert!(program.len() > 100_000 && program.permissions().mode() & 0o777 == 0o755, "{program:?}");
        let link = std::fs::read_link(into.join("bin/sh")).expect("the image's link must be there");
        assert_eq!(link, Path::new("busybox"));
        for foreign in [".dockerenv", "proc", "sys", "dev"] {
            assert!(std::fs::symlink_metadata(into.join(foreign)).is_err(), "{foreign} is not the image's");
        }
    }
    std::fs::remove_dir_all(&home).expect("the directory must go");
    let missing = runtime.unpack_image("minik8s.test/no-such-image:1", &home).await;
    assert!(matches!(missing, Err(RuntimeError::ImageNotPresent(_))), "{missing:?}");
    let accounts = runtime.image_accounts(&image.id).await.expect("an image without accounts has none");
    assert_eq!(accounts, AccountFiles::default());
    let missing = runtime.image_accounts("minik8s.test/no-such-image:1").await;
    assert!(matches!(missing, Err(RuntimeError::ImageNotPresent(_))), "{missing:?}");
}

/// Everything about real processes: exit codes, grace, namespaces, resources.
async fn processes(harness: &impl Harness) {
    let runtime = harness.runtime();
    let mut sandbox = sandbox_spec("processes");
    sandbox.share_process_namespace = true;
    sandbox.shm_size = Some(32 << 20);
    let uid = &sandbox.pod.uid;
    runtime.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");

    runtime
        .run_container(&sandbox.pod, &container_spec("three", &["sh", "-c", "exit 3"]))
        .await
        .expect("a container must run");
    assert_eq!(exit_code(&ended(runtime, uid, "three").await), 3);

    let stubborn = container_spec("stubborn", &["sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"]);
    runtime.run_container(&sandbox.pod, &stubborn).await.expect("a container must run");
    runtime.stop_container(uid, "stubborn", 0, Duration::from_secs(1)).await.expect("stopping must succeed");
    assert_eq!(exit_code(&ended(runtime, uid, "stubborn").await), 137, "killed after its grace");

    let mut app = long_running("app");
    app.env = vec![("GREETING".to_owned(), "a = b, c".to_owned())];
    app.working_dir = Some("/tmp".to_owned());
    app.resources.memory_limit = Some(48 << 20);
    app.security.drop_capabilities = vec!["ALL".to_owned()];
    app.security.no_new_privileges = true;
    runtime.run_container(&sandbox.pod, &app).await.expect("a container must run");
    let run = async |script: &str| {
        let command = ["sh", "-c", script].map(str::to_owned);
        let output = runtime.exec_sync(uid, "app", &command, PATIENCE).await.expect("a command must run");
        String::from_utf8_lossy(&output.output).trim().to_owned()
    };
    assert_eq!(run("echo $GREETING; pwd; hostname").await, "a = b, c\n/tmp\nprocesses");
    assert_eq!(run("cat /proc/1/comm").await, "pause", "the sandbox leads the shared namespace");
    assert_eq!(run("ls /sys/class/net").await, "lo", "the network is left to the kubelet");
    assert_eq!(
        run("df -m /dev/shm | tail -1 | awk '{print $2}'").await,
        "32",
        "shared memory is the sandbox's"
    );
    assert_eq!(run("grep CapEff /proc/self/status | awk '{print $2}'").await, "0000000000000000");
    assert_eq!(run("grep NoNewPrivs /proc/self/status | awk '{print $2}'").await, "1");
    // An orphan is taken over by the sandbox and waited for; a zombie would stay in the list.
    let orphans = "sh -c 'sh -c \"exit 0\" & exit 0'; \
                   for i in $(seq 100); do grep -lsw Z /proc/[0-9]*/stat >/dev/null || exit 0; sleep 0.1; done; exit 1";
    let command = ["sh", "-c", orphans].map(str::to_owned);
    let output = runtime.exec_sync(uid, "app", &command, PATIENCE).await.expect("a command must run");
    assert_eq!(output.exit_code, 0, "the pause program must reap");

    run("head -c 1000000 /dev/zero > /tmp/written").await;
    let usage = runtime.usage().await.expect("usage must answer");
    let pod = usage.pods.iter().find(|pod| &pod.pod.uid == uid).expect("a running pod must be told");
    assert_eq!(pod.pod, sandbox.pod);
    assert!(pod.sandbox.is_some(), "{pod:?}");
    let [found] = &pod.containers[..] else { panic!("one container runs: {pod:?}") };
    assert_eq!(found.name, "app");
    assert!(found.usage.cpu.total_nanos > 0 && found.usage.memory.usage > 0, "{found:?}");
    assert_eq!(found.usage.limits.memory, 48 << 20, "{found:?}");
    assert!(found.layer.is_some_and(|layer| layer.bytes >= 1_000_000), "{found:?}");
    assert!(usage.exited >= 2 && usage.storage.is_some(), "{usage:?}");

    let greedy = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo $x";
    let mut greedy = container_spec("greedy", &["sh", "-c", greedy]);
    greedy.resources.memory_limit = Some(16 << 20);
    runtime.run_container(&sandbox.pod, &greedy).await.expect("a container must run");
    let killed = ended(runtime, uid, "greedy").await;
    assert!(
        matches!(killed.state, ContainerState::Exited { oom_killed: true, exit_code: 137, .. }),
        "{killed:?}"
    );
    runtime.remove_pod(uid).await.expect("the pod must be removed");
}

async fn starts_that_fail(harness: &impl Harness) {
    let runtime = harness.runtime();
    let sandbox = sandbox_spec("failing");
    let uid = &sandbox.pod.uid;
    runtime.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");
    let mut spec = container_spec("app", &["/no/such/program"]);
    let refused = runtime.run_container(&sandbox.pod, &spec).await;
    assert!(
        matches!(&refused, Err(RuntimeError::Start(message)) if message.contains("no such file")),
        "{refused:?}"
    );
    let container = ended(runtime, uid, "app").await;
    assert!([127, 128].contains(&exit_code(&container)), "{container:?}");
    assert!(matches!(&container.state, ContainerState::Exited { error, .. } if !error.is_empty()));

    spec.name = "imageless".to_owned();
    spec.image = "minik8s.test/no-such-image:1".to_owned();
    let refused = runtime.run_container(&sandbox.pod, &spec).await;
    assert!(
        matches!(&refused, Err(RuntimeError::ImageNotPresent(image)) if *image == spec.image),
        "{refused:?}"
    );
    assert_eq!(runtime.image(&spec.image).await.expect("image must answer"), None);
    let present =
        runtime.image(IMAGE).await.expect("image must answer").expect("the test image must be there");
    assert!(present.names.iter().any(|name| name == IMAGE) && present.size > 0, "{present:?}");
    runtime.remove_pod(uid).await.expect("the pod must be removed");
}

async fn logs(harness: &impl Harness) {
    let runtime = harness.runtime();
    let sandbox = sandbox_spec("logs");
    let uid = &sandbox.pod.uid;
    runtime.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");
    let script = "echo one; echo two >&2; sleep 0.5; echo three";
    runtime
        .run_container(&sandbox.pod, &container_spec("app", &["sh", "-c", script]))
        .await
        .expect("it must run");
    let read = async |options: LogOptions| {
        let pieces = runtime.logs(uid, "app", 0, &options).await.expect("there must be a log");
        let pieces =
            tokio::time::timeout(PATIENCE, pieces.collect::<Vec<_>>()).await.expect("the log must end");
        let bytes: Vec<u8> =
            pieces.into_iter().flat_map(|piece| piece.expect("the log must be read")).collect();
        String::from_utf8(bytes).expect("the log must be text")
    };
    // Following ends with the container, so all of it is there.
    let mut lines: Vec<String> =
        read(LogOptions { follow: true, ..LogOptions::default() }).await.lines().map(str::to_owned).collect();
    assert_eq!(lines.last().map(String::as_str), Some("three"));
    lines.sort_unstable();
    assert_eq!(lines, ["one", "three", "two"]);
    ended(runtime, uid, "app").await;
    assert_eq!(read(LogOptions { tail: Some(1), ..LogOptions::default() }).await, "three\n");
    assert_eq!(read(LogOptions { tail: Some(0), ..LogOptions::default() }).await, "");
    let stamped = read(LogOptions { timestamps: true, tail: Some(1), ..LogOptions::default() }).await;
    let (time, text) = stamped.split_once(' ').expect("a stamped line must have its time first");
    assert!(time.parse::<jiff::Timestamp>().is_ok() && text == "three\n", "{stamped:?}");
    let later = jiff::Timestamp::now().as_second() + 3600;
    assert_eq!(read(LogOptions { since: Some(later), ..LogOptions::default() }).await, "");

    let mut silent = long_running("app");
    silent.attempt = 1;
    runtime.run_container(&sandbox.pod, &silent).await.expect("a container must run");
    let follow = LogOptions { follow: true, ..LogOptions::default() };
    let promised = tokio::time::timeout(PATIENCE, runtime.logs(uid, "app", 1, &follow)).await;
    let mut log = promised.expect("a silent log must be promised at once").expect("there must be a log");
    runtime.stop_container(uid, "app", 1, Duration::ZERO).await.expect("stopping must succeed");
    let end = tokio::time::timeout(PATIENCE, log.next()).await.expect("the log must end with its container");
    assert!(end.is_none(), "{end:?}");
    runtime.remove_pod(uid).await.expect("the pod must be removed");
}

async fn commands(harness: &impl Harness) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let runtime = harness.runtime();
    let sandbox = sandbox_spec("commands");
    let uid = &sandbox.pod.uid;
    runtime.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");
    runtime.run_container(&sandbox.pod, &long_running("app")).await.expect("a container must run");
    let words = |script: &str| ["sh", "-c", script].map(str::to_owned).to_vec();

    let output = runtime.exec_sync(uid, "app", &words("echo out; echo err >&2; exit 7"), PATIENCE).await;
    let output = output.expect("a command must run");
    assert_eq!((output.exit_code, output.output.len()), (7, 8));
    let slow = words("echo $$ > /tmp/late; exec sleep 1000");
    let late = runtime.exec_sync(uid, "app", &slow, Duration::from_secs(2)).await;
    assert!(matches!(late, Err(RuntimeError::Timeout(_))), "{late:?}");
    let gone = "for i in $(seq 100); do [ -d /proc/$(cat /tmp/late) ] || exit 0; sleep 0.1; done; exit 1";
    let output = runtime.exec_sync(uid, "app", &words(gone), PATIENCE).await.expect("a command must run");
    assert_eq!(output.exit_code, 0, "what takes too long is killed");
    let missing = runtime.exec_sync(uid, "none", &words("true"), PATIENCE).await;
    assert!(matches!(missing, Err(RuntimeError::NotFound(_))), "{missing:?}");

    let spec = ExecSpec { command: words("cat; echo end >&2; exit 5"), stdin: true, tty: false };
    let mut session = runtime.exec(uid, "app", &spec).await.expect("a command must start");
    let mut stdin = session.stdin.take().expect("standard input was asked for");
    stdin.write_all(b"hello\n").await.expect("input must be taken");
    stdin.flush().await.expect("input must be taken");
    drop(stdin);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let collect = async {
        while let Some(piece) = session.output.next().await {
            match piece.expect("output must be read") {
                Output::Stdout(bytes) => stdout.extend(bytes),
                Output::Stderr(bytes) => stderr.extend(bytes),
            }
        }
    };
    tokio::time::timeout(PATIENCE, collect).await.expect("cat must end with its input");
    assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b"hello\n"[..], &b"end\n"[..]));
    assert_eq!(session.control.exit_code().await.expect("the code must be known"), Some(5));

    let spec = ExecSpec { command: words("sleep 0.5; stty size"), stdin: true, tty: true };
    let mut session = runtime.exec(uid, "app", &spec).await.expect("a command must start");
    session.control.resize(101, 33).await.expect("a terminal must be resized");
    let mut seen = Vec::new();
    let collect = async {
        while let Some(piece) = session.output.next().await {
            match piece.expect("output must be read") {
                Output::Stdout(bytes) => seen.extend(bytes),
                Output::Stderr(bytes) => panic!("a terminal has one output, but {bytes:?} came"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, collect).await.expect("stty must end");
    assert_eq!(seen, b"33 101\r\n");

    let refused = runtime.port_forward(uid, 7007).await.err().expect("nobody listens there");
    assert!(matches!(&refused, RuntimeError::Dial(text) if text.contains("connection refused")), "{refused}");
    let listener = container_spec("listener", &["sh", "-c", "echo hello | nc -l -p 7007"]);
    runtime.run_container(&sandbox.pod, &listener).await.expect("a container must run");
    let connected = async {
        loop {
            // It runs before it listens.
            match runtime.port_forward(uid, 7007).await {
                Ok(connection) => return connection,
                Err(RuntimeError::Dial(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let mut connection = tokio::time::timeout(PATIENCE, connected).await.expect("it must listen");
    let mut heard = [0; 6];
    connection.read_exact(&mut heard).await.expect("it must answer");
    assert_eq!(&heard, b"hello\n");
    drop(connection);

    let mut echo = container_spec("echo", &["sh", "-c", "read line; echo got $line; exit 4"]);
    (echo.stdin, echo.stdin_once) = (true, true);
    runtime.run_container(&sandbox.pod, &echo).await.expect("a container must run");
    let spec = ExecSpec { stdin: true, ..ExecSpec::default() };
    let mut session = runtime.attach(uid, "echo", &spec).await.expect("it must be joined");
    let mut stdin = session.stdin.take().expect("standard input was asked for");
    stdin.write_all(b"it\n").await.expect("input must be taken");
    let first = tokio::time::timeout(PATIENCE, session.output.next()).await.expect("output must come");
    assert!(matches!(&first, Some(Ok(Output::Stdout(bytes))) if &bytes[..] == b"got it\n"), "{first:?}");
    assert_eq!(exit_code(&ended(runtime, uid, "echo").await), 4);
    let late = runtime.attach(uid, "echo", &spec).await;
    assert!(matches!(late.err(), Some(RuntimeError::NotFound(_))), "what has ended cannot be joined");
    runtime.remove_pod(uid).await.expect("the pod must be removed");
}
