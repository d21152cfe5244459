//! From the options of this dialect to the orders of a run.
//!
//! Owns what the guest sees: which addresses, what they mean, how its interface is set up, and
//! which ports lead to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use slirp_core::instance::{Opening, OutboundAddresses};
use slirp_core::netns::{Configuration, Ipv6Configuration};
use slirp_core::plan::{AddressPlan, Answers, Family, Meaning, PlanError};
use slirp_core::policy::Policy;

use super::log;
use super::options::{Addresses, Families, PastaOptions, Place, Userns};
use super::ports::rules::PortRule;
use crate::options::{Options, OwnPlan, Target};
use crate::publish::Publish;

/// Port of resolvers (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

/// Name of the guest's interface where the host has none to copy.
const INTERFACE: &str = "tap0";

/// How long a start waits for ports that are in use: a container that restarts meets the network
/// of its predecessor, which closes its ports within milliseconds (arbitrary).
const PORT_PATIENCE: Duration = Duration::from_secs(1);

/// Signals that end the network with status 0.
const GOOD_ENDS: &[Signal] = &[Signal::SIGTERM, Signal::SIGQUIT];

/// Addresses of a guest whose host has none to copy: the guest and its gateway (RFC 3927).
const LOCAL_IPV4: (Ipv4Addr, u8, Ipv4Addr) =
    (Ipv4Addr::new(169, 254, 2, 1), 16, Ipv4Addr::new(169, 254, 2, 2));

/// Why there are no orders.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkFailure {
    #[error("Cannot run a command yet: give the number of a process, or --netns")]
    Command,
    #[error("--conf-path has no effect yet: ports cannot be changed while the network runs")]
    ControlSocket,
    #[error("Cannot use these addresses: {0}")]
    Plan(#[from] PlanError),
}

/// One family as the guest has it.
#[derive(Clone, Copy, Debug)]
struct Seen<A> {
    guest: A,
    prefix_len: u8,
    gateway: Option<A>,
}

/// What is connected, and how.
pub(super) fn orders(options: &PastaOptions) -> Result<(Target, Options), NetworkFailure> {
    if options.process.control_socket.is_some() {
        return Err(NetworkFailure::ControlSocket);
    }
    let interface = options.guest.interface.as_deref().unwrap_or(INTERFACE);
    let target = target(options, interface.to_owned())?;
    let own_plan = own_plan(options)?;
    let mtu = options.guest.mtu.unwrap_or(super::options::MTU);
    let addresses = &options.addresses;
    let publish = publish(options, &own_plan.plan);
    let orders = Options {
        configure: options.guest.configure,
        mtu,
        policy: policy(options),
        mac: options.guest.mac,
        publish,
        port_patience: PORT_PATIENCE,
        outbound: OutboundAddresses {
            ipv4: addresses.outbound.ipv4,
            ipv6: addresses.outbound.ipv6,
            ipv6_scope: 0,
        },
        keeps_udp_ports: true,
        dns: of_both(addresses.dns_host).map(|host| SocketAddr::new(host, DNS_PORT)).collect(),
        search_domains: search_domains(options),
        pcap: options.process.pcap.clone(),
        exit_with_netns: options.target.quits_with_netns,
        has_fixed_ipv6: true,
        sandbox: true,
        seccomp: true,
        system_calls: log::SYSTEM_CALLS,
        good_ends: GOOD_ENDS,
        own_plan: Some(own_plan),
        ..Options::default()
    };
    Ok((target, orders))
}

/// The namespaces to join.
fn target(options: &PastaOptions, tap: String) -> Result<Target, NetworkFailure> {
    let userns = match &options.target.userns {
        Userns::Path(path) => Some(path.clone()),
        Userns::OfPlace | Userns::Callers => None,
    };
    Ok(match (&options.target.place, &options.target.userns) {
        (Place::Command(_), _) => return Err(NetworkFailure::Command),
        (Place::Process(pid), Userns::OfPlace | Userns::Path(_)) => {
            Target::Pid { pid: *pid, userns, tap }
        }
        (Place::Process(pid), Userns::Callers) => {
            Target::Path { netns: PathBuf::from(format!("/proc/{pid}/ns/net")), userns, tap }
        }
        (Place::Netns(path), _) => Target::Path { netns: path.clone(), userns, tap },
    })
}

