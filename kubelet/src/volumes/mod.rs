//! Volumes: what stands in a pod's directory and is mounted into its containers.
//!
//! Every kind lives in its own file and is level-triggered: setting up what stands already changes only what
//! differs, so the same call serves the start of a pod, a restart of the kubelet and the refresh of a running
//! pod. The layout below the root is upstream's (`pods/<uid>/volumes/kubernetes.io~<kind>/<name>`). Secrets
//! and tokens live on tmpfs and never touch the disk.

pub(crate) mod atomic_writer;
pub(crate) mod claims;
mod config_map;
mod downward_api;
mod empty_dir;
mod host_path;
pub(crate) mod image;
mod inline;
pub(crate) mod mounts;
pub(crate) mod objects;
mod ownership;
mod projected;
pub(crate) mod reclaim;
mod secret;
pub(crate) mod sub_path;
pub(crate) mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Pod, Volume};
use tokio::time::Instant;

use crate::{
    measures::{
        Measures,
        volumes::{PodVolume, PodVolumes},
    },
    pod::{
        downward::Surroundings,
        environment::{DataKind, DataObjects},
        namespace, spec, uid,
    },
};
use atomic_writer::Payload;
use claims::Claims;
use image::ImageVolumes;
use objects::Objects;
use ownership::Group;
use tokens::Tokens;

/// Why a volume could not be set up. The pod waits and it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("{} failed for volume \"{volume}\" : {}", .why.as_what.operation(), .why.message)]
pub(crate) struct VolumeError {
    /// Which volume.
    volume: String,
    why: Failure,
}

impl VolumeError {
    /// The reason of the event about it.
    pub(crate) fn reason(&self) -> &'static str {
        match self.why.as_what {
            Shape::Directory => "FailedMount",
            Shape::Device => "FailedMapVolume",
        }
    }
}

/// What a volume is to its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Files.
    Directory,
    /// A block device.
    Device,
}

impl Shape {
    /// Upstream's name for what failed.
    fn operation(self) -> &'static str {
        match self {
            Self::Directory => "MountVolume.SetUp",
            Self::Device => "MapVolume.SetUpDevice",
        }
    }
}

/// What failed, and why, as upstream words it.
#[derive(Debug)]
struct Failure {
    as_what: Shape,
    message: String,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { as_what: Shape::Directory, message }
    }
}

/// Where volumes and their like stand.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Below the kubelet's root directory.
    #[must_use]
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory of all pods.
    #[must_use]
    pub(crate) fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// The directory of one pod.
    #[must_use]
    pub(crate) fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// The directory of unpacked images.
    #[must_use]
    pub(crate) fn image_volumes(&self) -> PathBuf {
        self.root.join("image-volumes")
    }

    /// The directory of one volume.
    #[must_use]
    pub(crate) fn volume(&self, uid: &str, kind: &str, name: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(format!("kubernetes.io~{kind}")).join(name)
    }
}

/// Sets volumes up, keeps them fresh and takes them away.
pub(crate) struct Volumes {
    layout: Layout,
    objects: Arc<Objects>,
    tokens: Arc<Tokens>,
    claims: Claims,
    measures: Arc<Measures>,
    images: ImageVolumes,
}

/// A pod's volumes, set up.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// Where each volume stands on the node.
    pub paths: BTreeMap<String, PathBuf>,
    /// When the content may be stale.
    pub refresh_after: Option<Duration>,
}

/// How old the content of a ConfigMap or Secret in a running pod may be, and so how often it is read again
/// (upstream's default sync period is a minute, plus the age of its cache).
pub(crate) const REFRESH: Duration = Duration::from_secs(30);

impl Volumes {
    /// Below the layout's root; content comes through the others.
    #[must_use]
    pub(crate) fn new(
        layout: Layout,
        objects: Arc<Objects>,
        tokens: Arc<Tokens>,
        claims: Claims,
        images: ImageVolumes,
        measures: Arc<Measures>,
    ) -> Self {
        Self { layout, objects, tokens, claims, images, measures }
    }

