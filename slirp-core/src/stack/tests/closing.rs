//! How connections end: in order, half by half, by resets, by silence.

use super::*;
use crate::tcp::tests::packet::{FIN, RST};

#[test]
fn guest_ends_first_and_still_hears_the_host() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    talk.say(&mut ladder, ACK, b"request");
    assert!(talk.say(&mut ladder, ACK | FIN, b"!").is_empty(), "held for the remote's end");
    let heard = ladder.pass(Duration::from_millis(5));
    assert_eq!(only(&heard).ack, talk.seq);
    assert_eq!(ladder.taken(talk.flow), b"request!");
    assert!(ladder.hosts[&talk.flow].is_shut);
    let data = stream(5000);
    let heard = ladder.host(talk.flow, |host| host.to_guest.extend(&data));
    assert_eq!(talk.take(&heard), data);
    talk.acknowledge(&mut ladder);
    let heard = ladder.host(talk.flow, |host| host.is_ended = true);
    assert!(only(&heard).has(FIN));
    talk.take(&heard);
    assert!(ladder.closes.is_empty());
    assert!(talk.acknowledge(&mut ladder).is_empty());
    assert_eq!(ladder.closes, [(talk.flow, false)]);
}

#[test]
fn host_ends_first_and_still_hears_the_guest() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    let heard = ladder.host(talk.flow, |host| {
        host.to_guest.extend(b"bye");
        host.is_ended = true;
    });
    assert_eq!(talk.take(&heard), b"bye");
    assert!(heard.last().unwrap().tcp.as_ref().unwrap().has(FIN));
    talk.acknowledge(&mut ladder);
    let data = stream(20_000);
    for chunk in data.chunks(1000) {
        talk.say(&mut ladder, ACK, chunk);
    }
    assert_eq!(ladder.taken(talk.flow), data);
    assert!(!ladder.hosts[&talk.flow].is_shut && ladder.closes.is_empty());
    let heard = talk.say(&mut ladder, ACK | FIN, &[]);
    assert_eq!(heard.last().unwrap().tcp.as_ref().unwrap().ack, talk.seq);
    assert!(ladder.hosts[&talk.flow].is_shut);
    assert_eq!(ladder.closes, [(talk.flow, false)]);
    assert_eq!(ladder.stack.stats().flows, 0);
}

/// Both directions end while the host takes nothing: the guest's last bytes must not be lost.
fn slow_host(host_ends_first: bool) -> (Ladder, Talk, Vec<u8>) {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    ladder.host(talk.flow, |host| host.room = 0);
    let data = stream(5000);
    for chunk in data.chunks(1000) {
        talk.say(&mut ladder, ACK, chunk);
    }
    let end_host = |ladder: &mut Ladder, talk: &mut Talk| {
        let heard = ladder.host(talk.flow, |host| host.is_ended = true);
        talk.take(&heard);
        talk.acknowledge(ladder);
    };
    if host_ends_first {
        end_host(&mut ladder, &mut talk);
    }
    talk.say(&mut ladder, ACK | FIN, &[]);
    if !host_ends_first {
        end_host(&mut ladder, &mut talk);
    }
    (ladder, talk, data)
}

#[test]
fn slow_host_gets_the_last_bytes_behind_both_ends() {
    for host_ends_first in [false, true] {
        let (mut ladder, talk, data) = slow_host(host_ends_first);
        assert!(ladder.closes.is_empty(), "{} bytes are lost", data.len());
        ladder.pass(Duration::from_secs(600));
        for _ in 0..5 {
            assert!(!ladder.hosts[&talk.flow].is_shut);
            ladder.host(talk.flow, |host| host.room = 1000);
        }
        assert_eq!(ladder.taken(talk.flow), data);
        assert!(ladder.hosts[&talk.flow].is_shut);
        assert_eq!(ladder.closes, [(talk.flow, false)]);
    }
}

#[test]
fn host_that_fails_behind_both_ends_is_reset() {
    for host_ends_first in [false, true] {
        let (mut ladder, talk, _) = slow_host(host_ends_first);
        ladder.host(talk.flow, |host| host.is_broken = true);
        assert_eq!(ladder.closes, [(talk.flow, true)]);
    }
}

#[test]
fn both_ends_at_once_are_an_orderly_end() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    let heard = ladder.host(talk.flow, |host| host.is_ended = true);
    assert!(only(&heard).has(FIN));
    // The guest's FIN has crossed the host's.
    talk.say(&mut ladder, ACK | FIN, &[]);
    talk.take(&heard);
    talk.acknowledge(&mut ladder);
    assert_eq!(ladder.closes, [(talk.flow, false)]);
}

