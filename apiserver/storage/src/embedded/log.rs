//! The log's files: segments, filled one after the other, each allocated whole before it is used.
//!
//! A segment is born as `next.tmp`: allocated, zeroed and synced, mostly by the housekeeper while the one
//! before it still has room. It gets its header and its name (`<sequence>.log`) when it is needed. The header
//! says where the segment before it ends, so that losing the end of any segment but the last is noticed.
//!
//! ```text
//! header  "mk8s-log" | format u32 | 0 u32 | store id u64 | sequence u64 | first revision u64
//!         | end of the segment before u64 | 12 zero bytes | crc32c u32
//! ```

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    io::{Io, IoFile},
    record::{u32_at, u64_at},
};
use crate::store::Revision;

/// Bytes of a segment's header; frames begin after it.
pub(crate) const SEGMENT_HEADER: usize = 64;
/// The format of segments and checkpoints that this code reads and writes.
pub(crate) const FORMAT: u32 = 1;
/// The segment that is being prepared. Whatever has this name when a store is opened is of no value.
pub(crate) const NEXT_SEGMENT: &str = "next.tmp";

const MAGIC: &[u8; 8] = b"mk8s-log";
/// Files grow in whole pages.
const PAGE: u64 = 4096;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store_id: u64,
    /// Segments are numbered from 1 without gaps.
    pub(crate) sequence: u64,
    /// The revision that the first frame continues from, plus one.
    pub(crate) first_revision: Revision,
    /// Where the frames of the segment before this one end; 0 for the first segment.
    pub(crate) previous_end: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.store_id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_revision.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.previous_end.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; `None` if these bytes are not one. The format comes beside it, for the caller to judge.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(u32, Self)> {
        let bytes = bytes.get(..SEGMENT_HEADER)?;
        if &bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return None;
        }
        let header = Self {
            store_id: u64_at(bytes, 16),
            sequence: u64_at(bytes, 24),
            first_revision: u64_at(bytes, 32),
            previous_end: u64_at(bytes, 40),
        };
        Some((u32_at(bytes, 8), header))
    }

    /// What the checksums of this segment's frames are seeded with: a frame of another segment or another
    /// store is not valid here.
    pub(crate) fn salt(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.store_id.to_le_bytes()), &self.sequence.to_le_bytes())
    }
}

/// The file name of a segment.
pub(crate) fn segment_name(sequence: u64) -> String {
    format!("{sequence:016}.log")
}

/// The sequence of a segment's file name; `None` if it is not one.
pub(crate) fn segment_sequence(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 16).then(|| digits.parse().ok()).flatten()
}

/// A segment that is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) sequence: u64,
    pub(crate) last_revision: Revision,
    pub(crate) bytes: u64,
}

/// The segment that is written to.
pub(crate) struct Active {
    pub(crate) file: Box<dyn IoFile>,
    pub(crate) header: SegmentHeader,
    /// Where the next frame goes.
    pub(crate) end: u64,
    /// Bytes in the file.
    pub(crate) capacity: u64,
}

/// What the writer and the housekeeper share about the segments.
pub(crate) struct Segments {
    pub(crate) io: Arc<dyn Io>,
    pub(crate) dir: PathBuf,
    pub(crate) store_id: u64,
    segment_bytes: u64,
    /// The next segment, if it is ready. Locked by whoever prepares it, so that the writer waits for a
    /// preparation that has begun instead of beginning another.
    prepared: Mutex<Option<Prepared>>,
    /// Full segments, oldest first. The writer appends, the housekeeper removes.
    sealed: Mutex<Vec<Sealed>>,
}

struct Prepared {
    file: Box<dyn IoFile>,
    bytes: u64,
}

impl Segments {
    pub(crate) fn new(
        io: Arc<dyn Io>,
        dir: &Path,
        store_id: u64,
        segment_bytes: u64,
        sealed: Vec<Sealed>,
    ) -> Self {
        Self {
            io,
            dir: dir.to_owned(),
            store_id,
            segment_bytes,
            prepared: Mutex::new(None),
            sealed: Mutex::new(sealed),
        }
    }

