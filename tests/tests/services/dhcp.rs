//! DHCP and DHCPv6 with real clients, TFTP, and a comparison with the frames of slirp4netns.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};

use slirp_tests::*;

/// Sends a frame on `tap0` and prints the first UDP one from the gateway, both in hexadecimal.
const EXCHANGE: &str = r#"
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("tap0", 0))
s.settimeout(50)
s.send(bytes.fromhex(sys.argv[1]))
while True:
    frame = s.recv(65536)
    if frame[6:8] == b"\x52\x55" and frame[12:14] == b"\x08\x00" and frame[23] == 17:
        print(frame.hex())
        break
"#;

/// Debian's own slirp4netns in place of the binary under test, which the harness names first.
const UPSTREAM: &[&str] = &["sh", "-c", "shift; exec /usr/bin/slirp4netns \"$@\"", "sh"];

/// Brings the tap up without an address, as a runtime without `--configure` does.
fn start<'w>(world: &'w World, change: impl FnOnce(SlirpBuilder<'w>) -> SlirpBuilder<'w>) -> Slirp {
    let slirp = change(world.slirp().bare()).start();
    world.guest.script("ip link set tap0 up");
    slirp
}

/// What `udhcpc` with these arguments tells its script, or nothing when it gives up.
fn udhcpc(world: &World, arguments: &[&str]) -> BTreeMap<String, String> {
    let script = world.folder().join("script");
    let lease = world.folder().join("lease");
    let text = format!("#!/bin/sh\nif [ \"$1\" = bound ]; then env > {}; fi\n", lease.display());
    // A client that was started before may still run the script.
    if !script.exists() {
        std::fs::write(&script, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
    }
    let _ = std::fs::remove_file(&lease);
    let mut argv = vec!["udhcpc", "-f", "-n", "-q", "-i", "tap0", "-s", script.to_str().unwrap()];
    argv.extend(arguments);
    let output = world.guest.exec(&argv);
    let text = std::fs::read_to_string(&lease).unwrap_or_default();
    assert_eq!(output.status.success(), !text.is_empty(), "{}{}", output.stdout, output.stderr);
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn udhcpc_gets_the_first_address_and_everything_it_needs() {
    needs!(is_installed("udhcpc"));
    let world = needs!(World::ordinary());
    let _slirp = start(&world, |slirp| slirp.options(&["--mtu=9000"]));
    let _capture = world.capture();
    let lease = udhcpc(&world, &["-O", "mtu"]);
    for (name, value) in [
        ("ip", "10.0.2.15"),
        ("mask", "24"),
        ("subnet", "255.255.255.0"),
        ("router", "10.0.2.2"),
        ("dns", "10.0.2.3"),
        ("serverid", "10.0.2.2"),
        ("siaddr", "10.0.2.2"),
        ("lease", "86400"),
        ("broadcast", "10.0.2.255"),
        ("mtu", "9000"),
    ] {
        assert_eq!(lease.get(name).map(String::as_str), Some(value), "{name} in {lease:?}");
    }
    assert_eq!(lease.get("search"), None);
    // The lease is the same after a restart of the client, and what it says works.
    assert_eq!(udhcpc(&world, &[])["ip"], "10.0.2.15");
    world.guest.script("ip addr add 10.0.2.15/24 dev tap0; ip route add default via 10.0.2.2");
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    connect(&world.guest, server.address()).expect("the lease is good for the world");
}

#[test]
fn udhcpc_gets_the_address_that_it_asks_for() {
    needs!(is_installed("udhcpc"));
    let world = needs!(World::root());
    let _slirp = start(&world, |slirp| slirp.options(&["--cidr=192.0.2.0/25"]));
    let _capture = world.capture();
    assert_eq!(udhcpc(&world, &["-r", "192.0.2.30"])["ip"], "192.0.2.30");
    assert_eq!(udhcpc(&world, &["-r", "192.0.2.31"])["ip"], "192.0.2.30");
}

#[test]
fn udhcpc_gets_the_search_domains_that_it_asks_for() {
    needs!(is_installed("udhcpc"));
    let world = needs!(World::root());
    let options = ["--search-domain=example.org", "--search-domain=b.example.test."];
    let _slirp = start(&world, |slirp| slirp.options(&options));
    let _capture = world.capture();
    let lease = udhcpc(&world, &["-O", "search", "-O", "domain"]);
    assert_eq!(lease["search"], "example.org b.example.test");
    assert_eq!(lease["domain"], "example.org");
}

#[test]
fn dns_is_not_announced_where_it_is_disabled() {
    needs!(is_installed("udhcpc"));
    let world = needs!(World::root());
    let _slirp = start(&world, |slirp| slirp.options(&["--disable-dns"]));
    let lease = udhcpc(&world, &[]);
    assert_eq!((lease["ip"].as_str(), lease.get("dns")), ("10.0.2.15", None));
}

/// Renews the lease of 10.0.2.15 from a socket that is bound to that address, as systemd-networkd
/// and dhcpcd do.
const RENEWAL: &str = r#"
import fcntl, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
SIOCGIFHWADDR = 0x8927
mac = fcntl.ioctl(s, SIOCGIFHWADDR, struct.pack("256s", b"tap0"))[18:24]
own, none = socket.inet_aton("10.0.2.15"), bytes(4)
fields = 1, 1, 6, 0, 0x1234, 0, 0, own, none, none, none, mac, b"", b"", 0x63825363
request = struct.pack("!BBBBIHH4s4s4s4s16s64s128sI", *fields) + b"\x35\x01\x03\xff"
s.bind(("10.0.2.15", 68))
s.settimeout(50)
s.sendto(request, ("10.0.2.2", 67))
answer, server = s.recvfrom(2000)
print(answer[242], socket.inet_ntoa(answer[16:20]), *server)
"#;

#[test]
fn client_that_renews_its_lease_hears_the_answer_at_its_address() {
    let world = needs!(World::root());
    let _slirp = start(&world, |slirp| slirp);
    world.guest.script(
        "ip addr flush dev tap0
        ip addr add 10.0.2.15/24 dev tap0",
    );
    let _capture = world.capture();
    let output = world.guest.exec(&["python3", "-c", RENEWAL]);
    assert_eq!(output.stdout.trim(), "5 10.0.2.15 10.0.2.2 67", "{}", output.stderr);
}

/// A frame with a DHCP message that asks for nothing in particular.
fn dhcp_frame(kind: u8, options: &[u8]) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0x80, 0];
    message.resize(28, 0);
    message.extend_from_slice(&[0x02, 0, 0, 0, 0, 9]);
    message.resize(236, 0);
    message.extend_from_slice(&[99, 130, 83, 99, 53, 1, kind]);
    message.extend_from_slice(options);
    message.push(255);
    message.resize(300, 0);
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&[0x02, 0, 0, 0, 0, 9, 8, 0]);
    // Total length 328; the checksum over these twenty bytes is 0x79a6; UDP without one.
    frame.extend_from_slice(&[0x45, 0, 1, 0x48, 0, 0, 0, 0, 64, 17, 0x79, 0xa6]);
    frame.extend_from_slice(&[0, 0, 0, 0, 255, 255, 255, 255]);
    frame.extend_from_slice(&[0, 68, 0, 67, 1, 0x34, 0, 0]);
    frame.extend_from_slice(&message);
    frame
}

