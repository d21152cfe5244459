//! The API socket as its clients use it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use slirp_tests::*;

const LIST: &str = "{\"execute\":\"list_hostfwd\"}";
const EMPTY: &str = "{\"return\":{\"entries\":[]},\"entries\":[]}";
const ADD: &str = "{\"execute\":\"add_hostfwd\",\"arguments\":{\"proto\":\"tcp\",\
                   \"host_addr\":\"0.0.0.0\",\"host_port\":8080,\"guest_addr\":\"\",\
                   \"guest_port\":80}}\n";

fn start(world: &World) -> (Slirp, Api) {
    let api = Api::new(world);
    let slirp = world.slirp().options(&[&api.option()]).start();
    (slirp, api)
}

#[test]
fn podman_gets_its_reply_in_one_read() {
    let world = world!();
    let (_slirp, api) = start(&world);
    let mut stream = api.connect();
    stream.write_all(ADD.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut buffer = [0; 2048];
    let len = stream.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"{\"return\":{\"id\":1}}");
}

#[test]
fn scripts_that_never_half_close_are_answered() {
    let world = world!();
    let (_slirp, api) = start(&world);
    assert_eq!(api.ask_without_half_close(LIST), EMPTY);
    let socket = api.path().to_str().unwrap();
    let script = format!("printf '%s' '{LIST}' | socat -t 20 - UNIX-CONNECT:{socket}");
    assert_eq!(world.host.script(&script), EMPTY);
}

#[test]
fn rules_are_listed_in_both_shapes_and_ids_are_never_used_again() {
    let world = world!();
    let (_slirp, api) = start(&world);
    assert_eq!(api.ask(ADD), "{\"return\":{\"id\":1}}");
    let taken = "{\"error\":{\"desc\":\"bad request: add_hostfwd: slirp_add_hostfwd failed\"}}";
    assert_eq!(api.ask(ADD), taken);
    let entry = "{\"id\":1,\"proto\":\"tcp\",\"host_addr\":\"0.0.0.0\",\"host_port\":8080,\
                 \"guest_addr\":\"10.0.2.100\",\"guest_port\":80}";
    let listed = format!("{{\"return\":{{\"entries\":[{entry}]}},\"entries\":[{entry}]}}");
    assert_eq!(api.ask(LIST), listed);
    let remove = "{\"execute\":\"remove_hostfwd\",\"arguments\":{\"id\":1}}";
    assert_eq!(api.ask(remove), "{\"return\":{}}");
    assert_eq!(
        api.ask(remove),
        "{\"error\":{\"desc\":\"bad request: remove_hostfwd: bad arguments.id\"}}"
    );
    assert_eq!(api.ask(LIST), EMPTY);
    assert_eq!(api.ask(ADD), "{\"return\":{\"id\":2}}");
}

#[test]
fn request_in_pieces_is_answered_when_it_is_complete() {
    let world = world!();
    let (_slirp, api) = start(&world);
    let mut stream = api.connect();
    for piece in [&LIST.as_bytes()[..5], &LIST.as_bytes()[5..]] {
        stream.write_all(piece).unwrap();
        // Another client in between shows that the first piece has been read.
        assert_eq!(api.ask(LIST), EMPTY);
    }
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, EMPTY);
}

#[test]
fn message_that_is_too_large_is_told_so() {
    let world = world!();
    let (_slirp, api) = start(&world);
    let reply = "{\"error\":{\"desc\":\"bad request: too large message\"}}";
    assert_eq!(api.ask(&"[".repeat(4096)), reply);
}

#[test]
fn two_thousand_silent_clients_hold_nobody_up() {
    let world = world!();
    let (_slirp, api) = start(&world);
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let mut silent: Vec<UnixStream> = Vec::new();
    for _ in 0..2000 {
        silent.push(api.connect());
    }
    assert_eq!(api.ask(LIST), EMPTY);
    let mut guest = connect(&world.guest, server.address()).unwrap();
    guest.write_all(b"x").unwrap();
    guest.read_exact(&mut [0]).unwrap();
    drop(silent);
    assert_eq!(api.ask(LIST), EMPTY);
}

#[test]
fn info_tells_addresses_and_counters() {
    let world = world!();
    let (_slirp, api) = start(&world);
    let info = api.ask("{\"execute\":\"info\"}");
    for part in ["\"gateway\":\"10.0.2.2\"", "\"tcp_opened\":0", "\"tcp_no_flow\":"] {
        assert!(info.contains(part), "{part} in {info}");
    }
}

#[test]
fn file_replaces_what_was_there_and_is_removed_at_the_end() {
    let world = world!();
    let api = Api::new(&world);
    for end in [Some(Signal::SIGTERM), Some(Signal::SIGINT), None] {
        std::fs::write(api.path(), "left behind").unwrap();
        let mut slirp = world.slirp().options(&[&api.option(), "--exit-fd=4"]).start();
        let mode = std::fs::metadata(api.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        let shown = slirp.stdout();
        assert!(shown.contains("* API Socket:      /"), "{shown}");
        match end {
            Some(signal) => slirp.signal(signal),
            None => slirp.close_exit_fd(),
        }
        slirp.wait();
        assert!(!api.path().exists());
        // The next one gets a tap of its own.
        world.guest.script("! ip link show tap0 2>/dev/null || ip link del tap0");
    }
}

#[test]
fn path_that_cannot_be_bound_is_told() {
    let world = world!();
    let long = format!("--api-socket=/tmp/{}", "x".repeat(103));
    let exit = world.slirp().options(&[&long]).run();
    assert_eq!(exit.code, Some(1));
    let text = "the specified API socket path is too long (>= 108)";
    assert!(exit.stderr.contains(text), "{}", exit.stderr);
    let exit = world.slirp().options(&["--api-socket=/nowhere/at/all"]).run();
    assert_eq!(exit.code, Some(1));
    let text = "api_bindlisten: bind: No such file or directory";
    assert!(exit.stderr.contains(text), "{}", exit.stderr);
}
