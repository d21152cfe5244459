//! What a guest needs of its link: ARP, neighbour discovery, router advertisements, DHCP, DHCPv6,
//! TFTP, and the place of every guest address.
//!
//! Owns which packets these are, their answers, the addresses that guests were heard at, and what
//! waits for a guest that has not been heard yet ([`inquiries`]). Owns no flow: where a flow is
//! concerned, the answer is a value ([`Outcome`], [`Found`]) for the [`Stack`](super::Stack) to act
//! on. The protocols themselves are in [`service`](crate::service).
//!
//! The services come before policy: a guest gets its address whatever it may reach, and its
//! requests never go to a server of the host, which would answer for another network.

mod inquiries;

use core::net::{IpAddr, SocketAddr};

use super::outbox::{Outbox, UdpToGuest};
use crate::config::{Personality, StackConfig};
use crate::discard::{DiscardCounters, DiscardReason};
use crate::event::FlowId;
use crate::flow::GuestSide;
use crate::mac::MacAddr;
use crate::member::{Member, MemberId};
use crate::plan::AddressPlan;
use crate::service::arp::{self, ARP_FRAME_LEN, handle_arp};
use crate::service::dhcp::DhcpServer;
use crate::service::dhcpv6::Dhcpv6Server;
use crate::service::ndp::{self, NdpPacket, handle_ndp};
use crate::service::neighbor::NeighborTable;
use crate::service::router_advertisement::RouterAdvertiser;
use crate::service::tftp::{TFTP_PORT, handle_tftp};
use crate::share::Holder;
use crate::switch::Released;
use crate::time::Instant;

use inquiries::Inquiries;
#[cfg(test)]
pub(super) use inquiries::{ASK_INTERVAL, HELD_CAP};
pub(super) use inquiries::{Found, HeldDatagram};

/// A service of the link that is spoken to over UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LinkService {
    Dhcp,
    Dhcpv6,
    Tftp,
}

/// What a packet for the link led to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// A guest address, and where it is. To be acted on before the answer leaves.
    pub(super) learned: Option<(IpAddr, MacAddr)>,
    pub(super) answer: Option<Answer>,
}

/// A packet to the guest.
#[derive(Debug)]
pub(super) enum Answer {
    Arp([u8; ARP_FRAME_LEN]),
    Ndp(NdpPacket),
    /// An IP packet.
    Packet {
        packet: Vec<u8>,
        to: MacAddr,
    },
    Udp(UdpToGuest<'static>),
}

impl Answer {
    /// Puts the packet into `outbox`.
    ///
    /// # Errors
    /// Why it does not fit.
    pub(super) fn send(&self, outbox: &mut Outbox) -> Result<(), DiscardReason> {
        match self {
            Self::Arp(frame) => outbox.push_frame(frame),
            Self::Ndp(ndp) => outbox.push_ndp(ndp),
            Self::Packet { packet, to } => outbox.push_packet(packet, *to),
            Self::Udp(udp) => outbox.push_udp(*udp),
        }
    }
}

/// See the [module](self).
pub(super) struct LinkServices {
    plan: AddressPlan,
    is_ndp_silent: bool,
    has_tftp: bool,
    neighbors: NeighborTable,
    /// Where the guest's last packet came from, if the guest is alone on the link.
    last_heard: Option<MacAddr>,
    inquiries: Inquiries,
    dhcp: DhcpServer,
    dhcpv6: Dhcpv6Server,
    /// None without IPv6.
    advertiser: Option<RouterAdvertiser>,
}

impl LinkServices {
    /// The services for the plan, policy and search domains of `config`; the jitter of router
    /// advertisements follows from `seed`.
    pub(super) fn new(config: &StackConfig, seed: u64) -> Self {
        Self {
            plan: config.plan,
            is_ndp_silent: config.silence.ndp,
            has_tftp: config.personality == Personality::Pool,
            neighbors: NeighborTable::new(config.is_shared),
            last_heard: None,
            inquiries: Inquiries::new(config.is_shared),
            dhcp: DhcpServer::new(config),
            dhcpv6: Dhcpv6Server::new(config),
            advertiser: RouterAdvertiser::new(config, seed, Instant::ZERO),
        }
    }

    /// Answers by the plan of `config` from now on. A guest that listens to router advertisements
    /// is told at once.
    pub(super) fn adopt_plan(&mut self, config: &StackConfig, now: Instant) {
        self.plan = config.plan;
        self.dhcp = DhcpServer::new(config);
        self.dhcpv6 = Dhcpv6Server::new(config);
        if let Some(advertiser) = &mut self.advertiser {
            advertiser.adopt_plan(config, now);
        }
    }

    /// A frame that carries ARP.
    ///
    /// # Errors
    /// Why it was discarded.
    pub(super) fn handle_arp(&self, frame: &[u8]) -> Result<Outcome, DiscardReason> {
        let outcome = handle_arp(&self.plan, frame)?;
        let reply = outcome.reply.filter(|reply| {
            let (target, (asker, mac)) = arp::answered(reply);
            !self.is_guests(target.into(), asker.is_unspecified(), mac)
        });
        Ok(Outcome {
            learned: outcome.learned.map(|(address, mac)| (IpAddr::V4(address), mac)),
            answer: reply.map(Answer::Arp),
        })
    }

