//! Decodes a JSON body and notices fields that stand twice.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{CheckError, FieldValidation, Schema, check, report::report};

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Not JSON, or nested too deeply.
    #[error("{0}")]
    Syntax(String),
    /// Fields stand twice, and the client asked for strictness. One message each.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

/// Why a body is no object of its kind.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It cannot be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It does not fit the schema.
    #[error(transparent)]
    Check(#[from] CheckError),
}

/// Decodes a body. Of a field that stands twice the last one counts, as in Go; each is reported: as an error
/// if `mode` is strict, as a warning of the form `duplicate field "spec.replicas"` if it is `Warn`.
pub fn parse_json(bytes: &[u8], mode: FieldValidation) -> Result<(Value, Vec<String>), ParseError> {
    let (value, mut duplicates) = parse(bytes)?;
    match mode {
        FieldValidation::Strict if !duplicates.is_empty() => return Err(ParseError::Strict(duplicates)),
        FieldValidation::Ignore => duplicates.clear(),
        FieldValidation::Strict | FieldValidation::Warn => {}
    }
    Ok((value, duplicates))
}

/// Decodes a body and checks it against a schema: [`parse_json`] and [`check`], with the findings of both
/// in one error (or list of warnings), as upstream's strict decoder reports them.
pub fn decode(
    schema: &Schema,
    bytes: &[u8],
    mode: FieldValidation,
) -> Result<(Value, Vec<String>), DecodeError> {
    let (mut value, mut findings) = parse(bytes)?;
    let lenient = if mode == FieldValidation::Ignore { mode } else { FieldValidation::Warn };
    // What there is to tell is told in the order of the body, which only the slow path knows.
    match check(schema, &mut value, lenient) {
        Ok(unknown) if unknown.is_empty() && findings.is_empty() => {}
        Ok(_) => findings = report(schema, &utf8(bytes)).findings,
        Err(CheckError::Type(text)) => {
            return Err(CheckError::Type(report(schema, &utf8(bytes)).mismatch.unwrap_or(text)).into());
        }
        Err(error) => return Err(error.into()),
    }
    match mode {
        FieldValidation::Strict if !findings.is_empty() => Err(ParseError::Strict(findings).into()),
        FieldValidation::Ignore => Ok((value, Vec::new())),
        FieldValidation::Strict | FieldValidation::Warn => Ok((value, findings)),
    }
}

/// The body as UTF-8; like Go, with a replacement character in place of every byte that is none.
fn utf8(bytes: &[u8]) -> Cow<'_, [u8]> {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(_) => Cow::Borrowed(bytes),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), ParseError> {
    parse_utf8(bytes).or_else(|error| match utf8(bytes) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(text) => parse_utf8(&text),
    })
}

fn parse_utf8(bytes: &[u8]) -> Result<(Value, Vec<String>), ParseError> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Node { duplicates: &mut duplicates }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| ParseError::Syntax(error.to_string()))?;
    let duplicates = duplicates.iter().map(|path| format!("duplicate field \"{path}\"")).collect();
    Ok((value, duplicates))
}

/// Builds a value; paths of duplicates are put together on the way back up, so that a body without any
/// costs nothing more.
struct Node<'a> {
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let before = self.duplicates.len();
            let Some(item) = sequence.next_element_seed(Node { duplicates: &mut *self.duplicates })? else {
                return Ok(Value::Array(items));
            };
            prefix(&mut self.duplicates[before..], &format_args!("[{}]", items.len()));
            items.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let before = self.duplicates.len();
            let value = map.next_value_seed(Node { duplicates: &mut *self.duplicates })?;
            prefix(&mut self.duplicates[before..], &name);
            if fields.contains_key(&name) {
                self.duplicates.push(name.clone());
            }
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

/// Puts the parent's segment before paths that were found below it.
pub(super) fn prefix(paths: &mut [String], segment: &dyn fmt::Display) {
    for path in paths {
        let dot = if path.starts_with('[') { "" } else { "." };
        *path = format!("{segment}{dot}{path}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_found_and_the_last_one_counts() {
        let body = br#"{"a":1,"a":2,"spec":{"items":[{"x":1},{"x":1,"x":3}]}}"#;
        let (value, warnings) = parse_json(body, FieldValidation::Warn).unwrap();
        assert_eq!(value["a"], 2);
        assert_eq!(warnings, [r#"duplicate field "a""#, r#"duplicate field "spec.items[1].x""#]);
        let error = parse_json(body, FieldValidation::Strict).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"strict decoding error: duplicate field "a", duplicate field "spec.items[1].x""#
        );
        assert!(parse_json(body, FieldValidation::Ignore).unwrap().1.is_empty());
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let (value, _) = parse_json(b"{\"a\":\"x\xffy\"}", FieldValidation::Strict).unwrap();
        assert_eq!(value["a"], "x\u{fffd}y");
    }

    #[test]
    fn numbers_are_exact_and_garbage_is_refused() {
        let (value, _) = parse_json(b"[9223372036854775807,-1,1.5]", FieldValidation::Warn).unwrap();
        assert_eq!(value.to_string(), "[9223372036854775807,-1,1.5]");
        for bad in [&b"{"[..], b"{} {}", b"", b"nul"] {
            assert!(matches!(parse_json(bad, FieldValidation::Warn), Err(ParseError::Syntax(_))));
        }
        let deep = "[".repeat(100_000);
        assert!(parse_json(deep.as_bytes(), FieldValidation::Warn).is_err());
    }
}
