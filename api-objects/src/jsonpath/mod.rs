//! kubectl's JSONPath: templates such as `{range .items[*]}{.metadata.name}{"\n"}{end}`.
//!
//! Not RFC 9535: literal text around expressions, `range` and `end`, optional `$`, escaped dots, and results that
//! are printed apart by spaces. The reference is the documentation's "JSONPath Support" page and
//! `k8s.io/client-go/util/jsonpath`.

mod parse;

use std::cmp::Ordering;

use crate::object::Value;

/// Why a template is not one, or does not fit an object; worded as upstream does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    /// The template cannot be read.
    #[error("{0}")]
    Syntax(String),
    /// A field that the path names is not there.
    #[error("{0} is not found")]
    NotFound(String),
    /// An index outside of a list.
    #[error("array index out of bounds: index {index}, length {length}")]
    OutOfBounds {
        /// The index.
        index: i64,
        /// The list's length.
        length: usize,
    },
}

/// What to make of a path that leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingKeys {
    /// It prints nothing.
    Allow,
    /// It is an error.
    Refuse,
}

/// One part of a template.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    /// Printed as it stands.
    Text(String),
    /// The values that a path leads to.
    Path(Vec<Step>),
    /// Repeats its body for each value of a path.
    Range(Vec<Step>, Vec<Part>),
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// Back to the whole object (`$`).
    Root,
    /// `.name`
    Field(String),
    /// `.*` and `[*]`
    Wildcard,
    /// `..`: every value at any depth; the next step picks from them.
    Recursive,
    /// `[n]`, counted from the end when negative.
    Index(i64),
    /// `[start:end:step]`
    Slice(Option<i64>, Option<i64>, i64),
    /// `['a','b.c']`, `[0,2]`: several paths from here.
    Union(Vec<Vec<Step>>),
    /// `[?(left operator right)]`
    Filter(Operand, Comparison, Operand),
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    /// From the item (`@`) or the whole object (`$`).
    Path(Vec<Step>),
    Literal(Value),
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A template that has been read.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    parts: Vec<Part>,
}

/// Brings the loose spellings that kubectl accepts in custom columns and `--sort-by` (`metadata.name`,
/// `.metadata.name`, `{metadata.name}`) into the form `{.metadata.name}`.
///
/// # Errors
/// When braces do not match.
pub fn relaxed(text: &str) -> Result<String, JsonPathError> {
    let inner = match (text.strip_prefix('{'), text.strip_suffix('}')) {
        (Some(_), Some(_)) => &text[1..text.len() - 1],
        (None, None) => text,
        _ => {
            return Err(JsonPathError::Syntax(format!(
                "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{{name1.name2}}' or '{{.name1.name2}}'; found {text:?}"
            )));
        }
    };
    let dot = if inner.starts_with(['.', '[', '$']) { "" } else { "." };
    Ok(format!("{{{dot}{inner}}}"))
}

impl JsonPath {
    /// Reads a template.
    ///
    /// # Errors
    /// With upstream's words where it is malformed.
    pub fn parse(template: &str) -> Result<Self, JsonPathError> {
        parse::template(template).map(|parts| Self { parts })
    }

    /// The values that the paths of the template lead to, in order.
    ///
    /// # Errors
    /// When a path leads nowhere and that is refused.
    pub fn find<'v>(&self, object: &'v Value, missing: MissingKeys) -> Result<Vec<&'v Value>, JsonPathError> {
        let walk = Walk { root: object, missing };
        let mut found = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(_) => {}
                Part::Path(steps) | Part::Range(steps, _) => found.extend(walk.follow(steps, vec![object])?),
            }
        }
        Ok(found)
    }

    /// Prints the template for an object.
    ///
    /// # Errors
    /// When a path leads nowhere and that is refused.
    pub fn render(&self, object: &Value, missing: MissingKeys) -> Result<String, JsonPathError> {
        let walk = Walk { root: object, missing };
        let mut out = String::new();
        walk.render(&self.parts, object, &mut out)?;
        Ok(out)
    }
}

/// A value as JSONPath prints it: text bare, objects and lists as JSON.
#[must_use]
pub fn print(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

struct Walk<'v> {
    root: &'v Value,
    missing: MissingKeys,
}

