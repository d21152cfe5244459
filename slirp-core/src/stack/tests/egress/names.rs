//! Addresses that the DNS has tied to names.

use super::*;

/// The guest looks up `name`, whose address is `last` for `ttl` seconds.
pub(super) fn look_up(ladder: &mut Ladder, name: &str, last: [u8; 4], ttl: u32) {
    look_up_from(ladder, address("10.0.2.100:4999"), name, last, ttl);
}

/// The same by the guest or member that has the address of `from`.
pub(super) fn look_up_from(
    ladder: &mut Ladder,
    from: SocketAddr,
    name: &str,
    last: [u8; 4],
    ttl: u32,
) {
    ladder.frame(&datagram(from, "10.0.2.3:53", &query(name)));
    let (id, mut answer) = ladder.queries.pop().expect("it is asked upstream");
    answer.truncate(query(name).len());
    (answer[2], answer[7], answer[11]) = (answer[2] | 0x80, 1, 0);
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    answer.extend_from_slice(&ttl.to_be_bytes());
    answer.extend_from_slice(&[0, 4]);
    answer.extend_from_slice(&last);
    ladder.stack.handle_dns_answer(id, Some(answer), ladder.now);
    assert_eq!(ladder.turn().len(), 1, "the guest is answered");
}

const SHARED: [u8; 4] = [203, 0, 113, 7];

#[test]
fn name_opens_its_address_once_it_was_looked_up() {
    let mut ladder = under("allow index.example:22\nallow udp:index.example:5000");
    let (ssh, game) = ("203.0.113.7:22", "203.0.113.7:5000");
    assert_eq!(connect(&mut ladder, ssh, 40_000), Fate::Refused(3, 13));
    look_up(&mut ladder, "index.example", SHARED, 60);
    assert_eq!(connect(&mut ladder, ssh, 40_000), Fate::Host(address(ssh)));
    assert_eq!(send(&mut ladder, game, 40_000), Fate::Host(address(game)));
    assert_eq!(connect(&mut ladder, "203.0.113.7:23", 40_000), Fate::Refused(3, 13));
    assert_eq!(send(&mut ladder, ssh, 40_000), Fate::Refused(3, 13));
}

#[test]
fn name_that_no_rule_opens_is_not_asked_upstream() {
    let mut ladder = under("allow index.example");
    let frame = datagram(address("10.0.2.100:4999"), "10.0.2.3:53", &query("other.example"));
    assert_eq!(ladder.frame(&frame).len(), 1, "NXDOMAIN");
    assert!(ladder.queries.is_empty());
}

#[test]
fn address_is_forgotten_with_its_time_but_for_open_connections() {
    let to = "203.0.113.7:22";
    let lines = "allow index.example:22\nallow udp:index.example:22\nallow 192.0.2.1";
    let minutes = |count: u64| Duration::from_secs(count * 60);
    let mut ladder = under(lines);
    look_up(&mut ladder, "index.example", SHARED, 0);
    ladder.pass(minutes(4));
    assert_eq!(connect(&mut ladder, to, 40_000), Fate::Host(address(to)));
    let mut ladder = under(lines);
    look_up(&mut ladder, "index.example", SHARED, 0);
    ladder.pass(minutes(6));
    assert_eq!(connect(&mut ladder, to, 40_000), Fate::Refused(3, 13));
    // While one connection is open, others may be opened, and five minutes later.
    look_up(&mut ladder, "index.example", SHARED, 0);
    let talk = Talk::open_with(&mut ladder, &syn_to(to, 40_001));
    ladder.pass(minutes(60));
    assert_eq!(connect(&mut ladder, to, 40_002), Fate::Host(address(to)));
    ladder.pass(minutes(2));
    ladder.guest(&Draft { flags: crate::tcp::tests::packet::RST, ..talk.draft(0, &[]) });
    ladder.pass(minutes(4));
    let frame = datagram(address("10.0.2.100:5000"), to, b"text");
    let (flow, remote) = lend(&mut ladder, frame).unwrap();
    // A mapping holds what it was used for last.
    ladder.pass(minutes(4));
    ladder.stack.handle_udp_from_host(flow, remote, b"text", None, 0, ladder.now);
    assert_eq!(ladder.turn().len(), 1);
    ladder.pass(minutes(4));
    assert_eq!(send(&mut ladder, to, 5000), Fate::Host(remote));
    assert_eq!(send(&mut ladder, "192.0.2.1:9", 5000), Fate::Host(address("192.0.2.1:9")));
    ladder.pass(minutes(4));
    assert_eq!(send(&mut ladder, "192.0.2.1:9", 5000), Fate::Host(address("192.0.2.1:9")));
    ladder.pass(minutes(2));
    assert_eq!(send(&mut ladder, to, 5000), Fate::Refused(3, 13));
}

#[test]
fn stranger_by_a_bound_name_comes_in_and_goes_with_it() {
    let mut ladder = under("allow udp:index.example:9\nallow 192.0.2.1:9");
    let frame = datagram(address("10.0.2.100:5000"), "192.0.2.1:9", b"text");
    let (flow, _) = lend(&mut ladder, frame).unwrap();
    let named = SocketAddr::from((SHARED, 9));
    let come = |ladder: &mut Ladder| {
        ladder.stack.handle_udp_from_host(flow, named, b"text", None, 0, ladder.now);
        ladder.turn().len()
    };
    assert_eq!(come(&mut ladder), 0);
    look_up(&mut ladder, "index.example", SHARED, 1);
    assert_eq!(come(&mut ladder), 1);
}
