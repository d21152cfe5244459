//! The real program `pasta`, as far as it goes without privileges: texts, streams, exit statuses
//! and files.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test, and says so")]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A process that cannot exist: above the largest limit of Linux (`PID_MAX_LIMIT`, 2^22).
const NO_PID: &str = "4194305";

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pasta"));
    command.arg0("pasta").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// What a refused line says on stderr; it says nothing on stdout.
fn refusal(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr).to_owned()
}

/// A path in the folder of temporary files that does not exist.
fn fresh(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pasta-{name}-{}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

#[test]
fn help_and_version_go_to_stdout() {
    let output = run(&["--help"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    assert!(text(&output.stdout).starts_with("Usage: pasta [OPTION]... [COMMAND] [ARGS]...\n"));
    let output = run(&["--version"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let first = format!("pasta 2026_07_16.slirp-{}\n", env!("CARGO_PKG_VERSION"));
    assert!(text(&output.stdout).starts_with(&first));
}

#[test]
fn callers_find_out_which_options_there_are() {
    for line in [&["--host-lo-to-ns-lo", "--version"][..], &["-q", "--no-map-gw", "--version"]] {
        assert_eq!(run(line).status.code(), Some(0), "{line:?}");
    }
    let said = refusal(&["--no-such-option", "--version"]);
    assert!(said.starts_with("pasta: unrecognized option '--no-such-option'\nUsage: "), "{said}");
}

#[test]
fn failure_of_the_daemon_is_the_failure_of_the_caller() {
    for line in [&["-q", NO_PID][..], &["-f", "-q", NO_PID], &["-q", "--netns-only", NO_PID]] {
        let said = refusal(line);
        let expected = format!(
            "Couldn't open network namespace /proc/{NO_PID}/ns/net: No such file or directory\n"
        );
        assert!(said.starts_with(&expected), "{line:?}: {said}");
    }
    let said = refusal(&["-q", "--netns", "no-such-name"]);
    let expected =
        "Couldn't open network namespace /run/netns/no-such-name: No such file or directory\n";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn failed_start_leaves_no_pid_file_and_keeps_one_that_was_there() {
    let path = fresh("pid");
    let pid = path.to_str().unwrap();
    for foreground in [&[][..], &["-f"]] {
        refusal(&[foreground, &["-q", "-P", pid, NO_PID]].concat());
        assert!(!path.exists());
    }
    fs::write(&path, "1\n").unwrap();
    refusal(&["-q", "-P", pid, NO_PID]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    fs::remove_file(&path).unwrap();
    let said = refusal(&["-P", "/no/such/folder/pid", NO_PID]);
    assert!(said.starts_with("Couldn't open PID file /no/such/folder/pid: "), "{said}");
}

#[test]
fn log_file_has_what_stderr_has() {
    let path = fresh("log");
    let log = path.to_str().unwrap();
    let said = refusal(&["-q", "--log-file", log, NO_PID]);
    let kept = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let mut lines = kept.lines();
    assert!(lines.next().unwrap().starts_with("pasta "));
    let first = lines.next().unwrap().split_once(": ERROR:   ").unwrap().1;
    assert_eq!(Some(first), said.lines().next());
    let said = refusal(&["-l", "/no/such/folder/log", NO_PID]);
    assert!(said.starts_with("Couldn't open log file /no/such/folder/log: "), "{said}");
}
