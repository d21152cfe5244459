//! ICMP and ICMPv6 messages that the guest is told.
//!
//! Owns the table from a host socket's failure to what the guest sees ([`GuestSignal`]), and the
//! bytes of error messages and echo replies (RFC 792, RFC 1122 section 3.2.2, RFC 1191, RFC 1812
//! section 4.3, RFC 4443). Every byte is written: smoltcp's emitter leaves four bytes of an error
//! as it found them and makes up the quoted header. Rate limits are left to the callers.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::RangeInclusive;

use smoltcp::wire::checksum;

use super::ip::{
    HeaderFields, IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpPair, Located, PROTOCOL_ICMP,
    PROTOCOL_ICMPV6, PROTOCOL_UDP, u16_at,
};
use crate::discard::DiscardReason;
use crate::event::{DatagramError, HostError};
use crate::policy::Protocol;

/// Length of the header of an ICMP message in bytes: type, code, checksum, and four bytes that
/// depend on the type.
pub(crate) const ICMP_HEADER_LEN: usize = 8;
/// Type of an ICMPv4 redirect (RFC 792).
pub(crate) const ICMPV4_REDIRECT: u8 = 5;
/// Type of an ICMPv4 echo request (RFC 792).
pub(crate) const ICMPV4_ECHO_REQUEST: u8 = 8;
/// Type of an ICMPv6 echo request (RFC 4443 section 4.1).
pub(crate) const ICMPV6_ECHO_REQUEST: u8 = 128;
/// Types of neighbour discovery (RFC 4861 section 4).
pub(crate) const ROUTER_SOLICITATION: u8 = 133;
pub(crate) const ROUTER_ADVERTISEMENT: u8 = 134;
pub(crate) const NEIGHBOR_SOLICITATION: u8 = 135;
pub(crate) const NEIGHBOR_ADVERTISEMENT: u8 = 136;
pub(crate) const NEIGHBOR_REDIRECT: u8 = 137;
/// All of them.
pub(crate) const NDP_TYPES: RangeInclusive<u8> = ROUTER_SOLICITATION..=NEIGHBOR_REDIRECT;

/// Hop limit of ICMP messages that we send ourselves, as libslirp has it.
pub(crate) const ICMP_HOP_LIMIT: u8 = 255;

/// Precedence 6, "internetwork control", of ICMPv4 errors (RFC 1812 section 4.3.2.5).
const ERROR_TOS: u8 = 0xc0;
/// How much of a packet an ICMPv4 error quotes, so that the message has at most 576 bytes
/// (RFC 1812 section 4.3.2.3).
const QUOTE_CAP_V4: usize = 576 - IPV4_HEADER_LEN - ICMP_HEADER_LEN;
/// How much of a packet an ICMPv6 error quotes, so that the message has at most 1,280 bytes
/// (RFC 4443 section 2.4(c)).
const QUOTE_CAP_V6: usize = IPV6_MIN_MTU as usize - IPV6_HEADER_LEN - ICMP_HEADER_LEN;
/// Least MTU of an IPv6 link (RFC 8200 section 5).
const IPV6_MIN_MTU: u16 = 1280;
/// Hop limit in a header that is made up to be quoted; the true one is not known any more.
const QUOTED_HOP_LIMIT: u8 = 64;

/// What the guest is told when its packet could not be relayed.
///
/// | error of the host | TCP guest | UDP or echo guest |
/// | --- | --- | --- |
/// | refused, reset | RST | port unreachable |
/// | host unreachable, timed out | host unreachable | host unreachable |
/// | network unreachable | network unreachable | network unreachable |
/// | too large | network unreachable | too big, with the MTU |
/// | exhausted, as a full table of ours is | administratively prohibited | silence |
///
/// A refusal of ours must not look like the remote's word, so it is no reset. connect(2) of a Linux
/// guest fails at once with `EHOSTUNREACH` (IPv6: `EACCES`) then; silence would leave a program
/// without an answer for two minutes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GuestSignal {
    /// A TCP segment with RST.
    TcpReset,
    /// An ICMP error about the packet.
    Icmp(IcmpError),
    /// Nothing: lost, as datagrams may be.
    Silence,
}

