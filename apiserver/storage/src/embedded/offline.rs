//! What is done to a store that nobody has open: verify, repair, back up, restore.
//!
//! Nothing here overwrites what it has not understood. Verify and backup only read, so they may also look at a
//! store in use. Repair and restore build a whole new store beside the old one; repair then exchanges the two
//! in one step and keeps the old one.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    checkpoint,
    error::{Context, Damage, OpenError},
    io::Io,
    lock, log, new_store_id,
    record::MAX_REVISION,
    recovery::{self, Layout, Segment},
    state::{HistoryBounds, Snapshot},
    ttl::Clock,
};
use crate::store::Revision;

/// How far a repaired or restored store jumps ahead of what it knows: further than any client can have seen of
/// what was lost (etcd's documentation recommends as much for `snapshot restore --bump-revision`).
pub const REVISION_BUMP: Revision = 1_000_000_000;

/// Only the state counts here.
const NO_HISTORY: HistoryBounds = HistoryBounds { age: std::time::Duration::ZERO, events: 0, bytes: 0 };
/// How often a read is begun again when a running store takes files away under it.
const READS: usize = 5;

/// What is in a store's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The last revision found.
    pub revision: Revision,
    /// Keys that exist.
    pub entries: usize,
    /// Bytes of their keys and values.
    pub live_bytes: u64,
    /// Revisions of the checkpoints.
    pub checkpoints: Vec<Revision>,
    /// Number of log segments.
    pub segments: usize,
    /// The end of the log holds the remains of a batch that never became durable. This is no damage: the
    /// next start cuts them off.
    pub torn_tail: bool,
    /// What is not as it was written; empty for a sound store.
    pub damage: Vec<Damage>,
    /// Ranges of revisions that were lost, first and last.
    pub lost: Vec<(Revision, Revision)>,
    /// Keys whose last writes may be among the lost ones: a later write names a version that is not there.
    pub doubtful: BTreeSet<String>,
}

/// What [`repair`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repaired {
    /// The store is sound; nothing was changed.
    Nothing(Report),
    /// The store was rebuilt from what is whole.
    Rebuilt {
        /// What was found, and what was lost.
        report: Report,
        /// Where the store goes on.
        revision: Revision,
        /// Where the damaged files are now.
        kept: PathBuf,
    },
}

/// Reads all of a store and says what is wrong with it.
///
/// # Errors
/// If there is no store, or its files cannot be read at all. Damage is not an error here.
pub fn verify(dir: &Path, io: &dyn Io) -> Result<Report, OpenError> {
    match read_whole(dir, io) {
        Ok((report, _)) => Ok(report),
        Err(OpenError::Damaged(first)) => Ok(salvage(dir, io, first)?.report),
        Err(other) => Err(other),
    }
}

/// Rebuilds a damaged store from everything in it that is whole. A sound store is left alone.
///
/// # Errors
/// If the store is in use, or its files cannot be read or written.
pub fn repair(dir: &Path, io: &Arc<dyn Io>) -> Result<Repaired, OpenError> {
    let lock = lock(&**io, dir)?;
    let first = match read_whole(dir, &**io) {
        Ok((report, _)) => return Ok(Repaired::Nothing(report)),
        Err(OpenError::Damaged(first)) => first,
        Err(other) => return Err(other),
    };
    let Salvaged { report, mut snapshot } = salvage(dir, &**io, first)?;
    let now = Clock::start(0).now();
    let beside = |what: &str| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        dir.with_file_name(format!("{name}.{what}-{now}"))
    };
    let (new, kept) = (beside("repaired"), beside("damaged"));
    snapshot.revision = bumped(report.revision, REVISION_BUMP, dir)?;
    build(&new, io, &snapshot)?;
    let parent = dir.parent().unwrap_or(dir);
    // One step, so that there is a store under this name at every moment.
    io.exchange(&new, dir).context("exchange the repaired store with", dir)?;
    io.rename(&new, &kept).context("rename", &new)?;
    io.sync_dir(parent).context("sync", parent)?;
    drop(lock);
    Ok(Repaired::Rebuilt { report, revision: snapshot.revision, kept })
}

/// Writes the state of a store into one file; the store may be in use.
///
/// # Errors
/// If the store is damaged, or the file exists or cannot be written.
pub fn backup(dir: &Path, to: &Path, io: &dyn Io) -> Result<Report, OpenError> {
    let (report, snapshot) = read_whole(dir, io)?;
    write_backup(&snapshot, recovery::read_identity(io, dir)?, to, io)?;
    Ok(report)
}

