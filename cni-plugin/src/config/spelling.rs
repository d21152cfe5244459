//! Misspelt keys.
//!
//! Unknown keys are ignored, as the specification says. A misspelling of a key that restricts
//! something would silently lift the restriction, so it is an error.

use serde_json::{Map, Value};
use slirp_cli::distance;

use crate::protocol::error::CniError;

/// Keys whose loss would lift a restriction or join separate networks.
const GUARDED: [&str; 11] = [
    "disableHostLoopback",
    "disableDNS",
    "sandbox",
    "shared",
    "outboundAddr",
    "outboundAddr6",
    "policy",
    "policyFile",
    "auditLog",
    "auditRequired",
    "bandwidth",
];

/// Length from which two mistakes still leave a word recognizable (arbitrary).
const LONG: usize = 9;

/// Refuses misspelt keys of the list.
///
/// # Errors
/// With the key that was probably intended.
pub(super) fn refuse_misspelt(object: &Map<String, Value>) -> Result<(), CniError> {
    let is_known = |key: &str| GUARDED.iter().any(|known| known.eq_ignore_ascii_case(key));
    for key in object.keys().filter(|key| !is_known(key)) {
        let plain: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
        let plain = plain.to_ascii_lowercase();
        let is_meant = |known: &&&str| {
            let slips = if known.len() < LONG { 1 } else { 2 };
            distance(&plain, &known.to_ascii_lowercase()) <= slips
        };
        if let Some(known) = GUARDED.iter().find(is_meant) {
            return Err(CniError::config(format!("{key}: unknown key; {known} is meant?")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn slips_are_errors_and_other_keys_are_not() {
        let read = |key: &str| refuse_misspelt(json!({ key: true }).as_object().unwrap());
        for (key, meant) in [
            ("disableHostLoopbak", "disableHostLoopback"),
            ("disable_host_loopback", "disableHostLoopback"),
            ("disabelHostLoopback", "disableHostLoopback"),
            ("disableDSN", "disableDNS"),
            ("sandboxed", ""),
            ("sandbx", "sandbox"),
            ("share", "shared"),
            ("outboundAdr", "outboundAddr"),
            ("polcy", "policy"),
            ("policy_files", "policyFile"),
            ("audit_log", "auditLog"),
            ("bandwith", "bandwidth"),
        ] {
            match read(key) {
                Ok(()) => assert_eq!(meant, "", "{key}"),
                Err(error) => {
                    let text = format!("{key}: unknown key; {meant} is meant?");
                    assert_eq!((error.code, error.message), (7, text));
                }
            }
        }
        for key in [
            "SANDBOX",
            "disablehostloopback",
            "outboundAddr6",
            "Policy",
            "name",
            "type",
            "mtu",
            "dns",
        ] {
            assert!(read(key).is_ok(), "{key}");
        }
    }
}
