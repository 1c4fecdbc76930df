//! Headers, and the compressed block that carries them.
//!
//! A block is a count, and for each header its name and its values (joined by NUL bytes), each behind its length
//! (draft 3.1, 2.6.10). All blocks of one direction are one zlib stream that begins with a dictionary both sides
//! know and is flushed after each block: a block can only be read after all before it.

use std::sync::LazyLock;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// The most that a block may unfold to. zlib can unfold a thousandfold.
const MAX_UNFOLDED: usize = 64 << 10;

/// The words that the dictionary begins with, each behind its length.
const WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// What follows the words.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug \
Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8\
charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary of the draft's section 2.6.10.1.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::with_capacity(1423);
    for word in WORDS {
        put(&mut dictionary, word.as_bytes());
    }
    dictionary.extend_from_slice(TAIL.as_bytes());
    dictionary
});

/// Why a block holds no headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// It is not what zlib writes.
    #[error("the block cannot be decompressed")]
    Zlib,
    /// It is larger than headers of streams are.
    #[error("the block is too large")]
    TooLarge,
    /// Lengths and contents do not fit.
    #[error("the block is malformed")]
    Malformed,
    /// A name twice, or none, or in upper case, which the draft forbids.
    #[error("a header's name is not allowed")]
    Name,
}

/// Headers in the order in which they came. Names are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Headers of names and values.
    #[must_use]
    pub fn new(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())).collect())
    }

    /// The first value of a header, whatever the case of its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        value.split('\0').next()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (name, value) in &self.0 {
            put(&mut out, name.as_bytes());
            put(&mut out, value.as_bytes());
        }
        out
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, HeaderError> {
        let count = length(&mut bytes)?;
        // Each takes eight bytes at least: the count promises no more than there is.
        if count > bytes.len() / 8 {
            return Err(HeaderError::Malformed);
        }
        let mut headers: Vec<(String, String)> = Vec::with_capacity(count);
        for _ in 0..count {
            let name = text(&mut bytes)?;
            let value = text(&mut bytes)?;
            let known = headers.iter().any(|(other, _)| *other == name);
            if known || name.is_empty() || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return Err(HeaderError::Name);
            }
            headers.push((name, value));
        }
        if bytes.is_empty() { Ok(Self(headers)) } else { Err(HeaderError::Malformed) }
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn length(bytes: &mut &[u8]) -> Result<usize, HeaderError> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or(HeaderError::Malformed)?;
    *bytes = rest;
    Ok(u32::from_be_bytes(*head) as usize)
}

fn text(bytes: &mut &[u8]) -> Result<String, HeaderError> {
    let length = length(bytes)?;
    let (text, rest) = bytes.split_at_checked(length).ok_or(HeaderError::Malformed)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).map_err(|_| HeaderError::Malformed)
}

/// Writes the blocks of one direction.
pub(crate) struct Packer(Compress);

impl Packer {
    pub(crate) fn new() -> Self {
        let mut compress = Compress::new(Compression::best(), true);
        compress.set_dictionary(&DICTIONARY).expect("a new stream must take its dictionary");
        Self(compress)
    }

    pub(crate) fn pack(&mut self, headers: &Headers) -> Vec<u8> {
        let block = headers.encode();
        let mut rest = &block[..];
        let mut out = Vec::new();
        loop {
            out.reserve(block.len().max(128));
            let before = self.0.total_in();
            let packed = self.0.compress_vec(rest, &mut out, FlushCompress::Sync);
            packed.expect("compression must not fail while there is room");
            rest = &rest[usize::try_from(self.0.total_in() - before).unwrap_or(usize::MAX)..];
            // Room left means that nothing waits for more of it.
            if rest.is_empty() && out.len() < out.capacity() {
                return out;
            }
        }
    }
}

/// Reads the blocks of one direction.
pub(crate) struct Unpacker(Decompress);

