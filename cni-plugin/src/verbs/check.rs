//! `CHECK`: whether a container still has its network.
//!
//! The expected state comes from `prevResult`, since later plugins of a chain may have changed
//! ours. Their additions do not matter, nor does the routing table of a default route.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use slirp_core::netns::{NamespaceId, NamespaceTarget};

use super::routes::without_route;
use crate::attachment::attach::{find_namespace, of_namespace};
use crate::attachment::contact::Contact;
use crate::attachment::network::network_files;
use crate::attachment::store::{Candidates, Files};
use crate::config::Header;
use crate::config::settings::{key, settings};
use crate::keeper::program;
use crate::protocol::environment::Environment;
use crate::protocol::error::CniError;
use crate::protocol::field;
use crate::protocol::result::AttachmentResult;

/// Compares the present state with `prevResult` and the configuration.
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
    let settings = settings(header, environment, Some(id))?;
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

/// Our interface according to `prevResult`.
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
                || CniError::config(format!("prevResult: {:?} is not an IP address", ip.address));
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

/// Checks that keeper and engine answer, and serve this namespace.
fn check_processes(files: &Files, id: NamespaceId) -> Result<(), CniError> {
    let dead = |error: std::io::Error| {
        CniError::internal(format!("the process of the network does not answer: {error}"))
    };
    let info = Contact::open(&files.socket()).and_then(|contact| contact.info()).map_err(dead)?;
    if info.netns() != Some(id) {
        return Err(CniError::internal("the process of the network serves another namespace"));
    }
    Ok(())
}

/// Checks that the engine still forwards every port.
fn check_ports(files: &Files, wanted: &[slirp_core::instance::Forward]) -> Result<(), CniError> {
    let record = files.record();
    let is_external = record.as_ref().is_some_and(|record| record.request.program.is_some());
    if is_external && wanted.is_empty() {
        // The engine was started without an API socket.
        return Ok(());
    }
    let list = serde_json::json!({ "execute": "list_hostfwd" });
    let shared = record.filter(|record| record.request.shared.is_some());
    let network = shared.map(|record| network_files(files, &record.request.network));
    let socket = network.as_ref().unwrap_or(files).api_socket();
    let reply = program::ask(&socket, &list)
        .map_err(|error| CniError::internal(format!("the engine does not answer: {error}")))?;
    let entries = reply["entries"].as_array().or_else(|| reply["return"]["entries"].as_array());
    let listed: BTreeSet<(bool, IpAddr, u16)> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let address = entry["host_addr"].as_str().or_else(|| entry["host_addr6"].as_str())?;
            let address: IpAddr = address.parse().ok()?;
            let port = |name: &str| entry[name].as_u64().and_then(|port| u16::try_from(port).ok());
            let first = port("host_port")?;
            let last = port("host_port_end").unwrap_or(first);
            let is_udp = entry["proto"].as_str()?.starts_with("udp");
            Some((first..=last).map(move |port| (is_udp, address, port)))
        })
        .flatten()
        .collect();
    for forward in wanted {
        let is_udp = forward.protocol == slirp_core::instance::ForwardProtocol::Udp;
        let mut ports = forward.host.port()..=forward.last_host_port();
        if !ports.all(|port| listed.contains(&(is_udp, forward.host.ip(), port))) {
            let shown = crate::attachment::ports::shown(forward);
            return Err(CniError::internal(format!("port mapping {shown} is not there")));
        }
    }
    Ok(())
}

/// Joins the namespaces, for the rest of this process, which has a single thread.
fn enter(target: &NamespaceTarget) -> Result<(), CniError> {
    if let Some(user) = target.user() {
        // Root needs no other user namespace to join the network namespace; otherwise joining that
        // fails next.
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
    let index = if_nametoindex(name)
        .map_err(|errno| CniError::internal(format!("interface {name}: {}", errno.desc())))?;
    let missing = without_route(index, expected.gateways.clone())
        .map_err(|error| CniError::internal(format!("cannot look at the routes: {error}")))?;
    if let Some(gateway) = missing.first() {
        let message = format!("there is no default route via {gateway} through {name}");
        return Err(CniError::internal(message));
    }
    Ok(())
}
