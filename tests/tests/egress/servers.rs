//! Real clients against the servers of their own protocol, allowed and denied: HTTP/2, git over
//! ssh, time, and another resolver before and behind the gate.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::fs;
use std::net::IpAddr;

use slirp_tests::*;

use crate::clients::{Web, run, with_openssl};
use crate::scene::*;

/// Waits until somebody listens at `port` in `namespace`, by TCP or by UDP.
fn wait_for(namespace: &Namespace, protocol: &str, port: u16) {
    let sockets = format!("ss -Hln{protocol} sport = :{port}");
    wait_until(PATIENCE, "the server listens", || !namespace.script(&sockets).is_empty());
}

#[test]
fn http2_by_curl_and_nghttp() {
    let policy = "allow .index.example:80,443,8443";
    let web = Web::new(needs!(World::root().and_then(with_openssl)), policy);
    needs!(is_installed("nghttpd"));
    needs!(is_installed("nghttp"));
    let (scene, ca) = (&web.scene, &web.certificate[..]);
    let key = ca.replace("cert.pem", "key.pem");
    let root = web.root.to_str().unwrap();
    let server = ["nghttpd", "--address=203.0.113.7", "-d", root, "8443", &key, ca];
    let _server = scene.remote.spawn(&server);
    wait_for(&scene.remote, "t", 8443);
    let curl = |arguments: &[&str]| {
        let fixed = ["curl", "-sS", "--http2", "--max-time", "30", "--cacert", ca];
        run(scene, &[&fixed, arguments, &["-w", " by HTTP/%{http_version}"]].concat())
    };
    curl(&["https://index.example:8443/file"]).assert_succeeded("the file\n by HTTP/2");
    curl(&["https://evil.example:8443/file"]).assert_failed(6, "Could not resolve host");
    let resolve = ["--resolve", "evil.example:8443:203.0.113.7", "https://evil.example:8443/file"];
    curl(&resolve).assert_failed(35, "access denied");
    let nghttp = |url: &str| run(scene, &["nghttp", url]);
    nghttp("https://www.index.example:8443/file").assert_succeeded("the file");
    let denied = nghttp("https://evil.example:8443/file");
    assert!(!denied.text.contains("the file"), "{}", denied.text);
    // HTTP/2 without TLS has its names where nobody looks for them.
    let plain = nghttp("http://index.example/file");
    assert!(!plain.text.contains("the file"), "{}", plain.text);
    // The offer of it alone is no harm: the request is one of HTTP/1.1, and so is the next.
    curl(&["http://index.example/file"]).assert_succeeded("the file\n by HTTP/1.1");
    web.assert_only_index();
}

