//! Hosts that change while the network runs: `pasta` in its sandbox follows them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use slirp_tests::{
    Background, FAR, FAR_V6, HOST, Missing, PATIENCE, ProcessFacts, TcpServer, World, connect,
    needs, receive_exact, send_exact, wait_until,
};

use crate::{addresses, gateway, json, routes};

/// Ports stay closed unless a test opens them.
const NO_PORTS: [&str; 8] = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];

/// How long a guest without a network may lack what its host has got.
const SOON: Duration = Duration::from_secs(2);

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A host that is not connected to anything.
const OFFLINE: &str = "ip -4 addr flush dev h0; ip -6 addr flush dev h0; ip link set h0 down";

/// A guest whose network runs.
struct Followed {
    pasta: Background,
    world: World,
}

impl Followed {
    /// A guest that `pasta` serves with these options, after this script on the host.
    fn start(script: &str, options: &[&str]) -> Result<Self, Missing> {
        Self::of(World::ordinary()?, script, options)
    }

    fn of(world: World, script: &str, options: &[&str]) -> Result<Self, Missing> {
        world.host.script(&format!("true; {script}"));
        let binary = world.reachable_pasta().display().to_string();
        let pid_file = world.folder().join("pid");
        let (file, guest) = (pid_file.display().to_string(), world.guest.pid().to_string());
        let before = [binary.as_str(), "--foreground", "--pid", &file];
        let argv = [world.account().prefix(), &before, options, &[&guest]].concat();
        let pasta = world.host.spawn(&argv);
        wait_until(PATIENCE, "pasta is ready", || {
            assert!(ProcessFacts(pasta.pid()).is_alive(), "pasta has ended");
            std::fs::read_to_string(&pid_file).is_ok_and(|pid| !pid.is_empty())
        });
        Ok(Self { pasta, world })
    }

    /// With the interface set up, and no ports.
    fn configured(script: &str, options: &[&str]) -> Result<Self, Missing> {
        Self::start(script, &[&["--config-net"], &NO_PORTS[..], options].concat())
    }

    fn host(&self, script: &str) {
        self.world.host.script(script);
    }

    fn addresses(&self, interface: &str) -> Vec<String> {
        addresses(&self.world.guest, interface)
    }

    /// Waits until the guest's interface has the addresses and routes of `outside`, in any order.
    fn wait_for_the_network_of(&self, outside: &str, inside: &str) {
        let sorted = |mut list: Vec<String>| {
            list.sort();
            list
        };
        let (guest, host) = (&self.world.guest, &self.world.host);
        wait_until(PATIENCE, "the guest has its host's network", || {
            let name = |text: String| text.replace(&format!("\"{outside}\""), "\"IF\"");
            let own = |text: String| text.replace(&format!("\"{inside}\""), "\"IF\"");
            let theirs = routes(host, outside).into_iter().map(|route| name(route.to_string()));
            let ours = routes(guest, inside).into_iter().map(|route| own(route.to_string()));
            sorted(addresses(guest, inside)) == sorted(addresses(host, outside))
                && sorted(ours.collect()) == sorted(theirs.collect())
        });
    }

    fn wait_for_address(&self, interface: &str, address: &str) {
        let what = format!("the guest has {address}");
        wait_until(PATIENCE, &what, || self.addresses(interface).contains(&address.to_owned()));
    }

    fn wait_for_gateway(&self, family: &str, expected: &str) {
        wait_until(PATIENCE, "the guest has the gateway", || {
            gateway(&self.world.guest, family).as_deref() == Some(expected)
        });
    }

    /// Whether the guest reaches a server at `address` of the remote.
    fn assert_reaches(&self, address: IpAddr) {
        let server = TcpServer::echo(&self.world.remote, SocketAddr::new(address, 0));
        assert_works(connect(&self.world.guest, server.address()).expect("there is a way"), 7);
    }

    /// A connection of the guest's to this server, which works.
    fn connect(&self, server: &TcpServer) -> TcpStream {
        let stream = connect(&self.world.guest, server.address()).expect("there is a way");
        assert_works(&stream, 1);
        stream
    }

    /// Ends the network and returns what it has said.
    fn log(self) -> String {
        self.pasta.terminate().stderr
    }
}

fn assert_works(stream: impl std::borrow::Borrow<TcpStream>, seed: usize) {
    let mut stream = stream.borrow();
    send_exact(&mut stream, seed, 10_000).expect("bytes leave");
    receive_exact(&mut stream, seed, 10_000).expect("all of them come back");
}

