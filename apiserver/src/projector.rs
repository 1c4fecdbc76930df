//! What the watch cache keeps beside an object's bytes: labels and selectable fields.
//!
//! Computed once per write, so that a selector never parses an object. Which fields can be selected is a
//! table per resource, as upstream's field label conversions say (`k8s.io/kubernetes/pkg/apis/*/v1/conversion.go`);
//! `metadata.name` and `metadata.namespace` are read from the key.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use api_objects::Resource;
use apiserver_storage::{
    Entry,
    cacher::{Item, Projector},
};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Selectable fields of one resource: the path in the stored object, what selectors call it, and the value
/// that an absent field has.
struct Field {
    path: &'static str,
    label: &'static str,
    absent: Absent,
}

#[derive(Clone, Copy)]
enum Absent {
    Is(&'static str),
    /// The same as another field's, by its label.
    As(&'static str),
}

const fn field(path: &'static str) -> Field {
    Field { path, label: path, absent: Absent::Is("") }
}

const fn field_or(path: &'static str, label: &'static str, absent: &'static str) -> Field {
    Field { path, label, absent: Absent::Is(absent) }
}

const fn field_as(path: &'static str, label: &'static str, other: &'static str) -> Field {
    Field { path, label, absent: Absent::As(other) }
}

/// By the first two segments of the key under `/registry/`.
const SELECTABLE: &[(&str, &[Field])] = &[
    (
        "core/pods",
        &[
            field("spec.nodeName"),
            field("spec.restartPolicy"),
            field("spec.schedulerName"),
            field("spec.serviceAccountName"),
            field_or("spec.hostNetwork", "spec.hostNetwork", "false"),
            field("status.phase"),
            field("status.podIP"),
            field("status.nominatedNodeName"),
        ],
    ),
    (
        "core/events",
        &[
            field("involvedObject.kind"),
            field("involvedObject.namespace"),
            field("involvedObject.name"),
            field("involvedObject.uid"),
            field("involvedObject.apiVersion"),
            field("involvedObject.resourceVersion"),
            field("involvedObject.fieldPath"),
            field("reason"),
            field("reportingComponent"),
            // Events of the newer kind have no source but their reporter.
            field_as("source.component", "source", "reportingComponent"),
            field("type"),
        ],
    ),
    ("core/nodes", &[field_or("spec.unschedulable", "spec.unschedulable", "false")]),
    ("core/namespaces", &[field("status.phase")]),
    ("core/secrets", &[field("type")]),
    ("core/services", &[field("spec.clusterIP"), field("spec.type")]),
    ("core/replicationcontrollers", &[field_or("status.replicas", "status.replicas", "0")]),
    ("apps/replicasets", &[field_or("status.replicas", "status.replicas", "0")]),
    ("batch/jobs", &[field_or("status.succeeded", "status.successful", "0")]),
    ("certificates.k8s.io/certificatesigningrequests", &[field("spec.signerName")]),
];

/// What selectors are evaluated on, without the object.
#[derive(Debug, Default)]
pub struct ObjectIndex {
    /// `metadata.labels`, sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// The resource's selectable fields in the table's order; empty for resources without any.
    fields: Box<[Box<str>]>,
}

impl ObjectIndex {
    /// The labels as a map, for matching that wants one.
    #[must_use]
    pub fn label_map(&self) -> BTreeMap<String, String> {
        self.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    /// A label's value.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| &**name == key).map(|(_, value)| &**value)
    }
}

/// Computes [`ObjectIndex`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ObjectProjector;

impl Projector for ObjectProjector {
    type Index = ObjectIndex;

    fn project(&self, entry: &Entry) -> ObjectIndex {
        let fields = selectable(&entry.key);
        let mut found = Found { table: fields, path: String::new(), ..Found::default() };
        found.fields.resize(fields.len(), None);
        let mut decoder = serde_json::Deserializer::from_slice(&entry.value);
        if Walk(&mut found).deserialize(&mut decoder).is_err() && !found.complete {
            return ObjectIndex::default();
        }
        found.labels.sort_unstable();
        for (position, field) in fields.iter().enumerate() {
            if let Absent::As(other) = field.absent
                && found.fields[position].as_deref().unwrap_or_default().is_empty()
            {
                let other = fields.iter().position(|field| field.label == other);
                found.fields[position] = other.and_then(|other| found.fields[other].clone());
            }
        }
        let absent = |field: &Field| match field.absent {
            Absent::Is(text) => text.into(),
            Absent::As(_) => "".into(),
        };
        ObjectIndex {
            labels: found.labels.into_boxed_slice(),
            fields: std::iter::zip(found.fields, fields)
                .map(|(value, field)| value.unwrap_or_else(|| absent(field)))
                .collect(),
        }
    }
}

/// The table of the resource that a key belongs to.
fn selectable(key: &str) -> &'static [Field] {
    let rest = key.strip_prefix("/registry/").unwrap_or(key);
    SELECTABLE
        .iter()
        .find(|(resource, _)| rest.strip_prefix(resource).is_some_and(|tail| tail.starts_with('/')))
        .map_or(&[], |(_, fields)| fields)
}

/// The value of a selectable field of an item; `None` if the field cannot be selected.
#[must_use]
pub fn field_value<'a>(item: &'a Item<ObjectIndex>, label: &str) -> Option<&'a str> {
    let mut from_the_end = item.entry.key.rsplit('/');
    match label {
        "metadata.name" => return from_the_end.next(),
        "metadata.namespace" => {
            // `/registry/group/plural/name` has four segments after the first slash's empty one.
            let namespaced = item.entry.key.matches('/').count() == 5;
            return Some(if namespaced { from_the_end.nth(1).unwrap_or_default() } else { "" });
        }
        _ => {}
    }
    let position = selectable(&item.entry.key).iter().position(|field| field.label == label)?;
    item.index.fields.get(position).map(|value| &**value)
}

