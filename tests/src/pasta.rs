//! Callers of `pasta`: a rootless user namespace as Podman has it, and network namespaces in it
//! that have a name.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::namespace::{Background, Output};
use crate::process::ProcessFacts;
use crate::wait::{PATIENCE, wait_until};
use crate::world::World;

/// A user and mount namespace of an ordinary user that has the host's network, as
/// `podman unshare` makes it.
#[derive(Debug)]
pub struct Rootless<'w> {
    world: &'w World,
    holder: Background,
    binary: PathBuf,
}

impl<'w> Rootless<'w> {
    /// One on the host of `world`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(world: &'w World) -> Self {
        let binary = world.reachable_pasta();
        let flag = world.folder().join("rootless");
        let mut argv = world.account().prefix().to_vec();
        let script = format!("touch {}; exec cat", flag.display());
        argv.extend(["unshare", "--user", "--map-root-user", "--mount", "--", "sh", "-c", &script]);
        let holder = world.host.spawn(&argv);
        wait_until(PATIENCE, "the rootless namespaces", || flag.exists());
        Self { world, holder, binary }
    }

    /// The world whose host it lives on.
    pub fn world(&self) -> &'w World {
        self.world
    }

    /// A command that runs `argv` in it.
    pub fn command(&self, argv: &[&str]) -> Command {
        let pid = self.holder.pid().to_string();
        let inside = ["nsenter", "--target", &pid, "--user", "--mount", "--"];
        self.world.host.command(&[&inside, argv].concat())
    }

    /// Runs a program to its end: of itself, and of whoever has its output.
    ///
    /// # Panics
    /// When it takes longer than [`PATIENCE`].
    pub fn exec(&self, argv: &[&str]) -> Output {
        let mut command = self.command(argv);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Background::new(command.spawn().expect("nsenter runs"), argv.join(" ")).finish()
    }

    /// Runs a shell script that must succeed.
    ///
    /// # Panics
    /// When it fails or takes longer than [`PATIENCE`].
    pub fn script(&self, script: &str) -> String {
        let output = self.exec(&["sh", "-euc", script]);
        assert!(output.status.success(), "`{script}` failed: {}", output.stderr);
        output.stdout
    }

    /// A new network namespace with a name, as a bind mount; the path is that of the name.
    pub fn netns(&self, name: &str) -> String {
        let path = self.world.folder().join(name).display().to_string();
        self.script(&format!(
            "touch {path}; unshare --net -- mount --bind /proc/self/ns/net {path}"
        ));
        path
    }

    /// Takes the name of a network namespace away, as Podman does.
    pub fn remove_netns(&self, path: &str) {
        self.script(&format!("umount --lazy {path}; rm {path}"));
    }

    /// Runs a shell script in the network namespace of this name.
    pub fn inside(&self, netns: &str, script: &str) -> String {
        let enter = format!("--net={netns}");
        let output = self.exec(&["nsenter", &enter, "--", "sh", "-euc", script]);
        assert!(output.status.success(), "`{script}` failed: {}", output.stderr);
        output.stdout
    }

    /// Runs `work` on a thread of its own in the network namespace of this name, as
    /// [`Namespace::enter`](crate::Namespace::enter) does.
    ///
    /// # Panics
    /// With the panic of `work`, and when there is no such name.
    pub fn enter<T: Send>(&self, netns: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/root{netns}", self.holder.pid());
        let network = std::fs::File::open(path).expect("the name is there");
        crate::namespace::enter(&network, work)
    }

    /// Starts a program in the network namespace of this name.
    pub fn spawn_inside(&self, netns: &str, argv: &[&str]) -> Background {
        let enter = format!("--net={netns}");
        let mut command = self.command(&[&["nsenter", &enter, "--"], argv].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Background::new(command.spawn().expect("nsenter runs"), argv.join(" "))
    }

    /// The program under test.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Runs `pasta` until the process that was started has ended and nobody has its output any
    /// more.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    pub fn pasta(&self, arguments: &[&str]) -> Output {
        self.run(&self.binary, arguments)
    }

    /// The same for another program of this kind.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    pub fn run(&self, binary: &Path, arguments: &[&str]) -> Output {
        let binary = binary.display().to_string();
        // Whoever runs the tests in the background of a shell has SIGINT and SIGQUIT ignored.
        self.exec(&[&["env", "--default-signal", binary.as_str()], arguments].concat())
    }

    /// Runs `pesto` to its end.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    pub fn pesto(&self, arguments: &[&str]) -> Output {
        let binary = self.world.reachable_pesto().display().to_string();
        self.exec(&[&[binary.as_str()], arguments].concat())
    }

    /// Starts `pasta` and waits for nothing.
    pub fn spawn_pasta(&self, arguments: &[&str]) -> Background {
        let binary = self.binary.display().to_string();
        let mut command = self.command(&[&[binary.as_str()], arguments].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Background::new(command.spawn().expect("nsenter runs"), "pasta".to_owned())
    }

    /// The processes of this program that run, by their numbers: each network has two, the daemon
    /// and its helper outside of the sandbox.
    pub fn daemons(&self) -> Vec<u32> {
        Self::processes_of(&self.binary)
    }

    /// The processes that run this very file.
    ///
    /// # Panics
    /// When there is no `/proc`.
    pub fn processes_of(binary: &Path) -> Vec<u32> {
        let identity = |path: &Path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.dev(), file.ino()))
        };
        let binary = identity(binary);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc is there").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let is_its = identity(&entry.path().join("exe")) == binary;
            if is_its && ProcessFacts(pid).is_alive() {
                found.push(pid);
            }
        }
        found
    }

    /// Waits until no process of the program runs any more.
    pub fn wait_for_end(&self) {
        wait_until(PATIENCE, "the end of all daemons", || self.daemons().is_empty());
    }
}

impl Drop for Rootless<'_> {
    fn drop(&mut self) {
        for pid in self.daemons() {
            crate::slirp::send_signal(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}
