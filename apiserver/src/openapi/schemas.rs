//! JSON schemas of definitions, made from the schema facts and the published descriptions.

use std::collections::{BTreeMap, BTreeSet};

use api_objects::schema::{self, Definition, Kind, ListType, MapType, Schema, explain::Descriptions};
use serde_json::{Map, Value, json};

/// The form of a document: the two versions of OpenAPI refer to schemas differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    V2,
    V3,
}

impl Form {
    /// A reference to a definition.
    pub(super) fn reference(self, definition: &str) -> Value {
        match self {
            Self::V2 => json!({ "$ref": format!("#/definitions/{definition}") }),
            Self::V3 => json!({ "$ref": format!("#/components/schemas/{definition}") }),
        }
    }

    /// A reference with further words beside it: v3 ignores whatever stands next to a `$ref`.
    fn described_reference(self, definition: &str) -> Map<String, Value> {
        let reference = self.reference(definition);
        let object = match self {
            Self::V2 => reference,
            Self::V3 => json!({ "allOf": [reference] }),
        };
        object.as_object().cloned().unwrap_or_default()
    }
}

/// The schemas of definitions and of everything that they refer to.
pub(super) fn closure(
    roots: BTreeSet<String>,
    form: Form,
    descriptions: &Descriptions,
) -> BTreeMap<String, Value> {
    let mut done = BTreeMap::new();
    let mut waiting: Vec<String> = roots.into_iter().collect();
    while let Some(name) = waiting.pop() {
        if done.contains_key(&name) {
            continue;
        }
        let Some(definition) = schema::definition(&name).and_then(Schema::definition) else { continue };
        done.insert(name.clone(), of_definition(definition, form, descriptions, &mut waiting));
    }
    done
}

fn of_definition(
    definition: &Definition,
    form: Form,
    descriptions: &Descriptions,
    referred: &mut Vec<String>,
) -> Value {
    let mut out = Map::new();
    if let Some(text) = descriptions.definition(&definition.name) {
        out.insert("description".to_owned(), text.into());
    }
    let schema = definition.schema();
    match schema.kind() {
        Kind::Object => {
            out.insert("type".to_owned(), "object".into());
            let mut properties = Map::new();
            for field in &definition.fields {
                let text = descriptions.field(&definition.name, &field.name);
                properties.insert(field.name.to_string(), of_place(&field.schema, form, text, referred));
            }
            if !properties.is_empty() {
                out.insert("properties".to_owned(), properties.into());
            }
            let required: Vec<&str> =
                definition.fields.iter().filter(|field| field.required).map(|field| &*field.name).collect();
            if !required.is_empty() {
                out.insert("required".to_owned(), json!(required));
            }
        }
        scalar => write_type(&mut out, scalar, form, referred),
    }
    if schema.map_type() == Some(MapType::Atomic) {
        out.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    if let Some([group, version, kind]) = &definition.group_version_kind {
        out.insert(
            "x-kubernetes-group-version-kind".to_owned(),
            json!([{ "group": group, "kind": kind, "version": version }]),
        );
    }
    out.into()
}

/// The schema of a field or an element.
fn of_place(place: &Schema, form: Form, description: Option<&str>, referred: &mut Vec<String>) -> Value {
    let mut out = match place.definition() {
        Some(definition) => {
            referred.push(definition.name.to_string());
            if description.is_none() {
                return form.reference(&definition.name);
            }
            form.described_reference(&definition.name)
        }
        None => {
            let mut out = Map::new();
            write_type(&mut out, place.kind(), form, referred);
            out
        }
    };
    if let Some(text) = description {
        out.insert("description".to_owned(), text.into());
    }
    write_merge_rules(&mut out, place);
    out.into()
}

fn write_merge_rules(out: &mut Map<String, Value>, place: &Schema) {
    if let Some(list_type) = place.list_type() {
        let name = match list_type {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        out.insert("x-kubernetes-list-type".to_owned(), name.into());
    }
    if !place.list_map_keys().is_empty() {
        out.insert("x-kubernetes-list-map-keys".to_owned(), json!(place.list_map_keys()));
    }
    if place.definition().is_none() && place.map_type() == Some(MapType::Atomic) {
        out.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    if let Some(key) = place.merge_key() {
        out.insert("x-kubernetes-patch-merge-key".to_owned(), key.into());
    }
    let strategies = place.patch_strategies();
    let names: Vec<&str> = [
        (strategies.merge, "merge"),
        (strategies.replace, "replace"),
        (strategies.retain_keys, "retainKeys"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
    .collect();
    if !names.is_empty() {
        out.insert("x-kubernetes-patch-strategy".to_owned(), names.join(",").into());
    }
}

fn write_type(out: &mut Map<String, Value>, kind: &Kind, form: Form, referred: &mut Vec<String>) {
    let mut put = |name: &str, value: Value| {
        out.insert(name.to_owned(), value);
    };
    let mut typed = |kind: &str, format: &str| {
        put("type", kind.into());
        if !format.is_empty() {
            put("format", format.into());
        }
    };
    match kind {
        Kind::Boolean => typed("boolean", ""),
        Kind::Int32 => typed("integer", "int32"),
        Kind::Int64 => typed("integer", "int64"),
        Kind::Double => typed("number", "double"),
        Kind::String => typed("string", ""),
        Kind::Bytes => typed("string", "byte"),
        Kind::Time | Kind::MicroTime => typed("string", "date-time"),
        Kind::Quantity | Kind::IntOrString if form == Form::V3 => {
            let other = if matches!(kind, Kind::Quantity) { "number" } else { "integer" };
            put("oneOf", json!([{ "type": "string" }, { "type": other }]));
            if matches!(kind, Kind::IntOrString) {
                put("format", "int-or-string".into());
            }
        }
        Kind::Quantity => typed("string", ""),
        Kind::IntOrString => typed("string", "int-or-string"),
        Kind::Any | Kind::Object => typed("object", ""),
        Kind::List(items) => {
            typed("array", "");
            let items = of_place(items, form, None, referred);
            out.insert("items".to_owned(), items);
        }
        Kind::Map(values) => {
            typed("object", "");
            let values = of_place(values, form, None, referred);
            out.insert("additionalProperties".to_owned(), values);
        }
    }
}
