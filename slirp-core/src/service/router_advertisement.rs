//! The router's advertisements (RFC 4861 section 6.2, RFC 8106).
//!
//! Owns their content and their schedule. The solicitation that asks for one is recognised in
//! [`ndp`](super::ndp).

use core::net::IpAddr;
use core::time::Duration;

use super::ndp::{
    ALL_NODES, NdpPacket, SOURCE_LINK_LAYER, icmpv6_packet, multicast_mac, push_link_layer,
};
use crate::plan::{AddressPlan, Ipv6Plan};
use crate::rng::Rng;
use crate::time::Instant;

/// Least time between two multicast advertisements (`MIN_DELAY_BETWEEN_RAS`, RFC 4861 section 10).
pub const MIN_DELAY: Duration = Duration::from_secs(3);
/// Least time between unsolicited advertisements (`MinRtrAdvInterval`, RFC 4861 section 6.2.1).
pub const MIN_INTERVAL: Duration = Duration::from_secs(200);
/// Most time between unsolicited advertisements (`MaxRtrAdvInterval`, RFC 4861 section 6.2.1).
pub const MAX_INTERVAL: Duration = Duration::from_secs(600);

const ROUTER_ADVERTISEMENT: u8 = 134;
const CURRENT_HOP_LIMIT: u8 = 64;
/// Seconds for which we are a default router (`AdvDefaultLifetime`: three intervals).
const ROUTER_LIFETIME: u16 = 1800;
/// Seconds for which the prefix is valid; libslirp's value.
const PREFIX_VALID: u32 = 86_400;
/// Seconds for which the prefix is preferred; libslirp's value.
const PREFIX_PREFERRED: u32 = 14_400;
/// Seconds for which the DNS address may be used: three intervals (RFC 8106 section 5.1).
const DNS_LIFETIME: u32 = 1800;
/// On-link and autonomous configuration.
const PREFIX_FLAGS: u8 = 0xc0;
/// Least MTU of an IPv6 link; hosts ignore an option that says less (RFC 4861 section 6.3.4).
const IPV6_MIN_MTU: u16 = 1280;

/// When the next advertisement is due.
#[derive(Debug)]
pub struct RouterAdvertiser {
    rng: Rng,
    next_at: Instant,
    sent_at: Option<Instant>,
}

impl RouterAdvertiser {
    /// A schedule that starts at `now`; its jitter follows from `seed`.
    pub fn new(seed: u64, now: Instant) -> Self {
        let mut advertiser = Self { rng: Rng::new(seed), next_at: now, sent_at: None };
        advertiser.next_at = now + advertiser.interval();
        advertiser
    }