/// The answer without what is each implementation's own: identification and the sum over it.
fn exchange(world: &World, frame: &[u8]) -> String {
    let text: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let output = world.guest.exec(&["python3", "-c", EXCHANGE, &text]);
    assert!(output.status.success(), "{}", output.stderr);
    let mut answer = output.stdout.trim().to_owned();
    answer.replace_range(2 * 18..2 * 20, "....");
    answer.replace_range(2 * 24..2 * 26, "....");
    answer
}

#[test]
fn frames_equal_those_of_slirp4netns() {
    needs!(is_installed("slirp4netns"));
    let (ours, theirs) = (needs!(World::root()), needs!(World::root()));
    let _ours = start(&ours, |slirp| slirp);
    let _theirs = start(&theirs, |slirp| slirp.behind(UPSTREAM));
    for (name, frame) in [
        ("offer", dhcp_frame(1, &[])),
        ("acknowledgement", dhcp_frame(3, &[])),
        ("acknowledgement of the same", dhcp_frame(3, &[50, 4, 10, 0, 2, 15])),
        ("offer of another", dhcp_frame(1, &[50, 4, 10, 0, 2, 20])),
        ("acknowledgement of another", dhcp_frame(3, &[50, 4, 10, 0, 2, 20])),
    ] {
        assert_eq!(exchange(&ours, &frame), exchange(&theirs, &frame), "{name}");
    }
}

