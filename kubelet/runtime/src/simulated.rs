//! Pods that only pretend, for load tests: thousands of them cost a few kilobytes each and no process.
//!
//! It keeps [`PodRuntime`]'s contract as far as there is something to keep: states, attempts, events, idempotence.
//! Delays use tokio's clock, so that tests under paused time run at once. Failures are drawn from the identity of
//! what starts, not from a random source: the same pods fail in every run.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::Ipv4Addr,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::{
    ADDRESS_ANNOTATION, AccountFiles, Capabilities, ContainerSpec, ContainerState, ContainerView,
    EventStream, ExecOutput, ExecSession, ExecSpec, ImageView, LogOptions, LogStream, PodConnection,
    PodIdentity, PodRuntime, PodView, RegistryAuth, RuntimeError, RuntimeEvent, RuntimeFacts, SandboxSpec,
    SandboxView,
    usage::{ContainerUsage, PodUsage, RuntimeUsage},
};

/// How many hints a reader may lag behind before its stream ends (and it lists again): the starts and ends of a
/// few hundred pods at once.
const EVENT_BACKLOG: usize = 1024;

/// What the pretending looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulatedOptions {
    /// How long a container takes to start.
    pub start_delay: Duration,
    /// Share of container starts that fail, 0 to 1.
    pub failure_rate: f64,
    /// First address that pods get; `None` for pods without addresses.
    pub first_address: Option<Ipv4Addr>,
    /// How many addresses there are from the first one on.
    pub address_count: u32,
}

impl Default for SimulatedOptions {
    fn default() -> Self {
        Self { start_delay: Duration::ZERO, failure_rate: 0.0, first_address: None, address_count: 0 }
    }
}

/// [`PodRuntime`] without containers.
#[derive(Debug)]
pub struct SimulatedRuntime {
    options: SimulatedOptions,
    state: Mutex<State>,
    events: broadcast::Sender<RuntimeEvent>,
}

#[derive(Debug, Default)]
struct State {
    pods: HashMap<String, Pod>,
    /// Addresses in use, as offsets from the first.
    taken: HashSet<u32>,
    /// Where the search for a free address goes on.
    next: u32,
    /// Made so far: ids count up.
    made: u64,
}

#[derive(Debug)]
struct Pod {
    identity: PodIdentity,
    address: Option<u32>,
    sandboxes: BTreeMap<u32, SandboxView>,
    containers: BTreeMap<(String, u32), ContainerView>,
}

impl Pod {
    fn view(&self) -> PodView {
        PodView {
            pod: self.identity.clone(),
            sandboxes: self.sandboxes.values().rev().cloned().collect(),
            containers: {
                let mut containers: Vec<ContainerView> = self.containers.values().cloned().collect();
                containers.sort_by(|a, b| b.attempt.cmp(&a.attempt).then_with(|| a.name.cmp(&b.name)));
                containers
            },
        }
    }
}

impl State {
    fn id(&mut self) -> String {
        self.made += 1;
        format!("{:064x}", self.made)
    }

    fn allocate(&mut self, count: u32) -> Option<u32> {
        let offset =
            (0..count).map(|step| (self.next + step) % count).find(|offset| !self.taken.contains(offset))?;
        self.taken.insert(offset);
        self.next = (offset + 1) % count;
        Some(offset)
    }
}

fn now() -> String {
    Timestamp::from_second(Timestamp::now().as_second()).expect("the present must be a timestamp").to_string()
}

fn ended(started_at: String, exit_code: i32, error: &str) -> ContainerState {
    let error = error.to_owned();
    ContainerState::Exited { started_at, finished_at: now(), exit_code, oom_killed: false, error }
}

/// Ends a container; `false` if it had ended before.
fn end(container: &mut ContainerView, exit_code: i32) -> bool {
    let started_at = match &container.state {
        ContainerState::Exited { .. } => return false,
        ContainerState::Created => String::new(),
        ContainerState::Running { started_at, .. } => started_at.clone(),
    };
    container.state = ended(started_at, exit_code, "");
    true
}

impl SimulatedRuntime {
    /// A runtime with nothing on it.
    #[must_use]
    pub fn new(options: SimulatedOptions) -> Self {
        Self { options, state: Mutex::default(), events: broadcast::Sender::new(EVENT_BACKLOG) }
    }

