//! Pods on a container runtime: the trait, and Docker and a simulation behind it.
//!
//! The kubelet decides (restart, back-off, probes, hooks) and this crate carries out. Everything is addressed
//! by pod uid, container name and attempt, never by a runtime's own ids: what runs is rebuilt from labels, so
//! a restarted kubelet finds its world as it left it.
//!
//! # Contract
//!
//! 1. Every call is idempotent: ensuring what exists, stopping what is stopped and removing what is gone
//!    succeed.
//! 2. `list` is the truth: it shows every sandbox and container of ours, running or not, with the exit state
//!    of what has ended, whoever started or killed it.
//! 3. A container is started at most once per (pod, name, attempt).
//! 4. Errors say whether trying again can help ([`RuntimeError`]).
//! 5. `events` is a hint that a pod's state may have changed; it may repeat, and it ends when it may have
//!    missed something, whereupon the reader lists again.

pub mod control_groups;
pub mod docker;
pub mod simulated;
pub mod testing;
pub mod usage;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;

/// Who a pod is: what its sandbox and containers are labelled with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodIdentity {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// The note on a sandbox that holds its pod's address, where the runtime assigns one itself (see
/// [`Capabilities::network`]).
pub const ADDRESS_ANNOTATION: &str = "minik8s.io/pod-address";

/// Where a pod's network comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    /// An empty network namespace, which the kubelet's own network fills.
    Pod,
    /// The node's.
    Host,
}

/// What a pod's sandbox needs to be.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxSpec {
    /// Whose.
    pub pod: PodIdentity,
    /// Counts sandboxes of this pod: a dead sandbox is replaced by the next attempt.
    pub attempt: u32,
    /// Host name inside; unused with the host's network.
    pub hostname: String,
    /// Network namespace.
    pub network: NetworkMode,
    /// Whether the node's IPC namespace is used.
    pub host_ipc: bool,
    /// Whether the node's PID namespace is used.
    pub host_pid: bool,
    /// Whether all containers share the sandbox's PID namespace.
    pub share_process_namespace: bool,
    /// Namespaced kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Size of `/dev/shm` in bytes; `None` for the runtime's default (64 MiB).
    pub shm_size: Option<u64>,
    /// Further labels (the pod's), for people and tools.
    pub labels: BTreeMap<String, String>,
    /// Notes kept with the sandbox (the network's address and its like), given back by `list`.
    pub annotations: BTreeMap<String, String>,
    /// Another image than our own pause program.
    pub image: Option<String>,
    /// Further security options in the runtime's own words (`label=…`).
    pub security_options: Vec<String>,
    /// The control group that the pod's containers belong into, in the runtime's words; `None` for the runtime's own.
    pub group: Option<String>,
    /// Which of the runtime's handlers carries the pod (a RuntimeClass's `handler`); `None` for its usual one.
    pub handler: Option<String>,
}

/// A directory or file of the node inside a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Path on the node.
    pub source: PathBuf,
    /// Path in the container.
    pub target: String,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Propagation between node and container.
    pub propagation: MountPropagation,
}

/// A device of the node inside a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Path on the node.
    pub source: PathBuf,
    /// Path in the container.
    pub target: String,
    /// Whether it may only be read.
    pub read_only: bool,
}

/// `mountPropagation` of a volume mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountPropagation {
    /// `None`
    #[default]
    Private,
    /// `HostToContainer`
    HostToContainer,
    /// `Bidirectional`
    Bidirectional,
}

/// Limits of a container, as cgroup values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContainerResources {
    /// Relative weight (1024 a CPU, at least 2).
    pub cpu_shares: Option<i64>,
    /// Microseconds of CPU per period; `None` for no limit.
    pub cpu_quota: Option<i64>,
    /// Microseconds of a period.
    pub cpu_period: Option<i64>,
    /// Bytes of memory; swap is not added.
    pub memory_limit: Option<i64>,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i64>,
}

