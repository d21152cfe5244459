//! How a run ends: with the status of its command.

use std::os::unix::process::ExitStatusExt as _;

use slirp_tests::*;

use crate::scene::Scene;

#[test]
fn status_is_the_commands() {
    for scene in needs!(Scene::each()) {
        for status in [0, 1, 7, 125, 255] {
            let script = format!("exit {status}");
            let output = scene.run(&["sh", "-c", &script]);
            assert_eq!(output.status.code(), Some(status), "{}", output.stderr);
            assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
        }
    }
}

#[test]
fn death_by_a_signal_is_handed_on() {
    for scene in needs!(Scene::each()) {
        for signal in [1, 2, 3, 6, 9, 11, 15] {
            let script = format!("ulimit -c 0; kill -{signal} $$");
            let output = scene.run(&["sh", "-c", &script]);
            assert_eq!(output.status.signal(), Some(signal), "{}", output.stderr);
        }
        // A shell shows it as 128 + n; a real-time signal, too.
        for (signal, status) in [("TERM", "143"), ("KILL", "137"), ("RTMIN+3", "165")] {
            let script = format!("$RUN -- bash -c 'kill -{signal} $$' || echo status $?");
            let output = scene.beside(&script);
            assert_eq!(output.stdout, format!("status {status}\n"), "{}", output.stderr);
        }
    }
}

#[test]
fn command_that_cannot_be_run_has_the_status_of_shells() {
    for scene in needs!(Scene::each()) {
        let output = scene.run(&["--", "/nonexistent/program"]);
        assert_eq!(output.status.code(), Some(127));
        let text = "slirp run: /nonexistent/program: No such file or directory\n";
        assert_eq!(output.stderr, text);
        let output = scene.run(&["--", "/etc"]);
        assert_eq!(output.status.code(), Some(126));
        assert_eq!(output.stderr, "slirp run: /etc: Permission denied\n");
        let output = scene.outside("", &format!("PATH=/usr/bin {} run nope", scene.program));
        assert_eq!(output.status.code(), Some(127));
        assert!(output.stderr.contains("no folder of $PATH has it"), "{}", output.stderr);
    }
}

#[test]
fn without_a_command_the_users_shell_runs() {
    for scene in needs!(Scene::each()) {
        for (shell, expected) in [("SHELL=/usr/bin/id", "uid="), ("SHELL=", "/bin/sh\n")] {
            let output = scene.beside(&format!("echo 'echo $0' | {shell} $RUN"));
            assert!(output.status.success(), "{}", output.stderr);
            assert!(output.stdout.starts_with(expected), "{}", output.stdout);
        }
    }
}

#[test]
fn standard_streams_are_the_commands() {
    for scene in needs!(Scene::each()) {
        let output = scene.beside("echo hello | $RUN -- sh -c 'cat; echo aside >&2'");
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("hello\n", "aside\n"));
        // Whoever reads from the command sees its end when the command closes, not when it ends.
        let fifo = scene.file("fifo");
        let script = format!(
            "mkfifo {fifo}; $RUN -- sh -c 'echo early; exec >&-; cat {fifo} >/dev/null' | \
             {{ cat; echo over > {fifo}; }}"
        );
        assert_eq!(scene.beside(&script).stdout, "early\n");
    }
}

#[test]
fn help_and_wrong_options_have_statuses_of_their_own() {
    let scene = needs!(Scene::of(Account::Root));
    let output = scene.run(&["--help"]);
    assert!(output.status.success());
    assert!(output.stdout.starts_with("Usage: slirp run [OPTION]..."), "{}", output.stdout);
    let output = scene.run(&["--publsh=80:80", "true"]);
    assert_eq!(output.status.code(), Some(125));
    let text = "slirp run: --publsh is no option of slirp run; did you mean --publish?\n\
                hint: slirp run --help lists the options\n";
    assert_eq!(output.stderr, text);
    for word in ["become-command", "connect-command"] {
        let output = scene.host.exec(&[&scene.program, word]);
        assert_eq!(output.status.code(), Some(125), "{}", output.stderr);
        assert!(output.stderr.contains("words of slirp alone"), "{}", output.stderr);
    }
}

#[test]
fn program_answers_to_the_name_of_slirp4netns() {
    let scene = needs!(Scene::of(Account::Root));
    let link = scene.file("slirp4netns");
    scene.host.script(&format!("ln -s {} {link}", scene.program));
    let version = scene.host.script(&format!("{link} --version"));
    assert!(version.starts_with("slirp4netns version "), "{version}");
}
