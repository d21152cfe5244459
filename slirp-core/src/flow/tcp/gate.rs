//! What stands between the guest's bytes and the host where an egress policy wants to see them.
//!
//! Owns how much may leave, when the [`Verifier`] is asked, and what the guest hears when it
//! refuses. Whether a name may be talked to is for the caller to say. The bytes stay in the ring
//! that they arrived in until they may leave, so the window bounds how many wait. Bytes towards the
//! guest are never held.
//!
//! | gate | what leaves | left by |
//! | --- | --- | --- |
//! | none | everything | |
//! | watched | what the verifier has let pass | the verifier's verdict |
//! | refused | nothing: the guest gets a reply and the end, its bytes are thrown away | time |
//! | shut | nothing | the reset that is under way |

use core::time::Duration;

use super::deadlines::ENGINE_PAUSE;
use super::{State, TcpFlow};
use crate::discard::DiscardReason;
use crate::egress::{Ask, Cause, Name, Peek, Shown, Verifier};
use crate::flow::transfer::{Allowance, HostStream, Transfer};
use crate::journal::Ending;
use crate::tcp::{Connection, Engine};
use crate::time::Instant;
use crate::traffic::Traffic;

/// Bytes that a verifier is shown at a time: more than the longest ClientHello or HTTP head that it
/// takes.
const SHOWN_CAP: usize = 64 * 1024;
/// How long a refused guest may take to end its direction (arbitrary). Then it is reset.
const FAREWELL: Duration = Duration::from_secs(10);

/// See the [module](self).
pub(super) enum Gate {
    Watched {
        verifier: Verifier,
        /// Bytes that may leave and have not left yet.
        limit: u64,
        /// How many bytes waited, and whether more could come, when the verifier wanted more.
        seen: Option<(usize, bool)>,
    },
    Refused(Farewell),
    Shut,
}

/// Whether a flow may be pumped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Passage {
    /// It may: what may not leave stays where it is.
    Open,
    /// The guest's bytes were refused just now. The host's socket is to be closed.
    Refused(Cause),
    /// It may, although the guest's bytes would be refused if the policy were obeyed. Nothing is
    /// looked at any more.
    Excused(Cause),
    /// There is no host any more.
    Shut,
}

impl Gate {
    /// How many bytes of the guest may leave.
    pub(super) fn limit(&self) -> usize {
        match self {
            Self::Watched { limit, .. } => usize::try_from(*limit).unwrap_or(usize::MAX),
            Self::Refused(_) | Self::Shut => 0,
        }
    }

    /// So many bytes of the guest have left.
    pub(super) const fn note_left(&mut self, bytes: u64) {
        match self {
            Self::Watched { limit, .. } => *limit = limit.saturating_sub(bytes),
            Self::Refused(_) | Self::Shut => {}
        }
    }

    /// When the flow is to be pumped in any case.
    pub(super) fn due_at(&self, connection: &Connection, now: Instant) -> Option<Instant> {
        let at = match self {
            // The time for a verdict counts while bytes wait for it.
            Self::Watched { verifier, limit: 0, .. } if connection.queued_to_host() > 0 => {
                verifier.deadline()
            }
            Self::Watched { .. } | Self::Shut => None,
            Self::Refused(farewell) => Some(farewell.until),
        };
        at.map(|at| if at <= now { now + ENGINE_PAUSE } else { at })
    }
}

impl TcpFlow {
    /// What the guest sends from now on waits for `verifier`, or for nothing.
    pub(crate) fn watch(&mut self, verifier: Option<Verifier>) {
        let watched = |verifier| Gate::Watched { verifier, limit: 0, seen: None };
        self.gate = verifier.map(|verifier| Box::new(watched(verifier)));
    }

    /// Whether anything stands between the guest's bytes and the host.
    pub(crate) const fn is_gated(&self) -> bool {
        self.gate.is_some()
    }

    /// Has the verifier that looks at what the guest sends, if there is one, refuse what it cannot
    /// read. Returns whether there is one.
    pub(crate) fn watch_strictly(&mut self) -> bool {
        let Some(Gate::Watched { verifier, .. }) = self.gate.as_deref_mut() else { return false };
        verifier.be_strict();
        true
    }

    /// Whether the guest's bytes were refused, or the flow is about to be reset by policy.
    pub(crate) fn is_shut(&self) -> bool {
        matches!(self.gate.as_deref(), Some(Gate::Refused(_) | Gate::Shut))
    }

