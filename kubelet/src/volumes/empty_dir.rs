//! `emptyDir` volumes: a directory of the pod's, on disk or in memory.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;

use super::{mounts, ownership};
use crate::pod::resources::units;

/// Makes the directory; with `medium: Memory` it is a tmpfs of at most `sizeLimit`.
pub(super) fn set_up(
    path: &Path,
    source: &EmptyDirVolumeSource,
    fs_group: Option<i64>,
) -> Result<(), String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let fresh = !path.exists();
    fs::create_dir_all(path).map_err(named)?;
    if source.medium.as_deref() == Some("Memory") {
        let limit = source.size_limit.as_ref().map(units).filter(|bytes| *bytes > 0);
        mounts::ensure_tmpfs(path, limit)?;
    }
    if fresh {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map_err(named)?;
        if let Some(group) = fs_group {
            ownership::give_to_group(path, group, false).map_err(named)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_may_write_and_content_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("v");
        set_up(&path, &EmptyDirVolumeSource::default(), None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        fs::write(path.join("f"), "x").unwrap();
        set_up(&path, &EmptyDirVolumeSource::default(), None).unwrap();
        assert_eq!(fs::read_to_string(path.join("f")).unwrap(), "x");
    }
}
