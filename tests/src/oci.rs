//! OCI runtimes: bundles of busybox, run by runc or crun, with the hook under test in
//! `config.json`.
//!
//! Owns the bundle and the runtime's command line. Everything lives in a [`Session`], also what
//! root runs: there the runtimes' folders below `/run` are its own, and what they leave running
//! ends with it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::binary::plugin_under_test;
use crate::namespace::{Account, Output};
use crate::requirement::Missing;
use crate::session::{Session, SessionProcess};
use crate::tcp::IO_LIMIT;
use crate::wait::wait_until;

/// A `/run` and a mount table as runtimes expect them. crun does not take a machine with both
/// versions of cgroups.
const SESSION_SCRIPT: &str = "mount -t tmpfs tmpfs /run
    mkdir -p /run/user/1500
    chown 1500:1500 /run/user/1500
    chmod 0700 /run/user/1500
    if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi";

/// Programs that containers run.
const APPLETS: &str = "cat echo grep httpd ifconfig ip nc ping route sh sleep wget";

/// A runtime and the user that runs it.
#[derive(Debug)]
pub struct Oci {
    /// Where it runs.
    pub session: Session,
    account: Account,
    runtime: &'static str,
    hook: PathBuf,
}

/// What the configuration of a container says about its network.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Stages at which the hook is called.
    pub stages: Vec<&'static str>,
    /// The hook's arguments, its name included; none at all where empty.
    pub arguments: Vec<String>,
    /// Annotations of the container.
    pub annotations: Value,
    /// Process whose network (and user) namespace the container joins; 0 for a new one.
    pub joins: u32,
    /// Whether the container has a network namespace of its own.
    pub has_network: bool,
    /// What the container runs.
    pub process: Vec<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            stages: vec!["createRuntime", "poststop"],
            arguments: Vec::new(),
            annotations: json!({}),
            joins: 0,
            has_network: true,
            process: vec!["sleep", "600"],
        }
    }
}

impl Oci {
    /// A session in which `account` runs `runtime`.
    ///
    /// # Errors
    /// [`Missing`], when this machine lacks what that takes.
    ///
    /// # Panics
    /// When a command that should work does not.
    pub fn open(account: Account, runtime: &'static str) -> Result<Self, Missing> {
        let session = Session::open(&[runtime, "runc", "busybox", "mountpoint"])?;
        let hook = session.world.folder().join("tools/slirp-oci-hook");
        let oci = Self { session, account, runtime, hook };
        oci.succeed_as(Account::Root, &["sh", "-euc", SESSION_SCRIPT]);
        let hook = oci.hook.to_str().expect("temporary folders have plain names");
        let plugin = plugin_under_test().to_str().expect("the build folder is UTF-8");
        oci.succeed_as(Account::Root, &["install", "-D", "--mode=0755", plugin, hook]);
        Ok(oci)
    }

    fn succeed_as(&self, account: Account, argv: &[&str]) -> String {
        let output = self.session.exec_as(account, argv);
        assert!(output.status.success(), "{argv:?}: {}{}", output.stdout, output.stderr);
        output.stdout
    }

    /// Runs a script as the runtime's user.
    ///
    /// # Panics
    /// When it fails.
    pub fn script(&self, script: &str) -> String {
        self.succeed_as(self.account, &["sh", "-euc", script])
    }

    /// The program under test, by the name of the hook.
    pub fn hook(&self) -> &str {
        self.hook.to_str().expect("temporary folders have plain names")
    }

    /// Root's containers have their control groups below this one; the hierarchies are those of the
    /// machine.
    fn cgroup(&self) -> &str {
        let name = self.session.world.folder().file_name().and_then(|name| name.to_str());
        name.expect("temporary folders have plain names")
    }

