//! Lookups: what leaves of them, and what answers open.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use nix::errno::Errno;
use slirp_tests::*;

use crate::hello::hello;
use crate::scene::*;

const POLICY: &str = "allow .index.example";
/// Servers that a guest may want to ask instead.
const OTHERS: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 99)),
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    GATEWAY,
];

/// Asks on one TCP connection without waiting in between.
fn ask_by_tcp(scene: &Scene, server: IpAddr, queries: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut stream = connect(&scene.guest, (server, 53).into()).unwrap();
    let bytes: Vec<u8> = queries
        .iter()
        .flat_map(|query| [&u16::try_from(query.len()).unwrap().to_be_bytes(), &query[..]].concat())
        .collect();
    stream.write_all(&bytes).unwrap();
    let read = |_: &Vec<u8>| {
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut answer).unwrap();
        answer
    };
    queries.iter().map(read).collect()
}

/// Whether the guest may connect to port 443 of `address`.
fn is_open(scene: &Scene, address: &str) -> bool {
    let address: IpAddr = address.parse().unwrap();
    match connect(&scene.guest, (address, 443).into()) {
        Ok(_) => true,
        Err(failure) => {
            let expected = if address.is_ipv4() { Errno::EHOSTUNREACH } else { Errno::EACCES };
            assert_eq!(failure.errno, expected, "{address}");
            false
        }
    }
}

#[test]
fn queries_to_other_servers_are_answered_by_the_own_one() {
    let scene = Scene::new(needs!(World::root()), POLICY);
    let of_host = scene.host.enter(|| UdpSocket::bind("127.0.0.1:53")).unwrap();
    of_host.set_nonblocking(true).unwrap();
    for server in OTHERS {
        let answer = scene.ask(server, &query("index.example", "A")).expect("an answer");
        assert_eq!(read_answer(&answer), Found::Addresses(vec![INDEX]), "{server}");
        let answer = scene.ask(server, &query("evil.example", "A")).expect("an answer");
        assert_eq!(read_answer(&answer), Found::NoSuchName, "{server}");
        // As a resolver of its own would ask, from the root servers on.
        let mut iterating = query("index.example", "A");
        iterating[2] = 0;
        assert!(scene.ask(server, &iterating).is_some(), "{server}");
        let answers = ask_by_tcp(&scene, server, &[query("evil.example", "TXT")]);
        assert_eq!(read_answer(&answers[0]), Found::NoSuchName, "{server}");
        for port in [853, 443, 5353] {
            assert_eq!(scene.refused((server, port).into()), Errno::EHOSTUNREACH);
            assert_eq!(scene.refused_datagram((server, port).into()), Errno::EHOSTUNREACH);
        }
    }
    assert!(of_host.recv(&mut [0; 16]).is_err(), "the host's own resolver was asked");
    assert!(is_open(&scene, "203.0.113.7"));
    assert!(scene.dns.asked_names().iter().all(|name| name == "index.example"));
    scene.assert_only(&[INDEX]);
}

#[test]
fn other_servers_are_refused_or_opened_where_the_policy_says_so() {
    let world = needs!(World::root());
    let policy = "allow index.example\nset dns-redirect no\nallow udp:203.0.113.99:53";
    let scene = Scene::new(world, policy);
    assert_eq!(scene.refused_datagram((OTHERS[0], 53).into()), Errno::EHOSTUNREACH);
    assert_eq!(scene.refused((OTHERS[0], 53).into()), Errno::EHOSTUNREACH);
    // What an allowed server answers opens nothing.
    let theirs = NameServer::start(&scene.remote, OTHERS[1]);
    theirs.set_address("index.example", "203.0.113.20");
    let answer = scene.ask(OTHERS[1], &query("index.example", "A")).expect("an answer");
    assert_eq!(read_answer(&answer), Found::Addresses(vec!["203.0.113.20".parse().unwrap()]));
    assert!(!is_open(&scene, "203.0.113.20"));
    assert!(scene.dns.asked().is_empty());
    scene.assert_only(&[OTHERS[1]]);
}

