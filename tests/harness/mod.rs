//! A whole cluster for a test: `minik8s up` in a process of its own, in a directory of its own.
//!
//! Every cluster has its own node name, bridge and ranges, so that tests run beside one another and beside a
//! cluster that somebody uses. Dropping it takes everything away, whatever the test's outcome.

mod daemon;
mod etcd;
mod log_line;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub(crate) use self::{daemon::Daemon, etcd::Etcd};

/// The image that the tests' pods run: a static busybox, made locally.
pub(crate) const IMAGE: &str = "minik8s/busybox:quickstart";

/// The patience of every wait: pods start in under a second each, but two cores may be busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How full the disk of the machine is must neither evict the tests' pods nor remove anybody's images.
pub(crate) const NEVER_SHORT_OF_DISK: [&str; 4] =
    ["--eviction-hard", "memory.available<50Mi", "--image-gc-high-threshold", "100"];

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A running cluster.
pub(crate) struct Cluster {
    home: TempDir,
    flags: Vec<String>,
    node: String,
    bridge: String,
    /// Its store, where `MINIK8S_TEST_STORE=etcd` asks for one and the test for none in particular.
    _etcd: Option<Etcd>,
    /// Its Docker, where it has one of its own.
    daemon: Option<Daemon>,
    /// The network namespace in which everything of it runs; none for this machine's own.
    machine: Option<String>,
}

/// What a command answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

impl Answer {
    fn new(output: &Output) -> Self {
        Self {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// The standard output of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "the command failed:\n{}{}", self.stdout, self.stderr);
        self.stdout
    }
}

impl Cluster {
    /// Starts a cluster with the given flags of `minik8s up` besides the harness's own.
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::start_on(None, more)
    }

    /// The same in a network namespace.
    pub(crate) fn start_on(machine: Option<&str>, more: &[&str]) -> Self {
        make_image();
        Self::with_parts(machine, None, more)
    }

    /// The same on a Docker daemon of its own.
    pub(crate) fn start_with_a_daemon() -> Self {
        let daemon = Daemon::start();
        let socket = daemon.socket().display().to_string();
        make_image_at(Some(&socket));
        Self::with_parts(None, Some(daemon), &["--docker-socket", &socket])
    }

    fn with_parts(machine: Option<&str>, daemon: Option<Daemon>, more: &[&str]) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // The pid keeps two test runs on one machine apart, the number two clusters of one run. Half an octet is room
        // for 128 nodes; 10.96 and 10.244, which are a cluster's by default, are in nobody's share.
        let share = std::process::id() % 8;
        let (octet, half) = (share * 32 + 1 + number % 38 / 2, number % 2 * 128);
        let node = format!("test-{}-{number}", std::process::id());
        let bridge = format!("mkt{}n{number}", std::process::id() % 100_000);
        let mut flags: Vec<String> = [
            ("--secure-port", "0".to_owned()),
            ("--kubelet-port", "0".to_owned()),
            ("--node-name", node.clone()),
            ("--bridge", bridge.clone()),
            ("--cluster-cidr", format!("10.{octet}.{half}.0/17")),
            ("--service-cluster-ip-range", format!("172.{}.{}.0/24", 24 + share, number % 256)),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        flags.extend(NEVER_SHORT_OF_DISK.map(str::to_owned));
        flags.extend(more.iter().map(|&flag| flag.to_owned()));
        // An etcd of this machine is not reached from within another's namespace.
        let any_store = !more.contains(&"--store") && machine.is_none();
        let etcd = (any_store && on_etcd()).then(Etcd::start);
        flags.extend(etcd.iter().flat_map(Etcd::flags));
        let home = tempfile::tempdir().expect("a directory must be had");
        let machine = machine.map(str::to_owned);
        let cluster = Self { home, flags, node, bridge, _etcd: etcd, daemon, machine };
        cluster.up();
        cluster
    }

    /// Starts the cluster's process, again after it was killed or stopped.
    #[track_caller]
    pub(crate) fn up(&self) {
        let answer = self.try_up();
        assert_eq!(answer.code, 0, "minik8s up failed:\n{}{}\n{}", answer.stdout, answer.stderr, self.log());
    }

    /// Tries to start the cluster's process.
    pub(crate) fn try_up(&self) -> Answer {
        self.minik8s(&[&["up", "--detach"][..], &self.flag_refs()].concat())
    }

