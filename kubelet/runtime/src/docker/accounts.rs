//! The users and groups that an image knows: its `/etc/passwd` and `/etc/group`, read out of a container that is made
//! of it and never started.

use std::io::Read;

use bollard::{Docker, query_parameters::DownloadFromContainerOptions};
use futures_util::StreamExt;

use super::errors;
use crate::{AccountFiles, RuntimeError};

/// More is no list of accounts that anybody should have to read.
const MOST: usize = 1 << 20;
/// The kernel follows as many in a row.
const MOST_LINKS: usize = 40;

/// What the container's files say.
pub(super) async fn read(docker: &Docker, container: &str) -> Result<AccountFiles, RuntimeError> {
    // Docker runs its own large program again for each of the two: at once they take half the time.
    let (passwd, group) =
        tokio::try_join!(file(docker, container, "/etc/passwd"), file(docker, container, "/etc/group"))?;
    Ok(AccountFiles { passwd, group })
}

/// A file of a container, through links; empty if there is none.
async fn file(docker: &Docker, container: &str, path: &str) -> Result<String, RuntimeError> {
    let failed = |why: String| RuntimeError::Unavailable(format!("cannot read {path} of the image: {why}"));
    let mut place = path.to_owned();
    for _ in 0..MOST_LINKS {
        let options = DownloadFromContainerOptions { path: place.clone() };
        let mut pieces = std::pin::pin!(docker.download_from_container(container, Some(options)));
        let mut archive = Vec::new();
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => archive.extend_from_slice(&piece),
                // The container itself may be gone, too.
                Err(error) if errors::is_not_found(&error) && errors::message(&error).contains(&place) => {
                    return Ok(String::new());
                }
                Err(error) => return Err(failed(errors::message(&error))),
            }
            if archive.len() > MOST {
                return Err(failed(format!("it is larger than {MOST} bytes")));
            }
        }
        match extract(&archive).map_err(|error| failed(error.to_string()))? {
            Found::File(text) => return Ok(text),
            // Docker resolves `..` below the container's root.
            Found::Link(to) if to.starts_with('/') => place = to,
            Found::Link(to) => {
                let directory = place.rsplit_once('/').map_or("", |(directory, _)| directory);
                place = format!("{directory}/{to}");
            }
        }
    }
    Err(failed("too many links".to_owned()))
}

/// What an archive holds of one path.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    File(String),
    Link(String),
}

fn extract(archive: &[u8]) -> std::io::Result<Found> {
    let mut archive = tar::Archive::new(archive);
    let entry = archive.entries()?.next().ok_or_else(|| std::io::Error::other("nothing came"))?;
    let mut entry = entry?;
    if let Some(target) = entry.link_name()?.filter(|_| entry.header().entry_type().is_symlink()) {
        return Ok(Found::Link(target.to_string_lossy().into_owned()));
    }
    if !entry.header().entry_type().is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    Ok(Found::File(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_text_and_a_link_leads_on() {
        let archive = |kind: tar::EntryType, bytes: &[u8]| {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(bytes.len() as u64);
            if kind.is_symlink() {
                archive.append_link(&mut header, "passwd", "../run/passwd").unwrap();
            } else {
                archive.append_data(&mut header, "passwd", bytes).unwrap();
            }
            archive.into_inner().unwrap()
        };
        let text = extract(&archive(tar::EntryType::Regular, b"root:x:0:0")).unwrap();
        assert_eq!(text, Found::File("root:x:0:0".into()));
        let link = extract(&archive(tar::EntryType::Symlink, b"")).unwrap();
        assert_eq!(link, Found::Link("../run/passwd".into()));
        for wrong in [archive(tar::EntryType::Directory, b""), Vec::new(), vec![1; 700]] {
            assert!(extract(&wrong).is_err());
        }
    }
}
