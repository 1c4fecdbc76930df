//! Why a text is no JSON, in the words of Go's scanner (`encoding/json`, `scanner.go`), which upstream's answers
//! quote. Only read when decoding has failed.

/// The first syntax error; nothing for a text that Go would read.
#[must_use]
pub fn error(bytes: &[u8]) -> Option<String> {
    let mut scanner = Scanner { bytes, at: 0 };
    scanner.value().and_then(|()| scanner.end()).err()
}

/// Deeper than Go's scanner goes (`maxNestingDepth`).
const DEPTH: usize = 10_000;

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Outcome = Result<(), String>;

impl Scanner<'_> {
    /// The next byte, which is then passed; an error at the end.
    fn take(&mut self) -> Result<u8, String> {
        let byte = *self.bytes.get(self.at).ok_or("unexpected end of JSON input")?;
        self.at += 1;
        Ok(byte)
    }

    fn take_visible(&mut self) -> Result<u8, String> {
        loop {
            let byte = self.take()?;
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Ok(byte);
            }
        }
    }

    fn end(&mut self) -> Outcome {
        match self.take_visible() {
            Ok(byte) => Err(invalid(byte, "after top-level value")),
            Err(_) => Ok(()),
        }
    }

    /// One whole value. What is open stands in a list of its own: a body may nest deeper than any stack.
    fn value(&mut self) -> Outcome {
        let mut open = Vec::new();
        let mut first = self.take_visible()?;
        loop {
            match first {
                b'{' | b'[' if open.len() >= DEPTH => return Err("exceeded max depth".to_owned()),
                b'{' => match self.take_visible()? {
                    b'}' => {}
                    key => {
                        self.key(key)?;
                        open.push(b'{');
                        first = self.take_visible()?;
                        continue;
                    }
                },
                b'[' => match self.take_visible()? {
                    b']' => {}
                    item => {
                        open.push(b'[');
                        first = item;
                        continue;
                    }
                },
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number(first)?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                other => return Err(invalid(other, "looking for beginning of value")),
            }
            // A value has ended, and with it perhaps what it stands in.
            loop {
                let Some(container) = open.last() else { return Ok(()) };
                match (container, self.take_visible()?) {
                    (b'{', b',') => {
                        let key = self.take_visible()?;
                        self.key(key)?;
                        break;
                    }
                    (b'[', b',') => break,
                    (b'{', b'}') | (b'[', b']') => {
                        open.pop();
                    }
                    (b'{', other) => return Err(invalid(other, "after object key:value pair")),
                    (_, other) => return Err(invalid(other, "after array element")),
                }
            }
            first = self.take_visible()?;
        }
    }

    /// A key that begins with `first`, and its colon.
    fn key(&mut self, first: u8) -> Outcome {
        if first != b'"' {
            return Err(invalid(first, "looking for beginning of object key string"));
        }
        self.string()?;
        match self.take_visible()? {
            b':' => Ok(()),
            other => Err(invalid(other, "after object key")),
        }
    }

    fn string(&mut self) -> Outcome {
        loop {
            match self.take()? {
                b'"' => return Ok(()),
                b'\\' => match self.take()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let digit = self.take()?;
                            if !digit.is_ascii_hexdigit() {
                                return Err(invalid(digit, "in \\u hexadecimal character escape"));
                            }
                        }
                    }
                    other => return Err(invalid(other, "in string escape code")),
                },
                control @ 0..0x20 => return Err(invalid(control, "in string literal")),
                _ => {}
            }
        }
    }

    fn number(&mut self, first: u8) -> Outcome {
        let lead = if first == b'-' { self.take()? } else { first };
        match lead {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            other => return Err(invalid(other, "in numeric literal")),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn some_digits(&mut self, place: &str) -> Outcome {
        match self.take()? {
            b'0'..=b'9' => {
                self.digits();
                Ok(())
            }
            other => Err(invalid(other, place)),
        }
    }

    fn digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str) -> Outcome {
        for expected in word.bytes().skip(1) {
            let found = self.take()?;
            if found != expected {
                let place = format!("in literal {word} (expecting {})", quoted(expected));
                return Err(invalid(found, &place));
            }
        }
        Ok(())
    }
}

fn invalid(byte: u8, place: &str) -> String {
    format!("invalid character {} {place}", quoted(byte))
}

/// A byte as Go quotes it: `'x'`, `'\n'`, `'\x01'`, `'ÿ'`.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        0x80..0xa0 | 0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_gos() {
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{}x", "invalid character 'x' after top-level value"),
            ("<a>", "invalid character '<' looking for beginning of value"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("\"a\nb\"", r"invalid character '\n' in string literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            (r#""\u00g0""#, r"invalid character 'g' in \u hexadecimal character escape"),
            ("trye", "invalid character 'y' in literal true (expecting 'u')"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("01", "invalid character '1' after top-level value"),
        ] {
            assert_eq!(error(text.as_bytes()).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(error(b"\xff{}").unwrap(), "invalid character '\u{ff}' looking for beginning of value");
        assert_eq!(error(&b"[".repeat(20_000)).unwrap(), "exceeded max depth");
        for good in [r#" {"a":[1,-0.5e+3,"\u00e9",true,null,{}]} "#, "0", "[]"] {
            assert_eq!(error(good.as_bytes()), None, "{good}");
        }
    }
}
