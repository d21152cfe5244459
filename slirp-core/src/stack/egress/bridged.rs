//! Verdicts about connections that are joined past the link, and what a listener hears of them.
//!
//! Owns what cannot be done for them: no first bytes are looked at and nobody is asked, so what
//! would need either is refused.

use core::net::SocketAddr;

use crate::discard::DiscardReason;
use crate::egress::{Cause, FlowVerdict, Verification};
use crate::event::{FlowId, Origin};
use crate::journal::{Ends, Event, Refusal};
use crate::policy::Protocol;
use crate::stack::Stack;
use crate::time::Instant;

impl Stack {
    /// Whether a remote may reach `guest` through a published port. A listener is told if not.
    pub(crate) fn judge_inbound_bridge(
        &mut self,
        protocol: Protocol,
        origin: &Origin,
        guest: SocketAddr,
        now: Instant,
    ) -> bool {
        if self.egress.is_none() {
            return true;
        }
        let judged = self.judge_inbound(protocol, origin, guest, now);
        let judged = judged.map(|judgement| self.events.judged(None, judgement));
        self.note(judged);
        judged.is_ok()
    }

    /// Whether the guest may reach `reached`, an address of the host's loopback, from the loopback
    /// of its namespace. A listener is told.
    pub(crate) fn judge_outbound_bridge(
        &mut self,
        bridge: FlowId,
        protocol: Protocol,
        guest: SocketAddr,
        reached: SocketAddr,
        now: Instant,
    ) -> bool {
        let Some(egress) = &mut self.egress else { return true };
        let judged = egress.on_flow(None, protocol, reached, reached, now);
        let mut judged = egress.audited(judged, &self.events);
        match judged.verdict {
            FlowVerdict::Pass { verify: Verification::None } | FlowVerdict::Refuse(_) => {}
            FlowVerdict::Hold => judged = judged.refused(Cause::NoApprover),
            FlowVerdict::Pass { .. } | FlowVerdict::Named { .. } | FlowVerdict::Resolver => {
                judged = judged.refused(Cause::Name);
            }
        }
        let ends = Ends::new(protocol, guest, reached);
        let judgement = self.judgement(None, ends, reached, judged);
        self.events.judged(Some(bridge), judgement);
        let FlowVerdict::Refuse(cause) = judged.verdict else { return true };
        self.note_discard(DiscardReason::EgressDenied);
        self.events.refused(ends, Refusal::Egress(cause));
        false
    }

    /// Tells a listener what has become of a bridge.
    pub(crate) fn tell_of_bridge(&mut self, event: Event) {
        self.events.tell(|| event);
    }
}
