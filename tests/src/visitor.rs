//! Servers that tell a client its source address, and their clients.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::namespace::Namespace;
use crate::server::TcpServer;
use crate::tcp::{IO_LIMIT, connect};

/// Serves one page over HTTP inside `namespace`: `visitor ADDRESS`.
pub fn web_server(namespace: &Namespace, at: SocketAddr) -> TcpServer {
    TcpServer::start(namespace, at, |mut stream| {
        let Ok(visitor) = stream.peer_addr() else { return };
        // A visitor that leaves early is the test's failure to see.
        if stream.read(&mut [0; 4096]).is_ok() {
            let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\nvisitor {}\n", visitor.ip());
        }
    })
}

/// All that a TCP server at `to` says to a client of this namespace.
///
/// # Panics
/// When it cannot be reached.
pub fn ask_tcp(namespace: &Namespace, to: SocketAddr) -> String {
    let mut text = String::new();
    let mut stream = connect(namespace, to).expect("somebody listens");
    stream.read_to_string(&mut text).expect("the server says what it has to say");
    text
}

/// What a UDP server at `to` answers to a client of this namespace.
///
/// # Panics
/// When it does not.
pub fn ask_udp(namespace: &Namespace, to: SocketAddr) -> String {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = namespace.enter(|| UdpSocket::bind((any, 0))).expect("every namespace has ports");
    socket.set_read_timeout(Some(IO_LIMIT)).expect("an open socket takes a timeout");
    socket.connect(to).expect("there is a route");
    socket.send(b"who am I").expect("a datagram can be sent");
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).expect("an answer comes");
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}
