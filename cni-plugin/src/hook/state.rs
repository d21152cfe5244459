//! A runtime's description of a container: the state (runtime-spec, "State") and the bundle's
//! configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Failure;
use super::options::Direction;
use crate::attachment::open;

/// Longest `config.json` in bytes (arbitrary; an ordinary one has some KiB).
const CONFIG_CAP: u64 = 16 * 1024 * 1024;

/// The state of a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    pub(super) id: String,
    pub(super) status: String,
    /// The container's process, if it has one.
    pub(super) pid: Option<i32>,
    pub(super) bundle: Option<PathBuf>,
    pub(super) annotations: BTreeMap<String, String>,
}

impl State {
    /// Reads a state.
    ///
    /// # Errors
    /// For anything but a state.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let invalid =
            |what: String| Failure(format!("no container's state on standard input: {what}"));
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
        if text("ociVersion").is_none() {
            return Err(invalid("it has no ociVersion".to_owned()));
        }
        let id = text("id").ok_or_else(|| invalid("it has no id".to_owned()))?.to_owned();
        let pid = value.get("pid").and_then(Value::as_i64).and_then(|pid| i32::try_from(pid).ok());
        Ok(Self {
            id,
            status: text("status").unwrap_or_default().to_owned(),
            pid: pid.filter(|&pid| pid > 0),
            bundle: text("bundle").map(PathBuf::from),
            annotations: annotations(value.get("annotations")),
        })
    }

    /// What to do in this state.
    pub(super) fn direction(&self) -> Direction {
        if self.pid.is_none() || self.status == "stopped" { Direction::Down } else { Direction::Up }
    }
}

fn annotations(value: Option<&Value>) -> BTreeMap<String, String> {
    let object = value.and_then(Value::as_object).into_iter().flatten();
    object.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The parts of a bundle's `config.json` that matter here; empty if it cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Bundle {
    /// The network namespace that the container joins.
    pub(super) joined: Option<PathBuf>,
    pub(super) annotations: BTreeMap<String, String>,
    /// Programs of the `createContainer` hooks.
    pub(super) inner_hooks: Vec<PathBuf>,
}

impl Bundle {
    /// Reads the configuration in `folder`.
    pub(super) fn read(folder: &Path) -> Self {
        let bytes = open::read(&folder.join("config.json"), CONFIG_CAP).unwrap_or_default();
        serde_json::from_slice(&bytes).map_or_else(|_| Self::default(), |value| Self::parse(&value))
    }

    fn parse(config: &Value) -> Self {
        let namespaces = config["linux"]["namespaces"].as_array().into_iter().flatten();
        let mut network = namespaces.filter(|namespace| namespace["type"] == "network");
        let path = network.find_map(|namespace| namespace["path"].as_str());
        let inner_hooks = config["hooks"]["createContainer"].as_array().into_iter().flatten();
        let inner_hooks = inner_hooks.filter_map(|hook| hook["path"].as_str());
        Self {
            inner_hooks: inner_hooks.map(PathBuf::from).collect(),
            joined: path.filter(|path| !path.is_empty()).map(PathBuf::from),
            annotations: annotations(config.get("annotations")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn direction_follows_from_status_and_process() {
        for (status, pid, direction) in [
            ("creating", Some(7), Direction::Up),
            ("created", Some(7), Direction::Up),
            ("running", Some(7), Direction::Up),
            ("created", Some(0), Direction::Down),
            ("creating", None, Direction::Down),
            ("stopped", Some(7), Direction::Down),
            ("stopped", None, Direction::Down),
        ] {
            let mut value = json!({ "ociVersion": "1.0.2", "id": "c", "status": status });
            value["pid"] = json!(pid);
            let state = State::parse(value.to_string().as_bytes()).unwrap();
            assert_eq!(state.direction(), direction, "{status} {pid:?}");
        }
    }

    #[test]
    fn invalid_state_is_refused() {
        for text in
            ["", "{}", "7", "{\"ociVersion\":\"1.0.2\"}", "{\"ociVersion\":\"1\",\"id\":\"\"}"]
        {
            let failure = State::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(failure.starts_with("no container's state on standard input: "), "{failure}");
        }
    }

    #[test]
    fn joined_namespace_is_that_of_the_network() {
        let config = |namespace: Value| {
            let pid = json!({ "type": "pid", "path": "/proc/1/ns/pid" });
            Bundle::parse(&json!({ "linux": { "namespaces": [pid, namespace] } })).joined
        };
        assert_eq!(config(json!({ "type": "network" })), None);
        assert_eq!(config(json!({ "type": "network", "path": "" })), None);
        let path = "/run/netns/a";
        assert_eq!(config(json!({ "type": "network", "path": path })), Some(path.into()));
        assert_eq!(Bundle::parse(&json!([])), Bundle::default());
    }

    #[test]
    fn inner_hooks_are_those_of_create_container() {
        let hooks = json!({ "createContainer": [{ "path": "/a" }, {}, { "path": "/b" }],
            "createRuntime": [{ "path": "/c" }] });
        let bundle = Bundle::parse(&json!({ "hooks": hooks }));
        assert_eq!(bundle.inner_hooks, [PathBuf::from("/a"), PathBuf::from("/b")]);
    }
}
