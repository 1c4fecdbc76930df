//! Resource quantities (`100m`, `1.5Gi`, `12e6`): exact, and printed canonically.
//!
//! Rules are those of `k8s.io/apimachinery/pkg/api/resource`: no digit is lost down to nano units, smaller parts are
//! rounded up, the largest magnitude is 2^63-1, and printing picks the largest suffix that keeps the number whole.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::object::Value;

/// One whole unit in nano units, which quantities are counted in.
const UNIT: i128 = 1_000_000_000;
/// The largest magnitude, in nano units.
const MAX: i128 = i64::MAX as i128 * UNIT;

/// Why a text is no quantity; worded as upstream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the form number and suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is none.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// How a quantity is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `1500m`, `12k`, `3G`
    DecimalSi,
    /// `12Ki`, `3Gi`
    BinarySi,
    /// `12e6`
    DecimalExponent,
}

/// An amount of a resource.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

fn power_of_ten(exponent: u32) -> Option<i128> {
    10i128.checked_pow(exponent)
}

impl Quantity {
    /// A whole number of units.
    #[must_use]
    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nano: i128::from(units) * UNIT, format }
    }

    /// A number of thousandths.
    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Self { nano: i128::from(milli) * (UNIT / 1000), format: Format::DecimalSi }
    }

    /// Reads a quantity from an object: text, or a bare number.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_value(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError::Format),
        }
    }

    /// How it is printed.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// In whole units, rounded up.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.scaled(UNIT)
    }

    /// In thousandths, rounded up.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        self.scaled(UNIT / 1000)
    }

    fn scaled(&self, unit: i128) -> i64 {
        let rounded = round_away(self.nano, unit);
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }

    /// As a floating-point number, for ratios.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "ratios need no more than 53 bits")]
    pub fn as_f64(&self) -> f64 {
        self.nano as f64 / UNIT as f64
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn signum(&self) -> i32 {
        match self.nano.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The sum, capped at the largest magnitude; printed like the first that is not zero.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nano: (self.nano + other.nano).clamp(-MAX, MAX), format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    /// The difference, capped likewise; printed like the first that is not zero.
    fn sub(self, other: Self) -> Self {
        self + Self { nano: -other.nano, format: other.format }
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self { nano: 0, format: Format::DecimalSi }
    }
}

/// Division that rounds away from zero: some of a resource stays some.
fn round_away(nano: i128, unit: i128) -> i128 {
    let whole = nano / unit;
    if nano % unit == 0 { whole } else { whole + nano.signum() }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let (format, ten, two) = parse_suffix(suffix)?;
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        let nano = if digits.is_empty() {
            0
        } else {
            magnitude(digits, ten - i32::try_from(fraction.len()).unwrap_or(i32::MAX), two)
        };
        let nano = if negative { -nano } else { nano };
        // Less than one byte cannot be written with a binary suffix.
        let format = if format == Format::BinarySi && nano.abs() < UNIT { Format::DecimalSi } else { format };
        Ok(Self { nano, format })
    }
}

/// Format, power of ten and factor of a suffix.
fn parse_suffix(suffix: &str) -> Result<(Format, i32, i128), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::DecimalSi, *exponent, 1));
    }
    if let Some(power) = BINARY.iter().position(|name| *name == suffix) {
        return Ok((Format::BinarySi, 0, 1i128 << (10 * power)));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(|| {
        if suffix.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-')) {
            QuantityError::Suffix
        } else {
            QuantityError::Format
        }
    })?;
    let exponent = exponent.parse::<i32>().map_err(|_| QuantityError::Suffix)?;
    Ok((Format::DecimalExponent, exponent, 1))
}

