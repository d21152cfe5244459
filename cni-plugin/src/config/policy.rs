//! Where the container may go: the egress policy of all doors.
//!
//! Owns the keys `policy` and `policyFile`, and the policy that the environment of the plugin
//! names. A policy in force is never lost: what cannot be read or understood is an error.

use std::env;
use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;
use slirp_core::egress::RuleErrors;
use slirp_core::internals::policy_file::{self, PolicyFileError, VARIABLE};
use slirp_core::policy::Policy;

use super::Header;
use crate::attachment::policy::{Door, PolicyText, sum};
use crate::protocol::error::CniError;

/// What the keys of the configuration and the environment give.
///
/// # Errors
/// For a value of another form, and for a file that cannot be read.
pub(crate) fn texts(header: &Header) -> Result<Vec<PolicyText>, CniError> {
    let mut texts = Vec::new();
    if let Some(value) = sole(header, "policy")? {
        texts.push(list(value)?);
    }
    if let Some(value) = sole(header, "policyFile")? {
        let path = value.as_str().filter(|path| path.starts_with('/'));
        let path = path.ok_or_else(|| {
            CniError::config(format!("policyFile: {value} is not an absolute path"))
        })?;
        texts.push(file(Path::new(path))?);
    }
    texts.extend(of_environment()?);
    Ok(texts)
}

/// What [`VARIABLE`] gives.
///
/// # Errors
/// For a file that cannot be read.
pub(crate) fn of_environment() -> Result<Option<PolicyText>, CniError> {
    named_by(env::var_os(VARIABLE))
}

fn named_by(variable: Option<OsString>) -> Result<Option<PolicyText>, CniError> {
    let Some(path) = policy_file::named_by(variable).map_err(unreadable)? else { return Ok(None) };
    // A runtime's working folder may be a container's.
    if !path.is_absolute() {
        let message = format!("{VARIABLE}: {} is not an absolute path", path.display());
        return Err(CniError::config(message));
    }
    file(&path).map(Some)
}

/// The text of a policy file.
///
/// # Errors
/// For a file that cannot be read.
pub(crate) fn file(path: &Path) -> Result<PolicyText, CniError> {
    let text = policy_file::read(path).map_err(unreadable)?;
    Ok(PolicyText::File { name: path.to_string_lossy().into_owned(), text })
}

/// Checks the texts of all doors beside the switches in `beside`. `None` if no door gave one.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn checked(
    texts: Vec<PolicyText>,
    beside: &Policy,
) -> Result<Option<Vec<PolicyText>>, CniError> {
    if texts.is_empty() {
        return Ok(None);
    }
    sum(&texts).and_then(|policy| policy.check(beside)).map_err(|errors| invalid(&errors))?;
    Ok(Some(texts))
}

/// The value of a key. If its loss could go unnoticed, because it is null or there twice, that is
/// an error here or of the caller.
fn sole<'h>(header: &'h Header, key: &str) -> Result<Option<&'h Value>, CniError> {
    let mut found = header.object.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
    match (found.next(), found.next()) {
        (Some((first, _)), Some((second, _))) => {
            Err(CniError::config(format!("{key} is given twice, as {first} and {second}")))
        }
        (found, _) => Ok(found.map(|(_, value)| value)),
    }
}

fn list(value: &Value) -> Result<PolicyText, CniError> {
    match value {
        Value::String(text) => Ok(PolicyText::list(Door::Cni, text)),
        Value::Array(list) => {
            let entry = |(index, entry): (usize, &Value)| {
                entry.as_str().map(str::to_owned).ok_or_else(|| {
                    CniError::config(format!("policy[{index}]: {entry} is not a text"))
                })
            };
            let entries = list.iter().enumerate().map(entry).collect::<Result<_, _>>()?;
            Ok(PolicyText::List { door: Door::Cni, entries })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            let message = format!("policy: {value} is neither a list of rules nor a text of them");
            Err(CniError::config(message))
        }
    }
}

fn unreadable(error: PolicyFileError) -> CniError {
    CniError::config(error.to_string()).with_details(error.hint().unwrap_or_default())
}

