//! What pods and their node use, read from the kernel's own files: control groups, `/proc` and the disk.
//!
//! No call to a daemon: a scrape of fifty pods is some hundred small files. Reading is thin, what the text means
//! is pure: [`v1`] and [`v2`] turn the files of one control group into the same [`GroupUsage`]. The numbers mean
//! what they mean in cAdvisor (`container/libcontainer/handler.go`), so that dashboards made for it are right:
//! the working set is what is in use without inactive file cache, and an unlimited memory is a limit of 0.

pub mod disk;
pub mod groups;
pub mod interfaces;
pub mod v1;
pub mod v2;

use std::path::PathBuf;

use crate::PodIdentity;
use disk::DiskUsage;
use interfaces::Interface;

/// Everything that a runtime's pods use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuntimeUsage {
    /// Pods of which something runs, by uid.
    pub pods: Vec<PodUsage>,
    /// Containers (without sandboxes) that have been made and not started, as far as they are remembered.
    pub created: usize,
    /// Containers (without sandboxes) that have ended and are still there, as far as they are remembered.
    pub exited: usize,
    /// Directory in which the runtime keeps images and containers.
    pub storage: Option<PathBuf>,
}

/// What one pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodUsage {
    /// Whose.
    pub pod: PodIdentity,
    /// The pod's own control group, if it has one.
    pub group: Option<PodGroupUsage>,
    /// The sandbox, while it runs.
    pub sandbox: Option<ContainerUsage>,
    /// Running containers, by name.
    pub containers: Vec<ContainerUsage>,
    /// Interfaces of the pod's network namespace without loopback; empty with the node's network.
    pub interfaces: Vec<Interface>,
}

/// What a pod's control group uses: its containers', and what those that have ended have left charged to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodGroupUsage {
    /// The control group, from the hierarchy's root on.
    pub group: String,
    /// What it uses.
    pub usage: GroupUsage,
}

/// What one container uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerUsage {
    /// Name in the pod.
    pub name: String,
    /// The runtime's name for it.
    pub runtime_name: String,
    /// Image reference.
    pub image: String,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// Its control group, from the hierarchy's root on: `/docker/<id>`.
    pub group: String,
    /// What the group uses.
    pub usage: GroupUsage,
    /// What it has written into its own layer; `None` while that is not known.
    pub layer: Option<DiskUsage>,
    /// Bytes of its log files.
    pub log_bytes: u64,
}

/// What a control group uses and may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupUsage {
    /// Processors.
    pub cpu: CpuUsage,
    /// Memory.
    pub memory: MemoryUsage,
    /// Traffic with disks.
    pub devices: Vec<DeviceUsage>,
    /// Processes and threads.
    pub tasks: u64,
    /// Limits.
    pub limits: GroupLimits,
}

/// Processor time, cumulative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuUsage {
    /// Nanoseconds in all.
    pub total_nanos: u64,
    /// Nanoseconds in user mode.
    pub user_nanos: u64,
    /// Nanoseconds in the kernel.
    pub system_nanos: u64,
    /// Periods of the quota that have passed.
    pub periods: u64,
    /// Periods in which the group was held back.
    pub throttled_periods: u64,
    /// Nanoseconds for which it was held back.
    pub throttled_nanos: u64,
}

/// Memory in bytes, and faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUsage {
    /// All that counts against the limit.
    pub usage: u64,
    /// Usage without inactive file cache.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page cache.
    pub cache: u64,
    /// Files mapped.
    pub mapped_file: u64,
    /// Swapped out.
    pub swap: u64,
    /// The most that was ever in use; 0 where the kernel does not keep it.
    pub max_usage: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that read from disk.
    pub major_page_faults: u64,
}

/// Traffic with one disk, cumulative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceUsage {
    /// Major and minor number.
    pub device: (u32, u32),
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

/// What a control group may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupLimits {
    /// Relative weight in version 1's measure (1024 a CPU).
    pub cpu_shares: u64,
    /// Microseconds for each period; `None` without a limit.
    pub cpu_quota: Option<u64>,
    /// Microseconds of a period.
    pub cpu_period: u64,
    /// Bytes of memory; 0 without a limit.
    pub memory: u64,
    /// Tasks; 0 without a limit.
    pub tasks: u64,
}

/// What the whole node uses, as its root control group has it.
#[must_use]
pub fn of_node() -> GroupUsage {
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match groups::Groups::parse(&membership) {
        Some(groups) => groups.root().usage(),
        None => GroupUsage::default(),
    }
}

/// A file's first number.
fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_default()
}

/// The number behind a word in a file of `word number` lines.
fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(number).unwrap_or_default()
}

/// `8:16` as numbers.
fn device_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The entry of a device, made if it is new.
fn device(devices: &mut Vec<DeviceUsage>, number: (u32, u32)) -> &mut DeviceUsage {
    let at = devices.iter().position(|entry| entry.device == number).unwrap_or_else(|| {
        devices.push(DeviceUsage { device: number, ..DeviceUsage::default() });
        devices.len() - 1
    });
    &mut devices[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_whole_word() {
        let stat = "inactive_file_extra 1\nusage_usec 12\ninactive_file 34\n";
        assert_eq!(
            (field(stat, "inactive_file"), field(stat, "usage_usec"), field(stat, "none")),
            (34, 12, 0)
        );
    }

    #[test]
    fn the_node_has_used_something() {
        let node = of_node();
        assert!(node.cpu.total_nanos > 0, "{node:?}");
        assert!(node.memory.usage >= node.memory.working_set && node.memory.working_set > 0, "{node:?}");
    }
}
