//! Pods on Docker: a pause container holds each pod's namespaces, the pod's containers join it.
//!
//! Everything known stands in Docker itself (names and labels, see `labels`), so that a restarted kubelet finds
//! its pods; what this process remembers only saves calls. Containers without our node label are never touched.
//! Docker must be on this machine: network namespaces, control groups and mounts are reached through `/proc`.

mod accounts;
mod create;
mod dial;
mod errors;
mod facts;
mod images;
mod index;
mod labels;
mod streams;
mod unpack;
mod usage;
mod view;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZero,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    query_parameters::{
        CreateContainerOptions, InspectContainerOptions, KillContainerOptions, ListContainersOptions,
        RemoveContainerOptions, StartContainerOptions, StopContainerOptions, WaitContainerOptions,
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use self::{
    index::{PodIndex, Sandbox},
    labels::Namespaces,
    view::{Inspected, Listed},
};
use crate::{
    AccountFiles, Capabilities, ContainerResources, ContainerSpec, ContainerState, ContainerView,
    EventStream, ExecOutput, ExecSession, ExecSpec, ImageView, LogOptions, LogStream, PodConnection,
    PodIdentity, PodRuntime, PodView, RegistryAuth, RuntimeError, RuntimeFacts, SandboxSpec, SandboxView,
    usage::{RuntimeUsage, disk::DiskMeter},
};

/// How long Docker may take to answer a call that waits for nothing.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How many inspect calls run at once: enough to hide the round trip, too few to make the daemon slow for others.
const PARALLEL_INSPECTIONS: usize = 8;

/// How many sandboxes are started at once for each processor, and beside them how many containers. Starts are work for
/// the machine, which more of them at once only slow down; and the first of many pods run while the last still wait.
const STARTS_PER_PROCESSOR: usize = 2;

/// How Docker is reached and shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerOptions {
    /// The node's name: what is made carries it, and only what carries it is seen.
    pub node: String,
    /// Docker's socket.
    pub socket: PathBuf,
    /// Image for sandboxes; `None` for our own pause program.
    pub sandbox_image: Option<String>,
    /// How old the figure of what a container has written may be; `None` for the usual.
    pub disk_age: Option<Duration>,
}

impl DockerOptions {
    /// Docker at its usual socket, our own pause program.
    #[must_use]
    pub fn new(node: impl Into<String>) -> Self {
        let socket = PathBuf::from("/var/run/docker.sock");
        Self { node: node.into(), socket, sandbox_image: None, disk_age: None }
    }
}

/// [`PodRuntime`] on a Docker daemon of this machine.
#[derive(Debug)]
pub struct DockerRuntime {
    docker: Docker,
    options: DockerOptions,
    node: create::Node,
    memory: view::Memory,
    /// Ids by pod uid. Only a short cut: a miss asks Docker. Written by whoever lists or makes.
    index: Mutex<HashMap<String, PodIndex>>,
    /// Done once our own sandbox image is known to be there.
    pause_image: OnceCell<()>,
    /// Docker's own directory, once it was asked for.
    storage: OnceCell<PathBuf>,
    /// What containers have written.
    disk: Arc<DiskMeter>,
    /// Turns to start something, first come, first served; never closed.
    sandbox_starts: Semaphore,
    container_starts: Semaphore,
}

impl DockerRuntime {
    /// Connects and agrees on an API version.
    pub async fn connect(options: DockerOptions) -> Result<Self, RuntimeError> {
        let socket = options.socket.to_string_lossy();
        let docker = Docker::connect_with_unix(&socket, CALL_TIMEOUT.as_secs(), API_DEFAULT_VERSION)
            .map_err(|error| errors::not_reached(&socket, &error))?
            .negotiate_version()
            .await
            .map_err(|error| errors::not_reached(&socket, &error))?;
        // Docker runs on this machine, and as a rule with the same rights as this process.
        let status = tokio::fs::read_to_string("/proc/self/status").await.unwrap_or_default();
        let own_score = tokio::fs::read_to_string("/proc/self/oom_score_adj").await.unwrap_or_default();
        let lowest_oom_score = create::lowest_oom_score(&status, &own_score);
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let starts = processors.saturating_mul(STARTS_PER_PROCESSOR);
        let connected = Self {
            docker,
            node: create::Node { name: options.node.clone(), lowest_oom_score },
            disk: Arc::new(options.disk_age.map_or_else(DiskMeter::default, DiskMeter::new)),
            options,
            memory: view::Memory::default(),
            index: Mutex::default(),
            pause_image: OnceCell::new(),
            storage: OnceCell::new(),
            sandbox_starts: Semaphore::new(starts),
            container_starts: Semaphore::new(starts),
        };
        // What an earlier process was unpacking when it ended.
        connected.remove_unpacked().await?;
        Ok(connected)
    }

