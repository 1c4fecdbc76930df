//! Field paths and validation errors, worded as upstream words them.
//!
//! The texts are those of `k8s.io/apimachinery/pkg/util/validation/field`: clients match on them.

use std::fmt;

use serde_json::Value;

use crate::status::StatusCause;

/// A path to a field: `spec.containers[0].ports[1].hostPort`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(String);

impl Path {
    /// A path that starts with one field.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The field `name` below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// Element `index` of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// Entry `key` of this map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// The kinds of validation error, with upstream's machine-readable names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    /// `FieldValueRequired`
    Required,
    /// `FieldValueDuplicate`
    Duplicate,
    /// `FieldValueInvalid`
    Invalid,
    /// `FieldValueNotSupported`
    NotSupported,
    /// `FieldValueForbidden`
    Forbidden,
    /// `FieldValueTooLong`
    TooLong,
    /// `FieldValueTooMany`
    TooMany,
    /// `FieldValueNotFound`
    NotFound,
    /// `FieldValueTypeInvalid`
    TypeInvalid,
    /// `InternalError`
    Internal,
}

impl ErrorType {
    /// The `reason` of the cause in a Status.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }
}

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// What sort of error.
    pub kind: ErrorType,
    /// Where.
    pub path: Path,
    /// Everything after the path: `Required value: must be set`, `Invalid value: "x": …`.
    pub body: String,
}

/// Prints a bad value as Go's `%q`/`%v` do in upstream's messages: strings quoted, objects as JSON.
fn show(value: &Value) -> String {
    value.to_string()
}

fn with_detail(head: &str, detail: &str) -> String {
    if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") }
}

impl FieldError {
    /// The field must be given.
    #[must_use]
    pub fn required(path: &Path, detail: &str) -> Self {
        Self { kind: ErrorType::Required, path: path.clone(), body: with_detail("Required value", detail) }
    }

    /// The value is not acceptable.
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: &str) -> Self {
        let head = format!("Invalid value: {}", show(&value.into()));
        Self { kind: ErrorType::Invalid, path: path.clone(), body: with_detail(&head, detail) }
    }

    /// The value has the wrong type.
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: &str) -> Self {
        let head = format!("Invalid value: {}", show(&value.into()));
        Self { kind: ErrorType::TypeInvalid, path: path.clone(), body: with_detail(&head, detail) }
    }

    /// The value stands there already.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self {
            kind: ErrorType::Duplicate,
            path: path.clone(),
            body: format!("Duplicate value: {}", show(&value.into())),
        }
    }

    /// The value is none of the supported ones, which are named in the order of the alphabet.
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let mut sorted = supported.to_vec();
        sorted.sort_unstable();
        Self::not_supported_in_order(path, value, &sorted)
    }

    /// The value is none of the supported ones, where upstream lists them rather than keeping a set.
    pub fn not_supported_in_order(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let values: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        Self {
            kind: ErrorType::NotSupported,
            path: path.clone(),
            body: format!(
                "Unsupported value: {}: supported values: {}",
                show(&value.into()),
                values.join(", ")
            ),
        }
    }

    /// The field must not be given here.
    #[must_use]
    pub fn forbidden(path: &Path, detail: &str) -> Self {
        Self { kind: ErrorType::Forbidden, path: path.clone(), body: with_detail("Forbidden", detail) }
    }

    /// What the field names does not exist.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self {
            kind: ErrorType::NotFound,
            path: path.clone(),
            body: format!("Not found: {}", show(&value.into())),
        }
    }

    /// The text or data is longer than `max` bytes.
    #[must_use]
    pub fn too_long(path: &Path, max: usize) -> Self {
        Self {
            kind: ErrorType::TooLong,
            path: path.clone(),
            body: format!("Too long: may not be more than {max} bytes"),
        }
    }

    /// The list has more than `max` elements.
    #[must_use]
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        Self {
            kind: ErrorType::TooMany,
            path: path.clone(),
            body: format!("Too many: {actual}: must have at most {max} items"),
        }
    }

    /// The error as a cause of a Status.
    #[must_use]
    pub fn to_cause(&self) -> StatusCause {
        StatusCause {
            reason: self.kind.reason().to_owned(),
            message: self.body.clone(),
            field: self.path.to_string(),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body)
    }
}

/// Joins errors as upstream's `ToAggregate().Error()` does: one bare, several in brackets, repeats once.
#[must_use]
pub fn aggregate(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let path = Path::new("spec").child("containers").index(0).child("name");
        assert_eq!(FieldError::required(&path, "").to_string(), "spec.containers[0].name: Required value");
        assert_eq!(
            FieldError::not_supported(&path, "x", &["b", "a"]).to_string(),
            r#"spec.containers[0].name: Unsupported value: "x": supported values: "a", "b""#
        );
        assert_eq!(
            FieldError::invalid(&path, -1, "must be positive").to_string(),
            "spec.containers[0].name: Invalid value: -1: must be positive"
        );
        let error = FieldError::duplicate(&path, "x");
        assert_eq!(aggregate(&[error.clone(), error]), r#"spec.containers[0].name: Duplicate value: "x""#);
    }
}
