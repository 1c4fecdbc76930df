//! Reads JSONPath templates.

use super::{Comparison, JsonPathError, Operand, Part, Step};
use crate::object::Value;

/// How deep ranges and filters may be nested: deeper than anybody writes, shallow enough for any stack.
const MAX_DEPTH: usize = 100;

fn syntax(text: impl Into<String>) -> JsonPathError {
    JsonPathError::Syntax(text.into())
}

/// Reads a whole template.
pub(super) fn template(text: &str) -> Result<Vec<Part>, JsonPathError> {
    // Parts of the ranges that are open, and the paths they run over.
    let mut open: Vec<(Vec<Step>, Vec<Part>)> = Vec::new();
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(brace) = rest.find('{') else {
            parts.push(Part::Text(rest.to_owned()));
            break;
        };
        if brace > 0 {
            parts.push(Part::Text(rest[..brace].to_owned()));
        }
        let end = closing_brace(&rest[brace..]).ok_or_else(|| syntax("unclosed action"))?;
        let action = rest[brace + 1..brace + end].trim();
        rest = &rest[brace + end + 1..];
        if let Some(path) =
            action.strip_prefix("range").filter(|path| !path.starts_with(|c: char| c.is_alphanumeric()))
        {
            if open.len() >= MAX_DEPTH {
                return Err(syntax("ranges are nested too deep"));
            }
            open.push((Cursor::new(path.trim()).path()?, std::mem::take(&mut parts)));
        } else if action == "end" {
            let (path, before) = open.pop().ok_or_else(|| syntax("not in range, nothing to end"))?;
            let body = std::mem::replace(&mut parts, before);
            parts.push(Part::Range(path, body));
        } else {
            parts.extend(Cursor::new(action).action()?);
        }
    }
    // Upstream lets a range run to the end of the template.
    while let Some((path, before)) = open.pop() {
        let body = std::mem::replace(&mut parts, before);
        parts.push(Part::Range(path, body));
    }
    Ok(parts)
}

/// The place of the brace that closes the one at the start; quotes may hold braces.
fn closing_brace(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            _ => {}
        }
    }
    None
}

struct Cursor<'a> {
    rest: &'a str,
    /// Filters that are open.
    depth: usize,
}

