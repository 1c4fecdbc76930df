//! Keeps the node from running dry: measures, removes images, evicts pods.
//!
//! Every ten seconds (upstream's `monitoringInterval`, here `--housekeeping-interval`; nothing in the kernel tells when
//! a file system fills) the node is measured. What follows is decided purely: [`thresholds`] and [`conditions`] (is it
//! short of something, and what holds), [`victims`] (which pod has to go), [`images`] (which images nobody needs). At
//! most one pod is evicted in a round, so that the next one sees what that gave back.

pub mod conditions;
pub mod images;
mod measure;
pub mod options;
pub mod thresholds;
pub mod victims;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use client::{EventType, Informer};
use futures_util::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::{ContainerState, PodView, usage::RuntimeUsage};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{context::Context, images::go_duration, pod, pod_worker::Handle};
use conditions::Conditions;
use images::{ImagePolicy, ImageRecords, surplus};
use thresholds::{Met, Pressure, Signal, Thresholds};
use victims::{Candidate, Usage, choose, exceeds_local_limits, has_local_limits};

/// How long evicted pods are waited for (upstream's `podCleanupTimeout`).
const CLEAN_UP: Duration = Duration::from_secs(30);
/// Between two looks at the images (upstream's `ImageGCPeriod`).
const IMAGE_ROUND: Duration = Duration::from_secs(300);

/// What the node's owner wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// When pods are evicted.
    pub thresholds: Thresholds,
    /// How long a condition stays after its cause.
    pub transition: Transition,
    /// Most time that a pod gets to end that has to go for a soft threshold; `None` for all that it asks for.
    pub soft_grace: Option<Duration>,
    /// When images are removed.
    pub images: ImagePolicy,
    /// Between two looks at the node.
    pub round: Duration,
    /// How old the figure of what a directory holds may be.
    pub disk_age: Duration,
}

impl Default for Policy {
    /// As upstream's: `monitoringInterval` and `volumeStatsAggPeriod` are the last two.
    fn default() -> Self {
        Self {
            thresholds: Thresholds::default(),
            transition: Transition::default(),
            soft_grace: None,
            images: ImagePolicy::default(),
            round: Duration::from_secs(10),
            disk_age: Duration::from_secs(60),
        }
    }
}

/// `evictionPressureTransitionPeriod`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition(pub Duration);

impl Default for Transition {
    fn default() -> Self {
        Self(Duration::from_secs(300))
    }
}

/// The handles of the workers, by pod uid.
type Workers = Arc<Mutex<HashMap<String, Handle>>>;

/// Watches over the node.
pub(crate) struct Monitor {
    pub(crate) context: Arc<Context>,
    pub(crate) pods: Informer<Bytes>,
    pub(crate) workers: Workers,
    pub(crate) policy: Policy,
    /// The kubelet's directory: its file system is the node's.
    pub(crate) root: PathBuf,
    /// Where the conditions go.
    pub(crate) pressure: watch::Sender<Pressure>,
}

impl Monitor {
    /// Runs until shutdown. A runtime that only pretends has nothing that could run out.
    pub(crate) async fn run(self) {
        if !self.context.runtime.capabilities().exec {
            return self.context.shutdown.cancelled().await;
        }
        let mut conditions = Conditions::default();
        let mut records = ImageRecords::default();
        let mut images_due = tokio::time::Instant::now();
        loop {
            let round = async {
                let evicted = self.round(&mut conditions, &mut records, &mut images_due).await;
                // Nobody is chosen again, nor the next one, before what these had is given back.
                let ended = join_all(evicted.iter().map(CancellationToken::cancelled));
                if tokio::time::timeout(CLEAN_UP, ended).await.is_err() {
                    tracing::warn!("an evicted pod takes its time to end");
                }
            };
            tokio::select! {
                () = self.context.shutdown.cancelled() => return,
                () = round => {}
            }
            tokio::select! {
                () = self.context.shutdown.cancelled() => return,
                () = tokio::time::sleep(self.policy.round) => {}
            }
        }
    }

