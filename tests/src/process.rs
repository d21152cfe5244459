//! Facts about a running process, read from `/proc`.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::slirp::send_signal;

/// Kernel ticks per second in `/proc/PID/stat`: USER_HZ is 100 on every architecture that Linux
/// runs Rust on.
const TICKS_PER_SECOND: u64 = 100;

/// Runs `command` to its end, with nothing on its standard input.
///
/// # Panics
/// When it takes longer than `limit`; it is ended then.
pub fn output_within(limit: Duration, command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program starts");
    let pid = child.id();
    let (sender, ended) = std::sync::mpsc::channel();
    // The receiver may have given up.
    let waiting = std::thread::spawn(move || drop(sender.send(child.wait_with_output())));
    let output = ended.recv_timeout(limit);
    if output.is_err() {
        send_signal(pid, Signal::SIGKILL);
    }
    waiting.join().expect("waiting does not panic");
    let output = output.unwrap_or_else(|_| panic!("{command:?} ran longer than {limit:?}"));
    output.expect("the child is ours")
}

/// A process known by its id. All questions answer 0 once the process is gone.
#[derive(Clone, Copy, Debug)]
pub struct ProcessFacts(pub u32);

impl ProcessFacts {
    /// User plus system time of all its threads so far.
    pub fn cpu_time(self) -> Duration {
        let stat = self.read("stat");
        // The name in parentheses may hold spaces; utime and stime are the 12th and 13th fields
        // after it.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// Resident memory in KiB.
    pub fn resident_kib(self) -> u64 {
        self.read("status")
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|value| value.split_whitespace().next())
            .and_then(|value| value.parse().ok())
            .unwrap_or(0)
    }

    /// Number of open file descriptors.
    pub fn open_files(self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0)).map_or(0, Iterator::count)
    }

    /// Whether the process runs: not gone and not a zombie.
    pub fn is_alive(self) -> bool {
        let stat = self.read("stat");
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    /// Processor time spent during the next `span`, which this call waits for.
    pub fn cpu_time_during(self, span: Duration) -> Duration {
        let before = self.cpu_time();
        std::thread::sleep(span);
        self.cpu_time().saturating_sub(before)
    }

    fn read(self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap_or_default()
    }
}
