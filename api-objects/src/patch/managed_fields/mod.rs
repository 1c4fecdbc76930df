//! `metadata.managedFields`: who wrote which field, kept on every create, update and patch.
//!
//! The rules are those of `k8s.io/apimachinery/pkg/util/managedfields` and of structured-merge-diff: what a write
//! adds or changes belongs to its manager and to nobody else; what it removes belongs to nobody; a write that
//! changes nothing leaves the entries and their times alone.

mod compare;

use jiff::Timestamp;
use serde_json::Map;

use super::field_set::FieldSet;
use crate::object::Value;
use crate::schema::Schema;
use crate::time;
use compare::Changes;

/// So many entries of updates are kept apart; older ones are thrown together.
const MAX_UPDATE_MANAGERS: usize = 10;
/// The name under which old entries are thrown together.
const ANCIENT: &str = "ancient-changes";

/// Whose write it is.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// `fieldManager`, or the first part of the user agent.
    pub manager: &'a str,
    /// The subresource that is written to; empty for the object itself.
    pub subresource: &'a str,
    /// The version in which the object was written.
    pub api_version: &'a str,
}

/// One entry, its fields decoded.
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    time: String,
    subresource: String,
    fields: FieldSet,
}

impl Entry {
    fn from_wire(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let fields = FieldSet::from_wire(entry.get("fieldsV1")?);
        Some(Self {
            manager: text("manager"),
            operation: text("operation"),
            api_version: text("apiVersion"),
            time: text("time"),
            subresource: text("subresource"),
            fields,
        })
    }

    fn into_wire(self) -> Value {
        let mut entry = Map::new();
        let mut put = |name: &str, value: String| {
            if !value.is_empty() {
                entry.insert(name.to_owned(), Value::String(value));
            }
        };
        put("manager", self.manager);
        put("operation", self.operation);
        put("apiVersion", self.api_version);
        put("time", self.time);
        put("subresource", self.subresource);
        put("fieldsType", "FieldsV1".to_owned());
        entry.insert("fieldsV1".to_owned(), self.fields.into_wire());
        Value::Object(entry)
    }

    fn is_update(&self) -> bool {
        self.operation == "Update"
    }
}

/// Brings `new`'s managed fields up to date: `live` is the object as it was, nothing for a create. To be called
/// when `new` has its defaults and before admission changes it, as upstream does, so that nobody comes to own
/// what the server adds.
pub fn update(
    live: Option<&Value>,
    new: &mut Value,
    writer: Writer<'_>,
    schema: Option<&Schema>,
    now: Timestamp,
) {
    let stored =
        |object: &Value| object.pointer("/metadata/managedFields").and_then(Value::as_array).cloned();
    let given = stored(new).filter(|entries| !entries.is_empty() && writer.subresource.is_empty());
    let mut entries = given.or_else(|| live.and_then(stored)).unwrap_or_default();
    // A client clears the list by writing one empty entry.
    entries.retain(|entry| entry.get("fieldsV1").is_some());
    let changes = compare::changes(live, new, writer.subresource.is_empty(), schema);
    let entries = if changes.is_empty() { entries } else { own(&entries, changes, writer, now) };
    let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}

/// Moves ownership: what was taken goes to the writer, what is gone away from all.
fn own(entries: &[Value], changes: Changes, writer: Writer<'_>, now: Timestamp) -> Vec<Value> {
    let Changes { taken, gone } = changes;
    let mut entries: Vec<Entry> = entries.iter().filter_map(Entry::from_wire).collect();
    for entry in &mut entries {
        entry.fields.subtract(&taken);
        entry.fields.subtract(&gone);
    }
    if !taken.is_empty() {
        let manager = if writer.manager.is_empty() { "unknown" } else { writer.manager };
        let own = entries.iter_mut().find(|entry| {
            entry.is_update()
                && entry.manager == manager
                && entry.api_version == writer.api_version
                && entry.subresource == writer.subresource
        });
        let time = time::rfc3339(now);
        match own {
            Some(entry) => {
                entry.fields.unite(taken);
                entry.time = time;
            }
            None => entries.push(Entry {
                manager: manager.to_owned(),
                operation: "Update".to_owned(),
                api_version: writer.api_version.to_owned(),
                time,
                subresource: writer.subresource.to_owned(),
                fields: taken,
            }),
        }
    }
    entries.retain(|entry| !entry.fields.is_empty());
    cap(&mut entries);
    entries.sort_by(|left, right| {
        let key = |entry: &Entry| {
            (
                entry.operation.clone(),
                entry.time.clone(),
                entry.manager.clone(),
                entry.api_version.clone(),
                entry.subresource.clone(),
            )
        };
        key(left).cmp(&key(right))
    });
    entries.into_iter().map(Entry::into_wire).collect()
}

/// Throws the oldest updates of a version together until few enough are left.
fn cap(entries: &mut Vec<Entry>) {
    while entries.iter().filter(|entry| entry.is_update()).count() > MAX_UPDATE_MANAGERS {
        let mut updates: Vec<usize> = (0..entries.len()).filter(|at| entries[*at].is_update()).collect();
        updates.sort_by(|left, right| {
            let age = |at: usize| (entries[at].manager != ANCIENT, entries[at].time.as_str());
            age(*left).cmp(&age(*right))
        });
        let pair = updates.iter().enumerate().find_map(|(rank, first)| {
            let version = &entries[*first].api_version;
            updates[rank + 1..]
                .iter()
                .find(|at| &entries[**at].api_version == version)
                .map(|second| (*first, *second))
        });
        // Every entry of a version of its own: there is nothing to throw together.
        let Some((first, second)) = pair else { return };
        let absorbed = entries.remove(first.max(second));
        let kept = &mut entries[first.min(second)];
        kept.fields.unite(absorbed.fields);
        ANCIENT.clone_into(&mut kept.manager);
        kept.subresource.clear();
        kept.time = std::mem::take(&mut kept.time).max(absorbed.time);
    }
}

#[cfg(test)]
mod tests;
