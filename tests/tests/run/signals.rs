//! Signals and stops, as if the command were the caller's own.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;

use nix::libc;
use nix::sys::signal::Signal;
use slirp_tests::*;

use crate::scene::{Family, Scene, send, state_of};

/// A script that says that it has begun and then waits.
fn waiting(scene: &Scene, traps: &str) -> String {
    let begun = scene.file("begun");
    format!("{traps} echo $$ > {begun}; while :; do sleep 0.02; done")
}

#[test]
fn signals_to_the_run_reach_the_command() {
    for scene in needs!(Scene::each()) {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
            let trap = waiting(&scene, &format!("trap 'echo heard; exit 3' {};", signal as i32));
            let run = scene.start(&[], &trap);
            scene.line_of("begun");
            send(run.pid(), signal);
            let output = run.finish();
            assert_eq!((output.status.code(), output.stdout.as_str()), (Some(3), "heard\n"));
            scene.host.script(&format!("rm {}", scene.file("begun")));
        }
        let run = scene.start(&[], &waiting(&scene, ""));
        scene.line_of("begun");
        assert_eq!(run.terminate().status.signal(), Some(15));
    }
}

#[test]
fn signal_that_the_command_sends_to_its_group_comes_once() {
    for scene in needs!(Scene::each()) {
        // The signal of the child comes behind all that the first one has caused.
        let script = "exec setsid --wait $RUN -- bash -euc '
            n=0; trap \"n=\\$((n + 1))\" USR1; trap \"echo \\$n; exit 0\" USR2
            kill -USR1 0; while [ $n = 0 ]; do sleep 0.02; done
            sh -c \"kill -USR2 $PPID; exit 0\"; while :; do sleep 0.02; done'";
        let output = scene.beside(script);
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("1\n", ""));
    }
}

#[test]
fn run_that_is_process_1_reaps_orphans() {
    for scene in needs!(Scene::each()) {
        // One ends by itself, one by a real-time signal.
        let script = "exec unshare --user --map-root-user --mount --pid --kill-child --mount-proc \
            $RUN -- bash -euc '
            orphan() { bash -c \"sleep $1 >&- & echo \\$!\"; }
            killed=$(orphan 1000); ended=$(orphan 0.1); kill -RTMIN+3 $killed
            while [ -e /proc/$killed ] || [ -e /proc/$ended ]; do sleep 0.02; done; exit 3'";
        let output = scene.beside(script);
        assert_eq!(output.status.code(), Some(3), "{}", output.stderr);
    }
}

#[test]
fn signal_that_the_command_ignores_ends_nothing() {
    for scene in needs!(Scene::each()) {
        let end = scene.file("end");
        let script = format!(
            "trap '' TERM; echo $$ > {}; while [ ! -e {end} ]; do sleep 0.02; done; exit 5",
            scene.file("begun")
        );
        let run = scene.start(&[], &script);
        scene.line_of("begun");
        send(run.pid(), Signal::SIGTERM);
        send(run.pid(), Signal::SIGTERM);
        scene.host.script(&format!("touch {end}"));
        assert_eq!(run.finish().status.code(), Some(5));
    }
}

#[test]
fn run_stops_and_goes_on_with_its_command() {
    for scene in needs!(Scene::each()) {
        let script = format!("echo $$ > {}; kill -STOP $$; exit 4", scene.file("begun"));
        let run = scene.start(&[], &script);
        scene.line_of("begun");
        wait_until(PATIENCE, "the run stops", || state_of(run.pid()) == Some('T'));
        let network = Family::of(run.pid()).network;
        assert_ne!(state_of(network), Some('T'), "connections of others go on");
        send(run.pid(), Signal::SIGCONT);
        assert_eq!(run.finish().status.code(), Some(4));
    }
}

/// A run whose network waits for the rules that whoever holds the file does not write.
fn hanging(scene: &Scene) -> (Background, File) {
    let fifo = scene.file("rules");
    scene.host.script(&format!("rm -f {fifo}; mkfifo -m 0666 {fifo}"));
    let run = scene.start(&["--policy", &fifo], "true");
    let open = || File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&fifo);
    let mut writer = None;
    wait_until(PATIENCE, "the network reads the rules", || {
        writer = open().ok();
        writer.is_some()
    });
    (run, writer.expect("a writer"))
}

#[test]
fn start_that_hangs_is_ended_by_signals() {
    for scene in needs!(Scene::each()) {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGKILL] {
            let (run, _writer) = hanging(&scene);
            let pid = run.pid();
            send(pid, signal);
            wait_until(PATIENCE, "no process is left", || scene.processes().is_empty());
            let output = run.finish();
            assert_eq!(output.status.signal(), Some(signal as i32), "{}", output.stderr);
            assert_eq!(output.stderr, "");
        }
    }
}

#[test]
fn only_children_of_the_command_survive_a_run_that_is_killed() {
    for scene in needs!(Scene::each()) {
        let script = format!("sleep 1000 & echo $! > {}; wait", scene.file("begun"));
        let run = scene.start(&[], &script);
        let child: u32 = scene.line_of("begun").parse().expect("a number");
        let family = Family::of(run.pid());
        send(run.pid(), Signal::SIGKILL);
        family.wait_for_end();
        let netns = format!("nsenter --net=/proc/{child}/ns/net ip -o link show tap0 || echo gone");
        assert!(scene.host.script(&netns).contains("gone"));
        send(child, Signal::SIGKILL);
        assert_eq!(run.finish().status.signal(), Some(9));
        wait_until(PATIENCE, "no process is left", || scene.processes().is_empty());
    }
}

#[test]
fn nothing_survives_a_command_that_is_killed() {
    for scene in needs!(Scene::each()) {
        let run = scene.start(&[], &waiting(&scene, ""));
        scene.line_of("begun");
        let family = Family::of(run.pid());
        send(family.command, Signal::SIGKILL);
        assert_eq!(run.finish().status.signal(), Some(9));
        assert_eq!(scene.processes(), [0; 0]);
    }
}

#[test]
fn command_outlives_its_network() {
    for scene in needs!(Scene::each()) {
        let end = scene.file("end");
        let begun = scene.file("begun");
        let script =
            format!("echo $$ > {begun}; while [ ! -e {end} ]; do sleep 0.02; done; exit 6");
        let run = scene.start(&[], &script);
        scene.line_of("begun");
        let family = Family::of(run.pid());
        send(family.network, Signal::SIGKILL);
        wait_until(PATIENCE, "the network is gone", || state_of(family.network).is_none());
        scene.host.script(&format!("touch {end}"));
        let output = run.finish();
        assert_eq!(output.status.code(), Some(6));
        let text =
            "slirp run: the network has ended by signal 9; the command goes on without one\n";
        assert_eq!(output.stderr, text);
    }
}
