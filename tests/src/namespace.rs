//! One namespace of a test's world: a holder process, programs run in it, and closures run in it.
//!
//! The holder is `cat` on a pipe of ours, so it ends with the test even when the test is killed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::CloneFlags;

use crate::process::ProcessFacts;
use crate::wait::{PATIENCE, wait_until};

/// How long one program of a test may run.
const EXEC_LIMIT: Duration = PATIENCE;

/// The user that owns the guest and runs the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// The superuser of the machine.
    Root,
    /// User and group 1500, no further groups, no capabilities.
    Ordinary,
}

impl Account {
    /// Command prefix which becomes this account.
    pub fn prefix(self) -> &'static [&'static str] {
        match self {
            Self::Root => &[],
            Self::Ordinary => &[
                "setpriv",
                "--reuid=1500",
                "--regid=1500",
                "--clear-groups",
                "--inh-caps=-all",
                "--",
            ],
        }
    }
}

/// A network and mount namespace, with or without its own user namespace.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
    stdin: Option<ChildStdin>,
    network: File,
    has_user_namespace: bool,
}

impl Namespace {
    /// A network and mount namespace of the test's own user.
    pub fn plain() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--"]);
        Self::hold(command, false)
    }

    /// A user, network and mount namespace made by `account` inside `outer`, as a container runtime
    /// makes it: `unshare --user --map-root-user --net --mount`.
    pub fn container(outer: &Self, account: Account) -> Self {
        let mut command = outer.command(account.prefix());
        command.args(["unshare", "--user", "--map-root-user", "--net", "--mount", "--"]);
        Self::hold(command, true)
    }

    fn hold(mut command: Command, has_user_namespace: bool) -> Self {
        let mut holder = command
            .args(["sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let stdin = holder.stdin.take();
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the holder's pipe is readable");
        assert_eq!(line, "ready\n", "unshare made no namespace");
        let network = File::open(format!("/proc/{}/ns/net", holder.id()))
            .expect("the holder's namespace opens");
        Self { holder, stdin, network, has_user_namespace }
    }

    /// Process id of the holder: the PID that slirp4netns is given.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Ends the holder with SIGKILL, as a dying container would.
    pub fn kill_holder(&mut self) {
        self.holder.kill().expect("the holder is ours");
        self.holder.wait().expect("the holder is ours");
    }

    /// A command that runs `argv` in this namespace, in a process with the id of the spawned child.
    pub fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.pid().to_string()).args(["--net", "--mount"]);
        if self.has_user_namespace {
            command.arg("--user");
        }
        command.arg("--").args(argv);
        command
    }

    /// A command that runs `argv` with this namespace's network and everything else of the test's
    /// own.
    pub(crate) fn network_command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.pid().to_string()).args(["--net", "--"]).args(argv);
        command
    }

    /// Runs a program to its end.
    ///
    /// # Panics
    /// When it takes longer than [`PATIENCE`].
    pub fn exec(&self, argv: &[&str]) -> Output {
        let mut command = self.command(argv);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter runs");
        Background::new(child, argv.join(" ")).finish()
    }

    /// The number that the next interface gets; to ask takes one. A device that was made and is
    /// gone again has taken one as well.
    ///
    /// # Panics
    /// When no interface can be made.
    pub fn next_interface(&self) -> u32 {
        let shown =
            self.script("ip link add probe type bridge; ip -o link show probe; ip link del probe");
        let number = shown.split(':').next().and_then(|number| number.trim().parse().ok());
        number.expect("a number stands in front")
    }

    /// Runs a shell script that must succeed.
    ///
    /// # Panics
    /// When it fails or takes longer than [`PATIENCE`].
    pub fn script(&self, script: &str) -> String {
        let output = self.exec(&["sh", "-euc", script]);
        assert!(output.status.success(), "`{script}` failed: {}", output.stderr);
        output.stdout
    }

    /// Waits until no socket of this namespace has `port`, after the test has closed its own.
    ///
    /// A close takes effect late where a program that another test starts at that moment holds a
    /// copy of the socket until it is executed.
    ///
    /// # Panics
    /// When one is there for longer than [`PATIENCE`].
    pub fn wait_for_free_port(&self, port: u16) {
        let list = format!("ss -Htuan sport = :{port}");
        wait_until(PATIENCE, "the port is free", || self.script(&list).is_empty());
    }

    /// Starts a program that runs until it is dropped or finished.
    pub fn spawn(&self, argv: &[&str]) -> Background {
        let child = self
            .command(argv)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter runs");
        Background::new(child, argv.join(" "))
    }

    /// Runs `work` on a thread of its own inside this network namespace and hands back its result.
    /// Sockets which `work` makes stay in this namespace wherever they go.
    ///
    /// # Panics
    /// With the panic of `work`.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        enter(&self.network, work)
    }
}

/// Runs `work` on a thread of its own inside the network namespace of this descriptor.
pub(crate) fn enter<T: Send>(network: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::setns(network, CloneFlags::CLONE_NEWNET)
                .expect("root may enter its own namespaces");
            work()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It has ended or ends by itself: the pipe is closed.
        let _ = self.holder.wait();
    }
}

/// What a finished program said.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    what: String,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Background {
    pub(crate) fn new(mut child: Child, what: String) -> Self {
        let stdout = child.stdout.take().map(drain);
        let stderr = child.stderr.take().map(drain);
        Self { child, what, stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Closes its standard input and waits for its end.
    ///
    /// # Panics
    /// When it takes longer than [`PATIENCE`].
    pub fn finish(mut self) -> Output {
        drop(self.child.stdin.take());
        let facts = ProcessFacts(self.child.id());
        let what = format!("end of `{}`", self.what);
        wait_until(EXEC_LIMIT, &what, || !facts.is_alive());
        let status = self.child.wait().expect("the child is ours");
        let text = |thread: Option<JoinHandle<String>>| {
            let Some(thread) = thread else { return String::new() };
            // What it started and left running may hold the pipe.
            let what = format!("end of the output of `{}`", self.what);
            wait_until(EXEC_LIMIT, &what, || thread.is_finished());
            thread.join().unwrap_or_default()
        };
        Output { status, stdout: text(self.stdout.take()), stderr: text(self.stderr.take()) }
    }

    /// Ends it with SIGTERM and waits for its end.
    pub fn terminate(self) -> Output {
        crate::slirp::send_signal(self.child.id(), nix::sys::signal::Signal::SIGTERM);
        self.finish()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Both fail only where the child has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A broken pipe ends the text; what came before it is what there is.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
