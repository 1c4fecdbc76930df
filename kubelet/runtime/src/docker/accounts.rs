//! The users and groups that an image knows: its `/etc/passwd` and `/etc/group`, read out of a container that is made
//! of it and never started.

use std::io::Read;

use bollard::{Docker, query_parameters::DownloadFromContainerOptions};
use futures_util::StreamExt;

use super::errors;
use crate::{AccountFiles, RuntimeError};

/// More is no list of accounts that anybody should have to read.
const MOST: usize = 1 << 20;

/// What the container's files say.
pub(super) async fn read(docker: &Docker, container: &str) -> Result<AccountFiles, RuntimeError> {
    let passwd = file(docker, container, "/etc/passwd").await?;
    let group = file(docker, container, "/etc/group").await?;
    Ok(AccountFiles { passwd, group })
}

/// A file of a container; empty if there is none.
async fn file(docker: &Docker, container: &str, path: &str) -> Result<String, RuntimeError> {
    let options = DownloadFromContainerOptions { path: path.to_owned() };
    let mut pieces = std::pin::pin!(docker.download_from_container(container, Some(options)));
    let mut archive = Vec::new();
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => archive.extend_from_slice(&piece),
            Err(error) if errors::is_not_found(&error) => return Ok(String::new()),
            Err(error) => return Err(errors::unavailable(error)),
        }
        if archive.len() > MOST {
            return Err(RuntimeError::Unavailable(format!(
                "{path} of the image is larger than {MOST} bytes"
            )));
        }
    }
    extract(&archive)
        .map_err(|error| RuntimeError::Unavailable(format!("cannot read {path} of the image: {error}")))
}

/// The text of the one file in an archive; what is no file has none.
fn extract(archive: &[u8]) -> std::io::Result<String> {
    let mut archive = tar::Archive::new(archive);
    let Some(entry) = archive.entries()?.next() else { return Ok(String::new()) };
    let mut entry = entry?;
    let mut bytes = Vec::new();
    if entry.header().entry_type().is_file() {
        entry.read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_has_text() {
        let archive = |kind: tar::EntryType, bytes: &[u8]| {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, "passwd", bytes).unwrap();
            archive.into_inner().unwrap()
        };
        assert_eq!(extract(&archive(tar::EntryType::Regular, b"root:x:0:0")).unwrap(), "root:x:0:0");
        assert_eq!(extract(&archive(tar::EntryType::Directory, b"")).unwrap(), "");
        assert_eq!(extract(&[]).unwrap(), "");
        assert!(extract(&[1; 700]).is_err());
    }
}