impl GuestSignal {
    /// What the guest is told when a host socket of `protocol` failed with `error`.
    pub(crate) const fn for_error(error: HostError, protocol: Protocol) -> Self {
        match (error, protocol) {
            (HostError::Refused | HostError::Reset, Protocol::Tcp) => Self::TcpReset,
            (HostError::Refused | HostError::Reset, Protocol::Udp | Protocol::Echo) => {
                Self::Icmp(IcmpError::PortUnreachable)
            }
            (HostError::NetworkUnreachable, _) => Self::Icmp(IcmpError::NetworkUnreachable),
            (HostError::HostUnreachable | HostError::TimedOut, _) => {
                Self::Icmp(IcmpError::HostUnreachable)
            }
            // The guest's TCP connection is terminated here, so the host's path MTU does not
            // concern it: the guest would only shrink its segments towards us.
            (HostError::TooLarge(_), Protocol::Tcp) => Self::Icmp(IcmpError::NetworkUnreachable),
            (HostError::TooLarge(mtu), Protocol::Udp | Protocol::Echo) => {
                // Zero says "not known" (RFC 1191 section 3).
                let mtu = match mtu {
                    Some(mtu) => mtu,
                    None => 0,
                };
                Self::Icmp(IcmpError::TooBig { mtu })
            }
            // A program that is told at once can act; a program whose SYNs vanish hangs for
            // minutes. A reset would claim that the remote refused, which it did not.
            (HostError::Exhausted, Protocol::Tcp) => {
                Self::Icmp(IcmpError::AdministrativelyProhibited)
            }
            (HostError::Exhausted, Protocol::Udp | Protocol::Echo) => Self::Silence,
        }
    }

    /// What the guest is told about an entry of a host socket's error queue: the message of the
    /// network itself when it was an error from there, otherwise as [`for_error`](Self::for_error).
    pub(crate) const fn for_datagram_error(error: &DatagramError, protocol: Protocol) -> Self {
        let is_error = match error.remote {
            SocketAddr::V4(_) => matches!(error.icmp_type, 3 | 11 | 12),
            SocketAddr::V6(_) => matches!(error.icmp_type, 1..=4),
        };
        if error.offender.is_some() && is_error {
            Self::Icmp(IcmpError::Raw {
                icmp_type: error.icmp_type,
                icmp_code: error.icmp_code,
                info: error.info,
            })
        } else {
            Self::for_error(error.error, protocol)
        }
    }
}

/// An ICMP error message, in words that hold for both families.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IcmpError {
    /// ICMP 3/0, ICMPv6 1/0 (no route to destination).
    NetworkUnreachable,
    /// ICMP 3/1, ICMPv6 1/3 (address unreachable).
    HostUnreachable,
    /// ICMP 3/3, ICMPv6 1/4.
    PortUnreachable,
    /// ICMP 3/13, ICMPv6 1/1.
    AdministrativelyProhibited,
    /// ICMP 3/4, ICMPv6 2/0.
    TooBig {
        /// MTU of the next hop in bytes; 0 when it is not known. ICMPv6 announces at least 1,280,
        /// because everything below is ignored (RFC 8201 section 4).
        mtu: u16,
    },
    /// ICMP 11/0, ICMPv6 3/0 (in transit).
    TimeExceeded,
    /// ICMP 11/1, ICMPv6 3/1 (in reassembly).
    ReassemblyTimeExceeded,
    /// As it came from the network, in numbers of the family that it came by.
    Raw {
        /// Type.
        icmp_type: u8,
        /// Code.
        icmp_code: u8,
        /// The four bytes behind the checksum: the MTU of "too big", the pointer of an ICMPv6
        /// "parameter problem", otherwise 0.
        info: u32,
    },
}

impl IcmpError {
    /// Type, code and the four bytes behind the checksum.
    const fn ipv4(self) -> (u8, u8, u32) {
        match self {
            Self::NetworkUnreachable => (3, 0, 0),
            Self::HostUnreachable => (3, 1, 0),
            Self::PortUnreachable => (3, 3, 0),
            Self::AdministrativelyProhibited => (3, 13, 0),
            Self::TooBig { mtu } => (3, 4, mtu as u32),
            Self::TimeExceeded => (11, 0, 0),
            Self::ReassemblyTimeExceeded => (11, 1, 0),
            Self::Raw { icmp_type, icmp_code, info } => (icmp_type, icmp_code, info),
        }
    }

