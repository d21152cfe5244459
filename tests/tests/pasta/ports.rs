//! Ports of the host that lead to the guest: where they are opened, what a conflict says, and what
//! a start costs.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use slirp_tests::{
    Background, HOST, Output, PATIENCE, Rootless, TcpServer, World, needs, wait_until,
};

use crate::GUEST;

fn pasta(rootless: &Rootless<'_>, netns: &str, ports: &[&str]) -> Output {
    rootless.pasta(&[GUEST, ports, &["--netns", netns]].concat())
}

fn started(rootless: &Rootless<'_>, netns: &str, ports: &[&str]) {
    let output = pasta(rootless, netns, ports);
    let said = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
    assert_eq!(said, (Some(0), "", ""), "{ports:?}");
}

/// What a server of the guest says to a client of the host at `address`.
fn ask(world: &World, address: IpAddr, port: u16) -> String {
    world.host.enter(|| {
        let mut stream = TcpStream::connect((address, port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
}

#[test]
fn range_of_the_host_leads_to_a_range_of_the_guest() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    started(&rootless, &netns, &["-t", "5000-5002:80-82", "-u", "none"]);
    let listen = "TCP-LISTEN:82,reuseaddr,fork";
    let _server =
        rootless.spawn_inside(&netns, &["socat", "-t", "20", listen, "SYSTEM:echo answer"]);
    rootless.inside(&netns, "until ss -Htln sport = :82 | grep -q .; do sleep 0.01; done");
    for address in [HOST, IpAddr::V4(Ipv4Addr::LOCALHOST)] {
        assert_eq!(ask(&world, address, 5002), "answer\n", "{address}");
    }
}

#[test]
fn address_and_interface_say_where_clients_arrive() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let ports =
        ["-t", "127.0.0.1/5000", "-t", "%h0/5001", "-t", "198.51.100.1%h0/5002", "-u", "none"];
    started(&rootless, &netns, &ports);
    let bound = world
        .host
        .script("ss -Htln '( sport >= 5000 and sport <= 5002 )' | awk '{print $4}' | sort");
    assert_eq!(bound, "0.0.0.0%h0:5001\n127.0.0.1:5000\n198.51.100.1%h0:5002\n");
    let missing = rootless.netns("m");
    let output = pasta(&rootless, &missing, &["-t", "%nope/5003", "-u", "none"]);
    assert_eq!(output.status.code(), Some(1));
    let text = "Listen failed for HOST TCP port *%nope/5003: No such device\n";
    assert!(output.stderr.starts_with(text), "{}", output.stderr);
}

#[test]
fn port_in_use_is_an_error_that_names_it_and_leaves_nothing() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    started(&rootless, &netns, &["-t", "5000-5009", "-u", "5000"]);
    let other = rootless.netns("m");
    for (ports, text) in [
        (["-t", "5005", "-u", "none"], "TCP port */5005"),
        (["-t", "4999-5000", "-u", "none"], "TCP port */5000"),
        (["-t", "none", "-u", "5000"], "UDP port */5000"),
    ] {
        let output = pasta(&rootless, &other, &ports);
        assert_eq!(output.status.code(), Some(1));
        let text = format!(
            "Listen failed for HOST {text}: Address already in use\n\
             Couldn't listen on requested ports\n"
        );
        assert!(output.stderr.starts_with(&text), "{}", output.stderr);
    }
    assert_eq!(rootless.inside(&other, "ip -br link").lines().count(), 1, "no device");
    assert_eq!(world.host.script("ss -Htln sport = :4999"), "");
    // All but the taken ones.
    started(&rootless, &other, &["-t", "~1-4998,~5011-65535", "-u", "none"]);
    assert_eq!(
        world.host.script("ss -Htln sport = :4999 | wc -l; ss -Htln sport = :5010 | wc -l"),
        "1\n1\n"
    );
}

#[test]
fn port_of_a_predecessor_that_ends_is_waited_for() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let mut before: Option<String> = None;
    for number in 0..10 {
        let netns = rootless.netns(&format!("n{number}"));
        if let Some(before) = before.take() {
            rootless.remove_netns(&before);
        }
        started(&rootless, &netns, &["-t", "5000-5010", "-u", "5000"]);
        before = Some(netns);
    }
}

#[test]
fn foreign_address_is_for_those_who_ask() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let output = pasta(&rootless, &netns, &["-t", "192.0.2.77/5000", "-u", "none"]);
    assert_eq!(output.status.code(), Some(1));
    let text = "Listen failed for HOST TCP port 192.0.2.77/5000: Cannot assign requested address\n";
    assert!(output.stderr.starts_with(text), "{}", output.stderr);
    started(&rootless, &netns, &["--freebind", "-t", "192.0.2.77/5000", "-u", "none"]);
}

