//! Queries in flight: who gets which answer, cut how, and when.

use proptest::prelude::*;

use super::{answer, query, tcp_origin, udp_origin};
use crate::config::{StackConfig, Timeouts};
use crate::discard::DiscardReason;
use crate::event::{DnsQueryId, DnsTransport, HostAction};
use crate::member::MemberId;
use crate::service::dns::DnsService;
use crate::time::Instant;

fn service() -> DnsService {
    DnsService::new(&StackConfig::default())
}

fn ask(service: &mut DnsService, port: u16, message: &[u8]) -> DnsQueryId {
    service.handle_query(udp_origin(port), None, None, message, Instant::ZERO).unwrap()
}

#[test]
fn query_reaches_the_host_side_as_it_came() {
    let mut service = service();
    let message = query(0x1234, Some((1400, true)));
    let id = service.handle_query(tcp_origin(), None, None, &message, Instant::ZERO).unwrap();
    let action = HostAction::QueryDns { query: id, transport: DnsTransport::Tcp, message };
    assert_eq!(service.poll_action(), Some(action));
    assert_eq!(service.poll_action(), None);
}

#[test]
fn answer_gets_the_id_of_the_guest_and_nothing_else_changes() {
    let mut service = service();
    let id = ask(&mut service, 4000, &query(0x1234, None));
    let (origin, bytes) = service
        .handle_answer(id, Some(answer(0xfeed, 100, false)), |_| None, Instant::ZERO)
        .unwrap();
    assert_eq!(origin, udp_origin(4000));
    assert_eq!(bytes, answer(0x1234, 100, false));
    assert!(service.is_empty());
    assert_eq!(service.handle_answer(id, None, |_| None, Instant::ZERO), None);
}

#[test]
fn repeated_query_waits_for_the_same_answer() {
    let mut service = service();
    let first = ask(&mut service, 4000, &query(1, None));
    assert_eq!(ask(&mut service, 4000, &query(1, None)), first);
    assert_eq!(service.len(), 1);
    assert!(service.poll_action().is_some());
    assert_eq!(service.poll_action(), None);
    // Another port, another id and another question are other queries.
    let mut other_question = query(1, None);
    other_question[13] = b'E';
    assert_ne!(ask(&mut service, 4001, &query(1, None)), first);
    assert_ne!(ask(&mut service, 4000, &query(2, None)), first);
    let second = ask(&mut service, 4000, &other_question);
    assert_ne!(second, first);
    assert!(service.handle_answer(first, None, |_| None, Instant::ZERO).is_some());
    assert_eq!(ask(&mut service, 4000, &other_question), second);
    // Once answered, the same bytes are a new query.
    assert_ne!(ask(&mut service, 4000, &query(1, None)), first);
}

#[test]
fn long_answer_is_cut_to_what_the_guest_takes() {
    for (edns, cap) in [
        (None, 512),
        (Some((0, false)), 512),
        (Some((512, false)), 512),
        (Some((1232, true)), 1232),
        (Some((4096, false)), 4096),
    ] {
        let fixed = answer(0, 0, true).len();
        let whole = answer(9, u16::try_from(cap - fixed).unwrap(), true);
        let long = answer(9, u16::try_from(cap - fixed + 1).unwrap(), true);
        let mut service = service();
        let id = ask(&mut service, 4000, &query(9, edns));
        let (_, bytes) =
            service.handle_answer(id, Some(whole.clone()), |_| None, Instant::ZERO).unwrap();
        assert_eq!(bytes, whole, "{edns:?}");
        let id = ask(&mut service, 4000, &query(9, edns));
        let (_, bytes) =
            service.handle_answer(id, Some(long.clone()), |_| None, Instant::ZERO).unwrap();
        let mut expected = long[..30].to_vec();
        expected[2] |= 0x02;
        expected[6..12].copy_from_slice(&[0, 0, 0, 0, 0, 1]);
        expected.extend_from_slice(&long[long.len() - 17..]);
        assert_eq!(bytes, expected, "{edns:?}");
    }
}

