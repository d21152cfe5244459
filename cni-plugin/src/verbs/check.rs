//! `CHECK`: whether a container still has the network that it was given.
//!
//! What is expected comes from `prevResult`, since later plugins of a chain may have changed what we
//! made; what they added does not matter.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use slirp_core::netns::{NamespaceId, NamespaceTarget};

use crate::attachment::attach::{find_namespace, of_namespace};
use crate::attachment::contact::Contact;
use crate::attachment::shared::network_files;
use crate::attachment::store::{Candidates, Files};
use crate::config::Header;
use crate::config::settings::{key, settings};
use crate::keeper::program;
use crate::protocol::environment::Environment;
use crate::protocol::error::CniError;
use crate::protocol::field;
use crate::protocol::result::AttachmentResult;

/// Compares what there is with `prevResult` and the configuration.
///
/// # Errors
/// The first difference.
pub(super) fn check(header: &Header, environment: &Environment) -> Result<(), CniError> {
    let context = format!("check slirp {}", environment.ifname);
    try_check(header, environment).map_err(|error| error.in_context(&context))
}

fn try_check(header: &Header, environment: &Environment) -> Result<(), CniError> {
    let previous =
        header.find("prevResult").ok_or_else(|| CniError::config("required prevResult missing"))?;
    let previous = AttachmentResult::parse(previous, header.version)?;
    let expected = Expected::of(&previous, environment)?;
    let path = Path::new(&environment.netns);
    let id = find_namespace(path, environment.may_be_own_netns)?;
    let settings = settings(header, environment, id)?;
    let candidates = Candidates::new(header.state_dir.as_deref());
    let key = key(environment);
    let files = candidates.existing().map(|store| store.files(&key)).find(|f| f.record().is_some());
    let files = files.ok_or_else(|| CniError::internal("the container is not attached"))?;
    check_processes(&files, id)?;
    check_ports(&files, &settings.request.ports)?;
    let target = NamespaceTarget::of_path(path).map_err(|error| of_namespace(&error))?;
    enter(&target)?;
    check_interface(&environment.ifname, &expected)
}

/// What `prevResult` says about our interface.
struct Expected {
    addresses: Vec<IpAddr>,
    /// Gateways of default routes through it.
    gateways: Vec<IpAddr>,
}

impl Expected {
    fn of(previous: &AttachmentResult, environment: &Environment) -> Result<Self, CniError> {
        let text = |value: &Value, name: &str| {
            field::of(value, name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let index = previous.interfaces.iter().position(|interface| {
            text(interface, "name") == environment.ifname
                && text(interface, "sandbox") == environment.netns
        });
        let index = index.ok_or_else(|| {
            CniError::internal(format!("prevResult has no interface {}", environment.ifname))
        })?;
        let is_ours = |interface: Option<u64>| {
            interface.and_then(|number| usize::try_from(number).ok()) == Some(index)
        };
        let mut addresses = Vec::new();
        let mut own_gateways: Vec<IpAddr> = Vec::new();
        for ip in previous.ips.iter().filter(|ip| is_ours(ip.interface)) {
            let address = ip.address.split('/').next().unwrap_or_default().parse();
            let invalid =
                || CniError::config(format!("prevResult: {:?} is no IP address", ip.address));
            addresses.push(address.map_err(|_| invalid())?);
            own_gateways
                .extend(ip.gateway.as_ref().and_then(|gateway| gateway.parse::<IpAddr>().ok()));
        }
        let is_default = |dst: &str| matches!(dst, "0.0.0.0/0" | "::/0");
        let defaults = previous.routes.iter().filter(|route| is_default(&text(route, "dst")));
        let gateways = defaults.filter_map(|route| text(route, "gw").parse().ok());
        let gateways = gateways.filter(|gateway| own_gateways.contains(gateway)).collect();
        Ok(Self { addresses, gateways })
    }
}

/// Keeper and engine answer, and serve this namespace.
fn check_processes(files: &Files, id: NamespaceId) -> Result<(), CniError> {
    let dead = |error: std::io::Error| {
        CniError::internal(format!("the process of the network does not answer: {error}"))
    };
    let info = Contact::open(&files.socket()).and_then(|contact| contact.info()).map_err(dead)?;
    let served = (info["netnsDevice"].as_u64(), info["netnsInode"].as_u64());
    if served != (Some(id.device), Some(id.inode)) {
        return Err(CniError::internal("the process of the network serves another namespace"));
    }
    Ok(())
}

/// The engine still forwards every port.
fn check_ports(files: &Files, wanted: &[slirp_core::instance::Forward]) -> Result<(), CniError> {
    let record = files.record();
    let is_external = record.as_ref().is_some_and(|record| record.request.program.is_some());
    if is_external && wanted.is_empty() {
        // It was started without an API socket.
        return Ok(());
    }
    let list = serde_json::json!({ "execute": "list_hostfwd" });
    let shared = record.filter(|record| record.request.shared.is_some());
    let network = shared.map(|record| network_files(files, &record.request.network));
    let socket = network.as_ref().unwrap_or(files).api_socket();
    let reply = program::ask(&socket, &list)
        .map_err(|error| CniError::internal(format!("the engine does not answer: {error}")))?;
    let entries = reply["entries"].as_array().or_else(|| reply["return"]["entries"].as_array());
    let listed: BTreeSet<(bool, u16)> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let port = |name: &str| entry[name].as_u64().and_then(|port| u16::try_from(port).ok());
            let first = port("host_port")?;
            let last = port("host_port_end").unwrap_or(first);
            let is_udp = entry["proto"].as_str()?.starts_with("udp");
            Some((first..=last).map(move |port| (is_udp, port)))
        })
        .flatten()
        .collect();
    for forward in wanted {
        let is_udp = forward.protocol == slirp_core::instance::ForwardProtocol::Udp;
        let mut ports = forward.host.port()..=forward.last_host_port();
        if !ports.all(|port| listed.contains(&(is_udp, port))) {
            let shown = crate::attachment::ports::shown(forward);
            return Err(CniError::internal(format!("port mapping {shown} is not there")));
        }
    }
    Ok(())
}

