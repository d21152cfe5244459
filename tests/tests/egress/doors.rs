//! Doors of an operator: files and sockets that only their owner opens, and that are gone at the
//! end.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::signal::Signal;
use slirp_tests::*;

/// Without a sandbox, and as Podman starts us.
const CONFINED: [&[&str]; 2] = [&[], &["--enable-sandbox", "--enable-seccomp"]];

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

#[test]
fn log_and_sockets_are_their_owners_alone_and_sockets_end_with_the_program() {
    for account in [Account::Root, Account::Ordinary] {
        let world = needs!(World::of(account));
        let path = |name: &str| world.folder().join(name);
        let (log, control, metrics, api) =
            (path("log"), path("control"), path("metrics"), path("api"));
        let options = [
            "--allow=any".to_owned(),
            format!("--audit-log={}", log.display()),
            format!("--control-socket={}", control.display()),
            format!("--metrics=unix:{}", metrics.display()),
            format!("--api-socket={}", api.display()),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        for confined in CONFINED {
            for signal in [Signal::SIGTERM, Signal::SIGKILL] {
                let slirp = world.slirp().options(&options).options(confined).start();
                for file in [&log, &control, &metrics] {
                    assert_eq!(mode(file), 0o600, "{}", file.display());
                }
                assert!(is_socket(&control) && is_socket(&metrics) && is_socket(&api));
                slirp.signal(signal);
                let exit = slirp.wait();
                assert_eq!(exit.signal, Some(signal as i32), "{}", exit.stderr);
                if signal == Signal::SIGTERM || !confined.is_empty() || is_sandboxed_anyway() {
                    // The process outside of a sandbox removes them even then.
                    let is_gone = || [&control, &metrics, &api].iter().all(|path| !path.exists());
                    wait_until(IO_LIMIT, "the sockets are gone", is_gone);
                } else {
                    // The next start takes their place.
                    assert!(control.exists() && metrics.exists());
                }
                assert!(log.exists());
            }
        }
    }
}

#[test]
fn socket_that_is_served_is_not_taken_over() {
    let world = needs!(World::root());
    let control = world.folder().join("control");
    let option = format!("--control-socket={}", control.display());
    let _first = world.slirp().options(&["--allow=any", &option]).start();
    let other = world
        .slirp()
        .bare()
        .options(&[&option])
        .positionals(&[&world.guest.pid().to_string(), "tap1"]);
    let exit = other.run();
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("Address already in use"), "{}", exit.stderr);
    assert!(UnixStream::connect(&control).is_ok(), "the first one is still served");
}

/// Runs the program with one end of a socket pair in `--control-fd` and one end of a pipe in
/// `--audit-log=fd:N`. What arrives at the other ends goes to files.
const LAUNCHER: &str = "
import os, socket, sys
folder, *argv = sys.argv[1:]
ours, theirs = socket.socketpair()
reader, writer = os.pipe()
if os.fork() == 0:
    theirs.close()
    # Ready and exit descriptor are the program's alone.
    for fd in writer, 3, 4:
        os.close(fd)
    with open(folder + '/greeting', 'wb') as file:
        file.write(ours.makefile('rb').readline())
    os.rename(folder + '/greeting', folder + '/greeted')
    with open(folder + '/lines', 'wb') as file:
        file.write(os.read(reader, 65536))
    os.rename(folder + '/lines', folder + '/logged')
    # The end of the program hangs up.
    ours.recv(1)
    os._exit(0)
ours.close()
os.close(reader)
for fd in theirs.fileno(), writer:
    os.set_inheritable(fd, True)
os.execv(argv[0], [*argv, f'--control-fd={theirs.fileno()}', f'--audit-log=fd:{writer}'])
";

#[test]
fn descriptors_of_the_caller_serve_without_a_name() {
    for confined in CONFINED {
        let world = needs!(World::ordinary());
        let folder = world.folder().display().to_string();
        let launcher = ["python3", "-c", LAUNCHER, &folder];
        let slirp =
            world.slirp().behind(&launcher).options(&["--allow=any"]).options(confined).start();
        let [greeted, logged] = ["greeted", "logged"].map(|name| world.folder().join(name));
        wait_until(IO_LIMIT, "the greeting and the log", || greeted.exists() && logged.exists());
        let greeting = std::fs::read_to_string(greeted).unwrap();
        let greeting: serde_json::Value = serde_json::from_str(&greeting).unwrap();
        assert_eq!(greeting["protocol"], 1, "{greeting}");
        assert_eq!(greeting["can"], serde_json::json!(["read", "decide"]), "{greeting}");
        let first = std::fs::read_to_string(logged).unwrap();
        let first: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
        assert_eq!((&first["v"], &first["event"]), (&1.into(), &"start".into()), "{first}");
        slirp.signal(Signal::SIGTERM);
        slirp.wait();
    }
}

#[test]
fn metrics_are_told_over_both_kinds_of_socket() {
    let world = needs!(World::root());
    let socket = world.folder().join("metrics");
    let unix = format!("--metrics=unix:{}", socket.display());
    for (option, script) in [
        (unix.as_str(), format!("curl -sf --unix-socket {} http://x/metrics", socket.display())),
        ("--metrics=127.0.0.1:9100", "curl -sf http://127.0.0.1:9100/metrics".to_owned()),
        ("--metrics=[::1]:9100", "curl -sf 'http://[::1]:9100/metrics'".to_owned()),
    ] {
        let slirp = world
            .slirp()
            .options(&[option, "--metrics-members", "--enable-sandbox", "--enable-seccomp"])
            .start();
        let text = world.host.script(&script);
        assert!(text.contains("slirp_build_info"), "{option}: {text}");
        slirp.signal(Signal::SIGTERM);
        slirp.wait();
    }
}

#[test]
fn log_goes_on_where_it_ended() {
    let world = needs!(World::root());
    let log = world.folder().join("log");
    std::fs::write(&log, "{\"an\":\"earlier line\"}\n").unwrap();
    let option = format!("--audit-log={}", log.display());
    for _ in 0..2 {
        let slirp = world.slirp().options(&["--allow=any", &option]).start();
        slirp.signal(Signal::SIGTERM);
        slirp.wait();
    }
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("{\"an\":\"earlier line\"}\n"), "{text}");
    let starts = text.lines().filter(|line| line.contains("\"event\":\"start\"")).count();
    assert_eq!(starts, 2, "{text}");
}

#[test]
fn rates_of_the_command_line_hold() {
    let world = needs!(World::root());
    let server = TcpServer::start(&world.remote, (FAR, 8080).into(), |mut stream| {
        let mut request = [0; 1];
        // Ends when the client does.
        let _ = stream.read_exact(&mut request).and_then(|()| stream.write_all(&[7; 500_000]));
    });
    // 4 Mbit/s: what is behind the burst takes 0.87 s and more.
    let _slirp = world.slirp().options(&["--rate-in=4M,burst=64k"]).start();
    let mut stream = connect(&world.guest, server.address()).unwrap();
    let started_at = std::time::Instant::now();
    stream.write_all(b"x").unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 500_000);
    let took = started_at.elapsed();
    assert!(took > std::time::Duration::from_millis(800), "{took:?}");
}