/// Makes a store from a backup, in a directory that must be missing or empty. Its revision is `bump` beyond the
/// backup's, so that no client's resource version from after the backup means something else; answers it.
///
/// # Errors
/// If the backup is damaged, or the directory is not empty or cannot be written.
pub fn restore(from: &Path, dir: &Path, bump: Revision, io: &Arc<dyn Io>) -> Result<Revision, OpenError> {
    let (_, mut snapshot) = checkpoint::read(&**io, from)?;
    io.create_dir(dir).context("create", dir)?;
    if !io.list(dir).context("list", dir)?.is_empty() {
        return Err(OpenError::NotEmpty(dir.to_owned()));
    }
    snapshot.revision = bumped(snapshot.revision, bump, dir)?;
    build(dir, io, &snapshot)?;
    Ok(snapshot.revision)
}

/// Writes a snapshot into a file of its own that must not exist.
pub(crate) fn write_backup(
    snapshot: &Snapshot,
    store_id: u64,
    to: &Path,
    io: &dyn Io,
) -> Result<(), OpenError> {
    let parent =
        to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if io.list(parent).context("list", parent)?.contains(&name) {
        return Err(OpenError::NotEmpty(to.to_owned()));
    }
    let unfinished = to.with_file_name(format!("{name}.tmp"));
    let now = Clock::start(0).now();
    checkpoint::write_file(io, &unfinished, store_id, snapshot, now).context("write", &unfinished)?;
    io.rename(&unfinished, to).context("rename", &unfinished)?;
    io.sync_dir(parent).context("sync", parent)
}

