//! The binary under test as a process: how it is started, watched and ended.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::binary::binary_under_test;
use crate::namespace::Account;
use crate::process::ProcessFacts;
use crate::wait::{PATIENCE, wait_until};
use crate::world::World;

/// How long start-up and shutdown may take on a loaded machine.
const LIMIT: Duration = PATIENCE;

/// Gives the binary its ready-fd as 3 and its exit-fd as 4, and files of bounded size for its
/// output.
const LAUNCH: &str = "ulimit -f 65536; out=$1; err=$2; shift 2
    exec 3>&1 4<&0 0</dev/null 1>\"$out\" 2>\"$err\"
    exec \"$@\"";

/// How the binary is to be started.
#[derive(Debug)]
pub struct SlirpBuilder<'w> {
    world: &'w World,
    prefix: Vec<String>,
    options: Vec<String>,
    extra: Vec<String>,
    positionals: Vec<String>,
    account: Account,
}

impl<'w> SlirpBuilder<'w> {
    pub(crate) fn new(world: &'w World) -> Self {
        Self {
            world,
            prefix: Vec::new(),
            options: vec!["--configure".to_owned()],
            extra: extra_options(),
            positionals: vec![world.guest.pid().to_string(), "tap0".to_owned()],
            account: world.account(),
        }
    }

    /// Adds options.
    #[must_use]
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    /// Drops every option given so far, `--configure` too.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.options.clear();
        self
    }

    /// Drops the options of `SLIRP_TEST_OPTIONS`.
    #[must_use]
    pub fn without_extra_options(mut self) -> Self {
        self.extra.clear();
        self
    }

    /// Replaces PID and TAPNAME.
    #[must_use]
    pub fn positionals(mut self, positionals: &[&str]) -> Self {
        self.positionals = positionals.iter().map(|&text| text.to_owned()).collect();
        self
    }

    /// Runs the binary behind another program, such as `prlimit --nofile=64`.
    #[must_use]
    pub fn behind(mut self, prefix: &[&str]) -> Self {
        self.prefix = prefix.iter().map(|&text| text.to_owned()).collect();
        self
    }

    /// Runs the binary as another user than the guest's owner.
    #[must_use]
    pub fn account(mut self, account: Account) -> Self {
        self.account = account;
        self
    }

    /// Starts the binary with `--ready-fd` and waits for the ready byte.
    ///
    /// # Panics
    /// When it is not ready in time; its output is in the message.
    pub fn start(mut self) -> Slirp {
        self.options.push("--ready-fd=3".to_owned());
        let mut slirp = self.spawn();
        let ready = slirp.read_ready_fd();
        assert_eq!(ready, b"1", "not ready; stderr: {}", slirp.stderr());
        slirp
    }

    /// Starts the binary and waits for its end, for arguments that end it.
    ///
    /// # Panics
    /// When it keeps running.
    pub fn run(self) -> Exit {
        self.spawn().wait()
    }

    /// Starts the binary and waits for nothing.
    pub fn spawn(self) -> Slirp {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let out = self.world.folder().join(format!("slirp-{number}.out"));
        let err = self.world.folder().join(format!("slirp-{number}.err"));
        let mut command = self.world.host.command(self.account.prefix());
        // Tests that a shell runs in the background start with SIGINT ignored, which is inherited.
        command
            .args(["env", "--default-signal", "sh", "-c", LAUNCH, "sh"])
            .args([&out, &err])
            .args(&self.prefix);
        let binary: OsString = match self.account {
            Account::Root => binary_under_test().into(),
            Account::Ordinary => self.world.reachable_binary().into(),
        };
        command.arg(binary).args(&self.extra).args(&self.options).args(&self.positionals);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nsenter runs");
        let exit_fd = child.stdin.take();
        Slirp { child: Some(child), exit_fd, out, err }
    }
}

/// Options for every start from `SLIRP_TEST_OPTIONS`: the whole suite under
/// `--enable-sandbox --enable-seccomp`, for one.
fn extra_options() -> Vec<String> {
    let options = std::env::var("SLIRP_TEST_OPTIONS").unwrap_or_default();
    options.split_whitespace().map(str::to_owned).collect()
}

/// Whether every start is sandboxed: root then has no raw sockets, and pings as anybody else does;
/// files of sockets are removed even after a SIGKILL.
pub fn is_sandboxed_anyway() -> bool {
    extra_options().iter().any(|option| option == "--enable-sandbox")
}

/// The running binary. Dropping it ends it.
#[derive(Debug)]
pub struct Slirp {
    child: Option<Child>,
    exit_fd: Option<ChildStdin>,
    out: PathBuf,
    err: PathBuf,
}

impl Slirp {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// What the kernel knows about it.
    pub fn facts(&self) -> ProcessFacts {
        ProcessFacts(self.pid())
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> String {
        std::fs::read(&self.err)
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Its standard output so far.
    pub fn stdout(&self) -> String {
        std::fs::read(&self.out)
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// All that it writes to its ready-fd until it closes it; empty when that does not happen in
    /// time.
    pub fn read_ready_fd(&mut self) -> Vec<u8> {
        let Some(mut pipe) = self.child.as_mut().and_then(|child| child.stdout.take()) else {
            return Vec::new();
        };
        let mut written = Vec::new();
        loop {
            let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            let limit = PollTimeout::try_from(LIMIT).unwrap_or(PollTimeout::MAX);
            if nix::poll::poll(&mut fds, limit).unwrap_or(0) == 0 {
                return written;
            }
            let mut buffer = [0; 16];
            match pipe.read(&mut buffer) {
                Ok(0) | Err(_) => return written,
                Ok(len) => written.extend_from_slice(&buffer[..len]),
            }
        }
    }

    /// Writes to the other end of its exit-fd.
    ///
    /// # Panics
    /// When it is closed.
    pub fn write_exit_fd(&mut self, bytes: &[u8]) {
        let exit_fd = self.exit_fd.as_mut().expect("the exit-fd is open");
        exit_fd.write_all(bytes).expect("the bytes fit the pipe");
    }

    /// Closes the other end of its exit-fd, which is descriptor 4.
    pub fn close_exit_fd(&mut self) {
        drop(self.exit_fd.take());
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it keeps running.
    pub fn wait(mut self) -> Exit {
        let facts = self.facts();
        wait_until(LIMIT, "the end of slirp4netns", || !facts.is_alive());
        let mut child = self.child.take().expect("it is waited for only once");
        let status = child.wait().expect("the child is ours");
        Exit {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Slirp {
    #[expect(clippy::print_stderr, reason = "a failing test speaks through the runner's capture")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.stderr();
            let end = text.char_indices().nth(1500).map_or(text.len(), |(at, _)| at);
            eprintln!("--- stderr of slirp4netns\n{}---", &text[..end]);
        }
        let Some(mut child) = self.child.take() else { return };
        let facts = ProcessFacts(child.id());
        send_signal(child.id(), Signal::SIGTERM);
        let started_at = std::time::Instant::now();
        while facts.is_alive() && started_at.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Fails only where it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// How the binary ended.
#[derive(Debug)]
pub struct Exit {
    /// Exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

pub(crate) fn send_signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("process ids are small");
    assert!(pid > 1, "only processes of the test are signalled");
    // It may have ended meanwhile, but it has not been waited for: the id is still its own.
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
}
