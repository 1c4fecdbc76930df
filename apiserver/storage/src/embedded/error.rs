//! Why a data directory could not be opened, read or written.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why an embedded store could not be opened or worked on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process (or another store in this one) holds the directory.
    #[error("the store in `{}` is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Stored bytes are not what was written. Nothing was changed.
    #[error(
        "the store is damaged: {0}; `minik8s store verify` lists all damage, `minik8s store repair` salvages what \
         is whole, `minik8s store restore` goes back to a backup made with `minik8s store backup`"
    )]
    Damaged(Damage),
    /// The files were written by a newer version.
    #[error("`{}` has format {found}; this version reads format {supported}", .path.display())]
    UnknownFormat {
        /// The file that says so.
        path: PathBuf,
        /// The format it has.
        found: u32,
        /// The format that this version reads and writes.
        supported: u32,
    },
    /// There is no store in the directory, and the operation does not make one.
    #[error("there is no store in `{}`", .0.display())]
    Missing(PathBuf),
    /// There is something where a new store was to be made.
    #[error("`{}` is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The operating system refused.
    #[error("failed to {action} `{}`", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A place where stored bytes are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` at byte {offset}: {what}", .file.display())]
pub struct Damage {
    /// The damaged file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

impl Damage {
    pub(crate) fn new(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), offset, what: what.into() }
    }
}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

/// Says what was tried when the operating system refuses.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, OpenError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, OpenError> {
        self.map_err(|source| OpenError::Io { action, path: path.to_owned(), source })
    }
}