    /// A guest asks. The first is answered at once, because it waits for it; a multicast answer
    /// serves everyone who asks within [`MIN_DELAY`] (RFC 4861 section 6.2.6).
    ///
    /// We differ in leaving out the random delay of up to 0.5 s before an answer: it spreads the
    /// answers of several routers, and here is only one.
    pub fn handle_solicitation(&mut self, now: Instant) {
        let allowed_at = self.sent_at.map_or(now, |sent_at| (sent_at + MIN_DELAY).max(now));
        self.next_at = self.next_at.min(allowed_at);
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub const fn poll_timeout(&self) -> Instant {
        self.next_at
    }

    /// The advertisement, when one is due at `now`. `mtu` is the guest's in bytes; `dns` says
    /// whether the DNS address is announced. `None` without IPv6 in `plan`.
    pub fn handle_timeout(
        &mut self,
        plan: &AddressPlan,
        mtu: u16,
        dns: bool,
        now: Instant,
    ) -> Option<NdpPacket> {
        if now < self.next_at {
            return None;
        }
        self.sent_at = Some(now);
        self.next_at = now + self.interval();
        Some(advertisement(plan.ipv6()?, mtu, dns))
    }

    fn interval(&mut self) -> Duration {
        let spread = (MAX_INTERVAL - MIN_INTERVAL).as_secs() + 1;
        MIN_INTERVAL + Duration::from_secs(self.rng.next_u64() % spread)
    }
}

/// The advertisement to all nodes. The MTU option is left out where hosts would ignore it.
pub fn advertisement(plan: &Ipv6Plan, mtu: u16, dns: bool) -> NdpPacket {
    let source = Ipv6Plan::GATEWAY_LINK_LOCAL;
    let source_mac = AddressPlan::mac_of(IpAddr::V6(source));
    let mut icmp = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, CURRENT_HOP_LIMIT, 0];
    icmp.extend_from_slice(&ROUTER_LIFETIME.to_be_bytes());
    // Reachable time and retransmission timer: unspecified.
    icmp.extend_from_slice(&[0; 8]);
    push_link_layer(&mut icmp, SOURCE_LINK_LAYER, source_mac);
    if mtu >= IPV6_MIN_MTU {
        icmp.extend_from_slice(&[5, 1, 0, 0]);
        icmp.extend_from_slice(&u32::from(mtu).to_be_bytes());
    }
    icmp.extend_from_slice(&[3, 4, Ipv6Plan::PREFIX_LEN, PREFIX_FLAGS]);
    icmp.extend_from_slice(&PREFIX_VALID.to_be_bytes());
    icmp.extend_from_slice(&PREFIX_PREFERRED.to_be_bytes());
    icmp.extend_from_slice(&[0; 4]);
    icmp.extend_from_slice(&plan.prefix().octets());
    if dns {
        icmp.extend_from_slice(&[25, 3, 0, 0]);
        icmp.extend_from_slice(&DNS_LIFETIME.to_be_bytes());
        icmp.extend_from_slice(&plan.dns().octets());
    }
    NdpPacket {
        destination_mac: multicast_mac(ALL_NODES),
        source_mac,
        packet: icmpv6_packet(source, ALL_NODES, &icmp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MacAddr;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, Ipv6Packet, NdiscRepr};

    fn plan() -> AddressPlan {
        AddressPlan::default().with_ipv6(Ipv6Plan::default())
    }

    #[test]
    fn advertisement_says_what_the_guest_needs() {
        let sent = advertisement(&Ipv6Plan::default(), 1500, true);
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
        let full = advertisement(&Ipv6Plan::default(), 1280, true).packet.len();
        assert_eq!(advertisement(&Ipv6Plan::default(), 1279, true).packet.len(), full - 8);
        assert_eq!(advertisement(&Ipv6Plan::default(), 1280, false).packet.len(), full - 24);
    }

    #[test]
    fn first_solicitation_is_answered_at_once_and_the_next_after_three_seconds() {
        let now = Instant::from_micros(7);
        let mut advertiser = RouterAdvertiser::new(1, now);
        assert_eq!(advertiser.handle_timeout(&plan(), 1500, true, now), None);
        advertiser.handle_solicitation(now);
        assert_eq!(advertiser.poll_timeout(), now);
        assert!(advertiser.handle_timeout(&plan(), 1500, true, now).is_some());
        for micros in [8, 9, 10] {
            advertiser.handle_solicitation(Instant::from_micros(micros));
            assert_eq!(advertiser.poll_timeout(), now + MIN_DELAY);
        }
        assert_eq!(advertiser.handle_timeout(&plan(), 1500, true, now), None);
        assert!(advertiser.handle_timeout(&plan(), 1500, true, now + MIN_DELAY).is_some());
    }

    #[test]
    fn unsolicited_advertisements_keep_their_interval() {
        let mut advertiser = RouterAdvertiser::new(42, Instant::ZERO);
        let mut last = Instant::ZERO;
        for _ in 0..1000 {
            let at = advertiser.poll_timeout();
            let interval = at.saturating_since(last);
            assert!((MIN_INTERVAL..=MAX_INTERVAL).contains(&interval), "{interval:?}");
            assert!(advertiser.handle_timeout(&plan(), 1500, true, at).is_some());
            last = at;
        }
    }
}
