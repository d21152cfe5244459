//! The name in the first bytes of a connection: nothing leaves before it is known to be allowed.

use super::names::look_up;
use super::*;
use crate::tcp::tests::packet::{FIN, RST};

const NAME: &str = "index.example";
const OTHER: &str = "other.example";
const TLS: &str = "203.0.113.7:443";
const HTTP: &str = "203.0.113.7:80";
/// A fatal alert, `access_denied` (RFC 8446 section 6.2).
const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 49];

/// A ClientHello with this name, in one record.
fn hello(name: &str) -> Vec<u8> {
    let counted = |len: usize, bytes: &[u8]| {
        let count = bytes.len().to_be_bytes();
        [&count[count.len() - len..], bytes].concat()
    };
    let host = [&[0][..], &counted(2, name.as_bytes())].concat();
    let server_name = [&[0, 0][..], &counted(2, &counted(2, &host))].concat();
    let versions = [0, 43, 0, 3, 2, 3, 4];
    let extensions = counted(2, &[&server_name[..], &versions].concat());
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &extensions].concat();
    let handshake = [&[1][..], &counted(3, &body)].concat();
    [&[22, 3, 1][..], &counted(2, &handshake)].concat()
}

fn request(name: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n").into_bytes()
}

/// A guest that has looked its only allowed name up, and a connection to the address.
fn talk_to(to: &str) -> (Ladder, Talk) {
    let mut ladder = under("allow index.example");
    look_up(&mut ladder, NAME, [203, 0, 113, 7], 60);
    let talk = Talk::open_with(&mut ladder, &syn_to(to, 40_000));
    (ladder, talk)
}

/// Says `bytes` in these pieces.
fn say_all(ladder: &mut Ladder, talk: &mut Talk, pieces: &[&[u8]]) -> Vec<Heard> {
    let mut heard = Vec::new();
    for piece in pieces {
        heard.append(&mut talk.say(ladder, ACK, piece));
    }
    heard
}

/// What the guest is told before its end, and whether there was one.
fn last_words(talk: &mut Talk, heard: &[Heard]) -> (Vec<u8>, bool) {
    let words = talk.take(heard);
    let is_ended = heard.iter().filter_map(|heard| heard.tcp.as_ref()).any(|tcp| tcp.has(FIN));
    (words, is_ended)
}

#[test]
fn no_byte_leaves_before_the_name_is_known_however_it_is_cut() {
    for (to, message) in [(TLS, hello(NAME)), (HTTP, request(NAME))] {
        for cut in 0..=message.len() {
            let (mut ladder, mut talk) = talk_to(to);
            let (first, rest) = message.split_at(cut);
            talk.say(&mut ladder, ACK, first);
            let before = if rest.is_empty() { &message[..] } else { &[] };
            assert_eq!(ladder.taken(talk.flow), before, "{to} {cut}");
            talk.say(&mut ladder, ACK, rest);
            assert_eq!(ladder.taken(talk.flow), message, "{to} {cut}");
        }
    }
}

#[test]
fn byte_by_byte_and_what_follows_passes() {
    for (to, message) in [(TLS, hello(NAME)), (HTTP, request(NAME))] {
        let (mut ladder, mut talk) = talk_to(to);
        let pieces: Vec<&[u8]> = message.chunks(1).collect();
        say_all(&mut ladder, &mut talk, &pieces[..pieces.len() - 1]);
        assert_eq!(ladder.taken(talk.flow), b"");
        say_all(&mut ladder, &mut talk, &pieces[pieces.len() - 1..]);
        assert_eq!(ladder.taken(talk.flow), message);
        let heard = ladder.host(talk.flow, |host| host.to_guest.extend(b"an answer"));
        assert_eq!(talk.take(&heard), b"an answer");
    }
}