    /// Whether `address`, which the station at `mac` asks for, was heard from a guest, which then
    /// answers itself. A station that asks for an address of its own has given it up, unless this
    /// `is_probe` for conflicts.
    fn is_guests(&self, address: IpAddr, is_probe: bool, mac: MacAddr) -> bool {
        self.neighbors.lookup(address).is_some_and(|owner| is_probe || owner != mac)
    }

    /// A neighbour discovery packet whose frame came from `mac`. A router solicitation moves
    /// [`advertise_at`](Self::advertise_at).
    ///
    /// # Errors
    /// Why it was discarded.
    pub(super) fn handle_ndp(
        &mut self,
        mac: MacAddr,
        packet: &[u8],
        now: Instant,
    ) -> Result<Outcome, DiscardReason> {
        let outcome = handle_ndp(&self.plan, mac, packet)?;
        let is_for_us = |reply: &NdpPacket| {
            let is_guests = ndp::answered(reply)
                .is_some_and(|target| self.is_guests(target.into(), false, reply.destination_mac));
            !is_guests && !self.is_ndp_silent
        };
        let mut reply = outcome.reply.filter(is_for_us);
        if outcome.advertise
            && let Some(advertiser) = &mut self.advertiser
        {
            advertiser.handle_solicitation(now);
            reply = reply.or_else(|| advertiser.handle_timeout(now));
        }
        Ok(Outcome {
            learned: outcome.learned.map(|(address, mac)| (IpAddr::V6(address), mac)),
            answer: reply.map(Answer::Ndp),
        })
    }

    /// The service that datagrams to `destination` are for, if any.
    pub(super) fn service_at(&self, destination: SocketAddr) -> Option<LinkService> {
        if self.dhcp.is_for_us(destination) {
            return Some(LinkService::Dhcp);
        }
        if self.dhcpv6.is_for_us(destination) {
            return Some(LinkService::Dhcpv6);
        }
        let is_tftp = self.has_tftp
            && destination.port() == TFTP_PORT
            && self.plan.is_router(destination.ip());
        is_tftp.then_some(LinkService::Tftp)
    }

