//! Mounts of our own: tmpfs for what must not touch the disk, bind mounts for sub-paths.
//!
//! What is mounted is read from the kernel's table each time; nothing of it is remembered.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

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
    let made = if NOSWAP_IS_UNKNOWN.load(Ordering::Relaxed) {
        attempt(&options)
    } else {
        attempt(&format!("{options},noswap")).or_else(|refused| {
            let made = attempt(&options);
            NOSWAP_IS_UNKNOWN.fetch_or(refused == Errno::EINVAL && made.is_ok(), Ordering::Relaxed);
            made
        })
    };
    made.map_err(|error| format!("cannot mount a tmpfs on {}: {error}", path.display()))?;
    Ok(true)
}

/// Whether this kernel has refused `noswap`, of which it logs a line each time.
static NOSWAP_IS_UNKNOWN: AtomicBool = AtomicBool::new(false);

/// Mounts huge pages of `page` bytes on a directory unless they are there; says whether it was mounted now.
pub(crate) fn ensure_huge_pages(path: &Path, page: u64) -> Result<bool, String> {
    if mounted_below(path)?.iter().any(|mounted| mounted == path) {
        return Ok(false);
    }
    let options = format!("pagesize={page}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("nodev"), path, Some("hugetlbfs"), flags, Some(options.as_str()))
        .map_err(|error| format!("cannot mount huge pages on {}: {error}", path.display()))?;
    Ok(true)
}

/// Binds `source` onto `target`, which exists.
pub(crate) fn bind(source: &Path, target: &Path) -> Result<(), String> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|error| format!("cannot bind onto {}: {error}", target.display()))
}

/// Binds `source` onto `target` with the `mountOptions` of a PersistentVolume.
pub(crate) fn bind_with(source: &Path, target: &Path, options: &[String]) -> Result<(), String> {
    let flags = flags_of(options)?;
    make_target(source, target)?;
    if mounted_below(target)?.is_empty() {
        bind(source, target)?;
    }
    mount(None::<&str>, target, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, None::<&str>)
        .map_err(|error| format!("cannot mount {} with {options:?}: {error}", target.display()))
}

/// What mount(8) knows for a single bind mount.
fn flags_of(options: &[String]) -> Result<MsFlags, String> {
    let mut flags = MsFlags::empty();
    for option in options.iter().flat_map(|option| option.split(',')) {
        let (flag, holds) = match option {
            "defaults" | "bind" | "rbind" => continue,
            "ro" => (MsFlags::MS_RDONLY, true),
            "rw" => (MsFlags::MS_RDONLY, false),
            "nosuid" => (MsFlags::MS_NOSUID, true),
            "suid" => (MsFlags::MS_NOSUID, false),
            "nodev" => (MsFlags::MS_NODEV, true),
            "dev" => (MsFlags::MS_NODEV, false),
            "noexec" => (MsFlags::MS_NOEXEC, true),
            "exec" => (MsFlags::MS_NOEXEC, false),
            "noatime" => (MsFlags::MS_NOATIME, true),
            "nodiratime" => (MsFlags::MS_NODIRATIME, true),
            "relatime" => (MsFlags::MS_RELATIME, true),
            "strictatime" => (MsFlags::MS_STRICTATIME, true),
            other => return Err(format!("mount option \"{other}\" is none of a bind mount")),
        };
        flags.set(flag, holds);
    }
    Ok(flags)
}

/// Makes one bind mount read-only, its programs not runnable and its devices without effect.
pub(crate) fn restrict(target: &Path) -> Result<(), String> {
    let flags = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .map_err(|error| format!("cannot make {} read-only: {error}", target.display()))
}

/// Makes what something is bound onto: a directory, or a file for a file.
pub(crate) fn make_target(source: &Path, target: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", target.display());
    if source.is_dir() {
        return std::fs::create_dir_all(target).map_err(failed);
    }
    target.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
    std::fs::OpenOptions::new().create(true).append(true).open(target).map(drop).map_err(failed)
}

/// Binds `source`, and all that is mounted below it, onto `target`, where none of it can be written. What is there of an
/// earlier time is replaced: meanwhile other things may be mounted below. Nothing that is mounted below the source
/// from now on appears.
pub(crate) fn bind_read_only(source: &Path, target: &Path) -> Result<(), String> {
    unmount_below(target)?;
    make_target(source, target)?;
    bind(source, target)?;
    let made = mount(None::<&str>, target, None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)
        .map_err(|error| format!("cannot make {} private: {error}", target.display()))
        .and_then(|()| read_only_below(target));
    // Half of it would be worse than nothing.
    if made.is_err() {
        let _ = unmount_below(target);
    }
    made
}

/// Makes every mount at or below a directory read-only; what else holds for it stays.
fn read_only_below(target: &Path) -> Result<(), String> {
    let table = table()?;
    let target = std::fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
    for (point, options) in mount_points(&table).filter(|(point, _)| point.starts_with(&target)) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept(options);
        mount(None::<&str>, &point, None::<&str>, flags, None::<&str>)
            .map_err(|error| format!("cannot make {} read-only: {error}", point.display()))?;
    }
    Ok(())
}

/// The flags of a mount that a remount would drop. How times of access are kept stays by itself.
fn kept(options: &str) -> MsFlags {
    let flag = |option: &str| match option {
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        _ => MsFlags::empty(),
    };
    options.split(',').map(flag).collect()
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
    let table = table()?;
    let directory = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    Ok(mount_points(&table).map(|(point, _)| point).filter(|point| point.starts_with(&directory)).collect())
}

fn table() -> Result<String, String> {
    std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| format!("cannot read the table of mounts: {error}"))
}

/// Mount points of a mountinfo table, whose octal escapes are undone, and their options.
fn mount_points(table: &str) -> impl Iterator<Item = (PathBuf, &str)> {
    let fields = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(4);
        Some((fields.next()?, fields.next()?))
    });
    fields.map(|(point, options)| {
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
        (PathBuf::from(plain), options)
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
        assert_eq!(points, [(PathBuf::from("/"), "rw"), (PathBuf::from("/tmp/a b"), "rw")]);
        let options =
            |options: &[&str]| flags_of(&options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>());
        assert_eq!(options(&["ro,noexec", "nodev", "dev"]), Ok(MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC));
        assert!(options(&["vers=4"]).unwrap_err().contains("vers=4"));
        assert_eq!(kept("rw,nosuid,noexec,relatime"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC);
    }
}
