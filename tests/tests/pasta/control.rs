//! Ports that are changed while the network runs: `pasta --conf-path`, `pesto`, and what other
//! clients of the socket see.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use slirp_tests::{Background, HOST, Output, PATIENCE, Rootless, World, needs, wait_until};

use crate::GUEST;

/// A network with a control socket.
struct Network<'w> {
    rootless: Rootless<'w>,
    netns: String,
    socket: String,
    pid: u32,
}

impl<'w> Network<'w> {
    fn start(world: &'w World) -> Self {
        let rootless = Rootless::new(world);
        let netns = rootless.netns("n");
        let file = |name| world.folder().join(name).display().to_string();
        let (socket, pid_file) = (file("pasta.sock"), file("pid"));
        let own = ["-c", &socket, "--pid", &pid_file, "--netns", &netns];
        let output = rootless.pasta(&[GUEST, &["-t", "none"], &own].concat());
        let said = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
        assert_eq!(said, (Some(0), "", ""));
        let pid = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        Self { rootless, netns, socket, pid }
    }

    fn pesto(&self, arguments: &[&str]) -> Output {
        self.rootless.pesto(&[arguments, &[self.socket.as_str()]].concat())
    }

    /// Makes a change that works.
    fn change(&self, arguments: &[&str]) {
        let output = self.pesto(arguments);
        let said = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
        assert_eq!(said, (Some(0), "", ""), "{arguments:?}");
    }

    /// Makes a change that does not work. Returns what is said.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.pesto(arguments);
        assert_eq!((output.status.code(), output.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        output.stderr
    }

    fn shown(&self) -> String {
        self.pesto(&["--show"]).stdout
    }

    /// Descriptors of the network's process.
    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().count()
    }
}

/// Answers each client of a port of the guest with its address.
fn serve(network: &Network<'_>, address: &str, port: u16) -> Background {
    let listen = format!("TCP-LISTEN:{port},bind={address},reuseaddr,fork");
    let server = network
        .rootless
        .spawn_inside(&network.netns, &["socat", "-t", "20", &listen, "SYSTEM:echo answer; cat"]);
    let ready = format!("until ss -Htln sport = :{port} | grep -q .; do sleep 0.01; done");
    network.rootless.inside(&network.netns, &ready);
    server
}

