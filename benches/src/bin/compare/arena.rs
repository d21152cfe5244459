//! An arena: fresh namespaces with one stack attached, gone when dropped.
//!
//! Owns the processes: a holder (this binary, which unshares and waits), the stack, and the order
//! in which they end. Workers enter the holder's namespaces by its process id. No process is ever
//! looked up or killed by name.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};

use crate::options::Options;
use crate::policy::Names;
use crate::stack::{self, Stack, StackKind};
use crate::worker::{self, EXEC, EXEC_IN_GUEST, Reply, Side, Worker};

/// The address at which the guest reaches the host's loopback, with every stack.
pub(crate) const GATEWAY: &str = "10.0.2.2";

/// How long a stack may take to configure the guest; arbitrary, all take well under a second.
const START_WITHIN: Duration = Duration::from_secs(10);
/// How often the guest's routes are checked meanwhile.
const POLL_EVERY: Duration = Duration::from_millis(2);

/// One stack attached to one fresh network namespace.
pub(crate) struct Arena {
    // Dropped in this order: the stack first, so that it never sees its namespace vanish.
    stack: Program,
    holder: Worker,
    api_socket: PathBuf,
    /// For a stack under an egress policy.
    _names: Option<Names>,
}

/// A foreign program that this tool started; dropping it ends it.
pub(crate) struct Program(pub(crate) Child);

impl Drop for Program {
    fn drop(&mut self) {
        worker::end(&mut self.0);
    }
}

impl Arena {
    /// Makes the namespaces, starts the stack in them and waits for the guest's default route.
    pub(crate) fn open(options: &Options, stack: &Stack, mtu: u32) -> anyhow::Result<Self> {
        Self::open_as(options, stack, mtu, "none", false)
    }

    /// As [`open`](Self::open), of a stack with pasta's command line that publishes a TCP port.
    pub(crate) fn open_publishing(
        options: &Options,
        stack: &Stack,
        mtu: u32,
        port: u16,
    ) -> anyhow::Result<Self> {
        Self::open_as(options, stack, mtu, &port.to_string(), false)
    }

    /// As [`open`](Self::open), with an API socket, for stacks that have one.
    pub(crate) fn open_with_api(
        options: &Options,
        stack: &Stack,
        mtu: u32,
    ) -> anyhow::Result<Self> {
        Self::open_as(options, stack, mtu, "none", true)
    }

    fn open_as(
        options: &Options,
        stack: &Stack,
        mtu: u32,
        ports: &str,
        has_api: bool,
    ) -> anyhow::Result<Self> {
        let holder = Worker::hold()?;
        let mut args = stack.args(holder.pid(), mtu, ports);
        let api_socket = options.out.join(format!("{}.sock", stack.kind.label()));
        if has_api {
            // A socket that an earlier stack left behind must not be mistaken for this one's.
            remove(&api_socket)?;
            args.insert(0, format!("--api-socket={}", api_socket.display()));
        }
        let further: &[String] = match stack.kind {
            StackKind::Ours | StackKind::Policy => &options.ours_args,
            StackKind::Slirp4netns => &options.slirp4netns_args,
            StackKind::Run | StackKind::Door | StackKind::Pasta => &[],
        };
        args.splice(0..0, further.iter().cloned());
        let names = (stack.kind == StackKind::Policy).then(Names::start).transpose()?;
        if let Some(names) = &names {
            args.splice(0..0, names.args(&options.out)?);
        }
        let log_path = log_path(options, stack.kind);
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot open {}", log_path.display()))?;
        std::io::Write::write_all(
            &mut log,
            format!("{} {}\n", stack.path.display(), args.join(" ")).as_bytes(),
        )?;
        let child = Command::new(std::env::current_exe()?)
            .arg(EXEC)
            .arg(&stack.path)
            .args(&args)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the stack")?;
        let mut arena = Self { stack: Program(child), holder, api_socket, _names: names };
        arena.wait_until_configured().with_context(|| last_words(&log_path))?;
        if stack.kind == StackKind::Policy {
            Names::teach(arena.holder.pid()).context("the guest's names")?;
        }
        Ok(arena)
    }

    fn wait_until_configured(&mut self) -> anyhow::Result<()> {
        let routes = format!("/proc/{}/net/route", self.holder.pid());
        let started_at = Instant::now();
        while started_at.elapsed() < START_WITHIN {
            if let Some(status) = self.stack.0.try_wait()? {
                bail!("the stack ended at once: {status}");
            }
            let text = fs::read_to_string(&routes).context("the namespace holder is gone")?;
            // Columns: interface, destination, gateway; the default route's destination is all
            // zeros.
            if text.lines().any(|line| line.split_whitespace().nth(1) == Some("00000000")) {
                return Ok(());
            }
            std::thread::sleep(POLL_EVERY);
        }
        bail!("no default route in the guest within {} s", START_WITHIN.as_secs())
    }

