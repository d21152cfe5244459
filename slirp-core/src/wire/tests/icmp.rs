//! What the guest is told: one test per row of the table, and every emitted byte.

use super::*;
use etherparse::{IcmpEchoHeader, Icmpv4Type, NetSlice, SlicedPacket, TransportSlice};

fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 2, last))
}

fn v6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last))
}

fn udp(guest: IpAddr, remote: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let (guest, remote) = (SocketAddr::new(guest, 1000), SocketAddr::new(remote, 2000));
    emit_udp_quote(&mut packet, guest, remote, payload, payload.len());
    packet
}

macro_rules! rows {
    ($( $name:ident: $error:expr, $protocol:ident => $signal:expr; )+) => {
        $( #[test] fn $name() {
            assert_eq!(GuestSignal::for_error($error, Protocol::$protocol), $signal);
        } )+
    };
}

rows! {
    refused_tcp_gets_reset: HostError::Refused, Tcp => GuestSignal::TcpReset;
    refused_udp_gets_port_unreachable:
        HostError::Refused, Udp => GuestSignal::Icmp(IcmpError::PortUnreachable);
    refused_echo_gets_port_unreachable:
        HostError::Refused, Echo => GuestSignal::Icmp(IcmpError::PortUnreachable);
    reset_tcp_gets_reset: HostError::Reset, Tcp => GuestSignal::TcpReset;
    unreachable_network_is_told_to_tcp:
        HostError::NetworkUnreachable, Tcp => GuestSignal::Icmp(IcmpError::NetworkUnreachable);
    unreachable_network_is_told_to_udp:
        HostError::NetworkUnreachable, Udp => GuestSignal::Icmp(IcmpError::NetworkUnreachable);
    unreachable_host_is_told_to_tcp:
        HostError::HostUnreachable, Tcp => GuestSignal::Icmp(IcmpError::HostUnreachable);
    timed_out_host_is_unreachable:
        HostError::TimedOut, Tcp => GuestSignal::Icmp(IcmpError::HostUnreachable);
    too_large_udp_gets_the_mtu:
        HostError::TooLarge(Some(1400)), Udp => GuestSignal::Icmp(IcmpError::TooBig { mtu: 1400 });
    too_large_udp_without_mtu_gets_zero:
        HostError::TooLarge(None), Udp => GuestSignal::Icmp(IcmpError::TooBig { mtu: 0 });
    too_large_tcp_gets_no_mtu:
        HostError::TooLarge(Some(1400)), Tcp => GuestSignal::Icmp(IcmpError::NetworkUnreachable);
    exhausted_host_is_no_refusal_to_tcp:
        HostError::Exhausted, Tcp => GuestSignal::Icmp(IcmpError::AdministrativelyProhibited);
    exhausted_host_is_silent_to_udp: HostError::Exhausted, Udp => GuestSignal::Silence;
}

#[test]
fn error_of_the_network_is_passed_on_but_never_a_redirect() {
    let mut error = DatagramError {
        remote: "192.0.2.1:33434".parse().unwrap(),
        offender: Some("192.0.2.254".parse().unwrap()),
        icmp_type: 11,
        icmp_code: 0,
        info: 0,
        error: HostError::HostUnreachable,
    };
    let raw = IcmpError::Raw { icmp_type: 11, icmp_code: 0, info: 0 };
    let signal = |error: &DatagramError| GuestSignal::for_datagram_error(error, Protocol::Udp);
    assert_eq!(signal(&error), GuestSignal::Icmp(raw));
    for icmp_type in [0, 5, 8] {
        error.icmp_type = icmp_type;
        assert_eq!(signal(&error), GuestSignal::Icmp(IcmpError::HostUnreachable));
    }
    error.icmp_type = 11;
    error.offender = None;
    assert_eq!(signal(&error), GuestSignal::Icmp(IcmpError::HostUnreachable));
}

