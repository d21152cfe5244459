//! A verifier beside a ring of its own: what leaves, and what is asked and told.

mod cuts;
mod hellos;
mod http;
mod programs;
mod sniff;
mod tls;

use super::{Denial, HELLO_TIMEOUT, Peek, Verifier};
use crate::egress::Name;
use crate::egress::verdict::{Cause, Verification};
use crate::time::Instant;

/// What came of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Outcome {
    /// How many bytes have left.
    left: usize,
    end: End,
    /// The names that were asked about; `-` for none.
    asked: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum End {
    /// More bytes are wanted, or none is held.
    Open,
    Done,
    Refused(Cause, Vec<u8>),
}

impl Outcome {
    fn cause(&self) -> Option<Cause> {
        match &self.end {
            End::Open | End::Done => None,
            End::Refused(cause, _) => Some(*cause),
        }
    }

    fn reply(&self) -> String {
        match &self.end {
            End::Open | End::Done => String::new(),
            End::Refused(_, reply) => String::from_utf8_lossy(reply).into_owned(),
        }
    }
}

/// A guest whose policy allows `good.example` and those below, and denies or does not know others.
struct Guest {
    verification: Verification,
    port: u16,
    may_hide_name: bool,
    /// What is said of no name, or an address.
    no_name: Result<(), Cause>,
    /// Whether it ends its direction behind the stream.
    ends: bool,
}

impl Guest {
    fn new(verification: Verification, port: u16) -> Self {
        let (may_hide_name, no_name, ends) = (true, Err(Cause::NoName), false);
        Self { verification, port, may_hide_name, no_name, ends }
    }

    fn tls() -> Self {
        Self::new(Verification::Tls, 443)
    }

    fn http() -> Self {
        Self::new(Verification::Http, 80)
    }

    fn judge(&self, name: Option<&Name>) -> Result<(), Denial> {
        let Some(name) = name else {
            return self.no_name.map_err(Denial::from);
        };
        if name.as_str() == "good.example" || name.as_str().ends_with(".good.example") {
            return Ok(());
        }
        Err(Denial { cause: Cause::Name, note: Some("Ask Ann.".into()), rule: None })
    }

    /// Sends `stream` in pieces that end at `cuts` and at its end.
    fn sends_in(&self, stream: &[u8], cuts: &[usize]) -> Outcome {
        let mut outcome = Outcome { left: 0, end: End::Open, asked: Vec::new() };
        let verifier = Verifier::new(self.verification, self.port, self.may_hide_name);
        let mut verifier = verifier.expect("something is verified");
        let mut may_leave = 0;
        let ends = cuts.iter().copied().chain([stream.len()]);
        for (is_last, end) in ends.enumerate().map(|(nth, end)| (nth == cuts.len(), end)) {
            loop {
                let leaves = usize::try_from(may_leave).unwrap_or(usize::MAX);
                let leaves = leaves.min(end - outcome.left);
                outcome.left += leaves;
                may_leave -= leaves as u64;
                let unread = &stream[outcome.left..end];
                if may_leave > 0 || unread.is_empty() {
                    break;
                }
                let mut ask = |name: Option<&Name>| {
                    outcome.asked.push(name.map_or("-", Name::as_str).to_owned());
                    self.judge(name)
                };
                let is_ended = self.ends && is_last;
                match verifier.on_bytes(unread, is_ended, Instant::ZERO, &mut ask) {
                    Peek::More => break,
                    Peek::Pass(bytes) => {
                        assert_ne!(bytes, 0, "a pass moves on");
                        may_leave = bytes;
                    }
                    Peek::Done => {
                        outcome.left = stream.len();
                        return Outcome { end: End::Done, ..outcome };
                    }
                    Peek::Refuse { cause, reply } => {
                        return Outcome { end: End::Refused(cause, reply), ..outcome };
                    }
                }
            }
        }
        outcome
    }

    fn sends(&self, stream: &[u8]) -> Outcome {
        self.sends_in(stream, &[])
    }
}
