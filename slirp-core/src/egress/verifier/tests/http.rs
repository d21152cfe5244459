//! Which requests pass, and why the others do not.

use super::*;

fn request(head: &str) -> Vec<u8> {
    head.as_bytes().to_vec()
}

#[track_caller]
fn assert_passes(stream: &str) {
    let outcome = Guest::http().sends(stream.as_bytes());
    assert_eq!((outcome.cause(), outcome.left), (None, stream.len()), "{stream:?}");
}

/// Refused as a request that cannot be checked, with nothing left.
#[track_caller]
fn assert_refused(stream: &[u8]) {
    let outcome = Guest::http().sends(stream);
    let shown = String::from_utf8_lossy(stream);
    assert_eq!((outcome.cause(), outcome.left), (Some(Cause::Http), 0), "{shown:?}");
    let is_tls = stream[0] == 0x16;
    let reply = outcome.reply();
    assert!(is_tls || reply.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{reply}");
}

#[test]
fn allowed_host_passes() {
    for request in [
        "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n",
        "GET / HTTP/1.0\r\nhost:GOOD.example.\r\n\r\n",
        "GET /a?b=c%20d HTTP/1.1\r\nHOST: \t good.example:80 \t\r\nAccept: */*\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: good.example\r\n\r\n",
        "GET http://good.example/x HTTP/1.1\r\nHost: good.example\r\n\r\n",
        "GET HTTP://GOOD.example:80?x HTTP/1.1\r\nHost: good.example\r\n\r\n",
        "M-SEARCH /\u{fc} HTTP/1.1\r\nX: \u{fc}\r\nHost: a.good.example\r\nEmpty:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: good.example\r\nUpgrade-Insecure-Requests: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: good.example\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n",
    ] {
        assert_passes(request);
    }
}

#[test]
fn other_host_gets_a_text_with_the_note() {
    let outcome = Guest::http().sends(b"GET / HTTP/1.1\r\nHost: EVIL.example.:80\r\n\r\n");
    assert_eq!(outcome.cause(), Some(Cause::Name));
    let body = "blocked by egress policy: evil.example is not allowed. Ask Ann.\n";
    let head = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nCache-Control: no-store\r\n\
                Content-Type: text/plain; charset=utf-8\r\n";
    let expected = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(outcome.reply(), expected);
}

#[test]
fn address_is_judged_as_no_name() {
    for host in ["203.0.113.7", "203.0.113.7:80", "[2001:db8::1]", "[2001:db8::1]:80"] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let outcome = Guest::http().sends(request.as_bytes());
        assert_eq!(outcome.cause(), Some(Cause::NoName));
        assert!(outcome.reply().contains(host.trim_end_matches(":80").trim_matches(['[', ']'])));
        let guest = Guest { no_name: Ok(()), ..Guest::http() };
        assert_eq!(guest.sends(request.as_bytes()).cause(), None);
    }
}

#[test]
fn each_request_of_a_connection_is_judged() {
    let good = "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n";
    let evil = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let sized = "POST / HTTP/1.1\r\nHost: good.example\r\nContent-Length: 38\r\n\r\n";
    let chunked = "POST / HTTP/1.1\r\nHost: good.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    for front in [
        good.to_owned(),
        good.repeat(50),
        // The body is a request itself, which nobody reads.
        format!("{sized}{evil}"),
        format!("{chunked}a\r\n0123456789\r\n00\r\n\r\n"),
        format!("{chunked}{:X}\r\n{evil}\r\n1\r\n\n\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", evil.len()),
    ] {
        let outcome = Guest::http().sends(format!("{front}{good}").as_bytes());
        assert_eq!((outcome.cause(), outcome.left), (None, front.len() + good.len()), "{front}");
        let outcome = Guest::http().sends(format!("{front}{evil}{good}").as_bytes());
        assert_eq!((outcome.cause(), outcome.left), (Some(Cause::Name), front.len()), "{front}");
    }
}