impl<'v> Walk<'v> {
    fn render(&self, parts: &[Part], at: &'v Value, out: &mut String) -> Result<(), JsonPathError> {
        for part in parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Path(steps) => {
                    let found = self.follow(steps, vec![at])?;
                    let texts: Vec<String> = found.into_iter().map(print).collect();
                    out.push_str(&texts.join(" "));
                }
                Part::Range(steps, body) => {
                    for item in self.follow(steps, vec![at])? {
                        self.render(body, item, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn follow(&self, steps: &[Step], mut values: Vec<&'v Value>) -> Result<Vec<&'v Value>, JsonPathError> {
        for step in steps {
            let mut next = Vec::with_capacity(values.len());
            if let Step::Union(paths) = step {
                // Path by path, not value by value: so the documentation's example prints it.
                for path in paths {
                    next.extend(self.follow(path, values.clone())?);
                }
            } else {
                for value in &values {
                    self.step(step, value, &mut next)?;
                }
            }
            // A field that none of the values has is missing; that some of them lack it is not worth a word.
            if let (Step::Field(name), true, false) = (step, next.is_empty(), values.is_empty())
                && self.missing == MissingKeys::Refuse
                && values.iter().any(|value| value.is_object() || values.len() == 1)
            {
                return Err(JsonPathError::NotFound(name.clone()));
            }
            values = next;
        }
        Ok(values)
    }

    fn step(&self, step: &Step, value: &'v Value, out: &mut Vec<&'v Value>) -> Result<(), JsonPathError> {
        match step {
            Step::Root => out.push(self.root),
            Step::Field(name) => out.extend(value.get(name)),
            Step::Wildcard => match value {
                Value::Array(items) => out.extend(items),
                Value::Object(fields) => out.extend(fields.values()),
                _ => {}
            },
            Step::Recursive => descend(value, out),
            Step::Index(index) => {
                if let Value::Array(items) = value {
                    let length = items.len();
                    let place =
                        if *index < 0 { index + i64::try_from(length).unwrap_or(i64::MAX) } else { *index };
                    match usize::try_from(place).ok().and_then(|place| items.get(place)) {
                        Some(item) => out.push(item),
                        None if self.missing == MissingKeys::Allow => {}
                        None => return Err(JsonPathError::OutOfBounds { index: *index, length }),
                    }
                }
            }
            Step::Slice(start, end, by) => {
                if let Value::Array(items) = value {
                    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
                    let place = |at: i64| (if at < 0 { at + length } else { at }).clamp(0, length);
                    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(length)));
                    let by = usize::try_from(*by).unwrap_or(1).max(1);
                    let places = (start..end).step_by(by);
                    out.extend(places.filter_map(|at| items.get(usize::try_from(at).ok()?)));
                }
            }
            Step::Union(_) => unreachable!("a union must be followed path by path"),
            Step::Filter(left, comparison, right) => {
                let items: Vec<&'v Value> = match value {
                    Value::Array(items) => items.iter().collect(),
                    _ => Vec::new(),
                };
                for item in items {
                    if self.holds(left, *comparison, right, item) {
                        out.push(item);
                    }
                }
            }
        }
        Ok(())
    }

    fn holds(&self, left: &Operand, comparison: Comparison, right: &Operand, item: &'v Value) -> bool {
        let lenient = Walk { root: self.root, missing: MissingKeys::Allow };
        let value = |operand: &Operand| -> Option<Value> {
            match operand {
                Operand::Literal(value) => Some(value.clone()),
                Operand::Path(steps) => {
                    lenient.follow(steps, vec![item]).ok()?.first().map(|value| (*value).clone())
                }
                Operand::None => None,
            }
        };
        let Some(left) = value(left) else { return false };
        if comparison == Comparison::Exists {
            return true;
        }
        let Some(right) = value(right) else { return false };
        match comparison {
            Comparison::Equal => same(&left, &right),
            Comparison::NotEqual => !same(&left, &right),
            _ => match order(&left, &right) {
                Some(Ordering::Less) => matches!(comparison, Comparison::Less | Comparison::LessOrEqual),
                Some(Ordering::Equal) => {
                    matches!(comparison, Comparison::LessOrEqual | Comparison::GreaterOrEqual)
                }
                Some(Ordering::Greater) => {
                    matches!(comparison, Comparison::Greater | Comparison::GreaterOrEqual)
                }
                None => false,
            },
        }
    }
}

fn descend<'v>(value: &'v Value, out: &mut Vec<&'v Value>) {
    out.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| descend(item, out)),
        Value::Object(fields) => fields.values().for_each(|item| descend(item, out)),
        _ => {}
    }
}

fn same(left: &Value, right: &Value) -> bool {
    left == right || order(left, right) == Some(Ordering::Equal)
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
