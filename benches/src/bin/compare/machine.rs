//! The machine of a run, and the one limit that must be raised for it.
//!
//! Owns the facts printed above every table, so that a number never travels without them.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::stack::Stack;

/// Lets this process and its children open as many descriptors as the hard limit allows: 10,000
/// idle flows need one each in the client, the server and the stack.
pub(crate) fn raise_file_limit() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit(NOFILE)")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("setrlimit(NOFILE)")
}

/// Descriptors a process of this run may hold.
pub(crate) fn file_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

/// Date, kernel, processor, limits and versions, one fact a line.
pub(crate) fn facts(stacks: &[Stack]) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut text = String::new();
    let mut fact = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<12} {value}");
    };
    fact("date", &output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]));
    fact("kernel", &output("uname", &["-srm"]));
    fact("processor", &format!("{model}, {cores} cores"));
    fact("memory", &memory_total());
    fact("user", if nix::unistd::geteuid().is_root() { "root" } else { "ordinary user" });
    fact("open files", &file_limit().to_string());
    // The congestion control of the guest's and the host's kernels.
    fact("TCP", &congestion_control());
    for stack in stacks {
        fact(stack.kind.label(), &format!("{} ({})", stack.version, stack.path.display()));
    }
    text
}

fn congestion_control() -> String {
    let read = |name| fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap_or_default();
    let (control, queue) = (read("ipv4/tcp_congestion_control"), read("core/default_qdisc"));
    format!("{}, queueing discipline {}", control.trim(), queue.trim())
}

fn memory_total() -> String {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .map_or_else(|| "unknown".to_owned(), |rest| rest.trim().to_owned())
}

fn output(program: &str, args: &[&str]) -> String {
    match Command::new(program).args(args).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}
