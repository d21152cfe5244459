//! What the doctor says about one thing: a line of its table.

use std::time::Duration;

use serde_json::{Value, json};

/// How well something works. The order is that of the exit status: the worst counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum State {
    /// It works.
    Ok,
    /// Networks work without it, and lack something.
    Warning,
    /// No network works before it is mended, or a network does not do its work.
    Failure,
}

impl State {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// What a transfer moved, and how long that took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moved {
    pub(super) bytes: u64,
    pub(super) span: Duration,
}

impl Moved {
    /// `2.1 Gbit/s`, or `340 Mbit/s`.
    pub(super) fn rate(self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let megabits = self.bytes as f64 * 8.0 / self.span.as_secs_f64().max(1e-6) / 1e6;
        if megabits >= 1000.0 {
            format!("{:.1} Gbit/s", megabits / 1000.0)
        } else {
            format!("{megabits:.0} Mbit/s")
        }
    }
}

/// What the doctor says about one thing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    /// The name of the check; scripts know it.
    pub(super) check: &'static str,
    pub(super) state: State,
    /// What was found, in one line.
    pub(super) what: String,
    /// What can be typed or done about it; there is one exactly if the state is not `Ok`.
    pub(super) remedy: Option<String>,
    /// The figures of a transfer or of a round trip.
    pub(super) figures: Option<Moved>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, state: State::Ok, what: what.into(), remedy: None, figures: None }
    }

    pub(super) fn warning(
        check: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { check, state: State::Warning, what: what.into(), remedy, figures: None }
    }

    pub(super) fn failure(
        check: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { state: State::Failure, ..Self::warning(check, what, remedy) }
    }

    pub(super) fn with(self, figures: Moved) -> Self {
        Self { figures: Some(figures), ..self }
    }

    /// The object that `--json` prints. Every key is always there.
    pub(super) fn object(&self) -> Value {
        let micros = |moved: Moved| u64::try_from(moved.span.as_micros()).unwrap_or(u64::MAX);
        json!({
            "check": self.check,
            "state": self.state.word(),
            "what": self.what,
            "remedy": self.remedy,
            "bytes": self.figures.map(|moved| moved.bytes),
            "microseconds": self.figures.map(micros),
        })
    }
}
