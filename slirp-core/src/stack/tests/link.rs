//! The services of the link, frame by frame through the whole stack.

use core::net::SocketAddr;

use crate::config::{Offload, StackConfig};
use crate::discard::DiscardReason;
use crate::mac::MacAddr;
use crate::plan::{AddressPlan, Ipv6Plan};
use crate::stack::Stack;
use crate::time::Instant;
use crate::wire::frame::{IpHeader, is_transport_checksum_valid};
use crate::wire::udp::emit_datagram;
use crate::wire::vnet::VNET_HEADER_LEN;

const NOW: Instant = Instant::ZERO;
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn stack() -> Stack {
    let plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
    Stack::new(StackConfig { plan, ..StackConfig::default() })
}

/// A frame of the guest with one datagram.
fn frame(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut frame = [[0xff; 6], GUEST_MAC].concat();
    frame.extend_from_slice(if from.is_ipv4() { &[8, 0] } else { &[0x86, 0xdd] });
    emit_datagram(&mut frame, from, to, 64, 0, payload).unwrap();
    frame
}

/// A DHCP message of the given type.
fn dhcp(kind: u8) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[28..34].copy_from_slice(&GUEST_MAC);
    message.extend_from_slice(&[99, 130, 83, 99, 53, 1, kind, 255]);
    message
}

/// Gives the stack a frame that must lend nothing and open no flow; returns its only answer.
fn exchange(stack: &mut Stack, mut frame: Vec<u8>) -> Option<Vec<u8>> {
    assert!(stack.handle_frame(&mut frame, NOW).is_none());
    assert!(stack.poll_action().is_none());
    assert_eq!(stack.stats().flows, 0);
    let answer = stack.poll_frame(NOW).map(<[u8]>::to_vec);
    assert!(stack.poll_frame(NOW).is_none());
    answer
}

#[test]
fn guest_without_an_address_gets_one_by_broadcast() {
    for to in ["255.255.255.255:67", "10.0.2.2:67"] {
        let mut stack = stack();
        for (kind, expected) in [(1, 2), (3, 5)] {
            let answer = exchange(&mut stack, frame("0.0.0.0:68", to, &dhcp(kind))).unwrap();
            assert_eq!(answer[..14], [255, 255, 255, 255, 255, 255, 0x52, 0x55, 10, 0, 2, 2, 8, 0]);
            assert_eq!(answer.len(), 14 + 20 + 8 + 548);
            assert_eq!(answer[42 + 242], expected);
            assert_eq!(answer[42 + 16..][..4], [10, 0, 2, 15]);
        }
        assert_eq!(stack.stats().discards.total(), 0);
    }
}

#[test]
fn lease_is_learnt_with_its_client_but_an_offer_is_not() {
    let mut stack = stack();
    let leased = "10.0.2.15".parse().unwrap();
    exchange(&mut stack, frame("0.0.0.0:68", "255.255.255.255:67", &dhcp(1)));
    assert_eq!(stack.link.mac_of(leased), None);
    exchange(&mut stack, frame("0.0.0.0:68", "255.255.255.255:67", &dhcp(3)));
    assert_eq!(stack.link.mac_of(leased), Some(MacAddr(GUEST_MAC)));
}

#[test]
fn dhcp_goes_on_where_the_host_loopback_is_closed() {
    let mut config = StackConfig::default();
    config.policy.allow_host_loopback = false;
    let mut stack = Stack::new(config);
    let answer = exchange(&mut stack, frame("10.0.2.15:68", "10.0.2.2:67", &dhcp(3)));
    assert!(answer.is_some());
}

#[test]
fn dhcp_reply_is_complete_where_checksums_may_be_left_to_the_device() {
    let config = StackConfig { offload: Offload::FULL, ..StackConfig::default() };
    let mut stack = Stack::new(config);
    let plain = frame("0.0.0.0:68", "255.255.255.255:67", &dhcp(1));
    let answer = exchange(&mut stack, [&[0; VNET_HEADER_LEN], &plain[..]].concat()).unwrap();
    // No "needs checksum" in the virtio-net header: clients look at packets, not at headers.
    assert_eq!(answer[..VNET_HEADER_LEN], [0; VNET_HEADER_LEN]);
    let packet = &answer[VNET_HEADER_LEN + 14..];
    let ip = IpHeader::parse(packet).unwrap();
    assert!(is_transport_checksum_valid(&ip, &packet[20..]));
}