/// A later revision, with room for more of them than anybody can write.
fn bumped(revision: Revision, bump: Revision, dir: &Path) -> Result<Revision, OpenError> {
    let bumped = revision.saturating_add(bump);
    if bumped > MAX_REVISION / 2 {
        let why = format!("revision {revision} cannot be raised by {bump}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why)).context("make a store in", dir);
    }
    Ok(bumped)
}

/// Makes a store that holds `snapshot` and no history. The identity comes last: before it, nothing takes the
/// directory for a store.
fn build(dir: &Path, io: &Arc<dyn Io>, snapshot: &Snapshot) -> Result<(), OpenError> {
    let store_id = new_store_id();
    io.create_dir(dir).context("create", dir)?;
    checkpoint::write(&**io, dir, store_id, snapshot, Clock::start(0).now())?;
    let bytes = super::Options::default().first_segment_bytes;
    super::create_log(io, dir, store_id, snapshot.revision + 1, bytes)?;
    recovery::write_identity(&**io, dir, store_id)
}

/// Reads a store strictly, without changing anything.
fn read_whole(dir: &Path, io: &dyn Io) -> Result<(Report, Snapshot), OpenError> {
    let mut damage = None;
    for _ in 0..READS {
        match read_once(dir, io) {
            // A store in use has replaced its oldest files by a checkpoint: there is a newer picture.
            Err(OpenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            // What is being written while it is read may look damaged, but not twice in the same way.
            Err(OpenError::Damaged(found)) if damage.as_ref() != Some(&found) => damage = Some(found),
            other => return other,
        }
    }
    read_once(dir, io)
}

fn read_once(dir: &Path, io: &dyn Io) -> Result<(Report, Snapshot), OpenError> {
    let layout = existing(dir, io)?;
    if !layout.has_identity {
        return Err(Damage::new(&dir.join(recovery::IDENTITY), 0, "the store's identity is missing").into());
    }
    let recovered = recovery::read(io, dir, &layout, NO_HISTORY, u64::MAX)?;
    let report = Report {
        revision: recovered.snapshot.revision,
        entries: recovered.snapshot.entries.size(),
        live_bytes: recovered.snapshot.bytes,
        checkpoints: layout.checkpoints,
        segments: layout.segments.len(),
        torn_tail: recovered.last.torn_until.is_some(),
        ..Report::default()
    };
    Ok((report, recovered.snapshot))
}

/// The files of a directory that holds at least something of a store.
fn existing(dir: &Path, io: &dyn Io) -> Result<Layout, OpenError> {
    let layout = match Layout::read(io, dir) {
        Err(OpenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(OpenError::Missing(dir.to_owned()));
        }
        other => other?,
    };
    if layout.checkpoints.is_empty() && layout.segments.is_empty() && !layout.has_identity {
        return Err(OpenError::Missing(dir.to_owned()));
    }
    Ok(layout)
}

/// What could be read of a damaged store.
struct Salvaged {
    report: Report,
    snapshot: Snapshot,
}

/// Reads everything that is whole and notes everything that is not. `first` is why the store does not start.
fn salvage(dir: &Path, io: &dyn Io, first: Damage) -> Result<Salvaged, OpenError> {
    let layout = existing(dir, io)?;
    let mut report = Report {
        checkpoints: layout.checkpoints.clone(),
        segments: layout.segments.len(),
        ..Report::default()
    };
    let mut snapshot = Snapshot::empty();
    for revision in layout.checkpoints.iter().rev() {
        let path = dir.join(checkpoint::checkpoint_name(*revision));
        match checkpoint::read(io, &path) {
            Ok((_, read)) => {
                snapshot = read;
                break;
            }
            Err(OpenError::Damaged(damage)) => report.damage.push(damage),
            Err(other) => return Err(other),
        }
    }
    let store_id = match recovery::read_identity(io, dir) {
        Ok(store_id) => Some(store_id),
        Err(error) => {
            let what = format!("the store's identity cannot be read: {error}");
            report.damage.push(Damage::new(&dir.join(recovery::IDENTITY), 0, what));
            None
        }
    };
    let mut salvage = Salvage { position: snapshot.revision, from: snapshot.revision, snapshot, report };
    for sequence in &layout.segments {
        let path = dir.join(log::segment_name(*sequence));
        let mut bytes = Vec::new();
        match recovery::read_file(io, &path, &mut bytes) {
            Ok(()) => salvage.segment(&path, *sequence, store_id, &bytes),
            Err(OpenError::Io { source, .. }) => {
                salvage.report.damage.push(Damage::new(
                    &path,
                    0,
                    format!("the file cannot be read: {source}"),
                ));
            }
            Err(other) => return Err(other),
        }
    }
    let Salvage { mut report, mut snapshot, position, .. } = salvage;
    snapshot.revision = position;
    report.revision = position;
    report.entries = snapshot.entries.size();
    report.live_bytes = snapshot.bytes;
    if report.damage.is_empty() {
        // Every file is whole: one is missing, or does not belong here.
        report.damage.push(first);
    }
    Ok(Salvaged { report, snapshot })
}

struct Salvage {
    snapshot: Snapshot,
    /// What is not above this is in the snapshot already.
    from: Revision,
    /// The last revision that was read.
    position: Revision,
    report: Report,
}

impl Salvage {
    fn segment(&mut self, path: &Path, sequence: u64, store_id: Option<u64>, bytes: &[u8]) {
        let decoded = log::SegmentHeader::decode(bytes).map(|(_, header)| header);
        if decoded.is_none() {
            self.report.damage.push(Damage::new(path, 0, "this is not the header of a segment"));
        }
        // The salt is known without the header: the frames can be read even so.
        let presumed = |store_id| {
            let (first_revision, previous_end) = (0, 0);
            log::SegmentHeader { store_id, sequence, first_revision, previous_end }
        };
        let header = decoded.or_else(|| store_id.map(presumed));
        let Some(header) = header else { return };
        let segment = Segment { path: path.to_owned(), header, bytes };
        let mut offset = log::SEGMENT_HEADER as u64;
        loop {
            if let Some((frame, records)) = segment.frame(offset) {
                self.frame(&frame, &records);
                offset += frame.frame_len() as u64;
                continue;
            }
            let Some(next) = segment.find_frame(offset, self.position) else {
                let rest = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
                if rest.iter().any(|byte| *byte != 0) {
                    let what = "a damaged block, and nothing valid after it in this file";
                    self.report.damage.push(Damage::new(path, offset, what));
                }
                return;
            };
            let what = format!("a damaged block; the next valid one is at byte {next}");
            self.report.damage.push(Damage::new(path, offset, what));
            offset = next;
        }
    }

    fn frame(&mut self, frame: &super::record::FrameHeader, records: &[super::record::Record]) {
        let advances = matches!(records, [one] if one.operation == super::record::Operation::Advance);
        if frame.first_revision > self.position + 1 && !advances {
            self.report.lost.push((self.position + 1, frame.first_revision - 1));
        }
        for (revision, record) in (frame.first_revision..).zip(records) {
            if revision <= self.from {
                continue;
            }
            self.position = self.position.max(revision);
            let current = self.snapshot.entries.get(&record.key).map_or(0, |entry| entry.revision);
            if current != record.previous {
                self.report.doubtful.insert(record.key.to_string());
            }
            // Values are whole: a later write is right whatever came before it.
            drop(self.snapshot.apply(revision, frame.written_at, record));
        }
    }
}
