//! Small files of the kubelet's own, replaced as a whole: whoever reads one sees the old content or the new.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Replaces a file that only its owner may read. What a machine that loses power then finds may be the old content.
///
/// # Errors
/// If it cannot be written; the old file stays.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    put(path, content, |_| Ok(()))
}

/// The same for what a machine that loses power must find again.
///
/// # Errors
/// If it cannot be written; the old file stays.
pub(crate) fn replace_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    put(path, content, fs::File::sync_data)
}

fn put(path: &Path, content: &[u8], settle: impl FnOnce(&fs::File) -> io::Result<()>) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    settle(&file)?;
    fs::rename(&temporary, path)
}