/// `digits` times ten to the `ten` times `factor`, in nano units: capped above, rounded up below.
fn magnitude(digits: &str, ten: i32, factor: i128) -> i128 {
    let exponent = ten.saturating_add(9);
    if let Ok(shift) = u32::try_from(exponent) {
        let value = digits.parse::<i128>().ok();
        let value = value.and_then(|value| value.checked_mul(power_of_ten(shift)?)?.checked_mul(factor));
        return value.unwrap_or(MAX).min(MAX);
    }
    // Digits below nano units: what is left of them after the factor is rounded up.
    let below = exponent.unsigned_abs();
    match (digits.parse::<i128>().ok().and_then(|value| value.checked_mul(factor)), power_of_ten(below)) {
        (Some(value), Some(divisor)) => round_away(value, divisor).min(MAX),
        (Some(_), None) => 1,
        (None, _) => {
            // More digits than can matter: the tail is smaller than a nano unit.
            let keep = digits.len().saturating_sub(usize::try_from(below).unwrap_or(usize::MAX));
            let head = digits.get(..keep).filter(|head| !head.is_empty()).unwrap_or("0");
            let head = head.parse::<i128>().ok().and_then(|value| (value + 1).checked_mul(factor));
            head.unwrap_or(MAX).min(MAX)
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi && self.nano.abs() >= 1024 * UNIT;
        if binary {
            let mut value = round_away(self.nano, UNIT);
            let mut power = 0;
            while value % 1024 == 0 && power + 1 < BINARY.len() {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", BINARY[power]);
        }
        let mut value = self.nano;
        let mut step = 0;
        while value % 1000 == 0 && step + 1 < DECIMAL.len() {
            value /= 1000;
            step += 1;
        }
        let (suffix, exponent) = DECIMAL[step];
        match self.format {
            Format::DecimalExponent if exponent == 0 => write!(f, "{value}"),
            Format::DecimalExponent => write!(f, "{value}e{exponent}"),
            Format::DecimalSi | Format::BinarySi => write!(f, "{value}{suffix}"),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(&Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_forms() {
        // The examples of the type's documentation, and those of "Resource Management for Pods".
        for (text, canonical) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1.0", "1"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1.5Gi", "1536Mi"),
            ("1024", "1024"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("512Ki", "512Ki"),
            ("1024Ki", "1Mi"),
            ("12e6", "12e6"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("129M", "129M"),
            ("128974848000m", "128974848"),
            ("123Mi", "123Mi"),
            ("1000k", "1M"),
            ("-1.5", "-1500m"),
            ("+1", "1"),
            ("0.1n", "1n"),
            ("1.0000000001", "1000000001n"),
            ("9999999999999999999", "9223372036854775807"),
            (".5", "500m"),
            ("5.", "5"),
            ("1e-3", "1e-3"),
            ("10E", "9223372036854775807"),
            ("1.1Ki", "1127"),
            ("0Mi", "0"),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn errors_are_upstreams() {
        for text in ["", ".", "1.2.3", "x", "1 Gi", "1m²"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Format), "{text}");
        }
        for text in ["1ki", "1g", "1Mib", "1e", "1i"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Suffix), "{text}");
        }
    }

    #[test]
    fn numbers_and_arithmetic() {
        let quantity = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(quantity("1500m").value(), 2);
        assert_eq!(quantity("0.0001").milli_value(), 1);
        assert_eq!(quantity("-1.5").value(), -2);
        assert_eq!(quantity("1Gi").value(), 1 << 30);
        assert_eq!((quantity("1Gi") + quantity("1Mi")).to_string(), "1025Mi");
        assert_eq!((quantity("1") - quantity("250m")).to_string(), "750m");
        assert_eq!((Quantity::default() + quantity("2Ki")).to_string(), "2Ki");
        assert!(quantity("1Ki") > quantity("1k") && quantity("1000m") == quantity("1"));
        assert_eq!(serde_json::from_str::<Quantity>("0.5").unwrap().to_string(), "500m");
        assert_eq!(serde_json::to_string(&quantity("0.5")).unwrap(), r#""500m""#);
    }

    proptest! {
        #[test]
        fn canonical_text_is_a_fixed_point(number in -999_999i64..999_999, scale in 0..3u32,
                                           suffix in prop::sample::select(vec!["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "e-6"])) {
            let text = format!("{}{suffix}", Decimal(number, scale));
            let quantity: Quantity = text.parse().unwrap();
            let canonical = quantity.to_string();
            let again: Quantity = canonical.parse().unwrap();
            // Fractions of bytes and of billionths are rounded up when they are written, as upstream does.
            if scale == 0 {
                prop_assert!(again == quantity);
            }
            // A fraction of a binary unit is written in decimal, and read back as decimal: then it stands.
            let settled = again.to_string();
            prop_assert_eq!(settled.parse::<Quantity>().unwrap().to_string(), settled);
        }

        #[test]
        fn sums_come_apart_again(left in any::<i32>(), right in any::<i32>()) {
            let (left, right) = (Quantity::from_milli(left.into()), Quantity::from_milli(right.into()));
            prop_assert_eq!(left + right - right, left);
            prop_assert_eq!(left + right, right + left);
        }

        #[test]
        fn no_text_panics(text in ".{0,24}|[0-9]{1,60}([.][0-9]{1,60})?(Ei|E|e[0-9]{1,3}|n)?") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                let _ = (quantity.to_string(), quantity.value(), quantity.milli_value());
            }
        }
    }

    struct Decimal(i64, u32);

    impl fmt::Display for Decimal {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let divisor = 10i64.pow(self.1);
            let sign = if self.0 < 0 { "-" } else { "" };
            write!(f, "{sign}{}", self.0.abs() / divisor)?;
            if self.1 > 0 {
                write!(f, ".{:0width$}", self.0.abs() % divisor, width = self.1 as usize)?;
            }
            Ok(())
        }
    }
}
