//! Frames: eight bytes of head, and what follows. Pure.
//!
//! A control frame's head is a set bit, 15 bits of version, 16 of type, 8 of flags and 24 of length; a data
//! frame's is a clear bit, 31 bits of stream, 8 of flags and 24 of length (draft 3.1, 2.2).

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of a head.
pub(crate) const HEAD: usize = 8;
/// The longest control frame that is read: headers of our streams take some hundred bytes.
pub(crate) const MAX_CONTROL: usize = 64 << 10;

const VERSION: u16 = 3;
const CONTROL: u32 = 1 << 31;
const ID: u32 = CONTROL - 1;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

/// `RST_STREAM` status codes (2.6.3).
pub(crate) mod reset {
    pub(crate) const INVALID_STREAM: u32 = 2;
    pub(crate) const REFUSED_STREAM: u32 = 3;
    pub(crate) const CANCEL: u32 = 5;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 7;
}

/// `GOAWAY` status codes (2.6.6).
pub(crate) mod goaway {
    pub(crate) const OK: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
}

/// `SETTINGS_INITIAL_WINDOW_SIZE` (2.6.4).
pub(crate) const INITIAL_WINDOW_SIZE: u32 = 7;

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Another version than 3.
    #[error("version {0} is not supported")]
    Version(u16),
    /// Longer than anything that we are sent.
    #[error("a control frame of {0} bytes is too long")]
    TooLong(usize),
    /// Its length does not fit its type.
    #[error("a control frame of type {0} has a length that does not fit")]
    Length(u16),
    /// Stream 0 or ping 0.
    #[error("an identifier is zero")]
    Zero,
}

/// The first eight bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    Control { kind: u16, flags: u8, length: usize },
    Data { stream: u32, fin: bool, length: usize },
}

impl Head {
    pub(crate) fn parse(mut bytes: [u8; HEAD]) -> Result<Self, FrameError> {
        let mut bytes = &mut bytes[..];
        let first = (&*bytes).get_u32();
        bytes = &mut bytes[4..];
        let second = (&*bytes).get_u32();
        let flags = second.to_be_bytes()[0];
        let length = (second & 0x00FF_FFFF) as usize;
        if first & CONTROL == 0 {
            return match first {
                0 => Err(FrameError::Zero),
                stream => Ok(Self::Data { stream, fin: flags & FIN != 0, length }),
            };
        }
        let [version_high, version_low, kind_high, kind_low] = (first & ID).to_be_bytes();
        let version = u16::from_be_bytes([version_high, version_low]);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if length > MAX_CONTROL {
            return Err(FrameError::TooLong(length));
        }
        Ok(Self::Control { kind: u16::from_be_bytes([kind_high, kind_low]), flags, length })
    }

    /// The head of a data frame. `length` is at most 24 bits long: callers cut pieces far shorter.
    pub(crate) fn data(stream: u32, fin: bool, length: usize) -> [u8; HEAD] {
        let [_, a, b, c] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let [s, t, u, v] = (stream & ID).to_be_bytes();
        [s, t, u, v, if fin { FIN } else { 0 }, a, b, c]
    }
}

