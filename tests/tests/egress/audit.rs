//! The audit log of a running network: what it says, and that nobody waits for it.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;
use slirp_tests::*;

use crate::hello::hello;
use crate::scene::*;

/// The log's option, and its path.
fn log_in(world: &World) -> (String, PathBuf) {
    let path = world.folder().join("audit.log");
    (format!("--audit-log={}", path.display()), path)
}

/// Ends the program in order.
fn end(scene: &Scene) {
    let facts = scene.online.slirp.facts();
    scene.online.slirp.signal(Signal::SIGTERM);
    wait_until(PATIENCE, "the program's end", || !facts.is_alive());
}

/// Ends the program, whose log does not take what there is: it gives that up by itself. How long
/// the end takes is also up to the kernel, which removes the device.
fn end_without_the_log(scene: &Scene) {
    end(scene);
    let text = scene.online.slirp.stderr();
    assert!(text.contains("missing at the end of the audit log"), "{text}");
}

/// Each line of a log, checked as a whole.
fn lines(text: &str) -> Vec<Value> {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) || byte == b'\n';
    assert!(text.bytes().all(is_plain), "{text}");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(text.lines().all(|line| line.len() <= 2048));
    let mut next = 1;
    for line in &lines {
        if line["event"] == "lost" {
            next += line["count"].as_u64().unwrap();
        }
        assert_eq!(line["seq"], next, "{line}");
        next += 1;
    }
    lines
}

/// The lines of a log that has ended.
fn ended(path: &Path) -> Vec<Value> {
    let lines = lines(&std::fs::read_to_string(path).unwrap());
    assert_eq!(
        (&lines[0]["event"], &lines.last().unwrap()["event"]),
        (&"start".into(), &"stop".into())
    );
    lines
}

/// The lines with this event and these values.
fn found<'a>(lines: &'a [Value], event: &str, values: &[(&str, &str)]) -> Vec<&'a Value> {
    let is_it = |line: &&Value| {
        line["event"] == event && values.iter().all(|&(key, value)| line[key] == value)
    };
    lines.iter().filter(is_it).collect()
}

fn only<'a>(lines: &'a [Value], event: &str, values: &[(&str, &str)]) -> &'a Value {
    match found(lines, event, values)[..] {
        [line] => line,
        ref others => panic!("{event} {values:?}: {others:#?} of {lines:#?}"),
    }
}