#[test]
fn address_that_comes_and_goes_is_the_guests_and_connections_live_on() {
    for world in [World::ordinary, World::root] {
        let followed =
            Followed::of(needs!(world()), "", &[&["--config-net"], &NO_PORTS[..]].concat());
        let followed = needs!(followed);
        let server = TcpServer::echo(&followed.world.remote, SocketAddr::new(FAR, 0));
        let stream = followed.connect(&server);
        // The guest's own, which nobody takes away.
        followed.world.guest.script(
            "ip addr add 10.9.9.9/24 dev h0; ip route add 10.77.0.0/16 via 198.51.100.3
             ip -6 addr add fd00:9::9/64 dev h0 nodad",
        );
        followed.host(
            "ip addr add 198.51.100.9/24 dev h0; ip addr add 192.0.2.9/28 dev h0
             ip addr add 2001:db8:9::9/64 dev h0 nodad; ip route add 10.1.0.0/16 via 192.0.2.1",
        );
        for address in ["198.51.100.9 24", "192.0.2.9 28", "2001:db8:9::9 64"] {
            followed.wait_for_address("h0", address);
        }
        let has_route = || {
            let routes = json(&followed.world.guest, "-4 route show 10.1.0.0/16");
            routes.iter().any(|route| route["gateway"] == "192.0.2.1")
        };
        wait_until(PATIENCE, "the route is there", has_route);
        assert_works(&stream, 2);
        followed.host(
            "ip route del 10.1.0.0/16
             ip addr del 198.51.100.9/24 dev h0; ip addr del 192.0.2.9/28 dev h0
             ip addr del 2001:db8:9::9/64 dev h0",
        );
        let expected = ["10.9.9.9 24", "198.51.100.1 24", "2001:db8:1::1 64", "fd00:9::9 64"];
        wait_until(PATIENCE, "the addresses are gone", || {
            let mut found = followed.addresses("h0");
            found.sort();
            found == expected
        });
        wait_until(PATIENCE, "the route is gone", || !has_route());
        let own = json(&followed.world.guest, "-4 route show 10.77.0.0/16");
        assert_eq!(own.len(), 1, "the guest's own route is there");
        assert_works(&stream, 3);
        followed.assert_reaches(FAR);
        followed.assert_reaches(FAR_V6);
    }
}

#[test]
fn what_the_guest_has_itself_is_not_taken_away_with_what_the_host_has() {
    let followed = needs!(Followed::configured("", &[]));
    let guest = &followed.world.guest;
    guest.script("ip addr add 192.0.2.9/28 dev h0; ip route add 10.1.0.0/16 via 192.0.2.1");
    followed.host(
        "ip addr add 192.0.2.9/28 dev h0; ip route add 10.1.0.0/16 via 192.0.2.1
         ip addr add 198.51.100.9/24 dev h0",
    );
    followed.wait_for_address("h0", "198.51.100.9 24");
    followed.host(
        "ip route del 10.1.0.0/16
         ip addr del 192.0.2.9/28 dev h0; ip addr del 198.51.100.9/24 dev h0",
    );
    wait_until(PATIENCE, "the address is gone", || {
        !followed.addresses("h0").contains(&"198.51.100.9 24".to_owned())
    });
    assert!(followed.addresses("h0").contains(&"192.0.2.9 28".to_owned()));
    assert_eq!(json(&followed.world.guest, "-4 route show 10.1.0.0/16").len(), 1);
}

#[test]
fn other_address_of_the_host_is_the_guests_and_that_of_its_ports() {
    let ports = ["-t", "8080", "-u", "none", "-T", "none", "-U", "none"];
    let options = [&["--config-net"], &ports[..], &["--map-guest-addr", "169.254.1.2"]].concat();
    let followed = needs!(Followed::start("", &options));
    let world = &followed.world;
    world.remote.script("ip addr add 192.0.2.2/24 dev r0");
    followed.host(
        "ip -4 addr flush dev h0; ip addr add 192.0.2.77/24 dev h0
         ip route add default via 192.0.2.2",
    );
    followed.wait_for_address("h0", "192.0.2.77 24");
    followed.wait_for_the_network_of("h0", "h0");
    followed.assert_reaches(FAR);
    let new = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
    let alias = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 2));
    let on_host = TcpServer::echo(&world.host, SocketAddr::new(new, 0));
    let to_host = SocketAddr::new(alias, on_host.address().port());
    assert_works(connect(&world.guest, to_host).expect("the host is reached"), 5);
    let inside = TcpServer::echo(&world.guest, SocketAddr::new(new, 8080));
    for (from, at) in [(&world.remote, new), (&world.host, LOOPBACK), (&world.host, new)] {
        let stream = connect(from, SocketAddr::new(at, 8080)).expect("the port is open");
        assert_works(stream, 6);
    }
    drop(inside);
}

