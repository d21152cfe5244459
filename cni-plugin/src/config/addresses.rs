//! Addresses: the network's, the guest's, the host's.
//!
//! Owns the keys `cidr`, `cidr6`, `enableIPv6`, `outboundAddr`, `outboundAddr6`, and the ways in
//! which a runtime requests a guest's IP and MAC address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;
use slirp_core::MacAddr;
use slirp_core::instance::OutboundAddresses;
use slirp_core::plan::{AddressPlan, Ipv6Plan, SlirpNetwork};

use super::{Header, flag};
use crate::attachment::form::parse_mac;
use crate::protocol::environment::Environment;
use crate::protocol::error::CniError;
use crate::protocol::field;

/// The network that the guest sees.
pub(super) fn plan(header: &Header) -> Result<SlirpNetwork, CniError> {
    let mut plan = match header.find("cidr") {
        None => SlirpNetwork::default(),
        Some(value) => {
            let invalid =
                |why: &str| CniError::config(format!("cidr: invalid network {value}: {why}"));
            let expected = || invalid("expected one such as 10.0.2.0/24");
            let (network, len) =
                value.as_str().and_then(|text| text.split_once('/')).ok_or_else(expected)?;
            let network = network.parse().map_err(|_| expected())?;
            let len = len.parse().map_err(|_| expected())?;
            SlirpNetwork::new(network, len).map_err(|error| invalid(&error.to_string()))?
        }
    };
    let cidr6 = header.find("cidr6");
    if flag(header, "enableIPv6", cidr6.is_some())? {
        let ipv6 = match cidr6 {
            None => Ipv6Plan::default(),
            Some(value) => {
                let parsed = value.as_str().unwrap_or_default().parse();
                parsed.map_err(|error| {
                    CniError::config(format!("cidr6: invalid network {value}: {error}"))
                })?
            }
        };
        plan = plan.with_ipv6(ipv6);
    }
    Ok(plan)
}

/// The guest's addresses that the runtime requests, if any.
pub(super) fn chosen(
    header: &Header,
    environment: &Environment,
    plan: &SlirpNetwork,
) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), CniError> {
    let mut address = None;
    let mut address6 = None;
    for text in wanted(header, environment)? {
        let (ip, len) = match text.split_once('/') {
            Some((ip, len)) => (ip, Some(len)),
            None => (text.as_str(), None),
        };
        let invalid = |why: String| CniError::config(format!("IP address {text}: {why}"));
        let ip: IpAddr = ip.parse().map_err(|_| invalid("not an IP address".to_owned()))?;
        let is_twice = match ip {
            IpAddr::V4(v4) => address.replace(v4).is_some(),
            IpAddr::V6(v6) => address6.replace(v6).is_some(),
        };
        if is_twice {
            return Err(invalid("an interface has one address of each IP version".to_owned()));
        }
        let network = network_of(ip, plan).map_err(invalid)?;
        if len.is_some_and(|len| len.parse() != Ok(network)) {
            return Err(invalid(format!("the prefix of the network is /{network}")));
        }
    }
    Ok((address, address6))
}

/// The prefix length of the network in which a guest may have this address.
fn network_of(ip: IpAddr, plan: &SlirpNetwork) -> Result<u8, String> {
    if AddressPlan::from(*plan).is_ours(ip) {
        return Err("it is that of the gateway or the DNS service".to_owned());
    }
    match ip {
        IpAddr::V4(v4) if !plan.contains(v4) || v4 == plan.network() || v4 == plan.broadcast() => {
            Err(format!(
                "no guest of the network {}/{} can have it",
                plan.network(),
                plan.prefix_len()
            ))
        }
        IpAddr::V4(_) => Ok(plan.prefix_len()),
        IpAddr::V6(v6) => match plan.ipv6() {
            None => Err("the network has no IPv6 (enableIPv6)".to_owned()),
            Some(ipv6) if !ipv6.contains(v6) || v6 == ipv6.prefix() => {
                Err(format!("no guest of the network {}/64 can have it", ipv6.prefix()))
            }
            Some(_) => Ok(Ipv6Plan::PREFIX_LEN),
        },
    }
}

