//! The words of the program `slirp` beside a running network: `learn`, `events`, `approve` and
//! `top`, in a real terminal where they need one.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use slirp_tests::*;

use crate::hello::hello;
use crate::scene::*;

const PORTS: [u16; 4] = [80, 443, 22, 8443];

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(INDEX, port)
}

fn slirp() -> String {
    plugin_under_test().display().to_string()
}

/// A guest under a policy, with a control socket.
fn controlled(world: World, policy: &str) -> (Scene, PathBuf) {
    let socket = world.folder().join("control");
    let option = format!("--control-socket={}", socket.display());
    (Scene::with(world, policy, &[&option], &PORTS), socket)
}

/// A program of the host's in a terminal.
fn in_terminal(scene: &Scene, command: &str) -> Terminal {
    Terminal::start(&scene.host, scene.folder(), command).unwrap()
}

/// Whether stty(1) says that lines are edited and keys echoed.
fn is_sane(screen: &str) -> bool {
    screen.contains(" icanon") && screen.contains(" echo ")
}

/// Presses a key that decides: one that is pressed too soon does not.
fn press_until<T>(terminal: &Terminal, key: &str, asked: &thread::ScopedJoinHandle<'_, T>) {
    // The next key takes away what the last one made the screen say, so none follows at once.
    const PACE: Duration = Duration::from_secs(1);
    let mut pressed: Option<Instant> = None;
    wait_until(PATIENCE, "the key decides", || {
        if pressed.is_none_or(|at| at.elapsed() > PACE) && !asked.is_finished() {
            terminal.press(&[key]);
            pressed = Some(Instant::now());
        }
        asked.is_finished()
    });
}

/// Waits until the log has so many events of a kind.
fn wait_for_events(log: &Path, kind: &str, count: usize) {
    let word = format!("\"event\":\"{kind}\"");
    let has = || fs::read_to_string(log).unwrap_or_default().matches(&word).count() >= count;
    wait_until(PATIENCE, "the log has the events", has);
}

/// What the guest of the recipe does.
fn work(scene: &Scene) {
    assert_eq!(scene.lookup("index.example", "A"), Found::Addresses(vec![INDEX]));
    let seen = scene.exchange(at(443), &[&hello("index.example")]);
    assert_eq!(seen, SEEN);
    let request = b"GET / HTTP/1.1\r\nHost: index.example\r\n\r\n";
    assert!(is_seen(&scene.exchange(at(80), &[request])));
    scene.dns.set_address("git.example", "203.0.113.9");
    assert!(matches!(scene.lookup("git.example", "A"), Found::Addresses(_)));
    let git = "203.0.113.9:22".parse().unwrap();
    assert_eq!(scene.exchange(git, &[b"SSH-2.0-x\r\n"]), SEEN);
}

#[test]
fn policy_learned_in_audit_mode_lets_the_same_pass_and_nothing_else() {
    let world = needs!(World::root());
    let log = world.folder().join("audit");
    let option = format!("--audit-log={}", log.display());
    let scene = Scene::with(world, "set mode audit", &[&option], &PORTS);
    work(&scene);
    // An address without a name is no rule of its own.
    assert_eq!(scene.exchange((NOBODY, 22).into(), &[b"bytes"]), SEEN);
    assert_eq!(scene.refused("169.254.169.254:80".parse().unwrap()), Errno::EHOSTUNREACH);
    wait_for_events(&log, "end", 4);
    // Equal refusals have a line together, a second later.
    let has_refusal = || fs::read_to_string(&log).unwrap_or_default().contains("169.254.169.254");
    wait_until(PATIENCE, "the log has the refusal", has_refusal);
    let learned = scene.host.exec(&[&slirp(), "learn", &log.display().to_string()]);
    assert!(learned.status.success(), "{}", learned.stderr);
    let rules: Vec<_> = learned.stdout.lines().filter(|line| line.starts_with("allow")).collect();
    let [git, index] = rules.as_slice() else { panic!("{}", learned.stdout) };
    assert!(git.starts_with("allow git.example:22  # 1 connection, "), "{git}");
    assert!(index.starts_with("allow index.example:80,443  # 2 connections, "), "{index}");
    for comment in ["# allow tcp:203.0.113.66:22  # ", "# allow tcp:169.254.169.254:80  # "] {
        assert!(learned.stdout.contains(comment), "{}", learned.stdout);
    }
    drop(scene);
    let scene = Scene::with(needs!(World::root()), &learned.stdout, &[], &PORTS);
    work(&scene);
    assert_eq!(scene.refused((NOBODY, 22).into()), Errno::EHOSTUNREACH);
    assert!(scene.exchange(at(443), &[&hello("evil.example")]).starts_with(ALERT));
    // Nothing is missing in it.
    let policy = scene.folder().join("learned");
    fs::write(&policy, &learned.stdout).unwrap();
    let log = scene.folder().join("log");
    let line = r#"{"v":1,"event":"flow","proto":"tcp","dst":"203.0.113.7","port":443,"#;
    fs::write(&log, format!("{line}\"names\":[\"index.example\"],\"would\":\"deny\"}}\n")).unwrap();
    let [policy, log] = [policy, log].map(|path| path.display().to_string());
    let more = scene.host.exec(&[&slirp(), "learn", "--against", &policy, &log]);
    assert!(!more.stdout.contains("allow"), "{}", more.stdout);
}

