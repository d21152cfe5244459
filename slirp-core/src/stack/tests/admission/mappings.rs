//! UDP and echo mappings of a guest, and what it hears when there is no room.

use super::*;

#[test]
fn mapping_that_is_idle_longest_makes_room_at_the_cap() {
    let mut crowd = Crowd::new(|limits| limits.udp_mappings = 3);
    let mut flows = Vec::new();
    for port in 1..=3 {
        flows.push(crowd.send(&guest(port), REMOTE).unwrap());
        crowd.pass(SECOND);
    }
    // The first is used again, so the second is the one.
    crowd.send(&guest(1), REMOTE);
    crowd.send(&guest(4), REMOTE).unwrap();
    assert_eq!(
        flows.iter().map(|&flow| crowd.lives(flow)).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!((crowd.count(Kind::Udp), crowd.discards(DiscardReason::MappingEvicted)), (3, 1));
    assert!(matches!(
        crowd.stack.poll_action(),
        Some(HostAction::Close { flow, reset: false }) if flow == flows[1]
    ));
    crowd.assert_consistent();
}

#[test]
fn request_and_answer_make_room_before_a_conversation() {
    let mut crowd = Crowd::new(|limits| limits.udp_mappings = 2);
    let call = crowd.converse(&guest(1));
    crowd.pass(60 * SECOND);
    for port in 2..=100 {
        crowd.exchange(&guest(port));
        assert!(crowd.lives(call), "{port}");
    }
    // Among conversations the one that is idle longest goes.
    let other = crowd.converse(&guest(100));
    crowd.exchange(&guest(101));
    assert!(!crowd.lives(call) && crowd.lives(other));
}

#[test]
fn connection_finds_room_in_a_table_full_of_mappings() {
    let mut crowd = Crowd::new(|limits| limits.flows = 8);
    for port in 1..=500 {
        crowd.pass(SECOND / 500);
        crowd.exchange(&guest(port));
        let from = guest(1000 + port);
        assert!(crowd.open(&from).is_empty(), "refused");
        assert!(crowd.tcp(&from).is_some());
    }
    assert_eq!(crowd.discards(DiscardReason::FlowTableFull), 0);
    assert_eq!(crowd.stack.stats().flows, 8);
    crowd.assert_consistent();
}

#[test]
fn echo_mapping_that_is_idle_longest_makes_room() {
    let mut crowd = Crowd::new(|limits| limits.echo_flows = 2);
    let ping = |crowd: &mut Crowd, ident: u16| {
        let mut packet = vec![0; 28];
        let ip = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 2, 100, 192, 0, 2, 1];
        packet[..20].copy_from_slice(&ip);
        let sum = !smoltcp::wire::checksum::data(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet[20] = 8;
        packet[24..26].copy_from_slice(&ident.to_be_bytes());
        let sum = !smoltcp::wire::checksum::data(&packet[20..]);
        packet[22..24].copy_from_slice(&sum.to_be_bytes());
        let from = [10, 0, 2, 100].into();
        crowd.frame(from, frame_around(&packet, mac_of(from)))
    };
    let first = ping(&mut crowd, 1).unwrap();
    let second = ping(&mut crowd, 2).unwrap();
    crowd.pass(SECOND);
    ping(&mut crowd, 1).unwrap();
    ping(&mut crowd, 3).unwrap();
    assert!(crowd.lives(first) && !crowd.lives(second));
    assert_eq!(crowd.count(Kind::Echo), 2);
}

#[test]
fn conversation_in_use_is_no_room_for_a_connection() {
    let mut crowd = Crowd::new(|limits| limits.flows = 2);
    let call = crowd.converse(&guest(1));
    crowd.open_fully(&guest(2));
    crowd.pass(9 * SECOND);
    let heard = crowd.open(&guest(3));
    assert_eq!(heard.len(), 1);
    assert!(crowd.lives(call));
    crowd.pass(SECOND);
    assert_eq!(crowd.open(&guest(3)), Vec::<Vec<u8>>::new());
    assert!(!crowd.lives(call));
}

#[test]
fn want_of_room_is_not_told_as_a_refusal_of_the_remote() {
    let mut crowd = Crowd::new(|limits| limits.flows = 1);
    crowd.open_fully(&guest(1));
    let heard = crowd.open(&guest(2));
    let [icmp] = &heard[..] else { panic!("{heard:?}") };
    let ip = IpHeader::parse(icmp).unwrap();
    assert_eq!(ip.source, IpAddr::from([10, 0, 2, 2]));
    assert_eq!(icmp[20..22], ICMP_PROHIBITED);
    assert_eq!(icmp[28 + 20..28 + 22], 2_u16.to_be_bytes(), "quotes the guest's port");
    let heard = crowd.open_to("[fd00::64]:2", "[2001:db8::1]:9");
    let [icmp] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(icmp[40..42], [1, 1]);
    assert_eq!(crowd.discards(DiscardReason::FlowTableFull), 2);
}
