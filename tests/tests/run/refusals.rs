//! Hosts on which a run cannot start: each refusal says what to do.

use slirp_tests::*;

use crate::scene::Scene;

/// Runs `true`, which must be refused with these words.
fn assert_refused(output: &Output, words: &[&str]) {
    assert_eq!(output.status.code(), Some(125), "{}", output.stderr);
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is not in {}", output.stderr);
    }
    assert!(output.stderr.contains("\nhint: "), "{}", output.stderr);
}

#[test]
fn missing_device_is_named() {
    for scene in needs!(Scene::each()) {
        scene.host.script("rm /dev/net/tun");
        assert_refused(&scene.run(&["true"]), &["/dev/net/tun", "load the tun module"]);
        assert_eq!(scene.processes(), [0; 0]);
    }
}

#[test]
fn taken_port_is_named() {
    for scene in needs!(Scene::each()) {
        let _taken = TcpServer::echo(&scene.host, "0.0.0.0:18081".parse().expect("an address"));
        let output = scene.run(&["-p", "18081:80", "true"]);
        assert_refused(&output, &["18081", "publish another"]);
    }
}

#[test]
fn failure_of_the_network_is_told_on_one_processor_too() {
    let scene = needs!(Scene::of(Account::Ordinary));
    let _taken = TcpServer::echo(&scene.host, "0.0.0.0:18081".parse().expect("an address"));
    // Whether the network or the process inside ends first is left to the kernel.
    let script = "cpu=$(taskset -cp $$); cpu=${cpu##*: }
         for round in $(seq 40); do
             taskset -c ${cpu%%[,-]*} $RUN -p 18081:80 true 2>&1 | grep 18081 || echo silent
         done";
    let output = scene.beside(script);
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 40, "{}{}", output.stdout, output.stderr);
    assert!(lines.iter().all(|line| line.contains("18081")), "{}", output.stdout);
}

#[test]
fn standard_input_as_the_policy_of_the_environment_is_named() {
    for scene in needs!(Scene::each()) {
        let output = scene.beside("echo 'allow any' | SLIRP_POLICY=/dev/stdin $RUN true");
        assert_refused(&output, &["invalid SLIRP_POLICY: /dev/stdin (stdin", "give a file"]);
    }
}

#[test]
fn forbidden_user_namespaces_are_named() {
    for scene in needs!(Scene::each()) {
        // The limit of a user namespace holds inside it alone.
        let script = "exec unshare --user --map-root-user sh -euc \
                      'echo 0 > /proc/sys/user/max_user_namespaces; exec $RUN true'";
        let output = scene.beside(script);
        assert_refused(&output, &["cannot make a user namespace", "user.max_user_namespaces"]);
    }
}

#[test]
fn program_that_its_user_may_not_read_is_named() {
    let scene = needs!(Scene::of(Account::Ordinary));
    scene.host.script(&format!("chmod 0711 {}", scene.program));
    let output = scene.run(&["true"]);
    assert_refused(&output, &["cannot map ids", "Permission denied", "chmod a+r"]);
}

#[test]
fn root_without_the_right_to_map_root_is_named() {
    let scene = needs!(Scene::of(Account::Root));
    let output = scene.beside("exec setpriv --bounding-set=-setfcap $RUN true");
    assert_refused(&output, &["cannot map ids", "CAP_SETFCAP", "--cap-add=SETFCAP"]);
}

#[test]
fn missing_proc_is_named() {
    let scene = needs!(Scene::of(Account::Root));
    let output = scene.beside("exec unshare --mount sh -euc 'umount -l /proc; exec $RUN true'");
    assert_refused(&output, &["cannot start this program again", "mount /proc"]);
}

#[test]
fn network_of_nobody_and_our_own_are_refused() {
    for scene in needs!(Scene::each()) {
        let output = scene.run(&["--net-of=999999999", "true"]);
        assert_refused(&output, &["/proc/999999999/ns/net", "no process of this number"]);
        let output = scene.beside("exec $RUN --net-of=$$ true");
        assert_refused(&output, &["ourselves"]);
        let links = scene.host.script("ip -o link");
        assert!(!links.contains("tap0"), "{links}");
    }
}

#[test]
fn root_that_is_no_mount_keeps_the_resolv_conf_of_the_host() {
    let scene = needs!(Scene::of(Account::Root));
    // A network namespace of our own user namespace; the folder of the root is in a shared mount.
    let prepare = format!(
        "cd {}; mkdir -p outer/root netns; mount --bind outer outer; mount --make-shared outer; \
         for it in bin sbin lib lib64 usr etc dev proc tmp; do \
             [ -e /$it ] || continue; \
             if [ -L /$it ]; then cp -P /$it outer/root/$it; continue; fi; \
             mkdir outer/root/$it; mount --rbind /$it outer/root/$it; \
             mount --make-rshared outer/root/$it; \
         done; mkdir -p outer/root/bin-of-run; cp {} outer/root/bin-of-run/",
        scene.folder().display(),
        scene.program
    );
    scene.host.script(&prepare);
    let sleeper = scene.host.spawn(&["unshare", "--net", "sleep", "1000"]);
    let own = scene.host.script("readlink /proc/self/ns/net");
    wait_until(PATIENCE, "the namespace is there", || {
        std::fs::read_link(format!("/proc/{}/ns/net", sleeper.pid()))
            .is_ok_and(|theirs| theirs.display().to_string() != own.trim())
    });
    let root = format!("{}/outer/root", scene.folder().display());
    let file = format!("cat {root}/etc/resolv.conf");
    let before = scene.host.script(&file);
    let run = |options: &[&str]| {
        let pid = format!("--net-of={}", sleeper.pid());
        let argv = ["chroot", &root, "/bin-of-run/slirp", "run", &pid];
        scene.host.exec(&[&argv[..], options, &["--", "true"]].concat())
    };
    let output = run(&["--no-sandbox"]);
    assert_eq!(scene.host.script(&file), before, "{}", output.stderr);
    assert_refused(&output, &["cannot keep mounts from the host", "--no-dns"]);
    let output = run(&["--no-sandbox", "--no-dns"]);
    assert!(output.status.success(), "{}", output.stderr);
    drop(sleeper);
}

#[test]
fn proc_of_another_pid_namespace_is_named() {
    for scene in needs!(Scene::each()) {
        let unshare = "exec unshare --user --map-root-user --mount --pid --fork";
        let output = scene.beside(&format!("{unshare} $RUN true"));
        assert_refused(&output, &["another PID namespace", "mount -t proc proc /proc"]);
        let output = scene.beside(&format!("{unshare} --mount-proc $RUN echo fine"));
        assert_eq!(output.stdout, "fine\n", "{}", output.stderr);
    }
}
