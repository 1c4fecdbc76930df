//! `image` volumes: an image's files, unpacked once on this node and mounted read-only into the pods that name it.
//!
//! Unpacked images stand below `image-volumes/<id>`, each put there whole by one rename. A pod mounts one at
//! `pods/<uid>/image-volumes/<volume>/<id>`: that directory is the whole record of who uses what, so that nothing is
//! remembered that a restart could forget. What no pod has a directory for is removed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use kubelet_runtime::PodRuntime;
use tokio::sync::{Mutex, RwLock};

use super::{Layout, blocking, mounts, remove_tree};

/// What is being unpacked, or taken away, has this before its name.
const UNFINISHED: &str = ".unpacking-";

/// The images that are unpacked on this node.
pub(crate) struct ImageVolumes {
    layout: Layout,
    runtime: Arc<dyn PodRuntime>,
    /// Shared by who takes an image for a pod, held alone while unused ones are removed.
    taking: RwLock<()>,
    /// One image at a time: more would only share the same disk.
    unpacking: Mutex<()>,
    /// Removals follow one another, so that none misses what the one before looked at too early.
    removing: Mutex<()>,
}

impl ImageVolumes {
    /// Below the layout's root, out of a runtime.
    #[must_use]
    pub(crate) fn new(layout: Layout, runtime: Arc<dyn PodRuntime>) -> Self {
        Self {
            layout,
            runtime,
            taking: RwLock::default(),
            unpacking: Mutex::default(),
            removing: Mutex::default(),
        }
    }

    /// Mounts an image for a volume of a pod and gives the path. `id` is the runtime's.
    pub(crate) async fn mount(&self, pod_uid: &str, volume: &str, id: &str) -> Result<PathBuf, String> {
        check(id)?;
        let _taken = self.taking.read().await;
        let target = of_pod(&self.layout.pod(pod_uid)).join(volume).join(id);
        let path = target.clone();
        blocking(move || fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display())))
            .await?;
        let unpacked = self.unpacked(id).await?;
        blocking(move || {
            if mounts::mounted_below(&target)?.is_empty() {
                mounts::bind(&unpacked, &target)?;
            }
            // Each time: a process that ended in between has left it open.
            mounts::restrict(&target)?;
            Ok(target)
        })
        .await
    }

    /// The directory of an unpacked image; unpacks it unless it is there.
    async fn unpacked(&self, id: &str) -> Result<PathBuf, String> {
        let all = self.layout.image_volumes();
        let (done, unfinished) = (all.join(id), all.join(format!("{UNFINISHED}{id}")));
        let _turn = self.unpacking.lock().await;
        if tokio::fs::try_exists(&done).await.unwrap_or_default() {
            return Ok(done);
        }
        let fresh = unfinished.clone();
        blocking(move || {
            remove_tree(&fresh)?;
            fs::create_dir_all(&fresh).map_err(|error| format!("{}: {error}", fresh.display()))
        })
        .await?;
        self.runtime.unpack_image(id, &unfinished).await.map_err(|error| error.to_string())?;
        let path = done.clone();
        blocking(move || put(&unfinished, &path).map_err(|error| format!("{}: {error}", path.display())))
            .await?;
        Ok(done)
    }

    /// The ids of the images that pods use.
    pub(crate) async fn in_use(&self) -> BTreeSet<String> {
        let pods = self.layout.pods();
        tokio::task::spawn_blocking(move || referenced(&pods)).await.unwrap_or_default()
    }

    /// Removes what no pod uses. While somebody is just taking one, that is left to the next time.
    pub(crate) async fn remove_unused(&self) -> Result<(), String> {
        let _turn = self.removing.lock().await;
        let Ok(_alone) = self.taking.try_write() else { return Ok(()) };
        let (all, pods) = (self.layout.image_volumes(), self.layout.pods());
        blocking(move || {
            let here: Vec<String> = names(&all).collect();
            // Most nodes have none, and need not look at every pod.
            let used = if here.is_empty() { BTreeSet::new() } else { referenced(&pods) };
            for name in here.iter().filter(|name| !used.contains(*name)) {
                tracing::info!(image = name, "removing an unpacked image that no pod uses");
                remove(&all, name)?;
            }
            Ok(())
        })
        .await
    }
}

