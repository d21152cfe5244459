//! Names through 10.0.2.3: every record type, failover, and resolv.conf as it changes.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use slirp_tests::*;

/// A loopback resolver as systemd-resolved has it.
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// The query that [`CannedDns`] answers in these tests: www.example.test A, id 0x1234, with AD set
/// and an OPT record with DO, 1232 bytes.
const QUERY: &[u8] = b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\x01\
    \x03www\x07example\x04test\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\0";

/// An answer that no two encoders would write alike: odd case, a compressed name, an unknown type,
/// TTLs, AD.
fn canned_answer(last: u8) -> Vec<u8> {
    let mut answer = b"\0\0\x81\xa0\0\x01\0\x02\0\0\0\x01\
        \x03www\x07example\x04test\0\0\x01\0\x01\
        \xc0\x0c\0\x01\0\x01\0\0\x00\x07\0\x04\xcb\0\x71"
        .to_vec();
    answer.push(last);
    answer.extend(b"\x03WwW\xc0\x10\xff\x00\0\x01\0\x01\x51\x80\0\x03\x01\xff\x00");
    answer.extend(b"\0\0\x29\x04\xd0\0\0\x80\0\0\x06\xff\xfe\0\x02\xab\xcd");
    answer
}

fn ask(world: &World, limit: Duration) -> Option<Vec<u8>> {
    let socket = world.guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    socket.connect((NAMESERVER, 53)).unwrap();
    socket.set_read_timeout(Some(limit)).unwrap();
    socket.send(QUERY).unwrap();
    let mut buffer = [0; 2048];
    socket.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())
}

fn with_id(mut answer: Vec<u8>) -> Vec<u8> {
    answer[..2].copy_from_slice(&QUERY[..2]);
    answer
}

fn dig(namespace: &Namespace, server: &str, question: &[&str]) -> String {
    let at = format!("@{server}");
    let mut argv = vec!["dig", &at, "+tries=1", "+time=50", "+nocookie"];
    argv.extend(question);
    let output = namespace.exec(&argv);
    assert!(output.status.success(), "dig {question:?}: {}{}", output.stdout, output.stderr);
    output.stdout
}

/// The lines of dig's output that come from the answer itself: no id, no times, no server.
fn substance(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| {
            !line.is_empty()
                && !line.contains("<<>>")
                && ![";; Query time", ";; SERVER", ";; WHEN"].iter().any(|p| line.starts_with(p))
        })
        .map(|line| line.split(", id:").next().unwrap_or(line).to_owned())
        .collect()
}

#[test]
fn every_question_gets_the_answer_that_the_host_gets() {
    let world = needs!(World::root());
    let _dns = Dnsmasq::start(&world.host, STUB, &[]);
    let world = world.online(&[]);
    let questions: &[&[&str]] = &[
        &["www.example.test", "A"],
        &["www.example.test", "AAAA"],
        &["text.example.test", "TXT"],
        &["example.test", "MX"],
        &["_sip._tcp.example.test", "SRV"],
        &["strange.example.test", "TYPE65280"],
        &["www.example.test", "A", "+dnssec"],
        &["www.example.test", "A", "+noedns"],
        &["www.example.test", "A", "+bufsize=4096", "+adflag", "+cdflag"],
        &["WwW.eXaMpLe.TeSt", "A"],
        &["nothing.example.test", "A"],
        &["nothing.auth.test", "A"],
        &["www.example.test", "A", "+tcp"],
        &["nothing.example.test", "A", "+tcp"],
        &["large.example.test", "TXT", "+ignore"],
        &["large.example.test", "TXT", "+tcp"],
        &["large.example.test", "TXT"],
    ];
    for question in questions {
        let direct = dig(&world.host, "127.0.0.53", question);
        let guest = dig(&world.guest, "10.0.2.3", question);
        assert_eq!(substance(&guest), substance(&direct), "{question:?}");
    }
}