/// A control frame; header blocks are still compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    SynStream {
        stream: u32,
        fin: bool,
        unidirectional: bool,
        block: Bytes,
    },
    SynReply {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    /// Identifiers and values.
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway {
        last: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    /// Stream 0 means the connection.
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// A type that we do not know, which is to be ignored (2.2.1).
    Unknown,
}

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

fn identifier(payload: &mut Bytes) -> Result<u32, FrameError> {
    match payload.get_u32() & ID {
        0 => Err(FrameError::Zero),
        id => Ok(id),
    }
}

impl Control {
    pub(crate) fn parse(kind: u16, flags: u8, mut payload: Bytes) -> Result<Self, FrameError> {
        let fin = flags & FIN != 0;
        let length = payload.len();
        let fits = match kind {
            SYN_STREAM => length >= 10,
            SYN_REPLY | HEADERS | SETTINGS => length >= 4,
            RST_STREAM | GOAWAY | WINDOW_UPDATE => length == 8,
            PING => length == 4,
            _ => return Ok(Self::Unknown),
        };
        if !fits {
            return Err(FrameError::Length(kind));
        }
        match kind {
            SYN_STREAM => {
                let stream = identifier(&mut payload)?;
                // The associated stream, the priority and the slot mean nothing to us.
                payload.advance(6);
                let unidirectional = flags & UNIDIRECTIONAL != 0;
                Ok(Self::SynStream { stream, fin, unidirectional, block: payload })
            }
            SYN_REPLY => Ok(Self::SynReply { stream: identifier(&mut payload)?, fin, block: payload }),
            HEADERS => Ok(Self::Headers { stream: identifier(&mut payload)?, fin, block: payload }),
            RST_STREAM => {
                let stream = identifier(&mut payload)?;
                Ok(Self::Reset { stream, status: payload.get_u32() })
            }
            SETTINGS => {
                let count = payload.get_u32() as usize;
                if payload.len() != count.saturating_mul(8) {
                    return Err(FrameError::Length(kind));
                }
                // An entry is 8 bits of flags, 24 of identifier, 32 of value.
                let entry = |payload: &mut Bytes| (payload.get_u32() & 0x00FF_FFFF, payload.get_u32());
                Ok(Self::Settings((0..count).map(|_| entry(&mut payload)).collect()))
            }
            PING => match payload.get_u32() {
                0 => Err(FrameError::Zero),
                id => Ok(Self::Ping(id)),
            },
            GOAWAY => Ok(Self::GoAway { last: payload.get_u32() & ID, status: payload.get_u32() }),
            _ => Ok(Self::WindowUpdate { stream: payload.get_u32() & ID, delta: payload.get_u32() & ID }),
        }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::SynStream { stream, fin, unidirectional, block } => {
                let flags = if *fin { FIN } else { 0 } | if *unidirectional { UNIDIRECTIONAL } else { 0 };
                head(out, SYN_STREAM, flags, 10 + block.len());
                out.put_u32(*stream);
                // No associated stream, highest priority, no slot.
                out.put_bytes(0, 6);
                out.put_slice(block);
            }
            Self::SynReply { stream, fin, block } => with_block(out, SYN_REPLY, *stream, *fin, block),
            Self::Headers { stream, fin, block } => with_block(out, HEADERS, *stream, *fin, block),
            Self::Reset { stream, status } => pair(out, RST_STREAM, *stream, *status),
            Self::GoAway { last, status } => pair(out, GOAWAY, *last, *status),
            Self::WindowUpdate { stream, delta } => pair(out, WINDOW_UPDATE, *stream, *delta),
            Self::Settings(entries) => {
                head(out, SETTINGS, 0, 4 + 8 * entries.len());
                out.put_u32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
                for (id, value) in entries {
                    out.put_u32(*id);
                    out.put_u32(*value);
                }
            }
            Self::Ping(id) => {
                head(out, PING, 0, 4);
                out.put_u32(*id);
            }
            Self::Unknown => {}
        }
    }
}

fn head(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u32(CONTROL | u32::from(VERSION) << 16 | u32::from(kind));
    out.put_u8(flags);
    out.put_uint(length as u64, 3);
}

fn pair(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    head(out, kind, 0, 8);
    out.put_u32(first);
    out.put_u32(second);
}

