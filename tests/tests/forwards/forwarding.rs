//! Ports of the host that lead to the guest.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};

use nix::errno::Errno;
use slirp_tests::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const HOST_2: &str = "198.51.100.77";

fn start(world: &World, options: &[&str]) -> (Slirp, Api) {
    let api = Api::new(world);
    let slirp = world.slirp().options(&[&api.option()]).options(options).start();
    (slirp, api)
}

/// A listener in the guest and a rule that leads to it from `host_port` of the host.
fn published(world: &World, api: &Api, host_port: u16) -> (TcpListener, u64) {
    let listener = world.guest.enter(|| TcpListener::bind((ANY, 0))).unwrap();
    let guest_port = listener.local_addr().unwrap().port();
    let id = api.forward(&format!(
        "{{\"proto\":\"tcp\",\"host_port\":{host_port},\"guest_port\":{guest_port}}}"
    ));
    (listener, id)
}

fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, from) = listener.accept().expect("a connection comes");
    (bounded(stream), from)
}

#[test]
fn guest_sees_the_clients_address_and_port() {
    let (world, api) = needs!(World::root()).online_with_api(&[]);
    let (listener, _) = published(&world, &api, 8080);
    let mut client = connect(&world.remote, (HOST, 8080).into()).unwrap();
    let (mut guest, from) = accept(&listener);
    assert_eq!(from, client.local_addr().unwrap());
    client.write_all(b"ping").unwrap();
    let mut four = [0; 4];
    guest.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"ping");
    guest.write_all(b"pong").unwrap();
    client.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"pong");
    // Ends travel one by one.
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.read(&mut four).unwrap(), 0);
    guest.write_all(b"last").unwrap();
    drop(guest);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"last");
}

#[test]
fn clients_on_host_loopback_appear_as_the_gateway_with_their_own_port() {
    let (world, api) = needs!(World::root()).online_with_api(&["--disable-host-loopback"]);
    let (listener, _) = published(&world, &api, 8080);
    let client = connect(&world.host, (LOOPBACK, 8080).into()).unwrap();
    let (_, from) = accept(&listener);
    assert_eq!(from, SocketAddr::new(GATEWAY, client.local_addr().unwrap().port()));
}

#[test]
fn one_client_port_to_two_rules_of_one_service_makes_two_connections() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world, &[]);
    let (listener, _) = published(&world, &api, 8080);
    let guest_port = listener.local_addr().unwrap().port();
    api.forward(&format!("{{\"proto\":\"tcp\",\"host_port\":8081,\"guest_port\":{guest_port}}}"));
    let _first = connect_from(&world.remote, 5000, (HOST, 8080).into()).unwrap();
    let _second = connect_from(&world.remote, 5000, (HOST, 8081).into()).unwrap();
    let ((_one, a), (_two, b)) = (accept(&listener), accept(&listener));
    assert_eq!(a.ip(), REMOTE);
    assert_eq!(b.ip(), REMOTE);
    assert_ne!(a.port(), b.port());
}

#[test]
fn clients_port_that_comes_round_again_is_served_at_once() {
    let (world, api) = needs!(World::root()).online_with_api(&[]);
    let (listener, _) = published(&world, &api, 8080);
    for round in 0..30 {
        let mut client = connect_from(&world.remote, 5000, (HOST, 8080).into()).unwrap();
        // The guest closes first, and so it is the guest that remembers the connection for a
        // minute.
        drop(accept(&listener));
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "round {round}");
        client.shutdown(Shutdown::Write).unwrap();
        // Before its end is acknowledged the port is not free.
        world.remote.wait_for_free_port(5000);
    }
}

#[test]
fn client_of_a_closed_guest_port_is_reset() {
    let (world, api) = needs!(World::root()).online_with_api(&[]);
    api.forward("{\"proto\":\"tcp\",\"host_port\":8080,\"guest_port\":9}");
    // The reset may come before the client has looked whether it is connected.
    let errno = match connect(&world.remote, (HOST, 8080).into()) {
        Ok(mut client) => {
            let error = client.read(&mut [0]).expect_err("nobody listens in the guest");
            Errno::from_raw(error.raw_os_error().unwrap_or(0))
        }
        Err(failure) => failure.errno,
    };
    assert_eq!(errno, Errno::ECONNRESET);
}

#[test]
fn guest_that_comes_late_is_reached() {
    let (world, api) = needs!(World::root()).online_with_api(&[]);
    world.guest.script("ip addr del 10.0.2.100/24 dev tap0");
    api.forward("{\"proto\":\"tcp\",\"host_port\":8080,\"guest_port\":80}");
    let mut client = connect(&world.remote, (HOST, 8080).into()).unwrap();
    client.write_all(b"early").unwrap();
    let listener = world.guest.enter(|| TcpListener::bind((ANY, 80))).unwrap();
    world.guest.script("ip addr add 10.0.2.100/24 dev tap0; ip route add default via 10.0.2.2");
    let (mut guest, _) = accept(&listener);
    let mut five = [0; 5];
    guest.read_exact(&mut five).unwrap();
    assert_eq!(&five, b"early");
}

