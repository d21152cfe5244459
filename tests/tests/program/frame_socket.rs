//! A guest behind a Unix socket instead of a TAP device, as User Mode Linux and QEMU connect one.
//!
//! There are two kinds of peer: a bridge to a TAP of the guest, over which real programs talk, and
//! this test itself, which speaks frame by frame and acts like a broken or hostile peer.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use slirp_core::link::{OffloadCeiling, Tap};
use slirp_core::netns::{Configuration, NamespaceTarget, TapRequest, open_tap_up_to};
use slirp_core::plan::SlirpNetwork;
use slirp_tests::*;
use socket2::{Domain, SockAddr, Socket, Type};

/// How frames are told apart.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    /// Each is a packet.
    Bess,
    /// Each follows its length.
    Stream,
}

impl Kind {
    const BOTH: [Self; 2] = [Self::Bess, Self::Stream];

    fn option(self) -> &'static str {
        match self {
            Self::Bess => "--target-type=bess",
            Self::Stream => "--target-type=stream",
        }
    }
}

/// A peer's end.
struct Peer {
    socket: Socket,
    kind: Kind,
}

impl Peer {
    fn send(&self, frame: &[u8]) -> std::io::Result<()> {
        match self.kind {
            Kind::Bess => self.socket.send(frame).map(|_| ()),
            Kind::Stream => {
                let len = u32::try_from(frame.len()).unwrap();
                (&self.socket).write_all(&[&len.to_be_bytes(), frame].concat())
            }
        }
    }

    fn receive(&self, frame: &mut [u8]) -> std::io::Result<usize> {
        match self.kind {
            Kind::Bess => (&self.socket).read(frame),
            Kind::Stream => {
                let mut prefix = [0; 4];
                (&self.socket).read_exact(&mut prefix)?;
                let len = usize::try_from(u32::from_be_bytes(prefix)).unwrap();
                assert!(len >= 60, "a frame of {len} bytes");
                (&self.socket).read_exact(&mut frame[..len])?;
                Ok(len)
            }
        }
    }
}

/// The virtual gateway's Ethernet address and ours.
const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn path(world: &World) -> PathBuf {
    world.folder().join("frames.sock")
}

/// The binary, waiting for its peer.
fn spawn(world: &World, kind: Kind, options: &[&str]) -> Slirp {
    let path = path(world);
    let slirp = world
        .slirp()
        .bare()
        .options(&[kind.option(), "--ready-fd=3"])
        .options(options)
        .positionals(&[path.to_str().unwrap()])
        .spawn();
    wait_until(PATIENCE, "the socket is there", || path.exists());
    slirp
}

fn connect_peer(world: &World, kind: Kind) -> Peer {
    let type_of = match kind {
        Kind::Bess => Type::SEQPACKET,
        Kind::Stream => Type::STREAM,
    };
    let socket = Socket::new(Domain::UNIX, type_of, None).unwrap();
    let address = SockAddr::unix(path(world)).unwrap();
    // The file appears a moment before the socket listens.
    wait_until(PATIENCE, "somebody listens", || socket.connect(&address).is_ok());
    socket.set_read_timeout(Some(IO_LIMIT)).unwrap();
    socket.set_write_timeout(Some(IO_LIMIT)).unwrap();
    Peer { socket, kind }
}

fn start(world: &World, kind: Kind, options: &[&str]) -> (Slirp, Peer) {
    let mut slirp = spawn(world, kind, options);
    let peer = connect_peer(world, kind);
    assert_eq!(slirp.read_ready_fd(), b"1", "{}", slirp.stderr());
    (slirp, peer)
}

fn receive(peer: &Peer) -> Vec<u8> {
    let mut frame = vec![0; 1 << 17];
    let len = peer.receive(&mut frame).expect("a frame in time");
    frame.truncate(len);
    frame
}

/// Sends and receives until a frame comes that `is_wanted`.
fn ask(peer: &Peer, question: &[u8], is_wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    peer.send(question).unwrap();
    loop {
        let frame = receive(peer);
        assert!(frame.len() <= 1514, "a frame of {} bytes exceeds the MTU", frame.len());
        if is_wanted(&frame) {
            return frame;
        }
    }
}

