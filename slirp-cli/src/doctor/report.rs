//! The findings as a person and as a program reads them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::finding::{Finding, State};

/// The worst state of `findings`.
pub(super) fn worst(findings: &[Finding]) -> State {
    findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
}

/// One object with everything, on one line.
pub(super) fn json(findings: &[Finding]) -> String {
    let checks: Vec<Value> = findings.iter().map(Finding::object).collect();
    let object = json!({
        "slirp": env!("CARGO_PKG_VERSION"),
        "worst": worst(findings).word(),
        "checks": checks,
    });
    format!("{object}\n")
}

/// A table with one line for each finding, the remedy below it, and a last line with the sums.
pub(super) fn table(findings: &[Finding], has_color: bool) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let state = colored(finding.state, has_color);
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{state}  {:width$}  {}", finding.check, finding.what);
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "         {:width$}  remedy: {remedy}", "");
        }
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let [good, warnings, failures] = [State::Ok, State::Warning, State::Failure].map(count);
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let _ = writeln!(
        text,
        "{good} ok, {warnings} warning{}, {failures} failure{}",
        plural(warnings),
        plural(failures)
    );
    text
}

/// The word of a state, as wide as the widest; its colour is one of the terminal's own.
fn colored(state: State, has_color: bool) -> String {
    let number = match state {
        State::Ok => 32,
        State::Warning => 33,
        State::Failure => 31,
    };
    let word = format!("{:7}", state.word());
    if has_color { format!("\u{1b}[{number}m{word}\u{1b}[0m") } else { word }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::finding::Moved;
    use super::*;

    fn findings() -> Vec<Finding> {
        let moved = Moved { bytes: 250_000_000, span: Duration::from_secs(1) };
        vec![
            Finding::ok("tcp-out", "2.0 Gbit/s").with(moved),
            Finding::warning("ping", "no range", "sysctl -w a=1"),
            Finding::failure("tun", "it is missing", "modprobe tun"),
        ]
    }

    #[test]
    fn table_has_a_line_for_each_finding_and_each_remedy() {
        let expected = "\
ok       tcp-out  2.0 Gbit/s
warning  ping     no range
                  remedy: sysctl -w a=1
failure  tun      it is missing
                  remedy: modprobe tun
1 ok, 1 warning, 1 failure
";
        assert_eq!(table(&findings(), false), expected);
        let colorful = table(&findings(), true);
        assert!(colorful.starts_with("\u{1b}[32mok     \u{1b}[0m  tcp-out  2.0"), "{colorful}");
        assert!(colorful.contains("\u{1b}[31mfailure\u{1b}[0m  tun"), "{colorful}");
    }

    #[test]
    fn object_has_every_key_for_each_finding() {
        let text = json(&findings());
        assert!(text.ends_with("}\n") && text.lines().count() == 1);
        let object: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(object["worst"], "failure");
        assert_eq!(
            object["checks"],
            json!([
                { "check": "tcp-out", "state": "ok", "what": "2.0 Gbit/s", "remedy": null,
                    "bytes": 250_000_000, "microseconds": 1_000_000 },
                { "check": "ping", "state": "warning", "what": "no range",
                    "remedy": "sysctl -w a=1", "bytes": null, "microseconds": null },
                { "check": "tun", "state": "failure", "what": "it is missing",
                    "remedy": "modprobe tun", "bytes": null, "microseconds": null },
            ])
        );
    }

    #[test]
    fn worst_state_counts() {
        assert_eq!(worst(&[]), State::Ok);
        assert_eq!(worst(&findings()[..1]), State::Ok);
        assert_eq!(worst(&findings()[..2]), State::Warning);
        assert_eq!(worst(&findings()), State::Failure);
    }
}
