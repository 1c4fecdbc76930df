//! Tables: the server's, printed as kubectl users know them.

use api_objects::table::{ColumnDefinition, Row, Table};
use api_objects::{Value, time};
use jiff::Timestamp;

/// Three spaces between columns, and none after the last: the layout of `kubectl get`.
pub(crate) fn align(rows: Vec<Vec<String>>) -> String {
    let text: String = rows.into_iter().map(|row| row.join("\t") + "\n").collect();
    super::tabs::align(&text, 6, 3)
}

/// How a table is shown.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one per flag of kubectl get")]
pub(crate) struct Options {
    /// Columns of lower priority too.
    pub(crate) wide: bool,
    /// A column with the namespace first.
    pub(crate) namespace: bool,
    /// All labels last.
    pub(crate) labels: bool,
    /// These labels last.
    pub(crate) label_columns: Vec<String>,
    /// Put before names: `pod/`.
    pub(crate) prefix: String,
    /// Without headings.
    pub(crate) no_headers: bool,
}

/// Prints tables of one kind, one after another: a watch goes on with the columns of its first.
#[derive(Debug)]
pub(crate) struct TablePrinter {
    options: Options,
    columns: Vec<ColumnDefinition>,
    widths: Vec<usize>,
    headed: bool,
}

impl TablePrinter {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, columns: Vec::new(), widths: Vec::new(), headed: false }
    }

    /// The text of a table, nothing when it has no rows. `first` is a column of its own, as the event of a watch.
    pub(crate) fn render(&mut self, table: &Table, first: Option<(&str, &str)>) -> String {
        if !table.column_definitions.is_empty() {
            self.columns.clone_from(&table.column_definitions);
        }
        if table.rows.is_empty() {
            return String::new();
        }
        let mut rows = Vec::new();
        if !self.headed && !self.options.no_headers {
            rows.push(self.headings(first.map(|(heading, _)| heading)));
        }
        self.headed = true;
        rows.extend(table.rows.iter().map(|row| self.cells(row, first.map(|(_, cell)| cell))));
        self.widths.resize(rows.iter().map(Vec::len).max().unwrap_or(0).max(self.widths.len()), 6);
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count() + 3);
            }
        }
        let mut out = String::new();
        for row in rows {
            let last = row.len().saturating_sub(1);
            for (at, cell) in row.iter().enumerate() {
                out.push_str(cell);
                if at < last {
                    out.extend(std::iter::repeat_n(' ', self.widths[at] - cell.chars().count()));
                }
            }
            out.push('\n');
        }
        out
    }

    fn shown(&self) -> impl Iterator<Item = (usize, &ColumnDefinition)> {
        self.columns.iter().enumerate().filter(|(_, column)| self.options.wide || column.priority == 0)
    }

    fn headings(&self, first: Option<&str>) -> Vec<String> {
        let mut row: Vec<String> = first.map(str::to_owned).into_iter().collect();
        if self.options.namespace {
            row.push("NAMESPACE".to_owned());
        }
        row.extend(self.shown().map(|(_, column)| column.name.to_uppercase()));
        for label in &self.options.label_columns {
            row.push(label.rsplit('/').next().unwrap_or(label).to_uppercase());
        }
        if self.options.labels {
            row.push("LABELS".to_owned());
        }
        row
    }

    fn cells(&self, row: &Row, first: Option<&str>) -> Vec<String> {
        let text = |pointer: &str| {
            row.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let mut cells: Vec<String> = first.map(str::to_owned).into_iter().collect();
        if self.options.namespace {
            cells.push(text("/metadata/namespace"));
        }
        for (at, column) in self.shown() {
            let cell = row.cells.get(at).map(cell_text).unwrap_or_default();
            let prefix = if column.format == "name" { self.options.prefix.as_str() } else { "" };
            cells.push(format!("{prefix}{cell}"));
        }
        let labels = row.object.pointer("/metadata/labels").and_then(Value::as_object);
        for label in &self.options.label_columns {
            let value = labels.and_then(|labels| labels.get(label)).and_then(Value::as_str);
            cells.push(value.unwrap_or_default().to_owned());
        }
        if self.options.labels {
            let pairs: Vec<String> = labels
                .into_iter()
                .flatten()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect();
            cells.push(if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") });
        }
        cells
    }
}

/// A cell as text; what comes after a line break is left out.
fn cell_text(cell: &Value) -> String {
    let text = match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.split_once(['\n', '\r', '\u{c}']) {
        Some((line, _)) => format!("{line}..."),
        None => text,
    }
}

/// A table of names and ages, for servers that make none.
pub(crate) fn fallback(objects: &[Value], now: Timestamp) -> Table {
    let column = |name: &str, format: &str| ColumnDefinition {
        name: name.to_owned(),
        kind: "string".to_owned(),
        format: format.to_owned(),
        ..ColumnDefinition::default()
    };
    let rows = objects.iter().map(|object| Row {
        cells: vec![
            object.pointer("/metadata/name").cloned().unwrap_or_default(),
            Value::from(time::age_of(object.pointer("/metadata/creationTimestamp"), now)),
        ],
        object: object.clone(),
    });
    Table {
        rows: rows.collect(),
        column_definitions: vec![column("Name", "name"), column("Age", "")],
        ..Table::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Table {
        serde_json::from_value(json!({"columnDefinitions": [
            {"name": "Name", "type": "string", "format": "name", "priority": 0},
            {"name": "Ready", "type": "string", "format": "", "priority": 0},
            {"name": "Restarts", "type": "integer", "priority": 0},
            {"name": "Node", "type": "string", "priority": 1}],
            "rows": [
            {"cells": ["web-1", "1/1", 0, "n1"], "object": {"metadata": {"namespace": "default", "labels": {"app": "web"}}}},
            {"cells": ["b", "0/1", 12, "n2"], "object": {"metadata": {"namespace": "kube-system"}}}]}))
        .unwrap()
    }

    #[test]
    fn the_layout_is_kubectls() {
        let mut printer = TablePrinter::new(Options::default());
        assert_eq!(
            printer.render(&table(), None),
            "NAME    READY   RESTARTS\nweb-1   1/1     0\nb       0/1     12\n"
        );
        let later =
            Table { column_definitions: Vec::new(), rows: table().rows[..1].to_vec(), ..Table::default() };
        assert_eq!(printer.render(&later, None), "web-1   1/1     0\n");
    }

    #[test]
    fn columns_come_with_flags() {
        let options = Options {
            wide: true,
            namespace: true,
            labels: true,
            label_columns: vec!["example.com/app".into(), "app".into()],
            prefix: "pod/".into(),
            no_headers: false,
        };
        assert_eq!(
            TablePrinter::new(options).render(&table(), None),
            "NAMESPACE     NAME        READY   RESTARTS   NODE   APP   APP   LABELS\n\
             default       pod/web-1   1/1     0          n1           web   app=web\n\
             kube-system   pod/b       0/1     12         n2                 <none>\n"
        );
    }

    #[test]
    fn events_of_a_watch_have_a_column() {
        let mut printer = TablePrinter::new(Options::default());
        let text = printer.render(&table(), Some(("EVENT", "ADDED")));
        assert!(text.starts_with("EVENT   NAME    READY   RESTARTS\nADDED   web-1   1/1     0\n"), "{text}");
    }
}