    /// One look; gives what tells of the end of those that were evicted.
    async fn round(
        &self,
        conditions: &mut Conditions,
        records: &mut ImageRecords,
        images_due: &mut tokio::time::Instant,
    ) -> Vec<CancellationToken> {
        let image_root = self.context.runtime.image_root().await.ok().flatten();
        let observed = measure::node(&self.root, image_root.as_deref()).await;
        let (now, measured) = (Timestamp::now(), tokio::time::Instant::now());
        let (met, pressure) =
            conditions.observe(&self.policy.thresholds, &observed, self.policy.transition.0, now);
        if *self.pressure.borrow() != pressure {
            tracing::warn!(conditions = ?pressure.names(), "the node's pressure changed");
            self.context.admission.lock().set_pressure(pressure);
            self.pressure.send_replace(pressure);
        }
        if *images_due <= tokio::time::Instant::now() {
            *images_due = tokio::time::Instant::now() + IMAGE_ROUND;
            let disk =
                observed.get(&Signal::ImageFsAvailable).or_else(|| observed.get(&Signal::NodeFsAvailable));
            self.remove_images(records, disk.map_or(0, |disk| surplus(*disk, self.policy.images))).await;
        }
        let evicted = self.enforce_local_limits().await;
        if !evicted.is_empty() {
            return evicted;
        }
        let Some(first) = met.first() else { return evicted };
        let text = format!("Attempting to reclaim {}", first.signal.resource());
        self.context.events.node(&self.context.node, EventType::Warning, "EvictionThresholdMet", &text);
        if first.signal.condition() == "DiskPressure" {
            // What nobody needs goes before what somebody runs.
            self.remove_ended().await;
            self.remove_images(records, u64::MAX).await;
            let after = measure::node(&self.root, image_root.as_deref()).await;
            if !self.policy.thresholds.is_short(first.signal, &after) {
                return Vec::new();
            }
        }
        let signals: BTreeSet<&'static str> = met.iter().map(|met| met.signal.name()).collect();
        for signal in signals {
            self.context.measures.eviction_age(signal, measured.elapsed());
        }
        self.evict_for(first).await.into_iter().collect()
    }

