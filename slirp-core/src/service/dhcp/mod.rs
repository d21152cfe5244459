//! The DHCP and BOOTP server on the gateway (RFC 2131, RFC 2132, RFC 1534).
//!
//! Owns the leases and the replies, byte for byte those of slirp4netns. Reading requests is left to
//! `message`, the pool to `lease`, the replies of the [`Personality`] with one address to `single`,
//! and the datagram around a request to the stack.
//!
//! | request | reply |
//! | --- | --- |
//! | DISCOVER | OFFER: the requested address if free, else the client's, else the first free |
//! | REQUEST or BOOTP for an address | ACK if it is in the pool and no other client's, else NAK |
//! | REQUEST or BOOTP without an address | ACK: the client's address, else the first free |
//! | either in a full pool | an address offered but not requested, else an expired one, or none |
//! | any other; REQUEST to another server | no reply |
//!
//! Replies are broadcast, whatever the client's flags say: the client cannot be addressed yet, and
//! the link has no other listeners. A client that renews its lease has an address (`ciaddr`) and
//! may listen there alone, so an ACK for that address is sent to it (RFC 2131 section 4.1).
//!
//! We differ from RFC 2131 in treating an offered address as leased, in answering unknown clients
//! (section 4.3.2 demands silence, for the sake of other servers, and here are none), and in
//! ignoring RELEASE, DECLINE and INFORM. slirp4netns does the same.
//!
//! We differ from slirp4netns in sending the answer to a renewal to the client's address; in
//! reusing unused addresses of a full pool; in leaving out the DNS option where the DNS service is
//! disabled; in freeing the address of a client that requests another one; in ignoring requests to
//! another server; in the fields and the server identifier of a NAK, which are those of RFC 2131
//! table 3; and in telling MTU, broadcast address and search domains to clients that ask for them.

mod lease;
mod message;
mod single;

#[cfg(test)]
mod tests;

use core::net::{Ipv4Addr, SocketAddr};
use std::collections::BTreeMap;

use crate::config::{Personality, StackConfig};
use crate::discard::DiscardReason;
use crate::mac::MacAddr;
use crate::plan::Family;
use crate::service::search_domain::{SearchDomain, encode_list};
use crate::time::Instant;
use crate::wire::udp::emit_datagram;
use lease::LeasePool;
use message::{
    ETHERNET, ETHERNET_LEN, FIXED_LEN, MAGIC_COOKIE, ReplyKind, Request, RequestKind, option as opt,
};
use single::SingleLease;

/// UDP port of servers.
pub(crate) const SERVER_PORT: u16 = 67;
/// UDP port of clients.
pub(crate) const CLIENT_PORT: u16 = 68;
/// Lease time in seconds; slirp4netns' value.
pub(crate) const LEASE_SECONDS: u32 = 86_400;

/// Length of the options in every reply, cookie and padding included, in bytes: what a client can
/// take at least (RFC 2131 section 2).
const OPTIONS_LEN: usize = 312;
const BOOT_REPLY: u8 = 2;
const HOP_LIMIT: u8 = 64;
/// "Low delay" (RFC 1349); slirp4netns' value.
const TYPE_OF_SERVICE: u8 = 0x10;
const NAK_TEXT: &[u8] = b"requested address not available";

/// What a request led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DhcpOutcome {
    /// The reply as an IP packet.
    pub packet: Vec<u8>,
    /// Ethernet destination: the client, if it has the address already, else broadcast.
    pub to: MacAddr,
    /// The leased address and its client; `None` for a mere offer.
    pub leased: Option<(Ipv4Addr, MacAddr)>,
}

/// The server.
#[derive(Debug)]
pub(crate) struct DhcpServer {
    /// `None` without IPv4: then no message is for us.
    plan: Option<Family<Ipv4Addr>>,
    mtu: u16,
    announces_dns: bool,
    search: Vec<SearchDomain>,
    pool: LeasePool,
    /// On a shared network, the address that each member was assigned. The pool is not used then.
    reservations: Option<BTreeMap<[u8; 6], Ipv4Addr>>,
    /// Who answers instead where every client gets the same address.
    single: Option<SingleLease>,
    is_silent: bool,
}

impl DhcpServer {
    /// A server without leases, for the plan, MTU, DNS policy and search domains of `config`.
    pub(crate) fn new(config: &StackConfig) -> Self {
        let search = SearchDomain::list(&config.search_domains);
        let single = match &config.personality {
            Personality::Single(told) => Some(SingleLease::new(told, search.clone())),
            Personality::Pool => None,
        };
        Self {
            plan: config.plan.ipv4().copied(),
            mtu: config.mtu,
            announces_dns: config.policy.dns_service,
            search,
            pool: LeasePool::new(config.plan.ipv4()),
            reservations: config.is_shared.then(BTreeMap::new),
            single,
            is_silent: config.silence.dhcp,
        }
    }

