//! What a frame of a member says about its sender, and where it may go.
//!
//! Owns the reading of one frame: virtio-net header, Ethernet, ARP, IP, neighbour discovery, as far
//! as they name the sender; and the messages that no member may send. Whether the sender may use
//! these addresses is decided in [`tenure`](super::tenure).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::IpProtocol;

use crate::discard::DiscardReason;
use crate::mac::MacAddr;
use crate::plan::{AddressPlan, is_unicast};
use crate::service::{dhcp, dhcpv6};
use crate::wire::frame::{
    ETHERNET_HEADER_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader,
    IPV6_HEADER_LEN, IpHeader, check_offload,
};
use crate::wire::icmp::{
    ICMPV4_REDIRECT, NDP_TYPES, NEIGHBOR_ADVERTISEMENT, NEIGHBOR_REDIRECT, NEIGHBOR_SOLICITATION,
    ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION,
};
use crate::wire::ip::{
    DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, IpPair, Located, PROTOCOL_ICMP, PROTOCOL_ICMPV6,
    PROTOCOL_UDP, ROUTING,
};
use crate::wire::vnet::{FLAG_NEEDS_CSUM, Gso, VNET_HEADER_LEN, VnetHeader};

/// Length of an Ethernet/IPv4 ARP packet (RFC 826).
const ARP_LEN: usize = 28;
/// Ethernet, IPv4, and their address lengths.
const ARP_PREFIX: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;

/// Options "source link-layer address" and "target link-layer address" (RFC 4861 section 4.6.1).
const LINK_LAYER_OPTIONS: core::ops::RangeInclusive<u8> = 1..=2;

/// Who may receive a frame, apart from its Ethernet destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Audience {
    /// The stack alone: a service that only it offers.
    Stack,
    /// The holder of the destination; for a group, the other members alone.
    Members,
    /// The holder of the destination; for a group, the other members and the stack.
    Everybody,
}

/// What a frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claim {
    pub(super) source: MacAddr,
    pub(super) destination: MacAddr,
    /// Ethernet addresses that the frame claims for its sender, beside the source.
    pub(super) macs: [Option<MacAddr>; 2],
    /// IP addresses that the frame claims for its sender.
    pub(super) addresses: [Option<IpAddr>; 2],
    pub(super) audience: Audience,
}

impl Claim {
    /// Reads a frame with its virtio-net header.
    pub(super) fn read(plan: &AddressPlan, frame: &[u8]) -> Result<Self, DiscardReason> {
        let bytes = frame.first_chunk().ok_or(DiscardReason::FrameTruncated)?;
        let vnet = VnetHeader::parse(bytes)?;
        let frame = &frame[VNET_HEADER_LEN..];
        let ethernet = EthernetHeader::parse(frame)?;
        let claim = Self {
            source: ethernet.source,
            destination: ethernet.destination,
            macs: [None; 2],
            addresses: [None; 2],
            audience: Audience::Everybody,
        };
        let payload = &frame[ETHERNET_HEADER_LEN..];
        match ethernet.ethertype {
            ETHERTYPE_ARP => {
                refuse_offload(&vnet)?;
                claim.read_arp(plan, payload)
            }
            ETHERTYPE_IPV6 if plan.ipv6().is_none() => Err(DiscardReason::Ipv6Disabled),
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => {
                let ip = IpHeader::parse(payload)?;
                if ip.source.is_ipv4() != (ethernet.ethertype == ETHERTYPE_IPV4) {
                    return Err(DiscardReason::IpHeaderInvalid);
                }
                let packet = &payload[..ip.packet_len];
                if ip.is_fragment {
                    refuse_offload(&vnet)?;
                } else {
                    check_offload(Some(&vnet), &ip, packet)?;
                }
                claim.read_ip(plan, &ip, packet)
            }
            _ => Err(DiscardReason::EtherTypeUnsupported),
        }
    }

    fn read_arp(mut self, plan: &AddressPlan, arp: &[u8]) -> Result<Self, DiscardReason> {
        let arp = arp.first_chunk::<ARP_LEN>().ok_or(DiscardReason::ArpInvalid)?;
        if arp[..6] != ARP_PREFIX || arp[6] != 0 || !matches!(arp[7], ARP_REQUEST | ARP_REPLY) {
            return Err(DiscardReason::ArpInvalid);
        }
        let address = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
        let (sender, target) = (address(14), address(24));
        self.macs[0] = Some(mac_at(arp, 8));
        // A probe (RFC 5227) claims no address for its sender.
        if !sender.is_unspecified() {
            self.addresses[0] = Some(single(plan, IpAddr::V4(sender))?);
        }
        let is_request = arp[7] == ARP_REQUEST;
        self.audience = if is_request && plan.is_ours(IpAddr::V4(target)) {
            Audience::Stack
        } else if is_request && sender != target {
            Audience::Members
        } else {
            Audience::Everybody
        };
        Ok(self)
    }

