//! Whether the acknowledgement of the remote's SYN is held, and when it is sent after all.

use super::*;
use crate::tcp::tests::packet::{FIN, PSH};

/// The `number`th connection of the guest to `to`.
fn open_to(ladder: &mut Ladder, to: &str, number: u16) -> Talk {
    let syn = Talk::syn(false, LINUX_OPTIONS);
    let from = SocketAddr::new(syn.from.ip(), 41_000 + number);
    Talk::open_with(ladder, &Draft { from, to: to.parse().unwrap(), ..syn })
}

const WEB: &str = "192.0.2.1:80";

/// A connection on which the guest speaks at once.
fn speak_first(ladder: &mut Ladder, to: &str, number: u16) -> Talk {
    let mut talk = open_to(ladder, to, number);
    talk.say(ladder, ACK | PSH, b"request");
    assert_eq!(ladder.taken(talk.flow), b"request");
    talk
}

fn acknowledged(ladder: &Ladder, talk: &Talk) -> u32 {
    ladder.hosts[&talk.flow].acknowledged
}

#[test]
fn remote_that_the_guest_spoke_to_first_is_told_so_from_the_next_connection_on() {
    let mut ladder = Ladder::new();
    speak_first(&mut ladder, WEB, 1);
    assert!(!ladder.is_guest_eager, "nothing was known yet");
    for number in 2..5 {
        let talk = speak_first(&mut ladder, WEB, number);
        assert!(ladder.is_guest_eager, "connection {number}");
        ladder.pass(Duration::from_millis(50));
        assert_eq!(acknowledged(&ladder, &talk), 0, "the request has done it");
    }
    open_to(&mut ladder, "192.0.2.1:22", 9);
    assert!(!ladder.is_guest_eager, "another service");
}

#[test]
fn acknowledgement_that_was_held_in_vain_is_sent_after_5_ms_and_not_held_again() {
    let mut ladder = Ladder::new();
    speak_first(&mut ladder, WEB, 1);
    let mut talk = open_to(&mut ladder, WEB, 2);
    assert!(ladder.is_guest_eager);
    ladder.pass(Duration::from_micros(4_900));
    assert_eq!(acknowledged(&ladder, &talk), 0);
    ladder.pass(Duration::from_micros(200));
    assert_eq!(acknowledged(&ladder, &talk), 1);
    let heard = ladder.host(talk.flow, |host| host.to_guest.extend(b"greeting"));
    assert_eq!(talk.take(&heard), b"greeting");
    ladder.pass(Duration::from_secs(1));
    assert_eq!(acknowledged(&ladder, &talk), 1, "once");
    open_to(&mut ladder, WEB, 3);
    assert!(!ladder.is_guest_eager);
}

#[test]
fn it_is_sent_in_time_when_the_guest_does_not_even_finish_its_handshake() {
    let mut ladder = Ladder::new();
    speak_first(&mut ladder, WEB, 1);
    let syn =
        Draft { from: "10.0.2.100:41002".parse().unwrap(), ..Talk::syn(false, LINUX_OPTIONS) };
    assert!(ladder.guest(&syn).is_empty());
    let (flow, _) = ladder.connects.pop().unwrap();
    assert!(ladder.is_guest_eager);
    ladder.connected(flow, Ok(()));
    ladder.pass(Duration::from_millis(6));
    assert_eq!(ladder.hosts[&flow].acknowledged, 1);
}

#[test]
fn guest_that_hesitates_or_only_ends_or_hears_first_is_not_eager() {
    let hesitate: fn(&mut Ladder, &mut Talk) = |ladder, talk| {
        ladder.pass(Duration::from_millis(6));
        talk.say(ladder, ACK | PSH, b"at last");
    };
    let end: fn(&mut Ladder, &mut Talk) = |ladder, talk| {
        talk.say(ladder, ACK | FIN, &[]);
        assert!(ladder.hosts[&talk.flow].is_shut);
    };
    let hear: fn(&mut Ladder, &mut Talk) = |ladder, talk| {
        let heard = ladder.host(talk.flow, |host| host.to_guest.extend(b"greeting"));
        talk.take(&heard);
        talk.say(ladder, ACK | PSH, b"answer");
        assert_eq!(ladder.taken(talk.flow), b"answer");
    };
    for (case, behave) in [("hesitates", hesitate), ("ends", end), ("hears", hear)] {
        let mut ladder = Ladder::new();
        let mut talk = open_to(&mut ladder, WEB, 1);
        behave(&mut ladder, &mut talk);
        open_to(&mut ladder, WEB, 2);
        assert!(!ladder.is_guest_eager, "unknown before: {case}");
        speak_first(&mut ladder, WEB, 3);
        let mut talk = open_to(&mut ladder, WEB, 4);
        assert!(ladder.is_guest_eager, "{case}");
        behave(&mut ladder, &mut talk);
        open_to(&mut ladder, WEB, 5);
        assert!(!ladder.is_guest_eager, "eager before: {case}");
    }
}
