//! Messages between our processes.
//!
//! Owns the messages that go over [`frame`]s, and the refusal in place of an answer. Keys never
//! change, since a process of an earlier version may be at the other end.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use slirp_core::MacAddr;
use slirp_core::netns::NamespaceId;

use super::error::Error;
use super::form::{self, Netns};
use super::frame;
use super::request::{Addresses, Request};

/// A client's request to a keeper.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "execute", rename_all = "lowercase")]
pub(crate) enum ClientRequest {
    /// Asks which namespace it serves.
    Info,
    /// Tells it to serve the namespace whose descriptor follows.
    Enter,
    /// Tells it to end.
    End,
}

/// The answer to [`ClientRequest::Info`], and to [`ClientRequest::Enter`] from another container.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Info {
    /// The keeper waits for the container to hand over its namespace.
    Waiting {
        /// True.
        waiting: bool,
    },
    /// The keeper serves this namespace.
    Serving(Netns),
}

impl Info {
    /// The namespace that is served.
    pub(crate) fn netns(&self) -> Option<NamespaceId> {
        match self {
            Self::Waiting { .. } => None,
            Self::Serving(netns) => (*netns).into(),
        }
    }
}

/// The answer to [`ClientRequest::End`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// True.
    pub(crate) ended: bool,
}

/// A keeper's report to its caller that the network works; the keeper then waits for [`COMMIT`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    /// `None` while the keeper waits for the container.
    #[serde(flatten)]
    pub(crate) addresses: Option<Addresses>,
    /// The interface's Ethernet address.
    pub(crate) mac: String,
}

/// The caller's confirmation: the attachment stays.
pub(crate) const COMMIT: &str = "commit";
/// The keeper's last message.
pub(crate) const KEPT: &str = "kept";

/// A keeper's order to its engine; descriptors follow.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EngineOrder {
    pub(crate) request: Request,
    /// Where the API socket is to be.
    pub(crate) api_socket: PathBuf,
    /// Whether the descriptor of the guest's user namespace follows the device's.
    pub(crate) user_namespace: bool,
}

/// A keeper's order to the network process that it starts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetworkOrder {
    pub(crate) request: Request,
    pub(crate) host_netns: HostNetns,
    /// Where keepers join.
    pub(crate) socket: PathBuf,
    /// Where the API socket is to be.
    pub(crate) api_socket: PathBuf,
}

/// A client's request to the process of a network.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "execute", rename_all = "lowercase")]
pub(crate) enum NetworkRequest {
    /// [`Addresses`]; a [`Device`] follows.
    Join(Join),
    /// The same for a request with an egress policy, or with anything else that a process of
    /// version 0.1.0 would overlook; this word makes it refuse.
    #[serde(rename = "join-under-policy")]
    JoinUnderPolicy(Join),
    /// An answer once members whose keepers have hung up are gone.
    Settle,
}

/// A keeper's request to join.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Join {
    pub(crate) request: Box<Request>,
    pub(crate) host_netns: HostNetns,
}

/// Device and inode of the network namespace in which a keeper runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct HostNetns(u64, u64);

impl HostNetns {
    /// Our own.
    ///
    /// # Errors
    /// The errors of stat(2).
    pub(crate) fn own() -> io::Result<Self> {
        let id = NamespaceId::of_path(Path::new("/proc/self/ns/net"))?;
        Ok(Self(id.device, id.inode))
    }
}

/// A member's interface, whose descriptor follows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Device {
    #[serde(with = "form::In::<form::Mac>")]
    pub(crate) mac: Option<MacAddr>,
}

/// An answer that only tells that the request was carried out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {}

/// Receives a request. The inner error is for the other side, whose message was not understood.
///
/// # Errors
/// Otherwise the errors of [`frame::receive`].
pub(crate) fn receive_order<T: DeserializeOwned>(
    stream: &UnixStream,
) -> io::Result<Result<T, Error>> {
    match frame::receive(stream) {
        Ok(order) => Ok(Ok(order)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Ok(Err(Error::failed(format!("the request cannot be read: {error}"))))
        }
        Err(error) => Err(error),
    }
}

