//! TCP sockets against listeners on loopback.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use socket2::{Domain, SockRef, Socket, Type};

use crate::event::{FlowId, HostError};
use crate::flow::{HostStream as _, Transfer};
use crate::host::socket::outbound::OutboundAddresses;
use crate::host::socket::table::{HostSocket, SocketTable, TcpHost};
use crate::host::socket::tcp;
use crate::host::socket::tcp::{Connecting, HandshakeAck, TcpStream};
use crate::host::tests::{PATIENCE, V4, V6, addr, eventually, in_new_netns, silent_network, wait};

fn connect(remote: SocketAddr, source: Option<SocketAddr>) -> Result<Connecting, HostError> {
    tcp::connect(remote, source, None, HandshakeAck::AtOnce)
}

fn finish(connecting: Connecting) -> Result<TcpStream, HostError> {
    match connecting {
        Connecting::Done(stream) => Ok(stream),
        Connecting::InProgress(mut stream) => {
            let events = PollFlags::POLLOUT;
            eventually(&mut stream, events, |stream| match stream.finish_connect() {
                Ok(done) => done.then_some(Ok(())),
                Err(error) => Some(Err(error)),
            })?;
            Ok(stream)
        }
    }
}

fn pair(listen: &str) -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind(listen).unwrap();
    let stream = connect(listener.local_addr().unwrap(), None).and_then(finish).unwrap();
    (stream, listener.accept().unwrap().0)
}

fn recv(stream: &TcpStream, buf: &mut [u8]) -> std::io::Result<usize> {
    wait(stream, PollFlags::POLLIN);
    stream.recv(buf)
}

/// A port on which nobody listens, reserved for as long as the socket lives.
fn closed_port(listen: &str) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::for_address(addr(listen)), Type::STREAM, None).unwrap();
    socket.bind(&addr(listen).into()).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, at)
}

#[test]
fn bytes_go_both_ways() {
    for listen in [V4, V6] {
        let (mut stream, mut remote) = pair(listen);
        assert_eq!(stream.send(b"question").unwrap(), 8);
        let mut buf = [0; 16];
        remote.read_exact(&mut buf[..8]).unwrap();
        assert_eq!(&buf[..8], b"question");
        remote.write_all(b"answer").unwrap();
        assert_eq!(recv(&stream, &mut buf).unwrap(), 6);
        assert_eq!(&buf[..6], b"answer");
    }
}

