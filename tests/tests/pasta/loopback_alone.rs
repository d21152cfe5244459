//! `--splice-only`: the loopbacks of host and guest are joined, and the guest has nothing else.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};
use std::time::Duration;

use slirp_tests::{HOST, Rootless, World, needs};

const LISTEN: &str = "until ss -Hltn sport = :80 | grep -q . ; do sleep 0.01; done; \
                      until ss -Hlun sport = :80 | grep -q . ; do sleep 0.01; done";

/// Starts a guest with these ports and no interface.
fn started(rootless: &Rootless<'_>, netns: &str, more: &[&str]) {
    let line = ["--splice-only", "-q", "-T", "7000", "-U", "none"];
    let output = rootless.pasta(&[&line, more, &["--netns", netns]].concat());
    let said = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
    assert_eq!(said, (Some(0), "", ""), "{more:?}");
}

/// What the server behind a port of the host says, or how the connection ends.
fn ask(world: &World, address: IpAddr, port: u16) -> Result<String, std::io::ErrorKind> {
    world.host.enter(|| {
        let mut text = String::new();
        let mut stream = TcpStream::connect((address, port)).map_err(|error| error.kind())?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.read_to_string(&mut text).map_err(|error| error.kind())?;
        Ok(text)
    })
}

#[test]
fn guest_without_an_interface_is_reached_over_loopback_and_by_nobody_else() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    started(&rootless, &netns, &["-t", "8080:80", "-u", "8080:80"]);
    assert_eq!(rootless.inside(&netns, "ip -o link | awk '{print $2}'"), "lo:\n");
    assert!(rootless.inside(&netns, "ip -o link show up dev lo").contains("lo"), "it is up");
    // A service of the loopback alone, which tells its client's address.
    let tcp = "TCP-LISTEN:80,bind=127.0.0.1,reuseaddr,fork";
    let _tcp = rootless.spawn_inside(&netns, &["socat", tcp, "SYSTEM:echo $SOCAT_PEERADDR"]);
    let udp = "UDP-RECVFROM:80,bind=127.0.0.1,fork";
    let _udp = rootless.spawn_inside(&netns, &["socat", udp, "EXEC:cat"]);
    rootless.inside(&netns, LISTEN);
    for loopback in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        assert_eq!(ask(&world, loopback, 8080), Ok("127.0.0.1\n".to_owned()), "{loopback}");
    }
    let echoed = world.host.enter(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.send_to(b"datagram", "127.0.0.1:8080").unwrap();
        let mut buffer = [0; 16];
        let len = socket.recv(&mut buffer).unwrap();
        buffer[..len].to_vec()
    });
    assert_eq!(echoed, b"datagram");
    let refused = std::io::ErrorKind::ConnectionReset;
    assert_eq!(ask(&world, HOST, 8080), Err(refused), "the host's own address is no loopback");
    // The other way.
    let listen = "TCP-LISTEN:7000,bind=127.0.0.1,reuseaddr,fork";
    let _host = world.host.spawn(&["socat", listen, "SYSTEM:echo host"]);
    world.host.script("until ss -Hltn sport = :7000 | grep -q . ; do sleep 0.01; done");
    assert_eq!(rootless.inside(&netns, "socat -u TCP:127.0.0.1:7000 -"), "host\n");
    rootless.remove_netns(&netns);
    rootless.wait_for_end();
}

#[test]
fn command_without_an_interface_has_its_loopback() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let listen = "TCP-LISTEN:7000,bind=127.0.0.1,reuseaddr,fork";
    let _host = world.host.spawn(&["socat", listen, "SYSTEM:echo host"]);
    world.host.script("until ss -Hltn sport = :7000 | grep -q . ; do sleep 0.01; done");
    let script = "ip -o link | awk '{print $2}'; socat -u TCP:127.0.0.1:7000 -";
    let line = ["--splice-only", "-t", "none", "-u", "none", "-T", "7000", "-U", "none"];
    let output = rootless.pasta(&[&line, &["--", "sh", "-c", script][..]].concat());
    let said = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
    assert_eq!(said, (Some(0), "lo:\nhost\n", ""));
}
