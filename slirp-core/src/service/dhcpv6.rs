//! DHCPv6 (RFC 8415, RFC 3646).
//!
//! Owns the answer to an information request (RFC 8415 section 18.3.6): the DNS addresses and the
//! search domains. With slirp4netns' [`Personality`] addresses come from router advertisements
//! alone, so everything stateful is ignored; what pasta's answers is in [`stateful`]. The datagram
//! around a message is left to the stack.
//!
//! We differ from slirp4netns in sending a server identifier, which RFC 8415 section 16.10 demands
//! and without which clients discard a reply; in the search domains; and in leaving out the DNS
//! address where the DNS service is disabled.

mod stateful;

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::{Personality, StackConfig};
use crate::discard::DiscardReason;
use crate::mac::MacAddr;
use crate::plan::{AddressPlan, Ipv6Plan};
use crate::service::search_domain::{SearchDomain, encode_list};
use crate::wire::udp::emit_datagram;

/// UDP port of servers (RFC 8415 section 7.2).
pub(crate) const SERVER_PORT: u16 = 547;
/// UDP port of clients.
pub(crate) const CLIENT_PORT: u16 = 546;
/// ff02::1:2, all relay agents and servers (RFC 8415 section 7.1).
pub(crate) const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

const REPLY: u8 = 7;
const INFORMATION_REQUEST: u8 = 11;
const HEADER_LEN: usize = 4;
const HOP_LIMIT: u8 = 64;
/// Longest DUID in bytes (RFC 8415 section 11.1).
const DUID_CAP: usize = 130;
/// Bytes of search domains that are sent: with everything else they fit into the smallest MTU of
/// IPv6 (1280) with room to spare.
const SEARCH_CAP: usize = 1024;

const OPTION_CLIENT_ID: u16 = 1;
const OPTION_SERVER_ID: u16 = 2;
const OPTION_IA_NA: u16 = 3;
const OPTION_IA_TA: u16 = 4;
const OPTION_REQUEST: u16 = 6;
const OPTION_RAPID_COMMIT: u16 = 14;
const OPTION_DNS_SERVERS: u16 = 23;
const OPTION_DOMAIN_LIST: u16 = 24;
const OPTION_IA_PD: u16 = 25;
const OPTION_CLIENT_FQDN: u16 = 39;

/// Flag of the client's name: we update no record (RFC 4704 section 4.1).
const FQDN_NO_UPDATE: u8 = 0x04;

/// The server; it remembers nothing about its clients.
#[derive(Debug)]
pub(crate) struct Dhcpv6Server {
    plan: AddressPlan,
    server_id: [u8; DUID_LEN],
    dns: Vec<Ipv6Addr>,
    search: Vec<SearchDomain>,
    /// The name that a client is told to have.
    fqdn: Option<SearchDomain>,
    /// Whether clients get the guest's address in the plan.
    is_stateful: bool,
    is_silent: bool,
}

/// What a message says, as far as it is listened to.
#[derive(Default)]
struct Request<'a> {
    kind: u8,
    transaction: [u8; 3],
    client_id: Option<&'a [u8]>,
    server_id: Option<&'a [u8]>,
    /// The first association of addresses, which has an option of its own (RFC 8415 section 21.4).
    addresses: Option<&'a [u8]>,
    /// Whether it wants an address or a prefix of another kind.
    wants_others: bool,
    is_rapid: bool,
    tells_fqdn: bool,
    wanted: &'a [u8],
}

impl Dhcpv6Server {
    /// A server for the plan, DNS policy, personality and search domains of `config`.
    pub(crate) fn new(config: &StackConfig) -> Self {
        let ipv6 = config.plan.ipv6();
        let resolver =
            ipv6.and_then(|family| family.resolver()).filter(|_| config.policy.dns_service);
        let (is_stateful, dns, fqdn) = match &config.personality {
            Personality::Pool => (false, resolver.into_iter().collect(), None),
            Personality::Single(told) => {
                let fqdn = told.fqdn.as_deref().and_then(SearchDomain::new);
                (true, told.dns6().collect(), fqdn)
            }
        };
        // A guest has a link-local address by itself.
        let has_global = ipv6.is_some_and(|family| !family.guest.is_unicast_link_local());
        let link_local = ipv6.and_then(|family| family.link_local);
        let link_local = link_local.unwrap_or(Ipv6Plan::GATEWAY_LINK_LOCAL);
        Self {
            plan: config.plan,
            server_id: server_duid(config.plan.mac_for(link_local.into())),
            dns,
            search: SearchDomain::list(&config.search_domains),
            fqdn,
            is_stateful: is_stateful && has_global,
            is_silent: config.silence.dhcpv6,
        }
    }

    /// Whether a datagram to `destination` is for this server: to the group of servers, or to any
    /// of our own addresses.
    pub(crate) fn is_for_us(&self, destination: SocketAddr) -> bool {
        let IpAddr::V6(address) = destination.ip() else { return false };
        let is_ours = || address == ALL_SERVERS || self.plan.is_ours(address.into());
        destination.port() == SERVER_PORT && self.plan.ipv6().is_some() && is_ours()
    }

