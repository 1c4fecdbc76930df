//! The kernel's files of a control group, in both versions of its interface: which are written for which settings,
//! and how a group and all below it goes.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{GroupSettings, Mode, Version};

/// Where control groups are mounted.
const MOUNT_POINT: &str = "/sys/fs/cgroup";
/// The controllers that pods' groups are made in; the runtime makes the others as it needs them.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "hugetlb"];
/// A group whose last process is just ending is busy for a moment, and version 1 has no event for its end: the waits
/// are doubled, as runc's are.
const BUSY_TRIES: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// Version 1 says of a memory without limit that it is this or more (whole pages below 2^63).
const NO_MEMORY_LIMIT: i64 = 1 << 62;
/// What the names of the files of huge pages begin with.
const HUGE_PAGES: &str = "hugetlb.";

/// The mounted hierarchies.
#[derive(Debug, Clone)]
pub(super) struct Hierarchies {
    version: Version,
    /// Mount points with the controllers that are on each; in version 2 there is one.
    mounts: Vec<(PathBuf, Vec<String>)>,
}

impl Hierarchies {
    /// Reads `/proc/self/mountinfo`.
    pub(super) fn find(version: Version) -> io::Result<Self> {
        let mut found = Self::parse(version, &std::fs::read_to_string("/proc/self/mountinfo")?);
        if version == Version::Two {
            for (point, controllers) in &mut found.mounts {
                let has = read(&point.join("cgroup.controllers")).unwrap_or_default();
                controllers.retain(|one| has.split_whitespace().any(|there| there == one));
            }
        }
        if found.mounts.is_empty() {
            let message = format!("no control groups of version {version} are mounted at {MOUNT_POINT}");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        Ok(found)
    }

    /// Lines of `… mount-point options - type source super-options` (`man 5 proc`).
    fn parse(version: Version, mountinfo: &str) -> Self {
        let mut mounts: Vec<(PathBuf, Vec<String>)> = Vec::new();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4).filter(|point| point.starts_with(MOUNT_POINT)) else {
                continue;
            };
            let mut right = right.split(' ');
            let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
            let controllers = match (version, kind) {
                (Version::One, "cgroup") => options.split(',').map(str::to_owned).collect(),
                // Beside version 1, processes are grouped in it too, if only by name.
                (Version::One, "cgroup2") => Vec::new(),
                (Version::Two, "cgroup2") => CONTROLLERS.map(str::to_owned).to_vec(),
                _ => continue,
            };
            mounts.push((PathBuf::from(point), controllers));
        }
        Self { version, mounts }
    }

    /// A hierarchy below a directory of the test's own.
    #[cfg(test)]
    pub(super) fn in_directory(version: Version, directory: &Path) -> Self {
        let mounts = match version {
            Version::One => CONTROLLERS
                .map(|controller| (directory.join(controller), vec![controller.to_owned()]))
                .to_vec(),
            Version::Two => vec![(directory.to_owned(), CONTROLLERS.map(str::to_owned).to_vec())],
        };
        Self { version, mounts }
    }

    fn of(&self, controller: &str) -> Option<&Path> {
        let found = self.mounts.iter().find(|(_, on)| on.iter().any(|known| known == controller));
        found.map(|(point, _)| point.as_path())
    }

    /// Makes a group, with all above it, where our controllers are; tells whether it is new.
    pub(super) fn make(&self, group: &Path) -> io::Result<bool> {
        let mut is_new = false;
        match self.version {
            Version::One => {
                for point in CONTROLLERS.iter().filter_map(|controller| self.of(controller)) {
                    let mut directory = point.to_owned();
                    for word in group {
                        directory.push(word);
                        is_new = make_one(&directory)?;
                        // Kernels before 5.11 count what is below only where they are told to, before there is
                        // anything below.
                        let hierarchical = directory.join("memory.use_hierarchy");
                        if is_new && read(&hierarchical).is_some_and(|text| text.trim() == "0") {
                            write(&hierarchical, "1")?;
                        }
                    }
                }
            }
            Version::Two => {
                let Some((point, _)) = self.mounts.first() else { return Ok(false) };
                let mut directory = point.clone();
                for word in group {
                    delegate(&directory)?;
                    directory.push(word);
                    is_new = make_one(&directory)?;
                }
                // What is in a pod's group is in groups of its own again, whose limits need the controllers.
                delegate(&directory)?;
            }
        }
        Ok(is_new)
    }

    /// Writes settings into a group that is there.
    pub(super) fn write(&self, group: &Path, settings: &GroupSettings, mode: Mode) -> io::Result<()> {
        for (controller, file, value) in self.changes(settings) {
            let Some(point) = self.of(controller) else { continue };
            let path = point.join(group).join(file);
            if mode == Mode::Raise && !is_raised(&path, &value) {
                continue;
            }
            write(&path, &value)?;
        }
        Ok(())
    }

    /// Controller, file and value of everything that is set, in the order in which the kernel takes it.
    fn changes(&self, settings: &GroupSettings) -> Vec<(&'static str, String, String)> {
        let mut changes = Vec::new();
        let mut add =
            |controller, file: &str, value: String| changes.push((controller, file.to_owned(), value));
        match self.version {
            Version::One => {
                if let Some(shares) = settings.cpu_shares {
                    add("cpu", "cpu.shares", shares.to_string());
                }
                if let Some(quota) = settings.cpu_quota {
                    if let Some(period) = settings.cpu_period.filter(|_| quota > 0) {
                        add("cpu", "cpu.cfs_period_us", period.to_string());
                    }
                    add("cpu", "cpu.cfs_quota_us", quota.to_string());
                }
                if let Some(bytes) = settings.memory_limit {
                    add("memory", "memory.limit_in_bytes", bytes.to_string());
                }
            }
            Version::Two => {
                let or_max = |number: i64| if number < 0 { "max".to_owned() } else { number.to_string() };
                if let Some(shares) = settings.cpu_shares {
                    add("cpu", "cpu.weight", super::weight(shares).to_string());
                }
                if let Some(quota) = settings.cpu_quota {
                    let period = settings.cpu_period.unwrap_or(super::PERIOD);
                    add("cpu", "cpu.max", format!("{} {period}", or_max(quota)));
                }
                if let Some(bytes) = settings.memory_limit {
                    add("memory", "memory.max", or_max(bytes));
                }
            }
        }
        if let Some(most) = settings.pids_limit {
            add("pids", "pids.max", if most < 0 { "max".to_owned() } else { most.to_string() });
        }
        let file = if self.version == Version::One { "limit_in_bytes" } else { "max" };
        for (size, bytes) in &settings.huge_pages {
            add("hugetlb", &format!("{HUGE_PAGES}{}.{file}", page_size(*size)), bytes.to_string());
        }
        changes
    }

    /// Whether a group is there, in whatever hierarchy.
    pub(super) fn has(&self, group: &Path) -> bool {
        self.mounts.iter().any(|(point, _)| point.join(group).is_dir())
    }

    /// The names of the directories in a group, in whatever hierarchy.
    pub(super) fn below(&self, group: &Path) -> BTreeSet<String> {
        let points = self.mounts.iter().map(|(point, _)| point.join(group));
        points
            .flat_map(|directory| children(&directory))
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect()
    }

    /// Removes a group in all hierarchies, with what is below it and with the processes that are left in it.
    pub(super) fn remove(&self, group: &Path) -> io::Result<()> {
        self.mounts.iter().try_for_each(|(point, _)| remove(&point.join(group)))
    }

    /// Removes a group in all hierarchies if there is nothing in it.
    pub(super) fn remove_if_empty(&self, group: &Path) {
        for (point, _) in &self.mounts {
            // Another one's group in it keeps it.
            let _ = std::fs::remove_dir(point.join(group));
        }
    }
}

