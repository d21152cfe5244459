//! Identity of a process whose number was recorded.
//!
//! Owns [`ProcessIdentity`]. A process id alone may be reused. Together with the process's start
//! time, the boot, and the PID namespace it identifies one process for ever.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};
use slirp_core::internals::process::ProcessFd;

/// A recorded process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: i32,
    /// In clock ticks since boot: field 22 of `/proc/PID/stat` (proc_pid_stat(5)).
    start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    #[serde(rename = "bootID")]
    boot_id: String,
    /// Inode of the PID namespace to which the number belongs.
    pid_namespace: u64,
}

impl ProcessIdentity {
    /// The process that has this number now.
    pub(crate) fn of_pid(pid: i32) -> Option<Self> {
        Some(Self {
            pid,
            start_time: start_time(pid)?,
            boot_id: boot_id(),
            pid_namespace: pid_namespace(),
        })
    }

    /// The process, if it still exists; it may have ended without being waited for.
    pub(crate) fn find(&self) -> Option<ProcessFd> {
        if self.boot_id != boot_id() || self.pid_namespace != pid_namespace() {
            return None;
        }
        let process = ProcessFd::open(self.pid).ok()?;
        // Checked after the descriptor was opened, so the number is not reused in between.
        (start_time(self.pid)? == self.start_time).then_some(process)
    }

    /// Whether the process runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.find().is_some_and(|process| is_running(&process))
    }
}

/// Whether a process has not ended yet.
pub(crate) fn is_running(process: &ProcessFd) -> bool {
    matches!(process.wait(core::time::Duration::ZERO), Ok(false))
}

fn start_time(pid: i32) -> Option<u64> {
    field(pid, 22)?.parse().ok()
}

/// The parent of a process.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    field(pid, 4)?.parse().ok().filter(|&parent| parent > 0)
}

/// A field of `/proc/PID/stat`, numbered as in proc_pid_stat(5), from 3 on.
fn field(pid: i32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses, field 2, may contain any characters.
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(number.checked_sub(3)?).map(str::to_owned)
}

fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> ProcessIdentity {
        ProcessIdentity::of_pid(std::process::id().cast_signed()).unwrap()
    }

    #[test]
    fn own_process_is_found_and_survives_being_written_down() {
        assert!(own().is_alive());
        let written = serde_json::to_string(&own()).unwrap();
        assert_eq!(serde_json::from_str::<ProcessIdentity>(&written).unwrap(), own());
    }

    #[test]
    fn other_process_of_the_same_number_is_not_mistaken() {
        let reused = ProcessIdentity { start_time: own().start_time + 1, ..own() };
        assert!(reused.find().is_none(), "the number was given to another process");
        let rebooted = ProcessIdentity { boot_id: "another".to_owned(), ..own() };
        assert!(rebooted.find().is_none(), "the machine was started anew");
        let elsewhere = ProcessIdentity { pid_namespace: 1, ..own() };
        assert!(elsewhere.find().is_none(), "the number counts in another namespace");
    }
}
