//! Checkpoints: the whole state at one revision in one file, so that the log before it can go.
//!
//! A checkpoint is taken at the *floor* of the history, not at its end: recovery then replays exactly the
//! events that the history holds, each with the version that it replaced, and watches resume across restarts.
//! The file is written under another name, synced and renamed, so that a checkpoint either is whole or is not
//! there. Entries stand in frames as in the log, with `previous` telling the revision of the entry.
//!
//! ```text
//! header  "mk8s-ckp" | format u32 | 0 u32 | store id u64 | revision u64 | entries u64 | written at u64
//!         | 12 zero bytes | crc32c u32
//! frames  of puts, each with the number of the frame as its revision
//! frame   without records: the end
//! ```

use std::{io, path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    error::{Context, Damage, OpenError},
    io::{Access, Io, IoFile},
    log::FORMAT,
    record::{self, FRAME_HEADER, FrameHeader, MAX_REVISION, Operation, Record, u32_at, u64_at},
    state::Snapshot,
};
use crate::store::{Entry, Revision};

/// Bytes of a checkpoint's header.
const HEADER: usize = 64;
const MAGIC: &[u8; 8] = b"mk8s-ckp";
/// A checkpoint that is being written. Whatever has this name when a store is opened is of no value.
pub(crate) const UNFINISHED: &str = "checkpoint.tmp";
/// Bytes of entries in one frame: large pieces for the disk, little memory.
const FRAME_BYTES: usize = 1 << 20;

/// The file name of a checkpoint.
pub(crate) fn checkpoint_name(revision: Revision) -> String {
    format!("{revision:020}.checkpoint")
}

/// The revision of a checkpoint's file name; `None` if it is not one.
pub(crate) fn checkpoint_revision(name: &str) -> Option<Revision> {
    let digits = name.strip_suffix(".checkpoint")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// Writes a checkpoint of `snapshot` to `dir`; whole and durable when this answers.
pub(crate) fn write(
    io: &dyn Io,
    dir: &Path,
    store_id: u64,
    snapshot: &Snapshot,
    now: u64,
) -> Result<(), OpenError> {
    let unfinished = dir.join(UNFINISHED);
    let path = dir.join(checkpoint_name(snapshot.revision));
    write_file(io, &unfinished, store_id, snapshot, now).context("write", &unfinished).inspect_err(|_| {
        // On a full disk the piece that was written is in everybody's way.
        if let Err(error) = io.remove(&unfinished) {
            tracing::debug!(%error, "failed to remove an unfinished checkpoint");
        }
    })?;
    io.rename(&unfinished, &path).context("rename", &unfinished)?;
    io.sync_dir(dir).context("sync", dir)
}

/// Writes `snapshot` into a file of any name and syncs it.
pub(crate) fn write_file(
    io: &dyn Io,
    path: &Path,
    store_id: u64,
    snapshot: &Snapshot,
    now: u64,
) -> io::Result<()> {
    let file = io.create(path)?;
    let header = Header {
        store_id,
        revision: snapshot.revision,
        entries: snapshot.entries.size() as u64,
        written_at: now,
    };
    file.write_at(&header.encode(), 0)?;
    let mut output = Output { file: &*file, offset: HEADER as u64, frames: 0, header, buffer: Vec::new() };
    let (mut records, mut bytes) = (Vec::new(), 0);
    for entry in snapshot.entries.values() {
        let record = Record {
            operation: Operation::Put,
            key: Arc::clone(&entry.key),
            value: entry.value.clone(),
            // What is left of it; an entry whose time is over but that is not deleted yet keeps a moment.
            ttl_millis: snapshot.expiries.get(&entry.revision).map_or(0, |at| at.saturating_sub(now).max(1)),
            previous: entry.revision,
        };
        bytes += record.encoded_len();
        records.push(record);
        if bytes >= FRAME_BYTES {
            output.frame(&records)?;
            records.clear();
            bytes = 0;
        }
    }
    if !records.is_empty() {
        output.frame(&records)?;
    }
    output.frame(&[])?;
    file.sync()
}

/// Reads a checkpoint, and checks every byte of it.
pub(crate) fn read(io: &dyn Io, path: &Path) -> Result<(Header, Snapshot), OpenError> {
    let file = io.open(path, Access::Read).context("open", path)?;
    let mut start = [0; HEADER];
    let count = file.read_at(&mut start, 0).context("read", path)?;
    let (format, header) = Header::decode(&start[..count])
        .ok_or_else(|| Damage::new(path, 0, "this is not the header of a checkpoint"))?;
    if format != FORMAT {
        return Err(OpenError::UnknownFormat { path: path.to_owned(), found: format, supported: FORMAT });
    }
    let mut snapshot = Snapshot::empty();
    snapshot.revision = header.revision;
    let (mut offset, mut number, mut buffer) = (HEADER as u64, 0, Vec::new());
    loop {
        let damage = |what| Damage::new(path, offset, what);
        let mut head = [0; FRAME_HEADER];
        let count = file.read_at(&mut head, offset).context("read", path)?;
        let frame = FrameHeader::decode(&head[..count], header.salt())
            .filter(|frame| frame.first_revision == number)
            .ok_or_else(|| damage("the header of a block is damaged"))?;
        buffer.resize(frame.payload_len, 0);
        let count = file.read_at(&mut buffer, offset + FRAME_HEADER as u64).context("read", path)?;
        let records = frame
            .records(&buffer[..count], header.salt())
            .ok_or_else(|| damage("the checksum of a block does not match"))?;
        if records.is_empty() {
            break;
        }
        for record in records {
            let revision = record.previous;
            if record.ttl_millis > 0 {
                snapshot.expiries.insert_mut(revision, header.written_at.saturating_add(record.ttl_millis));
            }
            snapshot.put(Arc::new(Entry { key: record.key, value: record.value, revision }));
        }
        offset += frame.frame_len() as u64;
        number += 1;
    }
    if snapshot.entries.size() as u64 != header.entries {
        return Err(Damage::new(path, offset, "entries are missing").into());
    }
    Ok((header, snapshot))
}

/// What a checkpoint says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) store_id: u64,
    pub(crate) revision: Revision,
    entries: u64,
    pub(crate) written_at: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.store_id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.revision.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.entries.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.written_at.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<(u32, Self)> {
        let bytes = bytes.get(..HEADER)?;
        if &bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return None;
        }
        let header = Self {
            store_id: u64_at(bytes, 16),
            revision: u64_at(bytes, 24),
            entries: u64_at(bytes, 32),
            written_at: u64_at(bytes, 40),
        };
        (header.revision <= MAX_REVISION).then(|| (u32_at(bytes, 8), header))
    }

    fn salt(&self) -> u32 {
        crc32c::crc32c(&self.encode())
    }
}

struct Output<'a> {
    file: &'a dyn IoFile,
    offset: u64,
    frames: u64,
    header: Header,
    buffer: Vec<u8>,
}

impl Output<'_> {
    fn frame(&mut self, records: &[Record]) -> io::Result<()> {
        let salt = self.header.salt();
        record::encode_frame(&mut self.buffer, self.frames, self.header.written_at, records, salt);
        self.file.write_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.frames += 1;
        Ok(())
    }
}

/// A value that belongs to nobody; keeps `Bytes` out of the callers that only need an empty one.
pub(crate) const NO_VALUE: Bytes = Bytes::new();