#[test]
fn body_is_skipped_by_its_length() {
    let head = b"PUT / HTTP/1.1\r\nContent-Length: 1000000000000\r\nHost: good.example\r\n\r\n";
    let mut verifier = Verifier::new(Verification::Http, 80, true).unwrap();
    let peek = verifier.on_bytes(head, false, Instant::ZERO, &mut |_| Ok(()));
    assert_eq!(peek, Peek::Pass(head.len() as u64 + 1_000_000_000_000));
}

#[test]
fn request_line_is_strict() {
    for line in [
        "",
        " GET / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /",
        "GET",
        "GET\t/ HTTP/1.1",
        "GET /\t HTTP/1.1",
        "G@T / HTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/01.1",
        "PRI * HTTP/2.0",
        "CONNECT good.example:80 HTTP/1.1",
        "connect good.example:80 HTTP/1.1",
        "GET * HTTP/1.1",
        "GET good.example HTTP/1.1",
        "GET https://good.example/ HTTP/1.1",
        "GET http:/good.example/ HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http://a@good.example/ HTTP/1.1",
        "GET http://good.example\\@evil.example/ HTTP/1.1",
        "GET http://good.example#/ HTTP/1.1",
        "GET http://good.example:81/ HTTP/1.1",
    ] {
        assert_refused(&request(&format!("{line}\r\nHost: good.example\r\n\r\n")));
    }
}

