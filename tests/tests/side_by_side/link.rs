//! What the link itself offers: the device, ARP, DHCP, TFTP, router advertisements, DHCPv6.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Asks by ARP for the given addresses and prints the addresses that answer.
const WHO_HAS: &str = r#"
import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x806))
s.bind(("tap0", 0))
me = s.getsockname()[4]
for address in sys.argv[1:]:
    s.send(b"\xff" * 6 + me + bytes.fromhex("0806000108000604" "0001") + me
           + socket.inet_aton("10.0.2.100") + bytes(6) + socket.inet_aton(address))
    end = time.monotonic() + 1
    answer = "nobody"
    while (left := end - time.monotonic()) > 0 and answer == "nobody":
        s.settimeout(left)
        try:
            frame = s.recv(2000)
        except TimeoutError:
            break
        if frame[20:22] == b"\0\2" and frame[28:32] == socket.inet_aton(address):
            answer = frame[22:28].hex(":")
    print(address, answer)
"#;

/// Solicits a router advertisement and prints its fields.
const ADVERTISEMENT: &str = r#"
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"tap0")
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
s.settimeout(6)
s.sendto(bytes([133, 0, 0, 0, 0, 0, 0, 0]), ("ff02::2", 0, 0, socket.if_nametoindex("tap0")))
while True:
    message, ancillary, _, source = s.recvmsg(2000, 200)
    if message[0] == 134:
        break
print("source", source[0].split("%")[0])
print("hop limit it came with", struct.unpack("i", ancillary[0][2])[0])
print("hop limit it advises", message[4])
print("flags", message[5])
print("router lifetime", struct.unpack("!H", message[6:8])[0])
at = 16
while at < len(message):
    kind, length = message[at], message[at + 1] * 8
    body = message[at + 2:at + length]
    print({1: "link-layer address", 3: "prefix", 5: "mtu", 25: "rdnss"}.get(kind, kind), body.hex())
    at += length
"#;

fn lines(seen: &mut Seen, prefix: &str, text: &str) {
    let text = text.trim();
    for line in text.lines() {
        let (what, value) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        seen.note(format!("{prefix} {what}"), value);
    }
}

#[test]
fn device() {
    run("link", |side, seen| {
        let world = &side.world;
        let _slirp = side.slirp().options(&["--mtu=4000"]).start();
        for (what, script) in [
            ("flags", "ip -o link show tap0 | grep -o '<.*>'"),
            ("mtu", "ip -o link show tap0 | grep -o 'mtu [0-9]*'"),
            ("addresses", "ip -4 -o addr show tap0 | grep -o 'inet [^ ]* brd [^ ]* scope global'"),
            ("routes", "ip -4 route show | sort"),
            ("loopback", "ip -o addr show lo | grep -o 'inet [^ ]*'"),
        ] {
            seen.note(what, world.guest.script(script).trim());
        }
        let who = ["10.0.2.2", "10.0.2.3", "10.0.2.4", "10.0.2.50", "10.0.2.100", "203.0.113.10"];
        let argv = [&["python3", "-c", WHO_HAS], &who[..]].concat();
        let output = world.guest.exec(&argv);
        assert!(output.status.success(), "{}", output.stderr);
        lines(seen, "ARP", &output.stdout);
    });
}

#[test]
fn chosen_device() {
    run("link options", |side, seen| {
        let world = &side.world;
        let options = ["--cidr=10.41.0.0/16", "--macaddress=02:11:22:33:44:55", "--disable-dns"];
        let pid = world.guest.pid().to_string();
        let positionals = [pid.as_str(), "a-name-that-is-too-long"];
        let _slirp = side.slirp().options(&options).positionals(&positionals).start();
        for (what, script) in [
            ("name", "ip -o link show | cut -d: -f2"),
            ("address", "ip -o link show | grep -o 'link/ether [^ ]*'"),
            ("addresses", "ip -4 -o addr show | grep -o 'inet [^ ]* .*scope global'"),
            ("routes", "ip -4 route show | sort"),
        ] {
            seen.note(what, world.guest.script(script).trim());
        }
    });
}

