//! The name in the first bytes of a TCP flow, before any of them leaves.
//!
//! Owns which parser reads them, how long it may take, and what comes of its findings. Bytes are
//! lent: they stay in the flow's receive ring, and a [`Verifier`] remembers how far it has read.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `sniff` | whether first bytes are TLS or HTTP/1 at all |
//! | `tls` | records up to the first encrypted one, and the ClientHello in them |
//! | `http` | heads and bodies of HTTP/1 requests |
//! | `reply` | what a refused guest is told |
//!
//! # Theory of operation
//!
//! *Reading.* The stack shows all bytes that have not left, as one slice, whenever there are more
//! of them than before, and again at [`Verifier::deadline`]. A parser looks at each byte once: a
//! request that comes in segments of one byte costs as much as in one piece. Where the ring wraps
//! around, the stack shows a copy, which is as long as an unverified unit at most: 32 KiB.
//!
//! *Passing.* [`Peek::Pass`] covers whole units: a ClientHello, a request's head with its body. The
//! rest of a body needs no look, and the verifier is asked again behind it.
//!
//! *Strictness.* Where bytes must be checked ([`Verification::Tls`], [`Verification::Http`],
//! [`Verification::Sniff`]), what cannot be read is refused: a remote might read a name there that
//! we do not see. For [`Verification::SniffDenied`] the same bytes pass, since a list of denied
//! names is no boundary, and a denied name is the only reason to refuse.
//!
//! *Time.* A ClientHello, and first bytes that may still become one, have [`HELLO_TIMEOUT`] from
//! their first byte. In audit mode nothing may be delayed: bytes that are neither TLS nor HTTP yet
//! are given up at once, others after a second. A silent connection may stay silent. A head of HTTP
//! may be typed by a person. It never leaves unfinished, so it has no deadline.

mod http;
mod reply;
mod sniff;
mod tls;

#[cfg(test)]
mod tests;

use core::time::Duration;
use std::sync::Arc;

use self::http::{HttpFlaw, HttpReader};
use self::sniff::{Kind, Sniffer};
use self::tls::{HelloFlaw, HelloReader};
use super::name::Name;
use super::verdict::{Cause, Shown, Verification};
use crate::time::Instant;

/// Time from the first byte of a ClientHello to its last.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a [hasty](Verifier::be_hasty) verifier holds bytes at most (arbitrary: programs send a
/// hello or a head at once).
const HASTE: Duration = Duration::from_secs(1);

/// What becomes of the bytes that the guest has sent so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peek {
    /// None may leave before more have come, or the deadline has passed.
    More,
    /// This many may leave, some of which may not have come yet. The verifier is asked again once
    /// all of them have left.
    Pass(u64),
    /// All may leave, now and later: the verifier is done.
    Done,
    /// None may leave. The guest gets `reply` and the end of the connection.
    Refuse {
        /// Why.
        cause: Cause,
        /// Bytes for the guest in the protocol that it speaks; empty where that is unknown.
        reply: Vec<u8>,
    },
}

/// Why a name may not be talked to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// The cause.
    pub cause: Cause,
    /// What the operator wants the guest to read.
    pub note: Option<Arc<str>>,
    /// The number of the rule that says so, if one does.
    pub rule: Option<u32>,
}

impl From<Cause> for Denial {
    fn from(cause: Cause) -> Self {
        Self { cause, note: None, rule: None }
    }
}

/// Says whether a name may be talked to in this flow; `None` where the guest has named no host, or
/// an address.
pub type Ask<'a> = dyn FnMut(Option<&Name>) -> Result<(), Denial> + 'a;

/// What a parser has found in bytes that are in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The unit at the front is incomplete.
    More,
    /// This many bytes may leave.
    Pass(u64),
    /// Nothing that follows needs a look.
    Done,
}

/// Why bytes may not leave.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Flaw {
    /// Another host is named than is allowed; its text, if there is one.
    Denied { host: Option<Box<str>>, denial: Denial },
    /// They are no TLS.
    NoTls,
    /// The ClientHello is none that could be checked.
    Hello(HelloFlaw),
    /// The ClientHello hides its name.
    Ech,
    /// The request is none that could be checked.
    Http(HttpFlaw),
}

impl Flaw {
    const fn cause(&self) -> Cause {
        match self {
            Self::Denied { denial, .. } => denial.cause,
            Self::NoTls => Cause::NoTls,
            Self::Hello(_) => Cause::Hello,
            Self::Ech => Cause::Ech,
            Self::Http(_) => Cause::Http,
        }
    }

    /// Whether it tells of a name that is not to be talked to, rather than of bytes that cannot be
    /// read.
    const fn is_of_name(&self) -> bool {
        match self {
            Self::Denied { .. } | Self::Ech => true,
            Self::NoTls | Self::Hello(_) | Self::Http(_) => false,
        }
    }
}

/// Who reads the bytes.
#[derive(Debug)]
enum Reading {
    Sniff(Sniffer),
    Tls(HelloReader),
    Http(HttpReader),
}

/// What looks at the first bytes of one connection.
#[derive(Debug)]
pub struct Verifier {
    reading: Reading,
    /// Whether only a denied name is a reason to refuse.
    is_lenient: bool,
    port: u16,
    may_hide_name: bool,
    is_hasty: bool,
    /// When the first of the bytes came that are undecided and have a deadline.
    undecided_since: Option<Instant>,
}

