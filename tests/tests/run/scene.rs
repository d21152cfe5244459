//! A host on which an account runs commands.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slirp_tests::*;

/// See the [module](self). The world's guest is there for those who need a namespace that exists.
#[derive(Debug)]
pub(crate) struct Scene {
    world: World,
    /// The program, where everybody can run it.
    pub(crate) program: String,
}

impl Deref for Scene {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

/// Whoever runs the tests in the background of a shell has SIGINT and SIGQUIT ignored.
const DEFAULT_SIGNALS: &[&str] = &["env", "--default-signal"];

impl Scene {
    pub(crate) fn of(account: Account) -> Result<Self, Missing> {
        let world = World::of(account)?;
        let program = world.folder().join("bin/slirp").display().to_string();
        let install = ["install", "-D", "--mode=0755"];
        let status = Command::new(install[0])
            .args(&install[1..])
            .arg(plugin_under_test())
            .arg(&program)
            .status();
        assert!(status.is_ok_and(|status| status.success()), "the program can be copied");
        Ok(Self { world, program })
    }

    /// One scene of each account.
    pub(crate) fn each() -> Result<[Self; 2], Missing> {
        Ok([Self::of(Account::Root)?, Self::of(Account::Ordinary)?])
    }

    fn argv<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        [self.account().prefix(), DEFAULT_SIGNALS, &[self.program.as_str(), "run"], arguments]
            .concat()
    }

    /// `slirp run` with these arguments, to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.host.exec(&self.argv(arguments))
    }

    /// What a script says that runs on a network of its own and must succeed.
    pub(crate) fn inside(&self, options: &[&str], script: &str) -> String {
        let output = self.run(&[options, &["--", "sh", "-euc", script]].concat());
        assert!(output.status.success(), "`{script}` failed: {}{}", output.stdout, output.stderr);
        assert_eq!(output.stderr, "", "`{script}`");
        output.stdout
    }

    /// What a script of the account says that finds the program and its word as `$RUN`.
    pub(crate) fn outside(&self, run: &str, script: &str) -> Output {
        let run = format!("RUN={run}");
        let sh = [DEFAULT_SIGNALS, &[&run, "sh", "-euc", script]].concat();
        self.host.exec(&[self.account().prefix(), &sh].concat())
    }

    /// The same with our `slirp run`.
    pub(crate) fn beside(&self, script: &str) -> Output {
        self.outside(&format!("{} run", self.program), script)
    }

    /// `slirp run` with these options and a script, not awaited.
    pub(crate) fn start(&self, options: &[&str], script: &str) -> Background {
        let argv = self.argv(&[options, &["--", "sh", "-euc", script]].concat());
        self.host.spawn(&argv)
    }

    /// The path of a file in the folder for everybody.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder().join(name).display().to_string()
    }

    /// Waits until a file has a whole line, and hands it back.
    pub(crate) fn line_of(&self, name: &str) -> String {
        let path = self.file(name);
        let read = || fs::read_to_string(&path).unwrap_or_default();
        wait_until(PATIENCE, "the file has a line", || read().ends_with('\n'));
        read().trim().to_owned()
    }

    /// The processes that run our program here.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let is_ours = |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| exe == Path::new(&self.program))
        };
        let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
        numbers
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(is_ours)
            .collect()
    }

    /// A shell in a terminal; `slirp` is a function that runs the program.
    pub(crate) fn terminal(&self) -> Result<Terminal, Missing> {
        let folder = self.folder().join(format!("tty-{}", self.account().prefix().len()));
        let _ = fs::create_dir(&folder);
        let command = [self.account().prefix(), DEFAULT_SIGNALS, &["PS1=", "bash", "--norc", "-i"]]
            .concat()
            .join(" ");
        let terminal = Terminal::start(&self.host, &folder, &command)?;
        let line = format!("slirp() {{ {} \"$@\"; }}; echo shell is $((1 + 1))", self.program);
        terminal.press(&[&line, "Enter"]);
        terminal.wait_for("shell is 2");
        Ok(terminal)
    }
}

/// The processes that a run of `supervisor` consists of.
pub(crate) struct Family {
    pub(crate) command: u32,
    pub(crate) network: u32,
}

impl Family {
    /// Of a run whose command runs.
    pub(crate) fn of(supervisor: u32) -> Self {
        let children = children_of(supervisor);
        let is_network = |pid: &&u32| command_line(**pid).contains("connect-command");
        let network = *children.iter().find(is_network).expect("the network runs");
        let command = *children.iter().find(|&&pid| pid != network).expect("the command runs");
        Self { command, network }
    }

    pub(crate) fn wait_for_end(&self) {
        for pid in [self.command, self.network] {
            wait_until(PATIENCE, "the process ends", || !ProcessFacts(pid).is_alive());
        }
    }
}

fn children_of(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn command_line(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// The letter of a process's state in proc_pid_stat(5).
pub(crate) fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

pub(crate) fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("the process is there");
}

/// The text of a recording.
pub(crate) fn packets(path: &str) -> String {
    let mut tcpdump = Command::new("tcpdump");
    let output = tcpdump.args(["-n", "-r", path]).stdin(Stdio::null()).output();
    let output = output.expect("tcpdump runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The folder of the program.
pub(crate) fn folder_of(scene: &Scene) -> PathBuf {
    scene.folder().join("bin")
}
