//! Runs a pod's probes: one small task per probe of a running container, which wakes the worker on a change.
//!
//! The counting is pure (`pod::probes`); here are only the clock and the wires. A probe belongs to one run
//! of its container and ends with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use client::EventType;
use k8s_openapi::api::core::v1::{Container, Pod};
use kubelet_runtime::{ContainerState, PodView};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::actions::{Target, perform};
use crate::{
    context::Context,
    pod::{
        all_containers, is_init, is_sidecar, latest_run, parse_time,
        plan::Unhealthy,
        probes::{Counter, Kind, action, seconds},
        restart::elapsed,
        uid,
    },
};

type Key = (String, Kind);

/// What the API's status said of a pod's containers when its worker began: the ids of their runs, by name. Of a run that
/// was begun since then it says nothing.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Those that were ready.
    pub(super) ready: BTreeMap<String, String>,
    /// Those whose startup was over.
    pub(super) started: BTreeMap<String, String>,
}

impl Before {
    /// What a pod's status says.
    pub(super) fn of(pod: &Pod) -> Self {
        let lists = pod
            .status
            .iter()
            .flat_map(|status| [&status.init_container_statuses, &status.container_statuses]);
        let mut before = Self::default();
        for status in lists.flatten().flatten() {
            let Some((_, id)) = status.container_id.as_deref().and_then(|id| id.split_once("://")) else {
                continue;
            };
            if status.ready {
                before.ready.insert(status.name.clone(), id.to_owned());
            }
            if status.started == Some(true) {
                before.started.insert(status.name.clone(), id.to_owned());
            }
        }
        before
    }
}

/// The probes of one pod.
pub(super) struct Probes {
    shared: Arc<Shared>,
    running: BTreeMap<Key, (u32, CancellationToken)>,
    pretending: bool,
}

struct Shared {
    results: Mutex<BTreeMap<Key, (u32, Counter)>>,
    /// Tells the other probes that a startup probe has passed.
    started: Notify,
    wake: Arc<Notify>,
}

impl Probes {
    /// None yet; changes notify `wake`. Pods that only pretend have nothing that could be probed, and count as
    /// well.
    pub(super) fn new(wake: Arc<Notify>, pretending: bool) -> Self {
        Self {
            shared: Arc::new(Shared { results: Mutex::default(), started: Notify::new(), wake }),
            running: BTreeMap::new(),
            pretending,
        }
    }

