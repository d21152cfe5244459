//! Offloads in software: checksums, and the cutting of a frame into packets.
//!
//! Owns the conversion of a frame with a virtio-net header to the packets that it stands for, for a
//! device that lacks an offload of the frame's sender (virtio 1.2 section 5.1.6.2; RFC 9293,
//! RFC 768). The frame and its header have been checked against each other before
//! ([`check_offload`](super::frame::check_offload)).

use smoltcp::wire::checksum;

use super::frame::{ETHERNET_HEADER_LEN, IPV6_HEADER_LEN, IpHeader, pseudo_header_sum};
use super::tcp::{TCP_CHECKSUM_AT, TCP_FLAGS_AT, TCP_HEADER_LEN};
use super::udp::{UDP_CHECKSUM_AT, UDP_HEADER_LEN};
use super::vnet::{FLAG_NEEDS_CSUM, Gso, VnetHeader};
use crate::config::Offload;
use crate::discard::DiscardReason;

/// Packets that one frame is cut into at most: 64 KiB in segments of 256 bytes. A sender that
/// announces shorter segments would make us write thousands of times for one frame.
pub const SEGMENTS_CAP: usize = 256;

/// FIN and PSH belong to the last segment, CWR to the first (RFC 3168 section 6.1.2).
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Whether a device with `offload` takes a frame with this header as it is.
pub const fn is_covered(vnet: &VnetHeader, offload: Offload) -> bool {
    let has_checksum = offload.checksum || vnet.flags & FLAG_NEEDS_CSUM == 0;
    let is_cut = match vnet.gso {
        Gso::None => true,
        Gso::TcpV4 | Gso::TcpV6 => offload.tcp_segmentation,
        Gso::Udp => offload.udp_segmentation,
    };
    offload.vnet_header && has_checksum && is_cut
}

/// Hands every packet that `frame` (from its Ethernet header on) stands for to `each`, complete
/// with checksums and Ethernet header. `room` is where they are put together.
///
/// # Errors
/// [`DiscardReason::MemberSegmentsExhausted`] for more than [`SEGMENTS_CAP`], and what
/// [`IpHeader::parse`] finds wrong; `each` has seen nothing then.
pub fn cut(
    vnet: &VnetHeader,
    frame: &[u8],
    room: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]),
) -> Result<(), DiscardReason> {
    if vnet.gso == Gso::None && vnet.flags & FLAG_NEEDS_CSUM == 0 {
        each(frame);
        return Ok(());
    }
    let packet = frame.get(ETHERNET_HEADER_LEN..).ok_or(DiscardReason::FrameTruncated)?;
    let ip = IpHeader::parse(packet)?;
    let transport_at = ETHERNET_HEADER_LEN + ip.header_len;
    let transport =
        packet.get(ip.header_len..ip.packet_len).ok_or(DiscardReason::TransportHeaderInvalid)?;
    let is_tcp = vnet.csum_offset == TCP_CHECKSUM_AT;
    let header_len = if is_tcp { tcp_header_len(transport)? } else { UDP_HEADER_LEN };
    let (header, payload) =
        transport.split_at_checked(header_len).ok_or(DiscardReason::TransportHeaderInvalid)?;
    let size = match vnet.gso {
        Gso::None => payload.len().max(1),
        Gso::TcpV4 | Gso::TcpV6 | Gso::Udp => usize::from(vnet.gso_size).max(1),
    };
    let count = payload.len().div_ceil(size).max(1);
    if count > SEGMENTS_CAP {
        return Err(DiscardReason::MemberSegmentsExhausted);
    }
    for index in 0..count {
        let start = index * size;
        let end = (start + size).min(payload.len());
        room.clear();
        room.extend_from_slice(&frame[..transport_at]);
        room.extend_from_slice(header);
        room.extend_from_slice(&payload[start..end]);
        finish_ip(
            &mut room[ETHERNET_HEADER_LEN..transport_at],
            &ip,
            header_len + end - start,
            index,
        );
        let segment = &mut room[transport_at..];
        if is_tcp {
            finish_tcp(segment, start, index == 0, index + 1 == count);
            fill_checksum(segment, &ip, TCP_CHECKSUM_AT);
        } else {
            let len = u16::try_from(segment.len()).unwrap_or(u16::MAX);
            segment[4..6].copy_from_slice(&len.to_be_bytes());
            fill_checksum(segment, &ip, UDP_CHECKSUM_AT);
        }
        each(room);
    }
    Ok(())
}

fn tcp_header_len(transport: &[u8]) -> Result<usize, DiscardReason> {
    let offset = *transport.get(12).ok_or(DiscardReason::TransportHeaderInvalid)?;
    let len = usize::from(offset >> 4) * 4;
    if len < TCP_HEADER_LEN { Err(DiscardReason::TransportHeaderInvalid) } else { Ok(len) }
}

/// Lengths, identification and header checksum of the packet number `index`.
fn finish_ip(header: &mut [u8], ip: &IpHeader, transport_len: usize, index: usize) {
    let total = header.len() + transport_len;
    // No part is longer than the whole, whose length was read from 16 bits.
    let word = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes();
    if ip.source.is_ipv4() {
        header[2..4].copy_from_slice(&word(total));
        let ident = u16::from_be_bytes([header[4], header[5]]);
        let step = u16::try_from(index).unwrap_or(0);
        header[4..6].copy_from_slice(&ident.wrapping_add(step).to_be_bytes());
        header[10..12].fill(0);
        let sum = !checksum::data(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        header[4..6].copy_from_slice(&word(total - IPV6_HEADER_LEN));
    }
}

fn finish_tcp(segment: &mut [u8], offset: usize, is_first: bool, is_last: bool) {
    let number = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
    let number = number.wrapping_add(u32::try_from(offset).unwrap_or(0));
    segment[4..8].copy_from_slice(&number.to_be_bytes());
    if !is_last {
        segment[TCP_FLAGS_AT] &= !FIN_PSH;
    }
    if !is_first {
        segment[TCP_FLAGS_AT] &= !CWR;
    }
}

fn fill_checksum(segment: &mut [u8], ip: &IpHeader, at: u16) {
    let at = usize::from(at);
    segment[at..at + 2].fill(0);
    let len = u32::try_from(segment.len()).unwrap_or(u32::MAX);
    let pseudo = pseudo_header_sum(ip.source, ip.destination, ip.protocol, len);
    let sum = !checksum::combine(&[pseudo, checksum::data(segment)]);
    // RFC 768: a computed zero is sent as all ones; TCP takes either.
    let sum = if sum == 0 { 0xffff } else { sum };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
#[path = "tests/segmentation.rs"]
mod tests;
