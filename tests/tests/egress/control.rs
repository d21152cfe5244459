//! The control socket: who may use it, and what becomes of a guest's flows when the policy changes.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use slirp_tests::*;

use crate::scene::*;

/// A scene with a control socket, and a client of it.
fn controlled(world: World, policy: &str) -> (Scene, Control) {
    let control = Control::option(&world);
    let scene = Scene::with(world, policy, &[&control], &[22]);
    let client = Control::connect(&scene);
    (scene, client)
}

/// A connection to the outside that has been answered.
fn open(scene: &Scene) -> TcpStream {
    let mut stream = connect(&scene.guest, (NOBODY, 22).into()).unwrap();
    stream.write_all(b"bytes").unwrap();
    assert_eq!(answer(&mut stream), SEEN);
    stream
}

/// Asserts that the guest's end of a connection is reset.
fn assert_reset(mut stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let error = stream.read(&mut [0]).expect_err("the connection goes on");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// The rules that every policy of a scene needs.
fn with_settled(rules: &str) -> String {
    format!("{rules}\nallow udp:{SETTLED}")
}

#[test]
fn flows_that_a_new_policy_denies_are_reset_unless_they_are_to_be_kept() {
    let (scene, mut control) = controlled(needs!(World::root()), "allow 203.0.113.66");
    let (kept, parked) = (open(&scene), open(&scene));
    let wait = json!({});
    wait_until(PATIENCE, "the flows are parked", || {
        let flows = control.get("flows", &wait)["flows"].clone();
        let is_parked = |flow: &Value| flow["state"] == "parked";
        flows.as_array().unwrap().iter().filter(|flow| is_parked(flow)).count() == 2
    });
    let mut awake = open(&scene);
    let policy = with_settled("allow 203.0.113.7");
    let keep = control.get("policy_set", &json!({ "policy": policy, "established": "keep" }));
    assert_eq!(keep["cut"], 0);
    assert_eq!(scene.refused((NOBODY, 22).into()), Errno::EHOSTUNREACH);
    awake.write_all(b"more").unwrap();
    let flows = control.get("flows", &wait)["flows"].clone();
    let row = flows.as_array().unwrap().iter().find(|flow| flow["proto"] == "tcp").unwrap();
    assert_eq!((&row["dst"], &row["port"]), (&json!("203.0.113.66"), &json!(22)));
    assert_eq!(row["verdict"], "deny");
    let cut = control.get("policy_set", &json!({ "policy": policy }));
    assert_eq!(cut["cut"], 3, "{cut}");
    for stream in [kept, parked, awake] {
        assert_reset(stream);
    }
}

#[test]
fn one_flow_is_cut_and_another_goes_on() {
    let (scene, mut control) = controlled(needs!(World::root()), "allow 203.0.113.66");
    let (cut, mut left) = (open(&scene), open(&scene));
    let port = cut.local_addr().unwrap().port();
    let flows = control.get("flows", &json!({}))["flows"].clone();
    let guest = format!("10.0.2.100:{port}");
    let row = flows.as_array().unwrap().iter().find(|flow| flow["guest"] == *guest).unwrap();
    assert_eq!(row["rule"].as_str().map(|rule| rule.ends_with("policy:1")), Some(true), "{row}");
    let name = json!({ "flow": row["flow"] });
    control.get("cut", &name);
    assert_reset(cut);
    assert_eq!(control.refused("cut", &name), "there is no such flow");
    left.write_all(b"more").unwrap();
    scene.settle();
    let at = scene.outside.stream((NOBODY, 22).into());
    assert!(at.windows(4).any(|window| window == b"more"), "{at:?}");
}

#[test]
fn rule_for_two_seconds_opens_and_then_ends_with_its_flows() {
    let (scene, mut control) = controlled(needs!(World::root()), "allow 203.0.113.7");
    assert_eq!(scene.refused((NOBODY, 22).into()), Errno::EHOSTUNREACH);
    let added = control.get("policy_add", &json!({ "rule": "allow 203.0.113.66:22", "for": 2 }));
    assert_eq!(added["id"], "api:1");
    assert_reset(open(&scene));
    assert_eq!(scene.refused((NOBODY, 22).into()), Errno::EHOSTUNREACH);
    let rules = control.get("policy_get", &json!({}))["rules"].clone();
    assert!(rules.as_array().unwrap().iter().all(|rule| rule["id"] != "api:1"), "{rules}");
}

#[test]
fn wrong_policy_changes_nothing() {
    let (scene, mut control) = controlled(needs!(World::root()), "allow 203.0.113.66");
    let before = control.get("policy_get", &json!({}));
    let wrong = json!({ "policy": "allow any\nallow a..b" });
    let words = control.refused("policy_set", &wrong);
    assert_eq!(words, "bad arguments.policy[1]: column 7: a label is empty");
    assert_eq!(control.get("policy_get", &json!({})), before);
    assert_eq!(scene.refused((INDEX, 22).into()), Errno::EHOSTUNREACH);
    open(&scene);
}

/// Connects in python, so that the process is where its socket is, and returns what it hears.
const CLIENT: &str = "import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
s.connect(sys.argv[1])
print(s.makefile().readline(), end='')";

/// The system's own, which other users may run.
const PYTHON: &str = "/usr/bin/python3";

const OTHER_NETWORK: &str = "this socket is for the network namespace that slirp runs in";

#[test]
fn guests_and_other_users_are_not_served() {
    for (what, world, options) in [
        ("plain", needs!(World::root()), &[][..]),
        ("confined", needs!(World::root()), &["--enable-sandbox", "--enable-seccomp"]),
        ("rootless", needs!(World::ordinary()), &["--enable-sandbox", "--enable-seccomp"]),
    ] {
        let path = Control::path(&world);
        let option = Control::option(&world);
        let policy = world.folder().join("policy");
        std::fs::write(&policy, "allow 203.0.113.66\n").unwrap();
        let policy = format!("--policy={}", policy.display());
        let online = world.online(&[&[policy.as_str(), option.as_str()], options].concat());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{what}");
        let text = path.to_str().unwrap();
        let expected = format!("{{\"error\":{{\"desc\":\"{OTHER_NETWORK}\"}}}}\n");
        // The guest's root is our own user, and so is that of a namespace that it makes.
        let heard = online.guest.exec(&[PYTHON, "-c", CLIENT, text]);
        assert_eq!(heard.stdout, expected, "{what}: the guest: {}", heard.stderr);
        let nested = ["unshare", "--user", "--map-root-user", "--net", PYTHON, "-c", CLIENT];
        let heard = online.guest.exec(&[&nested[..], &[text]].concat());
        assert_eq!(heard.stdout, expected, "{what}: below the guest: {}", heard.stderr);
        // Somebody else does not even get to the file.
        let other = ["setpriv", "--reuid=2000", "--regid=2000", "--clear-groups"];
        let other = [&other[..], &[PYTHON, "-c", CLIENT, text]].concat();
        let heard = online.host.exec(&other);
        assert!(heard.stderr.contains("PermissionError"), "{what}: {heard:?}");
        // If somebody opens the file to all, they are not served all the same.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        std::fs::set_permissions(online.folder(), PermissionsExt::from_mode(0o755)).unwrap();
        let heard = online.host.exec(&other);
        let words = "this socket is for the user who runs slirp, and for root";
        assert!(heard.stdout.contains(words), "{what}: {heard:?}");
        // Who runs it is.
        let own = [online.account().prefix(), &[PYTHON, "-c", CLIENT, text]].concat();
        let heard = online.host.exec(&own);
        assert!(heard.stdout.contains("\"protocol\":1"), "{what}: {heard:?}");
    }
}

#[test]
fn client_that_is_killed_does_not_decide_and_an_engine_that_is_killed_leaves_a_dead_socket() {
    let (scene, mut control) = controlled(needs!(World::root()), "ask 203.0.113.66");
    let path = Control::path(&scene);
    let script = format!(
        "import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.connect('{}')
f = s.makefile('rw')
f.readline()
f.write('{{\"execute\":\"subscribe\",\"arguments\":{{\"decide\":true}}}}\\n')
f.flush()
print(f.readline(), flush=True)
time.sleep(1000)",
        path.display()
    );
    let client = scene.host.spawn(&[PYTHON, "-c", &script]);
    let approvers = |control: &mut Control| control.get("info", &json!({}))["approvers"].clone();
    wait_until(PATIENCE, "the client may decide", || approvers(&mut control) == 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(client.pid().cast_signed()), Signal::SIGKILL)
        .unwrap();
    wait_until(PATIENCE, "the client's end", || approvers(&mut control) == 0);
    // For some seconds another one may come.
    let failure = connect(&scene.guest, (NOBODY, 22).into()).expect_err("nobody has decided");
    assert_eq!(failure.errno, Errno::EHOSTUNREACH);
    assert_eq!(scene.refused((NOBODY, 22).into()), Errno::EHOSTUNREACH);
    scene.online.slirp.signal(Signal::SIGKILL);
    assert_eq!(control.read(), None, "the connection ends with the engine");
    if is_sandboxed_anyway() {
        // The process outside of a sandbox removes it even then.
        wait_until(PATIENCE, "the socket is gone", || !path.exists());
    } else {
        let refused = scene.host.enter(|| UnixStream::connect(&path)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
    // The next one takes its place.
    let again = scene.host.enter(|| slirp_core::instance::ControlSocket::bind(&path));
    assert!(again.is_ok(), "{again:?}");
}

#[test]
fn subscriber_that_does_not_read_delays_nobody_and_hears_how_much_it_lost() {
    let (scene, mut control) = controlled(needs!(World::root()), "allow 203.0.113.66");
    let mut deaf = Control::connect(&scene);
    deaf.get("subscribe", &json!({ "events": ["flow"] }));
    // More than its queue and the socket's buffer take.
    let flood = "import socket
for port in range(1, 12000):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b'x', ('203.0.113.66', port))
    s.close()";
    let done = scene.guest.exec(&[PYTHON, "-c", flood]);
    assert!(done.status.success(), "{}", done.stderr);
    let started = Instant::now();
    assert_eq!(scene.exchange((NOBODY, 22).into(), &[b"bytes"]), SEEN);
    assert_eq!(control.get("policy_get", &json!({}))["revision"], 1);
    assert!(started.elapsed() < AT_ONCE + Duration::from_secs(2));
    let lost = deaf.event("lost");
    assert!(lost["count"].as_u64().unwrap() > 0, "{lost}");
    // What comes behind the gap is the newest.
    deaf.event("flow");
}

#[test]
fn events_tell_of_refusals_and_of_policies() {
    let (scene, mut control) = controlled(needs!(World::root()), "allow 203.0.113.66");
    let seq = control.get("subscribe", &json!({ "events": ["flow", "policy"] }))["seq"].clone();
    assert_eq!(scene.refused((INDEX, 22).into()), Errno::EHOSTUNREACH);
    let flow = control.event("flow");
    assert_eq!((&flow["verdict"], &flow["dst"]), (&json!("deny"), &json!("203.0.113.7")));
    control.send("policy_add", &json!({ "rule": "allow 203.0.113.7:22" }));
    assert_eq!(control.event("policy")["revision"], 2);
    open(&scene);
    // A client that comes back hears of what it has missed.
    let mut again = Control::connect(&scene);
    again.get("subscribe", &json!({ "events": ["flow", "policy"], "since": seq }));
    assert_eq!(again.event("flow")["seq"], flow["seq"]);
    assert_eq!(again.event("policy")["revision"], 2);
}

#[test]
fn question_is_told_and_the_first_decision_holds() {
    let (scene, mut control) = controlled(needs!(World::root()), "ask 203.0.113.66:22");
    let mut late = Control::connect(&scene);
    for (client, label) in [(&mut control, "first"), (&mut late, "second")] {
        client.get("hello", &json!({ "label": label, "decide": true }));
    }
    control.get("subscribe", &json!({ "events": ["ask"] }));
    late.get("subscribe", &json!({ "events": ["decision"] }));
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| connect(&scene.guest, (NOBODY, 22).into()));
        let asked = control.event("ask");
        assert_eq!((&asked["port"], &asked["verdict"]), (&json!(22), &json!("ask")), "{asked}");
        let open = control.get("questions", &json!({}))["questions"].clone();
        assert_eq!(open[0]["question"], asked["question"], "{open}");
        let decide = json!({ "question": asked["question"], "verdict": "allow" });
        let rule = control.get("decide", &decide)["rule"].clone();
        assert!(rule.as_str().is_some_and(|rule| rule.contains("203.0.113.66:22")), "{rule}");
        let decision = late.event("decision");
        assert_eq!(decision["question"], asked["question"]);
        assert_eq!(decision["by"]["label"], "first", "{decision}");
        let words = late.refused("decide", &decide);
        assert!(words.starts_with("already decided: allow by uid 0, pid "), "{words}");
        assert!(words.ends_with(" (first)"), "{words}");
        connecting.join().unwrap().unwrap();
    });
}
