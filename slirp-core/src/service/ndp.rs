//! Neighbour discovery towards the guest (RFC 4861).
//!
//! Owns the answers to solicitations for the addresses that the plan answers for
//! ([`AddressPlan::answers_for`]), the validation that RFC 4861 section 7.1 and 6.1.1 prescribe,
//! and what is learnt about guests. When and what the router advertises is in
//! [`router_advertisement`](super::router_advertisement).

use core::net::{IpAddr, Ipv6Addr};

use super::neighbor::is_single_guest;
use crate::discard::DiscardReason;
use crate::mac::MacAddr;
use crate::plan::AddressPlan;
use crate::wire::icmp::{NEIGHBOR_ADVERTISEMENT, NEIGHBOR_SOLICITATION, ROUTER_SOLICITATION};
use crate::wire::ip::{HeaderFields, IPV6_HEADER_LEN, IpPair, Located, PROTOCOL_ICMPV6};

/// Hop limit of every neighbour discovery packet (RFC 4861 section 7.1).
pub(super) const NDP_HOP_LIMIT: u8 = 255;
/// ff02::1.
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Option "source link-layer address".
pub(super) const SOURCE_LINK_LAYER: u8 = 1;
/// Option "target link-layer address".
const TARGET_LINK_LAYER: u8 = 2;

const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// An IPv6 packet with the link addresses that belong in front of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NdpPacket {
    /// Ethernet destination.
    pub destination_mac: MacAddr,
    /// Ethernet source.
    pub source_mac: MacAddr,
    /// The packet from its IPv6 header on.
    pub packet: Vec<u8>,
}

/// What a neighbour discovery packet led to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct NdpOutcome {
    /// The sender, when it told its own address.
    pub learned: Option<(Ipv6Addr, MacAddr)>,
    /// What to answer with.
    pub reply: Option<NdpPacket>,
    /// Whether the guest asks for a router advertisement.
    pub advertise: bool,
}

/// Takes an IPv6 packet that carries ICMPv6, from its IPv6 header on; `source_mac` is where its
/// frame came from, and where an answer goes.
///
/// # Errors
/// [`DiscardReason::NdpInvalid`] when RFC 4861 tells to discard it,
/// [`DiscardReason::NdpNotForUs`] for a solicitation of another station,
/// [`DiscardReason::IcmpUnsupported`] for every type that is not handled (router
/// advertisements and redirects of a guest among them), [`DiscardReason::Ipv6Disabled`].
pub(crate) fn handle_ndp(
    plan: &AddressPlan,
    source_mac: MacAddr,
    packet: &[u8],
) -> Result<NdpOutcome, DiscardReason> {
    if plan.ipv6().is_none() {
        return Err(DiscardReason::Ipv6Disabled);
    }
    let invalid = DiscardReason::NdpInvalid;
    let located = Located::parse(packet)?;
    let IpPair::V6(source, destination) = located.pair else { return Err(invalid) };
    let icmp = located.payload();
    // A fragmented one is discarded (RFC 6980), and no other extension header has a use here.
    if located.protocol != PROTOCOL_ICMPV6 || located.payload_at != IPV6_HEADER_LEN {
        return Err(invalid);
    }
    let Some(&[icmp_type, code, _, _]) = icmp.get(..4) else { return Err(invalid) };
    let body_len = match icmp_type {
        ROUTER_SOLICITATION => 8,
        NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT => 24,
        _ => return Err(DiscardReason::IcmpUnsupported),
    };
    if code != 0
        || packet[7] != NDP_HOP_LIMIT
        || icmp.len() < body_len
        || !located.pair.is_icmp_checksum_valid(icmp)
    {
        return Err(invalid);
    }
    let wanted =
        if icmp_type == NEIGHBOR_ADVERTISEMENT { TARGET_LINK_LAYER } else { SOURCE_LINK_LAYER };
    let link_layer = link_layer_option(&icmp[body_len..], wanted)?;
    // A sender without an address has no address to be learnt (RFC 4861 sections 6.1.1 and 7.1.1).
    if source.is_unspecified() && link_layer.is_some() && icmp_type != NEIGHBOR_ADVERTISEMENT {
        return Err(invalid);
    }
    let learn = |address: Ipv6Addr| {
        let mac = link_layer.filter(|mac| mac.is_valid_source())?;
        let address_of_guest = is_single_guest(address.into()) && !plan.is_ours(address.into());
        address_of_guest.then_some((address, mac))
    };
    if icmp_type == ROUTER_SOLICITATION {
        return Ok(NdpOutcome { learned: learn(source), reply: None, advertise: true });
    }

    let mut target = [0; 16];
    target.copy_from_slice(&icmp[8..24]);
    let target = Ipv6Addr::from(target);
    if target.is_multicast() {
        return Err(invalid);
    }
    if icmp_type == NEIGHBOR_ADVERTISEMENT {
        if destination.is_multicast() && icmp[4] & FLAG_SOLICITED != 0 {
            return Err(invalid);
        }
        let learned = learn(target);
        return match learned {
            Some(_) => Ok(NdpOutcome { learned, ..NdpOutcome::default() }),
            None => Err(DiscardReason::NdpNotForUs),
        };
    }
    if source.is_unspecified() && destination != solicited_node(target) {
        return Err(invalid);
    }
    if !plan.answers_for(target.into(), source.into()) {
        return Err(DiscardReason::NdpNotForUs);
    }
    let reply = advertisement(plan.mac_for(target.into()), target, source, source_mac);
    Ok(NdpOutcome { learned: learn(source), reply: Some(reply), advertise: false })
}

