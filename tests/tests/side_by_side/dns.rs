//! The nameserver's address.

use super::*;

const STUB: &str = "127.0.0.53";

/// What `dig` says, without ids, times and cookies.
fn dig(world: &World, arguments: &[&str]) -> String {
    let fixed = ["dig", "+tries=1", "+time=3", "+nocookie", "+noall", "+comments", "+answer"];
    let output = world.guest.exec(&[&fixed, arguments].concat());
    let mut said: Vec<&str> = Vec::new();
    for line in output.stdout.lines().filter(|line| !line.is_empty()) {
        let line = match line.find(", id: ") {
            Some(at) => &line[..at],
            None => line,
        };
        let is_noise = [";; Got answer", ";; ANSWER", ";; OPT", "; <<>>"];
        if !is_noise.iter().any(|noise| line.starts_with(noise)) {
            said.push(line);
        }
    }
    let mut text = said.join("|");
    if text.len() > 600 {
        text = format!("{}... {} bytes in {} lines", &text[..120], text.len(), said.len());
    }
    text
}

/// Status and data, or why there is neither.
fn summary(dug: &str) -> String {
    let failures = ["timed out", "connection refused"];
    if let Some(failure) = failures.iter().find(|failure| dug.contains(**failure)) {
        return (*failure).to_owned();
    }
    let status = dug.split("status: ").nth(1).and_then(|rest| rest.split('|').next());
    let data = dug.split('|').filter_map(|line| line.split("\tA\t").nth(1));
    let mut words = vec![status.unwrap_or(dug)];
    words.extend(data);
    words.join(" ")
}

const QUESTIONS: &[&[&str]] = &[
    &["@10.0.2.3", "www.example.test", "A"],
    &["@10.0.2.3", "www.example.test", "AAAA"],
    &["@10.0.2.3", "text.example.test", "TXT"],
    &["@10.0.2.3", "example.test", "MX"],
    &["@10.0.2.3", "_sip._tcp.example.test", "SRV"],
    &["@10.0.2.3", "strange.example.test", "TYPE65280"],
    &["@10.0.2.3", "nobody.example.test", "A"],
    &["@10.0.2.3", "www.elsewhere.invalid", "A"],
    &["@10.0.2.3", "+tcp", "www.example.test", "A"],
    &["@10.0.2.3", "large.example.test", "TXT"],
    &["@10.0.2.3", "+ignore", "large.example.test", "TXT"],
    &["@10.0.2.3", "+ignore", "+bufsize=4096", "large.example.test", "TXT"],
    &["@10.0.2.3", "+tcp", "large.example.test", "TXT"],
    &["@10.0.2.3", "+noedns", "www.example.test", "A"],
    &["@10.0.2.3", "+opcode=notify", "www.example.test", "SOA"],
];

#[test]
fn names() {
    run("dns", |side, seen| {
        let world = &side.world;
        let _dns = Dnsmasq::start(&world.host, STUB.parse().unwrap(), &[]);
        let _slirp = side.slirp().options(&["--disable-host-loopback"]).start();
        let _capture = world.capture();
        for question in QUESTIONS {
            seen.note(question[1..].join(" "), dig(world, question));
        }
    });
}

/// Gives the host another resolv.conf and waits until the program has read it. Both look at the
/// file when queries arrive, once a second at most: what is answered until then is not compared.
fn follow(world: &World, resolv_conf: &str) {
    let watch = FileWatch::start(&world.host, "/etc", "resolv.conf");
    world.replace_resolv_conf(resolv_conf);
    let guest = udp(&world.guest, (ANY, 0));
    wait_until(IO_LIMIT, "resolv.conf is read", || {
        // Any query makes them look; this one asks for the root's name.
        guest.send_to(b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01", (NAMESERVER, 53)).unwrap();
        watch.has_been_read()
    });
}

#[test]
fn resolvers() {
    run("resolver", |side, seen| {
        let world = &side.world;
        let _dns = Dnsmasq::start(&world.host, STUB.parse().unwrap(), &[]);
        let _slirp = side.slirp().start();
        let _capture = world.capture();
        let question = ["@10.0.2.3", "www.example.test", "A"];
        let by_tcp = ["@10.0.2.3", "+tcp", "www.example.test", "A"];
        for (what, resolv_conf) in [
            ("refusing", "nameserver 127.0.0.99\n"),
            ("refusing first, working second", "nameserver 127.0.0.99\nnameserver 127.0.0.53\n"),
            ("none named", "# nothing\n"),
            ("working again", "nameserver 127.0.0.53\n"),
        ] {
            follow(world, resolv_conf);
            seen.note(what, summary(&dig(world, &question)));
            seen.note(format!("{what}, TCP"), summary(&dig(world, &by_tcp)));
        }
    });
}

#[test]
fn disabled() {
    run("dns disabled", |side, seen| {
        let world = &side.world;
        let _dns = Dnsmasq::start(&world.host, STUB.parse().unwrap(), &[]);
        let _slirp = side.slirp().options(&["--disable-dns"]).start();
        let _capture = world.capture();
        world.remote.script("ip addr add 10.0.2.3/32 dev lo");
        let real = UdpServer::echo(&world.remote, (NAMESERVER, 5353).into());
        let guest = udp(&world.guest, (ANY, 0));
        guest.send_to(b"real", real.address()).unwrap();
        seen.note("the address leads to the real one", datagram(&guest));
        seen.note("query", dig(world, &["@10.0.2.3", "www.example.test", "A"]));
        seen.note("tcp", connecting(&world.guest, (NAMESERVER, 53).into()));
        let ping = world.guest.exec(&["ping", "-n", "-c", "1", "-W", "2", "10.0.2.3"]);
        seen.note("ping", ping.status.success());
    });
}
