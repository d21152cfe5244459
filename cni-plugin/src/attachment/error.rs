//! Why a container could not be attached or detached.
//!
//! Owns [`Error`], which crosses from the long-lived process to whoever started it.

use serde_json::{Value, json};

/// What kind of failure it is, for callers that tell kinds apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The container, or its network namespace, does not exist (any more).
    ContainerGone,
    /// The path is not that of a network namespace.
    NotNamespace,
    /// The network namespace is our own.
    OwnNamespace,
    /// Somebody else is at work on this attachment.
    Busy,
    /// What is asked for cannot be done.
    Unsupported,
    /// Everything else.
    Failed,
}

impl Kind {
    const ALL: [(Self, &str); 6] = [
        (Self::ContainerGone, "container-gone"),
        (Self::NotNamespace, "not-namespace"),
        (Self::OwnNamespace, "own-namespace"),
        (Self::Busy, "busy"),
        (Self::Unsupported, "unsupported"),
        (Self::Failed, "failed"),
    ];
}

/// A failure, in words for a person.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    /// What to do about it, or empty.
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

    pub(crate) fn to_json(&self) -> Value {
        let kind = Kind::ALL.into_iter().find(|(kind, _)| *kind == self.kind);
        let kind = kind.map_or("failed", |(_, name)| name);
        json!({ "kind": kind, "message": self.message, "hint": self.hint })
    }

    pub(crate) fn from_json(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let named = text("kind");
        let kind = Kind::ALL.into_iter().find(|(_, name)| *name == named);
        Self {
            kind: kind.map_or(Kind::Failed, |(kind, _)| kind),
            message: text("message"),
            hint: text("hint"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_survives_the_way_between_processes() {
        for (kind, _) in Kind::ALL {
            let error = Error::new(kind, "what").with_hint(Some("do this"));
            assert_eq!(Error::from_json(&error.to_json()), error);
        }
    }
}
