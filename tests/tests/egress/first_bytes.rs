//! Names in first bytes: SNI and Host.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use slirp_tests::*;
use socket2::SockRef;

use crate::hello::*;
use crate::scene::*;

/// TLS and HTTP at the allowed name's address.
const TLS: SocketAddr = SocketAddr::new(INDEX, 443);
const HTTP: SocketAddr = SocketAddr::new(INDEX, 80);
const POLICY: &str = "allow index.example\nallow index.example:8443\nallow index.example:22";

/// A scene whose guest has looked index.example up.
fn looked_up(world: World, policy: &str) -> Scene {
    let scene = Scene::new(world, policy);
    assert_eq!(scene.lookup("index.example", "A"), Found::Addresses(vec![INDEX]));
    scene
}

fn get(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// Asserts that the guest read `answer`, and that no byte arrived outside.
#[track_caller]
fn assert_refused(scene: &Scene, to: SocketAddr, answer: &[u8], expected: &[u8], what: &str) {
    let read = answer.escape_ascii();
    assert!(answer.starts_with(expected), "{what}: the guest read {read}");
    assert!(!is_seen(answer), "{what}: the outside has answered: {read}");
    let arrived = scene.arrived_bytes(to);
    assert!(arrived.is_empty(), "{what}: {} arrived", arrived.escape_ascii());
}

#[test]
fn raw_address_of_an_allowed_name_with_another_sni() {
    let scene = looked_up(needs!(World::root()), POLICY);
    let names: &[&str] = &[
        "evil.example",
        "xindex.example",
        "index.example.evil.example",
        "www.index.example",
        "index",
        "example",
        "index_example",
    ];
    for name in names {
        let answer = scene.exchange(TLS, &[&hello(name)]);
        assert_refused(&scene, TLS, &answer, ALERT, name);
    }
    // No name at all, and addresses in the place of one.
    let nameless = record(22, &message(&[versions()]));
    assert_refused(&scene, TLS, &scene.exchange(TLS, &[&nameless]), ALERT, "no name");
    let bare = record(22, &message(&[]));
    assert_refused(&scene, TLS, &scene.exchange(TLS, &[&bare]), ALERT, "no extension");
    for name in ["203.0.113.7", "[2001:db8::1]", "2001:db8::1", "3405803783", "0x7f.1"] {
        let answer = scene.exchange(TLS, &[&hello(name)]);
        assert_refused(&scene, TLS, &answer, ALERT, name);
    }
    // The allowed name still passes, byte for byte.
    assert_eq!(scene.exchange(TLS, &[&hello("index.example")]), SEEN);
    assert_eq!(scene.arrived_bytes(TLS), hello("index.example"));
    scene.assert_only(&[INDEX]);
}

#[test]
fn names_in_hellos_are_read_in_one_way_only() {
    let scene = looked_up(needs!(World::root()), POLICY);
    let good = server_name(&[b"index.example"]);
    let evil = server_name(&[b"evil.example"]);
    let of_type = |kind: u8| {
        let mut extension = good.clone();
        extension[6] = kind;
        extension
    };
    let longer = |by: usize| {
        let mut extension = good.clone();
        extension[3] += u8::try_from(by).unwrap();
        extension.extend(vec![0; by]);
        extension
    };
    let attempts: &[(&str, Vec<Vec<u8>>)] = &[
        ("a NUL behind", vec![server_name(&[b"index.example\0"])]),
        ("a NUL and another name", vec![server_name(&[b"index.example\0.evil.example"])]),
        ("another name and a NUL", vec![server_name(&[b"evil.example\0index.example"])]),
        ("two trailing dots", vec![server_name(&[b"index.example.."])]),
        ("a leading dot", vec![server_name(&[b".index.example"])]),
        ("a space", vec![server_name(&[b"index.example "])]),
        ("a line end", vec![server_name(&[b"index.example\r\n"])]),
        ("a port", vec![server_name(&[b"index.example:443"])]),
        ("a byte above ASCII", vec![server_name(&[b"\xc4\xb1ndex.example"])]),
        ("an escape", vec![server_name(&[b"\x1b[31mindex.example"])]),
        ("an empty name", vec![server_name(&[b""])]),
        ("the root", vec![server_name(&[b"."])]),
        ("an empty list", vec![server_name(&[])]),
        ("254 bytes", vec![server_name(&[&[b'a'; 254]])]),
        ("two names, good first", vec![server_name(&[b"index.example", b"evil.example"])]),
        ("two names, bad first", vec![server_name(&[b"evil.example", b"index.example"])]),
        ("the same name twice", vec![server_name(&[b"index.example", b"index.example"])]),
        ("two extensions, good first", vec![good.clone(), evil.clone()]),
        ("two extensions, bad first", vec![evil, good.clone()]),
        ("the extension twice", vec![good.clone(), good.clone()]),
        ("another extension twice", vec![good.clone(), versions(), versions()]),
        ("another type of name", vec![of_type(1)]),
        ("bytes behind the list", vec![longer(1)]),
    ];
    for (what, extensions) in attempts {
        let answer = scene.exchange(TLS, &[&record(22, &message(extensions))]);
        assert_refused(&scene, TLS, &answer, ALERT, what);
    }
    // These are the same name.
    for name in ["INDEX.Example", "index.example."] {
        assert_eq!(scene.exchange(TLS, &[&hello(name)]), SEEN, "{name}");
    }
}

#[test]
fn hello_in_pieces_is_one_hello() {
    let scene = looked_up(needs!(World::root()), POLICY);
    let good = message(&[server_name(&[b"index.example"]), versions()]);
    let evil = message(&[server_name(&[b"evil.example"]), versions()]);
    // Nothing leaves of a hello until it is whole.
    let mut stream = connect(&scene.guest, TLS).unwrap();
    stream.set_nodelay(true).unwrap();
    let whole = record(22, &good);
    for byte in &whole[..whole.len() - 1] {
        stream.write_all(&[*byte]).unwrap();
    }
    assert!(scene.arrived_bytes(TLS).is_empty(), "a part of a hello arrived");
    stream.write_all(&whole[whole.len() - 1..]).unwrap();
    assert_eq!(answer(&mut stream), SEEN);
    assert_eq!(scene.arrived_bytes(TLS), whole);
    // Many records are one hello; too many are none.
    let evil_whole = record(22, &evil);
    let bytes: Vec<&[u8]> = evil_whole.chunks(1).collect();
    let outcomes: [(&str, Vec<u8>, bool); 4] = [
        ("64 records", records(&good, good.len().div_ceil(64)), true),
        ("more records", records(&good, 1), false),
        ("other name in records", records(&evil, 7), false),
        (
            "an empty record",
            [records(&good[..9], 9), record(22, &[]), record(22, &good[9..])].concat(),
            false,
        ),
    ];
    for (what, bytes, passes) in outcomes {
        let before = scene.arrived_bytes(TLS).len();
        let answer = scene.exchange(TLS, &[&bytes]);
        assert_eq!(is_seen(&answer), passes, "{what}: {}", answer.escape_ascii());
        let arrived = scene.arrived_bytes(TLS).len() - before;
        assert_eq!(arrived, if passes { bytes.len() } else { 0 }, "{what}");
    }
    let answer = scene.exchange(TLS, &bytes);
    assert!(answer.starts_with(ALERT), "{}", answer.escape_ascii());
    let arrived = scene.arrived_bytes(TLS);
    assert!(!arrived.windows(4).any(|window| window == b"evil"), "the other name arrived");
}

#[test]
fn second_hello_has_the_name_of_the_first() {
    let scene = looked_up(needs!(World::root()), POLICY);
    let good = hello("index.example");
    let evil = hello("evil.example");
    let change_cipher_spec = record(20, &[1]);
    let early =
        record(22, &message(&[server_name(&[b"index.example"]), versions(), extension(42, &[])]));
    let behind: &[(&str, Vec<Vec<u8>>)] = &[
        ("directly", vec![good.clone(), evil.clone()]),
        ("behind change_cipher_spec", vec![good.clone(), change_cipher_spec.clone(), evil.clone()]),
        ("behind early data", vec![early.clone(), record(23, &[7; 900]), evil.clone()]),
        ("behind an alert", vec![good.clone(), record(21, &[1, 0]), evil.clone()]),
        ("without a name", vec![good.clone(), record(22, &message(&[versions()]))]),
        ("in records", vec![good.clone(), records(&evil[5..], 9)]),
        ("as a third", vec![good.clone(), good.clone(), evil.clone()]),
    ];
    for (what, pieces) in behind {
        let mut stream = connect(&scene.guest, TLS).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&pieces[0]).unwrap();
        assert_eq!(answer(&mut stream), SEEN, "{what}");
        for piece in &pieces[1..] {
            // Refused early, perhaps.
            let _ = stream.write_all(piece);
        }
        let mut rest = Vec::new();
        // The end, or a reset behind bytes that were not read.
        let _ = stream.read_to_end(&mut rest);
        let arrived = scene.arrived_bytes(TLS);
        assert!(!arrived.windows(4).any(|window| window == b"evil"), "{what}: it arrived");
        let is_second_nameless = *what == "without a name";
        let hellos = arrived.windows(9).filter(|window| window == &[0x11; 9]).count();
        assert!(!is_second_nameless || hellos > 0, "{what}");
    }
    let nameless = message(&[versions()]);
    let arrived = scene.arrived_bytes(TLS);
    assert!(!arrived.windows(nameless.len()).any(|window| window == nameless));
}