#[test]
fn thousands_of_ports_open() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    started(&rootless, &netns, &["-t", "10000-19999", "-u", "none"]);
    let count = world.host.script("ss -Htln '( sport >= 10000 and sport <= 19999 )' | wc -l");
    assert_eq!(count, "10000\n");
}

#[test]
fn datagrams_leave_from_the_port_that_the_guest_used() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    started(&rootless, &netns, &["-t", "none", "-u", "none"]);
    let heard = world.remote.enter(|| {
        let socket = std::net::UdpSocket::bind("198.51.100.2:9").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        rootless
            .inside(&netns, "echo hi | socat - UDP:198.51.100.2:9,sourceport=5353,bind=10.0.2.100");
        socket.recv_from(&mut [0; 16]).unwrap().1
    });
    assert_eq!(heard, (HOST, 5353).into());
}

#[test]
fn guest_takes_no_port_of_the_host_from_others() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    started(&rootless, &netns, &["-t", "none", "-u", "none", "--no-map-gw"]);
    let remote = world.remote.enter(|| std::net::UdpSocket::bind("198.51.100.2:9").unwrap());
    remote.set_read_timeout(Some(PATIENCE)).unwrap();
    let receive = "UDP:198.51.100.2:9,sourceport=8125,bind=10.0.2.100";
    let _guest =
        rootless.spawn_inside(&netns, &["socat", "-u", "SYSTEM:echo hi; sleep 60", receive]);
    assert_eq!(remote.recv_from(&mut [0; 16]).unwrap().1, (HOST, 8125).into());
    world.host.enter(|| {
        let service = std::net::UdpSocket::bind("127.0.0.1:8125").expect("still free");
        service.set_read_timeout(Some(PATIENCE)).unwrap();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"count", "127.0.0.1:8125").unwrap();
        assert_eq!(service.recv(&mut [0; 16]).unwrap(), 5);
    });
}

#[test]
fn groups_on_the_host_do_not_hear_a_guest_that_is_kept_from_it() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    started(&rootless, &netns, &["-t", "none", "-u", "none", "--no-map-gw"]);
    let listener = |here: &str| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:5353").unwrap();
        let here = here.parse().unwrap();
        socket.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 251), &here).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let on_host = world.host.enter(|| listener("198.51.100.1"));
    let on_link = world.remote.enter(|| listener("198.51.100.2"));
    rootless.inside(&netns, "echo all | socat - UDP-DATAGRAM:224.0.0.251:5353");
    rootless.inside(&netns, "echo host | socat - UDP-DATAGRAM:198.51.100.1:5353");
    let said = |socket: &std::net::UdpSocket| {
        let mut buf = [0; 16];
        let len = socket.recv(&mut buf).unwrap();
        String::from_utf8_lossy(&buf[..len]).into_owned()
    };
    assert_eq!(said(&on_link), "all\n");
    assert_eq!(said(&on_host), "host\n");
}

/// Says to each client how the guest sees it.
fn serve(rootless: &Rootless<'_>, netns: &str, address: &str, port: u16) -> Background {
    let listen = format!("TCP-LISTEN:{port},bind={address},reuseaddr,fork");
    let tell = "SYSTEM:echo $SOCAT_PEERADDR";
    let server = rootless.spawn_inside(netns, &["socat", "-t", "20", &listen, tell]);
    let wait = format!("until ss -Htln sport = :{port} | grep -q .; do sleep 0.01; done");
    rootless.inside(netns, &wait);
    server
}

#[test]
fn clients_on_the_loopback_come_from_the_guest_itself_or_from_its_loopback() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for (name, port, option, address, peer) in [
        ("n", 5000, None, "10.0.2.100", "10.0.2.100\n"),
        ("m", 5001, Some("--host-lo-to-ns-lo"), "127.0.0.1", "127.0.0.1\n"),
        // By the guest's interface, as the gateway.
        ("o", 5002, Some("--no-splice"), "10.0.2.100", "10.0.2.2\n"),
    ] {
        let netns = rootless.netns(name);
        let ports = format!("{port}:80");
        let options: Vec<_> = option.into_iter().chain(["-t", &ports, "-u", "none"]).collect();
        started(&rootless, &netns, &options);
        let _server = serve(&rootless, &netns, address, 80);
        assert_eq!(ask(&world, loopback, port), peer, "{option:?}");
    }
}

