//! Back-pressure: windows that close, reopen and are probed, in both directions.

use super::*;
use crate::tcp::tests::packet::FIN;

fn edge(talk: &Talk, seen: &Seen) -> u32 {
    let shift = talk.syn_ack.window_scale.unwrap_or(0);
    seen.ack.wrapping_add(u32::from(seen.window) << shift)
}

/// Sends until the window is shut; returns how much that was.
fn fill(ladder: &mut Ladder, talk: &mut Talk, data: &[u8]) -> usize {
    let mut limit = talk.seq.wrapping_add(u32::from(talk.syn_ack.window));
    let mut sent = 0;
    for _ in 0..1000 {
        let room = usize::try_from(limit.wrapping_sub(talk.seq)).unwrap().min(1460);
        let chunk = &data[sent..(sent + room).min(data.len())];
        if chunk.is_empty() {
            break;
        }
        sent += chunk.len();
        let mut heard = talk.say(ladder, ACK, chunk);
        if sent % 14_600 == 0 || chunk.len() < 1460 {
            heard.append(&mut ladder.pass(Duration::from_millis(10)));
        }
        for seen in heard.iter().filter_map(|heard| heard.tcp.as_ref()) {
            limit = edge(talk, seen);
        }
    }
    sent
}

#[test]
fn window_closes_with_the_host_and_reopens_with_it() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    ladder.host(talk.flow, |host| host.room = 0);
    let data = stream(400_000);
    let sent = fill(&mut ladder, &mut talk, &data);
    assert!((250_000..=256 * 1024).contains(&sent), "{sent} bytes fill the ring");

    // A probe of one byte is answered and not taken.
    let heard = ladder.guest(&talk.draft(ACK, &data[sent..=sent]));
    assert_eq!(edge(&talk, only(&heard)), talk.seq);
    assert_eq!(only(&heard).ack, talk.seq);
    // And so is one of the kind that Linux sends: an old byte.
    let old = Draft { seq: talk.seq.wrapping_sub(1), ..talk.draft(ACK, &[]) };
    ladder.pass(Duration::from_secs(1));
    assert_eq!(only(&ladder.guest(&old)).ack, talk.seq);

    let heard = ladder.host(talk.flow, |host| host.room = usize::MAX);
    assert!(edge(&talk, only(&heard)).wrapping_sub(talk.seq) > 200_000, "it opens at once");
    assert_eq!(ladder.taken(talk.flow), &data[..sent]);
    let rest = &data[sent..];
    for chunk in rest.chunks(1460) {
        talk.say(&mut ladder, ACK, chunk);
    }
    assert!(ladder.taken(talk.flow) == data, "{} bytes", ladder.taken(talk.flow).len());
}

#[test]
fn shut_window_of_the_guest_is_probed_until_it_opens() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    talk.window = 0;
    talk.acknowledge(&mut ladder);
    let data = stream(5000);
    let heard = ladder.host(talk.flow, |host| host.to_guest.extend(&data));
    assert!(heard.iter().all(|heard| heard.tcp.as_ref().unwrap().payload.len() == 1));
    let mut probes = 0;
    for _ in 0..20 {
        let heard = ladder.pass(Duration::from_secs(1));
        for seen in heard.iter().filter_map(|heard| heard.tcp.as_ref()) {
            assert_eq!((seen.seq, &seen.payload[..]), (talk.ack, &data[..1]));
            probes += 1;
            talk.acknowledge(&mut ladder);
        }
    }
    assert!((3..=40).contains(&probes), "{probes} probes in 20 seconds");
    talk.window = 1000;
    let mut heard = talk.acknowledge(&mut ladder);
    heard.append(&mut ladder.host(talk.flow, |host| host.is_ended = true));
    assert_eq!(talk.take(&heard), data);
    assert!(heard.last().unwrap().tcp.as_ref().unwrap().has(FIN));
}

#[test]
fn host_is_not_read_beyond_the_ring_of_a_guest_that_does_not_listen() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    let data = stream(1_000_000);
    let mut heard = ladder.host(talk.flow, |host| host.to_guest.extend(&data));
    let left = ladder.hosts[&talk.flow].to_guest.len();
    // As many whole segments as the ring holds.
    assert_eq!(data.len() - left, 256 * 1024 / 1460 * 1460);
    let mut arrived = Vec::new();
    for _ in 0..2000 {
        arrived.extend(talk.take(&heard));
        if arrived.len() == data.len() {
            break;
        }
        heard = talk.acknowledge(&mut ladder);
    }
    assert!(arrived == data, "{} bytes", arrived.len());
}

#[test]
fn data_beyond_the_advertised_edge_is_not_taken() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    ladder.host(talk.flow, |host| host.room = 0);
    let data = stream(400_000);
    let sent = fill(&mut ladder, &mut talk, &data);
    for chunk in data[sent..].chunks(1460) {
        talk.say(&mut ladder, ACK, chunk);
    }
    ladder.host(talk.flow, |host| host.room = usize::MAX);
    assert_eq!(ladder.taken(talk.flow), &data[..sent]);
    assert_eq!(ladder.discards(DiscardReason::TcpEngineFailed), 0);
}

#[test]
fn nothing_is_sent_beyond_a_window_that_is_smaller_than_a_segment_and_repeats_back_off() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open_with(&mut ladder, &Talk::syn(false, &[2, 4, 0x05, 0xb4]));
    talk.window = 100;
    talk.acknowledge(&mut ladder);
    let data = stream(30_000);
    let heard = ladder.host(talk.flow, |host| host.to_guest.extend(&data));
    assert_eq!(only(&heard).payload, &data[..100]);
    // The guest shuts its window and opens it by one byte, and acknowledges nothing: twice three
    // times, as one does that misses a segment.
    for window in [0, 1] {
        talk.window = window;
        for _ in 0..4 {
            talk.acknowledge(&mut ladder);
        }
    }
    let mut repeated_at = Vec::new();
    for second in 0..60 {
        let heard = ladder.pass(Duration::from_secs(1));
        let segments = heard.iter().filter_map(|heard| heard.tcp.as_ref());
        for seen in segments.filter(|seen| !seen.payload.is_empty()) {
            assert_eq!((seen.seq, &seen.payload[..]), (talk.ack, &data[..1]));
            repeated_at.push(second);
        }
    }
    assert!((3..=20).contains(&repeated_at.len()), "{repeated_at:?}");
    let gaps: Vec<u32> = repeated_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.last() > gaps.first(), "{repeated_at:?}");
    // All of it arrives once the guest takes it.
    talk.window = 60_000;
    let mut got = Vec::new();
    for _ in 0..200 {
        let mut heard = talk.acknowledge(&mut ladder);
        heard.append(&mut ladder.pass(Duration::from_secs(1)));
        got.extend_from_slice(&talk.take(&heard));
    }
    assert!(got == data, "{} bytes", got.len());
}
