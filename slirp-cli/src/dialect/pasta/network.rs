//! From the options of this dialect to the orders of a run.
//!
//! Owns what the guest sees: the host's network as far as nothing else was chosen, what the other
//! addresses mean, what the link offers, and which ports lead to the guest.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;
use slirp_core::MacAddr;
use slirp_core::config::{Personality, Silence, Told};
use slirp_core::instance::{ForwardProtocol, HostPorts, Opening, OutboundAddresses, SpliceRules};
use slirp_core::mirror::resolvers::{HostResolvers, ResolverChoice, Resolvers};
use slirp_core::mirror::{
    Choice, FamilyChoice, Followed, Following, Guest, GuestFamily, MirrorError, Template,
};
use slirp_core::netns::Setup;
use slirp_core::plan::{AddressPlan, AssumedGuest, Mirrored, MirroredFamily, PlanError};
use slirp_core::policy::Policy;

use super::failure::text_of;
use super::log;
use super::options::{Addresses, Families, MTU, PastaOptions, Place, RunAs, Splice, Userns};
use super::ports::rules::{PortRule, PortRules};
use super::runas::RunAsFailure;
use crate::options::{Options, OwnPlan, Splicing, Target};
use crate::publish::Publish;

/// Port of resolvers (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

/// How long a start waits for ports that are in use: a container that restarts meets the network
/// of its predecessor, which closes its ports within milliseconds (arbitrary).
const PORT_PATIENCE: Duration = Duration::from_secs(1);

/// Signals that end the network with status 0.
pub(super) const GOOD_ENDS: &[Signal] = &[Signal::SIGTERM, Signal::SIGQUIT];

