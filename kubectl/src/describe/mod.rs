//! `kubectl describe`: what a person wants to know about an object, and what happened to it.

mod config;
mod node;
mod pod;
mod service;
mod workload;

use std::fmt::Write;

use api_objects::selector::LabelSelector;
use api_objects::{Resource, Value, time};
use jiff::{Timestamp, tz::TimeZone};

use crate::commands::apply::LAST_APPLIED;
use crate::printers::tabs;

/// Everything that a description is made of.
pub(crate) struct Subject<'a> {
    /// Its kind.
    pub(crate) resource: &'a Resource,
    /// The object.
    pub(crate) object: &'a Value,
    /// Events about it; nothing when they are not wanted.
    pub(crate) events: Option<&'a [Value]>,
    /// Pods on it or of it, where the kind has some.
    pub(crate) pods: &'a [Value],
    /// The present.
    pub(crate) now: Timestamp,
}

/// The description of an object.
pub(crate) fn describe(subject: &Subject<'_>) -> String {
    let mut report = Report::default();
    match (subject.resource.group.as_ref(), subject.resource.kind.as_ref()) {
        ("", "Pod") => pod::describe(&mut report, subject),
        ("", "Node") => node::describe(&mut report, subject),
        ("", "Service") => service::describe(&mut report, subject),
        ("", "ConfigMap") => config::config_map(&mut report, subject),
        ("", "Secret") => config::secret(&mut report, subject),
        ("", "Namespace") => config::namespace(&mut report, subject),
        ("apps", "ReplicaSet" | "Deployment") => workload::describe(&mut report, subject),
        _ => generic(&mut report, subject),
    }
    // Upstream prints none for Secrets.
    if subject.resource.kind != "Secret" {
        events(&mut report, subject);
    }
    report.finish()
}

/// Lines with cells, laid out in the end.
#[derive(Default)]
pub(crate) struct Report(String);

impl Report {
    /// A line at a depth; tabs end cells.
    pub(crate) fn line(&mut self, depth: usize, text: &str) {
        self.0.extend(std::iter::repeat_n("  ", depth));
        self.0.push_str(text);
        self.0.push('\n');
    }

    /// `Name:` and its value.
    pub(crate) fn field(&mut self, depth: usize, name: &str, value: &str) {
        self.line(depth, &format!("{name}:\t{value}"));
    }

    /// A field with a map below it, `<none>` when empty.
    pub(crate) fn map(&mut self, depth: usize, name: &str, map: Option<&Value>) {
        self.map_with(depth, name, map, "=");
    }

    /// The same with another sign between key and value.
    pub(crate) fn map_with(&mut self, depth: usize, name: &str, map: Option<&Value>, sign: &str) {
        let entries: Vec<String> = map
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter(|(key, _)| *key != LAST_APPLIED)
            .map(|(key, value)| format!("{key}{sign}{}", text_of(value)))
            .collect();
        self.list(depth, name, &entries);
    }

    /// A field with several values, one a line.
    pub(crate) fn list(&mut self, depth: usize, name: &str, values: &[String]) {
        match values.split_first() {
            None => self.field(depth, name, "<none>"),
            Some((first, rest)) => {
                self.field(depth, name, first);
                for value in rest {
                    self.line(depth, &format!("\t{value}"));
                }
            }
        }
    }

    /// Text that is laid out already.
    pub(crate) fn raw(&mut self, text: &str) {
        self.0.push_str(text);
    }

    fn finish(self) -> String {
        tabs::align(&self.0, 0, 2)
    }
}

/// A value as text.
pub(crate) fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The text at a pointer, or another.
pub(crate) fn text_at<'v>(value: &'v Value, pointer: &str, otherwise: &'v str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).unwrap_or(otherwise)
}

/// The items of a list at a pointer.
pub(crate) fn items_at<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A time as people read it: `Sat, 21 Nov 2026 10:00:00 +0000`.
pub(crate) fn long_time(value: Option<&Value>) -> String {
    match value.and_then(Value::as_str).and_then(time::parse) {
        None => "<unset>".to_owned(),
        Some(at) => at.to_zoned(TimeZone::system()).strftime("%a, %d %b %Y %H:%M:%S %z").to_string(),
    }
}

/// Name, namespace, labels and annotations: the head of most descriptions.
pub(crate) fn head(report: &mut Report, subject: &Subject<'_>) {
    let object = subject.object;
    report.field(0, "Name", text_at(object, "/metadata/name", ""));
    if subject.resource.namespaced {
        report.field(0, "Namespace", text_at(object, "/metadata/namespace", ""));
    }
}

