//! A container runtime's side of the CNI specification: what libcni does, and no more.
//!
//! Owns the call of the plugin: all `CNI_*` variables always set, the configuration with `name`,
//! `cniVersion`, the declared part of `runtimeConfig` and, where it is due, `prevResult` from the
//! cache. Everything that the plugin says is read to its end, as runtimes do.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use crate::binary::plugin_under_test;
use crate::namespace::{Account, Background, Namespace, Output};
use crate::world::World;

/// What a plugin's error object says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CniFailure {
    /// The specification's number, or 100 and above.
    pub code: u64,
    /// What happened.
    pub message: String,
    /// More about it, or empty.
    pub details: String,
}

/// A runtime with one container on one network.
#[derive(Debug)]
pub struct MiniCni<'w> {
    runtime: &'w Namespace,
    account: Account,
    program: PathBuf,
    config: Map<String, Value>,
    container: String,
    ifname: String,
    netns: String,
    capabilities: Map<String, Value>,
    arguments: String,
    variables: Vec<(String, String)>,
    behind: Vec<String>,
    folder: PathBuf,
    is_logged: bool,
    cached: RefCell<Option<Value>>,
}

impl<'w> MiniCni<'w> {
    /// The world's container `c1`, interface `eth0`, on the network that `config` describes; its
    /// name is `slirp`, its version 1.1.0, and `stateDir` and `logFile` are in the world's folder
    /// unless it says so; null leaves a member out. The log is printed when the test fails.
    ///
    /// # Panics
    /// When `config` is no object.
    pub fn new(world: &'w World, config: &Value) -> Self {
        let mut config = config.as_object().expect("a configuration is an object").clone();
        let is_logged = !config.contains_key("logFile");
        let state_dir = world.folder().join("state").display().to_string();
        for (name, value) in [
            ("name", json!("slirp")),
            ("type", json!("slirp")),
            ("cniVersion", json!("1.1.0")),
            ("stateDir", json!(state_dir)),
        ] {
            config.entry(name).or_insert(value);
        }
        config.retain(|_, value| !value.is_null());
        Self {
            runtime: &world.host,
            account: world.account(),
            program: plugin_under_test().to_owned(),
            config,
            container: "c1".to_owned(),
            ifname: "eth0".to_owned(),
            netns: format!("/proc/{}/ns/net", world.guest.pid()),
            capabilities: Map::new(),
            arguments: String::new(),
            variables: Vec::new(),
            behind: Vec::new(),
            folder: world.folder().to_owned(),
            is_logged,
            cached: RefCell::new(None),
        }
    }

    /// Another container.
    #[must_use]
    pub fn container(mut self, id: &str) -> Self {
        self.container = id.to_owned();
        self
    }

    /// Another interface.
    #[must_use]
    pub fn ifname(mut self, name: &str) -> Self {
        self.ifname = name.to_owned();
        self
    }

    /// Another path of the network namespace.
    #[must_use]
    pub fn netns(mut self, path: &str) -> Self {
        self.netns = path.to_owned();
        self
    }

    /// The runtime itself lives in a container, as root there.
    #[must_use]
    pub fn inside(mut self, outer: &'w Namespace) -> Self {
        self.runtime = outer;
        self.account = Account::Root;
        self
    }

    /// Another user runs the plugin.
    #[must_use]
    pub fn account(mut self, account: Account) -> Self {
        self.account = account;
        self
    }

    /// Another plugin of the same runtime; the configuration says its type.
    #[must_use]
    pub fn program(mut self, path: &Path) -> Self {
        self.program = path.to_owned();
        self
    }

    /// What the runtime has for a capability, sent where the configuration declares it.
    #[must_use]
    pub fn capability(mut self, name: &str, value: Value) -> Self {
        self.capabilities.insert(name.to_owned(), value);
        self
    }

    /// `CNI_ARGS`.
    #[must_use]
    pub fn arguments(mut self, text: &str) -> Self {
        self.arguments = text.to_owned();
        self
    }

