//! Remotes to which the guest speaks first.
//!
//! # Theory of operation
//!
//! *Goals.* Where the client speaks first, as in HTTP and TLS, the host's kernel need not say by
//! itself that the remote's SYN has arrived: the guest's request follows at once and carries the
//! acknowledgement (RFC 9293 section 3.5). That saves a packet, and a server on the host is woken
//! once, for a connection and its request, instead of twice. Where the server speaks first, as in
//! SSH and SMTP, it must hear at once, since before that it knows of no connection. Nothing in a
//! SYN tells which it is; what the guest did last time does.
//!
//! *Life cycle.* A guest whose first bytes follow within [`ACK_HOLD`] of the host's connect has the
//! remote marked, and the acknowledgement is held on the next connection to it. When nothing
//! follows then, it is sent after [`ACK_HOLD`] and the mark is taken away; the kernel would send it
//! by itself in a fifth of a second (RFC 1122 section 4.2.3.2 allows half of one).
//!
//! *Limits.* [`MARKS`] marks of 16 bits, found by a seeded hash. Remotes push each other out, and
//! one in 65,536 is taken for another's: what that costs is `ACK_HOLD`, once. On a shared network
//! all members use the same marks.
//!
//! *Deliberate omissions.* Connections that a remote opens: their handshake is with the guest.
//!
//! [`ACK_HOLD`]: super::tcp::ACK_HOLD

use core::hash::BuildHasher as _;
use core::net::SocketAddr;

use foldhash::quality::FixedState;

/// Remotes that are remembered (arbitrary; 2 KiB).
const MARKS: usize = 1024;

/// See the [module](self).
pub(crate) struct EagerRemotes {
    /// Zero: no mark.
    marks: Box<[u16]>,
    hasher: FixedState,
}

impl EagerRemotes {
    pub(crate) fn new(seed: u64) -> Self {
        Self { marks: vec![0; MARKS].into(), hasher: FixedState::with_seed(seed) }
    }

    /// Whether the guest is likely to speak first, and at once, on a connection to `remote`.
    pub(crate) fn contains(&self, remote: SocketAddr) -> bool {
        let (slot, mark) = self.place(remote);
        self.marks[slot] == mark
    }

    /// Remembers whether the guest spoke first, and at once, on a connection to `remote`.
    pub(crate) fn note(&mut self, remote: SocketAddr, is_eager: bool) {
        let (slot, mark) = self.place(remote);
        if is_eager {
            self.marks[slot] = mark;
        } else if self.marks[slot] == mark {
            self.marks[slot] = 0;
        }
    }

    fn place(&self, remote: SocketAddr) -> (usize, u16) {
        let [low, high, .., mark_low, mark_high] = self.hasher.hash_one(remote).to_le_bytes();
        let slot = usize::from(u16::from_le_bytes([low, high])) % MARKS;
        (slot, u16::from_le_bytes([mark_low, mark_high]).max(1))
    }
}

/// Which side spoke first on one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FirstSpeaker {
    /// Neither side has said anything. `is_ack_held`: whether the acknowledgement of the remote's
    /// SYN is held, so that it must be sent if the guest stays silent.
    Unknown { is_ack_held: bool },
    /// The first speaker is known but not yet reported to the stack. `is_eager`: whether it was the
    /// guest, and at once.
    Known { is_eager: bool },
    /// The stack has been told, or need not know.
    Reported,
}

impl FirstSpeaker {
    /// The first bytes have been moved, or none that are worth waiting for will be. `is_eager` says
    /// whether they were the guest's and came at once.
    pub(super) const fn observe(&mut self, is_eager: bool) {
        if matches!(self, Self::Unknown { .. }) {
            *self = Self::Known { is_eager };
        }
    }

    pub(super) const fn is_ack_held(self) -> bool {
        matches!(self, Self::Unknown { is_ack_held: true })
    }

    /// What the stack is to remember, once: whether the guest was eager.
    pub(crate) const fn take_report(&mut self) -> Option<bool> {
        let Self::Known { is_eager } = *self else {
            return None;
        };
        *self = Self::Reported;
        Some(is_eager)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], port))
    }

    #[test]
    fn remote_is_eager_from_the_first_eager_connection_to_the_first_that_is_not() {
        let mut remotes = EagerRemotes::new(1);
        let web = remote(1, 80);
        assert!(!remotes.contains(web));
        remotes.note(web, true);
        assert!(remotes.contains(web));
        assert!(!remotes.contains(remote(1, 25)), "another port is another service");
        assert!(!remotes.contains(remote(2, 80)), "another host as well");
        remotes.note(web, false);
        assert!(!remotes.contains(web));
    }

    #[test]
    fn what_a_remote_pushes_out_is_not_mistaken_for_it() {
        let mut remotes = EagerRemotes::new(1);
        let mine = remote(1, 80);
        remotes.note(mine, true);
        let (slot, mark) = remotes.place(mine);
        let other = (1..=u16::MAX)
            .map(|port| remote(2, port))
            .find(|&other| remotes.place(other).0 == slot && remotes.place(other).1 != mark)
            .unwrap();
        remotes.note(other, false);
        assert!(remotes.contains(mine), "news of others take nothing away");
        remotes.note(other, true);
        assert!(remotes.contains(other) && !remotes.contains(mine));
    }

    #[test]
    fn first_speaker_is_reported_once() {
        let mut speaker = FirstSpeaker::Unknown { is_ack_held: true };
        assert!(speaker.is_ack_held());
        assert_eq!(speaker.take_report(), None);
        speaker.observe(true);
        speaker.observe(false);
        assert!(!speaker.is_ack_held());
        assert_eq!(speaker.take_report(), Some(true));
        assert_eq!(speaker.take_report(), None);
        speaker.observe(false);
        assert_eq!(speaker.take_report(), None);
    }
}