#[test]
fn nothing_of_a_forbidden_name_leaves() {
    let scene = Scene::new(needs!(World::root()), POLICY);
    let label = "a".repeat(63);
    let long = format!("{label}.{label}.{label}.evil.example");
    let names = [
        "evil.example",
        "secret.evil.example",
        "xindex.example",
        "index.example.evil.example",
        "index.example.",
        &long,
    ];
    let kinds = [1, 2, 5, 6, 10, 12, 15, 16, 28, 33, 64, 65, 99, 65280];
    let mut queries = Vec::new();
    for name in names {
        for kind in kinds {
            let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
            query.extend(question(name.trim_end_matches('.'), kind));
            if name != "index.example." {
                queries.push(query);
            }
        }
    }
    for query in &queries {
        let answer = scene.ask(NAMESERVER, query).expect("an answer");
        assert_eq!(read_answer(&answer), Found::NoSuchName, "{}", query.escape_ascii());
        assert_eq!(answer.len(), query.len(), "no SOA, nothing else");
    }
    for answer in ask_by_tcp(&scene, NAMESERVER, &queries) {
        assert_eq!(read_answer(&answer), Found::NoSuchName);
    }
    // Labels with the name's bytes in other places.
    let odd: [&[&[u8]]; 4] = [
        &[b"evil", b"index.example"],
        &[b"index.example"],
        &[b"evil\0", b"example"],
        &[b"evil.index", b"example"],
    ];
    for labels in odd {
        let name = [&wire_name(labels)[..], &[0, 1, 0, 1]].concat();
        let query = [b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0", &name[..]].concat();
        let answer = scene.ask(NAMESERVER, &query).expect("an answer");
        assert_eq!(read_answer(&answer), Found::NoSuchName, "{}", name.escape_ascii());
    }
    let text = scene.ask(NAMESERVER, &query("evil.example", "A")).expect("an answer");
    let told = b"\0\x0f\0\x0f\0\x0fegress policy";
    assert!(text.ends_with(told), "{}", text.escape_ascii());
    // Reverse names of what is out of reach.
    for name in [
        "66.113.0.203.in-addr.arpa",
        "1.0.0.127.in-addr.arpa",
        "secret.66.113.0.203.in-addr.arpa",
        "secret.ip6.arpa",
        "6.6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
    ] {
        assert_eq!(scene.lookup(name, "TXT"), Found::NoSuchName, "{name}");
    }
    assert_eq!(scene.dns.asked(), [], "nothing was asked");
    // Nor of names below one that is in reach.
    assert_ne!(scene.lookup("InDeX.eXaMpLe", "A"), Found::NoSuchName);
    assert_eq!(scene.lookup("secret.7.113.0.203.in-addr.arpa", "TXT"), Found::NoSuchName);
    scene.dns.set("7.113.0.203.in-addr.arpa", &["7.113.0.203.in-addr.arpa 60 TXT index"]);
    assert_ne!(scene.lookup("7.113.0.203.in-addr.arpa", "TXT"), Found::NoSuchName);
    assert_eq!(scene.dns.asked_names(), ["index.example", "7.113.0.203.in-addr.arpa"]);
    scene.assert_silence();
}

#[test]
fn of_a_query_only_its_question_leaves() {
    let scene = Scene::new(needs!(World::root()), POLICY);
    let asked = question("index.example", 1);
    let head = |bytes: [u8; 10]| [&[0x12, 0x34][..], &bytes].concat();
    let opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";
    let secret = b"\x06secret\0\0\x10\0\x01\0\0\0\0\0\x07\x06SECRET";
    let refused: &[(&str, Vec<u8>)] = &[
        ("NOTIFY", [head([0x20, 0, 0, 1, 0, 0, 0, 0, 0, 0]), asked.clone()].concat()),
        ("UPDATE", [head([0x28, 0, 0, 1, 0, 0, 0, 0, 0, 0]), asked.clone()].concat()),
        ("STATUS", [head([0x10, 0, 0, 1, 0, 0, 0, 0, 0, 0]), asked.clone()].concat()),
        (
            "another class",
            [&head([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]), &asked[..asked.len() - 1], &[3]].concat(),
        ),
        ("AXFR", [head([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]), question("index.example", 252)].concat()),
        ("IXFR", [head([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]), question("index.example", 251)].concat()),
    ];
    for (what, query) in refused {
        let answer = scene.ask(NAMESERVER, query).expect("an answer");
        assert_eq!(answer[3] & 0x0f, 5, "{what}: REFUSED");
    }
    let any = [head([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]), question("index.example", 255)].concat();
    assert_eq!(scene.ask(NAMESERVER, &any).expect("an answer")[3] & 0x0f, 4, "NOTIMP");
    // Not one question (RFC 9619 section 4), and one that is compressed.
    let two = [head([1, 0, 0, 2, 0, 0, 0, 0, 0, 0]), asked.clone(), question("evil.example", 1)];
    assert_eq!(scene.ask(NAMESERVER, &two.concat()).expect("an answer")[3] & 0x0f, 1, "FORMERR");
    let compressed =
        [&head([1, 0, 0, 1, 0, 0, 0, 0, 0, 0])[..], &[5], b"index", &[0xc0, 12, 0, 1, 0, 1]];
    let socket = scene.udp((NAMESERVER, 53).into());
    socket.send(&compressed.concat()).unwrap();
    assert_eq!(scene.dns.asked(), [], "nothing was asked");
    // Everything behind the question stays here; what EDNS says of size and DNSSEC goes along.
    let option = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x0a\xff\xfe\0\x06SECRET";
    let extended: &[(&str, Vec<u8>)] = &[
        ("answers", [&head([1, 0, 0, 1, 0, 1, 0, 0, 0, 0])[..], &asked, secret].concat()),
        ("authorities", [&head([1, 0, 0, 1, 0, 0, 0, 1, 0, 0])[..], &asked, secret].concat()),
        ("additional", [&head([1, 0, 0, 1, 0, 0, 0, 0, 0, 1])[..], &asked, secret].concat()),
        ("EDNS option", [&head([1, 0, 0, 1, 0, 0, 0, 0, 0, 1])[..], &asked, option].concat()),
        ("trailing bytes", [&head([1, 0, 0, 1, 0, 0, 0, 0, 0, 0])[..], &asked, b"SECRET"].concat()),
        (
            "trailing bytes behind OPT",
            [&head([1, 0, 0, 1, 0, 0, 0, 0, 0, 1])[..], &asked, opt, b"SECRET"].concat(),
        ),
        ("odd flags", [&head([0x07, 0x7f, 0, 1, 0, 0, 0, 0, 0, 0])[..], &asked].concat()),
    ];
    for (what, query) in extended {
        // Answered or not: what counts is what leaves.
        let socket = scene.udp((NAMESERVER, 53).into());
        socket.send(query).unwrap();
        let _ = what;
    }
    assert_eq!(scene.lookup("index.example", "AAAA"), Found::NoData);
    for asked in scene.dns.asked() {
        let message = &asked.message;
        let shown = message.escape_ascii();
        assert!(!message.windows(6).any(|window| window == b"SECRET"), "{shown}");
        assert_eq!(message[2] & !1, 0, "no flag but RD: {shown}");
        assert_eq!(message[3] & !0x10, 0, "no flag but CD: {shown}");
        assert_eq!(message[4..10], [0, 1, 0, 0, 0, 0], "one question: {shown}");
        let end = 12 + question("index.example", 1).len();
        let is_plain = message.len() == end && message[11] == 0;
        let has_opt = message.len() == end + opt.len() && message[11] == 1;
        assert!(is_plain || has_opt, "{shown}");
    }
    scene.assert_silence();
}

#[test]
fn answers_open_the_addresses_of_the_asked_name_only() {
    let world = needs!(World::root());
    let scene = Scene::new(world, "allow .index.example\ndeny tracker.example");
    let chain = |count: usize, address: &str| {
        let mut records: Vec<String> =
            (1..count).map(|n| format!("c{n}.example 60 CNAME c{}.example", n + 1)).collect();
        records.insert(0, format!("l{count}.index.example 60 CNAME c1.example"));
        records.push(format!("c{count}.example 60 A {address}"));
        records
    };
    let set = |name: &str, records: &[&str]| {
        scene.dns.set(name, records);
        scene.lookup(name, "A")
    };
    set(
        "a.index.example",
        &["other.example 60 A 203.0.113.20", "a.index.example 60 A 203.0.113.21"],
    );
    assert!(!is_open(&scene, "203.0.113.20"), "a foreign owner");
    assert!(is_open(&scene, "203.0.113.21"), "the own one beside it");
    set(
        "b.index.example",
        &[
            "b.index.example 60 CNAME b2.example",
            "b2.example 60 CNAME b.index.example",
            "b.index.example 60 A 203.0.113.22",
            "b2.example 60 A 203.0.113.22",
        ],
    );
    assert!(!is_open(&scene, "203.0.113.22"), "a loop");
    set(
        "c.index.example",
        &["c.index.example 60 CNAME c.index.example", "c.index.example 60 A 203.0.113.23"],
    );
    assert!(!is_open(&scene, "203.0.113.23"), "a loop of one");
    for (count, address, opens) in [(16, "203.0.113.24", true), (17, "203.0.113.25", false)] {
        let records = chain(count, address);
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        set(&format!("l{count}.index.example"), &records);
        assert_eq!(is_open(&scene, address), opens, "{count} aliases");
    }
    set(
        "d.index.example",
        &["cdn.example 60 A 203.0.113.26", "d.index.example 60 CNAME cdn.example"],
    );
    assert!(is_open(&scene, "203.0.113.26"), "the address before the alias");
    let to: SocketAddr = "203.0.113.26:443".parse().unwrap();
    assert!(scene.exchange(to, &[&hello("cdn.example")]).starts_with(ALERT), "an alias is no name");
    assert_eq!(scene.exchange(to, &[&hello("d.index.example")]), SEEN);
    let cloaked = set(
        "e.index.example",
        &["e.index.example 60 CNAME tracker.example", "tracker.example 60 A 203.0.113.27"],
    );
    assert_eq!(cloaked, Found::NoSuchName);
    assert!(!is_open(&scene, "203.0.113.27"), "an alias is denied");
    let used = ["203.0.113.21", "203.0.113.24", "203.0.113.26"].map(|a| a.parse().unwrap());
    scene.assert_only(&used);
}

#[test]
fn names_lead_to_no_address_inside() {
    let world = needs!(World::root());
    let scene = Scene::with_ipv6(world, "allow .index.example\nallow *.corp.example private=yes");
    let listener = scene.host.enter(|| TcpListener::bind("[::]:443")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let never = ["10.0.2.2", "169.254.169.254", "169.254.1.1", "100.100.100.200", "168.63.129.16"];
    let private = ["10.1.2.3", "192.168.1.1", "100.64.0.1", "198.51.100.1"];
    let answer = |name: &str, addresses: &[&str]| {
        let records: Vec<String> =
            addresses.iter().map(|address| format!("{name} 60 A {address}")).collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        scene.dns.set(name, &records);
        scene.lookup(name, "A")
    };
    // Mixed with a good one. The answer is passed on, and the guest finds out at once.
    let all: Vec<&str> = never.iter().chain(&private).copied().chain(["203.0.113.30"]).collect();
    let expected = all.iter().map(|address| address.parse().unwrap()).collect();
    assert_eq!(answer("mixed.index.example", &all), Found::Addresses(expected));
    for address in never.iter().chain(&private) {
        assert!(!is_open(&scene, address), "{address}");
    }
    assert!(is_open(&scene, "203.0.113.30"), "the good one");
    let v6 = [
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "64:ff9b::a01:203",
        "2002:a9fe:a9fe::1",
        "2002:7f00:1::1",
        "fd00:ec2::254",
        "fd00::2",
        "2001:db8:1::1",
    ];
    for address in v6 {
        scene.dns.set("six.index.example", &[&format!("six.index.example 60 AAAA {address}")]);
        let found = scene.lookup("six.index.example", "AAAA");
        assert_eq!(found, Found::Addresses(vec![address.parse().unwrap()]));
        assert!(!is_open(&scene, address), "{address}");
    }
    // Private ones where the rule says so; the others never.
    answer("db.corp.example", &all);
    for address in never {
        assert!(!is_open(&scene, address), "{address} of a name with private=yes");
    }
    assert!(is_open(&scene, "10.1.2.3"));
    scene.assert_only(&["203.0.113.30".parse().unwrap(), "10.1.2.3".parse().unwrap()]);
    assert!(listener.accept().is_err(), "the host was reached");
}

#[test]
fn answers_of_any_size_and_lifetime_are_taken_within_bounds() {
    let scene = Scene::new(needs!(World::root()), POLICY);
    for (ttl, address) in [("0", "203.0.113.40"), ("2147483648", "203.0.113.41")] {
        let name = format!("ttl{ttl}.index.example");
        scene.dns.set(&name, &[&format!("{name} {ttl} A {address}")]);
        assert_ne!(scene.lookup(&name, "A"), Found::NoSuchName);
        assert!(is_open(&scene, address), "a time to live of {ttl} s");
    }
    let before = scene.online.slirp.facts().resident_kib();
    // 4,000 addresses in each of five answers, with one of the outside at the end.
    for round in 0..5 {
        let name = "many.index.example";
        let mut records: Vec<String> = (0..3999)
            .map(|n| format!("{name} 60 A 44.{round}.{}.{}", n / 250, n % 250 + 1))
            .collect();
        records.push(format!("{name} 60 A 203.0.113.{}", 100 + round));
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        scene.dns.set(name, &records);
        let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
        query.extend(question(name, 1));
        let answers = ask_by_tcp(&scene, NAMESERVER, &[query]);
        let Found::Addresses(addresses) = read_answer(&answers[0]) else { panic!("no addresses") };
        assert_eq!(addresses.len(), 4000);
    }
    let grown = scene.online.slirp.facts().resident_kib().saturating_sub(before);
    assert!(grown < 8192, "{grown} KiB more");
    // The name still opens what it answers, and those that were asked first are in vain.
    scene.dns.set_address("many.index.example", "203.0.113.42");
    assert_ne!(scene.lookup("many.index.example", "A"), Found::NoSuchName);
    assert!(is_open(&scene, "203.0.113.42"));
    assert!(is_open(&scene, "203.0.113.40"), "other names keep theirs");
}

#[test]
fn addresses_that_were_never_looked_up_are_nobodys() {
    let scene = Scene::new(needs!(World::root()), POLICY);
    // From a file, from a cache of before the start, or guessed.
    scene.guest.script(
        "printf '203.0.113.7 index.example\\n' > /tmp/hosts-$$
         mount --bind /tmp/hosts-$$ /etc/hosts; rm /tmp/hosts-$$",
    );
    let curl = ["curl", "-sS", "-k", "--max-time", "20", "https://index.example/"];
    let output = scene.guest.exec(&curl);
    assert_eq!(output.status.code(), Some(7), "{}", output.stderr);
    scene.assert_silence();
    // Another name server in the guest's file changes nothing.
    scene.guest.script("printf 'nameserver 203.0.113.99\\n' > /etc/resolv.conf; umount /etc/hosts");
    let shown = scene.guest.exec(&["getent", "ahostsv4", "evil.example"]);
    assert!(!shown.status.success(), "{}", shown.stdout);
    let shown = scene.guest.script("getent ahostsv4 index.example");
    assert!(shown.starts_with("203.0.113.7 "), "{shown}");
    assert!(is_open(&scene, "203.0.113.7"));
    scene.assert_only(&[INDEX]);
}

#[test]
fn text_of_the_guest_cannot_write_to_the_log() {
    let world = needs!(World::root());
    let scene = Scene::with(world, POLICY, &["--log-level=trace"], &[80, 443]);
    let evil: [&[u8]; 5] = [
        b"\x1b[31mred\x1b]0;title\x07",
        b"line\nERROR end",
        b"\"quote\\",
        b"\xe2\x80\xae\x9b",
        &[b'a'; 63],
    ];
    assert_ne!(scene.lookup("index.example", "A"), Found::NoSuchName);
    for label in evil {
        for labels in [&[label, b"index", b"example"][..], &[label, b"example"]] {
            let name = [&wire_name(labels)[..], &[0, 1, 0, 1]].concat();
            let query = [b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0", &name[..]].concat();
            assert!(scene.ask(NAMESERVER, &query).is_some());
        }
        let names = [crate::hello::server_name(&[label])];
        let hello = crate::hello::record(22, &crate::hello::message(&names));
        let answer = scene.exchange((INDEX, 443).into(), &[&hello]);
        assert!(answer.starts_with(ALERT), "{}", answer.escape_ascii());
        let request = [b"GET / HTTP/1.1\r\nHost: ", label, b"\r\n\r\n"].concat();
        let answer = scene.exchange((INDEX, 80).into(), &[&request]);
        assert!(answer.starts_with(b"HTTP/1.1 403"), "{}", answer.escape_ascii());
        assert!(!answer.contains(&0x1b), "{}", answer.escape_ascii());
    }
    let log = scene.online.slirp.stderr();
    assert!(log.len() > 1000, "{log}");
    for line in log.lines() {
        assert!(!line.contains(|c: char| c.is_control() && c != '\t'), "{}", line.escape_debug());
        assert!(!line.contains('\u{202e}'), "{}", line.escape_debug());
        assert!(!line.starts_with("ERROR end"), "{line}");
    }
}
