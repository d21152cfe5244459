//! What an attachment is to be like.
//!
//! Owns [`Request`], the only thing that the long-lived processes are told, and its form as JSON, in
//! which it reaches them and in which it is written down.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use slirp_core::instance::{Forward, OutboundAddresses};
use slirp_core::netns::{Configuration, Ipv6Configuration, NamespaceId};
use slirp_core::plan::{AddressPlan, Ipv6Plan};
use slirp_core::policy::Policy;
use slirp_core::wire::MacAddr;

use super::key::Key;
use super::ports;
use super::shared::Membership;

/// Stands for a namespace that nobody outside of the container can look at yet; the container will
/// say which one it is. No file has the inode 0.
pub(crate) const AWAITED: NamespaceId = NamespaceId { device: 0, inode: 0 };

/// An attachment, wished for.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Request {
    pub(crate) key: Key,
    /// Name of the network that it belongs to.
    pub(crate) network: String,
    /// Path of the network namespace, absolute.
    pub(crate) netns: PathBuf,
    /// Which namespace that was when the request was made, or [`AWAITED`].
    pub(crate) netns_id: NamespaceId,
    /// MTU in bytes, 1500..=65521.
    pub(crate) mtu: u16,
    pub(crate) plan: AddressPlan,
    /// The guest's address, in the plan's network.
    pub(crate) address: Ipv4Addr,
    /// The guest's IPv6 address, in the plan's network; there when the plan has one.
    pub(crate) address6: Option<Ipv6Addr>,
    /// Metric of the default routes.
    pub(crate) metric: Option<u32>,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) policy: Policy,
    pub(crate) search_domains: Vec<String>,
    pub(crate) outbound: OutboundAddresses,
    pub(crate) ports: Vec<Forward>,
    /// Whether the engine gives up its privileges, the file system and most system calls.
    pub(crate) sandbox: bool,
    /// Where log lines go; nowhere without one.
    pub(crate) log_file: Option<PathBuf>,
    /// A program with slirp4netns's command line that is to be the engine.
    pub(crate) program: Option<PathBuf>,
    /// There where the network is shared with other containers.
    pub(crate) shared: Option<Membership>,
}

impl Request {
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

    /// The same with the addresses that a shared network has given to the container; its ports lead
    /// there.
    pub(crate) fn seated(self, address: Ipv4Addr, address6: Option<Ipv6Addr>) -> Self {
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

    pub(crate) fn to_json(&self) -> Value {
        let shown = |value: Option<String>| value.map_or(Value::Null, Value::String);
        let path = |value: &Option<PathBuf>| shown(value.as_ref().map(|p| p.display().to_string()));
        json!({
            "containerID": self.key.container_id,
            "ifname": self.key.ifname,
            "network": self.network,
            "netns": self.netns.display().to_string(),
            "netnsDevice": self.netns_id.device,
            "netnsInode": self.netns_id.inode,
            "mtu": self.mtu,
            "cidr": self.plan.network().to_string(),
            "prefixLength": self.plan.prefix_len(),
            "cidr6": shown(self.plan.ipv6().map(|plan| plan.prefix().to_string())),
            "address": self.address.to_string(),
            "address6": shown(self.address6.map(|address| address.to_string())),
            "metric": self.metric,
            "mac": shown(self.mac.map(|mac| mac.to_string())),
            "hostLoopback": self.policy.allow_host_loopback,
            "dns": self.policy.dns_service,
            "searchDomains": self.search_domains,
            "outbound": shown(self.outbound.ipv4.map(|address| address.to_string())),
            "outbound6": shown(self.outbound.ipv6.map(|address| address.to_string())),
            "outbound6Scope": self.outbound.ipv6_scope,
            "ports": self.ports.iter().map(ports::to_json).collect::<Vec<_>>(),
            "sandbox": self.sandbox,
            "logFile": path(&self.log_file),
            "program": path(&self.program),
            "shared": self.shared.as_ref().map(Membership::to_json),
        })
    }

    /// Reads what [`to_json`](Self::to_json) wrote; `None` for anything else.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let object = Members(value.as_object()?);
        let network = object.parsed("cidr")?;
        let mut plan = AddressPlan::new(network, object.number("prefixLength")?).ok()?;
        if let Some(prefix) = object.parsed("cidr6") {
            plan = plan.with_ipv6(Ipv6Plan::new(prefix).ok()?);
        }
        let mut policy = Policy::default();
        policy.allow_host_loopback = object.flag("hostLoopback")?;
        policy.dns_service = object.flag("dns")?;
        let ports = object.0.get("ports")?.as_array()?;
        let search = object.0.get("searchDomains")?.as_array()?;
        Some(Self {
            key: Key {
                container_id: object.text("containerID")?.to_owned(),
                ifname: object.text("ifname")?.to_owned(),
            },
            network: object.text("network")?.to_owned(),
            netns: object.text("netns")?.into(),
            netns_id: NamespaceId {
                device: object.number("netnsDevice")?,
                inode: object.number("netnsInode")?,
            },
            mtu: object.number("mtu")?,
            plan,
            address: object.parsed("address")?,
            address6: object.parsed("address6"),
            metric: object.number("metric"),
            mac: object.text("mac").and_then(parse_mac),
            policy,
            search_domains: search.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            outbound: OutboundAddresses {
                ipv4: object.parsed("outbound"),
                ipv6: object.parsed("outbound6"),
                ipv6_scope: object.number("outbound6Scope")?,
            },
            ports: ports.iter().map(ports::from_json).collect::<Option<_>>()?,
            sandbox: object.flag("sandbox")?,
            log_file: object.text("logFile").map(PathBuf::from),
            program: object.text("program").map(PathBuf::from),
            shared: match object.0.get("shared") {
                None | Some(Value::Null) => None,
                Some(value) => Some(Membership::from_json(value)?),
            },
        })
    }
}

