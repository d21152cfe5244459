//! The API socket as its clients use it.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};
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
    let world = needs!(World::root());
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
    let world = needs!(World::root());
    let (_slirp, api) = start(&world);
    assert_eq!(api.ask_without_half_close(LIST), EMPTY);
    let socket = api.path().to_str().unwrap();
    let script = format!("printf '%s' '{LIST}' | socat -t 20 - UNIX-CONNECT:{socket}");
    assert_eq!(world.host.script(&script), EMPTY);
}

#[test]
fn rules_are_listed_in_both_shapes() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world);
    assert_eq!(api.ask(ADD), "{\"return\":{\"id\":1}}");
    let taken = "{\"error\":{\"desc\":\"bad request: add_hostfwd: slirp_add_hostfwd failed: cannot \
                 listen on 0.0.0.0:8080 for TCP: Address already in use (os error 98)\"}}";
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
}

#[test]
fn ids_of_rules_are_never_used_again() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world);
    assert_eq!(api.ask(ADD), "{\"return\":{\"id\":1}}");
    api.ask("{\"execute\":\"remove_hostfwd\",\"arguments\":{\"id\":1}}");
    assert_eq!(api.ask(ADD), "{\"return\":{\"id\":2}}");
}

#[test]
fn request_in_pieces_is_answered_when_it_is_complete() {
    let world = needs!(World::root());
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
fn message_of_4096_bytes_is_too_large_and_one_less_is_not() {
    let world = needs!(World::root());
    let (slirp, api) = start(&world);
    let mut message = LIST.to_owned();
    message.extend(std::iter::repeat_n(' ', 4095 - LIST.len()));
    assert_eq!(api.ask(&message), EMPTY);
    let line = "api_handler: too large message (>= 4096 bytes)";
    assert!(!slirp.stderr().contains(line));
    let reply = "{\"error\":{\"desc\":\"bad request: too large message\"}}";
    assert_eq!(api.ask(&"[".repeat(4096)), reply);
    assert!(slirp.stderr().contains(line), "{}", slirp.stderr());
    // A complete value behind which 4096 bytes and more come is answered at its end.
    assert_eq!(api.ask_without_half_close(LIST), EMPTY);
}

/// What every mistake is told, on the wire. Where slirp4netns crashes (no proto) or wraps a port
/// around, the nearest of its own texts.
#[test]
fn refusals_are_byte_for_byte_the_known_ones() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world);
    let add =
        |arguments: &str| format!("{{\"execute\":\"add_hostfwd\",\"arguments\":{arguments}}}");
    let remove =
        |arguments: &str| format!("{{\"execute\":\"remove_hostfwd\",\"arguments\":{arguments}}}");
    for (request, desc) in [
        (String::new(), "cannot parse JSON"),
        ("hello".to_owned(), "cannot parse JSON"),
        (LIST[..9].to_owned(), "cannot parse JSON"),
        ("[]".to_owned(), "json_object() failed"),
        ("{}".to_owned(), "no execute found"),
        ("{\"execute\":1}".to_owned(), "no execute found"),
        ("{\"execute\":\"quit\"}".to_owned(), "unknown execute"),
        (add("{}"), "add_hostfwd: bad arguments.proto"),
        (add("{\"proto\":\"sctp\"}"), "add_hostfwd: bad arguments.proto"),
        (
            add("{\"proto\":\"tcp\",\"host_addr\":\"localhost\"}"),
            "add_hostfwd: bad arguments.host_addr",
        ),
        (add("{\"proto\":\"tcp\"}"), "add_hostfwd: bad arguments.host_port"),
        (
            add("{\"proto\":\"tcp\",\"host_port\":70000,\"guest_port\":80}"),
            "add_hostfwd: bad arguments.host_port",
        ),
        (
            add("{\"proto\":\"tcp\",\"host_port\":80,\"guest_addr\":\"guest\"}"),
            "add_hostfwd: bad arguments.guest_addr",
        ),
        (
            add("{\"proto\":\"tcp\",\"host_port\":80,\
                 \"guest_addr\":\"10.0.2.2\",\"guest_port\":80}"),
            "add_hostfwd: bad arguments.guest_addr",
        ),
        (add("{\"proto\":\"tcp\",\"host_port\":80}"), "add_hostfwd: bad arguments.guest_port"),
        (
            add("{\"proto\":\"tcp\",\"host_addr\":\"192.0.2.1\",\
                 \"host_port\":80,\"guest_port\":80}"),
            "add_hostfwd: slirp_add_hostfwd failed: cannot listen on 192.0.2.1:80 for TCP: Cannot \
             assign requested address (os error 99) (no interface of the host has this address)",
        ),
        (remove("{}"), "remove_hostfwd: bad arguments.id"),
        (remove("{\"id\":1}"), "remove_hostfwd: bad arguments.id"),
    ] {
        let reply = format!("{{\"error\":{{\"desc\":\"bad request: {desc}\"}}}}");
        assert_eq!(api.ask(&request), reply, "{request}");
    }
    assert_eq!(api.ask(LIST), EMPTY);
}

