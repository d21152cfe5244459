//! The network configuration that a runtime sends over standard input.
//!
//! Owns the way from its JSON to a [`Request`](crate::attachment::request::Request): [`Header`] is
//! the part that every command needs, so that deleting works even if the rest is invalid;
//! [`settings`] is the rest. A declared key that cannot be acted on is an error that names the key.
//! An unknown key is ignored, as the specification says, unless it looks like a misspelt key that
//! restricts something ([`spelling`]).

pub(crate) mod addresses;
mod bandwidth;
mod operator;
pub(crate) mod policy;
pub(crate) mod port_mappings;
pub(crate) mod settings;
mod spelling;

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::attachment::key::Key;
use crate::protocol::environment::is_identifier;
use crate::protocol::error::{CniError, code};
use crate::protocol::field;
use crate::protocol::version::Version;

/// The part that every command needs.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Header {
    pub(crate) version: Version,
    pub(crate) name: String,
    pub(crate) state_dir: Option<PathBuf>,
    /// The whole object, for commands that need more.
    pub(crate) object: Map<String, Value>,
}

impl Header {
    /// Reads a configuration.
    ///
    /// # Errors
    /// For input that is not JSON, has an unknown version, or lacks a valid name; with the version
    /// in which to report the error.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, (Version, CniError)> {
        let newest = |error: CniError| (Version::NEWEST, error);
        let broken = |what: String| {
            newest(CniError::new(code::DECODE, format!("error unmarshall network config: {what}")))
        };
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| broken(error.to_string()))?;
        let Value::Object(object) = value else { return Err(broken("not an object".to_owned())) };
        let version = match field::find(&object, "cniVersion") {
            None => Version::V010,
            Some(Value::String(text)) => Version::parse(text).ok_or_else(|| {
                let texts = Version::texts().map(|text| format!("{text:?}")).join(" ");
                newest(
                    CniError::new(code::INCOMPATIBLE_VERSION, "incompatible CNI versions")
                        .with_details(format!("config is {text:?}, plugin supports [{texts}]")),
                )
            })?,
            Some(_) => return Err(broken("cniVersion is not a text".to_owned())),
        };
        let fail = |message: &str| (version, CniError::config(message));
        let name = match field::find(&object, "name") {
            Some(Value::String(name)) if !name.is_empty() => name.clone(),
            Some(Value::String(_)) | None => return Err(fail("missing network name")),
            Some(_) => return Err(fail("the network name is not a text")),
        };
        if !is_identifier(&name) {
            return Err(fail("invalid characters found in network name"));
        }
        let state_dir = path(&object, "stateDir").map_err(|error| (version, error))?;
        Ok(Self { version, name, state_dir, object })
    }

    /// A member of the configuration.
    pub(crate) fn find(&self, name: &str) -> Option<&Value> {
        field::find(&self.object, name)
    }

    /// The attachments that the runtime still wants, if it lists them; for `GC`.
    ///
    /// # Errors
    /// For an invalid list.
    pub(crate) fn valid_attachments(&self) -> Result<Option<Vec<Key>>, CniError> {
        let names = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let Some(value) = names.iter().find_map(|name| self.find(name)) else { return Ok(None) };
        let invalid = || CniError::config(format!("invalid {}", names[0]));
        let list = value.as_array().ok_or_else(invalid)?;
        let key = |entry: &Value| {
            let text = |name: &str| field::of(entry, name)?.as_str().map(str::to_owned);
            Some(Key { container_id: text("containerID")?, ifname: text("ifname")? })
        };
        list.iter().map(|entry| key(entry).ok_or_else(invalid)).collect::<Result<_, _>>().map(Some)
    }
}

/// A boolean member.
fn flag(header: &Header, name: &str, default: bool) -> Result<bool, CniError> {
    match header.find(name) {
        None => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(value) => Err(CniError::config(format!("{name}: {value} is neither true nor false"))),
    }
}

/// A member that is an absolute path; an empty one is absent.
pub(crate) fn path(object: &Map<String, Value>, name: &str) -> Result<Option<PathBuf>, CniError> {
    match field::find(object, name) {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.starts_with('/') => Ok(Some(PathBuf::from(text))),
        Some(value) => Err(CniError::config(format!("{name}: {value} is not an absolute path"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &Value) -> Result<Header, (Version, CniError)> {
        Header::parse(value.to_string().as_bytes())
    }

    #[test]
    fn configuration_without_version_is_of_the_first_one() {
        let header = parse(&json!({ "name": "slirp", "type": "slirp", "mtu": 1500 })).unwrap();
        assert_eq!((header.version, header.name.as_str()), (Version::V010, "slirp"));
    }

    #[test]
    fn each_mistake_has_its_code_and_text() {
        for (text, code, message) in [
            (
                "",
                6,
                "error unmarshall network config: EOF while parsing a value at line 1 column 0",
            ),
            ("[]", 6, "error unmarshall network config: not an object"),
            ("{\"cniVersion\":\"9.9.9\",\"name\":\"a\"}", 1, "incompatible CNI versions"),
            ("{}", 7, "missing network name"),
            ("{\"name\":\"\"}", 7, "missing network name"),
            ("{\"name\":\"a/b\"}", 7, "invalid characters found in network name"),
            ("{\"name\":\"a\",\"stateDir\":\"x\"}", 7, "stateDir: \"x\" is not an absolute path"),
        ] {
            let (_, error) = Header::parse(text.as_bytes()).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (code, message), "{text}");
        }
        let (version, error) = parse(&json!({ "cniVersion": "9.9.9", "name": "a" })).unwrap_err();
        assert_eq!(version, Version::NEWEST);
        assert_eq!(
            error.details,
            "config is \"9.9.9\", plugin supports [\"0.1.0\" \"0.2.0\" \"0.3.0\" \"0.3.1\" \
             \"0.4.0\" \"1.0.0\" \"1.1.0\"]"
        );
    }

    #[test]
    fn valid_attachments_come_under_either_name() {
        let list = json!([{ "containerID": "a", "ifname": "eth0" }]);
        for name in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let header = parse(&json!({ "name": "a", name: list })).unwrap();
            let keys = header.valid_attachments().unwrap().unwrap();
            assert_eq!(keys[0].to_string(), "a eth0");
        }
        let header = parse(&json!({ "name": "a" })).unwrap();
        assert_eq!(header.valid_attachments(), Ok(None));
        let header = parse(&json!({ "name": "a", "cni.dev/valid-attachments": [{}] })).unwrap();
        assert!(header.valid_attachments().is_err());
    }
}
