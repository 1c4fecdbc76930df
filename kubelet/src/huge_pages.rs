//! Huge pages: which sizes the kernel of this machine has, how many were set aside of each, and what Kubernetes
//! calls them.

use std::path::Path;

use api_objects::{pod_resources::HUGE_PAGES, quantity::Quantity};

/// Where the kernel tells of them.
pub(crate) const DIRECTORY: &str = "/sys/kernel/mm/hugepages";

/// The pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HugePages {
    /// Bytes of a page.
    pub size: u64,
    /// Pages that were set aside.
    pub count: u64,
}

impl HugePages {
    /// Bytes of all of them.
    pub(crate) fn bytes(self) -> u64 {
        self.size.saturating_mul(self.count)
    }

    /// The resource: `hugepages-2Mi`.
    pub(crate) fn resource(self) -> String {
        format!("{HUGE_PAGES}{}", binary(self.size))
    }
}

/// What was set aside, by size. Counted once, at the start, as upstream's kubelet does: pages that are set aside later
/// count from the next one.
pub(crate) fn measure(directory: &Path) -> Vec<HugePages> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<HugePages> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
            Some(HugePages { size: kib * 1024, count: count.trim().parse().ok()? })
        })
        .collect();
    found.sort_unstable_by_key(|pages| pages.size);
    found
}

/// Bytes in the shortest binary form, as resources are named.
pub(crate) fn binary(bytes: u64) -> String {
    let units = [("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let found = units.into_iter().find(|(_, bits)| bytes > 0 && bytes.is_multiple_of(1 << bits));
    found.map_or_else(|| bytes.to_string(), |(unit, bits)| format!("{}{unit}", bytes >> bits))
}

/// The size of the pages that a resource is made of, in bytes.
pub(crate) fn size_of(resource: &str) -> Option<u64> {
    let size: Quantity = resource.strip_prefix(HUGE_PAGES)?.parse().ok()?;
    u64::try_from(size.value()).ok().filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells() {
        let home = tempfile::tempdir().unwrap();
        for (name, count) in [("hugepages-1048576kB", "1\n"), ("hugepages-2048kB", "7\n"), ("other", "9\n")] {
            std::fs::create_dir(home.path().join(name)).unwrap();
            std::fs::write(home.path().join(name).join("nr_hugepages"), count).unwrap();
        }
        let found = measure(home.path());
        let shown: Vec<(String, u64)> = found.iter().map(|pages| (pages.resource(), pages.bytes())).collect();
        assert_eq!(shown, [("hugepages-2Mi".into(), 14 << 20), ("hugepages-1Gi".into(), 1 << 30)]);
        assert_eq!(measure(&home.path().join("nothing")), []);
    }

    #[test]
    fn names_and_sizes() {
        for (name, size) in [("hugepages-64Ki", 64 << 10), ("hugepages-512Mi", 512 << 20)] {
            assert_eq!(size_of(name), Some(size));
            assert_eq!(HugePages { size, count: 0 }.resource(), name);
        }
        assert_eq!((size_of("hugepages-x"), size_of("memory")), (None, None));
    }
}