#[test]
fn hello_that_hides_its_name_passes_only_where_a_setting_says_so() {
    let hidden =
        record(22, &message(&[server_name(&[b"index.example"]), versions(), encrypted_hello()]));
    let outer =
        record(22, &message(&[server_name(&[b"cover.example"]), versions(), encrypted_hello()]));
    let scene = looked_up(needs!(World::root()), POLICY);
    let answer = scene.exchange(TLS, &[&hidden]);
    assert_refused(&scene, TLS, &answer, &[21, 3, 3, 0, 2, 2], "the default");
    drop(scene);
    let scene = looked_up(needs!(World::root()), "allow index.example\nset ech allow");
    assert_refused(&scene, TLS, &scene.exchange(TLS, &[&outer]), ALERT, "another outer name");
    assert_eq!(scene.exchange(TLS, &[&hidden]), SEEN);
    drop(scene);
    // A deny list is no boundary anyhow.
    let scene = looked_up(needs!(World::root()), "allow any\ndeny evil.example");
    assert_eq!(scene.exchange(TLS, &[&hidden]), SEEN);
}

#[test]
fn no_request_for_another_host_leaves_on_a_connection() {
    let scene = looked_up(needs!(World::root()), POLICY);
    let good = get("index.example");
    let evil = get("evil.example");
    // The second one in the same segment, and after the answer to the first.
    let post = b"POST / HTTP/1.1\r\nHost: index.example\r\nContent-Length: 4\r\n\r\nbody".to_vec();
    let chunked = b"POST / HTTP/1.1\r\nHost: index.example\r\nTransfer-Encoding: chunked\r\n\r\n\
        4\r\nbody\r\n0\r\n\r\n"
        .to_vec();
    for (what, first) in [("a request", &good), ("a body", &post), ("chunks", &chunked)] {
        for pieces in [vec![[&first[..], &evil].concat()], vec![first.clone(), evil.clone()]] {
            let mut stream = connect(&scene.guest, HTTP).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(&pieces[0]).unwrap();
            if let [_, second] = &pieces[..] {
                assert!(is_seen(&answer(&mut stream)), "{what}: the first was not answered");
                stream.write_all(second).unwrap();
            }
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("403 Forbidden"), "{what}: {answer}");
            let told = "blocked by egress policy: evil.example is not allowed";
            assert!(answer.contains(told), "{what}: {answer}");
            let arrived = scene.arrived_bytes(HTTP);
            assert!(!arrived.windows(4).any(|window| window == b"evil"), "{what}: it arrived");
        }
    }
    let before = scene.arrived_bytes(HTTP).len();
    let answer = scene.exchange(HTTP, &[&good]);
    assert!(is_seen(&answer), "{}", answer.escape_ascii());
    assert_eq!(scene.arrived_bytes(HTTP).len() - before, good.len());
}

