//! How much a directory holds: walked seldom, for a walk costs as much as the directory is large.

use std::{
    collections::{HashMap, HashSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// How old a figure may be where nothing else is said (upstream: `volumeStatsAggPeriod`, a minute).
const KEEP: Duration = Duration::from_secs(60);
/// A walk is repeated after so many times what it took, so that walking costs at most a fiftieth of a core.
const REST: u32 = 50;

/// What a directory and everything below it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskUsage {
    /// Bytes on disk (blocks, not lengths).
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// Measures directories and remembers.
#[derive(Debug)]
pub struct DiskMeter {
    /// How old a figure may be.
    keep: Duration,
    /// By directory: the figure and when it is to be measured again. Written by whoever measures.
    known: Mutex<HashMap<PathBuf, (DiskUsage, Instant)>>,
}

impl Default for DiskMeter {
    fn default() -> Self {
        Self::new(KEEP)
    }
}

impl DiskMeter {
    /// One whose figures may be that old.
    #[must_use]
    pub fn new(keep: Duration) -> Self {
        Self { keep, known: Mutex::default() }
    }

    /// The usage of a directory, measured now unless that is known well enough. Blocks.
    pub fn of(&self, directory: &Path) -> DiskUsage {
        let now = Instant::now();
        if let Some((usage, until)) = self.known.lock().get(directory)
            && *until > now
        {
            return *usage;
        }
        let usage = measure(directory);
        let until = now + self.keep.max(now.elapsed().saturating_mul(REST));
        self.known.lock().insert(directory.to_owned(), (usage, until));
        usage
    }

    /// Forgets directories that nobody asks for any more.
    pub fn keep_only(&self, asked: &HashSet<&Path>) {
        self.known.lock().retain(|directory, _| asked.contains(directory.as_path()));
    }
}

/// Walks a directory without leaving its file system; a file with several names counts once.
fn measure(directory: &Path) -> DiskUsage {
    let mut usage = DiskUsage::default();
    let Ok(root) = std::fs::symlink_metadata(directory) else { return usage };
    let mut linked = HashSet::new();
    let mut left = vec![directory.to_owned()];
    usage.bytes = root.blocks() * 512;
    usage.inodes = 1;
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != root.dev()
                || metadata.nlink() > 1 && !metadata.is_dir() && !linked.insert(metadata.ino())
            {
                continue;
            }
            usage.bytes += metadata.blocks() * 512;
            usage.inodes += 1;
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_measured_once_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("sub/data"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(folder.path().join("sub/data"), folder.path().join("again")).unwrap();
        let meter = DiskMeter::default();
        let usage = meter.of(folder.path());
        assert!((100_000..150_000).contains(&usage.bytes), "{usage:?}");
        assert_eq!(usage.inodes, 3, "the second name is the same file");

        std::fs::write(folder.path().join("more"), "x").unwrap();
        assert_eq!(meter.of(folder.path()), usage, "remembered");
        meter.keep_only(&HashSet::new());
        assert_eq!(meter.of(folder.path()).inodes, 4, "forgotten and measured again");
        assert_eq!(meter.of(Path::new("/no/such/directory")), DiskUsage::default());
    }
}
