//! What the command reaches, and who reaches it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use slirp_tests::*;

use crate::scene::{Family, Scene};

/// A server that says `text` to everybody.
fn says(namespace: &Namespace, at: (IpAddr, u16), text: &'static str) -> TcpServer {
    TcpServer::start(namespace, SocketAddr::from(at), move |mut stream| {
        // A visitor that leaves early is the test's failure to see.
        let _ = stream.write_all(text.as_bytes());
    })
}

#[test]
fn network_is_there_before_the_command() {
    for scene in needs!(Scene::each()) {
        let _far = says(&scene.remote, (FAR, 7000), "from afar\n");
        let _far6 = says(&scene.remote, (FAR_V6, 7000), "from afar by IPv6\n");
        let names = NameServer::start(&scene.remote, REMOTE);
        names.set_address("web.example.test", "203.0.113.10");
        scene.write_resolv_conf(&format!("nameserver {REMOTE}\nsearch example.test\n"));
        assert_eq!(scene.inside(&[], "socat -u TCP:203.0.113.10:7000 -"), "from afar\n");
        let by_name = "getent ahostsv4 web | head -n1 | cut -d' ' -f1";
        assert_eq!(scene.inside(&[], by_name), "203.0.113.10\n");
        let by_ipv6 = "socat -u TCP6:[2001:db8:2::10]:7000 -";
        assert_eq!(scene.inside(&[], by_ipv6), "from afar by IPv6\n");
        let file = "cat /etc/resolv.conf";
        assert_eq!(scene.inside(&[], file), "nameserver 10.0.2.3\nsearch example.test\n");
        let options =
            ["--search-domain=a.test", "--cidr=10.9.0.0/24", "--mtu", "1500", "--no-ipv6"];
        let shown =
            scene.inside(&options, "cat /etc/resolv.conf; ip -o addr show tap0; ip -o link");
        assert!(shown.starts_with("nameserver 10.9.0.3\nsearch a.test\n"), "{shown}");
        assert!(shown.contains("inet 10.9.0.100/24") && shown.contains("mtu 1500"), "{shown}");
        assert!(!shown.contains("fd00:"), "{shown}");
        let host = format!("nameserver {REMOTE}\nsearch example.test\n");
        assert_eq!(scene.host.script(file), host, "the host's own is as it was");
    }
}

/// The kernel sends what a program has written after its end, too.
#[test]
fn last_words_of_a_command_arrive() {
    const SAY: &str = "import os, socket
stream = socket.create_connection(('203.0.113.10', 7000))
stream.sendall(b'x' * 300000)
os._exit(0)";
    for scene in needs!(Scene::each()) {
        let (tell, told) = std::sync::mpsc::channel();
        let _far = TcpServer::start(&scene.remote, SocketAddr::from((FAR, 7000)), move |mut it| {
            let mut said = Vec::new();
            let outcome = it.read_to_end(&mut said).map(|_| said.len());
            let _ = tell.send(outcome.map_err(|error| error.kind()));
        });
        for _ in 0..10 {
            let output = scene.run(&["--", "/usr/bin/python3", "-c", SAY]);
            assert!(output.status.success(), "{}", output.stderr);
            assert_eq!(told.recv_timeout(PATIENCE), Ok(Ok(300_000)));
        }
    }
}

#[test]
fn linked_resolv_conf_is_covered_where_it_leads() {
    for scene in needs!(Scene::each()) {
        let target = scene.file("stub.conf");
        let script =
            format!("echo 'nameserver 192.0.2.1' > {target}; ln -sf {target} /etc/resolv.conf");
        scene.host.script(&script);
        assert_eq!(scene.inside(&[], "cat /etc/resolv.conf"), "nameserver 10.0.2.3\n");
        assert_eq!(scene.inside(&["--no-dns"], "cat /etc/resolv.conf"), "nameserver 192.0.2.1\n");
        scene.host.script("rm /etc/resolv.conf");
        let output = scene.run(&["true"]);
        assert!(output.status.success());
        assert!(output.stderr.contains("no /etc/resolv.conf"), "{}", output.stderr);
    }
}

#[test]
fn resolv_conf_is_for_everybody_whatever_the_umask() {
    for scene in needs!(Scene::each()) {
        let shown = scene.beside("umask 077; $RUN stat -c %a /etc/resolv.conf");
        assert_eq!(shown.stdout, "644\n", "{}", shown.stderr);
    }
}

