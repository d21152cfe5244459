//! A login session on the host, for the programs that make containers: Podman, Buildah,
//! RootlessKit.
//!
//! Owns an ordinary user with subordinate ids, a home, a runtime directory and a PID namespace. The
//! user exists in the host's own `/etc` only. Whatever a client leaves running is found in the PID
//! namespace ([`Session::processes`]), and ends with it.
//!
//! Leaves to others: what a client is told ([`Podman`](crate::Podman) and the tests).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::namespace::{Account, Background, Output};
use crate::requirement::{Missing, is_installed};
use crate::world::World;

/// The account of [`Account::Ordinary`] by name, and the ids that it may give to its containers.
const ACCOUNT_SCRIPT: &str = "echo 'tester:x:1500:1500::HOME:/bin/sh' >> /etc/passwd
    echo 'tester:x:1500:' >> /etc/group
    echo 'tester:100000:65536' | tee /etc/subuid > /etc/subgid
    mkdir HOME RUNTIME
    chmod 0700 RUNTIME
    chown 1500:1500 HOME RUNTIME";

/// The runtime directory. On the host's own tmpfs, because the paths of sockets in it must stay
/// below 108 bytes.
const RUNTIME: &str = "/mnt/run";

/// An ordinary user's session in a [`World`].
#[derive(Debug)]
pub struct Session {
    holder: Child,
    stdin: Option<ChildStdin>,
    /// The world around it.
    pub world: World,
}

/// A process of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionProcess {
    /// Its id inside the session.
    pub pid: u32,
    /// Program and arguments.
    pub arguments: Vec<String>,
}

impl Session {
    /// A world with a session, where `programs` are installed.
    ///
    /// # Errors
    /// [`Missing`], when this machine lacks a program or what a [`World`] takes.
    ///
    /// # Panics
    /// When a command that should work does not.
    pub fn open(programs: &[&str]) -> Result<Self, Missing> {
        for program in programs {
            is_installed(program)?;
        }
        let world = World::ordinary()?;
        let folder = world.folder().to_str().expect("temporary folders have plain names");
        world.host.script(
            &ACCOUNT_SCRIPT.replace("HOME", &format!("{folder}/home")).replace("RUNTIME", RUNTIME),
        );
        let mut command = world.host.command(&[]);
        command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        // As the first process of its PID namespace, the shell waits for orphans, too.
        let mut holder = command
            .args(["--", "sh", "-c", "echo ready; cat; exit"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter runs");
        let stdin = holder.stdin.take();
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the holder's pipe is readable");
        assert_eq!(line, "ready\n", "unshare made no PID namespace");
        Ok(Self { holder, stdin, world })
    }

    /// The user's home.
    pub fn home(&self) -> PathBuf {
        self.world.folder().join("home")
    }

    /// The user's runtime directory, as the test itself reaches it.
    pub fn runtime_folder(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{RUNTIME}", self.holder.id()))
    }

    /// A command that runs `argv` as the user, in the home, with the binary under test first in
    /// `PATH`.
    pub fn command(&self, argv: &[&str]) -> Command {
        self.command_as(Account::Ordinary, argv)
    }

    /// The same for either account. Root gets the user's environment.
    pub fn command_as(&self, account: Account, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.holder.id().to_string()).args(["--net", "--mount"]);
        command.arg(format!("--pid=/proc/{}/ns/pid_for_children", self.holder.id())).arg("--");
        command.args(account.prefix());
        let binaries = self.world.reachable_binary();
        let binaries = binaries.parent().expect("a file is in a folder").display();
        command.arg("env").arg("-i").arg(format!("--chdir={}", self.home().display()));
        command.arg(format!("HOME={}", self.home().display()));
        command.arg(format!("XDG_RUNTIME_DIR={RUNTIME}"));
        // What killed programs leave behind goes with the home.
        command.arg(format!("TMPDIR={}", self.home().display()));
        // The test's own path last, for programs that are only unpacked.
        let path = std::env::var("PATH").unwrap_or_default();
        command.arg(format!("PATH={binaries}:/usr/sbin:/usr/bin:/sbin:/bin:{path}"));
        command.args(["USER=tester", "LOGNAME=tester", "LC_ALL=C.UTF-8"]).args(argv);
        command
    }

    /// Runs a program to its end.
    ///
    /// # Panics
    /// When it takes longer than [`PATIENCE`](crate::PATIENCE).
    pub fn exec(&self, argv: &[&str]) -> Output {
        self.exec_as(Account::Ordinary, argv)
    }

    /// The same for either account.
    ///
    /// # Panics
    /// When it takes longer than [`PATIENCE`](crate::PATIENCE).
    pub fn exec_as(&self, account: Account, argv: &[&str]) -> Output {
        self.spawn_with(account, argv, Stdio::null()).finish()
    }

    /// Runs a program that must succeed, and hands back its standard output.
    ///
    /// # Panics
    /// When it fails or takes longer than [`PATIENCE`](crate::PATIENCE).
    pub fn succeed(&self, argv: &[&str]) -> String {
        let output = self.exec(argv);
        assert!(
            output.status.success(),
            "{argv:?}: {:?}\n{}\n{}",
            output.status,
            output.stdout,
            output.stderr
        );
        output.stdout
    }

    /// Starts a program that runs until its standard input closes, or at most as long as the
    /// session.
    pub fn spawn(&self, argv: &[&str]) -> Background {
        self.spawn_with(Account::Ordinary, argv, Stdio::piped())
    }

    fn spawn_with(&self, account: Account, argv: &[&str], stdin: Stdio) -> Background {
        let child = self
            .command_as(account, argv)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter runs");
        Background::new(child, argv.join(" "))
    }

    /// A file below `/proc` as the session has it; empty when it is not there.
    pub fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/root/proc/{file}", self.holder.id());
        std::fs::read(path)
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Every running process of the session but the two that hold it, containers' own included.
    ///
    /// # Panics
    /// When `/proc` cannot be read.
    pub fn processes(&self) -> Vec<SessionProcess> {
        let folder = format!("/proc/{}/root/proc", self.holder.id());
        let mut processes: Vec<_> = std::fs::read_dir(folder)
            .expect("the session has its /proc")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| self.process(pid))
            .collect();
        processes.sort_by_key(|process| process.pid);
        processes
    }

    fn process(&self, pid: u32) -> Option<SessionProcess> {
        // Empty for zombies, and for what has gone meanwhile.
        let line = self.proc(&format!("{pid}/cmdline"));
        let arguments: Vec<_> = line.split_terminator('\0').map(str::to_owned).collect();
        let is_holder = pid == 1 || arguments == ["cat"];
        (!arguments.is_empty() && !is_holder).then_some(SessionProcess { pid, arguments })
    }

    /// The running copies of the binary under test, without the helpers that they have.
    pub fn networks(&self) -> Vec<SessionProcess> {
        let mut processes = self.processes();
        processes.retain(|process| {
            let is_copy = process.arguments.first().is_some_and(|name| {
                Path::new(name).file_name().is_some_and(|name| name == "slirp4netns")
            });
            is_copy && !self.is_helper(process)
        });
        processes
    }

    /// Whether it is the helper outside of another process's sandbox, with that process's command
    /// line.
    pub fn is_helper(&self, process: &SessionProcess) -> bool {
        self.proc(&format!("{}/comm", process.pid)) == "slirp-outside\n"
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Its namespace's end is the end of every process in it; the world's folder is free to go
        // then.
        let _ = self.holder.wait();
    }
}
