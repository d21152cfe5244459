//! UDP sockets against sockets of `std` on loopback.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use nix::poll::PollFlags;
use smoltcp::wire::IpVersion;
use socket2::SockRef;

use crate::event::{DatagramError, Envelope, FlowId, HostError};
use crate::host::socket::outbound::OutboundAddresses;
use crate::host::socket::table::{HostSocket, SocketTable};
use crate::host::socket::udp::{NotSent, SendError, UdpSocket};
use crate::host::tests::{
    PATIENCE, V4, V6, addr, eventually, in_new_netns, ip, silent_network, wait,
};
use crate::plan::{AddressPlan, Mirrored, MirroredFamily};

const PLAIN: Envelope = Envelope { hop_limit: 63, traffic_class: 0, dont_fragment: false };

fn remote(listen: &str) -> (std::net::UdpSocket, SocketAddr) {
    let socket = std::net::UdpSocket::bind(listen).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let at = socket.local_addr().unwrap();
    (socket, at)
}

fn open(version: IpVersion) -> UdpSocket {
    UdpSocket::open(version, None, true).unwrap()
}

fn both() -> [(UdpSocket, &'static str); 2] {
    [(open(IpVersion::Ipv4), V4), (open(IpVersion::Ipv6), V6)]
}

/// A port that is closed to us for as long as the socket lives, which only listens to another port.
fn closed_port(listen: &str) -> (std::net::UdpSocket, SocketAddr) {
    let (socket, at) = remote(listen);
    socket.connect(SocketAddr::new(at.ip(), 9)).unwrap();
    (socket, at)
}

fn next_error(socket: &mut UdpSocket) -> DatagramError {
    eventually(socket, PollFlags::empty(), UdpSocket::take_error)
}

/// One datagram of `len` bytes was refused.
fn not_sent(error: HostError, len: usize) -> NotSent {
    NotSent { error: SendError::Host(error), first: 0..len, count: 1 }
}

/// `count` datagrams of `len` bytes, each filled with its own number.
fn train(count: u8, len: usize) -> Vec<u8> {
    (0..count).flat_map(|number| vec![number; len]).collect()
}

fn assert_train_arrives(socket: &std::net::UdpSocket, count: u8, len: usize) {
    let mut buf = vec![0; 65_536];
    for number in 0..count {
        assert_eq!(socket.recv(&mut buf).unwrap(), len);
        assert!(buf[..len].iter().all(|&byte| byte == number));
    }
}

#[test]
fn any_remote_may_answer() {
    for (mut socket, listen) in both() {
        let (known, known_at) = remote(listen);
        let (stranger, stranger_at) = remote(listen);
        socket.send(known_at, b"hello", None, PLAIN).unwrap();
        let (len, our_addr) = known.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(len, 5);
        stranger.send_to(b"from elsewhere", our_addr).unwrap();
        wait(&socket, PollFlags::POLLIN);
        let mut buf = [0; 64];
        let received = socket.recv(&mut buf).unwrap();
        assert_eq!(received.from, stranger_at);
        assert_eq!(received.payload, b"from elsewhere");
        assert_eq!((received.segment_len, received.truncated), (None, false));
        assert_eq!(socket.recv(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn one_socket_keeps_its_port_towards_all_remotes() {
    for (mut socket, listen) in both() {
        let ports = [remote(listen), remote(listen)].map(|(there, at)| {
            socket.send(at, b"x", None, PLAIN).unwrap();
            there.recv_from(&mut [0; 1]).unwrap().1.port()
        });
        assert_eq!(ports[0], ports[1]);
    }
}

#[test]
fn an_empty_datagram_is_a_datagram() {
    for (mut socket, listen) in both() {
        let (there, at) = remote(listen);
        socket.send(at, b"", None, PLAIN).unwrap();
        let (len, from) = there.recv_from(&mut [0; 1]).unwrap();
        assert_eq!(len, 0);
        there.send_to(b"", from).unwrap();
        wait(&socket, PollFlags::POLLIN);
        assert_eq!(socket.recv(&mut [0; 1]).unwrap().payload, b"");
    }
}

#[test]
fn a_datagram_beyond_the_buffer_is_marked_truncated() {
    for (mut socket, listen) in both() {
        let (there, at) = remote(listen);
        socket.send(at, b"x", None, PLAIN).unwrap();
        let from = there.recv_from(&mut [0; 1]).unwrap().1;
        there.send_to(b"0123456789", from).unwrap();
        wait(&socket, PollFlags::POLLIN);
        let mut buf = [0; 4];
        let received = socket.recv(&mut buf).unwrap();
        assert_eq!((received.payload, received.truncated), (&b"0123"[..], true));
    }
}

#[test]
fn source_address_is_the_one_asked_for() {
    let source: IpAddr = "127.0.0.9".parse().unwrap();
    let mut socket = UdpSocket::open(IpVersion::Ipv4, Some((source, 0).into()), false).unwrap();
    let (there, at) = remote(V4);
    socket.send(at, b"x", None, PLAIN).unwrap();
    assert_eq!(there.recv_from(&mut [0; 1]).unwrap().1.ip(), source);
}

#[test]
fn hop_limit_of_each_datagram_reaches_the_wire() {
    use nix::sys::socket::{setsockopt, sockopt};
    let receiver = std::net::UdpSocket::bind(V4).unwrap();
    setsockopt(&receiver, sockopt::Ipv4RecvTtl, &true).unwrap();
    let mut socket = open(IpVersion::Ipv4);
    for (asked, sent) in [(63, 63), (63, 63), (2, 2), (255, 255), (0, 1)] {
        socket
            .send(
                receiver.local_addr().unwrap(),
                b"x",
                None,
                Envelope { hop_limit: asked, ..PLAIN },
            )
            .unwrap();
        wait(&receiver, PollFlags::POLLIN);
        assert_eq!(arrival_ttl(&receiver), sent);
    }
}

fn arrival_ttl(receiver: &std::net::UdpSocket) -> i32 {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
    use std::os::fd::AsRawFd;
    let mut control = nix::cmsg_space!(i32);
    let mut buf = [0; 1];
    let mut parts = [std::io::IoSliceMut::new(&mut buf)];
    let flags = MsgFlags::empty();
    let fd = receiver.as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags).unwrap();
    let Some(ControlMessageOwned::Ipv4Ttl(ttl)) = message.cmsgs().unwrap().next() else {
        panic!("no TTL");
    };
    ttl
}

#[test]
fn port_unreachable_names_the_original_destination_v4() {
    let mut socket = open(IpVersion::Ipv4);
    let (_closed, at) = closed_port(V4);
    socket.send(at, b"anybody there?", None, PLAIN).unwrap();
    let error = next_error(&mut socket);
    assert_eq!(
        error,
        DatagramError {
            remote: at,
            offender: Some(at.ip()),
            icmp_type: 3,
            icmp_code: 3,
            info: 0,
            error: HostError::Refused,
        }
    );
    assert_eq!(socket.take_error(), None);
}

#[test]
fn port_unreachable_names_the_original_destination_v6() {
    let mut socket = open(IpVersion::Ipv6);
    let (_closed, at) = closed_port(V6);
    socket.send(at, b"anybody there?", None, PLAIN).unwrap();
    let error = next_error(&mut socket);
    assert_eq!((error.remote, error.offender), (at, Some(at.ip())));
    assert_eq!((error.icmp_type, error.icmp_code), (1, 4));
    assert_eq!(error.error, HostError::Refused);
    assert_eq!(socket.take_error(), None);
}

#[test]
fn error_of_an_earlier_datagram_does_not_cost_the_next_one() {
    for (mut socket, listen) in both() {
        let (there, at) = remote(listen);
        let (_closed, nowhere) = closed_port(listen);
        socket.send(nowhere, b"lost", None, PLAIN).unwrap();
        wait(&socket, PollFlags::empty());
        socket.send(at, b"kept", None, PLAIN).unwrap();
        let mut buf = [0; 16];
        assert_eq!(there.recv(&mut buf).unwrap(), 4);
        assert_eq!(socket.take_error().unwrap().remote, nowhere);
    }
}

#[test]
fn error_of_an_earlier_datagram_does_not_hide_what_arrived() {
    for (mut socket, listen) in both() {
        let (there, at) = remote(listen);
        socket.send(at, b"x", None, PLAIN).unwrap();
        let from = there.recv_from(&mut [0; 1]).unwrap().1;
        let (_closed, nowhere) = closed_port(listen);
        socket.send(nowhere, b"lost", None, PLAIN).unwrap();
        wait(&socket, PollFlags::empty());
        there.send_to(b"answer", from).unwrap();
        assert_eq!(socket.recv(&mut [0; 16]).unwrap().payload, b"answer");
        assert!(socket.take_error().is_some());
    }
}

#[test]
fn absent_host_is_reported_later() {
    in_new_netns(|| {
        silent_network(10);
        let mut socket = open(IpVersion::Ipv4);
        let at = addr("192.0.2.2:9");
        socket.send(at, b"x", None, PLAIN).unwrap();
        let error = next_error(&mut socket);
        assert_eq!((error.remote, error.error), (at, HostError::HostUnreachable));
        assert_eq!((error.icmp_type, error.icmp_code), (3, 1));
    });
}

#[test]
fn missing_route_is_reported_at_once() {
    in_new_netns(|| {
        let refused = open(IpVersion::Ipv4).send(addr("192.0.2.2:9"), b"x", None, PLAIN);
        assert_eq!(refused, Err(not_sent(HostError::NetworkUnreachable, 1)));
    });
}

#[test]
fn a_source_that_the_host_does_not_have_is_an_error() {
    let source = Some(addr("192.0.2.77:0"));
    let error = UdpSocket::open(IpVersion::Ipv4, source, true).unwrap_err();
    assert_eq!(error, HostError::NetworkUnreachable);
}

#[test]
fn ten_segments_arrive_as_ten_datagrams() {
    for (mut socket, listen) in both() {
        let (there, at) = remote(listen);
        socket.send(at, &train(10, 1400), Some(1400), PLAIN).unwrap();
        assert_train_arrives(&there, 10, 1400);
    }
}

#[test]
fn joined_datagrams_come_with_their_length() {
    for ((mut sender, listen), (mut receiver, _)) in both().into_iter().zip(both()) {
        let (there, at) = remote(listen);
        receiver.send(at, b"x", None, PLAIN).unwrap();
        let our_port = there.recv_from(&mut [0; 1]).unwrap().1;
        let sent = [train(10, 1400), vec![99; 100]].concat();
        sender.send(our_port, &sent, Some(1400), PLAIN).unwrap();
        wait(&receiver, PollFlags::POLLIN);
        let mut buf = vec![0; 65_536];
        let received = receiver.recv(&mut buf).unwrap();
        assert_eq!(received.segment_len, Some(1400));
        assert_eq!(received.payload, sent);
    }
}

#[test]
fn without_coalescing_datagrams_come_one_by_one() {
    let mut receiver = UdpSocket::open(IpVersion::Ipv4, None, false).unwrap();
    let (there, at) = remote(V4);
    receiver.send(at, b"x", None, PLAIN).unwrap();
    let our_port = there.recv_from(&mut [0; 1]).unwrap().1;
    open(IpVersion::Ipv4).send(our_port, &train(2, 1000), Some(1000), PLAIN).unwrap();
    for _ in 0..2 {
        wait(&receiver, PollFlags::POLLIN);
        let mut buf = vec![0; 65_536];
        let received = receiver.recv(&mut buf).unwrap();
        assert_eq!((received.payload.len(), received.segment_len), (1000, None));
    }
}

#[test]
fn more_segments_than_one_call_takes_all_arrive() {
    for (mut socket, listen) in both() {
        let (there, at) = remote(listen);
        socket.send(at, &train(150, 100), Some(100), PLAIN).unwrap();
        assert_train_arrives(&there, 150, 100);
    }
}

#[test]
fn a_batch_beyond_one_packet_is_split() {
    for (mut socket, listen) in both() {
        let (there, at) = remote(listen);
        socket.send(at, &train(5, 30_000), Some(30_000), PLAIN).unwrap();
        assert_train_arrives(&there, 5, 30_000);
    }
}

#[test]
fn segments_that_the_kernel_will_not_cut_are_sent_one_by_one() {
    in_new_netns(|| {
        // Segments above the MTU: UDP_SEGMENT refuses them, and each is fragmented by itself.
        ip("link set lo mtu 1280");
        for (mut socket, listen) in both() {
            let (there, at) = remote(listen);
            socket.send(at, &train(10, 1400), Some(1400), PLAIN).unwrap();
            assert_train_arrives(&there, 10, 1400);
        }
    });
}

#[test]
fn a_datagram_beyond_the_mtu_is_fragmented_not_refused() {
    in_new_netns(|| {
        ip("link set lo mtu 1280");
        for (mut socket, listen) in both() {
            let (there, at) = remote(listen);
            socket.send(at, &[7; 60_000], None, PLAIN).unwrap();
            assert_eq!(there.recv(&mut vec![0; 65_536]).unwrap(), 60_000);
        }
    });
}

#[test]
fn a_datagram_beyond_any_packet_is_too_large() {
    let (_there, at) = remote(V4);
    let refused = open(IpVersion::Ipv4).send(at, &[0; 65_508], None, PLAIN);
    assert_eq!(refused, Err(not_sent(HostError::TooLarge(Some(65_535)), 65_508)));
}

#[test]
fn a_router_with_a_smaller_mtu_is_reported_with_its_mtu() {
    in_new_netns(|| {
        let (_there, at) = remote(V4);
        let mut socket = open(IpVersion::Ipv4);
        socket.send(at, &[0; 1400], None, PLAIN).unwrap();
        let from = SockRef::from(&socket).local_addr().unwrap().as_socket().unwrap();
        send_fragmentation_needed(from.port(), at.port(), 900);
        let error = next_error(&mut socket);
        assert_eq!((error.remote, error.offender), (at, Some(at.ip())));
        assert_eq!((error.icmp_type, error.icmp_code, error.info), (3, 4, 900));
        assert_eq!(error.error, HostError::TooLarge(Some(900)));
        // The same datagram again is fragmented by the host, not refused.
        socket.send(at, &[0; 1400], None, PLAIN).unwrap();
        assert_eq!(socket.take_error(), None);
    });
}

/// Plays a router between two ports of 127.0.0.1 (RFC 1191 section 4).
fn send_fragmentation_needed(from_port: u16, to_port: u16, mtu: u16) {
    use smoltcp::wire::checksum;
    use socket2::{Domain, Protocol, SockAddr, Socket, Type};
    let mut message = [0; 36];
    message[..2].copy_from_slice(&[3, 4]);
    message[6..8].copy_from_slice(&mtu.to_be_bytes());
    message[8..12].copy_from_slice(&[0x45, 0, 0x05, 0x94]);
    message[16..18].copy_from_slice(&[64, 17]);
    message[20..28].copy_from_slice(&[127, 0, 0, 1, 127, 0, 0, 1]);
    message[28..30].copy_from_slice(&from_port.to_be_bytes());
    message[30..32].copy_from_slice(&to_port.to_be_bytes());
    let sum = !checksum::data(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let router = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
    router.send_to(&message, &SockAddr::from(addr(V4))).unwrap();
}

#[test]
fn a_full_send_buffer_would_block() {
    in_new_netns(|| {
        // While the neighbour's address is being asked for, datagrams stay charged to the socket.
        silent_network(60_000);
        let mut socket = open(IpVersion::Ipv4);
        SockRef::from(&socket).set_send_buffer_size(4096).unwrap();
        let at = addr("192.0.2.2:9");
        let outcome = (0..100).find_map(|_| socket.send(at, &[0; 1000], None, PLAIN).err());
        assert_eq!(outcome.map(|not_sent| not_sent.error), Some(SendError::WouldBlock));
    });
}

#[test]
fn directed_broadcast_is_permitted() {
    in_new_netns(|| {
        silent_network(10);
        open(IpVersion::Ipv4).send(addr("192.0.2.255:9"), b"x", None, PLAIN).unwrap();
    });
}

/// What must not be fragmented.
const WHOLE: Envelope = Envelope { dont_fragment: true, ..PLAIN };

#[test]
fn what_must_not_be_fragmented_is_refused_with_the_mtu_and_the_next_one_is_not() {
    in_new_netns(|| {
        ip("link set lo mtu 1400");
        for (mut socket, listen) in both() {
            let (there, at) = remote(listen);
            let headers = if at.is_ipv4() { 28 } else { 48 };
            let too_long = 1401 - headers;
            let refused = socket.send(at, &vec![7; too_long], None, WHOLE);
            assert_eq!(refused, Err(not_sent(HostError::TooLarge(Some(1400)), too_long)));
            assert_eq!(socket.take_error(), None, "it has been told");
            for (len, envelope) in [(too_long - 1, WHOLE), (too_long, PLAIN), (9000, PLAIN)] {
                socket.send(at, &vec![7; len], None, envelope).unwrap();
                assert_eq!(there.recv(&mut [0; 9000]).unwrap(), len);
            }
        }
    });
}

#[test]
fn of_several_datagrams_that_are_too_large_the_first_is_told_and_all_are_counted() {
    in_new_netns(|| {
        ip("link set lo mtu 1300");
        for (mut socket, listen) in both() {
            let (there, at) = remote(listen);
            let refused = socket.send(at, &train(5, 1400)[..6000], Some(1400), WHOLE);
            let error = SendError::Host(HostError::TooLarge(Some(1300)));
            assert_eq!(refused, Err(NotSent { error, first: 0..1400, count: 4 }));
            // The last one is short enough.
            assert_eq!(there.recv(&mut [0; 2000]).unwrap(), 400);
        }
    });
}

#[test]
fn looking_for_the_mtu_loses_no_error_of_another_datagram() {
    in_new_netns(|| {
        ip("link set lo mtu 1400");
        for (mut socket, listen) in both() {
            let (_closed, nowhere) = closed_port(listen);
            socket.send(nowhere, b"x", None, PLAIN).unwrap();
            wait(&socket, PollFlags::empty());
            let (_there, at) = remote(listen);
            let refused = socket.send(at, &[0; 1400], None, WHOLE);
            assert_eq!(refused, Err(not_sent(HostError::TooLarge(Some(1400)), 1400)));
            let error = socket.take_error().unwrap();
            assert_eq!((error.remote, error.error), (nowhere, HostError::Refused));
        }
    });
}

#[test]
fn marks_of_the_ip_header_pass_both_ways() {
    for ((mut sender, listen), (mut receiver, _)) in both().into_iter().zip(both()) {
        let (there, at) = remote(listen);
        receiver.send(at, b"x", None, PLAIN).unwrap();
        let our_port = there.recv_from(&mut [0; 1]).unwrap().1;
        // Expedited forwarding with ECT(0), its "congestion experienced", and nothing again.
        for traffic_class in [0, 0xba, 0xbb, 0xbb, 0] {
            let envelope = Envelope { traffic_class, ..PLAIN };
            sender.send(our_port, b"marked", None, envelope).unwrap();
            wait(&receiver, PollFlags::POLLIN);
            let mut buf = [0; 16];
            assert_eq!(receiver.recv(&mut buf).unwrap().traffic_class, traffic_class);
        }
    }
}

#[test]
fn groups_have_a_hop_limit_of_their_own() {
    in_new_netns(|| {
        silent_network(10);
        ip("route add 239.0.0.0/8 dev silent");
        let group = addr("239.255.255.250:1900");
        let mut socket =
            UdpSocket::open(IpVersion::Ipv4, Some(addr("192.0.2.1:0")), false).unwrap();
        let listener = std::net::UdpSocket::bind(group).unwrap();
        let here = "192.0.2.1".parse().unwrap();
        listener.join_multicast_v4(&"239.255.255.250".parse().unwrap(), &here).unwrap();
        nix::sys::socket::setsockopt(&listener, nix::sys::socket::sockopt::Ipv4RecvTtl, &true)
            .unwrap();
        for hop_limit in [1, 4, 1] {
            let envelope = Envelope { hop_limit, ..PLAIN };
            socket.send(group, b"x", None, envelope).unwrap();
            wait(&listener, PollFlags::POLLIN);
            assert_eq!(arrival_ttl(&listener), i32::from(hop_limit));
        }
    });
}

/// A table that keeps the guest's ports.
fn keeping() -> SocketTable {
    let poll = mio::Poll::new().unwrap();
    let registry = poll.registry().try_clone().unwrap();
    let mut sockets = SocketTable::new(registry, false, OutboundAddresses::default());
    sockets.keeps_udp_ports = true;
    sockets
}

const fn flow(index: u32) -> FlowId {
    FlowId { index, generation: 1 }
}

#[test]
fn port_of_the_guest_is_kept_where_it_is_free() {
    in_new_netns(|| {
        silent_network(10);
        ip("link set lo up");
        let mut sockets = keeping();
        let mut index = 0..;
        let mut place_of = |port, remote| {
            let socket = sockets.udp(flow(index.next().unwrap()), port, addr(remote)).unwrap();
            SockRef::from(&*socket).local_addr().unwrap().as_socket().unwrap()
        };
        // Until it has sent something, a socket has no other.
        let none = addr("0.0.0.0:0");
        assert_eq!(place_of(8125, "192.0.2.9:9"), addr("192.0.2.1:8125"), "of no other address");
        assert_eq!(place_of(8125, "192.0.2.9:9"), none, "of another guest address");
        assert_eq!(place_of(1023, "192.0.2.9:9"), none, "ports of the host's services");
        for near in ["127.0.0.1:9", "192.0.2.1:9", "224.0.0.251:5353", "255.255.255.255:9"] {
            assert_eq!(place_of(5353, near), none, "{near}");
        }
        for free in ["127.0.0.1:8125", "0.0.0.0:5353"] {
            let _ = std::net::UdpSocket::bind(free).unwrap();
        }
    });
}

/// A guest with the host's addresses, whose gateway leads to the host's loopback or not.
fn mirrored(is_gateway_host: bool) -> AddressPlan {
    let gateway = Some([192, 0, 2, 254].into());
    let v4 = MirroredFamily::new([192, 0, 2, 1].into(), 24);
    let v4 = MirroredFamily { gateway, is_gateway_host, ..v4 };
    AddressPlan::mirrored(&Mirrored { ipv4: Some(v4), ..Mirrored::default() }).unwrap()
}

#[test]
fn groups_on_the_host_are_as_closed_as_its_loopback() {
    in_new_netns(|| {
        silent_network(10);
        ip("link set lo up");
        ip("route add 224.0.0.0/4 dev silent");
        let group = addr("224.0.0.251:5353");
        let (listener, _) = remote("224.0.0.251:5353");
        let here = "192.0.2.1".parse().unwrap();
        listener.join_multicast_v4(&"224.0.0.251".parse().unwrap(), &here).unwrap();
        let mut sockets = keeping();
        for (index, is_open, said) in [(0, false, b"closed"), (1, true, b"opened")] {
            sockets.adopt_plan(&mirrored(is_open));
            let socket = sockets.udp(flow(index), 9, group).unwrap();
            socket.send(group, said, None, PLAIN).unwrap();
            let v6 = sockets.udp(flow(index + 2), 9, addr("[ff02::fb%2]:5353")).unwrap();
            assert_eq!(SockRef::from(&*v6).multicast_loop_v6().unwrap(), is_open);
        }
        let mut buf = [0; 16];
        let len = listener.recv(&mut buf).unwrap();
        assert_eq!(&buf[..len], b"opened");
    });
}

#[test]
fn kept_port_hears_those_alone_to_whom_the_guest_has_written() {
    in_new_netns(|| {
        silent_network(10);
        ip("link set lo up");
        let mut sockets = keeping();
        let socket = sockets.udp(flow(0), 8125, addr("192.0.2.9:9")).unwrap();
        socket.send(addr("192.0.2.9:9"), b"x", None, PLAIN).unwrap();
        let (other, at) = remote("192.0.2.1:0");
        assert!(other.send_to(b"x", "127.0.0.1:8125").is_ok_and(|sent| sent == 1));
        other.send_to(b"posed", "192.0.2.1:8125").unwrap();
        wait(&*socket, PollFlags::POLLIN);
        let mut buf = [0; 16];
        let received = socket.recv(&mut buf).unwrap();
        assert_eq!((received.payload, received.is_welcome), (&b"posed"[..], false));
        socket.send(at, b"x", None, PLAIN).unwrap();
        other.send_to(b"awaited", "192.0.2.1:8125").unwrap();
        wait(&*socket, PollFlags::POLLIN);
        assert!(socket.recv(&mut buf).unwrap().is_welcome);
        let any = sockets.udp(flow(1), 9000, addr("127.0.0.1:9")).unwrap();
        any.send(at, b"x", None, PLAIN).unwrap();
        let any_at = SockRef::from(&*any).local_addr().unwrap().as_socket().unwrap();
        remote("127.0.0.1:0").0.send_to(b"x", ("127.0.0.1", any_at.port())).unwrap();
        wait(&*any, PollFlags::POLLIN);
        assert!(any.recv(&mut buf).unwrap().is_welcome, "a port of the kernel's choice");
    });
}

/// A table of flows that keep their ports and leave by the interface `silent`.
fn confined() -> SocketTable {
    let registry = mio::Poll::new().unwrap().registry().try_clone().unwrap();
    let silent = Some("silent".to_owned());
    let outbound = OutboundAddresses {
        ipv4_interface: silent.clone(),
        ipv6_interface: silent,
        ..OutboundAddresses::default()
    };
    let mut sockets = SocketTable::new(registry, false, outbound);
    sockets.keeps_udp_ports = true;
    sockets
}

#[test]
fn flow_that_leaves_by_an_interface_reaches_the_host_itself_by_a_second_socket() {
    in_new_netns(|| {
        silent_network(10);
        ip("link set lo up");
        let mut sockets = confined();
        let device = |socket: &UdpSocket| SockRef::from(socket).device().unwrap();
        let mut buf = [0; 16];
        for (index, far_is_first) in [(0, true), (1, false)] {
            let (near, at) = remote("127.0.0.1:0");
            let far = addr("192.0.2.9:9");
            let port = 8125;
            if far_is_first {
                let socket = sockets.udp(flow(index), port, far).unwrap();
                assert_eq!(device(socket).as_deref(), Some(&b"silent"[..]));
                socket.send(far, b"x", None, PLAIN).unwrap();
                let place = SockRef::from(&*socket).local_addr().unwrap().as_socket().unwrap();
                assert_eq!(place, addr("192.0.2.1:8125"));
            }
            let socket = sockets.udp(flow(index), port, at).unwrap();
            assert_eq!(device(socket), None);
            socket.send(at, b"ping", None, PLAIN).unwrap();
            let (len, from) = near.recv_from(&mut buf).unwrap();
            assert_eq!(&buf[..len], b"ping");
            near.send_to(b"pong", from).unwrap();
            wait(&*sockets.udp(flow(index), port, at).unwrap(), PollFlags::POLLIN);
            sockets.udp(flow(index), port, far).unwrap();
            let Some(HostSocket::Udp(first)) = sockets.of(flow(index)) else {
                panic!("the flow has a socket");
            };
            let received = first.recv(&mut buf).unwrap();
            assert_eq!((received.payload, received.from), (&b"pong"[..], at));
            assert!(received.is_welcome);
            assert_eq!(first.recv(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
            sockets.remove(flow(index)).unwrap();
        }
    });
}

#[test]
fn second_sockets_have_a_cap_and_are_counted_while_they_are_open() {
    in_new_netns(|| {
        silent_network(10);
        ip("link set lo up");
        let mut sockets = confined();
        let (near, far) = (addr("127.0.0.1:9"), addr("192.0.2.9:9"));
        let both = |sockets: &mut SocketTable, index| {
            sockets.udp(flow(index), 9, far).map(drop).unwrap();
            sockets.udp(flow(index), 9, near).map(drop)
        };
        for index in 0..16 {
            both(&mut sockets, index).unwrap();
        }
        assert_eq!(both(&mut sockets, 16), Err(HostError::Exhausted));
        sockets.remove(flow(3)).unwrap();
        assert_eq!(both(&mut sockets, 16), Ok(()));
        assert_eq!(both(&mut sockets, 17), Err(HostError::Exhausted));
    });
}

#[test]
fn without_the_interface_there_is_no_network_until_it_is_back() {
    in_new_netns(|| {
        silent_network(10);
        let mut sockets = confined();
        let far = addr("192.0.2.9:9");
        sockets.udp(flow(0), 8125, far).unwrap().send(far, b"x", None, PLAIN).unwrap();
        ip("link del silent");
        let socket = sockets.udp(flow(0), 8125, far).unwrap();
        let gone = not_sent(HostError::NetworkUnreachable, 1);
        assert_eq!(socket.send(far, b"x", None, PLAIN), Err(gone));
        let opened = sockets.udp(flow(1), 8126, far).map(drop);
        assert_eq!(opened, Err(HostError::NetworkUnreachable));
        silent_network(10);
        sockets.udp(flow(1), 8126, far).unwrap().send(far, b"x", None, PLAIN).unwrap();
        sockets.on_unsent(flow(1), far);
        assert!(sockets.of(flow(1)).is_some(), "its interface is there");
        // The earlier socket is bound to a number that no interface has.
        sockets.on_unsent(flow(0), addr("127.0.0.1:9"));
        assert!(sockets.of(flow(0)).is_some(), "not the interface's fault");
        sockets.on_unsent(flow(0), far);
        sockets.udp(flow(0), 8125, far).unwrap().send(far, b"x", None, PLAIN).unwrap();
    });
}
