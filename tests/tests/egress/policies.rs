//! Policies that are too large, and ends of the program.

use std::fmt::Write as _;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use slirp_tests::*;

use crate::scene::*;

#[test]
fn policies_beyond_their_limits_start_nothing() {
    let world = needs!(World::root());
    let file = world.folder().join("policy");
    let option = format!("--policy={}", file.display());
    let mut many = String::new();
    for number in 0..100_000 {
        writeln!(many, "allow h{number}.example").unwrap();
    }
    let large = format!("allow a.example\n{}", "# a comment that is long\n".repeat(430_000));
    let no_text: &[u8] = b"allow a.example\n\xff\xfe\n";
    for (what, text) in
        [("rules", many.as_bytes()), ("bytes", large.as_bytes()), ("UTF-8", no_text)]
    {
        std::fs::write(&file, text).unwrap();
        let exit = world.slirp().options(&[&option]).run();
        assert_eq!(exit.code, Some(1), "{what}: {}", exit.stderr);
        assert!(exit.stderr.contains("policy"), "{what}: {}", exit.stderr);
        assert!(exit.stderr.len() < 4096, "{what}: {} bytes", exit.stderr.len());
    }
    std::fs::remove_file(&file).unwrap();
    let exit = world.slirp().options(&[&option]).run();
    assert_eq!(exit.code, Some(1), "no file: {}", exit.stderr);
    assert!(connect(&world.guest, (NOBODY, 443).into()).is_err());
}

#[test]
fn largest_policy_with_nested_networks_is_obeyed() {
    let world = needs!(World::root());
    let mut policy = String::new();
    // Networks inside one another, of both families; only the innermost is open.
    for len in 8..32 {
        let network =
            u32::from(std::net::Ipv4Addr::new(203, 0, 113, 66)) >> (32 - len) << (32 - len);
        writeln!(policy, "allow {}/{len}:{}", std::net::Ipv4Addr::from(network), 1000 + len)
            .unwrap();
    }
    writeln!(policy, "allow 203.0.113.66:443").unwrap();
    for number in policy.lines().count()..9_998 {
        writeln!(policy, "allow *.h{number}.example").unwrap();
    }
    let scene = Scene::new(world, &policy);
    assert_eq!(scene.exchange((NOBODY, 443).into(), &[b"bytes"]), SEEN);
    assert_eq!(scene.refused((NOBODY, 22).into()), Errno::EHOSTUNREACH);
    assert_eq!(scene.refused((INDEX, 443).into()), Errno::EHOSTUNREACH);
    assert_eq!(scene.lookup("www.h9000.example", "A"), Found::NoSuchName);
    assert_eq!(scene.dns.asked_names(), ["www.h9000.example"]);
    assert_eq!(scene.lookup("h9000.example", "A"), Found::NoData);
    assert_eq!(scene.lookup("www.h10001.example", "A"), Found::NoSuchName);
    scene.assert_only(&[NOBODY]);
}

#[test]
fn killed_program_leaves_no_way_out() {
    let scene = Scene::new(needs!(World::root()), "allow 203.0.113.66");
    let mut stream = connect(&scene.guest, (NOBODY, 22).into()).unwrap();
    std::io::Write::write_all(&mut stream, b"bytes").unwrap();
    assert_eq!(answer(&mut stream), SEEN);
    let facts = scene.online.slirp.facts();
    scene.online.slirp.signal(Signal::SIGKILL);
    wait_until(PATIENCE, "the program's end", || !facts.is_alive());
    let before = scene.outside.arrived_at(NOBODY).len();
    wait_until(PATIENCE, "the tap's end", || !scene.guest.script("ip link").contains("tap0"));
    let failure = connect(&scene.guest, (NOBODY, 22).into()).unwrap_err();
    assert_eq!(failure.errno, Errno::ENETUNREACH);
    // What the host's kernel sends at most is the end of what was open.
    let arrived = scene.outside.arrived_at(NOBODY);
    assert!(arrived[before.min(arrived.len())..].iter().all(|packet| packet.payload.is_empty()));
}