#[test]
fn socket_is_non_blocking_and_not_inherited() {
    let (stream, _remote) = pair(V4);
    let socket = SockRef::from(&stream);
    assert!(socket.nonblocking().unwrap());
    let flags = nix::fcntl::fcntl(&stream, nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    assert_eq!(stream.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn kernel_holds_nothing_back() {
    let (mut stream, mut remote) = pair(V4);
    for (number, is_delay_off) in [(1, false), (2, true), (3, true)] {
        stream.send(b"x").unwrap();
        assert_eq!(SockRef::from(&stream).tcp_nodelay().unwrap(), is_delay_off, "send {number}");
    }
    remote.read_exact(&mut [0; 3]).unwrap();
}

/// A connection whose remote has not heard that its SYN arrived, with the listener.
fn unaware() -> (TcpStream, TcpListener) {
    for _ in 0..20 {
        let listener = TcpListener::bind(V4).unwrap();
        listener.set_nonblocking(true).unwrap();
        let remote = listener.local_addr().unwrap();
        let began_at = Instant::now();
        let stream = tcp::connect(remote, None, None, HandshakeAck::WithData);
        let stream = stream.and_then(finish).unwrap();
        let accepted = listener.accept();
        // The kernel's own delay is 200 ms: a slow machine proves nothing.
        if began_at.elapsed() < Duration::from_millis(100) {
            assert_eq!(accepted.unwrap_err().kind(), ErrorKind::WouldBlock, "it has heard");
            return (stream, listener);
        }
    }
    panic!("connecting on loopback takes a tenth of a second each time");
}

#[test]
fn remote_hears_of_the_connection_with_the_first_bytes() {
    let (mut stream, listener) = unaware();
    stream.send(b"request").unwrap();
    let (mut remote, _) = listener.accept().expect("on loopback it has arrived by now");
    remote.set_nonblocking(true).unwrap();
    let mut buf = [0; 8];
    assert_eq!(remote.read(&mut buf).unwrap(), 7, "both came at once");
    assert_eq!(&buf[..7], b"request");
}

#[test]
fn remote_hears_of_the_connection_with_the_end_of_our_direction() {
    let (stream, listener) = unaware();
    stream.shutdown_write().unwrap();
    let (mut remote, _) = listener.accept().expect("on loopback it has arrived by now");
    assert_eq!(remote.read(&mut [0]).unwrap(), 0);
}

#[test]
fn remote_hears_of_the_connection_when_we_say_so() {
    let (stream, listener) = unaware();
    stream.acknowledge();
    let (mut remote, _) = listener.accept().expect("on loopback it has arrived by now");
    remote.write_all(b"greeting").unwrap();
    let mut buf = [0; 8];
    assert_eq!(recv(&stream, &mut buf).unwrap(), 8);
    assert_eq!(&buf, b"greeting");
}

#[test]
fn connect_to_a_closed_port_is_refused() {
    for listen in [V4, V6] {
        let (_closed, at) = closed_port(listen);
        let outcome = connect(at, None).and_then(finish);
        assert_eq!(outcome.unwrap_err(), HostError::Refused);
    }
}

#[test]
fn connect_without_a_route_says_so_at_once() {
    in_new_netns(|| {
        let error = connect(addr("192.0.2.2:80"), None).unwrap_err();
        assert_eq!(error, HostError::NetworkUnreachable);
    });
}

#[test]
fn connect_to_an_absent_host_fails_later() {
    in_new_netns(|| {
        silent_network(10);
        let connecting = connect(addr("192.0.2.2:80"), None).unwrap();
        if let Connecting::InProgress(stream) = &connecting {
            assert_eq!(stream.finish_connect(), Ok(false), "a stale event is no connection");
        } else {
            panic!("connected to nobody");
        }
        assert_eq!(finish(connecting).unwrap_err(), HostError::HostUnreachable);
    });
}

#[test]
fn source_address_is_the_one_asked_for() {
    for (listen, source) in [(V4, "127.0.0.9"), (V6, "::1")] {
        let listener = TcpListener::bind(listen).unwrap();
        let source: IpAddr = source.parse().unwrap();
        let remote = listener.local_addr().unwrap();
        let _stream = connect(remote, Some((source, 0).into())).and_then(finish).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip(), source);
    }
}

#[test]
fn urgent_byte_stays_in_line() {
    let (stream, mut remote) = pair(V4);
    remote.write_all(b"ab").unwrap();
    SockRef::from(&remote).send_out_of_band(b"!").unwrap();
    remote.write_all(b"cd").unwrap();
    remote.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    let mut buf = [0; 16];
    loop {
        match recv(&stream, &mut buf).unwrap() {
            0 => break,
            len => all.extend_from_slice(&buf[..len]),
        }
    }
    assert_eq!(all, b"ab!cd");
}

#[test]
fn shutdown_ends_one_direction_only() {
    let (mut stream, mut remote) = pair(V4);
    stream.send(b"last").unwrap();
    stream.shutdown_write().unwrap();
    let mut all = Vec::new();
    remote.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"last");
    remote.write_all(b"still here").unwrap();
    let mut buf = [0; 16];
    assert_eq!(recv(&stream, &mut buf).unwrap(), 10);
}

#[test]
fn kernel_probes_a_remote_as_asked() {
    let (stream, _remote) = pair(V4);
    for (asked, idle, interval) in
        [(1, 1, 1), (60, 60, 60), (7200, 7200, 75), (1 << 20, 32_767, 75)]
    {
        stream.keep_alive(Duration::from_secs(asked));
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(idle));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(interval));
    }
}