#[test]
fn what_follows_the_first_value_does_not_matter() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world);
    for behind in ["\n", "}", "}}} garbage", LIST, "\0\u{1}"] {
        assert_eq!(api.ask_without_half_close(&format!("{LIST}{behind}")), EMPTY, "{behind:?}");
    }
}

fn range(host_port: u16, end: u16, guest_port: u16) -> String {
    format!(
        "{{\"execute\":\"add_hostfwd\",\"arguments\":{{\"proto\":\"tcp\",\"host_port\":{host_port},\
         \"host_port_end\":{end},\"guest_port\":{guest_port}}}}}"
    )
}

#[test]
fn range_of_ports_is_opened_as_a_whole_and_closed_as_a_whole() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world);
    assert_eq!(api.ask(&range(8000, 8010, 80)), "{\"return\":{\"id\":1}}");
    let listed = api.ask(LIST);
    assert_eq!(listed.matches("\"proto\":\"tcp\"").count(), 2, "both shapes: {listed}");
    let whole = "\"id\":1,\"proto\":\"tcp\",\"host_addr\":\"0.0.0.0\",\"host_port\":8000,\
                 \"host_port_end\":8010,\"guest_addr\":\"10.0.2.100\",\"guest_port\":80";
    assert!(listed.contains(whole), "{listed}");
    let listener = world.guest.enter(|| TcpListener::bind("0.0.0.0:90")).unwrap();
    connect(&world.remote, (HOST, 8010).into()).unwrap();
    listener.accept().unwrap();
    // A part that does not exist, and then all of it.
    let remove = |first: u64, last: u64| {
        format!(
            "{{\"execute\":\"remove_hostfwd\",\"arguments\":{{\"id\":{first},\"id_end\":{last}}}}}"
        )
    };
    let refused = "{\"error\":{\"desc\":\"bad request: remove_hostfwd: bad arguments.id_end\"}}";
    assert_eq!(api.ask(&remove(1, 2)), refused);
    assert_eq!(api.ask(LIST), listed);
    assert_eq!(api.ask(&remove(1, 1)), "{\"return\":{}}");
    assert_eq!(api.ask(LIST), EMPTY);
    connect(&world.remote, (HOST, 8010).into()).expect_err("the port is closed");
}

#[test]
fn range_with_a_taken_port_opens_none_and_names_it() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world);
    let taken = world.host.enter(|| TcpListener::bind("127.0.0.1:8005")).unwrap();
    let reply = api.ask(&range(8000, 8010, 80));
    let start = "{\"error\":{\"desc\":\"bad request: add_hostfwd: slirp_add_hostfwd failed: cannot \
                 listen on 0.0.0.0:8005 for TCP: Address already in use";
    assert!(reply.starts_with(start), "{reply}");
    assert_eq!(api.ask(LIST), EMPTY);
    world.host.enter(|| TcpListener::bind("0.0.0.0:8004")).unwrap();
    drop(taken);
    for port in [8004, 8005] {
        world.host.wait_for_free_port(port);
    }
    // Nothing of the first attempt is in the way.
    assert_eq!(api.ask(&range(8000, 8010, 80)), "{\"return\":{\"id\":1}}");
}

