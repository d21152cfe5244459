//! What a policy allows works, and what it refuses is told at once: connections, datagrams, pings
//! and lookups, by IPv4 and IPv6.

use std::net::{IpAddr, SocketAddr, TcpListener};

use nix::errno::Errno;
use slirp_tests::*;

use crate::hello::hello;
use crate::scene::*;

const POLICY: &str = "allow .index.example
    allow files.example
    allow git.example:22
    allow *.corp.example private=yes
    allow 10.9.8.7:8443
    deny admin.corp.example note=\"ask the operator\"
    ask api.example";

/// Resolves `name` and hands back its only address.
fn address_of(scene: &Scene, name: &str) -> IpAddr {
    let found = scene.lookup(name, "A");
    let Found::Addresses(addresses) = found else { panic!("{name}: {found:?}") };
    addresses[0]
}

/// Asserts that an asked name has an address that stands for it, behind which nobody is while there
/// is nobody who may decide.
fn assert_asked(scene: &Scene, name: &str) {
    let placeholder = address_of(scene, name);
    let IpAddr::V4(address) = placeholder else { panic!("{name} is {placeholder}") };
    let network = u32::from_be_bytes([198, 19, 192, 0]) >> 14;
    assert_eq!(u32::from(address) >> 14, network, "{name} is {placeholder}");
    assert_eq!(scene.lookup(name, "AAAA"), Found::NoData);
    assert_eq!(scene.refused((placeholder, 443).into()), Errno::EHOSTUNREACH);
}

#[test]
fn rows_of_the_example_policy() {
    let scene = Scene::new(needs!(World::root()), POLICY);
    for (name, address) in [
        ("a.b.index.example", "203.0.113.8"),
        ("git.example", "203.0.113.9"),
        ("db.corp.example", "10.1.2.3"),
        ("admin.corp.example", "203.0.113.11"),
        ("api.example", "203.0.113.12"),
        ("corp.example", "203.0.113.13"),
        ("*", "203.0.113.14"),
    ] {
        scene.dns.set_address(name, address);
    }
    let at = |port| SocketAddr::new(INDEX, port);
    // Before any lookup the address is nobody's.
    assert_eq!(scene.refused(at(443)), Errno::EHOSTUNREACH);
    let index = address_of(&scene, "index.example");
    assert_eq!(index, INDEX);
    assert_eq!(scene.exchange(at(443), &[&hello("index.example")]), SEEN);
    let below = address_of(&scene, "a.b.index.example");
    assert_eq!(scene.exchange((below, 443).into(), &[&hello("a.b.index.example")]), SEEN);
    assert_eq!(scene.refused(at(22)), Errno::EHOSTUNREACH);
    assert_eq!(scene.refused_datagram(at(443)), Errno::EHOSTUNREACH);
    assert!(scene.exchange(at(443), &[&hello("evil.example")]).starts_with(ALERT));
    let git = address_of(&scene, "git.example");
    assert_eq!(scene.exchange((git, 22).into(), &[b"SSH-2.0-x\r\n"]), SEEN);
    assert_eq!(scene.refused((git, 443).into()), Errno::EHOSTUNREACH);
    let db = address_of(&scene, "db.corp.example");
    assert_eq!(scene.exchange((db, 443).into(), &[&hello("db.corp.example")]), SEEN);
    assert_eq!(scene.lookup("admin.corp.example", "A"), Found::NoSuchName);
    let by_address: SocketAddr = "10.9.8.7:8443".parse().unwrap();
    assert_eq!(scene.exchange(by_address, &[b"bytes"]), SEEN);
    for closed in ["10.9.8.8:8443", "10.9.8.7:22", "169.254.169.254:80", "10.0.2.2:8000"] {
        assert_eq!(scene.refused(closed.parse().unwrap()), Errno::EHOSTUNREACH, "{closed}");
    }
    assert_eq!(scene.lookup("x.attacker.example", "A"), Found::NoSuchName);
    assert_eq!(scene.lookup("corp.example", "A"), Found::NoData);
    assert_eq!(scene.lookup("corp.example", "AAAA"), Found::NoData);
    assert_eq!(scene.lookup("example", "A"), Found::NoData);
    assert_asked(&scene, "api.example");
    // Other types of allowed names are asked for; what could hide a name is not.
    assert_eq!(scene.lookup("index.example", "AAAA"), Found::NoData);
    assert_eq!(scene.lookup("index.example", "HTTPS"), Found::NoData);
    let asked: Vec<_> = scene.dns.asked().into_iter().map(|q| (q.name, q.kind)).collect();
    let expected = [
        ("index.example", "A"),
        ("a.b.index.example", "A"),
        ("git.example", "A"),
        ("db.corp.example", "A"),
        ("index.example", "AAAA"),
    ];
    let expected = expected.map(|(name, kind)| (name.to_owned(), record_type(kind)));
    assert_eq!(asked, expected);
    scene.assert_only(&[INDEX, below, git, db, by_address.ip()]);
}

