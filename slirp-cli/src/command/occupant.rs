//! The process inside as the supervisor has it: from the one that it starts to COMMAND.
//!
//! Owns which process becomes COMMAND, and the end of all that belong to it. Without a machine of
//! its own ([`machine`](super::machine)) there is one process for all of that.

use std::io;
use std::process::{Child, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use slirp_core::internals::process::try_wait;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Occupant {
    started: Child,
    /// Process 1 of COMMAND's machine and COMMAND, if it has a machine of its own.
    machine: Option<[Pid; 2]>,
}

impl Occupant {
    pub(super) fn new(started: Child) -> Self {
        Self { started, machine: None }
    }

    /// The process that is or becomes COMMAND.
    pub(super) fn command(&self) -> Pid {
        match self.machine {
            Some([_, command]) => command,
            None => Pid::from_raw(self.started.id().cast_signed()),
        }
    }

    /// These two have taken the place of the process that was started.
    pub(super) fn replace(&mut self, machine: [i32; 2]) {
        let _ = self.started.kill();
        let _ = self.started.wait();
        self.machine = Some(machine.map(Pid::from_raw));
    }

    /// Whether the process of this number is one of them.
    pub(super) fn has(&self, number: u32) -> bool {
        let pid = Pid::from_raw(number.cast_signed());
        self.started.id() == number || self.machine.is_some_and(|machine| machine.contains(&pid))
    }

    /// How COMMAND has ended, if it has. Told once.
    ///
    /// # Errors
    /// The errors of waitpid(2).
    pub(super) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match self.machine {
            Some([_, command]) => try_wait(command.as_raw()),
            None => self.started.try_wait(),
        }
    }

    /// Ends what runs of it and waits until it has ended. Of a machine that is every process.
    pub(super) fn end(&mut self) {
        let _ = self.started.kill();
        let _ = self.started.wait();
        let Some([first, command]) = self.machine else { return };
        let _ = kill(first, Signal::SIGKILL);
        for process in [command, first] {
            // ECHILD: its end is known already.
            let _ = waitid(Id::Pid(process), WaitPidFlag::WEXITED);
        }
    }
}