#[test]
fn other_name_is_answered_here_and_no_byte_leaves_however_it_is_cut() {
    let (denied_tls, denied_http) = (hello(OTHER), request(OTHER));
    for (to, message) in [(TLS, denied_tls), (HTTP, denied_http)] {
        for cut in 0..=message.len() {
            let (mut ladder, mut talk) = talk_to(to);
            let (first, rest) = message.split_at(cut);
            let heard = say_all(&mut ladder, &mut talk, &[first, rest, b"and more"]);
            let (words, is_ended) = last_words(&mut talk, &heard);
            if to == TLS {
                assert_eq!(words, ALERT);
            } else {
                assert!(words.starts_with(b"HTTP/1.1 403 "), "{words:?}");
            }
            assert!(is_ended, "{to} {cut}: {heard:?}");
            assert_eq!(ladder.taken(talk.flow), b"", "{to} {cut}");
            assert_eq!(ladder.closes, [(talk.flow, false)], "the host's socket is closed at once");
            assert_eq!(ladder.discards(DiscardReason::EgressUnverified), 1);
            let [(_, by)] = refusals(&mut ladder)[..] else { panic!("told once") };
            assert_eq!(by, Refusal::Egress(Cause::Name));
        }
    }
}

#[test]
fn refused_connection_ends_in_order_and_is_told_of_once() {
    let (mut ladder, mut talk) = talk_to(TLS);
    let heard = talk.say(&mut ladder, ACK, &hello(OTHER));
    talk.take(&heard);
    talk.say(&mut ladder, ACK | FIN, b"");
    assert_eq!(ladder.stack.stats().flows, 0);
    let told: Vec<_> = core::iter::from_fn(|| ladder.stack.poll_event()).collect();
    let is_end =
        |report: &&Report| matches!(report.event, Event::Refused { .. } | Event::Closed { .. });
    assert_eq!(told.iter().filter(is_end).count(), 1, "{told:?}");
}

#[test]
fn refused_guest_that_does_not_end_is_reset_after_a_while() {
    let (mut ladder, mut talk) = talk_to(TLS);
    let heard = talk.say(&mut ladder, ACK, &hello(OTHER));
    talk.take(&heard);
    talk.acknowledge(&mut ladder);
    for _ in 0..9 {
        ladder.pass(Duration::from_secs(1));
        talk.say(&mut ladder, ACK, &[7; 1000]);
        assert_eq!(ladder.stack.stats().flows, 1);
    }
    let heard = ladder.pass(Duration::from_secs(2));
    assert!(heard.iter().filter_map(|heard| heard.tcp.as_ref()).any(|tcp| tcp.has(RST)));
    assert_eq!((ladder.stack.stats().flows, ladder.taken(talk.flow)), (0, &b""[..]));
}

#[test]
fn end_or_reset_before_the_verdict_lets_nothing_out() {
    let message = hello(NAME);
    let (mut ladder, mut talk) = talk_to(TLS);
    let heard = talk.say(&mut ladder, ACK | FIN, &message[..40]);
    assert_eq!(talk.take(&heard), ALERT);
    // Our end follows once the guest has taken that.
    let heard = talk.acknowledge(&mut ladder);
    assert!(only(&heard).has(FIN));
    assert_eq!((ladder.taken(talk.flow), ladder.hosts[&talk.flow].is_shut), (&b""[..], false));
    assert_eq!(refusals(&mut ladder)[0].1, Refusal::Egress(Cause::Hello));
    let (mut ladder, mut talk) = talk_to(TLS);
    talk.say(&mut ladder, ACK, &message[..40]);
    talk.say(&mut ladder, RST, b"");
    assert_eq!(ladder.taken(talk.flow), b"");
    assert_eq!(ladder.closes, [(talk.flow, true)]);
    // The end in the last segment of a whole message passes with it.
    let (mut ladder, mut talk) = talk_to(HTTP);
    talk.say(&mut ladder, ACK | FIN, &request(NAME));
    assert_eq!(ladder.taken(talk.flow), request(NAME));
    assert!(ladder.hosts[&talk.flow].is_shut);
    // An end without a byte is none that says anything.
    let (mut ladder, mut talk) = talk_to(TLS);
    talk.say(&mut ladder, ACK | FIN, b"");
    assert!(ladder.hosts[&talk.flow].is_shut);
}

#[test]
fn data_in_the_opening_segment_does_not_leave() {
    let mut ladder = under("allow index.example");
    look_up(&mut ladder, NAME, [203, 0, 113, 7], 60);
    let syn = Draft { payload: hello(OTHER), ..syn_to(TLS, 40_000) };
    ladder.guest(&syn);
    let (flow, _) = ladder.connects.pop().unwrap();
    ladder.connected(flow, Ok(()));
    ladder.pass(Duration::from_secs(30));
    assert_eq!(ladder.taken(flow), b"");
}

