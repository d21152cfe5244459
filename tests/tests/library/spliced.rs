//! Connections between the loopback interfaces of host and guest, joined past the guest's link.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::process::Stdio;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use slirp_core::discard::DiscardReason;
use slirp_core::egress::EgressPolicy;
use slirp_core::event::HostError;
use slirp_core::instance::{
    Builder, Established, FlowState, FlowSummary, Forward, ForwardProtocol, HostPorts, Instance,
    OpenForwards, Splices, StartError,
};
use slirp_core::netns::{Configuration, NamespaceTarget, TapRequest, open_tap};
use slirp_core::plan::SlirpNetwork;
use slirp_core::policy::Protocol;
use slirp_core::stats::Stats;
use slirp_tests::{
    Account, GATEWAY, GUEST, Namespace, PATIENCE, ProcessFacts, TcpServer, UdpServer, World,
    connect, needs, receive_exact, send_exact, wait_until,
};
use socket2::{Domain, SockRef, Socket, Type};

use crate::embedding::build_example;
use crate::turn;

const LO: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LO6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn guest_of(world: &World) -> NamespaceTarget {
    NamespaceTarget::of_pid(i32::try_from(world.guest.pid()).expect("process ids fit"))
        .expect("the guest is there")
}

/// An instance of this process on the world's host whose loopback connections are joined.
fn try_splice(
    world: &World,
    forwards: &[Forward],
    change: impl FnOnce(Splices) -> Splices + Send,
    more: impl FnOnce(Builder) -> Builder + Send,
) -> Result<Instance, StartError> {
    world.host.enter(|| {
        let plan = SlirpNetwork::default();
        let target = guest_of(world);
        let configure = Some(Configuration::for_plan(&plan, 1500));
        let tap = open_tap(&target, &TapRequest { name: "tap0".to_owned(), configure })
            .expect("the device opens");
        let network = target.network().try_clone_to_owned().expect("a descriptor is left");
        let IpAddr::V4(guest) = GUEST else { unreachable!() };
        let splices = change(Splices::new(network).guest(Some(guest), None));
        let opened = OpenForwards::open(forwards, plan).expect("the ports are free");
        more(Builder::new(tap).plan(plan)).forwards(opened).splices(splices).spawn()
    })
}

fn splice(
    world: &World,
    forwards: &[Forward],
    change: impl FnOnce(Splices) -> Splices + Send,
) -> Instance {
    try_splice(world, forwards, change, |builder| builder).expect("the instance starts")
}

fn publish(port: u16) -> Forward {
    Forward::everywhere(ForwardProtocol::Tcp, port, (GUEST, port).into())
}

fn to_host(protocol: ForwardProtocol, guest: u16, host: u16) -> HostPorts {
    HostPorts { protocol, guest, host, ports: 1, is_weak: false, is_scanned: false }
}

fn tcp_to_host(guest: u16, host: u16) -> HostPorts {
    to_host(ForwardProtocol::Tcp, guest, host)
}

/// One small exchange over a connection that stays open.
fn echo(from: &Namespace, to: SocketAddr) -> TcpStream {
    let mut stream = connect(from, to).expect("somebody listens");
    send_exact(&mut stream, 7, 10_000).expect("it is taken");
    receive_exact(&mut stream, 7, 10_000).expect("all of it comes back");
    stream
}

/// A connection through a bridge: the client's end and the server's.
fn joined(from: &Namespace, to: SocketAddr, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = connect(from, to).expect("somebody listens");
    let (server, _) = listener.accept().expect("the bridge connects");
    server.set_read_timeout(Some(PATIENCE)).expect("an open socket takes a timeout");
    (client, server)
}

/// Whether a connection is refused: at once, or by a reset once it was accepted.
fn is_refused(from: &Namespace, to: SocketAddr) -> bool {
    let refusals = [nix::errno::Errno::ECONNREFUSED, nix::errno::Errno::ECONNRESET];
    match connect(from, to) {
        Ok(mut stream) => {
            stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
        }
        Err(failure) => refusals.contains(&failure.errno),
    }
}

fn listen(namespace: &Namespace, at: (IpAddr, u16)) -> TcpListener {
    namespace.enter(|| TcpListener::bind(at)).expect("the port is free")
}

