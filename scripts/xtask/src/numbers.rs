//! Reads the field numbers of the API's protobuf messages out of upstream's `generated.proto` files.
//!
//! One line per message: its definition's name, then `field=number` for each field. A struct that JSON inlines
//! (a Volume's source) is a message of its own on the wire: its field reads `=number:definition`, and the
//! inlined message has a line too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A field of a message: its name, its number, and its type as a definition's name if that is a message.
struct Field {
    name: String,
    number: u32,
    message: String,
}

/// Makes the table for the definitions of `facts.json` out of the modules below a directory.
pub(crate) fn generate(facts: &Path, modules: &Path) -> Result<String> {
    let facts: Value = serde_json::from_str(&std::fs::read_to_string(facts)?)?;
    let mut messages = BTreeMap::new();
    for module in std::fs::read_dir(modules)? {
        read_below(&module?.path(), &mut messages)?;
    }
    let mut waiting: Vec<&str> =
        facts.as_object().context("facts must be an object")?.keys().map(String::as_str).collect();
    let mut lines = BTreeMap::new();
    let mut seen = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        let Some((name, fields)) = messages.get_key_value(name) else { continue };
        if !seen.insert(name) || fields.is_empty() {
            continue;
        }
        let known = facts[name]["fields"].as_object();
        let mut line = String::new();
        for field in fields {
            let inlined = known.is_some_and(|known| !known.contains_key(&field.name))
                && messages.contains_key(&field.message);
            if inlined {
                write!(line, " ={}:{}", field.number, field.message)?;
                waiting.push(&field.message);
            } else {
                write!(line, " {}={}", field.name, field.number)?;
            }
        }
        lines.insert(name, line);
    }
    Ok(lines.into_iter().fold(String::new(), |text, (name, line)| text + name + &line + "\n"))
}

fn read_below(directory: &Path, messages: &mut BTreeMap<String, Vec<Field>>) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read_below(&path, messages)?;
        } else if path.file_name().is_some_and(|name| name == "generated.proto") {
            read(&std::fs::read_to_string(&path)?, messages);
        }
    }
    Ok(())
}

/// `k8s.io.api.core.v1` is `io.k8s.api.core.v1` in OpenAPI.
fn definition(package: &str) -> String {
    let rest = package.trim_start_matches('.').trim_start_matches("k8s.io.");
    format!(
        "io.k8s.{}",
        rest.replace("apiextensions_apiserver", "apiextensions-apiserver")
            .replace("kube_aggregator", "kube-aggregator")
    )
}

fn read(text: &str, messages: &mut BTreeMap<String, Vec<Field>>) {
    let mut package = String::new();
    let mut message: Option<(String, Vec<Field>)> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        if let Some(name) = line.strip_prefix("package ") {
            package = definition(name.trim_end_matches(';'));
        } else if let Some(name) = line.strip_prefix("message ") {
            message = Some((format!("{package}.{}", name.trim_end_matches(['{', ' '])), Vec::new()));
        } else if line == "}" {
            messages.extend(message.take());
        } else if let Some((_, fields)) = &mut message {
            fields.extend(field(line, &package));
        }
    }
}

/// `optional string name = 1;`, `repeated Container containers = 2;`, `map<string, string> labels = 11;`
fn field(line: &str, package: &str) -> Option<Field> {
    let (declaration, number) = line.trim_end_matches(';').split_once(" = ")?;
    let number = number.split_whitespace().next()?.parse().ok()?;
    let (kind, name) = declaration.rsplit_once(' ')?;
    let kind = kind.trim_start_matches("optional ").trim_start_matches("repeated ");
    let message = match kind {
        kind if kind.starts_with('.') => definition(kind),
        kind if kind.contains('<') => String::new(),
        kind => format!("{package}.{kind}"),
    };
    Some(Field { name: name.to_owned(), number, message })
}
