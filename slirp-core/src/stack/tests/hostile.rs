//! Random sequences of a guest that knows the sequence numbers and means harm.

use super::*;
use crate::rng::Rng;
use crate::tcp::tests::packet::{FIN, PSH, RST};

const SEQUENCES: u64 = 3000;
const STEPS: u64 = 60;

/// One sequence: handshake, then segments near everything that matters, with a host that takes and
/// gives at random, naps, and time.
fn play(ladder: &mut Ladder, seed: u64, is_ipv6: bool) {
    let mut rng = Rng::new(seed);
    let mut pick = move |upto: u64| u32::try_from(rng.next_u64() % upto).unwrap();
    let mut syn = Talk::syn(is_ipv6, if pick(4) == 0 { &[] } else { LINUX_OPTIONS });
    syn.seq = pick(1 << 32);
    syn.window = [0, 1, 10, 1000, 65_535][usize::try_from(pick(5)).unwrap()];
    ladder.guest(&syn);
    let Some((flow, _)) = ladder.connects.pop() else { return };
    let heard = ladder.connected(flow, Ok(()));
    let Some(syn_ack) = heard.first().and_then(|heard| heard.tcp.clone()) else { return };
    let mut talk = Talk::answering(&syn, syn_ack, flow);
    let payload = [0x5a; 9000];
    for _ in 0..STEPS {
        let mut heard = match pick(16) {
            0 => ladder.pass(Duration::from_millis(u64::from(pick(3000)))),
            1 => {
                let room = usize::try_from(pick(100_000)).unwrap();
                let len = usize::try_from(pick(5000)).unwrap();
                if ladder.stack.flows.entry(flow).is_none() {
                    break;
                }
                ladder.host(flow, |host| {
                    host.room = room;
                    host.to_guest.extend(&payload[..len]);
                })
            }
            2 if pick(8) == 0 => ladder.host(flow, |host| {
                host.is_ended = true;
                host.is_broken = host.room % 3 == 0;
            }),
            _ => {
                let mut draft = talk.draft(ACK, &[]);
                let len = [0, 0, 1, 100, 1460, 9000][usize::try_from(pick(6)).unwrap()];
                draft.payload = payload[..len].to_vec();
                draft.seq = match pick(8) {
                    0 => draft.seq.wrapping_sub(pick(5000)),
                    1 => draft.seq.wrapping_add(pick(5000)),
                    2 => draft.seq.wrapping_add(pick(300_000)),
                    3 => draft.seq.wrapping_sub(1),
                    4 if pick(10) == 0 => pick(1 << 32),
                    _ => draft.seq,
                };
                draft.ack = match pick(8) {
                    0 => draft.ack.wrapping_sub(pick(5000)),
                    1 => draft.ack.wrapping_add(pick(5000)),
                    2 if pick(10) == 0 => pick(1 << 32),
                    _ => draft.ack,
                };
                draft.flags |= match pick(24) {
                    0 | 1 => FIN,
                    2 => PSH,
                    3 if pick(4) == 0 => RST,
                    4 if pick(4) == 0 => SYN,
                    _ => 0,
                };
                draft.window = [0, 0, 1, 100, 65_535][usize::try_from(pick(5)).unwrap()];
                if draft.seq == talk.seq && draft.flags & (RST | SYN) == 0 {
                    let len = u32::try_from(len).unwrap();
                    talk.seq = talk.seq.wrapping_add(len + u32::from(draft.flags & FIN));
                }
                ladder.guest(&draft)
            }
        };
        if pick(3) > 0 {
            talk.take(&heard);
        }
        heard.clear();
    }
    // Whoever is left goes with the next SYN on the tuple, or by a reset.
    let reset = Draft { flags: RST, ..talk.draft(ACK, &[]) };
    ladder.guest(&reset);
    ladder.hosts.clear();
}

fn play_all(is_ipv6: bool, offload: Offload) {
    let mut config = StackConfig { offload, ..config() };
    config.limits.ring_len = 128 * 1024;
    let mut ladder = Ladder::with(config);
    // The ring in the smallest segments that a guest can ask for is more; 64 a flow and turn is the
    // cap.
    ladder.most_frames = 5000;
    for seed in 1..=SEQUENCES {
        play(&mut ladder, seed, is_ipv6);
        let failed = ladder.discards(DiscardReason::TcpEngineFailed);
        assert_eq!(failed, 0, "the engine panicked in sequence {seed}");
        ladder.connects.clear();
        ladder.closes.clear();
    }
    assert!(ladder.stack.flows.len() <= 1);
    assert!(ladder.stack.stats().tcp_parked > 100, "{:?}", ladder.stack.stats());
}

#[test]
fn no_ipv4_guest_breaks_the_engine() {
    play_all(false, Offload::FULL);
}

#[test]
fn no_ipv6_guest_breaks_the_engine() {
    play_all(true, Offload::default());
}