    fn read_ip(
        mut self,
        plan: &AddressPlan,
        ip: &IpHeader,
        packet: &[u8],
    ) -> Result<Self, DiscardReason> {
        if !ip.source.is_unspecified() {
            self.addresses[0] = Some(single(plan, ip.source)?);
        }
        let transport = packet.get(ip.header_len..).unwrap_or_default();
        if ip.is_fragment {
            self.read_fragment(packet)?;
        } else if ip.protocol == IpProtocol::Udp {
            self.read_udp(transport)?;
        } else if ip.protocol == IpProtocol::Icmp {
            if transport.first() == Some(&ICMPV4_REDIRECT) {
                return Err(DiscardReason::MemberRoleForbidden);
            }
        } else if ip.protocol == IpProtocol::Icmpv6 && ip.source.is_ipv6() {
            self.read_icmpv6(plan, ip, transport)?;
        }
        // A host without an address may address DHCP servers and, in IPv6, its neighbours.
        if ip.source == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && self.audience != Audience::Stack {
            return Err(DiscardReason::SourceAddressInvalid);
        }
        Ok(self)
    }

    /// Only the first fragment has the transport header, and it must have all headers (RFC 7112).
    fn read_fragment(&mut self, packet: &[u8]) -> Result<(), DiscardReason> {
        let located = Located::parse(packet)?;
        if located.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(());
        }
        let first = located.payload().first();
        match located.protocol {
            PROTOCOL_UDP => self.read_udp(located.payload()),
            PROTOCOL_ICMP if first == Some(&ICMPV4_REDIRECT) => {
                Err(DiscardReason::MemberRoleForbidden)
            }
            // Neighbour discovery is never fragmented (RFC 6980).
            PROTOCOL_ICMPV6 if first.is_some_and(|kind| NDP_TYPES.contains(kind)) => {
                Err(DiscardReason::NdpInvalid)
            }
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS
                if matches!(located.pair, IpPair::V6(..)) =>
            {
                Err(DiscardReason::ExtensionHeaderInvalid)
            }
            _ => Ok(()),
        }
    }

    fn read_udp(&mut self, udp: &[u8]) -> Result<(), DiscardReason> {
        let Some(&[s0, s1, d0, d1]) = udp.first_chunk() else {
            return Err(DiscardReason::TransportHeaderInvalid);
        };
        let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        if matches!(
            (source, destination),
            (dhcp::SERVER_PORT, dhcp::CLIENT_PORT) | (dhcpv6::SERVER_PORT, dhcpv6::CLIENT_PORT)
        ) {
            return Err(DiscardReason::MemberRoleForbidden);
        }
        let is_for_server = matches!(destination, dhcp::SERVER_PORT | dhcpv6::SERVER_PORT);
        if is_for_server && self.destination.is_group() {
            self.audience = Audience::Stack;
        }
        Ok(())
    }

    fn read_icmpv6(
        &mut self,
        plan: &AddressPlan,
        ip: &IpHeader,
        icmp: &[u8],
    ) -> Result<(), DiscardReason> {
        let kind = *icmp.first().ok_or(DiscardReason::TransportHeaderInvalid)?;
        let body_len = match kind {
            ROUTER_ADVERTISEMENT | NEIGHBOR_REDIRECT => {
                return Err(DiscardReason::MemberRoleForbidden);
            }
            ROUTER_SOLICITATION => 8,
            NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT => 24,
            _ => return Ok(()),
        };
        // Extension headers have no use here, and must not hide anything (RFC 6980).
        if ip.header_len != IPV6_HEADER_LEN || icmp.len() < body_len {
            return Err(DiscardReason::NdpInvalid);
        }
        self.macs = link_layer_addresses(&icmp[body_len..])?;
        if kind == ROUTER_SOLICITATION {
            self.audience = Audience::Stack;
            return Ok(());
        }
        let mut target = [0; 16];
        target.copy_from_slice(&icmp[8..24]);
        let target = IpAddr::V6(Ipv6Addr::from(target));
        if kind == NEIGHBOR_ADVERTISEMENT {
            self.addresses[1] = Some(single(plan, target)?);
        } else if plan.is_ours(target) {
            self.audience = Audience::Stack;
        } else {
            self.audience = Audience::Members;
        }
        Ok(())
    }
}

/// The Ethernet addresses in the options of a neighbour discovery message.
fn link_layer_addresses(mut options: &[u8]) -> Result<[Option<MacAddr>; 2], DiscardReason> {
    let mut macs = [None; 2];
    while let Some(&[kind, len]) = options.first_chunk() {
        let len = usize::from(len) * 8;
        if len == 0 || len > options.len() {
            return Err(DiscardReason::NdpInvalid);
        }
        if LINK_LAYER_OPTIONS.contains(&kind)
            && let Some(place) = macs.get_mut(usize::from(kind - 1))
        {
            // With two options, receivers could disagree about which one counts.
            if place.is_some() {
                return Err(DiscardReason::NdpInvalid);
            }
            *place = Some(mac_at(options, 2));
        }
        options = &options[len..];
    }
    Ok(macs)
}

/// An address that a single sender can have.
fn single(plan: &AddressPlan, address: IpAddr) -> Result<IpAddr, DiscardReason> {
    if !is_unicast(address) {
        return Err(DiscardReason::SourceAddressInvalid);
    }
    if plan.is_ours(address) {
        return Err(DiscardReason::MemberAddressForeign);
    }
    Ok(address)
}

/// Refuses a frame that leaves work to the receiver.
fn refuse_offload(vnet: &VnetHeader) -> Result<(), DiscardReason> {
    if vnet.gso == Gso::None && vnet.flags & FLAG_NEEDS_CSUM == 0 {
        Ok(())
    } else {
        Err(DiscardReason::VnetHeaderInvalid)
    }
}

/// Six bytes at `at`, which the callers have checked to be there.
fn mac_at(bytes: &[u8], at: usize) -> MacAddr {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    bytes.map(|&mac| MacAddr(mac)).unwrap_or_default()
}
