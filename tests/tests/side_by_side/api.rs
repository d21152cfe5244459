//! The API socket: every reply byte for byte.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A request on its way, and what the script calls it.
const REQUESTS: &[(&str, &str)] = &[
    ("empty", ""),
    ("blank", " \n"),
    ("no JSON", "hello"),
    ("half of JSON", "{\"execute\":"),
    ("array", "[1]"),
    ("number", "7"),
    ("no execute", "{}"),
    ("execute is a number", "{\"execute\":7}"),
    ("unknown command", "{\"execute\":\"quit\"}"),
    ("list of nothing", "{\"execute\":\"list_hostfwd\"}"),
    (
        "tcp",
        "add {\"proto\":\"tcp\",\"host_addr\":\"0.0.0.0\",\"host_port\":8080,\
             \"guest_addr\":\"\",\"guest_port\":80}",
    ),
    ("the same again", "add {\"proto\":\"tcp\",\"host_port\":8080,\"guest_port\":80}"),
    (
        "udp",
        "add {\"proto\":\"udp\",\"host_addr\":\"127.0.0.1\",\"host_port\":8080,\
             \"guest_addr\":\"10.0.2.15\",\"guest_port\":53}",
    ),
    (
        "no host address",
        "add {\"proto\":\"tcp\",\"host_addr\":\"\",\"host_port\":8081,\
                         \"guest_port\":80}",
    ),
    ("unknown keys", "add {\"proto\":\"tcp\",\"host_port\":8082,\"guest_port\":80,\"x\":{}}"),
    ("fraction", "add {\"proto\":\"tcp\",\"host_port\":8083.9,\"guest_port\":80}"),
    ("list", "{\"execute\":\"list_hostfwd\"}"),
    ("another protocol", "add {\"proto\":\"sctp\",\"host_port\":8084,\"guest_port\":80}"),
    (
        "bad host address",
        "add {\"proto\":\"tcp\",\"host_addr\":\"host\",\"host_port\":8084,\
                          \"guest_port\":80}",
    ),
    (
        "address that the host has not",
        "add {\"proto\":\"tcp\",\"host_addr\":\"192.0.2.1\",\
                                       \"host_port\":8084,\"guest_port\":80}",
    ),
    ("no host port", "add {\"proto\":\"tcp\",\"guest_port\":80}"),
    ("host port as text", "add {\"proto\":\"tcp\",\"host_port\":\"8084\",\"guest_port\":80}"),
    (
        "bad guest address",
        "add {\"proto\":\"tcp\",\"host_port\":8084,\"guest_addr\":\"guest\",\
                           \"guest_port\":80}",
    ),
    ("guest port 0", "add {\"proto\":\"tcp\",\"host_port\":8084,\"guest_port\":0}"),
    ("no guest port", "add {\"proto\":\"tcp\",\"host_port\":8084}"),
    ("remove", "remove {\"id\":1}"),
    ("remove again", "remove {\"id\":1}"),
    ("remove the unknown", "remove {\"id\":99}"),
    ("remove without id", "remove {}"),
    ("remove by text", "remove {\"id\":\"2\"}"),
    ("ids go on", "add {\"proto\":\"tcp\",\"host_port\":8090,\"guest_port\":80}"),
    ("something behind the request", "{\"execute\":\"unknown\"} and more"),
    ("execute twice", "{\"execute\":\"a\",\"execute\":\"list_hostfwds\"}"),
    (
        "host port beyond the range",
        "add {\"proto\":\"tcp\",\"host_port\":70000,\
                                    \"guest_port\":80}",
    ),
    (
        "guest port beyond the range",
        "add {\"proto\":\"tcp\",\"host_port\":8085,\
                                     \"guest_port\":65617}",
    ),
    ("byte order mark", "\u{feff}{\"execute\":\"quit\"}"),
    (
        "guest address that is the gateway's",
        "add {\"proto\":\"tcp\",\"host_port\":8086,\"guest_addr\":\"10.0.2.2\",\
              \"guest_port\":80}",
    ),
    (
        "host address of IPv6",
        "add {\"proto\":\"tcp\",\"host_addr\":\"::1\",\"host_port\":8091,\"guest_port\":80}",
    ),
];

