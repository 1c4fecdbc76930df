//! Mounts of our own: tmpfs for what must not touch the disk, bind mounts for sub-paths.
//!
//! What is mounted is read from the kernel's table each time; nothing is remembered.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Whether programs on a mount may be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Execution {
    /// They may.
    Allowed,
    /// They may not.
    Refused,
}

/// Mounts a tmpfs on a directory unless one is there; `size` in bytes, half of the memory without one.
pub(crate) fn ensure_tmpfs(path: &Path, size: Option<i64>) -> Result<(), String> {
    ensure_tmpfs_with(path, size, Execution::Allowed).map(drop)
}

/// The same, and whether programs may run; says whether it was mounted now.
pub(crate) fn ensure_tmpfs_with(
    path: &Path,
    size: Option<i64>,
    execution: Execution,
) -> Result<bool, String> {
    if mounted_below(path)?.iter().any(|mounted| mounted == path) {
        return Ok(false);
    }
    let options = match size {
        Some(bytes) => format!("size={bytes},mode=0777"),
        None => "mode=0777".to_owned(),
    };
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    if execution == Execution::Refused {
        flags |= MsFlags::MS_NOEXEC;
    }
    let attempt = |options: &str| mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options));
    // Memory that must not touch the disk must not be swapped either; kernels before 6.4 do not know the word.
    attempt(&format!("{options},noswap"))
        .or_else(|_| attempt(&options))
        .map_err(|error| format!("cannot mount a tmpfs on {}: {error}", path.display()))?;
    Ok(true)
}

/// Binds `source` onto `target`, which exists.
pub(crate) fn bind(source: &Path, target: &Path) -> Result<(), String> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|error| format!("cannot bind onto {}: {error}", target.display()))
}

/// Unmounts everything at or below a directory, the deepest first.
pub(crate) fn unmount_below(directory: &Path) -> Result<(), String> {
    let mut mounted = mounted_below(directory)?;
    mounted.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in mounted {
        umount2(&path, MntFlags::MNT_DETACH)
            .map_err(|error| format!("cannot unmount {}: {error}", path.display()))?;
    }
    Ok(())
}

/// The mount points at or below a directory.
pub(crate) fn mounted_below(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| format!("cannot read the table of mounts: {error}"))?;
    let directory = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    Ok(mount_points(&table).filter(|point| point.starts_with(&directory)).collect())
}

/// Mount points of a mountinfo table; its octal escapes are undone.
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| {
        let mut plain = String::with_capacity(point.len());
        let mut rest = point;
        while let Some(at) = rest.find('\\') {
            plain.push_str(&rest[..at]);
            let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
            match code {
                Some(code) => {
                    plain.push(char::from(code));
                    rest = &rest[at + 4..];
                }
                None => {
                    plain.push('\\');
                    rest = &rest[at + 1..];
                }
            }
        }
        plain.push_str(rest);
        PathBuf::from(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table() {
        let table =
            "22 1 0:21 / / rw - ext4 /dev/sda rw\n35 22 0:31 / /tmp/a\\040b rw shared:2 - tmpfs tmpfs rw\n";
        let points: Vec<_> = mount_points(table).collect();
        assert_eq!(points, [PathBuf::from("/"), PathBuf::from("/tmp/a b")]);
    }
}
