//! Rootless Buildah and `podman build`, unmodified, which take the binary under test from `PATH`.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{IpAddr, Ipv4Addr};

use slirp_tests::*;

const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54));
const CURL: &str = "curl --silent --show-error --max-time 50";

/// What only the network that Buildah starts has.
const FACTS: &str = "ip -o link show tap0 | grep -o 'mtu [0-9]*'; head -n1 /etc/resolv.conf";

/// A session that can build, a nameserver of the host, and a page beyond it.
fn site(session: Session) -> (Session, Dnsmasq, TcpServer) {
    session.write_image();
    session.write_settings();
    session.world.write_resolv_conf("nameserver 127.0.0.54\n");
    let dns = Dnsmasq::start(&session.world.host, RESOLVER, &[]);
    let web = web_server(&session.world.remote, (FAR, 80).into());
    std::fs::write(
        session.home().join("Containerfile"),
        format!(
            "FROM scratch\nADD image.tar /\n\
             RUN {CURL} http://203.0.113.10/ http://www.example.test/ >/tmp/pages\n\
             RUN cat /tmp/pages; {FACTS}\n"
        ),
    )
    .unwrap();
    (session, dns, web)
}

/// What the last step of the build says.
const STEPS: &str = "visitor 198.51.100.1\nvisitor 198.51.100.1\nmtu 65520\nnameserver 10.0.2.3\n";

fn assert_no_network_is_left(session: &Session) {
    wait_until(IO_LIMIT, "the network of the build is gone", || session.networks().is_empty());
}

#[test]
fn run_fetches_by_address_and_by_name() {
    let session = needs!(Session::open(&["buildah", "runc", "newuidmap"]));
    let (session, _dns, _web) = site(session);
    session.succeed(&["buildah", "from", "--name=work", "scratch"]);
    session.succeed(&["buildah", "add", "work", "image.tar", "/"]);
    let script = format!("{CURL} http://203.0.113.10/ http://www.example.test/; {FACTS}");
    let run = ["buildah", "run", "--isolation=rootless", "--runtime=runc", "--volume=/usr:/usr:ro"];
    let text = session.succeed(&[run.as_slice(), &["work", "--", "sh", "-euc", &script]].concat());
    assert_eq!(text, STEPS);
    assert_no_network_is_left(&session);
}

#[test]
fn build_steps_fetch_by_address_and_by_name() {
    let session = needs!(Session::open(&["buildah", "runc", "newuidmap", "tar"]));
    let (session, _dns, _web) = site(session);
    let text = session.succeed(&[
        "buildah",
        "bud",
        "--isolation=rootless",
        "--runtime=runc",
        "--volume=/usr:/usr:ro",
        "--tag=built",
        ".",
    ]);
    assert!(text.contains(STEPS), "{text}");
    assert_no_network_is_left(&session);
}

#[test]
fn podman_build_steps_fetch_by_address_and_by_name() {
    let session = needs!(Session::open(&["podman", "runc", "newuidmap", "tar"]));
    let (session, _dns, _web) = site(session);
    let text = session.succeed(&["podman", "build", "--volume=/usr:/usr:ro", "--tag=built", "."]);
    assert!(text.contains(STEPS), "{text}");
    assert_no_network_is_left(&session);
}
