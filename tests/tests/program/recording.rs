//! `--pcap`: recordings of the guest's link, as tcpdump reads them.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use slirp_tests::*;

fn path(world: &World) -> PathBuf {
    world.folder().join("guest.pcap")
}

fn option(path: &Path) -> String {
    format!("--pcap={}", path.display())
}

/// The lines of `tcpdump -r`, those that match a filter only.
fn packets(path: &Path, filter: &str) -> Vec<String> {
    let mut command = Command::new("tcpdump");
    command.args(["-n", "-e", "-r"]).arg(path).arg(filter);
    let output = output_within(PATIENCE, &mut command);
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Everything that tcpdump finds wrong with the file.
fn complaints(path: &Path) -> String {
    let mut command = Command::new("tcpdump");
    command.args(["-n", "-r"]).arg(path);
    let output = output_within(PATIENCE, &mut command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said.lines().filter(|line| !line.starts_with("reading from file")).collect()
}

fn ping(world: &World) {
    world.guest.script("ping -c 1 -W 20 10.0.2.2");
}

fn download(world: &World, len: usize) {
    let listener = world.remote.enter(|| TcpListener::bind((FAR, 0))).unwrap();
    let guest = connect(&world.guest, listener.local_addr().unwrap()).unwrap();
    let remote = bounded(listener.accept().unwrap().0);
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| send_exact(&remote, 1, len));
        receive_exact(&guest, 1, len).unwrap();
        sent.join().unwrap().unwrap();
    });
}

#[test]
fn both_directions_are_recorded_and_can_be_followed() {
    for (account, options) in
        [(Account::Root, &[][..]), (Account::Ordinary, &["--enable-sandbox", "--enable-seccomp"])]
    {
        let world = needs!(World::of(account));
        let path = path(&world);
        let slirp = world.slirp().options(&[&option(&path)]).options(options).start();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        ping(&world);
        for direction in ["src 10.0.2.100 and dst 10.0.2.2", "src 10.0.2.2 and dst 10.0.2.100"] {
            let filter = format!("icmp and {direction}");
            wait_until(PATIENCE, direction, || packets(&path, &filter).len() == 1);
        }
        download(&world, 4 << 20);
        slirp.signal(Signal::SIGTERM);
        slirp.wait();
        assert_eq!(complaints(&path), "");
        let to_guest = packets(&path, "tcp and dst 10.0.2.100 and greater 20000");
        assert!(!to_guest.is_empty(), "frames are recorded as large as they cross the device");
        let bytes: usize = packets(&path, "tcp and src 203.0.113.10")
            .iter()
            .filter_map(|line| line.rsplit_once("length ")?.1.trim_end_matches(':').parse().ok())
            .collect::<Vec<usize>>()
            .iter()
            .sum();
        assert!(bytes >= 4 << 20, "{bytes} bytes of the stream are there");
    }
}

