//! Ports where first bytes need not name a host.

use super::hellos::{Hello, record};
use super::*;

#[test]
fn tls_and_http_are_verified_on_any_port() {
    let guest = Guest::new(Verification::Sniff, 8443);
    let evil = Hello::to("evil.example").bytes();
    assert_eq!(guest.sends(&evil).cause(), Some(Cause::Name));
    assert_eq!(guest.sends(&Hello::to("good.example").bytes()).cause(), None);
    assert_eq!(guest.sends(&Hello::without_name().bytes()).cause(), Some(Cause::NoName));
    for (host, cause) in [
        ("good.example", None),
        ("good.example:8443", None),
        ("good.example:80", Some(Cause::Http)),
        ("evil.example:8443", Some(Cause::Name)),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(guest.sends(request.as_bytes()).cause(), cause, "{host}");
    }
}

#[test]
fn records_that_a_server_may_skip_do_not_hide_a_hello() {
    let guest = Guest::new(Verification::Sniff, 8443);
    let hello = Hello::to("evil.example").bytes();
    for front in [
        record(22, &[]),
        record(21, &[]),
        record(21, &[1, 90]),
        record(20, &[]),
        record(20, &[1]),
        record(23, &[]),
    ] {
        let outcome = guest.sends(&[&front[..], &hello].concat());
        assert!(outcome.cause().is_some(), "{front:?}");
        assert_eq!(outcome.left, 0);
    }
}

#[test]
fn everything_else_passes_with_the_first_byte_that_tells() {
    for (stream, needed) in [
        (&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], 1),
        (b"\xff\xfd\x01", 1),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 20),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", 31),
        (b"EHLO client\r\n", 12),
        (b"*1\r\n$4\r\nPING\r\n", 3),
        (b"0032git-upload-pack /project.git\0host=h\0", 33),
        (b"GET key\r\n", 8),
        (b"GET /\n", 6),
        (b"OPTIONS rtsp://h/ RTSP/1.0\r\n", 27),
        (&[0x16, 0x02], 2),
        (&[0x16, 3, 1, 0, 5, 2], 6),
        (b"\r\n\0", 3),
    ] {
        for verification in [Verification::Sniff, Verification::SniffDenied] {
            let mut verifier = Verifier::new(verification, 2222, false).unwrap();
            let mut ask = |_: Option<&Name>| -> Result<(), Denial> { unreachable!("no name") };
            for len in 1..needed {
                let peek = verifier.on_bytes(&stream[..len], false, Instant::ZERO, &mut ask);
                assert_eq!(peek, Peek::More, "{stream:?} {len}");
            }
            let peek = verifier.on_bytes(&stream[..needed], false, Instant::ZERO, &mut ask);
            assert_eq!(peek, Peek::Done, "{stream:?}");
        }
    }
}

#[test]
fn what_a_lenient_server_takes_for_http_is_refused() {
    let guest = Guest::new(Verification::Sniff, 8080);
    for stream in [
        &b"\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"[..],
        b"\n\nGET / HTTP/1.1\r\nHost: good.example\r\n\r\n",
        b"GET\t/\tHTTP/1.1\r\nHost: good.example\r\n\r\n",
        b"GET\x0b/ HTTP/1.1\r\nHost: good.example\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET http://evil.example/\0 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"get / http/1.1\nHost: good.example\n\n",
        b"GET / HTTP/1.1\rHost: good.example\r\r",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT good.example:8080 HTTP/1.1\r\nHost: good.example\r\n\r\n",
    ] {
        assert_eq!(guest.sends(stream).cause(), Some(Cause::Http), "{stream:?}");
    }
    assert_eq!(
        guest.sends(&[b"GET /".as_slice(), &[b'x'; 33_000]].concat()).cause(),
        Some(Cause::Http)
    );
}

#[test]
fn bytes_that_may_still_become_either_are_refused_after_ten_seconds() {
    for stream in [&b"GET"[..], b"GET /", &[0x16], &[0x16, 3, 1, 0, 9]] {
        let mut verifier = Verifier::new(Verification::Sniff, 2222, false).unwrap();
        let mut ask = |_: Option<&Name>| Ok(());
        assert_eq!(verifier.on_bytes(stream, false, Instant::ZERO, &mut ask), Peek::More);
        let deadline = verifier.deadline().unwrap();
        assert_eq!(deadline, Instant::ZERO + HELLO_TIMEOUT);
        let peek = verifier.on_bytes(stream, false, deadline, &mut ask);
        assert!(matches!(peek, Peek::Refuse { cause: Cause::Http, .. }), "{stream:?}: {peek:?}");
    }
}

#[test]
fn end_before_they_have_become_either_lets_them_pass() {
    for verification in [Verification::Sniff, Verification::SniffDenied] {
        let guest = Guest { ends: true, ..Guest::new(verification, 2222) };
        for stream in [&b"GET"[..], b"GET /x", b"hello", &[0x16, 3]] {
            assert_eq!(guest.sends(stream).end, End::Done);
        }
    }
    let guest = Guest { ends: true, ..Guest::new(Verification::Sniff, 2222) };
    assert_eq!(guest.sends(b"GET / HTTP/1.1").cause(), Some(Cause::Http));
}

#[test]
fn list_of_denied_names_refuses_nothing_but_them() {
    let guest = Guest { no_name: Ok(()), ..Guest::new(Verification::SniffDenied, 80) };
    let evil = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let good = "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n";
    for stream in [
        evil.to_owned(),
        format!("{good}{evil}"),
        evil.replace("\r\n\r\n", "\r\nUpgrade: x\r\n\r\n"),
    ] {
        assert_eq!(guest.sends(stream.as_bytes()).cause(), Some(Cause::Name), "{stream}");
    }
    for stream in [
        good.replace("\r\n\r\n", "\r\nUpgrade: websocket\r\n\r\n"),
        evil.replace("\r\n", "\n"),
        format!("{good}\n"),
        format!("{good}PRI * HTTP/2.0\r\n\r\n"),
        "CONNECT evil.example:443 HTTP/1.1\r\n\r\n".into(),
    ] {
        let outcome = guest.sends(stream.as_bytes());
        assert_eq!((outcome.end, outcome.left), (End::Done, stream.len()), "{stream}");
    }
    assert_eq!(guest.sends(&Hello::to("evil.example").bytes()).cause(), Some(Cause::Name));
    assert_eq!(guest.sends(&Hello::to("a..b").bytes()).cause(), None);
    assert_eq!(guest.sends(&Hello::without_name().bytes()).cause(), None);
    let hidden = Hello::to("good.example").with(hellos::ECH, vec![0; 9]).bytes();
    let guest = Guest { may_hide_name: false, ..guest };
    assert_eq!(guest.sends(&hidden).cause(), Some(Cause::Ech));
}
