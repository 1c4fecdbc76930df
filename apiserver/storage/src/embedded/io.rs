//! The few things that the embedded store asks of a file system.
//!
//! Everything that must survive a crash goes through this trait, so that a simulated disk can drop, tear and
//! reorder what was never synced. Killing a process proves nothing about sync: the page cache outlives it.
//!
//! The rules that callers may rely on are those of POSIX and no more: written bytes are durable after
//! [`IoFile::sync`], names (creations, renames, removals) after [`Io::sync_dir`], and what was not synced may
//! be there after a crash in whole, in part or not at all, in any order.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};

/// A file system.
pub trait Io: Send + Sync + 'static {
    /// Makes a directory and its parents, readable by the owner only; durable when this answers.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Takes an exclusive lock on a file, which ends with the returned guard or the process.
    /// Fails with [`io::ErrorKind::WouldBlock`] if somebody holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// Creates a file, empty; an old one of that name loses its content.
    fn create(&self, path: &Path) -> io::Result<Box<dyn IoFile>>;
    /// Opens a file that exists.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn IoFile>>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Exchanges two directories in one step.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// What an existing file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and overwriting.
    ReadWrite,
}

/// One open file.
pub trait IoFile: Send + Sync {
    /// Bytes in the file.
    fn size(&self) -> io::Result<u64>;
    /// Fills the buffer from `offset`; answers how many bytes there were.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file `length` zero bytes long, with its blocks on the disk, so that later writes inside can
    /// neither run out of space nor change the file's metadata. The file must be empty.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// Makes everything written durable.
    fn sync(&self) -> io::Result<()>;
}

/// Whether an error says that the disk (or the quota) is full.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealIo {
    sync: SyncMode,
}

/// Whether [`RealIo`] syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// Acknowledged writes survive power loss. The only mode outside tests.
    #[default]
    Durable,
    /// Nothing is ever synced; a crash of the machine may lose or damage everything.
    Never,
}

impl RealIo {
    /// A file system that syncs as `sync` says.
    #[must_use]
    pub fn new(sync: SyncMode) -> Self {
        Self { sync }
    }
}

impl Io for RealIo {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let missing: Vec<&Path> =
            dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // What is durable in a directory is lost all the same if the directory's own name is.
        for made in missing.iter().rev() {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
            self.sync_dir(parent.unwrap_or_else(|| Path::new(".")))?;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file =
            private(OpenOptions::new().read(true).write(true).create(true).truncate(false)).open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Box::new(lock)),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn IoFile>> {
        let file =
            private(OpenOptions::new().read(true).write(true).create(true).truncate(true)).open(path)?;
        Ok(Box::new(RealFile { file, sync: self.sync }))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn IoFile>> {
        let file = OpenOptions::new().read(true).write(access == Access::ReadWrite).open(path)?;
        Ok(Box::new(RealFile { file, sync: self.sync }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
        Ok(nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, one, nix::fcntl::AT_FDCWD, other, flags)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self.sync {
            SyncMode::Durable => File::open(dir)?.sync_all(),
            SyncMode::Never => Ok(()),
        }
    }
}

/// Secrets are among the values: nobody but the owner reads the files.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

struct RealFile {
    file: File,
    sync: SyncMode,
}

impl IoFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        // The reservation comes first, so that a full disk shows before anything is written. The zeros come
        // after it because ext4 and xfs mark reserved blocks "unwritten": the first write into each would
        // change metadata, and every sync would have to commit the file system's journal as well.
        let length_signed = i64::try_from(length).map_err(io::Error::other)?;
        match nix::fcntl::fallocate(&self.file, nix::fcntl::FallocateFlags::empty(), 0, length_signed) {
            Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
        let zeros = vec![0; ZEROS_PER_WRITE.min(usize::try_from(length).unwrap_or(ZEROS_PER_WRITE))];
        let mut offset = 0;
        while offset < length {
            let count = zeros.len().min(usize::try_from(length - offset).unwrap_or(zeros.len()));
            self.file.write_all_at(&zeros[..count], offset)?;
            offset += count as u64;
        }
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        match self.sync {
            SyncMode::Durable => self.file.sync_data(),
            SyncMode::Never => Ok(()),
        }
    }
}

/// Enough for the kernel to work in large pieces, little enough to be no burden.
const ZEROS_PER_WRITE: usize = 1 << 20;
