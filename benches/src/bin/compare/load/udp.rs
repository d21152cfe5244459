//! UDP as fast as the sender can: 1400-byte datagrams, counted where they arrive.
//!
//! Owns both ends. The client (in the guest) always speaks first, because only then does a stack
//! have a mapping to answer through. With `gso` the sender hands the kernel many datagrams in one
//! call (`UDP_SEGMENT`, udp(7)).
//!
//! Arguments: `listen|ADDRESS:PORT send|receive plain|gso`. Questions: `mark`, `resume`, `pause`.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, bail};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;

use super::gate::Progress;
use super::{ANY_PORT, arg};
use crate::worker::{self, Reply};

pub(crate) const LOAD: &str = "udp";

/// Payload of a datagram in bytes: it fits an MTU of 1500 with room to spare.
const DATAGRAM: i32 = 1400;
/// Datagrams handed over in one call with `gso`: the most that stays below 65,507 bytes.
const BATCH: usize = 45;
/// The requested receive buffer in bytes; the kernel grants at most `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 4 << 20;

pub(crate) fn work(args: &[String]) -> anyhow::Result<()> {
    let gso = arg(args, 2)? == "gso";
    let progress = Arc::new(Progress::new());
    let mut ready = Reply::default();
    let (socket, speaks_first) = match arg(args, 0)? {
        "listen" => {
            let socket = UdpSocket::bind(ANY_PORT).context("bind")?;
            ready = ready.with("port", socket.local_addr()?.port().into());
            (socket, false)
        }
        address => {
            let address: SocketAddr = address.parse().context("odd address")?;
            let socket = UdpSocket::bind("0.0.0.0:0").context("bind")?;
            socket.connect(address).context("connect")?;
            socket.send(&[0]).context("first datagram")?;
            (socket, true)
        }
    };
    let shared = Arc::clone(&progress);
    match arg(args, 1)? {
        "send" => {
            thread::spawn(move || send(&socket, speaks_first, gso, &shared));
        }
        "receive" => {
            SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
            thread::spawn(move || receive(&socket, &shared));
        }
        other => bail!("unknown role {other}"),
    }
    worker::serve(&ready, |question| progress.answer(question))
}

fn receive(socket: &UdpSocket, progress: &Progress) {
    let mut datagram = vec![0_u8; 65_536];
    loop {
        // An error here is an ICMP message about an earlier datagram: data for the count, not an
        // end.
        if let Ok(len) = socket.recv(&mut datagram) {
            progress.add(len);
        }
    }
}

fn send(
    socket: &UdpSocket,
    speaks_first: bool,
    gso: bool,
    progress: &Progress,
) -> anyhow::Result<()> {
    if !speaks_first {
        let (_, peer) = socket.recv_from(&mut [0; 16])?;
        socket.connect(peer)?;
    }
    let datagrams = if gso { BATCH } else { 1 };
    if gso {
        setsockopt(socket, sockopt::UdpGsoSegment, &DATAGRAM).context("UDP_SEGMENT")?;
    }
    let payload = vec![0_u8; usize::try_from(DATAGRAM)? * datagrams];
    loop {
        progress.pass();
        // A full queue or a late ICMP message costs this datagram only; the receiver's count shows
        // it.
        if let Ok(len) = socket.send(&payload) {
            progress.add(len);
        }
    }
}
