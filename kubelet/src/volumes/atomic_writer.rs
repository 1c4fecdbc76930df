//! Writes a volume's files so that a reader sees all old or all new ones, never a mixture.
//!
//! The files stand in a directory of their own, `..data` is a symbolic link to it that is replaced by one
//! rename, and the visible names are links through `..data` (upstream's `pkg/volume/util/atomic_writer`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use super::ownership;

/// Files by their path inside the volume.
pub(crate) type Payload = BTreeMap<String, File>;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// Content.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Makes `directory` show exactly `payload`; does nothing if it does already.
pub(crate) fn write(directory: &Path, payload: &Payload, fs_group: Option<i64>) -> io::Result<()> {
    for path in payload.keys() {
        check(path)?;
    }
    let current = fs::read_link(directory.join(DATA)).ok();
    let unchanged = current.as_ref().is_some_and(|current| shows(&directory.join(current), payload));
    if !unchanged {
        let fresh = fresh_directory(directory)?;
        fill(&fresh, payload)?;
        if let Some(group) = fs_group {
            ownership::give_to_group(&fresh, group, true)?;
        }
        let name = fresh.file_name().map(PathBuf::from).unwrap_or_default();
        let link = directory.join(DATA_NEW);
        remove_if_there(&link)?;
        symlink(name, &link)?;
        fs::rename(&link, directory.join(DATA))?;
    }
    link_visible(directory, payload)?;
    if !unchanged && let Some(old) = current {
        let _ = fs::remove_dir_all(directory.join(old));
    }
    Ok(())
}

/// A path must stay inside and clear of our own names.
fn check(path: &str) -> io::Result<()> {
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !inside || path.starts_with("..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {path:?}")));
    }
    Ok(())
}

fn shows(data: &Path, payload: &Payload) -> bool {
    let mut on_disk = BTreeSet::new();
    if list_files(data, data, &mut on_disk).is_err() || on_disk.len() != payload.len() {
        return false;
    }
    payload.iter().all(|(path, file)| {
        on_disk.contains(path) && fs::read(data.join(path)).is_ok_and(|content| content == file.data)
    })
}

fn list_files(root: &Path, directory: &Path, into: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            list_files(root, &path, into)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            into.insert(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// A directory named by the time, as upstream names them; a number keeps two of one instant apart.
fn fresh_directory(directory: &Path) -> io::Result<PathBuf> {
    let now = jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S").to_string();
    for number in 0u32.. {
        let path = directory.join(format!("..{now}.{number:09}"));
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
                return Ok(path);
            }
        }
    }
    Err(io::Error::other("no free directory name"))
}

fn fill(directory: &Path, payload: &Payload) -> io::Result<()> {
    for (path, file) in payload {
        let full = directory.join(path);
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&full, &file.data)?;
        fs::set_permissions(&full, fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

fn link_visible(directory: &Path, payload: &Payload) -> io::Result<()> {
    let tops: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for top in &tops {
        let link = directory.join(top);
        let target = Path::new(DATA).join(top);
        if fs::read_link(&link).ok().as_deref() != Some(target.as_path()) {
            remove_if_there(&link)?;
            symlink(&target, &link)?;
        }
    }
    for entry in fs::read_dir(directory)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !tops.contains(name.as_ref()) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), File { data: text.as_bytes().to_vec(), mode: 0o640 }))
            .collect()
    }

    fn read(directory: &Path, path: &str) -> Option<String> {
        fs::read_to_string(directory.join(path)).ok()
    }

    #[test]
    fn writes_replaces_and_takes_away() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path();
        write(directory, &payload(&[("a", "1"), ("deep/b", "2")]), None).unwrap();
        assert_eq!(read(directory, "a").as_deref(), Some("1"));
        assert_eq!(read(directory, "deep/b").as_deref(), Some("2"));
        assert_eq!(fs::metadata(directory.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_link(directory.join("a")).unwrap(), Path::new("..data/a"));
        let first = fs::read_link(directory.join("..data")).unwrap();
        write(directory, &payload(&[("a", "1"), ("deep/b", "2")]), None).unwrap();
        assert_eq!(
            fs::read_link(directory.join("..data")).unwrap(),
            first,
            "unchanged content is not rewritten"
        );
        write(directory, &payload(&[("a", "3")]), None).unwrap();
        assert_eq!(read(directory, "a").as_deref(), Some("3"));
        assert!(!directory.join("deep").exists() && !directory.join(first).exists());
    }

    #[test]
    fn refuses_to_leave_the_directory() {
        let home = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "..data", ""] {
            assert!(write(home.path(), &payload(&[(path, "1")]), None).is_err(), "{path}");
        }
    }
}
