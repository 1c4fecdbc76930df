//! `emptyDir` volumes: a directory of the pod's, on disk or in memory.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};

use super::{mounts, ownership};
use crate::pod::resources::{pod_limit, units};

/// How large a volume in memory is: what the node has to give, or the pod's memory limit, or `sizeLimit`,
/// whichever is least. `None` (the kernel's default of half the memory) only where the node's is not known.
/// Upstream's `calculateEmptyDirMemorySize`, always on since v1.32 (`SizeMemoryBackedVolumes`).
pub(super) fn memory_size(pod: &Pod, source: &EmptyDirVolumeSource, allocatable: i64) -> Option<i64> {
    let of_node = Some(allocatable).filter(|bytes| *bytes > 0);
    let of_volume = source.size_limit.as_ref().map(units).filter(|bytes| *bytes > 0);
    [of_node, pod_limit(pod, "memory"), of_volume].into_iter().flatten().min()
}

/// Makes the directory; with `medium: Memory` it is a tmpfs of `size` bytes.
pub(super) fn set_up(
    path: &Path,
    source: &EmptyDirVolumeSource,
    size: Option<i64>,
    fs_group: Option<i64>,
) -> Result<(), String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let fresh = !path.exists();
    fs::create_dir_all(path).map_err(named)?;
    let memory = source.medium.as_deref() == Some("Memory");
    if memory {
        mounts::ensure_tmpfs(path, size)?;
    }
    if fresh {
        // The kernel gives a tmpfs a sticky root, which upstream leaves as it is.
        let mode = if memory { 0o1777 } else { 0o777 };
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
    fn everybody_may_write_and_content_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("v");
        set_up(&path, &EmptyDirVolumeSource::default(), None, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        fs::write(path.join("f"), "x").unwrap();
        set_up(&path, &EmptyDirVolumeSource::default(), None, None).unwrap();
        assert_eq!(fs::read_to_string(path.join("f")).unwrap(), "x");
    }
}
