//! Which fields a write adds, changes and removes.
//!
//! The walk is that of structured-merge-diff's comparison: a place that was not there becomes a member together
//! with everything below it; scalars, atomic maps and lists, and empty ones are leaves.

use std::sync::LazyLock;

use serde_json::Map;

use super::super::field_set::FieldSet;
use crate::object::Value;
use crate::schema::{ListType, MapType, Presence, Schema};

type Fields = Map<String, Value>;

static NOTHING: LazyLock<Fields> = LazyLock::new(Fields::new);

/// Fields of `metadata` that nobody owns.
const UNOWNED_METADATA: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// What a write did to the fields of an object.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Added and changed: the writer's from now on.
    pub(super) taken: FieldSet,
    /// Removed: nobody's any more.
    pub(super) gone: FieldSet,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.gone.is_empty()
    }
}

/// What is below a place in the object as it was.
#[derive(Clone, Copy)]
enum Before {
    /// Exactly what the old object holds.
    Real,
    /// The zero value of a Go struct: upstream compares a create with the empty object as Go writes it, in
    /// which structs and required lists are there. Nobody becomes their owner.
    Zero,
}

/// The changes from `live` (nothing for a create) to `new`. `main` says that the object itself is written, not
/// a subresource: its status is then none of the writer's doing.
pub(super) fn changes(live: Option<&Value>, new: &Value, main: bool, schema: Option<&Schema>) -> Changes {
    let mut changes = Changes::default();
    let old = live.and_then(Value::as_object).unwrap_or(&NOTHING);
    let new = new.as_object().unwrap_or(&NOTHING);
    let before = if live.is_none() { Before::Zero } else { Before::Real };
    for name in names(old, new) {
        let below = schema.and_then(|schema| schema.field(name));
        match name.as_str() {
            "apiVersion" | "kind" => {}
            "status" if main => {}
            "metadata" => {
                let old = old.get(name).and_then(Value::as_object).unwrap_or(&NOTHING);
                let new = new.get(name).and_then(Value::as_object).unwrap_or(&NOTHING);
                let mut metadata = Changes::default();
                for name in names(old, new).filter(|name| !UNOWNED_METADATA.contains(&name.as_str())) {
                    let below = below.and_then(|below| below.field(name));
                    metadata.field(name, old.get(name), new.get(name), below, Before::Real);
                }
                changes.taken.attach("f:metadata".to_owned(), metadata.taken);
                changes.gone.attach("f:metadata".to_owned(), metadata.gone);
            }
            _ => changes.field(name, old.get(name), new.get(name), below, before),
        }
    }
    changes
}

