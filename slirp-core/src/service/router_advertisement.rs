//! The router's advertisements (RFC 4861 section 6.2, RFC 8106).
//!
//! Owns their content and their schedule. The solicitation that asks for one is recognised in
//! [`ndp`](super::ndp).

use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;

use super::ndp::{
    ALL_NODES, NdpPacket, SOURCE_LINK_LAYER, icmpv6_packet, multicast_mac, push_link_layer,
};
use super::search_domain::{SearchDomain, encode_list};
use crate::config::StackConfig;
use crate::plan::{AddressPlan, Family};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::icmp::ROUTER_ADVERTISEMENT;

/// Least time between two multicast advertisements (`MIN_DELAY_BETWEEN_RAS`, RFC 4861 section 10).
pub(crate) const MIN_DELAY: Duration = Duration::from_secs(3);
/// Least time between unsolicited advertisements (`MinRtrAdvInterval`, RFC 4861 section 6.2.1).
pub(crate) const MIN_INTERVAL: Duration = Duration::from_secs(200);
/// Most time between unsolicited advertisements (`MaxRtrAdvInterval`, RFC 4861 section 6.2.1).
pub(crate) const MAX_INTERVAL: Duration = Duration::from_secs(600);

const CURRENT_HOP_LIMIT: u8 = 64;
/// Seconds for which we are a default router (`AdvDefaultLifetime`: three intervals).
const ROUTER_LIFETIME: u16 = 1800;
/// Seconds for which the prefix is valid; libslirp's value.
const PREFIX_VALID: u32 = 86_400;
/// Seconds for which the prefix is preferred; libslirp's value.
const PREFIX_PREFERRED: u32 = 14_400;
/// Seconds for which the DNS address and search domains may be used: three intervals (RFC 8106
/// sections 5.1 and 5.2).
const DNS_LIFETIME: u32 = 1800;
/// On-link and autonomous configuration.
const PREFIX_FLAGS: u8 = 0xc0;
/// Least MTU of an IPv6 link; hosts ignore an option that says less (RFC 4861 section 6.3.4).
const IPV6_MIN_MTU: u16 = 1280;
/// Bytes of search domains that are sent: with everything else they fit into the smallest MTU of
/// IPv6 with room to spare.
const SEARCH_CAP: usize = 1024;

/// When the next advertisement is due.
#[derive(Debug)]
pub(crate) struct RouterAdvertiser {
    rng: Rng,
    next_at: Instant,
    sent_at: Option<Instant>,
    content: Content,
}

/// What is advertised.
#[derive(Clone, Debug)]
struct Content {
    plan: Family<Ipv6Addr>,
    /// Our link-local address.
    source: Ipv6Addr,
    mtu: u16,
    announces_dns: bool,
    search: Vec<SearchDomain>,
}

impl RouterAdvertiser {
    /// A schedule that starts at `now`, for the plan, MTU, DNS policy and search domains of
    /// `config`; its jitter follows from `seed`. `None` where the plan has no link-local
    /// address that they could come from.
    pub(crate) fn new(config: &StackConfig, seed: u64, now: Instant) -> Option<Self> {
        let plan = *config.plan.ipv6()?;
        let content = Content {
            plan,
            source: plan.link_local?,
            mtu: config.mtu,
            announces_dns: config.policy.dns_service,
            search: SearchDomain::list(&config.search_domains),
        };
        let mut advertiser = Self { rng: Rng::new(seed), next_at: now, sent_at: None, content };
        advertiser.next_at = now + advertiser.interval();
        Some(advertiser)
    }

    /// A guest asks. The first solicitation is answered at once, because the guest waits for it; a
    /// multicast answer serves every guest that asks within [`MIN_DELAY`] (RFC 4861 section 6.2.6).
    ///
    /// We differ in leaving out the random delay of up to 0.5 s before an answer: it spreads the
    /// answers of several routers, and we are the only one.
    pub(crate) fn handle_solicitation(&mut self, now: Instant) {
        let allowed_at = self.sent_at.map_or(now, |sent_at| (sent_at + MIN_DELAY).max(now));
        self.next_at = self.next_at.min(allowed_at);
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub(crate) const fn poll_timeout(&self) -> Instant {
        self.next_at
    }

    /// The advertisement, when one is due at `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<NdpPacket> {
        if now < self.next_at {
            return None;
        }
        self.sent_at = Some(now);
        self.next_at = now + self.interval();
        Some(advertisement(&self.content))
    }

