//! The reassembler against its caps, its rules and a reference model.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::fragmentation::fragments;
use crate::wire::icmp::emit_udp_quote;
use crate::wire::ip::u16_at;

fn packet(is_ipv6: bool, len: usize) -> Vec<u8> {
    let address = |last: u8| -> IpAddr {
        if is_ipv6 {
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)).into()
        } else {
            Ipv4Addr::new(10, 0, 2, last).into()
        }
    };
    let payload: Vec<u8> = (0..len).map(|at| (at % 251).to_le_bytes()[0]).collect();
    let (guest, remote) = (SocketAddr::new(address(100), 1), SocketAddr::new(address(2), 2));
    let mut packet = Vec::new();
    emit_udp_quote(&mut packet, guest, remote, &payload, len);
    packet
}

fn pieces(is_ipv6: bool, len: usize, ident: u32) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut whole = packet(is_ipv6, len);
    if !is_ipv6 {
        whole[4..6].copy_from_slice(&ident.to_be_bytes()[2..]);
        fill_ipv4_checksum(&mut whole[..20]);
    }
    let pieces = fragments(&whole, 576, ident).collect();
    (whole, pieces)
}

fn reassembler() -> Reassembler {
    Reassembler::new(&Limits::default(), &Timeouts::default())
}

const NOW: Instant = Instant::ZERO;

#[test]
fn fragments_in_reverse_order_give_the_original() {
    for is_ipv6 in [false, true] {
        let (whole, pieces) = pieces(is_ipv6, 4000, 9);
        let mut reassembler = reassembler();
        for piece in pieces[1..].iter().rev() {
            assert_eq!(reassembler.handle_fragment(piece, NOW), Ok(None));
        }
        assert_eq!(reassembler.handle_fragment(&pieces[0], NOW), Ok(Some(whole)));
        assert_eq!((reassembler.len(), reassembler.bytes_held()), (0, 0));
        assert_eq!(reassembler.poll_timeout(), None);
    }
}

#[test]
fn longest_datagram_comes_through_and_a_longer_one_does_not() {
    for (is_ipv6, longest) in [(false, 65_507), (true, 65_527)] {
        let (whole, pieces) = pieces(is_ipv6, longest, 1);
        let mut reassembler = reassembler();
        let mut results: Vec<_> =
            pieces.iter().map(|piece| reassembler.handle_fragment(piece, NOW)).collect();
        assert_eq!(results.pop(), Some(Ok(Some(whole))));

        let mut too_far = pieces[1].clone();
        let at = if is_ipv6 { 42 } else { 6 };
        too_far[at] |= if is_ipv6 { 0xff } else { 0x1f };
        too_far[at + 1] |= 0xf8;
        let result = reassembler.handle_fragment(&too_far, NOW);
        assert_eq!(result, Err(DiscardReason::FragmentInvalid));
    }
}

#[test]
fn repetition_is_ignored_and_overlap_ruins_what_is_still_to_come() {
    for is_ipv6 in [false, true] {
        let (_, pieces) = pieces(is_ipv6, 2000, 5);
        let mut reassembler = reassembler();
        assert_eq!(reassembler.handle_fragment(&pieces[1], NOW), Ok(None));
        assert_eq!(reassembler.handle_fragment(&pieces[1], NOW), Ok(None));
        let mut forged = pieces[1].clone();
        *forged.last_mut().unwrap() ^= 1;
        for piece in [&forged, &pieces[0], &pieces[1], &pieces[2], &pieces[3]] {
            let result = reassembler.handle_fragment(piece, NOW);
            assert_eq!(result, Err(DiscardReason::FragmentInvalid));
        }
        assert_eq!(reassembler.bytes_held(), ENTRY_COST, "only the tombstone is left");
        assert_eq!(reassembler.handle_timeout(NOW + Duration::from_secs(30)), vec![]);
        assert!(reassembler.is_empty());
    }
}

#[test]
fn two_ends_contradict_each_other() {
    let (_, pieces) = pieces(false, 2000, 5);
    let mut reassembler = reassembler();
    let mut early_end = pieces[1].clone();
    early_end[6] &= !0x20;
    assert_eq!(reassembler.handle_fragment(&early_end, NOW), Ok(None));
    let result = reassembler.handle_fragment(&pieces[3], NOW);
    assert_eq!(result, Err(DiscardReason::FragmentInvalid));
}

