//! An attachment as it is written down.

use serde::{Deserialize, Serialize};

use super::identity::ProcessIdentity;
use super::request::Request;

/// An attachment and the processes behind it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) form: Form,
    pub(crate) request: Request,
    /// The process that keeps the attachment.
    pub(crate) keeper: ProcessIdentity,
    /// The process that carries its traffic.
    pub(crate) engine: Option<ProcessIdentity>,
    /// The interface's Ethernet address.
    pub(crate) mac: String,
}

/// The form of records, 1; records of another form are not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "u64", try_from = "u64")]
pub(crate) struct Form;

impl From<Form> for u64 {
    fn from(Form: Form) -> Self {
        1
    }
}

impl TryFrom<u64> for Form {
    type Error = &'static str;

    fn try_from(form: u64) -> Result<Self, Self::Error> {
        if form == 1 { Ok(Self) } else { Err("a record of another form") }
    }
}

impl Record {
    /// Whether its container has a network.
    pub(crate) fn is_alive(&self) -> bool {
        self.keeper.is_alive() && self.engine.as_ref().is_none_or(ProcessIdentity::is_alive)
    }
}