#[test]
fn hello_has_ten_seconds_from_its_first_byte() {
    let (mut ladder, mut talk) = talk_to(TLS);
    ladder.pass(Duration::from_secs(60));
    let message = hello(NAME);
    talk.say(&mut ladder, ACK, &message[..1]);
    ladder.pass(Duration::from_secs(9));
    talk.say(&mut ladder, ACK, &message[1..50]);
    assert_eq!(refusals(&mut ladder), []);
    let heard = ladder.pass(Duration::from_secs(2));
    assert_eq!(last_words(&mut talk, &heard), (ALERT.to_vec(), true));
    assert_eq!(refusals(&mut ladder)[0].1, Refusal::Egress(Cause::Hello));
    assert_eq!(ladder.taken(talk.flow), b"");
}

#[test]
fn silent_connection_is_parked_and_watched_all_the_same() {
    let (mut ladder, mut talk) = talk_to(TLS);
    ladder.pass(Duration::from_secs(10));
    assert_eq!(ladder.stack.stats().tcp_parked, 1);
    let heard = talk.say(&mut ladder, ACK, &hello(OTHER));
    assert_eq!(last_words(&mut talk, &heard), (ALERT.to_vec(), true));
    assert_eq!(ladder.taken(talk.flow), b"");
}

#[test]
fn connection_with_bytes_that_wait_is_not_parked() {
    let (mut ladder, mut talk) = talk_to(HTTP);
    talk.say(&mut ladder, ACK, b"GET / HTTP/1.1\r\n");
    ladder.pass(Duration::from_secs(60));
    assert_eq!((ladder.stack.stats().tcp_parked, ladder.taken(talk.flow)), (0, &b""[..]));
    talk.say(&mut ladder, ACK, b"Host: index.example\r\n\r\n");
    assert_eq!(ladder.taken(talk.flow), request(NAME));
}

#[test]
fn host_may_speak_first() {
    let (mut ladder, mut talk) = talk_to(TLS);
    let heard = ladder.host(talk.flow, |host| host.to_guest.extend(b"220 ready"));
    assert_eq!(talk.take(&heard), b"220 ready");
    talk.say(&mut ladder, ACK, b"EHLO");
    assert_eq!(ladder.taken(talk.flow), b"");
    assert_eq!(refusals(&mut ladder)[0].1, Refusal::Egress(Cause::NoTls));
}

#[test]
fn each_request_of_a_connection_is_looked_at() {
    let (mut ladder, mut talk) = talk_to(HTTP);
    let first = [request(NAME), request(NAME)].concat();
    talk.say(&mut ladder, ACK, &first);
    assert_eq!(ladder.taken(talk.flow), first, "in a pipeline");
    let mut upload = format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 3000\r\n\r\n");
    talk.say(&mut ladder, ACK, upload.as_bytes());
    for _ in 0..3 {
        talk.say(&mut ladder, ACK, &[b'x'; 1000]);
        upload.extend(['x'; 1000]);
    }
    let taken = [&first[..], upload.as_bytes()].concat();
    assert_eq!(ladder.taken(talk.flow), taken);
    let mixed = [request(NAME), request(OTHER)].concat();
    let heard = talk.say(&mut ladder, ACK, &mixed);
    let (words, is_ended) = last_words(&mut talk, &heard);
    assert!(words.starts_with(b"HTTP/1.1 403 ") && is_ended);
    assert_eq!(ladder.taken(talk.flow), [&taken[..], &request(NAME)].concat());
}

#[test]
fn slow_host_gets_no_more_than_was_let_pass() {
    let (mut ladder, mut talk) = talk_to(HTTP);
    ladder.host(talk.flow, |host| host.room = 10);
    talk.say(&mut ladder, ACK, &[request(NAME), request(OTHER)].concat());
    assert_eq!(ladder.taken(talk.flow), &request(NAME)[..10]);
    assert_eq!(refusals(&mut ladder), []);
    ladder.host(talk.flow, |host| host.room = usize::MAX);
    assert_eq!(ladder.taken(talk.flow), request(NAME));
    assert_eq!(refusals(&mut ladder)[0].1, Refusal::Egress(Cause::Name));
}

