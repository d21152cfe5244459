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
