//! The frames of a watch: one JSON object per event, each on a line of its own.
//!
//! The server writes them from stored bytes; the client reads type and object apart without parsing the object.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::object;
use crate::status::Status;

/// The annotation on the bookmark that ends the initial events of a streaming list (KEP-3157).
pub const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventType {
    /// The object came to be, or came to match.
    Added,
    /// The object changed.
    Modified,
    /// The object went, or no longer matches.
    Deleted,
    /// Nothing but progress: the object carries only a resource version.
    Bookmark,
    /// The watch ends; the object is a `Status`.
    Error,
}

impl EventType {
    /// `ADDED` …
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

fn open(out: &mut Vec<u8>, event: EventType) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event.as_str().as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}

const CLOSE: &[u8] = b"}\n";

/// Appends the frame of an object given as finished JSON (a Table, `PartialObjectMetadata`, …).
pub fn write_frame(out: &mut Vec<u8>, event: EventType, object: &[u8]) {
    out.reserve(object.len() + 40);
    open(out, event);
    out.extend_from_slice(object);
    out.extend_from_slice(CLOSE);
}

/// Appends the frame of a stored object: canonical bytes and the revision that goes into them.
pub fn write_object_frame(out: &mut Vec<u8>, event: EventType, canonical: &[u8], revision: u64) {
    out.reserve(canonical.len() + 96);
    open(out, event);
    object::write_with_revision(canonical, revision, out);
    out.extend_from_slice(CLOSE);
}

/// Whether a bookmark closes the initial events of a streaming list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BookmarkKind {
    /// Plain progress.
    Progress,
    /// All initial events have been sent.
    InitialEventsEnd,
}

/// Appends a bookmark frame for a kind.
pub fn write_bookmark(
    out: &mut Vec<u8>,
    kind: &str,
    api_version: &str,
    revision: u64,
    bookmark: BookmarkKind,
) {
    open(out, EventType::Bookmark);
    let annotations = match bookmark {
        BookmarkKind::Progress => serde_json::json!({}),
        BookmarkKind::InitialEventsEnd => serde_json::json!({ INITIAL_EVENTS_END: "true" }),
    };
    let mut metadata = serde_json::json!({ "resourceVersion": revision.to_string() });
    if annotations != serde_json::json!({}) {
        metadata["annotations"] = annotations;
    }
    let object = serde_json::json!({ "kind": kind, "apiVersion": api_version, "metadata": metadata });
    serde_json::to_writer(&mut *out, &object).expect("writing to a Vec must succeed");
    out.extend_from_slice(CLOSE);
}

/// Appends the frame that ends a watch.
pub fn write_error(out: &mut Vec<u8>, status: &Status) {
    open(out, EventType::Error);
    serde_json::to_writer(&mut *out, status).expect("writing to a Vec must succeed");
    out.extend_from_slice(CLOSE);
}

/// A received frame, its object still encoded.
#[derive(Debug, Deserialize)]
pub struct Frame<'a> {
    /// What happened.
    #[serde(rename = "type")]
    pub event: EventType,
    /// The object, or the `Status` of an error.
    #[serde(borrow)]
    pub object: &'a RawValue,
}

impl<'a> Frame<'a> {
    /// Reads one line of a watch.
    ///
    /// # Errors
    /// When it is no frame.
    pub fn parse(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }

    /// The object's bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.object.get().as_bytes()
    }

    /// The status of an error frame.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        (self.event == EventType::Error).then(|| {
            serde_json::from_str(self.object.get())
                .unwrap_or_else(|_| Status::internal("the watch ended with an unreadable status"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_documented() {
        let mut out = Vec::new();
        write_object_frame(&mut out, EventType::Added, br#"{"kind":"Pod","metadata":{"name":"a"}}"#, 7);
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "{\"type\":\"ADDED\",\"object\":{\"kind\":\"Pod\",\"metadata\":{\"resourceVersion\":\"7\",\"name\":\"a\"}}}\n"
        );
        let frame = Frame::parse(&out).unwrap();
        assert_eq!(frame.event, EventType::Added);
        assert_eq!(frame.bytes(), br#"{"kind":"Pod","metadata":{"resourceVersion":"7","name":"a"}}"#);
        assert_eq!(frame.status(), None);
    }

    #[test]
    fn bookmarks_and_errors() {
        let mut out = Vec::new();
        write_bookmark(&mut out, "Pod", "v1", 12746, BookmarkKind::InitialEventsEnd);
        let frame: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(frame["type"], "BOOKMARK");
        assert_eq!(
            frame["object"],
            serde_json::json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "12746",
                "annotations": {"k8s.io/initial-events-end": "true"}}})
        );
        out.clear();
        write_error(&mut out, &Status::expired("too old resource version: 1 (5)"));
        let status = Frame::parse(&out).unwrap().status().unwrap();
        assert!(status.is_expired());
    }
}
