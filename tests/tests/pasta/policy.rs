//! `SLIRP_POLICY`: where the guest of `pasta` may go, and who may come, on the link and past it.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use slirp_tests::{FAR, HOST, PATIENCE, Rootless, TcpServer, World, connect, needs, wait_until};

const RULES: &str = "allow host-loopback:9000\nask 203.0.113.10:82\nallow in 127.0.0.1:8080\n\
                     allow in 198.51.100.2:8080\n";

/// A server that says a word.
const SERVER: &str = "TCP-LISTEN:80,reuseaddr,fork";

/// The servers of the host's loopback and of the remote, which are to be reached or not.
fn servers(world: &World) -> [TcpServer; 4] {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    [
        (&world.host, loopback, 9000),
        (&world.host, loopback, 9001),
        (&world.remote, FAR, 80),
        (&world.remote, FAR, 82),
    ]
    .map(|(namespace, address, port)| {
        TcpServer::start(namespace, (address, port).into(), |mut stream| {
            // Told by the client, if it does not arrive.
            let _ = stream.write_all(b"reached\n");
        })
    })
}

/// A script that tells of each place whether it is reached.
const VISITS: &str = "for place in 127.0.0.1:9000 127.0.0.1:9001 10.0.2.2:9000 10.0.2.2:9001 \
    203.0.113.10:80 203.0.113.10:82; do echo $place $(socat -u TCP:$place - 2>/dev/null); done";
const VISITED: &str = "127.0.0.1:9000 reached\n127.0.0.1:9001\n10.0.2.2:9000 reached\n\
                       10.0.2.2:9001\n203.0.113.10:80\n203.0.113.10:82\n";

/// What the log has to say about each refusal.
const REFUSED: &[(&str, &str)] = &[
    ("remote=127.0.0.1:9001", "port"),
    ("remote=10.0.2.2:9001", "port"),
    ("remote=203.0.113.10:80", "default"),
    ("remote=203.0.113.10:82", "no-approver"),
];

/// Waits until the log has all of it: a client may know before.
fn wait_for_log(path: &str) {
    let is_told = |parts: &[&str]| {
        let log = fs::read_to_string(path).unwrap();
        log.lines().any(|line| parts.iter().all(|part| line.contains(part)))
    };
    for (remote, reason) in REFUSED {
        let reason = format!("by=\"egress\" reason=\"{reason}\"");
        wait_until(PATIENCE, &reason, || is_told(&["flow refused", remote, &reason]));
    }
    assert!(is_told(&["nobody can be asked: what the rules ask about is refused"]));
}

/// A command line under the rules, and the path of its log.
fn argv<'a>(world: &World, program: &'a str, more: &[&'a str]) -> (Vec<String>, String) {
    let folder = world.folder().display();
    fs::write(world.folder().join("policy"), RULES).unwrap();
    let log = format!("{folder}/log");
    let mut line = vec!["env".to_owned(), format!("SLIRP_POLICY={folder}/policy")];
    line.push(program.to_owned());
    let options = "--config-net -d -4 -a 10.0.2.100 -n 24 -g 10.0.2.2 -I tap0 -u none -T 9000,9001 \
                   -U none -l";
    line.extend(options.split_whitespace().map(str::to_owned));
    line.push(log.clone());
    line.extend(more.iter().map(|&word| word.to_owned()));
    (line, log)
}

#[test]
fn policy_holds_on_the_link_and_past_it() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let _servers = servers(&world);
    let program = rootless.binary().display().to_string();
    let (line, log) = argv(&world, &program, &["-t", "8080:80", "--netns", &netns]);
    let line: Vec<_> = line.iter().map(String::as_str).collect();
    let output = rootless.exec(&line);
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    assert_eq!(rootless.inside(&netns, VISITS), VISITED);
    let _server = rootless.spawn_inside(&netns, &["socat", SERVER, "SYSTEM:echo reached"]);
    rootless.inside(&netns, "until ss -Hltn sport = :80 | grep -q . ; do sleep 0.01; done");
    // Past the link, on the link from the host itself, and on the link from another machine.
    for (namespace, address, reached) in [
        (&world.host, IpAddr::V4(Ipv4Addr::LOCALHOST), Ok("reached\n")),
        (&world.host, HOST, Err(ErrorKind::ConnectionReset)),
        (&world.remote, HOST, Ok("reached\n")),
    ] {
        let mut text = String::new();
        // The reset may be there before the end of connect(2).
        let read = connect(namespace, SocketAddr::new(address, 8080))
            .map_err(|failure| std::io::Error::from(failure.errno))
            .and_then(|mut stream| stream.read_to_string(&mut text))
            .map_err(|error| error.kind());
        assert_eq!(read.map(|_| text.as_str()), reached, "{address}");
    }
    wait_for_log(&log);
}

#[test]
fn policy_holds_for_a_command() {
    let world = needs!(World::ordinary());
    let _servers = servers(&world);
    let program = world.reachable_pasta().display().to_string();
    let (line, log) = argv(&world, &program, &["-t", "none", "--", "sh", "-c", VISITS]);
    let mut command = world.account().prefix().to_vec();
    command.extend(line.iter().map(String::as_str));
    let output = world.host.exec(&command);
    assert_eq!((output.status.code(), output.stdout.as_str()), (Some(0), VISITED));
    wait_for_log(&log);
}
