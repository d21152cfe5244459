//! Ports of the host for clients of both IP versions, and ports that the system picks.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};

use nix::errno::Errno;
use slirp_tests::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// The host as remotes know it.
const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
const LIST: &str = "{\"execute\":\"list_hostfwd\"}";

fn start(world: &World, options: &[&str]) -> (Slirp, Api) {
    let api = Api::new(world);
    let slirp = world.slirp().options(&[&api.option()]).options(options).start();
    (slirp, api)
}

/// A TCP and a UDP server of the guest, of IPv4 alone, at one port.
struct Service {
    listener: TcpListener,
    socket: UdpSocket,
}

impl Service {
    fn start(world: &World) -> Self {
        let listener = world.guest.enter(|| TcpListener::bind((ANY, 80))).unwrap();
        let socket = udp(&world.guest, (ANY, 80).into());
        Self { listener, socket }
    }

    /// A connection from `namespace` to `at` carries bytes both ways, and the guest sees
    /// `expected`, with the client's own port.
    fn serves_tcp(&self, namespace: &Namespace, at: SocketAddr, expected: IpAddr) {
        let mut client = connect(namespace, at).unwrap();
        let (guest, from) = self.listener.accept().unwrap();
        let mut guest = bounded(guest);
        assert_eq!(from, SocketAddr::new(expected, client.local_addr().unwrap().port()), "{at}");
        say_both_ways(&mut client, &mut guest);
    }

    fn serves_udp(&self, namespace: &Namespace, at: SocketAddr, expected: IpAddr) {
        let client = udp(namespace, SocketAddr::new(any_of(at), 0));
        client.send_to(b"ask", at).unwrap();
        let mut buffer = [0; 16];
        let (len, from) = self.socket.recv_from(&mut buffer).unwrap();
        let shown = SocketAddr::new(expected, client.local_addr().unwrap().port());
        assert_eq!((&buffer[..len], from), (&b"ask"[..], shown), "{at}");
        self.socket.send_to(b"answer", from).unwrap();
        let (len, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&b"answer"[..], at));
    }
}

fn say_both_ways(client: &mut TcpStream, guest: &mut TcpStream) {
    client.write_all(b"ask").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    guest.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"ask");
    guest.write_all(b"answer").unwrap();
    guest.shutdown(Shutdown::Write).unwrap();
    heard.clear();
    client.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"answer");
}

