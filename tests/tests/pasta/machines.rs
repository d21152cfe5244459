//! `passt` as its callers start it: the command lines word for word, and a machine that speaks
//! frames at the other end of the socket.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use slirp_tests::{
    Background, HOST, Output, PATIENCE, ProcessFacts, Rootless, World, connect, needs, wait_until,
};

/// MAC address of the machine.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// The machine's end of the socket.
struct Machine(UnixStream);

impl Drop for Machine {
    /// Another test may start a program just now, whose process has the socket for a moment.
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Machine {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn connect(path: &Path) -> Self {
        Self::new(UnixStream::connect(path).unwrap())
    }

    fn send(&mut self, frame: &[u8]) {
        let len = u32::try_from(frame.len()).unwrap().to_be_bytes();
        self.0.write_all(&[&len[..], frame].concat()).unwrap();
    }

    fn next(&mut self) -> Vec<u8> {
        let mut len = [0; 4];
        self.0.read_exact(&mut len).unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
        self.0.read_exact(&mut frame).unwrap();
        frame
    }

    /// What DHCP offers: the address, and the options.
    fn discover(&mut self) -> ([u8; 4], Vec<u8>) {
        let mut message = vec![0; 236];
        message[..8].copy_from_slice(&[1, 1, 6, 0, 0, 0, 0x12, 0x34]);
        message[10] = 0x80;
        message[28..34].copy_from_slice(&MAC);
        // The cookie, DISCOVER, and what is asked for: mask, router, resolvers, MTU.
        message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 55, 4, 1, 3, 6, 26, 255]);
        let ports = [0, 68, 0, 67];
        let udp = [&ports[..], &len_of(&message, 8), &[0, 0], &message].concat();
        let header = [0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
        let mut header = header.to_vec();
        header[2..4].copy_from_slice(&len_of(&udp, 20));
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
        self.send(&[&[255; 6][..], &MAC, &[8, 0], &header, &udp].concat());
        loop {
            let frame = self.next();
            // UDP to port 68.
            if frame[12..14] == [8, 0] && frame[23] == 17 && frame[36..38] == [0, 68] {
                return (frame[58..62].try_into().unwrap(), frame[282..].to_vec());
            }
        }
    }

    /// The payload of the next UDP datagram to `port`. Says before who has `address`.
    fn datagram(&mut self, address: [u8; 4], port: u16) -> Vec<u8> {
        let frame = self.packet(address, 17, port);
        let end = 34 + usize::from(u16::from_be_bytes([frame[38], frame[39]]));
        frame[42..end].to_vec()
    }

    /// The frame of the next packet of `protocol` to `port`. Says before who has `address`.
    fn packet(&mut self, address: [u8; 4], protocol: u8, port: u16) -> Vec<u8> {
        loop {
            let frame = self.next();
            if frame[12..14] == [8, 6] && frame[20..22] == [0, 1] && frame[38..42] == address {
                let head = [0, 1, 8, 0, 6, 4, 0, 2];
                let asker = &frame[22..32];
                let to = &frame[6..12];
                self.send(&[to, &MAC, &[8, 6], &head, &MAC, &address, asker].concat());
            }
            let is_of = frame[12..14] == [8, 0] && frame[23] == protocol;
            if is_of && frame[36..38] == port.to_be_bytes() {
                assert_eq!(frame[..6], MAC);
                return frame;
            }
        }
    }
}

fn len_of(payload: &[u8], header: usize) -> [u8; 2] {
    u16::try_from(payload.len() + header).unwrap().to_be_bytes()
}

fn checksum(header: &[u8]) -> [u8; 2] {
    let words = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from(sum & 0xffff).unwrap()).to_be_bytes()
}

/// The program on the host of `world`.
pub(super) struct Passt<'w> {
    world: &'w World,
    binary: PathBuf,
}

impl<'w> Passt<'w> {
    pub(super) fn new(world: &'w World) -> Self {
        let pasta = world.reachable_pasta();
        let binary = pasta.with_file_name("passt");
        std::os::unix::fs::symlink(pasta, &binary).unwrap();
        Self { world, binary }
    }

    /// Runs a command line until the process has ended and nobody has its output any more. FOLDER
    /// stands for the test's folder, and FD for `fd`.
    pub(super) fn run(&self, line: &str, fd: Option<&dyn AsFd>) -> Output {
        self.start(line, fd).finish()
    }

