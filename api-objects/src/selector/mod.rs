//! Selectors over labels and fields: read from queries and objects, printed, and matched.
//!
//! Grammar and texts are those of `k8s.io/apimachinery/pkg/labels` and `pkg/fields`. Matching takes a lookup,
//! so that the watch cache's projections, decoded objects and label maps are all matched by the same code.

use std::collections::BTreeMap;
use std::fmt;

use crate::field::{FieldError, Path};
use crate::names;
use crate::object::Value;

/// What is wrong with a selector; the text is upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`: present with this value.
    Equals,
    /// `==`: the same, kept apart for printing.
    DoubleEquals,
    /// `!=`: absent, or present with another value.
    NotEquals,
    /// `in (…)`
    In,
    /// `notin (…)`: absent, or with none of the values.
    NotIn,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>n`: an integer that is greater.
    GreaterThan,
    /// `key<n`
    LessThan,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, without repeats.
    values: Vec<String>,
}

impl Requirement {
    /// Makes a requirement after checking key, values and their number.
    ///
    /// # Errors
    /// With the field error that upstream gives, printed.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        check_key(key)?;
        values.sort_unstable();
        values.dedup();
        let path = Path::new("values");
        let wrong = |error: FieldError| SelectorError(error.to_string());
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                let detail = "for 'in', 'notin' operators, values set can't be empty";
                return Err(wrong(FieldError::invalid(&path, Value::Array(Vec::new()), detail)));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if let [only] = values.as_slice()
                    && only.parse::<i64>().is_err()
                {
                    let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                    return Err(wrong(FieldError::invalid(&path.index(0), only.as_str(), detail)));
                } else if values.len() != 1 {
                    let detail = "for 'Gt', 'Lt' operators, exactly one value is required";
                    return Err(wrong(FieldError::invalid(&path, values, detail)));
                }
            }
            _ => {}
        }
        for (index, value) in values.iter().enumerate() {
            let errors = names::label_value(value);
            if !errors.is_empty() {
                let at = path.index(index).key(key);
                return Err(wrong(FieldError::invalid(&at, value.as_str(), &errors.join("; "))));
            }
        }
        Ok(Self { key: key.to_owned(), operator, values })
    }

    /// The label that is looked at.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it is compared.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// With what, sorted.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether a label of this value (or its absence) meets the requirement.
    #[must_use]
    pub fn matches(&self, found: Option<&str>) -> bool {
        let one_of = |value: &str| self.values.iter().any(|wanted| wanted == value);
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => found.is_some_and(one_of),
            Operator::NotEquals | Operator::NotIn => !found.is_some_and(one_of),
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let bound = self.values.first().and_then(|value| value.parse::<i64>().ok());
                match (found.and_then(|value| value.parse::<i64>().ok()), bound) {
                    (Some(value), Some(bound)) if self.operator == Operator::GreaterThan => value > bound,
                    (Some(value), Some(bound)) => value < bound,
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    let errors = names::qualified_name(key);
    if errors.is_empty() {
        return Ok(());
    }
    Err(SelectorError(FieldError::invalid(&Path::default(), key, &errors.join("; ")).to_string()))
}

/// A selector over labels: all of its requirements, or nothing at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelSelector {
    /// Matches no object: what an absent `LabelSelector` in an object means.
    Nothing,
    /// Matches what meets every requirement; all objects when there is none. Sorted by key.
    All(Vec<Requirement>),
}

impl Default for LabelSelector {
    fn default() -> Self {
        Self::everything()
    }
}

impl LabelSelector {
    /// The selector that matches every object.
    #[must_use]
    pub fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Reads the text form: `a=b,c!=d,e in (x,y),f notin (z),g,!h,i>1`.
    ///
    /// # Errors
    /// With upstream's text, which a server answers as a bad request.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Parser::new(text).parse()?;
        requirements.sort_by(|left, right| left.key.cmp(&right.key));
        Ok(Self::All(requirements))
    }

    /// Reads a `LabelSelector` of an object (`matchLabels` and `matchExpressions`): absent matches nothing,
    /// empty matches everything.
    ///
    /// # Errors
    /// For an unknown operator or a bad key or value.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(selector) = selector.filter(|selector| !selector.is_null()) else {
            return Ok(Self::Nothing);
        };
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!("{other:?} is not a valid label selector operator")));
                }
            };
            requirements.push(Requirement::new(text("key"), operator, values)?);
        }
        requirements.sort_by(|left, right| left.key.cmp(&right.key));
        Ok(Self::All(requirements))
    }

    /// A selector that wants exactly these labels (a Service's `spec.selector`): nothing is checked.
    #[must_use]
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let require = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.clone()],
        };
        Self::All(labels.iter().map(require).collect())
    }

    /// Whether it matches every object.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::All(requirements) if requirements.is_empty())
    }

    /// The requirements; none for [`LabelSelector::Nothing`] too.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        match self {
            Self::Nothing => &[],
            Self::All(requirements) => requirements,
        }
    }

    /// Whether labels match.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Whether what a lookup finds matches.
    pub fn matches_with<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::Nothing => false,
            Self::All(requirements) => {
                requirements.iter().all(|requirement| requirement.matches(lookup(&requirement.key)))
            }
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements().iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Identifier(&'a str),
    Symbol(&'static str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Identifier(text) | Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = text;
        let is_symbol = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            let Some(first) = rest.chars().next() else { break };
            if is_symbol(first) {
                let symbol = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"]
                    .into_iter()
                    .find(|symbol| rest.starts_with(symbol))
                    .expect("every symbol character must begin a symbol");
                tokens.push(Token::Symbol(symbol));
                rest = &rest[symbol.len()..];
            } else {
                let end = rest.find(|c: char| is_symbol(c) || c.is_ascii_whitespace()).unwrap_or(rest.len());
                tokens.push(Token::Identifier(&rest[..end]));
                rest = &rest[end..];
            }
        }
        tokens.push(Token::End);
        Self { tokens, at: 0 }
    }

    fn peek(&self) -> Token<'a> {
        self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn parse(mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::End => return Ok(requirements),
                Token::Identifier(_) | Token::Symbol("!") => {}
                Token::Symbol(text) => {
                    return Err(SelectorError(format!(
                        "found '{text}', expected: !, identifier, or 'end of string'"
                    )));
                }
            }
            let requirement = self
                .requirement()
                .map_err(|error| SelectorError(format!("unable to parse requirement: {error}")))?;
            requirements.push(requirement);
            match self.next() {
                Token::End => return Ok(requirements),
                Token::Symbol(",") => {
                    if !matches!(self.peek(), Token::Identifier(_) | Token::Symbol("!")) {
                        let found = self.peek().text();
                        return Err(SelectorError(format!(
                            "found '{found}', expected: identifier after ','"
                        )));
                    }
                }
                other => {
                    let found = other.text();
                    return Err(SelectorError(format!("found '{found}', expected: ',' or 'end of string'")));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut first = self.next();
        let negated = first == Token::Symbol("!");
        if negated {
            first = self.next();
        }
        let Token::Identifier(key) = first else {
            return Err(SelectorError(format!("found '{}', expected: identifier", first.text())));
        };
        check_key(key)?;
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let token = self.next();
        let operator = match token.text() {
            "=" => Operator::Equals,
            "==" => Operator::DoubleEquals,
            "!=" => Operator::NotEquals,
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            ">" => Operator::GreaterThan,
            "<" => Operator::LessThan,
            found => {
                return Err(SelectorError(format!(
                    "found '{found}', expected: in, notin, =, ==, !=, gt, lt"
                )));
            }
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(key, operator, values)
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return Err(SelectorError(format!("found '{}' expected: '('", open.text())));
        }
        let mut values = Vec::new();
        // An empty place is the empty value, as upstream reads `in ()` and `in (,a)`.
        loop {
            match self.peek() {
                Token::Identifier(value) => {
                    self.next();
                    values.push(value.to_owned());
                }
                Token::Symbol("," | ")") => values.push(String::new()),
                other => {
                    let found = other.text();
                    return Err(SelectorError(format!("found '{found}', expected: ',', ')' or identifier")));
                }
            }
            match self.next() {
                Token::Symbol(")") => return Ok(values),
                Token::Symbol(",") => {}
                other => {
                    let found = other.text();
                    return Err(SelectorError(format!("found '{found}', expected: ',' or ')'")));
                }
            }
        }
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Identifier(value) => {
                self.next();
                Ok(value.to_owned())
            }
            Token::Symbol(found) => Err(SelectorError(format!("found '{found}', expected: identifier"))),
        }
    }
}

/// One condition on one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// `metadata.name`, `spec.nodeName` …
    pub field: String,
    /// The value it is compared with.
    pub value: String,
    /// Whether the value must be this one (`=`) or must not (`!=`).
    pub equal: bool,
}

/// A selector over fields; which fields exist is the resource's matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// All must hold.
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Reads the text form: `metadata.name=a,status.phase!=Running`; `\,`, `\=` and `\\` stand for themselves.
    ///
    /// # Errors
    /// With upstream's text.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let Some((field, value, equal)) = split_term(part) else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            terms.push(FieldTerm { field: field.to_owned(), value: unescape(value)?, equal });
        }
        Ok(Self { terms })
    }

    /// Whether it matches every object.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that a field must have for a match, if the selector says so: lets `metadata.name=x` become a
    /// single lookup.
    #[must_use]
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether the fields that a lookup finds match; an absent field is the empty string.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| (lookup(&term.field).unwrap_or_default() == term.value) == term.equal)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let sign = if term.equal { "=" } else { "!=" };
            let value = term.value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=");
            write!(f, "{comma}{}{sign}{value}", term.field)?;
        }
        Ok(())
    }
}

/// Splits at commas that no backslash precedes.
fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(term: &str) -> Option<(&str, &str, bool)> {
    let at = term.find(['!', '='])?;
    let rest = &term[at..];
    if let Some(value) = rest.strip_prefix("!=") {
        Some((&term[..at], value, false))
    } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        Some((&term[..at], value, true))
    } else {
        None
    }
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                other => {
                    let sequence = format!("\\{}", other.map(String::from).unwrap_or_default());
                    let text = format!("invalid field selector: invalid escape sequence: {sequence}");
                    return Err(SelectorError(text));
                }
            },
            // A bare equals sign in a value would make the printed form read back as something else. Upstream
            // prints the character's number.
            '=' => {
                let text = format!("invalid field selector: unescaped character in value: {}", u32::from(c));
                return Err(SelectorError(text));
            }
            _ => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
