//! One TCP segment inside its IP packet, read and patched in place.
//!
//! Owns the few fields that the fence reads or changes without rebuilding the segment (RFC 9293
//! section 3.1, options of RFC 9293 section 3.2, RFC 7323 and RFC 2018).

use core::net::{IpAddr, SocketAddr};

use crate::discard::DiscardReason;
use crate::wire::frame::IpHeader;
use crate::wire::ip::fill_ipv4_checksum;
use crate::wire::tcp::TCP_HEADER_LEN;

const FLAG_FIN: u8 = 0x01;
const FLAG_SYN: u8 = 0x02;
const FLAG_RST: u8 = 0x04;
const FLAG_PSH: u8 = 0x08;
const FLAG_ACK: u8 = 0x10;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_WINDOW_SCALE: u8 = 3;
const OPTION_SACK_PERMITTED: u8 = 4;

/// A TCP segment whose lengths have been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    /// Sender.
    pub(crate) source: SocketAddr,
    /// Receiver.
    pub(crate) destination: SocketAddr,
    /// Sequence number of the first byte (or of the SYN).
    pub(crate) seq: u32,
    /// Acknowledgement number; meaningless without the ACK flag.
    pub(crate) ack: u32,
    /// Window field, unscaled.
    pub(crate) window: u16,
    /// Bytes of payload.
    pub(crate) payload_len: u32,
    /// Offset of the TCP header in the packet.
    pub(crate) at: usize,
    /// Length of the TCP header with its options.
    pub(crate) header_len: usize,
    flags: u8,
}

impl Segment {
    /// Parses the TCP header of `packet`, which ends where the IP header says.
    ///
    /// # Errors
    /// [`DiscardReason::FrameTruncated`], [`DiscardReason::TransportHeaderInvalid`] for an
    /// impossible data offset or a port zero, [`DiscardReason::TcpFlagsInvalid`] for combinations
    /// that indicate an attack or a defect (SYN with FIN or RST, FIN with RST, no flag at all).
    pub(crate) fn parse(ip: &IpHeader, packet: &[u8]) -> Result<Self, DiscardReason> {
        let at = ip.header_len;
        let tcp = packet.get(at..).ok_or(DiscardReason::FrameTruncated)?;
        let fixed: &[u8; TCP_HEADER_LEN] =
            tcp.first_chunk().ok_or(DiscardReason::FrameTruncated)?;
        let header_len = usize::from(fixed[12] >> 4) * 4;
        if header_len < TCP_HEADER_LEN {
            return Err(DiscardReason::TransportHeaderInvalid);
        }
        let payload = tcp.get(header_len..).ok_or(DiscardReason::TransportHeaderInvalid)?;
        let payload_len =
            u32::try_from(payload.len()).map_err(|_| DiscardReason::TransportHeaderInvalid)?;
        let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let word = |at: usize| {
            u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let (source, destination) =
            (SocketAddr::new(ip.source, half(0)), SocketAddr::new(ip.destination, half(2)));
        if source.port() == 0 || destination.port() == 0 {
            return Err(DiscardReason::TransportHeaderInvalid);
        }
        let flags = fixed[13];
        let exclusive = flags & (FLAG_SYN | FLAG_FIN | FLAG_RST);
        if exclusive.count_ones() > 1 || flags & (FLAG_SYN | FLAG_RST | FLAG_ACK) == 0 {
            return Err(DiscardReason::TcpFlagsInvalid);
        }
        Ok(Self {
            source,
            destination,
            seq: word(4),
            ack: word(8),
            window: half(14),
            payload_len,
            at,
            header_len,
            flags,
        })
    }

    /// A synthetic SYN without payload.
    pub(crate) const fn syn(
        source: SocketAddr,
        destination: SocketAddr,
        seq: u32,
        window: u16,
    ) -> Self {
        Self {
            source,
            destination,
            seq,
            ack: 0,
            window,
            payload_len: 0,
            at: 0,
            header_len: TCP_HEADER_LEN,
            flags: FLAG_SYN,
        }
    }

    /// Whether this opens a connection: SYN without ACK.
    pub(crate) const fn is_opening(&self) -> bool {
        self.flags & (FLAG_SYN | FLAG_ACK) == FLAG_SYN
    }

    pub(crate) const fn is_syn(&self) -> bool {
        self.flags & FLAG_SYN != 0
    }

    pub(crate) const fn is_fin(&self) -> bool {
        self.flags & FLAG_FIN != 0
    }

    pub(crate) const fn is_rst(&self) -> bool {
        self.flags & FLAG_RST != 0
    }

    pub(crate) const fn is_ack(&self) -> bool {
        self.flags & FLAG_ACK != 0
    }

    /// Sequence space that the segment takes up.
    pub(crate) const fn sequence_len(&self) -> u32 {
        self.payload_len + self.is_syn() as u32 + self.is_fin() as u32
    }

    /// The sequence number after the segment.
    pub(crate) const fn end(&self) -> u32 {
        self.seq.wrapping_add(self.sequence_len())
    }

    /// Whether the segment carries neither payload nor a flag that takes up sequence space.
    pub(crate) const fn is_empty(&self) -> bool {
        self.sequence_len() == 0 && !self.is_rst()
    }

    pub(crate) fn set_seq(&mut self, packet: &mut [u8], seq: u32) {
        self.seq = seq;
        packet[self.at + 4..self.at + 8].copy_from_slice(&seq.to_be_bytes());
    }

    pub(crate) fn set_ack(&mut self, packet: &mut [u8], ack: u32) {
        self.ack = ack;
        packet[self.at + 8..self.at + 12].copy_from_slice(&ack.to_be_bytes());
    }

    pub(crate) fn set_checksum(&self, packet: &mut [u8], checksum: u16) {
        packet[self.at + 16..self.at + 18].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Cuts the payload to `keep` bytes and clears FIN and PSH, which belong after the cut. Returns
    /// the new length of the packet; its IP header says the same.
    pub(crate) fn truncate(&mut self, packet: &mut [u8], keep: u32) -> usize {
        self.flags &= !(FLAG_FIN | FLAG_PSH);
        packet[self.at + 13] = self.flags;
        self.shorten(packet, keep)
    }

    /// Removes the whole payload. The segment then starts after it and keeps its flags. Returns the
    /// new length of the packet; its IP header says the same.
    pub(super) fn behead(&mut self, packet: &mut [u8]) -> usize {
        self.set_seq(packet, self.seq.wrapping_add(self.payload_len));
        self.shorten(packet, 0)
    }

    fn shorten(&mut self, packet: &mut [u8], keep: u32) -> usize {
        self.payload_len = keep;
        // The payload was cut, so the length still fits the 16 bits that it came from.
        let keep = usize::try_from(keep).unwrap_or(0);
        let len = self.at + self.header_len + keep;
        let (field, value) = match self.source.ip() {
            IpAddr::V4(_) => (2, len),
            IpAddr::V6(_) => (4, len - 40),
        };
        let value = u16::try_from(value).unwrap_or(0);
        packet[field..field + 2].copy_from_slice(&value.to_be_bytes());
        if self.source.is_ipv4() {
            fill_ipv4_checksum(&mut packet[..self.at]);
        }
        len
    }
}

/// The SYN of a guest, parsed once. It waits while the host is connected, and is then answered,
/// refused or quoted.
#[derive(Clone, Debug)]
pub(crate) struct Syn {
    /// Without a payload (RFC 7413), which the engine would not take.
    pub(crate) segment: Segment,
    pub(crate) options: SynOptions,
    /// Its IP packet up to the end of the TCP header, for ICMP errors to quote.
    pub(crate) headers: Box<[u8]>,
}

impl Syn {
    /// `packet` is the IP packet of `segment`.
    pub(crate) fn new(segment: &Segment, packet: &[u8]) -> Self {
        let mut segment = *segment;
        let mut headers: Box<[u8]> = packet[..segment.at + segment.header_len].into();
        let _ = segment.truncate(&mut headers, 0);
        let options = SynOptions::parse(&segment, &headers);
        Self { segment, options, headers }
    }
}

/// The options of a SYN that stay in force after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SynOptions {
    /// The sender's MSS in bytes.
    pub(crate) mss: Option<u16>,
    /// Shift of the sender's windows.
    pub(crate) window_scale: Option<u8>,
    /// Whether selective acknowledgements may be sent to the sender of the SYN.
    pub(crate) sack_permitted: bool,
}

impl SynOptions {
    /// Options with an MSS alone.
    pub(super) fn with_mss(mss: u16) -> Self {
        Self { mss: Some(mss), ..Self::default() }
    }

