//! Segments do not matter: a stream cut at any places comes to the same end.

use proptest::prelude::*;

use super::hellos::{EARLY_DATA, Hello, record};
use super::*;

fn streams() -> Vec<Vec<u8>> {
    let good = Hello::to("good.example");
    let second = Hello::to("evil.example").in_fragments_of(7).bytes();
    let early = good.clone().with(EARLY_DATA, vec![]).bytes();
    let ccs = [20, 3, 3, 0, 1, 1];
    let chunked = "POST / HTTP/1.1\r\nHost: good.example\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\nX: y\r\n\r\n";
    let sized = "POST / HTTP/1.1\r\nHost: good.example\r\nContent-Length: 3\r\n\r\nabc";
    let evil = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    vec![
        good.bytes(),
        good.clone().in_fragments_of(3).bytes(),
        [&good.bytes()[..], &ccs, &second].concat(),
        [&early[..], &ccs, &record(23, &[1; 99]), &second].concat(),
        [&good.bytes()[..], &ccs, &record(23, &[1; 9]), &second].concat(),
        Hello::to("a\0b").bytes(),
        format!("{chunked}{sized}{evil}").into_bytes(),
        format!("{sized}{chunked}\nx").into_bytes(),
        format!("\r\n{evil}").into_bytes(),
        b"EHLO client\r\nGET / HTTP/1.1\r\n".to_vec(),
        [b'x'; 40_000].to_vec(),
    ]
}

fn guests() -> impl Iterator<Item = Guest> {
    use Verification::{Http, Sniff, SniffDenied, Tls};
    [(Tls, 443), (Http, 80), (Sniff, 80), (SniffDenied, 80)]
        .into_iter()
        .flat_map(|(kind, port)| [false, true].map(|ends| Guest { ends, ..Guest::new(kind, port) }))
}

/// Everything must be equal, but that a program that speaks no TLS is told so in its protocol only
/// if that shows in its first segment.
fn assert_equal(guest: &Guest, stream: &[u8], cuts: &[usize]) {
    let [whole, cut] = [&[], cuts].map(|cuts| {
        let mut outcome = guest.sends_in(stream, cuts);
        if let End::Refused(Cause::NoTls, reply) = &mut outcome.end {
            reply.clear();
        }
        outcome
    });
    assert_eq!(whole, cut, "{:?} {cuts:?}", guest.verification);
}

#[test]
fn single_bytes_come_to_the_same_end() {
    for stream in streams().iter().filter(|stream| stream.len() < 2000) {
        let cuts: Vec<usize> = (1..stream.len()).collect();
        guests().for_each(|guest| assert_equal(&guest, stream, &cuts));
    }
}

#[test]
fn two_pieces_come_to_the_same_end() {
    for stream in streams().iter().filter(|stream| stream.len() < 2000) {
        for cut in 1..stream.len() {
            guests().for_each(|guest| assert_equal(&guest, stream, &[cut]));
        }
    }
}

proptest! {
    #[test]
    fn any_pieces_come_to_the_same_end(
        nth in 0..streams().len(),
        change in any::<Option<(prop::sample::Index, u8)>>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut stream = streams().swap_remove(nth);
        if let Some((at, byte)) = change {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts.retain(|&cut| cut > 0);
        guests().for_each(|guest| assert_equal(&guest, &stream, &cuts));
    }

    #[test]
    fn noise_does_no_harm(
        stream in prop::collection::vec(any::<u8>(), 1..300),
        cut in any::<prop::sample::Index>(),
    ) {
        guests().for_each(|guest| assert_equal(&guest, &stream, &[cut.index(stream.len())]));
    }
}
