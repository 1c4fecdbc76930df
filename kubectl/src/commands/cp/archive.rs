//! Archives of what is copied: packing local files, and unpacking without trusting the other side.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

use crate::error::Error;

/// The last part of a local path.
pub(super) fn base_name(path: &Path) -> Result<String, Error> {
    // `.` and `..` have no name of their own.
    let whole = fs::canonicalize(path)?;
    let name = path.file_name().or_else(|| whole.file_name());
    name.and_then(|name| name.to_str())
        .map(str::to_owned)
        .ok_or_else(|| Error::message(format!("{} has no name that can be copied", path.display())))
}

/// A remote path without what means nothing in it.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if path.starts_with('/') { format!("/{joined}") } else { joined }
}

/// How the names begin that `tar cf - REMOTE` writes: without a leading slash, and without climbing.
pub(super) fn prefix(remote: &str) -> String {
    let cleaned = clean(remote.trim_start_matches('/'));
    let mut rest = cleaned.as_str();
    while let Some(climbed) = rest.strip_prefix("..") {
        rest = climbed.trim_start_matches('/');
    }
    rest.to_owned()
}

/// Packs a file or directory under a name; the archive is read from its beginning.
pub(super) fn pack(local: &Path, name: &str) -> Result<File, Error> {
    let mut builder = Builder::new(tempfile::tempfile()?);
    builder.follow_symlinks(false);
    add(&mut builder, local, Path::new(name))?;
    let mut file = builder.into_inner()?;
    file.rewind()?;
    Ok(file)
}

fn add(builder: &mut Builder<File>, local: &Path, name: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(local)?;
    let mut header = Header::new_gnu();
    header.set_metadata(&metadata);
    if metadata.is_dir() {
        let mut entries = fs::read_dir(local)?.collect::<Result<Vec<_>, _>>()?;
        // A directory comes to be by what is in it, unless it is empty.
        if entries.is_empty() {
            header.set_size(0);
            builder.append_data(&mut header, name, io::empty())?;
        }
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            add(builder, &entry.path(), &name.join(entry.file_name()))?;
        }
    } else if metadata.is_symlink() {
        header.set_size(0);
        builder.append_link(&mut header, name, fs::read_link(local)?)?;
    } else {
        builder.append_data(&mut header, name, File::open(local)?)?;
    }
    Ok(())
}

/// Unpacks what came from a container. Names must begin with the prefix, which is replaced by `local`; links and
/// what would leave `local` are skipped, and told of.
pub(super) fn unpack(packed: File, prefix: &str, local: &Path) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    let mut archive = Archive::new(packed);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let name = name.trim_start_matches("./");
        let rest = name
            .strip_prefix(prefix)
            .filter(|rest| rest.is_empty() || rest.starts_with('/') || prefix.is_empty())
            .ok_or_else(|| Error::message("tar contents corrupted"))?;
        let Some(target) = inside(local, rest) else {
            warnings.push(format!(
                "file {:?} is outside target destination, skipping",
                local.join(rest.trim_start_matches('/'))
            ));
            continue;
        };
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&target)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent)?;
                }
                let mut file = create(&target)?;
                io::copy(&mut entry, &mut file)?;
            }
            EntryType::Symlink => {
                let link = entry.link_name()?.unwrap_or_default().into_owned();
                warnings.push(format!("skipping symlink: {target:?} -> {link:?}"));
            }
            other => warnings.push(format!("skipping {target:?}: entries of type {other:?} are not copied")),
        }
    }
    Ok(warnings)
}

/// A new file, never through a link that is in the way.
fn create(target: &Path) -> Result<File, Error> {
    if fs::symlink_metadata(target).is_ok_and(|found| found.is_symlink()) {
        return Err(Error::message(format!("{} is a link: remove it first", target.display())));
    }
    File::create(target).map_err(|error| {
        let text = error.to_string();
        let reason = text.split(" (os error").next().unwrap_or(&text).to_lowercase();
        Error::message(format!("open {}: {reason}", target.display()))
    })
}

/// Where an entry goes; nowhere if it would climb out.
fn inside(local: &Path, rest: &str) -> Option<PathBuf> {
    let mut target = local.to_owned();
    for part in Path::new(rest.trim_start_matches('/')).components() {
        match part {
            Component::Normal(part) => {
                target.push(part);
                // A link that we have not made may lead anywhere.
                if fs::symlink_metadata(&target).is_ok_and(|found| found.is_symlink()) {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(target)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir_all(source.join("deep/er")).unwrap();
        fs::create_dir(source.join("empty")).unwrap();
        fs::write(source.join("deep/er/file"), "content").unwrap();
        let long = "n".repeat(150);
        fs::write(source.join(&long), "long").unwrap();
        symlink("/etc/passwd", source.join("link")).unwrap();
        let packed = pack(&source, "name").unwrap();
        let target = folder.path().join("target");
        let warnings = unpack(packed, "name", &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("deep/er/file")).unwrap(), "content");
        assert_eq!(fs::read_to_string(target.join(&long)).unwrap(), "long");
        assert!(target.join("empty").is_dir() && !target.join("link").exists());
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("skipping symlink: "), "{warnings:?}");
    }

    fn archive_of(name: &str) -> File {
        let mut header = Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        // Past the library's own check of names.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        let mut builder = Builder::new(tempfile::tempfile().unwrap());
        builder.append(&header, &b"x"[..]).unwrap();
        let mut file = builder.into_inner().unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn nothing_leaves_the_target() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        for name in ["data/../../escaped", "data/a/../../../escaped"] {
            let warnings = unpack(archive_of(name), "data", &target).unwrap();
            assert!(warnings[0].ends_with("is outside target destination, skipping"), "{warnings:?}");
        }
        fs::create_dir(&target).unwrap();
        symlink(folder.path(), target.join("out")).unwrap();
        let warnings = unpack(archive_of("data/out/escaped"), "data", &target).unwrap();
        assert!(warnings[0].ends_with("is outside target destination, skipping"), "{warnings:?}");
        assert!(!folder.path().join("escaped").exists());
        let other = unpack(archive_of("other/file"), "data", &target).unwrap_err();
        assert_eq!(other.to_string(), "error: tar contents corrupted");
        assert!(unpack(archive_of("database"), "data", &target).is_err(), "a name that only begins alike");
    }

    #[test]
    fn remote_names() {
        assert_eq!(clean("/a//b/./c/../d/"), "/a/b/d");
        assert_eq!(clean("a/../../b"), "../b");
        assert_eq!(prefix("/etc/hosts"), "etc/hosts");
        assert_eq!(prefix("../../etc"), "etc");
        assert_eq!(prefix("."), "");
    }
}