#[test]
fn long_answer_over_tcp_is_not_cut() {
    let mut service = service();
    let id =
        service.handle_query(tcp_origin(), None, None, &query(9, None), Instant::ZERO).unwrap();
    let (_, bytes) =
        service.handle_answer(id, Some(answer(1, 60_000, true)), |_| None, Instant::ZERO).unwrap();
    assert_eq!(bytes, answer(9, 60_000, true));
}

#[test]
fn failure_of_all_resolvers_is_servfail() {
    let mut service = service();
    let id = ask(&mut service, 4000, &query(0x4242, Some((1232, true))));
    let (_, bytes) = service.handle_answer(id, None, |_| None, Instant::ZERO).unwrap();
    // Response, RD, RA, CD as asked, rcode 2; the question as it came; an OPT with DO.
    let mut expected = b"\x42\x42\x81\x92\0\x01\0\0\0\0\0\x01".to_vec();
    expected.extend_from_slice(b"\x07eXample\x04test\0\0\x01\0\x01");
    expected.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0]);
    assert_eq!(bytes, expected);
    // So is an answer that is none.
    let id = ask(&mut service, 4000, &query(5, None));
    let (_, bytes) = service.handle_answer(id, Some(vec![0; 5]), |_| None, Instant::ZERO).unwrap();
    assert_eq!(bytes[3] & 0x0f, 2);
}

#[test]
fn unreadable_question_is_formerr_and_stays_here() {
    let mut pointer = query(7, None);
    pointer[12] = 0xc0;
    let mut two = query(7, None);
    two[5] = 2;
    two.extend_from_slice(b"\0\0\x01\0\x01");
    let cut = query(7, None)[..20].to_vec();
    for message in [pointer, two, cut] {
        let mut service = service();
        ask(&mut service, 4000, &message);
        assert_eq!(service.poll_action(), None);
        let (origin, bytes) = service.poll_answer().unwrap();
        assert_eq!(origin, udp_origin(4000));
        assert_eq!(bytes, b"\0\x07\x81\x91\0\0\0\0\0\0\0\0");
        assert!(service.is_empty());
    }
}

#[test]
fn unknown_opcode_and_missing_question_are_passed_on() {
    let mut opcode = query(7, None);
    opcode[2] |= 9 << 3;
    let mut unreadable = opcode.clone();
    unreadable.truncate(14);
    let mut cookie_only = query(7, None);
    cookie_only.truncate(12);
    cookie_only[5] = 0;
    for message in [opcode, unreadable, cookie_only] {
        let mut service = service();
        ask(&mut service, 4000, &message);
        assert!(service.poll_action().is_some());
        assert_eq!(service.poll_answer(), None);
    }
}

#[test]
fn message_that_is_no_query_is_discarded() {
    let mut service = service();
    let too_long = vec![0; 65_536];
    for message in [&[][..], &query(1, None)[..11], &answer(1, 4, false), &too_long] {
        let result = service.handle_query(udp_origin(1), None, None, message, Instant::ZERO);
        assert_eq!(result, Err(DiscardReason::DnsMessageInvalid));
    }
    assert_eq!(service.poll_action(), None);
}

#[test]
fn cap_holds_and_an_answer_makes_room() {
    let mut config = StackConfig::default();
    config.limits.dns_queries = 2;
    let mut service = DnsService::new(&config);
    let first = ask(&mut service, 1, &query(1, None));
    // Answers that wait to be fetched count as well.
    let cut = query(7, None)[..20].to_vec();
    ask(&mut service, 2, &cut);
    let refused = service.handle_query(udp_origin(3), None, None, &query(1, None), Instant::ZERO);
    assert_eq!(refused, Err(DiscardReason::DnsQueriesExhausted));
    // A retransmission is not a further query.
    assert_eq!(ask(&mut service, 1, &query(1, None)), first);
    assert!(service.poll_answer().is_some());
    ask(&mut service, 3, &query(1, None));
    service.handle_answer(first, None, |_| None, Instant::ZERO).unwrap();
    ask(&mut service, 4, &query(1, None));
}

