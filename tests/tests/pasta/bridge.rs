//! Containers on a bridge in Podman's network namespace, whose ports `pesto` opens: the namespace
//! has a network of its own, and containers are behind it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slirp_tests::{
    Background, HOST, Output, PATIENCE, Rootless, World, ask_tcp, connect, needs, wait_until,
};

use crate::vectors::PODMAN;

const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
/// Where clients of the host find a published port, and who they are for the container: clients of
/// another machine keep their addresses.
const CLIENTS: [(IpAddr, &str); 2] =
    [(HOST, "tcp 198.51.100.2\n"), (HOST_V6, "tcp [2001:0db8:0001:0000:0000:0000:0000:0002]\n")];
/// The port on the host.
const PORT: u16 = 8080;

/// Ports of a container as Podman 6.1 has them: they lead to the container itself.
const DIRECT: &[&str] = &["-t", "0.0.0.0/8080:10.89.0.2/80", "-t", "[::]/8080:fd00::2/80"];
/// The same of Podman 6.0, where rules in the namespace lead on to the container.
const TRANSLATED: &[&str] = &["-t", "0.0.0.0/8080", "-t", "[::]/8080"];

/// Podman's network namespace with a network, and one of a container.
struct Bridge<'w> {
    rootless: Rootless<'w>,
    netns: String,
    container: String,
}

impl<'w> Bridge<'w> {
    fn new(world: &'w World) -> Self {
        let rootless = Rootless::new(world);
        let [netns, container] = ["rootless-netns", "container"].map(|name| rootless.netns(name));
        let made = Self { rootless, netns, container };
        made.start();
        made.rootless.inside(
            &made.netns,
            &format!(
                "ip link add br0 type bridge; ip link set br0 up
                ip addr add 10.89.0.1/24 dev br0; ip addr add fd00::1/64 dev br0 nodad
                ip link add v0 type veth peer name e0 netns {}; ip link set v0 master br0 up
                cd /proc/sys/net; echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding",
                made.container
            ),
        );
        made.rootless.inside(
            &made.container,
            "ip link set lo up; ip link set e0 up
            ip addr add 10.89.0.2/24 dev e0; ip addr add fd00::2/64 dev e0 nodad
            ip route add default via 10.89.0.1; ip -6 route add default via fd00::1",
        );
        made
    }

    fn file(&self, name: &str) -> String {
        self.rootless.world().folder().join(name).display().to_string()
    }

    /// Starts the network as Podman does.
    fn start(&self) {
        let caller = PODMAN.iter().find(|it| it.line.contains("-c SOCKET")).unwrap();
        let line = caller.line.replace("PIDFILE", &self.file("pid"));
        let line = line.replace("SOCKET", &self.file("pasta.sock")).replace("NS", &self.netns);
        let output = self.rootless.pasta(&line.split_whitespace().collect::<Vec<_>>());
        let said = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
        assert_eq!(said, (Some(0), "", ""));
    }

    /// Ends the network, and looks for its process as Podman does.
    fn end(&self, signal: Signal) {
        let text = fs::read_to_string(self.file("pid")).unwrap();
        let pid = Pid::from_raw(text.trim().parse().unwrap());
        kill(pid, signal).unwrap();
        wait_until(PATIENCE, "the end of the process", || kill(pid, None).is_err());
    }

    fn pesto(&self, what: &str, ports: &[&str]) -> Output {
        self.rootless.pesto(&[&[what], ports, &[&self.file("pasta.sock")]].concat())
    }

    /// Makes a change that works.
    fn change(&self, what: &str, ports: &[&str]) {
        let output = self.pesto(what, ports);
        let said = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
        assert_eq!(said, (Some(0), "", ""), "{what} {ports:?}");
    }

    /// A server that tells each client who the client is.
    fn serve(&self, netns: &str, port: u16) -> Background {
        let listen = format!("TCP6-LISTEN:{port},ipv6only=0,reuseaddr,fork");
        let tell = "SYSTEM:echo tcp $SOCAT_PEERADDR";
        let server = self.rootless.spawn_inside(netns, &["socat", &listen, tell]);
        let ready = format!("until ss -Htln sport = :{port} | grep -q .; do sleep 0.01; done");
        self.rootless.inside(netns, &ready);
        server
    }

    fn assert_open(&self) {
        let world = self.rootless.world();
        for (host, expected) in CLIENTS {
            let told = ask_tcp(&world.remote, (host, PORT).into());
            let told = told.replace("[0000:0000:0000:0000:0000:ffff:c633:6402]", "198.51.100.2");
            assert_eq!(told, expected);
        }
        let loopbacks: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        for host in loopbacks {
            assert!(ask_tcp(&world.host, (host, PORT).into()).starts_with("tcp "), "{host}");
        }
    }

    fn assert_closed(&self, port: u16) {
        for (host, _) in CLIENTS {
            let to: SocketAddr = (host, port).into();
            assert!(connect(&self.rootless.world().remote, to).is_err(), "{to}");
        }
    }
}

#[test]
fn ports_of_containers_come_go_and_come_again() {
    let world = needs!(World::ordinary());
    let bridge = Bridge::new(&world);
    for (ports, netns, port) in [(TRANSLATED, &bridge.netns, PORT), (DIRECT, &bridge.container, 80)]
    {
        let _server = bridge.serve(netns, port);
        bridge.assert_closed(PORT);
        bridge.change("--add", ports);
        bridge.assert_open();
        bridge.change("--delete", ports);
        bridge.assert_closed(PORT);
        bridge.change("--add", ports);
        bridge.assert_open();
        bridge.change("--delete", ports);
    }
}

#[test]
fn port_of_another_container_is_refused_and_changes_nothing() {
    let world = needs!(World::ordinary());
    let bridge = Bridge::new(&world);
    let _server = bridge.serve(&bridge.container, 80);
    bridge.change("--add", DIRECT);
    let rules = || bridge.pesto("--show", &[]).stdout;
    let before = rules();
    let expected = "HOST\n    TCP [0.0.0.0]:8080  =>  [10.89.0.2]:80\n    TCP [::]:8080  =>  \
                    [fd00::2]:80\nSPLICE\n";
    assert_eq!(before, expected);
    let other = ["-t", "0.0.0.0/8081:10.89.0.3/80", "-t", "[::]/8080:fd00::3/80"];
    let output = bridge.pesto("--add", &other);
    assert_eq!(output.status.code(), Some(1));
    let expected = "pesto: Forwarding configuration conflict: TCP [::]:8080  =>  [fd00::3]:80 \
                    versus TCP [::]:8080  =>  [fd00::2]:80\n";
    assert_eq!(output.stderr, expected);
    assert_eq!(rules(), before);
    bridge.assert_closed(8081);
    bridge.assert_open();
}

#[test]
fn network_that_is_started_again_has_the_same_ports() {
    let world = needs!(World::ordinary());
    let bridge = Bridge::new(&world);
    let _server = bridge.serve(&bridge.container, 80);
    bridge.change("--add", DIRECT);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        bridge.end(signal);
        bridge.assert_closed(PORT);
        bridge.start();
        bridge.change("--add", DIRECT);
        bridge.assert_open();
    }
}
