//! Addresses, routes, the interface and the resolver of a guest, as Podman's own tests check them,
//! by us and by Debian's pasta.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use slirp_tests::{
    NameServer, PATIENCE, Rootless, TcpServer, UdpServer, World, is_installed, needs,
};

/// Every global IPv4 address.
const IPV4: &str = "ip -o -4 addr show scope global | awk '{print $4}'";
const IPV6: &str = "ip -o -6 addr show scope global | awk '{print $4}'";
const GATEWAY_V4: &str = "ip -4 route show default | awk '{print $3}'";
const GATEWAY_V6: &str = "ip -6 route show default | awk '{print $3}'";
/// The address that Podman writes into `/etc/hosts`: the first that is not the loopback's.
const FIRST: &str = "ip -o addr | awk '$2 != \"lo\" {print $4; exit}'";
const MTU: &str = "ip link show h0 | grep -o 'mtu [0-9]*'";
/// Whatever the interface is named, its name and its Ethernet address.
const INTERFACE: &str = "ip -br link | awk '$1 != \"lo\" {print $1, $3}'";
const LOOPBACK: &str = "ip -o link show up dev lo | awk '{print $2}'";

/// Options of the user, a question to the guest and its answer.
const SETTINGS: [(&str, &str, &str); 16] = [
    ("", IPV4, "198.51.100.1/24\n"),
    ("-a 192.0.2.1", IPV4, "192.0.2.1/24\n"),
    ("-6", IPV4, ""),
    ("", IPV6, "2001:db8:1::1/64\n"),
    ("-a 2001:db8::1", IPV6, "2001:db8::1/64\n"),
    ("-4", IPV6, ""),
    ("", FIRST, "198.51.100.1/24\n"),
    ("", GATEWAY_V4, "198.51.100.2\n"),
    ("-a 192.0.2.2 -g 192.0.2.1", GATEWAY_V4, "192.0.2.1\n"),
    ("", GATEWAY_V6, "2001:db8:1::2\n"),
    ("-a 2001:db8::2 -g 2001:db8::1", GATEWAY_V6, "2001:db8::1\n"),
    ("", MTU, "mtu 65520\n"),
    ("-m 1280", MTU, "mtu 1280\n"),
    ("", LOOPBACK, "lo:\n"),
    // Podman appends what is for one container to what is for all.
    (
        "-I myname --ns-mac-addr 9a:dd:31:ea:92:98 --ns-mac-addr 02:aa:bb:cc:dd:ee",
        INTERFACE,
        "myname 02:aa:bb:cc:dd:ee\n",
    ),
    // Nothing is left to be copied.
    (
        "-4 -i lo -I tap0 -M 02:00:00:00:00:02 -a 192.0.2.2 -n 24 -g 192.0.2.1",
        GATEWAY_V4,
        "192.0.2.1\n",
    ),
];