impl<'a> Cursor<'a> {
    fn new(rest: &'a str) -> Self {
        Self { rest, depth: 0 }
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// What stands between braces: paths and quoted text in any order.
    fn action(&mut self) -> Result<Vec<Part>, JsonPathError> {
        let mut parts = Vec::new();
        loop {
            self.skip_blanks();
            match self.rest.chars().next() {
                None => return Ok(parts),
                Some('"' | '\'') => parts.push(Part::Text(self.quoted()?)),
                Some('.' | '[' | '$' | '@' | '*') => parts.push(Part::Path(self.steps()?)),
                Some(c) if c.is_ascii_digit() || c == '-' => {
                    let number = self.take_while(|c| c.is_ascii_digit() || matches!(c, '-' | '.'));
                    parts.push(Part::Text(number.to_owned()));
                }
                Some(c) if c.is_alphabetic() => {
                    let word = self.take_while(|c| c.is_alphanumeric() || c == '_').to_owned();
                    match word.as_str() {
                        "true" | "false" => parts.push(Part::Text(word)),
                        _ => return Err(syntax(format!("unrecognized identifier {word}"))),
                    }
                }
                Some(c) => {
                    return Err(syntax(format!(
                        "unrecognized character in action: U+{:04X} '{c}'",
                        u32::from(c)
                    )));
                }
            }
        }
    }

    /// A path and nothing else.
    fn path(&mut self) -> Result<Vec<Step>, JsonPathError> {
        let steps = self.steps()?;
        self.skip_blanks();
        if self.rest.is_empty() {
            Ok(steps)
        } else {
            Err(syntax(format!("unexpected {:?} after a path", self.rest)))
        }
    }

    fn steps(&mut self) -> Result<Vec<Step>, JsonPathError> {
        let mut steps = Vec::new();
        if self.eat("$") {
            steps.push(Step::Root);
        } else {
            self.eat("@");
        }
        loop {
            if self.eat("..") {
                steps.push(Step::Recursive);
                if !self.rest.starts_with('[') {
                    self.named(&mut steps)?;
                }
            } else if self.eat(".") {
                self.named(&mut steps)?;
            } else if self.rest.starts_with('[') {
                steps.push(self.bracket()?);
            } else if steps.is_empty() && self.eat("*") {
                steps.push(Step::Wildcard);
            } else {
                return Ok(steps);
            }
        }
    }

    /// The name after a dot; a lone dot is the value itself.
    fn named(&mut self, steps: &mut Vec<Step>) -> Result<(), JsonPathError> {
        if self.eat("*") {
            steps.push(Step::Wildcard);
            return Ok(());
        }
        let mut name = String::new();
        let mut characters = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = characters.next() {
            match c {
                '\\' => match characters.next() {
                    Some((_, escaped)) => name.push(escaped),
                    None => return Err(syntax("unterminated escape in a field name")),
                },
                '.' | '[' | ']' | ')' | '=' | '!' | '<' | '>' | ',' | '\'' | '"' | '}' => {
                    end = at;
                    break;
                }
                c if c.is_whitespace() => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        self.rest = &self.rest[end..];
        if !name.is_empty() {
            steps.push(Step::Field(name));
        }
        Ok(())
    }

    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn quoted(&mut self) -> Result<String, JsonPathError> {
        let mut characters = self.rest.char_indices();
        let quote = characters.next().map(|(_, quote)| quote);
        let mut text = String::new();
        while let Some((at, c)) = characters.next() {
            match c {
                '\\' => match characters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, other)) => text.push(other),
                    None => break,
                },
                c if Some(c) == quote => {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err(syntax("unterminated quoted string"))
    }

    fn bracket(&mut self) -> Result<Step, JsonPathError> {
        self.eat("[");
        self.skip_blanks();
        if self.eat("?") {
            let filter = self.filter()?;
            self.skip_blanks();
            return if self.eat("]") { Ok(filter) } else { Err(syntax("unclosed array expect ]")) };
        }
        let mut paths = vec![self.bracket_item()?];
        loop {
            self.skip_blanks();
            if self.eat("]") {
                return Ok(match paths.as_mut_slice() {
                    [path] if path.len() == 1 => path.remove(0),
                    _ => Step::Union(paths),
                });
            }
            if !self.eat(",") {
                return Err(syntax("unterminated array"));
            }
            self.skip_blanks();
            paths.push(self.bracket_item()?);
        }
    }

    fn bracket_item(&mut self) -> Result<Vec<Step>, JsonPathError> {
        if self.eat("*") {
            return Ok(vec![Step::Wildcard]);
        }
        if let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            // What stands in quotes is a path itself: `['metadata.name']` goes two steps.
            let text =
                self.rest[1..].split_once(quote).ok_or_else(|| syntax("unterminated quoted string"))?;
            self.rest = text.1;
            return Cursor::new(&format!(".{}", text.0)).path();
        }
        let text = self.take_while(|c| c.is_ascii_digit() || matches!(c, '-' | ':'));
        let number = |text: &str| -> Result<Option<i64>, JsonPathError> {
            if text.is_empty() {
                return Ok(None);
            }
            text.parse().map(Some).map_err(|_| syntax(format!("invalid array index {text}")))
        };
        let mut parts = text.split(':');
        let first = number(parts.next().unwrap_or_default())?;
        match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => first
                .map(|index| vec![Step::Index(index)])
                .ok_or_else(|| syntax(format!("invalid array index {}", self.rest))),
            (Some(end), by, None) => {
                let by = number(by.unwrap_or_default())?.unwrap_or(1);
                if by < 1 {
                    return Err(syntax("step must be > 0"));
                }
                Ok(vec![Step::Slice(first, number(end)?, by)])
            }
            _ => Err(syntax(format!("invalid array index {text}"))),
        }
    }

    fn filter(&mut self) -> Result<Step, JsonPathError> {
        if !self.eat("(") {
            return Err(syntax("unterminated filter"));
        }
        if self.depth >= MAX_DEPTH {
            return Err(syntax("filters are nested too deep"));
        }
        self.depth += 1;
        let left = self.operand()?;
        self.skip_blanks();
        let comparisons = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let comparison =
            comparisons.into_iter().find(|(sign, _)| self.eat(sign)).map(|(_, comparison)| comparison);
        let (comparison, right) = match comparison {
            Some(comparison) => (comparison, self.operand()?),
            None => (Comparison::Exists, Operand::None),
        };
        self.skip_blanks();
        self.depth -= 1;
        if self.eat(")") {
            Ok(Step::Filter(left, comparison, right))
        } else {
            Err(syntax("unterminated filter"))
        }
    }

    fn operand(&mut self) -> Result<Operand, JsonPathError> {
        self.skip_blanks();
        match self.rest.chars().next() {
            Some('@' | '$' | '.' | '[') => Ok(Operand::Path(self.steps()?)),
            Some('"' | '\'') => Ok(Operand::Literal(Value::String(self.quoted()?))),
            _ => {
                let word = self.take_while(|c| c.is_alphanumeric() || matches!(c, '-' | '+' | '.' | '_'));
                serde_json::from_str(word)
                    .map(Operand::Literal)
                    .map_err(|_| syntax(format!("cannot compare with {word:?}")))
            }
        }
    }
}