/// What the cache calls a field that the resource's clients select by; `None` if it cannot be selected.
#[must_use]
pub fn stored_label<'a>(resource: &Resource, label: &'a str) -> Option<Cow<'a, str>> {
    if matches!(label, "metadata.name" | "metadata.namespace") {
        return Some(label.into());
    }
    // events.k8s.io has other names for the same fields.
    let label: Cow<'a, str> = match label.split_once('.') {
        Some(("regarding", field)) if resource.group == "events.k8s.io" => {
            format!("involvedObject.{field}").into()
        }
        None if label == "reportingController" => "reportingComponent".into(),
        _ => label.into(),
    };
    selectable(&resource.key_prefix("")).iter().any(|field| field.label == label).then_some(label)
}

// === the walk: one pass over the bytes, which keeps only what the table names ===

#[derive(Default)]
struct Found {
    table: &'static [Field],
    /// Where the walk is.
    path: String,
    labels: Vec<(Box<str>, Box<str>)>,
    fields: Vec<Option<Box<str>>>,
    /// Nothing that is wanted can follow: the walk has ended early.
    complete: bool,
}

impl Found {
    /// Whether anything that is wanted lies at or below `path`.
    fn leads_somewhere(&self) -> bool {
        let path = &*self.path;
        path == "metadata"
            || path == "metadata.labels"
            || self.table.iter().any(|field| {
                field.path.strip_prefix(path).is_some_and(|tail| tail.is_empty() || tail.starts_with('.'))
            })
    }
}

/// Visits one JSON value at the walk's path.
struct Walk<'a>(&'a mut Found);

impl Walk<'_> {
    fn keep(self, value: &str) {
        let found = self.0;
        if let Some(position) = found.table.iter().position(|field| field.path == found.path) {
            found.fields[position] = Some(value.into());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let found = self.0;
        if found.path == "metadata.labels" {
            while let Some((key, value)) = map.next_entry::<Box<str>, Option<Box<str>>>()? {
                found.labels.push((key, value.unwrap_or_default()));
            }
            return Ok(());
        }
        let start = found.path.len();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if start > 0 {
                found.path.push('.');
            }
            found.path.push_str(&key);
            if found.leads_somewhere() {
                map.next_value_seed(Walk(found))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            // Most kinds are selected by labels only; what follows their metadata is most of their bytes.
            if found.table.is_empty() && found.path == "metadata" {
                found.complete = true;
                return Err(A::Error::custom("all that is wanted has been found"));
            }
            found.path.truncate(start);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.keep(value);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.keep(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.keep(&value.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.keep(&value.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.keep(&value.to_string());
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;

    fn item(key: &str, value: &str) -> Item<ObjectIndex> {
        let entry = Entry { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), revision: 1 };
        let index = ObjectProjector.project(&entry);
        Item { entry: Arc::new(entry), index }
    }

    #[test]
    fn labels_and_fields_of_a_pod() {
        let pod = item(
            "/registry/core/pods/default/web",
            r#"{"kind":"Pod","metadata":{"name":"web","labels":{"b":"2","a":"1"}},
                "spec":{"nodeName":"n1","containers":[{"name":"c"}],"hostNetwork":true},"status":{"phase":"Running"}}"#,
        );
        assert_eq!(pod.index.label("a"), Some("1"));
        assert_eq!(field_value(&pod, "spec.nodeName"), Some("n1"));
        assert_eq!(field_value(&pod, "spec.hostNetwork"), Some("true"));
        assert_eq!(field_value(&pod, "status.podIP"), Some(""));
        assert_eq!(field_value(&pod, "metadata.name"), Some("web"));
        assert_eq!(field_value(&pod, "metadata.namespace"), Some("default"));
        assert_eq!(field_value(&pod, "spec.unknown"), None);
    }

    #[test]
    fn absent_fields_have_their_defaults() {
        let node = item("/registry/core/nodes/n1", r#"{"metadata":{"name":"n1"}}"#);
        assert_eq!(field_value(&node, "spec.unschedulable"), Some("false"));
        assert_eq!(field_value(&node, "metadata.namespace"), Some(""));
        let job = item("/registry/batch/jobs/default/j", r#"{"status":{"succeeded":2}}"#);
        assert_eq!(field_value(&job, "status.successful"), Some("2"));
    }

    #[test]
    fn an_events_source_may_be_its_reporter() {
        let event = |text| item("/registry/core/events/default/e", text);
        let newer = event(r#"{"metadata":{},"source":{},"reportingComponent":"c"}"#);
        assert_eq!(field_value(&newer, "source"), Some("c"));
        let older = event(r#"{"metadata":{},"source":{"component":"a"},"reportingComponent":""}"#);
        assert_eq!(field_value(&older, "source"), Some("a"));
    }

    #[test]
    fn labels_may_follow_other_metadata_and_stand_before_anything_else() {
        let map = item(
            "/registry/core/configmaps/default/a",
            r#"{"kind":"ConfigMap","metadata":{"annotations":{"labels":"no"},"labels":{"a":"1"},"name":"a"},"data":{"labels":"no"}}"#,
        );
        assert_eq!(map.index.labels, [("a".into(), "1".into())].into());
        let plain = item("/registry/core/configmaps/default/a", r#"{"metadata":{"name":"a"},"data":{}}"#);
        assert!(plain.index.labels.is_empty());
    }

    #[test]
    fn broken_bytes_have_an_empty_index() {
        assert!(item("/registry/core/pods/a/b", "{").index.labels.is_empty());
    }
}