#[test]
fn refused_port_is_explained_in_the_reply_and_in_the_log() {
    let world = needs!(World::ordinary());
    let (slirp, api) = start(&world);
    let failed = "{\"error\":{\"desc\":\"bad request: add_hostfwd: slirp_add_hostfwd failed: \
                  cannot \
                  listen on ";
    let add = |host: &str, port: u16| {
        format!(
            "{{\"execute\":\"add_hostfwd\",\"arguments\":{{\
             \"proto\":\"udp\",\"host_addr\":\"{host}\",\
             \"host_port\":{port},\"guest_port\":80}}}}"
        )
    };
    for reply in [api.ask(&add("0.0.0.0", 80)), api.ask(&add("192.0.2.1", 8080))] {
        assert!(reply.starts_with(failed), "{reply}");
    }
    let stderr = slirp.stderr();
    for text in [
        "cannot listen on 0.0.0.0:80 for UDP: Permission denied",
        "net.ipv4.ip_unprivileged_port_start",
        "cannot listen on 192.0.2.1:8080 for UDP: Cannot assign requested address",
        "no interface of the host has this address",
    ] {
        assert!(stderr.contains(text), "{text} in {stderr}");
    }
}

#[test]
fn ipv6_guest_is_assumed_where_it_makes_its_address_from_the_mac() {
    let world = needs!(World::root());
    let api = Api::new(&world);
    let mac = "--macaddress=52:54:00:12:34:56";
    let _slirp = world.slirp().options(&[&api.option(), "--enable-ipv6", mac]).start();
    for arguments in ["\"proto\":\"tcp6\"", "\"proto\":\"udp\",\"host_addr6\":\"::1\""] {
        api.forward(&format!("{{{arguments},\"host_port\":8080,\"guest_port\":80}}"));
    }
    let listed = api.ask(LIST);
    let guest = "\"guest_addr6\":\"fd00::5054:ff:fe12:3456\"";
    assert_eq!(listed.matches(guest).count(), 4, "{listed}");
}

fn flows(api: &Api, arguments: &str) -> String {
    api.ask(&format!("{{\"execute\":\"list_flows\",\"arguments\":{arguments}}}"))
}

#[test]
fn flows_are_listed_with_their_ends_and_what_has_passed() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world);
    assert_eq!(flows(&api, "{}"), "{\"return\":{\"flows\":[],\"next\":null}}");
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let mut stream = connect(&world.guest, server.address()).unwrap();
    stream.write_all(b"twelve bytes").unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    let listed = flows(&api, "{}");
    let guest = stream.local_addr().unwrap();
    for part in [
        "\"proto\":\"tcp\",\"opened_by\":\"guest\",\"state\":\"open\"".to_owned(),
        format!("\"guest_addr\":\"10.0.2.100\",\"guest_port\":{}", guest.port()),
        format!("\"remote_addr\":\"203.0.113.10\",\"remote_port\":{}", server.address().port()),
        "\"host_addr\":\"198.51.100.1\",\"host_port\":".to_owned(),
        "\"bytes_from_guest\":12,\"bytes_to_guest\":12".to_owned(),
        "\"next\":null".to_owned(),
    ] {
        assert!(listed.contains(&part), "{part} in {listed}");
    }
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    wait_until(IO_LIMIT, "the end of the flow", || !flows(&api, "{}").contains("tcp"));

    let echo = UdpServer::echo(&world.remote, (FAR, 0).into());
    let socket = world.guest.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.set_read_timeout(Some(IO_LIMIT)).unwrap();
    socket.send_to(b"seven..", echo.address()).unwrap();
    socket.recv(&mut [0; 16]).unwrap();
    let listed = flows(&api, "{}");
    assert!(listed.contains("\"proto\":\"udp\",\"opened_by\":\"guest\""), "{listed}");
    assert!(listed.contains("\"bytes_from_guest\":7,\"bytes_to_guest\":7"), "{listed}");

    api.forward("{\"proto\":\"tcp\",\"host_port\":8080,\"guest_port\":81}");
    let listener = world.guest.enter(|| TcpListener::bind("0.0.0.0:81")).unwrap();
    let _client = connect(&world.remote, (HOST, 8080).into()).unwrap();
    let _accepted = listener.accept().unwrap();
    let listed = flows(&api, "{}");
    assert!(listed.contains("\"proto\":\"tcp\",\"opened_by\":\"remote\""), "{listed}");
}

