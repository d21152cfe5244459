//! Stateless DHCPv6 (RFC 8415 section 18.3.6, RFC 3646).
//!
//! Owns the answer to an information request: the DNS address and the search domains. Addresses
//! come from router advertisements alone, so everything stateful is ignored. The datagram around
//! a message is left to the stack.
//!
//! We differ from slirp4netns in sending a server identifier, which RFC 8415 section 16.10 demands
//! and without which clients discard a reply; in the search domains; and in leaving out the DNS
//! address where the DNS service is disabled.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::StackConfig;
use crate::discard::DiscardReason;
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
const OPTION_DNS_SERVERS: u16 = 23;
const OPTION_DOMAIN_LIST: u16 = 24;
const OPTION_IA_PD: u16 = 25;

/// The server; it remembers nothing about its clients.
#[derive(Debug)]
pub(crate) struct Dhcpv6Server {
    plan: AddressPlan,
    announces_dns: bool,
    search: Vec<SearchDomain>,
}

/// What a request says, as far as it is listened to.
#[derive(Default)]
struct Request<'a> {
    transaction: [u8; 3],
    client_id: Option<&'a [u8]>,
    wanted: &'a [u8],
}

impl Dhcpv6Server {
    /// A server for the plan, DNS policy and search domains of `config`.
    pub(crate) fn new(config: &StackConfig) -> Self {
        Self {
            plan: config.plan,
            announces_dns: config.policy.dns_service,
            search: SearchDomain::list(&config.search_domains),
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
    /// [`DiscardReason::DhcpInvalid`], also for what RFC 8415 section 16.12 tells to discard, and
    /// [`DiscardReason::DhcpNotAnswered`].
    pub(crate) fn handle_message(
        &self,
        client: SocketAddr,
        server: SocketAddr,
        message: &[u8],
    ) -> Result<Vec<u8>, DiscardReason> {
        let plan = self.plan.ipv6().ok_or(DiscardReason::Ipv6Disabled)?;
        let server_id = server_duid();
        let request = Request::parse(message, &server_id)?;
        let [t0, t1, t2] = request.transaction;
        let mut reply = vec![REPLY, t0, t1, t2];
        if let Some(client_id) = request.client_id {
            push(&mut reply, OPTION_CLIENT_ID, client_id);
        }
        push(&mut reply, OPTION_SERVER_ID, &server_id);
        if let Some(resolver) = plan.resolver()
            && self.announces_dns
            && request.asks_for(OPTION_DNS_SERVERS)
        {
            push(&mut reply, OPTION_DNS_SERVERS, &resolver.octets());
        }
        if !self.search.is_empty() && request.asks_for(OPTION_DOMAIN_LIST) {
            push(&mut reply, OPTION_DOMAIN_LIST, &encode_list(&self.search, SEARCH_CAP));
        }
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
}

impl<'a> Request<'a> {
    fn parse(message: &'a [u8], server_id: &[u8]) -> Result<Self, DiscardReason> {
        let invalid = DiscardReason::DhcpInvalid;
        let &[kind, t0, t1, t2] = message.first_chunk().ok_or(invalid)?;
        if kind != INFORMATION_REQUEST {
            return Err(DiscardReason::DhcpNotAnswered);
        }
        let mut request = Self { transaction: [t0, t1, t2], ..Self::default() };
        let mut options = &message[HEADER_LEN..];
        while !options.is_empty() {
            let (&[n0, n1, l0, l1], rest) = options.split_first_chunk().ok_or(invalid)?;
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            let (value, rest) = rest.split_at_checked(len).ok_or(invalid)?;
            options = rest;
            match u16::from_be_bytes([n0, n1]) {
                OPTION_CLIENT_ID if (1..=DUID_CAP).contains(&len) => {
                    request.client_id = Some(value);
                }
                OPTION_CLIENT_ID | OPTION_IA_NA | OPTION_IA_TA | OPTION_IA_PD => {
                    return Err(invalid);
                }
                OPTION_SERVER_ID if value != server_id => {
                    return Err(DiscardReason::DhcpNotAnswered);
                }
                OPTION_REQUEST if len % 2 == 0 => request.wanted = value,
                OPTION_REQUEST => return Err(invalid),
                _ => {}
            }
        }
        Ok(request)
    }

    fn asks_for(&self, number: u16) -> bool {
        self.wanted.chunks_exact(2).any(|wanted| wanted == number.to_be_bytes())
    }
}

/// Type 3, DUID-LL (RFC 8415 section 11.4): the gateway's MAC address, which never changes.
const fn server_duid() -> [u8; 10] {
    let [a, b, c, d, e, f] = AddressPlan::mac_of(IpAddr::V6(Ipv6Plan::GATEWAY_LINK_LOCAL)).0;
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