/// Renews the lease of 10.0.2.15 from a socket that is bound to that address, as systemd-networkd
/// and dhcpcd do, and prints which kind of answer comes for which address.
const RENEWAL: &str = r#"
import fcntl, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
SIOCGIFHWADDR = 0x8927
mac = fcntl.ioctl(s, SIOCGIFHWADDR, struct.pack("256s", b"tap0"))[18:24]
own, none = socket.inet_aton("10.0.2.15"), bytes(4)
fields = 1, 1, 6, 0, 0x1234, 0, 0, own, none, none, none, mac, b"", b"", 0x63825363
request = struct.pack("!BBBBIHH4s4s4s4s16s64s128sI", *fields) + b"\x35\x01\x03\xff"
s.bind(("10.0.2.15", 68))
s.settimeout(4)
s.sendto(request, ("10.0.2.2", 67))
try:
    answer = s.recv(2000)
    print(answer[242], socket.inet_ntoa(answer[16:20]))
except TimeoutError:
    print("nothing")
"#;

/// Has 16 clients, one after the other, ask for an offer that they do not take up, and prints
/// whether there is one for a further client.
const CLIENTS: &str = r#"
import socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
s.bind(("tap0", 0))
s.settimeout(4)
def is_offered(number):
    mac = bytes([2, 0, 0, 0, 1, number])
    message = struct.pack("!BBBBIHH16s16s192sI", 1, 1, 6, 0, number,
            0, 0x8000, b"", mac, b"", 0x63825363)
    message = (message + b"\x35\x01\x01\xff").ljust(300, b"\0")
    # Total length 328; the checksum over these twenty bytes is 0x79a6; UDP without one.
    header = bytes.fromhex("4500014800000000401179a600000000ffffffff0044004301340000")
    s.send(b"\xff" * 6 + mac + b"\x08\0" + header + message)
    while True:
        try:
            frame = s.recv(2000)
        except TimeoutError:
            return False
        is_reply = frame[23] == 17 and frame[34:36] == b"\0\x43"
        if is_reply and frame[46:50] == struct.pack("!I", number):
            return True
print([is_offered(number) for number in range(17)][16])
"#;