    /// Ends the newest run of a container, as if its process had: for tests of what reacts to that.
    pub fn finish(&self, uid: &str, name: &str, exit_code: i32) -> Result<(), RuntimeError> {
        let missing = || RuntimeError::NotFound(format!("container {name:?}"));
        let mut state = self.state.lock();
        let pod = state.pods.get_mut(uid).ok_or_else(missing)?;
        let newest = pod.containers.iter_mut().rev().find(|((of, _), _)| of == name);
        let (_, container) = newest.ok_or_else(missing)?;
        if end(container, exit_code) {
            self.tell(uid);
        }
        Ok(())
    }

    fn tell(&self, uid: &str) {
        // Nobody listening is no failure.
        let _listeners = self.events.send(RuntimeEvent { pod_uid: uid.to_owned() });
    }

    fn fails(&self, uid: &str, name: &str, attempt: u32) -> bool {
        let mut hasher = DefaultHasher::new();
        (uid, name, attempt).hash(&mut hasher);
        // The upper bits as a number from 0 to 1.
        let draw = (hasher.finish() >> 32) as f64 / f64::from(u32::MAX);
        draw < self.options.failure_rate
    }

    fn address(&self, offset: u32) -> Option<Ipv4Addr> {
        let first = u32::from(self.options.first_address?);
        first.checked_add(offset).map(Ipv4Addr::from)
    }

    fn image_view(reference: &str) -> ImageView {
        ImageView {
            id: format!("simulated:{reference}"),
            pinned: false,
            names: vec![reference.to_owned()],
            size: 0,
            user: String::new(),
        }
    }
}

