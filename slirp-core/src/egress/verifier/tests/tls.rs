//! Which ClientHellos pass, and why the others do not.

use super::hellos::{
    EARLY_DATA, ECH, Hello, SERVER_NAME, SUPPORTED_VERSIONS, message, record, server_name,
};
use super::*;

const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
const CCS: [u8; 6] = [20, 3, 3, 0, 1, 1];

#[track_caller]
fn assert_passes(stream: &[u8]) {
    let outcome = Guest::tls().sends(stream);
    assert_eq!((outcome.cause(), outcome.left), (None, stream.len()));
}

#[track_caller]
fn assert_refused(stream: &[u8], cause: Cause) {
    let outcome = Guest::tls().sends(stream);
    assert_eq!(outcome.end, End::Refused(cause, ALERT.to_vec()));
    assert_eq!(outcome.left, 0);
}

#[test]
fn allowed_name_passes() {
    let hello = Hello::to("good.example").bytes();
    let outcome = Guest::tls().sends(&hello);
    assert_eq!(
        outcome,
        Outcome { left: hello.len(), end: End::Open, asked: vec!["good.example".into()] }
    );
}

#[test]
fn hello_of_tls_1_2_ends_the_verification() {
    let hello = Hello::to("good.example").without(SUPPORTED_VERSIONS).bytes();
    assert_eq!(Guest::tls().sends(&hello).end, End::Done);
}

#[test]
fn other_name_gets_an_alert() {
    assert_refused(&Hello::to("evil.example").bytes(), Cause::Name);
}

#[test]
fn missing_name_and_address_are_judged_as_no_name() {
    for hello in [
        Hello::without_name(),
        Hello::to("203.0.113.7"),
        Hello::to("2001:db8::1"),
        Hello::to("good.example").without(SERVER_NAME),
    ] {
        assert_refused(&hello.bytes(), Cause::NoName);
        let guest = Guest { no_name: Ok(()), ..Guest::tls() };
        assert_eq!(guest.sends(&hello.bytes()).cause(), None);
    }
}

#[test]
fn hello_without_extensions_has_no_name() {
    let body = Hello::without_name().body();
    let bare = &body[..2 + 32 + 1 + 4 + 2];
    assert_refused(&record(22, &message(1, bare)), Cause::NoName);
}

#[test]
fn names_are_compared_in_their_normal_form() {
    for name in ["GOOD.example", "good.example.", "a_b.Good.Example."] {
        assert_passes(&Hello::to(name).bytes());
    }
}

#[test]
fn names_that_are_none_are_refused() {
    let long = ["a"; 127].join(".") + ".b";
    for name in [
        "",
        ".",
        "good.example\0",
        "good.example\0.evil.example",
        "good..example",
        ".good.example",
        "good.example..",
        "good example",
        "good.exämple",
        "*.good.example",
        "good.example:443",
        "[2001:db8::1]",
        &long,
    ] {
        assert_refused(&Hello::to(name).bytes(), Cause::Hello);
    }
}

#[test]
fn server_name_has_exactly_one_name_of_a_host() {
    let good = b"good.example";
    let mut cut = server_name(&[(0, good)]);
    cut.pop();
    let mut longer = server_name(&[(0, good)]);
    longer.push(0);
    for content in [
        server_name(&[(0, good), (0, good)]),
        server_name(&[(0, good), (0, b"evil.example")]),
        server_name(&[(0, good), (1, b"x")]),
        server_name(&[(1, good)]),
        server_name(&[]),
        vec![],
        cut,
        longer,
    ] {
        let hello = Hello::without_name().with(SERVER_NAME, content);
        assert_refused(&hello.bytes(), Cause::Hello);
    }
}

#[test]
fn extension_that_comes_twice_is_refused() {
    for kind in [SERVER_NAME, 10, 0x0a0a, 0xffff] {
        let content = server_name(&[(0, b"good.example")]);
        let hello =
            Hello::without_name().without(10).with(kind, content.clone()).with(kind, content);
        assert_refused(&hello.bytes(), Cause::Hello);
    }
}

