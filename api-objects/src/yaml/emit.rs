//! Writes YAML as kubectl prints it.
//!
//! The choice of styles follows libyaml's analysis as `sigs.k8s.io/yaml` uses it: plain where nothing forbids it,
//! double quotes for text that reads as another type, single quotes for text with indicators, literal blocks for
//! several lines, double quotes again where none of these can hold the text.

use serde_json::Map;

use crate::object::Value;

/// Prints a value as one document, ending with a newline.
#[must_use]
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => write_map(&mut out, fields, 0, false),
        Value::Array(items) if !items.is_empty() => write_list(&mut out, items, 0, false),
        scalar => {
            write_scalar(&mut out, scalar, 2);
            out.push('\n');
        }
    }
    out
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n(' ', depth));
}

/// `inline` says that the first line continues one that is begun (`- key: …`).
fn write_map(out: &mut String, fields: &Map<String, Value>, depth: usize, inline: bool) {
    for (at, (key, value)) in fields.iter().enumerate() {
        if at > 0 || !inline {
            indent(out, depth);
        }
        write_text(out, key, None);
        out.push(':');
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                out.push('\n');
                write_map(out, fields, depth + 2, false);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                write_list(out, items, depth, false);
            }
            scalar => {
                out.push(' ');
                write_scalar(out, scalar, depth + 2);
                out.push('\n');
            }
        }
    }
}

fn write_list(out: &mut String, items: &[Value], depth: usize, inline: bool) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 || !inline {
            indent(out, depth);
        }
        out.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => write_map(out, fields, depth + 2, true),
            Value::Array(items) if !items.is_empty() => write_list(out, items, depth + 2, true),
            scalar => {
                write_scalar(out, scalar, depth + 2);
                out.push('\n');
            }
        }
    }
}

fn write_scalar(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(on) => out.push_str(if *on { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => write_text(out, text, Some(depth)),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// `block` is the indentation of a literal block; nothing where there can be none, as in keys.
fn write_text(out: &mut String, text: &str, block: Option<usize>) {
    let special = text.chars().any(is_special);
    let broken = text.contains('\n');
    let space_before_break = text.contains(" \n") || text.ends_with(' ');
    match block {
        Some(depth) if broken && !special && !space_before_break => write_literal(out, text, depth),
        _ if broken || special || reads_as_something_else(text) => write_double_quoted(out, text),
        _ if has_indicators(text) || text.starts_with(' ') || text.ends_with(' ') => {
            out.push('\'');
            out.push_str(&text.replace('\'', "''"));
            out.push('\'');
        }
        _ => out.push_str(text),
    }
}

/// What libyaml does not print as it is.
fn is_special(c: char) -> bool {
    !matches!(c,
        '\n' | ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}'
        | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

/// Whether a plain text would be taken for YAML's own signs.
fn has_indicators(text: &str) -> bool {
    let bytes = text.as_bytes();
    let blank = |at: usize| bytes.get(at).is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    let first = match bytes.first() {
        Some(
            b'#' | b',' | b'[' | b']' | b'{' | b'}' | b'&' | b'*' | b'!' | b'|' | b'>' | b'\'' | b'"' | b'%'
            | b'@' | b'`',
        ) => true,
        Some(b'-' | b'?' | b':') => blank(1),
        _ => false,
    };
    first
        || text.starts_with("---")
        || text.starts_with("...")
        || (1..bytes.len()).any(|at| {
            (bytes[at] == b':' && blank(at + 1))
                || (bytes[at] == b'#' && matches!(bytes[at - 1], b' ' | b'\t'))
        })
}

/// Whether a plain text would be read as null, a boolean, a number or a time.
fn reads_as_something_else(text: &str) -> bool {
    const WORDS: [&str; 36] = [
        "", "~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", "y", "Y", "yes",
        "Yes", "YES", "n", "N", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF", "<<", "=", ".nan",
        ".NaN", ".NAN", ".inf", ".Inf", ".INF", "NaN",
    ];
    if WORDS.contains(&text) {
        return true;
    }
    let Some(first) = text.bytes().next() else { return true };
    if !first.is_ascii_digit() && !matches!(first, b'+' | b'-' | b'.') {
        return false;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let plain: String = unsigned.chars().filter(|c| *c != '_').collect();
    let radix = |prefixes: [&str; 2], radix: u32| {
        prefixes.iter().any(|prefix| {
            plain
                .strip_prefix(prefix)
                .is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix)))
        })
    };
    is_decimal(&plain)
        || radix(["0x", "0X"], 16)
        || radix(["0o", "0O"], 8)
        || radix(["0b", "0B"], 2)
        || is_sexagesimal(unsigned)
        || is_date(text)
}

/// `1`, `1.5`, `.5e3`: what reads as a whole number or a fraction.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && digits(fraction)
        && digits(exponent)
        && !exponent.is_empty()
        && !(whole.is_empty() && fraction.is_empty())
}

/// `12:30:45`: numbers to the base of sixty.
fn is_sexagesimal(text: &str) -> bool {
    let mut parts = text.split(':');
    let head = parts.next().unwrap_or_default();
    let digits =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let mut any = false;
    let rest = parts.all(|part| {
        any = true;
        digits(part.split('.').next().unwrap_or_default())
    });
    any && rest && digits(head)
}

/// `2026-11-21` and times that begin with a date.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let day = rest.bytes().take_while(u8::is_ascii_digit).count();
    year.len() == 4
        && digits(year)
        && matches!(month.len(), 1 | 2)
        && digits(month)
        && matches!(day, 1 | 2)
        && matches!(rest.as_bytes().get(day), None | Some(b'T' | b't' | b' ' | b'\t'))
}

fn write_literal(out: &mut String, text: &str, depth: usize) {
    out.push('|');
    // A block that begins with a blank must say how far it is indented.
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    let body = text.strip_suffix('\n');
    match body {
        None => out.push('-'),
        Some(body) if body.is_empty() || body.ends_with('\n') => out.push('+'),
        Some(_) => {}
    }
    for line in body.unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, depth);
            out.push_str(line);
        }
    }
}

fn write_double_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\u{1b}' => out.push_str("\\e"),
            '\u{85}' => out.push_str("\\N"),
            '\u{feff}' => out.push_str("\\uFEFF"),
            c if !is_special(c) => out.push(c),
            c if u32::from(c) <= 0xff => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out.push('"');
}
