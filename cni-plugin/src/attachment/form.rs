//! How slirp-core's values are written in messages and records.
//!
//! Owns the forms, which are flat: their keys stand among the keys of the enclosing value. Keys
//! never change, since processes and records of an earlier version may still exist.

use core::fmt::Display;
use core::marker::PhantomData;
use core::num::NonZeroU64;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use slirp_core::instance::{Forward, ForwardProtocol, OutboundAddresses};
use slirp_core::netns::NamespaceId;
use slirp_core::plan::{Ipv6Plan, PlanError, SlirpNetwork};
use slirp_core::policy::Policy;
use slirp_core::{MacAddr, Rate, Rates};

/// Values that are written in their form `F`, for serde's `with`.
pub(super) struct In<F>(PhantomData<F>);

impl<F> In<F> {
    pub(super) fn serialize<T, S>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        F: for<'v> From<&'v T> + Serialize,
        S: Serializer,
    {
        F::from(value).serialize(serializer)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        F: Deserialize<'de> + TryInto<T, Error: Display>,
        D: Deserializer<'de>,
    {
        F::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

/// A network namespace, or the mark that it is not known yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Netns {
    #[serde(rename = "netnsDevice")]
    device: u64,
    /// 0 when the namespace is not known; no file has that inode.
    #[serde(rename = "netnsInode")]
    inode: u64,
}

impl From<&Option<NamespaceId>> for Netns {
    fn from(id: &Option<NamespaceId>) -> Self {
        id.map_or(Self { device: 0, inode: 0 }, |NamespaceId { device, inode }| Self {
            device,
            inode,
        })
    }
}

impl From<Netns> for Option<NamespaceId> {
    fn from(Netns { device, inode }: Netns) -> Self {
        (inode != 0).then_some(NamespaceId { device, inode })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Plan {
    cidr: Ipv4Addr,
    #[serde(rename = "prefixLength")]
    prefix_len: u8,
    cidr6: Option<Ipv6Addr>,
}

impl From<&SlirpNetwork> for Plan {
    fn from(plan: &SlirpNetwork) -> Self {
        let cidr6 = plan.ipv6().map(Ipv6Plan::prefix);
        Self { cidr: plan.network(), prefix_len: plan.prefix_len(), cidr6 }
    }
}

impl TryFrom<Plan> for SlirpNetwork {
    type Error = PlanError;

    fn try_from(form: Plan) -> Result<Self, PlanError> {
        let plan = Self::new(form.cidr, form.prefix_len)?;
        form.cidr6.map_or(Ok(plan), |prefix| Ok(plan.with_ipv6(Ipv6Plan::new(prefix)?)))
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Access {
    #[serde(rename = "hostLoopback")]
    host_loopback: bool,
    dns: bool,
}

impl From<&Policy> for Access {
    fn from(policy: &Policy) -> Self {
        Self { host_loopback: policy.allow_host_loopback, dns: policy.dns_service }
    }
}

impl From<Access> for Policy {
    fn from(form: Access) -> Self {
        let mut policy = Self::default();
        policy.allow_host_loopback = form.host_loopback;
        policy.dns_service = form.dns;
        policy
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "OutboundAddresses")]
pub(super) struct Outbound {
    #[serde(rename = "outbound")]
    ipv4: Option<Ipv4Addr>,
    #[serde(rename = "outbound6")]
    ipv6: Option<Ipv6Addr>,
    #[serde(rename = "outbound6Scope")]
    ipv6_scope: u32,
    /// No configuration names interfaces.
    #[serde(skip)]
    ipv4_interface: Option<String>,
    #[serde(skip)]
    ipv6_interface: Option<String>,
}

/// Limits of both directions.
#[derive(Serialize, Deserialize)]
pub(crate) struct Limits {
    #[serde(rename = "in")]
    to_guest: Option<Limit>,
    #[serde(rename = "out")]
    from_guest: Option<Limit>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Limit {
    bits_per_second: NonZeroU64,
    /// Bytes.
    burst: Option<u64>,
}

impl From<&Rates> for Limits {
    fn from(rates: &Rates) -> Self {
        let limit = |Rate { bits_per_second, burst }| {
            Some(Limit { bits_per_second: NonZeroU64::new(bits_per_second)?, burst })
        };
        let Rates { to_guest, from_guest, .. } = *rates;
        Self { to_guest: to_guest.and_then(limit), from_guest: from_guest.and_then(limit) }
    }
}

impl From<Limits> for Rates {
    fn from(Limits { to_guest, from_guest }: Limits) -> Self {
        let rate = |Limit { bits_per_second, burst }| Rate {
            bits_per_second: bits_per_second.get(),
            burst,
        };
        Self::new(to_guest.map(rate), from_guest.map(rate))
    }
}

/// Whether nothing is limited.
pub(super) fn is_unlimited(rates: &Rates) -> bool {
    *rates == Rates::default()
}

/// An Ethernet address as text.
#[derive(Serialize, Deserialize)]
pub(super) struct Mac(Option<String>);

impl From<&Option<MacAddr>> for Mac {
    fn from(mac: &Option<MacAddr>) -> Self {
        Self(mac.map(|mac| mac.to_string()))
    }
}

impl TryFrom<Mac> for Option<MacAddr> {
    type Error = &'static str;

    fn try_from(Mac(text): Mac) -> Result<Self, Self::Error> {
        text.map(|text| parse_mac(&text).ok_or("not an Ethernet address")).transpose()
    }
}

/// Forwarded ports.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ports(Vec<Port>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    protocol: Protocol,
    host: SocketAddr,
    guest: SocketAddr,
    // Records of earlier versions have neither of these.
    #[serde(default = "one")]
    ports: u16,
    #[serde(default)]
    also_ipv6: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Tcp,
    Udp,
}

const fn one() -> u16 {
    1
}

impl From<&Vec<Forward>> for Ports {
    fn from(forwards: &Vec<Forward>) -> Self {
        let port = |forward: &Forward| Port {
            protocol: match forward.protocol {
                ForwardProtocol::Tcp => Protocol::Tcp,
                ForwardProtocol::Udp => Protocol::Udp,
            },
            host: forward.host,
            guest: forward.guest,
            ports: forward.ports,
            also_ipv6: forward.also_ipv6,
        };
        Self(forwards.iter().map(port).collect())
    }
}

impl From<Ports> for Vec<Forward> {
    fn from(Ports(ports): Ports) -> Self {
        let forward = |port: Port| {
            let protocol = match port.protocol {
                Protocol::Tcp => ForwardProtocol::Tcp,
                Protocol::Udp => ForwardProtocol::Udp,
            };
            let forward = Forward::new(protocol, port.host, port.guest);
            Forward { ports: port.ports, also_ipv6: port.also_ipv6, ..forward }
        };
        ports.into_iter().map(forward).collect()
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
mod tests {
    use super::*;

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