/// Labels and annotations.
pub(crate) fn labels(report: &mut Report, object: &Value) {
    report.map(0, "Labels", object.pointer("/metadata/labels"));
    report.map_with(0, "Annotations", object.pointer("/metadata/annotations"), ": ");
}

/// A selector as `-l` takes it, `<none>` for an absent one.
pub(crate) fn selector_text(selector: Option<&Value>) -> String {
    match LabelSelector::from_object(selector) {
        Ok(selector) if !selector.requirements().is_empty() => selector.to_string(),
        Ok(_) => "<none>".to_owned(),
        Err(_) => "<error>".to_owned(),
    }
}

/// Any kind: its fields as they are, with names as people write them.
fn generic(report: &mut Report, subject: &Subject<'_>) {
    let object = subject.object;
    head(report, subject);
    labels(report, object);
    report.field(0, "API Version", text_at(object, "/apiVersion", ""));
    report.field(0, "Kind", text_at(object, "/kind", ""));
    let mut metadata = object["metadata"].clone();
    if let Some(fields) = metadata.as_object_mut() {
        for known in ["name", "namespace", "labels", "annotations", "managedFields"] {
            fields.remove(known);
        }
    }
    report.line(0, "Metadata:");
    fields(report, 1, &metadata);
    for (name, value) in object.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            field(report, 0, name, value);
        }
    }
}

fn fields(report: &mut Report, depth: usize, value: &Value) {
    for (name, value) in value.as_object().into_iter().flatten() {
        field(report, depth, name, value);
    }
}

fn field(report: &mut Report, depth: usize, name: &str, value: &Value) {
    let title = title(name);
    match value {
        Value::Object(map) if map.is_empty() => report.line(depth, &format!("{title}:")),
        Value::Object(_) => {
            report.line(depth, &format!("{title}:"));
            fields(report, depth + 1, value);
        }
        Value::Array(items) => {
            report.line(depth, &format!("{title}:"));
            for item in items {
                match item {
                    Value::Object(_) => fields(report, depth + 1, item),
                    other => report.line(depth + 1, &text_of(other)),
                }
            }
        }
        other => report.field(depth, &title, &text_of(other)),
    }
}

/// `podCIDRs` → `Pod CID Rs`, `creationTimestamp` → `Creation Timestamp`: words begin at capitals.
fn title(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let characters: Vec<char> = name.chars().collect();
    for (at, c) in characters.iter().enumerate() {
        let after_small = at > 0 && characters[at - 1].is_lowercase();
        let before_small = at > 0 && characters.get(at + 1).is_some_and(|next| next.is_lowercase());
        if at == 0 {
            out.extend(c.to_uppercase());
        } else {
            if c.is_uppercase() && (after_small || before_small) {
                out.push(' ');
            }
            out.push(*c);
        }
    }
    out
}

/// What happened to the object, oldest first.
fn events(report: &mut Report, subject: &Subject<'_>) {
    let Some(events) = subject.events else { return };
    if events.is_empty() {
        report.field(0, "Events", "<none>");
        return;
    }
    let last = |event: &Value| -> Option<Timestamp> {
        ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
            .iter()
            .find_map(|pointer| event.pointer(pointer)?.as_str().and_then(time::parse))
    };
    let mut sorted: Vec<&Value> = events.iter().collect();
    sorted.sort_by_key(|event| last(event));
    report.line(0, "Events:");
    report.line(1, "Type\tReason\tAge\tFrom\tMessage");
    report.line(1, "----\t------\t----\t----\t-------");
    for event in sorted {
        let age = last(event).map_or_else(|| "<unknown>".to_owned(), |at| time::age(at, subject.now));
        let count = event
            .pointer("/series/count")
            .or_else(|| event.get("count"))
            .and_then(Value::as_i64)
            .unwrap_or(1);
        let first = ["/firstTimestamp", "/eventTime"]
            .iter()
            .find_map(|pointer| event.pointer(pointer)?.as_str().and_then(time::parse));
        let mut interval = age;
        if let (true, Some(first)) = (count > 1, first) {
            let _ = write!(interval, " (x{count} over {})", time::age(first, subject.now));
        }
        let from = text_at(event, "/source/component", text_at(event, "/reportingComponent", ""));
        let cells = [
            text_at(event, "/type", ""),
            text_at(event, "/reason", ""),
            &interval,
            from,
            text_at(event, "/message", "").trim(),
        ];
        report.line(1, &cells.join("\t"));
    }
}

#[cfg(test)]
mod tests;