    /// Walks the options of `segment`; stops at the first malformed one, as every stack does.
    pub(crate) fn parse(segment: &Segment, packet: &[u8]) -> Self {
        let mut found = Self::default();
        let end = segment.at + segment.header_len;
        let mut at = segment.at + TCP_HEADER_LEN;
        while at < end {
            let (kind, len) = match packet[at] {
                OPTION_END => break,
                OPTION_NOP => {
                    at += 1;
                    continue;
                }
                kind => (kind, packet.get(at + 1).copied().map_or(0, usize::from)),
            };
            if len < 2 || at + len > end {
                break;
            }
            match (kind, len) {
                (OPTION_MSS, 4) => {
                    found.mss = Some(u16::from_be_bytes([packet[at + 2], packet[at + 3]]));
                }
                // RFC 7323 section 2.3: a shift above 14 is taken as 14.
                (OPTION_WINDOW_SCALE, 3) => found.window_scale = Some(packet[at + 2].min(14)),
                (OPTION_SACK_PERMITTED, 2) => found.sack_permitted = true,
                _ => {}
            }
            at += len;
        }
        found
    }

    /// The options as bytes, padded to a multiple of four.
    pub(crate) fn emit(&self, mss: u16) -> Vec<u8> {
        let [m0, m1] = mss.to_be_bytes();
        let mut options = vec![OPTION_MSS, 4, m0, m1];
        if let Some(shift) = self.window_scale {
            options.extend_from_slice(&[OPTION_NOP, OPTION_WINDOW_SCALE, 3, shift]);
        }
        if self.sack_permitted {
            options.extend_from_slice(&[OPTION_NOP, OPTION_NOP, OPTION_SACK_PERMITTED, 2]);
        }
        options
    }
}

/// A whole IP packet with the reset that answers `segment` (RFC 9293 section 3.10.7.1); `None` if
/// `segment` is a reset. The TCP checksum field is zero; the sender fills it in.
pub(crate) fn emit_reset(segment: &Segment) -> Option<Vec<u8>> {
    if segment.is_rst() {
        return None;
    }
    let (seq, ack, flags) = if segment.is_ack() {
        (segment.ack, 0, FLAG_RST)
    } else {
        (0, segment.end(), FLAG_RST | FLAG_ACK)
    };
    let fields = Fields { seq, ack, flags, window: 0 };
    Some(emit_packet(segment.destination, segment.source, fields, &[]))
}

/// An opening segment as the guest would send it.
pub(super) fn emit_syn(
    from: SocketAddr,
    to: SocketAddr,
    seq: u32,
    window: u16,
    options: &[u8],
) -> Vec<u8> {
    emit_packet(from, to, Fields { seq, ack: 0, flags: FLAG_SYN, window }, options)
}

/// The SYN|ACK `answer` with other options and without payload.
pub(super) fn emit_answer(answer: &Segment, options: &[u8]) -> Vec<u8> {
    let fields = Fields {
        seq: answer.seq,
        ack: answer.ack,
        flags: FLAG_SYN | FLAG_ACK,
        window: answer.window,
    };
    emit_packet(answer.source, answer.destination, fields, options)
}

/// A pure acknowledgement.
pub(super) fn emit_ack(
    from: SocketAddr,
    to: SocketAddr,
    seq: u32,
    ack: u32,
    window: u16,
) -> Vec<u8> {
    emit_packet(from, to, Fields { seq, ack, flags: FLAG_ACK, window }, &[])
}

struct Fields {
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
}

/// An IP packet with a TCP header and `options`, whose length is a multiple of four.
fn emit_packet(from: SocketAddr, to: SocketAddr, fields: Fields, options: &[u8]) -> Vec<u8> {
    use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr};
    let tcp_len = TCP_HEADER_LEN + options.len();
    let mut packet;
    let at;
    match (from.ip(), to.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            at = crate::wire::frame::IPV4_HEADER_LEN;
            packet = vec![0; at + tcp_len];
            Ipv4Repr {
                src_addr: src,
                dst_addr: dst,
                next_header: IpProtocol::Tcp,
                payload_len: tcp_len,
                hop_limit: 64,
            }
            .emit(
                &mut Ipv4Packet::new_unchecked(&mut packet[..]),
                &smoltcp::phy::ChecksumCapabilities::default(),
            );
        }
        (src, dst) => {
            at = crate::wire::frame::IPV6_HEADER_LEN;
            packet = vec![0; at + tcp_len];
            Ipv6Repr {
                src_addr: to_ipv6(src),
                dst_addr: to_ipv6(dst),
                next_header: IpProtocol::Tcp,
                payload_len: tcp_len,
                hop_limit: 64,
            }
            .emit(&mut Ipv6Packet::new_unchecked(&mut packet[..]));
        }
    }
    let tcp = &mut packet[at..];
    tcp[0..2].copy_from_slice(&from.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&fields.seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&fields.ack.to_be_bytes());
    // At most 40 bytes of options exist, so the data offset fits its four bits.
    tcp[12] = u8::try_from(tcp_len / 4).unwrap_or(5) << 4;
    tcp[13] = fields.flags;
    tcp[14..16].copy_from_slice(&fields.window.to_be_bytes());
    tcp[TCP_HEADER_LEN..].copy_from_slice(options);
    packet
}

