//! Error objects and their codes.

use serde_json::{Value, json};

use super::version::Version;

/// Codes: 1-99 of the specification's table, from 100 on the plugin's own.
pub(crate) mod code {
    /// The configuration's version is not supported, or does not have this command.
    pub(crate) const INCOMPATIBLE_VERSION: u16 = 1;
    /// A key is not supported, or has a value that cannot be acted on.
    pub(crate) const UNSUPPORTED_FIELD: u16 = 2;
    /// The container does not exist (any more).
    pub(crate) const UNKNOWN_CONTAINER: u16 = 3;
    /// Environment variables are missing or not valid.
    pub(crate) const INVALID_ENVIRONMENT: u16 = 4;
    /// Standard input cannot be read.
    pub(crate) const IO: u16 = 5;
    /// Standard input is not JSON.
    pub(crate) const DECODE: u16 = 6;
    /// The network configuration is not valid.
    pub(crate) const INVALID_CONFIG: u16 = 7;
    /// The network namespace is our own; libcni's `ErrInvalidNetNS`.
    pub(crate) const INVALID_NETNS: u16 = 8;
    /// Another process has locked the container.
    pub(crate) const TRY_AGAIN_LATER: u16 = 11;
    /// `STATUS`: containers cannot be added.
    pub(crate) const NOT_AVAILABLE: u16 = 50;
    /// `STATUS`: containers can be added, but some that exist have lost their network.
    pub(crate) const LIMITED_CONNECTIVITY: u16 = 51;
    /// Everything else; libcni's `ErrInternal`.
    pub(crate) const INTERNAL: u16 = 999;
}

/// Why a command failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CniError {
    pub(crate) code: u16,
    pub(crate) message: String,
    pub(crate) details: String,
}

impl CniError {
    pub(crate) fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(code::INVALID_CONFIG, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(code::UNSUPPORTED_FIELD, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(code::INTERNAL, message)
    }

    pub(crate) fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// Puts a context in front of the message.
    pub(crate) fn in_context(mut self, context: &str) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The object that is printed.
    pub(crate) fn object(&self, version: Version) -> Value {
        let mut object =
            json!({ "cniVersion": version.as_str(), "code": self.code, "msg": self.message });
        if !self.details.is_empty() {
            object["details"] = json!(self.details);
        }
        object
    }
}