    fn interval(&mut self) -> Duration {
        let spread = (MAX_INTERVAL - MIN_INTERVAL).as_secs() + 1;
        MIN_INTERVAL + Duration::from_secs(self.rng.next_u64() % spread)
    }
}

/// The advertisement to all nodes. The MTU option is left out where hosts would ignore it.
fn advertisement(content: &Content) -> NdpPacket {
    let Content { plan, source, mtu, announces_dns, search } = content;
    let source_mac = AddressPlan::mac_of(IpAddr::V6(*source));
    let mut icmp = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, CURRENT_HOP_LIMIT, 0];
    icmp.extend_from_slice(&ROUTER_LIFETIME.to_be_bytes());
    // Reachable time and retransmission timer: unspecified.
    icmp.extend_from_slice(&[0; 8]);
    push_link_layer(&mut icmp, SOURCE_LINK_LAYER, source_mac);
    if *mtu >= IPV6_MIN_MTU {
        icmp.extend_from_slice(&[5, 1, 0, 0]);
        icmp.extend_from_slice(&u32::from(*mtu).to_be_bytes());
    }
    icmp.extend_from_slice(&[3, 4, plan.prefix_len, PREFIX_FLAGS]);
    icmp.extend_from_slice(&PREFIX_VALID.to_be_bytes());
    icmp.extend_from_slice(&PREFIX_PREFERRED.to_be_bytes());
    icmp.extend_from_slice(&[0; 4]);
    icmp.extend_from_slice(&plan.network().octets());
    if let Some(resolver) = plan.resolver().filter(|_| *announces_dns) {
        icmp.extend_from_slice(&[25, 3, 0, 0]);
        icmp.extend_from_slice(&DNS_LIFETIME.to_be_bytes());
        icmp.extend_from_slice(&resolver.octets());
    }
    push_search_list(&mut icmp, search);
    NdpPacket {
        destination_mac: multicast_mac(ALL_NODES),
        source_mac,
        packet: icmpv6_packet(*source, ALL_NODES, &icmp),
    }
}