#[test]
fn requests_that_servers_read_in_several_ways_are_refused() {
    let scene = looked_up(needs!(World::root()), POLICY);
    let attempts: &[&str] = &[
        "GET http://evil.example/ HTTP/1.1\r\nHost: index.example\r\n\r\n",
        "GET http://index.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET http://index.example@evil.example/ HTTP/1.1\r\nHost: index.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: index.example\r\nHost: evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil.example\r\nHost: index.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: index.example, evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : index.example\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: index.example\r\nHost: evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nX: y\r\n Host: evil.example\r\nHost: index.example\r\n\r\n",
        "GET / HTTP/1.1\nHost: index.example\n\n",
        "GET / HTTP/1.1\r\nHost: index.example\nHost: evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: index.example\rHost: evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: index.example\0.evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: index.example:81\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nX-Host: index.example\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 203.0.113.7\r\n\r\n",
        "GET /\r\n",
        "GET / HTTP/2.0\r\nHost: index.example\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "CONNECT index.example:443 HTTP/1.1\r\nHost: index.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: index.example\r\nUpgrade: websocket\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: index.example\r\nContent-Length: 5\r\n\
            Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: index.example\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: index.example\r\nContent-Length: +5\r\n\r\nabcde",
        "POST / HTTP/1.1\r\nHost: index.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: index.example\r\nTransfer-Encoding: xchunked\r\n\r\n",
    ];
    for attempt in attempts {
        let answer = scene.exchange(HTTP, &[attempt.as_bytes()]);
        assert_refused(&scene, HTTP, &answer, b"HTTP/1.1 403", &attempt.escape_debug().to_string());
    }
    // Programs offer h2c by default; what they would say after a server's yes does not leave.
    let offer =
        "GET / HTTP/1.1\r\nHost: index.example\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    scene.exchange_and_end(HTTP, [offer, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].concat().as_bytes());
    let arrived = String::from_utf8_lossy(&scene.arrived_bytes(HTTP)).into_owned();
    assert!(!arrived.contains("PRI"), "{arrived}");
    // The head of these is fine; what follows is not, and does not leave.
    let chunks: &[(&str, &str)] = &[
        ("5;evil=1\r\nabcde\r\n0\r\n\r\n", "evil"),
        ("5 \r\nevil!\r\n0\r\n\r\n", "evil"),
        ("0x5\r\nevil!\r\n0\r\n\r\n", "evil"),
        ("-5\r\nevil!\r\n0\r\n\r\n", "evil"),
        ("5\nevil!\r\n0\r\n\r\n", "evil"),
        ("0\r\nHost: evil.example\r\n\r\n", "evil"),
        ("0\r\nContent-Length: 77\r\n\r\n", "77"),
    ];
    for (body, sign) in chunks {
        let head = "POST / HTTP/1.1\r\nHost: index.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        scene.exchange_and_end(HTTP, [head, body].concat().as_bytes());
        let arrived = String::from_utf8_lossy(&scene.arrived_bytes(HTTP)).into_owned();
        assert!(!arrived.contains(sign), "{body:?}: it arrived");
    }
}