#[test]
fn target_and_host_are_equal() {
    for (target, host) in [
        ("http://good.example/", "a.good.example"),
        ("http://a.good.example/", "good.example"),
        ("http://evil.example/", "good.example"),
        ("http://203.0.113.7/", "good.example"),
    ] {
        assert_refused(&request(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")));
    }
}

#[test]
fn host_comes_once_and_is_a_name() {
    for fields in [
        "",
        "Host:\r\n",
        "Host: good.example\r\nHost: good.example\r\n",
        "Host: good.example\r\nX: y\r\nhOST: evil.example\r\n",
        "Host: good.example, evil.example\r\n",
        "Host: good.example evil.example\r\n",
        "Host: a@good.example\r\n",
        "Host: good.example/\r\n",
        "Host: good.example:\r\n",
        "Host: good.example:81\r\n",
        "Host: good.example:080\r\n",
        "Host: good.example:+80\r\n",
        "Host: good.example:80:80\r\n",
        "Host: [good.example]\r\n",
        "Host: [2001:db8::1\r\n",
        "Host: [2001:db8::1]80\r\n",
        "Host: 2001:db8::1\r\n",
        "Host: good..example\r\n",
        "Host: g\u{fc}d.example\r\n",
    ] {
        assert_refused(&request(&format!("GET / HTTP/1.1\r\n{fields}\r\n")));
        assert_refused(&request(&format!("GET / HTTP/1.0\r\n{fields}\r\n")));
    }
}

#[test]
fn fields_are_strict() {
    for fields in [
        "Host : good.example\r\n",
        " Host: good.example\r\n",
        "X: y\r\n Host: evil.example\r\nHost: good.example\r\n",
        "Host: good.example\r\n\tevil.example\r\n",
        "Host\r\n",
        ": good.example\r\n",
        "Host: good.example\r\nX y: z\r\n",
        "Host: good.example\r\nX\u{fc}: z\r\n",
    ] {
        assert_refused(&request(&format!("GET / HTTP/1.1\r\n{fields}\r\n")));
    }
}

#[test]
fn line_ends_are_cr_lf_and_control_characters_are_refused() {
    let good = "GET / HTTP/1.1\r\nHost: good.example\r\nX: y\r\n\r\n";
    assert_passes(good);
    for at in 0..good.len() - 1 {
        for control in (0..0x20_u8).filter(|&byte| byte != b'\t').chain([0x7f]) {
            let mut changed = request(good);
            changed.insert(at, control);
            assert_refused(&changed);
        }
        if good.as_bytes()[at] == b'\r' {
            let mut changed = request(good);
            changed.remove(at);
            assert_refused(&changed);
        }
    }
    assert_refused(good.replace("\r\n", "\r").as_bytes());
    assert_refused(format!("\r\n{good}").as_bytes());
    assert_refused(b"\x16\x03\x01\x00");
}

#[test]
fn length_of_a_body_is_never_ambiguous() {
    for fields in [
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 1000000000000000\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: good.example\r\n{fields}\r\n");
        assert_refused(head.as_bytes());
    }
    let old = b"POST / HTTP/1.0\r\nHost: good.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_refused(old);
}

#[test]
fn chunks_are_strict() {
    let head = "POST / HTTP/1.1\r\nHost: good.example\r\nTransfer-Encoding: Chunked\r\n\r\n";
    for body in [
        "\r\n",
        "g\r\n",
        " 5\r\n",
        "5 \r\n",
        "5;x=y\r\n",
        "5;\r\n",
        "0x5\r\n",
        "+5\r\n",
        "-1\r\n",
        "5\n",
        "5\r\r\n",
        "0123456789abcdef\r\n",
        "5\r\nhellox\r\n",
        "5\r\nhello\n",
        "5\r\nhello0\r\n\r\n",
        "0\r\nHost: evil.example\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0;x\r\n\r\n",
    ] {
        let outcome = Guest::http().sends(format!("{head}{body}").as_bytes());
        assert_eq!(outcome.cause(), Some(Cause::Http), "{body:?}");
        let passed = if body.starts_with("5\r\nh") { 8 } else { 0 };
        let last = if body.starts_with("0\r\n") { 3 } else { 0 };
        assert_eq!(outcome.left, head.len() + passed + last, "{body:?}");
    }
}

#[test]
fn what_cannot_be_followed_is_refused() {
    for fields in ["Upgrade: websocket", "upgrade: h2c, x", "Upgrade: TLS/1.2", "Upgrade:"] {
        let head = "GET / HTTP/1.1\r\nHost: good.example\r\nConnection: Upgrade";
        assert_refused(format!("{head}\r\n{fields}\r\n\r\n").as_bytes());
    }
    assert_refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_refused(b"GET /\r\n");
}

#[test]
fn offer_of_http_2_passes_and_its_preface_is_refused() {
    let offer = "GET / HTTP/1.1\r\nHost: good.example\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                 Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    assert_passes(&offer.repeat(2));
    let outcome = Guest::http().sends(format!("{offer}PRI * HTTP/2.0\r\n\r\n").as_bytes());
    assert_eq!((outcome.cause(), outcome.left), (Some(Cause::Http), offer.len()));
    let both = offer.replace("h2c\r\n", "h2c\r\nUpgrade: x\r\n");
    assert_refused(both.as_bytes());
}

#[test]
fn heads_are_bounded() {
    let begin = "GET / HTTP/1.1\r\nHost: good.example\r\n";
    let of_len = |len: usize| format!("{begin}X: {}\r\n\r\n", "y".repeat(len - begin.len() - 7));
    assert_passes(&of_len(32 * 1024));
    assert_refused(of_len(32 * 1024 + 1).as_bytes());
    assert_refused(&[b'x'; 32 * 1024 + 1]);
    assert_eq!(Guest::http().sends(&[b'x'; 32 * 1024 - 2]).end, End::Open);
    let of_lines = |lines: usize| format!("{begin}{}\r\n", "X: y\r\n".repeat(lines - 2));
    assert_passes(&of_lines(128));
    assert_refused(of_lines(129).as_bytes());
}

#[test]
fn end_within_a_head_is_refused_and_within_a_body_it_is_not() {
    let guest = Guest { ends: true, ..Guest::http() };
    let request = b"POST / HTTP/1.1\r\nHost: good.example\r\nContent-Length: 5\r\n\r\nhello";
    let head_len = request.len() - 5;
    for len in 1..=request.len() {
        let cause = (len < head_len).then_some(Cause::Http);
        assert_eq!(guest.sends(&request[..len]).cause(), cause, "{len}");
    }
}

#[test]
fn head_has_no_deadline() {
    let mut verifier = Verifier::new(Verification::Http, 80, true).unwrap();
    let late = Instant::ZERO + HELLO_TIMEOUT + HELLO_TIMEOUT;
    for now in [Instant::ZERO, late] {
        assert_eq!(
            verifier.on_bytes(b"GET / HTTP/1.1\r\n", false, now, &mut |_| Ok(())),
            Peek::More
        );
        assert_eq!(verifier.deadline(), None);
    }
}