/// Who has 10.0.2.2? Tell 10.0.2.100.
fn arp_request() -> Vec<u8> {
    let mut frame = [0xff; 6].to_vec();
    frame.extend(OUR_MAC);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(OUR_MAC);
    frame.extend([10, 0, 2, 100]);
    frame.extend([0; 6]);
    frame.extend([10, 0, 2, 2]);
    frame
}

fn assert_answers(peer: &Peer) {
    let reply = ask(peer, &arp_request(), |frame| frame[12..14] == [8, 6] && frame[21] == 2);
    assert_eq!(reply[22..28], GATEWAY_MAC);
}

/// An echo request to the gateway with `len` bytes of payload.
fn echo_request(sequence: u16, len: usize) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0, 7];
    icmp.extend(sequence.to_be_bytes());
    icmp.resize(8 + len, 0xa5);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    let total = u16::try_from(20 + icmp.len()).unwrap();
    let mut ip = vec![0x45, 0];
    ip.extend(total.to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 1, 0, 0, 10, 0, 2, 100, 10, 0, 2, 2]);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    [&GATEWAY_MAC[..], &OUR_MAC, &[8, 0], &ip, &icmp].concat()
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

/// Copies frames between a TAP in the guest and the peer's end of the socket while `work` runs.
fn bridged<T>(world: &World, peer: Peer, work: impl FnOnce() -> T) -> T {
    bridged_with_breaks(world, peer, |_| work())
}