    /// Removes every container of this node, running or not: for `minik8s down` and tests. Returns how many.
    pub async fn remove_everything(&self) -> Result<usize, RuntimeError> {
        let listed = self.list_containers(&[]).await?;
        let count = listed.len();
        self.remove_all(listed).await?;
        self.index.lock().clear();
        Ok(count)
    }

    /// Removes the containers that images were unpacked from.
    async fn remove_unpacked(&self) -> Result<(), RuntimeError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(labels::filter(&self.options.node, &[(labels::TYPE, labels::TYPE_IMAGE_VOLUME)])),
            ..ListContainersOptions::default()
        };
        let listed = self.docker.list_containers(Some(options)).await.map_err(errors::unavailable)?;
        for id in listed.into_iter().filter_map(|summary| summary.id) {
            self.remove(&id).await?;
        }
        Ok(())
    }

    async fn list_containers(&self, further: &[(&str, &str)]) -> Result<Vec<Listed>, RuntimeError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(labels::filter(&self.options.node, further)),
            ..ListContainersOptions::default()
        };
        let summaries = self.docker.list_containers(Some(options)).await.map_err(errors::unavailable)?;
        Ok(summaries.into_iter().filter_map(Listed::read).collect())
    }

    /// Inspects, remembering; `None` if it is gone meanwhile.
    async fn inspect(&self, id: &str) -> Result<Option<Inspected>, RuntimeError> {
        match self.docker.inspect_container(id, None::<InspectContainerOptions>).await {
            Ok(response) => {
                let inspected = Inspected::read(response);
                self.memory.keep(id, &inspected);
                Ok(Some(inspected))
            }
            Err(error) if errors::is_not_found(&error) => Ok(None),
            Err(error) => Err(errors::unavailable(error)),
        }
    }

    /// Turns list entries into pods, inspecting only what is not known.
    async fn views(&self, listed: Vec<Listed>) -> Result<Vec<PodView>, RuntimeError> {
        let details: Vec<(Listed, Option<Inspected>)> = stream::iter(listed)
            .map(async |entry| {
                let known = match self.memory.recall(&entry) {
                    // A dead sandbox has no exit code that anyone asks for.
                    None if !(entry.ended && entry.identity.container.is_none()) => {
                        self.inspect(&entry.id).await?
                    }
                    known => known,
                };
                Ok::<_, RuntimeError>((entry, known))
            })
            .buffered(PARALLEL_INSPECTIONS)
            .try_collect()
            .await?;
        let mut pods: BTreeMap<String, PodView> = BTreeMap::new();
        for (entry, inspected) in details {
            let pod = pods.entry(entry.identity.pod.uid.clone()).or_insert_with(|| PodView {
                pod: entry.identity.pod.clone(),
                sandboxes: Vec::new(),
                containers: Vec::new(),
            });
            match entry.identity.container.clone() {
                None => pod.sandboxes.push(sandbox_view(&entry, inspected.as_ref())),
                Some(name) => {
                    // Gone between list and inspect: it is not there.
                    let Some(inspected) = inspected else { continue };
                    pod.containers.push(ContainerView {
                        id: entry.id,
                        name,
                        attempt: entry.identity.attempt,
                        image: entry.identity.image,
                        image_id: entry.image_id,
                        state: inspected.state,
                        resources: inspected.resources,
                        annotations: entry.identity.annotations,
                    });
                }
            }
        }
        let mut pods: Vec<PodView> = pods.into_values().collect();
        for pod in &mut pods {
            pod.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.attempt));
            pod.containers.sort_by(|a, b| b.attempt.cmp(&a.attempt).then_with(|| a.name.cmp(&b.name)));
        }
        Ok(pods)
    }

    /// Lists one pod and renews its index.
    async fn list_pod(&self, uid: &str) -> Result<Vec<Listed>, RuntimeError> {
        let listed = self.list_containers(&[(labels::POD_UID, uid)]).await?;
        let mut index = PodIndex::default();
        listed.iter().for_each(|entry| index.add(entry));
        self.index.lock().insert(uid.to_owned(), index);
        Ok(listed)
    }

    /// Looks something up in a pod's index, asking Docker once where it is not there.
    async fn lookup<T>(
        &self,
        uid: &str,
        find: impl Fn(&PodIndex) -> Option<T>,
    ) -> Result<Option<T>, RuntimeError> {
        if let Some(found) = self.index.lock().get(uid).and_then(&find) {
            return Ok(Some(found));
        }
        self.list_pod(uid).await?;
        Ok(self.index.lock().get(uid).and_then(&find))
    }

    async fn container_id(
        &self,
        uid: &str,
        name: &str,
        attempt: u32,
    ) -> Result<Option<String>, RuntimeError> {
        let key = (name.to_owned(), attempt);
        self.lookup(uid, |index| index.containers.get(&key).cloned()).await
    }

    /// The id of the newest run of a container.
    async fn newest(&self, uid: &str, name: &str) -> Result<String, RuntimeError> {
        self.lookup(uid, |index| index.newest_container(name).cloned())
            .await?
            .ok_or_else(|| RuntimeError::NotFound(format!("container {name:?}")))
    }

    /// Creates a container, or finds the one that has its name already. Its id, and whether it is new.
    async fn create(
        &self,
        name: &str,
        image: &str,
        body: bollard::models::ContainerCreateBody,
    ) -> Result<(String, bool), RuntimeError> {
        let options =
            CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
        match self.docker.create_container(Some(options), body).await {
            Ok(response) => Ok((response.id, true)),
            Err(error) if errors::is_conflict(&error) => {
                let found = self.docker.inspect_container(name, None::<InspectContainerOptions>).await;
                let id = found.map_err(|error| errors::not_found(name, error))?.id;
                Ok((id.ok_or_else(|| RuntimeError::NotFound(name.to_owned()))?, false))
            }
            Err(error) => Err(errors::create(image, error)),
        }
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        self.docker.start_container(id, None::<StartContainerOptions>).await.map_err(errors::start)
    }

    /// Kills and waits until it has ended: Docker's kill call does, for SIGKILL.
    async fn kill(&self, id: &str) -> Result<(), RuntimeError> {
        let options = KillContainerOptions { signal: "SIGKILL".to_owned() };
        let killed = self.docker.kill_container(id, Some(options)).await;
        errors::ignore(killed, |error| errors::is_not_found(error) || errors::is_conflict(error))
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        match self.docker.remove_container(id, Some(options)).await {
            // Somebody else's removal of it is under way: wait for its end.
            Err(error) if errors::is_conflict(&error) => {
                let options = WaitContainerOptions { condition: "removed".to_owned() };
                let _ended = self.docker.wait_container(id, Some(options)).next().await;
                Ok(())
            }
            result => errors::ignore(result, errors::is_not_found),
        }
    }

    /// Removes applications' containers first, for their sandboxes hold what they stand on.
    async fn remove_all(&self, listed: Vec<Listed>) -> Result<(), RuntimeError> {
        let (sandboxes, containers): (Vec<_>, Vec<_>) =
            listed.into_iter().partition(|entry| entry.identity.container.is_none());
        for group in [containers, sandboxes] {
            stream::iter(group)
                .map(async |entry: Listed| self.remove(&entry.id).await)
                .buffer_unordered(PARALLEL_INSPECTIONS)
                .try_collect::<()>()
                .await?;
        }
        Ok(())
    }

    /// The image that a sandbox is made of, made first if it is ours and missing.
    async fn sandbox_image(&self, spec: &SandboxSpec) -> Result<String, RuntimeError> {
        if let Some(image) = spec.image.clone().or_else(|| self.options.sandbox_image.clone()) {
            return Ok(image);
        }
        self.pause_image.get_or_try_init(|| images::ensure_pause(&self.docker)).await?;
        Ok(images::pause_name())
    }
}

