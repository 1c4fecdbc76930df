//! Durations as Go writes them (`1h30m`) and as kubectl shows ages (`5d3h`).
//!
//! The grammar is that of Go's `time.ParseDuration`; ages follow `k8s.io/apimachinery/pkg/util/duration`.

use std::time::Duration;

/// Why a text is no duration; worded as Go's `time` package does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not of the form `[-+](number unit)+`.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that Go does not know.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
    /// Durations here cannot be negative.
    #[error("duration {0:?} must not be negative")]
    Negative(String),
}

/// Reads a duration in Go's form: `300ms`, `1.5h`, `2h45m`, `0`.
///
/// # Errors
/// When the text is not of that form, or negative.
pub fn parse_go(text: &str) -> Result<Duration, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned.starts_with('-') {
        return Err(DurationError::Negative(text.to_owned()));
    }
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut total = 0u128;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        let nanoseconds: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() }),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 30 {
            return Err(invalid());
        }
        let digits: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        total =
            digits.checked_mul(nanoseconds).and_then(|part| total.checked_add(part)).ok_or_else(invalid)?;
        let mut scale = nanoseconds;
        for digit in fraction.bytes() {
            scale /= 10;
            total += u128::from(digit - b'0') * scale;
        }
        rest = tail;
    }
    if total > i64::MAX as u128 {
        return Err(invalid());
    }
    Ok(Duration::from_nanos(u64::try_from(total).expect("a value below i64::MAX must fit u64")))
}

/// Prints a duration as Go does: `1h30m0s`, `1.5s`, `300ms`, `0s`.
#[must_use]
pub fn format_go(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let with_fraction = |unit: u128, name: &str| {
        let fraction = format!("{:0width$}", nanoseconds % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{}{dot}{fraction}{name}", nanoseconds / unit)
    };
    match nanoseconds {
        0..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => with_fraction(1_000, "µs"),
        1_000_000..1_000_000_000 => with_fraction(1_000_000, "ms"),
        _ => {
            let minutes = duration.as_secs() / 60;
            let rest = Duration::new(duration.as_secs() % 60, duration.subsec_nanos());
            let seconds = format!("{}", rest.as_secs());
            let fraction = format!("{:09}", rest.subsec_nanos());
            let fraction = fraction.trim_end_matches('0');
            let dot = if fraction.is_empty() { "" } else { "." };
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}{dot}{fraction}s"),
                (0, minutes) => format!("{minutes}m{seconds}{dot}{fraction}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}{dot}{fraction}s"),
            }
        }
    }
}

/// An age as kubectl shows it: at most two units, the smaller one dropped once it says little. Takes seconds,
/// as clocks differ: up to one second in the future counts as now, more is `<invalid>`.
#[must_use]
pub fn human(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let pair = |big: i64, big_name: &str, small: i64, small_name: &str| {
        let (whole, rest) = (seconds / big, seconds % big / small);
        if rest == 0 { format!("{whole}{big_name}") } else { format!("{whole}{big_name}{rest}{small_name}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => pair(MINUTE, "m", 1, "s"),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => pair(HOUR, "h", MINUTE, "m"),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => pair(DAY, "d", HOUR, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => pair(YEAR, "y", DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, milliseconds) in [
            ("0", 0),
            ("300ms", 300),
            ("1.5h", 5_400_000),
            ("2h45m", 9_900_000),
            (".5s", 500),
            ("1m1s", 61_000),
        ] {
            assert_eq!(parse_go(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(parse_go("5").unwrap_err().to_string(), r#"time: missing unit in duration "5""#);
        assert_eq!(parse_go("5d").unwrap_err().to_string(), r#"time: unknown unit "d" in duration "5d""#);
        assert_eq!(parse_go("").unwrap_err().to_string(), r#"time: invalid duration """#);
        assert!(parse_go("-1s").is_err() && parse_go("1..s").is_err() && parse_go(".s").is_err());
    }

    #[test]
    fn go_durations_are_printed() {
        for (milliseconds, text) in
            [(0, "0s"), (300, "300ms"), (1_500, "1.5s"), (60_000, "1m0s"), (5_400_000, "1h30m0s")]
        {
            assert_eq!(format_go(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(format_go(Duration::from_nanos(1_500)), "1.5µs");
        assert_eq!(format_go(Duration::from_nanos(7)), "7ns");
    }

    #[test]
    fn ages_are_upstreams() {
        // The table of k8s.io/apimachinery/pkg/util/duration's documentation, in seconds.
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (70, "70s"),
            (190, "3m10s"),
            (180, "3m"),
            (3000, "50m"),
            (9_000, "150m"),
            (4 * 3600, "4h"),
            (4 * 3600 + 720, "4h12m"),
            (30 * 3600, "30h"),
            (6 * 86400, "6d"),
            (5 * 86400 + 3 * 3600, "5d3h"),
            (400 * 86400, "400d"),
            (3 * 365 * 86400, "3y"),
            (3 * 365 * 86400 + 86400, "3y1d"),
            (9 * 365 * 86400 + 86400, "9y"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }
}
