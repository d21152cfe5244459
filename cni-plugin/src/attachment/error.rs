//! Why a container could not be attached or detached.
//!
//! Owns [`Error`], which the long-lived process sends to its starter.

use serde::{Deserialize, Serialize};

/// The kind of a failure, for callers that distinguish kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// The container, or its network namespace, does not exist (any more).
    ContainerGone,
    /// The path does not lead to a network namespace.
    NotNamespace,
    /// The network namespace is our own.
    OwnNamespace,
    /// Another process has locked this attachment.
    Busy,
    /// The request cannot be carried out.
    Unsupported,
    /// Everything else.
    #[default]
    #[serde(other)]
    Failed,
}

/// A failure, as a message for a person.
#[derive(Clone, PartialEq, Eq, Debug, Default, thiserror::Error, Serialize, Deserialize)]
#[serde(default)]
#[error("{message}")]
pub(crate) struct Error {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    /// A hint about what to do, or empty.
    pub(crate) hint: String,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: String::new() }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    pub(crate) fn with_hint(mut self, hint: Option<&str>) -> Self {
        self.hint = hint.unwrap_or_default().to_owned();
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_survives_the_way_between_processes() {
        for (kind, name) in [
            (Kind::ContainerGone, "container-gone"),
            (Kind::NotNamespace, "not-namespace"),
            (Kind::OwnNamespace, "own-namespace"),
            (Kind::Busy, "busy"),
            (Kind::Unsupported, "unsupported"),
            (Kind::Failed, "failed"),
        ] {
            let error = Error::new(kind, "what").with_hint(Some("do this"));
            let written = serde_json::to_value(&error).unwrap();
            let expected = json!({ "kind": name, "message": "what", "hint": "do this" });
            assert_eq!(written, expected);
            assert_eq!(serde_json::from_value::<Error>(written).unwrap(), error);
        }
    }

    #[test]
    fn kind_of_another_version_is_a_failure() {
        let error: Error = serde_json::from_str("{\"kind\":\"odd\",\"message\":\"what\"}").unwrap();
        assert_eq!(error, Error::failed("what"));
    }
}