#[test]
fn every_error_has_its_numbers_and_no_stale_byte() {
    let raw = IcmpError::Raw { icmp_type: 3, icmp_code: 4, info: 1300 };
    for (error, ipv4, ipv6) in [
        (IcmpError::NetworkUnreachable, [3, 0, 0, 0], [1, 0, 0, 0]),
        (IcmpError::HostUnreachable, [3, 1, 0, 0], [1, 3, 0, 0]),
        (IcmpError::PortUnreachable, [3, 3, 0, 0], [1, 4, 0, 0]),
        (IcmpError::AdministrativelyProhibited, [3, 13, 0, 0], [1, 1, 0, 0]),
        (IcmpError::TooBig { mtu: 1400 }, [3, 4, 5, 120], [2, 0, 5, 120]),
        (IcmpError::TooBig { mtu: 0 }, [3, 4, 0, 0], [2, 0, 5, 0]),
        (IcmpError::TimeExceeded, [11, 0, 0, 0], [3, 0, 0, 0]),
        (IcmpError::ReassemblyTimeExceeded, [11, 1, 0, 0], [3, 1, 0, 0]),
        (raw, [3, 4, 5, 20], [3, 4, 5, 20]),
    ] {
        for (from, to, numbers, at) in [(v4(2), v4(100), ipv4, 20), (v6(2), v6(100), ipv6, 40)] {
            let offending = udp(to, from, b"question");
            let mut out = vec![0xff; 2000];
            out.clear();
            emit_error(&mut out, error, from, to, &offending);
            let icmp = &out[at..];
            assert_eq!([icmp[0], icmp[1], icmp[6], icmp[7]], numbers, "{error:?}");
            assert_eq!(icmp[4..6], [0, 0], "{error:?}");
            assert_eq!(icmp[8..], offending);
            let located = Located::parse(&out).unwrap();
            assert!(located.pair.is_icmp_checksum_valid(icmp));
            assert!(SlicedPacket::from_ip(&out).is_ok());
        }
    }
}

#[test]
fn error_headers_say_network_control_and_full_hop_limit() {
    let mut out = Vec::new();
    emit_error(&mut out, IcmpError::PortUnreachable, v4(2), v4(100), &udp(v4(100), v4(2), b""));
    let Some(NetSlice::Ipv4(ip)) = SlicedPacket::from_ip(&out).unwrap().net else { panic!() };
    let header = ip.header().to_header();
    assert_eq!((header.time_to_live, out[1]), (255, 0xc0));
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    assert_eq!(header.source, [10, 0, 2, 2]);
}

#[test]
fn long_packets_are_quoted_up_to_the_least_mtu() {
    for (from, to, len) in [(v4(2), v4(100), 576), (v6(2), v6(100), 1280)] {
        let mut out = Vec::new();
        emit_error(&mut out, IcmpError::HostUnreachable, from, to, &udp(to, from, &[7; 3000]));
        assert_eq!(out.len(), len);
    }
}

#[test]
fn padding_behind_the_packet_is_not_quoted() {
    let mut offending = udp(v4(100), v4(2), b"x");
    let len = offending.len();
    offending.resize(60, 0xee);
    let mut out = Vec::new();
    emit_error(&mut out, IcmpError::HostUnreachable, v4(2), v4(100), &offending);
    assert_eq!(out.len(), 28 + len);
}

