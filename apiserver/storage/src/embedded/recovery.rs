//! From files to state: what a store does when it is opened.
//!
//! The newest checkpoint, then every frame after it. At most one frame can be torn: the last, because a batch
//! is synced before the next is begun. So an invalid frame is cut off only in the last segment and only if
//! nothing valid follows it; anywhere else it is damage, and the store does not start. What was read may still
//! be in the page cache only (after `kill -9`), so it is synced before anybody sees it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    checkpoint,
    error::{Context, Damage, OpenError},
    io::{Access, Io},
    log::{self, Active, FORMAT, NEXT_SEGMENT, SEGMENT_HEADER, Sealed, SegmentHeader},
    record::{self, FRAME_HEADER, FrameHeader, Operation, Record},
    state::{History, HistoryBounds, Snapshot},
};
use crate::store::Revision;

/// The file that proves that a store was created here, and which.
pub(crate) const IDENTITY: &str = "store";
/// The identity before it is whole.
pub(crate) const NEW_IDENTITY: &str = "store.tmp";

/// The files of a directory, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) has_identity: bool,
    /// Oldest first.
    pub(crate) checkpoints: Vec<Revision>,
    /// Oldest first.
    pub(crate) segments: Vec<u64>,
    /// Left over from a crash; of no value.
    pub(crate) temporaries: Vec<&'static str>,
}

impl Layout {
    pub(crate) fn read(io: &dyn Io, dir: &Path) -> Result<Self, OpenError> {
        let mut layout = Self::default();
        for name in io.list(dir).context("list", dir)? {
            if let Some(revision) = checkpoint::checkpoint_revision(&name) {
                layout.checkpoints.push(revision);
            } else if let Some(sequence) = log::segment_sequence(&name) {
                layout.segments.push(sequence);
            } else if name == IDENTITY {
                layout.has_identity = true;
            } else {
                let known = [NEXT_SEGMENT, checkpoint::UNFINISHED, NEW_IDENTITY];
                layout.temporaries.extend(known.into_iter().filter(|temporary| *temporary == name));
            }
        }
        layout.checkpoints.sort_unstable();
        layout.segments.sort_unstable();
        Ok(layout)
    }
}

/// Reads the store's id.
pub(crate) fn read_identity(io: &dyn Io, dir: &Path) -> Result<u64, OpenError> {
    let path = dir.join(IDENTITY);
    let file = io.open(&path, Access::Read).context("open", &path)?;
    let mut bytes = [0; SEGMENT_HEADER];
    let count = file.read_at(&mut bytes, 0).context("read", &path)?;
    match SegmentHeader::decode(&bytes[..count]) {
        Some((FORMAT, header)) => Ok(header.store_id),
        Some((found, _)) => Err(OpenError::UnknownFormat { path, found, supported: FORMAT }),
        None => Err(Damage::new(&path, 0, "this does not identify a store").into()),
    }
}

/// Writes the store's id: from then on the directory is a store, whose files must not be missing.
pub(crate) fn write_identity(io: &dyn Io, dir: &Path, store_id: u64) -> Result<(), OpenError> {
    let (new, path) = (dir.join(NEW_IDENTITY), dir.join(IDENTITY));
    // The same header as a segment's, for a segment 0 that does not exist.
    let header = SegmentHeader { store_id, sequence: 0, first_revision: 0, previous_end: 0 };
    let write = || -> io::Result<()> {
        let file = io.create(&new)?;
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        io.rename(&new, &path)?;
        io.sync_dir(dir)
    };
    write().context("write", &path)
}

/// Whether these segments hold nothing: at most the first one, without a frame.
pub(crate) fn is_unused(io: &dyn Io, dir: &Path, segments: &[u64]) -> Result<bool, OpenError> {
    if segments != [1] {
        return Ok(segments.is_empty());
    }
    let path = dir.join(log::segment_name(1));
    let mut start = [0; SEGMENT_HEADER + FRAME_HEADER];
    let file = io.open(&path, Access::Read).context("open", &path)?;
    file.read_at(&mut start, 0).context("read", &path)?;
    Ok(start[SEGMENT_HEADER..].iter().all(|byte| *byte == 0))
}