#[test]
fn file_that_is_there_is_emptied_and_keeps_its_mode() {
    let world = needs!(World::root());
    let path = path(&world);
    std::fs::write(&path, vec![7; 1 << 20]).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let slirp = world.slirp().options(&[&option(&path)]).start();
    ping(&world);
    slirp.signal(Signal::SIGTERM);
    slirp.wait();
    assert_eq!(complaints(&path), "");
    assert_eq!(packets(&path, "icmp").len(), 2);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn device_without_header_is_recorded_alike() {
    let world = needs!(World::root());
    let (socket, path) = (world.folder().join("bess.sock"), path(&world));
    let mut slirp = world
        .slirp()
        .bare()
        .options(&["--target-type=bess", "--ready-fd=3", &option(&path)])
        .positionals(&[socket.to_str().unwrap()])
        .spawn();
    let peer = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
    let address = socket2::SockAddr::unix(&socket).unwrap();
    wait_until(PATIENCE, "somebody listens", || peer.connect(&address).is_ok());
    assert_eq!(slirp.read_ready_fd(), b"1");
    // Who has 10.0.2.2?
    let question = b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x08\x06\0\x01\x08\0\x06\x04\0\x01\
        \x02\0\0\0\0\x01\x0a\0\x02\x64\0\0\0\0\0\0\x0a\0\x02\x02";
    peer.send(question).unwrap();
    wait_until(PATIENCE, "question and answer", || packets(&path, "arp").len() == 2);
    drop(peer);
    assert_eq!(slirp.wait().code, Some(0));
}

#[test]
fn fifo_is_read_live_and_its_reader_may_leave() {
    let world = needs!(World::root());
    let path = path(&world);
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    // Without waiting for a writer, as a reader that blocks in open(2) would.
    let mut reader =
        File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&path).unwrap();
    let slirp = world.slirp().options(&[&option(&path)]).start();
    let mut recorded = Vec::new();
    ping(&world);
    wait_until(PATIENCE, "both packets", || {
        let mut chunk = [0; 4096];
        if let Ok(len) = reader.read(&mut chunk) {
            recorded.extend_from_slice(&chunk[..len]);
        }
        let copy = world.folder().join("copy.pcap");
        std::fs::write(&copy, &recorded).unwrap();
        recorded.len() >= 24 && packets(&copy, "icmp").len() == 2
    });
    drop(reader);
    wait_until(PATIENCE, "the recording ends", || {
        ping(&world);
        slirp.stderr().contains("the recording ends here")
    });
    download(&world, 1 << 20);
    let said = slirp.stderr();
    assert_eq!(said.matches("the recording ends here").count(), 1, "{said}");
}

#[test]
fn stuck_reader_stops_neither_the_network_nor_the_end() {
    let world = needs!(World::root());
    let path = path(&world);
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    let _reader =
        File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&path).unwrap();
    let slirp =
        world.slirp().options(&[&option(&path), "--enable-sandbox", "--enable-seccomp"]).start();
    download(&world, 32 << 20);
    ping(&world);
    slirp.signal(Signal::SIGTERM);
    let exit = slirp.wait();
    assert_eq!(exit.signal, Some(Signal::SIGTERM as i32), "{exit:?}");
    assert!(exit.stderr.contains("frames are missing in the recording"), "{}", exit.stderr);
}

#[test]
fn full_disk_ends_the_recording_and_not_the_network() {
    let world = needs!(World::root());
    world.host.script("mkdir /mnt/small; mount -t tmpfs -o size=64k tmpfs /mnt/small");
    for file in ["/dev/full", "/mnt/small/guest.pcap"] {
        let slirp = world
            .slirp()
            .options(&[&format!("--pcap={file}"), "--enable-sandbox", "--enable-seccomp"])
            .start();
        download(&world, 4 << 20);
        wait_until(PATIENCE, "the recording ends", || slirp.stderr().contains("No space left"));
        download(&world, 1 << 20);
        let said = slirp.stderr();
        assert_eq!(said.matches("the recording ends here").count(), 1, "{said}");
    }
}

#[test]
fn largest_file_size_ends_the_recording_and_not_the_process() {
    let world = needs!(World::root());
    let path = path(&world);
    let slirp =
        world.slirp().options(&[&option(&path)]).behind(&["prlimit", "--fsize=65536"]).start();
    download(&world, 1 << 20);
    wait_until(PATIENCE, "the recording ends", || slirp.stderr().contains("File too large"));
    ping(&world);
    assert!(slirp.facts().is_alive());
}

#[test]
fn file_that_cannot_be_opened_is_named() {
    let world = needs!(World::root());
    let fifo = path(&world);
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let fifo = fifo.to_str().unwrap();
    for (file, reason) in [
        ("/nonexistent/x", "No such file or directory"),
        ("/tmp", "Is a directory"),
        (fifo, "nobody reads from this FIFO; start the reader first"),
    ] {
        let exit = world.slirp().options(&[&format!("--pcap={file}")]).run();
        assert_eq!(exit.code, Some(1), "{exit:?}");
        let line = format!("cannot record in {file}: {reason}\n");
        assert!(exit.stderr.starts_with(&line), "{}", exit.stderr);
    }
}