    /// Starts what is missing and ends what has lost its container. `before` tells of containers that ran before the
    /// kubelet started: those that were ready stay so until their probe says otherwise, and those that had started
    /// are not asked for it again.
    pub(super) fn follow(
        &mut self,
        context: &Arc<Context>,
        pod: &Arc<Pod>,
        view: Option<&PodView>,
        address: Option<IpAddr>,
        before: &Before,
    ) {
        let mut wanted = BTreeMap::new();
        if self.pretending {
            return;
        }
        for container in all_containers(pod) {
            if is_init(pod, &container.name) && !is_sidecar(container) {
                continue;
            }
            let Some(run) = latest_run(view, &container.name) else { continue };
            let ContainerState::Running { started_at, .. } = &run.state else { continue };
            for kind in Kind::ALL.into_iter().filter(|kind| kind.of(container).is_some()) {
                let since = parse_time(started_at).unwrap_or_else(jiff::Timestamp::now);
                wanted.insert((container.name.clone(), kind), (run.attempt, since, run.id.clone()));
            }
        }
        self.running.retain(|key, (attempt, cancel)| {
            let keep = wanted.get(key).is_some_and(|(wanted, ..)| wanted == attempt);
            if !keep {
                cancel.cancel();
                self.shared.results.lock().remove(key);
            }
            keep
        });
        for (key, (attempt, since, id)) in wanted {
            if self.running.contains_key(&key) {
                continue;
            }
            let Some(container) = crate::pod::container(pod, &key.0) else { continue };
            let Some(probe) = key.1.of(container) else { continue };
            let mut counter = Counter::new(key.1, probe);
            let known = if key.1 == Kind::Startup { &before.started } else { &before.ready };
            let resumed = known.get(&key.0) == Some(&id);
            if resumed {
                counter = counter.resumed(true);
            }
            self.shared.results.lock().insert(key.clone(), (attempt, counter));
            let cancel = context.shutdown.child_token();
            self.running.insert(key.clone(), (attempt, cancel.clone()));
            if resumed && key.1 == Kind::Startup {
                continue;
            }
            let prober = Prober {
                context: Arc::clone(context),
                shared: Arc::clone(&self.shared),
                pod: Arc::clone(pod),
                key,
                attempt,
                address,
                age: elapsed(since, jiff::Timestamp::now()),
            };
            context.tasks.spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = prober.run() => {}
                }
            });
        }
        // A probe may have looked before its container's startup was known from before.
        self.shared.started.notify_waiters();
    }

    /// Ends all probes.
    pub(super) fn stop(&mut self) {
        for (_, cancel) in std::mem::take(&mut self.running).into_values() {
            cancel.cancel();
        }
        self.shared.results.lock().clear();
    }

    /// Ends some kinds of probes; a pod that ends is still probed for readiness.
    pub(super) fn stop_all_but_readiness(&mut self) {
        self.running.retain(|(_, kind), (_, cancel)| {
            if *kind != Kind::Readiness {
                cancel.cancel();
            }
            *kind == Kind::Readiness
        });
    }

    /// Containers whose run has failed its liveness or startup probe.
    pub(super) fn unhealthy(&self) -> BTreeMap<String, (u32, Unhealthy)> {
        let results = self.shared.results.lock();
        let failed = results.iter().filter_map(|((name, kind), (attempt, counter))| {
            let which = match kind {
                Kind::Liveness => Unhealthy::Liveness,
                Kind::Startup => Unhealthy::Startup,
                Kind::Readiness => return None,
            };
            (counter.result() == Some(false)).then(|| (name.clone(), (*attempt, which)))
        });
        failed.collect()
    }

    /// Containers of the pod whose readiness probe does not pass (or has not run yet), and those whose
    /// startup probe has not passed.
    pub(super) fn held_back(&self, pod: &Pod) -> (BTreeSet<String>, BTreeSet<String>) {
        if self.pretending {
            return Default::default();
        }
        let results = self.shared.results.lock();
        let lacking = |kind: Kind| {
            let has_probe = |container: &&Container| kind.of(container).is_some();
            all_containers(pod)
                .filter(has_probe)
                .map(|container| container.name.clone())
                .filter(|name| {
                    results
                        .get(&(name.clone(), kind))
                        .is_none_or(|(_, counter)| counter.result() != Some(true))
                })
                .collect()
        };
        (lacking(Kind::Readiness), lacking(Kind::Startup))
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Prober {
    context: Arc<Context>,
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    key: Key,
    attempt: u32,
    address: Option<IpAddr>,
    age: Duration,
}

impl Prober {
    async fn run(self) {
        let (name, kind) = &self.key;
        let Some(container) = crate::pod::container(&self.pod, name) else { return };
        let Some(probe) = kind.of(container) else { return };
        let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
        let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
        tokio::time::sleep(seconds(probe.initial_delay_seconds, 0).saturating_sub(self.age)).await;
        if *kind != Kind::Startup {
            // The first look follows at once (upstream: `manualTriggerCh` of the readiness worker).
            self.until_started(container).await;
        }
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let begun = tokio::time::Instant::now();
            let outcome = match action(probe, container) {
                Ok(action) => {
                    let target = Target { uid: uid(&self.pod), container: name, address: self.address };
                    perform(&self.context, &target, &action, limit).await
                }
                Err(message) => Err(message),
            };
            let took = begun.elapsed();
            self.context.measures.probe(&self.pod, name, *kind, took, outcome.is_ok());
            let told = match &outcome {
                Err(message) => Some(("Unhealthy", format!("{} probe failed: {message}", kind.label()))),
                Ok(Some(doubt)) => Some(("ProbeWarning", format!("{} probe warning: {doubt}", kind.label()))),
                Ok(None) => None,
            };
            if let Some((reason, text)) = told {
                self.context.events.container(&self.pod, name, EventType::Warning, reason, &text);
            }
            let changed = {
                let mut results = self.shared.results.lock();
                match results.get_mut(&self.key) {
                    Some((attempt, counter)) if *attempt == self.attempt => counter.observe(outcome.is_ok()),
                    _ => return,
                }
            };
            if changed {
                self.shared.wake.notify_one();
                if *kind == Kind::Startup {
                    self.shared.started.notify_waiters();
                    return;
                }
            }
        }
    }

    /// Waits until the startup probe, if there is one, has passed.
    async fn until_started(&self, container: &Container) {
        loop {
            let told = self.shared.started.notified();
            if self.has_started(container) {
                return;
            }
            told.await;
        }
    }

    /// Whether the startup probe, if there is one, has passed.
    fn has_started(&self, container: &Container) -> bool {
        container.startup_probe.is_none()
            || self
                .shared
                .results
                .lock()
                .get(&(container.name.clone(), Kind::Startup))
                .is_some_and(|(_, counter)| counter.result() == Some(true))
    }
}