#[test]
fn hidden_name_passes_by_the_outer_one_unless_it_is_forbidden() {
    for kind in [ECH, 0xffce] {
        let hello = Hello::to("good.example").with(kind, vec![0; 40]).bytes();
        assert_passes(&hello);
        let guest = Guest { may_hide_name: false, ..Guest::tls() };
        assert_eq!(guest.sends(&hello).end, End::Refused(Cause::Ech, ALERT.to_vec()));
    }
    let hello = Hello::to("evil.example").with(ECH, vec![0; 40]);
    assert_refused(&hello.bytes(), Cause::Name);
}

#[test]
fn sixty_four_records_are_read_and_no_more() {
    let hello = Hello::to("good.example");
    let len = hello.message().len();
    let in_records = |records: usize| {
        let (one, rest) = (hello.message(), len - (records - 1));
        let mut bytes: Vec<u8> =
            one[..records - 1].iter().flat_map(|b| record(22, &[*b])).collect();
        bytes.extend(record(22, &one[len - rest..]));
        bytes
    };
    assert_passes(&in_records(64));
    assert_refused(&in_records(65), Cause::Hello);
}

#[test]
fn long_hellos_pass_up_to_16_kib() {
    for len in [600, 1500, 5400, 16 * 1024] {
        assert_passes(&Hello::to("good.example").padded_to(len).bytes());
        assert_passes(&Hello::to("good.example").padded_to(len).in_fragments_of(1000).bytes());
    }
    let hello = Hello::to("good.example").padded_to(16 * 1024 + 1).in_fragments_of(8000);
    assert_refused(&hello.bytes(), Cause::Hello);
}

#[test]
fn records_that_are_none_of_a_hello_are_refused() {
    let hello = Hello::to("good.example");
    let message = hello.message();
    let (head, tail) = message.split_at(20);
    for stream in [
        // Empty, another type, another version, too long.
        record(22, &[]),
        [record(22, head), record(22, &[]), record(22, tail)].concat(),
        [record(22, head), CCS.to_vec(), record(22, tail)].concat(),
        [record(22, head), record(21, &[1, 0]), record(22, tail)].concat(),
        [&record(22, head)[..], &[22, 2, 0, 0, 1]].concat(),
        vec![22, 3, 1, 0x40, 1, 1],
        // Another message, and one more behind the hello.
        record(22, &hellos::message(2, &hello.body())),
        record(22, &[message.clone(), vec![0; 4]].concat()),
        [record(22, head), record(22, &[tail, &message].concat())].concat(),
    ] {
        assert_refused(&stream, Cause::Hello);
    }
}

#[test]
fn fields_that_do_not_add_up_are_refused() {
    let body = Hello::to("good.example").body();
    for len in 0..body.len() {
        // Bare of extensions it is whole.
        let expected = if len == 41 { Cause::NoName } else { Cause::Hello };
        assert_refused(&record(22, &message(1, &body[..len])), expected);
    }
    let with = |at: usize, byte: u8| {
        let mut changed = body.clone();
        changed[at] = byte;
        record(22, &message(1, &changed))
    };
    // Lengths of the session's id, suites, compressions, extensions.
    for (at, byte) in [(34, 33), (34, 255), (36, 0), (36, 1), (36, 3), (39, 0), (42, 1)] {
        assert_refused(&with(at, byte), Cause::Hello);
    }
    assert_refused(&record(22, &message(1, &[body, vec![0]].concat())), Cause::Hello);
}

#[test]
fn bytes_that_are_no_tls_are_refused_at_once() {
    for stream in [
        &b"S"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &[0x80],
        // A hello in the form of SSL 2.0.
        &[0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10],
        &[22, 2],
        &[23, 3, 3, 0, 1],
        &[21, 3, 3, 0, 2, 1, 90],
    ] {
        let outcome = Guest::tls().sends(stream);
        assert_eq!(outcome.cause(), Some(Cause::NoTls), "{stream:?}");
        assert_eq!(outcome.left, 0);
    }
    let reply = Guest::tls().sends(b"GET / HTTP/1.1\r\n").reply();
    assert!(reply.contains("403 Forbidden"), "{reply}");
}

