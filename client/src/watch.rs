//! Watch frames: one JSON document a line, the object kept as bytes.

use api_objects::Status;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Error;

/// The longest frame accepted: the store's limit for an object, and room for the envelope.
const MAX_FRAME_BYTES: usize = 4 << 20;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum WatchEventType {
    /// The object came into the watch's view.
    Added,
    /// The object changed.
    Modified,
    /// The object left the watch's view; it is given as it last was.
    Deleted,
    /// Nothing older than the object's resource version is still to come.
    Bookmark,
}

/// One event of a watch.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchEventType,
    /// The object, encoded.
    pub object: Bytes,
}

#[derive(Deserialize)]
struct Frame<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// Splits a body into events. An `ERROR` frame becomes the Status that it carries.
pub(crate) fn decode<S>(body: S) -> impl Stream<Item = Result<WatchEvent, Error>> + Send + Unpin
where
    S: Stream<Item = Result<Bytes, Error>> + Send + Unpin + 'static,
{
    let state = (body, BytesMut::new(), 0_usize, false);
    Box::pin(futures_util::stream::unfold(state, |(mut body, mut buffer, mut searched, ended)| async move {
        use futures_util::StreamExt;
        if ended {
            return None;
        }
        loop {
            if let Some(at) = buffer[searched..].iter().position(|&byte| byte == b'\n') {
                let line = buffer.split_to(searched + at + 1).freeze();
                searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let event = decode_line(&line);
                let ended = event.is_err();
                return Some((event, (body, buffer, searched, ended)));
            }
            searched = buffer.len();
            if searched > MAX_FRAME_BYTES {
                let error = Error::Decode(format!("a watch frame exceeds {MAX_FRAME_BYTES} bytes"));
                return Some((Err(error), (body, buffer, searched, true)));
            }
            match body.next().await {
                Some(Ok(bytes)) => buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Some((Err(error), (body, buffer, searched, true))),
                None => return None,
            }
        }
    }))
}

fn decode_line(line: &Bytes) -> Result<WatchEvent, Error> {
    let frame: Frame<'_> =
        serde_json::from_slice(line).map_err(|error| Error::Decode(format!("watch frame: {error}")))?;
    let object = frame.object.get();
    let kind = match frame.r#type {
        "ADDED" => WatchEventType::Added,
        "MODIFIED" => WatchEventType::Modified,
        "DELETED" => WatchEventType::Deleted,
        "BOOKMARK" => WatchEventType::Bookmark,
        "ERROR" => {
            let status: Status = serde_json::from_str(object)
                .map_err(|error| Error::Decode(format!("watch error frame: {error}")))?;
            return Err(Error::Api(Box::new(status)));
        }
        other => return Err(Error::Decode(format!("unknown watch event type {other:?}"))),
    };
    Ok(WatchEvent { kind, object: line.slice_ref(object.as_bytes()) })
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;

    #[tokio::test]
    async fn frames_split_anywhere() {
        let text = b"{\"type\":\"ADDED\",\"object\":{\"a\":1}}\n{\"type\":\"ERROR\",\"object\":{\"code\":410,\"reason\":\"Expired\"}}\n";
        for cut in 0..text.len() {
            let parts = vec![Ok(Bytes::from_static(&text[..cut])), Ok(Bytes::from_static(&text[cut..]))];
            let events: Vec<_> = decode(stream::iter(parts)).collect().await;
            assert_eq!(events.len(), 2, "cut at {cut}");
            let first = events[0].as_ref().unwrap();
            assert_eq!((first.kind, &first.object[..]), (WatchEventType::Added, &br#"{"a":1}"#[..]));
            assert!(events[1].as_ref().unwrap_err().is_expired());
        }
    }
}