#[test]
fn removed_rule_closes_the_port_and_keeps_its_connections() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world, &[]);
    let (listener, id) = published(&world, &api, 8080);
    let mut client = connect(&world.remote, (HOST, 8080).into()).unwrap();
    let (mut guest, _) = accept(&listener);
    let removed =
        api.ask(&format!("{{\"execute\":\"remove_hostfwd\",\"arguments\":{{\"id\":{id}}}}}"));
    assert_eq!(removed, "{\"return\":{}}");
    let refused = connect(&world.remote, (HOST, 8080).into()).expect_err("the port is closed");
    assert_eq!(refused.errno, Errno::ECONNREFUSED);
    client.write_all(b"still").unwrap();
    let mut five = [0; 5];
    guest.read_exact(&mut five).unwrap();
    assert_eq!(&five, b"still");
}

#[test]
fn bulk_is_byte_exact_in_both_directions_at_once() {
    const LEN: usize = 64 << 20;
    let world = needs!(World::root());
    let (_slirp, api) = start(&world, &["--mtu=1500"]);
    let (listener, _) = published(&world, &api, 8080);
    let client = connect(&world.remote, (HOST, 8080).into()).unwrap();
    let (guest, _) = accept(&listener);
    std::thread::scope(|scope| {
        let up = scope.spawn(|| send_exact(&client, 1, LEN));
        let down = scope.spawn(|| send_exact(&guest, 2, LEN));
        let at_guest = scope.spawn(|| receive_exact(&guest, 1, LEN));
        receive_exact(&client, 2, LEN).unwrap();
        at_guest.join().unwrap().unwrap();
        up.join().unwrap().unwrap();
        down.join().unwrap().unwrap();
    });
}

#[test]
fn connection_that_slept_goes_on() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world, &[]);
    let (listener, _) = published(&world, &api, 8080);
    let client = connect(&world.remote, (HOST, 8080).into()).unwrap();
    let (guest, _) = accept(&listener);
    wait_until(PATIENCE, "the idle connection to be parked", || {
        api.ask("{\"execute\":\"info\"}").contains("\"tcp_parked\":1")
    });
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| send_exact(&client, 3, 4 << 20));
        receive_exact(&guest, 3, 4 << 20).unwrap();
        sent.join().unwrap().unwrap();
        let sent = scope.spawn(|| send_exact(&guest, 4, 4 << 20));
        receive_exact(&client, 4, 4 << 20).unwrap();
        sent.join().unwrap().unwrap();
    });
}

fn udp(namespace: &Namespace, at: SocketAddr) -> UdpSocket {
    let socket = namespace.enter(|| UdpSocket::bind(at)).unwrap();
    socket.set_read_timeout(Some(IO_LIMIT)).unwrap();
    socket
}

#[test]
fn datagrams_are_answered_from_the_address_that_was_asked() {
    let world = needs!(World::root());
    world.host.script(&format!("ip addr add {HOST_2}/24 dev h0"));
    let (world, api) = world.online_with_api(&[]);
    let server = udp(&world.guest, (ANY, 0).into());
    let port = server.local_addr().unwrap().port();
    api.forward(&format!("{{\"proto\":\"udp\",\"host_port\":5353,\"guest_port\":{port}}}"));
    for host in [HOST, HOST_2.parse().unwrap()] {
        let client = udp(&world.remote, (REMOTE, 0).into());
        client.send_to(b"ask", (host, 5353)).unwrap();
        let mut buffer = [0; 16];
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&b"ask"[..], client.local_addr().unwrap()));
        server.send_to(b"answer", from).unwrap();
        let (len, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&b"answer"[..], SocketAddr::new(host, 5353)));
    }
}

#[test]
fn datagrams_of_host_loopback_are_answered_though_it_is_disabled() {
    let (world, api) = needs!(World::root()).online_with_api(&["--disable-host-loopback"]);
    let server = udp(&world.guest, (ANY, 0).into());
    let port = server.local_addr().unwrap().port();
    api.forward(&format!("{{\"proto\":\"udp\",\"host_port\":5353,\"guest_port\":{port}}}"));
    let client = udp(&world.host, (LOOPBACK, 0).into());
    client.send_to(b"ask", (LOOPBACK, 5353)).unwrap();
    let mut buffer = [0; 16];
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(from, SocketAddr::new(GATEWAY, client.local_addr().unwrap().port()));
    server.send_to(b"answer", from).unwrap();
    let (len, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from), (&b"answer"[..], (LOOPBACK, 5353).into()));
}

