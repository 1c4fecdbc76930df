//! `emptyDir` volumes: a directory of the pod's, on disk, in memory or in huge pages.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};

use super::{mounts, ownership};
use crate::{
    huge_pages,
    pod::resources::{pod_limit, scarce, units},
};

/// What a volume is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Medium {
    /// A directory.
    Disk,
    /// A tmpfs of so many bytes.
    Memory(Option<i64>),
    /// Pages of so many bytes.
    HugePages(u64),
}

/// What a volume of a pod is to be made of; `allocatable` is the memory that the node has to give.
pub(super) fn medium(pod: &Pod, source: &EmptyDirVolumeSource, allocatable: i64) -> Result<Medium, String> {
    match source.medium.as_deref().unwrap_or_default() {
        "" => Ok(Medium::Disk),
        "Memory" => Ok(Medium::Memory(memory_size(pod, source, allocatable))),
        huge => page_size(pod, huge).map(Medium::HugePages),
    }
}

/// The size of the pages of a volume: that of the medium, or of the one kind of huge pages that the pod asks for.
/// Rules and texts are upstream's (`getPageSizeMountOption` of `pkg/volume/emptydir`).
fn page_size(pod: &Pod, medium: &str) -> Result<u64, String> {
    let wanted = match medium.strip_prefix("HugePages") {
        Some("") => None,
        Some(size) => {
            let size =
                size.strip_prefix('-').and_then(|size| huge_pages::size_of(&format!("hugepages-{size}")));
            Some(size.ok_or_else(|| format!("medium {medium}: no size of huge pages"))?)
        }
        None => return Err(format!("unknown storage medium {medium:?}")),
    };
    let asked: Vec<u64> = scarce(pod).keys().filter_map(|name| huge_pages::size_of(name)).collect();
    match (wanted, asked.as_slice()) {
        (Some(size), asked) if asked.contains(&size) => Ok(size),
        (None, [size]) => Ok(*size),
        (None, [_, _, ..]) => {
            Err(format!("medium: {medium} can't be used if container requests multiple huge page sizes"))
        }
        _ => Err(format!(
            "medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
        )),
    }
}

/// How large a volume in memory is: what the node has to give, or the pod's memory limit, or `sizeLimit`,
/// whichever is least. `None` (the kernel's default of half the memory) only where the node's is not known.
/// Upstream's `calculateEmptyDirMemorySize`, always on since v1.32 (`SizeMemoryBackedVolumes`).
fn memory_size(pod: &Pod, source: &EmptyDirVolumeSource, allocatable: i64) -> Option<i64> {
    let of_node = Some(allocatable).filter(|bytes| *bytes > 0);
    let of_volume = source.size_limit.as_ref().map(units).filter(|bytes| *bytes > 0);
    [of_node, pod_limit(pod, "memory"), of_volume].into_iter().flatten().min()
}

/// Makes the volume.
pub(super) fn set_up(path: &Path, medium: Medium, fs_group: Option<i64>) -> Result<(), String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let fresh = !path.exists();
    fs::create_dir_all(path).map_err(named)?;
    // The root of what is mounted has a mode and a group of its own: after a reboot, say, it is another one.
    let mounted = match medium {
        Medium::Disk => false,
        Medium::Memory(size) => mounts::ensure_tmpfs_with(path, size, mounts::Execution::Allowed)?,
        Medium::HugePages(page) => mounts::ensure_huge_pages(path, page)?,
    };
    if fresh || mounted {
        // The kernel gives a tmpfs a sticky root, which upstream leaves as it is.
        let mode = if matches!(medium, Medium::Memory(_)) { 0o1777 } else { 0o777 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(named)?;
        if let Some(group) = fs_group {
            ownership::give_to_group(path, group, false).map_err(named)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::pod;

    #[test]
    fn memory_is_the_least_of_node_pod_and_volume() {
        const MIB: i64 = 1 << 20;
        let size = |limit: Option<&str>, size_limit: Option<&str>| {
            let resources = limit.map_or_else(|| json!({}), |limit| json!({"limits": {"memory": limit}}));
            let pod = pod(json!({"containers": [{"name": "a", "resources": resources}]}));
            let source = serde_json::from_value(json!({"medium": "Memory", "sizeLimit": size_limit}));
            memory_size(&pod, &source.unwrap(), 1000 * MIB)
        };
        assert_eq!(size(None, None), Some(1000 * MIB));
        assert_eq!(size(Some("64Mi"), None), Some(64 * MIB));
        assert_eq!(size(Some("64Mi"), Some("512Mi")), Some(64 * MIB));
        assert_eq!(size(None, Some("512Mi")), Some(512 * MIB));
        assert_eq!(size(None, Some("2Gi")), Some(1000 * MIB));
        assert_eq!(size(None, Some("0")), Some(1000 * MIB));
    }

    #[test]
    fn huge_pages_are_of_the_size_that_the_pod_asks_for() {
        let of = |medium: &str, sizes: &[&str]| {
            let asked: serde_json::Map<_, _> =
                sizes.iter().map(|name| ((*name).to_owned(), json!("1Gi"))).collect();
            let resources = json!({"requests": asked, "limits": asked});
            let pod = pod(json!({"containers": [{"name": "a", "resources": resources}]}));
            let source = serde_json::from_value(json!({"medium": medium})).unwrap();
            super::medium(&pod, &source, 0)
        };
        assert_eq!(of("", &[]), Ok(Medium::Disk));
        assert_eq!(of("HugePages", &["hugepages-2Mi", "memory"]), Ok(Medium::HugePages(2 << 20)));
        assert_eq!(of("HugePages-1Gi", &["hugepages-2Mi", "hugepages-1Gi"]), Ok(Medium::HugePages(1 << 30)));
        for (medium, sizes, says) in [
            ("HugePages", &["hugepages-2Mi", "hugepages-1Gi"][..], "multiple huge page sizes"),
            ("HugePages", &[], "no resource request for huge pages"),
            ("HugePages-1Gi", &["hugepages-2Mi"], "no resource request for huge pages"),
            ("HugePages-x", &["hugepages-2Mi"], "no size of huge pages"),
            ("Paper", &[], "unknown storage medium \"Paper\""),
        ] {
            let error = of(medium, sizes).unwrap_err();
            assert!(error.contains(says), "{medium}: {error}");
        }
    }

    #[test]
    fn everybody_may_write_and_content_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("v");
        set_up(&path, Medium::Disk, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        fs::write(path.join("f"), "x").unwrap();
        set_up(&path, Medium::Disk, None).unwrap();
        assert_eq!(fs::read_to_string(path.join("f")).unwrap(), "x");
    }
}