#[test]
fn answers_and_questions_pass_byte_for_byte() {
    let world = needs!(World::root());
    let dns = CannedDns::start(&world.host, STUB, canned_answer(10));
    let world = world.online(&[]);
    let answer = ask(&world, PATIENCE).expect("an answer");
    assert_eq!(answer, with_id(canned_answer(10)));
    let query = dns.queries().pop().expect("a query");
    assert_eq!(query[2..], QUERY[2..], "all but the id");
}

#[test]
fn several_questions_on_one_tcp_connection_are_answered() {
    use std::io::{Read, Write};
    let world = needs!(World::root());
    let _dns = CannedDns::start(&world.host, STUB, canned_answer(11));
    let world = world.online(&[]);
    let mut stream = connect(&world.guest, (NAMESERVER, 53).into()).unwrap();
    for _ in 0..3 {
        let len = u16::try_from(QUERY.len()).unwrap();
        stream.write_all(&[&len.to_be_bytes(), QUERY].concat()).unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, with_id(canned_answer(11)));
    }
}

#[test]
fn ordinary_user_resolves_names() {
    let world = needs!(World::ordinary());
    let _dns = Dnsmasq::start(&world.host, STUB, &[]);
    let world = world.online(&[]);
    let text = dig(&world.guest, "10.0.2.3", &["www.example.test", "A", "+short"]);
    assert_eq!(text, "203.0.113.10\n");
}

#[test]
fn loopback_resolver_works_with_host_loopback_disabled() {
    let world = needs!(World::root());
    let _dns = Dnsmasq::start(&world.host, STUB, &[]);
    let world = world.online(&["--disable-host-loopback"]);
    for extra in ["+notcp", "+tcp"] {
        let text = dig(&world.guest, "10.0.2.3", &["www.example.test", "A", "+short", extra]);
        assert_eq!(text, "203.0.113.10\n", "{extra}");
    }
}

#[test]
fn second_nameserver_answers_where_the_first_is_dead() {
    let world = needs!(World::root());
    world.remote.script("ip route add blackhole 192.0.2.0/24");
    let _dns = Dnsmasq::start(&world.host, STUB, &[]);
    let world = world.online(&[]);
    // Refusing, silent, unreachable.
    for first in ["127.0.0.9", "192.0.2.53", "198.51.100.77"] {
        world.write_resolv_conf(&format!("nameserver {first}\nnameserver 127.0.0.53\n"));
        wait_until(PATIENCE, first, || {
            let answer = world.guest.exec(&[
                "dig",
                "@10.0.2.3",
                "+tries=1",
                "+time=7",
                "+short",
                "www.example.test",
            ]);
            answer.stdout == "203.0.113.10\n"
        });
    }
}

#[test]
fn resolv_conf_is_followed_while_running() {
    let world = needs!(World::root());
    let _first = CannedDns::start(&world.host, STUB, canned_answer(1));
    let _second = CannedDns::start(&world.host, "127.0.0.54".parse().unwrap(), canned_answer(2));
    let _third = CannedDns::start(&world.host, "127.0.0.55".parse().unwrap(), canned_answer(3));
    let world = world.online(&[]);
    let answered_by = |last: u8| {
        wait_until(PATIENCE, &format!("server {last} answers"), || {
            ask(&world, Duration::from_secs(3)) == Some(with_id(canned_answer(last)))
        });
    };
    answered_by(1);
    world.write_resolv_conf("nameserver 127.0.0.54\n");
    answered_by(2);
    world.replace_resolv_conf("# by a network manager\nnameserver 127.0.0.55\n");
    answered_by(3);
    world.host.script("rm /etc/resolv.conf");
    world.replace_resolv_conf("nameserver 127.0.0.53\n");
    answered_by(1);
}

