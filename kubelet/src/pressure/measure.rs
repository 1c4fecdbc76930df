//! Measures what can run out: memory, file systems, process ids, and what a directory holds.

use std::{
    collections::{BTreeMap, HashSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::thresholds::{Observation, Signal};
use crate::machine::meminfo;

/// Size of a block as `st_blocks` counts them.
const BLOCK: u64 = 512;

/// Measures the node; what cannot be measured is left out.
pub(super) async fn node(root: &Path, image_root: Option<&Path>) -> BTreeMap<Signal, Observation> {
    let (root, image_root) = (root.to_owned(), image_root.map(Path::to_owned));
    let measured = tokio::task::spawn_blocking(move || {
        let mut found = BTreeMap::new();
        if let (Some(available), Some(capacity)) = (meminfo("MemAvailable"), meminfo("MemTotal")) {
            found.insert(Signal::MemoryAvailable, Observation { available, capacity });
        }
        file_system(&root, Signal::NodeFsAvailable, Signal::NodeFsInodesFree, &mut found);
        if let Some(path) = &image_root {
            file_system(path, Signal::ImageFsAvailable, Signal::ImageFsInodesFree, &mut found);
        }
        if let Some(pids) = process_ids() {
            found.insert(Signal::PidAvailable, pids);
        }
        found
    });
    measured.await.unwrap_or_default()
}

fn file_system(path: &Path, space: Signal, inodes: Signal, found: &mut BTreeMap<Signal, Observation>) {
    let Ok(stat) = nix::sys::statvfs::statvfs(path) else { return };
    let block = stat.fragment_size();
    let bytes = Observation { available: stat.blocks_available() * block, capacity: stat.blocks() * block };
    found.insert(space, bytes);
    // Some file systems (btrfs) have no fixed number of inodes, and say 0.
    if stat.files() > 0 {
        found.insert(inodes, Observation { available: stat.files_available(), capacity: stat.files() });
    }
}

/// As upstream's `pkg/kubelet/stats/pidlimit`: the lower of the two limits, less the threads that there are.
fn process_ids() -> Option<Observation> {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limits = [number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max")];
    let capacity = limits.into_iter().flatten().min()?;
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let running = load.split_whitespace().nth(3)?.split_once('/')?.1.parse::<u64>().ok()?;
    Some(Observation { available: capacity.saturating_sub(running), capacity })
}

/// Bytes and files below a directory, as `du` counts them: what is linked twice counts once, and other file systems
/// do not count.
pub(super) async fn directory(path: PathBuf) -> (u64, u64) {
    tokio::task::spawn_blocking(move || walk(&path)).await.unwrap_or_default()
}

fn walk(root: &Path) -> (u64, u64) {
    let Ok(top) = std::fs::symlink_metadata(root) else { return (0, 0) };
    let (mut bytes, mut files) = (top.blocks() * BLOCK, 1);
    let mut seen = HashSet::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() || (meta.nlink() > 1 && !meta.is_dir() && !seen.insert(meta.ino())) {
                continue;
            }
            bytes += meta.blocks() * BLOCK;
            files += 1;
            if meta.is_dir() {
                left.push(entry.path());
            }
        }
    }
    (bytes, files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_is_measured_as_du_does() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("below")).unwrap();
        let (empty, _) = directory(home.path().to_owned()).await;
        std::fs::write(home.path().join("below/file"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(home.path().join("below/file"), home.path().join("again")).unwrap();
        let (bytes, files) = directory(home.path().to_owned()).await;
        assert_eq!(files, 3);
        assert!((1 << 20..(1 << 20) + 65536).contains(&(bytes - empty)), "{bytes} after {empty}");
        assert_eq!(directory(home.path().join("none")).await, (0, 0));
    }

    #[tokio::test]
    async fn this_machine_can_be_measured() {
        let found = node(Path::new("/"), Some(Path::new("/tmp"))).await;
        for signal in
            [Signal::MemoryAvailable, Signal::NodeFsAvailable, Signal::ImageFsAvailable, Signal::PidAvailable]
        {
            let one = found[&signal];
            assert!(one.available > 0 && one.available <= one.capacity, "{signal:?} {one:?}");
        }
    }
}
