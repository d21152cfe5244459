//! `--outbound-if4` and `--outbound-if6`: a host with two ways out, at whose ends different remotes
//! have the same addresses, so that the interface alone decides which one answers.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};

use slirp_tests::{
    FAR, FAR_V6, HOST, NameServer, Namespace, PATIENCE, Rootless, TcpServer, UdpServer, World,
    is_installed, needs,
};

const PORT: u16 = 7000;
const RESOLVER: &str = "169.254.1.1";
/// The gateways of the second way, and the host's address there.
const GATEWAYS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 2)),
];
const HOST_THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));
const ITSELF: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 2));
const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Servers that say who they are, by TCP, UDP and as resolvers.
struct Voices {
    _tcp: Vec<TcpServer>,
    _udp: Vec<UdpServer>,
    _resolvers: Vec<NameServer>,
}

/// The answer of a resolver is an address that ends in the number of the way.
fn speak(namespace: &Namespace, at: &[IpAddr], name: &'static str, record: &str) -> Voices {
    let sockets = || at.iter().map(|&ip| SocketAddr::new(ip, PORT));
    let tcp = sockets().map(|at| {
        TcpServer::start(namespace, at, move |mut stream| {
            // A guest that does not read is the test's failure to see.
            let _ = stream.write_all(name.as_bytes());
        })
    });
    let udp = sockets().map(|at| {
        UdpServer::start(namespace, at, move |socket, _, from| {
            let _ = socket.send_to(format!("{name} {}", from.port()).as_bytes(), from);
        })
    });
    let resolvers = at.iter().filter(|ip| !ip.is_loopback()).map(|&ip| {
        let resolver = NameServer::start(namespace, ip);
        resolver.set_address("www.example.test", record);
        resolver
    });
    Voices { _tcp: tcp.collect(), _udp: udp.collect(), _resolvers: resolvers.collect() }
}

/// A host whose default routes lead by `h0`, with another way by `h1`.
struct TwoWays {
    world: World,
    second: Namespace,
    _voices: [Voices; 2],
}

impl TwoWays {
    fn new(world: World) -> Self {
        let second = Namespace::plain();
        second.script(
            "ip link set lo up
            ip addr add 203.0.113.10/32 dev lo
            ip addr add 2001:db8:2::10/128 dev lo nodad",
        );
        let voices = [
            speak(&world.remote, &[FAR, FAR_V6], "first", "192.0.2.1"),
            speak(&second, &[FAR, FAR_V6], "second", "192.0.2.2"),
        ];
        let ways = Self { world, second, _voices: voices };
        ways.open_second();
        ways.world.host.script("echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range");
        ways
    }

    fn open_second(&self) {
        // By other numbers at both ends: see `World`.
        self.world.host.script(&format!(
            "ip link add h1 index 17 type veth peer name r1 index 18 netns {}
            ip addr add 198.18.0.1/24 dev h1
            ip addr add 2001:db8:3::1/64 dev h1 nodad
            ip link set h1 up",
            self.second.pid()
        ));
        self.second.script(
            "ip addr add 198.18.0.2/24 dev r1
            ip addr add 2001:db8:3::2/64 dev r1 nodad
            ip link set r1 up",
        );
        self.world.host.script(
            "ip route add default via 198.18.0.2 metric 2000
            ip route add default via 2001:db8:3::2 metric 2000",
        );
    }

    /// Echo requests that have arrived at each end, of both IP versions.
    fn pings(&self) -> [[u32; 2]; 2] {
        [&self.world.remote, &self.second].map(|end| {
            let text = end.script("nstat -asz IcmpInEchos Icmp6InEchos");
            ["IcmpInEchos", "Icmp6InEchos"].map(|counter| {
                let line = text.lines().find(|line| line.starts_with(counter)).unwrap();
                line.split_whitespace().nth(1).unwrap().parse().unwrap()
            })
        })
    }
}

