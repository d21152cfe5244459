//! Workers: this binary re-executed as a process of its own, on the host or inside the guest's
//! namespaces.
//!
//! Owns the line protocol between the tool and its workers: a worker prints `ready NAME=NUMBER
//! ...`, then answers each line it reads with `ok NAME=NUMBER ...` or `error TEXT`, and ends when
//! its input ends. So a worker never outlives the tool, whatever ended the tool. The work itself is
//! in `load`.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

/// Hidden subcommand: hold fresh namespaces open.
pub(crate) const HOLD: &str = "hold-namespace";
/// Hidden subcommand: become another program that dies with this tool.
pub(crate) const EXEC: &str = "exec-stack";
/// Hidden subcommand: become another program inside the guest's namespaces.
pub(crate) const EXEC_IN_GUEST: &str = "exec-in-guest";
/// Hidden subcommand: make traffic.
pub(crate) const WORK: &str = "work";

/// How long a worker may take to become ready or to answer a question without a duration of its
/// own. Arbitrary: far above any real answer, so that a run ends by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Numbers by name, as a worker reports them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply(Vec<(String, u64)>);

impl Reply {
    pub(crate) fn with(mut self, name: &str, value: u64) -> Self {
        self.0.push((name.to_owned(), value));
        self
    }

    pub(crate) fn number(&self, name: &str) -> anyhow::Result<u64> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| *value).with_context(|| format!("worker reported no {name}"))
    }

    /// Every number of that name, in the order reported.
    pub(crate) fn numbers(&self, name: &str) -> Vec<u64> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| *value).collect()
    }

    fn to_line(&self, verb: &str) -> String {
        let mut line = verb.to_owned();
        for (name, value) in &self.0 {
            line.push_str(&format!(" {name}={value}"));
        }
        line.push('\n');
        line
    }

    fn from_line(line: &str) -> anyhow::Result<Self> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        if verb == "error" {
            bail!("{rest}");
        }
        let mut reply = Self::default();
        for field in rest.split_whitespace() {
            let (name, value) = field.split_once('=').context("worker sent a malformed field")?;
            reply = reply.with(name, value.parse().context("worker sent a malformed number")?);
        }
        Ok(reply)
    }
}

/// The side on which a worker runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Host,
    /// Inside the namespaces held by this process.
    Guest(u32),
}

/// A running worker; dropping it ends it.
pub(crate) struct Worker {
    name: String,
    child: Child,
    lines: Receiver<String>,
}

impl Worker {
    /// Starts `load` and waits until it is ready.
    pub(crate) fn start(side: Side, load: &str, args: &[String]) -> anyhow::Result<(Self, Reply)> {
        let place = match side {
            Side::Host => "host".to_owned(),
            Side::Guest(pid) => pid.to_string(),
        };
        let mut words = vec![WORK.to_owned(), place, load.to_owned()];
        words.extend_from_slice(args);
        let where_ = match side {
            Side::Host => "on the host",
            Side::Guest(_) => "in the guest",
        };
        Self::spawn(&format!("{load} {where_}"), &words)
    }

    /// Starts the process that holds fresh namespaces.
    pub(crate) fn hold() -> anyhow::Result<Self> {
        Self::spawn("namespace holder", &[HOLD.to_owned()]).map(|(worker, _)| worker)
    }

    fn spawn(name: &str, args: &[String]) -> anyhow::Result<(Self, Reply)> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let Some(stdout) = stdout else { return };
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let worker = Self { name: name.to_owned(), child, lines };
        let ready = worker.answer(PATIENCE)?;
        Ok((worker, ready))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a question and waits for its answer.
    pub(crate) fn ask(&mut self, question: &str, within: Duration) -> anyhow::Result<Reply> {
        let stdin = self.child.stdin.as_mut().context("worker has no input")?;
        stdin
            .write_all(format!("{question}\n").as_bytes())
            .with_context(|| format!("{} is gone", self.name))?;
        self.answer(within).with_context(|| format!("asked {question}"))
    }

    fn answer(&self, within: Duration) -> anyhow::Result<Reply> {
        match self.lines.recv_timeout(within) {
            Ok(line) => Reply::from_line(&line).with_context(|| self.name.clone()),
            Err(RecvTimeoutError::Timeout) => {
                bail!("{}: no answer within {} s", self.name, within.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("{}: ended without an answer", self.name),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills a child of this tool and reaps it. A failure means that the child is gone already.
pub(crate) fn end(child: &mut Child) {
    drop(child.stdin.take());
    let _ = child.kill();
    let _ = child.wait();
}

/// A worker's side of the protocol: reports ready, then answers until the tool is gone.
pub(crate) fn serve(
    ready: &Reply,
    mut answer: impl FnMut(&str) -> anyhow::Result<Reply>,
) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(ready.to_line("ready").as_bytes())?;
    stdout.flush()?;
    for line in io::stdin().lines() {
        let reply = match answer(&line?) {
            Ok(reply) => reply.to_line("ok"),
            Err(error) => failure_line(&error),
        };
        stdout.write_all(reply.as_bytes())?;
        stdout.flush()?;
    }
    Ok(())
}

/// Tells the tool why this worker ends before it is ready.
pub(crate) fn report_failure(error: &anyhow::Error) {
    // The tool may be gone; then the failure cannot be reported.
    let _ = io::stdout().write_all(failure_line(error).as_bytes());
}

fn failure_line(error: &anyhow::Error) -> String {
    format!("error {}\n", format!("{error:#}").replace('\n', " "))
}

/// Asks the kernel to end this process with the tool that started it.
pub(crate) fn die_with_parent() -> anyhow::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")
}

/// Becomes the program named by the arguments; keeps the process id, so the tool knows its child.
pub(crate) fn exec(mut args: impl Iterator<Item = String>) -> anyhow::Result<()> {
    die_with_parent()?;
    let program = args.next().context("no program")?;
    let error = Command::new(&program).args(args).exec();
    Err(error).with_context(|| format!("cannot execute {program}"))
}