/// The size of a huge page as the kernel has it in names of files: `2MB`.
fn page_size(bytes: u64) -> String {
    let units = [("GB", 30), ("MB", 20)];
    let found = units.into_iter().find(|(_, bits)| bytes >> bits > 0).unwrap_or(("KB", 10));
    format!("{}{}", bytes >> found.1, found.0)
}

/// Whether a value is more than what a limit's file has; what is no limit may always be written.
fn is_raised(path: &Path, value: &str) -> bool {
    let is_limit = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
        matches!(name, "cpu.cfs_quota_us" | "cpu.max" | "memory.limit_in_bytes" | "memory.max")
            || name.starts_with(HUGE_PAGES)
    });
    let limit = |text: &str| {
        let first = text.split_whitespace().next().unwrap_or_default();
        match first.parse::<i64>() {
            Ok(number) if (0..NO_MEMORY_LIMIT).contains(&number) => number,
            _ => i64::MAX,
        }
    };
    let Some(current) = read(path).filter(|_| is_limit) else { return true };
    limit(value) > limit(&current)
}

/// Lets the groups below one use the controllers that it has itself.
fn delegate(directory: &Path) -> io::Result<()> {
    let has = read(&directory.join("cgroup.controllers")).unwrap_or_default();
    let control = directory.join("cgroup.subtree_control");
    let given = read(&control).unwrap_or_default();
    for controller in CONTROLLERS {
        let is_in = |list: &str| list.split_whitespace().any(|one| one == controller);
        if is_in(&has) && !is_in(&given) {
            write(&control, &format!("+{controller}"))?;
        }
    }
    Ok(())
}

fn make_one(directory: &Path) -> io::Result<bool> {
    match std::fs::create_dir(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(named("make", directory, &error)),
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    for child in children(directory) {
        remove(&child)?;
    }
    let mut wait = FIRST_WAIT;
    for _ in 0..BUSY_TRIES {
        match std::fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                kill_all(directory);
                std::thread::sleep(wait);
                wait *= 2;
            }
            Err(error) => return Err(named("remove", directory, &error)),
        }
    }
    std::fs::remove_dir(directory).map_err(|error| named("remove", directory, &error))
}