#[test]
fn ports_of_the_guests_loopback_lead_to_the_hosts() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let guest = &GUEST[..GUEST.len() - 4];
    let ports = ["-t", "none", "-u", "none", "-T", "5201:7000,5202:7001", "-U", "none"];
    let output = rootless.pasta(&[guest, &ports, &["--netns", &netns]].concat());
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
    let listen = "TCP-LISTEN:7000,bind=127.0.0.1,reuseaddr,fork";
    let _server = world.host.spawn(&["socat", "-t", "20", listen, "SYSTEM:echo host"]);
    world.host.script("until ss -Htln sport = :7000 | grep -q .; do sleep 0.01; done");
    assert_eq!(rootless.inside(&netns, "socat -t 20 - TCP:127.0.0.1:5201 </dev/null"), "host\n");
    // A service that is there in IPv6 alone is found as `localhost`, and as no other address.
    let listen = "TCP6-LISTEN:7001,bind=[::1],reuseaddr,fork";
    let _server = world.host.spawn(&["socat", "-t", "20", listen, "SYSTEM:echo host"]);
    world.host.script("until ss -Htln sport = :7001 | grep -q .; do sleep 0.01; done");
    for (address, said) in [("127.0.0.1", "host\n"), ("[::1]", "host\n"), ("127.9.9.9", "")] {
        let ask = format!("socat -t 20 - TCP:{address}:5202 </dev/null 2>/dev/null || true");
        assert_eq!(rootless.inside(&netns, &ask), said, "{address}");
    }
}

#[test]
fn port_opens_and_closes_with_the_program_of_the_guest() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let guest = &GUEST[..GUEST.len() - 4];
    let output = rootless.pasta(&[guest, &["--netns", &netns]].concat());
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
    let server = serve(&rootless, &netns, "10.0.2.100", 7000);
    let is_open = || !world.host.script("ss -Htln sport = :7000").is_empty();
    wait_until(PATIENCE, "the port is open", is_open);
    assert_eq!(ask(&world, IpAddr::V4(Ipv4Addr::LOCALHOST), 7000), "10.0.2.100\n");
    drop(server);
    rootless.inside(&netns, "until ! ss -Htln sport = :7000 | grep -q .; do sleep 0.01; done");
    wait_until(PATIENCE, "the port is closed", || !is_open());
}

#[test]
fn only_clients_of_the_host_are_left_to_the_interface() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let guest = &GUEST[..GUEST.len() - 4];
    let ports = ["--no-splice", "-u", "none", "-T", "5201:7000", "-U", "none"];
    let output = rootless.pasta(&[guest, &ports, &["--netns", &netns]].concat());
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
    let listen = "TCP-LISTEN:7000,bind=127.0.0.1,reuseaddr,fork";
    let _far = world.host.spawn(&["socat", "-t", "20", listen, "SYSTEM:echo host"]);
    world.host.script("until ss -Htln sport = :7000 | grep -q .; do sleep 0.01; done");
    assert_eq!(rootless.inside(&netns, "socat -t 20 - TCP:127.0.0.1:5201 </dev/null"), "host\n");
    let _near = serve(&rootless, &netns, "10.0.2.100", 7100);
    let is_open = || !world.host.script("ss -Htln sport = :7100").is_empty();
    wait_until(PATIENCE, "the port is open", is_open);
    assert_eq!(ask(&world, IpAddr::V4(Ipv4Addr::LOCALHOST), 7100), "10.0.2.2\n");
}

/// Listens at 900 ports from 20000 on, until it is killed.
const GREEDY: &str = "
import signal, socket
held = []
for port in range(20000, 20900):
    held.append(socket.create_server(('0.0.0.0', port)))
signal.pause()
";

/// Opens 300 connections, and then says and hears something in each.
const BUSY: &str = "
import socket
held = [socket.create_connection(('198.51.100.2', 7), 20) for _ in range(300)]
for stream in held:
    stream.sendall(b'x')
    assert stream.recv(1) == b'x'
print('all')
";

#[test]
fn guest_that_listens_at_many_ports_leaves_descriptors_to_its_flows() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let _echo = TcpServer::echo(&world.remote, "198.51.100.2:7".parse().unwrap());
    let pasta = world.reachable_pasta().display().to_string();
    let guest = &GUEST[..GUEST.len() - 4];
    let limited = [&["--nofile=1024:1024", &pasta], guest, &["--netns", &netns]].concat();
    let output = rootless.run(Path::new("prlimit"), &limited);
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
    let greedy = rootless.spawn_inside(&netns, &["python3", "-c", GREEDY]);
    let open = || {
        let count = world.host.script("ss -Htln '( sport >= 20000 and sport < 20900 )' | wc -l");
        count.trim().parse::<usize>().unwrap()
    };
    // Three quarters of the limit are for flows and what is joined, which has a half of that. An
    // eighth of it are the ports that a guest may have open.
    let cap = 1024 * 3 / 4 / 2 / 8;
    wait_until(PATIENCE, "as many ports as may be", || open() >= cap);
    assert_eq!(rootless.inside(&netns, &format!("python3 -c \"{BUSY}\"")), "all\n");
    assert_eq!(open(), cap);
    drop(greedy);
    wait_until(PATIENCE, "the ports close", || open() == 0);
    let _server = serve(&rootless, &netns, "10.0.2.100", 20_500);
    wait_until(PATIENCE, "there is room again", || open() == 1);
    assert_eq!(ask(&world, IpAddr::V4(Ipv4Addr::LOCALHOST), 20_500), "10.0.2.100\n");
}