    /// The unpacked images.
    #[must_use]
    pub(crate) fn images(&self) -> &ImageVolumes {
        &self.images
    }

    /// Where things stand.
    #[must_use]
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Sets all volumes of a pod up, or brings them up to date. `max_age` is how old a cached ConfigMap or
    /// Secret may be.
    pub(crate) async fn prepare(
        &self,
        pod: &Pod,
        around: &Surroundings,
        max_age: Duration,
    ) -> Result<Prepared, VolumeError> {
        let mut prepared = Prepared::default();
        let mut found = PodVolumes { namespace: namespace(pod).to_owned(), volumes: Vec::new() };
        // Images are mounted with the container that wants them.
        for volume in spec(pod).volumes.iter().flatten().filter(|volume| volume.image.is_none()) {
            let failed = |why: Failure| VolumeError { volume: volume.name.clone(), why };
            let is_device = claims::is_device(pod, &volume.name);
            let operation = if is_device { "map_volume" } else { "volume_mount" };
            let begun = Instant::now();
            let outcome = self.set_up(pod, volume, around, max_age, &mut prepared).await;
            let plugin = plugin(volume).or_else(|| self.claims.plugin(pod, volume)).unwrap_or_default();
            self.measures.volumes.operation(plugin, operation, begun.elapsed(), outcome.is_ok());
            let path = outcome.map_err(failed)?;
            // A device is no file system that could be measured.
            if !is_device {
                found.volumes.push(PodVolume {
                    name: volume.name.clone(),
                    plugin,
                    claim: claims::claim_name(pod, volume),
                    path: path.clone(),
                });
            }
            prepared.paths.insert(volume.name.clone(), path);
        }
        self.measures.volumes.mounted(uid(pod), found);
        Ok(prepared)
    }

    async fn set_up(
        &self,
        pod: &Pod,
        volume: &Volume,
        around: &Surroundings,
        max_age: Duration,
        prepared: &mut Prepared,
    ) -> Result<PathBuf, Failure> {
        let fs_group = spec(pod).security_context.as_ref().and_then(|context| context.fs_group);
        if let Some(source) = &volume.host_path {
            let source = source.clone();
            return Ok(blocking(move || host_path::set_up(&source)).await?);
        }
        if let Some(source) = &volume.empty_dir {
            let path = self.layout.volume(uid(pod), "empty-dir", &volume.name);
            let medium = empty_dir::medium(pod, source, around.allocatable.memory)?;
            let made = blocking(move || empty_dir::set_up(&path, medium, fs_group).map(|()| path));
            return Ok(made.await?);
        }
        if let Some(source) = &volume.csi {
            let directory = self.layout.volume(uid(pod), "csi", &volume.name);
            let source = source.clone();
            return Ok(blocking(move || inline::set_up(&directory, &source, fs_group)).await?);
        }
        if let Some(found) = self.claims.volume(pod, volume).await {
            let found = found?;
            if claims::is_block(&found) {
                let device = blocking(move || claims::device(&found)).await;
                return device.map_err(|message| Failure { as_what: Shape::Device, message });
            }
            let group =
                fs_group.map(|group| Group { id: group, only_if_root_differs: only_if_root_differs(pod) });
            let directory = self.layout.pod(uid(pod));
            return Ok(blocking(move || claims::set_up(&found, group, &directory)).await?);
        }
        let objects = self.objects_of(pod, volume, max_age).await?;
        let (kind, payload, on_tmpfs) = if let Some(source) = &volume.config_map {
            ("configmap", config_map::payload(source, &objects)?, false)
        } else if let Some(source) = &volume.secret {
            ("secret", secret::payload(source, &objects)?, true)
        } else if let Some(source) = &volume.downward_api {
            ("downward-api", downward_api::payload(pod, source, around)?, false)
        } else if let Some(source) = &volume.projected {
            let (payload, stale_after) =
                projected::payload(pod, source, around, &objects, &self.tokens).await?;
            prepared.stale_after(stale_after);
            ("projected", payload, true)
        } else {
            return Err("no volume plugin matched".to_owned().into());
        };
        prepared.stale_after(Some(REFRESH));
        let path = self.layout.volume(uid(pod), kind, &volume.name);
        Ok(blocking(move || write(&path, &payload, on_tmpfs, fs_group).map(|()| path)).await?)
    }

