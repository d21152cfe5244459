//! Rootless Docker, unmodified: its start script finds the binary under test in `PATH`.
//!
//! Debian's package would start a daemon of its own and change the firewall, so `.ci/run` only
//! unpacks it and sets `SLIRP_REQUIRE_DOCKER=1`. Elsewhere the test says `SKIPPED` unless Docker is
//! there.

use std::time::Duration;

use slirp_tests::*;

const PROGRAMS: &[&str] =
    &["dockerd-rootless.sh", "dockerd", "docker", "containerd", "runc", "rootlesskit", "iptables"];

/// The daemon and the client live in one shell, so that the daemon ends with the test.
const START: &str = "export DOCKER_HOST=unix:///mnt/run/docker.sock
    export DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX=auto
    export DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SECCOMP=auto
    dockerd-rootless.sh --storage-driver=vfs >daemon.log 2>&1 </dev/null &
    for try in $(seq 600); do docker info >/dev/null 2>&1 && break; sleep 0.1; done
    docker import image.tar box >/dev/null
";

const FETCH_AND_PUBLISH: &str = "docker run --rm --volume=/usr:/usr:ro box \
        curl --silent --show-error --max-time 50 http://203.0.113.10/ http://www.example.test/
    docker run --detach --name=web --publish=8080:80 --volume=/usr:/usr:ro box \
        /usr/bin/python3 -u /who.py 0.0.0.0 80 >/dev/null
    for try in $(seq 600); do docker logs web | grep -q serving && break; sleep 0.1; done
    echo serving
    read end || :
    docker rm --force web >/dev/null
";

/// By name; by an address that no rule allows; by a name that none allows.
const FETCH_UNDER_POLICY: &str = "for url in www.example.test 198.51.100.3 other.example.test; do
        docker run --rm --volume=/usr:/usr:ro box \
            curl --silent --max-time 50 http://$url/ || echo $?
    done
";

const END: &str = "
    kill $(cat /mnt/run/docker.pid)
    wait";

/// Whether all programs are there; what is missing has been said.
fn has_docker() -> bool {
    let Some(missing) = PROGRAMS.iter().find_map(|program| is_installed(program).err()) else {
        return true;
    };
    let required = std::env::var_os("SLIRP_REQUIRE_DOCKER").is_some_and(|value| value == "1");
    assert!(!required, "SLIRP_REQUIRE_DOCKER=1 and {}", missing.0);
    say_skipped(&missing);
    false
}

#[test]
fn policy_of_the_environment_holds_for_containers_of_rootless_docker() {
    if !has_docker() {
        return;
    }
    let session = needs!(Session::open(&["newuidmap"]));
    let world = &session.world;
    world.write_resolv_conf("nameserver 127.0.0.54\n");
    let _dns = Dnsmasq::start(&world.host, "127.0.0.54".parse().unwrap(), &[]);
    let _far = web_server(&world.remote, (FAR, 80).into());
    let _other = web_server(&world.remote, (REMOTE_2, 80).into());
    session.write_image();
    let file = session.home().join("policy");
    std::fs::write(&file, "allow www.example.test\n").unwrap();
    let variable = format!("SLIRP_POLICY={}", file.display());
    let script = format!("{START}    {FETCH_UNDER_POLICY}{END}");
    let output = session.exec(&["env", &variable, "bash", "-euc", &script]);
    let log = std::fs::read_to_string(session.home().join("daemon.log")).unwrap_or_default();
    assert_eq!(output.stdout, "visitor 198.51.100.1\n7\n6\n", "{}{log}", output.stderr);
    wait_until(IO_LIMIT, "the network is gone", || session.networks().is_empty());
}

#[test]
fn containers_of_rootless_docker_fetch_and_are_published() {
    if !has_docker() {
        return;
    }
    let session = needs!(Session::open(&["newuidmap"]));
    let world = &session.world;
    world.write_resolv_conf("nameserver 127.0.0.54\n");
    let _dns = Dnsmasq::start(&world.host, "127.0.0.54".parse().unwrap(), &[]);
    let _far = web_server(&world.remote, (FAR, 80).into());
    session.write_image();
    let script = format!("{START}    {FETCH_AND_PUBLISH}{END}");
    let script = script.replace("echo serving", "touch serving");
    let docker = session.spawn(&["bash", "-euc", &script]);
    let serving = session.home().join("serving");
    let log = || std::fs::read_to_string(session.home().join("daemon.log")).unwrap_or_default();
    let started_at = std::time::Instant::now();
    while !serving.exists() {
        let ended = !ProcessFacts(docker.pid()).is_alive();
        assert!(!ended && started_at.elapsed() < PATIENCE * 2, "{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let networks = session.networks();
    assert_eq!(networks.len(), 1, "{networks:?}");
    for option in ["--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"] {
        assert!(networks[0].arguments.iter().any(|word| word == option), "{networks:?}");
    }
    assert!(ask_tcp(&world.remote, (HOST, 8080).into()).starts_with("tcp "));
    let output = docker.finish();
    assert!(output.status.success(), "{}{}", output.stderr, log());
    assert_eq!(output.stdout, "visitor 198.51.100.1\nvisitor 198.51.100.1\n", "{}", output.stderr);
    // Shims of containers may outlive the daemon, and end with the session.
    wait_until(IO_LIMIT, "the network is gone", || session.networks().is_empty());
}
