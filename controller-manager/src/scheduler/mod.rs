//! The scheduler: each pod gets the best node that can take it, or is told why there is none.
//!
//! One task owns everything it knows (the snapshot and the queue) and decides one pod after the other;
//! bindings are written by other tasks meanwhile, the pod being counted on its node at once (*assumed*). What
//! is assumed is forgotten if the binding fails, and confirmed by the watch otherwise. Only `bind` writes.

pub mod affinity;
pub mod bind;
pub mod config;
pub mod filters;
pub mod queue;
pub mod requests;
pub mod scores;
pub mod snapshot;
pub mod tolerations;
pub mod volumes;

use std::{collections::HashMap, sync::Arc};

use client::{Change, Informer, Key, Scope};
use rand::Rng;
use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, warn};

use crate::controllers::{Context, resource};
use bind::Binder;
use config::SchedulerConfig;
use queue::SchedulingQueue;
use scores::Strategy;
use snapshot::{NodeInfo, NodeState, PodInfo, Snapshot};
use volumes::{Plan, VolumeWorld};

/// The name pods ask for this scheduler by.
const SCHEDULER_NAME: &str = "default-scheduler";
/// Bindings under way at once. Each is one small request; more only wait for the same store.
const BINDINGS: usize = 64;

/// Starts the scheduler.
pub fn start(context: &Context) {
    let pods_resource = resource("", "v1", "pods");
    let pods = context.informers.watch(&pods_resource, &Scope::default(), PodInfo::project);
    let nodes = context.informers.watch(&resource("", "v1", "nodes"), &Scope::default(), NodeInfo::project);
    let scope = Scope {
        namespace: config::NAMESPACE.into(),
        field_selector: format!("metadata.name={}", config::NAME),
        ..Scope::default()
    };
    let configuration =
        context.informers.watch(&resource("", "v1", "configmaps"), &scope, SchedulerConfig::project);
    let world = VolumeWorld::watch(context);
    let binder = Binder {
        client: context.client.clone(),
        recorder: context.recorder(SCHEDULER_NAME),
        pods: pods_resource,
    };
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        let synced =
            async { tokio::join!(pods.synced(), nodes.synced(), configuration.synced(), world.synced()) };
        if context.shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        let shutdown = context.shutdown.clone();
        let scheduler = Scheduler::new(context, binder, configuration, world);
        shutdown.run_until_cancelled(scheduler.run(&pods, &nodes)).await;
    });
}

/// What came of a write.
enum Outcome {
    Bound(Key),
    Failed(Key, client::Error),
    /// The pod's volumes were not to be had after all; why.
    NoVolumes(Key, String),
}

/// An outcome, and whether it was counted as under way.
type Report = (Outcome, bool);

struct Scheduler {
    context: Context,
    binder: Binder,
    configuration: Informer<SchedulerConfig>,
    world: VolumeWorld,
    snapshot: Snapshot,
    queue: SchedulingQueue,
    /// Pods that want a node, as last seen.
    waiting: HashMap<Key, Arc<PodInfo>>,
    /// Pods whose binding is on its way or not yet confirmed by the watch.
    assumed: HashMap<Key, String>,
    outcomes: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    /// Bindings under way; pods that wait for their volumes do not count, for that may take minutes.
    in_flight: usize,
}

impl Scheduler {
    fn new(
        context: Context,
        binder: Binder,
        configuration: Informer<SchedulerConfig>,
        world: VolumeWorld,
    ) -> Self {
        Self {
            context,
            binder,
            configuration,
            world,
            snapshot: Snapshot::default(),
            queue: SchedulingQueue::default(),
            waiting: HashMap::new(),
            assumed: HashMap::new(),
            // One slot for each binding under way; what waits for volumes may wait a little more.
            outcomes: mpsc::channel(BINDINGS),
            in_flight: 0,
        }
    }