/// The requested addresses: the first of the capability `ips`, `args.cni.ips` and `CNI_ARGS` for
/// each IP version, since nerdctl sends the two versions in different ways.
fn wanted(header: &Header, environment: &Environment) -> Result<Vec<String>, CniError> {
    let list = |value: &Value| -> Result<Vec<String>, CniError> {
        let invalid = || CniError::config(format!("ips: {value} is not a list of IP addresses"));
        let entries = value.as_array().ok_or_else(invalid)?.iter();
        entries.map(|ip| ip.as_str().map(str::to_owned).ok_or_else(invalid)).collect()
    };
    let capability = header.find("runtimeConfig").and_then(|config| field::of(config, "ips"));
    let argument = header.find("args").and_then(|args| field::of(args, "cni"));
    let argument = argument.and_then(|cni| field::of(cni, "ips"));
    let mut ips = match capability.or(argument) {
        Some(value) => list(value)?,
        None => Vec::new(),
    };
    let has_version =
        |ips: &[String], text: &str| ips.iter().any(|ip| ip.contains(':') == text.contains(':'));
    for text in environment.argument("IP").into_iter().flat_map(|text| text.split(',')) {
        if !has_version(&ips, text) {
            ips.push(text.to_owned());
        }
    }
    Ok(ips)
}

/// The requested Ethernet address.
pub(super) fn mac(header: &Header, environment: &Environment) -> Result<Option<MacAddr>, CniError> {
    let capability = header.find("runtimeConfig").and_then(|config| field::of(config, "mac"));
    let of_args = header.find("args").and_then(|args| field::of(args, "cni"));
    let of_args = of_args.and_then(|cni| field::of(cni, "mac"));
    let key = header.find("mac");
    let invalid =
        |shown: String, why: &str| CniError::config(format!("MAC address {shown}: {why}"));
    let text = match capability.or(of_args).filter(|value| !field::is_empty(value)) {
        Some(value) => Some(value),
        None if environment.argument("MAC").is_none() => key,
        None => None,
    };
    let text = match text {
        Some(value) => value.as_str().ok_or_else(|| {
            invalid(value.to_string(), "expected six bytes such as 02:11:22:33:44:55")
        })?,
        None => environment.argument("MAC").unwrap_or_default(),
    };
    if text.is_empty() {
        return Ok(None);
    }
    let mac = parse_mac(text)
        .ok_or_else(|| invalid(text.to_owned(), "expected six bytes such as 02:11:22:33:44:55"))?;
    if !mac.is_valid_source() {
        return Err(invalid(text.to_owned(), "it is not that of a single station"));
    }
    Ok(Some(mac))
}

/// The source addresses of traffic on the host, given literally or by an interface.
pub(super) fn outbound(header: &Header) -> Result<OutboundAddresses, CniError> {
    let mut outbound = OutboundAddresses::default();
    let of_interface = |name: &str| OutboundAddresses::of_interface(name).unwrap_or_default();
    if let Some(value) = header.find("outboundAddr") {
        let text = value.as_str().unwrap_or_default();
        outbound.ipv4 = text.parse().ok().or_else(|| of_interface(text).ipv4);
        if outbound.ipv4.is_none() {
            let message = format!(
                "outboundAddr: {value} is neither an IPv4 address nor an interface that has one"
            );
            return Err(CniError::config(message));
        }
    }
    if let Some(value) = header.find("outboundAddr6") {
        let text = value.as_str().unwrap_or_default();
        match text.parse() {
            Ok(address) => outbound.ipv6 = Some(address),
            Err(_) => {
                let found = of_interface(text);
                (outbound.ipv6, outbound.ipv6_scope) = (found.ipv6, found.ipv6_scope);
            }
        }
        if outbound.ipv6.is_none() {
            let message = format!(
                "outboundAddr6: {value} is neither an IPv6 address nor an interface that has one"
            );
            return Err(CniError::config(message));
        }
    }
    Ok(outbound)
}
