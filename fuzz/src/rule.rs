//! The target `rule`: egress policies as an operator, a configuration or an agent writes them.
//!
//! Owns the layout of its inputs: byte 0 chooses the door ([`FILE`], [`ALLOW`], …), the rest is
//! the text. What is not UTF-8 is replaced.

use slirp_core::egress::{Action, EgressPolicy, RuleErrors};
use slirp_core::policy::Policy;

use crate::INPUT_CAP;

/// The text is a policy file; so it is for all other values.
pub const FILE: u8 = 0;
/// The text is the value of `--allow`; one more is `--ask`, two more `--deny`.
pub const ALLOW: u8 = 1;
/// Each line of the text is an entry of a list.
pub const LIST: u8 = 4;
/// The text is an annotation.
pub const ANNOTATION: u8 = 5;

/// Reads one policy and writes it. Panics when a promise is broken.
pub fn rule(data: &[u8]) {
    let Some((&door, text)) = data[..data.len().min(INPUT_CAP)].split_first() else {
        return;
    };
    let text = &*String::from_utf8_lossy(text);
    let option = |action| EgressPolicy::from_option(action, text, 1);
    let policy = match door % 6 {
        ALLOW => option(Action::Allow),
        2 => option(Action::Ask),
        3 => option(Action::Deny),
        LIST => EgressPolicy::from_list("cni", "policy", text.lines()),
        ANNOTATION => EgressPolicy::from_list("oci", "policy", EgressPolicy::entries(text)),
        FILE.. => EgressPolicy::parse(text, "policy"),
    };
    match policy {
        Ok(policy) => check_policy(&policy),
        Err(errors) => check_errors(&errors, text),
    }
}

/// The policy survives being written and read, in any order and added to itself.
fn check_policy(policy: &EgressPolicy) {
    let text = policy.to_text();
    let again = EgressPolicy::parse(&text, "canonical").expect("the canonical text is right");
    assert_eq!(again.to_text(), text);
    assert_eq!(&again, policy);
    assert_eq!(again.settings(), policy.settings());
    assert_eq!(again.default_action(), policy.default_action());
    let backwards: Vec<&str> = text.lines().rev().collect();
    let backwards = EgressPolicy::from_list("cni", "policy", backwards).expect("the same lines");
    assert_eq!(&backwards, policy);
    assert_eq!(&policy.merge(&again).expect("both say the same"), policy);
    for rule in policy.rules() {
        let line = rule.to_string();
        assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
        let alone = EgressPolicy::parse(&line, "line").expect("a rule shows itself as text");
        let [read] = alone.rules() else {
            panic!("{line:?} is {:?}", alone.rules());
        };
        let mut read = read.clone();
        read.source = rule.source.clone();
        assert_eq!(&read, rule);
    }
    for warning in policy.warnings() {
        assert!(warning.to_string().bytes().all(|byte| matches!(byte, b' '..=b'~')), "{warning}");
    }
    let mut switches = Policy::default();
    let _ = policy.check(&switches);
    (switches.allow_host_loopback, switches.dns_service) = (false, false);
    let _ = policy.check(&switches);
}

/// Errors are few, printable, and each points at a character of the text or at its end.
fn check_errors(errors: &RuleErrors, text: &str) {
    assert!((1..=20).contains(&errors.iter().count()));
    for error in errors {
        let message = error.to_string();
        assert!(message.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{message:?}");
        assert!(message.len() < 1500, "{message:?}");
        let column = error.column().expect("what is wrong with a text has a place in it");
        let chars = match error.line() {
            Some(line) => text.lines().nth(line as usize - 1).expect("a line").chars().count(),
            None => text.chars().count(),
        };
        assert!((1..=chars + 1).contains(&(column as usize)), "{message:?}");
    }
}