/// Who and what a container may be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerSecurity {
    /// `uid[:gid]` or a name; `None` for the image's user.
    pub user: Option<String>,
    /// Supplementary groups.
    pub groups: Vec<String>,
    /// All privileges.
    pub privileged: bool,
    /// Read-only root filesystem.
    pub read_only_root: bool,
    /// Capabilities added.
    pub add_capabilities: Vec<String>,
    /// Capabilities taken away.
    pub drop_capabilities: Vec<String>,
    /// Whether `no_new_privs` is set.
    pub no_new_privileges: bool,
    /// Further runtime options: `seccomp=unconfined`, `apparmor=…`.
    pub options: Vec<String>,
}

/// What a container needs to be: everything resolved, nothing left to look up.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSpec {
    /// Name in the pod.
    pub name: String,
    /// Counts runs of this container: 0 for the first.
    pub attempt: u32,
    /// Image reference, present on the node.
    pub image: String,
    /// Replaces the image's entrypoint unless empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments unless empty.
    pub args: Vec<String>,
    /// Environment, in order.
    pub env: Vec<(String, String)>,
    /// Working directory; `None` for the image's.
    pub working_dir: Option<String>,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Another running container of the pod (name and attempt) whose PID namespace it joins.
    pub joins: Option<(String, u32)>,
    /// Limits.
    pub resources: ContainerResources,
    /// User and privileges.
    pub security: ContainerSecurity,
    /// Whether standard input stays open.
    pub stdin: bool,
    /// Whether standard input closes after the first attach.
    pub stdin_once: bool,
    /// Whether there is a terminal.
    pub tty: bool,
    /// Signal that asks it to stop; `None` for the image's.
    pub stop_signal: Option<String>,
    /// Notes kept with the container and given back by `list` (spec hash, termination message path …).
    pub annotations: BTreeMap<String, String>,
    /// The control group that it belongs into, as its sandbox does.
    pub group: Option<String>,
}

/// What a sandbox is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxView {
    /// The runtime's id.
    pub id: String,
    /// Which attempt.
    pub attempt: u32,
    /// Whether it runs.
    pub ready: bool,
    /// Process id of its first process on the node (the way to its namespaces); `None` once it is dead.
    pub pid: Option<u32>,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// Notes given with the spec.
    pub annotations: BTreeMap<String, String>,
}

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Made and not yet started.
    Created,
    /// Running since.
    Running {
        /// RFC 3339.
        started_at: String,
        /// Process id on the node.
        pid: u32,
    },
    /// Ended.
    Exited {
        /// RFC 3339; empty if it never started.
        started_at: String,
        /// RFC 3339.
        finished_at: String,
        /// Exit code; 128 plus the signal's number for a killed process.
        exit_code: i32,
        /// Whether the kernel killed it for memory.
        oom_killed: bool,
        /// What the runtime says (why it could not start).
        error: String,
    },
}

/// A container as the runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    /// The runtime's id, `docker://<id>` once prefixed with [`PodRuntime::name`].
    pub id: String,
    /// Name in the pod.
    pub name: String,
    /// Which attempt.
    pub attempt: u32,
    /// Image reference as given in the spec.
    pub image: String,
    /// Digest or id of the image.
    pub image_id: String,
    /// State.
    pub state: ContainerState,
    /// The limits that hold (without `oom_score_adj`, which is set once); `None` if the runtime does not say.
    pub resources: Option<ContainerResources>,
    /// Notes given with the spec.
    pub annotations: BTreeMap<String, String>,
}

/// All that the runtime knows of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Whose.
    pub pod: PodIdentity,
    /// Sandboxes, newest first.
    pub sandboxes: Vec<SandboxView>,
    /// Containers of all names and attempts, newest first.
    pub containers: Vec<ContainerView>,
}

/// An image on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageView {
    /// Id.
    pub id: String,
    /// References by tag and digest.
    pub names: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// The image's user, for `runAsNonRoot`.
    pub user: String,
    /// Whether the runtime itself needs it: it is never removed for being unused.
    pub pinned: bool,
}

/// Who an image knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountFiles {
    /// `/etc/passwd`; empty if there is none.
    pub passwd: String,
    /// `/etc/group`; empty if there is none.
    pub group: String,
}

/// Name and password for a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User.
    pub username: String,
    /// Password or token.
    pub password: String,
    /// The registry's address.
    pub server: String,
}

