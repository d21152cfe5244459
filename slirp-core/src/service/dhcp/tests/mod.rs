//! The server, message by message; requests are real ones, cut into rows by field.

mod replies;
mod requests;
mod single;

use core::net::Ipv4Addr;

use super::*;

/// A DHCPDISCOVER, DHCPREQUEST or other request of the client `last` with more options.
pub(super) fn request(kind: u8, last: u8, options: &[u8]) -> Vec<u8> {
    let mut message = bootp(last);
    message.extend_from_slice(&[99, 130, 83, 99, 53, 1, kind]);
    message.extend_from_slice(options);
    message.push(255);
    message
}

/// The fields before the options.
pub(super) fn bootp(last: u8) -> Vec<u8> {
    let mut message = vec![
        1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, // op, htype, hlen, hops, xid
        0, 3, 0x80, 0, // secs, flags: broadcast
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // ciaddr, yiaddr, siaddr, giaddr
        2, 0, 0, 0, 0, last, // chaddr
    ];
    message.resize(236, 0);
    message
}

pub(super) const DISCOVER: u8 = 1;
pub(super) const REQUEST: u8 = 3;

pub(super) fn server() -> DhcpServer {
    DhcpServer::new(&StackConfig::default())
}

/// The message in a reply, whose headers have been checked.
pub(super) fn message(outcome: &DhcpOutcome) -> &[u8] {
    let packet = &outcome.packet;
    assert_eq!(packet.len(), 576);
    assert_eq!(packet[..2], [0x45, 0x10]);
    assert_eq!(packet[8..10], [64, 17]);
    let [a, b, c, d] = packet[16..20] else { unreachable!("four bytes") };
    assert_eq!(
        packet[12..28],
        [10, 0, 2, 2, a, b, c, d, 0, 67, 0, 68, 2, 44, packet[26], packet[27]]
    );
    assert_eq!([a, b, c, d] == [255; 4], outcome.to == MacAddr::BROADCAST);
    &packet[28..]
}

/// Type of a reply and `yiaddr`.
pub(super) fn answer(server: &mut DhcpServer, message: &[u8]) -> Option<(u8, Ipv4Addr)> {
    let outcome = server.handle_message(MacAddr::default(), message, Instant::ZERO).ok()?;
    let reply = self::message(&outcome);
    assert_eq!(reply[240..242], [53, 1]);
    Some((reply[242], Ipv4Addr::new(reply[16], reply[17], reply[18], reply[19])))
}

pub(super) const fn pool(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 2, last)
}