fn connect(world: &World, address: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let stream = world.host.enter(|| TcpStream::connect((address, port)))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Whether a server of the guest answers there.
fn answers(world: &World, address: Ipv4Addr, port: u16) -> bool {
    let Ok(mut stream) = connect(world, address, port) else { return false };
    let mut text = [0; 7];
    stream.read_exact(&mut text).is_ok_and(|()| text == *b"answer\n")
}

fn host() -> Ipv4Addr {
    match HOST {
        std::net::IpAddr::V4(host) => host,
        std::net::IpAddr::V6(_) => panic!("the host has IPv4"),
    }
}

#[test]
fn port_is_added_and_deleted_and_its_connections_live_on() {
    let world = needs!(World::ordinary());
    let network = Network::start(&world);
    let mode = fs::metadata(&network.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let _server = serve(&network, "0.0.0.0", 80);
    assert!(!answers(&world, host(), 8080), "closed at first");
    network.change(&["--add", "-t", "0.0.0.0/8080:80"]);
    assert_eq!(network.shown(), "HOST\n    TCP [0.0.0.0]:8080  =>  80\nSPLICE\n");
    for address in [host(), Ipv4Addr::LOCALHOST] {
        assert!(answers(&world, address, 8080), "{address}");
    }
    let mut alive = connect(&world, host(), 8080).unwrap();
    alive.read_exact(&mut [0; 7]).unwrap();
    network.change(&["--delete", "-t", "0.0.0.0/8080:80"]);
    assert_eq!(network.shown(), "HOST\nSPLICE\n");
    assert!(connect(&world, host(), 8080).is_err(), "closed again");
    alive.write_all(b"still").unwrap();
    let mut echo = [0; 5];
    alive.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"still");
}

#[test]
fn change_that_cannot_be_made_as_a_whole_changes_nothing() {
    let world = needs!(World::ordinary());
    let network = Network::start(&world);
    network.change(&["-t", "127.0.0.1/8080:80"]);
    let before = network.shown();
    let text = network.refused(&["--add", "-t", "8081", "-t", "127.0.0.1/8080:81"]);
    let expected = "pesto: Forwarding configuration conflict: TCP [127.0.0.1]:8080  =>  81 versus \
                    TCP [127.0.0.1]:8080  =>  80\n";
    assert_eq!(text, expected);
    // Of another program.
    let taken = world.host.enter(|| TcpListener::bind("127.0.0.1:9090").unwrap());
    let text = network.refused(&["-t", "8081", "-T", "7070", "-t", "127.0.0.1/9090"]);
    let expected =
        "pesto: Listen failed for HOST TCP port 127.0.0.1/9090: Address already in use\n";
    assert_eq!(text, expected);
    // A port that has to be closed for another one is open again.
    let text = network.refused(&[
        "-D",
        "-t",
        "127.0.0.1/8080:80",
        "-A",
        "-t",
        "127.0.0.1/8080:81",
        "-t",
        "127.0.0.1/9090",
    ]);
    assert_eq!(text, expected);
    assert_eq!(network.shown(), before);
    let bound =
        world.host.script("ss -Htln '( sport >= 8080 and sport <= 8081 )' | awk '{print $4}'");
    assert_eq!(bound, "127.0.0.1:8080\n");
    assert_eq!(network.rootless.inside(&network.netns, "ss -Htln sport = :7070"), "");
    drop(taken);
    let text = network.refused(&["-D", "-t", "5000"]);
    assert_eq!(text, "pesto: No such rule: TCP [*]:5000  =>  5000\n");
    // Nothing of all that is in the way.
    network.change(&["-D", "-t", "127.0.0.1/8080:80", "-A", "-t", "127.0.0.1/8080:81"]);
}

#[test]
fn ports_of_the_loopback_and_scanned_ones_change_as_well() {
    let world = needs!(World::ordinary());
    let network = Network::start(&world);
    let service = world.host.enter(|| TcpListener::bind("127.0.0.1:7070").unwrap());
    network.change(&["-T", "7071:7070", "-t", "8000-8009,auto", "-U", "5300"]);
    let client = network
        .rootless
        .spawn_inside(&network.netns, &["socat", "-u", "OPEN:/dev/null", "TCP:127.0.0.1:7071"]);
    world.host.enter(|| service.accept().unwrap());
    drop(client);
    let _server = serve(&network, "0.0.0.0", 8003);
    wait_until(PATIENCE, "the port that was found", || answers(&world, host(), 8003));
    // Another rule for it: the port itself stays.
    network.change(&[
        "-D",
        "-T",
        "7071:7070",
        "-A",
        "-T",
        "7071:7072",
        "-D",
        "-t",
        "8000-8009,auto",
    ]);
    let other = world.host.enter(|| TcpListener::bind("127.0.0.1:7072").unwrap());
    let client = network
        .rootless
        .spawn_inside(&network.netns, &["socat", "-u", "OPEN:/dev/null", "TCP:127.0.0.1:7071"]);
    world.host.enter(|| other.accept().unwrap());
    drop(client);
    wait_until(PATIENCE, "the end of the scanned port", || connect(&world, host(), 8003).is_err());
    network.change(&["--clear", "SPLICE"]);
    assert_eq!(
        network.rootless.inside(&network.netns, "ss -Htln sport = :7071; ss -Huln sport = :5300"),
        ""
    );
}

/// A client that sends these bytes, keeps the connection for a while and prints what comes.
fn raw(network: &Network<'_>, bytes: &str, seconds: u32) -> Background {
    let socket = &network.socket;
    let script = format!(
        "(printf '{bytes}'; sleep {seconds}) | timeout {seconds} socat - UNIX-CONNECT:{socket} | \
         od -An -v -tx1 | tr -d ' \\n'"
    );
    network.rootless.spawn_inside(&network.netns, &["sh", "-c", &script])
}

#[test]
fn clients_of_passt_speak_the_same_bytes_and_hinder_nobody() {
    let world = needs!(World::ordinary());
    let network = Network::start(&world);
    // One that says nothing, and one that stops in the middle.
    let silent = raw(&network, "", 5);
    let slow = raw(&network, "\\1\\0\\0", 5);
    // A rule for 127.0.0.1:8080 to port 80, as passt's client sends it.
    let zeros = "\\0".repeat(10);
    let address = format!("{zeros}\\377\\377\\177\\0\\0\\1");
    let (target, name) = ("\\0".repeat(16), "\\0".repeat(16));
    let ports = "\\037\\220\\037\\220\\0\\120\\6\\0";
    let tables = format!("\\1\\0\\0\\0\\1{address}{target}{name}{ports}\\3\\0\\0\\0\\0\\0");
    let output = raw(&network, &tables, 1).finish();
    let greeting = &output.stdout;
    assert!(greeting.starts_with("626173696c3a730000000002000000800000001001484f535400"));
    // Two tables without rules, the end, and the status that passt does not have.
    assert_eq!(greeting.len(), 2 * (20 + 2 * 137 + 1 + 4), "{greeting}");
    assert!(greeting.ends_with("0000000000"), "{greeting}");
    let rule = "HOST\n    TCP [127.0.0.1]:8080  =>  80\nSPLICE\n";
    assert_eq!(network.shown(), rule);
    // Nonsense is answered, and changes nothing.
    let output = raw(&network, "\\1\\377\\377\\377\\377", 1).finish();
    let text: String =
        "more than 255 rules in a table".bytes().map(|it| format!("{it:02x}")).collect();
    assert!(output.stdout.ends_with(&text), "{}", output.stdout);
    assert_eq!(network.shown(), rule);
    // Whoever hangs up at once, or in the middle, has changed nothing.
    for client in [silent, slow] {
        assert!(client.finish().stdout.starts_with("6261"));
    }
    assert_eq!(network.shown(), rule);
}

#[test]
fn many_changes_leave_nothing_behind() {
    let world = needs!(World::ordinary());
    let network = Network::start(&world);
    network.change(&["-t", "8080:80", "-u", "5300", "-T", "7070"]);
    network.change(&["-C", "HOST", "-C", "SPLICE"]);
    wait_until(PATIENCE, "the end of the first clients", || network.descriptors() > 0);
    let before = network.descriptors();
    for _ in 0..50 {
        network.change(&["-t", "8080:80", "-u", "5300", "-T", "7070", "-t", "9000-9002,auto"]);
        network.change(&["-C", "HOST", "-C", "SPLICE"]);
    }
    wait_until(PATIENCE, "as few descriptors as before", || network.descriptors() <= before);
}

#[test]
fn socket_is_removed_at_the_end_and_not_taken_from_another_network() {
    let world = needs!(World::ordinary());
    let network = Network::start(&world);
    let other = network.rootless.netns("m");
    let output = network
        .rootless
        .pasta(&[GUEST, &["-t", "none"], &["-c", &network.socket, "--netns", &other]].concat());
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "Couldn't open the control socket {}: a network serves it, or it is no socket\n",
        network.socket
    );
    assert_eq!(output.stderr, expected);
    network.rootless.remove_netns(&network.netns);
    network.rootless.wait_for_end();
    assert!(!Path::new(&network.socket).exists());
}
