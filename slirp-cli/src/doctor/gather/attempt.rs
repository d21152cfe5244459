//! What is tried in a process of its own, because it cannot be undone: namespaces, sandbox, filter.
//!
//! Owns the private words of `slirp doctor` that such a process is started with, and both ends of
//! the pipe on which it tells how far it came: one JSON object on a line. It stays until its
//! standard input is closed, so what it made can be used, and ends with the doctor.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};
use slirp_core::instance::system_calls;
use slirp_core::sandbox::{Sandbox, seccomp};

use super::super::facts::Step;
use super::super::pipe::Lines;
use super::errno;

/// What one process tries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Trial {
    Namespaces,
    Sandbox,
    Filter,
}

impl Trial {
    const ALL: [Self; 3] = [Self::Namespaces, Self::Sandbox, Self::Filter];

    const fn word(self) -> &'static str {
        match self {
            Self::Namespaces => "try-namespaces",
            Self::Sandbox => "try-sandbox",
            Self::Filter => "try-filter",
        }
    }

    /// The trial that the private word `word` stands for.
    pub(in super::super) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|trial| trial.word() == word)
    }

    /// The process's side.
    pub(in super::super) fn main(self) -> ExitCode {
        let told = match self {
            Self::Namespaces => match make_namespaces() {
                Ok(()) => json!({}),
                Err((step, errno)) => json!({ "step": step.text(), "errno": errno as i32 }),
            },
            Self::Sandbox => match Sandbox::new().resolv_conf(None).enter() {
                Ok(_) => json!({}),
                Err(error) => json!({ "error": error.to_string(), "hint": error.hint() }),
            },
            Self::Filter => match seccomp::apply(system_calls()) {
                Ok(()) => json!({}),
                Err(error) => json!({ "error": error.to_string() }),
            },
        };
        let line = format!("{told}\n");
        let mut stdout = io::stdout();
        let is_told = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).is_ok();
        // Whatever comes, the pipe is closed then.
        let _ = io::stdin().read(&mut [0]);
        if is_told { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Makes the namespaces that `slirp run` makes, as far as rights go: a user namespace with our own
/// user alone, in it a network and a mount namespace.
fn make_namespaces() -> Result<(), (Step, Errno)> {
    let (user, group) = (geteuid(), getegid());
    let at = |step: Step| move |errno: Errno| (step, errno);
    let write = |path: &str, text: String| fs::write(path, text).map_err(errno);
    unshare(CloneFlags::CLONE_NEWUSER).map_err(at(Step::MakeUser))?;
    // Before the groups can be mapped without privileges (user_namespaces(7)).
    write("/proc/self/setgroups", "deny".to_owned())
        .and_then(|()| write("/proc/self/uid_map", format!("{user} {user} 1")))
        .and_then(|()| write("/proc/self/gid_map", format!("{group} {group} 1")))
        .map_err(at(Step::MapIds))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(at(Step::MakeNetwork))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(at(Step::MakeMounts))
}

/// A process that tries something. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Helper {
    child: Child,
    lines: Lines,
}

impl Helper {
    /// Starts this program anew.
    pub(super) fn start(trial: Trial) -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg0("slirp")
            .args(["doctor", trial.word()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, lines: Lines::new(stdout) })
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What it tells; an error if it ends or takes longer than `patience`.
    pub(super) fn told(&mut self, patience: Duration) -> Result<Value, String> {
        let line = match self.lines.next(patience) {
            Ok(line) => line.unwrap_or_default(),
            Err(error) => return Err(error.to_string()),
        };
        if !line.is_empty() {
            return serde_json::from_str(&line).map_err(|error| error.to_string());
        }
        match self.child.wait() {
            Ok(status) => Err(format!("the process that tries it has ended: {status}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