    /// The folder of a bundle.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.session.home().join(id)
    }

    /// Makes a bundle, in the place of an older one of this name.
    ///
    /// # Panics
    /// When the runtime's own example of a configuration is not as expected.
    pub fn prepare(&self, id: &str, setup: &Setup) {
        let bundle = self.bundle(id);
        let rootless = if self.account == Account::Root { "" } else { "--rootless" };
        self.script(&format!(
            "rm -rf {bundle}; mkdir -p {bundle}/rootfs/bin; cd {bundle}/rootfs; mkdir proc sys dev \
             tmp etc
            cp \"$(command -v busybox)\" bin/busybox
            for applet in {APPLETS}; do ln -s busybox bin/$applet; done
            cd {bundle}; runc spec {rootless}",
            bundle = bundle.display(),
        ));
        self.edit(id, |config| self.apply(id, config, setup));
    }

    /// Changes the configuration of a bundle.
    ///
    /// # Panics
    /// When there is none.
    pub fn edit(&self, id: &str, change: impl FnOnce(&mut Value)) {
        let file = self.bundle(id).join("config.json");
        let text = std::fs::read(&file).expect("the bundle has a configuration");
        let mut config: Value = serde_json::from_slice(&text).expect("it is JSON");
        change(&mut config);
        std::fs::write(&file, config.to_string()).expect("the bundle is writable");
    }

    fn apply(&self, id: &str, config: &mut Value, setup: &Setup) {
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(setup.process);
        config["root"]["readonly"] = json!(false);
        for set in ["bounding", "effective", "permitted"] {
            let set = config["process"]["capabilities"][set].as_array_mut();
            set.expect("capabilities are listed").push(json!("CAP_NET_RAW"));
        }
        let hook = if setup.arguments.is_empty() {
            json!({ "path": self.hook() })
        } else {
            json!({ "path": self.hook(), "args": setup.arguments })
        };
        for stage in &setup.stages {
            config["hooks"][*stage] = json!([hook]);
        }
        config["annotations"] = setup.annotations.clone();
        let namespaces =
            config["linux"]["namespaces"].as_array_mut().expect("namespaces are listed");
        namespaces
            .retain(|namespace| namespace["type"] != "network" && namespace["type"] != "cgroup");
        if setup.joins != 0 {
            let path = |kind: &str| json!(format!("/proc/{}/ns/{kind}", setup.joins));
            namespaces.push(json!({ "type": "network", "path": path("net") }));
            for namespace in namespaces.iter_mut().filter(|namespace| namespace["type"] == "user") {
                namespace["path"] = path("user");
            }
        } else if setup.has_network {
            namespaces.push(json!({ "type": "network" }));
        }
        if self.account == Account::Root {
            config["linux"]["cgroupsPath"] = json!(format!("/{}/{id}", self.cgroup()));
        }
        // Of the host's, which differ from machine to machine.
        config["mounts"]
            .as_array_mut()
            .expect("mounts are listed")
            .retain(|mount| mount["type"] != "cgroup");
    }

    /// Runs the runtime.
    ///
    /// # Panics
    /// When it takes longer than [`PATIENCE`](crate::PATIENCE).
    pub fn call(&self, arguments: &[&str]) -> Output {
        let mut words = vec![self.runtime];
        words.extend(arguments);
        self.session.exec_as(self.account, &words)
    }

    /// Makes a bundle and starts its container.
    ///
    /// # Errors
    /// What the runtime said.
    pub fn run(&self, id: &str, setup: &Setup) -> Result<(), String> {
        self.prepare(id, setup);
        self.start(id)
    }

    /// Starts the container of a bundle.
    ///
    /// # Errors
    /// What the runtime said.
    ///
    /// # Panics
    /// When its program does not start in time.
    pub fn start(&self, id: &str) -> Result<(), String> {
        self.make(id, "run --detach")?;
        self.await_program(id);
        Ok(())
    }

    /// Starts the program of a container that was [created](Self::create).
    ///
    /// # Panics
    /// When the runtime fails, or the program does not start in time.
    pub fn start_created(&self, id: &str) {
        let output = self.call(&["start", id]);
        assert!(output.status.success(), "{}{}", output.stdout, output.stderr);
        self.await_program(id);
    }

    /// Waits until the container runs its own program.
    ///
    /// `run` and `start` return when the runtime has let the container's process go. That process
    /// executes the program a moment later. Rootless crun cannot join its user namespace before.
    fn await_program(&self, id: &str) {
        let pid = self.pid(id);
        wait_until(IO_LIMIT, "the container's program runs", || {
            let line = self.session.proc(&format!("{pid}/cmdline"));
            let program = line.split('\0').next().unwrap_or_default();
            !["runc", "crun"].iter().any(|runtime| program.ends_with(runtime))
        });
    }

    /// Makes the container of a bundle, which waits for `start`.
    ///
    /// # Errors
    /// What the runtime said.
    pub fn create(&self, id: &str) -> Result<(), String> {
        self.make(id, "create")
    }

    fn make(&self, id: &str, verb: &str) -> Result<(), String> {
        let bundle = self.bundle(id);
        // The container has its runtime's output, and would hold a pipe.
        let script = format!(
            "exec {} {verb} --bundle {} {id} </dev/null >{}/said 2>&1",
            self.runtime,
            bundle.display(),
            bundle.display()
        );
        let output = self.session.exec_as(self.account, &["sh", "-euc", &script]);
        if output.status.success() {
            return Ok(());
        }
        let said = std::fs::read_to_string(bundle.join("said")).unwrap_or_default();
        Err(format!("{said}{}", output.stderr))
    }

    /// Runs a program in a container.
    ///
    /// # Panics
    /// When it fails.
    pub fn exec(&self, id: &str, argv: &[&str]) -> String {
        let mut words = vec!["exec", id];
        words.extend(argv);
        let output = self.call(&words);
        assert!(output.status.success(), "{argv:?}: {}{}", output.stdout, output.stderr);
        output.stdout
    }

    /// Ends a container by force.
    ///
    /// # Panics
    /// When the runtime fails.
    pub fn delete(&self, id: &str) {
        let output = self.call(&["delete", "--force", id]);
        assert!(output.status.success(), "{}{}", output.stdout, output.stderr);
    }

    /// The container's first process, in the session.
    ///
    /// # Panics
    /// When the runtime does not know the container.
    pub fn pid(&self, id: &str) -> u32 {
        let state: Value =
            serde_json::from_str(&self.call(&["state", id]).stdout).expect("a state");
        state["pid"].as_u64().and_then(|pid| pid.try_into().ok()).expect("a process id")
    }

    /// Long-lived processes of the program under test, without the helpers that they have.
    pub fn networks(&self) -> Vec<SessionProcess> {
        let mut processes = self.session.processes();
        processes.retain(|process| {
            process.arguments.get(1).is_some_and(|word| word.ends_with("-attachment"))
                && !self.session.is_helper(process)
        });
        processes
    }

    /// What `slirp ls --json` says.
    ///
    /// # Panics
    /// When it fails.
    pub fn attachments(&self) -> Vec<Value> {
        let slirp = self.hook.with_file_name("slirp");
        let script = format!(
            "cp -n {} {slirp}; exec {slirp} ls --json",
            self.hook(),
            slirp = slirp.display()
        );
        let text = self.succeed_as(
            Account::Root,
            &["sh", "-euc", &script.replace("exec ", self.become_user())],
        );
        serde_json::from_str(&text).expect("a list is printed")
    }

    fn become_user(&self) -> &'static str {
        match self.account {
            Account::Root => "exec ",
            Account::Ordinary => "exec setpriv --reuid=1500 --regid=1500 --clear-groups -- ",
        }
    }

    /// Signals that a process of the session blocks, as a bit set: bit 0 is signal 1.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn blocked_signals(&self, process: &SessionProcess) -> u64 {
        let status = self.session.proc(&format!("{}/status", process.pid));
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let digits = line.expect("the process runs").trim();
        u64::from_str_radix(digits, 16).expect("a mask is hexadecimal")
    }

    /// What a descriptor of a process of the session leads to.
    ///
    /// # Panics
    /// When there is no such descriptor.
    pub fn descriptor(&self, process: &SessionProcess, number: u32) -> String {
        let path = format!("/proc/{}/fd/{number}", process.pid);
        self.succeed_as(Account::Root, &["readlink", &path]).trim().to_owned()
    }

    /// Sends SIGKILL to a process of the session.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn kill(&self, pid: u32) {
        self.succeed_as(Account::Root, &["kill", "-9", &pid.to_string()]);
    }

    /// What hooks wrote to their log.
    pub fn log(&self) -> String {
        let path = "/run/slirp/oci-hook.log /run/user/1500/slirp/oci-hook.log";
        let script = format!("for file in {path}; do if test -e $file; then cat $file; fi; done");
        self.succeed_as(Account::Root, &["sh", "-euc", &script])
    }

    /// Whether no network runs and none is written down.
    pub fn is_clean(&self) -> bool {
        self.networks().is_empty() && self.attachments().is_empty() && self.files().is_empty()
    }

    /// Files in the folders of attachments, except the hooks' log.
    pub fn files(&self) -> String {
        let folders = "/run/slirp /run/user/1500/slirp";
        let script = format!(
            "for folder in {folders}; do if test -e $folder; then
                 find $folder -mindepth 1 -not -name oci-hook.log
             fi; done"
        );
        self.succeed_as(Account::Root, &["sh", "-euc", &script])
    }
}

impl Drop for Oci {
    fn drop(&mut self) {
        let mut words = vec!["kill".to_owned(), "-9".to_owned()];
        words.extend(self.session.processes().iter().map(|process| process.pid.to_string()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        // Some may have ended with others of them, and there may be none.
        let _ = self.session.exec_as(Account::Root, &words);
        let script = format!(
            "for try in $(seq 100); do
                 folders=$(find /sys/fs/cgroup -depth -type d \
                 '(' -path '*/{name}' -o -path '*/{name}/*' ')')
                 test -n \"$folders\" || exit 0
                 rmdir $folders 2>/dev/null && continue
                 # Where a hierarchy is not mounted, a runtime has made plain files.
                 find $folders -type f -delete 2>/dev/null
                 sleep 0.05
             done",
            name = self.cgroup()
        );
        // Anything left here is empty, and a failing test tells its own reason.
        let _ = self.session.exec_as(Account::Root, &["sh", "-c", &script]);
    }
}