#[test]
fn file_transfer_is_refused_at_once() {
    let world = needs!(World::root()).online(&[]);
    for direction in ["-g", "-p"] {
        let file = world.folder().join("file");
        std::fs::write(&file, "content").unwrap();
        let file = file.to_str().unwrap();
        let argv = ["busybox", "tftp", direction, "-l", file, "-r", "boot.img", "10.0.2.2"];
        let output = world.guest.exec(&argv);
        assert!(!output.status.success());
        assert!(output.stderr.contains("Access violation"), "{}", output.stderr);
    }
}

/// Waits until the guest may send from the address that it asks by.
fn await_link_local(world: &World) {
    wait_until(PATIENCE, "a link-local address", || {
        let text = world.guest.script("ip -6 addr show dev tap0 scope link -tentative");
        text.contains("inet6 fe80:")
    });
}

/// What `dhclient -6 -S` tells its script, or nothing where no server answers.
fn dhclient(world: &World, seconds: &str) -> BTreeMap<String, String> {
    let file = |name: &str| world.folder().join(name).to_str().unwrap().to_owned();
    // A copy: distributions confine the program at its own path to scripts of their own.
    let copy = "install -m 0755 \"$(PATH=$PATH:/usr/sbin:/sbin command -v dhclient)\" \"$0\"";
    let copied = world.host.exec(&["sh", "-euc", copy, &file("dhclient")]);
    assert!(copied.status.success(), "{}", copied.stderr);
    let script = "#!/bin/sh\nenv | sed -n 's/^new_dhcp6_//p'\n";
    std::fs::write(file("script"), script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(file("script"), mode).unwrap();
    let (client, script, pid) = (file("dhclient"), file("script"), file("pid"));
    let client = [client.as_str(), "-6", "-S", "-1", "-d", "-cf", "/dev/null", "-lf", "/dev/null"];
    let files = ["-sf", script.as_str(), "-pf", pid.as_str(), "tap0"];
    // It asks for two minutes before it gives up.
    let output = world.guest.exec(&[&["timeout", seconds], &client[..], &files].concat());
    let answers: BTreeMap<String, String> = output
        .stdout
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(output.status.success(), !answers.is_empty(), "{}", output.stderr);
    answers
}

#[test]
fn dhclient_gets_the_ipv6_nameserver_and_the_search_domains() {
    needs!(is_installed("dhclient"));
    let world = needs!(World::ordinary());
    let options = ["-6", "--search-domain=example.org", "--search-domain=b.example.test"];
    let slirp = world.slirp().options(&options).start();
    await_link_local(&world);
    let capture = world.capture();
    let answers = dhclient(&world, "50");
    for (name, value) in [
        ("name_servers", "fd00::3"),
        ("domain_search", "example.org. b.example.test."),
        ("server_id", "0:3:0:1:52:56:0:0:0:2"),
    ] {
        assert_eq!(answers.get(name).map(String::as_str), Some(value), "{name} in {answers:?}");
    }
    drop((capture, slirp));
    // The same client is not answered where IPv6 is not offered.
    let _slirp = world.slirp().start();
    await_link_local(&world);
    assert_eq!(dhclient(&world, "3"), BTreeMap::new());
}

#[test]
fn stateless_dhcpv6_tells_the_dns_address_and_the_search_domains() {
    let world = needs!(World::root());
    let options = ["--enable-ipv6", "--cidr6=fd77::/64", "--search-domain=example.org"];
    let _slirp = world.slirp().options(&options).start();
    await_link_local(&world);
    let _capture = world.capture();
    let (socket, scope) = world.guest.enter(|| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 546)).unwrap();
        (socket, nix::net::if_::if_nametoindex("tap0").unwrap())
    });
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let client_id = [0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 9];
    let request = [&[11, 7, 8, 9][..], &client_id, &[0, 6, 0, 4, 0, 23, 0, 24]].concat();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    socket.send_to(&request, SocketAddrV6::new(group, 547, 0, scope)).unwrap();
    let mut buffer = [0; 1500];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from, SocketAddrV6::new("fe80::2".parse().unwrap(), 547, 0, scope).into());
    let dns = "fd77::3".parse::<Ipv6Addr>().unwrap().octets();
    let server_id = [0, 2, 0, 10, 0, 3, 0, 1, 0x52, 0x56, 0, 0, 0, 2];
    let search = b"\0\x18\0\x0d\x07example\x03org\0";
    let expected =
        [&[7, 7, 8, 9][..], &client_id, &server_id, &[0, 23, 0, 16], &dns, search].concat();
    assert_eq!(buffer[..len], expected);
}