    async fn run(mut self, pods: &Informer<PodInfo>, nodes: &Informer<NodeInfo>) {
        let (mut pods, mut nodes) = (pods.subscribe(), nodes.subscribe());
        let world = self.world.clone();
        let (mut claims, mut volumes, mut classes) =
            (world.claims.subscribe(), world.volumes.subscribe(), world.classes.subscribe());
        loop {
            let wake = self.queue.next_wake();
            let can_try = self.queue.has_active() && self.in_flight < BINDINGS;
            tokio::select! {
                biased;
                changes = nodes.recv() => self.nodes_changed(changes),
                changes = pods.recv() => self.pods_changed(changes),
                _ = claims.recv() => self.queue.cluster_changed(Instant::now()),
                _ = volumes.recv() => self.queue.cluster_changed(Instant::now()),
                _ = classes.recv() => self.queue.cluster_changed(Instant::now()),
                Some((outcome, counted)) = self.outcomes.1.recv() => {
                    self.in_flight -= usize::from(counted);
                    self.settle(outcome);
                }
                () = std::future::ready(()), if can_try => self.schedule_one(),
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() && !can_try => {
                    if self.in_flight < BINDINGS {
                        self.schedule_one();
                    }
                }
            }
        }
    }

    fn nodes_changed(&mut self, changes: Vec<Change<NodeInfo>>) {
        let mut helps = false;
        for change in changes {
            match (&change.before, change.after) {
                (_, None) => self.snapshot.remove_node(&change.key.name),
                (Some(before), Some(after)) if **before == *after => {}
                (_, Some(after)) => {
                    self.snapshot.set_node(after);
                    helps = true;
                }
            }
        }
        if helps {
            self.queue.cluster_changed(Instant::now());
        }
    }

    fn pods_changed(&mut self, changes: Vec<Change<PodInfo>>) {
        let mut freed = false;
        for Change { key, before, after } in changes {
            let Some(pod) = after else {
                self.forget(&key);
                freed |= self.snapshot.remove_pod(&key);
                continue;
            };
            if pod.finished {
                self.forget(&key);
                freed |= self.snapshot.remove_pod(&key);
            } else if !pod.node.is_empty() {
                self.forget(&key);
                // A pod that asks for less, or is called otherwise, may make room for one that waits.
                freed |= before.is_some_and(|before| {
                    !before.node.is_empty()
                        && (before.requests != pod.requests || before.labels != pod.labels)
                });
                self.snapshot.place(&key, &pod, &pod.node.clone());
            } else if pod.scheduler == SCHEDULER_NAME && !pod.deleting {
                self.wants_node(&key, before.as_deref(), &pod);
            } else {
                self.forget(&key);
            }
        }
        if freed {
            self.queue.cluster_changed(Instant::now());
        }
    }

    fn wants_node(&mut self, key: &Key, before: Option<&PodInfo>, pod: &Arc<PodInfo>) {
        let same_pod = before.filter(|before| before.uid == pod.uid);
        if before.is_some() && same_pod.is_none() {
            self.forget(key);
        }
        if self.assumed.contains_key(key) {
            // An update from before the binding; the node is decided.
            return;
        }
        // Our own report changes the pod, too: that alone is no reason to try again.
        let tried_as_is = same_pod.is_some_and(|before| {
            PodInfo { waiting_for: None, ..before.clone() }
                == PodInfo { waiting_for: None, ..(**pod).clone() }
        });
        self.waiting.insert(key.clone(), pod.clone());
        if pod.gated {
            self.queue.remove(key);
            self.report(key, pod, bind::GATED, "Scheduling is blocked due to non-empty scheduling gates");
        } else if !tried_as_is {
            self.queue.add(key, pod.priority);
        }
    }

    fn forget(&mut self, key: &Key) {
        self.queue.remove(key);
        self.waiting.remove(key);
        self.assumed.remove(key);
    }

    fn schedule_one(&mut self) {
        let Some(key) = self.queue.pop(Instant::now()) else { return };
        let Some(pod) = self.waiting.get(&key).cloned() else {
            self.queue.remove(&key);
            return;
        };
        match self.place_for(&key, &pod) {
            Ok((node, plans)) => self.assume(key, pod, node, plans),
            Err(message) => {
                debug!(pod = %key, message, "unschedulable");
                self.queue.unschedulable(&key, Instant::now());
                self.report(&key, &pod, bind::UNSCHEDULABLE, &message);
            }
        }
    }

