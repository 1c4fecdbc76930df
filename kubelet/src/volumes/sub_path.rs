//! `subPath`: one entry of a volume, so that no symbolic link in it can lead out.
//!
//! The path is opened below the volume with the kernel's own guarantee (`openat2`, `RESOLVE_IN_ROOT`-style
//! confinement), and what was opened is bind-mounted to a place of ours, which the container gets. A link that
//! changes afterwards changes nothing (upstream's `pkg/volume/util/subpath`).

use std::{
    ffi::OsStr,
    fs,
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::{Mode, fchmod, mkdirat},
};

use super::mounts;

/// The most that is read of a file: more than an environment may hold.
const MOST_TEXT: u64 = 1 << 20;

/// Prepares one sub-path: `volume` on the node, `target` our place for the bind mount. Missing directories
/// are made, as documented.
pub(crate) fn prepare(volume: &Path, sub_path: &str, target: &Path) -> Result<PathBuf, String> {
    let relative = Path::new(sub_path);
    if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("subPath {sub_path:?} must be a relative path that stays inside the volume"));
    }
    let opened = open_below(volume, relative)?;
    let through = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    if mounts::mounted_below(target)?.iter().any(|mounted| mounted == target) {
        mounts::unmount_below(target)?;
    }
    mounts::make_target(&through, target)?;
    mounts::bind(&through, target)?;
    Ok(target.to_owned())
}

/// The text of a file below a volume; `None` if there is none. Whoever writes into the volume is not trusted: no link
/// leads out of it, and only a plain file of some size is read.
pub(crate) fn read_text(volume: &Path, relative: &str) -> Result<Option<String>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot read {relative}: {error}");
    let root =
        open(volume, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(|error| failed(&error))?;
    // A pipe would otherwise be waited for.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH);
    let mut file = match openat2(&root, relative, how) {
        Ok(found) => fs::File::from(found),
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let found = file.metadata().map_err(|error| failed(&error))?;
    if !found.is_file() || found.len() > MOST_TEXT {
        return Err(format!("{relative} must be a file of at most {MOST_TEXT} bytes"));
    }
    let mut text = String::new();
    file.by_ref().take(MOST_TEXT).read_to_string(&mut text).map_err(|error| failed(&error))?;
    Ok(Some(text))
}

/// Opens a path below a directory, making missing directories; refuses links that lead out.
fn open_below(volume: &Path, relative: &Path) -> Result<OwnedFd, String> {
    let shown = relative.display();
    let mut parent = open(volume, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|error| format!("{}: {error}", volume.display()))?;
    let root = fs::metadata(volume).map_err(|error| format!("{}: {error}", volume.display()))?;
    if root.is_file() {
        return Err(format!("subPath {shown} is not inside a directory"));
    }
    // What is made is as open as the volume itself, and belongs to its group (upstream: `doSafeMakeDir`).
    let mode = Mode::from_bits_truncate(root.mode() & 0o3777);
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_BENEATH);
    // The whole path first: a link inside that stays inside is followed (`..data` of a ConfigMap is one).
    if let Ok(found) = openat2(&parent, relative, how) {
        return Ok(found);
    }
    for part in relative.components() {
        let Component::Normal(name) = part else { continue };
        let next = match openat2(&parent, name, how) {
            Err(Errno::ENOENT) => make(&parent, name, mode, how),
            other => other,
        };
        parent = next.map_err(|error| format!("cannot open subPath {shown}: {error}"))?;
    }
    Ok(parent)
}

/// Makes a directory with exactly that mode, whatever this process's mask is, and opens it.
fn make(parent: &OwnedFd, name: &OsStr, mode: Mode, how: OpenHow) -> Result<OwnedFd, Errno> {
    mkdirat(parent, name, mode)?;
    let made = openat2(parent, name, how)?;
    // A bare path cannot be changed; what it leads to can.
    let opened = openat2(&made, ".", how.flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC))?;
    fchmod(&opened, mode)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_link_cannot_lead_out() {
        let home = tempfile::tempdir().unwrap();
        let volume = home.path().join("volume");
        fs::create_dir_all(volume.join("in")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("in", volume.join("link")).unwrap();
        assert!(open_below(&volume, Path::new("in")).is_ok());
        assert!(open_below(&volume, Path::new("link")).is_ok());
        assert!(open_below(&volume, Path::new("out")).is_err());
        assert!(open_below(&volume, Path::new("out/passwd")).is_err());
        assert!(open_below(&volume, Path::new("new/deep")).is_ok());
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o3777)).unwrap();
        open_below(&volume, Path::new("open/deep")).unwrap();
        for (made, mode) in [("new/deep", 0o755), ("open", 0o3777), ("open/deep", 0o3777)] {
            assert_eq!(fs::metadata(volume.join(made)).unwrap().mode() & 0o7777, mode, "{made}");
        }
        fs::write(volume.join("in/text"), "A='1'\n").unwrap();
        assert_eq!(read_text(&volume, "link/text").unwrap().as_deref(), Some("A='1'\n"));
        assert_eq!(read_text(&volume, "in/none"), Ok(None));
        assert!(read_text(&volume, "out/passwd").is_err() && read_text(&volume, "in").is_err());
        assert!(prepare(&volume, "../x", &home.path().join("t")).is_err());
    }
}
