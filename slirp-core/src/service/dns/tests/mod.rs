//! Scenario and property tests of the DNS service.

mod answers;
mod binding;
mod framing;
mod gate;
mod guest;
mod names;
mod relay;

use core::net::SocketAddr;

use crate::event::{FlowId, QueryOrigin};
use crate::mac::MacAddr;

fn udp_origin(port: u16) -> QueryOrigin {
    QueryOrigin::Udp {
        guest: SocketAddr::from(([10, 0, 2, 100], port)),
        server: SocketAddr::from(([10, 0, 2, 3], 53)),
        guest_mac: MacAddr([2, 0, 0, 0, 0, 1]),
    }
}

fn tcp_origin() -> QueryOrigin {
    QueryOrigin::Tcp { flow: FlowId { index: 7, generation: 3 } }
}

/// A query for `example.test` of type A; `edns` is the UDP size and the DO bit of an OPT record.
fn query(id: u16, edns: Option<(u16, bool)>) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[0x01, 0x10, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())]);
    message.extend_from_slice(b"\x07eXample\x04test\0\0\x01\0\x01");
    if let Some((udp_len, dnssec_ok)) = edns {
        message.extend_from_slice(&[0, 0, 41]);
        message.extend_from_slice(&udp_len.to_be_bytes());
        message.extend_from_slice(&[0, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    }
    message
}

/// An answer to [`query`] with one TXT record of `len` bytes of data and, on demand, an OPT record
/// with one option.
fn answer(id: u16, len: u16, with_opt: bool) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[0x81, 0xb0, 0, 1, 0, 1, 0, 0, 0, u8::from(with_opt)]);
    message.extend_from_slice(b"\x07eXample\x04test\0\0\x01\0\x01");
    message.extend_from_slice(b"\xc0\x0c\0\x10\0\x01\0\0\0\x3c");
    message.extend_from_slice(&len.to_be_bytes());
    message.resize(message.len() + usize::from(len), b'x');
    if with_opt {
        message.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 6, 0, 15, 0, 2, 0, 3]);
    }
    message
}

/// A name in wire format, uncompressed. The empty name is the root.
fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