fn any_of(at: SocketAddr) -> IpAddr {
    match at {
        SocketAddr::V4(_) => ANY,
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn udp(namespace: &Namespace, at: SocketAddr) -> UdpSocket {
    let socket = namespace.enter(|| UdpSocket::bind(at)).unwrap();
    socket.set_read_timeout(Some(IO_LIMIT)).unwrap();
    socket
}

fn is_refused(namespace: &Namespace, at: SocketAddr) {
    let refused = connect(namespace, at).expect_err("nobody listens");
    assert_eq!(refused.errno, Errno::ECONNREFUSED, "{at}");
}

fn remove(api: &Api, id: u64) {
    let request = format!("{{\"execute\":\"remove_hostfwd\",\"arguments\":{{\"id\":{id}}}}}");
    assert_eq!(api.ask(&request), "{\"return\":{}}");
}

fn refusal(api: &Api, arguments: &str) -> String {
    let reply = api.ask(&format!("{{\"execute\":\"add_hostfwd\",\"arguments\":{{{arguments}}}}}"));
    assert!(reply.starts_with("{\"error\":"), "{arguments}: {reply}");
    reply
}

#[test]
fn port_that_is_removed_is_closed_outside_of_the_sandbox_as_well() {
    let world = needs!(World::root());
    let (_slirp, api) =
        start(&world, &["--publish=8080:80", "--enable-sandbox", "--enable-seccomp"]);
    let service = Service::start(&world);
    service.serves_tcp(&world.host, (LOOPBACK, 8080).into(), GATEWAY);
    remove(&api, 1);
    wait_until(PATIENCE, "no process listens", || {
        world.host.script("ss -Htln sport = :8080").is_empty()
    });
    is_refused(&world.host, (LOOPBACK, 8080).into());
}

#[test]
fn rule_for_all_addresses_serves_both_versions_and_is_one_rule() {
    let (world, api) = needs!(World::root()).online_with_api(&["--disable-host-loopback"]);
    let service = Service::start(&world);
    // As Podman asks, as RootlessKit asks, and as scripts do.
    for host_addr in ["\"host_addr\":\"0.0.0.0\",", "\"host_addr\":\"\",", ""] {
        let ids = ["tcp", "udp"].map(|proto| {
            api.forward(&format!(
                "{{\"proto\":\"{proto}\",{host_addr}\"host_port\":8080,\"guest_addr\":\"\",\
                 \"guest_port\":80}}"
            ))
        });
        let listed = api.ask(LIST);
        let entry = |id: u64, proto: &str| {
            format!(
                "{{\"id\":{id},\"proto\":\"{proto}\",\"host_addr\":\"0.0.0.0\",\"host_port\":8080,\
                 \"guest_addr\":\"10.0.2.100\",\"guest_port\":80}}"
            )
        };
        let entries = format!("[{},{}]", entry(ids[0], "tcp"), entry(ids[1], "udp"));
        assert_eq!(
            listed,
            format!("{{\"return\":{{\"entries\":{entries}}},\"entries\":{entries}}}")
        );
        for (namespace, host, shown) in [
            (&world.host, LOOPBACK, GATEWAY),
            (&world.host, LOOPBACK_V6, GATEWAY),
            (&world.remote, HOST, REMOTE),
            (&world.remote, HOST_V6, GATEWAY),
        ] {
            service.serves_tcp(namespace, (host, 8080).into(), shown);
            service.serves_udp(namespace, (host, 8080).into(), shown);
        }
        for id in ids {
            remove(&api, id);
        }
        is_refused(&world.host, (LOOPBACK, 8080).into());
        is_refused(&world.host, (LOOPBACK_V6, 8080).into());
        drop([LOOPBACK, LOOPBACK_V6].map(|host| udp(&world.host, (host, 8080).into())));
        // A program that another test starts may hold copies of these until it is executed.
        wait_until(PATIENCE, "the ports are free again", || {
            world.host.script("ss -Huan sport = :8080").is_empty()
        });
    }
}

#[test]
fn address_of_ipv6_serves_a_guest_of_ipv4_and_nobody_else() {
    for options in [&["--enable-ipv6"][..], &[]] {
        let (world, api) = needs!(World::root()).online_with_api(options);
        let service = Service::start(&world);
        for (host, port) in [("::1", 8080), ("::", 8081)] {
            for proto in ["tcp", "udp"] {
                api.forward(&format!(
                    "{{\"proto\":\"{proto}\",\"host_addr\":\"{host}\",\"host_port\":{port},\
                     \"guest_addr\":\"\",\
                     \"guest_port\":80}}"
                ));
            }
            service.serves_tcp(&world.host, (LOOPBACK_V6, port).into(), GATEWAY);
            service.serves_udp(&world.host, (LOOPBACK_V6, port).into(), GATEWAY);
            is_refused(&world.host, (LOOPBACK, port).into());
        }
        is_refused(&world.remote, (HOST_V6, 8080).into());
        service.serves_tcp(&world.remote, (HOST_V6, 8081).into(), GATEWAY);
        service.serves_udp(&world.remote, (HOST_V6, 8081).into(), GATEWAY);
        let listed = api.ask(LIST);
        let entry = "{\"id\":1,\"proto\":\"tcp\",\"host_addr\":\"::1\",\"host_port\":8080,\
                     \"guest_addr\":\"10.0.2.100\",\"guest_port\":80}";
        assert!(listed.contains(entry), "{listed}");
    }
}

#[test]
fn rule_of_ipv4_alone_is_asked_for_by_its_protocol() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world, &[]);
    let service = Service::start(&world);
    api.forward("{\"proto\":\"tcp4\",\"host_port\":8080,\"guest_port\":80}");
    is_refused(&world.host, (LOOPBACK_V6, 8080).into());
    service.serves_tcp(&world.host, (LOOPBACK, 8080).into(), GATEWAY);
    assert!(api.ask(LIST).contains("\"proto\":\"tcp4\",\"host_addr\":\"0.0.0.0\""));
}

#[test]
fn rule_that_only_one_version_could_have_is_refused_as_a_whole() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world, &[]);
    let taken = world.host.enter(|| TcpListener::bind((LOOPBACK_V6, 8080))).unwrap();
    let arguments = "\"proto\":\"tcp\",\"host_port\":8080,\"guest_port\":80";
    let reply = refusal(&api, arguments);
    let reason =
        "slirp_add_hostfwd failed: cannot listen on [::]:8080 for TCP: Address already in use";
    assert!(reply.contains(reason), "{reply}");
    is_refused(&world.host, (LOOPBACK, 8080).into());
    drop(taken);
    world.host.wait_for_free_port(8080);
    api.forward(&format!("{{{arguments}}}"));
}

