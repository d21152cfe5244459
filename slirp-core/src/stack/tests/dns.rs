//! Queries of the guest and their answers, over both transports.

use super::*;
use crate::tcp::tests::packet::{FIN, RST};
use crate::wire::udp::emit_datagram;

const SERVER: &str = "10.0.2.3:53";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A query for `name` with message id `id`.
fn query(id: u8, name: &str) -> Vec<u8> {
    let mut query = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(name.len()).unwrap()];
    query.extend_from_slice(name.as_bytes());
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    query
}

/// The answer to it, padded to `len` bytes.
fn answer(query: &[u8], len: usize) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer.resize(len.max(query.len()), 0);
    answer
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// A connection of the guest to the DNS service, whose handshake is done.
fn dns_connection(ladder: &mut Ladder, port: u16) -> Talk {
    let (from, to) = (SocketAddr::from(([10, 0, 2, 100], port)), address(SERVER));
    let options = LINUX_OPTIONS.to_vec();
    let heard = ladder.guest(&Draft { seq: ISN, flags: SYN, options, ..Draft::new(from, to) });
    let syn_ack = only(&heard).clone();
    assert!(ladder.connects.is_empty(), "no host socket is asked for");
    let flow =
        ladder.stack.flows.iter().find(|entry| entry.meta.key.guest == from).unwrap().meta.id;
    let (seq, ack) = (syn_ack.ack, syn_ack.seq.wrapping_add(1));
    let talk = Talk { flow, from, to, seq, ack, window: 65_535, syn_ack };
    talk.acknowledge(ladder);
    talk
}

#[test]
fn dns_answers_leave_by_the_way_that_the_query_came() {
    let mut ladder = Ladder::new();
    let mut talk = dns_connection(&mut ladder, 40_000);
    let asked = query(7, "stream");
    talk.say(&mut ladder, ACK, &framed(&asked));
    let (over_tcp, message) = ladder.queries.pop().unwrap();
    assert_eq!(message, asked);
    let mut packet = Vec::new();
    let (guest, server) = (address("10.0.2.100:5000"), address(SERVER));
    emit_datagram(&mut packet, guest, server, 64, 0, &query(8, "datagram")).unwrap();
    assert!(ladder.frame(&frame_around(&packet, MAC)).is_empty());
    let (over_udp, message) = ladder.queries.pop().unwrap();

    // The later query is answered first.
    ladder.stack.handle_dns_answer(over_udp, Some(answer(&message, 0)), ladder.now);
    let heard = ladder.turn();
    let header = IpHeader::parse(&heard[0].packet).unwrap();
    assert_eq!((heard.len(), header.source), (1, server.ip()));
    assert_eq!(heard[0].packet[28..], answer(&message, 0));
    ladder.stack.handle_dns_answer(over_tcp, Some(answer(&asked, 0)), ladder.now);
    let heard = ladder.turn();
    assert_eq!(talk.take(&heard), framed(&answer(&asked, 0)));
    // Nobody waits for a second answer.
    ladder.stack.handle_dns_answer(over_tcp, Some(answer(&asked, 0)), ladder.now);
    ladder.stack.handle_dns_answer(over_udp, Some(answer(&message, 0)), ladder.now);
    assert!(ladder.turn().is_empty());
}

#[test]
fn message_that_is_no_query_leaves_the_others_of_its_connection_answered() {
    let mut ladder = Ladder::new();
    let mut talk = dns_connection(&mut ladder, 40_000);
    let asked = query(7, "name");
    let both = [framed(&answer(&query(6, "no query"), 0)), framed(&asked)].concat();
    talk.say(&mut ladder, ACK | FIN, &both);
    assert_eq!(ladder.discards(DiscardReason::DnsMessageInvalid), 1);
    assert_eq!(ladder.queries.len(), 1);
    let (id, message) = ladder.queries.pop().unwrap();
    ladder.stack.handle_dns_answer(id, Some(answer(&message, 0)), ladder.now);
    let heard = ladder.turn();
    assert_eq!(talk.take(&heard), framed(&answer(&asked, 0)));
    // Nothing is owed any more, so our side of the connection ends, too.
    assert!(only(&talk.acknowledge(&mut ladder)).has(FIN));
}

#[test]
fn query_without_an_answer_fails_when_its_time_is_over() {
    let mut ladder = Ladder::new();
    let mut talk = dns_connection(&mut ladder, 40_000);
    for round in 1..=2 {
        talk.say(&mut ladder, ACK, &framed(&query(7, "name")));
        let heard = ladder.pass(Duration::from_micros(59_999_999));
        assert!(heard.iter().all(|heard| heard.tcp.as_ref().unwrap().payload.is_empty()));
        assert_eq!(ladder.discards(DiscardReason::DnsTimedOut), round - 1);
        let heard = ladder.pass(Duration::from_micros(1));
        let failure = talk.take(&heard);
        assert_eq!((failure[3], failure[5] & 15), (7, 2), "SERVFAIL to the query 7");
        assert_eq!(ladder.discards(DiscardReason::DnsTimedOut), round);
        talk.acknowledge(&mut ladder);
        let (id, message) = ladder.queries.pop().unwrap();
        ladder.stack.handle_dns_answer(id, Some(answer(&message, 0)), ladder.now);
        assert!(ladder.turn().is_empty(), "the answer comes too late");
    }
}

#[test]
fn connection_that_never_takes_its_answers_goes_when_they_are_too_many() {
    let mut config = config();
    config.limits.dns_connections = 2;
    let mut ladder = Ladder::with(config);
    let mut greedy = dns_connection(&mut ladder, 40_000);
    let mut other = dns_connection(&mut ladder, 40_001);
    greedy.window = 0;
    let ask = |ladder: &mut Ladder, talk: &mut Talk, id: u8| {
        let heard = talk.say(ladder, ACK, &framed(&query(id, "name")));
        assert!(!heard.iter().any(|heard| heard.tcp.as_ref().unwrap().has(RST)));
        ladder.queries.pop().unwrap()
    };
    // Both may have 512 KiB together, besides what the ring to the guest holds.
    let queries: Vec<_> = (0..14).map(|id| ask(&mut ladder, &mut greedy, id)).collect();
    let (asked, message) = ask(&mut ladder, &mut other, 99);
    let mut heard = Vec::new();
    for (id, message) in queries {
        ladder.stack.handle_dns_answer(id, Some(answer(&message, 65_535)), ladder.now);
        heard.append(&mut ladder.turn());
    }
    let resets: Vec<_> =
        heard.iter().filter_map(|heard| heard.tcp.as_ref()).filter(|seen| seen.has(RST)).collect();
    assert_eq!(resets.len(), 1);
    assert_eq!(ladder.discards(DiscardReason::DnsConnectionLimit), 1);
    assert_eq!(ladder.closes, [(greedy.flow, true)]);
    ladder.stack.handle_dns_answer(asked, Some(answer(&message, 0)), ladder.now);
    let heard = ladder.turn();
    assert_eq!(other.take(&heard), framed(&answer(&message, 0)), "the other goes on");
}