#[test]
fn address_without_a_sender_speaks_to_dhcp_only() {
    for (from, to) in [
        ("0.0.0.0:68", "10.0.2.2:69"),
        ("0.0.0.0:68", "10.0.2.3:53"),
        ("0.0.0.0:68", "192.0.2.1:67"),
        ("0.0.0.0:68", "255.255.255.255:68"),
        ("[::]:546", "[ff02::1:2]:547"),
        ("[::]:546", "[2001:db8::1]:80"),
    ] {
        let mut stack = stack();
        assert_eq!(exchange(&mut stack, frame(from, to, &dhcp(1))), None, "{from} to {to}");
        let refused = stack.stats().discards.value(DiscardReason::SourceAddressInvalid);
        assert_eq!(refused, 1, "{from} to {to}");
    }
}

#[test]
fn short_and_malformed_messages_are_counted() {
    for (to, payload, reason) in [
        ("10.0.2.2:67", &b""[..], DiscardReason::DhcpInvalid),
        ("255.255.255.255:67", &[1, 1, 6], DiscardReason::DhcpInvalid),
        ("10.0.2.2:67", &dhcp(7), DiscardReason::DhcpNotAnswered),
        ("10.0.2.2:69", b"", DiscardReason::TftpNotAnswered),
        ("10.0.2.2:69", b"\0\x03\0\x01", DiscardReason::TftpNotAnswered),
        ("[ff02::1:2]:547", b"", DiscardReason::DhcpInvalid),
        ("[ff02::1:2]:547", b"\x01\0\0\0", DiscardReason::DhcpNotAnswered),
    ] {
        let mut stack = stack();
        let from = if to.starts_with('[') { "[fe80::1]:546" } else { "10.0.2.15:68" };
        assert_eq!(exchange(&mut stack, frame(from, to, payload)), None, "{to}");
        assert_eq!(stack.stats().discards.value(reason), 1, "{to}");
        assert_eq!(stack.stats().discards.total(), 1, "{to}");
    }
}

#[test]
fn file_transfer_is_refused_from_the_address_that_was_asked() {
    for (from, to) in [
        ("10.0.2.15:2000", "10.0.2.2:69"),
        ("[fd00::15]:2000", "[fd00::2]:69"),
        ("[fe80::15]:2000", "[fe80::2]:69"),
    ] {
        let answer = exchange(&mut stack(), frame(from, to, b"\0\x01x\0octet\0")).unwrap();
        let mut expected = frame(to, from, b"\0\x05\0\x02Access violation\0");
        expected[..6].copy_from_slice(&GUEST_MAC);
        expected[6..12].copy_from_slice(if from.starts_with('1') {
            &[0x52, 0x55, 10, 0, 2, 2]
        } else {
            &[0x52, 0x56, 0, 0, 0, 2]
        });
        assert_eq!(answer, expected);
    }
}

#[test]
fn stateless_dhcpv6_answers_the_asker() {
    let message = [11, 0, 0, 1, 0, 6, 0, 2, 0, 23];
    let ask = frame("[fe80::15]:546", "[ff02::1:2]:547", &message);
    let answer = exchange(&mut stack(), ask).unwrap();
    assert_eq!(answer[..12], [2, 0, 0, 0, 0, 1, 0x52, 0x56, 0, 0, 0, 2]);
    assert_eq!(answer[14 + 40 + 8..][..4], [7, 0, 0, 1]);
}

#[test]
fn without_ipv6_nobody_answers_dhcpv6() {
    let mut stack = Stack::new(StackConfig::default());
    let ask = frame("[fe80::15]:546", "[ff02::1:2]:547", &[11, 0, 0, 1]);
    assert_eq!(exchange(&mut stack, ask), None);
    assert_eq!(stack.stats().discards.value(DiscardReason::Ipv6Disabled), 1);
}

#[test]
fn other_ports_of_the_gateway_are_still_the_hosts() {
    let mut stack = stack();
    let mut plain = frame("10.0.2.15:2000", "10.0.2.2:68", b"payload");
    assert!(stack.handle_frame(&mut plain, NOW).is_some());
}