/// What `udhcpc` tells its script.
fn lease(world: &World, arguments: &[&str]) -> Vec<(String, String)> {
    let script = world.folder().join("script");
    let lease = world.folder().join("lease");
    let text = format!("#!/bin/sh\nif [ \"$1\" = bound ]; then env > {}; fi\n", lease.display());
    // A client that was started before may still run the script.
    if !script.exists() {
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let _ = std::fs::remove_file(&lease);
    let script = script.to_str().unwrap();
    // A client without an answer gives up after 10 s.
    let argv = ["udhcpc", "-f", "-n", "-q", "-t", "5", "-T", "2", "-i", "tap0", "-s", script];
    world.guest.exec(&[&argv, arguments].concat());
    let text = std::fs::read_to_string(&lease).unwrap_or_default();
    let mut pairs: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    pairs.sort();
    pairs
}

#[test]
fn lease_without_dns() {
    run("dhcp without dns", |side, seen| {
        let _slirp = side.slirp().bare().options(&["--disable-dns"]).start();
        side.world.guest.script("ip link set tap0 up");
        let _capture = side.world.capture();
        let lease = lease(&side.world, &[]);
        assert!(!lease.is_empty(), "no lease");
        note_lease(seen, "lease", &lease);
    });
}

fn note_lease(seen: &mut Seen, prefix: &str, pairs: &[(String, String)]) {
    for name in [
        "ip",
        "mask",
        "subnet",
        "router",
        "dns",
        "serverid",
        "siaddr",
        "lease",
        "broadcast",
        "mtu",
        "search",
        "domain",
        "hostname",
        "boot_file",
        "opt53",
    ] {
        let value = pairs.iter().find(|(pair, _)| pair == name);
        seen.note(format!("{prefix} {name}"), value.map_or("none", |(_, value)| value));
    }
}

#[test]
fn services() {
    run("dhcp", |side, seen| {
        let world = &side.world;
        let _slirp = side.slirp().bare().start();
        world.guest.script("ip link set tap0 up");
        let _capture = world.capture();
        let first = lease(world, &[]);
        assert!(!first.is_empty(), "no lease");
        note_lease(seen, "lease", &first);
        world.guest.script("ip addr add 10.0.2.15/24 dev tap0");
        let renewed = world.guest.exec(&["python3", "-c", RENEWAL]);
        seen.note("renewal", renewed.stdout.trim());
        world.guest.script("ip addr flush dev tap0");
        note_lease(seen, "lease with all asked for", &lease(world, &["-O", "mtu", "-O", "search"]));
        let ip = |arguments: &[&str]| {
            let lease = lease(world, arguments);
            lease
                .iter()
                .find(|(name, _)| name == "ip")
                .map_or("none".to_owned(), |(_, ip)| ip.clone())
        };
        seen.note("asked for .30", ip(&["-r", "10.0.2.30"]));
        seen.note("asked for .31", ip(&["-r", "10.0.2.31"]));
        seen.note("another network", ip(&["-r", "192.168.1.5"]));
        world.guest.script("ip link set tap0 down; ip link set tap0 address 02:00:00:00:00:77 up");
        seen.note("another client", ip(&[]));

        world.guest.script("ip addr add 10.0.2.15/24 dev tap0");
        for direction in ["-g", "-p"] {
            let file = world.folder().join("file");
            std::fs::write(&file, "content").unwrap();
            let file = file.to_str().unwrap();
            let argv = ["busybox", "tftp", direction, "-l", file, "-r", "boot.img", "10.0.2.2"];
            let output = world.guest.exec(&argv);
            seen.note(format!("tftp {direction}"), output.stderr.trim());
        }
        let offered = world.guest.exec(&["python3", "-c", CLIENTS]);
        seen.note("client after 16 that were offered an address", offered.stdout.trim());
    });
}

#[test]
fn router() {
    run("ipv6", |side, seen| {
        let world = &side.world;
        world.write_resolv_conf("nameserver ::1\nnameserver 127.0.0.53\n");
        let _dns = Dnsmasq::start(&world.host, Ipv6Addr::LOCALHOST.into(), &[]);
        let far = TcpServer::echo(&world.remote, (FAR_V6, 0).into());
        let near = TcpServer::echo(&world.host, (Ipv6Addr::LOCALHOST, 0).into());
        let api = Api::new(world);
        let options = ["--enable-ipv6", "--mtu=1400", &api.option()];
        let _slirp = side.slirp().options(&options).start();
        let show = "ip -6 -o addr show dev tap0 scope global -tentative";
        wait_until(IO_LIMIT, "an address from the router advertisement", || {
            world.guest.script(show).contains("inet6 fd00:")
        });
        let _capture = world.capture();
        let output = world.guest.exec(&["python3", "-c", ADVERTISEMENT]);
        assert!(output.status.success(), "{}", output.stderr);
        // Which options there are is a difference of its own.
        for what in [
            "source",
            "hop limit it came with",
            "hop limit it advises",
            "flags",
            "router lifetime",
            "link-layer address",
            "prefix",
            "mtu",
            "rdnss",
        ] {
            let line = output.stdout.lines().find_map(|line| line.strip_prefix(what));
            seen.note(format!("RA {what}"), line.unwrap_or("none").trim());
        }
        let route = world.guest.script("ip -6 route show default | grep -o 'default via [^ ]*'");
        seen.note("default route", route.trim());

        for address in ["fd00::2", "fd00::3", "fe80::2%tap0", "fe80::3%tap0", "fd00::4"] {
            let argv = ["ping", "-n", "-c", "1", "-W", "2", address];
            seen.note(format!("ping {address}"), world.guest.exec(&argv).status.success());
        }
        let argv = ["ping", "-n", "-c", "1", "-W", "2", "2001:db8:2::10"];
        seen.note("ping remote", world.guest.exec(&argv).status.success());

        let v6 = |text: &str, port| SocketAddr::new(text.parse().unwrap(), port);
        seen.note("connect to a remote", connecting(&world.guest, far.address()));
        let loopback = v6("fd00::2", near.address().port());
        seen.note("connect to the host's loopback", connecting(&world.guest, loopback));
        let other = v6("fd00::4", near.address().port());
        seen.note("connect to another address of the prefix", connecting(&world.guest, other));
        seen.note("connect to a closed port", connecting(&world.guest, (FAR_V6, 9).into()));
        world.remote.script("ip route add unreachable 2001:db8:a::/48");
        world.host.script("ip route add unreachable 2001:db8:9::/48");
        let far = v6("2001:db8:a::1", 80);
        seen.note("connect, a router says unreachable", connecting(&world.guest, far));
        let near = v6("2001:db8:9::1", 80);
        seen.note("connect, the host says unreachable", connecting(&world.guest, near));
        for (what, to) in
            [("a remote", SocketAddr::new(FAR_V6, 9)), ("the host's loopback", v6("fd00::2", 9))]
        {
            let socket = udp(&world.guest, (Ipv6Addr::UNSPECIFIED, 0));
            socket.connect(to).unwrap();
            socket.send(b"anybody?").unwrap();
            seen.note(format!("send to a closed port of {what}"), datagram(&socket));
        }
        for transport in ["+notcp", "+tcp"] {
            let argv =
                ["dig", "@fd00::3", "+tries=1", "+time=4", "+short", transport, "www.example.test"];
            let output = world.guest.exec(&argv);
            seen.note(format!("dig {transport}"), output.stdout.trim());
        }
        dhcpv6(world, seen);
        let rule = "{\"execute\":\"add_hostfwd\",\"arguments\":{\"proto\":\"tcp6\",\
                    \"host_port\":8080,\"guest_addr6\":\"fd00::64\",\"guest_port\":80}}";
        seen.note("API tcp6", api.ask(rule));
        let accepts = world.guest.script("cat /proc/sys/net/ipv6/conf/tap0/accept_ra");
        seen.note("accept_ra", accepts.trim());
        world.guest.script("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        let route = world.guest.script("ip -6 route show default");
        seen.note("default route of a guest that forwards", !route.is_empty());
    });
}

fn dhcpv6(world: &World, seen: &mut Seen) {
    let (socket, scope) = world.guest.enter(|| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 546)).unwrap();
        (socket, nix::net::if_::if_nametoindex("tap0").unwrap())
    });
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let client_id = [0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 9];
    let request = [&[11, 7, 8, 9][..], &client_id, &[0, 6, 0, 2, 0, 23]].concat();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    socket.send_to(&request, SocketAddrV6::new(group, 547, 0, scope)).unwrap();
    let mut buffer = [0; 1500];
    let answer = socket.recv_from(&mut buffer);
    seen.note("DHCPv6 source", answer.as_ref().map_or("none".into(), |(_, from)| whose(*from)));
    let len = answer.map_or(0, |(len, _)| len);
    let mut at = 4;
    let mut options = Vec::new();
    while at + 4 <= len {
        options.push(u16::from_be_bytes([buffer[at], buffer[at + 1]]));
        at += 4 + usize::from(u16::from_be_bytes([buffer[at + 2], buffer[at + 3]]));
    }
    seen.note("DHCPv6 kind", buffer[0]);
    seen.note("DHCPv6 options", format!("{options:?}"));
}
