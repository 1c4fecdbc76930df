//! An image's files in a directory: what an `image` volume shows. Docker 20.10 cannot mount an image itself.
//!
//! A container is made of the image, never started, and its files are streamed out of Docker into the directory. The
//! archive is whatever somebody packed: nothing of it may land outside, and devices and pipes are left out.

use std::{
    collections::HashMap,
    io::{self, Read},
    path::Path,
};

use bollard::{
    Docker,
    models::{ContainerCreateBody, HostConfig},
};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::{errors, labels};
use crate::RuntimeError;

/// Pieces of the archive between Docker and the disk: enough that neither waits for each single piece of the other's.
const PIECES: usize = 16;

/// What Docker puts into every container, where the image does not have it (its `setupInitLayer`).
const MADE_BY_DOCKER: [&str; 10] = [
    ".dockerenv",
    "dev/console",
    "dev/pts",
    "dev/shm",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
    "proc",
    "sys",
];
/// Directories that it makes on the way.
const MADE_ON_THE_WAY: [&str; 2] = ["dev", "etc"];

/// The name of the container that an image is unpacked from, or read for another purpose: one for each node and image,
/// so that one that was left over is found.
pub(super) fn container_name(purpose: &str, node: &str, image: &str) -> String {
    let plain = |text: &str| text.replace(|character: char| !character.is_ascii_alphanumeric(), "-");
    format!("k8s_{purpose}_{}_{}", plain(node), plain(image))
}

/// The container that an image is unpacked from. It never starts: its command only has to be there, for Docker makes
/// no container without one and an image of nothing but files names none.
pub(super) fn container(node: &str, image: &str) -> ContainerCreateBody {
    let labels = [(labels::NODE, node), (labels::TYPE, labels::TYPE_IMAGE_VOLUME)];
    ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["/".to_owned()]),
        labels: Some(
            labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into_iter()
                .collect::<HashMap<_, _>>(),
        ),
        host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    }
}

/// Streams the files of a container that was made at `created` (seconds since 1970) into an empty directory.
pub(super) async fn stream(docker: &Docker, id: &str, created: i64, into: &Path) -> Result<(), RuntimeError> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let into = into.to_owned();
    let unpacking = tokio::task::spawn_blocking(move || {
        extract(Pieces { receiver, piece: Bytes::new() }, created, &into)
    });
    let mut pieces = std::pin::pin!(docker.export_container(id));
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| errors::message(&error));
        // Gone once the other side has failed, which tells why.
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    let failed = |text: String| RuntimeError::Unavailable(format!("failed to unpack the image: {text}"));
    unpacking.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

/// Reads what comes in pieces.
struct Pieces {
    receiver: mpsc::Receiver<Result<Bytes, String>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
            }
        }
        let length = into.len().min(self.piece.len());
        into[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// Unpacks an archive with owners, modes and times. `unpack_in` opens nothing through a link that leads out and
/// refuses paths with `..`.
fn extract(from: impl Read, created: i64, into: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(from);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    let mut passed = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let is_file = kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse();
        if !(is_file || kind.is_dir() || kind.is_symlink() || kind.is_hard_link()) {
            continue;
        }
        let path = entry.path()?.into_owned();
        let is_new = i64::try_from(entry.header().mtime()?).is_ok_and(|time| time >= created);
        if is_new && is_one_of(&path, &MADE_BY_DOCKER) {
            continue;
        }
        if is_new && kind.is_dir() && is_one_of(&path, &MADE_ON_THE_WAY) {
            passed.push(into.join(&path));
        }
        if !entry.unpack_in(into)? {
            return Err(io::Error::other(format!("{path:?} is outside")));
        }
    }
    for directory in passed {
        // The image's own has something in it.
        let _ = std::fs::remove_dir(directory);
    }
    Ok(())
}

