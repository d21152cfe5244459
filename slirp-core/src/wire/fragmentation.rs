//! Splits an IP packet that is larger than the guest's MTU.
//!
//! Owns the arithmetic of RFC 791 section 3.2 and RFC 8200 section 4.5. Whether a packet may be
//! fragmented is decided by the caller: a DF flag is not looked at and is cleared.

use core::ops::Range;

use super::ip::{
    FRAGMENT, FRAGMENT_HEADER_LEN, HOP_BY_HOP, IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpPair, Located,
    ROUTING, fill_ipv4_checksum, u16_at,
};

/// The fragments of one packet, in order.
///
/// Empty when the packet is not an IP packet, is already an IPv6 fragment, or when `mtu` leaves no
/// room for eight bytes of payload. A packet that fits is given unchanged.
#[derive(Debug)]
pub struct Fragments<'a> {
    packet: &'a [u8],
    is_ipv6: bool,
    /// Where the part that is split starts.
    split_at: usize,
    /// Offset of the next-header field (IPv6).
    next_header_at: usize,
    /// Payload bytes of every fragment but the last, or `None` for a packet that fits.
    step: Option<usize>,
    ident: u32,
    at: usize,
}

/// Splits `packet` into IP packets of at most `mtu` bytes with the identification `ident` (IPv4
/// uses its lower 16 bits).
///
/// IPv4 options are repeated only where their "copied" flag asks for it (RFC 791 section 3.1).
pub fn fragments(packet: &[u8], mtu: u16, ident: u32) -> Fragments<'_> {
    let nothing = Fragments {
        packet: &[],
        is_ipv6: false,
        split_at: 0,
        next_header_at: 0,
        step: None,
        ident,
        at: 0,
    };
    let Ok(located) = Located::parse(packet) else { return nothing };
    let packet = located.packet;
    let is_ipv6 = matches!(located.pair, IpPair::V6(..));
    let mtu = usize::from(mtu);
    if packet.len() <= mtu {
        return Fragments { packet, is_ipv6, ..nothing };
    }
    let (split_at, next_header_at) =
        if is_ipv6 { per_hop_part(packet) } else { (located.payload_at, 0) };
    let header_len = if is_ipv6 { split_at + FRAGMENT_HEADER_LEN } else { split_at };
    let step = mtu.saturating_sub(header_len) & !7;
    if step == 0 || (is_ipv6 && located.fragment.is_some()) {
        return nothing;
    }
    Fragments { packet, is_ipv6, split_at, next_header_at, step: Some(step), ident, at: split_at }
}

/// Where the part that every fragment carries ends, and where it names what follows: the fixed
/// header, hop-by-hop options and routing headers.
fn per_hop_part(packet: &[u8]) -> (usize, usize) {
    let (mut end, mut named_at) = (IPV6_HEADER_LEN, 6);
    while matches!(packet[named_at], HOP_BY_HOP | ROUTING) {
        let Some(&units) = packet.get(end + 1) else { break };
        let next = end + 8 + usize::from(units) * 8;
        if next > packet.len() {
            break;
        }
        named_at = end;
        end = next;
    }
    (end, named_at)
}

impl Fragments<'_> {
    fn ipv4(&self, part: Range<usize>) -> Vec<u8> {
        let header = &self.packet[..self.split_at];
        let place = u16_at(header, 6);
        let is_first = part.start == self.split_at;
        let is_last = part.end == self.packet.len();
        let mut fragment = header[..IPV4_HEADER_LEN].to_vec();
        let options = &header[IPV4_HEADER_LEN..];
        if is_first {
            fragment.extend_from_slice(options);
        } else {
            push_copied_options(&mut fragment, options);
        }
        let header_len = fragment.len();
        let words = u8::try_from(header_len / 4).unwrap_or(5);
        fragment[0] = 0x40 | words;
        let total = u16::try_from(header_len + part.len()).unwrap_or(u16::MAX);
        fragment[2..4].copy_from_slice(&total.to_be_bytes());
        let [_, _, i0, i1] = self.ident.to_be_bytes();
        fragment[4..6].copy_from_slice(&[i0, i1]);
        let units = u16::try_from((part.start - self.split_at) / 8).unwrap_or(u16::MAX);
        let offset = (place & 0x1fff).saturating_add(units) & 0x1fff;
        let more = if is_last { place & 0x2000 } else { 0x2000 };
        fragment[6..8].copy_from_slice(&(offset | more).to_be_bytes());
        fill_ipv4_checksum(&mut fragment);
        fragment.extend_from_slice(&self.packet[part]);
        fragment
    }

    fn ipv6(&self, part: Range<usize>) -> Vec<u8> {
        let mut fragment = self.packet[..self.split_at].to_vec();
        let next = fragment[self.next_header_at];
        fragment[self.next_header_at] = FRAGMENT;
        let len = self.split_at - IPV6_HEADER_LEN + FRAGMENT_HEADER_LEN + part.len();
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        fragment[4..6].copy_from_slice(&len.to_be_bytes());
        let offset = u16::try_from(part.start - self.split_at).unwrap_or(u16::MAX) & 0xfff8;
        let place = offset | u16::from(part.end < self.packet.len());
        fragment.extend_from_slice(&[next, 0]);
        fragment.extend_from_slice(&place.to_be_bytes());
        fragment.extend_from_slice(&self.ident.to_be_bytes());
        fragment.extend_from_slice(&self.packet[part]);
        fragment
    }
}

/// Appends the options whose "copied" flag is set, padded to a multiple of four bytes.
fn push_copied_options(out: &mut Vec<u8>, mut options: &[u8]) {
    while let Some(&kind) = options.first() {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => options.get(1).copied().map_or(0, usize::from),
        };
        let Some((option, rest)) = options.split_at_checked(len) else { break };
        if len == 0 || (kind != 1 && len < 2) {
            break;
        }
        if kind & 0x80 != 0 {
            out.extend_from_slice(option);
        }
        options = rest;
    }
    out.resize(out.len().next_multiple_of(4), 0);
}

impl Iterator for Fragments<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.at >= self.packet.len() {
            return None;
        }
        let Some(step) = self.step else {
            self.at = self.packet.len();
            return Some(self.packet.to_vec());
        };
        let part = self.at..self.packet.len().min(self.at + step);
        self.at = part.end;
        Some(if self.is_ipv6 { self.ipv6(part) } else { self.ipv4(part) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiny_mtu_gives_nothing_instead_of_an_endless_number() {
        let mut packet = vec![0; 100];
        packet[0] = 0x45;
        packet[3] = 100;
        assert_eq!(fragments(&packet, 27, 0).count(), 0);
        assert_eq!(fragments(&packet, 28, 0).count(), 10);
    }

    #[test]
    fn options_without_the_copied_flag_stay_in_the_first_fragment() {
        let mut packet = vec![0; 100];
        packet[0] = 0x48;
        packet[3] = 100;
        // Record route (not copied), then router alert (copied).
        packet[20..32].copy_from_slice(&[7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 0]);
        let parts: Vec<_> = fragments(&packet, 64, 7).collect();
        assert_eq!(parts[0][0], 0x48);
        assert_eq!(parts[1][0], 0x46);
        assert_eq!(parts[1][20..24], [148, 4, 0, 0]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_split_or_refused(bytes: Vec<u8>, mtu: u16, version in 0_u8..2) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = if version == 0 { 0x45 } else { 0x60 };
            }
            for fragment in fragments(&bytes, mtu, 1) {
                assert!(fragment.len() <= usize::from(mtu));
            }
        }
    }
}