    /// Has the next start use another store: `--store` and what belongs to it.
    pub(crate) fn change_store(&mut self, flags: &[String]) {
        for flag in ["--store", "--etcd-servers"] {
            self.drop_flag(flag);
        }
        self.flags.extend_from_slice(flags);
    }

    /// Has the next start give a flag another value.
    pub(crate) fn change_flag(&mut self, flag: &str, value: &str) {
        self.drop_flag(flag);
        self.flags.extend([flag.to_owned(), value.to_owned()]);
    }

    fn drop_flag(&mut self, flag: &str) {
        if let Some(at) = self.flags.iter().position(|there| there == flag) {
            self.flags.drain(at..at + 2);
        }
    }

    fn flag_refs(&self) -> Vec<&str> {
        self.flags.iter().map(String::as_str).collect()
    }

    /// The cluster's directory.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// What the cluster has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("minik8s.log")).unwrap_or_default()
    }

    /// The cluster's process.
    pub(crate) fn pid(&self) -> i32 {
        let pid =
            fs::read_to_string(self.home.path().join("minik8s.pid")).expect("the pid file must be there");
        pid.trim().parse().expect("the pid must be a number")
    }

    /// Kills the cluster's process without warning and waits until it is gone.
    pub(crate) fn kill(&self) {
        let pid = self.pid();
        run(Command::new("kill").args(["-9", &pid.to_string()])).ok();
        // The lock on the pid file ends with the process: once it can be had, nobody runs.
        let lock = fs::OpenOptions::new()
            .write(true)
            .open(self.home.path().join("minik8s.pid"))
            .expect("the pid file must open");
        lock.lock().expect("the lock must come free");
    }

    /// Our binary, about this cluster.
    pub(crate) fn minik8s(&self, args: &[&str]) -> Answer {
        let mut command = on_machine(self.machine.as_deref(), Path::new(env!("CARGO_BIN_EXE_minik8s")));
        run(command.args(args).env("MINIK8S_HOME", self.home.path()))
    }

    /// The name of the cluster's own node.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// The value of a flag that the cluster was started with.
    pub(crate) fn flag(&self, name: &str) -> &str {
        let at = self.flags.iter().position(|flag| flag == name).expect("the flag must be given");
        &self.flags[at + 1]
    }

    /// Our own kubectl.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Answer {
        self.with(&Kubectl::ours(), args)
    }

    /// A kubectl of any make.
    pub(crate) fn with(&self, kubectl: &Kubectl, args: &[&str]) -> Answer {
        run(self.command(kubectl, args))
    }

    /// A kubectl of any make, with something on its standard input.
    pub(crate) fn with_input(&self, kubectl: &Kubectl, args: &[&str], input: &str) -> Answer {
        self.with_editor(kubectl, args, input, "false")
    }

    /// A kubectl of any make, with something on its standard input and an editor.
    pub(crate) fn with_editor(&self, kubectl: &Kubectl, args: &[&str], input: &str, editor: &str) -> Answer {
        use std::io::Write;
        let mut child = self
            .command(kubectl, args)
            .env("KUBE_EDITOR", editor)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl must start");
        // A command that never reads its input may be gone by now.
        let _ = child.stdin.take().expect("there must be an input").write_all(input.as_bytes());
        Answer::new(&child.wait_with_output().expect("kubectl must end"))
    }

    /// The command for a kubectl on this cluster.
    pub(crate) fn command(&self, kubectl: &Kubectl, args: &[&str]) -> Command {
        let mut command = on_machine(self.machine.as_deref(), &kubectl.program);
        command
            .args(&kubectl.first)
            .args(args)
            .current_dir(root())
            .env("KUBECONFIG", self.kubeconfig())
            // Discovery is cached on disk by upstream's kubectl: one cluster's must not serve another's.
            .env("HOME", self.home.path())
            .env("KUBECACHEDIR", self.home.path().join("cache"))
            .stdin(Stdio::null());
        command
    }

    /// Applies a manifest given as text.
    #[track_caller]
    pub(crate) fn apply(&self, manifest: &str) {
        let answer = self.with_input(&Kubectl::ours(), &["apply", "-f", "-"], manifest);
        assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    }

    /// What an object, or a list of them, says at a path (JSONPath).
    #[track_caller]
    pub(crate) fn field(&self, what: &str, path: &str) -> String {
        self.kubectl(&["get", what, "-o", &format!("jsonpath={path}")]).ok()
    }

    /// Waits until an event with a reason (any, if empty) and a text has been recorded.
    #[track_caller]
    pub(crate) fn wait_for_event(&self, reason: &str, text: &str) {
        let args = ["get", "events", "--watch", "-o", "custom-columns=R:.reason,M:.message", "--no-headers"];
        self.watch_with(&Kubectl::ours(), &args, |line| line.starts_with(reason) && line.contains(text));
    }

    /// Waits with `kubectl wait`, which watches.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, condition: &str) {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        let answer = self.kubectl(&["wait", what, &format!("--for={condition}"), &timeout]);
        if answer.code != 0 {
            let described = self.kubectl(&["describe", what]).stdout;
            panic!("{what} did not become {condition}: {}\n{described}\n{}", answer.stderr, self.log());
        }
    }

    /// Follows a watch of any kubectl until `enough` says so of a line.
    #[track_caller]
    pub(crate) fn watch_with(&self, kubectl: &Kubectl, args: &[&str], mut enough: impl FnMut(&str) -> bool) {
        use std::io::BufRead;
        let mut child =
            self.command(kubectl, args).stdout(Stdio::piped()).spawn().expect("kubectl must start");
        let output = child.stdout.take().expect("there must be an output");
        let (sender, receiver) = std::sync::mpsc::sync_channel(64);
        let reader = std::thread::spawn(move || {
            for line in std::io::BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        let found = loop {
            match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let done = enough(&line);
                    seen.push(line);
                    if done {
                        break true;
                    }
                }
                Err(_) => break false,
            }
        };
        drop(receiver);
        let _ = child.kill();
        let _ = child.wait();
        let _ = reader.join();
        assert!(
            found,
            "{args:?} did not show what was waited for; it showed:\n{}\n{}",
            seen.join("\n"),
            self.log()
        );
    }

    /// The directories of a control group of this cluster's pods, named from their root on, in all hierarchies that
    /// have it.
    pub(crate) fn control_groups(&self, group: &str) -> Vec<PathBuf> {
        control_groups(&self.node, group)
    }

    /// The bridge that its pods hang on.
    pub(crate) fn bridge(&self) -> &str {
        &self.bridge
    }

    /// The ids of the running Docker containers of this cluster's node with a label.
    pub(crate) fn containers(&self, filter: &str) -> Vec<String> {
        self.listed(&["--filter", filter])
    }

    /// The ids of all Docker containers of this cluster's node, running or not.
    pub(crate) fn all_containers(&self) -> Vec<String> {
        self.listed(&["--all"])
    }

    /// The Docker daemon of its own.
    pub(crate) fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the cluster must have been started with one")
    }

    /// Docker's client, for the daemon that this cluster uses.
    pub(crate) fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        if let Some(daemon) = &self.daemon {
            command.arg("-H").arg(format!("unix://{}", daemon.socket().display()));
        }
        command
    }

    fn listed(&self, which: &[&str]) -> Vec<String> {
        let node = format!("label=minik8s.io/node={}", self.node);
        let listed = run(self.docker().args(["ps", "--no-trunc", "-q", "--filter", &node]).args(which)).ok();
        listed.lines().map(str::to_owned).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut args = vec!["down"];
        for pair in self.flags.chunks(2) {
            if DOWN_FLAGS.contains(&pair[0].as_str()) {
                args.extend(pair.iter().map(String::as_str));
            }
        }
        let answer = self.minik8s(&args);
        if answer.code != 0 && !std::thread::panicking() {
            panic!("minik8s down failed: {}{}", answer.stdout, answer.stderr);
        }
        let left = self.control_groups("");
        assert!(left.is_empty() || std::thread::panicking(), "control groups are left: {left:?}");
    }
}

