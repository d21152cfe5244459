//! The router's advertisements (RFC 4861 section 6.2, RFC 8106).
//!
//! Owns their content and their schedule. The solicitation that asks for one is recognised in
//! [`ndp`](super::ndp).

use core::net::Ipv6Addr;
use core::time::Duration;

use super::ndp::{
    ALL_NODES, NdpPacket, SOURCE_LINK_LAYER, icmpv6_packet, multicast_mac, push_link_layer,
};
use super::search_domain::{SearchDomain, encode_list};
use crate::config::{Personality, StackConfig};
use crate::mac::MacAddr;
use crate::plan::Family;
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
/// Seconds for which a prefix that was withdrawn stays valid: hosts do not believe less (RFC 4862
/// section 5.5.3).
const WITHDRAWN_VALID: u32 = 7200;
/// Most resolvers that are withdrawn (arbitrary: as many as are told).
const WITHDRAWN_DNS_CAP: usize = 3;
/// Seconds for which the DNS address and search domains may be used: three intervals (RFC 8106
/// sections 5.1 and 5.2).
const DNS_LIFETIME: u32 = 1800;
/// A lifetime without an end, in seconds (RFC 4861 section 4.6.2, RFC 8106 section 5.1).
const INFINITE: u32 = u32::MAX;
/// "Managed": addresses are available from DHCPv6 (RFC 4861 section 4.2).
const FLAG_MANAGED: u8 = 0x80;
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
    /// Our link-local address, and its MAC address.
    source: (Ipv6Addr, MacAddr),
    flags: u8,
    router_lifetime: u16,
    mtu: Option<u16>,
    /// Prefix, and the seconds for which it is valid and preferred.
    prefix: (Family<Ipv6Addr>, u32, u32),
    /// A prefix that the plan had before. Addresses in it are not to be used for anything new.
    withdrawn: Option<Family<Ipv6Addr>>,
    dns: Vec<Ipv6Addr>,
    dns_lifetime: u32,
    /// Resolvers that were advertised before, the last ones first. They are not to be asked any
    /// more.
    withdrawn_dns: Vec<Ipv6Addr>,
    search: Vec<SearchDomain>,
}

impl Content {
    /// `None` where the plan has no link-local address to advertise from.
    fn new(config: &StackConfig) -> Option<Self> {
        let plan = *config.plan.ipv6()?;
        let source = plan.link_local?;
        let common = Self {
            source: (source, config.plan.mac_for(source.into())),
            flags: 0,
            router_lifetime: ROUTER_LIFETIME,
            mtu: Some(config.mtu),
            prefix: (plan, PREFIX_VALID, PREFIX_PREFERRED),
            withdrawn: None,
            dns: Vec::new(),
            dns_lifetime: DNS_LIFETIME,
            withdrawn_dns: Vec::new(),
            search: SearchDomain::list(&config.search_domains),
        };
        let is_local = plan.guest.is_unicast_link_local();
        Some(match &config.personality {
            Personality::Pool => {
                let resolver = plan.resolver().filter(|_| config.policy.dns_service);
                Self { dns: resolver.into_iter().collect(), ..common }
            }
            Personality::Single(told) => Self {
                flags: if config.silence.dhcpv6 || is_local { 0 } else { FLAG_MANAGED },
                router_lifetime: if plan.gateway.is_some() { u16::MAX } else { 0 },
                mtu: told.mtu,
                // Guests make addresses in a /64 alone (RFC 4862 section 5.5.3).
                prefix: (Family { prefix_len: 64, ..plan }, INFINITE, INFINITE),
                dns: told.dns6().collect(),
                dns_lifetime: INFINITE,
                ..common
            },
        })
    }
}

impl RouterAdvertiser {
    /// A schedule that starts at `now`, for the plan and personality of `config`; its jitter
    /// follows from `seed`. `None` where the plan has no link-local address that advertisements
    /// could come from, or where the router is silent.
    pub(crate) fn new(config: &StackConfig, seed: u64, now: Instant) -> Option<Self> {
        let content = Content::new(config).filter(|_| !config.silence.router_advertisements)?;
        let mut advertiser = Self { rng: Rng::new(seed), next_at: now, sent_at: None, content };
        advertiser.next_at = now + advertiser.interval();
        Some(advertiser)
    }