    /// Another environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs the plugin by another program.
    #[must_use]
    pub fn behind(mut self, argv: &[&str]) -> Self {
        self.behind = argv.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// `ADD`; the result is cached.
    ///
    /// # Errors
    /// What the plugin's error object says.
    pub fn add(&self) -> Result<Value, CniFailure> {
        let result = self.call("ADD", &[])?.expect("ADD prints a result");
        self.cached.replace(Some(result.clone()));
        Ok(result)
    }

    /// `DEL`; the cache is emptied.
    ///
    /// # Errors
    /// What the plugin's error object says.
    pub fn del(&self) -> Result<(), CniFailure> {
        let previous = self.cached.take();
        let extra = previous.map(|value| ("prevResult", value));
        let said = self.call("DEL", extra.as_slice())?;
        assert_eq!(said, None, "DEL prints nothing");
        Ok(())
    }

    /// `CHECK` with the cached result.
    ///
    /// # Errors
    /// What the plugin's error object says.
    pub fn check(&self) -> Result<(), CniFailure> {
        let previous = self.cached.borrow().clone();
        let extra = previous.map(|value| ("prevResult", value));
        let said = self.call("CHECK", extra.as_slice())?;
        assert_eq!(said, None, "CHECK prints nothing");
        Ok(())
    }

    /// `CHECK` with another result.
    ///
    /// # Errors
    /// What the plugin's error object says.
    pub fn check_against(&self, previous: Value) -> Result<(), CniFailure> {
        self.call("CHECK", &[("prevResult", previous)]).map(drop)
    }

    /// `GC`; `None` leaves the list out.
    ///
    /// # Errors
    /// What the plugin's error object says.
    pub fn gc(&self, valid: Option<Value>) -> Result<(), CniFailure> {
        let extra = valid.map(|value| ("cni.dev/valid-attachments", value));
        let said = self.call("GC", extra.as_slice())?;
        assert_eq!(said, None, "GC prints nothing");
        Ok(())
    }

    /// `STATUS`.
    ///
    /// # Errors
    /// What the plugin's error object says.
    pub fn status(&self) -> Result<(), CniFailure> {
        let said = self.call("STATUS", &[])?;
        assert_eq!(said, None, "STATUS prints nothing");
        Ok(())
    }

    /// Calls the plugin and reads what it says, with further members of the configuration.
    ///
    /// # Errors
    /// What the plugin's error object says.
    ///
    /// # Panics
    /// When status and object do not fit each other, or something else than one object is printed.
    pub fn call(
        &self,
        command: &str,
        extra: &[(&str, Value)],
    ) -> Result<Option<Value>, CniFailure> {
        let output = self.start(command, extra).finish();
        let said = (!output.stdout.is_empty()).then(|| {
            serde_json::from_str::<Value>(&output.stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
        });
        if output.status.success() {
            return Ok(said);
        }
        let object = said.unwrap_or_else(|| panic!("no error object: {output:?}"));
        assert_eq!(output.status.code(), Some(1), "{object}");
        let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        Err(CniFailure {
            code: object["code"].as_u64().expect("an error object has a code"),
            message: text("msg"),
            details: text("details"),
        })
    }

    /// Starts the plugin and leaves it alone.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&self, command: &str, extra: &[(&str, Value)]) -> Background {
        let mut child = self
            .command(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter runs");
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        // A plugin that needs no input may have ended already.
        let _ = stdin.write_all(self.input(extra).as_bytes());
        drop(stdin);
        Background::new(child, format!("plugin {command}"))
    }

    /// The command line of a call, for tests that start it in an odd way; they send
    /// [`input`](Self::input).
    pub fn command(&self, command: &str) -> Command {
        let mut words = self.account.prefix().to_vec();
        words.extend(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        let is_about_one = !matches!(command, "GC" | "STATUS");
        let one = |text: &str| if is_about_one { text.to_owned() } else { String::new() };
        let mut variables = vec![
            ("CNI_COMMAND".to_owned(), command.to_owned()),
            ("CNI_CONTAINERID".to_owned(), one(&self.container)),
            ("CNI_NETNS".to_owned(), one(&self.netns)),
            ("CNI_IFNAME".to_owned(), one(&self.ifname)),
            ("CNI_ARGS".to_owned(), one(&self.arguments)),
            ("CNI_PATH".to_owned(), "/opt/cni/bin".to_owned()),
        ];
        variables.extend(self.variables.iter().cloned());
        let variables: Vec<String> =
            variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        words.extend(variables.iter().map(String::as_str));
        words.extend(self.behind.iter().map(String::as_str));
        words.push(self.program.to_str().expect("the build folder is UTF-8"));
        self.runtime.command(&words)
    }

    /// What the plugin reads.
    pub fn input(&self, extra: &[(&str, Value)]) -> String {
        let mut config = self.config.clone();
        let declared = config.get("capabilities").and_then(Value::as_object);
        let is_declared = |name: &str| {
            declared.is_some_and(|d| d.get(name).and_then(Value::as_bool) == Some(true))
        };
        let sent: Map<String, Value> = self
            .capabilities
            .iter()
            .filter(|(name, _)| is_declared(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !sent.is_empty() {
            config.insert("runtimeConfig".to_owned(), Value::Object(sent));
        }
        if self.is_logged {
            config.insert("logFile".to_owned(), json!(self.log().display().to_string()));
        }
        for (name, value) in extra {
            config.insert((*name).to_owned(), value.clone());
        }
        Value::Object(config).to_string()
    }

    /// Where the long-lived processes of this runtime's user say what happens.
    fn log(&self) -> PathBuf {
        self.folder.join(format!("{:?}.log", self.account))
    }

    /// Runs `slirp` by hand as this runtime's user, on the folder of this network.
    ///
    /// # Panics
    /// When it cannot be started, or the network has no folder of its own.
    pub fn tool(&self, arguments: &[&str]) -> Output {
        let state_dir = self.config.get("stateDir").and_then(Value::as_str);
        let state_dir = state_dir.expect("the network has a folder of its own");
        let mut words = self.account.prefix().to_vec();
        words.push(plugin_under_test().to_str().expect("the build folder is UTF-8"));
        words.extend(arguments);
        words.extend(["--state-dir", state_dir]);
        self.runtime.exec(&words)
    }

    /// What `slirp ls --json` says about this runtime's attachments.
    ///
    /// # Panics
    /// When it fails.
    pub fn attachments(&self) -> Vec<Value> {
        let output = self.tool(&["ls", "--json"]);
        assert!(output.status.success(), "{}", output.stderr);
        serde_json::from_str(&output.stdout).expect("a list is printed")
    }

    /// The process that keeps this runtime's only attachment.
    ///
    /// # Panics
    /// When there is none, or several.
    pub fn keeper(&self) -> u32 {
        let list = self.attachments();
        assert_eq!(list.len(), 1, "{list:?}");
        list[0]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process id")
    }

    /// The process that carries the traffic of this runtime's only attachment.
    ///
    /// # Panics
    /// When there is none.
    pub fn engine(&self) -> u32 {
        let keeper = self.keeper();
        let path = format!("/proc/{keeper}/task/{keeper}/children");
        let children = std::fs::read_to_string(path).expect("the keeper runs");
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("it has a child")
    }
}

impl Drop for MiniCni<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && self.is_logged {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            // Goes where the panic went.
            let _ = writeln!(std::io::stderr(), "log of the attachments:\n{log}");
        }
    }
}
