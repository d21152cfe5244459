//! The start of a stack with pasta's command line as a daemon: until the program has returned,
//! which says that the network is ready; and what ten thousand published ports add to it.
//!
//! Owns the daemons: each is ended and awaited by the process id in its PID file.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Metric, Sample, Trial};
use crate::options::Options;
use crate::stack::{self, Stack};
use crate::worker::{PATIENCE, Worker};

pub(crate) const ROW: &str = "start of a daemon";
pub(crate) const PORTS_ROW: &str = "start with 10000 ports more";

/// Below the ports that the kernel gives to clients (ip_local_port_range in ip(7)).
const PORTS: &str = "20000-29999";
/// Starts whose median is one sample: a single one varies by half of its time.
const STARTS: usize = 7;
/// How often an ended daemon is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Starts a daemon in each window, with and without ports.
pub(crate) struct Start {
    stack: Stack,
    pid_file: PathBuf,
}

impl Start {
    pub(crate) fn of(options: &Options, stack: &Stack) -> Self {
        let pid_file = options.out.join(format!("{}.pid", stack.kind.label()));
        Self { stack: stack.clone(), pid_file }
    }

    /// Milliseconds and KiB of a daemon that publishes these TCP ports: medians.
    fn start(&self, ports: &str) -> anyhow::Result<(f64, f64)> {
        let mut times = Vec::new();
        let mut memory = Vec::new();
        for _ in 0..STARTS {
            let holder = Worker::hold()?;
            let args = self.stack.daemon_args(holder.pid(), ports, &self.pid_file);
            let mut program = Command::new(&self.stack.path);
            program.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            let started_at = Instant::now();
            let mut child = program.spawn().context("cannot start the stack")?;
            let status = child.wait()?;
            times.push(started_at.elapsed().as_secs_f64() * 1e3);
            if !status.success() {
                let mut said = String::new();
                child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut said)).transpose()?;
                bail!("the stack did not start ({status}): {}", said.trim().replace('\n', " | "));
            }
            let daemon = Daemon::of(&self.pid_file)?;
            memory.push(stack::resident_kib(daemon.pid.as_raw().try_into()?)?);
            daemon.end()?;
        }
        Ok((median(times), median(memory)))
    }
}

impl Trial for Start {
    fn window(&mut self, _: Duration) -> anyhow::Result<Vec<Sample>> {
        let (plain, plain_kib) = self.start("none")?;
        let (more, more_kib) = self.start(PORTS)?;
        Ok(vec![
            Sample::new(ROW, Metric::Ready, plain),
            Sample::new(ROW, Metric::Resident, plain_kib),
            Sample::new(PORTS_ROW, Metric::Ready, more - plain),
            Sample::new(PORTS_ROW, Metric::Resident, more_kib - plain_kib),
        ])
    }
}

/// A process that is no child of this tool.
struct Daemon {
    pid: Pid,
}

impl Daemon {
    fn of(pid_file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(pid_file).context("the stack left no PID file")?;
        Ok(Self { pid: Pid::from_raw(text.trim().parse().context("odd PID file")?) })
    }

    /// Ends it and waits until it is gone: its ports are free for the next one then.
    fn end(&self) -> anyhow::Result<()> {
        kill(self.pid, Signal::SIGTERM).context("the daemon is gone already")?;
        let ended_at = Instant::now();
        while kill(self.pid, None) != Err(Errno::ESRCH) {
            if ended_at.elapsed() > PATIENCE {
                bail!("the daemon does not end");
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
