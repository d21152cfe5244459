//! A stack under measurement: its program, its command line, and the resources that it used.
//!
//! Owns the true command line of each peer (printed in the log of a run) and the parsing of
//! `/proc`. All stacks give the guest one layout: 10.0.2.100/24 behind the gateway 10.0.2.2,
//! which is the host's loopback. `arena` starts and ends processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::measure::MTU_JUMBO;

/// The stack that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StackKind {
    Ours,
    /// Ours under an egress policy.
    Policy,
    /// Ours as `slirp run --net-of` connects it: sandboxed and filtered.
    Run,
    /// Ours called as pasta, with pasta's command line.
    Door,
    Slirp4netns,
    Pasta,
}

impl StackKind {
    /// Whether it takes turns with other stacks in short windows. pasta is measured by itself:
    /// after lost frames its connection may wait for a backed-off timer for longer than a window.
    pub(crate) const fn takes_turns(self) -> bool {
        match self {
            Self::Ours | Self::Policy | Self::Run | Self::Door | Self::Slirp4netns => true,
            Self::Pasta => false,
        }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Policy => "policy",
            Self::Run => "run",
            Self::Door => "door",
            Self::Slirp4netns => "slirp4netns",
            Self::Pasta => "pasta",
        }
    }
}

/// A program that can be run.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    pub(crate) kind: StackKind,
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

impl Stack {
    /// Asks the program for its version; an error if it does not run.
    pub(crate) fn at(kind: StackKind, path: PathBuf) -> anyhow::Result<Self> {
        let output = Command::new(&path)
            .arg("--version")
            .output()
            .with_context(|| format!("cannot run {}", path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut version = text.lines().next().unwrap_or("no version").to_owned();
        if version.contains("unknown version") {
            // Debian builds pasta without its version; the package knows it.
            version = debian_version("passt").unwrap_or(version);
        }
        Ok(Self { kind, path, version })
    }

    /// The arguments that attach this stack to the namespaces of process `holder` with `mtu`. A
    /// stack with pasta's command line publishes TCP `ports` under their own numbers.
    pub(crate) fn args(&self, holder: u32, mtu: u32, ports: &str) -> Vec<String> {
        match self.kind {
            // Descriptor 0 is a pipe held by this tool: when the tool is gone, so is the stack.
            StackKind::Ours | StackKind::Policy | StackKind::Slirp4netns => vec![
                "--configure".into(),
                "--exit-fd=0".into(),
                format!("--mtu={mtu}"),
                holder.to_string(),
                "tap0".into(),
            ],
            // The command ends at the end of its input, which is this tool's.
            StackKind::Run => ["run", "--no-ipv6", "--host-loopback", "--net-of"]
                .map(str::to_owned)
                .into_iter()
                .chain([holder.to_string(), format!("--mtu={mtu}"), "--".into(), "cat".into()])
                .collect(),
            StackKind::Door | StackKind::Pasta => {
                self.pasta_args(holder, mtu, ports, "--foreground")
            }
        }
    }

    /// pasta's command line, with an argument that says how the process lives.
    fn pasta_args(&self, holder: u32, mtu: u32, ports: &str, lifetime: &str) -> Vec<String> {
        // Ours has it as a word of the program.
        let face = (self.kind == StackKind::Door).then_some("pasta");
        let mut args: Vec<String> = face
            .into_iter()
            .chain([lifetime, "--quiet", "--ipv4-only", "--config-net"])
            .map(str::to_owned)
            .collect();
        for (option, value) in [
            ("--ns-ifname", "tap0"),
            ("--address", "10.0.2.100"),
            ("--netmask", "24"),
            ("--gateway", "10.0.2.2"),
            ("--tcp-ports", ports),
            ("--udp-ports", "none"),
            ("--tcp-ns", "none"),
            ("--udp-ns", "none"),
        ] {
            args.extend([option.to_owned(), value.to_owned()]);
        }
        args.extend(["--mtu".into(), mtu.to_string()]);
        if self.kind == StackKind::Pasta {
            // With a given interface and MAC address pasta runs on hosts without a default route.
            args.extend(
                ["--interface", "lo", "--mac-addr", "52:55:0a:00:02:02"].map(str::to_owned),
            );
            if nix::unistd::geteuid().is_root() {
                // As root, pasta would become the user `nobody`, which may not enter this tool's
                // namespaces.
                args.extend(["--runas".into(), "0:0".into()]);
            }
        }
        args.push(holder.to_string());
        args
    }

    /// The arguments with which a stack with pasta's command line becomes a daemon, whose process
    /// id is in `pid_file`.
    pub(crate) fn daemon_args(&self, holder: u32, ports: &str, pid_file: &Path) -> Vec<String> {
        self.pasta_args(holder, MTU_JUMBO, ports, &format!("--pid={}", pid_file.display()))
    }
}

/// The first executable of that name in `PATH`.
pub(crate) fn find_in_path(kind: StackKind) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(kind.label())).find(|file| file.is_file())
}

fn debian_version(package: &str) -> Option<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f=${Package} ${Version}", package])
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Processor seconds (user and system, all threads, living children) that `pid` has used: the first
/// number of `schedstat` in proc(5), in nanoseconds; `stat` counts in hundredths of a second, too
/// coarse for a window.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let mut nanos = 0_u64;
    for pid in family(pid) {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .with_context(|| format!("process {pid} is gone"))?;
        for thread in threads {
            // A thread that has just ended has no file any more.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else {
                continue;
            };
            let first = text.split_whitespace().next().context("short schedstat")?;
            nanos += first.parse::<u64>().context("odd schedstat")?;
        }
    }
    Ok(nanos as f64 / 1e9)
}

/// Resident memory of `pid` and its living children in KiB: `Rss` of `smaps_rollup` in proc(5),
/// which counts page by page; if this user may not read it, `VmRSS` of `status`, which may lag by
/// some pages.
pub(crate) fn resident_kib(pid: u32) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for pid in family(pid) {
        sum += kib_field(&format!("/proc/{pid}/smaps_rollup"), "Rss:")
            .or_else(|_| kib_field(&format!("/proc/{pid}/status"), "VmRSS:"))?;
    }
    Ok(sum)
}

/// Proportional share in KiB (`Pss`), if this user may read it: pages shared with other processes
/// count in part only.
pub(crate) fn proportional_kib(pid: u32) -> Option<f64> {
    let mut sum = 0.0;
    for pid in family(pid) {
        sum += kib_field(&format!("/proc/{pid}/smaps_rollup"), "Pss:").ok()?;
    }
    Some(sum)
}

fn kib_field(path: &str, name: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.with_context(|| format!("no {name} in {path}"))?.parse().context("odd number")
}

/// The process and its living children (one generation is all that any stack here keeps).
fn family(pid: u32) -> Vec<u32> {
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut family = vec![pid];
    family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    family
}