#[test]
fn other_protocols_on_ports_of_names_do_not_leave() {
    let scene = looked_up(needs!(World::root()), POLICY);
    let ssh: &[u8] = b"SSH-2.0-OpenSSH_9.2\r\n";
    let no_tls: &[&[u8]] = &[
        ssh,
        b"GET / HTTP/1.1\r\nHost: index.example\r\n\r\n",
        b"plain bytes of no protocol\n",
        b"\0",
        // The form of SSLv2.
        b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10",
        b"\x17\x03\x03\0\x05abcde",
    ];
    for bytes in no_tls {
        let answer = scene.exchange_and_end(TLS, bytes);
        assert_refused(&scene, TLS, &answer, b"", &bytes.escape_ascii().to_string());
    }
    for bytes in [ssh, &hello("index.example"), b"EHLO mail\r\n"] {
        let answer = scene.exchange_and_end(HTTP, bytes);
        assert_refused(&scene, HTTP, &answer, b"", &bytes.escape_ascii().to_string());
    }
    // On other ports of a name they pass, and what names a host has to name the right one.
    assert_eq!(scene.exchange((INDEX, 22).into(), &[ssh]), SEEN);
    let other: SocketAddr = (INDEX, 8443).into();
    let answer = scene.exchange(other, &[&hello("evil.example")]);
    assert_refused(&scene, other, &answer, ALERT, "TLS on another port");
    let answer = scene.exchange(other, &[&get("evil.example")]);
    assert_refused(&scene, other, &answer, b"HTTP/1.1 403", "HTTP on another port");
    for opening in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CONNECT evil.example:443 HTTP/1.1\r\n\r\n"]
    {
        let answer = scene.exchange(other, &[opening.as_bytes()]);
        assert_refused(&scene, other, &answer, b"HTTP/1.1 403", opening);
    }
    assert_eq!(scene.exchange(other, &[&hello("index.example")]), SEEN);
}