/// Appends the search domains, if there are any (RFC 8106 section 5.2).
fn push_search_list(icmp: &mut Vec<u8>, search: &[SearchDomain]) {
    let mut list = encode_list(search, SEARCH_CAP);
    list.resize(list.len().next_multiple_of(8), 0);
    let Some(units) = u8::try_from(list.len() / 8).ok().filter(|&units| units > 0) else { return };
    icmp.extend_from_slice(&[31, 1 + units, 0, 0]);
    icmp.extend_from_slice(&DNS_LIFETIME.to_be_bytes());
    icmp.extend_from_slice(&list);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::MacAddr;
    use crate::plan::{Ipv6Plan, SlirpNetwork};
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, Ipv6Packet, NdiscRepr};

    fn plan() -> AddressPlan {
        SlirpNetwork::default().with_ipv6(Ipv6Plan::default()).into()
    }

    fn content(mtu: u16, announces_dns: bool, search: &[&str]) -> Content {
        let search = SearchDomain::list(search);
        let plan = *plan().ipv6().unwrap();
        Content { plan, source: plan.link_local.unwrap(), mtu, announces_dns, search }
    }

    fn advertiser(seed: u64, now: Instant) -> RouterAdvertiser {
        let config = StackConfig { plan: plan(), ..StackConfig::default() };
        RouterAdvertiser::new(&config, seed, now).unwrap()
    }

    #[test]
    fn without_ipv6_there_is_nothing_to_advertise() {
        let advertiser = RouterAdvertiser::new(&StackConfig::default(), 1, Instant::ZERO);
        assert!(advertiser.is_none());
    }

    #[test]
    fn advertisement_says_what_the_guest_needs() {
        let sent = advertisement(&content(1500, true, &[]));
        assert_eq!(sent.destination_mac, MacAddr([0x33, 0x33, 0, 0, 0, 1]));
        assert_eq!(sent.source_mac, MacAddr([0x52, 0x56, 0, 0, 0, 2]));
        let ip = Ipv6Packet::new_checked(&sent.packet[..]).unwrap();
        assert_eq!((ip.src_addr(), ip.dst_addr()), (Ipv6Plan::GATEWAY_LINK_LOCAL, ALL_NODES));
        assert_eq!(ip.hop_limit(), 255);
        let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        let caps = ChecksumCapabilities::default();
        let repr = Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &caps).unwrap();
        let Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
            hop_limit,
            flags,
            router_lifetime,
            lladdr,
            mtu,
            prefix_info,
            ..
        }) = repr
        else {
            panic!("{repr:?}");
        };
        assert_eq!(hop_limit, 64);
        assert!(flags.is_empty());
        assert_eq!(router_lifetime.secs(), 1800);
        assert!(lladdr.is_some());
        assert_eq!(mtu, Some(1500));
        let prefix = prefix_info.unwrap();
        assert_eq!(prefix.prefix, Ipv6Plan::default().prefix());
        assert_eq!(prefix.prefix_len, 64);
        assert_eq!(prefix.flags.bits(), 0xc0);
        assert_eq!(prefix.valid_lifetime.secs(), 86_400);
        assert_eq!(prefix.preferred_lifetime.secs(), 14_400);
        let dns = Ipv6Plan::default().dns().octets();
        assert_eq!(sent.packet[sent.packet.len() - 24..][..8], [25, 3, 0, 0, 0, 0, 7, 8]);
        assert_eq!(sent.packet[sent.packet.len() - 16..], dns);
    }

    #[test]
    fn options_without_a_use_are_left_out() {
        let len = |mtu, dns| advertisement(&content(mtu, dns, &[])).packet.len();
        let full = len(1280, true);
        assert_eq!(len(1279, true), full - 8);
        assert_eq!(len(1280, false), full - 24);
    }

    #[test]
    fn search_domains_come_padded_to_eight_bytes() {
        let plain = advertisement(&content(1500, true, &[])).packet;
        for (search, option) in [
            (&["example.org"][..], &b"\x1f\x03\0\0\0\0\x07\x08\x07example\x03org\0\0\0\0"[..]),
            (&["a.bcde"], b"\x1f\x02\0\0\0\0\x07\x08\x01a\x04bcde\0"),
            (&["a.b", "c.de"], b"\x1f\x03\0\0\0\0\x07\x08\x01a\x01b\0\x01c\x02de\0\0\0\0\0\0"),
        ] {
            let sent = advertisement(&content(1500, true, search)).packet;
            assert_eq!(sent[plain.len()..], *option, "{search:?}");
        }
    }

    #[test]
    fn any_number_of_search_domains_fits_into_the_smallest_mtu() {
        let many = vec!["example.org"; 500];
        let sent = advertisement(&content(1500, true, &many)).packet;
        assert!((1100..1280).contains(&sent.len()), "{}", sent.len());
        let ip = Ipv6Packet::new_checked(&sent[..]).unwrap();
        assert_eq!(usize::from(ip.payload_len()) + 40, sent.len());
    }

    #[test]
    fn first_solicitation_is_answered_at_once_and_the_next_after_three_seconds() {
        let now = Instant::from_micros(7);
        let mut advertiser = advertiser(1, now);
        assert_eq!(advertiser.handle_timeout(now), None);
        advertiser.handle_solicitation(now);
        assert_eq!(advertiser.poll_timeout(), now);
        assert!(advertiser.handle_timeout(now).is_some());
        for micros in [8, 9, 10] {
            advertiser.handle_solicitation(Instant::from_micros(micros));
            assert_eq!(advertiser.poll_timeout(), now + MIN_DELAY);
        }
        assert_eq!(advertiser.handle_timeout(now), None);
        assert!(advertiser.handle_timeout(now + MIN_DELAY).is_some());
    }

    #[test]
    fn unsolicited_advertisements_keep_their_interval() {
        let mut advertiser = advertiser(42, Instant::ZERO);
        let mut last = Instant::ZERO;
        for _ in 0..1000 {
            let at = advertiser.poll_timeout();
            let interval = at.saturating_since(last);
            assert!((MIN_INTERVAL..=MAX_INTERVAL).contains(&interval), "{interval:?}");
            assert!(advertiser.handle_timeout(at).is_some());
            last = at;
        }
    }
}