#[test]
fn ordinary_packets_may_be_reported_and_these_may_not() {
    let from = |source: IpAddr| udp(source, v4(2), b"x");
    assert!(may_report(&from(v4(100))));
    assert!(may_report(&udp(v6(100), v6(2), b"x")));
    for source in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1"] {
        assert!(!may_report(&from(source.parse().unwrap())), "{source}");
    }
    for destination in ["224.0.0.1", "255.255.255.255"] {
        assert!(!may_report(&udp(v4(100), destination.parse().unwrap(), b"x")));
    }
    assert!(!may_report(&udp(v6(100), "ff02::1".parse().unwrap(), b"x")));
    assert!(!may_report(&udp("::".parse().unwrap(), v6(2), b"x")));

    let mut fragment = from(v4(100));
    fragment[6] = 0x20;
    assert!(may_report(&fragment), "the first fragment");
    fragment[7] = 1;
    assert!(!may_report(&fragment), "another fragment");

    for (guest, ours) in [(v4(100), v4(2)), (v6(100), v6(2))] {
        let mut echo = Vec::new();
        emit_echo_reply(&mut echo, guest, ours, 1, 1, b"x", 64).unwrap();
        assert!(may_report(&echo));
        let mut error = Vec::new();
        emit_error(&mut error, IcmpError::PortUnreachable, guest, ours, &udp(ours, guest, b"x"));
        assert!(!may_report(&error));
    }
}

#[test]
fn echo_reply_is_what_another_parser_expects() {
    let mut out = vec![0xff; 5];
    emit_echo_reply(&mut out, v4(2), v4(100), 0x1234, 9, b"payload", 61).unwrap();
    let sliced = SlicedPacket::from_ip(&out[5..]).unwrap();
    let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!() };
    assert_eq!(icmp.icmp_type(), Icmpv4Type::EchoReply(IcmpEchoHeader { id: 0x1234, seq: 9 }));
    assert_eq!(icmp.payload(), b"payload");
}

#[test]
fn echo_reply_beyond_a_packet_is_refused() {
    let mut out = Vec::new();
    let result = emit_echo_reply(&mut out, v4(2), v4(100), 1, 1, &[0; 65_508], 255);
    assert_eq!(result, Err(DiscardReason::HostDatagramTooLarge));
    assert!(out.is_empty());
    assert!(emit_echo_reply(&mut out, v4(2), v4(100), 1, 1, &[0; 65_507], 255).is_ok());
}

#[test]
fn quote_of_a_cut_payload_announces_the_whole() {
    let (guest, remote) = ("10.0.2.100:1000".parse().unwrap(), "192.0.2.1:53".parse().unwrap());
    let mut out = Vec::new();
    emit_udp_quote(&mut out, guest, remote, b"prefix", 1000);
    assert_eq!(out.len(), 28 + 6);
    assert_eq!(u16_at(&out, 2), 1028);
    assert_eq!(u16_at(&out, 24), 1008);
    assert_eq!(out[26..28], [0, 0]);
}

#[test]
fn quote_of_a_whole_payload_has_a_real_checksum() {
    for (guest, remote) in [(v4(100), v4(2)), (v6(100), v6(2))] {
        let packet = udp(guest, remote, b"question");
        let sliced = SlicedPacket::from_ip(&packet).unwrap();
        let Some(TransportSlice::Udp(slice)) = sliced.transport else { panic!() };
        let header = slice.to_header();
        let expected = match sliced.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                header.calc_checksum_ipv4(&ip.header().to_header(), slice.payload())
            }
            NetSlice::Ipv6(ip) => {
                header.calc_checksum_ipv6(&ip.header().to_header(), slice.payload())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(Ok(header.checksum), expected.map_err(|_| ()));
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_quoted_and_judged(bytes: Vec<u8>, version in 0_u8..3, family: bool) {
        let mut bytes = bytes;
        match (bytes.first_mut(), version) {
            (Some(first), 1) => *first = 0x45,
            (Some(first), 2) => *first = 0x60,
            _ => {}
        }
        let _ = may_report(&bytes);
        let (from, to) = if family { (v4(2), v4(100)) } else { (v6(2), v6(100)) };
        let mut out = Vec::new();
        emit_error(&mut out, IcmpError::HostUnreachable, from, to, &bytes);
        assert!(Located::parse(&out).is_ok_and(|located| located.packet.len() == out.len()));
    }
}
