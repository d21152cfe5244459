//! UDP from the guest, through the real binary, to real peers.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt,
    sockopt::{Ipv4RecvErr, UdpGsoSegment},
};
use slirp_tests::*;
use socket2::SockRef;

fn socket(namespace: &Namespace, at: impl Into<IpAddr>) -> UdpSocket {
    let at = SocketAddr::new(at.into(), 0);
    let socket = namespace.enter(|| UdpSocket::bind(at)).expect("the address is there");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn guest_socket(world: &World) -> UdpSocket {
    socket(&world.guest, Ipv4Addr::UNSPECIFIED)
}

/// Sends `text`, expects it back from the very address it was sent to.
fn echo(socket: &UdpSocket, to: SocketAddr, text: &[u8]) {
    socket.send_to(text, to).unwrap();
    let mut buffer = vec![0; 65536];
    let (len, from) = socket.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{to}: {e}"));
    assert_eq!(from, to);
    assert!(buffer[..len] == *text, "{len} bytes came back for {}", text.len());
}

#[test]
fn replies_come_from_the_address_that_was_used() {
    let world = needs!(World::root()).online(&[]);
    let loopback = UdpServer::echo(&world.host, ([127, 0, 0, 1], 0).into());
    let far = UdpServer::echo(&world.remote, (FAR, 0).into());
    let near = UdpServer::echo(&world.remote, (REMOTE, 0).into());
    let socket = guest_socket(&world);
    for round in 0_u8..3 {
        echo(&socket, (GATEWAY, loopback.address().port()).into(), &[1, round]);
        echo(&socket, far.address(), &[2, round]);
        echo(&socket, near.address(), &[3, round]);
    }
}

#[test]
fn ordinary_user_exchanges_datagrams() {
    let world = needs!(World::ordinary()).online(&[]);
    let far = UdpServer::echo(&world.remote, (FAR, 0).into());
    echo(&guest_socket(&world), far.address(), b"text");
    echo(&guest_socket(&world), far.address(), b"");
}

#[test]
fn two_remotes_see_the_same_source_and_any_third_may_answer() {
    let world = needs!(World::root()).online(&[]);
    let guest = guest_socket(&world);
    let first = socket(&world.remote, REMOTE);
    let second = socket(&world.remote, REMOTE_2);
    let third = socket(&world.remote, FAR);
    let mut buffer = [0; 16];
    guest.send_to(b"a", first.local_addr().unwrap()).unwrap();
    let (_, mapped) = first.recv_from(&mut buffer).unwrap();
    guest.send_to(b"b", second.local_addr().unwrap()).unwrap();
    let (_, again) = second.recv_from(&mut buffer).unwrap();
    assert_eq!(mapped, again, "the mapping is endpoint-independent");
    third.send_to(b"unsolicited", mapped).unwrap();
    let (len, from) = guest.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from), (&b"unsolicited"[..], third.local_addr().unwrap()));
}

fn assert_refused(world: &World, to: SocketAddr) {
    let guest = guest_socket(world);
    guest.connect(to).unwrap();
    guest.send(b"anybody?").unwrap();
    let error = guest.recv(&mut [0; 16]).expect_err("nobody is there");
    assert_eq!(error.raw_os_error(), Some(Errno::ECONNREFUSED as i32), "{to}: {error}");
}

#[test]
fn closed_port_of_a_remote_is_refused() {
    let world = needs!(World::root()).online(&[]);
    assert_refused(&world, (FAR, 9).into());
    assert_refused(&world, (REMOTE, 9).into());
}

#[test]
fn closed_port_of_host_loopback_is_refused_by_the_gateway() {
    let world = needs!(World::root()).online(&[]);
    assert_refused(&world, (GATEWAY, 9).into());
}

// Linux tells a UDP application of an unreachable network or host only when it asks with
// IP_RECVERR.
#[test]
fn host_without_a_route_makes_the_destination_unreachable() {
    let world = needs!(World::root());
    world.host.script("ip route add unreachable 203.0.113.21; ip route del default");
    let world = world.online(&[]);
    for to in [[203, 0, 113, 21], [203, 0, 113, 22]] {
        let guest = guest_socket(&world);
        setsockopt(&guest, Ipv4RecvErr, &true).unwrap();
        guest.connect(SocketAddr::from((to, 9))).unwrap();
        guest.send(b"anybody?").unwrap();
        let error = guest.recv(&mut [0; 16]).expect_err("no way there");
        let errno = error.raw_os_error().map(Errno::from_raw);
        let told = [Some(Errno::EHOSTUNREACH), Some(Errno::ENETUNREACH)].contains(&errno);
        assert!(told, "{to:?}: {error}");
    }
}