impl Unpacker {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(crate) fn unpack(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        let mut rest = block;
        let mut out = Vec::with_capacity(1024);
        loop {
            let (consumed, produced) = (self.0.total_in(), out.len());
            let outcome = self.0.decompress_vec(rest, &mut out, FlushDecompress::Sync);
            let consumed = usize::try_from(self.0.total_in() - consumed).unwrap_or(usize::MAX);
            rest = rest.get(consumed..).ok_or(HeaderError::Zlib)?;
            match outcome {
                Ok(_) => {
                    if out.len() < out.capacity() {
                        let stuck = consumed == 0 && out.len() == produced;
                        if rest.is_empty() {
                            return Headers::decode(&out);
                        }
                        if stuck {
                            return Err(HeaderError::Zlib);
                        }
                    }
                    if out.len() > MAX_UNFOLDED {
                        return Err(HeaderError::TooLarge);
                    }
                    out.reserve(1024);
                }
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| HeaderError::Zlib)?;
                }
                Err(_) => return Err(HeaderError::Zlib),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// Two blocks of one stream, made with Python's `zlib.compressobj(zdict=…)` from the draft's dictionary: zlib
    /// itself, and nothing of ours. Bytes 2 to 5 are the dictionary's Adler-32, `e3c6a7c2`.
    const FIRST: &str = "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45e01c6061606100a4398b20d198094ade8c\
        0600000000ffff";
    const SECOND: &str = "02c960680695438944e94514e9cc890c4900000000ffff";

    #[test]
    fn blocks_of_zlib_itself_are_read() {
        let mut unpacker = Unpacker::new();
        let first = unpacker.unpack(&bytes(&FIRST.replace(char::is_whitespace, ""))).unwrap();
        assert_eq!(first, Headers::new(&[("streamType", "error"), ("port", "8080"), ("requestID", "0")]));
        let second = unpacker.unpack(&bytes(SECOND)).unwrap();
        assert_eq!(second.get("streamType"), Some("data"));
        assert_eq!(second.get("Accept"), Some("a"), "the first of several values");
        assert_eq!(second.get("absent"), None);
    }

    #[test]
    fn what_is_written_names_the_dictionary() {
        let packed = Packer::new().pack(&Headers::default());
        assert_eq!(packed[0], 0x78, "deflate with a window of 32 KiB");
        assert_eq!(packed[1] & 0x20, 0x20, "with a dictionary");
        assert_eq!(packed[2..6], [0xe3, 0xc6, 0xa7, 0xc2], "that of the draft");
        assert_eq!(packed[packed.len() - 4..], [0, 0, 0xff, 0xff], "flushed");
    }

    #[test]
    fn what_is_no_block_says_why() {
        let unpack = |block: &[u8]| {
            let mut compress = Compress::new(Compression::best(), true);
            compress.set_dictionary(&DICTIONARY).unwrap();
            let mut packed = Vec::with_capacity(block.len() + 1024);
            compress.compress_vec(block, &mut packed, FlushCompress::Sync).unwrap();
            Unpacker::new().unpack(&packed)
        };
        assert_eq!(unpack(&[0xff; 4]), Err(HeaderError::Malformed), "more headers than bytes");
        assert_eq!(unpack(b"\0\0\0\x01\0\0\0\x01A\0\0\0\0"), Err(HeaderError::Name));
        assert_eq!(unpack(b"\0\0\0\x02\0\0\0\x01a\0\0\0\0\0\0\0\x01a\0\0\0\0"), Err(HeaderError::Name));
        assert_eq!(unpack(b"\0\0\0\x01\0\0\0\x09a\0\0\0\0"), Err(HeaderError::Malformed));
        assert_eq!(unpack(&vec![0; 16 << 20]), Err(HeaderError::TooLarge), "a small block that unfolds");
        assert_eq!(Unpacker::new().unpack(b"GET / HTTP/1.1\r\n"), Err(HeaderError::Zlib));
    }

    proptest! {
        #[test]
        fn blocks_survive_one_stream(blocks in proptest::collection::vec(
            proptest::collection::btree_map("[a-z-]{1,20}", "\\PC{0,300}", 0..6), 1..8)) {
            let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
            for block in blocks {
                let headers = Headers(block.into_iter().collect());
                prop_assert_eq!(unpacker.unpack(&packer.pack(&headers)), Ok(headers));
            }
        }

        #[test]
        fn hostile_blocks_never_panic(block in proptest::collection::vec(any::<u8>(), 0..200), dictionary: bool) {
            let block = if dictionary { [&b"\x78\xf9\xe3\xc6\xa7\xc2"[..], &block].concat() } else { block };
            let mut unpacker = Unpacker::new();
            let _ = unpacker.unpack(&block);
            let _ = unpacker.unpack(&block);
            let _ = Headers::decode(&block);
        }
    }
}