    /// Path of the API socket of a stack that was opened with one.
    pub(crate) fn api_socket(&self) -> &Path {
        &self.api_socket
    }

    /// Starts a worker on the host.
    pub(crate) fn host(&self, load: &str, args: &[String]) -> anyhow::Result<(Worker, Reply)> {
        Worker::start(Side::Host, load, args)
    }

    /// Starts a worker inside the guest's namespaces.
    pub(crate) fn guest(&self, load: &str, args: &[String]) -> anyhow::Result<(Worker, Reply)> {
        Worker::start(Side::Guest(self.holder.pid()), load, args)
    }

    /// Starts an installed program inside the guest's namespaces, its output into `output`.
    pub(crate) fn guest_program(
        &self,
        program: &str,
        args: &[String],
        output: File,
    ) -> anyhow::Result<Program> {
        let child = Command::new(std::env::current_exe()?)
            .args([EXEC_IN_GUEST, &self.holder.pid().to_string(), program])
            .args(args)
            .stdin(Stdio::null())
            .stdout(output)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Program(child))
    }

    /// Processor seconds the stack has used so far.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        stack::cpu_seconds(self.stack.0.id())
    }

    /// Resident memory of the stack in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<f64> {
        stack::resident_kib(self.stack.0.id())
    }

    /// Proportional memory of the stack in KiB, where readable.
    pub(crate) fn proportional_kib(&self) -> Option<f64> {
        stack::proportional_kib(self.stack.0.id())
    }
}

fn log_path(options: &Options, kind: StackKind) -> PathBuf {
    options.out.join(format!("{}.log", kind.label()))
}

/// Begins the log of a stack anew; each start of the stack adds its command line and its output.
pub(crate) fn clear_log(options: &Options, kind: StackKind) -> anyhow::Result<()> {
    remove(&log_path(options, kind))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The end of a stack's log, for the error message.
fn last_words(path: &PathBuf) -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(path) {
        let len = file.metadata().map_or(0, |metadata| metadata.len());
        // A log that cannot be read leaves the message without its end; the error itself stays.
        let _ = file.seek(SeekFrom::Start(len.saturating_sub(1000)));
        let _ = file.read_to_string(&mut text);
    }
    format!("the stack said: {}", text.trim().replace('\n', " | "))
}

/// The holder: unshares, reports ready, waits until the tool is gone.
pub(crate) fn hold() -> anyhow::Result<()> {
    match isolate() {
        Ok(()) => worker::serve(&Reply::default(), |_| Ok(Reply::default())),
        Err(error) => {
            worker::report_failure(&error);
            Err(error)
        }
    }
}

fn isolate() -> anyhow::Result<()> {
    worker::die_with_parent()?;
    let (user, group) = (geteuid(), getegid());
    let with_user = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    match unshare(with_user) {
        Ok(()) => {
            fs::write("/proc/self/setgroups", "deny").context("setgroups")?;
            fs::write("/proc/self/uid_map", format!("0 {user} 1")).context("uid_map")?;
            fs::write("/proc/self/gid_map", format!("0 {group} 1")).context("gid_map")?;
            // Changing credentials cleared the request.
            worker::die_with_parent()
        }
        // Where user namespaces are switched off, root still has network namespaces.
        Err(Errno::EPERM | Errno::ENOSPC) if user.is_root() => {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")
        }
        Err(error) => Err(error).context("unshare(CLONE_NEWUSER): are user namespaces allowed?"),
    }
}

/// Hidden subcommand: become another program inside the guest's namespaces.
pub(crate) fn exec_in_guest(mut args: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let holder = args.next().context("no holder")?;
    enter(holder.parse().context("odd holder")?)?;
    worker::exec(args)
}

/// Moves this single-threaded process into the namespaces of `holder`.
pub(crate) fn enter(holder: u32) -> anyhow::Result<()> {
    let user = File::open(format!("/proc/{holder}/ns/user")).context("user namespace")?;
    let net = File::open(format!("/proc/{holder}/ns/net")).context("network namespace")?;
    match setns(user, CloneFlags::CLONE_NEWUSER) {
        // EINVAL: already in that user namespace (the holder of plain root).
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(error) => return Err(error).context("setns(CLONE_NEWUSER)"),
    }
    setns(net, CloneFlags::CLONE_NEWNET).context("setns(CLONE_NEWNET)")
}