    /// Takes the payload of a datagram from `client` that is [for us](Self::is_for_us) because it
    /// was sent to `server`. Returns the reply as an IP packet.
    ///
    /// # Errors
    /// [`DiscardReason::DhcpInvalid`], also for what RFC 8415 section 16 tells to discard, and
    /// [`DiscardReason::DhcpNotAnswered`].
    pub(crate) fn handle_message(
        &self,
        client: SocketAddr,
        server: SocketAddr,
        message: &[u8],
    ) -> Result<Vec<u8>, DiscardReason> {
        let plan = self.plan.ipv6().ok_or(DiscardReason::Ipv6Disabled)?;
        let kind = *message.get(HEADER_LEN - 1).and(message.first()).ok_or(Self::INVALID)?;
        let is_information = kind == INFORMATION_REQUEST;
        if self.is_silent || !is_information && !self.is_stateful {
            return Err(DiscardReason::DhcpNotAnswered);
        }
        let request = Request::parse(message)?;
        let reply = if is_information {
            self.information(&request)?
        } else {
            self.stateful(plan.guest, &request)?
        };
        let from = match server.ip() {
            address if address.is_multicast() => {
                IpAddr::V6(plan.link_local.ok_or(DiscardReason::DhcpNotAnswered)?)
            }
            address => address,
        };
        let mut packet = Vec::new();
        emit_datagram(&mut packet, (from, SERVER_PORT).into(), client, HOP_LIMIT, 0, &reply)?;
        Ok(packet)
    }

    const INVALID: DiscardReason = DiscardReason::DhcpInvalid;

    /// The reply to an information request, which may not ask for addresses (RFC 8415 section
    /// 16.12).
    fn information(&self, request: &Request<'_>) -> Result<Vec<u8>, DiscardReason> {
        if request.addresses.is_some() || request.wants_others {
            return Err(Self::INVALID);
        }
        self.check_server(request)?;
        let mut reply = self.begin(REPLY, request);
        self.push_configuration(&mut reply, request);
        Ok(reply)
    }

    /// Whether a message is for this server, or for any.
    fn check_server(&self, request: &Request<'_>) -> Result<(), DiscardReason> {
        match request.server_id {
            Some(server_id) if server_id != self.server_id => Err(DiscardReason::DhcpNotAnswered),
            Some(_) | None => Ok(()),
        }
    }

    /// The header of a reply, and who is speaking to whom.
    fn begin(&self, kind: u8, request: &Request<'_>) -> Vec<u8> {
        let [t0, t1, t2] = request.transaction;
        let mut reply = vec![kind, t0, t1, t2];
        if let Some(client_id) = request.client_id {
            push(&mut reply, OPTION_CLIENT_ID, client_id);
        }
        push(&mut reply, OPTION_SERVER_ID, &self.server_id);
        reply
    }

    fn push_configuration(&self, reply: &mut Vec<u8>, request: &Request<'_>) {
        if !self.dns.is_empty() && request.asks_for(OPTION_DNS_SERVERS) {
            let dns: Vec<u8> = self.dns.iter().flat_map(Ipv6Addr::octets).collect();
            push(reply, OPTION_DNS_SERVERS, &dns);
        }
        if !self.search.is_empty() && request.asks_for(OPTION_DOMAIN_LIST) {
            push(reply, OPTION_DOMAIN_LIST, &encode_list(&self.search, SEARCH_CAP));
        }
        if let Some(name) = &self.fqdn
            && (request.tells_fqdn || request.asks_for(OPTION_CLIENT_FQDN))
        {
            push(reply, OPTION_CLIENT_FQDN, &[&[FQDN_NO_UPDATE], name.labels()].concat());
        }
    }
}

impl<'a> Request<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, DiscardReason> {
        let invalid = DiscardReason::DhcpInvalid;
        let &[kind, t0, t1, t2] = message.first_chunk().ok_or(invalid)?;
        let mut request = Self { kind, transaction: [t0, t1, t2], ..Self::default() };
        for option in options(&message[HEADER_LEN..]) {
            let (number, value) = option?;
            let len = value.len();
            match number {
                OPTION_CLIENT_ID if (1..=DUID_CAP).contains(&len) => {
                    request.client_id = Some(value);
                }
                OPTION_CLIENT_ID => return Err(invalid),
                OPTION_SERVER_ID => request.server_id = Some(value),
                OPTION_IA_NA => request.addresses = request.addresses.or(Some(value)),
                OPTION_IA_TA | OPTION_IA_PD => request.wants_others = true,
                OPTION_REQUEST if len % 2 == 0 => request.wanted = value,
                OPTION_REQUEST => return Err(invalid),
                OPTION_RAPID_COMMIT => request.is_rapid = true,
                OPTION_CLIENT_FQDN => request.tells_fqdn = true,
                _ => {}
            }
        }
        Ok(request)
    }

    fn asks_for(&self, number: u16) -> bool {
        self.wanted.chunks_exact(2).any(|wanted| wanted == number.to_be_bytes())
    }
}

/// The options in `bytes`. The first one that overruns them is an error, and the last.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), DiscardReason>> {
    core::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let option = bytes.split_first_chunk().and_then(|(&[n0, n1, l0, l1], rest)| {
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            let (value, rest) = rest.split_at_checked(len)?;
            Some(((u16::from_be_bytes([n0, n1]), value), rest))
        });
        bytes = option.map_or(&[], |(_, rest)| rest);
        Some(option.map(|(option, _)| option).ok_or(DiscardReason::DhcpInvalid))
    })
}

const DUID_LEN: usize = 10;

/// Type 3, DUID-LL (RFC 8415 section 11.4): the gateway's MAC address, which never changes.
const fn server_duid(mac: MacAddr) -> [u8; DUID_LEN] {
    let MacAddr([a, b, c, d, e, f]) = mac;
    [0, 3, 0, 1, a, b, c, d, e, f]
}

/// Adds an option; every value is bounded far below what its length field can say.
fn push(reply: &mut Vec<u8>, number: u16, value: &[u8]) {
    let Ok(len) = u16::try_from(value.len()) else { return };
    reply.extend_from_slice(&number.to_be_bytes());
    reply.extend_from_slice(&len.to_be_bytes());
    reply.extend_from_slice(value);
}

#[cfg(test)]
#[path = "tests/dhcpv6.rs"]
mod tests;
