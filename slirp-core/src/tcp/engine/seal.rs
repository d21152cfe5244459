//! From smoltcp's packet to the frame for the device.
//!
//! Owns the record of emitted segments, the TCP checksum, the virtio-net header and the Ethernet
//! header.

use core::net::IpAddr;
use core::ops::Range;

use smoltcp::wire::{IpProtocol, checksum};

use super::{HEADROOM, LinkAddresses};
use crate::config::Offload;
use crate::tcp::connection::Connection;
use crate::tcp::segment::Segment;
use crate::wire::frame::{
    ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, IpHeader,
    pseudo_header_sum,
};
use crate::wire::vnet::{FLAG_NEEDS_CSUM, Gso, VNET_HEADER_LEN, VnetHeader};

/// Records what the engine has announced, translates sequence numbers, and fills in the checksum.
/// The packet may become shorter, so its length is returned as well.
pub(super) fn finish_packet(
    connection: &mut Connection,
    packet: &mut [u8],
    offload: Offload,
) -> (VnetHeader, usize) {
    let parsed = IpHeader::parse(packet).and_then(|ip| Ok((ip, Segment::parse(&ip, packet)?)));
    let Ok((ip, mut segment)) = parsed else {
        // smoltcp emits well-formed packets; at worst the guest drops a frame without offload.
        return (VnetHeader::default(), packet.len());
    };
    let len = connection.keep_within_window(&mut segment, packet);
    let packet = &mut packet[..len];
    connection.note_emitted(&mut segment, packet);
    (checksum_and_segment(&ip, &segment, connection.guest_mss(), packet, offload), len)
}

/// Fills in the TCP checksum, or leaves it to the device, and returns how the frame is segmented.
pub(crate) fn checksum_and_segment(
    ip: &IpHeader,
    segment: &Segment,
    mss: u16,
    packet: &mut [u8],
    offload: Offload,
) -> VnetHeader {
    let at = segment.at;
    // An IP packet is at most 65,535 bytes plus the IPv6 header.
    let tcp_len = u32::try_from(packet.len() - at).unwrap_or(u32::MAX);
    let pseudo = pseudo_header_sum(ip.source, ip.destination, IpProtocol::Tcp, tcp_len);
    if !offload.checksum {
        segment.set_checksum(packet, 0);
        let sum = !checksum::combine(&[pseudo, checksum::data(&packet[at..])]);
        segment.set_checksum(packet, sum);
        return VnetHeader::default();
    }
    segment.set_checksum(packet, pseudo);
    let start = u16::try_from(ETHERNET_HEADER_LEN + at).unwrap_or(0);
    let mut vnet = VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        csum_start: start,
        csum_offset: 16,
        ..VnetHeader::default()
    };
    if segment.payload_len > u32::from(mss) && offload.tcp_segmentation {
        vnet.gso = match ip.source {
            IpAddr::V4(_) => Gso::TcpV4,
            IpAddr::V6(_) => Gso::TcpV6,
        };
        vnet.gso_size = mss;
        vnet.hdr_len = start + u16::try_from(segment.header_len).unwrap_or(0);
    }
    vnet
}

/// Writes the headers in front of the packet; returns the range of the frame for the device.
pub(super) fn seal(
    frame: &mut [u8],
    vnet: VnetHeader,
    link: LinkAddresses,
    offload: Offload,
) -> Range<usize> {
    let ethertype = match frame[HEADROOM] >> 4 {
        4 => ETHERTYPE_IPV4,
        _ => ETHERTYPE_IPV6,
    };
    let ethernet = EthernetHeader { destination: link.guest, source: link.ours, ethertype };
    frame[VNET_HEADER_LEN..HEADROOM].copy_from_slice(&ethernet.emit());
    if offload.vnet_header {
        frame[..VNET_HEADER_LEN].copy_from_slice(&vnet.emit());
        0..frame.len()
    } else {
        VNET_HEADER_LEN..frame.len()
    }
}
