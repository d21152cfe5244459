//! When acknowledgements leave: with data, alone after a while, or at once.

use super::*;
use crate::tcp::tests::packet::{FIN, PSH};

#[test]
fn answer_carries_the_acknowledgement_of_its_request() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    for round in 0..50 {
        assert!(talk.say(&mut ladder, ACK | PSH, b"request").is_empty(), "round {round}");
        ladder.now = ladder.now + Duration::from_millis(1);
        let heard = ladder.host(talk.flow, |host| host.to_guest.extend(b"answer"));
        let seen = only(&heard);
        assert_eq!((seen.ack, &seen.payload[..]), (talk.seq, &b"answer"[..]));
        talk.take(&heard);
        talk.acknowledge(&mut ladder);
        ladder.pass(Duration::from_millis(20));
    }
}

/// Each request moves the deadline of its flow to and fro between the held acknowledgement's, the
/// retransmission's and the next parking's.
#[test]
fn flows_that_talk_steadily_wake_the_timer_as_rarely_as_they_hold_acknowledgements() {
    const FLOWS: u16 = 40;
    let mut ladder = Ladder::new();
    let mut talks: Vec<_> = (0..FLOWS)
        .map(|index| {
            let syn = Talk::syn(false, LINUX_OPTIONS);
            let from = SocketAddr::new(syn.from.ip(), 30_000 + index);
            Talk::open_with(&mut ladder, &Draft { from, ..syn })
        })
        .collect();
    let started_at = ladder.now;
    let mut timeouts: u64 = 0;
    let mut hints = 0;
    while ladder.now < started_at + Duration::from_secs(3) {
        for talk in &mut talks {
            assert!(talk.say(&mut ladder, ACK | PSH, b"request").is_empty());
        }
        for talk in &mut talks {
            ladder.now = ladder.now + Duration::from_micros(5);
            let heard = ladder.host(talk.flow, |host| host.to_guest.extend(b"answer"));
            talk.take(&heard);
            if ladder.stack.poll_timeout().is_some_and(|(at, _)| at <= ladder.now) {
                timeouts += 1;
                ladder.stack.handle_timeout(ladder.now);
                assert!(ladder.turn().is_empty(), "nothing is sent in vain");
            }
        }
        hints = hints.max(ladder.stack.schedule.len());
    }
    let holds = ladder.now.saturating_since(started_at).as_millis() / 5;
    assert!(u128::from(timeouts) <= 2 * u128::from(FLOWS) * holds, "{timeouts} in {holds} holds");
    assert!(hints <= 2 * usize::from(FLOWS) + 1024 + usize::from(FLOWS), "{hints}");
}

#[test]
fn held_acknowledgement_leaves_alone_after_5_ms_and_then_at_once_for_a_while() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    assert!(talk.say(&mut ladder, ACK | PSH, b"one").is_empty());
    assert!(ladder.pass(Duration::from_micros(4999)).is_empty());
    let heard = ladder.pass(Duration::from_micros(1));
    assert_eq!((only(&heard).ack, only(&heard).payload.len()), (talk.seq, 0));
    // The guest might be waiting for it: the next ones are not held.
    let mut at_once = 0;
    loop {
        let heard = talk.say(&mut ladder, ACK | PSH, b"more");
        if heard.is_empty() {
            break;
        }
        assert_eq!(only(&heard).ack, talk.seq);
        at_once += 1;
        assert!(at_once < 1000);
    }
    assert!((10..=20).contains(&at_once), "{at_once}");
    // Held again, in vain again: longer at once.
    let heard = ladder.pass(Duration::from_millis(5));
    assert_eq!(only(&heard).ack, talk.seq);
    let mut again = 0;
    while !talk.say(&mut ladder, ACK | PSH, b"more").is_empty() {
        again += 1;
    }
    assert!(again > at_once, "{again} after {at_once}");
}

#[test]
fn remotes_end_carries_the_acknowledgement_of_the_guests() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    assert!(talk.say(&mut ladder, ACK | FIN, &[]).is_empty());
    assert!(ladder.hosts[&talk.flow].is_shut, "the remote hears of it at once");
    let heard = ladder.host(talk.flow, |host| host.is_ended = true);
    assert!(only(&heard).has(FIN));
    assert_eq!(only(&heard).ack, talk.seq);
}