/// Which log lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogOptions {
    /// Go on with what is written from now on, until the container ends.
    pub follow: bool,
    /// At most the last so many lines.
    pub tail: Option<u64>,
    /// Only from this time on (seconds since 1970).
    pub since: Option<i64>,
    /// Each line begins with its time (RFC 3339, nanoseconds).
    pub timestamps: bool,
}

/// A stream of log bytes.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<Bytes, RuntimeError>> + Send>>;

/// What to run inside a running container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether standard input is given.
    pub stdin: bool,
    /// Whether there is a terminal (then there is no separate standard error).
    pub tty: bool,
}

/// The outcome of a command that ran to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code.
    pub exit_code: i32,
    /// Standard output and error, mixed, cut at 10 KiB.
    pub output: Vec<u8>,
}

/// One piece of output of an [`ExecSession`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard output (all output with a terminal).
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
}

/// A running exec or attach.
pub struct ExecSession {
    /// Standard input; dropping it closes it.
    pub stdin: Option<Pin<Box<dyn tokio::io::AsyncWrite + Send>>>,
    /// Output until the end.
    pub output: Pin<Box<dyn Stream<Item = Result<Output, RuntimeError>> + Send>>,
    /// Resizes the terminal and asks for the exit code.
    pub control: Box<dyn ExecControl>,
}

/// A connection to a port inside a pod.
pub type PodConnection = Box<dyn ByteStream>;

/// Bytes both ways, each of which ends by itself.
pub trait ByteStream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> ByteStream for T {}

/// The control side of an [`ExecSession`].
#[async_trait::async_trait]
pub trait ExecControl: Send + Sync {
    /// Sets the terminal's size in characters.
    async fn resize(&self, width: u16, height: u16) -> Result<(), RuntimeError>;
    /// The exit code, once the output has ended; `None` for an attach.
    async fn exit_code(&self) -> Result<Option<i32>, RuntimeError>;
}

/// What a runtime cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Single containers can be run and stopped (false at pod-level runtimes).
    pub container_control: bool,
    /// Exec and attach.
    pub exec: bool,
    /// Pods have network namespaces on this node, which the kubelet fills.
    pub network: bool,
    /// Volumes are directories on this node.
    pub volumes: bool,
}

/// How a runtime is set up on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuntimeFacts {
    /// Who makes its control groups, and in which version; `None` where it has none.
    pub control_groups: Option<(control_groups::Driver, control_groups::Version)>,
    /// The handlers that it knows, sorted.
    pub handlers: Vec<String>,
}

/// A hint that something about a pod may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// The pod's uid.
    pub pod_uid: String,
}

/// A stream of hints; ends when some may have been missed.
pub type EventStream = Pin<Box<dyn Stream<Item = RuntimeEvent> + Send>>;

/// Why a runtime call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The image is not on the node.
    #[error("image {0:?} is not present")]
    ImageNotPresent(String),
    /// The image could not be pulled.
    #[error("failed to pull image {image:?}: {message}")]
    Pull {
        /// Which.
        image: String,
        /// The registry's or the runtime's words.
        message: String,
    },
    /// The container could not be made (a bad spec).
    #[error("failed to create container: {0}")]
    Create(String),
    /// The container could not be started (no such program, no permission).
    #[error("failed to start container: {0}")]
    Start(String),
    /// The runtime does not know the pod's handler (containerd's words).
    #[error("failed to get sandbox runtime: no runtime for {0:?} is configured")]
    Handler(String),
    /// A port of the pod cannot be connected to.
    #[error("{0}")]
    Dial(String),
    /// The pod, sandbox or container does not exist.
    #[error("{0} not found")]
    NotFound(String),
    /// The runtime cannot do this at all.
    #[error("{0} is not supported by this runtime")]
    Unsupported(&'static str),
    /// The command took longer than allowed.
    #[error("command timed out after {0:?}")]
    Timeout(Duration),
    /// The runtime cannot be reached or failed inside; trying again may help.
    #[error("the container runtime failed: {0}")]
    Unavailable(String),
}

