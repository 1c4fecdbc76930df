//! Query strings: pairs in order, decoded and encoded as `application/x-www-form-urlencoded`.

use std::borrow::Cow;

use crate::status::Status;

/// A decoded query. A name may stand several times; the first one counts where one value is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Decodes a query (without the question mark). Nothing is refused: a stray percent sign stands for itself.
    #[must_use]
    pub fn parse(query: &'a str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// The first value of a name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// All values of a name.
    pub fn all<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        self.iter().filter(move |(other, _)| *other == name).map(|(_, value)| value)
    }

    /// The first value of a name, empty when absent.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        self.first(name).unwrap_or_default().to_owned()
    }

    /// A switch: absent is nothing, `false` and `0` are off, everything else (the bare name too) is on. This
    /// is how `k8s.io/apimachinery/pkg/runtime` converts booleans.
    #[must_use]
    pub fn switch(&self, name: &str) -> Option<bool> {
        let value = self.first(name)?;
        Some(!(value == "0" || value.eq_ignore_ascii_case("false")))
    }

    /// An integer; absent and empty are nothing.
    ///
    /// # Errors
    /// A bad request in the words of Go's `strconv`.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Status> {
        match self.first(name) {
            None | Some("") => Ok(None),
            Some(value) => value.parse().map(Some).map_err(|_| {
                let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
                let range = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                let why = if range { "value out of range" } else { "invalid syntax" };
                Status::bad_request(format!("strconv.ParseInt: parsing {value:?}: {why}"))
            }),
        }
    }
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok()))
            .flatten();
        out.push(match (bytes[at], escaped) {
            (_, Some(byte)) => byte,
            (b'+', None) => b' ',
            (byte, None) => byte,
        });
        at += if escaped.is_some() { 3 } else { 1 };
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// Writes a query.
#[derive(Debug, Default)]
pub struct QueryWriter(String);

impl QueryWriter {
    /// Adds a pair.
    pub fn put(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        percent_encode(value, &mut self.0);
    }

    /// Adds a pair unless the value is empty.
    pub fn put_text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.put(name, value);
        }
    }

    /// Adds a pair if there is a value.
    pub fn put_option(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.put(name, &value.to_string());
        }
    }

    /// Adds a switch that is on.
    pub fn put_switch(&mut self, name: &str, on: bool) {
        if on {
            self.put(name, "true");
        }
    }

    /// The query, without a question mark.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

/// Appends text with everything but RFC 3986's unreserved characters escaped: good for query values and for
/// path segments.
pub fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_read() {
        let query = Query::parse("a=1&b&c=x%20y+z&c=2&d=%zz&e=%E2%82%AC&f=99999999999999999999&g=1x");
        assert_eq!(query.integer("a").unwrap(), Some(1));
        assert_eq!(query.switch("b"), Some(true));
        assert_eq!(query.switch("z"), None);
        assert_eq!(query.all("c").collect::<Vec<_>>(), ["x y z", "2"]);
        assert_eq!(query.text("d"), "%zz");
        assert_eq!(query.text("e"), "€");
        assert_eq!(
            query.integer("f").unwrap_err().message,
            r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#
        );
        assert_eq!(
            query.integer("g").unwrap_err().message,
            r#"strconv.ParseInt: parsing "1x": invalid syntax"#
        );
    }

    proptest! {
        #[test]
        fn written_values_read_back(value in ".*") {
            let mut writer = QueryWriter::default();
            writer.put("v", &value);
            let text = writer.finish();
            prop_assert_eq!(Query::parse(&text).text("v"), value);
        }
    }
}