impl Verifier {
    /// A verifier of a flow to `port`; `None` if there is nothing to verify. `may_hide_name` says
    /// whether a ClientHello may carry `encrypted_client_hello`.
    pub fn new(verification: Verification, port: u16, may_hide_name: bool) -> Option<Self> {
        let reading = match verification {
            Verification::None => return None,
            Verification::Tls => Reading::Tls(HelloReader::new(may_hide_name)),
            Verification::Http => Reading::Http(HttpReader::new(port)),
            Verification::Sniff | Verification::SniffDenied => Reading::Sniff(Sniffer::default()),
        };
        let is_lenient = verification == Verification::SniffDenied;
        let (is_hasty, undecided_since) = (false, None);
        Some(Self { reading, is_lenient, port, may_hide_name, is_hasty, undecided_since })
    }

    /// Looks at `unread`, the bytes from the first that has not left yet. `is_ended` says that no
    /// more can come: the guest has ended its direction, or the ring is full. `ask` is asked about
    /// each name that the bytes contain, in their order.
    ///
    /// After [`Peek::More`], `unread` begins with the same bytes in the next call. After
    /// [`Peek::Pass`], it begins behind those that were passed. After the others there is none.
    pub fn on_bytes(
        &mut self,
        unread: &[u8],
        is_ended: bool,
        now: Instant,
        ask: &mut Ask<'_>,
    ) -> Peek {
        if unread.is_empty() {
            return if is_ended { Peek::Done } else { Peek::More };
        }
        let step = match self.read(unread, is_ended, ask) {
            Ok(Step::More) if is_ended => Err(self.incomplete()),
            Ok(Step::More) => self.wait(now),
            known => known,
        };
        if step != Ok(Step::More) {
            self.undecided_since = None;
        }
        match step {
            Ok(Step::More) => Peek::More,
            Ok(Step::Pass(bytes)) => Peek::Pass(bytes),
            Ok(Step::Done) => Peek::Done,
            Err(flaw) if self.is_lenient && !flaw.is_of_name() => Peek::Done,
            Err(flaw) => Peek::Refuse { cause: flaw.cause(), reply: reply::to(&flaw, unread) },
        }
    }

    /// From now on bytes that cannot be read are a reason to refuse.
    pub const fn be_strict(&mut self) {
        self.is_lenient = false;
    }

    /// What the bytes are, as far as is known.
    pub const fn shown(&self) -> Shown {
        match &self.reading {
            Reading::Sniff(_) => Shown::Other,
            Reading::Tls(_) => Shown::Tls,
            Reading::Http(_) => Shown::Http,
        }
    }

    /// From now on bytes are refused rather than held for long: for a caller that lets them go
    /// then.
    pub const fn be_hasty(&mut self) {
        self.is_hasty = true;
    }

    /// When [`on_bytes`](Self::on_bytes) is due again even if no byte comes.
    pub fn deadline(&self) -> Option<Instant> {
        let timeout = if self.is_hasty { HASTE } else { HELLO_TIMEOUT };
        self.undecided_since.map(|since| since + timeout)
    }

    fn read(&mut self, unread: &[u8], is_ended: bool, ask: &mut Ask<'_>) -> Result<Step, Flaw> {
        if let Reading::Sniff(sniffer) = &mut self.reading {
            match sniffer.read(unread, is_ended) {
                None => return Ok(Step::More),
                Some(Kind::Other) => return Ok(Step::Done),
                Some(Kind::Tls) => {
                    self.reading = Reading::Tls(HelloReader::new(self.may_hide_name));
                }
                Some(Kind::Http) => {
                    self.reading = Reading::Http(HttpReader::new(self.port));
                    self.undecided_since = None;
                }
            }
        }
        match &mut self.reading {
            Reading::Sniff(_) => Ok(Step::More),
            Reading::Tls(reader) => reader.read(unread, ask),
            Reading::Http(reader) => reader.read(unread, ask),
        }
    }

    /// The bytes are undecided: what their deadline makes of that.
    fn wait(&mut self, now: Instant) -> Result<Step, Flaw> {
        let timeout = match (&self.reading, self.is_hasty) {
            (Reading::Http(_), false) => return Ok(Step::More),
            (Reading::Sniff(_) | Reading::Tls(_), false) => HELLO_TIMEOUT,
            (Reading::Sniff(_), true) => Duration::ZERO,
            (Reading::Tls(_) | Reading::Http(_), true) => HASTE,
        };
        let since = *self.undecided_since.get_or_insert(now);
        if now < since + timeout { Ok(Step::More) } else { Err(self.slow()) }
    }

    const fn slow(&self) -> Flaw {
        match &self.reading {
            Reading::Tls(_) => Flaw::Hello(HelloFlaw::Slow),
            Reading::Sniff(_) | Reading::Http(_) => Flaw::Http(HttpFlaw::Slow),
        }
    }

    const fn incomplete(&self) -> Flaw {
        match &self.reading {
            Reading::Tls(_) => Flaw::Hello(HelloFlaw::Incomplete),
            Reading::Sniff(_) | Reading::Http(_) => Flaw::Http(HttpFlaw::Incomplete),
        }
    }
}