    /// Makes the next segment ready, unless it is.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let mut prepared = self.prepared.lock();
        if prepared.is_none() {
            *prepared = Some(self.allocate(self.segment_bytes)?);
        }
        Ok(())
    }

    /// Bytes of full segments that hold nothing above `revision`.
    pub(crate) fn bytes_through(&self, revision: Revision) -> u64 {
        self.sealed.lock().iter().take_while(|one| one.last_revision <= revision).map(|one| one.bytes).sum()
    }

    /// Number and bytes of the full segments.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let sealed = self.sealed.lock();
        (sealed.len(), sealed.iter().map(|one| one.bytes).sum())
    }

    /// Removes the full segments that hold nothing above `revision`, oldest first, so that what remains
    /// has no gap whenever it stops.
    pub(crate) fn remove_through(&self, revision: Revision) -> io::Result<()> {
        loop {
            let oldest = self.sealed.lock().first().copied();
            let Some(segment) = oldest.filter(|one| one.last_revision <= revision) else {
                return self.io.sync_dir(&self.dir);
            };
            self.io.remove(&self.dir.join(segment_name(segment.sequence)))?;
            // A removal must not overtake an older one, or a crash leaves a gap.
            self.io.sync_dir(&self.dir)?;
            self.sealed.lock().remove(0);
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<Prepared> {
        let path = self.dir.join(NEXT_SEGMENT);
        let bytes = bytes.next_multiple_of(PAGE);
        let file = self.io.create(&path)?;
        match file.allocate(bytes) {
            Ok(()) => Ok(Prepared { file, bytes }),
            Err(error) => {
                // What was taken goes back: somebody else may need the last bytes of a full disk.
                drop(file);
                if let Err(error) = self.io.remove(&path) {
                    tracing::warn!(%error, path = %path.display(), "failed to remove an unfinished segment");
                }
                Err(error)
            }
        }
    }

    /// Gives the prepared file (or a new one) its header and its name.
    fn begin(&self, header: SegmentHeader, needed: u64) -> Result<Active, AppendError> {
        let needed = SEGMENT_HEADER as u64 + needed;
        // Held until the file has its name: a preparation that began earlier would take `next.tmp` away.
        let mut prepared = self.prepared.lock();
        let next = match prepared.take().filter(|next| next.bytes >= needed) {
            Some(next) => next,
            None => self.allocate(self.segment_bytes.max(needed)).map_err(AppendError::Refused)?,
        };
        let name = || -> io::Result<()> {
            next.file.write_at(&header.encode(), 0)?;
            next.file.sync()?;
            self.io.rename(&self.dir.join(NEXT_SEGMENT), &self.dir.join(segment_name(header.sequence)))?;
            self.io.sync_dir(&self.dir)
        };
        // From here on nobody knows what a crash would leave, so there is no way back.
        name().map_err(AppendError::Failed)?;
        drop(prepared);
        Ok(Active { file: next.file, header, end: SEGMENT_HEADER as u64, capacity: next.bytes })
    }
}

/// Makes the first segment of a log.
pub(crate) fn create_first(
    segments: &Segments,
    first_revision: Revision,
    bytes: u64,
) -> Result<Active, AppendError> {
    let header = SegmentHeader { store_id: segments.store_id, sequence: 1, first_revision, previous_end: 0 };
    *segments.prepared.lock() = Some(segments.allocate(bytes).map_err(AppendError::Refused)?);
    segments.begin(header, 0)
}

/// Why nothing was appended.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// Nothing was changed; trying again is safe.
    Refused(io::Error),
    /// What the disk holds is unknown: the log must not be used any more.
    Failed(io::Error),
}

/// The end of the log, owned by the writer.
pub(crate) struct Log {
    segments: Arc<Segments>,
    active: Active,
    /// Whether [`Log::wants_next`] has said so for this segment.
    asked_for_next: bool,
}

/// Where [`Log::reserve`] found room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// There was enough.
    InThisSegment,
    /// A segment was sealed and another begun.
    InNewSegment,
}

impl Log {
    pub(crate) fn new(segments: Arc<Segments>, active: Active) -> Self {
        Self { segments, active, asked_for_next: false }
    }

    /// Makes room for a frame, in a new segment if need be. `next` is one more than the last revision.
    pub(crate) fn reserve(&mut self, frame_bytes: usize, next: Revision) -> Result<Room, AppendError> {
        let needed = frame_bytes as u64;
        if self.active.end + needed <= self.active.capacity {
            return Ok(Room::InThisSegment);
        }
        let header = SegmentHeader {
            store_id: self.active.header.store_id,
            sequence: self.active.header.sequence + 1,
            first_revision: next,
            previous_end: self.active.end,
        };
        let full = std::mem::replace(&mut self.active, self.segments.begin(header, needed)?);
        self.segments.sealed.lock().push(Sealed {
            sequence: full.header.sequence,
            last_revision: next - 1,
            bytes: full.capacity,
        });
        self.asked_for_next = false;
        Ok(Room::InNewSegment)
    }

    /// What the frames of the segment that [`Log::reserve`] chose are seeded with.
    pub(crate) fn salt(&self) -> u32 {
        self.active.header.salt()
    }

    /// Writes one frame and syncs it. Room must have been reserved. An error is final.
    pub(crate) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.active.file.write_at(frame, self.active.end)?;
        self.active.file.sync()?;
        self.active.end += frame.len() as u64;
        Ok(())
    }

    /// Whether it is time to prepare the next segment: this one is half full. Says so once.
    pub(crate) fn wants_next(&mut self) -> bool {
        let wants = !self.asked_for_next && self.active.end >= self.active.capacity / 2;
        self.asked_for_next |= wants;
        wants
    }
}