    pub(super) fn start(&self, line: &str, fd: Option<&dyn AsFd>) -> Background {
        let folder = self.world.folder().display().to_string();
        let number = fd.map(|fd| fd.as_fd().as_raw_fd().to_string()).unwrap_or_default();
        let line = line.replace("FOLDER", &folder).replace("FD", &number);
        let mut argv = self.world.account().prefix().to_vec();
        let script = format!("exec {} {line}", self.binary.display());
        argv.extend(["env", "--default-signal", "sh", "-c", &script]);
        if let Some(fd) = fd {
            let inherited = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
            nix::fcntl::fcntl(fd.as_fd(), inherited).unwrap();
        }
        self.world.host.spawn(&argv)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.world.folder().join(name)
    }

    /// The process of the PID file.
    pub(super) fn process(&self) -> ProcessFacts {
        let text = std::fs::read_to_string(self.path("pid")).unwrap();
        ProcessFacts(text.trim_end().parse().unwrap())
    }
}

impl Drop for Passt<'_> {
    /// A test that has failed leaves a daemon that waits for machines.
    fn drop(&mut self) {
        for pid in Rootless::processes_of(&self.binary) {
            let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
    }
}

fn octets(address: std::net::IpAddr) -> [u8; 4] {
    match address {
        std::net::IpAddr::V4(v4) => v4.octets(),
        std::net::IpAddr::V6(_) => panic!("{address} is of IPv6"),
    }
}

#[test]
fn libvirt_starts_it_and_the_machine_ends_it() {
    let world = needs!(World::ordinary());
    let passt = Passt::new(&world);
    let output = passt.run(
        "--one-off --socket FOLDER/s --mac-addr 52:54:00:aa:bb:cc --pid FOLDER/pid --mtu 1400 \
         --log-file FOLDER/log --tcp-ports 2001-2002 --udp-ports 4000",
        None,
    );
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let process = passt.process();
    assert!(process.is_alive());
    let mut machine = Machine::connect(&passt.path("s"));
    // The port works before the machine has said anything.
    wait_until(PATIENCE, "the machine is connected", || {
        let log = std::fs::read_to_string(passt.path("log"));
        log.is_ok_and(|log| log.contains("a peer has connected"))
    });
    world.host.enter(|| {
        let socket = UdpSocket::bind((HOST, 0)).unwrap();
        socket.send_to(b"to the machine", (HOST, 4000)).unwrap();
    });
    assert_eq!(machine.datagram(octets(HOST), 4000), b"to the machine");
    let (address, options) = machine.discover();
    assert_eq!(address, octets(HOST));
    for option in [&[53, 1, 2][..], &[1, 4, 255, 255, 255, 0], &[26, 2, 5, 120]] {
        assert!(options.windows(option.len()).any(|part| part == option), "{options:?}");
    }
    // There is one machine at a time.
    let mut second = UnixStream::connect(passt.path("s")).unwrap();
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(second.read(&mut [0]).unwrap(), 0);
    drop(machine);
    wait_until(PATIENCE, "the end with the machine", || !process.is_alive());
}

#[test]
fn connection_reaches_a_machine_that_has_said_nothing() {
    let world = needs!(World::ordinary());
    let passt = Passt::new(&world);
    let output = passt.run("--socket FOLDER/s --pid FOLDER/pid -q -1 -t 2001", None);
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    // The client is there before the machine is.
    let _client = connect(&world.remote, (HOST, 2001).into()).unwrap();
    let mut machine = Machine::connect(&passt.path("s"));
    let syn = machine.packet(octets(HOST), 6, 2001);
    assert_eq!(syn[47], 2, "a SYN alone: {syn:?}");
    drop(machine);
    let process = passt.process();
    wait_until(PATIENCE, "the end with the machine", || !process.is_alive());
}

