//! TCP from the guest, through the real binary, to real peers.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

mod flow_control;
mod handshake;
mod iperf;
mod resets;
mod streams;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use slirp_tests::*;
use socket2::SockRef;

fn listen(namespace: &Namespace, address: IpAddr) -> TcpListener {
    namespace.enter(|| TcpListener::bind((address, 0))).expect("the namespace has this address")
}

/// A listener's next connection.
fn accept(listener: &TcpListener) -> TcpStream {
    bounded(listener.accept().expect("a connection comes").0)
}

/// A connection from the guest to a listener of the remote.
fn pair(world: &World) -> (TcpStream, TcpStream) {
    let listener = listen(&world.remote, FAR);
    let guest = connect(&world.guest, listener.local_addr().unwrap()).expect("it connects");
    (guest, accept(&listener))
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}
