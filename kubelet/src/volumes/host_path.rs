//! `hostPath` volumes: a path of the node, checked or made as its type says.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt},
    path::PathBuf,
};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// Checks the type and gives the path.
pub(super) fn set_up(source: &HostPathVolumeSource) -> Result<PathBuf, String> {
    let path = PathBuf::from(&source.path);
    let shown = path.display().to_string();
    let fail = |what: &str| Err(format!("hostPath type check failed: {shown} is not {what}"));
    let found = fs::metadata(&path).ok();
    let made = |result: std::io::Result<()>| result.map_err(|error| format!("{shown}: {error}"));
    match source.type_.as_deref().unwrap_or_default() {
        // Unchecked; Docker would make a missing one, and so do we, as a directory.
        "" if found.is_none() => made(fs::DirBuilder::new().recursive(true).mode(0o755).create(&path))?,
        "" => {}
        "DirectoryOrCreate" => match found {
            None => made(fs::DirBuilder::new().recursive(true).mode(0o755).create(&path))?,
            Some(found) if found.is_dir() => {}
            Some(_) => return fail("a directory"),
        },
        "FileOrCreate" => match found {
            None => made(fs::OpenOptions::new().create(true).append(true).mode(0o644).open(&path).map(drop))?,
            Some(found) if found.is_file() => {}
            Some(_) => return fail("a file"),
        },
        "Directory" if !found.as_ref().is_some_and(fs::Metadata::is_dir) => return fail("a directory"),
        "File" if !found.as_ref().is_some_and(fs::Metadata::is_file) => return fail("a file"),
        "Socket" if !found.as_ref().is_some_and(|found| found.file_type().is_socket()) => {
            return fail("a socket file");
        }
        "CharDevice" if !found.as_ref().is_some_and(|found| found.file_type().is_char_device()) => {
            return fail("a character device");
        }
        "BlockDevice" if !found.as_ref().is_some_and(|found| found.file_type().is_block_device()) => {
            return fail("a block device");
        }
        "Directory" | "File" | "Socket" | "CharDevice" | "BlockDevice" => {}
        other => return Err(format!("{other} is an invalid volume type")),
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let home = tempfile::tempdir().unwrap();
        let check = |name: &str, kind: &str| {
            let path = home.path().join(name).display().to_string();
            set_up(&HostPathVolumeSource { path, type_: Some(kind.to_owned()) }).map(drop)
        };
        assert!(check("d", "Directory").unwrap_err().ends_with("is not a directory"));
        check("d/e", "DirectoryOrCreate").unwrap();
        check("d/e", "Directory").unwrap();
        check("f", "FileOrCreate").unwrap();
        check("f", "File").unwrap();
        assert!(check("f", "Directory").is_err());
        assert!(check("f", "Socket").is_err());
        assert!(
            set_up(&HostPathVolumeSource { path: "/dev/null".into(), type_: Some("CharDevice".into()) })
                .is_ok()
        );
    }
}