/// What is sent in the place of an answer.
#[derive(Serialize)]
struct Refusal {
    error: Error,
}

/// Sends an answer, or why there is none.
///
/// # Errors
/// The errors of [`frame::send`].
pub(crate) fn answer<T: Serialize>(
    stream: &UnixStream,
    answer: Result<T, Error>,
) -> io::Result<()> {
    match answer {
        Ok(given) => frame::send(stream, &given),
        Err(error) => frame::send(stream, &Refusal { error }),
    }
}

/// Receives an answer; the inner error is the other side's.
///
/// # Errors
/// The errors of [`frame::receive`].
pub(crate) fn receive_answer<T: DeserializeOwned>(
    stream: &UnixStream,
) -> io::Result<Result<T, Error>> {
    let answer: Value = frame::receive(stream)?;
    match answer.get("error") {
        // A refusal remains one if a process of another version words it otherwise.
        Some(error) if !error.is_null() => {
            let told = Error::deserialize(error);
            Ok(Err(told.unwrap_or_else(|_| Error::failed(error.to_string()))))
        }
        Some(_) | None => Ok(Ok(serde_json::from_value(answer)?)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;

    use super::*;
    use crate::attachment::request::tests::{example, written};

    fn is_written(message: &(impl Serialize + ?Sized), expected: &Value) {
        assert_eq!(serde_json::to_value(message).unwrap(), *expected);
    }

    #[test]
    fn messages_have_the_keys_of_earlier_versions() {
        let id = NamespaceId { device: 4, inode: 5 };
        let addresses = Addresses { address: Ipv4Addr::new(10, 9, 0, 7), address6: None };
        let host_netns = HostNetns(1, 2);
        let mac = Some(MacAddr([2, 0, 0, 0, 0, 9]));
        is_written(&ClientRequest::Info, &json!({ "execute": "info" }));
        is_written(&ClientRequest::Enter, &json!({ "execute": "enter" }));
        is_written(&ClientRequest::End, &json!({ "execute": "end" }));
        is_written(&Info::Waiting { waiting: true }, &json!({ "waiting": true }));
        is_written(
            &Info::Serving((&Some(id)).into()),
            &json!({ "netnsDevice": 4, "netnsInode": 5 }),
        );
        is_written(&Ended { ended: true }, &json!({ "ended": true }));
        let mut started = Started { addresses: None, mac: String::new() };
        is_written(&started, &json!({ "mac": "" }));
        started.addresses = Some(addresses);
        is_written(&started, &json!({ "address": "10.9.0.7", "address6": null, "mac": "" }));
        is_written(COMMIT, &json!("commit"));
        is_written(KEPT, &json!("kept"));
        let request = Box::new(example());
        is_written(
            &NetworkRequest::Join(Join { request: request.clone(), host_netns }),
            &json!({ "execute": "join", "request": written(), "hostNetns": [1, 2] }),
        );
        is_written(
            &NetworkRequest::JoinUnderPolicy(Join { request, host_netns }),
            &json!({ "execute": "join-under-policy", "request": written(), "hostNetns": [1, 2] }),
        );
        is_written(&NetworkRequest::Settle, &json!({ "execute": "settle" }));
        is_written(&Device { mac }, &json!({ "mac": "02:00:00:00:00:09" }));
        is_written(&Device { mac: None }, &json!({ "mac": null }));
        is_written(&Done {}, &json!({}));
        is_written(
            &Refusal { error: Error::failed("no") },
            &json!({ "error": { "kind": "failed", "message": "no", "hint": "" } }),
        );
    }

    #[test]
    fn refusal_is_never_taken_for_an_answer() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for error in [json!({}), json!({ "message": "no" }), json!("a form of another version")] {
            frame::send(&theirs, &json!({ "error": error })).unwrap();
            receive_answer::<Done>(&ours).unwrap().unwrap_err();
        }
    }
}
