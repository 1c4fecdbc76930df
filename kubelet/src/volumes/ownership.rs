//! `fsGroup`: makes a volume belong to a group, as upstream's `SetVolumeOwnership`.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::Path,
};

/// The group that a volume with a life of its own should belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    /// The pod's `fsGroup`.
    pub(super) id: i64,
    /// `fsGroupChangePolicy: OnRootMismatch`: large volumes are not walked again and again.
    pub(super) only_if_root_differs: bool,
}

/// Gives a volume to a group, readable and writable by it.
pub(super) fn give_volume(path: &Path, group: Group) -> io::Result<()> {
    if group.only_if_root_differs {
        let found = fs::metadata(path)?;
        let wanted = 0o2770;
        if i64::from(found.gid()) == group.id && found.permissions().mode() & wanted == wanted {
            return Ok(());
        }
    }
    give_to_group(path, group.id, false)
}

/// Gives a tree to a group: readable (writable unless `read_only`) by it, new files inheriting it.
pub(super) fn give_to_group(path: &Path, group: i64, read_only: bool) -> io::Result<()> {
    let group = u32::try_from(group).map_err(|_| io::Error::other("fsGroup is out of range"))?;
    walk(path, group, if read_only { 0o440 } else { 0o660 })
}

fn walk(path: &Path, group: u32, mask: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if found.is_symlink() {
        return Ok(());
    }
    let mode = found.permissions().mode() & 0o7777;
    let wanted = if found.is_dir() { mode | mask | 0o2110 } else { mode | mask };
    fs::set_permissions(path, fs::Permissions::from_mode(wanted))?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), group, mask)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_is_right_spares_the_walk() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("f");
        fs::write(&file, "x").unwrap();
        let id = i64::from(fs::metadata(home.path()).unwrap().gid());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        give_volume(home.path(), Group { id, only_if_root_differs: true }).unwrap();
        assert_eq!(mode(home.path()) & 0o2770, 0o2770);
        assert_eq!(mode(&file) & 0o660, 0o660);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        give_volume(home.path(), Group { id, only_if_root_differs: true }).unwrap();
        assert_eq!(mode(&file), 0o600, "not walked");
        give_volume(home.path(), Group { id, only_if_root_differs: false }).unwrap();
        assert_eq!(mode(&file), 0o660);
    }
}