    /// Advertises the plan of `config` from now on, as soon as that is allowed. The prefix of the
    /// plan before is withdrawn, unless it is link-local and so nothing to the guest. So are
    /// resolvers that were advertised before.
    pub(crate) fn adopt_plan(&mut self, config: &StackConfig, now: Instant) {
        let Some(content) = Content::new(config) else { return };
        let (before, after) = (self.content.prefix.0, content.prefix.0);
        let is_gone = |prefix: &Family<Ipv6Addr>| {
            prefix.network() != after.network() && !prefix.guest.is_unicast_link_local()
        };
        let withdrawn = Some(before).filter(is_gone);
        let withdrawn = withdrawn.or(self.content.withdrawn.filter(is_gone));
        let known = self.content.dns.iter().chain(&self.content.withdrawn_dns).copied();
        let withdrawn_dns = known.filter(|resolver| !content.dns.contains(resolver));
        let withdrawn_dns = withdrawn_dns.take(WITHDRAWN_DNS_CAP).collect();
        self.content = Content { withdrawn, withdrawn_dns, ..content };
        self.handle_solicitation(now);
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
    let (source, source_mac) = content.source;
    let mut icmp = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, CURRENT_HOP_LIMIT, content.flags];
    icmp.extend_from_slice(&content.router_lifetime.to_be_bytes());
    // Reachable time and retransmission timer: unspecified.
    icmp.extend_from_slice(&[0; 8]);
    push_link_layer(&mut icmp, SOURCE_LINK_LAYER, source_mac);
    if let Some(mtu) = content.mtu.filter(|&mtu| mtu >= IPV6_MIN_MTU) {
        icmp.extend_from_slice(&[5, 1, 0, 0]);
        icmp.extend_from_slice(&u32::from(mtu).to_be_bytes());
    }
    let (prefix, valid, preferred) = &content.prefix;
    // Hosts ignore the prefix of a plan that has no other address (RFC 4862 section 5.5.3).
    if !prefix.guest.is_unicast_link_local() {
        push_prefix(&mut icmp, prefix, *valid, *preferred);
    }
    if let Some(withdrawn) = &content.withdrawn {
        push_prefix(&mut icmp, withdrawn, WITHDRAWN_VALID, 0);
    }
    push_resolvers(&mut icmp, &content.dns, content.dns_lifetime);
    push_resolvers(&mut icmp, &content.withdrawn_dns, 0);
    push_search_list(&mut icmp, content);
    NdpPacket {
        destination_mac: multicast_mac(ALL_NODES),
        source_mac,
        packet: icmpv6_packet(source, ALL_NODES, &icmp),
    }
}

/// Appends a prefix, valid and preferred for so many seconds (RFC 4861 section 4.6.2).
fn push_prefix(icmp: &mut Vec<u8>, prefix: &Family<Ipv6Addr>, valid: u32, preferred: u32) {
    icmp.extend_from_slice(&[3, 4, prefix.prefix_len, PREFIX_FLAGS]);
    icmp.extend_from_slice(&valid.to_be_bytes());
    icmp.extend_from_slice(&preferred.to_be_bytes());
    icmp.extend_from_slice(&[0; 4]);
    icmp.extend_from_slice(&prefix.network().octets());
}

/// Appends the addresses of resolvers, if there are any, and the seconds for which they may be
/// asked (RFC 8106 section 5.1).
fn push_resolvers(icmp: &mut Vec<u8>, resolvers: &[Ipv6Addr], lifetime: u32) {
    let count = resolvers.len();
    let Some(units) = u8::try_from(1 + 2 * count).ok().filter(|_| count > 0) else { return };
    icmp.extend_from_slice(&[25, units, 0, 0]);
    icmp.extend_from_slice(&lifetime.to_be_bytes());
    for resolver in resolvers {
        icmp.extend_from_slice(&resolver.octets());
    }
}

