//! `passt` and a real machine of QEMU: addresses, both protocols in both directions, and every way
//! in which the two part.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use slirp_tests::{
    FAR, FAR_V6, HOST, IO_LIMIT, Machine, Namespace, PATIENCE, Qemu, TcpServer, UdpServer, World,
    connect, needs, receive_exact, send_exact, wait_until,
};

use super::machines::{Passt, signal};

/// Bytes that go each way over a connection to the machine.
const LEN: usize = 4_000_000;

/// The host's own IPv6 address, which leads to the machine as well.
const HOST_V6: &str = "2001:db8:1::1";

/// Ports of the host that lead to echo servers of the machine, and to its last order.
const PORTS: &str = "-t 2007:7,2009:9 -u 2007:7";

/// What the machine tries out. The last step is the caller's, by an order for sysrq-trigger.
const SCRIPT: &str = r#"
socat TCP6-LISTEN:7,fork,ipv6only=0 EXEC:cat &
socat UDP6-RECVFROM:7,fork,ipv6only=0 EXEC:cat &
until ip -6 addr show dev eth0 | grep -v tentative | grep 'inet6 2001'; do sleep 0.1; done
ip -6 route show default
head -c 4000000 /dev/urandom > /page
for far in 203.0.113.10 2001:db8:2::10; do
    ping -c 1 -W 20 "$far" | grep 'bytes from'
    case $far in *:*) name="6:[$far]" ;; *) name="4:$far" ;; esac
    socat -t 60 - "TCP$name:7" < /page | cmp - /page && echo "TCP$name is whole"
    echo over and back | socat -t 60 - "UDP$name:7,readbytes=14"
done
ping -c 1 -W 20 198.51.100.2 | grep 'bytes from'
socat -u TCP-LISTEN:9 CREATE:/order &
until netstat -lnt | grep -q ':9 '; do sleep 0.1; done
echo ready
wait $!
cat /order > /proc/sysrq-trigger
"#;

/// A shorter life: an address, a connection, and the end.
const BRIEF: &str = r#"
head -c 4000000 /dev/urandom > /page
socat -t 60 - TCP4:203.0.113.10:7 < /page | cmp - /page && echo "TCP is whole"
echo o > /proc/sysrq-trigger
"#;

/// The lease of a machine that has the addresses of its host.
const LEASE: &str = "leased 198.51.100.1/24 via 198.51.100.2, names at 198.51.100.2";

fn netdev(passt: &Passt<'_>) -> String {
    let path = passt.path("s");
    format!("stream,id=net,server=off,addr.type=unix,addr.path={}", path.display())
}

fn echo(remote: &Namespace) -> impl Sized {
    [FAR, FAR_V6].map(|far| {
        (TcpServer::echo(remote, (far, 7).into()), UdpServer::echo(remote, (far, 7).into()))
    })
}

/// Orders the machine, which is ready, to reboot (`b`) or to switch off (`o`), after both protocols
/// have reached it by both families.
fn visit(world: &World, order: &str) {
    for address in [HOST, HOST_V6.parse().unwrap()] {
        let to = SocketAddr::from((address, 2007));
        let stream = connect(&world.remote, to).expect("the port leads to the machine");
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| send_exact(&stream, 3, LEN));
            receive_exact(&stream, 3, LEN).unwrap();
            sent.join().unwrap().unwrap();
        });
        assert_eq!(datagram_back(&world.remote, to), b"to the machine");
    }
    let stream = connect(&world.host, (IpAddr::from([127, 0, 0, 1]), 2009).into()).unwrap();
    std::io::Write::write_all(&mut &stream, order.as_bytes()).unwrap();
}

fn datagram_back(from: &Namespace, to: SocketAddr) -> Vec<u8> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = from.enter(|| UdpSocket::bind(any)).unwrap();
    socket.set_read_timeout(Some(IO_LIMIT)).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"to the machine").unwrap();
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

