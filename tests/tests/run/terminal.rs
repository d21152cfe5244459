//! A run in a terminal: what is typed, stops, sizes, programs that draw.

use slirp_tests::*;

use crate::scene::{Scene, state_of};

#[test]
fn interrupt_ends_the_command_and_the_shell_sees_it() {
    for scene in needs!(Scene::each()) {
        let terminal = needs!(scene.terminal());
        terminal.press(&["slirp run -- sh -c 'echo beg''un; exec sleep 1000'", "Enter"]);
        terminal.wait_for("begun");
        terminal.press(&["C-c"]);
        terminal.press(&["echo status is $?", "Enter"]);
        terminal.wait_for("status is 130");
        terminal.press(&[
            "slirp run -- bash -c 'trap \"echo hea''rd; exit 3\" INT; echo re''ady; \
                          while :; do sleep 0.02; done'",
            "Enter",
        ]);
        terminal.wait_for("ready");
        terminal.press(&["C-c"]);
        terminal.wait_for("heard");
        terminal.press(&["echo then $?", "Enter"]);
        terminal.wait_for("then 3");
        assert_eq!(scene.processes(), [0; 0]);
    }
}

#[test]
fn typed_signal_comes_once() {
    for scene in needs!(Scene::each()) {
        let terminal = needs!(scene.terminal());
        let run = format!(
            "slirp run -- bash -c 'n=0; trap \"echo he''ard \\$((++n))\" INT; \
             trap \"echo al''l \\$n; exit\" USR2; echo $PPID > {}; while :; do sleep 0.02; done'",
            scene.file("run")
        );
        terminal.press(&[&run, "Enter"]);
        let run = scene.line_of("run").parse().expect("a number");
        terminal.press(&["C-c"]);
        terminal.wait_for("heard 1");
        // Comes behind whatever the run has made of what was typed.
        crate::scene::send(run, nix::sys::signal::Signal::SIGUSR2);
        let screen = terminal.wait_for("all ");
        assert!(screen.contains("all 1"), "{screen}");
    }
}

/// Brings the last job, whose command ends like this, to the foreground. The shell names it once
/// lines are edited by the terminal again; what is typed before would be lost.
fn to_foreground(terminal: &Terminal, job: &str) {
    let count = |screen: &str| screen.lines().filter(|line| line.ends_with(job)).count();
    let before = count(&terminal.screen());
    terminal.press(&["fg", "Enter"]);
    terminal.wait_until("the job is named", |screen| count(screen) > before);
}

#[test]
fn stopped_run_is_a_job_that_goes_on_in_the_foreground() {
    for scene in needs!(Scene::each()) {
        let terminal = needs!(scene.terminal());
        terminal
            .press(&["slirp run -- sh -c 'echo beg''un; read x; echo got $x; exit 4'", "Enter"]);
        terminal.wait_for("begun");
        terminal.press(&["C-z"]);
        terminal.wait_for("Stopped");
        to_foreground(&terminal, "bin/slirp \"$@\"");
        terminal.press(&["words", "Enter"]);
        terminal.wait_for("got words");
        terminal.press(&["echo status is $?", "Enter"]);
        terminal.wait_for("status is 4");
        // A job in the background that reads is stopped, too.
        terminal.press(&["slirp run -- sh -c 'read x; echo read $x' &", "Enter"]);
        let is_stopped = |pid: u32| state_of(pid) == Some('T');
        wait_until(PATIENCE, "the run stops", || scene.processes().into_iter().any(is_stopped));
        to_foreground(&terminal, "echo read $x'");
        terminal.press(&["more", "Enter"]);
        terminal.wait_for("read more");
    }
}

/// Waits for the prompt, which a shell shows once it edits lines. What is typed before may be lost.
fn wait_for_turn(terminal: &Terminal) {
    terminal.wait_until("the shell asks", |screen| screen.trim_end().ends_with("your turn"));
}

#[test]
fn shell_inside_has_jobs_of_its_own() {
    for scene in needs!(Scene::each()) {
        let terminal = needs!(scene.terminal());
        terminal.press(&["slirp run -- env PS1='your turn ' bash --norc -i", "Enter"]);
        wait_for_turn(&terminal);
        terminal.press(&["sh -c 'echo na''pping; exec sleep 1000'", "Enter"]);
        terminal.wait_for("napping");
        terminal.press(&["C-z"]);
        terminal.wait_for("Stopped");
        wait_for_turn(&terminal);
        terminal.press(&["fg", "Enter"]);
        let is_back = |screen: &str| screen.matches("exec sleep 1000").count() == 3;
        terminal.wait_until("the job goes on", is_back);
        terminal.press(&["C-c"]);
        wait_for_turn(&terminal);
        terminal.press(&["echo still $((20 + 3))", "Enter"]);
        terminal.wait_for("still 23");
        terminal.press(&["exit 9", "Enter"]);
        terminal.press(&["echo outer is $?", "Enter"]);
        terminal.wait_for("outer is 9");
    }
}

