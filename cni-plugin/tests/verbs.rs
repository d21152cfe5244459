//! The real plugin, called as a CNI runtime calls it.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test, and says so")]

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn call(command: Option<&OsStr>) -> Output {
    let mut plugin = Command::new(env!("CARGO_BIN_EXE_slirp"));
    plugin.env_clear().env("CNI_NETNS", "dummy").env("CNI_IFNAME", "dummy").stdin(Stdio::null());
    if let Some(command) = command {
        plugin.env("CNI_COMMAND", command);
    }
    plugin.output().unwrap()
}

fn object(output: &Output) -> Value {
    assert_eq!(output.stderr, b"");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn version_option_names_the_interfaces_that_are_offered() {
    let output = Command::new(env!("CARGO_BIN_EXE_slirp")).arg("--version").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let expected = format!(
        "slirp {}\nslirp4netns: 1.3.3\nCNI: 0.1.0 0.2.0 0.3.0 0.3.1 0.4.0 1.0.0 1.1.0\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn version_lists_the_versions_of_the_specification() {
    let output = call(Some(OsStr::new("VERSION")));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        object(&output),
        json!({
            "cniVersion": "1.1.0",
            "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        })
    );
}

#[test]
fn unknown_commands_are_an_invalid_environment() {
    for (command, shown) in [
        (&b"FROB\""[..], "unknown CNI_COMMAND: FROB\""),
        (b"version", "unknown CNI_COMMAND: version"),
        (b"\xff", "unknown CNI_COMMAND: \u{fffd}"),
    ] {
        let output = call(Some(OsStr::from_bytes(command)));
        assert_eq!(output.status.code(), Some(1), "{shown}");
        let object = object(&output);
        assert_eq!((&object["code"], &object["msg"]), (&json!(4), &json!(shown)));
    }
}

#[test]
fn without_a_command_the_plugin_introduces_itself_on_stderr() {
    for command in [None, Some(OsStr::new(""))] {
        let output = call(command);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(output.stdout, b"");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("CNI plugin slirp v"), "{text}");
        assert!(text.contains("CNI protocol versions supported: 0.1.0, "), "{text}");
    }
}

/// A folder of one test; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("slirp-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn make_fifo(&self, name: &str) -> String {
        let path = self.path(name);
        nix::unistd::mkfifo(path.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }

    /// Runs the program on these words and this input. It must end in time.
    fn run(&self, words: &[&str], input: &str) -> Output {
        let mut program = Command::new("timeout");
        program.args(["--signal=KILL", "60", env!("CARGO_BIN_EXE_slirp")]).args(words);
        program.args(["--state-dir", &self.path("state")]);
        let pipes = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        // It may not read it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code().map(|code| code <= 1), Some(true), "{output:?}");
        output
    }

    /// Runs the hook for a container in the network namespace of the test.
    fn hook(&self, words: &[&str]) -> String {
        let state = json!({
            "ociVersion": "1.0.2", "id": "c", "status": "created",
            "pid": std::process::id(), "bundle": self.path(""),
        });
        let output = self.run(&[&["oci-hook", "up"], words].concat(), &state.to_string());
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn fifo_in_the_place_of_a_record_holds_nobody_up() {
    let folder = Folder::new("fifo-record");
    std::fs::create_dir(folder.path("state")).unwrap();
    folder.make_fifo("state/0.json");
    assert_eq!(folder.run(&["ls", "--json"], "").stdout, b"[]\n");
}

#[test]
fn fifo_in_the_place_of_a_bundles_configuration_holds_no_hook_up() {
    let folder = Folder::new("fifo-bundle");
    folder.make_fifo("config.json");
    let said = folder.hook(&[]);
    assert!(said.contains("slirp oci-hook: c: "), "{said}");
}

#[test]
fn fifo_in_the_place_of_a_joined_namespace_holds_no_hook_up() {
    let folder = Folder::new("fifo-namespace");
    let fifo = folder.make_fifo("fifo");
    let config = json!({ "linux": { "namespaces": [{ "type": "network", "path": fifo }] } });
    std::fs::write(folder.path("config.json"), config.to_string()).unwrap();
    let said = folder.hook(&["--attach-shared"]);
    assert!(said.contains("/fifo is not a network namespace"), "{said}");
}