#[test]
fn guest_that_takes_bulk_data_gets_more_at_once() {
    const BULK: usize = 1024 * 1024;
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    let data = stream(4 * BULK);
    let mut taken = Vec::new();
    let mut heard = ladder.host(talk.flow, |host| host.to_guest.extend(&data));
    let mut rounds = Vec::new();
    while taken.len() < data.len() {
        let bytes = talk.take(&heard);
        assert!(!bytes.is_empty(), "{} of {}", taken.len(), data.len());
        rounds.push(bytes.len());
        taken.extend(bytes);
        heard = talk.acknowledge(&mut ladder);
    }
    assert!(taken == data);
    assert!(rounds[0] <= BULK / 4, "{rounds:?}");
    assert!(rounds.iter().any(|&len| len > BULK / 2), "{rounds:?}");
}

#[test]
fn more_than_a_segment_is_acknowledged_at_once() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    assert!(talk.say(&mut ladder, ACK, &[1; 1460]).is_empty());
    assert_eq!(only(&talk.say(&mut ladder, ACK, &[1; 1460])).ack, talk.seq);
}

#[test]
fn bytes_that_the_host_does_not_take_are_acknowledged_at_once() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    ladder.host(talk.flow, |host| host.room = 0);
    assert_eq!(only(&talk.say(&mut ladder, ACK, b"request")).ack, talk.seq);
}

#[test]
fn parked_flow_wakes_from_either_side() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    talk.say(&mut ladder, ACK | PSH, b"hello");
    for round in 1..=5 {
        let heard = ladder.pass(Duration::from_secs(60));
        assert!(heard.iter().all(|heard| heard.tcp.as_ref().unwrap().payload.is_empty()));
        assert_eq!(ladder.stack.stats().tcp_parked, round);
        if round % 2 == 0 {
            talk.say(&mut ladder, ACK | PSH, b"from the guest");
            assert!(ladder.taken(talk.flow).ends_with(b"from the guest"));
        } else {
            let heard = ladder.host(talk.flow, |host| host.to_guest.extend(b"from the host"));
            assert_eq!(talk.take(&heard), b"from the host");
            talk.acknowledge(&mut ladder);
        }
        assert_eq!(ladder.stack.stats().tcp_unparked, round);
    }
    // A keep-alive probe of the guest is answered, too.
    ladder.pass(Duration::from_secs(60));
    let probe = Draft { seq: talk.seq.wrapping_sub(1), ..talk.draft(ACK, &[]) };
    let seen = only(&ladder.guest(&probe)).clone();
    assert_eq!((seen.seq, seen.ack), (talk.ack, talk.seq));
}

#[test]
fn guest_of_a_flow_that_was_parked_has_the_whole_time_to_answer() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    let unresponsive = ladder.stack.config().timeouts.guest_unresponsive;
    let heard = ladder.host(talk.flow, |host| host.to_guest.extend(b"first"));
    assert_eq!(talk.take(&heard), b"first");
    ladder.pass(unresponsive / 2);
    talk.acknowledge(&mut ladder);
    ladder.pass(unresponsive * 2);
    assert_eq!(ladder.stack.stats().tcp_parked, 1);
    ladder.host(talk.flow, |host| host.to_guest.extend(b"second"));
    assert_eq!(ladder.stack.stats().tcp_unparked, 1);
    ladder.pass(unresponsive - Duration::from_secs(1));
    assert!(ladder.closes.is_empty(), "what was awaited before does not count");
    ladder.pass(Duration::from_secs(2));
    assert_eq!(ladder.closes, [(talk.flow, true)]);
    assert_eq!(ladder.discards(DiscardReason::TcpGuestUnresponsive), 1);
}

#[test]
fn host_probes_its_remote_as_often_as_the_guest_does() {
    for garbage in [&b""[..], b"x"] {
        let mut ladder = Ladder::new();
        let mut talk = Talk::open(&mut ladder);
        talk.say(&mut ladder, ACK, b"request");
        let mut probe = talk.draft(ACK, garbage);
        probe.seq = talk.seq.wrapping_sub(1);
        for (idle, told) in [(15_020, 1), (15_020, 1), (3_990, 2), (500, 2), (4_010, 2)] {
            ladder.pass(Duration::from_millis(idle));
            let heard = ladder.guest(&probe);
            assert_eq!(only(&heard).ack, talk.seq, "it is answered");
            assert_eq!(ladder.hosts[&talk.flow].keep_alive.len(), told);
        }
        let seconds = [15, 4].map(Duration::from_secs);
        assert_eq!(ladder.hosts[&talk.flow].keep_alive, seconds);
    }
}

#[test]
fn host_of_a_guest_that_does_not_probe_is_left_alone() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    for _ in 0..3 {
        talk.say(&mut ladder, ACK, b"word");
        ladder.pass(Duration::from_secs(15));
        talk.acknowledge(&mut ladder);
    }
    assert!(ladder.hosts[&talk.flow].keep_alive.is_empty());
}
