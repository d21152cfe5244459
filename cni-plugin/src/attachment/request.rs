//! The request for an attachment.
//!
//! Owns [`Request`], which is sent to the long-lived processes and recorded. The JSON forms of its
//! parts are in [`form`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use slirp_core::egress::EgressPolicy;
use slirp_core::instance::{Forward, OutboundAddresses};
use slirp_core::netns::{Configuration, Ipv6Configuration, NamespaceId};
use slirp_core::plan::SlirpNetwork;
use slirp_core::policy::Policy;
use slirp_core::{MacAddr, Rates};

use super::error::Error;
use super::form;
use super::key::Key;
use super::operator::Operator;
use super::policy::{self, PolicyText};

/// A requested attachment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    #[serde(flatten)]
    pub(crate) key: Key,
    /// Name of the network that it belongs to.
    pub(crate) network: String,
    /// Path of the network namespace, absolute.
    pub(crate) netns: PathBuf,
    /// The namespace at that path when the request was made. Unknown while only the container
    /// itself can access it; the container then reports it.
    #[serde(flatten, with = "form::In::<form::Netns>")]
    pub(crate) netns_id: Option<NamespaceId>,
    /// MTU in bytes, 1500..=65521.
    pub(crate) mtu: u16,
    #[serde(flatten, with = "form::In::<form::Plan>")]
    pub(crate) plan: SlirpNetwork,
    /// The guest's address, in the plan's network.
    pub(crate) address: Ipv4Addr,
    /// The guest's IPv6 address, in the plan's network; set if the plan has IPv6.
    pub(crate) address6: Option<Ipv6Addr>,
    /// Metric of the default routes.
    pub(crate) metric: Option<u32>,
    #[serde(default, with = "form::In::<form::Mac>")]
    pub(crate) mac: Option<MacAddr>,
    #[serde(flatten, with = "form::In::<form::Access>")]
    pub(crate) policy: Policy,
    /// Where the container may go, if any door says so. It is not recorded: records are read often,
    /// and this may be long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) egress: Option<Vec<PolicyText>>,
    /// How fast the container may send and receive.
    #[serde(
        default,
        skip_serializing_if = "form::is_unlimited",
        with = "form::In::<form::Limits>"
    )]
    pub(crate) rates: Rates,
    /// What the operator watches and steers its network by.
    #[serde(default, skip_serializing_if = "Operator::is_none")]
    pub(crate) operator: Operator,
    pub(crate) search_domains: Vec<String>,
    #[serde(flatten, with = "form::Outbound")]
    pub(crate) outbound: OutboundAddresses,
    #[serde(with = "form::In::<form::Ports>")]
    pub(crate) ports: Vec<Forward>,
    /// Whether the engine runs in a sandbox: without privileges, the file system and most system
    /// calls.
    pub(crate) sandbox: bool,
    /// File for log lines; with `None` there are none.
    pub(crate) log_file: Option<PathBuf>,
    /// A program with slirp4netns's command line that serves as the engine.
    pub(crate) program: Option<PathBuf>,
    /// The membership, on a network that is shared with other containers.
    pub(crate) shared: Option<MembershipRequest>,
}

/// What a container requests from a shared network.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct MembershipRequest {
    /// Whether the runtime has chosen the address; otherwise the network assigns one.
    #[serde(rename = "addressChosen")]
    pub(crate) is_address_chosen: bool,
    /// Whether the runtime has chosen the IPv6 address; otherwise the network assigns one.
    #[serde(rename = "address6Chosen")]
    pub(crate) is_address6_chosen: bool,
    /// Names for this container alone.
    pub(crate) names: Vec<String>,
    /// Names that several containers may have.
    pub(crate) aliases: Vec<String>,
}

/// The addresses of a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) address: Ipv4Addr,
    pub(crate) address6: Option<Ipv6Addr>,
}

impl Request {
    /// The container's addresses.
    pub(crate) const fn addresses(&self) -> Addresses {
        Addresses { address: self.address, address6: self.address6 }
    }