    /// A datagram with `payload` that `guest` sent to `service` at `server`. DHCP alone can be
    /// spoken to without an address.
    ///
    /// # Errors
    /// Why it was discarded.
    pub(super) fn handle_datagram(
        &mut self,
        service: LinkService,
        guest: GuestSide,
        server: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> Result<Outcome, DiscardReason> {
        if guest.address.ip().is_unspecified() && service != LinkService::Dhcp {
            return Err(DiscardReason::SourceAddressInvalid);
        }
        let mut learned = None;
        let answer = match service {
            LinkService::Dhcp => {
                let outcome = self.dhcp.handle_message(guest.mac, payload, now)?;
                learned = outcome.leased.map(|(address, client)| (IpAddr::V4(address), client));
                // On a shared network the reply goes to its member alone.
                let to = if self.dhcp.has_reservations() { guest.mac } else { outcome.to };
                Answer::Packet { packet: outcome.packet, to }
            }
            LinkService::Dhcpv6 => {
                let packet = self.dhcpv6.handle_message(guest.address, server, payload)?;
                Answer::Packet { packet, to: guest.mac }
            }
            LinkService::Tftp => Answer::Udp(UdpToGuest {
                from: server,
                to: guest.address,
                mac: guest.mac,
                payload: handle_tftp(payload)?,
                segment_len: None,
                traffic_class: 0,
            }),
        };
        Ok(Outcome { learned, answer: Some(answer) })
    }

    /// Notes that `address`, which counts for `holder`, is at `mac`. Returns what has waited for
    /// that.
    pub(super) fn learn(&mut self, address: IpAddr, mac: MacAddr, holder: Holder) -> Found {
        self.neighbors.learn(address, mac, holder);
        self.inquiries.found(address)
    }

    /// A packet has come from the station at `mac`.
    pub(super) fn note(&mut self, mac: MacAddr) {
        if self.plan.answers_for_everyone_else() {
            self.last_heard = Some(mac);
        }
    }

    /// Where `guest`, or the guest that is its router, was heard last. That guest may have given
    /// its address up, and then does not answer for it.
    pub(super) fn mac_of(&self, guest: IpAddr) -> Option<MacAddr> {
        let hop = self.plan.next_hop(guest);
        let heard = self.neighbors.lookup(guest).or_else(|| self.neighbors.lookup(hop));
        heard.or(self.last_heard.filter(|_| hop != guest))
    }

    /// The address that is asked for in order to find `guest`.
    fn hop(&self, guest: IpAddr) -> IpAddr {
        let is_heard = self.neighbors.lookup(guest).is_some();
        if is_heard { guest } else { self.plan.next_hop(guest) }
    }

    /// A packet is about to go to `guest`. Asks for it again if it was not heard for long.
    ///
    /// # Errors
    /// Why the question does not fit into `outbox`.
    pub(super) fn note_use(
        &mut self,
        guest: IpAddr,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DiscardReason> {
        let guest = self.hop(guest);
        if self.neighbors.is_doubtful(guest, now) { self.ask_for(guest, outbox) } else { Ok(()) }
    }

    /// Whether something for `guest`, which counts for `holder`, may wait.
    ///
    /// # Errors
    /// [`DiscardReason::GuestQueueFull`].
    pub(super) fn check_waiting(&self, guest: IpAddr, holder: Holder) -> Result<(), DiscardReason> {
        self.inquiries.check(self.hop(guest), holder)
    }

    /// Asks for `guest` until `flow`, a connection of a remote, is answered. Returns where the
    /// guest is if that is known; otherwise [`learn`](Self::learn) names the flow once it is.
    /// [`check_waiting`](Self::check_waiting) has said that it may.
    ///
    /// # Errors
    /// Why the question does not fit into `outbox`. It is repeated.
    pub(super) fn wait_for(
        &mut self,
        guest: IpAddr,
        holder: Holder,
        flow: FlowId,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<Option<MacAddr>, DiscardReason> {
        let mac = self.mac_of(guest);
        let guest = self.hop(guest);
        self.inquiries.add_flow(guest, holder, flow, mac.is_some(), now);
        if mac.is_none() {
            self.ask_for(guest, outbox)?;
        }
        Ok(mac)
    }

    /// Keeps a datagram of `flow` until its guest, which counts for `holder`, is found.
    ///
    /// # Errors
    /// Why it cannot wait, or why the question for the guest does not fit into `outbox`.
    pub(super) fn hold(
        &mut self,
        flow: FlowId,
        holder: Holder,
        udp: UdpToGuest<'_>,
        outbox: &mut Outbox,
        discards: &mut DiscardCounters,
        now: Instant,
    ) -> Result<(), DiscardReason> {
        let guest = self.hop(udp.to.ip());
        let is_asked = self.inquiries.is_asked(guest);
        if let Some(reason) = self.inquiries.hold(flow, guest, holder, udp, now)? {
            discards.count(reason);
        }
        if is_asked { Ok(()) } else { self.ask_for(guest, outbox) }
    }

    fn ask_for(&self, guest: IpAddr, outbox: &mut Outbox) -> Result<(), DiscardReason> {
        match guest {
            IpAddr::V4(v4) => outbox.push_frame(&arp::who_has(&self.plan, v4)),
            IpAddr::V6(v6) => match ndp::solicitation(&self.plan, v6) {
                Some(solicitation) => outbox.push_ndp(&solicitation),
                None => Ok(()),
            },
        }
    }

    /// When [`handle_inquiry_timeout`](Self::handle_inquiry_timeout) is due.
    pub(super) const fn ask_at(&self) -> Option<Instant> {
        self.inquiries.ask_at()
    }

    /// Asks again for guests that something waits for. Gives up datagrams that have waited too
    /// long, and flows for which `is_waiting` is false.
    pub(super) fn handle_inquiry_timeout(
        &mut self,
        is_waiting: impl Fn(FlowId) -> bool,
        outbox: &mut Outbox,
        discards: &mut DiscardCounters,
        now: Instant,
    ) {
        for _ in 0..self.inquiries.expire(now) {
            discards.count(DiscardReason::GuestNotFound);
        }
        for guest in self.inquiries.review(is_waiting, now) {
            discards.note(self.ask_for(guest, outbox));
        }
    }

    /// When [`handle_advertiser_timeout`](Self::handle_advertiser_timeout) is due.
    pub(super) fn advertise_at(&self) -> Option<Instant> {
        self.advertiser.as_ref().map(RouterAdvertiser::poll_timeout)
    }

    /// Sends the router advertisement that is due at `now`, if one is.
    ///
    /// # Errors
    /// Why it does not fit into `outbox`.
    pub(super) fn handle_advertiser_timeout(
        &mut self,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DiscardReason> {
        let advertiser = self.advertiser.as_mut();
        let due = advertiser.and_then(|advertiser| advertiser.handle_timeout(now));
        due.map_or(Ok(()), |ndp| outbox.push_ndp(&ndp))
    }

    /// Gives a `member` of a shared network its address, and takes it for heard.
    pub(super) fn add_member(&mut self, id: MemberId, member: &Member) {
        self.dhcp.reserve(member.mac, member.address);
        for address in member.addresses() {
            self.neighbors.learn(address, member.mac, Some(id));
        }
    }

    /// Takes the reservation of a `member` back.
    pub(super) fn remove_member(&mut self, member: &Member) {
        self.dhcp.release(member.mac);
    }

    /// Forgets where `released` addresses are, and what is at `released` MAC addresses.
    pub(super) fn forget(&mut self, released: &Released) {
        self.neighbors.forget(|address, mac| {
            released.macs.contains(&mac) || released.addresses.contains(&address)
        });
    }
}

#[cfg(test)]
mod tests;