#[test]
fn comment_in_another_encoding_leaves_the_domains() {
    for scene in needs!(Scene::each()) {
        let host = "printf '# \\351t\\351\\nsearch example.test\\n' > /etc/resolv.conf";
        scene.host.script(host);
        let shown = scene.inside(&[], "cat /etc/resolv.conf");
        assert_eq!(shown, "nameserver 10.0.2.3\nsearch example.test\n");
    }
}

#[test]
fn command_may_ping_and_listen_at_low_ports_without_rights() {
    for scene in needs!(Scene::each()) {
        scene.inside(&[], "ping -c1 -W20 10.0.2.2 && ping -c1 -W20 127.0.0.1 && ping -6 -c1 ::1");
        let serve = "socat TCP-LISTEN:80,reuseaddr SYSTEM:'echo served'";
        let run = scene.start(&["--publish", "18080:80"], serve);
        let to = SocketAddr::from((HOST, 18080));
        let listens = || connect(&scene.remote, to).is_ok();
        wait_until(PATIENCE, "the port is open", listens);
        drop(run);
        scene.host.wait_for_free_port(18080);
        let begun = scene.file("listening");
        let serve = format!(
            "socat TCP-LISTEN:80,reuseaddr,fork SYSTEM:'echo served' & \
             while ! ss -Hltn sport = :80 | grep -q 80; do sleep 0.02; done; \
             echo yes > {begun}; wait"
        );
        let run = scene.start(&["--publish", "18080:80"], &serve);
        scene.line_of("listening");
        assert_eq!(ask_tcp(&scene.remote, to), "served\n");
        drop(run);
    }
}

#[test]
fn hosts_loopback_is_closed_unless_it_is_opened() {
    for scene in needs!(Scene::each()) {
        let _own = says(&scene.host, (Ipv4Addr::LOCALHOST.into(), 7001), "mine\n");
        let ask = "socat -u TCP:10.0.2.2:7001,connect-timeout=20 - || echo refused";
        let output = scene.run(&["sh", "-c", ask]);
        assert_eq!(output.stdout, "refused\n", "{}", output.stderr);
        assert_eq!(scene.inside(&["--host-loopback"], ask), "mine\n");
    }
}

#[test]
fn rules_are_in_force() {
    for scene in needs!(Scene::each()) {
        let _allowed = says(&scene.remote, (FAR, 7000), "allowed\n");
        let _denied = says(&scene.remote, (FAR, 7002), "denied\n");
        let ask = |port| format!("socat -u TCP:203.0.113.10:{port},connect-timeout=20 - || true");
        let rule = "--allow=203.0.113.10:7000";
        assert_eq!(scene.inside(&[rule], &ask(7000)), "allowed\n");
        assert_eq!(scene.run(&[rule, "sh", "-c", &ask(7002)]).stdout, "");
        let log = scene.file("audit.log");
        let option = format!("--audit-log={log}");
        scene.run(&[rule, &option, "sh", "-c", &ask(7002)]);
        let said = scene.host.script(&format!("cat {log}"));
        assert!(said.contains("7002"), "{said}");
        let bad = scene.run(&["--allow=a b c", "true"]);
        assert_eq!(bad.status.code(), Some(125), "{}", bad.stderr);
    }
}

#[test]
fn engine_is_sandboxed_and_filtered() {
    for scene in needs!(Scene::each()) {
        let begun = scene.file("begun");
        let script = format!("echo yes > {begun}; while :; do sleep 0.02; done");
        let run = scene.start(&[], &script);
        scene.line_of("begun");
        let network = Family::of(run.pid()).network;
        let status = fs::read_to_string(format!("/proc/{network}/status")).unwrap_or_default();
        assert!(status.contains("Seccomp:\t2"), "{status}");
        assert!(status.contains("CapEff:\t0000000000000400"), "{status}");
        let root = fs::read_dir(format!("/proc/{network}/root")).expect("root may look");
        assert_eq!(root.count(), 0);
        drop(run);
        scene.inside(&["--no-sandbox", "--no-seccomp"], "ping -c1 -W20 10.0.2.2");
    }
}

#[test]
fn command_joins_a_network_that_exists() {
    for scene in needs!(Scene::each()) {
        let pid = scene.guest.pid();
        let by_pid = format!("--net-of={pid}");
        let theirs = scene.guest.script("readlink /proc/self/ns/net");
        let look = "readlink /proc/self/ns/net; ping -c1 -W20 10.0.2.2 >/dev/null";
        assert_eq!(scene.inside(&[&by_pid], look), theirs);
        let by_path = format!("--net-of=/proc/{pid}/ns/net");
        assert_eq!(scene.inside(&[&by_path], look), theirs);
        assert!(!scene.guest.script("ip -o link").contains("tap0"), "it is as it was");
    }
}