/// Opens `count` UDP flows; they last while the sockets do, and longer.
fn open_flows(world: &World, api: &Api, count: usize) -> (UdpServer, Vec<UdpSocket>) {
    let sink = UdpServer::start(&world.remote, (FAR, 0).into(), |_, _, _| {});
    let sockets: Vec<_> =
        world.guest.enter(|| (0..count).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect());
    // In turns, so that no burst overruns the queue of the guest's device.
    for (index, turn) in sockets.chunks(200).enumerate() {
        for socket in turn {
            socket.send_to(b"x", sink.address()).unwrap();
        }
        let opened = format!("\"udp_opened\":{},", index * 200 + turn.len());
        wait_until(IO_LIMIT, "all flows", || api.ask("{\"execute\":\"info\"}").contains(&opened));
    }
    (sink, sockets)
}

#[test]
fn thousands_of_flows_are_listed_in_parts_and_none_twice() {
    const FLOWS: usize = 2500;
    let world = needs!(World::root());
    let (_slirp, api) = start(&world);
    let _open = open_flows(&world, &api, FLOWS);
    for limit in [1000, 999, 7] {
        let (mut ports, mut from) = (Vec::new(), 0);
        loop {
            let part = flows(&api, &format!("{{\"from\":{from},\"limit\":{limit}}}"));
            let found = part.split("\"guest_port\":").skip(1);
            let before = ports.len();
            ports.extend(found.map(|rest| rest.split(',').next().unwrap().parse::<u16>().unwrap()));
            assert!(ports.len() - before <= limit);
            let (_, next) = part.rsplit_once("\"next\":").unwrap();
            match next.trim_end_matches('}').parse() {
                Ok(next) => from = next,
                Err(_) => break,
            }
            if limit == 7 && ports.len() > 100 {
                break;
            }
        }
        ports.sort_unstable();
        ports.dedup();
        let expected = if limit == 7 { 105 } else { FLOWS };
        assert_eq!(ports.len(), expected, "in parts of {limit}");
    }
}

#[test]
fn client_that_does_not_read_its_long_reply_holds_nobody_up() {
    let world = needs!(World::root());
    let (_slirp, api) = start(&world);
    let _open = open_flows(&world, &api, 1100);
    let mut idle: Vec<UnixStream> = (0..300).map(|_| api.connect()).collect();
    for stream in &mut idle {
        // More of them than are served at a time: the oldest are cut off.
        let _ = stream.write_all(b"{\"execute\":\"list_flows\"}");
    }
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let mut guest = connect(&world.guest, server.address()).unwrap();
    guest.write_all(b"x").unwrap();
    guest.read_exact(&mut [0]).unwrap();
    assert!(api.ask(LIST) == EMPTY);
}

#[test]
fn two_thousand_silent_clients_hold_nobody_up() {
    let world = needs!(World::root());
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
    let world = needs!(World::root());
    let (_slirp, api) = start(&world);
    let info = api.ask("{\"execute\":\"info\"}");
    for part in ["\"gateway\":\"10.0.2.2\"", "\"tcp_opened\":0", "\"tcp_no_flow\":"] {
        assert!(info.contains(part), "{part} in {info}");
    }
}

#[test]
fn file_replaces_what_was_there_and_is_removed_at_the_end() {
    let world = needs!(World::root());
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
    let world = needs!(World::root());
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
