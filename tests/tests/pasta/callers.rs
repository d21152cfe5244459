//! The command lines of known callers, word for word, and what they look at afterwards.

use std::io::Read as _;
use std::net::TcpStream;

use slirp_tests::{Account, HOST, PATIENCE, Podman, Rootless, World, needs, wait_until};

/// Runs a command line with nothing on either stream, and status 0.
fn runs(rootless: &Rootless<'_>, line: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    let output = rootless.pasta(&words);
    let said = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
    assert_eq!(said, (Some(0), "", ""), "{line}");
}

#[test]
fn podman_for_a_container() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let pid = world.folder().join("pid").display().to_string();
    for (name, line) in [
        (
            "5.1",
            "--config-net -t 8081-8081:80-80 --dns-forward 169.254.1.1 -u none -T none -U none \
             --no-map-gw --quiet --netns NS",
        ),
        (
            "5.3",
            "--config-net -t 127.0.0.1/8082-8082:80-80 --dns-forward 169.254.1.1 -u none -T none \
             -U none --no-map-gw --quiet --netns NS --map-guest-addr 169.254.1.2",
        ),
        (
            "main",
            "--config-net -t 8083-8083:80-80 --dns-forward 169.254.1.1 -u none -T none -U none \
             --no-map-gw --quiet --map-guest-addr 169.254.1.2 --pid PID --netns NS",
        ),
        (
            "bridge",
            "--config-net --pid PID --dns-forward 169.254.1.1 -t none -u none -T none -U none \
             --no-map-gw --quiet --netns NS --map-guest-addr 169.254.1.2",
        ),
    ] {
        let netns = rootless.netns(&format!("netns-{name}"));
        runs(&rootless, &line.replace("NS", &netns).replace("PID", &pid));
        // The guest has the host's interface, addresses and routes; what Podman reads are addresses
        // that are neither loopback nor link-local in IPv6.
        let addresses = rootless.inside(&netns, "ip -br addr show dev h0; ip addr show dev h0");
        for address in [" 198.51.100.1/24 ", " 2001:db8:1::1/64 "] {
            assert!(addresses.contains(address), "{name}: {addresses}");
        }
        assert!(!addresses.contains("tentative"), "{name}: {addresses}");
        assert!(addresses.contains(" mtu 65520 "), "{name}: {addresses}");
        let routes = rootless.inside(&netns, "ip route; ip -6 route");
        for route in ["default via 198.51.100.2 dev h0", "default via 2001:db8:1::2 dev h0"] {
            assert!(routes.contains(route), "{name}: {routes}");
        }
        // Remotes see a connection of the host.
        let heard = world.remote.enter(|| {
            let listener = std::net::TcpListener::bind("198.51.100.2:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let client = format!("socat -u /dev/null TCP:198.51.100.2:{port}");
            rootless.inside(&netns, &client);
            listener.accept().unwrap().1.ip()
        });
        assert_eq!(heard, HOST, "{name}");
        if line.contains("PID") {
            let text = std::fs::read_to_string(&pid).unwrap();
            let number: u32 = text.trim_end().parse().unwrap();
            assert!(rootless.daemons().contains(&number), "{name}");
            std::fs::remove_file(&pid).unwrap();
        }
    }
}

#[test]
fn podman_with_the_options_of_its_manual() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    runs(
        &rootless,
        &format!(
            "--config-net --ipv4-only -a 10.0.2.0 -n 24 -g 10.0.2.2 --dns-forward 10.0.2.3 -m 1500 \
             --no-ndp --no-dhcpv6 --no-dhcp -t none -u none -T none -U none --no-map-gw --quiet \
             --netns {netns} --map-guest-addr 169.254.1.2"
        ),
    );
    let shown = rootless.inside(&netns, "ip -br -4 addr show scope global; ip -4 route; ip link");
    assert!(shown.contains(" 10.0.2.0/24 "), "{shown}");
    assert!(shown.contains("default via 10.0.2.2 "), "{shown}");
    assert!(shown.contains(" mtu 1500 "), "{shown}");
}

#[test]
fn rootlesskit() {
    for account in [Account::Ordinary, Account::Root] {
        let world = needs!(World::of(account));
        let rootless = Rootless::new(&world);
        let binary = rootless.binary().display().to_string();
        let pid = world.guest.pid().to_string();
        let line = format!(
            "--stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 --netmask=24 \
             --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only --tcp-ports=auto \
             --udp-ports=auto --host-lo-to-ns-lo {pid}"
        );
        let mut argv = account.prefix().to_vec();
        argv.push(&binary);
        argv.extend(line.split_whitespace());
        let output = world.host.exec(&argv);
        assert_eq!(output.status.code(), Some(0), "{account:?}: {}", output.stderr);
        assert_eq!(output.stdout, "");
        let shown = world.guest.script("ip -br -4 addr show tap0; ip -4 route; ip link show tap0");
        assert!(shown.contains(" 10.0.2.100/24 "), "{shown}");
        assert!(shown.contains("default via 10.0.2.2 dev tap0"), "{shown}");
        assert!(shown.contains(" mtu 65520 "), "{shown}");
    }
}

#[test]
fn callers_that_ask_for_features() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    assert_eq!(rootless.pasta(&["--host-lo-to-ns-lo", "--version"]).status.code(), Some(0));
    let output = rootless.pasta(&["--map-guest-addrs", "169.254.1.2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("unrecognized option '--map-guest-addrs"), "{}", output.stderr);
}

/// Makes a network namespace as Podman 5 does, and its network.
const MAKE: &str = r#"touch "$1"
    unshare --net -- mount --bind /proc/self/ns/net "$1"
    exec "$0" --config-net -t 8080-8080:80-80 --dns-forward 169.254.1.1 -u none -T none -U none \
        --no-map-gw --quiet --netns "$1" --map-guest-addr 169.254.1.2"#;

#[test]
fn container_of_podman_in_a_namespace_of_this_network() {
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    let binary = world.reachable_pasta().display().to_string();
    let netns = world.folder().join("podman-netns").display().to_string();
    let said = podman.succeed(&["unshare", "sh", "-euc", MAKE, &binary, &netns]);
    assert_eq!(said, "");
    podman.serve("web", &["--network", &format!("ns:{netns}")], "0.0.0.0", &["80"]);
    let told = world.remote.enter(|| {
        let mut text = String::new();
        let mut stream = TcpStream::connect((HOST, 8080)).unwrap();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(told, "tcp 198.51.100.2", "the client's own address");
    podman.succeed(&["rm", "--force", "--time", "0", "web"]);
    let remove = "umount --lazy \"$0\"; rm \"$0\"";
    podman.succeed(&["unshare", "sh", "-euc", remove, &netns]);
    wait_until(PATIENCE, "the port is closed", || {
        world.host.script("ss -Htln sport = :8080").is_empty()
    });
}
