//! Answers: how finished JSON becomes a response.
//!
//! The plain case (one line of JSON) hands the bytes over as they are; pretty printing, YAML and gzip are
//! made from them for those who ask.

use std::io::Write as _;

use api_objects::{Status, Value, yaml};
use axum::body::Body;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Response, StatusCode, header};

use crate::negotiate::{Accepted, Encoding};

/// Answers below this size are not worth compressing (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters`).
const GZIP_THRESHOLD: usize = 128 * 1024;

/// An empty response with the headers that every answer carries.
fn response(code: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Answers with finished JSON.
pub(crate) fn json(code: StatusCode, mut json: Vec<u8>, accepted: Accepted) -> Response<Body> {
    match accepted.encoding {
        Encoding::Json if accepted.pretty => json = indent(&json),
        // Upstream's encoder ends every object with a line break.
        Encoding::Json => json.push(b'\n'),
        Encoding::Yaml => json = to_yaml(&json).into_bytes(),
    }
    if accepted.gzip && json.len() > GZIP_THRESHOLD {
        let mut response = response(code, accepted.encoding.media_type(), Body::from(gzip(&json)));
        mark_gzip(&mut response);
        return response;
    }
    response(code, accepted.encoding.media_type(), Body::from(json))
}

/// Answers with a decoded object.
pub(crate) fn value(code: StatusCode, value: &Value, accepted: Accepted) -> Response<Body> {
    json(code, value.to_string().into_bytes(), accepted)
}

/// Answers with a `Status`; its code is the response's.
pub(crate) fn status(status: &Status, accepted: Accepted) -> Response<Body> {
    let code = if status.code == 0 { 200 } else { status.code };
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let bytes = serde_json::to_vec(status).expect("a Status must be encodable");
    let mut response = json(code, bytes, accepted);
    if let Some(seconds) = status.details.as_ref().and_then(|details| details.retry_after_seconds) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Answers with JSON that is made piece by piece while it is sent. `size` is about how much it will be.
pub(crate) fn pieces(
    pieces: impl Iterator<Item = Vec<u8>> + Send + 'static,
    size: usize,
    accepted: Accepted,
) -> Response<Body> {
    let compress = accepted.gzip && size > GZIP_THRESHOLD;
    let stream = |pieces: Box<dyn Iterator<Item = Vec<u8>> + Send>| {
        let frames = pieces.map(|piece| Ok::<_, std::convert::Infallible>(Bytes::from(piece)));
        Body::from_stream(futures_util::stream::iter(frames))
    };
    let media_type = Encoding::Json.media_type();
    if !compress {
        return response(StatusCode::OK, media_type, stream(Box::new(pieces)));
    }
    let mut response = response(StatusCode::OK, media_type, stream(Box::new(Gzipped::new(pieces))));
    mark_gzip(&mut response);
    response
}

/// Answers with a stream of watch frames.
pub(crate) fn frames<S>(frames: S) -> Response<Body>
where
    S: futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static,
{
    response(StatusCode::OK, Encoding::Json.media_type(), Body::from_stream(frames))
}

fn mark_gzip(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes).expect("writing to a Vec must succeed");
    encoder.finish().expect("writing to a Vec must succeed")
}

/// Compresses pieces as they come.
struct Gzipped<I> {
    pieces: I,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<I> Gzipped<I> {
    fn new(pieces: I) -> Self {
        Self { pieces, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
    }
}

impl<I: Iterator<Item = Vec<u8>>> Iterator for Gzipped<I> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let encoder = self.encoder.as_mut()?;
            match self.pieces.next() {
                Some(piece) => {
                    encoder.write_all(&piece).expect("writing to a Vec must succeed");
                    let ready = std::mem::take(encoder.get_mut());
                    if !ready.is_empty() {
                        return Some(ready);
                    }
                }
                None => {
                    let encoder = self.encoder.take().expect("the encoder must be there until the end");
                    return Some(encoder.finish().expect("writing to a Vec must succeed"));
                }
            }
        }
    }
}

fn to_yaml(json: &[u8]) -> String {
    let value: Value = serde_json::from_slice(json).unwrap_or_default();
    yaml::to_string(&value)
}

/// Indents JSON by two spaces, keeping the order of members, as Go's `json.Indent` does.
fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    let new_line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    for (at, &byte) in json.iter().enumerate() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        let next = json.get(at + 1);
        match byte {
            b'"' => {
                in_string = true;
                out.push(byte);
            }
            b'{' | b'[' => {
                out.push(byte);
                if !matches!(next, Some(b'}' | b']')) {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                if !matches!(out.last(), Some(b'{' | b'[')) {
                    depth = depth.saturating_sub(1);
                    new_line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                new_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            byte if byte.is_ascii_whitespace() => {}
            byte => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn indents_as_go_does() {
        let plain = br#"{"a":{"b":"x: {\"[","c":[]},"d":[1,{}]}"#;
        let expected = "{\n  \"a\": {\n    \"b\": \"x: {\\\"[\",\n    \"c\": []\n  },\n  \"d\": [\n    1,\n    {}\n  ]\n}";
        assert_eq!(String::from_utf8(indent(plain)).unwrap(), expected);
    }

    #[test]
    fn gzip_in_pieces_reads_back() {
        let pieces = vec![b"one ".to_vec(), vec![b'x'; 100_000], b" end".to_vec()];
        let whole: Vec<u8> = pieces.concat();
        let packed: Vec<u8> = Gzipped::new(pieces.into_iter()).flatten().collect();
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == whole);
        assert!(packed.len() < 2_000);
    }
}