fn open_files() -> usize {
    ProcessFacts(std::process::id()).open_files()
}

#[test]
fn host_loopback_reaches_the_guest_under_its_own_address() {
    let _turn = turn();
    let world = needs!(World::root());
    let listener = listen(&world.guest, (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080));
    let instance = splice(&world, &[publish(8080)], |splices| splices);
    for (client, to) in [(LO, LO), (LO6, LO6), (LO, "127.9.9.9".parse().unwrap())] {
        let stream = connect(&world.host, (to, 8080).into()).expect("the port is open");
        let (mut server, peer) = listener.accept().expect("the bridge connects");
        assert_eq!(peer.ip(), GUEST, "{client}");
        server.write_all(b"x").unwrap();
        let mut byte = [0];
        (&stream).read_exact(&mut byte).unwrap();
    }
    // Another client comes over the link.
    let _stream = connect(&world.host, "198.51.100.1:8080".parse().unwrap()).unwrap();
    let (_, peer) = listener.accept().expect("the stack connects");
    assert_eq!(peer.ip(), "198.51.100.1".parse::<IpAddr>().unwrap());
    drop(instance);
}

#[test]
fn host_loopback_reaches_the_guests_loopback_at_the_address_that_it_used() {
    let _turn = turn();
    let world = needs!(World::root());
    let instance = splice(&world, &[publish(8080)], |splices| splices.to_guest_loopback(true));
    let listener = listen(&world.guest, ("127.0.0.7".parse().unwrap(), 8080));
    let (_client, server) = joined(&world.host, "127.0.0.7:8080".parse().unwrap(), &listener);
    assert_eq!(server.peer_addr().unwrap().ip(), LO);
    let six = listen(&world.guest, (LO6, 8080));
    let (_client, server) = joined(&world.host, (LO6, 8080).into(), &six);
    assert_eq!(server.peer_addr().unwrap().ip(), LO6);
    // A service in IPv4 alone is found by a client that tries IPv6 first.
    drop((six, server));
    let four = listen(&world.guest, (LO, 8080));
    let (_client, server) = joined(&world.host, (LO6, 8080).into(), &four);
    assert_eq!(server.peer_addr().unwrap().ip(), LO);
    drop(instance);
}

#[test]
fn guests_loopback_reaches_named_ports_of_the_hosts_loopback_alone() {
    let _turn = turn();
    let world = needs!(World::root());
    let named = TcpServer::echo(&world.host, "127.0.0.1:9001".parse().unwrap());
    let _hidden = TcpServer::echo(&world.host, "127.0.0.1:9002".parse().unwrap());
    let _fifth = TcpServer::echo(&world.host, "127.0.0.5:9003".parse().unwrap());
    let instance = splice(&world, &[], |splices| {
        splices.to_host([tcp_to_host(5432, 9001), tcp_to_host(9003, 9003)])
    });
    echo(&world.guest, (LO, 5432).into());
    echo(&world.guest, "127.0.0.5:9003".parse().unwrap());
    // The service is there in IPv4 alone.
    echo(&world.guest, (LO6, 5432).into());
    for closed in [(LO, 9001), (LO, 9002)] {
        let refused = connect(&world.guest, closed.into()).expect_err("nothing listens");
        assert_eq!(refused.errno, nix::errno::Errno::ECONNREFUSED);
    }
    // Its own address is not loopback, although the kernel delivers it there.
    assert!(is_refused(&world.guest, (GUEST, 5432).into()));
    drop((instance, named));
}

#[test]
fn refusal_on_the_far_side_resets_the_client() {
    let _turn = turn();
    let world = needs!(World::root());
    let instance =
        splice(&world, &[publish(8080)], |splices| splices.to_host([tcp_to_host(5432, 9001)]));
    for (from, port) in [(&world.host, 8080), (&world.guest, 5432)] {
        assert!(is_refused(from, (LO, port).into()));
    }
    drop(instance);
}

