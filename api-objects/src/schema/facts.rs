//! Loads the generated facts, once, and resolves every reference to an index.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::{Definition, DefinitionId, Field, Kind, ListType, MapType, PatchStrategies, Presence, Schema};

const FACTS: &str = include_str!("facts.json");

static DEFINITIONS: LazyLock<Vec<Definition>> = LazyLock::new(|| load(FACTS));

/// Every definition, sorted by name.
pub(super) fn all() -> &'static [Definition] {
    &DEFINITIONS
}

/// The definition at an index.
pub(super) fn definition(id: DefinitionId) -> &'static Definition {
    &DEFINITIONS[usize::from(id.0)]
}

/// The definition of that name.
pub(super) fn find(name: &str) -> Option<&'static Definition> {
    let at = DEFINITIONS.binary_search_by(|definition| (*definition.name).cmp(name)).ok()?;
    Some(&DEFINITIONS[at])
}

/// The facts are generated and compiled in: whatever is wrong with them is a mistake of the build, found by
/// the first test that touches a schema.
fn load(text: &str) -> Vec<Definition> {
    let facts: Map<String, Value> = serde_json::from_str(text).expect("the facts must be JSON");
    let mut sources: Vec<(&str, &Value)> = facts.iter().map(|(name, fact)| (name.as_str(), fact)).collect();
    sources.sort_unstable_by_key(|(name, _)| *name);
    sources
        .iter()
        .enumerate()
        .map(|(at, (name, fact))| Loader { sources: &sources }.definition(at, name, fact))
        .collect()
}

struct Loader<'a> {
    sources: &'a [(&'a str, &'a Value)],
}

impl Loader<'_> {
    fn definition(&self, at: usize, name: &str, fact: &Value) -> Definition {
        let required = strings(&fact["required"]);
        let mut fields: Vec<Field> = fact["fields"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, source)| Field {
                name: name.as_str().into(),
                required: required.contains(&name.as_str()),
                schema: self.field(source),
            })
            .collect();
        fields.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let emitted = fields
            .iter()
            .enumerate()
            .filter(|(_, field)| matches!(field.schema.presence, Presence::Emit | Presence::EmitNull))
            .map(|(at, _)| index(at))
            .collect();
        let group_version_kind = fact["kind"].as_array().map(|kind| {
            std::array::from_fn(|part| kind[part].as_str().expect("a kind must be three strings").into())
        });
        let schema = Schema {
            map_type: map_type(&fact["mapType"]),
            definition: Some(DefinitionId(index(at))),
            ..bare(
                fact["scalar"]
                    .as_str()
                    .map_or(Kind::Object, |name| scalar(name).expect("a scalar must be known")),
            )
        };
        Definition { name: name.into(), group_version_kind, fields: fields.into(), emitted, schema }
    }

    fn field(&self, source: &Value) -> Schema {
        let expression =
            source.as_str().or_else(|| source["type"].as_str()).expect("a field must have a type");
        let (pointer, rest) = expression.strip_prefix('*').map_or((false, expression), |rest| (true, rest));
        let (emitted, base) = rest.strip_suffix('!').map_or((false, rest), |base| (true, base));
        let strategies = strings(&source["strategy"]);
        Schema {
            presence: match (pointer, emitted) {
                (true, false) => Presence::Keep,
                (true, true) => Presence::EmitNull,
                (false, true) => Presence::Emit,
                (false, false) => Presence::Drop,
            },
            list_type: match source["listType"].as_str() {
                Some("atomic") => Some(ListType::Atomic),
                Some("set") => Some(ListType::Set),
                Some("map") => Some(ListType::Map),
                _ => None,
            },
            list_map_keys: strings(&source["listMapKeys"]).into_iter().map(Into::into).collect(),
            map_type: map_type(&source["mapType"]),
            merge_key: source["mergeKey"].as_str().map(Into::into),
            strategies: PatchStrategies {
                merge: strategies.contains(&"merge"),
                replace: strategies.contains(&"replace"),
                retain_keys: strategies.contains(&"retainKeys"),
            },
            go_type: source["goType"].as_str().map(Into::into),
            ..self.expression(base)
        }
    }

    fn expression(&self, text: &str) -> Schema {
        if let Some(items) = text.strip_prefix("[]") {
            return bare(Kind::List(Box::new(self.expression(items))));
        }
        if let Some(values) = text.strip_prefix("map[string]") {
            return bare(Kind::Map(Box::new(self.expression(values))));
        }
        if let Some(kind) = scalar(text) {
            return bare(kind);
        }
        let at = self
            .sources
            .binary_search_by_key(&text, |(name, _)| name)
            .unwrap_or_else(|_| panic!("the facts must define {text}"));
        let kind = self.sources[at].1["scalar"].as_str().and_then(scalar).unwrap_or(Kind::Object);
        Schema { definition: Some(DefinitionId(index(at))), ..bare(kind) }
    }
}

fn index(at: usize) -> u16 {
    u16::try_from(at).expect("there must be fewer than 65536 definitions")
}

/// A schema without markers; its zero value is kept, as it is for elements and whole objects.
fn bare(kind: Kind) -> Schema {
    Schema {
        kind,
        definition: None,
        presence: Presence::Keep,
        list_type: None,
        list_map_keys: Box::default(),
        map_type: None,
        merge_key: None,
        strategies: PatchStrategies::default(),
        go_type: None,
    }
}

fn scalar(name: &str) -> Option<Kind> {
    Some(match name {
        "boolean" => Kind::Boolean,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "double" => Kind::Double,
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        "time" => Kind::Time,
        "microTime" => Kind::MicroTime,
        "quantity" => Kind::Quantity,
        "intOrString" => Kind::IntOrString,
        "any" => Kind::Any,
        _ => return None,
    })
}

fn map_type(value: &Value) -> Option<MapType> {
    match value.as_str() {
        Some("atomic") => Some(MapType::Atomic),
        Some("granular") => Some(MapType::Granular),
        _ => None,
    }
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
