//! Small servers on the host's loopback, which the guest reaches as its gateway.
//!
//! Owns their sockets and threads, which end with the process. Ports are the kernel's choice. Other
//! programs of this host may come by, too: a server takes a bounded number of clients, and each of
//! them has a bounded time.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::super::finding::Moved;
use super::stream::{SPAN, send, take};

/// Clients of one server (arbitrary; the guest is one).
const CLIENTS_CAP: usize = 16;

/// The address that every name has.
pub(super) const ANSWER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// The servers, each known by its port.
#[derive(Debug)]
pub(super) struct Servers {
    /// Takes bytes over TCP.
    pub(super) sink: u16,
    /// Sends bytes over TCP.
    pub(super) source: u16,
    /// Takes bytes over TCP and IPv6, if this host has it.
    pub(super) sink6: Option<u16>,
    /// Sends UDP datagrams back.
    pub(super) echo: u16,
    /// Resolves names.
    pub(super) resolver: u16,
    /// What became of bytes that the source has sent.
    pub(super) sent: Receiver<io::Result<Moved>>,
}

impl Servers {
    pub(super) fn start() -> io::Result<Self> {
        let (told, sent) = sync_channel(CLIENTS_CAP);
        Ok(Self {
            sink: serve((Ipv4Addr::LOCALHOST, 0).into(), |stream| drop(take(stream)))?,
            source: serve((Ipv4Addr::LOCALHOST, 0).into(), move |stream| tell(&told, stream))?,
            sink6: serve((Ipv6Addr::LOCALHOST, 0).into(), |stream| drop(take(stream))).ok(),
            echo: answer(|_| ())?,
            resolver: answer(resolve)?,
            sent,
        })
    }
}

fn tell(told: &SyncSender<io::Result<Moved>>, stream: TcpStream) {
    // Full only if many strangers came by.
    let _ = told.try_send(send(stream, SPAN));
}

fn serve(address: SocketAddr, work: impl Fn(TcpStream) + Send + 'static) -> io::Result<u16> {
    let listener = TcpListener::bind(address)?;
    let port = listener.local_addr()?.port();
    spawn(move || listener.incoming().flatten().take(CLIENTS_CAP).for_each(work))?;
    Ok(port)
}

/// Sends back each datagram as `change` leaves it.
fn answer(change: impl Fn(&mut Vec<u8>) + Send + 'static) -> io::Result<u16> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = socket.local_addr()?.port();
    spawn(move || {
        let mut room = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut room) {
            let mut datagram = room[..len].to_vec();
            change(&mut datagram);
            // An asker that has gone needs no answer.
            let _ = socket.send_to(&datagram, from);
        }
    })?;
    Ok(port)
}

/// Makes the answer of a question with one name: its address (RFC 1035 section 4).
fn resolve(message: &mut Vec<u8>) {
    const HEADER_LEN: u8 = 12;
    if message.len() < usize::from(HEADER_LEN) {
        return;
    }
    // A response without an error, to one question, with one record.
    message[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
    // The name of the question, type A, class IN, for no time.
    message.extend([0xc0, HEADER_LEN, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
    message.extend(ANSWER.octets());
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("server".to_owned()).spawn(work).map(drop)
}
