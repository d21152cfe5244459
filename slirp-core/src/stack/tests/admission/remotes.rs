//! What remotes open to a guest, beside what it opens itself.

use super::*;

#[test]
fn remotes_do_not_push_out_what_the_guest_is_opening() {
    let mut crowd = Crowd::new(|limits| limits.half_open = 4);
    crowd.open(&guest(1));
    let mut last = None;
    for port in 5000..5100 {
        crowd.pass(SECOND / 1000);
        last = Some(crowd.accept(port, 100).unwrap());
    }
    assert!(crowd.tcp(&guest(1)).is_some(), "the guest's own");
    assert_eq!((crowd.count(Kind::Opening), crowd.count(Kind::InboundOpening)), (1, 4));
    assert!(last.is_some_and(|flow| crowd.lives(flow)));
    // Nor the other way round.
    for port in 2..100 {
        crowd.open(&guest(port));
    }
    assert_eq!((crowd.count(Kind::Opening), crowd.count(Kind::InboundOpening)), (4, 4));
    crowd.assert_consistent();
}

#[test]
fn remotes_open_half_of_the_table() {
    let mut crowd = Crowd::new(|limits| limits.flows = 16);
    let open: Vec<_> = (5000..5004).map(|port| crowd.take(port)).collect();
    for port in 6000..6100 {
        assert!(crowd.receive(port, 100), "the newest has room");
        crowd.accept(port, 100).unwrap();
    }
    assert_eq!(crowd.stack.stats().flows, 8);
    assert!(open.iter().all(|&flow| crowd.lives(flow)), "open ones stay");
    let open: Vec<_> = (5004..5008).map(|port| crowd.take(port)).collect();
    assert_eq!(crowd.count(Kind::InboundOpen), 8);
    // Nothing is left that could make room for more of them.
    assert_eq!(crowd.accept(7000, 100), Err(DiscardReason::FlowTableFull));
    assert!(!crowd.receive(7000, 100));
    assert!(open.iter().all(|&flow| crowd.lives(flow)));
    for port in 1..=8 {
        crowd.open_fully(&guest(port));
    }
    assert_eq!(crowd.stack.stats().flows, 16);
    crowd.assert_consistent();
}

#[test]
fn guest_finds_room_among_remotes_that_are_not_answered() {
    let mut crowd = Crowd::new(|limits| limits.flows = 8);
    for port in 5000..5002 {
        assert!(crowd.receive(port, 100));
        crowd.accept(port, 100).unwrap();
    }
    for port in 1..=4 {
        crowd.open_fully(&guest(port));
    }
    assert_eq!(crowd.stack.stats().flows, 8);
    crowd.open_fully(&guest(5));
    assert!(!crowd.has_client(5000, 100) && crowd.has_client(5001, 100));
    for port in 6..=8 {
        crowd.open_fully(&guest(port));
    }
    assert_eq!(crowd.count(Kind::Open), 8);
    assert_eq!(crowd.open(&guest(9)).len(), 1, "refused");
}

#[test]
fn remotes_make_room_for_each_other_before_mappings_of_the_guest_do() {
    let mut crowd = Crowd::new(|limits| limits.flows = 8);
    let mappings: Vec<_> = (1..=5).map(|port| crowd.exchange(&guest(port))).collect();
    crowd.pass(SECOND);
    crowd.accept(5000, 100).unwrap();
    crowd.accept(5001, 100).unwrap();
    assert!(crowd.receive(5000, 100));
    for port in 6000..6100 {
        assert!(crowd.receive(port, 100));
        crowd.accept(port, 100).unwrap();
    }
    assert!(mappings.iter().all(|&flow| crowd.lives(flow)));
    // Where remotes only have open connections, a mapping goes; for their datagrams none does.
    let mut crowd = Crowd::new(|limits| limits.flows = 8);
    crowd.take(5000);
    let mappings: Vec<_> = (1..=7).map(|port| crowd.exchange(&guest(port))).collect();
    assert!(!crowd.receive(6000, 100));
    crowd.accept(6001, 100).unwrap();
    assert!(!crowd.lives(mappings[0]) && crowd.lives(mappings[1]));
    crowd.assert_consistent();
}

#[test]
fn answered_datagrams_of_remotes_outlive_those_that_are_not() {
    let mut crowd = Crowd::new(|limits| limits.inbound_udp = 3);
    assert!(crowd.receive(5000, 100));
    assert_eq!(crowd.send("10.0.2.100:80", "198.51.100.2:5000"), None, "by the rule's socket");
    crowd.pass(60 * SECOND);
    for port in 6000..6100 {
        assert!(crowd.receive(port, 100));
        assert!(crowd.has_client(5000, 100), "{port}");
    }
    assert_eq!(crowd.count(Kind::InboundUdp), 3);
    crowd.assert_consistent();
}
