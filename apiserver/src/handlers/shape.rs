//! The shapes in which an object can leave the server: itself, only its metadata, or a row of a table.
//!
//! The first two are cut out of the stored bytes; only a table decodes an object, to print its cells.

use api_objects::{Resource, Status, list::ListMeta, object, table::TableWriter};
use apiserver_storage::Revision;
use jiff::Timestamp;

use crate::{
    negotiate::Shape,
    registry::{columns, decode, serve},
};
use bytes::Bytes;

/// What a table's rows carry of their objects (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Include {
    /// Nothing.
    None,
    /// The metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// Reads the `includeObject` parameter.
    pub(crate) fn parse(query: &str) -> Result<Self, Status> {
        match query.split('&').find_map(|pair| pair.strip_prefix("includeObject=")) {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(Status::bad_request(format!(
                "unrecognized includeObject value: {other:?}; valid values are None, Metadata and Object"
            ))),
        }
    }
}

/// What one reader gets to see of each object.
pub(crate) struct View<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) shape: Shape,
    pub(crate) include: Include,
    pub(crate) now: Timestamp,
}

impl View<'_> {
    /// One object on its own: a table has one row.
    pub(crate) fn object(&self, canonical: &Bytes, revision: Revision) -> Vec<u8> {
        let mut out = Vec::new();
        match self.shape {
            // What was only tried has no resource version.
            Shape::Object if revision == 0 => out.extend_from_slice(&serve(canonical, self.resource)),
            Shape::Object | Shape::AggregatedDiscovery => {
                object::write_with_revision(&serve(canonical, self.resource), revision, &mut out);
            }
            Shape::Partial => write_partial(&serve(canonical, self.resource), revision, &mut out),
            Shape::Table => return self.table([(canonical, revision)].into_iter(), revision, Columns::Shown),
        }
        out
    }

    /// A table of objects.
    pub(crate) fn table<'b>(
        &self,
        objects: impl Iterator<Item = (&'b Bytes, Revision)>,
        revision: Revision,
        shown: Columns,
    ) -> Vec<u8> {
        let meta = ListMeta {
            resource_version: if revision == 0 { String::new() } else { revision.to_string() },
            ..ListMeta::default()
        };
        self.table_with(objects, &meta, shown)
    }

    /// A table of a list.
    pub(crate) fn table_with<'b>(
        &self,
        objects: impl Iterator<Item = (&'b Bytes, Revision)>,
        meta: &ListMeta,
        shown: Columns,
    ) -> Vec<u8> {
        let definitions = match shown {
            Columns::Shown => columns::definitions(self.resource),
            Columns::Known => Vec::new(),
        };
        let mut table = TableWriter::new(&definitions, meta, 0);
        let mut held = Vec::new();
        for (canonical, revision) in objects {
            let value = decode(canonical, revision, self.resource);
            let cells = columns::cells(self.resource, &value, self.now);
            held.clear();
            match self.include {
                Include::None => held.extend_from_slice(b"null"),
                Include::Metadata => write_partial(&serve(canonical, self.resource), revision, &mut held),
                Include::Object => {
                    object::write_with_revision(&serve(canonical, self.resource), revision, &mut held);
                }
            }
            table.row(&cells, &held);
        }
        table.finish()
    }
}

/// Whether a table names its columns: the later events of a watch do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Columns {
    /// They are in the table.
    Shown,
    /// The client has them from an earlier table.
    Known,
}

/// Appends a `PartialObjectMetadata` made of an object's bytes.
pub(crate) fn write_partial(canonical: &[u8], revision: Revision, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","#);
    write_metadata(canonical, revision, out);
    out.push(b'}');
}

/// Appends `"metadata":{…}` with the resource version.
fn write_metadata(canonical: &[u8], revision: Revision, out: &mut Vec<u8>) {
    match metadata_range(canonical) {
        Some(range) => {
            let mut wrapped = Vec::with_capacity(range.len() + 16);
            wrapped.extend_from_slice(b"\"metadata\":");
            wrapped.extend_from_slice(&canonical[range]);
            object::write_with_revision(&wrapped, revision, out);
        }
        None => out.extend_from_slice(b"\"metadata\":{}"),
    }
}

/// Where the metadata's braces are. Canonical bytes have it directly after `kind` and `apiVersion`.
fn metadata_range(canonical: &[u8]) -> Option<std::ops::Range<usize>> {
    const OPEN: &[u8] = b"\"metadata\":{";
    let start = canonical.windows(OPEN.len()).position(|window| window == OPEN)? + OPEN.len() - 1;
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for (at, &byte) in canonical.iter().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' if !in_string => depth += 1,
            b'}' if !in_string => {
                depth -= 1;
                if depth == 0 {
                    return Some(start..at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_cut_out_whole() {
        let canonical = br#"{"kind":"Pod","apiVersion":"v1","metadata":{"annotations":{"a":"}\"{"},"name":"x"},"spec":{"metadata":{}}}"#;
        let mut out = Vec::new();
        write_partial(canonical, 7, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"7","annotations":{"a":"}\"{"},"name":"x"}}"#
        );
    }

    #[test]
    fn include_object_values() {
        assert_eq!(Include::parse("limit=5"), Ok(Include::Metadata));
        assert_eq!(Include::parse("includeObject=Object&limit=5"), Ok(Include::Object));
        assert_eq!(Include::parse("includeObject=x").unwrap_err().code, 400);
    }
}
