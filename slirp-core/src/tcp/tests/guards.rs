//! Defects B1, B2, B3, B6, B7 and B10 to B16 of the engine, each with and without the fence.
//!
//! The half without the fence asserts that the defect is really there: when it fails after an
//! update of smoltcp, the guard may no longer be needed.

use core::time::Duration;

use super::packet::{ACK, Draft, FIN, PSH, RST, SYN, Seen, stream};
use super::{ISN, Opening, Peer, accept, engine};
use crate::discard::DiscardReason;

const SEGMENT_LEN: usize = 60_000;

/// B1: more than the ring holds, all of it before the first acknowledgement.
fn flood_before_the_first_acknowledgement(is_guarded: bool) -> (Peer, Vec<u8>, Vec<u8>) {
    let mut peer = Peer::open(&Opening { is_guarded, ..Opening::default() });
    let data = stream(300_000);
    for (index, chunk) in data.chunks(SEGMENT_LEN).enumerate() {
        let offset = u32::try_from(index * SEGMENT_LEN).unwrap();
        let _ = peer.send(ACK | PSH, offset, 0, chunk);
    }
    (peer, data, Vec::new())
}

/// Sends what the stack has not acknowledged, within the window, until all of it has arrived.
fn send_the_rest(peer: &mut Peer, data: &[u8], arrived: &mut Vec<u8>) {
    for _ in 0..1000 {
        peer.drain(arrived);
        let _ = peer.poll_all();
        let done = usize::try_from(peer.acked.wrapping_sub(peer.start)).unwrap();
        if done > data.len() {
            return;
        }
        let room = usize::try_from(peer.edge.wrapping_sub(peer.acked)).unwrap();
        let end = (done + room.min(SEGMENT_LEN)).min(data.len());
        let flags = if end == data.len() { ACK | FIN } else { ACK };
        let offset = u32::try_from(done).unwrap();
        let _ = peer.send(flags, offset, 0, &data[done..end]);
    }
}

#[test]
fn flood_beyond_the_window_is_cut_at_the_edge() {
    let (mut peer, data, mut arrived) = flood_before_the_first_acknowledgement(true);
    assert!(!peer.is_engine_failed);
    assert!(peer.reasons.contains(&DiscardReason::TcpBeyondWindow));
    assert!(peer.connection.queued_to_host() <= 65_535, "the SYN|ACK promised no more");
    send_the_rest(&mut peer, &data, &mut arrived);
    assert!(arrived == data, "{} of {} bytes", arrived.len(), data.len());
    assert!(peer.connection.is_guest_finished());
}

#[test]
fn flood_beyond_the_window_still_breaks_an_unfenced_engine() {
    let (peer, ..) = flood_before_the_first_acknowledgement(false);
    assert!(peer.is_engine_failed, "smoltcp no longer panics: guard B1 may go");
    assert!(peer.connection.is_dead());
}

/// B1 again: a probe of the stack advertises a window that the engine does not record.
fn flood_behind_a_probe(is_guarded: bool) -> (Peer, Option<Seen>) {
    let mut peer = Peer::open(&Opening { window: 0, is_guarded, ..Opening::default() });
    assert_eq!(peer.queue(&[7]), 1);
    let probe = peer.poll().unwrap();
    assert_eq!(probe.payload, [7]);
    let answer = peer.send(ACK, 131_072 + 1000, 0, &[1; 100]);
    (peer, answer)
}

#[test]
fn flood_behind_a_probe_is_answered_and_not_taken() {
    let (peer, answer) = flood_behind_a_probe(true);
    assert_eq!(answer.unwrap().ack, peer.start);
    assert!(!peer.is_engine_failed);
}

/// Without debug assertions the engine keeps the part that the ring has room for: nothing.
#[test]
fn flood_behind_a_probe_still_reaches_the_ring_of_an_unfenced_engine() {
    let (peer, answer) = flood_behind_a_probe(false);
    let is_taken = answer.is_none_or(|seen| seen.ack != peer.start);
    assert!(
        peer.is_engine_failed || is_taken || cfg!(not(debug_assertions)),
        "smoltcp notes its window down: this part of guard B1 may go"
    );
}