#[test]
fn request_that_lies_around_the_end_of_the_ring_is_read() {
    let mut config = StackConfig { egress: Some(policy("allow index.example")), ..config() };
    config.limits.ring_len = 1 << 16;
    let mut ladder = Ladder::with(config);
    look_up(&mut ladder, NAME, [203, 0, 113, 7], 60);
    let mut talk = Talk::open_with(&mut ladder, &syn_to(HTTP, 40_000));
    let head = format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: ");
    // Behind this request there are 20 bytes to the end of the ring.
    let body = (1 << 16) - 20 - head.len() - "65000\r\n\r\n".len();
    let upload = format!("{head}{body}\r\n\r\n{}", "x".repeat(body));
    assert_eq!(upload.len(), (1 << 16) - 20);
    for piece in upload.as_bytes().chunks(1000) {
        let heard = talk.say(&mut ladder, ACK, piece);
        talk.take(&heard);
    }
    assert_eq!(ladder.taken(talk.flow).len(), upload.len());
    for piece in request(NAME).chunks(7) {
        talk.say(&mut ladder, ACK, piece);
    }
    assert_eq!(ladder.taken(talk.flow)[upload.len()..], request(NAME));
    talk.say(&mut ladder, ACK, &request(OTHER));
    assert_eq!(ladder.taken(talk.flow).len(), upload.len() + request(NAME).len());
}

#[test]
fn unfinished_first_bytes_that_fill_the_ring_are_refused() {
    const RING: usize = 2048;
    let endless = [b"GET / HTTP/1.1\r\nX: ", &[b'x'; RING][..]].concat();
    let mut hello = hello(NAME);
    hello.resize(5, 0);
    // A record that says that it is longer than the ring.
    hello[3..5].copy_from_slice(&4096_u16.to_be_bytes());
    hello.extend([1, 0, 15, 252].into_iter().chain([3; RING]));
    for (to, bytes, by) in [(HTTP, endless, Cause::Http), (TLS, hello, Cause::Hello)] {
        let mut config = StackConfig { egress: Some(policy("allow index.example")), ..config() };
        config.limits.ring_len = RING;
        let mut ladder = Ladder::with(config);
        ladder.stack.set_detail(Detail::Flows);
        look_up(&mut ladder, NAME, [203, 0, 113, 7], 60);
        let mut talk = Talk::open_with(&mut ladder, &syn_to(to, 40_000));
        let mut heard = talk.say(&mut ladder, ACK, &bytes[..1000]);
        heard.extend(talk.say(&mut ladder, ACK, &bytes[1000..RING - 1]));
        assert_eq!(last_words(&mut talk, &heard), (Vec::new(), false), "one byte more may come");
        let heard = talk.say(&mut ladder, ACK, &bytes[RING - 1..RING]);
        let (words, _) = last_words(&mut talk, &heard);
        assert!(!words.is_empty(), "{to}");
        assert_eq!(ladder.taken(talk.flow), b"");
        assert_eq!(refusals(&mut ladder)[0].1, Refusal::Egress(by));
    }
}

#[test]
fn change_of_policy_cuts_the_connection_of_a_name_that_shares_its_address() {
    let lines = "allow index.example\nallow other.example";
    for (left, is_cut) in [("allow other.example", true), ("allow index.example", false)] {
        let mut ladder = under(lines);
        look_up(&mut ladder, NAME, [203, 0, 113, 7], 60);
        look_up(&mut ladder, OTHER, [203, 0, 113, 7], 60);
        let mut talk = Talk::open_with(&mut ladder, &syn_to(TLS, 40_000));
        talk.say(&mut ladder, ACK, &hello(NAME));
        ladder.stack.set_egress(None, policy(left), Established::Cut, ladder.now);
        ladder.pass(Duration::from_millis(1));
        assert_eq!(ladder.closes.len(), usize::from(is_cut), "{left}");
    }
}

