//! What a collector reads of a running network, and that the guest does not reach it.
//!
//! The collector is the parser of Prometheus's own client library (Debian's
//! python3-prometheus-client), which is strict about OpenMetrics.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;

use nix::errno::Errno;
use slirp_tests::*;

use crate::hello::hello;
use crate::scene::*;

/// Scrapes the socket of the first argument in the dialect of the second, and prints each sample.
const COLLECTOR: &str = r#"
import socket, sys
from prometheus_client import openmetrics, parser
from prometheus_client.openmetrics import parser as strict

where, dialect = sys.argv[1:]
parse, accepted = {
    'openmetrics': (strict.text_string_to_metric_families, 'application/openmetrics-text'),
    'plain': (parser.text_string_to_metric_families, 'text/plain'),
}[dialect]
if where.startswith('/'):
    client = socket.socket(socket.AF_UNIX)
    client.connect(where)
else:
    host, port = where.rsplit(':', 1)
    client = socket.create_connection((host.strip('[]'), int(port)))
client.sendall(f'GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accepted}\r\n\r\n'.encode())
reply = b''.join(iter(lambda: client.recv(65536), b''))
head, body = reply.split(b'\r\n\r\n', 1)
lines = head.decode().split('\r\n')
assert lines[0] == 'HTTP/1.0 200 OK', lines[0]
fields = dict(line.split(': ', 1) for line in lines[1:])
assert fields['Content-Type'].startswith(accepted + ';'), fields
assert int(fields['Content-Length']) == len(body), fields
for family in parse(body.decode()):
    assert family.documentation and family.type != 'unknown', family
    for sample in family.samples:
        labels = ','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))
        print(f'{sample.name}{{{labels}}} {sample.value:.0f}')
"#;

/// The module that [`COLLECTOR`] imports.
const LIBRARY: &str = "/usr/lib/python3/dist-packages/prometheus_client";

type Samples = BTreeMap<String, u64>;

/// Everything on the page, as a collector in the host's network namespace reads it.
fn scrape(scene: &Online, address: &str, dialect: &str) -> Samples {
    let argv = ["/usr/bin/python3", "-c", COLLECTOR, address, dialect];
    let output = scene.host.exec(&argv);
    assert!(output.status.success(), "{}", output.stderr);
    let line = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    output.stdout.lines().filter_map(line).collect()
}

fn value(samples: &Samples, sample: &str) -> u64 {
    *samples.get(sample).unwrap_or_else(|| panic!("{sample} is not among {samples:#?}"))
}

#[test]
fn a_collector_reads_what_the_policy_has_decided() {
    needs!(is_there(LIBRARY));
    let world = needs!(World::root());
    let path = world.folder().join("metrics");
    let option = format!("--metrics=unix:{}", path.display());
    let audit = format!("--audit-log={}", world.folder().join("audit").display());
    let options = ["--enable-sandbox", "--enable-seccomp", &option, &audit];
    let policy = "allow index.example\ndeny 203.0.113.66";
    let scene = Scene::with(world, policy, &options, &[80, 443]);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let at = SocketAddr::new(INDEX, 443);
    assert_eq!(scene.refused(at), Errno::EHOSTUNREACH);
    assert_eq!(scene.lookup("index.example", "A"), Found::Addresses(vec![INDEX]));
    assert_eq!(scene.lookup("x.attacker.example", "A"), Found::NoSuchName);
    assert_eq!(scene.exchange(at, &[&hello("index.example")]), SEEN);
    assert!(scene.exchange(at, &[&hello("evil.example")]).starts_with(ALERT));
    for _ in 0..2 {
        assert_eq!(scene.refused((NOBODY, 443).into()), Errno::EHOSTUNREACH);
    }
    let address = path.to_str().unwrap();
    let samples = scrape(&scene.online, address, "openmetrics");
    for (sample, expected) in [
        ("slirp_policy_rules{action=allow}", 2),
        ("slirp_policy_rules{action=deny}", 1),
        ("slirp_policy_revision{}", 1),
        ("slirp_policy_verdicts_total{cause=rule,proto=tcp,verdict=allow}", 2),
        ("slirp_policy_verdicts_total{cause=rule,proto=tcp,verdict=deny}", 2),
        ("slirp_policy_verdicts_total{cause=no-name,proto=tcp,verdict=deny}", 1),
        ("slirp_policy_verified_total{kind=tls,result=pass}", 1),
        ("slirp_policy_verified_total{kind=tls,result=name}", 1),
        ("slirp_policy_names_bound{}", 1),
        ("slirp_policy_bindings{}", 1),
        ("slirp_dns_distinct_names{}", 0),
        ("slirp_audit_lost_total{}", 0),
        ("slirp_policy_bindings_evicted_total{}", 0),
        ("slirp_dns_queries_total{answer=bound}", 1),
        ("slirp_dns_queries_total{answer=nxdomain}", 1),
        ("slirp_dns_upstream_seconds_count{}", 1),
        ("slirp_flows_opened_total{by=guest,proto=tcp}", 2),
        ("slirp_discards_total{reason=egress_denied}", 3),
        ("slirp_discards_total{reason=egress_unverified}", 1),
        ("slirp_members{}", 0),
    ] {
        assert_eq!(value(&samples, sample), expected, "{sample}");
    }
    let bytes = "slirp_flow_bytes_total{direction=from_guest,proto=tcp}";
    assert!(value(&samples, bytes) > 100, "{samples:#?}");
    assert!(value(&samples, "slirp_audit_events_total{}") > 2, "{samples:#?}");
    let plain = scrape(&scene.online, address, "plain");
    let names = |samples: &Samples| samples.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&plain), names(&samples), "the same samples in either dialect");
}