/// What the guest may reach: the host's loopback where an address leads there.
fn policy(options: &PastaOptions) -> Policy {
    let is_mapped =
        options.mapping.maps_gateway || options.addresses.host_loopback != Addresses::default();
    let mut policy = Policy::default();
    policy.allow_host_loopback = is_mapped;
    policy.dns_service = options.addresses.dns_forward != Addresses::default();
    policy
}

/// The domains that the guest is told.
fn search_domains(options: &PastaOptions) -> Vec<String> {
    let domains = options.services.search_domains.as_ref();
    let domains = domains.filter(|_| options.services.tells_search_domains);
    domains.cloned().unwrap_or_default()
}

/// The addresses of the guest, and what others mean.
fn own_plan(options: &PastaOptions) -> Result<OwnPlan, PlanError> {
    let addresses = &options.addresses;
    let ipv4 = (options.families != Families::Ipv6).then(|| {
        let (guest, prefix_len, gateway) = LOCAL_IPV4;
        match addresses.guest.ipv4 {
            Some(guest) => Seen {
                guest,
                prefix_len: addresses.ipv4_prefix_len.unwrap_or(prefix_len),
                gateway: addresses.gateway.ipv4,
            },
            None => Seen { guest, prefix_len, gateway: Some(gateway) },
        }
    });
    let ipv6 = addresses.guest.ipv6.filter(|_| options.families != Families::Ipv4).map(|guest| {
        let prefix_len = addresses.ipv6_prefix_len.unwrap_or(64);
        Seen { guest, prefix_len, gateway: addresses.gateway.ipv6 }
    });
    let maps_gateway = options.mapping.maps_gateway;
    let family4 = ipv4.map(|seen| {
        let meanings = meanings(
            seen,
            addresses.host_loopback.ipv4.or(seen.gateway.filter(|_| maps_gateway)),
            addresses.host_address.ipv4,
            addresses.dns_forward.ipv4,
        );
        family(seen, &meanings)
    });
    let family6 = ipv6.map(|seen| {
        let meanings = meanings(
            seen,
            addresses.host_loopback.ipv6.or(seen.gateway.filter(|_| maps_gateway)),
            addresses.host_address.ipv6,
            addresses.dns_forward.ipv6,
        );
        family(seen, &meanings)
    });
    let plan = AddressPlan::new(family4.transpose()?, family6.transpose()?, Answers::EveryoneElse)?;
    let configuration = ipv4.filter(|_| options.guest.configure).map(|seen| Configuration {
        mtu: options.guest.mtu.unwrap_or(super::options::MTU),
        address: seen.guest,
        prefix_len: seen.prefix_len,
        gateway: seen.gateway.unwrap_or(seen.guest),
        metric: None,
        mac: options.guest.mac,
        advertised_ipv6: false,
        ipv6: ipv6.and_then(fixed_ipv6),
    });
    Ok(OwnPlan { plan, configuration })
}

fn fixed_ipv6(seen: Seen<Ipv6Addr>) -> Option<Ipv6Configuration> {
    let Seen { guest: address, prefix_len, gateway } = seen;
    gateway.map(|gateway| Ipv6Configuration { address, prefix_len, gateway })
}

/// What the addresses beside the guest's mean.
fn meanings<A: Copy + PartialEq>(
    seen: Seen<A>,
    loopback: Option<A>,
    host: Option<A>,
    resolver: Option<A>,
) -> Vec<(A, Meaning<A>)> {
    let mut meanings = Vec::new();
    meanings.extend(loopback.map(|address| (address, Meaning::HostLoopback)));
    meanings.extend(host.map(|address| (address, Meaning::HostItself(seen.guest))));
    meanings.extend(resolver.map(|address| (address, Meaning::Resolver)));
    if let Some(gateway) = seen.gateway
        && !meanings.iter().any(|(address, _)| *address == gateway)
    {
        meanings.push((gateway, Meaning::Router));
    }
    meanings
}