/// Waits until the guest has made itself an address and has a way back, from the router
/// advertisement.
fn await_ipv6(world: &World) {
    wait_until(IO_LIMIT, "an address from the router advertisement", || {
        let addresses = world.guest.script("ip -6 addr show dev tap0 scope global -tentative");
        let routes = world.guest.script("ip -6 route show default");
        addresses.contains("fd00::") && routes.contains("via fe80::2")
    });
}

#[test]
fn ipv6_is_forwarded_like_ipv4() {
    let (world, api) = needs!(World::root()).online_with_api(&["--enable-ipv6"]);
    world.guest.script("ip addr add fd00::64/64 dev tap0 nodad");
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let listener = world.guest.enter(|| TcpListener::bind((any, 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    let arguments = |proto: &str, port: u16| {
        format!(
            "{{\"proto\":\"{proto}6\",\"host_port\":8080,\"guest_addr6\":\"fd00::64\",\
             \"guest_port\":{port}}}"
        )
    };
    api.forward(&arguments("tcp", port));
    let host = "2001:db8:1::1".parse().unwrap();
    let client = connect(&world.remote, SocketAddr::new(host, 8080)).unwrap();
    assert_eq!(accept(&listener).1, client.local_addr().unwrap());
    let near = connect(&world.host, (Ipv6Addr::LOCALHOST, 8080).into()).unwrap();
    let gateway: IpAddr = "fd00::2".parse().unwrap();
    assert_eq!(accept(&listener).1, SocketAddr::new(gateway, near.local_addr().unwrap().port()));

    // Bound to its address: it has another one from the router advertisement to answer from.
    let server = udp(&world.guest, SocketAddr::new("fd00::64".parse().unwrap(), 0));
    api.forward(&arguments("udp", server.local_addr().unwrap().port()));
    let client = udp(&world.remote, (REMOTE_V6, 0).into());
    client.send_to(b"ask", SocketAddr::new(host, 8080)).unwrap();
    let mut buffer = [0; 16];
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    server.send_to(b"answer", from).unwrap();
    assert_eq!(client.recv_from(&mut buffer).unwrap().1, SocketAddr::new(host, 8080));
}

#[test]
fn ipv6_datagrams_are_answered_from_the_address_that_was_asked() {
    let world = needs!(World::root());
    world.host.script("ip addr add 2001:db8:1::77/64 dev h0 nodad");
    let (_slirp, api) = start(&world, &["--enable-ipv6"]);
    await_ipv6(&world);
    // Neither its address nor the guest's is named: the one that the guest has made is meant.
    let server = udp(&world.guest, (Ipv6Addr::UNSPECIFIED, 0).into());
    let port = server.local_addr().unwrap().port();
    api.forward(&format!("{{\"proto\":\"udp6\",\"host_port\":5353,\"guest_port\":{port}}}"));
    for host in ["2001:db8:1::1", "2001:db8:1::77"] {
        let asked = SocketAddr::new(host.parse().unwrap(), 5353);
        let client = udp(&world.remote, (REMOTE_V6, 0).into());
        client.send_to(b"ask", asked).unwrap();
        let mut buffer = [0; 16];
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(from, client.local_addr().unwrap());
        server.send_to(b"answer", from).unwrap();
        assert_eq!(client.recv_from(&mut buffer).unwrap().1, asked);
    }
}

#[test]
fn datagrams_for_a_guest_that_comes_late_arrive_once_it_is_there() {
    let (world, api) = needs!(World::root()).online_with_api(&[]);
    world.guest.script("ip addr del 10.0.2.100/24 dev tap0");
    api.forward("{\"proto\":\"udp\",\"host_port\":5353,\"guest_port\":53}");
    let client = udp(&world.remote, (REMOTE, 0).into());
    client.send_to(b"lost", (HOST, 5353)).unwrap();
    wait_until(IO_LIMIT, "the datagram to be given up", || {
        api.ask("{\"execute\":\"info\"}").contains("\"guest_not_found\":1")
    });
    let server = udp(&world.guest, (ANY, 53).into());
    world.guest.script("ip addr add 10.0.2.100/24 dev tap0");
    client.send_to(b"early", (HOST, 5353)).unwrap();
    let mut buffer = [0; 16];
    let (len, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from), (&b"early"[..], client.local_addr().unwrap()));
}

#[test]
fn guest_that_speaks_first_leaves_from_its_published_port() {
    let (world, api) = needs!(World::root()).online_with_api(&[]);
    let service = udp(&world.guest, (ANY, 5060).into());
    let to = |socket: &UdpSocket, to: SocketAddr| {
        service.send_to(b"register", to).unwrap();
        socket.recv_from(&mut [0; 16]).unwrap().1
    };
    let far = udp(&world.remote, (FAR, 5060).into());
    let near = udp(&world.host, (LOOPBACK, 5060 + 1).into());
    let far_at = far.local_addr().unwrap();
    let near_at = SocketAddr::new(GATEWAY, near.local_addr().unwrap().port());
    assert_ne!(to(&far, far_at).port(), 7060, "nothing is published yet");
    let rule = |host: &str, port: u16| {
        api.forward(&format!(
            "{{\"proto\":\"udp\",\"host_addr\":\"{host}\",\"host_port\":{port},\
             \"guest_port\":5060}}"
        ))
    };
    // One that reaches loopback alone, and one for everybody else.
    rule("127.0.0.1", 7061);
    let everywhere = rule("0.0.0.0", 7060);
    for round in 0..3 {
        let seen = to(&far, far_at);
        assert_eq!(seen, SocketAddr::new(HOST, 7060), "{round}");
        let seen_near = to(&near, near_at);
        assert_eq!(seen_near, SocketAddr::new(LOOPBACK, 7061), "{round}");
        // Each answers, and is known by the address that the guest used.
        for (socket, seen, known) in [(&far, seen, far_at), (&near, seen_near, near_at)] {
            socket.send_to(b"answer", seen).unwrap();
            assert_eq!(service.recv_from(&mut [0; 16]).unwrap().1, known);
        }
    }
    let stranger = udp(&world.remote, (REMOTE, 0).into());
    stranger.send_to(b"call", (HOST, 7060)).unwrap();
    let (_, caller) = service.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(caller, stranger.local_addr().unwrap());
    api.ask(&format!("{{\"execute\":\"remove_hostfwd\",\"arguments\":{{\"id\":{everywhere}}}}}"));
    assert_ne!(to(&far, far_at).port(), 7060, "nothing is published any more");
}

#[test]
fn guest_that_speaks_first_from_a_published_port_hears_of_errors() {
    let (world, api) = needs!(World::root()).online_with_api(&[]);
    api.forward("{\"proto\":\"udp\",\"host_port\":7060,\"guest_port\":5060}");
    for at in [SocketAddr::new(FAR, 9), SocketAddr::new(GATEWAY, 9)] {
        let service = udp(&world.guest, (ANY, 5060).into());
        service.connect(at).unwrap();
        service.send(b"anybody?").unwrap();
        let error = service.recv(&mut [0; 16]).expect_err("nobody is there");
        assert_eq!(error.raw_os_error(), Some(Errno::ECONNREFUSED as i32), "{at}: {error}");
    }
}

#[test]
fn removed_datagram_rule_gives_back_its_own_port_only() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world, &[]);
    let server = udp(&world.guest, (ANY, 0).into());
    let port = server.local_addr().unwrap().port();
    let rule = |host_port: u16| {
        format!("{{\"proto\":\"udp\",\"host_port\":{host_port},\"guest_port\":{port}}}")
    };
    let gone = api.forward(&rule(5353));
    api.forward(&rule(5354));
    api.ask(&format!("{{\"execute\":\"remove_hostfwd\",\"arguments\":{{\"id\":{gone}}}}}"));
    let _free_again = udp(&world.host, (ANY, 5353).into());
    let client = udp(&world.remote, (REMOTE, 0).into());
    client.send_to(b"ask", (HOST, 5354)).unwrap();
    let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
    server.send_to(b"answer", from).unwrap();
    assert_eq!(client.recv_from(&mut [0; 16]).unwrap().1, SocketAddr::new(HOST, 5354));
}

