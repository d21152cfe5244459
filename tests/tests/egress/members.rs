//! Members of a shared network: each has a policy and lookups of its own. Policies that change
//! while flows are open.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use nix::errno::Errno;
use slirp_core::dns::DnsConfig;
use slirp_core::egress::EgressPolicy;
use slirp_core::instance::{
    Builder, Established, Instance, Member, MemberId, NewMember, Switchboard,
};
use slirp_core::netns::{Configuration, NamespaceTarget, TapRequest, open_tap};
use slirp_core::plan::SlirpNetwork;
use slirp_tests::*;

use crate::hello::hello;
use crate::scene::*;

/// A shared network in this process, and the outside of a [`Scene`].
struct Network {
    world: World,
    instance: Instance,
    dns: NameServer,
    outside: Recorder,
    _servers: [TcpServer; 2],
}

fn policy(text: &str) -> EgressPolicy {
    EgressPolicy::parse(&format!("{text}\nallow udp:{SETTLED}\n"), "test").unwrap()
}

impl Network {
    fn new(world: World) -> Self {
        world.remote.script(OUTSIDE_SCRIPT);
        let servers = [22, 443].map(|port| server(&world.remote, port));
        let dns = NameServer::start(&world.remote, NAME_SERVER);
        dns.set_address("index.example", "203.0.113.7");
        let outside = Recorder::start(&world.remote, "r0");
        let mut config = DnsConfig::default();
        config.servers = vec![(NAME_SERVER, 53).into()];
        let instance = world.host.enter(|| {
            let network = Builder::new(Switchboard::new().unwrap()).dns(config);
            network.spawn().unwrap()
        });
        Self { world, instance, dns, outside, _servers: servers }
    }

    /// A member `.LAST` under `policy`.
    fn join(&self, last: u8, text: &str) -> (Namespace, MemberId) {
        let namespace = Container::alone(&self.world, Account::Root);
        let address = Ipv4Addr::new(10, 0, 2, last);
        let plan = SlirpNetwork::default();
        let configure = Configuration { address, ..Configuration::for_plan(&plan, 1500) };
        let target = NamespaceTarget::of_pid(namespace.pid().cast_signed()).unwrap();
        let request = TapRequest { name: "tap0".to_owned(), configure: Some(configure) };
        let tap = open_tap(&target, &request).unwrap();
        let mac = tap.mac().unwrap().unwrap();
        let names = vec![format!("m{last}").parse().unwrap()];
        let member = Member { mac, address, address6: None, names, aliases: Vec::new() };
        let member =
            NewMember { tap, member, egress: Some(policy(text)), rates: None, guard: None };
        let id = self.instance.handle().blocking().add_member(member).unwrap();
        (namespace, id)
    }

    /// Waits until everything that `member` has sent so far has been handled.
    fn settle(&self, member: &Namespace) {
        let to: SocketAddr = SETTLED.parse().unwrap();
        let before = self.outside.datagrams(to).len();
        udp(member, to).send(b"settled").unwrap();
        let arrived = || self.outside.datagrams(to).len() > before;
        wait_until(PATIENCE, "the allowed datagram arrives", arrived);
    }
}

fn udp(member: &Namespace, to: SocketAddr) -> UdpSocket {
    let socket = member.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(to).unwrap();
    socket
}

fn lookup(member: &Namespace, name: &str) -> Found {
    let socket = udp(member, (NAMESERVER, 53).into());
    socket.send(&query(name, "A")).unwrap();
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer).unwrap();
    read_answer(&buffer[..len])
}

fn exchange(member: &Namespace, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(member, to).unwrap();
    stream.write_all(bytes).unwrap();
    answer(&mut stream)
}

fn errno(member: &Namespace, to: SocketAddr) -> Errno {
    connect(member, to).expect_err("the connection was accepted").errno
}

#[test]
fn member_gains_nothing_by_what_another_may_and_knows() {
    let network = Network::new(needs!(World::root()));
    let (first, _) = network.join(100, "allow index.example\nallow udp:203.0.113.66:5000");
    let (second, _) = network.join(101, "allow index.example");
    let (third, _) = network.join(102, "");
    let to: SocketAddr = (INDEX, 443).into();
    let secret: SocketAddr = (NOBODY, 5000).into();
    assert_eq!(lookup(&first, "index.example"), Found::Addresses(vec![INDEX]));
    assert_eq!(exchange(&first, to, &hello("index.example")), SEEN);
    let before = network.outside.arrived_at(INDEX).len();
    // The others have not looked it up, and one may not.
    assert_eq!(errno(&second, to), Errno::EHOSTUNREACH);
    assert_eq!(lookup(&third, "index.example"), Found::NoSuchName);
    assert_eq!(errno(&third, to), Errno::EHOSTUNREACH);
    assert_eq!(network.dns.asked_names(), ["index.example"]);
    // In the name of the first, of its network, and of a network behind the member.
    let program = "
import socket, struct
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
tap.bind(('tap0', 0))
own = tap.getsockname()[4]
def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total & 0xffff) + (total >> 16)
    return ((total & 0xffff) + (total >> 16)) ^ 0xffff