#[test]
fn log_tells_each_verdict_and_joins_each_flow_with_its_end() {
    let world = needs!(World::root());
    let (option, path) = log_in(&world);
    let options = ["--enable-sandbox", "--enable-seccomp", &option, "--audit=all"];
    let scene = Scene::with(world, "allow index.example", &options, &[443]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let at = SocketAddr::new(INDEX, 443);
    assert_eq!(scene.lookup("index.example", "A"), Found::Addresses(vec![INDEX]));
    assert_eq!(scene.lookup("x.attacker.example", "A"), Found::NoSuchName);
    assert_eq!(scene.exchange(at, &[&hello("index.example")]), SEEN);
    assert!(scene.exchange(at, &[&hello("evil.example")]).starts_with(ALERT));
    for _ in 0..2 {
        assert_eq!(scene.refused((NOBODY, 443).into()), Errno::EHOSTUNREACH);
    }
    end(&scene);
    let lines = ended(&path);
    assert_eq!((&lines[0]["rules"], &lines[0]["default"]), (&2.into(), &"deny".into()));
    assert_eq!(lines[0]["sha256"].as_str().unwrap().len(), 64);
    let bound = only(&lines, "dns", &[("name", "index.example"), ("answer", "bound")]);
    assert_eq!((&bound["guest"], &bound["qtype"]), (&"10.0.2.100".into(), &"A".into()));
    only(&lines, "dns", &[("name", "x.attacker.example"), ("verdict", "deny")]);
    let allowed = found(&lines, "flow", &[("verdict", "allow"), ("dst", "203.0.113.7")]);
    assert_eq!(allowed.len(), 2, "{lines:#?}");
    for flow in allowed {
        assert_eq!(flow["names"][0], "index.example");
        let id = flow["flow"].as_str().unwrap();
        let verify = only(&lines, "verify", &[("flow", id)]);
        let end = only(&lines, "end", &[("flow", id)]);
        if verify["sni"] == "index.example" {
            assert_eq!(verify["verdict"], "allow");
            let len = u64::try_from(hello("index.example").len()).unwrap();
            assert_eq!((end["bytes_out"].as_u64(), end["bytes_in"].as_u64()), (Some(len), Some(5)));
        } else {
            assert_eq!(
                (&verify["sni"], &verify["cause"]),
                (&"evil.example".into(), &"name".into())
            );
            assert_eq!(end["bytes_out"], 0);
        }
    }
    let refused = found(&lines, "flow", &[("dst", "203.0.113.66"), ("verdict", "deny")]);
    let count: u64 = refused.iter().map(|line| line["count"].as_u64().unwrap_or(1)).sum();
    assert!(count >= 2 && refused.iter().all(|line| line["flow"].is_null()), "{refused:#?}");
}

#[test]
fn hostile_names_stay_within_their_line() {
    let world = needs!(World::root());
    let (option, path) = log_in(&world);
    let scene = Scene::with(world, "allow index.example", &[&option, "--audit=all"], &[80, 443]);
    assert_eq!(scene.lookup("index.example", "A"), Found::Addresses(vec![INDEX]));
    let long = [0x9b; 63];
    for labels in [
        &[b"quote\"}\n{\"v\":1".as_slice(), b"test"][..],
        &[b"\x1b[2J\x1b]0;owned\x07", b"test"],
        &[&long[..], &long[..], &long[..], &long[..61]],
        &[b"\xe2\x80\xaegpj", b"\0\0", b"\\"],
    ] {
        let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
        query.extend(wire_name(labels));
        query.extend(b"\0\x01\0\x01");
        assert_eq!(read_answer(&scene.ask(NAMESERVER, &query).unwrap()), Found::NoSuchName);
    }
    for name in ["quote\"\n.example", "\u{1b}[2J.example"] {
        assert!(scene.exchange((INDEX, 443).into(), &[&hello(name)]).starts_with(ALERT));
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
        assert!(!is_seen(&scene.exchange((INDEX, 80).into(), &[request.as_bytes()])));
    }
    end(&scene);
    let lines = ended(&path);
    let refused = found(&lines, "dns", &[("verdict", "deny")]);
    assert_eq!(refused.len(), 4, "{lines:#?}");
    assert!(refused[2]["name"].as_str().unwrap().starts_with(r"\155\155"), "{refused:#?}");
    assert!(found(&lines, "verify", &[("verdict", "deny")]).len() >= 2, "{lines:#?}");
    assert!(lines.iter().all(|line| line["sni"].is_null() && line["host"].is_null()));
}

#[test]
fn audit_mode_says_what_it_would_have_refused_and_keeps_protected_sets_closed() {
    let world = needs!(World::root());
    let (option, path) = log_in(&world);
    let policy = "allow index.example\nset mode audit";
    let scene = Scene::with(world, policy, &[&option], &[80, 443, 22]);
    scene.dns.set_address("evil.example", "203.0.113.66");
    assert_eq!(scene.lookup("evil.example", "A"), Found::Addresses(vec![NOBODY]));
    assert_eq!(scene.exchange((NOBODY, 443).into(), &[&hello("evil.example")]), SEEN);
    assert_eq!(scene.exchange((INDEX, 22).into(), &[b"SSH-2.0-x\r\n"]), SEEN);
    for closed in ["169.254.169.254:80", "10.0.2.2:8000"] {
        assert_eq!(scene.refused(closed.parse().unwrap()), Errno::EHOSTUNREACH, "{closed}");
    }
    scene.assert_only(&[NOBODY, INDEX]);
    end(&scene);
    let lines = ended(&path);
    assert_eq!(lines[0]["mode"], "audit");
    only(&lines, "dns", &[("name", "evil.example"), ("would", "deny")]);
    let flow = only(&lines, "flow", &[("dst", "203.0.113.66"), ("would", "deny")]);
    assert_eq!((&flow["names"][0], &flow["verdict"]), (&"evil.example".into(), &Value::Null));
    let id = flow["flow"].as_str().unwrap();
    only(&lines, "verify", &[("flow", id), ("sni", "evil.example"), ("would", "deny")]);
    assert!(only(&lines, "end", &[("flow", id)])["bytes_out"].as_u64() > Some(0));
    assert_eq!(only(&lines, "flow", &[("dst", "203.0.113.7"), ("would", "deny")])["port"], 22);
    for (dst, written) in [("169.254.169.254", None), ("127.0.0.1", Some("10.0.2.2"))] {
        let closed = found(&lines, "flow", &[("dst", dst), ("verdict", "deny")]);
        assert!(!closed.is_empty(), "{dst}: {lines:#?}");
        for line in closed {
            assert_eq!(
                (line["cause"].as_str(), line["written"].as_str()),
                (Some("protected"), written)
            );
        }
    }
}

/// A guest that may go everywhere but to [`NOBODY`], with this log.
fn scene_with(world: World, options: &[&str]) -> Scene {
    Scene::with(world, "allow 203.0.113.0/24\ndeny 203.0.113.66", options, &[22])
}

#[test]
fn full_disk_delays_nothing_and_opens_nothing() {
    let scene = scene_with(needs!(World::root()), &["--audit-log=/dev/full"]);
    assert_eq!(scene.exchange((INDEX, 22).into(), &[b"bytes"]), SEEN);
    assert_eq!(scene.refused((NOBODY, 22).into()), Errno::EHOSTUNREACH);
    scene.assert_only(&[INDEX]);
    end_without_the_log(&scene);
    let warning = scene.online.slirp.stderr();
    assert!(warning.contains("audit log cannot be written"), "{warning}");
}

#[test]
fn nothing_begins_where_a_required_log_cannot_be_written() {
    let options = ["--audit-log=/dev/full", "--audit-required"];
    // The datagram that settles a scene is refused, too.
    let scene = scene_with(needs!(World::root()), &options);
    assert_eq!(scene.refused((INDEX, 22).into()), Errno::EHOSTUNREACH);
    assert_eq!(scene.refused_datagram((INDEX, 9).into()), Errno::EHOSTUNREACH);
    assert!(scene.outside.arrived().is_empty(), "{:?}", scene.outside.arrived());
}

#[test]
fn nothing_is_looked_up_where_a_required_log_cannot_be_written() {
    let options = ["--audit-log=/dev/full", "--audit-required"];
    let scene = Scene::with(needs!(World::root()), "allow .index.example", &options, &[]);
    assert_eq!(scene.lookup("index.example", "A"), Found::Code(2), "SERVFAIL");
    // A query to another server is answered by ours.
    let answer = scene.ask(INDEX, &query("index.example", "AAAA")).expect("an answer");
    assert_eq!(answer[3] & 0x0f, 2, "SERVFAIL");
    assert_eq!(scene.dns.asked(), [], "nothing was asked");
}

/// A FIFO in the world's folder, and its reader.
fn fifo(world: &World) -> (String, File) {
    let (option, path) = log_in(world);
    nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut options = File::options();
    let reader = options.read(true).custom_flags(nix::libc::O_NONBLOCK).open(&path).unwrap();
    (option, reader)
}

/// The guest sends `count` datagrams, each to another remote than the one before, `rate` a second:
/// a verdict each.
fn send_around(scene: &Scene, count: u32, rate: u32) {
    let socket = scene.guest.enter(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap();
    let began_at = Instant::now();
    for number in 0..count {
        let last = u8::try_from(number % 8).unwrap();
        socket.send_to(b"text", (IpAddr::from([203, 0, 113, 70 + last]), 4000)).unwrap();
        let due = Duration::from_secs(1) * number / rate;
        // A pace, not a synchronisation.
        if let Some(early) = due.checked_sub(began_at.elapsed()) {
            std::thread::sleep(early);
        }
    }
}

#[test]
fn reader_that_stopped_delays_nothing_and_hears_later_what_it_can() {
    let world = needs!(World::root());
    let (option, mut reader) = fifo(&world);
    let scene = scene_with(world, &[&option]);
    // Ten times what the FIFO takes.
    send_around(&scene, 3000, 3000);
    assert_eq!(scene.exchange((INDEX, 22).into(), &[b"bytes"]), SEEN);
    assert_eq!(scene.refused((NOBODY, 22).into()), Errno::EHOSTUNREACH);
    let arrived = scene.outside.arrived();
    let mut text = Vec::new();
    let mut buffer = [0; 65_536];
    scene.online.slirp.signal(Signal::SIGTERM);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => text.extend(&buffer[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
    let lines = lines(std::str::from_utf8(&text).unwrap());
    assert_eq!(lines.last().unwrap()["event"], "stop");
    let lost: u64 =
        found(&lines, "lost", &[]).iter().filter_map(|line| line["count"].as_u64()).sum();
    let told = found(&lines, "flow", &[("proto", "udp")]).len();
    let sent = arrived.iter().filter(|packet| packet.to.port() == 4000).count();
    assert!(told + usize::try_from(lost).unwrap() >= sent, "{told} {lost} {sent}");
}

#[test]
fn reader_that_left_or_stays_away_delays_nothing_not_even_the_end() {
    for is_leaving in [true, false] {
        let world = needs!(World::root());
        let (option, reader) = fifo(&world);
        let scene = scene_with(world, &[&option]);
        let kept = if is_leaving { None } else { Some(reader) };
        send_around(&scene, 2000, 4000);
        assert_eq!(scene.exchange((INDEX, 22).into(), &[b"bytes"]), SEEN);
        end_without_the_log(&scene);
        drop(kept);
    }
}

#[test]
fn five_thousand_events_a_second_are_all_written() {
    let world = needs!(World::root());
    let (option, path) = log_in(&world);
    let scene = scene_with(world, &[&option, "--audit=all"]);
    send_around(&scene, 10_000, 5_000);
    scene.settle();
    let sent = scene.outside.arrived().iter().filter(|packet| packet.to.port() == 4000).count();
    end(&scene);
    let lines = ended(&path);
    assert!(found(&lines, "lost", &[]).is_empty(), "lines are lost");
    let told = found(&lines, "flow", &[("proto", "udp")]).len();
    assert!(told >= sent && sent > 1000, "{told} of {sent}");
}
