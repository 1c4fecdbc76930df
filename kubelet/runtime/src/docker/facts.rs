//! From what Docker says of its own set-up (`docker info`) to what the kubelet goes by. Pure.

use bollard::models::{SystemInfo, SystemInfoCgroupDriverEnum, SystemInfoCgroupVersionEnum};

use crate::{
    RuntimeFacts,
    control_groups::{Driver, Version},
};

/// Reads an answer.
pub(super) fn read(info: &SystemInfo) -> RuntimeFacts {
    let driver = match info.cgroup_driver {
        Some(SystemInfoCgroupDriverEnum::CGROUPFS) => Some(Driver::Files),
        Some(SystemInfoCgroupDriverEnum::SYSTEMD) => Some(Driver::Systemd),
        // Without rights to control groups (rootless) Docker puts containers nowhere.
        Some(SystemInfoCgroupDriverEnum::NONE | SystemInfoCgroupDriverEnum::EMPTY) | None => None,
    };
    let version = match info.cgroup_version {
        Some(SystemInfoCgroupVersionEnum::_2) => Version::Two,
        // Daemons before 20.10 know no other, and do not say so.
        Some(SystemInfoCgroupVersionEnum::_1 | SystemInfoCgroupVersionEnum::EMPTY) | None => Version::One,
    };
    let mut handlers: Vec<String> = info.runtimes.iter().flatten().map(|(name, _)| name.clone()).collect();
    handlers.sort();
    RuntimeFacts { control_groups: driver.map(|driver| (driver, version)), handlers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manner_of_control_groups_is_docker_s() {
        let read = |driver, version| {
            read(&SystemInfo { cgroup_driver: driver, cgroup_version: version, ..SystemInfo::default() })
        };
        use SystemInfoCgroupDriverEnum as Drivers;
        let systemd = read(Some(Drivers::SYSTEMD), Some(SystemInfoCgroupVersionEnum::_2));
        assert_eq!(systemd.control_groups, Some((Driver::Systemd, Version::Two)));
        let old = read(Some(Drivers::CGROUPFS), None);
        assert_eq!(old.control_groups, Some((Driver::Files, Version::One)));
        assert_eq!(read(Some(Drivers::NONE), None).control_groups, None);
    }
}
