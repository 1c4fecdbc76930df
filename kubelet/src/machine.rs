//! The machine that a node is: what it has, and how much of that is for pods.

use std::{collections::BTreeMap, path::Path};

use api_objects::{
    Value,
    pod_resources::{is_extended, is_huge},
    quantity::Quantity,
};
use serde_json::json;

use crate::huge_pages::{self, HugePages};

/// What does not change while the machine is up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Machine {
    /// Logical processors.
    pub cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Memory that was set aside as huge pages.
    pub huge_pages: Vec<HugePages>,
    /// Bytes of the file system that holds the kubelet's directory.
    pub disk: u64,
    /// `uname -r`
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    pub os_image: String,
    /// `/etc/machine-id`
    pub machine_id: String,
    /// Id of the hardware.
    pub system_uuid: String,
    /// Id of this boot.
    pub boot_id: String,
    /// The machine's host name.
    pub hostname: String,
    /// Whether AppArmor is in force.
    pub has_app_armor: bool,
}

impl Machine {
    /// Measures this machine.
    #[must_use]
    pub(crate) fn measure(root: &Path) -> Self {
        let read =
            |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let os_release = read("/etc/os-release");
        let os_image = os_release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="))
            .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned());
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        Self {
            cpus,
            memory: meminfo("MemTotal").unwrap_or_default(),
            huge_pages: huge_pages::measure(Path::new(huge_pages::DIRECTORY)),
            disk: disk(root).map_or(0, |(total, _)| total),
            kernel: read("/proc/sys/kernel/osrelease"),
            os_image,
            machine_id: read("/etc/machine-id"),
            system_uuid: read("/sys/class/dmi/id/product_uuid"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            hostname: read("/proc/sys/kernel/hostname"),
            has_app_armor: read("/sys/module/apparmor/parameters/enabled") == "Y",
        }
    }

    /// Bytes of memory for pods: what was set aside as huge pages is no other memory.
    #[must_use]
    pub(crate) fn allocatable_memory(&self) -> u64 {
        let huge = self.huge_pages.iter().map(|pages| pages.bytes()).fold(0, u64::saturating_add);
        self.memory.saturating_sub(huge)
    }

    /// Bytes of disk for pods: a tenth is kept, as upstream's hard eviction threshold does.
    #[must_use]
    pub(crate) fn allocatable_disk(&self) -> u64 {
        self.disk / 10 * 9
    }

    /// How much it has of what not every node has, with what others have told its node of.
    #[must_use]
    pub(crate) fn scarce(&self, extended: &BTreeMap<String, String>) -> BTreeMap<String, i64> {
        let huge = self.huge_pages.iter().map(|pages| (pages.resource(), pages.bytes()));
        let huge = huge.map(|(name, bytes)| (name, i64::try_from(bytes).unwrap_or(i64::MAX)));
        let told = extended
            .iter()
            .filter_map(|(name, text)| Some((name.clone(), text.parse::<Quantity>().ok()?.value())));
        huge.chain(told).collect()
    }

    /// Capacity and allocatable. Of extended resources the capacity is others', who may change it at any time: it is never
    /// written here, and what it says may be used (upstream's `MachineInfo` setter). What was there and is no more is null, so
    /// that a patch takes it away.
    #[must_use]
    pub(crate) fn resources(
        &self,
        max_pods: u32,
        extended: Option<&BTreeMap<String, String>>,
        before: &Value,
    ) -> (Value, Value) {
        let mut capacity = json!({
            "cpu": self.cpus.to_string(),
            "memory": format!("{}Ki", self.memory / 1024),
            "ephemeral-storage": format!("{}Ki", self.disk / 1024),
            "pods": max_pods.to_string(),
        });
        for pages in &self.huge_pages {
            capacity[pages.resource()] = Value::String(huge_pages::binary(pages.bytes()));
        }
        let mut allocatable = capacity.clone();
        allocatable["memory"] = json!(format!("{}Ki", self.allocatable_memory() / 1024));
        allocatable["ephemeral-storage"] = json!(self.allocatable_disk().to_string());
        for (name, amount) in extended.into_iter().flatten() {
            allocatable[name] = Value::String(amount.clone());
        }
        let gone = |of: &str, now: &mut Value, is_ours: &dyn Fn(&str) -> bool| {
            for (name, _) in before[of].as_object().into_iter().flatten() {
                if is_ours(name) && now.get(name).is_none() {
                    now[name] = Value::Null;
                }
            }
        };
        gone("capacity", &mut capacity, &is_huge);
        gone("allocatable", &mut allocatable, &|name| {
            is_huge(name) || (extended.is_some() && is_extended(name))
        });
        (capacity, allocatable)
    }
}

/// The extended resources of a node's capacity.
#[must_use]
pub(crate) fn extended(capacity: Option<&Value>) -> BTreeMap<String, String> {
    let all = capacity.and_then(Value::as_object).into_iter().flatten();
    let extended = all.filter(|(name, _)| is_extended(name));
    extended.filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.to_owned()))).collect()
}

/// A line of `/proc/meminfo`, in bytes.
#[must_use]
pub(crate) fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Total and free bytes of the file system that holds a path.
fn disk(path: &Path) -> Option<(u64, u64)> {
    let found = nix::sys::statvfs::statvfs(path).ok()?;
    let block = found.fragment_size();
    Some((found.blocks() * block, found.blocks_available() * block))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Capacity belongs to who told it; what may be used of it follows, once it is known.
    #[test]
    fn resources_of_others_are_used_and_never_written() {
        let huge_pages = vec![HugePages { size: 2 << 20, count: 4 }];
        let machine = Machine { memory: 4 << 30, huge_pages, ..Machine::default() };
        let before = json!({
            "capacity": {"example.com/a": "2", "example.com/old": "1", "hugepages-1Gi": "0"},
            "allocatable": {"example.com/a": "1", "example.com/old": "1", "hugepages-1Gi": "0"},
        });
        let told: BTreeMap<String, String> = [("example.com/a".to_owned(), "2".to_owned())].into();
        let (capacity, allocatable) = machine.resources(110, Some(&told), &before);
        assert_eq!((capacity.get("example.com/a"), capacity.get("example.com/old")), (None, None));
        assert_eq!((&capacity["hugepages-2Mi"], &capacity["hugepages-1Gi"]), (&json!("8Mi"), &Value::Null));
        assert_eq!(
            (&allocatable["example.com/a"], &allocatable["example.com/old"]),
            (&json!("2"), &Value::Null)
        );
        assert_eq!(allocatable["memory"], format!("{}Ki", (4 << 20) - (8 << 10)));
        let (_, allocatable) = machine.resources(110, None, &before);
        assert_eq!(allocatable.get("example.com/a"), None, "not known yet: it stays as it is");
    }
}