#[test]
fn callers_hand_over_a_connected_socket() {
    let world = needs!(World::ordinary());
    let passt = Passt::new(&world);
    for (caller, line) in [
        ("QEMU", "--quiet --pid FOLDER/pid --fd FD"),
        ("crun", "-t all -u all --no-dhcp-dns --no-map-gw --fd FD --pid FOLDER/pid --quiet"),
    ] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let output = passt.run(line, Some(&theirs));
        drop(theirs);
        let said = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
        if caller == "QEMU" {
            assert_eq!(said, (Some(0), "", ""));
        }
        assert_eq!(output.status.code(), Some(0), "{caller}: {}", output.stderr);
        let process = passt.process();
        let mut machine = Machine::new(ours);
        assert_eq!(machine.discover().0, octets(HOST), "{caller}");
        drop(machine);
        wait_until(PATIENCE, "the end with the machine", || !process.is_alive());
    }
    // muvm waits for nothing: the machine speaks into the socket at once.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let running =
        passt.start("-q -f --fd FD -t 8080-8080:80-80 -u 53000-53000:53-53", Some(&theirs));
    drop(theirs);
    let mut machine = Machine::new(ours);
    assert_eq!(machine.discover().0, octets(HOST));
    drop(machine);
    let output = running.finish();
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
}

#[test]
fn descriptor_that_carries_no_frames_is_refused_by_the_name_of_its_option() {
    let world = needs!(World::ordinary());
    let passt = Passt::new(&world);
    let null = std::fs::File::open("/dev/null").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listener = UnixListener::bind(passt.path("listener")).unwrap();
    let pair = |kind| socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let (datagrams, packets) = (pair(SockType::Datagram), pair(SockType::SeqPacket));
    let not_open = "the file descriptor is not open";
    let no_unix_socket = "the file descriptor is not a Unix socket";
    for (line, fd, text) in [
        ("--fd -1", None, "-1"),
        ("--fd x", None, "x"),
        ("--fd ''", None, ""),
        ("--fd 99999999999", None, "99999999999"),
        ("--fd 9 9<&-", None, &format!("9: {not_open}")),
        // Numbers that files of our own get.
        ("--fd 3 3<&- 4<&-", None, &format!("3: {not_open}")),
        ("--fd 4 3<&- 4<&-", None, &format!("4: {not_open}")),
        ("--fd 5 --pid FOLDER/pid 5<&-", None, &format!("5: {not_open}")),
        ("--fd FD", Some(&null as &dyn AsFd), &format!("FD: {no_unix_socket}")),
        ("--fd FD", Some(&udp), &format!("FD: {no_unix_socket}")),
        ("--fd FD", Some(&listener), "FD: the Unix socket is not connected"),
        (
            "--fd FD",
            Some(&datagrams.0),
            "FD: the Unix socket is of the type SOCK_DGRAM, not SOCK_STREAM",
        ),
        (
            "--fd FD",
            Some(&packets.0),
            "FD: the Unix socket is of the type SOCK_SEQPACKET, not SOCK_STREAM",
        ),
    ] {
        let number = fd.map(|fd| fd.as_fd().as_raw_fd().to_string()).unwrap_or_default();
        let text = format!("Invalid --fd: {}\n", text.replace("FD", &number));
        for place in ["-q", "-q -f"] {
            let output = passt.run(&format!("{place} {line}"), fd);
            let said = (output.status.code(), output.stderr.as_str());
            assert_eq!(said, (Some(1), text.as_str()), "{place} {line}");
            assert!(!passt.path("pid").exists(), "{place} {line}");
        }
    }
}

#[test]
fn next_machine_is_served_until_a_signal() {
    let world = needs!(World::ordinary());
    let passt = Passt::new(&world);
    let output = passt.run("--socket FOLDER/s --pid FOLDER/pid -q", None);
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let process = passt.process();
    for _ in 0..3 {
        let mut machine = Machine::connect(&passt.path("s"));
        assert_eq!(machine.discover().0, octets(HOST));
    }
    // A socket at which somebody listens stays with them.
    let refused = passt.run("--socket FOLDER/s -q", None);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("Address already in use"), "{}", refused.stderr);
    let mut machine = Machine::connect(&passt.path("s"));
    assert_eq!(machine.discover().0, octets(HOST));
    // A frame that is none ends the connection, and not the program.
    machine.0.write_all(&[0xff; 64]).unwrap();
    while machine.0.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {}
    assert!(process.is_alive());
    assert_eq!(Machine::connect(&passt.path("s")).discover().0, octets(HOST));
    signal(&process, Signal::SIGTERM);
    wait_until(PATIENCE, "the end by a signal", || !process.is_alive());
}

pub(super) fn signal(process: &ProcessFacts, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(process.0.cast_signed());
    nix::sys::signal::kill(pid, signal).unwrap();
}