/// What the files hold.
pub(crate) struct Recovered {
    pub(crate) store_id: u64,
    pub(crate) snapshot: Snapshot,
    pub(crate) history: History,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) last: LastSegment,
    /// No write was made after this moment (unix ms).
    pub(crate) last_written_at: u64,
    /// Checkpoints that a newer one replaces.
    pub(crate) old_checkpoints: Vec<Revision>,
}

/// Where writing goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastSegment {
    pub(crate) header: SegmentHeader,
    /// Where the valid frames end.
    pub(crate) end: u64,
    /// Bytes in the file.
    pub(crate) capacity: u64,
    /// Where the remains of a batch that never became durable end, if there are any.
    pub(crate) torn_until: Option<u64>,
}

/// Reads everything; changes nothing. `now` (unix ms) bounds the history by age.
pub(crate) fn read(
    io: &dyn Io,
    dir: &Path,
    layout: &Layout,
    bounds: HistoryBounds,
    now: u64,
) -> Result<Recovered, OpenError> {
    let store_id = read_identity(io, dir)?;
    let mut old_checkpoints = layout.checkpoints.clone();
    let (snapshot, written_at) = match old_checkpoints.pop() {
        None => (Snapshot::empty(), 0),
        Some(revision) => {
            let path = dir.join(checkpoint::checkpoint_name(revision));
            let (header, snapshot) = checkpoint::read(io, &path)?;
            if header.store_id != store_id || header.revision != revision {
                let what = "this checkpoint belongs to another store or revision";
                return Err(Damage::new(&path, 0, what).into());
            }
            (snapshot, header.written_at)
        }
    };
    let mut replay = Replay::new(snapshot, written_at, bounds);
    let mut sealed: Vec<Sealed> = Vec::new();
    let mut before: Option<SegmentEnd> = None;
    let mut buffer = Vec::new();
    for &sequence in &layout.segments {
        let segment = Segment::read(io, dir, sequence, store_id, &mut buffer)?;
        if let Some(before) = before.take() {
            before.must_meet(&segment, replay.position)?;
            sealed.push(Sealed {
                sequence: before.header.sequence,
                last_revision: segment.header.first_revision.saturating_sub(1),
                bytes: before.capacity,
            });
        } else {
            replay.begin(&segment)?;
        }
        let mut end = SEGMENT_HEADER as u64;
        while let Some((frame, records)) = segment.frame(end) {
            replay.frame(&frame, &records).map_err(|what| Damage::new(&segment.path, end, what))?;
            end += frame.frame_len() as u64;
        }
        replay.trim(now);
        let torn_until = if Some(&sequence) == layout.segments.last() {
            segment.torn_until(end, replay.position)?
        } else {
            None
        };
        let capacity = segment.bytes.len() as u64;
        before = Some(SegmentEnd { path: segment.path, header: segment.header, end, capacity, torn_until });
    }
    let Some(last) = before else {
        return Err(Damage::new(&dir.join(log::segment_name(1)), 0, "the log is missing").into());
    };
    if replay.position < replay.from {
        let what =
            format!("the log ends at revision {}, before its checkpoint {}", replay.position, replay.from);
        return Err(Damage::new(&last.path, last.end, what).into());
    }
    Ok(Recovered {
        store_id,
        snapshot: replay.snapshot,
        history: replay.history,
        sealed,
        last: LastSegment {
            header: last.header,
            end: last.end,
            capacity: last.capacity,
            torn_until: last.torn_until,
        },
        last_written_at: replay.last_written_at,
        old_checkpoints,
    })
}