/// Joins the namespaces, for the rest of this process, which has a single thread.
fn enter(target: &NamespaceTarget) -> Result<(), CniError> {
    if let Some(user) = target.user() {
        // Root needs no other user namespace to join the network namespace, which tells.
        let _ = setns(user, CloneFlags::CLONE_NEWUSER);
    }
    setns(target.network(), CloneFlags::CLONE_NEWNET)
        .map_err(|errno| CniError::internal(format!("setns(CLONE_NEWNET): {}", errno.desc())))
}

fn check_interface(name: &str, expected: &Expected) -> Result<(), CniError> {
    let entries = getifaddrs()
        .map_err(|errno| CniError::internal(format!("getifaddrs: {}", errno.desc())))?;
    let ours: Vec<_> = entries.filter(|entry| entry.interface_name == name).collect();
    let Some(first) = ours.first() else {
        return Err(CniError::internal(format!("interface {name} does not exist")));
    };
    if !first.flags.contains(InterfaceFlags::IFF_UP) {
        return Err(CniError::internal(format!("interface {name} is down")));
    }
    let mut present: Vec<IpAddr> = Vec::new();
    for storage in ours.iter().filter_map(|entry| entry.address.as_ref()) {
        present.extend(storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip())));
        present.extend(storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())));
    }
    for address in &expected.addresses {
        if !present.contains(address) {
            let message = format!("interface {name} does not have the address {address}");
            return Err(CniError::internal(message));
        }
    }
    let routes = default_gateways(name);
    for gateway in &expected.gateways {
        if !routes.contains(gateway) {
            let message = format!("there is no default route via {gateway} through {name}");
            return Err(CniError::internal(message));
        }
    }
    Ok(())
}

/// Gateways of default routes through an interface, of the namespace that we have joined.
fn default_gateways(name: &str) -> Vec<IpAddr> {
    let of_v4 = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
    let of_v6 = fs::read_to_string("/proc/self/net/ipv6_route").unwrap_or_default();
    let v4 = of_v4.lines().filter_map(|line| gateway_v4(line, name).map(IpAddr::V4));
    let v6 = of_v6.lines().filter_map(|line| gateway_v6(line, name).map(IpAddr::V6));
    v4.chain(v6).collect()
}

/// A line of `/proc/net/route`: interface, destination, gateway, flags, ..., mask (proc_pid_net(5));
/// addresses are hexadecimal numbers in the host's byte order.
fn gateway_v4(line: &str, name: &str) -> Option<Ipv4Addr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [interface, "00000000", gateway, _, _, _, _, "00000000", ..] = fields.as_slice() else {
        return None;
    };
    let number = u32::from_str_radix(gateway, 16).ok()?;
    (*interface == name).then(|| Ipv4Addr::from(number.to_ne_bytes()))
}

/// A line of `/proc/net/ipv6_route`: destination, its length, source, its length, gateway, ...,
/// interface; addresses are 32 hexadecimal digits.
fn gateway_v6(line: &str, name: &str) -> Option<Ipv6Addr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [destination, "00", _, _, gateway, .., interface] = fields.as_slice() else { return None };
    let is_default = destination.bytes().all(|digit| digit == b'0');
    let number = u128::from_str_radix(gateway, 16).ok()?;
    (*interface == name && is_default).then(|| Ipv6Addr::from_bits(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_read_from_proc() {
        let line = "eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0";
        #[cfg(target_endian = "little")]
        assert_eq!(gateway_v4(line, "eth0"), Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(gateway_v4(line, "eth1"), None);
        assert_eq!(gateway_v4("eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF", "eth0"), None);
        let zero = "0".repeat(32);
        let line = format!(
            "{zero} 00 {zero} 00 fd000000000000000000000000000002 00000400 1 0 00000003 eth0"
        );
        assert_eq!(gateway_v6(&line, "eth0"), Some("fd00::2".parse().unwrap()));
    }
}