#[test]
fn change_of_policy_makes_a_lenient_watch_strict_and_cuts_what_it_has_given_up() {
    for gives_up in [false, true] {
        let mut ladder = under("allow any\ndeny other.example");
        look_up(&mut ladder, NAME, [203, 0, 113, 7], 60);
        let mut talk = Talk::open_with(&mut ladder, &syn_to(HTTP, 40_000));
        talk.say(&mut ladder, ACK, &request(NAME));
        let unreadable = b"GET / HTTP/1.1\nHost: other.example\n\n";
        if gives_up {
            talk.say(&mut ladder, ACK, unreadable);
        }
        let taken = ladder.taken(talk.flow).to_vec();
        assert_eq!(taken.len(), request(NAME).len() + usize::from(gives_up) * unreadable.len());
        let named = policy("allow index.example");
        ladder.stack.set_egress(None, named, Established::Cut, ladder.now);
        ladder.pass(Duration::from_millis(1));
        assert_eq!(ladder.closes.len(), usize::from(gives_up));
        if !gives_up {
            talk.say(&mut ladder, ACK, &request(NAME));
            assert_eq!(ladder.taken(talk.flow).len(), 2 * request(NAME).len());
            talk.say(&mut ladder, ACK, unreadable);
            assert_eq!(ladder.taken(talk.flow).len(), 2 * request(NAME).len());
            assert_eq!(refusals(&mut ladder)[0].1, Refusal::Egress(Cause::Http));
        }
    }
}

#[test]
fn refused_guest_reads_the_note_of_the_rule() {
    let mut ladder = under("allow index.example\ndeny other.example note=\"Ask Ann.\"");
    look_up(&mut ladder, NAME, [203, 0, 113, 7], 60);
    let mut talk = Talk::open_with(&mut ladder, &syn_to(HTTP, 40_000));
    let heard = talk.say(&mut ladder, ACK, &request(OTHER));
    let words = String::from_utf8(talk.take(&heard)).unwrap();
    assert!(words.ends_with("other.example is not allowed. Ask Ann.\n"), "{words}");
}

#[test]
fn change_of_policy_watches_what_has_said_nothing_and_cuts_what_has() {
    for has_spoken in [false, true] {
        let mut ladder = under("allow any");
        look_up(&mut ladder, NAME, [203, 0, 113, 7], 60);
        let mut talk = Talk::open_with(&mut ladder, &syn_to(TLS, 40_000));
        if has_spoken {
            talk.say(&mut ladder, ACK, b"unseen");
            assert_eq!(ladder.taken(talk.flow), b"unseen");
        }
        let named = policy("allow index.example");
        ladder.stack.set_egress(None, named, Established::Cut, ladder.now);
        ladder.pass(Duration::from_millis(1));
        assert_eq!(ladder.closes.len(), usize::from(has_spoken));
        if !has_spoken {
            let heard = talk.say(&mut ladder, ACK, &hello(OTHER));
            assert_eq!(last_words(&mut talk, &heard), (ALERT.to_vec(), true));
            assert_eq!(ladder.taken(talk.flow), b"");
        }
    }
}

#[test]
fn denied_name_is_found_where_everything_else_is_allowed() {
    for (message, is_denied) in [(hello(OTHER), true), (hello(NAME), false), (vec![7; 99], false)] {
        let mut ladder = under("allow any\ndeny other.example");
        let mut talk = Talk::open_with(&mut ladder, &syn_to(TLS, 40_000));
        talk.say(&mut ladder, ACK, &message);
        let expected = if is_denied { &[] } else { &message[..] };
        assert_eq!(ladder.taken(talk.flow), expected);
    }
}

#[test]
fn audit_reads_and_lets_pass() {
    let mut ladder = under("set mode audit\nallow index.example");
    let mut talk = Talk::open_with(&mut ladder, &syn_to(TLS, 40_000));
    talk.say(&mut ladder, ACK, &hello(OTHER));
    assert_eq!(ladder.taken(talk.flow), hello(OTHER));
    assert_eq!(connect(&mut ladder, "10.0.2.2:80", 40_001), Fate::Refused(3, 13));
    assert_eq!(connect(&mut ladder, "169.254.169.254:80", 40_001), Fate::Refused(3, 13));
}
