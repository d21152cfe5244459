//! The server that has one address for every client, and gives it for ever, as pasta(1) does.
//!
//! Owns the choice between offer and acknowledgement, and the options of both. Reading requests is
//! left to `message`, the fixed fields to the server of the pool.
//!
//! | request | reply |
//! | --- | --- |
//! | DISCOVER | OFFER; ACK with rapid commit (RFC 4039) |
//! | REQUEST or BOOTP | ACK, whatever address it asks for |
//! | any other; REQUEST to another server | no reply |
//!
//! An option that the client asks for comes where its list has it, the others behind. Where not all
//! of them fit, names and the search list are left out first. A reply goes to the address that it
//! gives, unless the client wants it broadcast (RFC 2131 section 4.1). Where the gateway lies
//! outside the guest's network, classless routes (RFC 3442) lead to it.
//!
//! We differ from RFC 2131 in never refusing an address: there is only one to be had.

use core::net::Ipv4Addr;

use super::message::{ReplyKind, Request, RequestKind, option as opt};
use super::{DhcpOutcome, begin_reply, datagram_to, push, room, try_push};
use crate::config::Told;
use crate::discard::DiscardReason;
use crate::mac::MacAddr;
use crate::plan::Family;
use crate::service::search_domain::{SearchDomain, encode_list};

/// A lease without an end (RFC 2131 section 3.3).
const FOR_EVER: u32 = u32::MAX;
/// Length of a BOOTP message, the least that clients take (RFC 951 section 3, RFC 2131 section 2).
const LEAST_LEN: usize = 300;
/// Position of the flags in a message.
const FLAGS_AT: usize = 10;
const BROADCAST: u8 = 0x80;

/// Flags of option 81 (RFC 4702 section 2.1): the client asks us to update its address record.
const FQDN_UPDATE: u8 = 0x01;
/// We do not do what the client has asked for.
const FQDN_OVERRIDE: u8 = 0x02;
/// The name comes as labels.
const FQDN_LABELS: u8 = 0x04;
/// We update no record.
const FQDN_NO_UPDATE: u8 = 0x08;
/// What servers write into the obsolete fields for result codes (RFC 4702 section 2.2).
const FQDN_NO_CODE: u8 = 255;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct SingleLease {
    told: Told,
    fqdn: Option<SearchDomain>,
    search: Vec<SearchDomain>,
}

impl SingleLease {
    pub(super) fn new(told: &Told, search: Vec<SearchDomain>) -> Self {
        let fqdn = told.fqdn.as_deref().and_then(SearchDomain::new);
        Self { told: told.clone(), fqdn, search }
    }

    /// Answers a request that is for us, as `gateway`.
    ///
    /// # Errors
    /// [`DiscardReason::DhcpNotAnswered`].
    pub(super) fn answer(
        &self,
        plan: &Family<Ipv4Addr>,
        gateway: Ipv4Addr,
        request: &Request<'_>,
    ) -> Result<DhcpOutcome, DiscardReason> {
        let is_rapid = request.kind == RequestKind::Discover && request.is_rapid;
        let kind = match request.kind {
            RequestKind::Discover if !is_rapid => ReplyKind::Offer,
            RequestKind::Discover | RequestKind::Request => ReplyKind::Ack,
            RequestKind::Other => return Err(DiscardReason::DhcpNotAnswered),
        };
        tracing::debug!(client = %request.client, address = %plan.guest, ?kind, "dhcp");
        let mut reply = begin_reply(request, kind, plan.guest, gateway);
        if request.wants_broadcast {
            reply[FLAGS_AT] = BROADCAST;
        }
        if is_rapid {
            push(&mut reply, opt::RAPID_COMMIT, &[]);
        }
        self.push_options(&mut reply, plan, gateway, request);
        reply.push(opt::END);
        if reply.len() < LEAST_LEN {
            reply.resize(LEAST_LEN, opt::PAD);
        }
        let (address, to) = if request.wants_broadcast {
            (Ipv4Addr::BROADCAST, MacAddr::BROADCAST)
        } else {
            (plan.guest, request.client)
        };
        let leased = (kind == ReplyKind::Ack).then_some((plan.guest, request.client));
        Ok(DhcpOutcome { packet: datagram_to(address, gateway, &reply)?, to, leased })
    }

    fn push_options(
        &self,
        reply: &mut Vec<u8>,
        plan: &Family<Ipv4Addr>,
        gateway: Ipv4Addr,
        request: &Request<'_>,
    ) {
        let mut options = self.options(plan, gateway, request);
        // What fits does not depend on the client's order, which may have names before the lease.
        let mut trial = reply.clone();
        options.retain(|(number, value)| try_push(&mut trial, *number, value));
        let search = encode_list(&self.search, room(&trial));
        if !search.is_empty() {
            options.push((opt::DOMAIN_SEARCH, search));
        }
        let place = |number: u8| request.parameters().iter().position(|&asked| asked == number);
        // Stable: what the client does not ask for stays in order.
        options.sort_by_key(|&(number, _)| place(number).unwrap_or(usize::MAX));
        for (number, value) in options {
            push(reply, number, &value);
        }
    }

    /// Every option but the type of the reply and the search list, the most important first.
    fn options(
        &self,
        plan: &Family<Ipv4Addr>,
        gateway: Ipv4Addr,
        request: &Request<'_>,
    ) -> Vec<(u8, Vec<u8>)> {
        let router = gateway.octets();
        let mut options = vec![
            (opt::SUBNET_MASK, plan.netmask().octets().to_vec()),
            (opt::ROUTER, router.to_vec()),
            (opt::LEASE_TIME, FOR_EVER.to_be_bytes().to_vec()),
            (opt::SERVER_ID, router.to_vec()),
        ];
        if !plan.contains(gateway) {
            // The gateway itself is on the link; everything else is behind it.
            let on_link: &[u8] = &[32];
            let routes = [on_link, &router, &[0; 4], &[0], &router].concat();
            options.push((opt::CLASSLESS_ROUTES, routes));
        }
        if let Some(mtu) = self.told.mtu {
            options.push((opt::MTU, mtu.to_be_bytes().to_vec()));
        }
        let dns: Vec<u8> = self.told.dns4().flat_map(|resolver| resolver.octets()).collect();
        if !dns.is_empty() {
            options.push((opt::DNS, dns));
        }
        if let Some(name) = &self.told.host_name {
            options.push((opt::HOST_NAME, name.clone().into_bytes()));
        }
        if let Some(name) = &self.fqdn
            && (request.fqdn_flags.is_some() || request.asks_for(opt::FQDN))
        {
            let wants_update = request.fqdn_flags.is_some_and(|flags| flags & FQDN_UPDATE != 0);
            let overridden = if wants_update { FQDN_OVERRIDE } else { 0 };
            let flags = FQDN_LABELS | FQDN_NO_UPDATE | overridden;
            let head = [flags, FQDN_NO_CODE, FQDN_NO_CODE];
            options.push((opt::FQDN, [&head, name.labels()].concat()));
        }
        options
    }
}