#[async_trait::async_trait]
impl PodRuntime for SimulatedRuntime {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { container_control: true, exec: false, network: false, volumes: false }
    }

    async fn version(&self) -> Result<String, RuntimeError> {
        Ok(env!("CARGO_PKG_VERSION").to_owned())
    }

    async fn facts(&self) -> Result<RuntimeFacts, RuntimeError> {
        Ok(RuntimeFacts::default())
    }

    async fn list(&self) -> Result<Vec<PodView>, RuntimeError> {
        Ok(self.state.lock().pods.values().map(Pod::view).collect())
    }

    async fn pod(&self, uid: &str) -> Result<Option<PodView>, RuntimeError> {
        Ok(self.state.lock().pods.get(uid).map(Pod::view))
    }

    async fn events(&self) -> Result<EventStream, RuntimeError> {
        let receiver = self.events.subscribe();
        Ok(Box::pin(stream::unfold(receiver, async |mut receiver| {
            // Lagged or closed: something may be missed, so the stream ends.
            receiver.recv().await.ok().map(|event| (event, receiver))
        })))
    }

    async fn ensure_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxView, RuntimeError> {
        let mut state = self.state.lock();
        let uid = &spec.pod.uid;
        if let Some(running) = state.pods.get(uid).and_then(|pod| pod.sandboxes.get(&spec.attempt))
            && running.ready
        {
            return Ok(running.clone());
        }
        let id = state.id();
        let had = state.pods.get(uid).and_then(|pod| pod.address);
        let offset = had.or_else(|| state.allocate(self.options.address_count));
        let mut annotations = spec.annotations.clone();
        if let Some(address) = offset.and_then(|offset| self.address(offset)) {
            annotations.insert(ADDRESS_ANNOTATION.to_owned(), address.to_string());
        }
        let sandbox =
            SandboxView { id, attempt: spec.attempt, ready: true, pid: None, created_at: now(), annotations };
        let pod = state.pods.entry(uid.clone()).or_insert_with(|| Pod {
            identity: spec.pod.clone(),
            address: None,
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
        });
        pod.address = offset;
        pod.sandboxes.insert(spec.attempt, sandbox.clone());
        self.tell(uid);
        Ok(sandbox)
    }

    async fn run_container(
        &self,
        pod: &PodIdentity,
        spec: &ContainerSpec,
    ) -> Result<ContainerView, RuntimeError> {
        let key = (spec.name.clone(), spec.attempt);
        {
            let mut state = self.state.lock();
            let id = state.id();
            let known = state
                .pods
                .get_mut(&pod.uid)
                .filter(|pod| pod.sandboxes.values().any(|sandbox| sandbox.ready));
            let known = known.ok_or_else(|| RuntimeError::NotFound("running sandbox".to_owned()))?;
            match known.containers.get(&key).map(|container| &container.state) {
                None | Some(ContainerState::Created) => {}
                Some(ContainerState::Running { .. } | ContainerState::Exited { .. }) => {
                    return Ok(known.containers[&key].clone());
                }
            }
            let created = ContainerView {
                id,
                name: spec.name.clone(),
                attempt: spec.attempt,
                image: spec.image.clone(),
                image_id: format!("simulated:{}", spec.image),
                state: ContainerState::Created,
                resources: None,
                annotations: spec.annotations.clone(),
            };
            known.containers.entry(key.clone()).or_insert(created);
        }
        tokio::time::sleep(self.options.start_delay).await;
        let mut state = self.state.lock();
        let gone = || RuntimeError::NotFound(format!("container {:?}", spec.name));
        let container =
            state.pods.get_mut(&pod.uid).and_then(|pod| pod.containers.get_mut(&key)).ok_or_else(gone)?;
        // Stopped while it started: it stays so.
        if container.state == ContainerState::Created {
            if self.fails(&pod.uid, &spec.name, spec.attempt) {
                let reason = "simulated failure";
                container.state = ended(String::new(), 128, reason);
                self.tell(&pod.uid);
                return Err(RuntimeError::Start(reason.to_owned()));
            }
            container.state = ContainerState::Running { started_at: now(), pid: 0 };
            self.tell(&pod.uid);
        }
        Ok(container.clone())
    }

    async fn stop_container(
        &self,
        uid: &str,
        name: &str,
        attempt: u32,
        _grace: Duration,
    ) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let key = (name.to_owned(), attempt);
        let container = state.pods.get_mut(uid).and_then(|pod| pod.containers.get_mut(&key));
        if container.is_some_and(|container| end(container, 0)) {
            self.tell(uid);
        }
        Ok(())
    }

    async fn remove_container(&self, uid: &str, name: &str, attempt: u32) -> Result<(), RuntimeError> {
        if let Some(pod) = self.state.lock().pods.get_mut(uid) {
            pod.containers.remove(&(name.to_owned(), attempt));
        }
        Ok(())
    }

    async fn remove_sandbox(&self, uid: &str, attempt: u32) -> Result<(), RuntimeError> {
        if let Some(pod) = self.state.lock().pods.get_mut(uid) {
            pod.sandboxes.remove(&attempt);
        }
        Ok(())
    }

    async fn stop_sandbox(&self, uid: &str, attempt: u32) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        if let Some(sandbox) = state.pods.get_mut(uid).and_then(|pod| pod.sandboxes.get_mut(&attempt)) {
            sandbox.ready = false;
            self.tell(uid);
        }
        Ok(())
    }

    async fn remove_pod(&self, uid: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        if let Some(pod) = state.pods.remove(uid) {
            if let Some(offset) = pod.address {
                state.taken.remove(&offset);
            }
            self.tell(uid);
        }
        Ok(())
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageView>, RuntimeError> {
        Ok(Some(Self::image_view(reference)))
    }

    async fn images(&self) -> Result<Vec<ImageView>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn resize_container(
        &self,
        _uid: &str,
        _name: &str,
        _attempt: u32,
        _resources: &crate::ContainerResources,
    ) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn remove_image(&self, _id: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn image_root(&self) -> Result<Option<std::path::PathBuf>, RuntimeError> {
        Ok(None)
    }

    async fn image_accounts(&self, _id: &str) -> Result<AccountFiles, RuntimeError> {
        Err(RuntimeError::Unsupported("accounts of images"))
    }

    async fn unpack_image(&self, _id: &str, _into: &std::path::Path) -> Result<(), RuntimeError> {
        Err(RuntimeError::Unsupported("unpacking an image"))
    }

    async fn pull(&self, reference: &str, _auth: Option<&RegistryAuth>) -> Result<ImageView, RuntimeError> {
        Ok(Self::image_view(reference))
    }

    async fn logs(
        &self,
        uid: &str,
        name: &str,
        attempt: u32,
        _options: &LogOptions,
    ) -> Result<LogStream, RuntimeError> {
        let state = self.state.lock();
        let key = (name.to_owned(), attempt);
        if !state.pods.get(uid).is_some_and(|pod| pod.containers.contains_key(&key)) {
            return Err(RuntimeError::NotFound(format!("container {name:?}")));
        }
        let line = Bytes::from(format!("simulated container {name} writes nothing more\n"));
        Ok(stream::iter([Ok(line)]).boxed())
    }

    async fn exec_sync(
        &self,
        _uid: &str,
        _name: &str,
        _command: &[String],
        _timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        Err(RuntimeError::Unsupported("exec"))
    }

    async fn exec(&self, _uid: &str, _name: &str, _spec: &ExecSpec) -> Result<ExecSession, RuntimeError> {
        Err(RuntimeError::Unsupported("exec"))
    }

    async fn attach(&self, _uid: &str, _name: &str, _spec: &ExecSpec) -> Result<ExecSession, RuntimeError> {
        Err(RuntimeError::Unsupported("attach"))
    }

    async fn port_forward(&self, _uid: &str, _port: u16) -> Result<PodConnection, RuntimeError> {
        Err(RuntimeError::Unsupported("port-forward"))
    }

    async fn usage(&self) -> Result<RuntimeUsage, RuntimeError> {
        let state = self.state.lock();
        let running = |container: &&ContainerView| matches!(container.state, ContainerState::Running { .. });
        let idle = |container: &ContainerView| ContainerUsage {
            name: container.name.clone(),
            runtime_name: container.id.clone(),
            image: container.image.clone(),
            ..ContainerUsage::default()
        };
        let mut pods: Vec<PodUsage> = state
            .pods
            .values()
            .map(|pod| PodUsage {
                pod: pod.identity.clone(),
                group: None,
                sandbox: None,
                containers: pod.containers.values().filter(running).map(idle).collect(),
                interfaces: Vec::new(),
            })
            .collect();
        pods.sort_by(|one, other| one.pod.uid.cmp(&other.pod.uid));
        Ok(RuntimeUsage { pods, ..RuntimeUsage::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[tokio::test(start_paused = true)]
    async fn a_start_takes_its_time() {
        let start_delay = Duration::from_secs(3);
        let runtime = SimulatedRuntime::new(SimulatedOptions { start_delay, ..Default::default() });
        let sandbox = testing::sandbox_spec("slow");
        runtime.ensure_sandbox(&sandbox).await.unwrap();
        let before = tokio::time::Instant::now();
        runtime.run_container(&sandbox.pod, &testing::container_spec("app", &[])).await.unwrap();
        assert_eq!(before.elapsed(), start_delay);
    }

    #[tokio::test]
    async fn about_as_many_fail_as_asked_for_and_the_same_ones_each_time() {
        let options = SimulatedOptions { failure_rate: 0.25, ..Default::default() };
        let (one, two) = (SimulatedRuntime::new(options.clone()), SimulatedRuntime::new(options));
        let failed = (0..4000).filter(|&attempt| one.fails("uid", "app", attempt)).count();
        assert!((800..1200).contains(&failed), "{failed} of 4000");
        assert!(
            (0..4000).all(|attempt| one.fails("uid", "app", attempt) == two.fails("uid", "app", attempt))
        );
    }

    #[tokio::test]
    async fn addresses_are_unique_and_given_back() {
        let options = SimulatedOptions {
            first_address: Some(Ipv4Addr::new(10, 244, 0, 2)),
            address_count: 2,
            ..Default::default()
        };
        let runtime = SimulatedRuntime::new(options);
        let specs = ["a", "b", "c"].map(testing::sandbox_spec);
        let mut addresses = Vec::new();
        for spec in &specs {
            let view = runtime.ensure_sandbox(spec).await.unwrap();
            addresses.push(view.annotations.get(ADDRESS_ANNOTATION).cloned());
        }
        let expected = [Some("10.244.0.2".to_owned()), Some("10.244.0.3".to_owned()), None];
        assert_eq!(addresses, expected, "the third goes without");
        runtime.remove_pod(&specs[0].pod.uid).await.unwrap();
        let view = runtime.ensure_sandbox(&testing::sandbox_spec("d")).await.unwrap();
        assert_eq!(view.annotations[ADDRESS_ANNOTATION], "10.244.0.2");
    }

    #[tokio::test]
    async fn a_reader_that_lags_is_ended() {
        let runtime = SimulatedRuntime::new(SimulatedOptions::default());
        let mut events = runtime.events().await.unwrap();
        for _ in 0..=EVENT_BACKLOG {
            runtime.tell("uid");
        }
        assert_eq!(events.next().await, None);
    }
}
