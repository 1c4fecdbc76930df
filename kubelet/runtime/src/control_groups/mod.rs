//! A control group for each pod, around those that the runtime makes for its containers.
//!
//! What a pod may use as a whole is written here; the runtime is only told which group its containers belong into.
//! Everything is found again by name (`names`), so nothing is remembered; all calls block for a few small files, or
//! for systemd. What stands where: `names` (upstream's layout) · `files` (the kernel's) · `slices` (systemd's).

mod files;
pub(crate) mod names;
mod slices;

use std::{collections::BTreeSet, fmt, io};

use self::{files::Hierarchies, names::Name};

pub use self::names::Group;

/// Microseconds of a period of the CPU quota, unless another is asked for.
const PERIOD: i64 = 100_000;

/// Who makes control groups (Docker's `native.cgroupdriver`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// Whoever needs one, in the kernel's file system: `cgroupfs`.
    Files,
    /// systemd, when it is asked: `systemd`.
    Systemd,
}

/// The version of the kernel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    One,
    /// One hierarchy.
    Two,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if *self == Self::One { "1" } else { "2" })
    }
}

/// A pod's quality of service, as far as its group stands elsewhere for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    /// `Guaranteed`
    Guaranteed,
    /// `Burstable`
    Burstable,
    /// `BestEffort`
    BestEffort,
}

impl QosClass {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Guaranteed, Self::Burstable, Self::BestEffort];
}

/// What a group may use. `None` stays as it is; a negative limit is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupSettings {
    /// Relative weight (1024 a CPU, at least 2).
    pub cpu_shares: Option<i64>,
    /// Microseconds of CPU for each period.
    pub cpu_quota: Option<i64>,
    /// Microseconds of a period.
    pub cpu_period: Option<i64>,
    /// Bytes of memory.
    pub memory_limit: Option<i64>,
    /// Processes and threads.
    pub pids_limit: Option<i64>,
    /// Bytes of huge pages, by the bytes of a page.
    pub huge_pages: Vec<(u64, i64)>,
}

/// Which settings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All.
    Exact,
    /// Limits of a group that was there only where they grow: its containers have what they have, and none may have more
    /// than the group.
    Raise,
}

/// Shares (2 to 262,144) as a weight of version 2 (1 to 10,000), with 1024 at its default of 100: the curve that runc
/// and crun use since 2025 (`ConvertCPUSharesToCgroupV2Value` of `opencontainers/cgroups`).
#[must_use]
pub fn weight(shares: i64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// The groups of the pods of one kubelet.
#[derive(Debug)]
pub struct PodGroups {
    driver: Driver,
    version: Version,
    root: Name,
    hierarchies: Hierarchies,
}

impl PodGroups {
    /// Below `root`, which is this kubelet's own: what is in it and belongs to no pod may be removed.
    ///
    /// # Errors
    /// If no control groups are mounted.
    pub fn open(driver: Driver, version: Version, root: &str) -> io::Result<Self> {
        Ok(Self { driver, version, root: Name::root(root), hierarchies: Hierarchies::find(version)? })
    }

    /// What the runtime is told to put a pod's containers into.
    #[must_use]
    pub fn parent(&self, group: &Group<'_>) -> String {
        self.root.of(group).for_runtime(self.driver)
    }

    /// Makes a group if it is not there, with all above it, and writes its settings.
    ///
    /// # Errors
    /// With the file that could not be written.
    pub fn ensure(&self, group: &Group<'_>, settings: &GroupSettings, mode: Mode) -> io::Result<()> {
        let name = self.root.of(group);
        let directory = name.directory(self.driver);
        match self.driver {
            Driver::Files => {
                let is_new = self.hierarchies.make(&directory)?;
                self.hierarchies.write(&directory, settings, if is_new { Mode::Exact } else { mode })
            }
            // A unit that changes is changed at once; what only grows for now is written past it.
            Driver::Systemd if mode == Mode::Raise && self.hierarchies.has(&directory) => {
                self.hierarchies.write(&directory, settings, mode)
            }
            Driver::Systemd => {
                slices::ensure(&name, settings, self.version)?;
                if settings.huge_pages.is_empty() {
                    return Ok(());
                }
                // systemd knows nothing of huge pages, and leaves alone what it does not know.
                let huge_pages = settings.huge_pages.clone();
                self.hierarchies.make(&directory)?;
                let alone = GroupSettings { huge_pages, ..GroupSettings::default() };
                self.hierarchies.write(&directory, &alone, Mode::Exact)
            }
        }
    }

    /// The uids of the pods that have a group.
    #[must_use]
    pub fn pods(&self) -> BTreeSet<String> {
        let classes = QosClass::ALL.map(|class| self.root.of(&Group::Class(class)).directory(self.driver));
        let names = classes.iter().flat_map(|directory| self.hierarchies.below(directory));
        names.filter_map(|name| names::uid_of(&name, self.driver)).collect()
    }

    /// Removes a pod's group, and ends what is left in it.
    ///
    /// # Errors
    /// With the directory that stays.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        for class in QosClass::ALL {
            let name = self.root.of(&Group::Pod(class, uid));
            let directory = name.directory(self.driver);
            if self.driver == Driver::Systemd && self.hierarchies.has(&directory) {
                slices::stop(&name)?;
            }
            self.hierarchies.remove(&directory)?;
        }
        Ok(())
    }

    /// Removes everything, the root included.
    ///
    /// # Errors
    /// With the directory that stays.
    pub fn remove_everything(&self) -> io::Result<()> {
        for uid in self.pods() {
            self.remove(&uid)?;
        }
        let all = self.root.of(&Group::AllPods);
        if self.driver == Driver::Systemd {
            slices::stop(&all)?;
        }
        self.hierarchies.remove(&all.directory(self.driver))?;
        let mut above = all.parent();
        while let Some(name) = above {
            let directory = name.directory(self.driver);
            // Another one's group in it keeps it.
            if self.driver == Driver::Systemd && self.hierarchies.below(&directory).is_empty() {
                slices::stop(&name)?;
            }
            self.hierarchies.remove_if_empty(&directory);
            above = name.parent();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_runc() {
        let shares = [0, 2, 3, 102, 512, 1024, 2048, 262_143, 262_144, 500_000];
        assert_eq!(shares.map(weight), [1, 1, 2, 17, 59, 100, 174, 10_000, 10_000, 10_000]);
    }

    #[test]
    fn pods_are_found_and_removed_by_uid() {
        let home = tempfile::tempdir().unwrap();
        let groups = PodGroups {
            driver: Driver::Files,
            version: Version::Two,
            root: Name::root("/own"),
            hierarchies: Hierarchies::in_directory(Version::Two, home.path()),
        };
        // Without settings no file is in the way of a plain directory's removal.
        let none = GroupSettings::default();
        let wanted = [Group::Pod(QosClass::Guaranteed, "a"), Group::Pod(QosClass::BestEffort, "b")];
        for group in wanted {
            groups.ensure(&group, &none, Mode::Exact).unwrap();
        }
        assert_eq!(groups.pods(), ["a".to_owned(), "b".to_owned()].into());
        std::fs::create_dir(home.path().join("own/kubepods/besteffort/podb/container")).unwrap();
        groups.remove("b").unwrap();
        groups.remove("b").unwrap();
        assert_eq!(groups.pods(), ["a".to_owned()].into());
        groups.remove_everything().unwrap();
        assert!(!home.path().join("own").exists());
        assert!(home.path().exists());
    }
}
