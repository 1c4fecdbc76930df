//! How writes stand in a log file: frames, each a batch of records under one checksum.
//!
//! One batch is one frame, written at once and synced before the next one is begun. Hence at most one frame
//! of a log can be torn, it is the last, and a valid frame *after* an invalid one proves damage. Checksums are
//! seeded with the segment's salt, so that no value can ever pass for a frame.
//!
//! ```text
//! frame   magic u32 | payload bytes u32 | first revision u64 | written at u64 (unix ms)
//!         | payload crc32c u32 | header crc32c u32 | payload | zeros up to a multiple of 8
//! record  operation u8 | 3 zero bytes | key bytes u32 | value bytes u32 | ttl u64 (ms, 0: none)
//!         | previous revision u64 (0: none) | key | value
//! ```
//!
//! Integers are little endian. Records take consecutive revisions from the frame's first.

use std::sync::Arc;

use bytes::Bytes;

use crate::store::Revision;

/// Bytes of a frame's header.
pub(crate) const FRAME_HEADER: usize = 32;
/// Bytes of a record before its key.
const RECORD_HEADER: usize = 28;
/// Frames begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
/// No frame is larger: a length beyond it is damage, not a reason to allocate memory.
pub(crate) const MAX_PAYLOAD: usize = 64 << 20;
/// No revision is larger, as in etcd: one beyond it is damage, and never a sum that overflows.
pub(crate) const MAX_REVISION: Revision = i64::MAX as Revision;
/// Contains bytes that UTF-8 text never has.
const MAGIC: u32 = u32::from_le_bytes([0xff, b'M', 0xfe, b'K']);

/// What a record does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Sets the value.
    Put,
    /// Removes the key.
    Delete,
    /// Touches no key: moves the revision forward to the frame's first revision and ends the history
    /// (restored and migrated stores continue above everything that a client may have seen).
    Advance,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) operation: Operation,
    pub(crate) key: Arc<str>,
    pub(crate) value: Bytes,
    /// Milliseconds from `written_at` after which the key is deleted; 0 for never.
    pub(crate) ttl_millis: u64,
    /// The revision of the version that this one replaces; 0 if there was none.
    pub(crate) previous: Revision,
}

impl Record {
    /// Bytes that the record takes in a frame.
    pub(crate) fn encoded_len(&self) -> usize {
        RECORD_HEADER + self.key.len() + self.value.len()
    }
}

/// A frame's header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_len: usize,
    pub(crate) first_revision: Revision,
    pub(crate) written_at: u64,
    payload_crc: u32,
}

impl FrameHeader {
    /// Reads a header; `None` if these bytes are not one of this segment.
    pub(crate) fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        let bytes: &[u8; FRAME_HEADER] = bytes.get(..FRAME_HEADER)?.try_into().ok()?;
        if u32_at(bytes, 0) != MAGIC || u32_at(bytes, 28) != crc32c::crc32c_append(salt, &bytes[..28]) {
            return None;
        }
        let (payload_len, first_revision) = (u32_at(bytes, 4) as usize, u64_at(bytes, 8));
        (payload_len <= MAX_PAYLOAD && first_revision <= MAX_REVISION).then_some(Self {
            payload_len,
            first_revision,
            written_at: u64_at(bytes, 16),
            payload_crc: u32_at(bytes, 24),
        })
    }

    /// Bytes from the frame's begin to the next frame's.
    pub(crate) fn frame_len(&self) -> usize {
        frame_len(self.payload_len)
    }

    /// Reads the records; `None` if the payload is not what the header promises.
    pub(crate) fn records(&self, payload: &[u8], salt: u32) -> Option<Vec<Record>> {
        if payload.len() != self.payload_len || crc32c::crc32c_append(salt, payload) != self.payload_crc {
            return None;
        }
        let mut records = Vec::new();
        let mut rest = payload;
        while !rest.is_empty() {
            let (record, after) = decode_record(rest)?;
            records.push(record);
            rest = after;
        }
        Some(records)
    }
}

/// Bytes of a frame with this payload, padding included.
pub(crate) fn frame_len(payload_len: usize) -> usize {
    (FRAME_HEADER + payload_len).next_multiple_of(ALIGNMENT)
}

/// Writes a frame into `buffer`, replacing what is there.
pub(crate) fn encode_frame(
    buffer: &mut Vec<u8>,
    first_revision: Revision,
    written_at: u64,
    records: &[Record],
    salt: u32,
) {
    buffer.clear();
    buffer.resize(FRAME_HEADER, 0);
    for record in records {
        encode_record(buffer, record);
    }
    seal(buffer, first_revision, written_at, salt);
}

/// A frame around a payload that need not be records.
#[cfg(test)]
pub(crate) fn encode_payload(
    buffer: &mut Vec<u8>,
    first_revision: Revision,
    written_at: u64,
    payload: &[u8],
    salt: u32,
) {
    buffer.clear();
    buffer.resize(FRAME_HEADER, 0);
    buffer.extend_from_slice(payload);
    seal(buffer, first_revision, written_at, salt);
}