#[test]
fn hello_has_ten_seconds_from_its_first_byte() {
    let hello = Hello::to("good.example").bytes();
    let mut verifier = Verifier::new(Verification::Tls, 443, true).unwrap();
    let mut ask = |_: Option<&Name>| Ok(());
    let began_at = Instant::ZERO + HELLO_TIMEOUT;
    assert_eq!(verifier.on_bytes(&[], false, Instant::ZERO, &mut ask), Peek::More);
    assert_eq!(verifier.deadline(), None, "a silent connection may stay silent");
    assert_eq!(verifier.on_bytes(&hello[..1], false, began_at, &mut ask), Peek::More);
    let deadline = verifier.deadline().unwrap();
    assert_eq!(deadline, began_at + HELLO_TIMEOUT);
    let before = Instant::from_micros(deadline.as_micros() - 1);
    assert_eq!(verifier.on_bytes(&hello[..9], false, before, &mut ask), Peek::More);
    assert_eq!(verifier.deadline(), Some(deadline));
    let refused = Peek::Refuse { cause: Cause::Hello, reply: ALERT.to_vec() };
    assert_eq!(verifier.on_bytes(&hello[..9], false, deadline, &mut ask), refused);
}

#[test]
fn hello_that_is_whole_has_no_deadline() {
    let hello = Hello::to("good.example").bytes();
    let mut verifier = Verifier::new(Verification::Tls, 443, true).unwrap();
    let mut ask = |_: Option<&Name>| Ok(());
    assert_eq!(verifier.on_bytes(&hello[..9], false, Instant::ZERO, &mut ask), Peek::More);
    let passed = Peek::Pass(hello.len() as u64);
    assert_eq!(verifier.on_bytes(&hello, false, Instant::ZERO, &mut ask), passed);
    assert_eq!(verifier.deadline(), None);
}

#[test]
fn end_before_the_hello_is_whole_is_refused() {
    let hello = Hello::to("good.example").bytes();
    let guest = Guest { ends: true, ..Guest::tls() };
    for len in 1..hello.len() {
        assert_eq!(guest.sends(&hello[..len]).end, End::Refused(Cause::Hello, ALERT.to_vec()));
    }
    assert_eq!(guest.sends(&hello).cause(), None);
    let mut verifier = Verifier::new(Verification::Tls, 443, true).unwrap();
    assert_eq!(verifier.on_bytes(&[], true, Instant::ZERO, &mut |_| Ok(())), Peek::Done);
}

#[test]
fn second_hello_has_the_name_of_the_first() {
    let first = Hello::to("good.example").bytes();
    for (second, cause) in [
        ("good.example", None),
        ("GOOD.EXAMPLE.", None),
        ("a.good.example", Some(Cause::Name)),
        ("evil.example", Some(Cause::Name)),
        ("203.0.113.7", Some(Cause::Name)),
    ] {
        for between in [&[][..], &CCS, &record(21, &[1, 90]), &[CCS, CCS].concat()] {
            let second = Hello::to(second).in_fragments_of(30).bytes();
            let outcome = Guest::tls().sends(&[&first, between, &second].concat());
            assert_eq!(outcome.cause(), cause);
            assert_eq!(outcome.asked, ["good.example"]);
            if cause.is_some() {
                assert_eq!(outcome.left, first.len() + between.len());
            }
        }
    }
    let second = Hello::without_name().bytes();
    assert_eq!(Guest::tls().sends(&[&first[..], &second].concat()).cause(), Some(Cause::Name));
    let third = [&first[..], &first, &first].concat();
    assert_eq!(Guest::tls().sends(&third).cause(), Some(Cause::Hello));
}

