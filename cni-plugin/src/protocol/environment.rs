//! The environment variables of a call.
//!
//! Owns the variables `CNI_*`, which of them a command needs, and their valid values. An empty
//! variable counts as absent, because libcni always sets all of them.

use std::ffi::OsString;

use super::error::{CniError, code};

/// Longest name of an interface in bytes (`IFNAMSIZ` without the final zero).
const IFNAME_CAP: usize = 15;

/// The commands of a runtime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    /// Reads `CNI_COMMAND`.
    ///
    /// # Errors
    /// For a command that does not exist.
    pub(crate) fn parse(text: &str) -> Result<Self, CniError> {
        Ok(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            _ => return Err(invalid(format!("unknown CNI_COMMAND: {text}"))),
        })
    }
}

/// The variables of one call about a container; empty if the command does not need them and they
/// are not set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Environment {
    pub(crate) container_id: String,
    pub(crate) netns: String,
    pub(crate) ifname: String,
    /// `CNI_ARGS`.
    pub(crate) args: Vec<(String, String)>,
    /// Whether the network namespace may be our own (`CNI_NETNS_OVERRIDE`); otherwise that is an
    /// error.
    pub(crate) may_be_own_netns: bool,
}

impl Environment {
    /// Reads the variables that `command` needs. `variable` looks one up.
    ///
    /// # Errors
    /// When a variable that the command needs is missing or invalid.
    pub(crate) fn read(
        command: Command,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, CniError> {
        let text = |name: &str| -> Result<String, CniError> {
            let value = variable(name).unwrap_or_default();
            value.into_string().map_err(|_| invalid(format!("{name} is not UTF-8")))
        };
        let needed: &[&str] = match command {
            Command::Add | Command::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Command::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Command::Gc | Command::Status | Command::Version => return Ok(Self::default()),
        };
        let mut missing = Vec::new();
        for name in needed {
            if text(name)?.is_empty() {
                missing.push(*name);
            }
        }
        if !missing.is_empty() {
            let names = missing.join(",");
            return Err(invalid(format!("required env variables [{names}] missing")));
        }
        let environment = Self {
            container_id: text("CNI_CONTAINERID")?,
            netns: text("CNI_NETNS")?,
            ifname: text("CNI_IFNAME")?,
            args: arguments(&text("CNI_ARGS")?)?,
            may_be_own_netns: matches!(
                text("CNI_NETNS_OVERRIDE")?.to_ascii_lowercase().as_str(),
                "1" | "true"
            ),
        };
        if !is_identifier(&environment.container_id) {
            return Err(
                invalid("invalid characters in containerID").with_details(environment.container_id)
            );
        }
        validate_ifname(&environment.ifname)?;
        Ok(environment)
    }

    /// The value of one of `CNI_ARGS`.
    pub(crate) fn argument(&self, name: &str) -> Option<&str> {
        let found = self.args.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

fn invalid(message: impl Into<String>) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, message)
}

/// Reads `KEY=VALUE;KEY=VALUE`.
fn arguments(text: &str) -> Result<Vec<(String, String)>, CniError> {
    text.split(';')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(invalid(format!("CNI_ARGS invalid pair {pair:?}"))),
        })
        .collect()
}

/// Whether a text may name a container or a network: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`.
pub(crate) fn is_identifier(text: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphanumeric();
    let is_other = |byte: u8| is_first(byte) || matches!(byte, b'_' | b'.' | b'-');
    text.bytes().next().is_some_and(is_first) && text.bytes().all(is_other)
}

/// Whether a text may name an interface.
///
/// # Errors
/// With the reason why it may not.
pub(crate) fn validate_ifname(name: &str) -> Result<(), CniError> {
    let problem = if name.is_empty() {
        "interface name is empty"
    } else if name.len() > IFNAME_CAP {
        "interface name is too long"
    } else if name == "." || name == ".." {
        "interface name is . or .."
    } else if name.contains(|c: char| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control())
    {
        "interface name contains / or : or whitespace characters"
    } else {
        return Ok(());
    };
    Err(invalid(problem).with_details(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(command: Command, pairs: &[(&str, &str)]) -> Result<Environment, CniError> {
        Environment::read(command, |name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    const FULL: [(&str, &str); 4] = [
        ("CNI_CONTAINERID", "c-1"),
        ("CNI_NETNS", "/proc/7/ns/net"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "IgnoreUnknown=1;ip=10.0.2.5;MAC="),
    ];

    #[test]
    fn variables_that_a_command_needs_are_named_when_missing() {
        let error = read(Command::Add, &[("CNI_CONTAINERID", "a"), ("CNI_NETNS", "")]).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (4, "required env variables [CNI_NETNS,CNI_IFNAME] missing")
        );
        assert!(read(Command::Del, &[("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "b")]).is_ok());
        assert_eq!(read(Command::Gc, &[]), Ok(Environment::default()));
    }

    #[test]
    fn arguments_are_found_in_any_case_and_empty_ones_are_absent() {
        let environment = read(Command::Add, &FULL).unwrap();
        assert_eq!(environment.argument("IP"), Some("10.0.2.5"));
        assert_eq!(environment.argument("MAC"), None);
        assert_eq!(environment.argument("K8S_POD_NAME"), None);
    }

    #[test]
    fn invalid_names_are_refused() {
        for (variable, value, message) in [
            ("CNI_CONTAINERID", "-a", "invalid characters in containerID"),
            ("CNI_CONTAINERID", "a/b", "invalid characters in containerID"),
            ("CNI_IFNAME", "0123456789abcdef", "interface name is too long"),
            ("CNI_IFNAME", "..", "interface name is . or .."),
            ("CNI_IFNAME", "a b", "interface name contains / or : or whitespace characters"),
            ("CNI_IFNAME", "a/b", "interface name contains / or : or whitespace characters"),
            ("CNI_IFNAME", "a:b", "interface name contains / or : or whitespace characters"),
            ("CNI_ARGS", "IP", "CNI_ARGS invalid pair \"IP\""),
        ] {
            let pairs = FULL.map(|(key, old)| (key, if key == variable { value } else { old }));
            let error = read(Command::Add, &pairs).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (4, message));
        }
    }
}
