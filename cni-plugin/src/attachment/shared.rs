//! Attachments to a shared network: one process serves all containers of one network name.
//!
//! Owns [`Membership`], what such an attachment is besides an ordinary one; [`Terms`], what all
//! members of a network have to agree on; the refusal of who shares a network with others who do not
//! ([`refuse_mixture`]); where the files of a network are; and the question to its process whether
//! those who have gone have really gone.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::error::{Error, Kind};
use super::request::Request;
use super::stop::is_served;
use super::store::{Candidates, Files};
use super::{frame, open};

/// The argument by which our executable is told to be the process of a network.
pub(crate) const NETWORK_ARGUMENT: &str = "run-network";

/// How long the process of a network may take to answer (arbitrary; it takes microseconds).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long somebody who leaves waits for others at work on the network's files (arbitrary: joining
/// holds their lock for some 50 ms at the longest).
const SWEEP_TIMEOUT: Duration = Duration::from_secs(2);

/// What an attachment to a shared network is besides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Membership {
    /// Whether the runtime has chosen the address; otherwise the network does.
    pub(crate) is_address_chosen: bool,
    /// The same of the IPv6 address.
    pub(crate) is_address6_chosen: bool,
    /// Names that mean this container alone.
    pub(crate) names: Vec<String>,
    /// Names that several containers may have.
    pub(crate) aliases: Vec<String>,
}

impl Membership {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "addressChosen": self.is_address_chosen,
            "address6Chosen": self.is_address6_chosen,
            "names": self.names,
            "aliases": self.aliases,
        })
    }

    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let texts = |name: &str| -> Option<Vec<String>> {
            let list = value[name].as_array()?.iter();
            list.map(|text| text.as_str().map(str::to_owned)).collect()
        };
        Some(Self {
            is_address_chosen: value["addressChosen"].as_bool()?,
            is_address6_chosen: value["address6Chosen"].as_bool()?,
            names: texts("names")?,
            aliases: texts("aliases")?,
        })
    }
}

/// What the members of a network agree on, by the keys of the configuration.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Terms(Map<String, Value>);