#[test]
fn bytes_before_the_verdict_never_leave_however_the_connection_ends() {
    let scene = looked_up(needs!(World::root()), POLICY);
    let whole = hello("index.example");
    let part = &whole[..whole.len() - 1];
    let request = b"GET / HTTP/1.1\r\nHost: index.example\r\n";
    for (to, bytes) in [(TLS, part), (HTTP, &request[..])] {
        // The end of the direction, a reset, and an end of the program.
        let answer = scene.exchange_and_end(to, bytes);
        assert_refused(&scene, to, &answer, b"", "the end");
        let mut stream = connect(&scene.guest, to).unwrap();
        stream.write_all(bytes).unwrap();
        SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(stream);
        let mut stream = connect(&scene.guest, to).unwrap();
        stream.write_all(bytes).unwrap();
        drop(stream);
        let arrived = scene.arrived_bytes(to);
        assert!(arrived.is_empty(), "{} arrived", arrived.escape_ascii());
    }
    // A segment of urgent data, and data in the SYN itself.
    let stream = connect(&scene.guest, TLS).unwrap();
    SockRef::from(&stream).send_out_of_band(b"!").unwrap();
    drop(stream);
    send_frames(
        &scene.online,
        "
def syn(port, flags, data, options=b''):
    source, destination = a('10.0.2.100'), a('203.0.113.7')
    header = struct.pack('!HHIIBBHHH', port, 443, 1000, 0,
            (5 + len(options) // 4) << 4, flags, 9999, 0, 0)
    send(ipv4(source, destination, 6,
            transport(source, destination, 6, header + options + data, 16)))
fast_open = bytes([34, 10]) + b'cookie!!' + bytes([1, 1])
syn(50001, 2, b'data in the SYN')
syn(50002, 2, b'data in the SYN', fast_open)
syn(50003, 3, b'data in the SYN and its end')
syn(50004, 0x18, b'data without a SYN')
syn(50005, 0x10 | 2, b'data in a SYN with ACK')
time.sleep(0.2)",
    );
    let arrived = scene.arrived_bytes(TLS);
    assert!(arrived.is_empty(), "{} arrived", arrived.escape_ascii());
}

#[test]
fn urgent_bytes_are_not_taken_out_of_what_was_looked_at() {
    let world = needs!(World::root());
    let scene = Scene::with(world, POLICY, &[], &[]);
    assert_eq!(scene.lookup("index.example", "A"), Found::Addresses(vec![INDEX]));
    let (sender, received) = std::sync::mpsc::channel();
    let _server = TcpServer::start(&scene.remote, HTTP, move |mut stream| {
        let mut bytes = Vec::new();
        // The client's reset ends it as well.
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    // A server that skips urgent bytes would read another Host.
    let (before, after) =
        ("GET / HTTP/1.1\r\n", "Host: evil.example\r\nHost: index.example\r\n\r\n");
    let mut stream = connect(&scene.guest, HTTP).unwrap();
    stream.write_all(before.as_bytes()).unwrap();
    SockRef::from(&stream).send_out_of_band(b"X").unwrap();
    stream.write_all(after.as_bytes()).unwrap();
    drop(stream);
    let read = received.recv_timeout(PATIENCE).unwrap();
    let read = String::from_utf8_lossy(&read);
    assert!(read.is_empty() || read == format!("{before}X{after}"), "{read}");
}

#[test]
fn name_is_allowed_at_its_own_ports_and_addresses() {
    let scene = looked_up(
        needs!(World::root()),
        "allow index.example\nallow git.example:22\nallow files.example:8443",
    );
    scene.dns.set_address("git.example", "203.0.113.7");
    scene.dns.set_address("files.example", "203.0.113.9");
    // The same address as index.example: what is allowed for one is not for the other.
    assert_ne!(scene.lookup("git.example", "A"), Found::NoSuchName);
    let answer = scene.exchange(TLS, &[&hello("git.example")]);
    assert_refused(&scene, TLS, &answer, ALERT, "git.example on 443");
    assert_eq!(scene.exchange((INDEX, 22).into(), &[b"SSH-2.0-x\r\n"]), SEEN);
    for port in [8443, 21, 8080] {
        assert_eq!(scene.refused((INDEX, port).into()), Errno::EHOSTUNREACH, "{port}");
    }
    // Never looked up: the address is nobody's, whatever the hello says.
    let files: IpAddr = "203.0.113.9".parse().unwrap();
    assert_eq!(scene.refused((files, 8443).into()), Errno::EHOSTUNREACH);
    assert_ne!(scene.lookup("files.example", "A"), Found::NoSuchName);
    assert_eq!(scene.refused((files, 443).into()), Errno::EHOSTUNREACH);
    let answer = scene.exchange((files, 8443).into(), &[&hello("index.example")]);
    assert_refused(&scene, (files, 8443).into(), &answer, ALERT, "index.example on 8443");
    assert_eq!(scene.exchange((files, 8443).into(), &[&hello("files.example")]), SEEN);
    scene.assert_only(&[INDEX, files]);
}

#[test]
fn name_of_an_allowed_address_is_not_looked_at_unless_it_is_denied() {
    let scene = looked_up(
        needs!(World::root()),
        "allow 203.0.113.0/24:443\nallow dns:any\ndeny evil.example",
    );
    assert_eq!(scene.exchange(TLS, &[&hello("any.example")]), SEEN);
    let answer = scene.exchange(TLS, &[&hello("evil.example")]);
    assert!(answer.starts_with(ALERT), "{}", answer.escape_ascii());
    let arrived = scene.arrived_bytes(TLS);
    assert!(!arrived.windows(4).any(|window| window == b"evil"), "it arrived");
    assert_eq!(scene.exchange_and_end(TLS, b"SSH-2.0-x\r\n"), SEEN);
}