/// Members of an object, by name and type.
struct Members<'v>(&'v Map<String, Value>);

impl<'v> Members<'v> {
    fn text(&self, name: &str) -> Option<&'v str> {
        self.0.get(name)?.as_str()
    }

    fn parsed<T: core::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    fn number<T: TryFrom<u64>>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.as_u64()?.try_into().ok()
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name)?.as_bool()
    }
}

/// Reads six hexadecimal bytes with `:` or `-` between them.
pub(crate) fn parse_mac(text: &str) -> Option<MacAddr> {
    let mut mac = MacAddr::default();
    let mut parts = text.split([':', '-']);
    for byte in &mut mac.0 {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
pub(crate) mod tests {
    use slirp_core::instance::ForwardProtocol;

    use super::*;

    pub(crate) fn example() -> Request {
        let mut policy = Policy::default();
        policy.allow_host_loopback = false;
        Request {
            key: Key { container_id: "c1".to_owned(), ifname: "eth0".to_owned() },
            network: "net".to_owned(),
            netns: "/proc/1/ns/net".into(),
            netns_id: NamespaceId { device: 4, inode: 4_026_531_840 },
            mtu: 1500,
            plan: AddressPlan::new(Ipv4Addr::new(10, 9, 0, 0), 16)
                .unwrap()
                .with_ipv6(Ipv6Plan::default()),
            address: Ipv4Addr::new(10, 9, 0, 7),
            address6: Some("fd00::7".parse().unwrap()),
            metric: Some(50),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 9])),
            policy,
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
            shared: Some(Membership { names: vec!["c1".to_owned()], ..Membership::default() }),
        }
    }

    #[test]
    fn request_survives_the_way_between_processes() {
        let full = example();
        let bare = Request {
            plan: AddressPlan::default(),
            address: Ipv4Addr::new(10, 0, 2, 100),
            address6: None,
            metric: None,
            mac: None,
            ports: Vec::new(),
            log_file: None,
            program: Some("/usr/bin/slirp4netns".into()),
            shared: None,
            ..example()
        };
        for request in [full, bare] {
            assert_eq!(Request::from_json(&request.to_json()), Some(request));
        }
    }

    #[test]
    fn ports_lead_to_the_address_that_was_given() {
        let request =
            example().seated(Ipv4Addr::new(10, 9, 0, 8), Some("fd00::8".parse().unwrap()));
        assert_eq!(request.address, Ipv4Addr::new(10, 9, 0, 8));
        assert_eq!(request.ports[0].guest.to_string(), "[fd00::8]:53");
        assert_eq!(request.configuration().ipv6.unwrap().address.to_string(), "fd00::8");
    }

    #[test]
    fn damaged_request_is_none() {
        let mut value = example().to_json();
        value["ports"] = json!([{ "protocol": "sctp" }]);
        assert_eq!(Request::from_json(&value), None);
        assert_eq!(Request::from_json(&json!([])), None);
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

    #[test]
    fn mac_addresses_have_six_bytes_of_two_digits() {
        assert_eq!(
            parse_mac("02:11:22:33:44:fF"),
            Some(MacAddr([2, 0x11, 0x22, 0x33, 0x44, 0xff]))
        );
        assert_eq!(
            parse_mac("02-11-22-33-44-55"),
            Some(MacAddr([2, 0x11, 0x22, 0x33, 0x44, 0x55]))
        );
        for text in
            ["", "02:11:22:33:44", "02:11:22:33:44:55:66", "2:11:22:33:44:55", "g2:11:22:33:44:55"]
        {
            assert_eq!(parse_mac(text), None, "{text}");
        }
    }
}