    /// The pods that run here and have not ended.
    fn active(&self) -> Vec<Pod> {
        let all = self.pods.list();
        let typed = all.iter().filter_map(|(_, bytes)| serde_json::from_slice::<Pod>(bytes).ok());
        typed.filter(|pod| !pod::has_ended(pod) && pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// Evicts pods that wrote more than they may.
    async fn enforce_local_limits(&self) -> Vec<CancellationToken> {
        let mut evicted = Vec::new();
        let pods: Vec<Pod> = self.active().into_iter().filter(has_local_limits).collect();
        if pods.is_empty() {
            return evicted;
        }
        let used = self.used().await;
        for pod in &pods {
            let usage = self.usage(pod, &used, true).await;
            if let Some(eviction) = exceeds_local_limits(&Candidate { pod, usage }) {
                evicted.extend(self.evict(pod, eviction));
            }
        }
        evicted
    }

    async fn evict_for(&self, met: &Met) -> Option<CancellationToken> {
        let pods = self.active();
        let disk = met.signal.condition() == "DiskPressure";
        let used = self.used().await;
        let mut candidates = Vec::with_capacity(pods.len());
        for pod in &pods {
            candidates.push(Candidate { pod, usage: self.usage(pod, &used, disk).await });
        }
        match choose(&candidates, met, self.policy.soft_grace) {
            Some((index, eviction)) => self.evict(&pods[index], eviction),
            None => {
                let resource = met.signal.resource();
                tracing::warn!(resource, "the node is short of something, and no pod can be evicted");
                None
            }
        }
    }

    fn evict(&self, pod: &Pod, eviction: victims::Eviction) -> Option<CancellationToken> {
        tracing::warn!(pod = pod::described(pod), "evicting: {}", eviction.message);
        self.context.events.pod(pod, EventType::Warning, "Evicted", &eviction.message);
        self.context.measures.evicted(eviction.signal);
        let worker = self.workers.lock().get(pod::uid(pod)).cloned();
        worker.map(|worker| worker.evict(eviction))
    }

    /// Removes the containers of pods that have ended, with what they wrote and logged (upstream's
    /// `DeleteAllUnusedContainers`): else an evicted pod would give nothing back.
    async fn remove_ended(&self) {
        let runtime = &self.context.runtime;
        let Ok(views) = runtime.list().await else { return };
        let ended: BTreeSet<String> = self
            .pods
            .list()
            .iter()
            .filter_map(|(_, bytes)| serde_json::from_slice::<Pod>(bytes).ok())
            .filter(pod::has_ended)
            .map(|pod| pod::uid(&pod).to_owned())
            .collect();
        let runs = |view: &PodView| {
            view.containers.iter().any(|run| matches!(run.state, ContainerState::Running { .. }))
        };
        for view in views.iter().filter(|view| ended.contains(&view.pod.uid) && !runs(view)) {
            if let Err(error) = runtime.remove_pod(&view.pod.uid).await {
                tracing::warn!(pod = view.pod.name, "what is left of an ended pod stays: {error}");
            }
        }
    }

    /// What containers use; nothing where it cannot be told.
    async fn used(&self) -> RuntimeUsage {
        self.context.runtime.usage().await.unwrap_or_default()
    }

    async fn usage(&self, pod: &Pod, used: &RuntimeUsage, disk: bool) -> Usage {
        let uid = pod::uid(pod);
        let mut usage = Usage::default();
        let containers =
            used.pods.iter().filter(|used| used.pod.uid == uid).flat_map(|used| &used.containers);
        for used in containers {
            usage.memory.insert(used.name.clone(), used.usage.memory.working_set);
            if disk {
                let layer = used.layer.map_or(0, |layer| layer.bytes);
                usage.written.insert(used.name.clone(), layer.saturating_add(used.log_bytes));
            }
        }
        if !disk {
            return usage;
        }
        let layout = self.context.volumes.layout();
        for volume in pod::spec(pod).volumes.iter().flatten() {
            let on_disk = volume
                .empty_dir
                .as_ref()
                .is_some_and(|source| source.medium.as_deref().unwrap_or_default().is_empty());
            if on_disk {
                let path = layout.volume(uid, "empty-dir", &volume.name);
                let (bytes, files) = measure::directory(path).await;
                usage.empty_dirs.insert(volume.name.clone(), bytes);
                usage.inodes += files;
            }
        }
        usage
    }

    /// Follows the images and removes unused ones for that many bytes.
    async fn remove_images(&self, records: &mut ImageRecords, wanted: u64) {
        let runtime = &self.context.runtime;
        let (Ok(mut images), Ok(views)) = (runtime.images().await, runtime.list().await) else { return };
        // The others are not ours to remove: Docker belongs to everybody on this machine.
        let pulled = self.context.images.pulled().await;
        images.retain(|image| pulled.contains(&image.id));
        let mut in_use: BTreeSet<String> = views
            .iter()
            .flat_map(|view| &view.containers)
            .map(|container| container.image_id.clone())
            .collect();
        in_use.extend(self.context.volumes.images().in_use().await);
        let now = Timestamp::now();
        records.follow(&images, &in_use, now);
        let sizes: BTreeMap<&str, u64> = images.iter().map(|image| (image.id.as_str(), image.size)).collect();
        let mut freed = 0u64;
        for id in records.victims(wanted, self.policy.images.minimum_age, now) {
            match runtime.remove_image(&id).await {
                Ok(()) => {
                    tracing::info!(id, "removed an image that no container uses");
                    freed = freed.saturating_add(sizes.get(id.as_str()).copied().unwrap_or_default());
                }
                // Docker knows of containers that are not ours.
                Err(error) => tracing::debug!(id, "an image stays: {error}"),
            }
        }
        if wanted > 0 && wanted < u64::MAX && freed < wanted {
            let text = format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
            );
            self.context.events.node(&self.context.node, EventType::Warning, "FreeDiskSpaceFailed", &text);
        }
    }
}

impl std::fmt::Display for Transition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&go_duration(self.0))
    }
}