    /// Reads the ConfigMaps and Secrets that a volume names; a missing one is no error here (it may be
    /// optional), a failing API server is.
    async fn objects_of(&self, pod: &Pod, volume: &Volume, max_age: Duration) -> Result<DataObjects, String> {
        let mut found = DataObjects::default();
        for (kind, name) in references(volume) {
            let data = self.objects.fetch(kind, namespace(pod), &name, max_age).await?;
            if let Some(data) = data {
                found.0.insert((kind, name), data.as_ref().clone());
            }
        }
        Ok(found)
    }

    /// Takes everything of a pod away: mounts first, then files. Succeeds if there is nothing.
    pub(crate) async fn tear_down(&self, uid: &str) -> Result<(), String> {
        self.tokens.forget(uid);
        self.claims.forget(uid);
        let directory = self.layout.pod(uid);
        let begun = Instant::now();
        blocking(move || remove_tree(&directory)).await?;
        self.measures.volumes.unmounted(uid, begun.elapsed());
        self.images.remove_unused().await
    }

    /// The uids that have a directory.
    pub(crate) async fn pods_on_disk(&self) -> Vec<String> {
        let directory = self.layout.pods();
        let listed = tokio::task::spawn_blocking(move || {
            std::fs::read_dir(directory).map(|entries| {
                entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
            })
        });
        listed.await.ok().and_then(Result::ok).unwrap_or_default()
    }
}

impl Prepared {
    fn stale_after(&mut self, time: Option<Duration>) {
        if let Some(time) = time {
            self.refresh_after = Some(self.refresh_after.map_or(time, |before| before.min(time)));
        }
    }
}

/// What carries a volume, as upstream's plug-ins are named; `None` for one that goes through a claim.
pub(crate) fn plugin(volume: &Volume) -> Option<&'static str> {
    let kinds = [
        (volume.config_map.is_some(), "kubernetes.io/configmap"),
        (volume.secret.is_some(), "kubernetes.io/secret"),
        (volume.downward_api.is_some(), "kubernetes.io/downward-api"),
        (volume.projected.is_some(), "kubernetes.io/projected"),
        (volume.empty_dir.is_some(), "kubernetes.io/empty-dir"),
        (volume.host_path.is_some(), "kubernetes.io/host-path"),
        (volume.csi.is_some(), "kubernetes.io/csi"),
    ];
    kinds.into_iter().find_map(|(is, name)| is.then_some(name))
}

/// Whether a volume whose root belongs to the group already is left as it is (`fsGroupChangePolicy`).
fn only_if_root_differs(pod: &Pod) -> bool {
    let policy =
        spec(pod).security_context.as_ref().and_then(|context| context.fs_group_change_policy.as_deref());
    policy == Some("OnRootMismatch")
}

/// The data objects that a volume refers to.
fn references(volume: &Volume) -> BTreeSet<(DataKind, String)> {
    let mut found = BTreeSet::new();
    if let Some(source) = &volume.config_map {
        found.insert((DataKind::ConfigMap, source.name.clone()));
    }
    if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.clone()) {
        found.insert((DataKind::Secret, name));
    }
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        if let Some(reference) = &source.config_map {
            found.insert((DataKind::ConfigMap, reference.name.clone()));
        }
        if let Some(reference) = &source.secret {
            found.insert((DataKind::Secret, reference.name.clone()));
        }
    }
    found
}

fn write(path: &Path, payload: &Payload, on_tmpfs: bool, fs_group: Option<i64>) -> Result<(), String> {
    std::fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if on_tmpfs {
        mounts::ensure_tmpfs(path, None)?;
    }
    atomic_writer::write(path, payload, fs_group).map_err(|error| format!("{}: {error}", path.display()))
}

/// Unmounts what is mounted below a directory and removes it.
pub(crate) fn remove_tree(directory: &Path) -> Result<(), String> {
    mounts::unmount_below(directory)?;
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Runs file system work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}
