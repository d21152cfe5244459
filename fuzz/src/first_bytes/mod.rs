//! The targets `client_hello` and `http_head`: what a hostile guest says first.
//!
//! Owns the ring beside a verifier. Both targets take the bytes of the guest as they are. The
//! promises:
//!
//! * no input makes a verifier panic, and each [`Peek::Pass`] moves on;
//! * a stream that is cut into segments anywhere comes to the same end as a whole one;
//! * what leaves, which names are asked about and why the rest is refused is what a second parser
//!   says, which is slow, simple and reads whole streams;
//! * where first bytes are only guessed to be TLS or HTTP, those that are in order have the same
//!   verdict as where they must be.

mod client_hello;
mod http_head;
mod reference_http;
mod reference_tls;

pub use client_hello::client_hello;
pub use http_head::http_head;

use slirp_core::egress::Cause;
use slirp_core::internals::Rng;
use slirp_core::internals::egress::{Denial, Peek, Verification, Verifier};
use slirp_core::time::Instant;

/// What came of a stream whose guest ends its direction behind it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Outcome {
    /// How many bytes have left.
    left: usize,
    /// Why the others may not.
    refused: Option<Cause>,
    /// The names that were asked about; `-` for none.
    asked: Vec<String>,
}

/// Whether the policy of the targets allows a name: half of them.
fn is_allowed(name: &str) -> bool {
    name.bytes().map(u64::from).sum::<u64>() % 2 == 1
}

/// One way to verify.
#[derive(Clone, Copy, Debug)]
struct Way {
    verification: Verification,
    port: u16,
    may_hide_name: bool,
}

impl Way {
    /// Sends `stream` in segments that end at `cuts` and at its end.
    fn verify(self, stream: &[u8], cuts: &[usize]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut verifier = Verifier::new(self.verification, self.port, self.may_hide_name)
            .expect("something is verified");
        let mut may_leave = 0_u64;
        for end in cuts.iter().copied().chain([stream.len()]) {
            let is_ended = end == stream.len();
            loop {
                let here = end - outcome.left;
                let leaves = usize::try_from(may_leave).map_or(here, |leaves| leaves.min(here));
                outcome.left += leaves;
                may_leave -= leaves as u64;
                let unread = &stream[outcome.left..end];
                if may_leave > 0 || unread.is_empty() {
                    break;
                }
                let asked = &mut outcome.asked;
                let peek = verifier.on_bytes(unread, is_ended, Instant::ZERO, &mut |name| {
                    let name = name.map_or("-", |name| name.as_str());
                    asked.push(name.to_owned());
                    is_allowed(name).then_some(()).ok_or(Denial::from(Cause::Name))
                });
                match peek {
                    Peek::More => break,
                    Peek::Pass(bytes) => {
                        assert_ne!(bytes, 0, "a pass moves on");
                        may_leave = bytes;
                    }
                    Peek::Done => {
                        outcome.left = stream.len();
                        return outcome;
                    }
                    Peek::Refuse { cause, .. } => {
                        outcome.refused = Some(cause);
                        return outcome;
                    }
                }
            }
        }
        assert_eq!(outcome.left, stream.len(), "undecided bytes are refused at the end");
        outcome
    }

    /// Sends `stream` as a whole and in segments; they must come to the same end.
    fn verify_cut(self, stream: &[u8]) -> Outcome {
        let whole = self.verify(stream, &[]);
        let seed = stream
            .iter()
            .fold(7_u64, |seed, &byte| seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
        let mut rng = Rng::new(seed);
        for most in [1, 4, 16] {
            let at = |rng: &mut Rng| usize::from(rng.next_u16()) % stream.len().max(1);
            let mut cuts: Vec<usize> = (0..most).map(|_| at(&mut rng)).collect();
            cuts.sort_unstable();
            assert_eq!(whole, self.verify(stream, &cuts), "{self:?} cut at {cuts:?}");
        }
        if stream.len() <= 1024 {
            let cuts: Vec<usize> = (1..stream.len()).collect();
            assert_eq!(whole, self.verify(stream, &cuts), "{self:?} in single bytes");
        }
        whole
    }
}