const fn to_ipv6(address: IpAddr) -> core::net::Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Whether sequence number `a` lies before `b` (RFC 9293 section 3.4: modulo 2^32).
pub(super) const fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) > u32::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::tests::packet::{Draft, LINUX_OPTIONS, SYN};

    #[test]
    fn syn_is_kept_without_its_payload_and_quoted_as_it_is_kept() {
        for (from, to) in [("10.0.2.100:5000", "192.0.2.1:80"), ("[fd00::64]:5000", "[fd00::1]:80")]
        {
            let draft = Draft::new(from.parse().unwrap(), to.parse().unwrap());
            let options = LINUX_OPTIONS.to_vec();
            let packet = Draft { flags: SYN, seq: 7, options, payload: vec![1; 100], ..draft };
            let packet = packet.packet();
            let segment = Segment::parse(&IpHeader::parse(&packet).unwrap(), &packet).unwrap();
            let syn = Syn::new(&segment, &packet);
            assert_eq!(syn.headers.len(), packet.len() - 100);
            let ip = IpHeader::parse(&syn.headers).unwrap();
            assert_eq!(ip.packet_len, syn.headers.len());
            assert_eq!(syn.segment, Segment::parse(&ip, &syn.headers).unwrap());
            assert_eq!((syn.segment.payload_len, syn.segment.seq), (0, 7));
            assert_eq!(syn.options, SynOptions::parse(&segment, &packet));
        }
    }
}