/// Opens the last segment for writing: wipes what is torn, and makes durable what was read.
pub(crate) fn open_last(io: &dyn Io, dir: &Path, last: &LastSegment) -> Result<Active, OpenError> {
    let path = dir.join(log::segment_name(last.header.sequence));
    let file = io.open(&path, Access::ReadWrite).context("open", &path)?;
    if let Some(until) = last.torn_until {
        tracing::info!(file = %path.display(), from = last.end, until, "wiping a batch that never became durable");
        let torn = usize::try_from(until - last.end).expect("a segment must fit in memory");
        file.write_at(&vec![0; torn], last.end).context("write", &path)?;
    }
    file.sync().context("sync", &path)?;
    Ok(Active { file, header: last.header, end: last.end, capacity: last.capacity })
}

/// A segment's file, whole in memory.
pub(crate) struct Segment<'a> {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Segment<'a> {
    pub(crate) fn read(
        io: &dyn Io,
        dir: &Path,
        sequence: u64,
        store_id: u64,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Self, OpenError> {
        let path = dir.join(log::segment_name(sequence));
        let file = io.open(&path, Access::Read).context("open", &path)?;
        let length =
            usize::try_from(file.size().context("read", &path)?).expect("a segment must fit in memory");
        buffer.resize(length, 0);
        let count = file.read_at(buffer, 0).context("read", &path)?;
        let bytes = &buffer[..count];
        match SegmentHeader::decode(bytes) {
            Some((FORMAT, header)) if header.store_id == store_id && header.sequence == sequence => {
                Ok(Self { path, header, bytes })
            }
            Some((FORMAT, _)) => {
                Err(Damage::new(&path, 0, "this segment belongs to another store or place").into())
            }
            Some((found, _)) => Err(OpenError::UnknownFormat { path, found, supported: FORMAT }),
            None => Err(Damage::new(&path, 0, "this is not the header of a segment").into()),
        }
    }

    /// The frame at `offset`, if a valid one is there.
    pub(crate) fn frame(&self, offset: u64) -> Option<(FrameHeader, Vec<Record>)> {
        let bytes = self.bytes.get(usize::try_from(offset).ok()?..)?;
        let header = FrameHeader::decode(bytes, self.header.salt())?;
        let payload = bytes.get(FRAME_HEADER..FRAME_HEADER + header.payload_len)?;
        let records = header.records(payload, self.header.salt())?;
        Some((header, records))
    }

    /// Where a valid frame above `revision` begins at or after `offset`.
    pub(crate) fn find_frame(&self, offset: u64, revision: Revision) -> Option<u64> {
        let from = usize::try_from(offset).ok()?;
        record::find_valid_frame(self.bytes, from, self.header.salt(), revision).map(|found| found as u64)
    }

    /// Whether what follows the last valid frame is nothing, the remains of one unfinished batch, or damage.
    fn torn_until(&self, end: u64, position: Revision) -> Result<Option<u64>, Damage> {
        let begin = usize::try_from(end).expect("a segment must fit in memory");
        // A file may have been cut off in the padding of its last frame.
        let rest = self.bytes.get(begin..).unwrap_or_default();
        let Some(last) = last_nonzero(rest) else { return Ok(None) };
        match self.find_frame(end, position) {
            None => Ok(Some(end + last as u64 + 1)),
            Some(valid) => {
                let what =
                    format!("a damaged block, and yet byte {valid} holds a valid block that is younger");
                Err(Damage::new(&self.path, end, what))
            }
        }
    }
}

/// Where the last byte that is not zero stands. Compares whole pages: an allocated segment is mostly zeros, and
/// every start reads them.
fn last_nonzero(bytes: &[u8]) -> Option<usize> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    while end > 0 {
        let begin = end.saturating_sub(ZEROS.len());
        let page = &bytes[begin..end];
        if page != &ZEROS[..page.len()] {
            return page.iter().rposition(|byte| *byte != 0).map(|position| begin + position);
        }
        end = begin;
    }
    None
}

/// Reads a whole file, replacing what is in the buffer.
pub(crate) fn read_file(io: &dyn Io, path: &Path, buffer: &mut Vec<u8>) -> Result<(), OpenError> {
    let file = io.open(path, Access::Read).context("open", path)?;
    let length = usize::try_from(file.size().context("read", path)?).expect("a segment must fit in memory");
    buffer.resize(length, 0);
    let count = file.read_at(buffer, 0).context("read", path)?;
    buffer.truncate(count);
    Ok(())
}