#[test]
fn queries_count_for_the_member_that_asked_until_they_are_answered() {
    let mut config = StackConfig::default();
    config.limits.dns_queries = 8;
    config.is_shared = true;
    let mut service = DnsService::new(&config);
    let [a, b] = [1, 2].map(|id| Some(MemberId(id)));
    let mut ask = |holder, id| {
        let asked =
            service.handle_query(tcp_origin(), holder, None, &query(id, None), Instant::ZERO);
        while service.poll_action().is_some() {}
        asked
    };
    let first = ask(a, 1).unwrap();
    ask(a, 2).unwrap();
    // Whatever became of the connections that the first two came on.
    assert_eq!(ask(a, 3), Err(DiscardReason::DnsQueriesExhausted));
    ask(b, 4).unwrap();
    ask(None, 5).unwrap();
    service.handle_answer(first, None, |_| None, Instant::ZERO).unwrap();
    service.handle_query(tcp_origin(), a, None, &query(6, None), Instant::ZERO).unwrap();
}

#[test]
fn query_without_answer_ends_in_servfail() {
    let mut service = service();
    let timeout = Timeouts::default().dns;
    let later = Instant::from_micros(1_000);
    assert_eq!(service.poll_timeout(), None);
    let first = ask(&mut service, 1, &query(1, None));
    service.handle_query(udp_origin(2), None, None, &query(2, None), later).unwrap();
    assert_eq!(service.poll_timeout(), Some(Instant::ZERO + timeout));
    assert_eq!(service.handle_timeout(later), 0);
    assert_eq!(service.handle_timeout(Instant::ZERO + timeout), 1);
    let (origin, bytes) = service.poll_answer().unwrap();
    assert_eq!(origin, udp_origin(1));
    assert_eq!(bytes[3] & 0x0f, 2);
    assert_eq!(service.poll_answer(), None);
    assert_eq!(service.handle_answer(first, Some(answer(1, 1, false)), |_| None, later), None);
    assert_eq!(service.poll_timeout(), Some(later + timeout));
    // The key is free again.
    assert_ne!(ask(&mut service, 1, &query(1, None)), first);
}

proptest! {
    #[test]
    fn any_bytes_as_query_and_answer_are_survived(
        mut message in prop::collection::vec(any::<u8>(), 0..300),
        reply in prop::collection::vec(any::<u8>(), 0..2000),
        counts in any::<[u8; 4]>(),
    ) {
        let mut service = service();
        // Small section counts lead deeper than random ones.
        if message.len() >= 12 {
            message[2] &= 0x7f;
            for (at, count) in [5, 7, 9, 11].into_iter().zip(counts) {
                message[at - 1] = 0;
                message[at] = count % 4;
            }
        }
        if let Ok(id) = service.handle_query(udp_origin(9), None, None, &message, Instant::ZERO) {
            let told = service
                .handle_answer(id, Some(reply), |_| None, Instant::ZERO)
                .or_else(|| service.poll_answer());
            let (_, bytes) = told.unwrap();
            prop_assert!(bytes.len() >= 12);
            prop_assert_eq!(&bytes[..2], &message[..2]);
            prop_assert!(bytes[2] & 0x80 != 0);
        }
        prop_assert!(service.is_empty());
    }

    #[test]
    fn cut_answer_never_exceeds_what_the_guest_takes(
        udp_len in any::<u16>(),
        len in 0_u16..60_000,
        with_opt in any::<bool>(),
    ) {
        let mut service = service();
        let id = ask(&mut service, 1, &query(1, Some((udp_len, false))));
        let whole = answer(1, len, with_opt);
        let given = Some(whole.clone());
        let (_, bytes) = service.handle_answer(id, given, |_| None, Instant::ZERO).unwrap();
        let cap = usize::from(udp_len).max(512);
        prop_assert!(bytes.len() <= cap);
        prop_assert_eq!(bytes == whole, whole.len() <= cap);
    }
}