/// What `down` must be told of what was given to `up`.
const DOWN_FLAGS: [&str; 4] = ["--node-name", "--bridge", "--cluster-cidr", "--docker-socket"];

/// The directories of a control group of a node's pods, in all hierarchies that have it: as directories alone, or as
/// slices of systemd (`systemd.slice(5)`: each name has all names above it, between dashes).
pub(crate) fn control_groups(node: &str, group: &str) -> Vec<PathBuf> {
    let mount = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(mount).into_iter().flatten().flatten().map(|entry| entry.path());
    let name = format!("minik8s-{node}/{group}");
    let words: Vec<String> =
        name.split('/').filter(|word| !word.is_empty()).map(|word| word.replace('-', "_")).collect();
    let slices: PathBuf =
        (1..=words.len()).map(|count| format!("{}.slice", words[..count].join("-"))).collect();
    let places = hierarchies
        .chain([mount.to_owned()])
        .flat_map(|hierarchy| [hierarchy.join(&name), hierarchy.join(&slices)]);
    places.filter(|place| place.is_dir()).collect()
}

/// A program in a network namespace, or here.
pub(crate) fn on_machine(machine: Option<&str>, program: &Path) -> Command {
    let Some(machine) = machine else { return Command::new(program) };
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{machine}")).arg(program);
    command
}