    /// What an engine or a network process of version 0.1.0 would overlook, in words; `None` if
    /// there is nothing.
    pub(crate) fn beyond_first_version(&self) -> Option<&'static str> {
        if self.egress.is_some() {
            Some("an egress policy")
        } else if self.rates != Rates::default() {
            Some("bandwidth")
        } else if !self.operator.is_none() {
            Some("auditLog, controlSocket or metrics")
        } else {
            None
        }
    }

    /// The policy that says where the container may go, if there is one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn egress_policy(&self) -> Result<Option<EgressPolicy>, Error> {
        let policy = self.egress.as_deref().map(policy::sum).transpose();
        policy.map_err(|errors| Error::failed(errors.to_string()))
    }

    /// How the interface is to be configured.
    pub(crate) fn configuration(&self) -> Configuration {
        Configuration {
            address: self.address,
            metric: self.metric,
            mac: self.mac,
            ipv6: self.plan.ipv6().zip(self.address6).map(|(plan, address)| Ipv6Configuration {
                address,
                ..Ipv6Configuration::for_plan(plan)
            }),
            ..Configuration::for_plan(&self.plan, self.mtu)
        }
    }

    /// The request with the addresses that a shared network assigned to the container; its ports
    /// lead there.
    pub(crate) fn with_addresses(self, Addresses { address, address6 }: Addresses) -> Self {
        let ports = self.ports.into_iter().map(|mut forward| {
            let own = match forward.guest.ip() {
                IpAddr::V4(_) => Some(IpAddr::V4(address)),
                IpAddr::V6(_) => address6.map(IpAddr::V6),
            };
            if let Some(own) = own {
                forward.guest.set_ip(own);
            }
            forward
        });
        Self { ports: ports.collect(), address, address6, ..self }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};
    use slirp_core::Rate;
    use slirp_core::instance::ForwardProtocol;
    use slirp_core::plan::Ipv6Plan;

    use super::*;
    use crate::attachment::operator::{Address, Audit, Level, Metrics};

    pub(crate) fn example() -> Request {
        let mut policy = Policy::default();
        policy.allow_host_loopback = false;
        Request {
            key: Key { container_id: "c1".to_owned(), ifname: "eth0".to_owned() },
            network: "net".to_owned(),
            netns: "/proc/1/ns/net".into(),
            netns_id: Some(NamespaceId { device: 4, inode: 4_026_531_840 }),
            mtu: 1500,
            plan: SlirpNetwork::new(Ipv4Addr::new(10, 9, 0, 0), 16)
                .unwrap()
                .with_ipv6(Ipv6Plan::default()),
            address: Ipv4Addr::new(10, 9, 0, 7),
            address6: Some("fd00::7".parse().unwrap()),
            metric: Some(50),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 9])),
            policy,
            egress: None,
            rates: Rates::default(),
            operator: Operator::default(),
            search_domains: vec!["example.org".to_owned()],
            outbound: OutboundAddresses {
                ipv4: Some(Ipv4Addr::new(192, 0, 2, 1)),
                ..OutboundAddresses::default()
            },
            ports: vec![
                Forward {
                    ports: 3,
                    ..Forward::new(
                        ForwardProtocol::Udp,
                        "[::]:53".parse().unwrap(),
                        "[fd00::7]:53".parse().unwrap(),
                    )
                },
                Forward::everywhere(ForwardProtocol::Tcp, 80, "10.9.0.7:80".parse().unwrap()),
            ],
            sandbox: true,
            log_file: Some("/var/log/slirp".into()),
            program: None,
            shared: Some(MembershipRequest {
                names: vec!["c1".to_owned()],
                ..MembershipRequest::default()
            }),
        }
    }

    #[test]
    fn request_survives_the_way_between_processes() {
        let full = example();
        let bare = Request {
            plan: SlirpNetwork::default(),
            address: Ipv4Addr::new(10, 0, 2, 100),
            address6: None,
            metric: None,
            mac: None,
            ports: Vec::new(),
            log_file: None,
            program: Some("/usr/bin/slirp4netns".into()),
            shared: None,
            netns_id: None,
            ..example()
        };
        for request in [full, bare] {
            let written = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&written).unwrap(), request);
        }
    }

    #[test]
    fn empty_policy_survives_the_way_between_processes_and_denies_all() {
        let request = Request { egress: Some(Vec::new()), ..example() };
        let written = serde_json::to_string(&request).unwrap();
        let read: Request = serde_json::from_str(&written).unwrap();
        assert_eq!(read, request);
        let policy = read.egress_policy().unwrap().unwrap();
        assert_eq!(policy.to_text(), "");
        assert_eq!(example().egress_policy(), Ok(None));
    }

    #[test]
    fn rates_and_what_an_operator_wants_survive_the_way_between_processes() {
        let rate = |bits_per_second, burst| Some(Rate { bits_per_second, burst });
        let metrics = |address| Some(Metrics { address, members: true });
        let audit = Audit { file: "/a".into(), level: Level::Denied, required: true };
        for (rates, operator) in [
            (
                Rates::new(rate(1, None), rate(u64::MAX, Some(7))),
                Operator {
                    audit: Some(audit),
                    control_socket: Some("/c".into()),
                    metrics: metrics(Address::Unix("/m".into())),
                },
            ),
            (
                Rates::new(None, rate(1, None)),
                Operator {
                    metrics: metrics(Address::Loopback("[::1]:1".parse().unwrap())),
                    ..Operator::default()
                },
            ),
        ] {
            let request = Request { rates, operator, ..example() };
            assert!(request.beyond_first_version().is_some());
            let mut written = serde_json::to_value(&request).unwrap();
            assert_eq!(serde_json::from_value::<Request>(written.clone()).unwrap(), request);
            written["rates"]["out"]["bitsPerSecond"] = json!(0);
            assert!(serde_json::from_value::<Request>(written).is_err());
        }
        assert_eq!(example().beyond_first_version(), None);
    }

    #[test]
    fn ports_lead_to_the_address_that_was_given() {
        let request = example().with_addresses(Addresses {
            address: Ipv4Addr::new(10, 9, 0, 8),
            address6: Some("fd00::8".parse().unwrap()),
        });
        assert_eq!(request.address, Ipv4Addr::new(10, 9, 0, 8));
        assert_eq!(request.ports[0].guest.to_string(), "[fd00::8]:53");
        assert_eq!(request.configuration().ipv6.unwrap().address.to_string(), "fd00::8");
    }

    /// A request in the form of processes and records of version 0.1.0.
    pub(crate) fn written() -> Value {
        json!({
            "containerID": "c1",
            "ifname": "eth0",
            "network": "net",
            "netns": "/proc/1/ns/net",
            "netnsDevice": 4,
            "netnsInode": 4_026_531_840_u64,
            "mtu": 1500,
            "cidr": "10.9.0.0",
            "prefixLength": 16,
            "cidr6": "fd00::",
            "address": "10.9.0.7",
            "address6": "fd00::7",
            "metric": 50,
            "mac": "02:00:00:00:00:09",
            "hostLoopback": false,
            "dns": true,
            "searchDomains": ["example.org"],
            "outbound": "192.0.2.1",
            "outbound6": null,
            "outbound6Scope": 0,
            "ports": [
                { "protocol": "udp", "host": "[::]:53", "guest": "[fd00::7]:53", "ports": 3,
                  "alsoIpv6": false },
                { "protocol": "tcp", "host": "0.0.0.0:80", "guest": "10.9.0.7:80", "ports": 1,
                  "alsoIpv6": true },
            ],
            "sandbox": true,
            "logFile": "/var/log/slirp",
            "program": null,
            "shared": {
                "addressChosen": false, "address6Chosen": false, "names": ["c1"], "aliases": [],
            },
        })
    }

    #[test]
    fn keys_are_those_of_earlier_versions() {
        assert_eq!(serde_json::to_value(example()).unwrap(), written());
        let mut older = written();
        let ports = older["ports"].as_array_mut().unwrap();
        for port in ports.iter_mut().filter_map(Value::as_object_mut) {
            port.retain(|name, _| name != "ports" && name != "alsoIpv6");
        }
        older.as_object_mut().unwrap().remove("shared");
        older["netnsInode"] = json!(0);
        older["odd"] = json!("a key of a later version");
        let read: Request = serde_json::from_value(older).unwrap();
        assert_eq!((read.ports[0].ports, read.ports[1].also_ipv6), (1, false));
        assert_eq!((read.shared, read.netns_id), (None, None));
    }

    #[test]
    fn damaged_request_is_refused_with_the_damage() {
        let refusal = |key: &str, value: Value| {
            let mut damaged = written();
            if value.is_null() {
                damaged.as_object_mut().unwrap().remove(key);
            } else {
                damaged[key] = value;
            }
            serde_json::from_value::<Request>(damaged).unwrap_err().to_string()
        };
        assert_eq!(refusal("mtu", Value::Null), "missing field `mtu`");
        assert_eq!(refusal("cidr", Value::Null), "missing field `cidr`");
        assert_eq!(refusal("mac", json!("02")), "not an Ethernet address");
        assert!(refusal("mtu", json!(65_536)).contains("65536"));
        assert!(refusal("prefixLength", json!(33)).contains("prefix length"));
        assert!(refusal("ports", json!([{ "protocol": "sctp" }])).contains("sctp"));
        assert!(serde_json::from_value::<Request>(json!([])).is_err());
    }

    #[test]
    fn request_for_a_membership_is_whole_or_none() {
        let membership = MembershipRequest {
            is_address_chosen: true,
            is_address6_chosen: false,
            names: vec!["a".to_owned(), "b".to_owned()],
            aliases: vec!["c".to_owned()],
        };
        let written = serde_json::to_value(&membership).unwrap();
        assert_eq!(serde_json::from_value::<MembershipRequest>(written).unwrap(), membership);
        assert!(serde_json::from_value::<MembershipRequest>(json!({ "names": [] })).is_err());
    }

    #[test]
    fn configuration_follows_the_request() {
        let configuration = example().configuration();
        assert_eq!(configuration.address, Ipv4Addr::new(10, 9, 0, 7));
        assert_eq!(configuration.gateway, Ipv4Addr::new(10, 9, 0, 2));
        assert_eq!(configuration.prefix_len, 16);
        assert_eq!(configuration.metric, Some(50));
        let ipv6 = configuration.ipv6.unwrap();
        assert_eq!(ipv6.address.to_string(), "fd00::7");
        assert_eq!(ipv6.gateway.to_string(), "fd00::2");
    }
}