/// The first error is the message, the others are its details.
pub(crate) fn invalid(errors: &RuleErrors) -> CniError {
    let text = errors.to_string();
    let (first, others) = text.split_once('\n').unwrap_or((&text, ""));
    CniError::config(first).with_details(others)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::attachment::store::tests::Scratch;

    fn read(mut config: Value) -> Result<Vec<PolicyText>, CniError> {
        config["name"] = json!("net");
        texts(&Header::parse(config.to_string().as_bytes()).unwrap())
    }

    fn refusal(config: Value) -> (u16, String) {
        let texts = read(config);
        let error = texts.and_then(|texts| checked(texts, &Policy::default())).unwrap_err();
        (error.code, error.message)
    }

    #[test]
    fn keys_in_any_case_add_up() {
        let scratch = Scratch::new("policy");
        let path = scratch.0.join("p");
        std::fs::write(&path, "# theirs\nallow b.example\n").unwrap();
        let given = read(json!({ "Policy": ["allow a.example", ""], "policyfile": path })).unwrap();
        let policy = sum(&checked(given, &Policy::default()).unwrap().unwrap()).unwrap();
        assert_eq!(policy.to_text(), "allow a.example\nallow b.example\n");
        assert_eq!(policy.rules()[1].source.to_string(), format!("{}:2", path.display()));
        let text = read(json!({ "policy": "allow a.example; deny a.example:80" })).unwrap();
        assert_eq!(sum(&text).unwrap().rules().len(), 2);
        assert_eq!(read(json!({ "mtu": 1500 })).unwrap(), []);
        assert_eq!(checked(Vec::new(), &Policy::default()).unwrap(), None);
    }

    #[test]
    fn empty_policy_denies_all() {
        for value in [json!([]), json!(""), json!([""]), json!("# nothing")] {
            let texts = read(json!({ "policy": value })).unwrap();
            let texts = checked(texts, &Policy::default()).unwrap().unwrap();
            assert_eq!(sum(&texts).unwrap().to_text(), "", "{value}");
        }
    }

    #[test]
    fn policy_that_is_not_understood_is_an_error() {
        let scratch = Scratch::new("nopolicy");
        let path = scratch.0.join("p");
        std::fs::write(&path, "allow a.example\n deny a..example\n").unwrap();
        let odd = scratch.0.join("odd");
        std::fs::write(&odd, b"allow \xff").unwrap();
        let missing = scratch.0.join("none");
        let shown = |path: &Path| path.display().to_string();
        for (config, message) in [
            (json!({ "policy": null }), "policy: null is neither a list".to_owned()),
            (json!({ "policy": { "a": 1 } }), "policy: {\"a\":1} is neither a list".to_owned()),
            (json!({ "policy": ["deny a.example", 7] }), "policy[1]: 7 is not a text".to_owned()),
            (
                json!({ "policy": ["allow a.example", "allow a..example"] }),
                "policy[1]: column 7: a label is empty".to_owned(),
            ),
            (
                json!({ "policy": ["deny a.example"] }),
                "this policy only denies: add \"allow any\" for a deny list".to_owned(),
            ),
            (
                json!({ "policy": [], "POLICY": ["allow any"] }),
                "policy is given twice, as POLICY and policy".to_owned(),
            ),
            (json!({ "policyFile": "" }), "policyFile: \"\" is not an absolute path".to_owned()),
            (json!({ "policyFile": "p" }), "policyFile: \"p\" is not an absolute".to_owned()),
            (
                json!({ "policyFile": shown(&missing) }),
                format!("cannot read the policy {}: ", missing.display()),
            ),
            (
                json!({ "policyFile": shown(&odd) }),
                format!("the policy {} is not UTF-8", odd.display()),
            ),
            (
                json!({ "policyFile": shown(&path) }),
                format!("{}:2:7: a label is empty", path.display()),
            ),
        ] {
            let (code, found) = refusal(config);
            assert!(code == 7 && found.starts_with(&message), "{code} {found}");
        }
    }

    #[test]
    fn switches_that_a_rule_contradicts_are_an_error() {
        let texts = read(json!({ "policy": ["allow host-loopback", "allow a.example"] })).unwrap();
        let mut closed = Policy::default();
        (closed.allow_host_loopback, closed.dns_service) = (false, false);
        let error = checked(texts, &closed).unwrap_err();
        assert_eq!(error.message, "cni:1: the host's loopback is disabled");
        assert!(error.details.starts_with("cni:2: a rule for a name needs"), "{}", error.details);
    }

    #[test]
    fn variable_names_an_absolute_path() {
        let refused = |value: &str| named_by(Some(value.into())).unwrap_err().message;
        assert_eq!(refused(""), "SLIRP_POLICY is empty");
        assert_eq!(refused("p"), "SLIRP_POLICY: p is not an absolute path");
        assert!(refused("/none/p").starts_with("cannot read the policy /none/p: "));
        assert_eq!(named_by(None), Ok(None));
    }
}