#[test]
fn silent_resolver_blocks_nothing_else() {
    let world = needs!(World::root());
    world.remote.script("ip route add blackhole 192.0.2.0/24");
    world.write_resolv_conf("nameserver 192.0.2.53\noptions timeout:30\n");
    let world = world.online(&[]);
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let socket = world.guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    for _ in 0..2000 {
        socket.send_to(QUERY, (NAMESERVER, 53)).unwrap();
    }
    connect(&world.guest, server.address()).expect("TCP works beside a dead resolver");
    socket.set_nonblocking(true).unwrap();
    let error = socket.recv(&mut [0; 512]).expect_err("no query was given up meanwhile");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    assert!(world.slirp.facts().open_files() < 1500, "queries in flight are capped");
}

#[test]
fn host_without_a_nameserver_asks_its_own_loopback() {
    let world = needs!(World::root());
    let _dns = CannedDns::start(&world.host, "127.0.0.1".parse().unwrap(), canned_answer(9));
    world.write_resolv_conf("search example.test\n");
    let world = world.online(&[]);
    let answer = ask(&world, PATIENCE);
    assert_eq!(answer, Some(with_id(canned_answer(9))));
}

#[test]
fn given_resolvers_are_asked_instead_of_those_of_the_host() {
    let world = needs!(World::root());
    let given = SocketAddr::from((Ipv4Addr::LOCALHOST, 5353));
    let host = CannedDns::start(&world.host, STUB, canned_answer(1));
    let ours = CannedDns::start_at(&world.host, given, canned_answer(2));
    let options = ["--dns=127.0.0.1:5353", "--disable-host-loopback"];
    let world = world.online(&options);
    let answer = ask(&world, PATIENCE);
    assert_eq!(answer, Some(with_id(canned_answer(2))));
    // The file is not read then.
    world.replace_resolv_conf("nameserver 127.0.0.53\n# changed\n");
    let text = dig(&world.guest, "10.0.2.3", &["www.example.test", "A", "+short", "+tcp"]);
    assert!(text.contains("203.0.113.2\n"), "{text}");
    assert_eq!((host.queries().len(), ours.queries().len()), (0, 2));
}

#[test]
fn second_given_resolver_answers_where_the_first_is_dead() {
    let world = needs!(World::root());
    let second = SocketAddr::from((Ipv6Addr::LOCALHOST, 5353));
    let _second = CannedDns::start_at(&world.host, second, canned_answer(3));
    let world = world.online(&["--dns=127.0.0.9", "--dns=[::1]:5353"]);
    let answer = ask(&world, PATIENCE);
    assert_eq!(answer, Some(with_id(canned_answer(3))));
}

#[test]
fn given_link_local_resolver_is_asked_on_its_link() {
    let world = needs!(World::root());
    world.remote.script("ip addr add fe80::53/64 dev r0 nodad");
    let scope = world.remote.enter(|| nix::net::if_::if_nametoindex("r0")).unwrap();
    let at = SocketAddrV6::new("fe80::53".parse().unwrap(), 53, 0, scope);
    let _dns = CannedDns::start_at(&world.remote, at.into(), canned_answer(4));
    wait_until(PATIENCE, "a link-local address of the host", || {
        world.host.script("ip -6 addr show dev h0 scope link -tentative").contains("fe80")
    });
    let options = ["--dns=fe80::53%h0", "--outbound-addr6=2001:db8:1::1"];
    let world = world.online(&options);
    let answer = ask(&world, PATIENCE);
    assert_eq!(answer, Some(with_id(canned_answer(4))));
}

#[test]
fn garbage_on_the_nameserver_port_is_survived() {
    let world = needs!(World::root());
    let _dns = CannedDns::start(&world.host, STUB, canned_answer(10));
    let world = world.online(&[]);
    let socket = world.guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    for len in [0_usize, 1, 2, 11, 12, 13, 64, 512, 1472] {
        let mut text = vec![0; len];
        send_exact(&mut text[..], len, len).unwrap();
        socket.send_to(&text, (NAMESERVER, 53)).unwrap();
    }
    let answer = ask(&world, PATIENCE);
    assert_eq!(answer, Some(with_id(canned_answer(10))));
    assert!(world.slirp.facts().is_alive());
}