#[test]
fn first_encrypted_record_ends_the_verification() {
    let hello = Hello::to("good.example").bytes();
    for (name, behind) in [
        ("TLS 1.3", [&CCS[..], &record(23, &[0; 40])].concat()),
        ("TLS 1.3 without compatibility", record(23, &[0; 40])),
        ("TLS 1.2", record(22, &message(16, &[0; 33]))),
        ("TLS 1.2 with a certificate", record(22, &message(11, &[0; 500]))),
        ("TLS 1.2 resumed", [&CCS[..], &record(22, &[0; 40])].concat()),
        ("TLS 1.2 resumed, unlucky", [&CCS[..], &record(22, &[1, 4, 0, 0, 0])].concat()),
        ("TLS 1.2 gives up", [&CCS[..], &record(21, &[9; 26])].concat()),
    ] {
        let evil = Hello::to("evil.example").bytes();
        let outcome = Guest::tls().sends(&[&hello[..], &behind, &evil].concat());
        assert_eq!(outcome.end, End::Done, "{name}");
    }
}

#[test]
fn second_hello_that_is_too_long_is_refused_behind_change_cipher_spec_too() {
    let first = Hello::to("good.example").bytes();
    for len in [16 * 1024 + 1, 20_000, 65_000] {
        for fragment_len in [40, 1 << 14] {
            let second = Hello::to("evil.example").padded_to(len).in_fragments_of(fragment_len);
            let stream = [&first[..], &CCS, &second.bytes()].concat();
            assert_eq!(Guest::tls().sends(&stream).cause(), Some(Cause::Hello), "{len}");
        }
    }
}

#[test]
fn records_that_are_too_short_for_ciphertext_do_not_end_the_verification() {
    let hello = Hello::to("good.example").bytes();
    let evil = Hello::to("evil.example").bytes();
    for behind in [
        record(21, &[]),
        record(21, &[1, 90, 1, 90]),
        record(21, &[9; 17]),
        record(23, &[]),
        record(23, &[9; 8]),
    ] {
        let stream = [&hello[..], &CCS, &behind, &evil].concat();
        assert_eq!(Guest::tls().sends(&stream).cause(), Some(Cause::Hello), "{behind:?}");
    }
}

#[test]
fn second_hello_behind_change_cipher_spec_may_begin_in_small_fragments() {
    let first = Hello::to("good.example").bytes();
    for len in 1..8 {
        let second = Hello::to("evil.example.example").message();
        let (head, tail) = second.split_at(len);
        let stream = [&first[..], &CCS, &record(22, head), &record(22, tail)].concat();
        assert_eq!(Guest::tls().sends(&stream).cause(), Some(Cause::Name), "{len}");
    }
}

#[test]
fn early_data_is_followed_for_64_kib() {
    let first = Hello::to("good.example").with(EARLY_DATA, vec![]).bytes();
    let evil = Hello::to("evil.example").bytes();
    let early = |records: usize| record(23, &[9; 1019]).repeat(records);
    for (records, cause) in [(0, Some(Cause::Name)), (63, Some(Cause::Name)), (64, None)] {
        let stream = [&first[..], &CCS, &early(records), &evil].concat();
        assert_eq!(Guest::tls().sends(&stream).cause(), cause, "{records}");
    }
    let good = Hello::to("good.example").bytes();
    let stream = [&first[..], &early(9), &good, &early(1)].concat();
    assert_eq!(Guest::tls().sends(&stream).end, End::Done);
}

#[test]
fn odd_records_behind_a_hello_are_refused() {
    let hello = Hello::to("good.example").bytes();
    for behind in [
        record(22, &[]),
        record(20, &[1, 1]),
        record(20, &[]),
        record(21, &[1, 0, 1, 0]),
        record(24, &[0; 3]),
        record(25, &[0; 3]),
        vec![23, 2, 0, 0, 1],
        vec![23, 3, 3, 0x48, 1],
        b"GET / HTTP/1.1\r\n".to_vec(),
    ] {
        let outcome = Guest::tls().sends(&[&hello[..], &behind].concat());
        assert_eq!(outcome.end, End::Refused(Cause::Hello, ALERT.to_vec()), "{behind:?}");
        assert_eq!(outcome.left, hello.len());
    }
}