#[test]
fn published_ports_are_open_when_the_network_is_ready() {
    let world = needs!(World::root());
    let (slirp, _) = start(&world, &["--publish=8080-8081:80", "--publish=udp:5353:53"]);
    let listener = world.guest.enter(|| TcpListener::bind((ANY, 81))).unwrap();
    let client = connect(&world.remote, (HOST, 8081).into()).unwrap();
    assert_eq!(accept(&listener).1, client.local_addr().unwrap());
    drop(slirp);
    let _taken = world.host.enter(|| TcpListener::bind((ANY, 8080))).unwrap();
    world.guest.script("! ip link show tap0 2>/dev/null || ip link del tap0");
    let exit = world.slirp().options(&["--publish=8080:80"]).run();
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("cannot listen on 0.0.0.0:8080"), "{}", exit.stderr);
}

#[test]
fn published_ipv6_ports_find_the_guest_by_themselves() {
    let world = needs!(World::root());
    let (_slirp, _) = start(&world, &["--enable-ipv6", "--publish=[::]:8080:80"]);
    await_ipv6(&world);
    let _capture = world.capture();
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let listener = world.guest.enter(|| TcpListener::bind((any, 80))).unwrap();
    let host = "2001:db8:1::1".parse().unwrap();
    let client = connect(&world.remote, SocketAddr::new(host, 8080)).unwrap();
    assert_eq!(accept(&listener).1, client.local_addr().unwrap());
}