fn full(request: &str) -> String {
    for (short, long) in [("add ", "add_hostfwd"), ("remove ", "remove_hostfwd")] {
        if let Some(arguments) = request.strip_prefix(short) {
            return format!("{{\"execute\":\"{long}\",\"arguments\":{arguments}}}");
        }
    }
    request.to_owned()
}

fn start(side: &Side) -> (Slirp, Api) {
    let api = Api::new(&side.world);
    let slirp = side.slirp().options(&[&api.option()]).start();
    (slirp, api)
}

#[test]
fn replies() {
    run("api", |side, seen| {
        let (_slirp, api) = start(side);
        let mode = std::fs::metadata(api.path()).unwrap().permissions().mode();
        seen.note("mode of the file", format!("{:o}", mode & 0o777));
        for (what, request) in REQUESTS {
            seen.note(*what, api.ask(&full(request)));
        }
        let picked = api.ask(&full("add {\"proto\":\"tcp\",\"host_port\":0,\"guest_port\":80}"));
        // Every time another one.
        let (picked, _) = picked.split_once("\"host_port\":").unwrap_or((&picked, ""));
        seen.note("host port 0", picked);
        let ours = side.world.host.enter(|| TcpListener::bind((Ipv6Addr::LOCALHOST, 8090)));
        seen.note("0.0.0.0 takes IPv6", ours.is_err().to_string());
        seen.note("4095 bytes", api.ask(&format!("{:<4095}", "{}")));
        seen.note("4096 bytes", api.ask(&format!("{:<4096}", "{}")));
        seen.note("no half-close", api.ask_without_half_close("{\"execute\":\"unknown\"}"));
        let mut stream = api.connect();
        stream.write_all(b"{\"execute\":\"x\"}{\"execute\":\"list_hostfwd\"}").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        seen.note("two requests at once", reply);
    });
}

#[test]
fn clients() {
    run("api clients", |side, seen| {
        let (_slirp, api) = start(side);
        let world = &side.world;
        let ping = || world.guest.exec(&["ping", "-n", "-c", "1", "-W", "2", "10.0.2.2"]);
        let silent = api.connect();
        seen.note("the network lives while a client is silent", ping().status.success());
        drop(silent);
        wait_until(IO_LIMIT, "the network lives again", || ping().status.success());
        let gone = api.connect();
        drop(gone);
        seen.note("after a client that said nothing", api.ask("{}"));
    });
}

#[test]
fn request_that_names_no_protocol() {
    run("api crash", |side, seen| {
        let (slirp, api) = start(side);
        let mut stream = api.connect();
        stream.write_all(full("add {\"host_port\":8080,\"guest_port\":80}").as_bytes()).unwrap();
        let mut reply = String::new();
        let _ = stream.read_to_string(&mut reply);
        seen.note("no protocol", reply);
        let facts = slirp.facts();
        if side.is_ours() {
            assert!(facts.is_alive());
        } else {
            wait_until(IO_LIMIT, "it has crashed", || !facts.is_alive());
        }
        seen.note("alive", facts.is_alive());
    });
}

#[test]
fn file_of_the_socket() {
    run("api file", |side, seen| {
        let api = Api::new(&side.world);
        for end in ["exit-fd", "SIGTERM"] {
            std::fs::write(api.path(), "left behind").unwrap();
            let mut slirp = side.slirp().options(&[&api.option(), "--exit-fd=4"]).start();
            match end {
                "exit-fd" => slirp.close_exit_fd(),
                _ => slirp.signal(nix::sys::signal::Signal::SIGTERM),
            }
            slirp.wait();
            seen.note(format!("still there after {end}"), api.path().exists());
            side.world.guest.script("! ip link show tap0 2>/dev/null || ip link del tap0");
        }
        for (what, path) in [
            ("no folder", "/nowhere/at/all".to_owned()),
            ("too long", format!("/tmp/{}", "x".repeat(103))),
        ] {
            let exit = side.slirp().options(&[&format!("--api-socket={path}")]).run();
            seen.note(format!("{what}: status"), format!("{:?}", exit.code));
            let line =
                exit.stderr.lines().find(|line| line.contains("api") || line.contains("API"));
            seen.note(format!("{what}: text"), line.unwrap_or_default());
            side.world.guest.script("! ip link show tap0 2>/dev/null || ip link del tap0");
        }
    });
}