#[test]
fn default_denies_are_told_at_once_by_every_protocol() {
    let scene = Scene::with_ipv6(needs!(World::root()), "allow .index.example");
    let v6: SocketAddr = "[2001:db8:2::7]:443".parse().unwrap();
    assert_eq!(scene.refused((NOBODY, 443).into()), Errno::EHOSTUNREACH);
    assert_eq!(scene.refused(v6), Errno::EACCES);
    assert_eq!(scene.refused_datagram((NOBODY, 4433).into()), Errno::EHOSTUNREACH);
    assert_eq!(scene.refused_datagram(v6), Errno::EACCES);
    let ping = scene.guest.exec(&["ping", "-n", "-c1", "-W5", "203.0.113.66"]);
    assert!(ping.stdout.contains("Packet filtered"), "{}", ping.stdout);
    let ping = scene.guest.exec(&["ping", "-n", "-c1", "-W5", "2001:db8:2::7"]);
    assert!(ping.stdout.contains("Administratively prohibited"), "{}", ping.stdout);
    // What the program itself answers is not judged.
    for address in ["10.0.2.2", "fd00::2"] {
        let ping = scene.guest.exec(&["ping", "-n", "-c1", "-W5", address]);
        assert!(ping.status.success(), "{}", ping.stdout);
    }
    scene.assert_silence();
    // The same address opens with its name.
    scene.dns.set_address("v6.index.example", "2001:db8:2::7");
    let found = scene.lookup("v6.index.example", "AAAA");
    assert_eq!(found, Found::Addresses(vec![v6.ip()]));
    assert_eq!(scene.exchange(v6, &[&hello("v6.index.example")]), SEEN);
    assert!(scene.exchange(v6, &[&hello("evil.example")]).starts_with(ALERT));
    assert_eq!(scene.outside.stream(v6), hello("v6.index.example"));
}

#[test]
fn deny_list_keeps_protected_sets_closed() {
    let scene = Scene::new(needs!(World::root()), "allow any\ndeny private\ndeny evil.example");
    let listener = scene.host.enter(|| TcpListener::bind("127.0.0.1:8443")).unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(scene.exchange((NOBODY, 22).into(), &[b"bytes"]), SEEN);
    for closed in ["10.1.1.1:22", "192.168.1.1:22", "10.0.2.2:8443", "169.254.169.254:80"] {
        assert_eq!(scene.refused(closed.parse().unwrap()), Errno::EHOSTUNREACH, "{closed}");
    }
    assert!(listener.accept().is_err(), "the host's loopback was reached");
    assert_eq!(scene.lookup("evil.example", "A"), Found::NoSuchName);
    scene.dns.set_address("other.example", "203.0.113.66");
    assert_eq!(scene.lookup("other.example", "A"), Found::Addresses(vec![NOBODY]));
    let answer = scene.exchange((NOBODY, 443).into(), &[&hello("evil.example")]);
    assert!(answer.starts_with(ALERT), "{}", answer.escape_ascii());
    scene.assert_only(&[NOBODY]);
}

