//! Metric families as text, in either dialect.
//!
//! Owns what the dialects differ in: OpenMetrics (1.0) names a family of counters without `_total`
//! and ends the page, Prometheus (0.0.4) names it with it and knows no infos.

use core::fmt::{self, Write as _};
use core::time::Duration;

use crate::stats::Histogram;

/// Which text a collector wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Dialect {
    OpenMetrics,
    Prometheus,
}

impl Dialect {
    /// The dialect for a list of media types. A collector that does not know OpenMetrics asks for
    /// plain text.
    pub(in super::super) fn of(accepted: &str) -> Self {
        let accepted = accepted.to_ascii_lowercase();
        if accepted.contains("text/plain") && !accepted.contains("application/openmetrics-text") {
            Self::Prometheus
        } else {
            Self::OpenMetrics
        }
    }

    pub(in super::super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A label and its value, which has nothing that would have to be escaped.
pub(super) type Label<'l> = (&'l str, &'l str);

/// A page that is being written.
pub(super) struct Writer {
    dialect: Dialect,
    text: String,
    /// The family whose samples come next.
    family: &'static str,
}

impl Writer {
    pub(super) const fn new(dialect: Dialect) -> Self {
        Self { dialect, text: String::new(), family: "" }
    }

    pub(super) fn finish(mut self) -> String {
        if self.dialect == Dialect::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    /// Something that only grows. Its samples are [`total`](Self::total)s.
    pub(super) fn counter(&mut self, family: &'static str, help: &str) {
        let suffix = if self.dialect == Dialect::Prometheus { "_total" } else { "" };
        self.begin(family, suffix, "counter", help);
    }

    /// Something that comes and goes.
    pub(super) fn gauge(&mut self, family: &'static str, help: &str) {
        self.begin(family, "", "gauge", help);
    }

    /// Times, in seconds.
    pub(super) fn histogram(&mut self, family: &'static str, help: &str) {
        self.begin(family, "", "histogram", help);
    }

    /// A text that does not change, with its only sample.
    pub(super) fn info(&mut self, family: &'static str, help: &str, label: &str, value: &str) {
        match self.dialect {
            Dialect::OpenMetrics => self.begin(family, "", "info", help),
            Dialect::Prometheus => self.begin(family, "_info", "gauge", help),
        }
        self.sample("_info", &[(label, value)], 1);
    }

    fn begin(&mut self, family: &'static str, suffix: &str, kind: &str, help: &str) {
        self.family = family;
        self.line(format_args!("# HELP {family}{suffix} {help}"));
        self.line(format_args!("# TYPE {family}{suffix} {kind}"));
        let unit = ["seconds", "bytes"].into_iter().find(|unit| family.ends_with(unit));
        if let Some(unit) = unit
            && self.dialect == Dialect::OpenMetrics
        {
            self.line(format_args!("# UNIT {family} {unit}"));
        }
    }

    /// A sample of a counter.
    pub(super) fn total(&mut self, labels: &[Label<'_>], value: u64) {
        self.sample("_total", labels, value);
    }

    pub(super) fn sample(&mut self, suffix: &str, labels: &[Label<'_>], value: u64) {
        self.write(suffix, labels, format_args!("{value}"));
    }

    pub(super) fn sample_seconds(&mut self, suffix: &str, labels: &[Label<'_>], value: Duration) {
        self.write(suffix, labels, format_args!("{}", value.as_secs_f64()));
    }

    /// The samples of a histogram.
    pub(super) fn buckets(&mut self, labels: &[Label<'_>], histogram: &Histogram) {
        for (bound, count) in histogram.cumulated() {
            // "1.0", as OpenMetrics wants it.
            let bound = format!("{:?}", bound.as_secs_f64());
            self.sample("_bucket", &[labels, &[("le", &bound)]].concat(), count);
        }
        self.sample("_bucket", &[labels, &[("le", "+Inf")]].concat(), histogram.count());
        self.sample_seconds("_sum", labels, histogram.sum());
        self.sample("_count", labels, histogram.count());
    }

    fn write(&mut self, suffix: &str, labels: &[Label<'_>], value: fmt::Arguments<'_>) {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        for (index, (label, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.put(format_args!("{before}{label}=\"{value}\""));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        self.put(line);
        self.text.push('\n');
    }

    fn put(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.text.write_fmt(text);
    }
}
