//! Names that a guest learns, so that its egress policy has addresses bound to them.
//!
//! Owns a name server that knows every name below [`ZONE`], and its client in the guest. Question
//! to the client: `learn COUNT`, answered with the number of names that were answered.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use super::{ANY_PORT, arg, operand};
use crate::worker::{self, Reply};

pub(crate) const SERVER: &str = "name-server";
pub(crate) const CLIENT: &str = "name-client";
/// All names are one label below it.
pub(crate) const ZONE: &str = "names.example";

/// The first of the addresses that names have, one each. To a policy they are public ones, and
/// nothing is sent there.
const FIRST: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 0);
/// Header of a DNS message (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// A lost datagram is sent again after this long; arbitrary.
const AGAIN: Duration = Duration::from_millis(500);
/// How often; arbitrary.
const ATTEMPTS: u32 = 10;

/// Answers each query with one address that depends on the name's number.
pub(crate) fn serve() -> anyhow::Result<()> {
    let socket = UdpSocket::bind(ANY_PORT).context("bind")?;
    let port = socket.local_addr()?.port();
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((len, client)) = socket.recv_from(&mut query) {
            if let Some(answer) = answer(&query[..len]) {
                // A client that has gone asks again.
                let _ = socket.send_to(&answer, client);
            }
        }
    });
    worker::serve(&Reply::default().with("port", port.into()), |_| Ok(Reply::default()))
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let label_len = usize::from(*query.get(HEADER)?);
    let label = query.get(HEADER + 1..HEADER + 1 + label_len)?;
    let number: u32 = std::str::from_utf8(label).ok()?.strip_prefix('n')?.parse().ok()?;
    let end = HEADER + query.get(HEADER..)?.iter().position(|&byte| byte == 0)? + 5;
    let mut answer = query.get(..end)?.to_vec();
    // A response without an error: one question, one answer, nothing else.
    answer[2..HEADER].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    let address = Ipv4Addr::from_bits(FIRST.to_bits().checked_add(number)?);
    // The name of the question, A, IN, an hour, four bytes.
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4]);
    answer.extend_from_slice(&address.octets());
    Some(answer)
}

/// Looks names up, one after the other.
pub(crate) fn call(args: &[String]) -> anyhow::Result<()> {
    let server: SocketAddr = arg(args, 0)?.parse().context("odd address")?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("bind")?;
    socket.connect(server).context("connect")?;
    socket.set_read_timeout(Some(AGAIN))?;
    worker::serve(&Reply::default(), |question| {
        let count = operand(question)?;
        for number in 0..count {
            learn(&socket, u16::try_from(number)?).with_context(|| format!("name {number}"))?;
        }
        Ok(Reply::default().with("learned", count))
    })
}

fn learn(socket: &UdpSocket, number: u16) -> anyhow::Result<()> {
    let mut query = number.to_be_bytes().to_vec();
    query.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in format!("n{number}.{ZONE}").split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    let mut answer = [0; 512];
    for _ in 0..ATTEMPTS {
        socket.send(&query).context("send")?;
        while let Ok(len) = socket.recv(&mut answer) {
            if answer[..2] == query[..2] && len > query.len() {
                if answer[3] & 0x0f != 0 || answer[7] == 0 {
                    bail!("the name was refused");
                }
                return Ok(());
            }
        }
    }
    bail!("no answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_an_address_of_its_own() {
        let query = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
                      \x04n258\x05names\x07example\x00\x00\x01\x00\x01";
        let answer = answer(query).unwrap();
        assert_eq!(answer[..4], [0, 7, 0x81, 0x80]);
        assert_eq!(answer[answer.len() - 4..], [20, 0, 1, 2]);
        assert!(super::answer(b"short").is_none());
    }
}