/// Starts a program in a network namespace, with Podman's options around the user's.
type Start = fn(&Rootless<'_>, &str, &str);

fn ours(rootless: &Rootless<'_>, options: &str, netns: &str) {
    let line = format!(
        "--config-net {options} -t none -u none -T none -U none --no-map-gw --quiet \
         --netns {netns} --map-guest-addr 169.254.1.2"
    );
    let output = rootless.pasta(&line.split_whitespace().collect::<Vec<_>>());
    let said = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
    assert_eq!(said, (Some(0), "", ""), "{options}");
}

/// Debian's pasta does not know `--map-guest-addr`, and complains where there is no system log.
fn debians(rootless: &Rootless<'_>, options: &str, netns: &str) {
    let line = format!(
        "env --default-signal pasta --config-net {options} -t none -u none -T none -U none \
         --no-map-gw --quiet --netns {netns}"
    );
    let output = rootless.exec(&line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{options}: {}", output.stderr);
}

/// The rows that were answered differently, with these answers.
fn differences(start: Start, rootless: &Rootless<'_>) -> Vec<String> {
    let mut different = Vec::new();
    for (number, (options, question, expected)) in SETTINGS.into_iter().enumerate() {
        let netns = rootless.netns(&format!("n{number}"));
        start(rootless, options, &netns);
        let answer = rootless.inside(&netns, question);
        if answer != expected {
            different.push(format!("`{options}`: {question}: {answer:?}"));
        }
        rootless.remove_netns(&netns);
    }
    different
}

#[test]
fn guest_is_set_up_as_podman_expects_it() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    assert_eq!(differences(ours, &rootless), [""; 0]);
    rootless.wait_for_end();
}

#[test]
fn debians_pasta_sets_guests_up_in_the_same_way_but_for_one_length() {
    needs!(is_installed("pasta"));
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    // Without a length it gives an address of class C one of 5 bits.
    let known = format!("`-a 192.0.2.1`: {IPV4}: \"192.0.2.1/5\\n\"");
    assert_eq!(differences(debians, &rootless), [known]);
}

#[test]
fn resolver_answers_at_the_address_of_its_choice_in_either_ip_version() {
    let world = needs!(World::ordinary());
    world.write_resolv_conf("nameserver 127.0.0.53\n");
    let rootless = Rootless::new(&world);
    let servers = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let servers = servers.map(|address| NameServer::start(&world.host, address));
    servers[0].set_address("www.example.test", "203.0.113.4");
    servers[1].set_address("www.example.test", "203.0.113.6");
    for (name, options, resolver, expected) in [
        ("a", "--dns-forward 169.254.1.1", "169.254.1.1", "203.0.113.4\n"),
        ("b", "--dns-forward 192.0.2.53", "192.0.2.53", "203.0.113.4\n"),
        // Upstream asks a resolver of the same IP version only; we ask any.
        ("c", "--dns-forward fd00::53", "fd00::53", "203.0.113.4\n"),
        ("d", "--dns-forward 169.254.1.1 --dns-forward fd00::53", "fd00::53", "203.0.113.4\n"),
        ("e", "-6 --dns-forward fd00::53", "fd00::53", "203.0.113.4\n"),
        ("f", "--dns-forward fd00::53 --dns-host ::1", "fd00::53", "203.0.113.6\n"),
    ] {
        let netns = rootless.netns(name);
        ours(&rootless, options, &netns);
        for transport in ["+notcp", "+tcp"] {
            let question =
                format!("dig +short +tries=1 +time=20 {transport} @{resolver} www.example.test A");
            assert_eq!(rootless.inside(&netns, &question), expected, "{options} {transport}");
        }
        rootless.remove_netns(&netns);
    }
    let asked = servers.each_ref().map(|server| server.asked_names().len());
    assert_eq!(asked, [10, 2]);
    rootless.wait_for_end();
}

#[test]
fn resolver_on_the_loopback_answers_on_the_port_for_tls_too() {
    let world = needs!(World::ordinary());
    world.write_resolv_conf("nameserver 127.0.0.53\n");
    let rootless = Rootless::new(&world);
    let at = SocketAddr::from(([127, 0, 0, 53], 853));
    let _tcp = TcpServer::start(&world.host, at, |mut stream| {
        // A guest that does not read is the test's failure to see.
        let _ = stream.write_all(b"resolver");
    });
    let _udp = UdpServer::echo(&world.host, at);
    for (name, options) in [
        ("a", "--dns-forward 169.254.1.1"),
        ("b", "--dns-forward 169.254.1.1 --dns-host 127.0.0.53"),
    ] {
        let netns = rootless.netns(name);
        ours(&rootless, options, &netns);
        let answer = rootless.inside(&netns, "socat -u TCP:169.254.1.1:853 -");
        assert_eq!(answer, "resolver", "{options}");
        let echoed = rootless.enter(&netns, || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect("169.254.1.1:853")?;
            socket.send(b"hello")?;
            let mut buffer = [0; 16];
            socket.recv(&mut buffer).map(|len| buffer[..len].to_vec())
        });
        assert_eq!(echoed.expect("an answer by UDP"), b"hello", "{options}");
        rootless.remove_netns(&netns);
    }
    rootless.wait_for_end();
}

#[test]
fn path_of_a_user_namespace_that_is_none_is_refused() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("a");
    for (path, why) in [
        ("/nonexistent", "No such file or directory"),
        ("/etc/passwd", "Invalid argument"),
        ("/proc/self/ns/net", "Invalid argument"),
    ] {
        let output = rootless.pasta(&["-q", "--userns", path, "--netns", &netns]);
        let line = format!("Couldn't open user namespace {path}: {why}");
        assert_eq!(output.status.code(), Some(1), "{path}");
        assert_eq!(output.stderr.lines().next(), Some(line.as_str()), "{path}");
    }
    let output = rootless.pasta(&["-q", "--userns", "/proc/self/ns/user", "--netns", &netns]);
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
    rootless.remove_netns(&netns);
    rootless.wait_for_end();
}