/// Where the host's resolvers are named.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why there are no orders.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkFailure {
    #[error("A command is connected by the number of its process")]
    Command,
    #[error("Couldn't open the control socket {}: {}", .0.display(), of_socket(.1))]
    ControlSocket(PathBuf, #[source] io::Error),
    #[error(transparent)]
    RunAs(#[from] RunAsFailure),
    #[error("External interface not usable: {0}")]
    Mirror(#[from] MirrorError),
    #[error("External interface not usable: {0}: the host has no interface {1}")]
    NoInterface(&'static str, String),
    #[error("External interface not usable: {0} has no {1} address")]
    NoAddress(String, &'static str),
    #[error("Cannot forward {0}: the guest has no {1}")]
    Family(Box<PortRule>, &'static str),
    #[error("Cannot use these addresses: {0}")]
    Plan(#[from] PlanError),
}

/// What the host has, as far as a guest gets it.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) template: Template,
    resolvers: HostResolvers,
}

impl Host {
    /// Looks at the host.
    ///
    /// # Errors
    /// It lacks an interface that is named, or could not be read.
    pub(super) fn read(options: &PastaOptions) -> Result<Self, NetworkFailure> {
        let PastaOptions { addresses, .. } = options;
        for (option, name) in [
            ("--outbound-if4", &addresses.outbound_if4),
            ("--outbound-if6", &addresses.outbound_if6),
        ] {
            if let Some(name) = name.as_ref().filter(|name| if_nametoindex(name.as_str()).is_err())
            {
                return Err(NetworkFailure::NoInterface(option, name.clone()));
            }
        }
        let (ipv4, ipv6) = templates(options);
        let template = Template::read(ipv4, ipv6)?;
        let content = fs::read(RESOLV_CONF).unwrap_or_default();
        Ok(Self { template, resolvers: HostResolvers::parse(&content) })
    }
}

/// What is connected, and how.
///
/// # Errors
/// See [`NetworkFailure`].
pub(super) fn orders(
    options: &PastaOptions,
    host: &Host,
) -> Result<(Target, Options), NetworkFailure> {
    let identity = options.process.runas.as_ref().map(RunAs::to_take_on).transpose()?.flatten();
    check_named_interfaces(options, &host.template)?;
    let mut choice = choice(options);
    if choice.ipv6.is_some() && host.template.ipv6().is_none() {
        // The guest has no other address than the one that it makes from this.
        choice.mac.get_or_insert_with(random_mac);
    }
    let Seen { followed, interface, has_resolver } =
        seen(options, &choice, &host.template, &host.resolvers)?;
    let target = target(options, interface)?;
    let plan = followed.plan;
    check_families(&options.ports.inbound, &plan)?;
    let addresses = &options.addresses;
    let mut policy = Policy::default();
    policy.dns_service = has_resolver;
    let has_interface = options.mapping.splice != Splice::Only;
    let following = following(options, choice.clone(), host, followed.clone());
    let Followed { setup, personality, search_domains, .. } = followed;
    let orders = Options {
        mtu: options.guest.mtu.unwrap_or(MTU),
        policy,
        mac: choice.mac,
        publish: publish(options, &plan, false),
        port_patience: PORT_PATIENCE,
        outbound: OutboundAddresses {
            ipv4: addresses.outbound.ipv4,
            ipv6: addresses.outbound.ipv6,
            ipv6_scope: 0,
            ipv4_interface: addresses.outbound_if4.clone(),
            ipv6_interface: addresses.outbound_if6.clone(),
        },
        keeps_udp_ports: true,
        dns: of_both(addresses.dns_host).map(|host| SocketAddr::new(host, DNS_PORT)).collect(),
        search_domains,
        pcap: options.process.pcap.clone(),
        exit_with_netns: options.target.quits_with_netns,
        has_fixed_ipv6: true,
        sandbox: true,
        identity,
        seccomp: true,
        system_calls: log::SYSTEM_CALLS.iter().collect(),
        good_ends: GOOD_ENDS,
        own_plan: Some(OwnPlan {
            plan,
            has_interface,
            setup,
            personality,
            silence: silence(options),
            splicing: splicing(options, &plan),
            following: has_interface.then_some(following),
            follows_inside: options.guest.configure && has_copies(&choice),
        }),
        ..Options::default()
    };
    Ok((target, orders))
}

/// What the guest gets of a host.
struct Seen {
    followed: Followed,
    /// Name of its interface.
    interface: String,
    has_resolver: bool,
}

/// What the guest gets of its host, now or later.
fn seen(
    options: &PastaOptions,
    choice: &Choice,
    template: &Template,
    resolvers: &HostResolvers,
) -> Result<Seen, NetworkFailure> {
    let guest = Guest::new(template, choice);
    let addresses = &options.addresses;
    let ipv4 = guest.ipv4.as_ref().map(|seen| {
        let mut family = MirroredFamily::new(seen.address.unwrap_or(Ipv4Addr::UNSPECIFIED), 0);
        if seen.address.is_none() {
            family = MirroredFamily::<Ipv4Addr>::local();
        }
        let named = Named {
            is_fixed: addresses.guest.ipv4.is_some(),
            host_loopback: addresses.host_loopback.ipv4,
            host_itself: addresses.host_address.ipv4,
            dns_forward: addresses.dns_forward.ipv4,
            dns_host: addresses.dns_host.ipv4,
            told: told(options, |address| match address {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            }),
            maps_gateway: options.mapping.maps_gateway,
        };
        named.mirrored(family, seen, &resolvers.ipv4)
    });
    let ipv6 = guest.ipv6.as_ref().map(|seen| {
        let family = match seen.address {
            Some(address) => MirroredFamily::new(address, 0),
            None => MirroredFamily::<Ipv6Addr>::local(choice.mac.unwrap_or_default()),
        };
        let named = Named {
            is_fixed: addresses.guest.ipv6.is_some(),
            host_loopback: addresses.host_loopback.ipv6,
            host_itself: addresses.host_address.ipv6,
            dns_forward: addresses.dns_forward.ipv6,
            dns_host: addresses.dns_host.ipv6,
            told: told(options, |address| match address {
                IpAddr::V4(_) => None,
                IpAddr::V6(v6) => Some(v6),
            }),
            maps_gateway: options.mapping.maps_gateway,
        };
        named.mirrored(family, seen, &resolvers.ipv6)
    });
    let (ipv4, told4) = ipv4.unzip();
    let (ipv6, told6) = ipv6.unzip();
    let has_resolver = ipv4.as_ref().is_some_and(|it| it.resolver.is_some())
        || ipv6.as_ref().is_some_and(|it| it.resolver.is_some());
    let host_link = template.ipv6().map(|family| family.index);
    let our_mac = options.guest.gateway_mac;
    let plan = AddressPlan::mirrored(&Mirrored { ipv4, ipv6, our_mac, host_link })?;
    let dns = told4.into_iter().flatten().map(IpAddr::V4);
    let dns = dns.chain(told6.into_iter().flatten().map(IpAddr::V6)).collect();
    let setup = match options.guest.configure {
        true => guest.setup,
        false => Setup::unconfigured(choice.mac),
    };
    let followed = Followed {
        plan,
        personality: personality(options, dns),
        search_domains: search_domains(options, resolvers),
        setup,
    };
    Ok(Seen { followed, interface: guest.interface, has_resolver })
}

/// Whether an address or a route of the guest is one of its host.
fn has_copies(choice: &Choice) -> bool {
    let v4 = choice.ipv4.is_some_and(|v4| v4.address.is_none() || v4.gateway.is_none());
    let v6 = choice.ipv6.is_some_and(|v6| v6.address.is_none() || v6.gateway.is_none());
    v4 || v6
}

/// How the guest, which has `present`, follows the host's network. What options fix stays.
fn following(options: &PastaOptions, choice: Choice, host: &Host, present: Followed) -> Following {
    let (ipv4, ipv6) = templates(options);
    let kept = options.clone();
    let derive = move |template: &Template, resolvers: &HostResolvers| match seen(
        &kept, &choice, template, resolvers,
    ) {
        Ok(seen) => Some(seen.followed),
        Err(error) => {
            tracing::warn!("the guest does not follow the host's network: {error}");
            None
        }
    };
    let (template, resolvers) = (host.template.clone(), host.resolvers.clone());
    Following::new(template, resolvers, ipv4, ipv6, present, derive)
}

/// The interfaces that are copied, where options name them.
fn templates(options: &PastaOptions) -> (Option<&str>, Option<&str>) {
    let named = options.guest.template.as_deref();
    let PastaOptions { addresses, .. } = options;
    let (ipv4, ipv6) = (addresses.outbound_if4.as_deref(), addresses.outbound_if6.as_deref());
    (named.or(ipv4), named.or(ipv6))
}

/// Refuses an interface that is named and has nothing to copy, unless the address of the guest is
/// chosen. One that is named for both families may lack one of them.
fn check_named_interfaces(
    options: &PastaOptions,
    template: &Template,
) -> Result<(), NetworkFailure> {
    let PastaOptions { addresses, families, .. } = options;
    let ipv4 = template.ipv4().is_some() || addresses.guest.ipv4.is_some();
    let ipv6 = template.ipv6().is_some() || addresses.guest.ipv6.is_some();
    for (name, family, has_address, other) in [
        (&addresses.outbound_if4, "IPv4", ipv4, Families::Ipv6),
        (&addresses.outbound_if6, "IPv6", ipv6, Families::Ipv4),
    ] {
        let Some(name) = name else { continue };
        if !has_address && *families != other && options.guest.template.is_none() {
            return Err(NetworkFailure::NoAddress(name.clone(), family));
        }
    }
    let (has_address, family) = match families {
        Families::Both => (ipv4 || ipv6, "IPv4 or IPv6"),
        Families::Ipv4 => (ipv4, "IPv4"),
        Families::Ipv6 => (ipv6, "IPv6"),
    };
    match &options.guest.template {
        Some(name) if !has_address => Err(NetworkFailure::NoAddress(name.clone(), family)),
        Some(_) | None => Ok(()),
    }
}

/// Refuses a rule for an address of a family that the guest lacks. A target is of the same family.
pub(super) fn check_families(rules: &[PortRule], plan: &AddressPlan) -> Result<(), NetworkFailure> {
    for rule in rules {
        let (has_family, family) = match rule.listener.address {
            None => continue,
            Some(IpAddr::V4(_)) => (plan.ipv4().is_some(), "IPv4"),
            Some(IpAddr::V6(_)) => (plan.ipv6().is_some(), "IPv6"),
        };
        if !has_family {
            return Err(NetworkFailure::Family(Box::new(rule.clone()), family));
        }
    }
    Ok(())
}

/// What a person has chosen instead of the host's network.
fn choice(options: &PastaOptions) -> Choice {
    let PastaOptions { guest, addresses, families, .. } = options;
    Choice {
        interface: guest.interface.clone(),
        mac: guest.mac,
        mtu: guest.mtu,
        ipv4: (*families != Families::Ipv6).then_some(FamilyChoice {
            address: addresses.guest.ipv4,
            prefix_len: addresses.ipv4_prefix_len,
            gateway: addresses.gateway.ipv4,
            copies_addresses: guest.copies_addresses,
            copies_routes: guest.copies_routes,
        }),
        ipv6: (*families != Families::Ipv4).then_some(FamilyChoice {
            address: addresses.guest.ipv6,
            prefix_len: addresses.ipv6_prefix_len,
            gateway: addresses.gateway.ipv6,
            copies_addresses: guest.copies_addresses,
            copies_routes: guest.copies_routes,
        }),
    }
}

/// An address of one station that nobody else has (IEEE 802: locally administered).
fn random_mac() -> MacAddr {
    let [a, b, c, d, e, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
    MacAddr([0x02, a, b, c, d, e])
}

/// What the options name in one family.
struct Named<A> {
    is_fixed: bool,
    host_loopback: Option<A>,
    host_itself: Option<A>,
    dns_forward: Option<A>,
    dns_host: Option<A>,
    told: Option<Vec<A>>,
    maps_gateway: bool,
}

impl<A: Copy + PartialEq + Into<IpAddr>> Named<A> {
    /// The family of the plan, and the resolvers that the guest is told of. `host` are the host's.
    fn mirrored(
        self,
        family: MirroredFamily<A>,
        seen: &GuestFamily<A>,
        host: &[A],
    ) -> (MirroredFamily<A>, Vec<A>) {
        let is_gateway_host = self.maps_gateway && self.host_loopback.is_none();
        let loopback = self.host_loopback.or(seen.gateway.filter(|_| is_gateway_host));
        let choice = ResolverChoice { told: self.told, forwarded: self.dns_forward, loopback };
        let resolvers = Resolvers::new(host, choice);
        let family = MirroredFamily {
            prefix_len: seen.prefix_len,
            is_fixed: self.is_fixed,
            others: seen.others.clone(),
            gateway: seen.gateway,
            is_gateway_host,
            host_loopback: self.host_loopback.into_iter().collect(),
            host: seen.host.unwrap_or(family.guest),
            host_itself: self.host_itself,
            resolver: resolvers.forwarded,
            secure_resolver: self.dns_host.or(host.first().copied()),
            ..family
        };
        (family, resolvers.told)
    }
}

/// The resolvers of one family that `--dns` names; `None` leaves them to the host.
fn told<A>(options: &PastaOptions, of: impl Fn(IpAddr) -> Option<A>) -> Option<Vec<A>> {
    let listed = options.services.resolvers.as_ref()?;
    Some(listed.iter().copied().filter_map(of).collect())
}

/// How the services of the link speak.
fn personality(options: &PastaOptions, dns: Vec<IpAddr>) -> Personality {
    let mut told = Told::default();
    told.mtu = options.guest.mtu;
    told.dns = if options.services.tells_resolvers { dns } else { Vec::new() };
    told.host_name.clone_from(&options.guest.hostname);
    told.fqdn.clone_from(&options.guest.fqdn);
    Personality::Single(told)
}

/// What of the guest's packets is dropped.
fn silence(options: &PastaOptions) -> Silence {
    let services = &options.services;
    let mut silence = Silence::default();
    silence.tcp = !services.tcp;
    silence.udp = !services.udp;
    silence.echo = !services.icmp;
    silence.dhcp = !services.dhcp;
    silence.dhcpv6 = !services.dhcpv6;
    silence.ndp = !services.ndp;
    silence.router_advertisements = !services.router_advertisements;
    silence
}

/// The domains that the guest is told.
fn search_domains(options: &PastaOptions, host: &HostResolvers) -> Vec<String> {
    let services = &options.services;
    if !services.tells_search_domains {
        return Vec::new();
    }
    services.search_domains.clone().unwrap_or_else(|| host.search.clone())
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
        (Place::Socket { path, is_one_off }, _) => {
            Target::Server { path: path.clone(), ends_with_peer: *is_one_off }
        }
        (Place::Descriptor(number), _) => Target::SocketFd(*number),
        (Place::Netns(path), _) => Target::Path { netns: path.clone(), userns, tap },
    })
}

/// What is joined socket to socket, if there is anything.
fn splicing(options: &PastaOptions, plan: &AddressPlan) -> Option<Splicing> {
    let PortRules { inbound, outbound } = &options.ports;
    let joins_clients = options.mapping.splice != Splice::Never;
    // Ports in use are looked for on both sides.
    let inward = carried(options, inbound).filter(|rule| joins_clients || rule.is_scanned);
    let has_rules = inward.chain(carried(options, outbound)).next().is_some();
    let is_changeable = options.process.control_socket.is_some();
    (has_rules || is_changeable).then(|| Splicing {
        joins_clients,
        to_guest_loopback: options.mapping.keeps_loopback,
        is_changeable,
        scanned: publish(options, plan, true),
        to_host: carried(options, outbound).map(to_host).collect(),
    })
}

/// What these rules have joined socket to socket, besides forwarded ports.
pub(super) fn splice_rules(
    options: &PastaOptions,
    plan: &AddressPlan,
    guest: AssumedGuest,
    rules: &PortRules,
) -> SpliceRules {
    let scanned = carried(options, &rules.inbound).filter(|rule| rule.is_scanned);
    let scanned = scanned.map(|rule| published(options, plan, rule));
    SpliceRules {
        scanned: scanned.map(|publish| publish.forward(guest)).collect(),
        to_host: carried(options, &rules.outbound).map(to_host).collect(),
    }
}

/// Whether the protocol of the rule is not switched off. Clients would wait for answers that the
/// guest cannot send.
pub(super) const fn is_carried(options: &PastaOptions, rule: &PortRule) -> bool {
    match rule.protocol {
        ForwardProtocol::Tcp => options.services.tcp,
        ForwardProtocol::Udp => options.services.udp,
    }
}

fn carried<'r>(
    options: &'r PastaOptions,
    rules: &'r [PortRule],
) -> impl Iterator<Item = &'r PortRule> {
    rules.iter().filter(|rule| is_carried(options, rule))
}

fn to_host(rule: &PortRule) -> HostPorts {
    HostPorts {
        protocol: rule.protocol,
        guest: rule.ports.first(),
        host: rule.to,
        // All 65,535 fit: port 0 is in no rule.
        ports: (rule.ports.last() - rule.ports.first()).saturating_add(1),
        is_weak: rule.is_weak,
        is_scanned: rule.is_scanned,
    }
}

/// The ports of the host that lead to the guest, those that are scanned or the others.
fn publish(options: &PastaOptions, plan: &AddressPlan, is_scanned: bool) -> Vec<Publish> {
    let rules = carried(options, &options.ports.inbound);
    let rules = rules.filter(|rule| rule.is_scanned == is_scanned);
    rules.map(|rule| published(options, plan, rule)).collect()
}

/// The ports of one rule. A rule without an address is for both families where the guest has them,
/// and a client finds the guest's address of its own family.
pub(super) fn published(options: &PastaOptions, plan: &AddressPlan, rule: &PortRule) -> Publish {
    let everywhere = match (plan.ipv4(), plan.ipv6()) {
        (Some(_), Some(_)) => None,
        (Some(_), None) => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        (None, _) => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    Publish {
        protocol: rule.protocol,
        host: rule.listener.address.or(everywhere),
        keeps_version: true,
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

/// Why a socket cannot be bound.
fn of_socket(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::AddrInUse {
        "a network serves it, or it is no socket".to_owned()
    } else if error.kind() == io::ErrorKind::InvalidInput {
        "its path is too long".to_owned()
    } else {
        text_of(error)
    }
}

#[cfg(test)]
mod tests;
