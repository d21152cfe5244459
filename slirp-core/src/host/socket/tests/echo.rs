//! Echo sockets of both kinds against the kernel's own echo service.

use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use smoltcp::wire::IpVersion;

use crate::event::{Envelope, HostError};
use crate::host::socket::echo::{EchoError, EchoKind, EchoOpenError, EchoSocket};
use crate::host::tests::{PATIENCE, eventually, in_new_netns, ip, silent_network, skip, wait};

const IDENT: u16 = 0x1234;
const PLAIN: Envelope = Envelope { hop_limit: 63, traffic_class: 0, dont_fragment: false };

/// The environment variable that makes a test the one without privilege.
const UNPRIVILEGED: &str = "SLIRP_TEST_WITHOUT_NET_RAW";

fn loopbacks() -> [(IpVersion, IpAddr); 2] {
    [(IpVersion::Ipv4, "127.0.0.1".parse().unwrap()), (IpVersion::Ipv6, "::1".parse().unwrap())]
}

/// Runs `body` where only raw sockets are permitted: a new namespace permits ping sockets to
/// nobody.
fn with_raw(body: impl FnOnce() + Send + 'static) {
    in_new_netns(body);
}

/// Runs `body` where ping sockets are permitted to everybody.
fn with_ping(body: impl FnOnce() + Send + 'static) {
    in_new_netns(|| {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
        body();
    });
}

