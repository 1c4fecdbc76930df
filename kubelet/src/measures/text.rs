//! Prometheus' text format, version 0.0.4: what every scraper reads.
//!
//! Each family is written once, with its HELP and TYPE before its samples; a family without samples is left
//! out, as upstream's client library does.

use std::fmt::{Display, Write as _};

/// The content type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Labels of a sample, in the order in which they are written.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page of metrics being written.
#[derive(Debug, Default)]
pub(crate) struct Text {
    written: String,
}

/// What TYPE says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

/// A family being written.
pub(crate) struct Family<'a> {
    text: &'a mut Text,
    name: &'a str,
    kind: Kind,
    help: &'a str,
    started: bool,
    /// Milliseconds since 1970 behind every sample.
    time: Option<i64>,
}

impl Text {
    /// The page.
    pub(crate) fn finish(self) -> String {
        self.written
    }

    /// Begins a family.
    pub(crate) fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &'a str) -> Family<'a> {
        Family { text: self, name, kind, help, started: false, time: None }
    }

    /// A family of one sample without labels.
    pub(crate) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }
}

impl Family<'_> {
    /// Every further sample says when it was taken.
    pub(crate) fn at(mut self, time: i64) -> Self {
        self.time = Some(time);
        self
    }

    /// Writes a sample.
    pub(crate) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, None, value);
    }

    /// Writes one label set of a histogram: how many fell into each bucket (not cumulated), and their sum.
    pub(crate) fn histogram(&mut self, labels: Labels<'_>, bounds: &[f64], counts: &[u64], sum: f64) {
        let mut below = 0;
        for (bound, count) in bounds.iter().zip(counts) {
            below += count;
            self.line("_bucket", labels, Some(("le", &bound.to_string())), below);
        }
        let all: u64 = counts.iter().sum();
        self.line("_bucket", labels, Some(("le", "+Inf")), all);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, all);
    }

    /// Writes a sample whose first labels are written out already (see [`labels`]): pages that repeat the same labels
    /// in every family write them once.
    pub(crate) fn sample_of(&mut self, labels: &str, more: Labels<'_>, value: impl Display) {
        self.write("", labels, more.iter().copied(), value);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, last: Option<(&str, &str)>, value: impl Display) {
        self.write(suffix, "", labels.iter().copied().chain(last), value);
    }

    fn write<'l>(
        &mut self,
        suffix: &str,
        written: &str,
        labels: impl Iterator<Item = (&'l str, &'l str)>,
        value: impl Display,
    ) {
        let out = &mut self.text.written;
        if !self.started {
            self.started = true;
            let kind = match self.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let _ = writeln!(out, "# HELP {0} {1}\n# TYPE {0} {kind}", self.name, self.help);
        }
        out.push_str(self.name);
        out.push_str(suffix);
        let begun = out.len();
        if !written.is_empty() {
            out.push('{');
            out.push_str(written);
        }
        for (name, value) in labels {
            out.push(if out.len() == begun { '{' } else { ',' });
            label(out, name, value);
        }
        if out.len() > begun {
            out.push('}');
        }
        let _ = write!(out, " {value}");
        if let Some(time) = self.time {
            let _ = write!(out, " {time}");
        }
        out.push('\n');
    }
}

/// Labels as they stand in a sample, for [`Family::sample_of`].
pub(crate) fn labels(labels: Labels<'_>) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        if !out.is_empty() {
            out.push(',');
        }
        label(&mut out, name, value);
    }
    out
}

fn label(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str("=\"");
    escape(out, value);
    out.push('"');
}

fn escape(out: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n']) {
        out.push_str(value);
        return;
    }
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

/// Nanoseconds as seconds, with all their digits.
pub(crate) struct Nanos(pub(crate) u64);

impl Display for Nanos {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_scrapers_read() {
        let mut text = Text::default();
        let mut family = text.family("a_total", Kind::Counter, "What a is.");
        family.sample(&[("path", "C:\\x \"y\"\nz"), ("b", "")], 1);
        family.sample(&[], Nanos(1_500_000_001));
        family.sample_of(&labels(&[("x", "1"), ("y", "2")]), &[("z", "3")], 4);
        text.family("never", Kind::Gauge, "Nothing.");
        text.family("timed", Kind::Gauge, "Timed.").at(1_700_000_000_000).sample(&[], 2.5);
        text.family("h_seconds", Kind::Histogram, "H.").histogram(
            &[("op", "x")],
            &[0.005, 1.0],
            &[1, 2, 3],
            7.25,
        );
        let expected = "# HELP a_total What a is.\n# TYPE a_total counter\n\
            a_total{path=\"C:\\\\x \\\"y\\\"\\nz\",b=\"\"} 1\na_total 1.500000001\na_total{x=\"1\",y=\"2\",z=\"3\"} 4\n\
            # HELP timed Timed.\n# TYPE timed gauge\ntimed 2.5 1700000000000\n\
            # HELP h_seconds H.\n# TYPE h_seconds histogram\n\
            h_seconds_bucket{op=\"x\",le=\"0.005\"} 1\nh_seconds_bucket{op=\"x\",le=\"1\"} 3\n\
            h_seconds_bucket{op=\"x\",le=\"+Inf\"} 6\nh_seconds_sum{op=\"x\"} 7.25\nh_seconds_count{op=\"x\"} 6\n";
        assert_eq!(text.finish(), expected);
    }
}
