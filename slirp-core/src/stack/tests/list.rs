//! The flows of a stack as a list, from their beginning to their end.

use super::*;
use crate::flow::{FlowState, FlowSummary};
use crate::tcp::tests::packet::FIN;

fn list(ladder: &Ladder) -> Vec<FlowSummary> {
    let (flows, next) = ladder.stack.flows(0, 1000, ladder.now);
    assert_eq!(next, None);
    flows.collect()
}

/// The only flow.
fn only_flow(ladder: &Ladder) -> FlowSummary {
    let flows = list(ladder);
    assert_eq!(flows.len(), 1);
    flows[0]
}

#[test]
fn connection_of_the_guest_is_seen_in_every_state() {
    let mut ladder = Ladder::new();
    let syn = Talk::syn(false, LINUX_OPTIONS);
    ladder.guest(&syn);
    let (flow, _) = ladder.connects[0];
    assert_eq!(only_flow(&ladder).state, FlowState::Connecting);
    let syn_ack = only(&ladder.connected(flow, Ok(()))).clone();
    assert_eq!(only_flow(&ladder).state, FlowState::Handshaking);
    let mut talk = Talk::answering(&syn, syn_ack, flow);
    talk.say(&mut ladder, ACK, b"hello");
    let heard = ladder.host(flow, |host| host.to_guest.extend(b"hi"));
    talk.take(&heard);
    talk.acknowledge(&mut ladder);
    ladder.pass(Duration::from_millis(1500));
    let open = only_flow(&ladder);
    assert_eq!((open.id, open.guest, open.remote), (flow, talk.from, talk.to));
    assert_eq!((open.state, open.is_inbound, open.local), (FlowState::Open, false, None));
    assert_eq!((open.traffic.from_guest, open.traffic.to_guest), (5, 2));
    assert_eq!((open.age.as_millis(), open.idle.as_millis()), (1500, 1500));
    ladder.pass(Duration::from_secs(1));
    assert_eq!(only_flow(&ladder).state, FlowState::Parked);
    talk.say(&mut ladder, ACK | FIN, b"");
    assert_eq!(only_flow(&ladder).state, FlowState::Closing);
    assert_eq!(only_flow(&ladder).idle, Duration::ZERO);
    let heard = ladder.host(flow, |host| host.is_ended = true);
    talk.take(&heard);
    talk.acknowledge(&mut ladder);
    assert_eq!(list(&ladder), []);
}

#[test]
fn connection_of_a_remote_is_seen_while_its_guest_is_looked_for() {
    let mut ladder = Ladder::new();
    let remote = "198.51.100.2:700".parse().unwrap();
    let guest = "10.0.2.100:80".parse().unwrap();
    ladder.stack.handle_tcp_accepted(came_through(1, remote), guest, ladder.now).unwrap();
    let flow = only_flow(&ladder);
    assert_eq!((flow.state, flow.is_inbound), (FlowState::Locating, true));
    assert_eq!((flow.guest, flow.remote), (guest, remote));
    ladder.stack.on_neighbor(guest.ip(), MAC);
    ladder.turn();
    assert_eq!(only_flow(&ladder).state, FlowState::Handshaking);
}

#[test]
fn list_is_read_in_pieces_that_miss_and_repeat_nothing() {
    let mut ladder = Ladder::new();
    let remote: SocketAddr = "198.51.100.2:700".parse().unwrap();
    let mut flows = Vec::new();
    for port in 1..=20 {
        let guest = SocketAddr::from(([10, 0, 2, 100], port));
        flows.push(
            ladder.stack.handle_tcp_accepted(came_through(1, remote), guest, ladder.now).unwrap(),
        );
    }
    // Slots in the middle are free.
    for flow in flows.drain(5..12) {
        ladder.stack.close_flow(flow, Ending::TimedOut, ladder.now);
    }
    let (mut seen, mut next, mut pieces) = (Vec::new(), Some(0), 0);
    while let Some(first) = next {
        let (piece, after) = ladder.stack.flows(first, 4, ladder.now);
        let piece: Vec<_> = piece.map(|flow| flow.id).collect();
        assert!(piece.len() <= 4);
        seen.extend(piece);
        assert!(after.is_none_or(|after| after > first));
        next = after;
        pieces += 1;
    }
    assert_eq!(seen, flows);
    assert!((5..=8).contains(&pieces), "{pieces}");
    let (mut beyond, next) = ladder.stack.flows(u32::MAX, u32::MAX, ladder.now);
    assert_eq!((beyond.next(), next), (None, None));
}