    /// Type, code and the four bytes behind the checksum.
    const fn ipv6(self) -> (u8, u8, u32) {
        match self {
            Self::NetworkUnreachable => (1, 0, 0),
            Self::HostUnreachable => (1, 3, 0),
            Self::PortUnreachable => (1, 4, 0),
            Self::AdministrativelyProhibited => (1, 1, 0),
            Self::TooBig { mtu } => {
                (2, 0, if mtu < IPV6_MIN_MTU { IPV6_MIN_MTU as u32 } else { mtu as u32 })
            }
            Self::TimeExceeded => (3, 0, 0),
            Self::ReassemblyTimeExceeded => (3, 1, 0),
            Self::Raw { icmp_type, icmp_code, info } => (icmp_type, icmp_code, info),
        }
    }
}

/// Appends one IP packet with `error` about `offending`, the guest's IP packet from its IP header
/// on.
///
/// The family is that of `from` and `to`; when they differ, nothing is appended. The quote is what
/// the packet announces as its length, cut so that the message has at most 576 bytes (IPv4) or
/// 1,280 bytes (IPv6). TTL 255, TOS 0xc0 with IPv4.
pub(crate) fn emit_error(
    out: &mut Vec<u8>,
    error: IcmpError,
    from: IpAddr,
    to: IpAddr,
    offending: &[u8],
) {
    let Some(pair) = IpPair::new(from, to) else { return };
    let offending = &offending[..announced_len(offending)];
    let ((icmp_type, icmp_code, info), cap, protocol, traffic_class) = match pair {
        IpPair::V4(..) => (error.ipv4(), QUOTE_CAP_V4, PROTOCOL_ICMP, ERROR_TOS),
        IpPair::V6(..) => (error.ipv6(), QUOTE_CAP_V6, PROTOCOL_ICMPV6, 0),
    };
    let quote = &offending[..offending.len().min(cap)];
    let fields = HeaderFields { protocol, hop_limit: ICMP_HOP_LIMIT, traffic_class };
    pair.emit_header(out, fields, 8 + quote.len());
    let at = out.len();
    out.extend_from_slice(&[icmp_type, icmp_code, 0, 0]);
    out.extend_from_slice(&info.to_be_bytes());
    out.extend_from_slice(quote);
    pair.fill_icmp_checksum(&mut out[at..]);
}

/// The length that the packet announces, at most what is there.
fn announced_len(packet: &[u8]) -> usize {
    let announced = match packet.first().map(|first| first >> 4) {
        Some(4) => usize::from(u16_at(packet, 2)),
        Some(6) => 40 + usize::from(u16_at(packet, 4)),
        Some(_) | None => packet.len(),
    };
    announced.min(packet.len())
}

/// Whether an ICMP error may be sent about `offending`, an IP packet from its IP header on.
///
/// Never about an ICMP error or redirect, a fragment other than the first, a packet to a group or
/// broadcast address, or one whose source does not name a single host (RFC 1122 section 3.2.2,
/// RFC 4443 section 2.4(e)). A packet that cannot be read that far is not reported either. The
/// directed broadcast address of a subnet is not known here.
pub(crate) fn may_report(offending: &[u8]) -> bool {
    let Ok(located) = Located::parse(offending) else { return false };
    if located.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return false;
    }
    let (single_host, icmp_type) = match located.pair {
        IpPair::V4(source, destination) => {
            let single = is_single_ipv4_host(source)
                && !destination.is_multicast()
                && !destination.is_broadcast();
            (single, (located.protocol == PROTOCOL_ICMP).then(|| located.payload().first()))
        }
        IpPair::V6(source, destination) => {
            let single = is_single_ipv6_host(source) && !destination.is_multicast();
            (single, (located.protocol == PROTOCOL_ICMPV6).then(|| located.payload().first()))
        }
    };
    let is_ipv4 = matches!(located.pair, IpPair::V4(..));
    single_host
        && match icmp_type {
            None => true,
            Some(None) => false,
            // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
            Some(Some(&icmp_type)) if is_ipv4 => !matches!(icmp_type, 3 | 4 | 5 | 11 | 12),
            // Informational messages have the high bit set; 137 is redirect.
            Some(Some(&icmp_type)) => icmp_type >= 128 && icmp_type != 137,
        }
}