/// Fills in the header before a payload, and the zeros after it.
fn seal(buffer: &mut Vec<u8>, first_revision: Revision, written_at: u64, salt: u32) {
    let payload_len = buffer.len() - FRAME_HEADER;
    assert!(payload_len <= MAX_PAYLOAD, "batches must be bounded far below the largest frame");
    let payload_crc = crc32c::crc32c_append(salt, &buffer[FRAME_HEADER..]);
    buffer[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    buffer[4..8].copy_from_slice(&length(payload_len));
    buffer[8..16].copy_from_slice(&first_revision.to_le_bytes());
    buffer[16..24].copy_from_slice(&written_at.to_le_bytes());
    buffer[24..28].copy_from_slice(&payload_crc.to_le_bytes());
    let header_crc = crc32c::crc32c_append(salt, &buffer[..28]);
    buffer[28..32].copy_from_slice(&header_crc.to_le_bytes());
    buffer.resize(frame_len(payload_len), 0);
}

/// Where, at or after `from`, a whole valid frame of this segment with a revision above `above` begins.
pub(crate) fn find_valid_frame(bytes: &[u8], from: usize, salt: u32, above: Revision) -> Option<usize> {
    let mut offset = from.next_multiple_of(ALIGNMENT);
    while offset + FRAME_HEADER <= bytes.len() {
        if u32_at(bytes, offset) == MAGIC
            && let Some(header) = FrameHeader::decode(&bytes[offset..], salt)
            && header.first_revision > above
        {
            let begin = offset + FRAME_HEADER;
            let payload = bytes.get(begin..begin + header.payload_len);
            if payload.is_some_and(|payload| header.records(payload, salt).is_some()) {
                return Some(offset);
            }
        }
        offset += ALIGNMENT;
    }
    None
}

fn encode_record(buffer: &mut Vec<u8>, record: &Record) {
    let operation = match record.operation {
        Operation::Put => 1,
        Operation::Delete => 2,
        Operation::Advance => 3,
    };
    buffer.extend_from_slice(&[operation, 0, 0, 0]);
    buffer.extend_from_slice(&length(record.key.len()));
    buffer.extend_from_slice(&length(record.value.len()));
    buffer.extend_from_slice(&record.ttl_millis.to_le_bytes());
    buffer.extend_from_slice(&record.previous.to_le_bytes());
    buffer.extend_from_slice(record.key.as_bytes());
    buffer.extend_from_slice(&record.value);
}

fn decode_record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let header = bytes.get(..RECORD_HEADER)?;
    let operation = match header[0] {
        1 => Operation::Put,
        2 => Operation::Delete,
        3 => Operation::Advance,
        _ => return None,
    };
    let (key_len, value_len) = (u32_at(header, 4) as usize, u32_at(header, 8) as usize);
    let body = bytes.get(RECORD_HEADER..RECORD_HEADER + key_len + value_len)?;
    let record = Record {
        operation,
        key: std::str::from_utf8(&body[..key_len]).ok()?.into(),
        // A copy: a slice would keep the whole file in memory for as long as one of its values lives.
        value: Bytes::copy_from_slice(&body[key_len..]),
        ttl_millis: u64_at(header, 12),
        previous: u64_at(header, 20),
    };
    Some((record, &bytes[RECORD_HEADER + key_len + value_len..]))
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("lengths must have been checked against the store's limits").to_le_bytes()
}

/// Reads four little-endian bytes; the caller has checked the bounds.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes must make an array of four"))
}

/// Reads eight little-endian bytes; the caller has checked the bounds.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes must make an array of eight"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u32 = 77;

    fn put(key: &str, value: &'static [u8]) -> Record {
        Record {
            operation: Operation::Put,
            key: key.into(),
            value: Bytes::from_static(value),
            ttl_millis: 1500,
            previous: 3,
        }
    }

    fn encoded(records: &[Record]) -> Vec<u8> {
        let mut buffer = Vec::new();
        encode_frame(&mut buffer, 41, 1_700_000_000_000, records, SALT);
        buffer
    }

    #[test]
    fn a_frame_reads_back() {
        let records =
            vec![put("/registry/a", b"one"), Record { operation: Operation::Delete, ..put("/b", b"") }];
        let bytes = encoded(&records);
        let header = FrameHeader::decode(&bytes, SALT).unwrap();
        assert_eq!(header.first_revision, 41);
        assert_eq!(header.written_at, 1_700_000_000_000);
        assert_eq!(header.frame_len(), bytes.len());
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let payload = &bytes[FRAME_HEADER..FRAME_HEADER + header.payload_len];
        assert_eq!(header.records(payload, SALT).unwrap(), records);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encoded(&[put("/registry/a", b"one")]);
        let payload_len = FrameHeader::decode(&bytes, SALT).unwrap().payload_len;
        for bit in 0..(FRAME_HEADER + payload_len) * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = FrameHeader::decode(&damaged, SALT)
                .and_then(|header| header.records(damaged.get(32..32 + header.payload_len)?, SALT));
            assert_eq!(read, None, "bit {bit}");
        }
    }

    #[test]
    fn a_value_that_holds_a_frame_of_another_segment_is_not_taken_for_one() {
        let inner = Bytes::from(encoded(&[put("/inner", b"x")]));
        let mut outer = Vec::new();
        encode_frame(&mut outer, 50, 0, &[Record { value: inner, ..put("/outer12", b"") }], SALT + 1);
        assert_eq!(find_valid_frame(&outer, 8, SALT + 1, 0), None);
        assert_eq!(find_valid_frame(&outer, 0, SALT + 1, 0), Some(0));
        assert_eq!(find_valid_frame(&outer, 0, SALT + 1, 50), None, "an old revision proves nothing");
    }
}
