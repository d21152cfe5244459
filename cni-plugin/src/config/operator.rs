//! What the operator watches and steers the network by: audit log, control socket, metrics.
//!
//! Owns the keys `auditLog`, `audit`, `auditRequired`, `controlSocket`, `metrics` and
//! `metricsMembers`. A configuration is for all containers of its network, each with an engine of
//! its own unless the network is shared; so a path may contain `{containerID}` and `{ifname}`, in
//! any letter case as the keys are.

use std::ffi::OsStr;
use std::path::PathBuf;

use slirp_cli::wording::MetricsAddress;

use super::{Header, flag, path};
use crate::attachment::operator::{Audit, Level, Metrics, Operator};
use crate::protocol::environment::Environment;
use crate::protocol::error::CniError;

/// What stands for the container in a path, and for its interface.
const PLACEHOLDERS: [&str; 2] = ["{containerID}", "{ifname}"];

/// What the keys say.
///
/// # Errors
/// For invalid values, for keys without the key that they need, and for a path of one container on
/// a network with several.
pub(super) fn operator(
    header: &Header,
    environment: &Environment,
    is_shared: bool,
) -> Result<Operator, CniError> {
    let filled = |key: &str, path: PathBuf| {
        // Keys are JSON, and so is every path in them.
        let text = path.to_string_lossy();
        let has_placeholder =
            PLACEHOLDERS.iter().any(|placeholder| pieces(&text, placeholder).len() > 1);
        if has_placeholder && is_shared {
            let message = format!("{key}: {text}: the containers of a shared network have one");
            return Err(CniError::config(message));
        }
        let values = [&environment.container_id, &environment.ifname];
        let fill = |text: String, (placeholder, value): (&&str, &String)| {
            pieces(&text, placeholder).join(value)
        };
        Ok(PathBuf::from(PLACEHOLDERS.iter().zip(values).fold(text.into_owned(), fill)))
    };
    let file =
        path(&header.object, "auditLog")?.map(|file| filled("auditLog", file)).transpose()?;
    let (level, required) = (level(header)?, flag(header, "auditRequired", false)?);
    let audit = match file {
        Some(file) => Some(Audit { file, level: level.unwrap_or_default(), required }),
        None if required => return Err(CniError::config("auditRequired needs auditLog")),
        None if level.is_some() => return Err(CniError::config("audit needs auditLog")),
        None => None,
    };
    let control_socket = path(&header.object, "controlSocket")?;
    let control_socket = control_socket.map(|path| filled("controlSocket", path)).transpose()?;
    let members = flag(header, "metricsMembers", false)?;
    let metrics = match address(header)? {
        Some(MetricsAddress::Unix(path)) => Some(MetricsAddress::Unix(filled("metrics", path)?)),
        address => address,
    };
    let metrics = metrics.map(|address| Metrics { address: address.into(), members });
    if members && metrics.is_none() {
        return Err(CniError::config("metricsMembers needs metrics"));
    }
    Ok(Operator { audit, control_socket, metrics })
}

/// What stands around a placeholder.
fn pieces<'t>(text: &'t str, placeholder: &str) -> Vec<&'t str> {
    let mut pieces = Vec::new();
    let mut from = 0;
    // Each byte of an ASCII letter has its place in both cases.
    for (at, _) in text.to_ascii_lowercase().match_indices(&placeholder.to_ascii_lowercase()) {
        pieces.push(&text[from..at]);
        from = at + placeholder.len();
    }
    pieces.push(&text[from..]);
    pieces
}

fn level(header: &Header) -> Result<Option<Level>, CniError> {
    let Some(value) = header.find("audit") else { return Ok(None) };
    match value.as_str() {
        Some("denied") => Ok(Some(Level::Denied)),
        Some("decisions") => Ok(Some(Level::Decisions)),
        Some("all") => Ok(Some(Level::All)),
        Some(_) | None => {
            Err(CniError::config(format!("audit: {value} is not denied, decisions or all")))
        }
    }
}