impl Terms {
    pub(crate) fn of(request: &Request) -> Self {
        let plan = &request.plan;
        let shown = |value: Option<String>| value.map_or(Value::Null, Value::String);
        let pairs = [
            ("mtu", json!(request.mtu)),
            ("cidr", json!(format!("{}/{}", plan.network(), plan.prefix_len()))),
            ("cidr6", shown(plan.ipv6().map(|plan| format!("{}/64", plan.prefix())))),
            ("disableHostLoopback", json!(!request.policy.allow_host_loopback)),
            ("disableDNS", json!(!request.policy.dns_service)),
            ("outboundAddr", shown(request.outbound.ipv4.map(|address| address.to_string()))),
            ("outboundAddr6", shown(request.outbound.ipv6.map(|address| address.to_string()))),
            ("sandbox", json!(request.sandbox)),
        ];
        Self(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// In which keys `other` differs, for a person; `None` where it does not.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let shown = |value: Option<&Value>| match value {
            None | Some(Value::Null) => "none".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        let differing = self.0.iter().filter(|(key, value)| other.0.get(*key) != Some(*value));
        let words: Vec<String> = differing
            .map(|(key, value)| {
                format!("{key} is {}, not {}", shown(Some(value)), shown(other.0.get(key)))
            })
            .collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

/// Refuses an attachment to a network on which another one is that is shared where this one is not,
/// or the other way around: the two would not reach each other, and nothing would say why.
///
/// Both are written down before they look, so that of two which begin at the same moment at most one
/// stays. What a keeper that was killed left behind does not count.
///
/// # Errors
/// [`Kind::Unsupported`], with the other attachment.
pub(crate) fn refuse_mixture(request: &Request, candidates: &Candidates) -> Result<(), Error> {
    let is_shared = request.shared.is_some();
    for store in candidates.existing() {
        for record in store.records() {
            let other = &record.request;
            if other.network != request.network
                || other.shared.is_some() == is_shared
                // Its process may be one that only its socket can be reached by.
                || !(record.is_alive() || is_served(&store.files(&other.key)).is_some())
            {
                continue;
            }
            let (network, key) = (&other.network, &other.key);
            let message = format!(
                "the network {network} is in use with another configuration: shared is {}, not \
                 {is_shared}, for {key}",
                !is_shared
            );
            let hint = "all containers of one network name agree on \"shared\": remove the others \
                        first, or give one of the two networks another name";
            return Err(Error::new(Kind::Unsupported, message).with_hint(Some(hint)));
        }
    }
    Ok(())
}

/// The files of the network `name` in the folder of these: `STEM.sock` is where members join,
/// `STEM.api` the API socket, `STEM.lock` held while somebody joins.
pub(crate) fn network_files(files: &Files, name: &str) -> Files {
    Files::new(files.folder().to_owned(), stem(name), files.scope().to_owned())
}

/// The name of a network's files: no attachment has it, since no container's id is empty.
fn stem(name: &str) -> String {
    super::key::hash([&[0], name.as_bytes(), &[0]].concat())
}

/// Waits until the members of a network whose keepers have ended are gone, and with them their
/// interfaces and ports; and removes the network's files when nobody is left.
pub(crate) fn settle(network: &Files) {
    if let Ok(stream) = open::connect(&network.socket())
        // An end instead of an answer says the same.
        && let Err(error) = ask_to_settle(&stream)
    {
        tracing::debug!(%error, "the network has ended");
    }
    sweep(network);
}

fn ask_to_settle(stream: &UnixStream) -> io::Result<Value> {
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    frame::send(stream, &json!({ "execute": "settle" }))?;
    frame::receive(stream)
}

/// Removes the files of a network that has no process, unless somebody is at work on them for long.
pub(crate) fn sweep(network: &Files) {
    if !network.exist() {
        return;
    }
    // Not at the first try alone: those who leave at the same moment look one after the other, and
    // only the last of them finds nobody.
    if let Ok(lock) = network.lock_within(SWEEP_TIMEOUT)
        && open::connect(&network.socket()).is_err_and(|error| open::is_absent(&error))
    {
        network.remove();
        lock.remove();
    }
}

/// The addresses that a network has given to a member, as they go from process to process.
pub(crate) fn seat_to_json(address: Ipv4Addr, address6: Option<Ipv6Addr>) -> Value {
    json!({ "address": address.to_string(), "address6": address6.map(|a| a.to_string()) })
}

/// Reads what [`seat_to_json`] wrote.
pub(crate) fn seat_from_json(value: &Value) -> Option<(Ipv4Addr, Option<Ipv6Addr>)> {
    let address = value["address"].as_str()?.parse().ok()?;
    let address6 = value["address6"].as_str().and_then(|text| text.parse().ok());
    Some((address, address6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::identity::ProcessIdentity;
    use crate::attachment::key::Key;
    use crate::attachment::record::Record;
    use crate::attachment::request::tests::example;
    use crate::attachment::store::tests::Scratch;

    #[test]
    fn membership_survives_the_way_between_processes() {
        let membership = Membership {
            is_address_chosen: true,
            is_address6_chosen: false,
            names: vec!["a".to_owned(), "b".to_owned()],
            aliases: vec!["c".to_owned()],
        };
        assert_eq!(Membership::from_json(&membership.to_json()), Some(membership));
        assert_eq!(Membership::from_json(&json!({ "names": [] })), None);
    }

    #[test]
    fn difference_names_the_keys_and_both_values() {
        let terms = Terms::of(&example());
        assert_eq!(terms.difference(&terms), None);
        let mut other = example();
        other.mtu = 9000;
        other.outbound.ipv4 = None;
        other.ports = Vec::new();
        assert_eq!(
            terms.difference(&Terms::of(&other)).unwrap(),
            "mtu is 1500, not 9000; outboundAddr is 192.0.2.1, not none"
        );
    }

    #[test]
    fn network_is_shared_by_all_of_its_living_attachments_or_by_none() {
        let scratch = Scratch::new("mixture");
        let candidates = Candidates::new(Some(&scratch.0));
        let store = candidates.create().unwrap();
        let shared = example();
        let alone = Request {
            key: Key { container_id: "c2".to_owned(), ifname: "eth0".to_owned() },
            shared: None,
            ..example()
        };
        let living = ProcessIdentity::of_pid(std::process::id().cast_signed()).unwrap();
        let mut dead = living.to_json();
        dead["startTime"] = json!(1);
        let dead = ProcessIdentity::from_json(&dead).unwrap();
        let write = |request: &Request, keeper: &ProcessIdentity| {
            let (request, keeper) = (request.clone(), keeper.clone());
            let files = store.files(&request.key);
            files
                .write_record(&Record { request, keeper, engine: None, mac: String::new() })
                .unwrap();
            files
        };
        let files = write(&alone, &living);
        let refused = refuse_mixture(&shared, &candidates);
        let other_network = Request { network: "other".to_owned(), ..example() };
        let elsewhere = refuse_mixture(&other_network, &candidates);
        let same = refuse_mixture(&alone, &candidates);
        write(&alone, &dead);
        let after_a_crash = refuse_mixture(&shared, &candidates);
        files.remove();
        write(&shared, &living);
        let the_other_way = refuse_mixture(&alone, &candidates);
        let error = refused.unwrap_err();
        assert_eq!(error.kind, Kind::Unsupported);
        assert_eq!(
            error.message,
            "the network net is in use with another configuration: shared is false, not true, for \
             c2 eth0"
        );
        assert_eq!((elsewhere, same, after_a_crash), (Ok(()), Ok(()), Ok(())));
        assert!(the_other_way.unwrap_err().message.contains("shared is true, not false, for c1"));
    }

    #[test]
    fn files_of_a_network_are_nobody_elses() {
        let files = Files::new("/x".into(), "0".to_owned(), "-".to_owned());
        assert_ne!(network_files(&files, "a").stem(), network_files(&files, "b").stem());
        assert_eq!(network_files(&files, "a").stem().len(), 32);
    }
}