/// What a machine has found so many times.
fn assert_found(said: &str, count: usize) {
    for line in [
        LEASE,
        "inet6 2001:db8:1:0:5054:ff:fe12:3456/64",
        "default via fe80::",
        "64 bytes from 203.0.113.10",
        "64 bytes from 2001:db8:2::10",
        "64 bytes from 198.51.100.2",
        "TCP4:203.0.113.10 is whole",
        "TCP6:[2001:db8:2::10] is whole",
    ] {
        assert_eq!(said.matches(line).count(), count, "{line:?} in {said}");
    }
    assert_eq!(said.matches("over and back").count(), 2 * count, "{said}");
}

#[test]
fn machine_has_the_hosts_network_before_and_after_a_reboot_and_so_has_the_next_one() {
    let world = needs!(World::ordinary());
    let qemu = needs!(Qemu::new(&world, SCRIPT));
    world.host.script("echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range");
    let _servers = echo(&world.remote);
    let passt = Passt::new(&world);
    let output = passt
        .run(&format!("--socket FOLDER/s --pid FOLDER/pid --log-file FOLDER/log {PORTS}"), None);
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let process = passt.process();
    let live = |machine: &Machine, count, order| {
        machine.wait_for("ready", count);
        visit(&world, order);
    };
    let first = qemu.start(&netdev(&passt));
    live(&first, 1, "b");
    live(&first, 2, "o");
    assert_found(&first.finish(), 2);
    // Another QEMU: the first one has hung up.
    let second = qemu.start(&netdev(&passt));
    live(&second, 1, "o");
    assert_found(&second.finish(), 1);
    assert!(process.is_alive());
    let log = std::fs::read_to_string(passt.path("log")).unwrap();
    assert_eq!(log.matches("a peer has connected").count(), 2, "{log}");
    signal(&process, Signal::SIGTERM);
    wait_until(PATIENCE, "the end by a signal", || !process.is_alive());
}

#[test]
fn foreground_ends_with_its_only_machine() {
    let world = needs!(World::ordinary());
    let qemu = needs!(Qemu::new(&world, BRIEF));
    let _servers = echo(&world.remote);
    let passt = Passt::new(&world);
    let running = passt.start("-f -1 --socket FOLDER/s --log-file FOLDER/log", None);
    wait_until(PATIENCE, "the socket listens", || {
        let log = std::fs::read_to_string(passt.path("log"));
        log.is_ok_and(|log| log.contains("UNIX domain socket bound"))
    });
    let said = qemu.start(&netdev(&passt)).finish();
    assert!(said.contains(LEASE) && said.contains("TCP is whole"), "{said}");
    let output = running.finish();
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    assert!(output.stderr.ends_with("Client connection closed, exiting\n"), "{}", output.stderr);
}

#[test]
fn callers_connect_both_ends_of_a_socket() {
    let world = needs!(World::ordinary());
    let qemu = needs!(Qemu::new(&world, BRIEF));
    let _servers = echo(&world.remote);
    let passt = Passt::new(&world);
    let live = |ours: &UnixStream| {
        let number = ours.as_fd().as_raw_fd();
        let inherited = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
        nix::fcntl::fcntl(ours, inherited).unwrap();
        let netdev = format!("stream,id=net,server=off,addr.type=fd,addr.str={number}");
        qemu.start(&netdev)
    };
    // QEMU waits for the end of the caller's process, and finds the other one by its number.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let output = passt.run("--quiet --pid FOLDER/pid --fd FD", Some(&theirs));
    drop(theirs);
    let told = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
    assert_eq!(told, (Some(0), "", ""));
    let process = passt.process();
    let machine = live(&ours);
    drop(ours);
    let said = machine.finish();
    assert!(said.contains(LEASE) && said.contains("TCP is whole"), "{said}");
    wait_until(PATIENCE, "the end with the machine", || !process.is_alive());
    // muvm waits for nothing.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let running =
        passt.start("-q -f --fd FD -t 8080-8080:80-80 -u 53000-53000:53-53", Some(&theirs));
    drop(theirs);
    let machine = live(&ours);
    drop(ours);
    let said = machine.finish();
    assert!(said.contains(LEASE) && said.contains("TCP is whole"), "{said}");
    let output = running.finish();
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
}
