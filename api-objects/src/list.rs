//! Lists: their head and tail around items that stay encoded, and the tokens that continue them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::object;

/// The metadata of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMeta {
    /// The revision that the list shows, in decimal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// The token of the next page; empty on the last one.
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
    /// How many objects follow after this page, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<u64>,
}

/// Assembles a list from encoded items.
#[derive(Debug)]
pub struct ListWriter {
    out: Vec<u8>,
    empty: bool,
}

impl ListWriter {
    /// Opens a list of `kind` (`PodList`); `capacity` is about the size of all items.
    #[must_use]
    pub fn new(kind: &str, api_version: &str, meta: &ListMeta, capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity + 256);
        let mut put = |text: &[u8]| out.extend_from_slice(text);
        put(b"{\"kind\":\"");
        put(kind.as_bytes());
        put(b"\",\"apiVersion\":\"");
        put(api_version.as_bytes());
        put(b"\",\"metadata\":");
        serde_json::to_writer(&mut out, meta).expect("writing to a Vec must succeed");
        out.extend_from_slice(b",\"items\":[");
        Self { out, empty: true }
    }

    /// Where the next item is to be written, whole and with nothing around it.
    pub fn item(&mut self) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.empty, false) {
            self.out.push(b',');
        }
        &mut self.out
    }

    /// Appends a stored object as an item: with its revision, without `kind` and `apiVersion`.
    pub fn object(&mut self, canonical: &[u8], revision: u64) {
        object::write_list_item(canonical, revision, self.item());
    }

    /// Closes the list.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(b"]}");
        self.out
    }
}

/// What a continue token holds: a snapshot's revision and the key to go on from. Same form as upstream's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContinueToken {
    /// The revision of the first page; nothing when the rest may come from a later one (the token that an
    /// expired list hands out).
    pub revision: Option<u64>,
    /// The first key of the next page, relative to the resource's prefix.
    pub start: String,
}

#[derive(Serialize, Deserialize)]
struct WireToken {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// Why a continue token was refused; the text is upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("continue key is not valid: {0}")]
pub struct TokenError(String);

impl ContinueToken {
    /// The token as text for a query.
    #[must_use]
    pub fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
        let wire = WireToken { v: TOKEN_VERSION.to_owned(), rv, start: self.start.clone() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).expect("a token must be encodable"))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// When it is none of ours, with upstream's text.
    pub fn decode(text: &str) -> Result<Self, TokenError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| TokenError(error.to_string().to_lowercase()))?;
        let wire: WireToken =
            serde_json::from_slice(&bytes).map_err(|error| TokenError(error.to_string()))?;
        if wire.v != TOKEN_VERSION {
            return Err(TokenError(format!("server does not recognize this encoded version {:?}", wire.v)));
        }
        if wire.rv == 0 {
            return Err(TokenError(format!(
                "incorrect encoded start resourceVersion (version {TOKEN_VERSION})"
            )));
        }
        // A start that climbs out of its prefix would read another resource's keys.
        if wire.start.is_empty() || wire.start.split('/').any(|segment| segment == "..") {
            return Err(TokenError(format!("encoded start key empty (version {TOKEN_VERSION})")));
        }
        Ok(Self { revision: u64::try_from(wire.rv).ok(), start: wire.start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_assembled() {
        let meta = ListMeta {
            resource_version: "10245".into(),
            continue_token: "x".into(),
            remaining_item_count: Some(753),
        };
        let mut list = ListWriter::new("PodList", "v1", &meta, 0);
        list.object(br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{}}"#, 3);
        list.object(br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"b"}}"#, 4);
        assert_eq!(
            String::from_utf8(list.finish()).unwrap(),
            r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"10245","continue":"x","remainingItemCount":753},"items":[{"metadata":{"resourceVersion":"3","name":"a"},"spec":{}},{"metadata":{"resourceVersion":"4","name":"b"}}]}"#
        );
        let empty = ListWriter::new("PodList", "v1", &ListMeta::default(), 0).finish();
        assert_eq!(empty, br#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}"#);
    }

    #[test]
    fn tokens_round_trip() {
        for revision in [Some(1), Some(123_456), None] {
            let token = ContinueToken { revision, start: "default/a\0".into() };
            assert_eq!(ContinueToken::decode(&token.encode()), Ok(token));
        }
        for bad in
            ["", "!!", "e30", &URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":3,"start":"../x"}"#)]
        {
            let error = ContinueToken::decode(bad).unwrap_err().to_string();
            assert!(error.starts_with("continue key is not valid: "), "{error}");
        }
    }
}