/// B2: the window's right edge retracts by rounding, and the last segment with its FIN, sent
/// within the older edge, straddles the newer one.
fn fin_behind_a_retracted_edge(is_guarded: bool) -> (Peer, Vec<u8>, Vec<u8>) {
    const RING_LEN: usize = 1 << 20;
    let opening = Opening { ring_len: RING_LEN, is_guarded, ..Opening::default() };
    let mut peer = Peer::open(&opening);
    let data = stream(RING_LEN);
    let _ = peer.send(ACK, 0, 0, &data[..32]);
    let _ = peer.poll_all();
    let promised = peer.edge;
    let _ = peer.send(ACK, 32, 0, &data[32..39]);
    let _ = peer.poll_all();
    assert!(peer.edge.wrapping_sub(promised) > u32::MAX / 2, "the edge has retracted");
    assert_eq!(promised.wrapping_sub(peer.start), 1 << 20, "the data was promised a place");
    let mut at = 39;
    while at < data.len() {
        let end = (at + SEGMENT_LEN).min(data.len());
        let flags = if end == data.len() { ACK | FIN } else { ACK };
        let _ = peer.send(flags, u32::try_from(at).unwrap(), 0, &data[at..end]);
        at = end;
    }
    (peer, data, Vec::new())
}

#[test]
fn fin_behind_a_retracted_edge_waits_for_the_tail() {
    let (mut peer, data, mut arrived) = fin_behind_a_retracted_edge(true);
    assert!(!peer.connection.is_guest_finished(), "the tail has not arrived");
    send_the_rest(&mut peer, &data, &mut arrived);
    assert!(arrived == data, "{} of {} bytes", arrived.len(), data.len());
    assert!(peer.connection.is_guest_finished());
}

#[test]
fn fin_behind_a_retracted_edge_still_loses_the_tail_in_an_unfenced_engine() {
    let (mut peer, data, mut arrived) = fin_behind_a_retracted_edge(false);
    peer.drain(&mut arrived);
    assert!(
        peer.connection.is_guest_finished() && arrived.len() < data.len(),
        "smoltcp keeps the tail now: guard B2 may go"
    );
}

/// B3: everything up to the FIN is acknowledged while the window stays shut; returns how many
/// segments the connection emits unasked after that.
fn probe_timer_without_data(is_guarded: bool) -> (Peer, usize) {
    let mut peer = Peer::open(&Opening { is_guarded, ..Opening::default() });
    assert_eq!(peer.queue(&[7; 10]), 10);
    peer.connection.close();
    let sent = peer.poll_all();
    assert!(sent.iter().any(|seen| seen.has(FIN)));
    peer.window = 0;
    let _ = peer.send(ACK, 0, 5, &[]);
    let _ = peer.send(ACK, 0, 11, &[]);
    peer.pass(Duration::from_secs(10));
    let spoken = peer.poll_all().len();
    (peer, spoken)
}

#[test]
fn probe_timer_that_outlived_its_data_is_stopped() {
    let (peer, spoken) = probe_timer_without_data(true);
    assert!(spoken <= 33, "{spoken} segments");
    assert_eq!(peer.reasons, [DiscardReason::TcpEngineStuck]);
    assert!(peer.connection.is_dead());
}

#[test]
fn probe_timer_that_outlived_its_data_still_never_stops_in_an_unfenced_engine() {
    let (_, spoken) = probe_timer_without_data(false);
    assert_eq!(spoken, 10_000, "smoltcp falls silent now: guard B3 may go");
}

/// B6: data that was queued and never sent is acknowledged.
fn acknowledgement_of_unsent_data(is_guarded: bool) -> Peer {
    let mut peer = Peer::open(&Opening { window: 10, is_guarded, ..Opening::default() });
    assert_eq!(peer.queue(&stream(100_000)), 100_000);
    // The window of 10 is in the ACK as well, where it stands for 10 << 7.
    let sent: usize = peer.poll_all().iter().map(|seen| seen.payload.len()).sum();
    assert_eq!(sent, 1280);
    let _ = peer.send(ACK, 0, 90_000, &[]);
    peer
}