fn names<'v>(old: &'v Fields, new: &'v Fields) -> impl Iterator<Item = &'v String> {
    new.keys().chain(old.keys().filter(|name| !new.contains_key(*name)))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

impl Changes {
    fn field(
        &mut self,
        name: &str,
        old: Option<&Value>,
        new: Option<&Value>,
        schema: Option<&Schema>,
        before: Before,
    ) {
        let emitted =
            schema.is_some_and(|schema| matches!(schema.presence, Presence::Emit | Presence::EmitNull));
        let before = match before {
            Before::Zero if emitted && old.is_none() => Before::Zero,
            _ => Before::Real,
        };
        if matches!(before, Before::Zero) && new.is_none_or(is_zero) {
            return;
        }
        self.child(format!("f:{name}"), old, new, schema, before);
    }

    fn child(
        &mut self,
        element: String,
        old: Option<&Value>,
        new: Option<&Value>,
        schema: Option<&Schema>,
        before: Before,
    ) {
        if old == new {
            return;
        }
        let mut below = Changes::default();
        let leaf = below.descend(old, new, schema, before);
        match (old, new) {
            (None, Some(_)) => below.taken.member |= leaf || matches!(before, Before::Real),
            (Some(_), None) => below.gone.member = true,
            _ => below.taken.member |= leaf,
        }
        if !below.gone.is_empty() {
            self.gone.attach(element.clone(), below.gone);
        }
        self.taken.attach(element, below.taken);
    }

    /// Walks below a place; true when it is a leaf.
    fn descend(
        &mut self,
        old: Option<&Value>,
        new: Option<&Value>,
        schema: Option<&Schema>,
        before: Before,
    ) -> bool {
        let absent = |value: Option<&Value>| value.is_none_or(Value::is_null);
        let fields = |value: Option<&Value>| value.is_some_and(Value::is_object);
        let lists = |value: Option<&Value>| value.is_some_and(Value::is_array);
        if (fields(old) && (fields(new) || absent(new))) || (absent(old) && fields(new)) {
            self.maps(old, new, schema, before)
        } else if (lists(old) && (lists(new) || absent(new))) || (absent(old) && lists(new)) {
            self.lists(old, new, schema)
        } else {
            true
        }
    }

    fn maps(
        &mut self,
        old: Option<&Value>,
        new: Option<&Value>,
        schema: Option<&Schema>,
        before: Before,
    ) -> bool {
        let old = old.and_then(Value::as_object).unwrap_or(&NOTHING);
        let new = new.and_then(Value::as_object).unwrap_or(&NOTHING);
        let atomic = schema.is_some_and(|schema| schema.map_type() == Some(MapType::Atomic));
        if atomic || (old.is_empty() && new.is_empty()) {
            return true;
        }
        for name in names(old, new) {
            let below = schema.and_then(|schema| schema.field(name));
            self.field(name, old.get(name), new.get(name), below, before);
        }
        false
    }

    fn lists(&mut self, old: Option<&Value>, new: Option<&Value>, schema: Option<&Schema>) -> bool {
        let (Some(old), Some(new)) = (keyed(old, schema), keyed(new, schema)) else {
            return true;
        };
        if old.is_empty() && new.is_empty() {
            return true;
        }
        let schema = schema.and_then(Schema::items);
        for (at, (element, _)) in new.iter().enumerate() {
            if new[..at].iter().any(|(other, _)| other == element) {
                continue;
            }
            match (all(&old, element).as_slice(), all(&new, element).as_slice()) {
                ([], [item]) => self.child(element.clone(), None, Some(item), schema, Before::Real),
                ([old], [item]) => self.child(element.clone(), Some(old), Some(item), schema, Before::Real),
                // Items that share a key are owned together.
                (old, new) if old != new => {
                    self.taken.attach(element.clone(), FieldSet { member: true, ..FieldSet::default() });
                }
                _ => {}
            }
        }
        for (element, item) in &old {
            if !new.iter().any(|(other, _)| other == element) {
                self.child(element.clone(), Some(item), None, schema, Before::Real);
            }
        }
        false
    }
}

/// The items of a list with their path elements; nothing for an atomic one.
fn keyed<'v>(list: Option<&'v Value>, schema: Option<&Schema>) -> Option<Vec<(String, &'v Value)>> {
    let items = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    items.iter().map(|item| Some((element(item, schema)?, item))).collect()
}

fn all<'v>(list: &[(String, &'v Value)], element: &str) -> Vec<&'v Value> {
    list.iter().filter(|(other, _)| other == element).map(|(_, item)| *item).collect()
}

/// The path element of a list item: `k:{…}` or `v:…`; nothing in an atomic list, and when an item lacks all of
/// its keys.
fn element(item: &Value, schema: Option<&Schema>) -> Option<String> {
    match schema?.list_type()? {
        ListType::Atomic => None,
        ListType::Set => Some(format!("v:{item}")),
        ListType::Map => {
            let keys = schema?.list_map_keys().iter();
            let mut fields: Vec<(&str, &Value)> =
                keys.filter_map(|key| Some((key.as_ref(), item.get(key.as_ref())?))).collect();
            if fields.is_empty() {
                return None;
            }
            fields.sort_unstable_by_key(|(key, _)| *key);
            let parts: Vec<String> = fields.iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
            Some(format!("k:{{{}}}", parts.join(",")))
        }
    }
}
