//! How a run of the real program ends, and what its callers see of it.
//!
//! Needs a network namespace and /dev/net/tun; says `SKIPPED` without them, and fails instead when
//! `SLIRP_REQUIRE_NETNS=1` is set. Traffic is not the subject here.
//!
//! Descriptors are handed over as standard streams: stdin is the exit descriptor, stdout the ready
//! descriptor. That needs no privileges, no shell and no unsafe code.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails here fails the test, and says so"
)]

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// A process in a network namespace of its own.
struct Guest(Child);

impl Guest {
    /// `None`, said aloud, where this machine does not let us have one.
    fn start() -> Option<Self> {
        match Self::try_start() {
            Ok(guest) => Some(guest),
            Err(error) => {
                let required = std::env::var_os("SLIRP_REQUIRE_NETNS").is_some_and(|v| v == "1");
                assert!(!required, "no network namespace: {error}");
                println!("SKIPPED: no network namespace: {error}");
                None
            }
        }
    }

    fn try_start() -> io::Result<Self> {
        File::options().read(true).write(true).open("/dev/net/tun")?;
        let mut command = Command::new("unshare");
        if !geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let mut guest = Self(
            command
                .args(["--net", "sh", "-c", "echo ready; read end"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?,
        );
        let mut line = String::new();
        BufReader::new(guest.0.stdout.take().unwrap()).read_line(&mut line)?;
        if line == "ready\n" { Ok(guest) } else { Err(io::Error::other("unshare failed")) }
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The program, ready and running.
struct Run {
    child: Child,
    /// Everything on stdout up to the ready message.
    said: String,
    /// Held open: the program lives until this is dropped.
    exit: Option<OwnedFd>,
    limit: TimeLimit,
}

/// How long one run may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Ends a program that runs for too long, so that a test fails instead of hanging. To be dropped
/// before the program is waited for.
#[expect(dead_code, reason = "dropping it is all that is done to it")]
struct TimeLimit(mpsc::Sender<()>);

impl TimeLimit {
    fn of(child: &Child) -> Self {
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let (sender, over) = mpsc::channel();
        thread::spawn(move || {
            if over.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        Self(sender)
    }
}

impl Run {
    fn start(guest: &Guest, arguments: &[&str]) -> Self {
        let (exit_end, exit) = io::pipe().unwrap();
        Self::start_until(guest, arguments, exit_end.into(), exit.into())
    }

    /// With `exit_end` as its exit descriptor, whose other end is `exit`.
    fn start_until(guest: &Guest, arguments: &[&str], exit_end: OwnedFd, exit: OwnedFd) -> Self {
        // Whoever runs the tests may ignore signals, as nohup(1) does, and that is inherited.
        let mut child = Command::new("env")
            .args(["--default-signal=HUP,INT,TERM", env!("CARGO_BIN_EXE_slirp4netns")])
            .args(["-e", "0", "-r", "1"])
            .args(arguments)
            .args([&guest.pid(), "tap0"])
            .env_remove("SLIRP_LOG")
            .stdin(exit_end)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let limit = TimeLimit::of(&child);
        let mut said = String::new();
        // The end of the stream is the moment of readiness.
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        Self { child, said, exit: Some(exit), limit }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
    }

    /// The status and stderr, once it has ended.
    fn end(mut self) -> (ExitStatus, String) {
        let mut complaints = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
        drop(self.limit);
        (self.child.wait().unwrap(), complaints)
    }
}

#[test]
fn a_closed_exit_descriptor_ends_the_run_with_success() {
    let Some(guest) = Guest::start() else { return };
    let mut run = Run::start(&guest, &["-c"]);
    let said = &run.said;
    assert!(said.starts_with("Starting slirp\n* MTU:             1500\n"), "{said}");
    assert!(said.ends_with('1'), "{said}");
    run.exit = None;
    let (status, complaints) = run.end();
    assert_eq!(status.code(), Some(0), "{complaints}");
    let lines: Vec<_> = complaints.lines().collect();
    assert_eq!(lines.len(), 4, "{complaints}");
    assert!(lines[0].starts_with("sent tapfd=") && lines[0].ends_with(" for tap0"));
    assert!(lines[1].starts_with("received tapfd="));
    assert_eq!(lines[2..], ["exitfd event", "do_slirp is exiting"]);
}

#[test]
fn a_writing_end_whose_reader_has_gone_ends_the_run_with_success() {
    let Some(guest) = Guest::start() else { return };
    let (reader, exit_end) = io::pipe().unwrap();
    let mut run = Run::start_until(&guest, &[], exit_end.into(), reader.into());
    run.exit = None;
    let (status, complaints) = run.end();
    assert_eq!(status.code(), Some(0), "{complaints}");
    assert!(complaints.ends_with("exitfd event\ndo_slirp is exiting\n"), "{complaints}");
}

#[test]
fn an_exit_descriptor_that_was_never_open_ends_the_run_after_ready() {
    let Some(guest) = Guest::start() else { return };
    let run = Run::start(&guest, &["-e", "77"]);
    assert!(run.said.ends_with('1'), "{}", run.said);
    let (status, complaints) = run.end();
    assert_eq!(status.code(), Some(0), "{complaints}");
    assert!(complaints.ends_with("exitfd event\ndo_slirp is exiting\n"), "{complaints}");
}

#[test]
fn a_ready_descriptor_that_is_not_open_is_no_error() {
    let Some(guest) = Guest::start() else { return };
    let mut child = Command::new(env!("CARGO_BIN_EXE_slirp4netns"))
        .args(["-r", "76", "-e", "77", &guest.pid(), "tap0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let limit = TimeLimit::of(&child);
    // The end of the stream is the end of the program.
    io::copy(&mut child.stdout.take().unwrap(), &mut io::sink()).unwrap();
    drop(limit);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_signal_ends_the_run_as_it_would_end_any_program() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let Some(guest) = Guest::start() else { return };
        let run = Run::start(&guest, &[]);
        run.signal(signal);
        let (status, complaints) = run.end();
        assert_eq!(status.signal(), Some(signal as i32), "{complaints}");
        assert_eq!(complaints.lines().count(), 2, "{complaints}");
    }
}

#[test]
fn host_loopback_is_warned_about_unless_it_is_closed() {
    let Some(guest) = Guest::start() else { return };
    for (arguments, warned) in
        [(&[][..], true), (&["--disable-host-loopback"], false), (&["--allow=internet"], false)]
    {
        let run = Run::start(&guest, arguments);
        assert_eq!(run.said.contains("WARNING: 127.0.0.1:* on the host"), warned);
        run.signal(Signal::SIGTERM);
        run.end();
    }
}