fn is_one_of(path: &Path, known: &[&str]) -> bool {
    let path = path.strip_prefix("/").or_else(|_| path.strip_prefix(".")).unwrap_or(path);
    known.iter().any(|known| path == Path::new(known))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    /// An entry of a hand-made archive: kind, path, what it links to, bytes, seconds since 1970.
    type Entry<'a> = (tar::EntryType, &'a str, &'a str, &'a [u8], u64);

    fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (kind, path, target, bytes, time) in entries {
            let mut header = tar::Header::new_gnu();
            // Written as they are: the builder's own methods refuse what a hostile one would say.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
            header.set_mtime(*time);
            header.set_uid(u64::from(nix::unistd::getuid().as_raw()));
            header.set_gid(u64::from(nix::unistd::getgid().as_raw()));
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            archive.append(&header, *bytes).unwrap();
        }
        archive.into_inner().unwrap()
    }

    use tar::EntryType as Kind;

    #[test]
    fn what_docker_adds_is_left_out_and_what_the_image_has_stays() {
        let home = tempfile::tempdir().unwrap();
        let bytes = archive(&[
            (Kind::Regular, ".dockerenv", "", b"", 100),
            (Kind::Directory, "dev/", "", b"", 100),
            (Kind::Regular, "dev/console", "", b"", 100),
            (Kind::Char, "dev/null", "", b"", 1),
            (Kind::Directory, "etc/", "", b"", 100),
            (Kind::Regular, "etc/hosts", "", b"own", 1),
            (Kind::Symlink, "etc/mtab", "/proc/mounts", b"", 100),
            (Kind::Directory, "proc/", "", b"", 100),
            (Kind::Directory, "sys/", "", b"", 1),
            (Kind::Regular, "data", "", b"x", 200),
            (Kind::Link, "again", "data", b"", 200),
        ]);
        extract(&bytes[..], 100, home.path()).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["again", "data", "etc", "sys"]);
        assert_eq!(fs::read_to_string(home.path().join("etc/hosts")).unwrap(), "own");
        assert!(fs::symlink_metadata(home.path().join("etc/mtab")).is_err());
        assert_eq!(fs::metadata(home.path().join("data")).unwrap().nlink(), 2);
    }

    #[test]
    fn nothing_lands_outside() {
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "as it was").unwrap();
        let mode = fs::metadata(&outside).unwrap().mode();
        let target = outside.to_str().unwrap();
        let file = format!("{target}/file");
        let hostile: [&[Entry<'_>]; 6] = [
            &[(Kind::Regular, "../outside/new", "", b"x", 1)],
            &[(Kind::Regular, "a/../../outside/new", "", b"x", 1)],
            &[(Kind::Symlink, "out", target, b"", 1), (Kind::Regular, "out/new", "", b"x", 1)],
            &[(Kind::Symlink, "out", target, b"", 1), (Kind::Directory, "out", "", b"", 1)],
            &[(Kind::Symlink, "up", "..", b"", 1), (Kind::Regular, "up/outside/new", "", b"x", 1)],
            &[(Kind::Link, "hard", &file, b"", 1)],
        ];
        for (index, entries) in hostile.into_iter().enumerate() {
            let into = home.path().join(format!("into-{index}"));
            fs::create_dir(&into).unwrap();
            assert!(extract(&archive(entries)[..], 100, &into).is_err(), "{entries:?}");
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{entries:?}");
        }
        assert_eq!(fs::metadata(&outside).unwrap().mode(), mode);
        // A link that is replaced by a file, and an absolute path, stay inside.
        let into = home.path().join("into");
        fs::create_dir(&into).unwrap();
        let entries: [Entry<'_>; 3] = [
            (Kind::Symlink, "link", &file, b"", 1),
            (Kind::Regular, "link", "", b"new", 1),
            (Kind::Regular, "/absolute", "", b"in", 1),
        ];
        extract(&archive(&entries)[..], 100, &into).unwrap();
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "as it was");
        assert_eq!(fs::read_to_string(into.join("link")).unwrap(), "new");
        assert_eq!(fs::read_to_string(into.join("absolute")).unwrap(), "in");
    }

    #[test]
    fn an_archive_that_ends_early_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let bytes = archive(&[(Kind::Regular, "data", "", &[7; 2000], 1)]);
        assert!(extract(&bytes[..1500], 100, home.path()).is_err());
    }
}