#[test]
fn atomic_fragment_is_whole_at_once() {
    let mut whole = packet(true, 4);
    let mut atomic = whole.clone();
    atomic[6] = 44;
    atomic[5] += 8;
    atomic.splice(40..40, [17, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(reassembler().handle_fragment(&atomic, NOW), Ok(Some(whole.clone())));
    whole.push(0);
    let unpadded = whole[..whole.len() - 1].to_vec();
    assert_eq!(reassembler().handle_fragment(&whole, NOW), Ok(Some(unpadded)));
}

#[test]
fn expired_datagram_gives_its_first_fragment_back() {
    for is_ipv6 in [false, true] {
        let (_, with_first) = pieces(is_ipv6, 2000, 1);
        let (_, without_first) = pieces(is_ipv6, 2000, 2);
        let mut reassembler = reassembler();
        assert_eq!(reassembler.handle_fragment(&with_first[0], NOW), Ok(None));
        let later = NOW + Duration::from_secs(1);
        assert_eq!(reassembler.handle_fragment(&without_first[1], later), Ok(None));
        let expires_at = NOW + Duration::from_secs(30);
        assert_eq!(reassembler.poll_timeout(), Some(expires_at));
        assert_eq!(reassembler.handle_timeout(later), vec![]);
        let first_fragment = Some(with_first[0].clone());
        assert_eq!(reassembler.handle_timeout(expires_at), [ExpiredDatagram { first_fragment }]);
        let end = expires_at + Duration::from_secs(1);
        assert_eq!(reassembler.handle_timeout(end), [ExpiredDatagram { first_fragment: None }]);
        assert_eq!(reassembler.bytes_held(), 0);
    }
}

#[test]
fn owner_of_most_datagrams_makes_room_and_the_others_keep_theirs() {
    let mut reassembler = reassembler();
    let (whole, of_other) = pieces(false, 4000, 60_000);
    reassembler.handle_fragment_of(2, &of_other[0], NOW).unwrap();
    for ident in 0..1000 {
        let (_, pieces) = pieces(false, 4000, ident);
        reassembler.handle_fragment_of(1, &pieces[0], NOW).unwrap();
    }
    assert_eq!(reassembler.len(), Limits::default().reassembly_datagrams);
    let mut last = None;
    for piece in &of_other[1..] {
        last = reassembler.handle_fragment_of(2, piece, NOW).unwrap();
    }
    assert_eq!(last, Some(whole));
}

#[test]
fn oldest_makes_room_at_the_cap_of_datagrams() {
    let mut reassembler = reassembler();
    for ident in 0..257 {
        let (_, pieces) = pieces(false, 1000, ident);
        assert_eq!(reassembler.handle_fragment(&pieces[0], NOW), Ok(None));
    }
    assert_eq!(reassembler.len(), 256);
    assert_eq!(reassembler.take_evicted(), 1);
    assert_eq!(reassembler.take_evicted(), 0);
    let (whole, pieces) = pieces(false, 1000, 1);
    assert_eq!(reassembler.handle_fragment(&pieces[1], NOW), Ok(Some(whole)));
}

#[test]
fn far_offsets_stay_under_the_cap_of_bytes() {
    let mut reassembler = reassembler();
    for ident in 0..1000_u16 {
        let mut piece = pieces(false, 1000, u32::from(ident)).1.swap_remove(0);
        let place = 0x2000 | ((65_535 - 600) / 8_u16);
        piece[6..8].copy_from_slice(&place.to_be_bytes());
        assert_eq!(reassembler.handle_fragment(&piece, NOW), Ok(None));
        assert!(reassembler.bytes_held() <= Limits::default().reassembly_bytes);
    }
    assert!(reassembler.len() < 64);
}

#[test]
fn datagram_that_can_never_fit_is_refused() {
    let limits = Limits { reassembly_bytes: 1000, ..Limits::default() };
    let mut reassembler = Reassembler::new(&limits, &Timeouts::default());
    let (_, pieces) = pieces(false, 2000, 1);
    let result = reassembler.handle_fragment(&pieces[0], NOW);
    assert_eq!(result, Err(DiscardReason::FragmentMemoryExhausted));
    assert_eq!((reassembler.len(), reassembler.bytes_held()), (0, 0));
}

#[test]
fn every_ipv4_fragment_has_a_real_checksum() {
    for piece in pieces(false, 3000, 77).1 {
        let header = etherparse::Ipv4Header::from_slice(&piece).unwrap().0;
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!((header.identification, u16_at(&piece, 4)), (77, 77));
    }
}

/// A fragment as the model sees it: bounds in units of eight bytes, and whether its data is wrong.
fn ipv4_piece(whole: &[u8], start: usize, end: usize) -> Vec<u8> {
    let payload = &whole[20..];
    let (start, end) = (start * 8, (end * 8).min(payload.len()));
    let mut piece = whole[..20].to_vec();
    let total = u16::try_from(20 + end - start).unwrap();
    piece[2..4].copy_from_slice(&total.to_be_bytes());
    let more = if end < payload.len() { 0x2000 } else { 0 };
    let place = u16::try_from(start / 8).unwrap() | more;
    piece[6..8].copy_from_slice(&place.to_be_bytes());
    piece.extend_from_slice(&payload[start..end]);
    piece
}

proptest! {
    #[test]
    fn any_order_and_repetition_gives_the_original(
        is_ipv6: bool,
        len in 600_usize..9000,
        order in vec(any::<proptest::sample::Index>(), 0..60),
    ) {
        let (whole, pieces) = pieces(is_ipv6, len, 3);
        let mut reassembler = reassembler();
        let mut missing: Vec<bool> = vec![true; pieces.len()];
        for index in order.iter().map(|index| index.index(pieces.len())).chain(0..pieces.len()) {
            let result = reassembler.handle_fragment(&pieces[index], NOW);
            missing[index] = false;
            if missing.contains(&true) {
                prop_assert_eq!(result, Ok(None));
            } else {
                prop_assert_eq!(result, Ok(Some(whole)));
                break;
            }
        }
        prop_assert_eq!(reassembler.bytes_held(), 0);
    }

    #[test]
    fn random_ranges_give_what_the_model_gives(
        len in 64_usize..400,
        ranges in vec((0_usize..52, 1_usize..20), 1..40),
    ) {
        let whole = packet(false, len);
        let units = (whole.len() - 20).div_ceil(8);
        let mut reassembler = reassembler();
        let mut seen: Vec<(usize, usize)> = Vec::new();
        let mut is_ruined = false;
        for (start, units_long) in ranges {
            let start = start % units;
            let end = (start + units_long).min(units);
            if (start, end) == (0, units) {
                continue;
            }
            let result = reassembler.handle_fragment(&ipv4_piece(&whole, start, end), NOW);
            let overlaps = seen.iter().any(|&(s, e)| start < e && s < end);
            if !is_ruined && seen.contains(&(start, end)) {
                prop_assert_eq!(result, Ok(None));
            } else if is_ruined || overlaps {
                is_ruined = true;
                prop_assert_eq!(result, Err(DiscardReason::FragmentInvalid));
            } else {
                seen.push((start, end));
                if seen.iter().map(|(s, e)| e - s).sum::<usize>() == units {
                    prop_assert_eq!(result, Ok(Some(whole.clone())));
                    seen.clear();
                } else {
                    prop_assert_eq!(result, Ok(None));
                }
            }
        }
    }

    #[test]
    fn any_bytes_keep_the_books(packets in vec((any::<bool>(), vec(any::<u8>(), 0..120)), 0..40)) {
        let limits = Limits { reassembly_bytes: 200_000, ..Limits::default() };
        let mut reassembler = Reassembler::new(&limits, &Timeouts::default());
        for (is_ipv6, mut bytes) in packets {
            let len = bytes.len();
            if is_ipv6 && len >= 48 {
                bytes[0] = 0x60;
                bytes[4..6].copy_from_slice(&u16::try_from(len - 40).unwrap().to_be_bytes());
                bytes[6] = 44;
                bytes[8..40].fill(1);
                bytes[44..48].fill(0);
            } else if len >= 20 {
                bytes[0] = 0x45;
                bytes[2..6].copy_from_slice(&[0, u8::try_from(len).unwrap(), 0, 0]);
                bytes[9..20].fill(1);
            }
            let _ = reassembler.handle_fragment(&bytes, NOW);
            let held: usize = reassembler.datagrams.values().map(Unfinished::cost).sum();
            prop_assert_eq!(held, reassembler.bytes_held());
            prop_assert!(held <= limits.reassembly_bytes);
            prop_assert_eq!(reassembler.order.len(), reassembler.len());
        }
        let _ = reassembler.handle_timeout(NOW + Duration::from_secs(31));
        prop_assert_eq!((reassembler.len(), reassembler.bytes_held()), (0, 0));
    }
}