fn family<A: Copy + PartialEq>(
    seen: Seen<A>,
    meanings: &[(A, Meaning<A>)],
) -> Result<Family<A>, PlanError> {
    let family = Family { gateway: seen.gateway, ..Family::new(seen.guest, seen.prefix_len) };
    family.with_meanings(meanings)
}

/// The ports of the host that lead to the guest. A rule without an address is two where the guest
/// has both families, so that a client finds the guest's address of its own family.
fn publish(options: &PastaOptions, plan: &AddressPlan) -> Vec<Publish> {
    let everywhere = [
        plan.ipv4().map(|_| IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        plan.ipv6().map(|_| IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    ];
    let rules = options.ports.inbound.iter().filter(|rule| !rule.is_scanned);
    let at = |rule: &PortRule| match rule.listener.address {
        Some(address) => vec![address],
        None => everywhere.into_iter().flatten().collect(),
    };
    rules.flat_map(|rule| at(rule).into_iter().map(|host| of_rule(options, rule, host))).collect()
}

fn of_rule(options: &PastaOptions, rule: &PortRule, host: IpAddr) -> Publish {
    Publish {
        protocol: rule.protocol,
        host: Some(host),
        host_ports: rule.ports.first()..=rule.ports.last(),
        guest: rule.target,
        guest_port: rule.to,
        opening: Opening {
            interface: rule.listener.interface.clone(),
            freebind: options.mapping.freebind,
            is_weak: rule.is_weak,
        },
    }
}

fn of_both(addresses: Addresses) -> impl Iterator<Item = IpAddr> {
    let ipv4 = addresses.ipv4.map(IpAddr::V4);
    ipv4.into_iter().chain(addresses.ipv6.map(IpAddr::V6))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::args::{self, Command};
    use super::super::ports::rules::EPHEMERAL;
    use super::*;

    fn of(line: &str) -> Result<(Target, Options), NetworkFailure> {
        let words = line.split_whitespace().map(OsString::from);
        match args::parse(words, &EPHEMERAL).command {
            Ok(Command::Run(options)) => orders(&options),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn namespaces_are_those_of_a_process_or_of_paths() {
        let path = |netns: &str, userns: Option<&str>| Target::Path {
            netns: netns.into(),
            userns: userns.map(Into::into),
            tap: "tap0".to_owned(),
        };
        for (line, expected) in [
            ("42", Target::Pid { pid: 42, userns: None, tap: "tap0".to_owned() }),
            ("--netns-only 42", path("/proc/42/ns/net", None)),
            (
                "--userns /u 42",
                Target::Pid { pid: 42, userns: Some("/u".into()), tap: "tap0".to_owned() },
            ),
            ("--netns /n", path("/n", None)),
            ("--netns /n --userns /u", path("/n", Some("/u"))),
        ] {
            assert_eq!(of(line).unwrap().0, expected, "{line}");
        }
        assert!(matches!(of("ls"), Err(NetworkFailure::Command)));
    }

    #[test]
    fn ports_are_opened_in_the_families_of_the_guest() {
        let hosts = |line: &str| -> Vec<_> {
            let publish = of(line).unwrap().1.publish;
            publish.iter().map(|it| it.host.unwrap().to_string()).collect()
        };
        assert_eq!(hosts("-t 80 -u none 42"), ["0.0.0.0"]);
        assert_eq!(hosts("-t 80 -u none -a 2001:db8::2 42"), ["0.0.0.0", "::"]);
        assert_eq!(hosts("-t ::1/80 -u none -a 2001:db8::2 42"), ["::1"]);
        assert_eq!(hosts("42"), [""; 0], "scanned ports are no rules");
        let publish =
            of("-t 127.0.0.1%lo/5000-5009:80-89 --freebind -u none 42").unwrap().1.publish;
        let opening =
            Opening { interface: Some("lo".to_owned()), freebind: true, ..Opening::default() };
        assert_eq!(publish[0].host_ports, 5000..=5009);
        assert_eq!((publish[0].guest_port, &publish[0].opening), (80, &opening));
        assert!(of("-t all -u none 42").unwrap().1.publish.iter().all(|it| it.opening.is_weak));
    }
}
