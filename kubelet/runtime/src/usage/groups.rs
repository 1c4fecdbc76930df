//! Where a process's control groups are, in both versions of the kernel's interface (`man 7 cgroups`).

use std::path::{Path, PathBuf};

use super::{GroupUsage, v1, v2};
use crate::control_groups::names::is_of_pod;

const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// The control groups of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Groups {
    /// Version 1: a hierarchy for each controller, or for a few together.
    Split(Vec<Membership>),
    /// Version 2: one path for all.
    Unified(String),
}

/// The group in one hierarchy of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The controllers as they are mounted: `cpu,cpuacct`.
    pub controllers: String,
    /// The group.
    pub path: String,
}

impl Groups {
    /// Reads `/proc/<pid>/cgroup`: lines of hierarchy, controllers and path.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut split = Vec::new();
        let mut unified = None;
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            if controllers.is_empty() {
                unified = Some(path.to_owned());
            } else {
                split.push(Membership { controllers: controllers.to_owned(), path: path.to_owned() });
            }
        }
        // Where both are mounted, controllers are in version 1, and version 2 only groups processes.
        if split.iter().any(|membership| membership.has("memory")) {
            Some(Self::Split(split))
        } else {
            unified.map(Self::Unified)
        }
    }

    /// The root groups of the same hierarchies.
    #[must_use]
    pub fn root(&self) -> Self {
        match self {
            Self::Split(memberships) => Self::Split(
                memberships
                    .iter()
                    .map(|membership| Membership { path: "/".to_owned(), ..membership.clone() })
                    .collect(),
            ),
            Self::Unified(_) => Self::Unified("/".to_owned()),
        }
    }

    /// The group's path from the hierarchy's root on; that of the memory controller in version 1.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Split(memberships) => memberships
                .iter()
                .find(|membership| membership.has("memory"))
                .map_or("/", |found| &found.path),
            Self::Unified(path) => path,
        }
    }

    /// The groups that these are in, if they are a pod's own.
    #[must_use]
    pub fn of_pod(&self, uid: &str) -> Option<Self> {
        let above = |path: &str| {
            let (above, _) = path.rsplit_once('/')?;
            let (_, name) = above.rsplit_once('/')?;
            is_of_pod(name, uid).then(|| above.to_owned())
        };
        match self {
            Self::Split(memberships) => {
                let pods = memberships.iter().filter_map(|membership| {
                    Some(Membership { path: above(&membership.path)?, ..membership.clone() })
                });
                let pods: Vec<Membership> = pods.collect();
                pods.iter().any(|membership| membership.has("memory")).then_some(Self::Split(pods))
            }
            Self::Unified(path) => above(path).map(Self::Unified),
        }
    }

    /// Reads what the groups use; zeros where a file is not there.
    #[must_use]
    pub fn usage(&self) -> GroupUsage {
        match self {
            Self::Split(memberships) => v1::usage(|controller, file| {
                let found = memberships.iter().find(|membership| membership.has(controller))?;
                read(&directory(&found.controllers, &found.path).join(file))
            }),
            Self::Unified(path) => {
                let group = directory("", path);
                v2::usage(|file| read(&group.join(file)), || read(Path::new("/proc/meminfo")))
            }
        }
    }
}

impl Membership {
    fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|one| one == controller)
    }
}

fn directory(controllers: &str, path: &str) -> PathBuf {
    Path::new(MOUNT_POINT).join(controllers).join(path.trim_start_matches('/'))
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_are_found() {
        let v1 = Groups::parse("6:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n0::/\n");
        let Some(Groups::Split(memberships)) = &v1 else { panic!("version 1 must be found: {v1:?}") };
        let cpu = memberships.iter().find(|membership| membership.has("cpuacct")).expect("it is there");
        assert_eq!(
            directory(&cpu.controllers, &cpu.path),
            PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/docker/abc")
        );
        assert_eq!(v1.as_ref().map(Groups::path), Some("/docker/abc"));
        assert_eq!(v1.map(|groups| groups.root().path().to_owned()).as_deref(), Some("/"));

        let v2 = Groups::parse("0::/system.slice/docker-abc.scope\n");
        assert_eq!(v2, Some(Groups::Unified("/system.slice/docker-abc.scope".into())));
        assert_eq!(
            directory("", "/system.slice/docker-abc.scope"),
            PathBuf::from("/sys/fs/cgroup/system.slice/docker-abc.scope")
        );
        assert_eq!(Groups::parse(""), None);
    }

    #[test]
    fn a_container_s_group_may_be_in_its_pod_s() {
        let split = Groups::parse(
            "6:memory:/n/kubepods/podu-1/abc\n3:cpu,cpuacct:/n/kubepods/podu-1/abc\n1:name=systemd:/\n",
        );
        let split = split.expect("version 1 must be found");
        assert_eq!(split.of_pod("u-1").as_ref().map(Groups::path), Some("/n/kubepods/podu-1"));
        assert_eq!(split.of_pod("u-2"), None);
        let slice = Groups::Unified("/kubepods.slice/kubepods-podu_1.slice/docker-abc.scope".into());
        assert_eq!(
            slice.of_pod("u-1"),
            Some(Groups::Unified("/kubepods.slice/kubepods-podu_1.slice".into()))
        );
        assert_eq!(Groups::Unified("/docker/abc".into()).of_pod("u-1"), None);
    }
}