/// Both ways: from the host to port 8080 of the guest, from the guest to port 9001 of the host.
fn both_ways(test: impl Fn(&Namespace, SocketAddr, &TcpListener)) {
    let world = needs!(World::root());
    let instance =
        splice(&world, &[publish(8080)], |splices| splices.to_host([tcp_to_host(9001, 9001)]));
    let inside = listen(&world.guest, (GUEST, 8080));
    let outside = listen(&world.host, (LO, 9001));
    test(&world.host, (LO, 8080).into(), &inside);
    test(&world.guest, (LO, 9001).into(), &outside);
    drop(instance);
}

#[test]
fn half_close_is_passed_on_both_ways() {
    let _turn = turn();
    both_ways(|from, to, listener| {
        for is_client_first in [true, false] {
            let (client, server) = joined(from, to, listener);
            let (mut first, mut second) =
                if is_client_first { (client, server) } else { (server, client) };
            send_exact(&mut first, 3, 300_000).unwrap();
            first.shutdown(Shutdown::Write).unwrap();
            receive_exact(&mut second, 3, 300_000).unwrap();
            assert_eq!(second.read(&mut [0]).unwrap(), 0, "the end arrives behind the last byte");
            send_exact(&mut second, 4, 300_000).unwrap();
            drop(second);
            receive_exact(&mut first, 4, 300_000).unwrap();
            assert_eq!(first.read(&mut [0]).unwrap(), 0);
        }
    });
}