    /// The best node for a pod and what its volumes need there, or why there is none.
    fn place_for(&self, key: &Key, pod: &Arc<PodInfo>) -> Result<(String, Vec<Plan>), String> {
        let wants = self.world.wants(&key.namespace, pod).map_err(|why| {
            // What keeps a pod off every node is said once, as upstream's PreFilter does.
            if self.snapshot.is_empty() {
                filters::explain(0, &[])
            } else {
                filters::refused(self.snapshot.len(), &why)
            }
        })?;
        let taken = wants.is_taken(key, &self.snapshot);
        let mut fits: Vec<&NodeState> = Vec::new();
        let mut reasons = Vec::new();
        for node in self.snapshot.nodes() {
            let mut obstacles = filters::obstacles(&key.namespace, pod, node, &self.snapshot);
            if obstacles.is_empty() && taken {
                obstacles.push(filters::CLAIM_TAKEN.to_owned());
            }
            if obstacles.is_empty()
                && let Err(reasons) = wants.on(&node.info)
            {
                obstacles = reasons;
            }
            if obstacles.is_empty() {
                fits.push(node);
            } else {
                reasons.push(obstacles);
            }
        }
        let chosen = scores::choose(self.strategy(), pod, &fits, |count| rand::rng().random_range(0..count));
        let chosen = chosen.ok_or_else(|| filters::explain(self.snapshot.len(), &reasons))?;
        Ok((chosen.info.name.clone(), wants.on(&chosen.info).unwrap_or_default()))
    }

    /// Counts a pod on its node and has that written: its volumes first, if they need it, then the binding.
    fn assume(&mut self, key: Key, pod: Arc<PodInfo>, node: String, plans: Vec<Plan>) {
        self.snapshot.place(&key, &pod, &node);
        self.assumed.insert(key.clone(), node.clone());
        let (binder, outcomes, world) = (self.binder.clone(), self.outcomes.0.clone(), self.world.clone());
        let counted = plans.is_empty();
        self.in_flight += usize::from(counted);
        let work = async move {
            if let Err(message) = volumes::carry_out(&binder.client, &world, &plans).await {
                return Outcome::NoVolumes(key, message);
            }
            match binder.bind(&key, &pod, &node).await {
                Ok(()) => Outcome::Bound(key),
                Err(error) => Outcome::Failed(key, error),
            }
        };
        let shutdown = self.context.shutdown.clone();
        self.context.tasks.spawn(async move {
            // A binding that was begun is finished; waiting for volumes ends with the scheduler.
            let outcome = if counted { Some(work.await) } else { shutdown.run_until_cancelled(work).await };
            if let Some(outcome) = outcome {
                // The receiver goes only with the scheduler itself.
                let _ = outcomes.send((outcome, counted)).await;
            }
        });
    }

    fn strategy(&self) -> Strategy {
        let key = Key::new(config::NAMESPACE, config::NAME);
        self.configuration.get(&key).map_or_else(Strategy::default, |config| config.strategy)
    }

    fn settle(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Bound(key) => {
                self.queue.remove(&key);
                self.waiting.remove(&key);
            }
            Outcome::NoVolumes(key, message) => {
                if self.assumed.remove(&key).is_none() {
                    return;
                }
                self.snapshot.remove_pod(&key);
                debug!(pod = %key, message, "volumes were not bound");
                self.queue.failed(&key, Instant::now());
                if let Some(pod) = self.waiting.get(&key).cloned() {
                    self.report(&key, &pod, bind::ERROR, &message);
                }
            }
            Outcome::Failed(key, error) => {
                if self.assumed.remove(&key).is_none() {
                    // Gone, or confirmed by the watch after all.
                    return;
                }
                self.snapshot.remove_pod(&key);
                warn!(pod = %key, error = %error, "failed to bind");
                self.queue.failed(&key, Instant::now());
                if let Some(pod) = self.waiting.get(&key).cloned().filter(|_| !error.is_not_found()) {
                    self.report(&key, &pod, bind::ERROR, &error.to_string());
                }
            }
        }
    }

    fn report(&self, key: &Key, pod: &Arc<PodInfo>, reason: &'static str, message: &str) {
        let (binder, key, pod, message) = (self.binder.clone(), key.clone(), pod.clone(), message.to_owned());
        self.context.tasks.spawn(async move {
            if let Err(error) = binder.report(&key, &pod, reason, &message).await {
                debug!(pod = %key, error = %error, "failed to report why a pod waits");
            }
        });
    }
}
