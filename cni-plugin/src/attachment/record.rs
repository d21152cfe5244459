//! An attachment as it is written down.

use serde_json::{Value, json};

use super::identity::ProcessIdentity;
use super::request::Request;

/// The form of records; another one is not read.
const FORM: u64 = 1;

/// An attachment and the processes behind it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Record {
    pub(crate) request: Request,
    /// The process that keeps the attachment.
    pub(crate) keeper: ProcessIdentity,
    /// The process that carries its traffic.
    pub(crate) engine: Option<ProcessIdentity>,
    /// The interface's Ethernet address.
    pub(crate) mac: String,
}

impl Record {
    /// Whether its container has a network.
    pub(crate) fn is_alive(&self) -> bool {
        self.keeper.is_alive() && self.engine.as_ref().is_none_or(ProcessIdentity::is_alive)
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "form": FORM,
            "request": self.request.to_json(),
            "keeper": self.keeper.to_json(),
            "engine": self.engine.as_ref().map(ProcessIdentity::to_json),
            "mac": self.mac,
        })
    }

    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        (value["form"].as_u64()? == FORM).then_some(())?;
        Some(Self {
            request: Request::from_json(&value["request"])?,
            keeper: ProcessIdentity::from_json(&value["keeper"])?,
            engine: ProcessIdentity::from_json(&value["engine"]),
            mac: value["mac"].as_str()?.to_owned(),
        })
    }
}
