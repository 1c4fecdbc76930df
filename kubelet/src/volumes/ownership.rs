//! `fsGroup`: makes a volume belong to a group, as upstream's `SetVolumeOwnership`.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, lchown},
    path::Path,
};

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