#[test]
fn host_loopback_is_unreachable_when_disabled() {
    let world = needs!(World::root());
    let _loopback = UdpServer::echo(&world.host, ([127, 0, 0, 1], 7777).into());
    let world = world.online(&["--disable-host-loopback"]);
    world.guest.script(
        "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
        ip addr del 127.0.0.1/8 dev lo; ip route flush table local dev lo 2>/dev/null || true
        ip route add 127.0.0.0/8 dev tap0 via 10.0.2.2 src 10.0.2.100",
    );
    for address in ["10.0.2.2", "127.0.0.1", "127.1.2.3"] {
        let guest = guest_socket(&world);
        setsockopt(&guest, Ipv4RecvErr, &true).unwrap();
        guest.connect((address, 7777)).unwrap();
        guest.send(b"let me in").unwrap();
        let error = guest.recv(&mut [0; 16]).expect_err(address);
        assert_eq!(error.raw_os_error(), Some(Errno::ENETUNREACH as i32), "{address}: {error}");
    }
}

#[test]
fn datagrams_larger_than_the_mtu_pass_both_ways() {
    let world = needs!(World::root()).online(&["--mtu=1500"]);
    let far = UdpServer::echo(&world.remote, (FAR, 0).into());
    let loopback = UdpServer::echo(&world.host, ([127, 0, 0, 1], 0).into());
    let guest = guest_socket(&world);
    for len in [0_usize, 1, 1471, 1472, 1473, 2960, 8000, 60000, 65507] {
        let mut text = vec![0; len];
        send_exact(&mut text[..], 1, len).unwrap();
        echo(&guest, far.address(), &text);
        echo(&guest, (GATEWAY, loopback.address().port()).into(), &text);
    }
}

#[test]
fn datagrams_pass_at_the_largest_mtu() {
    let world = needs!(World::root()).online(&["--mtu=65520"]);
    let far = UdpServer::echo(&world.remote, (FAR, 0).into());
    let guest = guest_socket(&world);
    for len in [1_usize, 1473, 60000, 65492, 65507] {
        echo(&guest, far.address(), &vec![7; len]);
    }
}

#[test]
fn segmented_send_arrives_as_single_datagrams() {
    let world = needs!(World::root()).online(&[]);
    let remote = socket(&world.remote, FAR);
    let guest = guest_socket(&world);
    guest.connect(remote.local_addr().unwrap()).unwrap();
    setsockopt(&guest, UdpGsoSegment, &1000).unwrap();
    let mut text = vec![0; 10_500];
    send_exact(&mut text[..], 4, 10_500).unwrap();
    let sent = SockRef::from(&guest).send_vectored(&[IoSlice::new(&text)]).unwrap();
    assert_eq!(sent, text.len());
    let mut seen = Vec::new();
    let mut buffer = [0; 2000];
    for _ in 0..11 {
        let (len, _) = remote.recv_from(&mut buffer).unwrap();
        seen.push(len);
        let place = text.windows(len).step_by(1000).any(|part| *part == buffer[..len])
            || text.ends_with(&buffer[..len]);
        assert!(place, "a datagram of {len} bytes is none of those sent");
    }
    seen.sort_unstable();
    assert_eq!(seen, [500, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000]);
}

#[test]
fn every_one_of_two_hundred_sockets_gets_its_own_answers() {
    let world = needs!(World::root()).online(&[]);
    let far = UdpServer::echo(&world.remote, (FAR, 0).into());
    let sockets: Vec<UdpSocket> = (0..200).map(|_| guest_socket(&world)).collect();
    // In turns, so that no burst overruns the server's buffer.
    for group in sockets.chunks(20) {
        for (number, socket) in group.iter().enumerate() {
            socket.send_to(&number.to_be_bytes(), far.address()).unwrap();
        }
        for (number, socket) in group.iter().enumerate() {
            let mut buffer = [0; 16];
            let len = socket.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], number.to_be_bytes());
        }
    }
}

#[test]
fn error_of_one_remote_does_not_end_the_flow_to_another() {
    let world = needs!(World::root()).online(&[]);
    let far = UdpServer::echo(&world.remote, (FAR, 0).into());
    let guest = guest_socket(&world);
    // Often enough to meet the error while it is pending on the host's socket.
    for _ in 0..50 {
        guest.send_to(b"anybody?", (REMOTE, 9)).unwrap();
        echo(&guest, far.address(), b"still there");
    }
}

#[test]
fn nameserver_address_and_a_remote_may_share_a_source_port() {
    let world = needs!(World::root());
    let _dns = Dnsmasq::start(&world.host, "127.0.0.53".parse().unwrap(), &[]);
    let world = world.online(&[]);
    let far = UdpServer::echo(&world.remote, (FAR, 0).into());
    let guest = guest_socket(&world);
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x04test\0\0\x01\0\x01";
    for _ in 0..3 {
        guest.send_to(query, (NAMESERVER, 53)).unwrap();
        let mut buffer = [0; 512];
        let (_, from) = guest.recv_from(&mut buffer).unwrap();
        assert_eq!(from, (NAMESERVER, 53).into());
        assert_eq!(buffer[..2], query[..2]);
        echo(&guest, far.address(), b"not DNS");
    }
}

