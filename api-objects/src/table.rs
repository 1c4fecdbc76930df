//! Tables (`meta.k8s.io/v1 Table`): what the server prints for people, as columns and rows.

use serde::{Deserialize, Serialize};

use crate::list::ListMeta;
use crate::object::Value;

/// A column's name and nature.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ColumnDefinition {
    /// The heading, as `Name` or `Nominated Node`.
    pub name: String,
    /// `string`, `integer`, `date` …
    #[serde(rename = "type")]
    pub kind: String,
    /// `name` for the column that identifies the row; else mostly empty.
    pub format: String,
    /// For people.
    pub description: String,
    /// 0 is always shown, greater ones only in wide output.
    pub priority: i32,
}

/// One row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// One cell per column.
    pub cells: Vec<Value>,
    /// What the row shows, as far as the client asked for it.
    pub object: Value,
}

/// A decoded table: what clients read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Table {
    /// `Table`
    pub kind: String,
    /// `meta.k8s.io/v1`
    pub api_version: String,
    /// As of the list that it shows.
    pub metadata: ListMeta,
    /// Null on the wire in the later events of a watch: the first one's hold.
    #[serde(deserialize_with = "null_as_empty")]
    pub column_definitions: Vec<ColumnDefinition>,
    /// The rows; null on the wire when there are none.
    #[serde(deserialize_with = "null_as_empty")]
    pub rows: Vec<Row>,
}

fn null_as_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// Assembles a table from rows whose objects stay encoded.
#[derive(Debug)]
pub struct TableWriter {
    out: Vec<u8>,
    empty: bool,
}

impl TableWriter {
    /// Opens a table. Without columns the definitions are null, as in the later events of a watch.
    #[must_use]
    pub fn new(columns: &[ColumnDefinition], meta: &ListMeta, capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity + 1024);
        out.extend_from_slice(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#);
        serde_json::to_writer(&mut out, meta).expect("writing to a Vec must succeed");
        out.extend_from_slice(br#","columnDefinitions":"#);
        let columns = (!columns.is_empty()).then_some(columns);
        serde_json::to_writer(&mut out, &columns).expect("writing to a Vec must succeed");
        out.extend_from_slice(br#","rows":["#);
        Self { out, empty: true }
    }

    /// Appends a row; `object` is finished JSON (`null` where the client wants none).
    pub fn row(&mut self, cells: &[Value], object: &[u8]) {
        if !std::mem::replace(&mut self.empty, false) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(br#"{"cells":"#);
        serde_json::to_writer(&mut self.out, cells).expect("writing to a Vec must succeed");
        self.out.extend_from_slice(br#","object":"#);
        self.out.extend_from_slice(object);
        self.out.push(b'}');
    }

    /// Closes the table.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(b"]}");
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_as_documented() {
        let column = ColumnDefinition {
            name: "Name".into(),
            kind: "string".into(),
            format: "name".into(),
            description: "Name must be unique".into(),
            priority: 0,
        };
        let meta = ListMeta { resource_version: "5".into(), ..ListMeta::default() };
        let mut table = TableWriter::new(&[column], &meta, 0);
        table.row(&[Value::from("a")], br#"{"kind":"PartialObjectMetadata"}"#);
        let bytes = table.finish();
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            r#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"5"},"columnDefinitions":[{"name":"Name","type":"string","format":"name","description":"Name must be unique","priority":0}],"rows":[{"cells":["a"],"object":{"kind":"PartialObjectMetadata"}}]}"#
        );
        let read: Table = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read.rows[0].cells, [Value::from("a")]);
        let nulls: Table = serde_json::from_str(r#"{"rows":null}"#).unwrap();
        assert!(nulls.rows.is_empty());
    }

    #[test]
    fn later_events_of_a_watch_have_no_columns() {
        let text = r#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"columnDefinitions":null,"rows":null}"#;
        let table: Table = serde_json::from_str(text).unwrap();
        assert_eq!((table.column_definitions.len(), table.rows.len()), (0, 0));
    }
}