#[test]
fn failures_of_the_host_have_their_reason() {
    needs!(is_there(LIBRARY));
    let world = needs!(World::root());
    let online = world.online(&["--metrics=127.0.0.1:9100"]);
    let failure = connect(&online.guest, (GATEWAY, 4).into()).unwrap_err();
    assert_eq!(failure.errno, Errno::ECONNREFUSED);
    let samples = scrape(&online, "127.0.0.1:9100", "openmetrics");
    assert_eq!(value(&samples, "slirp_connect_failures_total{reason=refused}"), 1);
    assert!(!samples.keys().any(|name| name.starts_with("slirp_policy")), "there is no policy");
}

/// Whether the guest is told that there is no way, while another port of the address is open.
fn is_closed_to_the_guest(online: &Online, ip: std::net::IpAddr, port: u16) {
    let failure = connect(&online.guest, (ip, port).into()).expect_err("the guest got through");
    assert!([Errno::ENETUNREACH, Errno::EHOSTUNREACH].contains(&failure.errno), "{failure:?}");
    let other = TcpServer::echo(&online.host, (ip_of_host(ip), port + 1).into());
    let mut stream = connect(&online.guest, (ip, other.address().port()).into())
        .expect("the host's loopback is open");
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

fn ip_of_host(gateway: std::net::IpAddr) -> std::net::IpAddr {
    if gateway.is_ipv4() {
        std::net::Ipv4Addr::LOCALHOST.into()
    } else {
        std::net::Ipv6Addr::LOCALHOST.into()
    }
}

/// A guest that looks for the listeners of its own network.
#[test]
fn guest_does_not_reach_the_metrics_although_the_hosts_loopback_is_open() {
    let world = needs!(World::root());
    let online = world.online(&["--metrics=127.0.0.1:9100"]);
    is_closed_to_the_guest(&online, GATEWAY, 9100);
    let reaches = |to: SocketAddr| online.host.enter(|| TcpStream::connect(to).is_ok());
    assert!(reaches("127.0.0.1:9100".parse().unwrap()), "collectors of the host do");
}

/// The same by IPv6, and under a policy that opens the host's loopback.
#[test]
fn guest_does_not_reach_the_metrics_by_ipv6_or_by_a_rule() {
    let world = needs!(World::root());
    let policy = world.folder().join("open");
    std::fs::write(&policy, "allow host-loopback\n").unwrap();
    let policy = format!("--policy={}", policy.display());
    let online = world.online_with_ipv6(&["--metrics=[::1]:9100", &policy]);
    is_closed_to_the_guest(&online, "fd00::2".parse().unwrap(), 9100);
}