/// Ends what a runtime has left behind in a pod's group (upstream's `tryKillingCgroupProcesses`).
fn kill_all(directory: &Path) {
    let own = Pid::this().as_raw();
    let processes = read(&directory.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.trim().parse::<i32>().ok()) {
        // A zero stands for a process of another namespace.
        if pid > 1 && pid != own {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    std::fs::write(path, value).map_err(|error| named(&format!("write {value:?} to"), path, &error))
}

fn named(action: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {action} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> GroupSettings {
        GroupSettings {
            cpu_shares: Some(1024),
            cpu_quota: Some(150_000),
            cpu_period: Some(100_000),
            memory_limit: Some(64 << 20),
            pids_limit: Some(100),
            huge_pages: vec![(2 << 20, 8 << 20), (1 << 30, 0), (64 << 10, 0)],
        }
    }

    #[test]
    fn both_versions_get_their_own_files() {
        for (version, expected) in [
            (
                Version::One,
                &[
                    ("cpu/a/b/cpu.shares", "1024"),
                    ("cpu/a/b/cpu.cfs_period_us", "100000"),
                    ("cpu/a/b/cpu.cfs_quota_us", "150000"),
                    ("memory/a/b/memory.limit_in_bytes", "67108864"),
                    ("pids/a/b/pids.max", "100"),
                    ("hugetlb/a/b/hugetlb.2MB.limit_in_bytes", "8388608"),
                    ("hugetlb/a/b/hugetlb.1GB.limit_in_bytes", "0"),
                    ("hugetlb/a/b/hugetlb.64KB.limit_in_bytes", "0"),
                ][..],
            ),
            (
                Version::Two,
                &[
                    ("a/b/cpu.weight", "100"),
                    ("a/b/cpu.max", "150000 100000"),
                    ("a/b/memory.max", "67108864"),
                    ("a/b/pids.max", "100"),
                    ("a/b/hugetlb.2MB.max", "8388608"),
                ],
            ),
        ] {
            let home = tempfile::tempdir().unwrap();
            let hierarchies = Hierarchies::in_directory(version, home.path());
            if version == Version::One {
                CONTROLLERS.iter().for_each(|one| std::fs::create_dir(home.path().join(one)).unwrap());
            }
            let group = Path::new("a/b");
            assert!(hierarchies.make(group).unwrap());
            assert!(!hierarchies.make(group).unwrap());
            hierarchies.write(group, &settings(), Mode::Exact).unwrap();
            for (file, value) in expected {
                assert_eq!(std::fs::read_to_string(home.path().join(file)).unwrap(), *value, "{file}");
            }
            assert_eq!(hierarchies.below(Path::new("a")), ["b".to_owned()].into());
        }
    }

    #[test]
    fn before_containers_grow_limits_are_only_raised() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("p")).unwrap();
        let hierarchies = Hierarchies::in_directory(Version::Two, home.path());
        let group = Path::new("p");
        let file = |name: &str| std::fs::read_to_string(home.path().join("p").join(name)).unwrap();
        hierarchies.write(group, &settings(), Mode::Exact).unwrap();
        let mixed = GroupSettings {
            cpu_shares: Some(2),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            memory_limit: Some(-1),
            ..GroupSettings::default()
        };
        hierarchies.write(group, &mixed, Mode::Raise).unwrap();
        assert_eq!((file("cpu.max"), file("memory.max")), ("150000 100000".into(), "max".into()));
        assert_eq!(file("cpu.weight"), "1", "a weight is no limit");
        hierarchies.write(group, &settings(), Mode::Raise).unwrap();
        assert_eq!(file("memory.max"), "max", "nothing is more than no limit");
        hierarchies.write(group, &mixed, Mode::Exact).unwrap();
        assert_eq!(file("cpu.max"), "50000 100000");
    }

    #[test]
    fn in_version_2_controllers_are_handed_down() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        std::fs::write(home.path().join("cgroup.subtree_control"), "cpu memory\n").unwrap();
        Hierarchies::in_directory(Version::Two, home.path()).make(Path::new("a")).unwrap();
        // The kernel would add it to the list.
        assert_eq!(std::fs::read_to_string(home.path().join("cgroup.subtree_control")).unwrap(), "+pids");
    }

    #[test]
    fn mounts_are_told_apart() {
        let mountinfo = "\
            30 25 0:26 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            34 30 0:28 / /mnt/elsewhere rw - cgroup cgroup rw,memory\n";
        let one = Hierarchies::parse(Version::One, mountinfo);
        assert_eq!(one.of("cpu"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!((one.of("pids"), one.mounts.len()), (None, 3));
        let two = Hierarchies::parse(Version::Two, "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(two.of("memory"), Some(Path::new("/sys/fs/cgroup")));
    }
}