#[test]
fn reset_is_passed_on_both_ways() {
    let _turn = turn();
    both_ways(|from, to, listener| {
        for is_client_first in [true, false] {
            let (client, server) = joined(from, to, listener);
            let (first, mut second) =
                if is_client_first { (client, server) } else { (server, client) };
            SockRef::from(&first).set_linger(Some(Duration::ZERO)).unwrap();
            drop(first);
            assert_eq!(second.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn reset_after_a_half_close_is_passed_on() {
    let _turn = turn();
    both_ways(|from, to, listener| {
        let (client, mut server) = joined(from, to, listener);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        wait_until(PATIENCE, "the reset", || server.write_all(b"x").is_err());
    });
}

#[test]
fn stopped_reader_stops_the_writer_and_gets_every_byte_later() {
    let _turn = turn();
    const LEN: usize = 64 << 20;
    both_ways(|from, to, listener| {
        let (mut client, mut server) = joined(from, to, listener);
        client.set_nonblocking(true).unwrap();
        let piece = [0x5a; 65_536];
        let mut taken = 0;
        let mut full_since = Instant::now();
        while full_since.elapsed() < Duration::from_millis(500) {
            match client.write(&piece) {
                Ok(len) => {
                    taken += len;
                    full_since = Instant::now();
                    assert!(taken < LEN, "nobody reads");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        client.set_nonblocking(false).unwrap();
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            let mut received = 0;
            loop {
                match server.read(&mut buffer).unwrap() {
                    0 => return received,
                    len => {
                        assert!(buffer[..len].iter().all(|&byte| byte == 0x5a));
                        received += len;
                    }
                }
            }
        });
        client.write_all(&piece).unwrap();
        drop(client);
        assert_eq!(reader.join().unwrap(), taken + piece.len());
    });
}

#[test]
fn client_that_gives_up_ends_its_bridge_whatever_the_guest_does() {
    let _turn = turn();
    let world = needs!(World::root());
    // Accepts nothing, and has room for one connection: the others' handshakes get no answer.
    let _inside = world.guest.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], 8080)).into()).unwrap();
        socket.listen(0).unwrap();
        socket
    });
    let instance = splice(&world, &[publish(8080)], |splices| splices);
    let clients: Vec<TcpStream> = (0..8)
        .map(|_| connect(&world.host, (LO, 8080).into()).expect("the port is open"))
        .collect();
    let handle = instance.handle();
    let bridges = || handle.blocking().flows(1 << 31).expect("it runs").flows;
    wait_until(PATIENCE, "the bridges", || bridges().len() == clients.len());
    let is_connecting = |flow: &&FlowSummary| flow.state == FlowState::Connecting;
    wait_until(PATIENCE, "one is joined", || bridges().iter().any(|flow| !is_connecting(&flow)));
    assert!(bridges().iter().filter(is_connecting).count() > 0);
    // Those that are joined write until nothing is taken any more.
    let piece = [0x5a; 65_536];
    for mut client in &clients {
        client.set_nonblocking(true).unwrap();
        let mut moved_at = Instant::now();
        while moved_at.elapsed() < Duration::from_millis(200) {
            if client.write(&piece).is_ok_and(|len| len > 0) {
                moved_at = Instant::now();
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    for client in clients {
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    }
    // The kernel tries a handshake for two minutes.
    wait_until(Duration::from_secs(30), "all bridges end", || bridges().is_empty());
    drop(instance);
}

#[test]
fn thousand_connections_at_once_leave_no_descriptor_behind() {
    let _turn = turn();
    let world = needs!(World::root());
    let server = TcpServer::echo(&world.guest, "0.0.0.0:8080".parse().unwrap());
    let outside = TcpServer::echo(&world.host, (LO, 9001).into());
    let before_all = open_files();
    let instance =
        splice(&world, &[publish(8080)], |splices| splices.to_host([tcp_to_host(9001, 9001)]));
    // The pools are full and the first bridges' memory is there.
    drop((echo(&world.host, (LO, 8080).into()), echo(&world.guest, (LO, 9001).into())));
    let handle = instance.handle();
    let bridges = || {
        let page = handle.blocking().flows(1 << 31).expect("it runs");
        (page.flows.len(), page.next)
    };
    wait_until(PATIENCE, "the first ones end", || bridges().0 == 0);
    let before = open_files();
    for (from, port) in [(&world.host, 8080), (&world.guest, 9001)] {
        let streams: Vec<TcpStream> =
            (0..1_000).map(|_| connect(from, (LO, port).into()).expect("there is room")).collect();
        for (index, mut stream) in (0_u32..).zip(&streams) {
            stream.write_all(&index.to_be_bytes()).unwrap();
        }
        for (index, mut stream) in (0_u32..).zip(&streams) {
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, index.to_be_bytes());
        }
        let mut first = 0;
        let mut listed = 0;
        loop {
            let page = handle.blocking().flows(first).expect("it runs");
            let inbound = page.flows.iter().filter(|flow| flow.is_inbound == (port == 8080));
            listed += inbound.filter(|flow| flow.remote.port() != 0).count();
            match page.next {
                Some(next) => first = next,
                None => break,
            }
        }
        assert_eq!(listed, 1_000);
        drop(streams);
    }
    let is_quiet = || bridges() == (0, None);
    wait_until(PATIENCE, "all bridges end", || is_quiet() && open_files() <= before + 16);
    drop((instance, handle));
    wait_until(PATIENCE, "everything is closed", || open_files() <= before_all);
    drop((server, outside));
}

#[test]
fn datagrams_are_joined_both_ways_and_answers_come_from_where_they_were_sent_to() {
    let _turn = turn();
    let world = needs!(World::root());
    let udp = ForwardProtocol::Udp;
    let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    let _inside = UdpServer::echo(&world.guest, any(5300));
    let _outside = UdpServer::echo(&world.host, any(5301));
    let forward = Forward::everywhere(udp, 5300, (GUEST, 5300).into());
    let instance =
        splice(&world, &[forward], |splices| splices.to_host([to_host(udp, 5301, 5301)]));
    for (from, port) in [(&world.host, 5300), (&world.guest, 5301)] {
        let clients: Vec<UdpSocket> = (0..100)
            .map(|_| from.enter(|| UdpSocket::bind((LO, 0))).expect("a port is free"))
            .collect();
        // The first datagrams of all come at the same time, while the others' sockets are made.
        for round in 0..2_u8 {
            for (index, client) in (0_u8..).zip(&clients) {
                client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                client.send_to(&[index, round], (LO, port)).unwrap();
            }
        }
        for (index, client) in (0_u8..).zip(&clients) {
            let receive = || {
                let mut buffer = [0; 8];
                let (got, _) = client.recv_from(&mut buffer).expect("it is answered");
                buffer[..got].to_vec()
            };
            let mut answers = [receive(), receive()];
            answers.sort();
            assert_eq!(answers, [[index, 0], [index, 1]]);
        }
        // A server at all addresses would answer the guest from another one than 127.0.0.9.
        let other: Option<IpAddr> = (port == 5300).then(|| "127.0.0.9".parse().unwrap());
        for to in [Some(LO), other].into_iter().flatten() {
            for len in [0, 1, 1_400, 60_000] {
                for (index, client) in (0_u8..).zip(&clients) {
                    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    client.send_to(&vec![index; len], (to, port)).unwrap();
                    let mut buffer = vec![0; 65_536];
                    let (got, peer) = client.recv_from(&mut buffer).expect("it is answered");
                    assert_eq!((got, peer), (len, (to, port).into()));
                    assert!(buffer[..got].iter().all(|&byte| byte == index));
                }
            }
        }
    }
    let page = instance.handle().blocking().flows(1 << 31).expect("it runs");
    assert!(page.flows.len() >= 100, "{}", page.flows.len());
    drop(instance);
}

#[test]
fn ports_in_use_are_open_on_the_other_side_within_a_second_or_so_and_no_longer() {
    let _turn = turn();
    let world = needs!(World::root());
    let early = TcpServer::echo(&world.guest, (LO, 7001).into());
    let tcp = ForwardProtocol::Tcp;
    let scanned = Forward { ports: 1_000, ..Forward::everywhere(tcp, 7000, (GUEST, 7000).into()) };
    let ports = HostPorts { ports: 1_000, is_scanned: true, ..tcp_to_host(7000, 7000) };
    let instance = splice(&world, &[], |splices| {
        splices.to_guest_loopback(true).scanned([scanned]).to_host([ports])
    });
    echo(&world.host, (LO, 7001).into());
    let is_open = |from: &Namespace, port: u16| {
        connect(from, (LO, port).into()).is_ok_and(|mut stream| {
            stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
        })
    };
    for (inside, from, port) in [(true, &world.host, 7002), (false, &world.guest, 7003)] {
        assert!(!is_open(from, port));
        let server =
            TcpServer::echo(if inside { &world.guest } else { &world.host }, (LO, port).into());
        wait_until(PATIENCE, "the port opens", || is_open(from, port));
        let stream = echo(from, (LO, port).into());
        drop(server);
        wait_until(PATIENCE, "the port closes", || connect(from, (LO, port).into()).is_err());
        // Nothing keeps the other's port open, or forwards it back.
        std::thread::sleep(Duration::from_millis(2_500));
        assert!(connect(&world.host, (LO, port).into()).is_err());
        assert!(connect(&world.guest, (LO, port).into()).is_err());
        drop(stream);
    }
    drop((early, instance));
}

#[test]
fn egress_policy_judges_what_the_guests_loopback_reaches() {
    let _turn = turn();
    let world = needs!(World::root());
    let _allowed = TcpServer::echo(&world.host, (LO, 9001).into());
    let _denied = TcpServer::echo(&world.host, (LO, 9002).into());
    let policy = |text: &str| EgressPolicy::parse(text, "test").expect("it is a policy");
    let only_first = policy("allow host-loopback:9001");
    let instance = try_splice(
        &world,
        &[],
        |splices| splices.to_host([tcp_to_host(9001, 9001), tcp_to_host(9002, 9002)]),
        |builder| builder.egress(only_first),
    )
    .expect("the instance starts");
    let mut stream = echo(&world.guest, (LO, 9001).into());
    assert!(is_refused(&world.guest, (LO, 9002).into()));
    // The same address is open, or not, over the link.
    echo(&world.guest, (GATEWAY, 9001).into());
    assert!(connect(&world.guest, (GATEWAY, 9002).into()).is_err());
    let nothing = policy("allow 192.0.2.1:1");
    let cut = Established::Cut;
    instance.handle().blocking().set_egress(None, nothing, cut).expect("it is set");
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(instance);
}

#[test]
fn joined_connections_and_datagrams_are_counted_as_flows_are() {
    let _turn = turn();
    let world = needs!(World::root());
    let udp = ForwardProtocol::Udp;
    let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    let _servers =
        [TcpServer::echo(&world.guest, any(8080)), TcpServer::echo(&world.host, (LO, 9001).into())];
    let _outside = UdpServer::echo(&world.host, any(5301));
    let _inside = UdpServer::echo(&world.guest, any(5300));
    let policy =
        EgressPolicy::parse("allow host-loopback:9001,9002,5301\nallow 192.0.2.1\n", "test")
            .expect("it is a policy");
    let rules = [publish(8080), Forward::everywhere(udp, 5300, (GUEST, 5300).into())];
    let ports = [
        tcp_to_host(9001, 9001),
        tcp_to_host(9002, 9002),
        tcp_to_host(9003, 9003),
        to_host(udp, 5301, 5301),
    ];
    let instance = try_splice(
        &world,
        &rules,
        |splices| splices.to_host(ports),
        |builder| builder.egress(policy),
    )
    .expect("the instance starts");
    let handle = instance.handle();
    let stats = || handle.blocking().stats().expect("it runs");
    let inbound = echo(&world.host, (LO, 8080).into());
    let outbound = echo(&world.guest, (LO, 9001).into());
    // Nothing listens at the one, and policy forbids the other.
    assert!(is_refused(&world.guest, (LO, 9002).into()));
    assert!(is_refused(&world.guest, (LO, 9003).into()));
    for (from, port) in [(&world.host, 5300), (&world.guest, 5301)] {
        let client = from.enter(|| UdpSocket::bind((LO, 0))).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..2 {
            client.send_to(b"hello", (LO, port)).unwrap();
            assert_eq!(client.recv(&mut [0; 8]).unwrap(), 5);
        }
    }
    let (tcp, datagrams) = (Protocol::Tcp, Protocol::Udp);
    wait_until(PATIENCE, "the refused ones are over", || stats().flows == 4);
    let now = stats();
    assert_eq!((now.tcp_accepted, now.tcp_opened, now.tcp_failed), (1, 3, 1));
    assert_eq!((now.udp_accepted, now.udp_opened), (1, 1));
    assert_eq!((now.open[tcp], now.open[datagrams]), (2, 2));
    let failed: Vec<_> = now.connect_failures.iter().filter(|&(_, count)| count > 0).collect();
    assert_eq!(failed, [(HostError::Refused, 1)]);
    assert_eq!(now.discards.value(DiscardReason::EgressDenied), 1);
    // Every byte was echoed: 10,000 each way, and twice 5.
    let moved =
        |of: &Stats, protocol| (of.traffic[protocol].from_guest, of.traffic[protocol].to_guest);
    assert_eq!(moved(&now, tcp), (20_000, 20_000));
    assert_eq!(moved(&now, datagrams), (20, 20));
    drop((inbound, outbound));
    wait_until(PATIENCE, "the connections end", || stats().open[tcp] == 0);
    let later = stats();
    assert_eq!((later.flows, moved(&later, tcp)), (2, (20_000, 20_000)));
    drop(instance);
}

#[test]
fn port_that_is_taken_in_the_namespace_is_no_start() {
    let _turn = turn();
    let world = needs!(World::root());
    let _taken = listen(&world.guest, (LO, 9001));
    let before = open_files();
    let started = try_splice(
        &world,
        &[],
        |splices| splices.to_host([tcp_to_host(9001, 9001)]),
        |builder| builder,
    );
    let error = started.expect_err("the port is taken").to_string();
    assert_eq!(
        error,
        "cannot listen on TCP port 9001 of the guest's loopback: Address already in use"
    );
    wait_until(PATIENCE, "nothing is left", || open_files() <= before);
    let weak = HostPorts { is_weak: true, ..tcp_to_host(9001, 9001) };
    drop(splice(&world, &[], |splices| splices.to_host([weak])));
}

#[test]
fn guest_that_floods_its_ports_keeps_no_client_of_the_host_away() {
    const LIMIT: u64 = 2_048;
    let _turn = turn();
    let world = needs!(World::root());
    let inside = TcpServer::echo(&world.guest, "0.0.0.0:8080".parse().unwrap());
    let outside = listen(&world.host, (LO, 9001));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, LIMIT, hard).unwrap();
    let instance =
        splice(&world, &[publish(8080)], |splices| splices.to_host([tcp_to_host(9001, 9001)]));
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let (stop, is_over) = std::sync::mpsc::channel::<()>();
    let accepted = std::thread::spawn(move || {
        outside.set_nonblocking(true).unwrap();
        let mut held = Vec::new();
        while is_over.try_recv() == Err(TryRecvError::Empty) {
            match outside.accept() {
                Ok((stream, _)) => held.push(stream),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        held
    });
    let flood: Vec<TcpStream> =
        (0..2_600).filter_map(|_| connect(&world.guest, (LO, 9001).into()).ok()).collect();
    let mut client = echo(&world.host, (LO, 8080).into());
    let handle = instance.handle();
    let mut outbound = 0;
    let mut first = Some(1 << 31);
    while let Some(place) = first {
        let page = handle.blocking().flows(place).expect("it runs");
        outbound += page.flows.iter().filter(|flow| !flow.is_inbound).count();
        first = page.next;
    }
    // Flows and bridges share what is left of the limit, and each way has half of the bridges, with
    // two descriptors each.
    let cap = usize::try_from(LIMIT).unwrap() / 8;
    assert!((cap / 4..=cap).contains(&outbound), "{outbound} of {cap}");
    send_exact(&mut client, 3, 10_000).unwrap();
    receive_exact(&mut client, 3, 10_000).unwrap();
    echo(&world.host, (LO, 8080).into());
    drop(stop);
    let held = accepted.join().unwrap();
    assert!((outbound..2_600 / 2).contains(&held.len()), "{}", held.len());
    drop((flood, held, inside, instance));
}

#[expect(clippy::unwrap_used, reason = "what fails here fails the test, and says so")]
fn confined(account: Account) {
    let world = needs!(World::of(account));
    // An ordinary user may be unable to walk to the build folder.
    let program = world.folder().join("splices");
    let install = std::process::Command::new("install")
        .arg("--mode=0755")
        .args([build_example("splices"), program.clone()])
        .status();
    assert!(install.unwrap().success());
    let pid = world.guest.pid().to_string();
    let mut argv = account.prefix().to_vec();
    argv.extend([program.to_str().unwrap(), &pid]);
    let mut child =
        world.host.command(&argv).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let inside = TcpServer::echo(&world.guest, "0.0.0.0:8080".parse().unwrap());
    let _outside = TcpServer::echo(&world.host, (LO, 9001).into());
    let _udp_inside = UdpServer::echo(&world.guest, "0.0.0.0:5300".parse().unwrap());
    let _udp_outside = UdpServer::echo(&world.host, "0.0.0.0:5301".parse().unwrap());
    let _scanned = TcpServer::echo(&world.guest, "0.0.0.0:7001".parse().unwrap());
    let _scanned = TcpServer::echo(&world.host, (LO, 7011).into());
    let mut bulk = echo(&world.host, (LO, 8080).into());
    echo(&world.guest, (LO, 900).into());
    let copy = bulk.try_clone().unwrap();
    let sender = std::thread::spawn(move || send_exact(copy, 9, 32 << 20).unwrap());
    receive_exact(&mut bulk, 9, 32 << 20).unwrap();
    sender.join().unwrap();
    for (from, port) in [(&world.host, 5300), (&world.guest, 5301)] {
        let client = from.enter(|| UdpSocket::bind((LO, 0))).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for _ in 0..3 {
            client.send_to(b"x", (LO, port)).unwrap();
            assert_eq!(client.recv_from(&mut [0; 8]).unwrap(), (1, (LO, port).into()));
        }
    }
    for (from, port) in [(&world.host, 7001), (&world.guest, 7011)] {
        wait_until(PATIENCE, "the port opens", || connect(from, (LO, port).into()).is_ok());
        echo(from, (LO, port).into());
    }
    // Every thread has CAP_NET_BIND_SERVICE alone, and a filter.
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let mut names = Vec::new();
    for task in tasks.flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap();
        let of = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            line.trim_start_matches(':').trim().to_owned()
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(of(set), "0000000000000400", "{set} {}", of("Name"));
        }
        assert_eq!((of("NoNewPrivs"), of("Seccomp")), ("1".to_owned(), "2".to_owned()));
        names.push(of("Name"));
    }
    assert!(names.iter().any(|name| name == "slirp-inner"), "{names:?}");
    drop((child.stdin.take(), inside));
    assert!(child.wait().unwrap().success());
}

#[test]
fn thread_in_the_namespace_of_a_confined_root_has_no_way_back() {
    let _turn = turn();
    confined(Account::Root);
}

#[test]
fn thread_in_the_namespace_of_a_confined_user_has_no_way_back() {
    let _turn = turn();
    confined(Account::Ordinary);
}