#[test]
fn defaults_are_those_that_the_policy_names() {
    // Nobody is connected who may decide: what is asked is refused at once.
    let scene = Scene::new(needs!(World::root()), "ask any\nallow index.example");
    assert_eq!(scene.lookup("index.example", "A"), Found::Addresses(vec![INDEX]));
    assert_eq!(scene.exchange((INDEX, 443).into(), &[&hello("index.example")]), SEEN);
    assert_asked(&scene, "other.example");
    assert_eq!(scene.refused((NOBODY, 443).into()), Errno::EHOSTUNREACH);
    assert_eq!(scene.refused_datagram((NOBODY, 443).into()), Errno::EHOSTUNREACH);
    assert_eq!(scene.dns.asked_names(), ["index.example"]);
    scene.assert_only(&[INDEX]);
    drop(scene);
    let scene = Scene::new(needs!(World::root()), "deny any\nallow 128.0.0.0/1:22");
    assert_eq!(scene.exchange((NOBODY, 22).into(), &[b"bytes"]), SEEN);
    assert_eq!(scene.refused("8.8.8.8:22".parse().unwrap()), Errno::EHOSTUNREACH);
    assert_eq!(scene.refused((NOBODY, 443).into()), Errno::EHOSTUNREACH);
    scene.assert_only(&[NOBODY]);
    drop(scene);
    let scene = Scene::new(needs!(World::root()), "allow internet:443");
    scene.dns.set_address("any.example", "203.0.113.66");
    assert_eq!(scene.lookup("any.example", "A"), Found::Addresses(vec![NOBODY]));
    assert_eq!(scene.exchange((NOBODY, 443).into(), &[&hello("whatever.example")]), SEEN);
    assert_eq!(scene.refused((NOBODY, 80).into()), Errno::EHOSTUNREACH);
    assert_eq!(scene.refused("10.1.1.1:443".parse().unwrap()), Errno::EHOSTUNREACH);
    scene.assert_only(&[NOBODY]);
}

#[test]
fn guest_of_an_ordinary_user_is_held_as_well() {
    let scene =
        Scene::new(needs!(World::ordinary()), "allow index.example\nallow icmp:203.0.113.8");
    assert_eq!(scene.refused((INDEX, 443).into()), Errno::EHOSTUNREACH);
    assert_eq!(scene.lookup("index.example", "A"), Found::Addresses(vec![INDEX]));
    assert_eq!(scene.exchange((INDEX, 443).into(), &[&hello("index.example")]), SEEN);
    assert!(scene.exchange((INDEX, 443).into(), &[&hello("evil.example")]).starts_with(ALERT));
    assert_eq!(scene.refused_datagram((NOBODY, 443).into()), Errno::EHOSTUNREACH);
    let ping = scene.guest.exec(&["ping", "-n", "-c1", "-W5", "203.0.113.66"]);
    assert!(ping.stdout.contains("Packet filtered"), "{}", ping.stdout);
    scene.assert_only(&[INDEX]);
}

#[test]
fn host_loopback_opens_at_the_port_that_a_rule_names() {
    let scene = Scene::new(needs!(World::root()), "allow host-loopback:11434");
    let open = TcpServer::echo(&scene.host, "127.0.0.1:11434".parse().unwrap());
    let listener = scene.host.enter(|| TcpListener::bind("127.0.0.1:2222")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let answer = scene.exchange((GATEWAY, 11434).into(), &[SEEN]);
    assert_eq!(answer, SEEN, "{}", open.address());
    assert_eq!(scene.refused((GATEWAY, 2222).into()), Errno::EHOSTUNREACH);
    assert!(listener.accept().is_err(), "another port was reached");
    scene.assert_silence();
}

#[test]
fn policy_of_the_environment_is_obeyed() {
    let world = needs!(World::root());
    world.remote.script("ip route add local 203.0.113.0/24 dev lo");
    let outside = Recorder::start(&world.remote, "r0");
    let echo = TcpServer::echo(&world.remote, (NOBODY, 443).into());
    let file = world.folder().join("policy");
    std::fs::write(&file, "allow 203.0.113.66:443\n").unwrap();
    let policy = format!("SLIRP_POLICY={}", file.display());
    let slirp = world.slirp().behind(&["env", &policy]).start();
    assert!(connect(&world.guest, echo.address()).is_ok());
    let failure = connect(&world.guest, "203.0.113.67:443".parse().unwrap()).unwrap_err();
    assert_eq!(failure.errno, Errno::EHOSTUNREACH);
    assert!(failure.after < AT_ONCE, "{:?}", failure.after);
    assert!(outside.arrived().iter().all(|packet| packet.to == echo.address()));
    drop(slirp);
}