/// What is remembered of a segment when the next one is read.
struct SegmentEnd {
    path: PathBuf,
    header: SegmentHeader,
    end: u64,
    capacity: u64,
    torn_until: Option<u64>,
}

impl SegmentEnd {
    /// The next segment was begun when this one was durable to its end, and says where that is.
    fn must_meet(&self, next: &Segment<'_>, position: Revision) -> Result<(), Damage> {
        if next.header.sequence != self.header.sequence + 1 {
            let what = format!("the segments after {} and before this one are missing", self.header.sequence);
            return Err(Damage::new(&next.path, 0, what));
        }
        if next.header.previous_end != self.end || next.header.first_revision != position + 1 {
            let what = format!(
                "a damaged block: the next segment says that the blocks end at byte {} and revision {}, not {position}",
                next.header.previous_end,
                next.header.first_revision.saturating_sub(1),
            );
            return Err(Damage::new(&self.path, self.end, what));
        }
        Ok(())
    }
}

/// Carries out frames in order.
struct Replay {
    snapshot: Snapshot,
    history: History,
    /// The checkpoint's revision; what is not above it is already in the snapshot.
    from: Revision,
    /// The last revision of the frames that were read.
    position: Revision,
    last_written_at: u64,
}

impl Replay {
    fn new(snapshot: Snapshot, last_written_at: u64, bounds: HistoryBounds) -> Self {
        let from = snapshot.revision;
        Self { history: History::new(from, bounds), snapshot, from, position: 0, last_written_at }
    }

    fn begin(&mut self, first: &Segment<'_>) -> Result<(), Damage> {
        self.position = first.header.first_revision.saturating_sub(1);
        if self.position > self.from {
            let what = format!("the log before revision {} is missing", first.header.first_revision);
            return Err(Damage::new(&first.path, 0, what));
        }
        Ok(())
    }

    fn frame(&mut self, frame: &FrameHeader, records: &[Record]) -> Result<(), String> {
        let advances = matches!(records, [Record { operation: Operation::Advance, .. }]);
        let follows = frame.first_revision == self.position + 1;
        if !(follows || advances && frame.first_revision > self.position) {
            return Err(format!("revision {} follows {}", frame.first_revision, self.position));
        }
        self.last_written_at = self.last_written_at.max(frame.written_at);
        for (revision, record) in (frame.first_revision..).zip(records) {
            self.position = revision;
            if revision <= self.from {
                continue;
            }
            let current = self.snapshot.entries.get(&record.key).map_or(0, |entry| entry.revision);
            if current != record.previous {
                return Err(format!(
                    "revision {revision} replaces revision {} of `{}`, which is at {current}",
                    record.previous, record.key
                ));
            }
            match self.snapshot.apply(revision, frame.written_at, record) {
                Some(event) => self.history.push(Arc::new(event), frame.written_at),
                None => self.forget(|history, forgotten| history.compact(revision, forgotten)),
            }
        }
        Ok(())
    }

    fn trim(&mut self, now: u64) {
        self.forget(|history, forgotten| history.trim(now, forgotten));
    }

    fn forget(&mut self, how: impl FnOnce(&mut History, &mut dyn FnMut(Revision))) {
        let expiries = &mut self.snapshot.expiries;
        how(&mut self.history, &mut |revision| {
            expiries.remove_mut(&revision);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::last_nonzero;

    #[test]
    fn the_last_byte_that_is_not_zero_is_found_wherever_it_stands() {
        assert_eq!(last_nonzero(&[]), None);
        assert_eq!(last_nonzero(&[0; 10_000]), None);
        for position in [0, 1, 1807, 1808, 5903, 5904, 9999] {
            let mut bytes = [0; 10_000];
            bytes[0] = 1;
            bytes[position] = 1;
            assert_eq!(last_nonzero(&bytes), Some(position));
        }
    }
}