/// Where a pod's images are mounted.
fn of_pod(pod: &Path) -> PathBuf {
    pod.join("image-volumes")
}

/// An id becomes the name of a directory.
fn check(id: &str) -> Result<(), String> {
    let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, ':' | '-' | '_');
    if id.is_empty() || !id.chars().all(plain) {
        return Err(format!("{id:?} is no image id"));
    }
    Ok(())
}

/// Gives what is whole its name. What has that name after a crash of the machine must be whole too, and so it reaches
/// the disk first.
fn put(unfinished: &Path, done: &Path) -> std::io::Result<()> {
    nix::unistd::syncfs(fs::File::open(unfinished)?)?;
    fs::rename(unfinished, done)
}

/// Removes a directory, which has another name before any of it goes: what has an image's name is whole.
fn remove(all: &Path, name: &str) -> Result<(), String> {
    if name.starts_with(UNFINISHED) {
        return remove_tree(&all.join(name));
    }
    let going = all.join(format!("{UNFINISHED}{name}"));
    remove_tree(&going)?;
    let named = |error: std::io::Error| format!("{}: {error}", going.display());
    fs::rename(all.join(name), &going).map_err(named)?;
    remove_tree(&going)
}

/// The ids that pods have directories for.
fn referenced(pods: &Path) -> BTreeSet<String> {
    let below =
        |directory: PathBuf| names(&directory).map(move |name| directory.join(name)).collect::<Vec<_>>();
    let volumes = below(pods.to_owned()).into_iter().flat_map(|pod| below(of_pod(&pod)));
    volumes.flat_map(|volume| names(&volume).collect::<Vec<_>>()).collect()
}

fn names(directory: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use kubelet_runtime::simulated::{SimulatedOptions, SimulatedRuntime};

    use super::*;

    fn store(home: &Path) -> ImageVolumes {
        let runtime = Arc::new(SimulatedRuntime::new(SimulatedOptions::default()));
        ImageVolumes::new(Layout::new(home), runtime)
    }

    #[tokio::test]
    async fn what_no_pod_has_a_directory_for_goes() {
        let home = tempfile::tempdir().unwrap();
        let images = store(home.path());
        let all = home.path().join("image-volumes");
        for name in ["sha256:a", "sha256:b", ".unpacking-sha256:c"] {
            fs::create_dir_all(all.join(name).join("bin")).unwrap();
        }
        let pod = home.path().join("pods/u/image-volumes/models/sha256:a");
        fs::create_dir_all(&pod).unwrap();
        assert_eq!(images.in_use().await.into_iter().collect::<Vec<_>>(), ["sha256:a"]);
        images.remove_unused().await.unwrap();
        assert_eq!(names(&all).collect::<Vec<_>>(), ["sha256:a"]);
        fs::remove_dir_all(home.path().join("pods/u")).unwrap();
        let taken = images.taking.read().await;
        images.remove_unused().await.unwrap();
        assert_eq!(names(&all).count(), 1, "somebody may be about to use it");
        drop(taken);
        images.remove_unused().await.unwrap();
        assert_eq!(names(&all).count(), 0);
    }

    #[tokio::test]
    async fn what_cannot_be_unpacked_is_not_there() {
        let home = tempfile::tempdir().unwrap();
        let images = store(home.path());
        let refused = images.mount("u", "models", "sha256:a").await.unwrap_err();
        assert!(refused.contains("not supported by this runtime"), "{refused}");
        assert!(!home.path().join("image-volumes/sha256:a").exists());
        assert!(images.mount("u", "models", "../a").await.unwrap_err().contains("no image id"));
    }
}