/// The same, but `work` can have the bridge leave the socket alone for a while.
fn bridged_with_breaks<T>(world: &World, peer: Peer, work: impl FnOnce(&AtomicBool) -> T) -> T {
    let plan = SlirpNetwork::default();
    let tap = world.host.enter(|| {
        let target = NamespaceTarget::of_pid(world.guest.pid().try_into().unwrap()).unwrap();
        let configure = Some(Configuration::for_plan(&plan, 1500));
        let request = TapRequest { name: "tap0".to_owned(), configure };
        open_tap_up_to(&target, &request, OffloadCeiling::Nothing).unwrap()
    });
    let (is_over, is_paused) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let copying = scope.spawn(|| copy(&tap, &peer, &is_over, &is_paused));
        let work = std::panic::AssertUnwindSafe(|| work(&is_paused));
        let result = std::panic::catch_unwind(work);
        is_over.store(true, Ordering::Relaxed);
        copying.join().unwrap();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn copy(tap: &Tap, peer: &Peer, is_over: &AtomicBool, is_paused: &AtomicBool) {
    let mut frame = vec![0; 1 << 16];
    while !is_over.load(Ordering::Relaxed) {
        if is_paused.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let mut polled = [
            PollFd::new(tap.as_fd(), PollFlags::POLLIN),
            PollFd::new(peer.socket.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut polled, PollTimeout::from(50_u8)).unwrap();
        if polled[0].any() == Some(true) {
            let len = tap.read(&mut frame).unwrap();
            peer.send(&frame[..len]).unwrap();
        }
        if polled[1].any() == Some(true) {
            let len = peer.receive(&mut frame).unwrap();
            assert!((1..=1514).contains(&len), "a frame of {len} bytes");
            tap.write(&frame[..len]).unwrap();
        }
    }
}

fn serve_page(world: &World, address: &str) -> Background {
    let folder = world.folder().to_str().unwrap();
    std::fs::write(world.folder().join("page"), "a page\n".repeat(100_000)).unwrap();
    world.remote.spawn(&[
        "python3",
        "-m",
        "http.server",
        "8000",
        "--bind",
        address,
        "--directory",
        folder,
    ])
}

#[test]
fn real_programs_of_a_guest_behind_it_are_on_the_network() {
    for (account, kind) in [
        (Account::Root, Kind::Bess),
        (Account::Ordinary, Kind::Bess),
        (Account::Ordinary, Kind::Stream),
    ] {
        let world = needs!(World::of(account));
        let (slirp, peer) = start(&world, kind, &["-6", "--enable-sandbox", "--enable-seccomp"]);
        let _v4 = serve_page(&world, "203.0.113.10");
        let _v6 = serve_page(&world, "2001:db8:2::10");
        bridged(&world, peer, || {
            wait_until(PATIENCE, "an IPv6 route", || {
                world.guest.script("ip -6 route show default").contains("via fe80::2")
            });
            for address in ["203.0.113.10", "[2001:db8:2::10]"] {
                let url = format!("http://{address}:8000/page");
                let fetch =
                    format!("curl -sS --retry 20 --retry-connrefused --retry-delay 1 {url}");
                assert_eq!(world.guest.script(&fetch).len(), 700_000, "{address}");
            }
            world.guest.script("ping -c 1 -W 20 10.0.2.2");
        });
        let exit = slirp.wait();
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    }
}

#[test]
fn transfers_are_exact_though_the_socket_fills_up() {
    for kind in Kind::BOTH {
        let world = needs!(World::root());
        let (_slirp, peer) = start(&world, kind, &[]);
        let listener = world.remote.enter(|| TcpListener::bind((FAR, 0))).unwrap();
        bridged(&world, peer, || {
            let guest = connect(&world.guest, listener.local_addr().unwrap()).unwrap();
            let remote = bounded(listener.accept().unwrap().0);
            std::thread::scope(|scope| {
                let up = scope.spawn(|| send_exact(&guest, 1, 8 << 20));
                let down = scope.spawn(|| send_exact(&remote, 2, 32 << 20));
                let received = scope.spawn(|| receive_exact(&remote, 1, 8 << 20));
                receive_exact(&guest, 2, 32 << 20).unwrap();
                received.join().unwrap().unwrap();
                up.join().unwrap().unwrap();
                down.join().unwrap().unwrap();
            });
        });
    }
}

/// What User Mode Linux runs instead of an init, on the root of the host.
const UML_INIT: &str = "#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
ip link set lo up
ip link set vec0 up
ip addr add 10.0.2.100/24 dev vec0
ip route add default via 10.0.2.2
ping -c 1 -W 20 10.0.2.2 | grep 'bytes from'
curl -sS -m 40 --retry 40 --retry-connrefused --retry-delay 1 http://203.0.113.10:8000/page | wc -c
echo o > /proc/sysrq-trigger
read forever
";

/// The least that it could run: no network, one word on the console.
const UML_WORD: &str = "#!/bin/sh
echo a program runs
mount -t proc proc /proc
echo o > /proc/sysrq-trigger
read forever
";

/// What the console of User Mode Linux shows while it runs `init`, from its start to its end.
fn user_mode_linux(world: &World, init: &str, device: &str) -> String {
    use std::os::unix::fs::PermissionsExt;

    let file = world.folder().join("init");
    std::fs::write(&file, init).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let folder = world.folder().display();
    let script = format!(
        "export HOME={folder} TMPDIR={folder}
        exec timeout --signal=KILL 50 linux.uml mem=192M rootfstype=hostfs rw init={folder}/init \\
            con=null con0=fd:0,fd:1 {device} 2>&1"
    );
    // How it ends says little: what it has shown is looked at.
    world.host.exec(&["sh", "-euc", &script]).stdout
}

/// Why a machine where User Mode Linux showed `console` cannot run its programs.
///
/// None, where the program said its word, and where the kernel did not come as far as its first
/// program: then a privilege or a file is missing, which is a fault of the setup.
fn lacks_programs(console: &str) -> Option<Missing> {
    let is_said = console.lines().any(|line| line.trim() == "a program runs");
    let is_begun = console.contains(" as init process") && !console.contains("Failed to execute");
    (!is_said && is_begun).then(|| {
        let from = console.find(" as init process").unwrap_or(0);
        let end: Vec<_> = console[from..].lines().skip(1).take(3).map(str::trim).collect();
        Missing(format!(
            "User Mode Linux cannot run a program on this machine, as on processors whose register \
             set is larger than its own (AMX): {}",
            end.join(" / ")
        ))
    })
}

#[test]
fn only_a_silent_program_counts_as_missing() {
    const BOOT: &str = "Linux version 6.1\nVFS: Mounted root (hostfs filesystem)\n";
    const RUN: &str = "Run /tmp/x/init as init process\n";
    for (console, is_lacking) in [
        (String::new(), false),
        ("check_ptrace : ptrace failed\n".to_owned(), false),
        (BOOT.to_owned(), false),
        (format!("{BOOT}{RUN}Failed to execute /tmp/x/init (error -13)\n"), false),
        (format!("{BOOT}{RUN}a program runs\r\nreboot: Power down\n"), false),
        (format!("{BOOT}{RUN}"), true),
        (format!("{BOOT}{RUN}userspace - ptrace set fp regs failed, errno = 14\n"), true),
    ] {
        let missing = lacks_programs(&console);
        assert_eq!(missing.is_some(), is_lacking, "{console}");
        let is_told = |missing: Missing| missing.0.contains("fp regs failed");
        assert_eq!(missing.is_some_and(is_told), console.contains("fp regs failed"));
    }
}

#[test]
fn user_mode_linux_is_on_the_network() {
    needs!(is_installed("linux.uml"));
    let world = needs!(World::root());
    let said = user_mode_linux(&world, UML_WORD, "");
    if let Some(missing) = lacks_programs(&said) {
        return say_skipped(&missing);
    }
    assert!(said.contains("a program runs"), "{said}");
    let slirp = spawn(&world, Kind::Bess, &[]);
    let _server = serve_page(&world, "203.0.113.10");
    let device = format!("vec0:transport=bess,dst={},depth=128,gro=1", path(&world).display());
    let said = user_mode_linux(&world, UML_INIT, &device);
    assert!(said.contains("bytes from 10.0.2.2"), "{said}");
    assert!(said.lines().any(|line| line.trim() == "700000"), "{said}");
    let exit = slirp.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stderr.ends_with(" has hung up\n"), "{}", exit.stderr);
}

#[test]
fn many_transfers_share_a_socket_that_fills_up() {
    const COUNT: usize = 12;
    for kind in Kind::BOTH {
        let world = needs!(World::root());
        let (_slirp, peer) = start(&world, kind, &[]);
        let listener = world.remote.enter(|| TcpListener::bind((FAR, 0))).unwrap();
        bridged(&world, peer, || {
            std::thread::scope(|scope| {
                for _ in 0..COUNT {
                    let guest = connect(&world.guest, listener.local_addr().unwrap()).unwrap();
                    let remote = bounded(listener.accept().unwrap().0);
                    scope.spawn(move || send_exact(&remote, 3, 2 << 20).unwrap());
                    scope.spawn(move || receive_exact(&guest, 3, 2 << 20).unwrap());
                }
            });
        });
    }
}

#[test]
fn start_says_what_slirp4netns_says() {
    let world = needs!(World::root());
    let api = world.folder().join("api.sock");
    let mut slirp = spawn(&world, Kind::Bess, &["--api-socket", api.to_str().unwrap()]);
    let socket = path(&world);
    wait_until(PATIENCE, "it says that it waits", || !slirp.stderr().is_empty());
    assert_eq!(slirp.stderr(), format!("Waiting for connection to {}\n", socket.display()));
    // In front of it stands another warning where system calls are filtered.
    assert!(slirp.stdout().ends_with("WARNING: BESS mode is experimental\n"), "{}", slirp.stdout());
    assert!(!api.exists());
    let peer = connect_peer(&world, Kind::Bess);
    assert_eq!(slirp.read_ready_fd(), b"1");
    assert!(api.exists());
    assert!(!socket.exists(), "there is no second peer to wait for");
    assert!(slirp.stdout().contains("\n* MTU:             1500\n"), "{}", slirp.stdout());
    assert!(!slirp.stdout().contains("MAC address"), "{}", slirp.stdout());
    assert_answers(&peer);
    drop(peer);
    let exit = slirp.wait();
    let lines: Vec<_> = exit.stderr.lines().collect();
    assert!(lines[1].starts_with("sent \"tapfd\"="), "{}", exit.stderr);
    assert!(lines[1].ends_with(&format!(" (not really TAP) for {}", socket.display())));
    assert!(lines[2].starts_with("received tapfd="), "{}", exit.stderr);
    assert_eq!(lines[3..], [format!("the peer of {} has hung up", socket.display())]);
    assert_eq!(exit.code, Some(0));
}

#[test]
fn published_ports_are_kept_from_others_while_the_peer_is_awaited() {
    let world = needs!(World::root());
    let mut slirp = spawn(&world, Kind::Bess, &["--publish=8080:80", "--publish=udp:8080:80"]);
    let any = (Ipv4Addr::UNSPECIFIED, 8080);
    let is_kept = || {
        let tcp = world.host.enter(|| TcpListener::bind(any)).unwrap_err();
        let udp = world.host.enter(|| UdpSocket::bind(any)).unwrap_err();
        assert_eq!((tcp.kind(), udp.kind()), (ErrorKind::AddrInUse, ErrorKind::AddrInUse));
    };
    is_kept();
    let _peer = connect_peer(&world, Kind::Bess);
    assert_eq!(slirp.read_ready_fd(), b"1", "{}", slirp.stderr());
    is_kept();
}

#[test]
fn peer_that_never_reads_what_it_was_sent_hangs_up_just_as_well() {
    for kind in Kind::BOTH {
        let world = needs!(World::root());
        let (slirp, peer) = start(&world, kind, &[]);
        for sequence in 0..2000 {
            peer.send(&echo_request(sequence, 1000)).unwrap();
        }
        drop(peer);
        let exit = slirp.wait();
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        assert!(exit.stderr.ends_with(" has hung up\n"), "{}", exit.stderr);
    }
}

#[test]
fn half_closed_peer_is_a_hang_up() {
    for kind in Kind::BOTH {
        for how in [std::net::Shutdown::Write, std::net::Shutdown::Read] {
            let world = needs!(World::root());
            let (slirp, peer) = start(&world, kind, &[]);
            // What cannot be delivered any more shows it, where the guest still speaks.
            let _ = peer.send(&arp_request());
            peer.socket.shutdown(how).unwrap();
            let _ = peer.send(&arp_request());
            assert_eq!(slirp.wait().code, Some(0), "{kind:?} {how:?}");
        }
    }
}

#[test]
fn empty_short_and_huge_packets_do_no_harm() {
    let world = needs!(World::root());
    let (slirp, peer) = start(&world, Kind::Bess, &[]);
    peer.socket.set_send_buffer_size(1 << 20).unwrap();
    for len in [0, 0, 1, 13, 14, 15, 1514, 1515, 9014, 65_549, 65_623, 65_624, 100_000, 150_000] {
        for first in [0x00, 0xff] {
            peer.send(&vec![first; len]).unwrap();
        }
        assert_answers(&peer);
    }
    // A packet far above the MTU is as good as any other; the answer comes in fragments.
    let reply = ask(&peer, &echo_request(1, 60_000), |frame| frame[23] == 1 && frame[34] == 0);
    assert_eq!(reply[20] & 0x20, 0x20, "more fragments follow");
    // One that lost its end is not.
    let mut cut = echo_request(2, 60_000);
    cut.truncate(30_000);
    peer.send(&cut).unwrap();
    assert_answers(&peer);
    let spent = slirp.facts().cpu_time_during(Duration::from_millis(500));
    assert!(spent < Duration::from_millis(100), "{spent:?}");
}

#[test]
fn stream_is_understood_however_it_is_cut_and_left_where_it_is_none() {
    for len in [0_u32, 13, 65_536, u32::MAX] {
        let world = needs!(World::root());
        let (slirp, peer) = start(&world, Kind::Stream, &[]);
        let request = arp_request();
        let bytes = [&u32::try_from(request.len()).unwrap().to_be_bytes()[..], &request].concat();
        for piece in [1, 3, 5, 40] {
            for part in bytes.chunks(piece) {
                (&peer.socket).write_all(part).unwrap();
            }
            assert_answers(&peer);
        }
        (&peer.socket).write_all(&len.to_be_bytes()).unwrap();
        let exit = slirp.wait();
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        assert!(exit.stderr.contains("a frame that is none"), "{}", exit.stderr);
    }
}

#[test]
fn peer_that_does_not_read_costs_no_processor_time_and_loses_no_order() {
    const COUNT: u16 = 3000;
    for kind in Kind::BOTH {
        let world = needs!(World::root());
        let (slirp, peer) = start(&world, kind, &[]);
        for sequence in 0..COUNT {
            peer.send(&echo_request(sequence, 1400)).unwrap();
        }
        let spent = slirp.facts().cpu_time_during(Duration::from_millis(500));
        assert!(spent < Duration::from_millis(200), "{spent:?}");
        assert!(slirp.facts().is_alive());
        // What did not fit is missing at the end, nothing in between.
        let mut expected = 0;
        peer.socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut frame = [0; 2000];
        while let Ok(len) = peer.receive(&mut frame) {
            assert_eq!(len, 14 + 20 + 8 + 1400);
            assert_eq!(u16::from_be_bytes([frame[40], frame[41]]), expected);
            expected += 1;
        }
        assert!(expected > 100, "{expected} answers");
        assert_answers(&peer);
    }
}

#[test]
fn stalled_peer_stalls_the_sender_and_loses_nothing() {
    for kind in Kind::BOTH {
        let world = needs!(World::root());
        let (slirp, peer) = start(&world, kind, &[]);
        let listener = world.remote.enter(|| TcpListener::bind((FAR, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (stall, stalled) = mpsc::channel();
        bridged_with_breaks(&world, peer, |is_paused| {
            let guest = connect(&world.guest, address).unwrap();
            let remote = bounded(listener.accept().unwrap().0);
            std::thread::scope(|scope| {
                is_paused.store(true, Ordering::Relaxed);
                let down = scope.spawn(|| {
                    let sent = send_exact(&remote, 2, 64 << 20);
                    stall.send(()).unwrap();
                    sent
                });
                let spent = slirp.facts().cpu_time_during(Duration::from_secs(1));
                assert!(spent < Duration::from_millis(200), "{spent:?}");
                assert!(stalled.try_recv().is_err(), "64 MiB are more than all buffers hold");
                is_paused.store(false, Ordering::Relaxed);
                receive_exact(&guest, 2, 64 << 20).unwrap();
                down.join().unwrap().unwrap();
            });
        });
        assert_eq!(slirp.wait().code, Some(0));
    }
}

#[test]
fn signal_ends_the_wait_for_a_peer() {
    let world = needs!(World::root());
    let slirp = spawn(&world, Kind::Bess, &[]);
    slirp.signal(Signal::SIGTERM);
    let exit = slirp.wait();
    assert_eq!(exit.signal, Some(Signal::SIGTERM as i32), "{exit:?}");
    assert!(!path(&world).exists());
}

#[test]
fn closing_the_exit_fd_ends_the_wait_for_a_peer() {
    let world = needs!(World::root());
    let mut slirp = spawn(&world, Kind::Bess, &["--exit-fd=4"]);
    slirp.close_exit_fd();
    assert_eq!(slirp.read_ready_fd(), b"", "it was never ready");
    let exit = slirp.wait();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stderr.ends_with("exitfd event\ndo_slirp is exiting\n"), "{}", exit.stderr);
    assert!(!path(&world).exists());
}

#[test]
fn file_of_a_killed_predecessor_is_replaced() {
    let world = needs!(World::root());
    let slirp = spawn(&world, Kind::Bess, &[]);
    slirp.signal(Signal::SIGKILL);
    slirp.wait();
    assert!(path(&world).exists());
    let (_slirp, peer) = start(&world, Kind::Bess, &[]);
    assert_answers(&peer);
}