#[test]
fn git_over_ssh() {
    let world = needs!(World::root());
    needs!(is_there("/usr/sbin/sshd"));
    needs!(is_installed("git"));
    let scene = Scene::with(world, "allow git.index.example:22", &[], &[443]);
    scene.dns.set_address("git.index.example", "203.0.113.7");
    let folder = scene.folder().to_str().unwrap();
    scene.remote.script(&format!(
        "mkdir -p /run/sshd; cd {folder}; export GIT_CONFIG_GLOBAL=/dev/null HOME={folder}
         ssh-keygen -q -t ed25519 -N '' -f host; ssh-keygen -q -t ed25519 -N '' -f user
         git init -q work; cd work
         git -c user.name=a -c user.email=a@index.example commit -q --allow-empty -m first
         git clone -q --bare . ../repo.git"
    ));
    let (host_key, keys) = (format!("-oHostKey={folder}/host"), format!("{folder}/user.pub"));
    let keys = format!("-oAuthorizedKeysFile={keys}");
    let _server = scene.remote.spawn(&[
        "/usr/sbin/sshd",
        "-D",
        "-f/dev/null",
        "-oListenAddress=203.0.113.7:22",
        "-oStrictModes=no",
        "-oPermitRootLogin=prohibit-password",
        "-oPidFile=none",
        &host_key,
        &keys,
    ]);
    wait_for(&scene.remote, "t", 22);
    let ssh = format!(
        "GIT_SSH_COMMAND=ssh -F /dev/null -i {folder}/user -o BatchMode=yes \
         -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    );
    let clone = |host: &str| {
        let (from, to) = (format!("ssh://root@{host}{folder}/repo.git"), format!("{folder}/clone"));
        let ended = run(&scene, &["env", &ssh, "git", "clone", &from, &to]);
        // The next one needs the place.
        let _ = fs::remove_dir_all(to);
        ended
    };
    clone("git.index.example").assert_succeeded("Cloning");
    clone("evil.example").assert_failed(128, "Could not resolve hostname evil.example");
    clone("203.0.113.66").assert_failed(128, "No route to host");
    // The same address has another name only.
    assert_eq!(scene.lookup("index.example", "A"), Found::NoData, "above an allowed name");
    scene.assert_only(&[INDEX]);
}

#[test]
fn time_by_chrony() {
    let world = needs!(World::root());
    needs!(is_installed("chronyd"));
    let scene = Scene::with(world, "allow udp:time.example:123", &[], &[]);
    scene.dns.set_address("time.example", "203.0.113.7");
    let folder = scene.folder().to_str().unwrap();
    // Neither touches the clock of this machine.
    let ours = |name: &str| {
        ["cmdport 0".to_owned(), "bindcmdaddress /".to_owned(), format!("pidfile {folder}/{name}")]
    };
    let server = ["chronyd", "-x", "-d", "-uroot", "local stratum 1", "allow"];
    let served = ours("server");
    let _server =
        scene.remote.spawn(&[&server[..], &served.each_ref().map(String::as_str)].concat());
    wait_for(&scene.remote, "u", 123);
    let measure = |host: &str| {
        let source = format!("server {host} iburst maxsamples 1");
        let own = ours("client");
        let client = ["chronyd", "-Q", "-t3", "-uroot", "port 0", &source];
        run(&scene, &[&client[..], &own.each_ref().map(String::as_str)].concat())
    };
    measure("time.example").assert_succeeded("System clock wrong by");
    // It is told at once, and asks on until its own time is over.
    for denied in ["203.0.113.66", "evil.example"] {
        let ended = measure(denied);
        assert_eq!(ended.code, Some(1), "{}", ended.text);
    }
    scene.assert_only(&[INDEX]);
}

/// Runs unbound with these lines in its server section, and these behind it.
fn unbound(namespace: &Namespace, file: &str, server: &str, others: &str) -> Background {
    let config = format!(
        "server:\n username: \"\"\n chroot: \"\"\n directory: \"/\"\n pidfile: \"\"\n \
         do-daemonize: no\n use-syslog: no\n module-config: \"iterator\"\n \
         do-not-query-localhost: no\n do-ip6: no\n {server}\nremote-control:\n \
         control-enable: no\n{others}"
    );
    fs::write(file, config).unwrap();
    let process = namespace.spawn(&["/usr/sbin/unbound", "-d", "-c", file]);
    wait_for(namespace, "u", 53);
    process
}

#[test]
fn unbound_before_and_behind_the_gate() {
    let world = needs!(World::root());
    needs!(is_there("/usr/sbin/unbound"));
    world.remote.script("ip route add local 203.0.113.0/24 dev lo");
    let folder = world.folder().to_str().unwrap().to_owned();
    let upstream: IpAddr = "203.0.113.54".parse().unwrap();
    let zone = "interface: 203.0.113.54\n access-control: 0.0.0.0/0 allow\n \
        local-zone: \"index.example.\" static\n \
        local-data: \"www.index.example. 60 IN A 203.0.113.7\"\n \
        local-zone: \"evil.example.\" static\n \
        local-data: \"evil.example. 60 IN A 203.0.113.66\"";
    let _upstream = unbound(&world.remote, &format!("{folder}/upstream"), zone, "");
    let policy = "allow .index.example";
    let scene = Scene::with(world, policy, &["--dns=203.0.113.54"], &[443, 80]);
    scene.dns.set_address("www.index.example", "203.0.113.7");
    let forward = "forward-zone:\n name: \".\"\n forward-addr: 10.0.2.3\n";
    let local = "interface: 127.0.0.1";
    let _inner = unbound(&scene.guest, &format!("{folder}/inner"), local, forward);
    scene.guest.script("printf 'nameserver 127.0.0.1\\n' > /etc/resolv.conf");
    let dig = |name: &str, kind: &str| {
        run(&scene, &["dig", "+tries=1", "+time=20", "@127.0.0.1", name, kind])
    };
    dig("www.index.example", "A").assert_succeeded("203.0.113.7");
    dig("www.index.example", "A").assert_succeeded("203.0.113.7");
    dig("evil.example", "A").assert_succeeded("NXDOMAIN");
    // Names above an allowed one stay NODATA, so that no cache cuts the allowed one off.
    dig("example", "A").assert_succeeded("NOERROR");
    dig("index.example", "HTTPS").assert_succeeded("NOERROR");
    dig("www.index.example", "A").assert_succeeded("203.0.113.7");
    let curl = |url: &str| run(&scene, &["curl", "-sS", "--max-time", "30", url]);
    curl("http://www.index.example/").assert_succeeded("SEEN");
    curl("http://evil.example/").assert_failed(6, "Could not resolve host");
    scene.assert_only(&[INDEX, upstream]);
    for packet in scene.outside.arrived() {
        assert!(!packet.payload.windows(4).any(|window| window == b"evil"), "{packet:?}");
    }
}
