//! The virtio-net header in front of every frame on a TAP device with `IFF_VNET_HDR`.
//!
//! Owns its ten-byte layout in host byte order (virtio 1.2 section 5.1.6, `linux/virtio_net.h`) and
//! the validation of headers that arrive from a guest. A guest's root can put any header in front
//! of any frame (`PACKET_VNET_HDR`, packet(7)), so nothing in it is trusted before
//! [`VnetHeader::validate`] has seen the frame behind it.

use crate::discard::DiscardReason;

/// Length of the header in bytes (`struct virtio_net_hdr` without `num_buffers`).
pub const VNET_HEADER_LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum at `csum_start + csum_offset` holds only the
/// pseudo-header sum.
pub const FLAG_NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`: the sender's kernel has verified the checksum.
pub const FLAG_DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// How one frame stands for several packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Gso {
    /// It does not.
    #[default]
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of equal length over either family.
    Udp,
}

/// A virtio-net header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VnetHeader {
    /// `VIRTIO_NET_HDR_F_*`.
    pub flags: u8,
    /// How the frame is segmented.
    pub gso: Gso,
    /// Length of link, IP and transport header together; a hint.
    pub hdr_len: u16,
    /// Payload bytes per segment.
    pub gso_size: u16,
    /// Where the checksummed part starts, from the start of the Ethernet header.
    pub csum_start: u16,
    /// Where the checksum lies, from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Parses the ten bytes; an unknown segmentation type is an error.
    ///
    /// # Errors
    /// [`DiscardReason::VnetHeaderInvalid`].
    pub fn parse(bytes: &[u8; VNET_HEADER_LEN]) -> Result<Self, DiscardReason> {
        let [flags, gso_type, rest @ ..] = *bytes;
        let field = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        let gso = match gso_type & !GSO_ECN {
            GSO_NONE => Gso::None,
            GSO_TCPV4 => Gso::TcpV4,
            GSO_TCPV6 => Gso::TcpV6,
            GSO_UDP_L4 => Gso::Udp,
            _ => return Err(DiscardReason::VnetHeaderInvalid),
        };
        Ok(Self {
            flags,
            gso,
            hdr_len: field(0),
            gso_size: field(2),
            csum_start: field(4),
            csum_offset: field(6),
        })
    }

    /// Writes the ten bytes.
    pub fn emit(&self) -> [u8; VNET_HEADER_LEN] {
        let gso_type = match self.gso {
            Gso::None => GSO_NONE,
            Gso::TcpV4 => GSO_TCPV4,
            Gso::TcpV6 => GSO_TCPV6,
            Gso::Udp => GSO_UDP_L4,
        };
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// Whether the transport checksum need not be verified: it is partial, or the guest's kernel
    /// has verified it.
    pub const fn is_checksum_trusted(&self) -> bool {
        self.flags & (FLAG_NEEDS_CSUM | FLAG_DATA_VALID) != 0
    }

    /// Checks the header against where the transport header of the frame really lies.
    ///
    /// `transport_at` is the offset of the transport header in the Ethernet frame, `checksum_at`
    /// the offset of the checksum field in it (16 for TCP, 6 for UDP), `gso` the segmentation type
    /// that fits the frame and `payload_len` the bytes behind the transport header.
    ///
    /// # Errors
    /// [`DiscardReason::VnetHeaderInvalid`] when a checksum start, offset or segment size is
    /// impossible for this frame.
    pub fn validate(
        &self,
        transport_at: usize,
        checksum_at: u16,
        gso: Gso,
        payload_len: usize,
    ) -> Result<(), DiscardReason> {
        let checksum_fits = self.flags & FLAG_NEEDS_CSUM == 0
            || (usize::from(self.csum_start) == transport_at && self.csum_offset == checksum_at);
        // Zero would mean an endless number of segments. A TCP frame that fits into one segment is
        // merely not segmented (Linux takes it so too, `virtio_net_hdr_to_skb`), but a segment size
        // beyond the payload would reach the host's `UDP_SEGMENT`.
        let segments_fit = self.gso == Gso::None
            || (self.gso == gso
                && self.gso_size != 0
                && (gso != Gso::Udp || usize::from(self.gso_size) <= payload_len)
                && self.flags & FLAG_NEEDS_CSUM != 0);
        if checksum_fits && segments_fit { Ok(()) } else { Err(DiscardReason::VnetHeaderInvalid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emit_and_parse_agree() {
        let header = VnetHeader {
            flags: FLAG_NEEDS_CSUM,
            gso: Gso::TcpV6,
            hdr_len: 74,
            gso_size: 1440,
            csum_start: 54,
            csum_offset: 16,
        };
        assert_eq!(VnetHeader::parse(&header.emit()), Ok(header));
    }

    #[test]
    fn ecn_bit_is_accepted_and_unknown_types_are_not() {
        let mut bytes = VnetHeader { gso: Gso::TcpV4, ..VnetHeader::default() }.emit();
        bytes[1] |= GSO_ECN;
        assert_eq!(VnetHeader::parse(&bytes).map(|h| h.gso), Ok(Gso::TcpV4));
        for unknown in [2, 3, 6, 0x7f] {
            bytes[1] = unknown;
            assert_eq!(VnetHeader::parse(&bytes), Err(DiscardReason::VnetHeaderInvalid));
        }
    }

    #[test]
    fn impossible_offsets_and_sizes_are_refused() {
        let good = VnetHeader {
            flags: FLAG_NEEDS_CSUM,
            gso: Gso::TcpV4,
            hdr_len: 54,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
        };
        let check = |header: VnetHeader| header.validate(34, 16, Gso::TcpV4, 5000);
        assert_eq!(check(good), Ok(()));
        for bad in [
            VnetHeader { csum_start: 0, ..good },
            VnetHeader { csum_start: 65_000, ..good },
            VnetHeader { csum_offset: 6, ..good },
            VnetHeader { gso_size: 0, ..good },
            VnetHeader { gso: Gso::TcpV6, ..good },
            VnetHeader { gso: Gso::Udp, ..good },
            VnetHeader { flags: 0, ..good },
        ] {
            assert_eq!(check(bad), Err(DiscardReason::VnetHeaderInvalid), "{bad:?}");
        }
        let datagrams = VnetHeader { gso: Gso::Udp, gso_size: 5001, csum_offset: 6, ..good };
        assert_eq!(
            datagrams.validate(34, 6, Gso::Udp, 5000),
            Err(DiscardReason::VnetHeaderInvalid)
        );
        assert_eq!(datagrams.validate(34, 6, Gso::Udp, 5001), Ok(()));
        // hdr_len is a hint that the kernel itself leaves inexact: any value is harmless.
        assert_eq!(check(VnetHeader { hdr_len: 65_535, ..good }), Ok(()));
    }
}