#[test]
fn events_are_shown_as_they_happen() {
    let (scene, socket) = controlled(needs!(World::root()), "allow index.example");
    let socket = socket.display().to_string();
    let events = scene.folder().join("events");
    let script = format!("exec {} events {socket} flow >{}", slirp(), events.display());
    let follower = scene.host.spawn(&["sh", "-c", &script]);
    // It has subscribed as soon as an event is shown; until then, more are made.
    let text = || fs::read_to_string(&events).unwrap_or_default();
    wait_until(PATIENCE, "an event is shown", || {
        assert_eq!(scene.refused((NOBODY, 22).into()), Errno::EHOSTUNREACH);
        text().ends_with('\n')
    });
    let line = text().lines().next().unwrap().to_owned();
    assert!(line.contains(" flow     10.0.2.100 tcp 203.0.113.66:22: deny, "), "{line}");
    drop(scene);
    assert!(follower.finish().status.success(), "the network's end is no failure");
}

#[test]
fn question_is_answered_in_a_terminal_and_saved() {
    let (scene, socket) = controlled(needs!(World::root()), "ask any");
    let saved = scene.folder().join("saved");
    let command = format!("{} approve --save {} {}", slirp(), saved.display(), socket.display());
    // Without a terminal nobody is asked, and nobody counts as an approver.
    let refused = scene.host.exec(&["sh", "-c", &format!("{command} </dev/null")]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("have to be a terminal"), "{}", refused.stderr);
    let terminal = in_terminal(&scene, &command);
    terminal.wait_for("No questions");
    let other = in_terminal(&scene, &command);
    other.wait_for("No questions");
    thread::scope(|scope| {
        let asked = scope.spawn(|| connect(&scene.guest, (NOBODY, 22).into()));
        for screen in [terminal.wait_for("[a]llow"), other.wait_for("[a]llow")] {
            let has = |words| screen.contains(words);
            assert!(has(" 10.0.2.100 wants  203.0.113.66:22/tcp") && has(" held 0:0"), "{screen}");
        }
        terminal.press(&["Enter", "Space", "y"]);
        terminal.press(&["e"]);
        terminal.wait_for("ask, default");
        assert!(!asked.is_finished(), "no key is a default");
        press_until(&terminal, "s", &asked);
        asked.join().unwrap().expect("the connection is allowed");
    });
    terminal.wait_for("203.0.113.66:22/tcp: allowed for the session");
    other.wait_for("203.0.113.66:22/tcp: allow");
    other.wait_for("No questions");
    wait_until(PATIENCE, "the rule is saved", || {
        fs::read_to_string(&saved).is_ok_and(|text| text.contains("203.0.113.66"))
    });
    let check = scene.host.exec(&[&slirp(), "policy", "check", &saved.display().to_string()]);
    assert!(check.status.success(), "{}", check.stderr);
    connect(&scene.guest, (NOBODY, 22).into()).expect("it is not asked again");
    thread::scope(|scope| {
        let asked = scope.spawn(|| connect(&scene.guest, (NOBODY, 443).into()));
        other.wait_for("wants  203.0.113.66:443/tcp");
        press_until(&other, "d", &asked);
        asked.join().unwrap().expect_err("the connection is denied");
    });
    for screen in [terminal, other] {
        screen.press(&["q"]);
        screen.wait_for("status 0");
        screen.wait_until("the terminal is as it was before", is_sane);
    }
}