/// A container runtime as the kubelet uses it. The crate's documentation is the contract.
#[async_trait::async_trait]
pub trait PodRuntime: Send + Sync + 'static {
    /// `docker`, `simulated`: the scheme of container ids.
    fn name(&self) -> &'static str;
    /// What it cannot do.
    fn capabilities(&self) -> Capabilities;
    /// The runtime's version, for `nodeInfo.containerRuntimeVersion`.
    async fn version(&self) -> Result<String, RuntimeError>;
    /// How it is set up, as it is now.
    async fn facts(&self) -> Result<RuntimeFacts, RuntimeError>;

    /// Every pod of ours.
    async fn list(&self) -> Result<Vec<PodView>, RuntimeError>;
    /// One pod; `None` if the runtime knows nothing of it.
    async fn pod(&self, uid: &str) -> Result<Option<PodView>, RuntimeError>;
    /// Hints of changes.
    async fn events(&self) -> Result<EventStream, RuntimeError>;

    /// Makes and starts the sandbox of that attempt, unless it runs.
    async fn ensure_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxView, RuntimeError>;
    /// Makes and starts one container in the pod's running sandbox.
    async fn run_container(
        &self,
        pod: &PodIdentity,
        spec: &ContainerSpec,
    ) -> Result<ContainerView, RuntimeError>;
    /// Changes the limits of a running container; what is `None` stays as it is.
    async fn resize_container(
        &self,
        uid: &str,
        name: &str,
        attempt: u32,
        resources: &ContainerResources,
    ) -> Result<(), RuntimeError>;
    /// Asks a container to stop and kills it after `grace`; returns once it has ended.
    async fn stop_container(
        &self,
        uid: &str,
        name: &str,
        attempt: u32,
        grace: Duration,
    ) -> Result<(), RuntimeError>;
    /// Removes an ended container with its log.
    async fn remove_container(&self, uid: &str, name: &str, attempt: u32) -> Result<(), RuntimeError>;
    /// Stops a sandbox; its containers have ended before.
    async fn stop_sandbox(&self, uid: &str, attempt: u32) -> Result<(), RuntimeError>;
    /// Removes a dead sandbox that another has followed.
    async fn remove_sandbox(&self, uid: &str, attempt: u32) -> Result<(), RuntimeError>;
    /// Removes all of a pod: containers, sandboxes, logs. Kills what still runs.
    async fn remove_pod(&self, uid: &str) -> Result<(), RuntimeError>;

    /// The image of that reference, if it is on the node.
    async fn image(&self, reference: &str) -> Result<Option<ImageView>, RuntimeError>;
    /// Every image on the node.
    async fn images(&self) -> Result<Vec<ImageView>, RuntimeError>;
    /// Removes an image; refused while any container uses it or it has several names.
    async fn remove_image(&self, id: &str) -> Result<(), RuntimeError>;
    /// The directory on this node whose file system holds images; `None` if there is none.
    async fn image_root(&self) -> Result<Option<PathBuf>, RuntimeError>;
    /// Unpacks the files of an image into an empty directory on this node. Nothing of it lands outside; devices and
    /// pipes are left out. After a failure the directory may hold a part.
    async fn unpack_image(&self, id: &str, into: &Path) -> Result<(), RuntimeError>;
    /// The users and groups that an image knows.
    async fn image_accounts(&self, id: &str) -> Result<AccountFiles, RuntimeError>;
    /// Pulls an image.
    async fn pull(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<ImageView, RuntimeError>;

    /// The log of one run of a container.
    async fn logs(
        &self,
        uid: &str,
        name: &str,
        attempt: u32,
        options: &LogOptions,
    ) -> Result<LogStream, RuntimeError>;
    /// Runs a command to its end inside a running container.
    async fn exec_sync(
        &self,
        uid: &str,
        name: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError>;
    /// Starts a command inside a running container.
    async fn exec(&self, uid: &str, name: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError>;
    /// Joins the main process of a running container.
    async fn attach(&self, uid: &str, name: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError>;
    /// Connects to a port of the pod's own loopback interface, whoever of its containers listens there.
    async fn port_forward(&self, uid: &str, port: u16) -> Result<PodConnection, RuntimeError>;
    /// What all pods use.
    async fn usage(&self) -> Result<usage::RuntimeUsage, RuntimeError>;
}