#[test]
fn acknowledgement_of_unsent_data_is_discarded() {
    let mut peer = acknowledgement_of_unsent_data(true);
    assert_eq!(peer.reasons, [DiscardReason::TcpAckUnsent]);
    assert_eq!(peer.connection.queued_to_guest(), 100_000);
    let _ = peer.send(ACK, 0, 1280, &[]);
    assert_eq!(peer.connection.queued_to_guest(), 98_720);
}

#[test]
fn acknowledgement_of_unsent_data_is_still_believed_by_an_unfenced_engine() {
    let peer = acknowledgement_of_unsent_data(false);
    assert_eq!(
        peer.connection.queued_to_guest(),
        10_000,
        "smoltcp checks acknowledgements now: guard B6 may go"
    );
}

#[test]
fn acknowledgement_that_comes_before_our_syn_ack_is_discarded() {
    let mut peer = Peer::open(&Opening::default());
    peer.engine = engine(&Opening::default());
    let syn = Draft { seq: ISN, flags: SYN, ..Draft::new(peer.from, peer.to) };
    peer.connection = accept(&mut peer.engine, &syn.packet(), peer.now).unwrap();
    peer.stack_start = 0x8000_0000;
    assert!(peer.send(ACK, 0, 0, &[]).is_none());
    assert_eq!(peer.reasons, [DiscardReason::TcpAckUnsent]);
    let syn_ack = peer.poll().unwrap();
    assert!(syn_ack.has(SYN | ACK));
    peer.stack_start = syn_ack.seq.wrapping_add(1);
    assert!(peer.send(ACK, 0, 0, &[]).is_none());
    assert!(peer.connection.is_open_both_ways());
}

/// B7: a FIN that has not been sent is acknowledged, and the guest ends its own direction.
fn acknowledgement_of_an_unsent_fin(is_guarded: bool) -> Peer {
    let mut peer = Peer::open(&Opening { window: 1, is_guarded, ..Opening::default() });
    assert_eq!(peer.queue(&[7; 1000]), 1000);
    peer.connection.close();
    let sent: usize = peer.poll_all().iter().map(|seen| seen.payload.len()).sum();
    assert_eq!(sent, 128);
    let _ = peer.send(ACK | FIN, 0, 1001, &[]);
    peer
}

#[test]
fn acknowledgement_of_an_unsent_fin_is_discarded() {
    let mut peer = acknowledgement_of_an_unsent_fin(true);
    assert_eq!(peer.reasons, [DiscardReason::TcpAckUnsent]);
    assert!(!peer.connection.is_time_wait());
    peer.window = 100;
    let _ = peer.send(ACK, 0, 128, &[]);
    let rest = peer.poll_all();
    assert_eq!(rest.iter().map(|seen| seen.payload.len()).sum::<usize>(), 872);
    assert!(rest.last().unwrap().has(FIN));
    let _ = peer.send(ACK | FIN, 0, 1001, &[]);
    assert!(peer.connection.is_time_wait());
}

#[test]
fn acknowledgement_of_an_unsent_fin_still_ends_an_unfenced_engine() {
    let peer = acknowledgement_of_an_unsent_fin(false);
    assert!(peer.connection.is_time_wait(), "smoltcp checks the FIN now: guard B7 may go");
}

/// B10: the last segment overtakes the one before it, and comes again.
fn fin_behind_a_gap(is_guarded: bool) -> Peer {
    let mut peer = Peer::open(&Opening { is_guarded, ..Opening::default() });
    let data = stream(200);
    let _ = peer.send(ACK | FIN, 100, 0, &data[100..]);
    let _ = peer.send(ACK, 0, 0, &data[..100]);
    let _ = peer.poll_all();
    assert_eq!(peer.acked, peer.start.wrapping_add(200), "the payload was kept");
    let _ = peer.send(ACK | FIN, 100, 0, &data[100..]);
    let mut arrived = Vec::new();
    peer.drain(&mut arrived);
    assert!(arrived == data);
    peer
}

#[test]
fn fin_behind_a_gap_is_taken_when_it_comes_again() {
    let mut peer = fin_behind_a_gap(true);
    assert!(peer.connection.is_guest_finished());
    let _ = peer.poll_all();
    assert_eq!(peer.acked, peer.start.wrapping_add(201));
}

#[test]
fn fin_behind_a_gap_is_still_never_taken_by_an_unfenced_engine() {
    let peer = fin_behind_a_gap(false);
    assert!(!peer.connection.is_guest_finished(), "smoltcp takes it now: guard B10 may go");
}

