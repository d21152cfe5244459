//! A command is the same inside as outside: ids, files, environment, descriptors, signals.

use std::fs;

use nix::sys::signal::Signal;
use slirp_tests::*;

use crate::scene::{Family, Scene, folder_of, send};

#[test]
fn ids_stay_what_they_are_unless_root_is_asked_for() {
    for scene in needs!(Scene::each()) {
        let id = match scene.account() {
            Account::Root => "0",
            Account::Ordinary => "1500",
        };
        assert_eq!(scene.inside(&[], "id -u; id -g"), format!("{id}\n{id}\n"));
        assert_eq!(scene.inside(&["--map-root"], "id -u; id -g"), "0\n0\n");
        let file = scene.file("made-inside");
        scene.inside(&["--map-root"], &format!("touch {file}"));
        assert_eq!(scene.host.script(&format!("stat -c %u {file}")), format!("{id}\n"));
    }
}

#[test]
fn root_keeps_the_owners_of_files_and_may_become_another() {
    let scene = needs!(Scene::of(Account::Root));
    let file = scene.file("theirs");
    scene.host.script(&format!("touch {file}; chown 1500:1600 {file}"));
    assert_eq!(scene.inside(&[], &format!("stat -c %u:%g {file}")), "1500:1600\n");
    let become_other = "setpriv --reuid=1500 --regid=1500 --clear-groups id -u";
    assert_eq!(scene.inside(&[], become_other), "1500\n");
    let give = format!("chown 1700:1700 {file}");
    scene.inside(&[], &give);
    assert_eq!(scene.host.script(&format!("stat -c %u {file}")), "1700\n");
}

#[test]
fn further_groups_still_open_files() {
    let scene = needs!(Scene::of(Account::Ordinary));
    let file = scene.file("of-the-group");
    scene.host.script(&format!("echo shared > {file}; chgrp 1600 {file}; chmod 0640 {file}"));
    let user = ["setpriv", "--reuid=1500", "--regid=1500", "--groups=1500,1600", "--inh-caps=-all"];
    let run = ["--", scene.program.as_str(), "run", "cat", &file];
    let output = scene.host.exec(&[&user[..], &run].concat());
    assert_eq!(output.stdout, "shared\n", "{}", output.stderr);
}

/// What `script` says with and without us.
fn assert_same(scene: &Scene, script: &str) {
    let (with, without) = (scene.beside(script), scene.outside("", script));
    assert!(without.status.success(), "`{script}`: {}", without.stderr);
    assert_eq!(with.stdout, without.stdout, "`{script}`: {}", with.stderr);
}

#[test]
fn environment_and_folder_are_the_callers() {
    for scene in needs!(Scene::each()) {
        assert_same(&scene, "cd /usr/share; exec env -i A=b \"C=d e\" $RUN /usr/bin/env");
        assert_same(&scene, "cd /usr/share; $RUN pwd");
        assert_same(&scene, &format!("cd {}; $RUN ls", folder_of(&scene).display()));
        // The folder that is covered for a moment stays where it is.
        assert_same(&scene, "cd /tmp; $RUN stat -c %i .");
    }
}

#[test]
fn descriptors_are_the_callers_and_no_others() {
    for scene in needs!(Scene::each()) {
        assert_same(&scene, "exec 5</dev/null 7>/dev/null 8</etc; $RUN ls -1 /proc/self/fd");
        assert_same(&scene, "exec 9</etc/passwd; $RUN sh -c 'head -n1 <&9'");
    }
}

#[test]
fn limits_mask_and_rights_are_the_callers() {
    for scene in needs!(Scene::each()) {
        assert_same(&scene, "ulimit -n 200; $RUN sh -c 'ulimit -a'");
        for field in ["SigBlk", "NoNewPrivs", "Seccomp:", "Umask", "CapAmb"] {
            assert_same(&scene, &format!("umask 027; $RUN grep {field} /proc/self/status"));
        }
        // Bits 31 and 32 are the C library's own, which it sets wherever it starts a process.
        let ignored = "mask=0x$(sed -n 's/^SigIgn:.//p' /proc/self/status); \
                       printf '%x' $((mask & 0x7fffffff))";
        for trap in ["HUP", "INT QUIT", "CHLD", "TERM USR1 TSTP"] {
            assert_same(
                &scene,
                &format!("trap '' {trap}; exec $RUN bash -c \"{}\"", ignored.replace('$', "\\$")),
            );
        }
        let blocked = "import signal, os, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
words = os.environ['RUN'].split() + ['grep', 'SigBlk', '/proc/self/status']
os.execvp(words[0], words)";
        assert_same(&scene, &format!("exec /usr/bin/python3 -c \"{blocked}\""));
    }
}

#[test]
fn root_in_the_namespace_of_an_account_is_that_account() {
    let scene = needs!(Scene::of(Account::Root));
    let theirs = Namespace::container(&scene.host, Account::Ordinary);
    let net_of = format!("--net-of={}", theirs.pid());
    let begun = scene.file("begun");
    let script = format!("id -u > {begun}; exec sleep 1000");
    for names in ["--no-dns", "--mtu=1500"] {
        let user = ["setpriv", "--groups=0,1600", &scene.program, "run"];
        let run = [&user[..], &[&net_of, names, "--", "sh", "-euc", &script]].concat();
        let run = scene.host.spawn(&run);
        wait_until(PATIENCE, "the command runs", || {
            ProcessFacts(run.pid()).is_alive() && fs::exists(&begun).is_ok_and(|it| it)
        });
        assert_eq!(scene.line_of("begun"), "0", "it is root there");
        let command = Family::of(run.pid()).command;
        let status = fs::read_to_string(format!("/proc/{command}/status")).unwrap_or_default();
        for line in ["Uid:\t1500\t1500\t1500\t1500", "Gid:\t1500\t1500\t1500\t1500", "Groups:\t "] {
            assert!(status.lines().any(|shown| shown == line), "{line:?} is not in {status}");
        }
        send(run.pid(), Signal::SIGTERM);
        drop(run);
        scene.host.script(&format!("rm {begun}"));
    }
}

#[test]
fn descriptor_of_the_audit_log_is_the_networks_alone() {
    for scene in needs!(Scene::each()) {
        let log = scene.file("audit.log");
        let script = format!(
            "exec 7>{log}; $RUN --audit-log=fd:7 -- sh -c '[ ! -e /proc/self/fd/7 ] && echo free'"
        );
        let output = scene.beside(&script);
        assert_eq!(output.stdout, "free\n", "{}", output.stderr);
        let said = fs::read_to_string(&log).unwrap_or_default();
        assert!(said.starts_with('{'), "{said}");
    }
}