#[test]
fn size_of_the_terminal_is_seen() {
    for scene in needs!(Scene::each()) {
        let terminal = needs!(scene.terminal());
        let script = "trap \"stty size\" WINCH; echo beg''un; while :; do sleep 0.02; done";
        terminal.press(&[&format!("slirp run -- bash -c '{script}'"), "Enter"]);
        terminal.wait_for("begun");
        terminal.resize(70, 20);
        terminal.wait_for("20 70");
        terminal.press(&["C-c"]);
    }
}

/// What makes the remote a machine with one account, whose password is `sesame`. Logins are written
/// down in memory.
const ACCOUNT: &str = "for folder in /run /var/log; do mount -t tmpfs tmpfs $folder; done
    cd FOLDER
    echo 'root:x:0:0::/:/bin/sh' > passwd
    echo \"root:$(openssl passwd -6 sesame):20000::::::\" > shadow
    for file in passwd shadow; do mount --bind $file /etc/$file; done
    dropbearkey -t ed25519 -f key";

#[test]
fn ssh_asks_for_a_password_and_hands_on_sizes_and_interrupts() {
    for scene in needs!(Scene::each()) {
        needs!(is_installed("ssh").and_then(|()| is_installed("dropbear")));
        let terminal = needs!(scene.terminal());
        scene.remote.script(&ACCOUNT.replace("FOLDER", &scene.folder().display().to_string()));
        let key = scene.file("key");
        let _server = scene.remote.spawn(&["dropbear", "-F", "-E", "-r", &key, "-p", "22"]);
        let listening = || scene.remote.script("ss -Hltn sport = :22");
        wait_until(PATIENCE, "the server listens", || !listening().is_empty());
        terminal.press(&["PS1='your turn '", "Enter"]);
        wait_for_turn(&terminal);
        // ssh wants to know who it runs as, which this machine does not know of the ordinary user.
        let ssh = "ssh -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null";
        terminal.press(&[&format!("slirp run --map-root -- {ssh} root@{FAR}"), "Enter"]);
        terminal.wait_for("password:");
        terminal.press(&["sesame", "Enter"]);
        terminal.wait_until("a prompt", |screen| screen.trim_end().ends_with('#'));
        terminal.resize(70, 20);
        terminal
            .press(&["until stty size | grep '20 70'; do sleep 0.02; done; echo si''zed", "Enter"]);
        terminal.wait_for("sized");
        terminal.press(&["sh -c 'echo nap''ping; exec sleep 1000'", "Enter"]);
        terminal.wait_for("napping");
        terminal.press(&["C-c"]);
        terminal.press(&["echo still $((20 + 3)) for ${SSH_CONNECTION%% *}", "Enter"]);
        terminal.wait_for("still 23 for 198.51.100.1");
        terminal.press(&["exit 9", "Enter"]);
        wait_for_turn(&terminal);
        terminal.press(&["echo left with $?", "Enter"]);
        terminal.wait_for("left with 9");
        assert_eq!(scene.processes(), [0; 0]);
    }
}

#[test]
fn editor_draws_and_saves() {
    for scene in needs!(Scene::each()) {
        let editor = ["vim", "vim.tiny"].into_iter().find(|name| is_installed(name).is_ok());
        let editor = needs!(editor.ok_or(Missing("neither vim nor vim.tiny is installed".into())));
        let terminal = needs!(scene.terminal());
        let file = scene.file("edited");
        terminal.press(&["PS1='your turn '", "Enter"]);
        wait_for_turn(&terminal);
        terminal.press(&[&format!("slirp run -- {editor} -u NONE {file}"), "Enter"]);
        terminal.wait_for("~");
        terminal.press(&["i"]);
        terminal.press(&["written inside", "Escape"]);
        terminal.wait_for("written inside");
        terminal.press(&["C-z"]);
        terminal.wait_for("Stopped");
        wait_for_turn(&terminal);
        terminal.press(&["fg", "Enter"]);
        terminal.wait_for("~");
        terminal.press(&[":wq", "Enter"]);
        wait_for_turn(&terminal);
        terminal.press(&["echo left with $?", "Enter"]);
        terminal.wait_for("left with 0");
        assert_eq!(scene.host.script(&format!("cat {file}")), "written inside\n");
    }
}
