//! DNS messages in a TCP stream.

use proptest::prelude::*;

use crate::service::dns::DnsTcpFramer;
use crate::service::dns::framer::QUERIES_PER_CONNECTION_CAP;

#[test]
fn pipelined_messages_come_out_one_by_one() {
    let mut framer = DnsTcpFramer::new();
    let stream = b"\0\x02ab\0\0\0\x01c\0";
    assert_eq!(framer.handle_bytes(stream), 4);
    assert_eq!(framer.handle_bytes(&stream[4..]), 0);
    assert!(!framer.is_idle());
    assert_eq!(framer.poll_message().as_deref(), Some(&b"ab"[..]));
    assert_eq!(framer.poll_message(), None);
    // The empty message in between is skipped.
    assert_eq!(framer.handle_bytes(&stream[4..]), 5);
    assert_eq!(framer.poll_message().as_deref(), Some(&b"c"[..]));
    assert_eq!(framer.handle_bytes(&stream[9..]), 1);
    assert_eq!(framer.in_flight(), 2);
    framer.handle_done();
    framer.handle_done();
    assert!(framer.is_idle());
}

#[test]
fn stream_stops_at_the_cap_until_an_answer_arrives() {
    let mut framer = DnsTcpFramer::new();
    for _ in 0..QUERIES_PER_CONNECTION_CAP {
        assert_eq!(framer.handle_bytes(b"\0\x01x"), 3);
        assert!(framer.poll_message().is_some());
    }
    assert_eq!(framer.handle_bytes(b"\0\x01x\0\x01y"), 3);
    assert_eq!(framer.poll_message(), None);
    assert_eq!(framer.handle_bytes(b"\0\x01y"), 0);
    framer.handle_done();
    assert!(framer.poll_message().is_some());
    assert_eq!(framer.handle_bytes(b"\0\x01y"), 3);
}

#[test]
fn frame_of_an_oversized_message_is_declined() {
    assert_eq!(DnsTcpFramer::frame(&[0; 65_536]), None);
    let framed = DnsTcpFramer::frame(&[7; 65_535]).unwrap();
    assert_eq!(&framed[..2], &[0xff, 0xff]);
    assert_eq!(framed.len(), 65_537);
}

proptest! {
    #[test]
    fn messages_survive_any_chunking(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..20),
        cuts in prop::collection::vec(1_usize..300, 1..40),
    ) {
        let stream: Vec<u8> =
            messages.iter().flat_map(|message| DnsTcpFramer::frame(message).unwrap()).collect();
        let mut framer = DnsTcpFramer::new();
        let mut seen = Vec::new();
        let mut cuts = cuts.into_iter().cycle();
        let mut at = 0;
        while at < stream.len() {
            let end = stream.len().min(at + cuts.next().unwrap());
            let taken = framer.handle_bytes(&stream[at..end]);
            at += taken;
            let polled = framer.poll_message();
            prop_assert!(taken > 0 || polled.is_some());
            if let Some(message) = polled {
                seen.push(message);
                framer.handle_done();
            }
        }
        let expected: Vec<_> = messages.into_iter().filter(|message| !message.is_empty()).collect();
        prop_assert_eq!(seen, expected);
        prop_assert!(framer.is_idle());
    }
}