fn with_block(out: &mut BytesMut, kind: u16, stream: u32, fin: bool, block: &[u8]) {
    head(out, kind, if fin { FIN } else { 0 }, 4 + block.len());
    out.put_u32(stream);
    out.put_slice(block);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Frames as the draft draws them, written out by hand.
    #[test]
    fn frames_of_the_specification() {
        let table: [(&[u8], Control); 8] = [
            (
                b"\x80\x03\x00\x01\x01\x00\x00\x0d\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00abc",
                Control::SynStream { stream: 5, fin: true, unidirectional: false, block: "abc".into() },
            ),
            (
                b"\x80\x03\x00\x02\x00\x00\x00\x06\x00\x00\x00\x05hi",
                Control::SynReply { stream: 5, fin: false, block: "hi".into() },
            ),
            (
                b"\x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x00\x07\x00\x00\x00\x05",
                Control::Reset { stream: 7, status: reset::CANCEL },
            ),
            (
                b"\x80\x03\x00\x04\x00\x00\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x07\x00\x01\x00\x00",
                Control::Settings(vec![(INITIAL_WINDOW_SIZE, 65_536)]),
            ),
            (b"\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x03", Control::Ping(3)),
            (
                b"\x80\x03\x00\x07\x00\x00\x00\x08\x00\x00\x00\x09\x00\x00\x00\x00",
                Control::GoAway { last: 9, status: goaway::OK },
            ),
            (
                b"\x80\x03\x00\x08\x01\x00\x00\x05\x00\x00\x00\x01x",
                Control::Headers { stream: 1, fin: true, block: "x".into() },
            ),
            (
                b"\x80\x03\x00\x09\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x10\x00",
                Control::WindowUpdate { stream: 0, delta: 4096 },
            ),
        ];
        for (bytes, expected) in table {
            let Ok(Head::Control { kind, flags, length }) = Head::parse(bytes[..HEAD].try_into().unwrap())
            else {
                panic!("{bytes:?} must be a control frame");
            };
            assert_eq!(length, bytes.len() - HEAD);
            let parsed = Control::parse(kind, flags, Bytes::copy_from_slice(&bytes[HEAD..])).unwrap();
            assert_eq!(parsed, expected);
            let mut encoded = BytesMut::new();
            expected.encode(&mut encoded);
            assert_eq!(&encoded[..], bytes);
        }
        assert_eq!(
            Head::parse(*b"\x00\x00\x00\x0b\x01\x00\x01\x00"),
            Ok(Head::Data { stream: 11, fin: true, length: 256 })
        );
        assert_eq!(Head::data(11, true, 256), *b"\x00\x00\x00\x0b\x01\x00\x01\x00");
    }

    #[test]
    fn what_is_no_frame_says_why() {
        assert_eq!(Head::parse(*b"\x80\x02\x00\x06\x00\x00\x00\x04"), Err(FrameError::Version(2)));
        assert_eq!(Head::parse(*b"\x80\x03\x00\x01\x00\xff\xff\xff"), Err(FrameError::TooLong(0xFF_FFFF)));
        assert_eq!(Head::parse(*b"\x00\x00\x00\x00\x00\x00\x00\x01"), Err(FrameError::Zero));
        assert_eq!(Control::parse(PING, 0, Bytes::from_static(b"\0\0\0")), Err(FrameError::Length(PING)));
        assert_eq!(Control::parse(PING, 0, Bytes::from_static(b"\0\0\0\0")), Err(FrameError::Zero));
        // A count that the frame has no room for.
        let payload = Bytes::from_static(b"\xff\xff\xff\xff\0\0\0\x07\0\0\0\0");
        assert_eq!(Control::parse(SETTINGS, 0, payload), Err(FrameError::Length(SETTINGS)));
        assert_eq!(Control::parse(77, 0, Bytes::new()), Ok(Control::Unknown));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(head in any::<[u8; HEAD]>(), kind in 0_u16..12, flags: u8,
            payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Head::parse(head);
            let payload = Bytes::from(payload);
            if let Ok(control) = Control::parse(kind, flags, payload) {
                // What was understood is written as something that is understood the same.
                let mut out = BytesMut::new();
                control.encode(&mut out);
                if control != Control::Unknown {
                    let Ok(Head::Control { kind, flags, .. }) = Head::parse(out[..HEAD].try_into().unwrap()) else {
                        panic!("what we write is a control frame");
                    };
                    prop_assert_eq!(Control::parse(kind, flags, out.split_off(HEAD).freeze()), Ok(control));
                }
            }
        }
    }
}