    /// Whether the guest's bytes were refused: that was the last that a listener hears of it.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.gate.as_deref(), Some(Gate::Refused(_)))
    }

    /// The name that the guest's first bytes had, where a policy has looked at them.
    pub(crate) const fn claim(&self) -> Option<&Name> {
        self.claim.as_ref()
    }

    /// Whether the verifier has bytes to look at that it has not seen.
    pub(crate) fn has_unseen(&self) -> bool {
        let is_ready =
            matches!(self.gate.as_deref(), Some(Gate::Watched { limit: 0, seen: None, .. }));
        let queued = match &self.state {
            State::Awake(awake) => awake.connection.queued_to_host(),
            State::Asking(_)
            | State::Connecting(_)
            | State::Locating { .. }
            | State::Parked(_)
            | State::Broken(_) => 0,
        };
        is_ready && queued > 0
    }

    /// Has the verifier, if there is one, look at what waits. `judge` says whether a name may be
    /// talked to, and `is_enforced` whether a refusal is obeyed. Also returns what the bytes
    /// are.
    pub(crate) fn verify(
        &mut self,
        judge: &mut Ask<'_>,
        is_enforced: bool,
        now: Instant,
    ) -> (Passage, Shown) {
        let open = (Passage::Open, Shown::Other);
        let Some(gate) = self.gate.as_deref_mut() else { return open };
        let Gate::Watched { verifier, limit, seen } = gate else {
            return (Passage::Shut, Shown::Other);
        };
        let State::Awake(awake) = &mut self.state else { return open };
        let queued = awake.connection.queued_to_host();
        if queued == 0 || *limit > 0 || !awake.ends.is_host_taking() {
            return open;
        }
        let is_finished = awake.connection.is_guest_finished() && queued <= SHOWN_CAP;
        let is_ended = is_finished || awake.connection.is_full();
        let is_late = verifier.deadline().is_some_and(|at| at <= now);
        if *seen == Some((queued, is_ended)) && !is_late {
            return open;
        }
        let claim = &mut self.claim;
        let mut judge = |name: Option<&Name>| {
            judge(name)?;
            if claim.as_ref() != name {
                *claim = name.cloned();
            }
            Ok(())
        };
        let peek = awake
            .connection
            .peek(SHOWN_CAP, |unread| verifier.on_bytes(unread, is_ended, now, &mut judge));
        let shown = verifier.shown();
        match peek {
            Peek::More | Peek::Pass(0) => *seen = Some((queued, is_ended)),
            Peek::Pass(bytes) => (*limit, *seen) = (bytes, None),
            Peek::Done => self.gate = None,
            Peek::Refuse { cause, .. } if !is_enforced => {
                self.gate = None;
                return (Passage::Excused(cause), shown);
            }
            Peek::Refuse { cause, reply } => {
                *gate = Gate::Refused(Farewell { reply, said: 0, until: now + FAREWELL });
                return (Passage::Refused(cause), shown);
            }
        }
        (Passage::Open, shown)
    }

    /// Gives a refused guest its reply and the end, and throws away what it sends; nothing for
    /// other flows.
    ///
    /// # Errors
    /// Why the connection is dead now.
    pub(crate) fn pump_refused(
        &mut self,
        engine: &mut Engine,
        now: Instant,
    ) -> Result<(), DiscardReason> {
        if !self.is_refused() {
            return Ok(());
        }
        let mut gate = self.gate.take();
        let mut outcome = Ok(());
        if let Some(Gate::Refused(farewell)) = gate.as_deref_mut() {
            let (traffic, all) = (&mut Traffic::default(), Allowance::UNLIMITED);
            outcome = self.pump(farewell, engine, traffic, all, now).map(|_| ());
            if farewell.until <= now {
                self.abort(Ending::TimedOut);
            }
        }
        self.gate = gate;
        outcome
    }

    /// Resets the connection, parked or not; nothing of the guest leaves any more.
    pub(crate) fn revoke(&mut self, engine: &mut Engine, now: Instant) {
        self.wake(engine, now);
        self.abort(Ending::Revoked);
        self.gate = Some(Box::new(Gate::Shut));
    }
}

/// The host's end of a refused connection: says its piece and listens to nothing.
#[derive(Debug)]
pub(super) struct Farewell {
    reply: Vec<u8>,
    /// How much of it is said.
    said: usize,
    until: Instant,
}

impl HostStream for Farewell {
    fn send(&mut self, data: &[u8]) -> Transfer {
        Transfer::Moved(data.len())
    }

    fn recv(&mut self, room: &mut [u8]) -> Transfer {
        let rest = &self.reply[self.said..];
        if rest.is_empty() {
            return Transfer::Ended;
        }
        let len = room.len().min(rest.len());
        room[..len].copy_from_slice(&rest[..len]);
        self.said += len;
        Transfer::Moved(len)
    }

    fn shutdown_write(&mut self) {}
}
