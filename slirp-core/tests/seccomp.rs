//! The filter of system calls, in copies of this test program that apply it to themselves.
//!
//! Needs no privileges. A copy is told by an environment variable what to try.

#![cfg(feature = "host")]
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]
#![expect(clippy::disallowed_methods, reason = "each trial is a process that does one thing")]

use std::fs::OpenOptions;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket, socketpair};
use slirp_core::egress::EgressPolicy;
use slirp_core::instance::{Builder, Established, Revision, Switchboard};

/// Set in a copy: what it tries under the filter.
const TRIAL: &str = "SLIRP_TEST_TRIAL";

/// Runs the copy that tries `trial`.
fn outcome(trial: &str) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "copy_tries_what_it_is_told", "--nocapture", "--test-threads=1"])
        .env(TRIAL, trial)
        .output()
        .unwrap()
        .status
}

/// Nothing by itself: the part of the other tests that runs under the filter.
#[test]
fn copy_tries_what_it_is_told() {
    let Ok(trial) = std::env::var(TRIAL) else { return };
    let builder = Builder::new(Switchboard::new().unwrap()).measure_host();
    slirp_core::sandbox::seccomp::apply(slirp_core::instance::system_calls()).unwrap();
    match trial.as_str() {
        "nothing" => {}
        "instance" => {
            let instance = builder.spawn().unwrap();
            instance.handle().shutdown();
            instance.wait().unwrap();
        }
        "policy" | "late policy" => {
            let policy = EgressPolicy::parse("allow internet", "test").unwrap();
            let is_late = trial == "late policy";
            let builder = if is_late { builder } else { builder.egress(policy.clone()) };
            let instance = builder.spawn().unwrap();
            let set = instance.handle().blocking().set_egress(None, policy, Established::Cut);
            assert_eq!(set.unwrap(), Revision(if is_late { 1 } else { 2 }));
            instance.handle().shutdown();
            instance.wait().unwrap();
        }
        "thread" => {
            std::thread::Builder::new().name("named".into()).spawn(|| ()).unwrap().join().unwrap();
        }
        "read" => drop(std::fs::read("/etc/passwd").unwrap()),
        "sockets" => {
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            drop(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        }
        "stream pair" => {
            let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty());
            drop(pair.unwrap());
        }
        "datagram pair" => {
            drop(socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::empty()));
        }
        "packet pair" => {
            drop(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()));
        }
        "unix stream" => {
            drop(socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None));
        }
        "unix datagram" => {
            drop(socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None));
        }
        "packet" => drop(socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None)),
        "vsock" => drop(socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None)),
        "setns" => {
            let own = std::fs::File::open("/proc/self/ns/net").unwrap();
            let _killed = nix::sched::setns(own, nix::sched::CloneFlags::empty());
        }
        "truncate" => {
            // Opening for reading, but not only.
            let flags = nix::fcntl::OFlag::O_TRUNC;
            drop(nix::fcntl::open("/dev/null", flags, nix::sys::stat::Mode::empty()));
        }
        "create" => {
            let flags = nix::fcntl::OFlag::O_CREAT;
            drop(nix::fcntl::open("/dev/null", flags, nix::sys::stat::Mode::empty()));
        }
        "by descriptor" => {
            let root = std::fs::File::open("/").unwrap();
            let flags = nix::fcntl::OFlag::O_RDONLY;
            drop(nix::fcntl::openat(&root, "etc", flags, nix::sys::stat::Mode::empty()));
        }
        "dumpable" => drop(nix::sys::prctl::set_dumpable(true)),
        "mount" => {
            let none = None::<&str>;
            let _killed = nix::mount::mount(none, "/", none, nix::mount::MsFlags::MS_SLAVE, none);
        }
        "write" => drop(OpenOptions::new().write(true).open("/dev/null")),
        "exec" => drop(Command::new("/bin/true").exec()),
        "fork" => drop(Command::new("/bin/true").status()),
        "thread exec" => {
            let thread = std::thread::spawn(|| drop(Command::new("/bin/true").exec()));
            thread.join().unwrap();
        }
        "netlink" => {
            drop(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::empty(), None));
        }
        "unshare" => drop(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)),
        "kill" => drop(nix::sys::signal::kill(nix::unistd::getppid(), None)),
        "chroot" => drop(nix::unistd::chroot("/")),
        other => panic!("{other} is no trial"),
    }
    // Not through the runner, which does what our process never does.
    std::process::exit(0);
}

#[test]
fn what_the_network_needs_passes() {
    let trials = [
        "nothing",
        "instance",
        "policy",
        "late policy",
        "thread",
        "read",
        "sockets",
        "stream pair",
    ];
    for trial in trials {
        let status = outcome(trial);
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{trial}");
    }
}

#[test]
fn anything_else_kills_the_process() {
    for trial in [
        "write",
        "truncate",
        "create",
        "by descriptor",
        "exec",
        "fork",
        "thread exec",
        "unix stream",
        "unix datagram",
        "datagram pair",
        "packet pair",
        "netlink",
        "packet",
        "vsock",
        "unshare",
        "setns",
        "mount",
        "kill",
        "chroot",
        "dumpable",
    ] {
        let status = outcome(trial);
        assert_eq!(status.signal(), Some(Signal::SIGSYS as i32), "{trial}: {status}");
    }
}
