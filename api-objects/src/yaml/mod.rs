//! The YAML dialect of manifests: the one place that reads and writes it.
//!
//! Reading is YAML 1.1 as kubectl's library has it (`0644` is octal, `yes` is true, merge keys are merged, a
//! repeated key is an error), bounded against documents that expand without end. Writing is laid out as kubectl
//! does: keys sorted, lists not indented, and every text quoted that a 1.1 reader would take for something else.

mod emit;

use serde::Deserialize;

use crate::object::Value;

pub use emit::to_string;

/// Why a text is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// Not YAML; the text names line and column.
    #[error("error parsing YAML: {0}")]
    Syntax(String),
    /// Not JSON, though it begins like it.
    #[error("error parsing JSON: {0}")]
    Json(String),
}

/// Reads all documents of a text: YAML, several of them apart by `---`, or JSON, one after another. Empty
/// documents are left out.
///
/// # Errors
/// When one of them cannot be read.
pub fn documents(text: &str) -> Result<Vec<Value>, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        let read: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        match read {
            Ok(documents) => return Ok(documents),
            // YAML's flow form may begin like that too; without any YAML in it, JSON's error says more.
            Err(error) if !text.contains("\n---") && text.contains('"') && parse(text).is_err() => {
                return Err(YamlError::Json(error.to_string()));
            }
            Err(_) => {}
        }
    }
    let documents = parse(text)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

fn parse(text: &str) -> Result<Vec<Value>, YamlError> {
    let options = serde_yaml::options! {
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    serde_yaml::from_multiple_with_options::<Value>(text, options)
        .map_err(|error| YamlError::Syntax(error.to_string()))
}

/// Reads the one document of a text; null for an empty one.
///
/// # Errors
/// When it cannot be read or there are several.
pub fn document(text: &str) -> Result<Value, YamlError> {
    let mut documents = documents(text)?;
    match documents.len() {
        0 => Ok(Value::Null),
        1 => Ok(documents.remove(0)),
        count => Err(YamlError::Syntax(format!("expected one document, found {count}"))),
    }
}

/// Reads the one document of a text into a type: for configuration files.
///
/// # Errors
/// When it cannot be read or does not fit the type.
pub fn from_str<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, YamlError> {
    T::deserialize(document(text)?).map_err(|error| YamlError::Syntax(error.to_string()))
}

#[cfg(test)]
mod tests;