    /// Whether each client has a reserved address ([`reserve`](Self::reserve)) instead of one of
    /// the pool.
    pub(crate) const fn has_reservations(&self) -> bool {
        self.reservations.is_some()
    }

    /// Reserves `address` for `client`; does nothing where addresses come from the pool.
    pub(crate) fn reserve(&mut self, client: MacAddr, address: Ipv4Addr) {
        if let Some(reservations) = &mut self.reservations {
            reservations.insert(client.0, address);
        }
    }

    /// Takes the reservation for `client` back.
    pub(crate) fn release(&mut self, client: MacAddr) {
        if let Some(reservations) = &mut self.reservations {
            reservations.remove(&client.0);
        }
    }

    /// Whether a datagram to `destination` is for this server.
    pub(crate) fn is_for_us(&self, destination: SocketAddr) -> bool {
        let SocketAddr::V4(v4) = destination else { return false };
        let Some(plan) = &self.plan else { return false };
        let is_ours = v4.ip().is_broadcast() || plan.gateway == Some(*v4.ip());
        v4.port() == SERVER_PORT && is_ours
    }

    /// At `now`, takes the payload of a datagram that is [for us](Self::is_for_us) and came from
    /// the Ethernet address `sender`. With reservations the sender must be the client itself, and
    /// gets its reserved address or no reply; otherwise `sender` is ignored.
    ///
    /// # Errors
    /// [`DiscardReason::DhcpInvalid`], [`DiscardReason::DhcpNotAnswered`], and
    /// [`DiscardReason::DhcpPoolExhausted`] when there is no address left for the client.
    pub(crate) fn handle_message(
        &mut self,
        sender: MacAddr,
        message: &[u8],
        now: Instant,
    ) -> Result<DhcpOutcome, DiscardReason> {
        let request = Request::parse(message)?;
        // Without a gateway there is nobody to answer as.
        let plan = self.plan.ok_or(DiscardReason::DhcpNotAnswered)?;
        let gateway = plan.gateway.ok_or(DiscardReason::DhcpNotAnswered)?;
        let is_for_another = request.server.is_some_and(|server| server != gateway);
        if is_for_another || request.kind == RequestKind::Other || self.is_silent {
            return Err(DiscardReason::DhcpNotAnswered);
        }
        if let Some(single) = &self.single {
            return single.answer(&plan, gateway, &request);
        }
        let client = request.client;
        let reserved = match &self.reservations {
            Some(reservations) => {
                let own = reservations.get(&sender.0).filter(|_| client == sender);
                Some(*own.ok_or(DiscardReason::DhcpNotAnswered)?)
            }
            None => None,
        };
        let is_request = request.kind == RequestKind::Request;
        let claimed = request.requested.and_then(|wanted| match reserved {
            Some(own) => (own == wanted).then_some(own),
            None => self.pool.try_claim(client, wanted, is_request, now),
        });
        let (kind, address) = if is_request && request.requested.is_some() && claimed.is_none() {
            (ReplyKind::Nak, Ipv4Addr::UNSPECIFIED)
        } else {
            let kind = if is_request { ReplyKind::Ack } else { ReplyKind::Offer };
            let address =
                claimed.or(reserved).or_else(|| self.pool.try_allocate(client, is_request, now));
            (kind, address.ok_or(DiscardReason::DhcpPoolExhausted)?)
        };
        tracing::debug!(%client, %address, ?kind, "dhcp");
        let reply = self.reply(&plan, gateway, &request, kind, address);
        let leased = (kind == ReplyKind::Ack).then_some((address, client));
        // `ciaddr` is trusted only if it is the leased address.
        let (address, to) = match leased {
            Some((address, client)) if request.present == Some(address) => (address, client),
            Some(_) | None => (Ipv4Addr::BROADCAST, MacAddr::BROADCAST),
        };
        Ok(DhcpOutcome { packet: datagram_to(address, gateway, &reply)?, to, leased })
    }

