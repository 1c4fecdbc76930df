//! Images: looking them up, pulling them, and making small ones out of bytes, our pause image first of all.

use std::io;

use bollard::{
    Docker,
    auth::DockerCredentials,
    query_parameters::{CreateImageOptions, ListImagesOptions, RemoveImageOptions},
};
use bytes::Bytes;
use futures_util::TryStreamExt;

use super::errors;
use crate::{ImageView, RegistryAuth, RuntimeError};

/// The program that holds a sandbox, built by `build.rs` for this target.
static PAUSE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// What of busybox has a name in an image made of it; the rest is reached as `busybox <applet>`.
const APPLETS: &[&str] = &[
    "[",
    "ash",
    "awk",
    "basename",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "grep",
    "head",
    "hostname",
    "httpd",
    "id",
    "ifconfig",
    "ip",
    "kill",
    "less",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mount",
    "mv",
    "nc",
    "netstat",
    "nice",
    "nslookup",
    "ping",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "route",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tar",
    "tee",
    "test",
    "timeout",
    "top",
    "touch",
    "tr",
    "traceroute",
    "true",
    "tty",
    "umount",
    "uname",
    "uniq",
    "uptime",
    "vi",
    "wc",
    "wget",
    "which",
    "whoami",
    "xargs",
    "yes",
];

/// The name of our sandbox image: its tag is the program's hash, so that another build makes another image and
/// sandboxes that run keep theirs.
pub(super) fn pause_name() -> String {
    // FNV-1a: the tag tells builds apart; nothing trusts it.
    let hash = PAUSE.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("minik8s/pause:{hash:016x}")
}

/// Makes our sandbox image unless it is there.
pub(super) async fn ensure_pause(docker: &Docker) -> Result<(), RuntimeError> {
    let name = pause_name();
    if image(docker, &name).await?.is_some() {
        return Ok(());
    }
    import(docker, &name, &[("pause", PAUSE)], &["ENTRYPOINT [\"/pause\"]"]).await
}

/// Makes an image of one layer from files.
pub(super) async fn import(
    docker: &Docker,
    name: &str,
    files: &[(&str, &[u8])],
    changes: &[&str],
) -> Result<(), RuntimeError> {
    let archive = archive(files, &[]).map_err(|error| not_built(name, &error))?;
    import_archive(docker, name, archive, changes).await
}

/// Makes an image of busybox with the applets that scripts use.
pub(super) async fn import_busybox(
    docker: &Docker,
    name: &str,
    program: &[u8],
    changes: &[&str],
) -> Result<(), RuntimeError> {
    let archive = archive(&[("bin/busybox", program)], APPLETS).map_err(|error| not_built(name, &error))?;
    let changes: Vec<&str> =
        ["ENV PATH=/bin", "CMD [\"sh\"]"].into_iter().chain(changes.iter().copied()).collect();
    import_archive(docker, name, archive, &changes).await
}

fn not_built(name: &str, error: &io::Error) -> RuntimeError {
    RuntimeError::Unavailable(format!("failed to build image {name:?}: {error}"))
}

async fn import_archive(
    docker: &Docker,
    name: &str,
    archive: Vec<u8>,
    changes: &[&str],
) -> Result<(), RuntimeError> {
    let (repository, tag) = split_reference(name);
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(repository.to_owned()),
        tag: Some(tag.unwrap_or("latest").to_owned()),
        changes: changes.iter().map(|&change| change.to_owned()).collect(),
        ..CreateImageOptions::default()
    };
    let body = bollard::body_full(Bytes::from(archive));
    docker
        .create_image(Some(options), Some(body), None)
        .try_for_each(|_progress| std::future::ready(Ok(())))
        .await
        .map_err(errors::unavailable)
}

fn archive(files: &[(&str, &[u8])], applets: &[&str]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    if !applets.is_empty() {
        for (directory, mode) in [("bin", 0o755), ("tmp", 0o1777), ("etc", 0o755), ("root", 0o700)] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(mode);
            header.set_size(0);
            archive.append_data(&mut header, directory, io::empty())?;
        }
    }
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path, *bytes)?;
    }
    for applet in applets {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    archive.into_inner()
}