fn sandbox_view(entry: &Listed, inspected: Option<&Inspected>) -> SandboxView {
    let pid = inspected.and_then(Inspected::pid).filter(|_| entry.running);
    SandboxView {
        id: entry.id.clone(),
        attempt: entry.identity.attempt,
        ready: pid.is_some(),
        pid,
        created_at: view::seconds_since_epoch(entry.created),
        annotations: entry.identity.annotations.clone(),
    }
}

/// containerd makes a missing directory for a mount, and so does Docker for its older `-v`; its mounts API, which
/// alone takes every character in a path, does not.
async fn make_missing_sources(spec: &ContainerSpec) -> Result<(), RuntimeError> {
    for mount in &spec.mounts {
        if !tokio::fs::try_exists(&mount.source).await.unwrap_or(true) {
            tokio::fs::create_dir_all(&mount.source).await.map_err(|error| {
                RuntimeError::Create(format!("failed to create mount source {:?}: {error}", mount.source))
            })?;
        }
    }
    Ok(())
}

#[async_trait::async_trait]
impl PodRuntime for DockerRuntime {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { container_control: true, exec: true, network: true, volumes: true }
    }

    async fn version(&self) -> Result<String, RuntimeError> {
        let version = self.docker.version().await.map_err(errors::unavailable)?;
        Ok(version.version.unwrap_or_default())
    }

    async fn facts(&self) -> Result<RuntimeFacts, RuntimeError> {
        Ok(facts::read(&self.docker.info().await.map_err(errors::unavailable)?))
    }

    async fn list(&self) -> Result<Vec<PodView>, RuntimeError> {
        let listed = self.list_containers(&[]).await?;
        let mut pods: HashMap<String, PodIndex> = HashMap::new();
        for entry in &listed {
            pods.entry(entry.identity.pod.uid.clone()).or_default().add(entry);
        }
        *self.index.lock() = pods;
        self.memory.sweep(&listed);
        self.views(listed).await
    }

    async fn pod(&self, uid: &str) -> Result<Option<PodView>, RuntimeError> {
        let listed = self.list_pod(uid).await?;
        if listed.is_empty() {
            self.index.lock().remove(uid);
        }
        Ok(self.views(listed).await?.pop())
    }

    async fn events(&self) -> Result<EventStream, RuntimeError> {
        Ok(streams::events(&self.docker, &self.options.node))
    }

    async fn ensure_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxView, RuntimeError> {
        if let Some(handler) = &spec.handler
            && !self.facts().await?.handlers.contains(handler)
        {
            return Err(RuntimeError::Handler(handler.clone()));
        }
        let name = labels::container_name(&spec.pod, None, spec.attempt);
        let image = self.sandbox_image(spec).await?;
        let body = create::sandbox(&self.node, &image, spec);
        let turn = self.sandbox_starts.acquire().await;
        let (id, _) = match self.create(&name, &image, body.clone()).await {
            // Ours was pruned since we looked, or somebody's own was never pulled.
            Err(RuntimeError::ImageNotPresent(_)) => {
                if image == images::pause_name() {
                    images::ensure_pause(&self.docker).await?;
                } else {
                    self.pull(&image, None).await?;
                }
                self.create(&name, &image, body).await?
            }
            result => result?,
        };
        self.start(&id).await?;
        drop(turn);
        let inspected =
            self.inspect(&id).await?.ok_or_else(|| RuntimeError::NotFound(format!("sandbox {name}")))?;
        let sandbox = Sandbox {
            id: id.clone(),
            namespaces: Namespaces::from(spec),
            handler: spec.handler.clone(),
            running: true,
        };
        {
            let mut index = self.index.lock();
            let pod = index.entry(spec.pod.uid.clone()).or_default();
            pod.pod = Some(spec.pod.clone());
            pod.sandboxes.insert(spec.attempt, sandbox);
        }
        let pid = inspected.pid();
        Ok(SandboxView {
            id,
            attempt: spec.attempt,
            ready: pid.is_some(),
            pid,
            created_at: inspected.created_at,
            annotations: spec.annotations.clone(),
        })
    }

    async fn run_container(
        &self,
        pod: &PodIdentity,
        spec: &ContainerSpec,
    ) -> Result<ContainerView, RuntimeError> {
        let sandbox = self
            .lookup(&pod.uid, |index| index.newest_sandbox().cloned())
            .await?
            .ok_or_else(|| RuntimeError::NotFound("running sandbox".to_owned()))?;
        make_missing_sources(spec).await?;
        let name = labels::container_name(pod, Some(&spec.name), spec.attempt);
        let target = match &spec.joins {
            Some((name, attempt)) => Some(
                self.container_id(&pod.uid, name, *attempt)
                    .await?
                    .ok_or_else(|| RuntimeError::Create(format!("unable to find target container {name}")))?,
            ),
            None => None,
        };
        let body = create::container(&self.node, pod, &sandbox, target.as_deref(), spec);
        let turn = self.container_starts.acquire().await;
        let (id, fresh) = self.create(&name, &spec.image, body).await?;
        let inspect = async || {
            let inspected = self.inspect(&id).await?;
            inspected.ok_or_else(|| RuntimeError::NotFound(format!("container {name}")))
        };
        // One that is there already is started only if it never was: once per attempt is the contract.
        if fresh || inspect().await?.state == ContainerState::Created {
            self.start(&id).await?;
        }
        drop(turn);
        let inspected = inspect().await?;
        let key = (spec.name.clone(), spec.attempt);
        self.index.lock().entry(pod.uid.clone()).or_default().containers.insert(key, id.clone());
        Ok(ContainerView {
            id,
            name: spec.name.clone(),
            attempt: spec.attempt,
            image: spec.image.clone(),
            image_id: inspected.image_id,
            state: inspected.state,
            resources: inspected.resources,
            annotations: spec.annotations.clone(),
        })
    }

    async fn resize_container(
        &self,
        uid: &str,
        name: &str,
        attempt: u32,
        resources: &ContainerResources,
    ) -> Result<(), RuntimeError> {
        let id = self.container_id(uid, name, attempt).await?;
        let id = id.ok_or_else(|| RuntimeError::NotFound(format!("container {name:?}")))?;
        let changed = self.docker.update_container(&id, create::update(resources)).await;
        changed.map_err(|error| RuntimeError::Unavailable(errors::message(&error)))?;
        // What is remembered of it is not true any more.
        self.inspect(&id).await.map(|_| ())
    }

    async fn stop_container(
        &self,
        uid: &str,
        name: &str,
        attempt: u32,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let Some(id) = self.container_id(uid, name, attempt).await? else { return Ok(()) };
        if grace.is_zero() {
            return self.kill(&id).await;
        }
        let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptions { t: Some(seconds), signal: None };
        // The call answers when the container has ended: the daemon gets its usual time on top of the grace.
        let patient = self.docker.clone().with_timeout(CALL_TIMEOUT.saturating_add(grace));
        let stopped = patient.stop_container(&id, Some(options)).await;
        errors::ignore(stopped, errors::is_not_found)
    }

    async fn remove_container(&self, uid: &str, name: &str, attempt: u32) -> Result<(), RuntimeError> {
        if let Some(id) = self.container_id(uid, name, attempt).await? {
            self.remove(&id).await?;
        }
        if let Some(index) = self.index.lock().get_mut(uid) {
            index.containers.remove(&(name.to_owned(), attempt));
        }
        Ok(())
    }

    async fn stop_sandbox(&self, uid: &str, attempt: u32) -> Result<(), RuntimeError> {
        let found = self.lookup(uid, |index| index.sandboxes.get(&attempt).cloned()).await?;
        let Some(sandbox) = found else { return Ok(()) };
        self.kill(&sandbox.id).await?;
        let mut index = self.index.lock();
        if let Some(sandbox) = index.get_mut(uid).and_then(|pod| pod.sandboxes.get_mut(&attempt)) {
            sandbox.running = false;
        }
        Ok(())
    }

    async fn remove_sandbox(&self, uid: &str, attempt: u32) -> Result<(), RuntimeError> {
        let found = self.lookup(uid, |index| index.sandboxes.get(&attempt).cloned()).await?;
        let Some(sandbox) = found else { return Ok(()) };
        self.remove(&sandbox.id).await?;
        if let Some(pod) = self.index.lock().get_mut(uid) {
            pod.sandboxes.remove(&attempt);
        }
        Ok(())
    }

    async fn remove_pod(&self, uid: &str) -> Result<(), RuntimeError> {
        let listed = self.list_pod(uid).await?;
        self.remove_all(listed).await?;
        self.index.lock().remove(uid);
        Ok(())
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageView>, RuntimeError> {
        images::image(&self.docker, reference).await
    }

    async fn images(&self) -> Result<Vec<ImageView>, RuntimeError> {
        let mut found = images::images(&self.docker).await?;
        let ours = self.options.sandbox_image.clone().unwrap_or_else(images::pause_name);
        for image in &mut found {
            image.pinned = image.names.contains(&ours);
        }
        Ok(found)
    }

    async fn remove_image(&self, id: &str) -> Result<(), RuntimeError> {
        images::remove(&self.docker, id).await
    }

    async fn image_root(&self) -> Result<Option<PathBuf>, RuntimeError> {
        Ok(self.storage().await)
    }

    async fn unpack_image(&self, id: &str, into: &Path) -> Result<(), RuntimeError> {
        let name = unpack::container_name("image-volume", &self.options.node, id);
        let (container, _) = self.create(&name, id, unpack::container(&self.options.node, id)).await?;
        let unpacked = async {
            let found = self.docker.inspect_container(&container, None::<InspectContainerOptions>).await;
            let created = found.map_err(errors::unavailable)?.created.unwrap_or_default();
            let created = created.parse::<jiff::Timestamp>().unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            unpack::stream(&self.docker, &container, created.as_second(), into).await
        };
        let unpacked = unpacked.await;
        self.remove(&container).await?;
        unpacked
    }

    async fn image_accounts(&self, id: &str) -> Result<AccountFiles, RuntimeError> {
        let name = unpack::container_name("image-accounts", &self.options.node, id);
        let (container, _) = self.create(&name, id, unpack::container(&self.options.node, id)).await?;
        let read = accounts::read(&self.docker, &container).await;
        self.remove(&container).await?;
        read
    }

    async fn pull(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<ImageView, RuntimeError> {
        images::pull(&self.docker, reference, auth).await
    }

    async fn logs(
        &self,
        uid: &str,
        name: &str,
        attempt: u32,
        options: &LogOptions,
    ) -> Result<LogStream, RuntimeError> {
        let id = self.container_id(uid, name, attempt).await?;
        let id = id.ok_or_else(|| RuntimeError::NotFound(format!("container {name:?}")))?;
        streams::logs(&self.docker, &id, options).await
    }

    async fn exec_sync(
        &self,
        uid: &str,
        name: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let id = self.newest(uid, name).await?;
        streams::exec_sync(&self.docker, &id, command, timeout).await
    }

    async fn exec(&self, uid: &str, name: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError> {
        let id = self.newest(uid, name).await?;
        streams::exec(&self.docker, &id, spec).await
    }

    async fn attach(&self, uid: &str, name: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError> {
        let id = self.newest(uid, name).await?;
        streams::attach(&self.docker, &id, spec).await
    }

    async fn port_forward(&self, uid: &str, port: u16) -> Result<PodConnection, RuntimeError> {
        let missing = || RuntimeError::NotFound("running sandbox".to_owned());
        let sandbox = self.lookup(uid, |index| index.newest_sandbox().cloned()).await?.ok_or_else(missing)?;
        let inspected = self.inspect(&sandbox.id).await?;
        let pid = inspected.as_ref().and_then(Inspected::pid).ok_or_else(missing)?;
        Ok(Box::new(dial::dial(pid, port).await?))
    }

    async fn usage(&self) -> Result<RuntimeUsage, RuntimeError> {
        self.measure().await
    }
}

impl DockerRuntime {
    /// Makes a local image from files, without a registry: for tests and examples. Each file is its path in the
    /// image and its bytes (all executable); `changes` are Dockerfile instructions (`ENTRYPOINT ["/app"]`).
    pub async fn import_image(
        &self,
        name: &str,
        files: &[(&str, &[u8])],
        changes: &[&str],
    ) -> Result<(), RuntimeError> {
        images::import(&self.docker, name, files, changes).await
    }

    /// Makes a local image that is a busybox: its one program under the name of each of its applets.
    pub async fn import_busybox(
        &self,
        name: &str,
        program: &[u8],
        changes: &[&str],
    ) -> Result<(), RuntimeError> {
        images::import_busybox(&self.docker, name, program, changes).await
    }
}
