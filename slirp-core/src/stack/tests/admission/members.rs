//! The parts of the members of a shared network.

use super::*;

#[test]
fn member_has_a_quarter_of_what_comes_in() {
    let mut crowd = Crowd::of(2, |limits| {
        limits.half_open = 16;
        limits.inbound_udp = 16;
    });
    crowd.open("10.0.2.101:1");
    let theirs = crowd.accept(4000, 101).unwrap();
    assert!(crowd.receive(4000, 101));
    let mut own = Vec::new();
    for port in 5000..5100 {
        crowd.pass(SECOND / 1000);
        own.push(crowd.accept(port, 100).unwrap());
        assert!(crowd.receive(port, 100));
        crowd.open(&guest(port));
    }
    let alive = own.iter().filter(|&&flow| crowd.lives(flow)).count();
    assert_eq!(alive, 4, "a quarter");
    assert!(own[96..].iter().all(|&flow| crowd.lives(flow)), "its oldest made room");
    assert_eq!((5000..5100).filter(|&port| crowd.has_client(port, 100)).count(), 4);
    assert_eq!((crowd.count(Kind::Opening), crowd.count(Kind::InboundOpening)), (5, 5));
    assert!(crowd.lives(theirs) && crowd.has_client(4000, 101));
    assert!(crowd.tcp("10.0.2.101:1").is_some());
    crowd.assert_consistent();
}

#[test]
fn member_who_has_most_makes_room_at_a_common_cap() {
    // Five parts of a quarter: those of five members are more than the cap.
    let mut crowd = Crowd::of(5, |limits| limits.half_open = 16);
    for last in [100, 101, 102] {
        for port in 1..=4 {
            crowd.open(&format!("10.0.2.{last}:{port}"));
        }
    }
    for port in 1..=3 {
        crowd.open(&format!("10.0.2.103:{port}"));
    }
    crowd.open("10.0.2.104:1");
    assert_eq!(crowd.count(Kind::Opening), 16);
    crowd.open("10.0.2.104:2");
    assert_eq!(crowd.count(Kind::Opening), 16);
    for from in ["10.0.2.104:1", "10.0.2.104:2", "10.0.2.103:1"] {
        assert!(crowd.tcp(from).is_some(), "{from}");
    }
    crowd.assert_consistent();
}

#[test]
fn networks_behind_a_member_count_as_its_own() {
    let mut crowd = Crowd::of(2, |limits| limits.flows = 40);
    let nested = |number: usize| format!("172.16.0.{}:1", number + 1);
    for number in 0..30 {
        crowd.send(&guest(1000 + u16::try_from(number).unwrap()), REMOTE).unwrap();
        crowd.send(&nested(number), REMOTE).unwrap();
    }
    assert_eq!(crowd.stack.stats().flows, 10, "a quarter for both");
    assert!(crowd.send("10.0.2.101:1", REMOTE).is_some());
    crowd.assert_consistent();
    // They go with it, and what others use of the same addresses is theirs.
    let macs = vec![member(100).mac];
    let mut addresses: Vec<IpAddr> = (0..30).map(|n| address(&nested(n)).ip()).collect();
    addresses.push([10, 0, 2, 100].into());
    let released = Released { macs, addresses };
    crowd.stack.handle_member_removed(MemberId(100), &member(100), &released, crowd.now);
    assert_eq!(crowd.stack.stats().flows, 1);
    assert_eq!(crowd.stack.admission.holder(address(&nested(3)).ip()), None);
    crowd.assert_consistent();
}

#[test]
fn nobody_makes_room_for_an_opening_that_is_refused() {
    // The member has all that it may have, in open connections, and a cap of all is reached as
    // well.
    let mut crowd = Crowd::of(5, |limits| {
        limits.flows = 16;
        limits.half_open = 16;
    });
    for port in 1..=4 {
        crowd.open_fully(&guest(port));
    }
    for last in [101, 102, 103] {
        for port in 1..=3 {
            crowd.open(&format!("10.0.2.{last}:{port}"));
        }
    }
    let before = crowd.stack.stats().flows;
    assert_eq!(crowd.open(&guest(9)).len(), 1, "refused");
    assert_eq!(crowd.stack.stats().flows, before);
    assert_eq!(crowd.discards(DiscardReason::HalfOpenLimit), 0);

    // Nobody can be asked for any more guests, so the connection could not wait for this one.
    let asked_for = 1024;
    let mut crowd = Crowd::new(|limits| limits.half_open = asked_for);
    for number in 0..asked_for {
        let [.., high, low] = number.to_be_bytes();
        crowd.accept_for([172, 16, high, low]).unwrap();
    }
    assert_eq!(crowd.accept_for([172, 17, 0, 1]), Err(DiscardReason::GuestQueueFull));
    assert_eq!(crowd.count(Kind::InboundOpening), asked_for);
    assert_eq!(crowd.discards(DiscardReason::HalfOpenLimit), 0);
}