#[test]
fn reset_is_what_the_remote_sees() {
    for listen in [V4, V6] {
        let (stream, mut remote) = pair(listen);
        stream.reset();
        assert_eq!(remote.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn what_arrived_before_a_reset_is_received_behind_a_failed_send() {
    let (stream, mut remote) = pair(V4);
    remote.write_all(b"answer").unwrap();
    SockRef::from(&remote).set_linger(Some(Duration::ZERO)).unwrap();
    drop(remote);
    wait(&stream, PollFlags::POLLIN);
    // No event has been looked at yet.
    let mut host = TcpHost::new(stream);
    assert_eq!(host.send(b"request"), Transfer::Failed);
    let mut room = [0; 16];
    assert_eq!(host.recv(&mut room), Transfer::Moved(6));
    assert_eq!(&room[..6], b"answer");
    assert_eq!(host.recv(&mut room), Transfer::Ended);
}

#[test]
fn remote_that_greets_and_resets_before_anybody_looks_was_connected_to() {
    in_new_netns(|| {
        // Not a loopback address, so that the connect is not looked at at once.
        crate::host::tests::ip("addr add 192.0.2.1/32 dev lo");
        let listener = TcpListener::bind("192.0.2.1:0").unwrap();
        let remote = listener.local_addr().unwrap();
        let Connecting::InProgress(stream) = connect(remote, None).unwrap() else {
            panic!("looked at already");
        };
        let (mut remote, _) = listener.accept().unwrap();
        remote.write_all(b"busy").unwrap();
        SockRef::from(&remote).set_linger(Some(Duration::ZERO)).unwrap();
        drop(remote);
        assert_eq!(stream.finish_connect(), Ok(true));
        let mut room = [0; 16];
        assert_eq!(stream.recv(&mut room).unwrap(), 4);
    });
}

#[test]
fn sending_into_a_reset_connection_is_an_error_and_no_signal() {
    let (mut stream, remote) = pair(V4);
    SockRef::from(&remote).set_linger(Some(Duration::ZERO)).unwrap();
    drop(remote);
    wait(&stream, PollFlags::POLLIN);
    assert_eq!(HostError::from_io(&stream.send(b"x").unwrap_err()), HostError::Reset);
    assert_eq!(HostError::from_io(&stream.send(b"x").unwrap_err()), HostError::Reset);
}

#[test]
fn a_full_send_buffer_would_block() {
    let (mut stream, _remote) = pair(V4);
    let chunk = vec![0; 1 << 20];
    let error = loop {
        if let Err(error) = stream.send(&chunk) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn short_read_at_the_urgent_mark_does_not_leave_the_rest_behind() {
    let (stream, remote) = pair(V4);
    let mut poll = mio::Poll::new().unwrap();
    let registry = poll.registry().try_clone().unwrap();
    let mut sockets = SocketTable::new(registry, false, OutboundAddresses::default());
    let flow = FlowId { index: 0, generation: 1 };
    sockets.insert(flow, HostSocket::Tcp(TcpHost::new(stream))).unwrap();
    // All of it is there before the first look, so one event announces it.
    let remote = SockRef::from(&remote);
    remote.send(b"before").unwrap();
    remote.send_out_of_band(b"!").unwrap();
    remote.send(b"after").unwrap();

    let mut events = mio::Events::with_capacity(4);
    let mut received = Vec::new();
    while received.len() < 12 {
        poll.poll(&mut events, Some(PATIENCE)).unwrap();
        assert!(!events.is_empty(), "nothing more is announced after {received:?}");
        let Some(HostSocket::Tcp(host)) = sockets.of(flow) else { panic!("the socket is gone") };
        for event in &events {
            host.on_event(event);
        }
        let mut room = [0; 64];
        while let Transfer::Moved(len) = host.recv(&mut room) {
            received.extend_from_slice(&room[..len]);
        }
    }
    assert_eq!(received, b"before!after");
}