/// A guest of ours with these options.
fn ours(rootless: &Rootless<'_>, options: &str, netns: &str) {
    let line = format!("--config-net -q {options} -t none -u none -T none -U none --netns {netns}");
    let output = rootless.pasta(&line.split_whitespace().collect::<Vec<_>>());
    let said = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
    assert_eq!(said, (Some(0), "", ""), "{options}");
}

/// The same of Debian's, which complains where there is no system log.
fn debians(rootless: &Rootless<'_>, options: &str, netns: &str) {
    let line = format!(
        "env --default-signal pasta --config-net -q {options} -t none -u none -T none -U none \
         --netns {netns}"
    );
    let output = rootless.exec(&line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{options}: {}", output.stderr);
}

fn try_tcp(rootless: &Rootless<'_>, netns: &str, to: IpAddr) -> std::io::Result<String> {
    rootless.enter(netns, || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

fn tcp(rootless: &Rootless<'_>, netns: &str, to: IpAddr) -> String {
    try_tcp(rootless, netns, to).unwrap()
}

/// A socket of the guest at a port of its own, by 1,000 higher for IPv6: a child that another test
/// starts may hold a closed socket of IPv4 open for a moment.
fn socket(rootless: &Rootless<'_>, netns: &str, port: u16, like: IpAddr) -> UdpSocket {
    let at = match like {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port + 1000)),
    };
    let socket = rootless.enter(netns, || UdpSocket::bind(at)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Who answers, and from which port of the host it was asked.
fn udp(socket: &UdpSocket, to: IpAddr) -> (String, u16) {
    socket.send_to(b"who", (to, PORT)).unwrap();
    let mut buffer = [0; 64];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from.ip(), to);
    let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
    let (name, port) = text.split_once(' ').unwrap();
    (name.to_owned(), port.parse().unwrap())
}

/// The answer of the second remote, asked from the guest's own port.
fn second(guest: &UdpSocket) -> (String, u16) {
    ("second".to_owned(), guest.local_addr().unwrap().port())
}

/// The ways by which TCP, UDP and pings of a guest leave, in both IP versions.
fn ways_of(ways: &TwoWays, rootless: &Rootless<'_>, netns: &str) -> [[String; 3]; 2] {
    [(0, FAR), (1, FAR_V6)].map(|(version, far)| {
        let before = ways.pings();
        rootless.inside(netns, &format!("ping -c 1 -W 20 {far}"));
        let after = ways.pings();
        let pinged = ["first", "second"].into_iter().enumerate();
        let pinged = pinged.filter(|(end, _)| after[*end][version] > before[*end][version]);
        let pinged: Vec<_> = pinged.map(|(_, name)| name).collect();
        let guest = socket(rootless, netns, 8125, far);
        [tcp(rootless, netns, far), udp(&guest, far).0, pinged.concat()]
    })
}

/// Options, and the ways of IPv4 and IPv6.
const CHOICES: [(&str, [&str; 2]); 4] = [
    ("", ["first", "first"]),
    ("--outbound-if4 h1", ["second", "first"]),
    ("--outbound-if6 h1", ["first", "second"]),
    ("--outbound-if4 h1 --outbound-if6 h1", ["second", "second"]),
];

#[test]
fn interface_of_the_option_is_the_way_of_its_ip_version() {
    let ways = TwoWays::new(needs!(World::ordinary()));
    let rootless = Rootless::new(&ways.world);
    let copied_otherwise = [
        ("-i h0 --outbound-if4 h1 --outbound-if6 h1", ["second", "second"]),
        ("-i h1 --outbound-if4 h0 --outbound-if6 h0", ["first", "first"]),
        ("--outbound-if6 h1 -o 2001:db8:3::1", ["first", "second"]),
    ];
    for (n, (options, expected)) in CHOICES.into_iter().chain(copied_otherwise).enumerate() {
        let netns = rootless.netns(&format!("n{n}"));
        ours(&rootless, options, &netns);
        let found = ways_of(&ways, &rootless, &netns);
        assert_eq!(found, expected.map(|name| [name; 3].map(str::to_owned)), "{options}");
        rootless.remove_netns(&netns);
    }
    rootless.wait_for_end();
}

#[test]
fn interface_is_the_way_of_debians_pasta_but_for_ipv4_datagrams() {
    needs!(is_installed("pasta"));
    let ways = TwoWays::new(needs!(World::ordinary()));
    let rootless = Rootless::new(&ways.world);
    for (n, (options, expected)) in CHOICES.into_iter().enumerate() {
        let netns = rootless.netns(&format!("n{n}"));
        debians(&rootless, options, &netns);
        let found = ways_of(&ways, &rootless, &netns);
        // Its IPv4 datagrams leave by the interface that was chosen for IPv6.
        let [ipv4, ipv6] = expected;
        assert_eq!(found, [[ipv4, ipv6, ipv4], [ipv6; 3]], "{options}");
        rootless.remove_netns(&netns);
    }
}

#[test]
fn queries_leave_by_the_interface_of_the_resolvers_ip_version() {
    let ways = TwoWays::new(needs!(World::ordinary()));
    let rootless = Rootless::new(&ways.world);
    for (n, (options, host, expected)) in [
        ("", FAR, "192.0.2.1\n"),
        ("--outbound-if4 h1", FAR, "192.0.2.2\n"),
        ("--outbound-if6 h1", FAR, "192.0.2.1\n"),
        ("--outbound-if4 h1", FAR_V6, "192.0.2.1\n"),
        ("--outbound-if6 h1", FAR_V6, "192.0.2.2\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let netns = rootless.netns(&format!("n{n}"));
        let options = format!("{options} --dns-forward {RESOLVER} --dns-host {host}");
        ours(&rootless, &options, &netns);
        for transport in ["+notcp", "+tcp"] {
            let question =
                format!("dig +short +tries=1 +time=20 {transport} @{RESOLVER} www.example.test A");
            assert_eq!(rootless.inside(&netns, &question), expected, "{options} {transport}");
        }
        rootless.remove_netns(&netns);
    }
    rootless.wait_for_end();
}

#[test]
fn host_itself_is_reached_by_no_interface() {
    let ways = TwoWays::new(needs!(World::ordinary()));
    let rootless = Rootless::new(&ways.world);
    let _loopback = speak(&ways.world.host, &LOOPBACKS, "loopback", "");
    let _itself = speak(&ways.world.host, &[HOST], "host", "");
    let _there = speak(&ways.world.host, &[HOST_THERE], "host there", "");
    let both = "--outbound-if4 h1 --outbound-if6 h1 --map-guest-addr 169.254.1.2";
    let netns = rootless.netns("n");
    ours(&rootless, both, &netns);
    for (gateway, far) in GATEWAYS.into_iter().zip([FAR, FAR_V6]) {
        assert_eq!(tcp(&rootless, &netns, gateway), "loopback");
        // One port of the guest, in both orders: the host's port to remotes is the guest's own.
        let first_near = socket(&rootless, &netns, 8125, far);
        assert_eq!(udp(&first_near, gateway).0, "loopback");
        assert_eq!(udp(&first_near, far), second(&first_near));
        assert_eq!(udp(&first_near, gateway).0, "loopback");
        let first_far = socket(&rootless, &netns, 8126, far);
        assert_eq!(udp(&first_far, far), second(&first_far));
        assert_eq!(udp(&first_far, gateway).0, "loopback");
        assert_eq!(udp(&first_far, far), second(&first_far));
    }
    assert_eq!(tcp(&rootless, &netns, ITSELF), "host there");
    rootless.remove_netns(&netns);

    let netns = rootless.netns("other");
    ours(&rootless, &format!("-i h0 {both}"), &netns);
    assert_eq!(tcp(&rootless, &netns, ITSELF), "host");
    assert_eq!(udp(&socket(&rootless, &netns, 8125, ITSELF), ITSELF).0, "host");
    assert_eq!(tcp(&rootless, &netns, FAR), "second");
    rootless.remove_netns(&netns);
    rootless.wait_for_end();
}

#[test]
fn published_port_is_the_source_by_the_interface_too() {
    let ways = TwoWays::new(needs!(World::ordinary()));
    let rootless = Rootless::new(&ways.world);
    for (n, (rule, both)) in
        [("-u 9000,10000", true), ("-u 198.18.0.1/9000", false)].into_iter().enumerate()
    {
        let netns = rootless.netns(&format!("n{n}"));
        let line = format!(
            "--config-net -q --outbound-if4 h1 --outbound-if6 h1 -t none {rule} -T none -U none \
             --netns {netns}"
        );
        let output = rootless.pasta(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
        for (far, is_asked) in [(FAR, true), (FAR_V6, both)] {
            let guest = socket(&rootless, &netns, 9000, far);
            assert!(!is_asked || udp(&guest, far) == second(&guest), "{rule} {far}");
        }
        rootless.remove_netns(&netns);
    }
    rootless.wait_for_end();
}

#[test]
fn interface_that_the_host_lacks_is_refused_by_option_and_name() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let pid_file = world.folder().join("pid");
    let file = pid_file.display().to_string();
    for (options, refused) in [
        ("--outbound-if4 h9", "--outbound-if4"),
        ("-i h0 --outbound-if6 h9", "--outbound-if6"),
        ("-6 --outbound-if4 h9 --outbound-if6 h0", "--outbound-if4"),
    ] {
        let line = format!("--config-net -q {options} -P {file} --netns {netns}");
        let output = rootless.pasta(&line.split_whitespace().collect::<Vec<_>>());
        let text =
            format!("External interface not usable: {refused}: the host has no interface h9");
        assert!(output.stderr.contains(&text), "{options}: {}", output.stderr);
        assert_eq!((output.status.code(), output.stdout.as_str()), (Some(1), ""), "{options}");
        assert!(!pid_file.exists(), "{options}");
        assert!(!rootless.inside(&netns, "ip -o link").contains("h0"), "{options}");
    }
    rootless.wait_for_end();
}

#[test]
fn summary_names_the_outbound_interfaces() {
    let ways = TwoWays::new(needs!(World::ordinary()));
    let rootless = Rootless::new(&ways.world);
    for (n, (options, line)) in [
        ("--outbound-if4 h1 --outbound-if6 h1", Some("Outbound interface: h1 (IPv4), h1 (IPv6)")),
        ("-i h0 --outbound-if6 h1", Some("Outbound interface: h1 (IPv6)")),
        ("", None),
    ]
    .into_iter()
    .enumerate()
    {
        let netns = rootless.netns(&format!("n{n}"));
        let line_of = format!("{options} --config-net -t none -u none --netns {netns}");
        let output = rootless.pasta(&line_of.split_whitespace().collect::<Vec<_>>());
        let found = output.stderr.lines().find(|it| it.contains("Outbound interface"));
        assert_eq!(found, line, "{}", output.stderr);
        rootless.remove_netns(&netns);
    }
    rootless.wait_for_end();
}

#[test]
fn without_its_interface_a_guest_has_the_host_alone_until_it_is_back() {
    let ways = TwoWays::new(needs!(World::ordinary()));
    let rootless = Rootless::new(&ways.world);
    let _loopback = speak(&ways.world.host, &LOOPBACKS, "loopback", "");
    let netns = rootless.netns("n");
    ours(&rootless, "-4 -i h0 --outbound-if4 h1", &netns);
    assert_eq!(tcp(&rootless, &netns, FAR), "second");
    let guest = socket(&rootless, &netns, 8125, FAR);
    assert_eq!(udp(&guest, FAR).0, "second");
    ways.world.host.script("ip link del h1");
    let refused = try_tcp(&rootless, &netns, FAR).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::ENETUNREACH));
    // The template's gateway stands for the loopback.
    let gateway: IpAddr = [198, 51, 100, 2].into();
    assert_eq!(tcp(&rootless, &netns, gateway), "loopback");
    ways.open_second();
    assert_eq!(tcp(&rootless, &netns, FAR), "second");
    // What finds the interface gone is lost, and the next is not.
    guest.send_to(b"lost", (FAR, PORT)).unwrap();
    assert_eq!(udp(&guest, FAR), second(&guest));
    rootless.remove_netns(&netns);
    rootless.wait_for_end();
}