#[test]
fn default_route_that_moves_takes_the_guest_to_another_network() {
    let followed = needs!(Followed::configured("", &[]));
    let world = &followed.world;
    world.host.script(&format!(
        "ip link add h1 index 17 type veth peer name r1 index 18 netns {}
         ip addr add 192.0.2.1/24 dev h1; ip link set h1 up",
        world.remote.pid()
    ));
    world.remote.script("ip addr add 192.0.2.2/24 dev r1; ip link set r1 up");
    followed.host("ip route replace default via 192.0.2.2 dev h1");
    followed.wait_for_address("h0", "192.0.2.1 24");
    followed.wait_for_gateway("-4", "192.0.2.2");
    followed.assert_reaches(FAR);
    followed.assert_reaches(FAR_V6);
    followed.host("ip route replace default via 198.51.100.2 dev h0");
    followed.wait_for_gateway("-4", "198.51.100.2");
    followed.wait_for_address("h0", "198.51.100.1 24");
    followed.assert_reaches(FAR);
}

#[test]
fn interface_that_is_renamed_and_goes_down_meanwhile_changes_nothing_inside() {
    let followed = needs!(Followed::configured("", &[]));
    let server = TcpServer::echo(&followed.world.remote, SocketAddr::new(FAR, 0));
    let stream = followed.connect(&server);
    followed.host("ip link set h0 down; ip link set h0 name wan0");
    // As long as it takes to be noticed.
    std::thread::sleep(Duration::from_millis(500));
    followed.host(
        "ip link set wan0 up; ip addr add 2001:db8:1::1/64 dev wan0 nodad
         ip route add default via 198.51.100.2; ip route add default via 2001:db8:1::2",
    );
    followed.wait_for_the_network_of("wan0", "h0");
    assert_works(&stream, 2);
    followed.assert_reaches(FAR);
    followed.assert_reaches(FAR_V6);
}

#[test]
fn host_that_gets_a_network_gives_it_to_its_guest() {
    let followed = needs!(Followed::configured(OFFLINE, &[]));
    assert_eq!(followed.addresses("tap0"), ["169.254.2.1 16"]);
    // The host's loopback is the gateway, network or not.
    let on_host = TcpServer::echo(&followed.world.host, SocketAddr::new(LOOPBACK, 0));
    let gateway = IpAddr::V4(Ipv4Addr::new(169, 254, 2, 2));
    let through = SocketAddr::new(gateway, on_host.address().port());
    let stream = connect(&followed.world.guest, through).expect("the host is reached");
    assert_works(&stream, 1);
    let server = TcpServer::echo(&followed.world.remote, SocketAddr::new(FAR, 0));
    connect(&followed.world.guest, server.address()).expect_err("there is no way yet");

    let network_at = Instant::now();
    followed.host(
        "ip link set h0 up; ip addr add 198.51.100.1/24 dev h0
         ip route add default via 198.51.100.2",
    );
    followed.wait_for_address("tap0", "198.51.100.1 24");
    followed.wait_for_gateway("-4", "198.51.100.2");
    assert_works(followed.connect(&server), 2);
    let took = network_at.elapsed();
    assert!(took < SOON, "it took {took:?}");
    assert_works(&stream, 3);
    // A connection has the address that the host has, too.
    let own = followed.connect(&server).local_addr().expect("it has one");
    assert_eq!(own.ip(), HOST);
    followed.assert_reaches(FAR);
    // The new gateway is the host's loopback.
    let through = SocketAddr::new(Ipv4Addr::new(198, 51, 100, 2).into(), on_host.address().port());
    assert_works(connect(&followed.world.guest, through).expect("the host is reached"), 4);
}

#[test]
fn host_that_gets_ipv6_alone_gives_it_to_its_guest() {
    let followed = needs!(Followed::configured(OFFLINE, &[]));
    followed.host(
        "ip link set h0 up; ip addr add 2001:db8:1::1/64 dev h0 nodad
         ip route add default via 2001:db8:1::2",
    );
    followed.wait_for_address("tap0", "2001:db8:1::1 64");
    followed.wait_for_gateway("-6", "2001:db8:1::2");
    followed.assert_reaches(FAR_V6);
    let server = TcpServer::echo(&followed.world.remote, SocketAddr::new(FAR_V6, 0));
    let own = followed.connect(&server).local_addr().expect("it has one");
    assert_eq!(own.ip(), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1)));
    assert_eq!(gateway(&followed.world.guest, "-4").as_deref(), Some("169.254.2.2"));
}