/// The address that an [`advertisement`] in answer to a solicitation is about.
pub(crate) fn answered(reply: &NdpPacket) -> Option<Ipv6Addr> {
    // Such an advertisement comes from the address that it is about.
    let source = reply.packet.get(8..24)?;
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(source).ok()?))
}

/// A packet in which the gateway asks for the MAC address of `target`, or `None` without
/// an IPv6 gateway.
pub(crate) fn solicitation(plan: &AddressPlan, target: Ipv6Addr) -> Option<NdpPacket> {
    let gateway = plan.ipv6()?.stand_in()?;
    let source_mac = plan.our_mac(IpAddr::V6(gateway));
    let destination = solicited_node(target);
    let mut icmp = vec![NEIGHBOR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend_from_slice(&target.octets());
    push_link_layer(&mut icmp, SOURCE_LINK_LAYER, source_mac);
    Some(NdpPacket {
        destination_mac: multicast_mac(destination),
        source_mac,
        packet: icmpv6_packet(gateway, destination, &icmp),
    })
}

/// A packet in which the station at `mac` tells all nodes that it has `address` from now on (RFC
/// 4861 section 7.2.6).
#[cfg(feature = "host")]
pub(crate) fn announcement(mac: MacAddr, address: Ipv6Addr) -> NdpPacket {
    let mut icmp = vec![NEIGHBOR_ADVERTISEMENT, 0, 0, 0, FLAG_OVERRIDE, 0, 0, 0];
    icmp.extend_from_slice(&address.octets());
    push_link_layer(&mut icmp, TARGET_LINK_LAYER, mac);
    NdpPacket {
        destination_mac: multicast_mac(ALL_NODES),
        source_mac: mac,
        packet: icmpv6_packet(address, ALL_NODES, &icmp),
    }
}

fn advertisement(
    source_mac: MacAddr,
    target: Ipv6Addr,
    asker: Ipv6Addr,
    asker_mac: MacAddr,
) -> NdpPacket {
    // An asker without an address is answered through the group of all nodes (RFC 4861 section
    // 7.2.4).
    let (destination, destination_mac, solicited) = if asker.is_unspecified() {
        (ALL_NODES, multicast_mac(ALL_NODES), 0)
    } else {
        (asker, asker_mac, FLAG_SOLICITED)
    };
    let flags = FLAG_ROUTER | FLAG_OVERRIDE | solicited;
    let mut icmp = vec![NEIGHBOR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    icmp.extend_from_slice(&target.octets());
    push_link_layer(&mut icmp, TARGET_LINK_LAYER, source_mac);
    let packet = icmpv6_packet(target, destination, &icmp);
    NdpPacket { destination_mac, source_mac, packet }
}

/// One IPv6 packet around the message `icmp`, whose checksum is filled in.
pub(super) fn icmpv6_packet(source: Ipv6Addr, destination: Ipv6Addr, icmp: &[u8]) -> Vec<u8> {
    let pair = IpPair::V6(source, destination);
    let fields =
        HeaderFields { protocol: PROTOCOL_ICMPV6, hop_limit: NDP_HOP_LIMIT, traffic_class: 0 };
    let mut packet = Vec::with_capacity(IPV6_HEADER_LEN + icmp.len());
    pair.emit_header(&mut packet, fields, icmp.len());
    packet.extend_from_slice(icmp);
    pair.fill_icmp_checksum(&mut packet[IPV6_HEADER_LEN..]);
    packet
}

/// Appends a link-layer address option (RFC 4861 section 4.6.1).
pub(super) fn push_link_layer(out: &mut Vec<u8>, kind: u8, mac: MacAddr) {
    out.extend_from_slice(&[kind, 1]);
    out.extend_from_slice(&mac.0);
}

/// 33:33 and the last four bytes of a group address (RFC 2464 section 7).
pub(super) const fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let o = group.octets();
    MacAddr([0x33, 0x33, o[12], o[13], o[14], o[15]])
}

/// ff02::1:ff00:0/104 with the last three bytes of `target` (RFC 4291 section 2.7.1).
const fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let s = target.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | s[6] & 0xff, s[7])
}

/// The link-layer address in `options`, all of which must be well-formed.
fn link_layer_option(mut options: &[u8], wanted: u8) -> Result<Option<MacAddr>, DiscardReason> {
    let mut found = None;
    while let Some(&kind) = options.first() {
        let len = options.get(1).copied().map_or(0, usize::from) * 8;
        let (option, rest) =
            options.split_at_checked(len).filter(|_| len > 0).ok_or(DiscardReason::NdpInvalid)?;
        if kind == wanted
            && let &[_, _, a, b, c, d, e, f] = option
        {
            found = Some(MacAddr([a, b, c, d, e, f]));
        }
        options = rest;
    }
    Ok(found)
}

#[cfg(test)]
#[path = "tests/ndp.rs"]
mod tests;