    /// The whole message. `address` is unspecified in a NAK.
    fn reply(
        &self,
        plan: &Family<Ipv4Addr>,
        gateway: Ipv4Addr,
        request: &Request<'_>,
        kind: ReplyKind,
        address: Ipv4Addr,
    ) -> Vec<u8> {
        let next_server = if kind == ReplyKind::Nak { Ipv4Addr::UNSPECIFIED } else { gateway };
        let mut reply = begin_reply(request, kind, address, next_server);
        push(&mut reply, opt::SERVER_ID, &gateway.octets());
        if kind == ReplyKind::Nak {
            push(&mut reply, opt::MESSAGE, NAK_TEXT);
        } else {
            self.push_configuration(&mut reply, plan, gateway, request);
        }
        reply.push(opt::END);
        reply.resize(FIXED_LEN + OPTIONS_LEN, opt::PAD);
        reply
    }

    fn push_configuration(
        &self,
        reply: &mut Vec<u8>,
        plan: &Family<Ipv4Addr>,
        gateway: Ipv4Addr,
        request: &Request<'_>,
    ) {
        push(reply, opt::SUBNET_MASK, &plan.netmask().octets());
        push(reply, opt::ROUTER, &gateway.octets());
        if let Some(resolver) = plan.resolver().filter(|_| self.announces_dns) {
            push(reply, opt::DNS, &resolver.octets());
        }
        push(reply, opt::LEASE_TIME, &LEASE_SECONDS.to_be_bytes());
        if request.asks_for(opt::MTU) {
            push(reply, opt::MTU, &self.mtu.to_be_bytes());
        }
        if let Some(broadcast) = plan.broadcast().filter(|_| request.asks_for(opt::BROADCAST)) {
            push(reply, opt::BROADCAST, &broadcast.octets());
        }
        if let Some(domain) = self.search.first()
            && request.asks_for(opt::DOMAIN_NAME)
        {
            try_push(reply, opt::DOMAIN_NAME, domain.text().as_bytes());
        }
        if request.asks_for(opt::DOMAIN_SEARCH) {
            push_search_list(reply, &self.search);
        }
    }
}

/// The fields of a reply before its options, and its type.
fn begin_reply(
    request: &Request<'_>,
    kind: ReplyKind,
    address: Ipv4Addr,
    next_server: Ipv4Addr,
) -> Vec<u8> {
    let mut reply = Vec::with_capacity(FIXED_LEN + OPTIONS_LEN);
    reply.extend_from_slice(&[BOOT_REPLY, ETHERNET, ETHERNET_LEN, 0]);
    reply.extend_from_slice(&request.xid);
    // Seconds, flags and `ciaddr`.
    reply.extend_from_slice(&[0; 8]);
    reply.extend_from_slice(&address.octets());
    reply.extend_from_slice(&next_server.octets());
    // `giaddr`: there are no relay agents here.
    reply.extend_from_slice(&[0; 4]);
    reply.extend_from_slice(&request.client.0);
    // The rest of `chaddr`, then `sname` and `file`.
    reply.resize(FIXED_LEN, 0);
    reply.extend_from_slice(&MAGIC_COOKIE);
    push(&mut reply, opt::MESSAGE_TYPE, &[kind as u8]);
    reply
}

/// The IP packet around a reply from `gateway` to `address`.
fn datagram_to(
    address: Ipv4Addr,
    gateway: Ipv4Addr,
    reply: &[u8],
) -> Result<Vec<u8>, DiscardReason> {
    let mut packet = Vec::new();
    let (from, destination) = ((gateway, SERVER_PORT), (address, CLIENT_PORT));
    let service = TYPE_OF_SERVICE;
    emit_datagram(&mut packet, from.into(), destination.into(), HOP_LIMIT, service, reply)?;
    Ok(packet)
}

/// Adds as many search domains as there is room for.
fn push_search_list(reply: &mut Vec<u8>, search: &[SearchDomain]) {
    let list = encode_list(search, room(reply));
    if !list.is_empty() {
        try_push(reply, opt::DOMAIN_SEARCH, &list);
    }
}

/// Adds an option of a few bytes, for which there is always room.
fn push(reply: &mut Vec<u8>, number: u8, value: &[u8]) {
    let is_in = try_push(reply, number, value);
    debug_assert!(is_in, "the fixed options fit");
}

/// Adds an option if there is room for it.
fn try_push(reply: &mut Vec<u8>, number: u8, value: &[u8]) -> bool {
    let Some(len) = u8::try_from(value.len()).ok().filter(|_| value.len() <= room(reply)) else {
        return false;
    };
    reply.extend_from_slice(&[number, len]);
    reply.extend_from_slice(value);
    true
}

/// Bytes that the next option's value may have: its own header and the end option come with it.
fn room(reply: &[u8]) -> usize {
    (FIXED_LEN + OPTIONS_LEN).saturating_sub(reply.len() + 3).min(usize::from(u8::MAX))
}