#[test]
fn host_that_loses_ipv4_is_missed_at_once_and_ipv6_goes_on() {
    let followed = needs!(Followed::configured("", &[]));
    let server = TcpServer::echo(&followed.world.remote, SocketAddr::new(FAR_V6, 0));
    let stream = followed.connect(&server);
    followed.host("ip -4 addr flush dev h0");
    let gone = TcpServer::echo(&followed.world.remote, SocketAddr::new(FAR, 0));
    let failure = connect(&followed.world.guest, gone.address()).expect_err("there is no IPv4");
    assert!(failure.after < Duration::from_secs(3), "it is said at once: {failure:?}");
    assert_works(&stream, 2);
    followed.host("ip addr add 198.51.100.1/24 dev h0; ip route add default via 198.51.100.2");
    wait_until(PATIENCE, "IPv4 is back", || connect(&followed.world.guest, gone.address()).is_ok());
    assert_eq!(followed.addresses("h0"), ["198.51.100.1 24", "2001:db8:1::1 64"]);
    assert_works(&stream, 3);
}

#[test]
fn thousand_routes_at_once_cost_a_few_readings() {
    let followed = needs!(Followed::configured("", &["--debug"]));
    let facts = ProcessFacts(followed.pasta.pid());
    let before = facts.cpu_time();
    followed.host(
        "for n in $(seq 0 999); do
             echo route add 10.$((n / 250)).$((n % 250)).0/24 via 198.51.100.3
         done | ip -batch -",
    );
    followed.wait_for_the_network_of("h0", "h0");
    followed.host(
        "for n in $(seq 0 999); do
             echo route del 10.$((n / 250)).$((n % 250)).0/24
         done | ip -batch -",
    );
    followed.wait_for_the_network_of("h0", "h0");
    let spent = facts.cpu_time().saturating_sub(before);
    assert!(spent < Duration::from_secs(2), "{spent:?} of processor time");
    let log = followed.log();
    let readings = log.matches("the host's network was read again").count();
    assert!((1..=10).contains(&readings), "{readings} readings: {log}");
}

#[test]
fn interface_that_is_left_alone_stays_so() {
    let followed = needs!(Followed::start("", &NO_PORTS));
    followed.host("ip addr add 192.0.2.9/28 dev h0; ip -4 addr del 198.51.100.1/24 dev h0");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(followed.addresses("h0"), [""; 0]);
    let up = json(&followed.world.guest, "link show up");
    let names: Vec<_> = up.iter().filter_map(|link| link["ifname"].as_str()).collect();
    assert_eq!(names, ["lo"]);
    assert_eq!(capabilities(&followed), [("slirp-mirror".to_owned(), 0)]);
}

#[test]
fn chosen_addresses_stay_whatever_the_host_has() {
    let followed = needs!(Followed::configured(
        "",
        &["-4", "-a", "10.0.2.100", "-n", "24", "-g", "10.0.2.2"],
    ));
    followed.world.remote.script("ip addr add 192.0.2.2/24 dev r0");
    followed.host(
        "ip -4 addr flush dev h0; ip addr add 192.0.2.77/24 dev h0
         ip route add default via 192.0.2.2",
    );
    followed.assert_reaches(FAR);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(followed.addresses("h0"), ["10.0.2.100 24"]);
    assert_eq!(gateway(&followed.world.guest, "-4").as_deref(), Some("10.0.2.2"));
    let rights: u64 = capabilities(&followed).iter().map(|(_, rights)| rights).sum();
    assert_eq!(rights, 0, "nothing inside is ever set");
}

#[test]
fn thread_that_sets_addresses_has_the_right_to_do_so_and_no_other_thread_has() {
    const NET_ADMIN: u64 = 1 << 12;
    let followed = needs!(Followed::configured("", &[]));
    assert_eq!(capabilities(&followed), [("slirp-mirror".to_owned(), NET_ADMIN)]);
}

/// The effective capabilities of `slirp-mirror`, and of every other thread that has one besides
/// CAP_NET_BIND_SERVICE.
fn capabilities(followed: &Followed) -> Vec<(String, u64)> {
    const NET_BIND_SERVICE: u64 = 1 << 10;
    let tasks = std::fs::read_dir(format!("/proc/{}/task", followed.pasta.pid()));
    let tasks = tasks.expect("pasta runs").flatten();
    let statuses =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let all = statuses.filter_map(|status| {
        let field = |name: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(name));
            found.map(|value| value.trim().to_owned())
        };
        let sets = ["CapEff:", "CapPrm:", "CapBnd:"].map(|set| {
            field(set).and_then(|value| u64::from_str_radix(&value, 16).ok()).unwrap_or(u64::MAX)
        });
        let rights = sets.iter().fold(0, |all, set| all | set) & !NET_BIND_SERVICE;
        Some((field("Name:")?, rights))
    });
    all.filter(|(name, rights)| name == "slirp-mirror" || *rights != 0).collect()
}
