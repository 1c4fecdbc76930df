//! Instants as the API writes them: `metav1.Time` in whole seconds, `metav1.MicroTime` in microseconds.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

use crate::duration;
use crate::object::Value;

/// Seconds only, always in UTC.
const SECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(0));
/// Six digits after the point, always.
const MICROSECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

fn print(printer: &DateTimePrinter, at: Timestamp) -> String {
    printer.timestamp_to_string(&at)
}

/// `2026-11-21T10:00:00Z`: the form of `metav1.Time`.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    print(&SECONDS, at)
}

/// `2026-11-21T10:00:00.000000Z`: the form of `metav1.MicroTime`.
#[must_use]
pub fn rfc3339_micro(at: Timestamp) -> String {
    print(&MICROSECONDS, at)
}

/// Reads either form, with any offset.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// The time between `then` and `now` as kubectl shows ages: `5d3h`.
#[must_use]
pub fn age(then: Timestamp, now: Timestamp) -> String {
    duration::human(now.as_second() - then.as_second())
}

/// The age of a field that holds a time: `<unknown>` when it is absent or unreadable, as in upstream's tables.
#[must_use]
pub fn age_of(field: Option<&Value>, now: Timestamp) -> String {
    field
        .and_then(Value::as_str)
        .and_then(parse)
        .map_or_else(|| "<unknown>".to_owned(), |then| age(then, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let at = parse("2026-11-21T11:00:00.25+01:00").unwrap();
        assert_eq!(rfc3339(at), "2026-11-21T10:00:00Z");
        assert_eq!(rfc3339_micro(at), "2026-11-21T10:00:00.250000Z");
        assert_eq!(parse("yesterday"), None);
        let now = parse("2026-11-21T10:03:10Z").unwrap();
        assert_eq!(age_of(Some(&Value::from("2026-11-21T10:00:00Z")), now), "3m10s");
        assert_eq!(age_of(None, now), "<unknown>");
    }
}
