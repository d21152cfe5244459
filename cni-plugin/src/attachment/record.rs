//! The record of an attachment.

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

/// The format of records, 1; records of other formats are not read.
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
    /// Whether its keeper lives, so that its container has a network.
    pub(crate) fn is_alive(&self) -> bool {
        self.keeper.is_alive() && self.engine.as_ref().is_none_or(ProcessIdentity::is_alive)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::attachment::request::tests::written;

    #[test]
    fn record_of_an_earlier_version_is_read_and_written_as_it_was() {
        let process = json!({ "pid": 1, "startTime": 2, "bootID": "b", "pidNamespace": 3 });
        let mut record = json!({
            "form": 1, "request": written(), "keeper": process, "engine": process, "mac": "",
        });
        let is_kept = |record: &serde_json::Value| {
            let read: Record = serde_json::from_slice(record.to_string().as_bytes()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), *record);
        };
        is_kept(&record);
        record["engine"] = json!(null);
        // What a container need not have.
        let optional = ["cidr6", "address6", "metric", "mac", "outbound", "logFile", "shared"];
        for key in optional {
            record["request"][key] = json!(null);
        }
        record["request"]["netnsDevice"] = json!(0);
        record["request"]["netnsInode"] = json!(0);
        is_kept(&record);
        record["form"] = json!(2);
        let later = serde_json::from_value::<Record>(record).unwrap_err();
        assert_eq!(later.to_string(), "a record of another form");
    }
}