fn address(header: &Header) -> Result<Option<MetricsAddress>, CniError> {
    let Some(value) = header.find("metrics") else { return Ok(None) };
    let text = value.as_str().unwrap_or_default();
    let address = MetricsAddress::parse(OsStr::new(text))
        .map_err(|error| CniError::config(format!("metrics: {value}: {error}")))?;
    if address.path().is_some_and(|path| path.is_relative()) {
        return Err(CniError::config(format!("metrics: {value}: the path is not absolute")));
    }
    Ok(Some(address))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::attachment::operator::Address;

    fn read(mut config: Value) -> Result<Operator, CniError> {
        config["name"] = json!("net");
        let header = Header::parse(config.to_string().as_bytes()).unwrap();
        let is_shared = flag(&header, "shared", false)?;
        let environment = Environment {
            container_id: "c1".to_owned(),
            ifname: "eth0".to_owned(),
            ..Environment::default()
        };
        operator(&header, &environment, is_shared)
    }

    #[test]
    fn keys_in_any_case_name_files_of_the_container() {
        assert!(
            read(json!({ "mtu": 1500, "auditLog": "", "controlSocket": null })).unwrap().is_none()
        );
        let operator = read(json!({
            "AuditLog": "/log/{containerID}-{ifname}", "audit": "all", "auditrequired": true,
            "ControlSocket": "/run/{CONTAINERID}.sock",
            "Metrics": "unix:/run/{containerid}.metrics",
        }))
        .unwrap();
        let audit = Audit { file: "/log/c1-eth0".into(), level: Level::All, required: true };
        assert_eq!(operator.audit, Some(audit));
        assert_eq!(operator.control_socket, Some("/run/c1.sock".into()));
        let address = Address::Unix("/run/c1.metrics".into());
        assert_eq!(operator.metrics, Some(Metrics { address, members: false }));
        let shared = read(json!({
            "shared": true, "auditLog": "/log/net", "metrics": "[::1]:9100", "metricsMembers": true,
        }))
        .unwrap();
        let log = shared.audit.unwrap();
        assert_eq!((log.level, log.required), (Level::Decisions, false));
        let address = Address::Loopback("[::1]:9100".parse().unwrap());
        assert_eq!(shared.metrics, Some(Metrics { address, members: true }));
    }

    #[test]
    fn values_that_are_none_are_errors_with_their_key() {
        for (config, message) in [
            (json!({ "auditLog": "here" }), "auditLog: \"here\" is not an absolute path"),
            (json!({ "auditLog": 7 }), "auditLog: 7 is not an absolute path"),
            (json!({ "audit": "all" }), "audit needs auditLog"),
            (
                json!({ "auditLog": "/a", "audit": "none" }),
                "audit: \"none\" is not denied, decisions or all",
            ),
            (json!({ "auditRequired": true }), "auditRequired needs auditLog"),
            (
                json!({ "auditLog": "/a", "auditRequired": "yes" }),
                "auditRequired: \"yes\" is neither true nor false",
            ),
            (json!({ "controlSocket": "c" }), "controlSocket: \"c\" is not an absolute path"),
            (json!({ "metricsMembers": true }), "metricsMembers needs metrics"),
            (
                json!({ "metrics": 9100 }),
                "metrics: 9100: expected unix:PATH, 127.0.0.1:PORT or [::1]:PORT",
            ),
            (
                json!({ "metrics": "192.0.2.1:9100" }),
                "metrics: \"192.0.2.1:9100\": metrics are served at 127.0.0.1:PORT, [::1]:PORT or \
                 unix:PATH alone",
            ),
            (
                json!({ "metrics": "127.0.0.2:9100" }),
                "metrics: \"127.0.0.2:9100\": metrics are served at 127.0.0.1:PORT, [::1]:PORT or \
                 unix:PATH alone",
            ),
            (json!({ "metrics": "unix:m" }), "metrics: \"unix:m\": the path is not absolute"),
            (
                json!({ "shared": true, "controlSocket": "/run/{containerID}" }),
                "controlSocket: /run/{containerID}: the containers of a shared network have one",
            ),
            (
                json!({ "shared": true, "auditLog": "/run/{IfName}" }),
                "auditLog: /run/{IfName}: the containers of a shared network have one",
            ),
        ] {
            let error = read(config).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (7, message));
        }
    }
}