#[test]
fn port_that_is_picked_is_told_listed_and_open() {
    let (world, api) = needs!(World::root()).online_with_api(&[]);
    let service = Service::start(&world);
    let pick = |proto: &str, host: &str| {
        let reply = api.ask(&format!(
            "{{\"execute\":\"add_hostfwd\",\"arguments\":{{\"proto\":\"{proto}\",\
             \"host_addr\":\"{host}\",\
             \"host_port\":0,\"guest_port\":80}}}}"
        ));
        let (id, port) = reply.split_once(",\"host_port\":").expect("the port is told");
        let port: u16 = port.strip_suffix("}}").unwrap().parse().unwrap();
        let id = id.strip_prefix("{\"return\":{\"id\":").unwrap().parse().unwrap();
        assert_ne!(port, 0);
        let entry = format!("\"host_addr\":\"{host}\",\"host_port\":{port},");
        assert!(api.ask(LIST).contains(&entry), "{entry}");
        (id, port)
    };
    for host in ["0.0.0.0", "127.0.0.1", "::1"] {
        let addresses: &[IpAddr] = match host {
            "0.0.0.0" => &[LOOPBACK, LOOPBACK_V6],
            "::1" => &[LOOPBACK_V6],
            _ => &[LOOPBACK],
        };
        let (tcp, tcp_port) = pick("tcp", host);
        let (udp, udp_port) = pick("udp", host);
        for &address in addresses {
            service.serves_tcp(&world.host, (address, tcp_port).into(), GATEWAY);
            service.serves_udp(&world.host, (address, udp_port).into(), GATEWAY);
        }
        remove(&api, tcp);
        remove(&api, udp);
        is_refused(&world.host, (addresses[0], tcp_port).into());
    }
    let range = "\"proto\":\"tcp\",\"host_port\":0,\"host_port_end\":9,\"guest_port\":80";
    assert!(refusal(&api, range).contains("bad arguments.host_port_end"));
}

#[test]
fn published_port_is_open_in_both_versions_and_one_that_is_picked_is_printed() {
    let options = ["--publish=8080:80", "--publish=udp:0:80", "--publish=[::1]:0:80"];
    let (world, api) = needs!(World::root()).online_with_api(&options);
    let service = Service::start(&world);
    for host in [LOOPBACK, LOOPBACK_V6] {
        service.serves_tcp(&world.host, (host, 8080).into(), GATEWAY);
    }
    let stdout = world.slirp.stdout();
    let lines: Vec<_> = stdout.lines().filter(|line| line.starts_with("* Published:")).collect();
    assert_eq!(lines.len(), 2, "{stdout}");
    let port = |line: &str, before: &str| {
        let rest = line.strip_prefix(before).unwrap_or_else(|| panic!("{before} in {line}"));
        rest.strip_suffix(":10.0.2.100:80").unwrap().parse::<u16>().unwrap()
    };
    let everywhere = port(lines[0], "* Published:       udp:");
    for host in [LOOPBACK, LOOPBACK_V6] {
        service.serves_udp(&world.host, (host, everywhere).into(), GATEWAY);
    }
    let near = port(lines[1], "* Published:       tcp:[::1]:");
    service.serves_tcp(&world.host, (LOOPBACK_V6, near).into(), GATEWAY);
    is_refused(&world.host, (LOOPBACK, near).into());
    for port in [8080, everywhere, near] {
        let listed = api.ask(LIST);
        assert!(listed.contains(&format!("\"host_port\":{port},")), "{port} in {listed}");
    }
}

#[test]
fn answer_to_a_client_of_ipv6_that_has_gone_is_an_error_of_the_gateways() {
    let (world, api) = needs!(World::root()).online_with_api(&[]);
    api.forward("{\"proto\":\"udp\",\"host_port\":5353,\"guest_port\":53}");
    let service = udp(&world.guest, (ANY, 53).into());
    let client = udp(&world.host, (LOOPBACK_V6, 0).into());
    client.send_to(b"ask", (LOOPBACK_V6, 5353)).unwrap();
    let (_, from) = service.recv_from(&mut [0; 16]).unwrap();
    let port = client.local_addr().unwrap().port();
    drop(client);
    world.host.wait_for_free_port(port);
    service.connect(from).unwrap();
    service.send(b"answer").unwrap();
    let error = service.recv(&mut [0; 16]).expect_err("nobody is there");
    assert_eq!(error.raw_os_error(), Some(Errno::ECONNREFUSED as i32), "{error}");
}