#[test]
fn socket_without_a_path_is_the_first_that_is_free() {
    let world = needs!(World::ordinary());
    let passt = Passt::new(&world);
    // A `/tmp` of this test's own, in which the test's folder keeps its name.
    let (folder, tmp) = (world.folder().display(), passt.path("tmp"));
    let inner = tmp.join(world.folder().file_name().unwrap());
    world.host.script(&format!(
        "mkdir -m 1777 {tmp}
        mkdir {inner}
        mount --bind {folder} {inner}
        mount --rbind {tmp} /tmp",
        tmp = tmp.display(),
        inner = inner.display(),
    ));
    let socket = |number: u32| tmp.join(format!("passt_{number}.socket"));
    // A machine of another user, a file that is no socket, and what a machine has left.
    let _of_root = UnixListener::bind(socket(1)).unwrap();
    std::fs::set_permissions(socket(1), Permissions::from_mode(0o600)).unwrap();
    std::fs::write(socket(2), "precious").unwrap();
    drop(UnixListener::bind(socket(3)).unwrap());
    std::os::unix::fs::chown(socket(3), Some(1500), Some(1500)).unwrap();
    let start = |number: u32| {
        let output = passt.run("--pid FOLDER/pid", None);
        assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
        let bound = format!("UNIX domain socket bound at /tmp/passt_{number}.socket\n");
        assert!(output.stderr.contains(&bound), "{}", output.stderr);
        assert_eq!(Machine::connect(&socket(number)).discover().0, octets(HOST));
        passt.process()
    };
    let first = start(3);
    let second = start(4);
    signal(&first, Signal::SIGTERM);
    wait_until(PATIENCE, "the end of the first", || !first.is_alive());
    let third = start(3);
    for process in [second, third] {
        signal(&process, Signal::SIGTERM);
        wait_until(PATIENCE, "the end", || !process.is_alive());
    }
    assert_eq!(std::fs::read(socket(2)).unwrap(), b"precious");
}

#[test]
fn file_of_the_socket_is_in_nobodys_way_and_removed_at_every_end() {
    let world = needs!(World::ordinary());
    let passt = Passt::new(&world);
    let socket = passt.path("s");
    for end in [None, Some(Signal::SIGTERM), Some(Signal::SIGKILL)] {
        // As a machine that lost its power leaves it.
        drop(UnixListener::bind(&socket).unwrap());
        std::os::unix::fs::chown(&socket, Some(1500), Some(1500)).unwrap();
        let output = passt.run("--socket FOLDER/s --pid FOLDER/pid -q --one-off", None);
        assert_eq!(output.status.code(), Some(0), "{end:?}: {}", output.stderr);
        let process = passt.process();
        let mut machine = Machine::connect(&socket);
        assert_eq!(machine.discover().0, octets(HOST), "{end:?}");
        match end {
            Some(end) => signal(&process, end),
            None => drop(machine),
        }
        wait_until(PATIENCE, "the end", || !process.is_alive());
        // The process that removes it may be a moment behind one that is killed.
        wait_until(PATIENCE, "the file is gone", || !socket.exists());
    }
    // A start that fails behind it.
    let _taken = world.host.enter(|| UdpSocket::bind((HOST, 4000)).unwrap());
    let output = passt.run("--socket FOLDER/s -q -u 4000", None);
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
    assert!(!socket.exists());
}

#[test]
fn machine_is_told_of_resolvers_that_the_host_gets_later() {
    let world = needs!(World::ordinary());
    world.write_resolv_conf("search old.test\n");
    let passt = Passt::new(&world);
    let output = passt.run("--socket FOLDER/s --pid FOLDER/pid -q", None);
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let mut machine = Machine::connect(&passt.path("s"));
    let mut is_told = |option: &[u8]| {
        let (_, options) = machine.discover();
        options.windows(option.len()).any(|part| part == option)
    };
    assert!(is_told(b"\x03old\x04test\0") && !is_told(&[6, 4]));
    let servers: [(u8, &str); 2] = [(53, "new.test"), (54, "newer.test")];
    for (number, domain) in servers {
        // A network comes up, and its resolvers are written a moment later.
        world.host.script(&format!("ip addr add 192.0.2.{number}/32 dev h0"));
        world.write_resolv_conf(&format!("nameserver 192.0.2.{number}\nsearch {domain}\n"));
        wait_until(PATIENCE, "the resolver is told", || is_told(&[6, 4, 192, 0, 2, number]));
        let (label, _) = domain.split_once('.').unwrap();
        assert!(is_told(label.as_bytes()), "{domain}");
    }
}