/// Splits an image reference into repository and tag. A colon before the last slash belongs to a port, and what
/// follows an `@` is a digest, which Docker wants where a tag stands.
fn split_reference(reference: &str) -> (&str, Option<&str>) {
    if let Some((repository, digest)) = reference.split_once('@') {
        return (repository, Some(digest));
    }
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (reference, None),
    }
}

/// The image of that reference, if it is on the node.
pub(super) async fn image(docker: &Docker, reference: &str) -> Result<Option<ImageView>, RuntimeError> {
    match docker.inspect_image(reference).await {
        Ok(image) => {
            let mut names = image.repo_tags.unwrap_or_default();
            names.extend(image.repo_digests.unwrap_or_default());
            Ok(Some(ImageView {
                id: image.id.unwrap_or_default(),
                names,
                size: image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
                user: image.config.and_then(|config| config.user).unwrap_or_default(),
                pinned: false,
            }))
        }
        Err(error) if errors::is_not_found(&error) => Ok(None),
        Err(error) => Err(errors::unavailable(error)),
    }
}

/// Every image on the node. A list does not tell users: they are empty here.
pub(super) async fn images(docker: &Docker) -> Result<Vec<ImageView>, RuntimeError> {
    let images = docker.list_images(None::<ListImagesOptions>).await.map_err(errors::unavailable)?;
    let named = |name: &String| !name.contains("<none>");
    Ok(images
        .into_iter()
        .map(|image| ImageView {
            id: image.id,
            names: image.repo_tags.into_iter().chain(image.repo_digests).filter(named).collect(),
            size: u64::try_from(image.size).unwrap_or_default(),
            user: String::new(),
            pinned: false,
        })
        .collect())
}

/// Removes an image. Docker refuses where a container, ours or not, is made of it, and where somebody has given it
/// another name besides.
pub(super) async fn remove(docker: &Docker, id: &str) -> Result<(), RuntimeError> {
    let options = RemoveImageOptions { force: false, ..RemoveImageOptions::default() };
    let removed = docker.remove_image(id, Some(options), None).await;
    errors::ignore(removed.map(|_| ()), errors::is_not_found)
}

/// Pulls and gives what came.
pub(super) async fn pull(
    docker: &Docker,
    reference: &str,
    auth: Option<&RegistryAuth>,
) -> Result<ImageView, RuntimeError> {
    let failed = |message| RuntimeError::Pull { image: reference.to_owned(), message };
    let (repository, tag) = split_reference(reference);
    let options = CreateImageOptions {
        from_image: Some(repository.to_owned()),
        // Without a tag Docker would pull every tag there is.
        tag: Some(tag.unwrap_or("latest").to_owned()),
        ..CreateImageOptions::default()
    };
    let credentials = auth.map(|auth| DockerCredentials {
        username: Some(auth.username.clone()),
        password: Some(auth.password.clone()),
        serveraddress: Some(auth.server.clone()),
        ..DockerCredentials::default()
    });
    docker
        .create_image(Some(options), None, credentials)
        .try_for_each(|_progress| std::future::ready(Ok(())))
        .await
        .map_err(|error| failed(errors::message(&error)))?;
    image(docker, reference).await?.ok_or_else(|| failed("the image is not there after its pull".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_as_docker_reads_them() {
        assert_eq!(split_reference("busybox"), ("busybox", None));
        assert_eq!(split_reference("busybox:1.36"), ("busybox", Some("1.36")));
        assert_eq!(split_reference("localhost:5000/a/b"), ("localhost:5000/a/b", None));
        assert_eq!(split_reference("localhost:5000/a/b:v1"), ("localhost:5000/a/b", Some("v1")));
        assert_eq!(split_reference("busybox@sha256:ab"), ("busybox", Some("sha256:ab")));
        assert_eq!(split_reference("busybox:1@sha256:ab").1, Some("sha256:ab"));
    }

    #[test]
    fn the_pause_program_is_a_small_static_executable() {
        assert!(PAUSE.starts_with(b"\x7fELF"));
        assert!(PAUSE.len() < 16 << 10, "{} bytes", PAUSE.len());
        // PT_INTERP would ask for a dynamic loader, which the image does not have.
        assert!(!PAUSE.windows(6).any(|window| window == b"ld-lin"));
    }
}