/// Appends the search domains, if there are any (RFC 8106 section 5.2).
fn push_search_list(icmp: &mut Vec<u8>, content: &Content) {
    let mut list = encode_list(&content.search, SEARCH_CAP);
    list.resize(list.len().next_multiple_of(8), 0);
    let Some(units) = u8::try_from(list.len() / 8).ok().filter(|&units| units > 0) else { return };
    icmp.extend_from_slice(&[31, 1 + units, 0, 0]);
    icmp.extend_from_slice(&content.dns_lifetime.to_be_bytes());
    icmp.extend_from_slice(&list);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{AddressPlan, Ipv6Plan, SlirpNetwork};
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, Ipv6Packet, NdiscRepr};

    fn plan() -> AddressPlan {
        SlirpNetwork::default().with_ipv6(Ipv6Plan::default()).into()
    }

    fn content(mtu: u16, announces_dns: bool, search: &[&str]) -> Content {
        let search_domains = search.iter().map(|&domain| domain.to_owned()).collect();
        let mut config =
            StackConfig { plan: plan(), mtu, search_domains, ..StackConfig::default() };
        config.policy.dns_service = announces_dns;
        Content::new(&config).unwrap()
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
    fn advertisement_of_a_single_address_is_for_ever_and_points_to_dhcpv6() {
        use crate::config::Told;
        use crate::plan::{MIRROR_MAC, Mirrored, MirroredFamily};
        let guest = "2001:db8::77".parse().unwrap();
        let gateway = Some("fe80::1".parse().unwrap());
        let v6 = MirroredFamily { gateway, ..MirroredFamily::new(guest, 128) };
        let mirrored = Mirrored { ipv6: Some(v6), ..Mirrored::default() };
        let plan = AddressPlan::mirrored(&mirrored).unwrap();
        let mut told = Told { mtu: Some(65_520), ..Told::default() };
        told.dns = vec!["1.1.1.1".parse().unwrap(), "2001:db8::53".parse().unwrap()];
        let personality = Personality::Single(told);
        let mut config = StackConfig { plan, personality, ..StackConfig::default() };
        config.search_domains = vec!["a.bcde".to_owned()];
        let sent = advertisement(&Content::new(&config).unwrap());
        assert_eq!(sent.source_mac, MIRROR_MAC);
        let icmp = &sent.packet[40..];
        let expected: [&[u8]; 8] = [
            &[64, 0x80, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 1, 0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55],
            &[5, 1, 0, 0, 0, 0, 255, 240],
            &[3, 4, 64, 0xc0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0],
            &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[25, 3, 0, 0, 255, 255, 255, 255],
            &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53],
            b"\x1f\x02\0\0\xff\xff\xff\xff\x01a\x04bcde\0",
        ];
        assert_eq!(icmp[4..], expected.concat());

        config.silence.dhcpv6 = true;
        assert_eq!(advertisement(&Content::new(&config).unwrap()).packet[45], 0);
        config.silence.router_advertisements = true;
        assert!(RouterAdvertiser::new(&config, 1, Instant::ZERO).is_none());
    }

    #[test]
    fn prefix_of_the_plan_before_is_withdrawn() {
        use crate::plan::{Mirrored, MirroredFamily};
        let plan = |guest: &str| {
            let v6 = MirroredFamily::new(guest.parse().unwrap(), 64);
            AddressPlan::mirrored(&Mirrored { ipv6: Some(v6), ..Mirrored::default() }).unwrap()
        };
        // The preferred lifetime, and the last 16 bits of each prefix of 64 bits.
        let prefixes = |sent: &NdpPacket| -> Vec<([u8; 4], u8)> {
            let icmp = &sent.packet[40..];
            let places = (16..icmp.len().saturating_sub(31)).step_by(8);
            let options =
                places.map(|at| &icmp[at..at + 32]).filter(|option| option[..2] == [3, 4]);
            options.map(|option| (option[8..12].try_into().unwrap(), option[23])).collect()
        };
        let personality = Personality::Single(crate::config::Told::default());
        let mut config =
            StackConfig { plan: plan("fe80::9"), personality, ..StackConfig::default() };
        let now = Instant::ZERO;
        let mut advertiser = RouterAdvertiser::new(&config, 1, now).unwrap();
        let sent = advertisement(&advertiser.content);
        assert_eq!((prefixes(&sent), sent.packet[45]), (Vec::new(), 0), "nothing to be managed");
        let (ever, over) = ([255; 4], [0; 4]);
        for (seconds, guest, expected) in [
            (0, "2001:db8:0:1::9", vec![(ever, 1)]),
            (9, "2001:db8:0:2::9", vec![(ever, 2), (over, 1)]),
            (18, "2001:db8:0:2::8", vec![(ever, 2), (over, 1)]),
            (27, "2001:db8:0:1::9", vec![(ever, 1), (over, 2)]),
        ] {
            config.plan = plan(guest);
            let now = now + Duration::from_secs(seconds);
            advertiser.adopt_plan(&config, now);
            let sent = advertiser.handle_timeout(now).expect("it is told at once");
            assert_eq!(prefixes(&sent), expected, "{guest}");
        }
    }

    #[test]
    fn resolvers_that_were_told_before_are_withdrawn() {
        use crate::config::Told;
        use crate::plan::{Mirrored, MirroredFamily};
        let v6 = Some(MirroredFamily::new("2001:db8::9".parse().unwrap(), 64));
        let plan = AddressPlan::mirrored(&Mirrored { ipv6: v6, ..Mirrored::default() }).unwrap();
        let config = |dns: &[u16]| {
            let address = |&last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into();
            let told = Told { dns: dns.iter().map(address).collect(), ..Told::default() };
            let personality = Personality::Single(told);
            StackConfig { plan, personality, ..StackConfig::default() }
        };
        let option = |lifetime: u32, dns: &[u8]| {
            let units = u8::try_from(1 + 2 * dns.len()).unwrap();
            let mut option = [&[25, units, 0, 0], &lifetime.to_be_bytes()[..]].concat();
            for &last in dns {
                option.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
            }
            option
        };
        let now = Instant::ZERO;
        let mut advertiser = RouterAdvertiser::new(&config(&[1, 2]), 1, now).unwrap();
        for (seconds, told, expected) in [
            (0, &[2, 3][..], [option(INFINITE, &[2, 3]), option(0, &[1])].concat()),
            (9, &[1], [option(INFINITE, &[1]), option(0, &[2, 3])].concat()),
            (18, &[4], [option(INFINITE, &[4]), option(0, &[1, 2, 3])].concat()),
            (27, &[5], [option(INFINITE, &[5]), option(0, &[4, 1, 2])].concat()),
            (36, &[], option(0, &[5, 4, 1])),
        ] {
            let now = now + Duration::from_secs(seconds);
            advertiser.adopt_plan(&config(told), now);
            let sent = advertiser.handle_timeout(now).expect("it is told at once");
            // Behind the headers, our MAC address and the prefix.
            assert_eq!(sent.packet[40 + 16 + 8 + 32..], expected, "{told:?}");
        }
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