/// B11: our FIN is lost, and the guest sends duplicate acknowledgements for it; returns whether it
/// is sent again.
fn duplicate_acknowledgements_before_the_fin(is_guarded: bool) -> bool {
    let mut peer = Peer::open(&Opening { is_guarded, ..Opening::default() });
    assert_eq!(peer.queue(&[7; 10]), 10);
    peer.connection.close();
    let sent = peer.poll_all();
    assert!(sent.iter().any(|seen| seen.has(FIN)));
    for _ in 0..5 {
        let _ = peer.send(ACK, 0, 10, &[]);
        assert!(peer.poll_all().is_empty());
    }
    peer.pass(Duration::from_secs(60));
    peer.poll_all().iter().any(|seen| seen.has(FIN))
}

#[test]
fn lost_fin_comes_again_after_duplicate_acknowledgements() {
    assert!(duplicate_acknowledgements_before_the_fin(true));
}

#[test]
fn lost_fin_still_never_comes_again_from_an_unfenced_engine() {
    let comes = duplicate_acknowledgements_before_the_fin(false);
    assert!(!comes, "smoltcp repeats it now: guard B11 may go");
}

/// B12: what is in flight is lost, the window shuts, and the retransmission comes due; returns
/// whether the window is ever probed.
fn retransmission_into_a_shut_window(is_guarded: bool) -> bool {
    let mut peer = Peer::open(&Opening { window: 10, is_guarded, ..Opening::default() });
    assert_eq!(peer.queue(&stream(5000)), 5000);
    assert!(!peer.poll_all().is_empty());
    peer.window = 0;
    let _ = peer.send(ACK, 0, 0, &[]);
    for _ in 0..60 {
        peer.pass(Duration::from_secs(1));
        if is_guarded {
            peer.engine.revive(&mut peer.connection, peer.now);
        }
        if !peer.poll_all().is_empty() {
            return true;
        }
    }
    false
}

#[test]
fn window_that_shuts_on_a_retransmission_is_probed() {
    assert!(retransmission_into_a_shut_window(true));
}

#[test]
fn window_that_shuts_on_a_retransmission_is_still_never_probed_by_an_unfenced_engine() {
    let is_probed = retransmission_into_a_shut_window(false);
    assert!(!is_probed, "smoltcp probes it now: guard B12 may go");
}

#[test]
fn reset_that_is_not_taken_leaves_the_book_as_it_was() {
    let mut peer = Peer::open(&Opening { window: 10, ..Opening::default() });
    assert_eq!(peer.queue(&stream(5000)), 5000);
    assert!(!peer.poll_all().is_empty());
    peer.window = 0;
    let _ = peer.send(ACK, 0, 0, &[]);
    // Far outside of the window, and acknowledging bytes that were never sent.
    let _ = peer.send(RST | ACK, 1_000_000, 1_000_000, &[]);
    assert!(!peer.connection.is_dead());
    let is_probed = (0..60).any(|_| {
        peer.pass(Duration::from_secs(1));
        peer.engine.revive(&mut peer.connection, peer.now);
        !peer.poll_all().is_empty()
    });
    assert!(is_probed, "the retransmission of defect B12");
}

#[test]
fn number_beyond_the_window_keeps_no_connection_awake() {
    let mut peer = Peer::open(&Opening::default());
    let _ = peer.send(ACK | PSH, 0, 0, b"x");
    peer.drain(&mut Vec::new());
    assert_eq!(peer.poll_all().len(), 1, "the edge is known exactly now");
    for flags in [ACK, ACK | FIN, RST] {
        let _ = peer.send(flags, 1_000_000, 0, &[]);
        let _ = peer.poll_all();
        assert!(peer.engine.park(&peer.connection, peer.now).is_some(), "{flags}");
    }
}

/// B13: bytes after the guest's own FIN; returns how many the host would get.
fn bytes_behind_a_fin(is_guarded: bool) -> usize {
    let mut peer = Peer::open(&Opening { is_guarded, ..Opening::default() });
    let _ = peer.send(ACK | FIN, 0, 0, &[1; 10]);
    let _ = peer.poll_all();
    let _ = peer.send(ACK | PSH, 11, 0, &[2; 100]);
    peer.connection.queued_to_host()
}