/// TOS or traffic class: no mark, each of ECN (RFC 3168 section 5), DSCP alone and with ECN, and a
/// mark that stays for two datagrams.
const MARKS: [u8; 8] = [0, 1, 2, 3, 0xb8, 0xba, 0xba, 0];

/// Sends a datagram for each mark, all before the first is received.
fn send_marked(socket: &UdpSocket, to: SocketAddr, marks: &[u8]) {
    for mark in marks {
        let options = SockRef::from(socket);
        if to.is_ipv4() {
            options.set_tos_v4((*mark).into()).unwrap();
        } else {
            options.set_tclass_v6((*mark).into()).unwrap();
        }
        socket.send_to(&[*mark; 100], to).unwrap();
    }
}

/// Receives as many datagrams with the same marks, and returns the source of the last.
fn receive_marked(socket: &UdpSocket, marks: &[u8]) -> SocketAddr {
    let options = SockRef::from(socket);
    let mut sender = None;
    for mark in marks {
        let mut buffer = [0; 200];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let mut space = nix::cmsg_space!(i32);
        let fd = options.as_raw_fd();
        let received =
            recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), MsgFlags::empty());
        let received = received.unwrap();
        let found = received.cmsgs().unwrap().find_map(|message| {
            if let ControlMessageOwned::Ipv4Tos(found) = message {
                Some(i32::from(found))
            } else if let ControlMessageOwned::Ipv6TClass(found) = message {
                Some(found)
            } else {
                None
            }
        });
        sender = received.address;
        assert_eq!(found, Some(i32::from(*mark)));
        assert_eq!(buffer[..100], [*mark; 100]);
    }
    let sender = sender.expect("a sender");
    let v4 = sender.as_sockaddr_in().map(|at| SocketAddr::V4((*at).into()));
    v4.or_else(|| sender.as_sockaddr_in6().map(|at| SocketAddr::V6((*at).into()))).unwrap()
}

/// A socket that learns of the marks of what it receives.
fn marked_socket(namespace: &Namespace, at: impl Into<IpAddr>) -> UdpSocket {
    let socket = socket(namespace, at);
    let options = SockRef::from(&socket);
    if socket.local_addr().unwrap().is_ipv4() {
        options.set_recv_tos_v4(true).unwrap();
    } else {
        options.set_recv_tclass_v6(true).unwrap();
    }
    socket
}

#[test]
fn marks_of_dscp_and_ecn_pass_both_ways() {
    let world = needs!(World::root());
    let _slirp = world.slirp().options(&["--enable-ipv6"]).start();
    world.wait_for_ipv6("fd00:");
    let _capture = world.capture();
    let reversed: Vec<u8> = MARKS.iter().rev().copied().collect();
    for (far, any) in
        [(FAR, IpAddr::V4(Ipv4Addr::UNSPECIFIED)), (FAR_V6, IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
    {
        let remote = marked_socket(&world.remote, far);
        let guest = marked_socket(&world.guest, any);
        send_marked(&guest, remote.local_addr().unwrap(), &MARKS);
        let mapped = receive_marked(&remote, &MARKS);
        send_marked(&remote, mapped, &reversed);
        receive_marked(&guest, &reversed);
        // Datagrams that cross together, as a router marks them when it is congested.
        setsockopt(&remote, UdpGsoSegment, &100).unwrap();
        let options = SockRef::from(&remote);
        if far.is_ipv4() { options.set_tos_v4(3) } else { options.set_tclass_v6(3) }.unwrap();
        remote.send_to(&[3; 400], mapped).unwrap();
        receive_marked(&guest, &[3; 4]);
    }
}

#[test]
fn marks_of_dscp_and_ecn_pass_a_published_port() {
    let world = needs!(World::root());
    let api = Api::new(&world);
    let world = world.online(&[&api.option()]);
    let guest = marked_socket(&world.guest, GUEST);
    let guest_port = guest.local_addr().unwrap().port();
    api.forward(&format!(
        r#"{{"proto":"udp","host_addr":"0.0.0.0","host_port":8000,"guest_port":{guest_port}}}"#
    ));
    let remote = marked_socket(&world.remote, REMOTE);
    send_marked(&remote, (HOST, 8000).into(), &MARKS);
    let client = receive_marked(&guest, &MARKS);
    let reversed: Vec<u8> = MARKS.iter().rev().copied().collect();
    send_marked(&guest, client, &reversed);
    assert_eq!(receive_marked(&remote, &reversed), (HOST, 8000).into());
}
