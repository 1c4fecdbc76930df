//! `csi` volumes of a pod: drivers that live in this process, by name.
//!
//! Upstream talks to drivers over sockets; here a driver is an implementation of [`InlineDriver`] in the table below.
//! What a driver mounts at or below its target is unmounted with the pod, so that it keeps no state of its own.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use api_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::CSIVolumeSource;

use super::{mounts, ownership};

/// A driver of inline volumes.
trait InlineDriver: Sync {
    /// The name that pods ask for it by.
    fn name(&self) -> &'static str;

    /// Makes the volume at `target`, an empty directory at first; does nothing where it stands already.
    fn publish(&self, target: &Path, attributes: &BTreeMap<String, String>) -> Result<(), String>;
}

/// Every driver there is.
const DRIVERS: &[&dyn InlineDriver] = &[&Tmpfs];

/// Sets an inline volume up below its directory and gives its path.
pub(super) fn set_up(
    directory: &Path,
    source: &CSIVolumeSource,
    fs_group: Option<i64>,
) -> Result<PathBuf, String> {
    let name = &source.driver;
    let driver = DRIVERS.iter().find(|driver| driver.name() == name).ok_or_else(|| {
        format!(
            "kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: driver name {name} not found in the list of \
             registered CSI drivers"
        )
    })?;
    let target = directory.join("mount");
    let named = |error: std::io::Error| format!("{}: {error}", target.display());
    let fresh = !target.exists();
    fs::create_dir_all(&target).map_err(named)?;
    let none = BTreeMap::new();
    driver.publish(&target, source.volume_attributes.as_ref().unwrap_or(&none))?;
    if fresh && let Some(group) = fs_group {
        ownership::give_to_group(&target, group, false).map_err(named)?;
    }
    Ok(target)
}

/// Memory with what `emptyDir` cannot say: `size`, `mode` and `noexec`.
struct Tmpfs;

impl InlineDriver for Tmpfs {
    fn name(&self) -> &'static str {
        "tmpfs.minik8s.io"
    }

    fn publish(&self, target: &Path, attributes: &BTreeMap<String, String>) -> Result<(), String> {
        let options = tmpfs_options(attributes)?;
        if mounts::ensure_tmpfs_with(target, options.size, options.execution)? {
            fs::set_permissions(target, fs::Permissions::from_mode(options.mode))
                .map_err(|error| format!("{}: {error}", target.display()))?;
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
struct TmpfsOptions {
    size: Option<i64>,
    mode: u32,
    execution: mounts::Execution,
}

fn tmpfs_options(attributes: &BTreeMap<String, String>) -> Result<TmpfsOptions, String> {
    let mut options = TmpfsOptions { size: None, mode: 0o777, execution: mounts::Execution::Allowed };
    for (key, value) in attributes {
        let wrong = || format!("tmpfs.minik8s.io: {key}: {value:?} cannot be used");
        match key.as_str() {
            "size" => {
                let bytes = value.parse::<Quantity>().map_err(|_| wrong())?.value();
                options.size = Some(bytes).filter(|bytes| *bytes > 0);
            }
            "mode" => options.mode = u32::from_str_radix(value, 8).map_err(|_| wrong())? & 0o1777,
            "noexec" if value == "true" => options.execution = mounts::Execution::Refused,
            "noexec" if value == "false" => {}
            // What upstream adds for drivers that ask for it.
            key if key.starts_with("csi.storage.k8s.io/") => {}
            _ => return Err(wrong()),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Result<TmpfsOptions, String> {
        tmpfs_options(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn options_of_the_tmpfs_driver() {
        let found = options(&[("size", "16Mi"), ("mode", "1770"), ("noexec", "true")]).unwrap();
        let execution = mounts::Execution::Refused;
        assert_eq!(found, TmpfsOptions { size: Some(16 << 20), mode: 0o1770, execution });
        for wrong in [("size", "much"), ("mode", "9"), ("noexec", "maybe"), ("colour", "blue")] {
            assert!(options(&[wrong]).unwrap_err().contains(wrong.0));
        }
    }

    #[test]
    fn an_unknown_driver_is_named() {
        let home = tempfile::tempdir().unwrap();
        let source = CSIVolumeSource { driver: "a.b".into(), ..CSIVolumeSource::default() };
        assert_eq!(
            set_up(home.path(), &source, None).unwrap_err(),
            "kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: driver name a.b not found in the list of registered CSI drivers"
        );
    }
}