def ip(source, destination, protocol, body):
    header = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0)
    header += source + destination
    return header[:10] + struct.pack('!H', checksum(header)) + header[12:] + body
def sealed(source, destination, protocol, body, at):
    pseudo = source + destination + struct.pack('!HH', protocol, len(body))
    return body[:at] + struct.pack('!H', checksum(pseudo + body)) + body[at + 2:]
for mac in own, bytes.fromhex(FIRST):
    for source in '10.0.2.100', '10.0.2.1', '10.0.2.77', '172.30.1.1':
        source = socket.inet_aton(source)
        for text, port in ('203.0.113.7', 443), ('203.0.113.66', 5000):
            destination = socket.inet_aton(text)
            syn = struct.pack('!HHIIBBHHH', 4000, port, 1, 0, 0x50, 2, 9999, 0, 0)
            datagram = struct.pack('!HHHH', 4000, port, 14, 0) + b'spoofed'[:6]
            echo = struct.pack('!BBHHH', 8, 0, 0, 1, 1) + b'echo'
            echo = echo[:2] + struct.pack('!H', checksum(echo)) + echo[4:]
            for packet in (
                    ip(source, destination, 6, sealed(source, destination, 6, syn, 16)),
                    ip(source, destination, 17, sealed(source, destination, 17, datagram, 6)),
                    ip(source, destination, 1, echo)):
                tap.send(bytes.fromhex('52550a000202') + mac + b'\\x08\\x00' + packet)
";
    let mac = first.script("ip -o link show tap0");
    let mac = mac.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().replace(':', "");
    let program = program.replace("FIRST", &format!("'{mac}'"));
    let output = third.exec(&["/usr/bin/python3", "-c", &program]);
    assert!(output.status.success(), "{}", output.stderr);
    network.settle(&third);
    assert_eq!(network.outside.datagrams(secret), [] as [Vec<u8>; 0]);
    let arrived = network.outside.arrived_at(INDEX);
    let is_known = arrived[before..].iter().all(|packet| packet.from == arrived[0].from);
    assert!(is_known, "{arrived:?}");
    // Each has what is its own.
    udp(&first, secret).send(b"own").unwrap();
    network.settle(&first);
    assert_eq!(network.outside.datagrams(secret), [b"own".to_vec()]);
    assert_eq!(lookup(&second, "index.example"), Found::Addresses(vec![INDEX]));
    assert_eq!(exchange(&second, to, &hello("index.example")), SEEN);
    let known: [IpAddr; 4] =
        [INDEX, NOBODY, NAME_SERVER, SETTLED.parse::<SocketAddr>().unwrap().ip()];
    assert!(network.outside.arrived().iter().all(|packet| known.contains(&packet.to.ip())));
}

#[test]
fn policy_of_later_cuts_what_it_does_not_allow() {
    let network = Network::new(needs!(World::root()));
    let allowed = "allow 203.0.113.66:22\nallow udp:203.0.113.66:5000";
    let (guest, id) = network.join(100, allowed);
    let (to, datagrams) = (SocketAddr::new(NOBODY, 22), SocketAddr::new(NOBODY, 5000));
    let open = || {
        let mut stream = connect(&guest, to).unwrap();
        stream.write_all(b"bytes").unwrap();
        assert_eq!(answer(&mut stream), SEEN);
        stream
    };
    let handle = network.instance.handle();
    let set = |text: &str, established| {
        handle.blocking().set_egress(Some(id), policy(text), established).unwrap()
    };
    // Somebody listens, so that no error comes back.
    let _listening = network.world.remote.enter(|| UdpSocket::bind(datagrams)).unwrap();
    let socket = udp(&guest, datagrams);
    socket.send(b"before").unwrap();
    let mut kept = open();
    set("", Established::Keep);
    kept.write_all(b"kept").unwrap();
    network.settle(&guest);
    let stream = network.outside.stream(to);
    assert!(stream.ends_with(b"kept"), "{}", stream.escape_ascii());
    // New ones are refused, and datagrams are new each time.
    assert_eq!(errno(&guest, to), Errno::EHOSTUNREACH);
    socket.send(b"after").unwrap();
    network.settle(&guest);
    assert_eq!(network.outside.datagrams(datagrams), [b"before".to_vec()]);
    set(allowed, Established::Cut);
    let mut cut = open();
    set("", Established::Cut);
    for stream in [&mut kept, &mut cut] {
        let ended = stream.read(&mut [0; 16]).expect_err("the connection goes on");
        assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset, "{ended}");
        assert!(stream.write_all(b"late").is_err());
    }
    network.settle(&guest);
    let late = network.outside.stream(to);
    assert!(!late.windows(4).any(|window| window == b"late"), "{}", late.escape_ascii());
}