/// Neither zero, loopback, group, broadcast nor class E.
const fn is_single_ipv4_host(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..=255)
}

const fn is_single_ipv6_host(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

/// Appends one IP packet with an echo reply.
///
/// The family is that of `from` and `to`; when they differ, nothing is appended.
///
/// # Errors
/// [`DiscardReason::HostDatagramTooLarge`] when `payload` does not fit into an IP packet; then
/// nothing is appended.
pub(crate) fn emit_echo_reply(
    out: &mut Vec<u8>,
    from: IpAddr,
    to: IpAddr,
    ident: u16,
    sequence: u16,
    payload: &[u8],
    hop_limit: u8,
) -> Result<(), DiscardReason> {
    let Some(pair) = IpPair::new(from, to) else { return Ok(()) };
    if 8 + payload.len() > pair.payload_cap() {
        return Err(DiscardReason::HostDatagramTooLarge);
    }
    let icmp_type = match pair {
        IpPair::V4(..) => 0,
        IpPair::V6(..) => 129,
    };
    emit_echo(out, pair, icmp_type, (ident, sequence), payload, hop_limit);
    Ok(())
}

/// Appends an echo request of the guest without its data, to be quoted in an error. When the
/// families of `guest` and `remote` differ, nothing is appended.
pub(crate) fn emit_echo_quote(
    out: &mut Vec<u8>,
    guest: IpAddr,
    remote: IpAddr,
    ident: u16,
    sequence: u16,
) {
    let Some(pair) = IpPair::new(guest, remote) else { return };
    let icmp_type = match pair {
        IpPair::V4(..) => 8,
        IpPair::V6(..) => 128,
    };
    emit_echo(out, pair, icmp_type, (ident, sequence), &[], QUOTED_HOP_LIMIT);
}

fn emit_echo(
    out: &mut Vec<u8>,
    pair: IpPair,
    icmp_type: u8,
    (ident, sequence): (u16, u16),
    payload: &[u8],
    hop_limit: u8,
) {
    let protocol = match pair {
        IpPair::V4(..) => PROTOCOL_ICMP,
        IpPair::V6(..) => PROTOCOL_ICMPV6,
    };
    let len = 8 + payload.len();
    out.reserve(pair.header_len() + len);
    pair.emit_header(out, HeaderFields { protocol, hop_limit, traffic_class: 0 }, len);
    let at = out.len();
    out.extend_from_slice(&[icmp_type, 0, 0, 0]);
    out.extend_from_slice(&ident.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(payload);
    pair.fill_icmp_checksum(&mut out[at..]);
}

/// Appends the start of a UDP packet of the guest, rebuilt from what a host socket's error queue
/// knows, to be quoted in an error.
///
/// `payload_prefix` is what is left of a payload of `payload_len` bytes. The checksum is real when
/// the payload is whole and zero otherwise; receivers of an error do not check it. When the
/// families of `guest` and `remote` differ, nothing is appended.
pub(crate) fn emit_udp_quote(
    out: &mut Vec<u8>,
    guest: SocketAddr,
    remote: SocketAddr,
    payload_prefix: &[u8],
    payload_len: usize,
) {
    let Some(pair) = IpPair::new(guest.ip(), remote.ip()) else { return };
    let len = (8 + payload_len.max(payload_prefix.len())).min(pair.payload_cap());
    let fields =
        HeaderFields { protocol: PROTOCOL_UDP, hop_limit: QUOTED_HOP_LIMIT, traffic_class: 0 };
    pair.emit_header(out, fields, len);
    let at = out.len();
    let announced = u16::try_from(len).unwrap_or(u16::MAX);
    out.extend_from_slice(&guest.port().to_be_bytes());
    out.extend_from_slice(&remote.port().to_be_bytes());
    out.extend_from_slice(&announced.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&payload_prefix[..payload_prefix.len().min(len - 8)]);
    if out.len() - at == usize::from(announced) {
        let pseudo = pair.pseudo_header_sum(PROTOCOL_UDP, announced);
        let sum = !checksum::combine(&[pseudo, checksum::data(&out[at..])]);
        // A sum of zero would say "no checksum" (RFC 768).
        let sum = if sum == 0 { u16::MAX } else { sum };
        out[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
#[path = "tests/icmp.rs"]
mod tests;
