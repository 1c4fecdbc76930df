//! What a container uses, read from its control group: a few small files instead of a call to the daemon.
//!
//! Both versions are read: v1 with one hierarchy for each controller, v2 with one for all. The numbers mean what
//! they mean in Kubernetes' resource metrics: the working set is what is in use without inactive file cache.

use std::{io, path::PathBuf};

use crate::ContainerStats;

const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// The directories of a process's control groups.
#[derive(Debug, PartialEq, Eq)]
enum Groups {
    /// Version 1: that of `cpuacct` and that of `memory`.
    Split { cpu: PathBuf, memory: PathBuf },
    /// Version 2.
    Unified(PathBuf),
}

/// The usage of the container whose first process that is; `None` if it has ended meanwhile.
pub(super) async fn of_process(name: String, pid: u32) -> Option<ContainerStats> {
    let membership = tokio::fs::read_to_string(format!("/proc/{pid}/cgroup")).await.ok()?;
    let groups = groups(&membership)?;
    let read = async || -> io::Result<ContainerStats> {
        let (cpu_nanos, memory_usage, inactive) = match &groups {
            Groups::Split { cpu, memory } => (
                number(&text(cpu.join("cpuacct.usage")).await?),
                number(&text(memory.join("memory.usage_in_bytes")).await?),
                field(&text(memory.join("memory.stat")).await?, "total_inactive_file"),
            ),
            Groups::Unified(group) => (
                field(&text(group.join("cpu.stat")).await?, "usage_usec").saturating_mul(1000),
                number(&text(group.join("memory.current")).await?),
                field(&text(group.join("memory.stat")).await?, "inactive_file"),
            ),
        };
        let memory_working_set = memory_usage.saturating_sub(inactive);
        Ok(ContainerStats { name: name.clone(), cpu_nanos, memory_working_set, memory_usage })
    };
    match read().await {
        Ok(stats) => Some(stats),
        Err(error) => {
            tracing::debug!(%error, container = name, "no statistics: the control group cannot be read");
            None
        }
    }
}

async fn text(path: PathBuf) -> io::Result<String> {
    tokio::fs::read_to_string(path).await
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_default()
}

fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(number).unwrap_or_default()
}

/// Reads `/proc/<pid>/cgroup` (`man 7 cgroups`): lines of hierarchy, controllers and path.
fn groups(membership: &str) -> Option<Groups> {
    let lines: Vec<(&str, &str)> = membership
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?))
        })
        .collect();
    let of = |controller: &str| {
        let (controllers, path) =
            lines.iter().find(|(controllers, _)| controllers.split(',').any(|one| one == controller))?;
        Some(PathBuf::from(MOUNT_POINT).join(controllers).join(path.trim_start_matches('/')))
    };
    match (of("cpuacct"), of("memory")) {
        (Some(cpu), Some(memory)) => Some(Groups::Split { cpu, memory }),
        _ => {
            let (_, path) = lines.iter().find(|(controllers, _)| controllers.is_empty())?;
            Some(Groups::Unified(PathBuf::from(MOUNT_POINT).join(path.trim_start_matches('/'))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_are_found() {
        let v1 = "6:memory:/docker/abc\n3:cpuacct:/docker/abc\n2:cpu:/docker/abc\n0::/\n";
        let expected = Groups::Split {
            cpu: "/sys/fs/cgroup/cpuacct/docker/abc".into(),
            memory: "/sys/fs/cgroup/memory/docker/abc".into(),
        };
        assert_eq!(groups(v1), Some(expected));
        let joined = "6:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n";
        let Some(Groups::Split { cpu, .. }) = groups(joined) else { panic!("version 1 must be found") };
        assert_eq!(cpu, PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/docker/abc"));
        let v2 = "0::/system.slice/docker-abc.scope\n";
        let expected = Groups::Unified("/sys/fs/cgroup/system.slice/docker-abc.scope".into());
        assert_eq!(groups(v2), Some(expected));
        assert_eq!(groups(""), None);
    }

    #[test]
    fn a_field_is_a_whole_word() {
        let stat = "inactive_file_extra 1\nusage_usec 12\ninactive_file 34\n";
        assert_eq!(
            (field(stat, "inactive_file"), field(stat, "usage_usec"), field(stat, "none")),
            (34, 12, 0)
        );
    }
}