#[test]
fn bytes_behind_a_fin_are_discarded() {
    assert_eq!(bytes_behind_a_fin(true), 10);
}

#[test]
fn bytes_behind_a_fin_are_still_taken_by_an_unfenced_engine() {
    assert_eq!(bytes_behind_a_fin(false), 110, "smoltcp ignores them now: guard B13 may go");
}

/// B14: the window shuts and opens again while the rest of what was sent is lost; returns whether
/// that is ever sent again.
fn window_that_shuts_and_opens(is_guarded: bool) -> bool {
    let mut peer = Peer::open(&Opening { window: 3000, is_guarded, ..Opening::default() });
    assert_eq!(peer.queue(&stream(2000)), 2000);
    assert!(!peer.poll_all().is_empty());
    peer.window = 0;
    let _ = peer.send(ACK, 0, 1000, &[]);
    peer.window = 3000;
    let _ = peer.send(ACK, 0, 1000, &[]);
    for _ in 0..60 {
        peer.pass(Duration::from_secs(1));
        if is_guarded {
            peer.engine.revive(&mut peer.connection, peer.now);
        }
        if peer.poll_all().iter().any(|seen| !seen.payload.is_empty()) {
            return true;
        }
    }
    false
}

#[test]
fn data_lost_around_a_shut_window_comes_again() {
    assert!(window_that_shuts_and_opens(true));
}

#[test]
fn data_lost_around_a_shut_window_still_never_comes_again_from_an_unfenced_engine() {
    let comes = window_that_shuts_and_opens(false);
    assert!(!comes, "smoltcp repeats it now: guard B14 may go");
}

/// B15: both directions are closing, and the guest's window opens; returns whether data flows at
/// once.
fn window_that_opens_in_last_ack(is_closed: bool) -> bool {
    let mut peer = Peer::open(&Opening { window: 0, ..Opening::default() });
    assert_eq!(peer.queue(&stream(2000)), 2000);
    let _ = peer.send(ACK | FIN, 0, 0, &[]);
    if is_closed {
        peer.connection.close();
    }
    let _ = peer.poll_all();
    peer.window = 3000;
    let _ = peer.send(ACK, 1, 0, &[]);
    peer.poll_all().iter().any(|seen| seen.payload.len() > 1)
}

#[test]
fn window_that_opens_behind_the_guests_end_is_used() {
    assert!(window_that_opens_in_last_ack(false));
}

#[test]
fn window_that_opens_in_last_ack_is_still_ignored_by_the_engine() {
    let flows = window_that_opens_in_last_ack(true);
    assert!(!flows, "smoltcp heeds it now: the flow may close without waiting (B15)");
}

/// B16: the guest's window shrinks to `window` before three duplicate acknowledgements; returns the
/// payload lengths of what is retransmitted.
fn fast_retransmission_into_a_smaller_window(is_guarded: bool, window: u16) -> Vec<usize> {
    // An MSS and no window scale.
    let options = vec![2, 4, 5, 180];
    let opening = Opening { window: 10_000, options, is_guarded, ..Opening::default() };
    let mut peer = Peer::open(&opening);
    assert_eq!(peer.queue(&stream(5000)), 5000);
    assert!(peer.poll_all().len() > 3);
    peer.window = window;
    let _ = peer.send(ACK, 0, 0, &[]);
    assert_eq!(peer.poll_all().len(), 0);
    for _ in 0..3 {
        let _ = peer.send(ACK, 0, 0, &[]);
    }
    peer.poll_all().iter().map(|seen| seen.payload.len()).collect()
}

#[test]
fn fast_retransmission_is_cut_at_the_edge_of_the_window() {
    assert_eq!(fast_retransmission_into_a_smaller_window(true, 100), [100]);
    assert_eq!(fast_retransmission_into_a_smaller_window(true, 0), [1]);
}

#[test]
fn fast_retransmission_of_an_unfenced_engine_still_goes_beyond_the_window() {
    let lens = fast_retransmission_into_a_smaller_window(false, 100);
    assert!(lens[0] > 100, "smoltcp heeds the window now: guard B16 may go");
}
