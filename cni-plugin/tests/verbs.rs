//! The real plugin, called as a CNI runtime calls it.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test, and says so")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
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