#[test]
fn reset_of_the_guest_resets_the_host() {
    for payload in [&b""[..], b"half"] {
        let mut ladder = Ladder::new();
        let mut talk = Talk::open(&mut ladder);
        ladder.host(talk.flow, |host| host.room = 0);
        talk.say(&mut ladder, ACK, payload);
        assert!(talk.say(&mut ladder, RST | ACK, &[]).is_empty());
        assert_eq!(ladder.closes, [(talk.flow, true)]);
        assert_eq!(ladder.stack.stats().flows, 0);
    }
}

#[test]
fn reset_behind_the_guests_end_drops_what_the_host_has_not_taken() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    ladder.host(talk.flow, |host| host.room = 0);
    talk.say(&mut ladder, ACK | FIN, b"half");
    talk.say(&mut ladder, RST | ACK, &[]);
    assert_eq!(ladder.closes, [(talk.flow, true)]);
}

#[test]
fn failure_of_the_host_resets_the_guest() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    talk.say(&mut ladder, ACK, b"request");
    let heard = ladder.host(talk.flow, |host| host.is_broken = true);
    let seen = only(&heard);
    assert!(seen.has(RST));
    assert_eq!(seen.seq, talk.ack);
    assert_eq!(ladder.closes, [(talk.flow, true)]);
}

#[test]
fn what_a_host_said_before_it_broke_reaches_the_guest_before_the_reset() {
    let ring_len = config().limits.ring_len;
    for (guest_speaks, len) in [(true, 4), (false, 4), (true, 2 * ring_len), (false, 2 * ring_len)]
    {
        let mut ladder = Ladder::new();
        let mut talk = Talk::open(&mut ladder);
        let host = ladder.hosts.get_mut(&talk.flow).unwrap();
        let answer = stream(len);
        host.to_guest.extend(&answer);
        host.is_broken = true;
        let mut heard = if guest_speaks {
            talk.say(&mut ladder, ACK, b"more of the request")
        } else {
            ladder.host(talk.flow, |_| {})
        };
        let mut taken = Vec::new();
        while taken.len() < len {
            assert!(!heard.iter().any(|heard| heard.tcp.as_ref().unwrap().has(RST)));
            assert!(ladder.closes.is_empty());
            taken.extend(talk.take(&heard));
            heard = talk.acknowledge(&mut ladder);
        }
        assert_eq!(taken, answer);
        assert!(only(&heard).has(RST));
        assert_eq!(only(&heard).seq, talk.ack);
        assert_eq!(ladder.closes, [(talk.flow, true)]);
        assert!(ladder.taken(talk.flow).is_empty() && !ladder.hosts[&talk.flow].is_shut);
    }
}

#[test]
fn guest_that_ends_while_it_hears_a_broken_host_out_is_reset() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    let heard = ladder.host(talk.flow, |host| {
        host.to_guest.extend(b"big");
        host.is_broken = true;
    });
    assert!(talk.say(&mut ladder, ACK | FIN, b"rest").iter().all(|heard| {
        let seen = heard.tcp.as_ref().unwrap();
        !seen.has(RST)
    }));
    assert!(!ladder.hosts[&talk.flow].is_shut);
    assert_eq!(talk.take(&heard), b"big");
    assert!(only(&talk.acknowledge(&mut ladder)).has(RST));
    assert_eq!(ladder.closes, [(talk.flow, true)]);
}

#[test]
fn guest_that_does_not_take_what_a_broken_host_said_is_given_up() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    talk.window = 0;
    talk.acknowledge(&mut ladder);
    ladder.host(talk.flow, |host| {
        host.to_guest.extend(b"big");
        host.is_broken = true;
    });
    for _ in 0..119 {
        ladder.pass(Duration::from_secs(1));
        talk.acknowledge(&mut ladder);
    }
    assert!(ladder.closes.is_empty());
    let heard = ladder.pass(Duration::from_secs(2));
    assert!(heard.last().unwrap().tcp.as_ref().unwrap().has(RST));
    assert_eq!(ladder.closes, [(talk.flow, true)]);
}

#[test]
fn guest_that_stops_to_acknowledge_is_given_up() {
    let mut ladder = Ladder::new();
    let talk = Talk::open(&mut ladder);
    ladder.host(talk.flow, |host| host.to_guest.extend(b"hello"));
    ladder.pass(Duration::from_secs(119));
    assert!(ladder.closes.is_empty());
    let heard = ladder.pass(Duration::from_secs(15));
    assert!(heard.last().unwrap().tcp.as_ref().unwrap().has(RST));
    assert_eq!(ladder.closes, [(talk.flow, true)]);
    assert_eq!(ladder.discards(DiscardReason::TcpGuestUnresponsive), 1);
}

/// The guest has ended its direction, everything is acknowledged, and the remote goes on.
fn ended_by_the_guest() -> (Ladder, Talk) {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    talk.say(&mut ladder, ACK | FIN, b"request");
    ladder.pass(Duration::from_millis(5));
    assert!(ladder.hosts[&talk.flow].is_shut);
    (ladder, talk)
}

