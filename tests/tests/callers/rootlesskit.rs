//! RootlessKit, unmodified, with the binary under test as its `--slirp4netns-binary`: what rootless
//! Docker, nerdctl, k3s and BuildKit run.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use slirp_tests::*;

const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54));
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CURL: &str = "curl --silent --show-error --max-time 50";

fn arguments<'a>(binary: &'a str, options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let fixed = ["rootlesskit", "--net=slirp4netns", "--copy-up=/etc"];
    [&fixed as &[_], &["--slirp4netns-binary", binary], options, &["sh", "-euc", script]].concat()
}

/// Runs a script as root of RootlessKit's namespaces, which must succeed.
fn run(session: &Session, options: &[&str], script: &str) -> String {
    let binary = session.world.reachable_binary();
    session.succeed(&arguments(binary.to_str().unwrap(), options, script))
}

/// Starts [`WHO`] there on ports 80 and 81. It ends when its input does.
fn serve(session: &Session, options: &[&str]) -> Background {
    let binary = session.world.reachable_binary();
    session.write_image();
    // Asynchronous commands of a shell read from /dev/null.
    let script = "/usr/bin/python3 who.py 0.0.0.0 80 81 >served & read end || kill $!";
    let running = session.spawn(&arguments(binary.to_str().unwrap(), options, script));
    let served = session.home().join("served");
    let started_at = Instant::now();
    while !std::fs::read_to_string(&served).is_ok_and(|text| text == "serving\n") {
        if started_at.elapsed() > IO_LIMIT {
            let output = running.finish();
            panic!("it does not serve: {}{}", output.stdout, output.stderr);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    running
}

fn assert_ended(session: &Session) {
    wait_until(IO_LIMIT, "the session is empty", || session.processes().is_empty());
}

fn resolver(world: &World) -> Dnsmasq {
    world.write_resolv_conf("nameserver 127.0.0.54\n");
    Dnsmasq::start(&world.host, RESOLVER, &[])
}

fn status(session: &Session) -> String {
    let networks = session.networks();
    assert_eq!(networks.len(), 1, "{networks:?}");
    session.proc(&format!("{}/status", networks[0].pid))
}

#[test]
fn namespace_fetches_by_address_gateway_and_name() {
    let session = needs!(Session::open(&["rootlesskit", "newuidmap"]));
    let _dns = resolver(&session.world);
    let _far = web_server(&session.world.remote, (FAR, 80).into());
    let _web = web_server(&session.world.host, (LOOPBACK, 8000).into());
    let fetch =
        format!("{CURL} http://203.0.113.10/ http://www.example.test/ http://10.0.2.2:8000/");
    let text = run(&session, &[], &format!("cat /sys/class/net/tap0/mtu; {fetch}"));
    let seen = "visitor 198.51.100.1\nvisitor 198.51.100.1\nvisitor 127.0.0.1\n";
    assert_eq!(text, format!("65520\n{seen}"));
    assert_ended(&session);
}

#[test]
fn policy_of_the_environment_holds_for_the_namespace() {
    let session = needs!(Session::open(&["rootlesskit", "newuidmap"]));
    let _dns = resolver(&session.world);
    let _far = web_server(&session.world.remote, (FAR, 80).into());
    let _other = web_server(&session.world.remote, (REMOTE_2, 80).into());
    let file = session.home().join("policy");
    std::fs::write(&file, "allow www.example.test\n").unwrap();
    let variable = format!("SLIRP_POLICY={}", file.display());
    let script = format!(
        "{CURL} http://www.example.test/; {CURL} http://{REMOTE_2}/ || echo $?; \
         {CURL} http://other.example.test/ || echo $?"
    );
    let binary = session.world.reachable_binary();
    let rootlesskit = arguments(binary.to_str().unwrap(), &[], &script);
    let text = session.succeed(&[&["env", &variable], &rootlesskit[..]].concat());
    assert_eq!(text, "visitor 198.51.100.1\n7\n6\n");
    assert_ended(&session);
}

#[test]
fn host_loopback_can_be_closed_while_its_resolver_answers() {
    let session = needs!(Session::open(&["rootlesskit", "newuidmap"]));
    let _dns = resolver(&session.world);
    let _web = web_server(&session.world.host, (LOOPBACK, 8000).into());
    let text = run(
        &session,
        &["--disable-host-loopback"],
        &format!("dig +short +time=50 www.example.test; {CURL} http://10.0.2.2:8000/ || echo $?"),
    );
    assert_eq!(text, "203.0.113.10\n7\n");
}

#[test]
fn cidr_and_mtu_are_as_asked_for() {
    let session = needs!(Session::open(&["rootlesskit", "newuidmap"]));
    let _dns = resolver(&session.world);
    let _far = web_server(&session.world.remote, (FAR, 80).into());
    for (cidr, guest, mtu) in
        [("10.5.6.0/24", "10.5.6.100/24", "1500"), ("10.41.0.0/16", "10.41.0.100/16", "65520")]
    {
        let text = run(
            &session,
            &["--cidr", cidr, "--mtu", mtu],
            &format!(
                "ip -4 -brief addr show tap0; cat /sys/class/net/tap0/mtu
                {CURL} http://www.example.test/"
            ),
        );
        let words: Vec<_> = text.split_whitespace().collect();
        assert_eq!(words[2..], [guest, mtu, "visitor", "198.51.100.1"], "{text}");
    }
}

#[test]
fn ipv6_comes_by_router_advertisement() {
    let session = needs!(Session::open(&["rootlesskit", "newuidmap"]));
    let _far = web_server(&session.world.remote, (FAR_V6, 80).into());
    let script = format!(
        "for try in $(seq 500); do
            ip -6 route show default | grep -q fe80::2 &&
                ! ip -6 addr show tap0 | grep -q tentative && break
            sleep 0.1
        done
        {CURL} http://[2001:db8:2::10]/"
    );
    assert_eq!(run(&session, &["--ipv6"], &script), "visitor 2001:db8:1::1\n");
}

#[test]
fn sandbox_and_seccomp_are_used() {
    let session = needs!(Session::open(&["rootlesskit", "newuidmap"]));
    let _dns = resolver(&session.world);
    for choice in ["auto", "true"] {
        let options = [
            &format!("--slirp4netns-sandbox={choice}"),
            &format!("--slirp4netns-seccomp={choice}"),
            "--port-driver=slirp4netns",
            "--publish=0.0.0.0:8080:80/tcp",
        ];
        let running = serve(&session, &options);
        let status = status(&session);
        for line in ["CapEff:\t0000000000000400", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.lines().any(|said| said == line), "{line} in {status}");
        }
        assert_eq!(ask_tcp(&session.world.remote, (HOST, 8080).into()), "tcp 198.51.100.2");
        assert!(running.finish().status.success());
        assert_ended(&session);
        std::fs::remove_file(session.home().join("served")).unwrap();
    }
}

#[test]
fn ports_of_its_slirp4netns_driver_show_the_clients_address() {
    let session = needs!(Session::open(&["rootlesskit", "newuidmap"]));
    let options = [
        "--disable-host-loopback",
        "--port-driver=slirp4netns",
        "--publish=0.0.0.0:8080:80/tcp",
        "--publish=0.0.0.0:8081:81/udp",
        "--publish=127.0.0.1:8082:80/tcp",
    ];
    let running = serve(&session, &options);
    let world = &session.world;
    assert_eq!(ask_tcp(&world.remote, (HOST, 8080).into()), "tcp 198.51.100.2");
    assert_eq!(ask_udp(&world.remote, (HOST, 8081).into()), "udp 198.51.100.2");
    assert_eq!(ask_tcp(&world.host, (LOOPBACK, 8082).into()), "tcp 10.0.2.2");
    let refused = connect(&world.remote, (HOST, 8082).into()).unwrap_err();
    assert_eq!(refused.errno, Errno::ECONNREFUSED);
    assert!(running.finish().status.success());
    assert_ended(&session);
    let gone = connect(&world.remote, (HOST, 8080).into()).unwrap_err();
    assert_eq!(gone.errno, Errno::ECONNREFUSED);
}

#[test]
fn ports_are_added_and_removed_while_it_runs() {
    let session = needs!(Session::open(&["rootlesskit", "newuidmap", "rootlessctl"]));
    let running =
        serve(&session, &["--port-driver=slirp4netns", "--state-dir=/mnt/run/rootlesskit"]);
    let control = |arguments: &[&str]| {
        let program = ["rootlessctl", "--socket=/mnt/run/rootlesskit/api.sock"];
        session.succeed(&[&program, arguments].concat())
    };
    control(&["add-ports", "0.0.0.0:8080:80/tcp"]);
    control(&["add-ports", "0.0.0.0:8081:81/tcp"]);
    let world = &session.world;
    assert_eq!(ask_tcp(&world.remote, (HOST, 8080).into()), "tcp 198.51.100.2");
    assert_eq!(ask_tcp(&world.remote, (HOST, 8081).into()), "tcp 198.51.100.2");
    let list = control(&["list-ports"]);
    assert!(list.contains("8080") && list.contains("8081"), "{list}");
    control(&["remove-ports", "1"]);
    let gone = connect(&world.remote, (HOST, 8080).into()).unwrap_err();
    assert_eq!(gone.errno, Errno::ECONNREFUSED);
    assert_eq!(ask_tcp(&world.remote, (HOST, 8081).into()), "tcp 198.51.100.2");
    assert!(running.finish().status.success());
    assert_ended(&session);
}

#[test]
fn ports_of_its_builtin_driver_work_beside_the_network() {
    let session = needs!(Session::open(&["rootlesskit", "newuidmap"]));
    let options = [
        "--disable-host-loopback",
        "--port-driver=builtin",
        "--publish=0.0.0.0:8080:80/tcp",
        "--publish=0.0.0.0:8081:81/udp",
    ];
    let running = serve(&session, &options);
    assert_eq!(ask_tcp(&session.world.remote, (HOST, 8080).into()), "tcp 127.0.0.1");
    assert_eq!(ask_udp(&session.world.remote, (HOST, 8081).into()), "udp 127.0.0.1");
    assert!(running.finish().status.success());
    assert_ended(&session);
}

/// The options of dockerd-rootless.sh and containerd-rootless.sh, which ask `--help` first.
#[test]
fn rootless_docker_script_finds_and_starts_it() {
    let session = needs!(Session::open(&["rootlesskit", "newuidmap"]));
    let _dns = resolver(&session.world);
    let _far = web_server(&session.world.remote, (FAR, 80).into());
    let script = format!(
        "slirp4netns --help | grep -qw -- --netns-type || exit 3
        exec rootlesskit --net=slirp4netns --mtu=65520 --slirp4netns-sandbox=auto \
            --slirp4netns-seccomp=auto --disable-host-loopback --port-driver=builtin \
            --copy-up=/etc --copy-up=/run --propagation=rslave {CURL} http://www.example.test/"
    );
    assert_eq!(session.succeed(&["bash", "-euc", &script]), "visitor 198.51.100.1\n");
    assert_ended(&session);
}
