//! Turns published OpenAPI definitions and Go struct tags into the schema facts.
//!
//! The output is one JSON object, definitions by name. A field is a type expression, or an object with one and
//! list, map and patch markers. Type expressions read as in Go: `string`, `[]string`, `map[string]bytes`, or the
//! name of a definition; a leading `*` marks a field whose zero value is kept, a trailing `!` one that is
//! always on the wire, and neither one whose zero value is left out. No prose is carried over.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::golang::{Field, Types};

/// Prefixes of the packages whose every kind is served, with everything that they refer to.
const STABLE: [&str; 2] = ["v1", "v2"];

/// Definitions that are one JSON scalar, or any JSON, on the wire.
const SCALARS: [(&str, &str); 10] = [
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "quantity"),
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "intOrString"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "time"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", "microTime"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "any"),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", "any"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "any"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", "any"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", "any"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray", "any"),
];

/// Generates the facts' text.
pub(crate) fn generate(definitions: &str, types: &Types) -> Result<String> {
    let root: Value = serde_json::from_str(definitions)?;
    let definitions = root["$defs"].as_object().context("the definitions must stand in $defs")?;
    let mut facts = BTreeMap::new();
    for name in reachable(definitions) {
        let fact = definition(&name, &definitions[&name], types).with_context(|| name.clone())?;
        facts.insert(name, fact);
    }
    // One definition per line: compact, and yet a new version's diff can be read.
    let lines: Vec<String> = facts.iter().map(|(name, fact)| format!("{}:{fact}", json!(name))).collect();
    Ok(format!("{{\n{}\n}}\n", lines.join(",\n")))
}

/// The definitions of stable kinds and whatever they refer to.
fn reachable(definitions: &Map<String, Value>) -> BTreeSet<String> {
    let stable = |name: &str| {
        let mut parts = name.rsplit('.');
        parts.next();
        parts.next().is_some_and(|version| STABLE.contains(&version))
    };
    let mut found: BTreeSet<String> = definitions
        .iter()
        .filter(|(name, definition)| {
            stable(name) && definition.get("x-kubernetes-group-version-kind").is_some()
        })
        .map(|(name, _)| name.clone())
        .collect();
    let mut pending: Vec<String> = found.iter().cloned().collect();
    while let Some(name) = pending.pop() {
        let mut references = Vec::new();
        collect_references(&definitions[&name], &mut references);
        for reference in references {
            if found.insert(reference.clone()) {
                pending.push(reference);
            }
        }
    }
    found
}

fn collect_references(node: &Value, found: &mut Vec<String>) {
    match node {
        Value::Object(fields) => {
            if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                found.push(target.trim_start_matches("#/$defs/").to_owned());
            }
            fields.values().for_each(|field| collect_references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

fn scalar(name: &str) -> Option<&'static str> {
    SCALARS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

fn definition(name: &str, source: &Value, types: &Types) -> Result<Value> {
    if let Some(kind) = scalar(name) {
        return Ok(json!({ "scalar": kind }));
    }
    let mut fact = Map::new();
    if let Some(kinds) = source["x-kubernetes-group-version-kind"].as_array() {
        let kinds: Vec<Value> =
            kinds.iter().map(|kind| json!([kind["group"], kind["version"], kind["kind"]])).collect();
        // DeleteOptions and WatchEvent belong to every group: their kinds say nothing.
        if kinds.len() == 1 {
            fact.insert("kind".to_owned(), kinds[0].clone());
        }
    }
    if let Some(required) = source.get("required") {
        fact.insert("required".to_owned(), required.clone());
    }
    if let Some(map_type) = source.get("x-kubernetes-map-type") {
        fact.insert("mapType".to_owned(), map_type.clone());
    }
    if let Some(unions) = source.get("x-kubernetes-unions") {
        fact.insert("unions".to_owned(), unions.clone());
    }
    let mut fields = Map::new();
    for (field_name, field_source) in source["properties"].as_object().into_iter().flatten() {
        let declared = types.field(name, field_name);
        if declared.is_none() && !matches!(field_name.as_str(), "kind" | "apiVersion") {
            bail!("no Go field for {field_name}");
        }
        fields.insert(field_name.clone(), field(field_source, declared)?);
    }
    fact.insert("fields".to_owned(), Value::Object(fields));
    Ok(Value::Object(fact))
}

fn field(source: &Value, declared: Option<&Field>) -> Result<Value> {
    let base = type_expression(source)?;
    let expression = match declared {
        Some(declared) => with_presence(&base, declared),
        None => base.clone(),
    };
    let mut out = Map::new();
    for (theirs, ours) in [
        ("x-kubernetes-list-type", "listType"),
        ("x-kubernetes-list-map-keys", "listMapKeys"),
        ("x-kubernetes-map-type", "mapType"),
        ("x-kubernetes-patch-merge-key", "mergeKey"),
    ] {
        if let Some(marker) = source.get(theirs) {
            out.insert(ours.to_owned(), marker.clone());
        }
    }
    if let Some(strategies) = source.get("x-kubernetes-patch-strategy").and_then(Value::as_str) {
        out.insert("strategy".to_owned(), json!(strategies.split(',').collect::<Vec<_>>()));
    }
    // A named string type appears in the decoder's error texts: `v1.PullPolicy`.
    if let Some(declared) = declared
        && base == "string"
        && declared.type_name != "string"
    {
        out.insert("goType".to_owned(), json!(declared.type_name.trim_start_matches("metav1.")));
    }
    if out.is_empty() {
        return Ok(json!(expression));
    }
    out.insert("type".to_owned(), json!(expression));
    Ok(Value::Object(out))
}

/// Marks how a zero value is encoded: see the module's head.
fn with_presence(base: &str, declared: &Field) -> String {
    // `omitempty` does nothing for a struct that is no pointer.
    let is_struct = base.starts_with("io.k8s.");
    let emitted = if is_struct && !declared.pointer {
        !declared.omit_zero
    } else {
        !declared.omit_empty && !declared.omit_zero
    };
    format!("{}{base}{}", if declared.pointer { "*" } else { "" }, if emitted { "!" } else { "" })
}

fn type_expression(source: &Value) -> Result<String> {
    if let Some(target) = source["$ref"].as_str() {
        return Ok(target.trim_start_matches("#/$defs/").to_owned());
    }
    let kind = match &source["type"] {
        Value::String(kind) => kind.as_str(),
        Value::Array(kinds) => kinds.first().and_then(Value::as_str).unwrap_or_default(),
        _ => bail!("a field without a type: {source}"),
    };
    Ok(match (kind, source["format"].as_str().unwrap_or_default()) {
        ("string", "byte") => "bytes".to_owned(),
        ("string", _) => "string".to_owned(),
        ("boolean", _) => "boolean".to_owned(),
        ("integer", "int32") => "int32".to_owned(),
        ("integer", _) => "int64".to_owned(),
        ("number", _) => "double".to_owned(),
        ("array", _) => format!("[]{}", type_expression(&source["items"])?),
        ("object", _) => format!("map[string]{}", type_expression(&source["additionalProperties"])?),
        other => bail!("unknown type {other:?}"),
    })
}
