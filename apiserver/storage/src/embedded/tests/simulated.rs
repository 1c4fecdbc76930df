//! A disk that forgets what was not synced.
//!
//! It keeps two pictures: what processes see, and what the platter holds for certain. Between them stand the
//! changes since the last sync. [`SimulatedDisk::cut_power`] keeps an arbitrary part of those: each sector of
//! each write and each change of a name by itself, in any order, as POSIX allows. The disk can also lose power
//! at a given operation, fail to sync, and be full.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::embedded::io::{Access, Io, IoFile};

/// What a disk writes at once.
const SECTOR: usize = 512;

/// Handles of one disk share it.
#[derive(Clone)]
pub(super) struct SimulatedDisk {
    disk: Arc<Mutex<Disk>>,
}

struct Disk {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    /// Changing operations so far.
    operations: u64,
    /// The power fails at this operation.
    fails_at: Option<u64>,
    off: bool,
    sync_fails: bool,
    /// Bytes that all files together may take.
    capacity: usize,
    random: StdRng,
}

#[derive(Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<DataChange>,
}

enum DataChange {
    Length(usize),
    Write(usize, Vec<u8>),
}

#[derive(Clone)]
enum NameChange {
    Set(PathBuf, usize),
    Rename(PathBuf, PathBuf, usize),
    Remove(PathBuf),
}

impl SimulatedDisk {
    pub(super) fn new(seed: u64) -> Self {
        let disk = Disk {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            operations: 0,
            fails_at: None,
            off: false,
            sync_fails: false,
            capacity: usize::MAX,
            random: StdRng::seed_from_u64(seed),
        };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Changing operations so far.
    pub(super) fn operations(&self) -> u64 {
        self.disk.lock().operations
    }

    /// The power fails at the `count`th changing operation from now.
    pub(super) fn fail_after(&self, count: u64) {
        let mut disk = self.disk.lock();
        disk.fails_at = Some(disk.operations + count);
    }

    pub(super) fn fail_syncs(&self) {
        self.disk.lock().sync_fails = true;
    }

    pub(super) fn set_capacity(&self, bytes: usize) {
        self.disk.lock().capacity = bytes;
    }

    pub(super) fn used(&self) -> usize {
        self.disk.lock().used()
    }

    /// What a machine finds after the power has come back: `kept` is the part of the changes that were not
    /// synced and yet reached the platter.
    pub(super) fn cut_power(&self, kept: f64) {
        let mut disk = self.disk.lock();
        let disk = &mut *disk;
        for file in &mut disk.files {
            for change in file.pending.drain(..) {
                match change {
                    DataChange::Length(length) => {
                        if disk.random.random_bool(kept) {
                            file.durable.resize(length, 0);
                        }
                    }
                    DataChange::Write(offset, bytes) => {
                        let mut position = offset;
                        while position < offset + bytes.len() {
                            let end = (position / SECTOR + 1) * SECTOR;
                            let end = end.min(offset + bytes.len());
                            if disk.random.random_bool(kept) {
                                overwrite(
                                    &mut file.durable,
                                    position,
                                    &bytes[position - offset..end - offset],
                                );
                            }
                            position = end;
                        }
                    }
                }
            }
            file.seen = file.durable.clone();
        }
        for change in std::mem::take(&mut disk.pending_names) {
            if disk.random.random_bool(kept) {
                apply(&mut disk.durable_names, change);
            }
        }
        disk.names = disk.durable_names.clone();
        disk.fails_at = None;
        disk.off = false;
        disk.sync_fails = false;
    }

    /// What a process finds that is started after another was killed: everything that was written, synced or
    /// not.
    pub(super) fn restart_process(&self) {
        let mut disk = self.disk.lock();
        disk.fails_at = None;
        disk.off = false;
    }

    fn change<T>(&self, operation: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.disk.lock();
        if disk.off {
            return Err(power_failed());
        }
        disk.operations += 1;
        if disk.fails_at.is_some_and(|at| disk.operations > at) {
            disk.off = true;
            // Whether the last operation still happens is open, too.
            if disk.random.random_bool(0.5) {
                operation(&mut disk)?;
            }
            return Err(power_failed());
        }
        operation(&mut disk)
    }
}

impl Disk {
    fn used(&self) -> usize {
        self.names.values().map(|file| self.files[*file].seen.len()).sum()
    }

    fn rename(&mut self, change: NameChange) {
        apply(&mut self.names, change.clone());
        self.pending_names.push(change);
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        if self.off {
            return Err(power_failed());
        }
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: NameChange) {
    match change {
        NameChange::Set(path, file) => {
            names.insert(path, file);
        }
        NameChange::Rename(from, to, file) => {
            names.remove(&from);
            names.insert(to, file);
        }
        NameChange::Remove(path) => {
            names.remove(&path);
        }
    }
}

fn overwrite(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn power_failed() -> io::Error {
    io::Error::other("the power has failed")
}

impl Io for SimulatedDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk.lock();
        if disk.off {
            return Err(power_failed());
        }
        let names = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn IoFile>> {
        let file = self.change(|disk| {
            disk.files.push(Content::default());
            let file = disk.files.len() - 1;
            disk.rename(NameChange::Set(path.to_owned(), file));
            Ok(file)
        })?;
        Ok(Box::new(SimulatedFile { disk: self.clone(), file }))
    }

    fn open(&self, path: &Path, _access: Access) -> io::Result<Box<dyn IoFile>> {
        let file = self.disk.lock().find(path)?;
        Ok(Box::new(SimulatedFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|disk| {
            let file = disk.find(from).or_else(|error| disk.names.get(from).copied().ok_or(error))?;
            disk.rename(NameChange::Rename(from.to_owned(), to.to_owned(), file));
            Ok(())
        })
    }

    fn exchange(&self, _one: &Path, _other: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|disk| {
            disk.rename(NameChange::Remove(path.to_owned()));
            Ok(())
        })
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.change(|disk| {
            for change in std::mem::take(&mut disk.pending_names) {
                apply(&mut disk.durable_names, change);
            }
            Ok(())
        })
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    file: usize,
}

impl IoFile for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.disk.lock().files[self.file].seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.disk.disk.lock();
        if disk.off {
            return Err(power_failed());
        }
        let content = &disk.files[self.file].seen;
        let begin = content.len().min(usize::try_from(offset).unwrap());
        let count = buffer.len().min(content.len() - begin);
        buffer[..count].copy_from_slice(&content[begin..begin + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.disk.change(|disk| {
            let growth = (offset + bytes.len()).saturating_sub(disk.files[self.file].seen.len());
            if disk.used() + growth > disk.capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let file = &mut disk.files[self.file];
            overwrite(&mut file.seen, offset, bytes);
            file.pending.push(DataChange::Write(offset, bytes.to_vec()));
            Ok(())
        })
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        self.disk.change(|disk| {
            if disk.used() + length > disk.capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.files[self.file].seen.resize(length, 0);
            disk.files[self.file].pending.push(DataChange::Length(length));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.change(|disk| {
            if disk.sync_fails {
                return Err(io::Error::other("the disk failed"));
            }
            let file = &mut disk.files[self.file];
            file.pending.clear();
            file.durable = file.seen.clone();
            Ok(())
        })
    }
}