/// Waits until the kernel leads packets for an address of its own to itself. It adds that route
/// some time after the address if the link has just come up, and looks for a neighbour until then.
fn await_local_route(address: &str) {
    let started = Instant::now();
    let has_route = || {
        let output = Command::new("ip").args(["-6", "route", "show", "table", "local"]).output();
        String::from_utf8_lossy(&output.expect("ip(8)").stdout).contains(address)
    };
    while !has_route() {
        assert!(started.elapsed() < PATIENCE, "no route to {address} within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn echo_comes_back(kind: EchoKind) {
    for (version, remote) in loopbacks() {
        let mut socket = EchoSocket::open(version, None, IDENT).unwrap();
        assert_eq!(socket.kind(), kind);
        for (sequence, len) in [(1, 0), (2, 56), (0xffff, 57), (3, 60_000)] {
            let payload = vec![0xa5; len];
            socket.send(remote, sequence, &payload, PLAIN).unwrap();
            let mut buf = vec![0; 65_536];
            wait(&socket, PollFlags::POLLIN);
            let reply = socket.recv(&mut buf).unwrap().expect("ours");
            assert_eq!((reply.from, reply.sequence), (remote, sequence));
            assert_eq!(reply.payload, payload);
            assert_eq!(reply.hop_limit, Some(64));
        }
    }
}

fn absent_host_is_reported(kind: EchoKind) {
    silent_network(10);
    let mut socket = EchoSocket::open(IpVersion::Ipv4, None, IDENT).unwrap();
    assert_eq!(socket.kind(), kind);
    let remote: IpAddr = "192.0.2.2".parse().unwrap();
    socket.send(remote, 7, b"data", PLAIN).unwrap();
    let EchoError { error, sequence } =
        eventually(&mut socket, PollFlags::empty(), EchoSocket::take_error);
    assert_eq!(sequence, Some(7));
    assert_eq!((error.remote.ip(), error.remote.port()), (remote, 0));
    assert_eq!((error.icmp_type, error.icmp_code), (3, 1));
    assert_eq!(error.error, HostError::HostUnreachable);
    assert_eq!(error.offender, Some("192.0.2.1".parse().unwrap()));
    assert_eq!(socket.take_error(), None);
}

#[test]
fn echo_through_a_raw_socket_comes_back() {
    with_raw(|| echo_comes_back(EchoKind::Raw));
}

#[test]
fn echo_through_a_ping_socket_comes_back() {
    with_ping(|| echo_comes_back(EchoKind::Ping));
}

#[test]
fn link_local_remote_is_on_the_link_of_its_interface() {
    with_raw(|| {
        silent_network(10);
        ip("addr add fe80::5/64 dev silent nodad");
        await_local_route("fe80::5");
        let index = nix::net::if_::if_nametoindex("silent").unwrap();
        let remote: IpAddr = "fe80::5".parse().unwrap();
        let mut socket = EchoSocket::open(IpVersion::Ipv6, None, IDENT).unwrap().on_link(index);
        socket.send(remote, 1, b"data", PLAIN).unwrap();
        let mut buf = [0; 64];
        wait(&socket, PollFlags::POLLIN);
        let reply = socket.recv(&mut buf).unwrap().expect("ours");
        assert_eq!((reply.from, reply.payload), (remote, &b"data"[..]));
    });
}

#[test]
fn absent_host_is_reported_to_a_raw_socket() {
    with_raw(|| absent_host_is_reported(EchoKind::Raw));
}

#[test]
fn absent_host_is_reported_to_a_ping_socket() {
    with_ping(|| absent_host_is_reported(EchoKind::Ping));
}

#[test]
fn raw_socket_is_not_woken_by_replies_to_others() {
    with_raw(|| {
        for (version, remote) in loopbacks() {
            let mut ours = EchoSocket::open(version, None, IDENT).unwrap();
            let mut other = EchoSocket::open(version, None, IDENT + 1).unwrap();
            other.send(remote, 1, b"other", PLAIN).unwrap();
            wait(&other, PollFlags::POLLIN);
            let mut buf = [0; 256];
            let error = ours.recv(&mut buf).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            ours.send(remote, 2, b"ours", PLAIN).unwrap();
            wait(&ours, PollFlags::POLLIN);
            assert_eq!(ours.recv(&mut buf).unwrap().unwrap().payload, b"ours");
        }
    });
}

#[test]
fn raw_socket_skips_errors_of_others() {
    with_raw(|| {
        silent_network(10);
        let mut ours = EchoSocket::open(IpVersion::Ipv4, None, IDENT).unwrap();
        let mut other = EchoSocket::open(IpVersion::Ipv4, None, IDENT + 1).unwrap();
        let remote = "192.0.2.2".parse().unwrap();
        other.send(remote, 1, b"other", PLAIN).unwrap();
        eventually(&mut other, PollFlags::empty(), EchoSocket::take_error);
        wait(&ours, PollFlags::empty());
        assert_eq!(ours.take_error(), None);
        ours.send(remote, 2, b"ours", PLAIN).unwrap();
        let error = eventually(&mut ours, PollFlags::empty(), EchoSocket::take_error);
        assert_eq!(error.sequence, Some(2));
    });
}

#[test]
fn reply_beyond_the_buffer_is_none() {
    with_raw(|| {
        let (version, remote) = loopbacks()[0];
        let mut socket = EchoSocket::open(version, None, IDENT).unwrap();
        socket.send(remote, 1, &[0; 100], PLAIN).unwrap();
        wait(&socket, PollFlags::POLLIN);
        assert_eq!(socket.recv(&mut [0; 64]).unwrap(), None);
    });
}

#[test]
fn source_address_is_the_one_asked_for() {
    with_raw(|| {
        let (version, remote) = loopbacks()[0];
        let source: IpAddr = "127.0.0.9".parse().unwrap();
        let socket = EchoSocket::open(version, Some((source, 0).into()), IDENT).unwrap();
        let local = socket2::SockRef::from(&socket).local_addr().unwrap();
        assert_eq!(local.as_socket().unwrap().ip(), source);
        let mut socket = socket;
        socket.send(remote, 1, b"x", PLAIN).unwrap();
        wait(&socket, PollFlags::POLLIN);
        assert!(socket.recv(&mut [0; 64]).unwrap().is_some());
    });
}

#[test]
fn neither_kind_of_socket_is_a_refusal_of_its_own() {
    if std::env::var_os(UNPRIVILEGED).is_some() {
        for (version, _) in loopbacks() {
            let error = EchoSocket::open(version, None, IDENT).unwrap_err();
            assert_eq!(error, EchoOpenError::NotPermitted);
            assert!(error.to_string().contains("net.ipv4.ping_group_range"));
        }
        return;
    }
    in_new_netns(|| {
        // This same test once more, without CAP_NET_RAW, in a namespace without ping sockets.
        let name = thread::current().name().map(str::to_owned);
        assert_eq!(name, None, "the namespace's thread is its own");
        let outcome = Command::new("setpriv")
            .args(["--bounding-set=-net_raw", "--inh-caps=-all", "--"])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "host::socket::tests::echo::neither_kind_of_socket_is_a_refusal_of_its_own",
            ])
            .env(UNPRIVILEGED, "1")
            .output();
        match outcome {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(output.status.success(), "{text}");
                assert!(text.contains("1 passed"), "{text}");
            }
            Err(error) => skip(&format!("setpriv(1): {error}")),
        }
    });
}
