//! Protobuf's wire format: numbered fields, without knowing what they mean.
//!
//! See <https://protobuf.dev/programming-guides/encoding/>. Groups, which no Kubernetes message has, end the
//! reading.

/// One field's raw value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire<'a> {
    /// A variable-length integer.
    Number(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes.
    Fixed32,
    /// Text, bytes or a nested message.
    Bytes(&'a [u8]),
}

/// The fields of a message, in order; `None` as an item where the bytes are malformed, which ends it.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of a message.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for (at, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(at).ok()?)?;
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u32, Wire<'a>)> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return None,
        };
        Some((number, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u32, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split() {
        let bytes = b"\x08\x96\x01\x12\x02hi";
        let fields: Vec<_> = Fields::new(bytes).map(Option::unwrap).collect();
        assert_eq!(fields, [(1, Wire::Number(150)), (2, Wire::Bytes(b"hi"))]);
        assert_eq!(Fields::new(b"\x12\x05hi").collect::<Vec<_>>(), [None]);
        let negative = [&b"\x08"[..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(Fields::new(&negative).next(), Some(Some((1, Wire::Number(u64::MAX)))));
    }
}