/// One make of kubectl.
pub(crate) struct Kubectl {
    /// Its name in messages.
    pub(crate) name: String,
    program: PathBuf,
    first: Vec<String>,
}

impl Kubectl {
    /// Our own, out of the all-in-one binary.
    pub(crate) fn ours() -> Self {
        Self {
            name: "ours".into(),
            program: env!("CARGO_BIN_EXE_minik8s").into(),
            first: vec!["kubectl".into()],
        }
    }

    /// The program itself, for scripts.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Upstream's: that on PATH, else the one that `setup.sh --test` unpacked.
    pub(crate) fn upstream() -> Self {
        let on_path = std::env::var_os("PATH").and_then(|path| {
            std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|file| file.is_file())
        });
        on_path.map_or_else(Self::debian, |program| Self {
            name: "upstream".into(),
            program,
            first: Vec::new(),
        })
    }

    /// Debian's v1.20, as `scripts/setup.sh --test` unpacks it.
    pub(crate) fn debian() -> Self {
        let program = test_tools().join("kubectl-1.20/usr/bin/kubectl");
        assert!(program.is_file(), "{} is missing: run scripts/setup.sh --test", program.display());
        Self { name: "debian-1.20".into(), program, first: Vec::new() }
    }

    /// Upstream's v1.36, as `scripts/setup.sh --test` builds it.
    pub(crate) fn newest() -> Self {
        let program = test_tools().join("kubectl-1.36");
        assert!(
            program.is_file(),
            "{} is missing: run scripts/setup.sh --test with Go 1.26 or newer on PATH",
            program.display()
        );
        Self { name: "upstream-1.36".into(), program, first: Vec::new() }
    }
}

/// Whether clusters keep their state in an etcd, each in one of its own, unless a test says where.
fn on_etcd() -> bool {
    match std::env::var("MINIK8S_TEST_STORE").as_deref() {
        Ok("etcd") => true,
        Ok("embedded" | "") | Err(_) => false,
        Ok(other) => panic!("MINIK8S_TEST_STORE is {other:?}, neither embedded nor etcd"),
    }
}

/// Whether tests take their time (`scripts/test.sh --long`).
pub(crate) fn takes_its_time() -> bool {
    std::env::var("MINIK8S_TEST_LONG").is_ok_and(|set| !set.is_empty())
}

/// Where `scripts/setup.sh --test` puts programs that tests need.
pub(crate) fn test_tools() -> PathBuf {
    std::env::var_os("MINIK8S_TEST_TOOLS").map_or_else(
        || std::env::home_dir().expect("there must be a home").join(".cache/minik8s-test-tools"),
        PathBuf::from,
    )
}

/// Runs a command to its end.
pub(crate) fn run(mut command: impl std::borrow::BorrowMut<Command>) -> Answer {
    let command = command.borrow_mut();
    Answer::new(&command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// The manifest of a pod that mounts a volume at `/v` and does nothing with it; `source` is the volume's, as YAML.
pub(crate) fn holder(name: &str, source: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - {{name: main, image: "{IMAGE}", command: [sleep, "100000"], volumeMounts: [{{name: v, mountPath: /v}}]}}
  volumes: [{{name: v, {source}}}]
"#
    )
}

/// Makes the tests' image, once for all tests.
pub(crate) fn make_image() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| make_image_at(None));
}

/// Makes it in the daemon behind a socket, or in this machine's, which is started if there is none.
fn make_image_at(socket: Option<&str>) {
    let daemon = socket
        .map_or_else(|| "ensure_docker".to_owned(), |socket| format!("export DOCKER_HOST=unix://{socket}"));
    let script = format!(
        ". scripts/lib/docker.sh && {daemon} && . scripts/lib/images.sh && make_busybox_image {IMAGE}"
    );
    run(Command::new("bash").args(["-c", &script]).current_dir(root())).ok();
}