#[test]
fn live_view_shows_flows_and_decides() {
    let (scene, socket) = controlled(needs!(World::root()), "ask any\nallow .index.example");
    let socket = socket.display().to_string();
    let top = in_terminal(&scene, &format!("NO_COLOR=1 {} top {socket}", slirp()));
    top.wait_for(">1]names");
    assert_eq!(scene.lookup("index.example", "A"), Found::Addresses(vec![INDEX]));
    let mut stream = connect(&scene.guest, at(443)).unwrap();
    std::io::Write::write_all(&mut stream, &hello("index.example")).unwrap();
    assert_eq!(answer(&mut stream), SEEN);
    let screen = top.wait_until("the flow", |screen| {
        screen.lines().any(|line| line.contains("index.example") && line.contains(" 443 "))
    });
    assert_eq!(screen.lines().count(), 24, "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    let styled = top.styled_screen();
    for color in 0..8 {
        assert!(!styled.contains(&format!("\x1b[3{color}")), "NO_COLOR is obeyed: {styled:?}");
    }
    // Details, help, filter.
    // Details are those of the moment: the address comes with the next look at the names.
    wait_until(PATIENCE, "the details have the address", || {
        top.press(&["Enter"]);
        let has_address = top.wait_for("addresses").contains("addresses  203.0.113.7");
        top.press(&["Enter"]);
        top.wait_until("the details are gone", |screen| !screen.contains("addresses"));
        has_address
    });
    top.press(&["?"]);
    top.wait_for("another pane");
    // A key right behind Escape would be one with Alt.
    top.press(&["Escape"]);
    top.wait_until("the help is gone", |screen| !screen.contains("another pane"));
    top.press(&["/", "n", "o", "t", "Enter"]);
    top.wait_for("/not (0 rows)");
    top.press(&["Escape"]);
    top.wait_for("/ filter");
    // A larger screen has more columns.
    top.resize(130, 40);
    let screen = top.wait_for(" RULE ");
    assert_eq!(screen.lines().count(), 40, "{screen}");
    // A question is answered here, too.
    thread::scope(|scope| {
        let asked = scope.spawn(|| connect(&scene.guest, (NOBODY, 22).into()));
        top.wait_for("QUESTION  203.0.113.66:22/tcp");
        top.press(&["a"]);
        top.press(&["6", "Enter", "Enter"]);
        top.wait_for("[a]llow once");
        assert!(!asked.is_finished(), "elsewhere the keys mean other things");
        press_until(&top, "a", &asked);
        asked.join().unwrap().expect("the connection is allowed");
    });
    top.wait_for("203.0.113.66:22/tcp: allowed once");
    // A rule is added, and shown.
    top.press(&["1", "+", "C-u"]);
    top.wait_for("rule: allow ");
    top.press(&["Escape"]);
    top.wait_until("the prompt is gone", |screen| !screen.contains("rule: allow"));
    top.press(&["5"]);
    top.wait_for("allow .index.example");
    // The flow is cut.
    top.press(&["2", "/", "i", "n", "d", "e", "x", "Enter"]);
    top.wait_for("(1 row)");
    top.press(&["x"]);
    top.wait_for("Cut flow");
    top.press(&["y"]);
    let end = std::io::Read::read(&mut stream, &mut [0; 16]);
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    // What has ended keeps its totals.
    top.press(&["Escape"]);
    top.wait_until("the filter is gone", |screen| !screen.contains("/index"));
    top.press(&["1"]);
    top.wait_until("the total of the ended flow", |screen| {
        screen.lines().any(|line| line.contains("index.example") && line.contains("  0 allow"))
    });
    top.press(&["q"]);
    top.wait_for("status 0");
    top.wait_until("the terminal is as it was before", is_sane);
    // The same for scripts.
    let picture = scene.host.exec(&[&slirp(), "top", "--once", "--json", &socket]);
    assert!(picture.status.success(), "{}", picture.stderr);
    assert!(picture.stdout.contains("\"name\":\"index.example\""), "{}", picture.stdout);
}

#[test]
fn end_of_the_network_ends_the_tools_and_leaves_the_terminal_sane() {
    let (scene, socket) = controlled(needs!(World::root()), "ask any");
    let terminals = ["top", "approve"]
        .map(|word| in_terminal(&scene, &format!("{} {word} {}", slirp(), socket.display())));
    terminals[0].wait_for(">1]names");
    terminals[1].wait_for("No questions");
    scene.online.slirp.signal(nix::sys::signal::Signal::SIGKILL);
    for terminal in &terminals {
        terminal.wait_for("status 0");
        terminal.wait_until("the terminal is as it was before", is_sane);
    }
}