/// The host has ended its direction, and the guest goes on.
fn ended_by_the_host() -> (Ladder, Talk) {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    let heard = ladder.host(talk.flow, |host| host.is_ended = true);
    talk.take(&heard);
    talk.acknowledge(&mut ladder);
    (ladder, talk)
}

/// The next segment is an acknowledgement that the guest has to answer.
fn assert_question(seen: &Seen, talk: &Talk) {
    assert!(seen.has(ACK) && !seen.has(FIN) && !seen.has(RST), "{seen:?}");
    assert_eq!((seen.seq, seen.ack), (talk.ack.wrapping_sub(1), talk.seq));
    assert!(seen.payload.is_empty());
}

#[test]
fn guest_that_has_forgotten_what_it_closed_leaves_the_host_in_order() {
    let (mut ladder, talk) = ended_by_the_guest();
    assert!(ladder.pass(Duration::from_secs(74)).is_empty());
    let heard = ladder.pass(Duration::from_secs(2));
    assert_question(only(&heard), &talk);
    // Linux: the reset to a segment with an acknowledgement has none of its own.
    let answer = Draft { seq: talk.seq, ack: 0, ..talk.draft(RST, &[]) };
    assert!(ladder.guest(&answer).is_empty());
    assert_eq!(ladder.closes, [(talk.flow, false)]);
    assert_eq!(ladder.stack.stats().flows, 0);
}

#[test]
fn guest_that_has_forgotten_a_connection_it_had_not_ended_resets_the_host() {
    let (mut ladder, talk) = ended_by_the_host();
    let heard = ladder.pass(Duration::from_secs(76));
    assert_question(only(&heard), &talk);
    ladder.guest(&Draft { seq: talk.seq, ack: 0, ..talk.draft(RST, &[]) });
    assert_eq!(ladder.closes, [(talk.flow, true)]);
}

#[test]
fn half_closed_connection_that_the_guest_still_has_lives_on() {
    for is_ended_by_guest in [true, false] {
        let (mut ladder, mut talk) =
            if is_ended_by_guest { ended_by_the_guest() } else { ended_by_the_host() };
        let mut questions = 0;
        for _ in 0..48 * 60 {
            for seen in ladder.pass(Duration::from_secs(30)) {
                assert_question(seen.tcp.as_ref().unwrap(), &talk);
                assert!(talk.acknowledge(&mut ladder).is_empty());
                questions += 1;
            }
        }
        // 75 s doubled up to 2 h, in a day.
        assert!((15..=20).contains(&questions), "{questions}");
        assert!(ladder.closes.is_empty());
        if is_ended_by_guest {
            let heard = ladder.host(talk.flow, |host| {
                host.to_guest.extend(b"answer");
                host.is_ended = true;
            });
            assert_eq!(talk.take(&heard), b"answer");
            let end = talk.acknowledge(&mut ladder);
            assert!(only(&end).has(FIN));
            talk.take(&end);
            talk.acknowledge(&mut ladder);
        } else {
            talk.say(&mut ladder, ACK | FIN, b"request");
            assert_eq!(ladder.taken(talk.flow), b"request");
        }
        assert_eq!(ladder.closes, [(talk.flow, false)]);
    }
}

#[test]
fn guest_that_is_silent_about_what_it_closed_is_given_up_in_order() {
    let (mut ladder, talk) = ended_by_the_guest();
    let heard = ladder.pass(Duration::from_secs(75 + 119));
    assert_eq!(heard.len(), 4, "frames get lost, so the question is repeated");
    heard.iter().for_each(|heard| assert_question(heard.tcp.as_ref().unwrap(), &talk));
    assert!(ladder.closes.is_empty());
    assert!(only(&ladder.pass(Duration::from_secs(2))).has(RST));
    assert_eq!(ladder.closes, [(talk.flow, false)]);
    assert_eq!(ladder.discards(DiscardReason::TcpGuestUnresponsive), 1);
}

#[test]
fn guest_is_asked_soon_again_once_bytes_have_moved() {
    let (mut ladder, mut talk) = ended_by_the_guest();
    for idle_for in [75, 150, 300, 600] {
        assert_question(only(&ladder.pass(Duration::from_secs(idle_for + 1))), &talk);
        talk.acknowledge(&mut ladder);
    }
    let heard = ladder.host(talk.flow, |host| host.to_guest.extend(b"more"));
    talk.take(&heard);
    talk.acknowledge(&mut ladder);
    assert!(ladder.pass(Duration::from_secs(74)).is_empty());
    assert_question(only(&ladder.pass(Duration::from_secs(2))), &talk);
}
