//! TCP segments of the guest: to their flow, or a new flow for the first of them.
//!
//! Owns the opening of TCP flows (RFC 9293 section 3.10.7). How a flow handles a segment is left to
//! [`TcpFlow`].

use super::Stack;
use super::egress::Way;
use super::from_guest::Arrival;
use crate::discard::DiscardReason;
use crate::event::{FlowId, HostAction};
use crate::flow::permit::Kind;
use crate::flow::tcp::TcpFlow;
use crate::flow::{Flow, FlowKey, GuestSide};
use crate::journal::{Ending, Ends, Peer};
use crate::policy::{Protocol, Target};
use crate::tcp::{Segment, Syn};
use crate::time::Instant;
use crate::wire::icmp::IcmpError;

impl Stack {
    pub(super) fn on_tcp(
        &mut self,
        arrival: Arrival<'_>,
        now: Instant,
    ) -> Result<(), DiscardReason> {
        let Arrival { packet, ip, mac, .. } = arrival;
        let segment = Segment::parse(&ip, packet)?;
        let guest = GuestSide { address: segment.source, mac };
        let key = FlowKey::new(Protocol::Tcp, segment.source, segment.destination);
        let known = self.flows.lookup(&key);
        if segment.is_opening() {
            if let Some(id) = known {
                if self.flows.tcp(id).is_some_and(|(_, flow)| flow.is_same_opening(segment.seq)) {
                    return Err(DiscardReason::TcpSynRepeated);
                }
                // The guest has forgotten what this flow was (RFC 9293 section 3.10.7.4; a reused
                // port, or a TIME-WAIT of its own): a new conversation starts.
                self.close_flow(id, Ending::Replaced, now);
            }
            return self.open_tcp(key, guest, &segment, packet, now);
        }
        let Some(id) = known else {
            self.outbox.push_reset(&segment, mac)?;
            return Err(DiscardReason::TcpNoFlow);
        };
        let Some((meta, flow)) = self.flows.tcp_mut(id) else {
            return Err(DiscardReason::TcpNoFlow);
        };
        if flow.is_connecting() {
            // Nothing but a reset makes sense before the handshake.
            if segment.is_rst() {
                self.close_flow(id, Ending::GuestReset, now);
                return Ok(());
            }
            return Err(DiscardReason::TcpNoFlow);
        }
        let outcome = flow.on_segment(&mut self.engine, segment, packet, guest, now);
        self.turns.wake(meta);
        if let Some(range) = outcome? {
            self.outbox.push_sealed(self.engine.frame(range))?;
        }
        Ok(())
    }

    fn open_tcp(
        &mut self,
        key: FlowKey,
        guest: GuestSide,
        segment: &Segment,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), DiscardReason> {
        let mut target = self.config.target(Protocol::Tcp, key.remote);
        let mut clearance = None;
        if let (Ok(Target::Host(reached)), true) = (target, self.egress.is_some()) {
            let ends = Ends::new(Protocol::Tcp, key.guest, key.remote);
            match self.judge(ends, reached, packet, guest.mac, now)? {
                Way::Host(cleared) => clearance = Some(cleared),
                Way::Resolver => target = Ok(Target::Resolver),
                Way::Wait(wait) => {
                    let our_mac = self.outbox.our_mac(key.remote.ip());
                    let flow = TcpFlow::asking(guest, our_mac, Syn::new(segment, packet), now);
                    let id = self.open_tcp_flow(key, flow, Peer::Host(reached), packet, now)?;
                    self.hold(id, wait, now);
                    return Ok(());
                }
            }
        }
        let remote = match target {
            Ok(Target::Host(remote)) => Some(remote),
            Ok(Target::Resolver) => None,
            Err(reason) => {
                let ends = Ends::new(Protocol::Tcp, key.guest, key.remote);
                return Err(self.refuse(reason, ends, packet, guest.mac));
            }
        };
        let our_mac = self.outbox.our_mac(key.remote.ip());
        let is_guest_eager = remote.is_some() && self.eager_remotes.contains(key.remote);
        let flow = TcpFlow::connecting(
            guest,
            our_mac,
            Syn::new(segment, packet),
            is_guest_eager,
            &self.config.timeouts,
            now,
        );
        let peer = remote.map_or(Peer::Resolver, Peer::Host);
        let id = self.open_tcp_flow(key, flow, peer, packet, now)?;
        match remote {
            Some(remote) => {
                if let Some(clearance) = clearance {
                    self.note_passed(id, clearance, now);
                }
                self.actions.push_back(HostAction::ConnectTcp { flow: id, remote, is_guest_eager });
            }
            None => {
                let holder = self.admission.holder(key.guest.ip());
                self.dns.open(id, holder, now);
                self.deliver_dns(now);
                self.handle_tcp_connected(id, Ok(()), now);
            }
        }
        Ok(())
    }

    fn open_tcp_flow(
        &mut self,
        key: FlowKey,
        flow: TcpFlow,
        peer: Peer,
        packet: &[u8],
        now: Instant,
    ) -> Result<FlowId, DiscardReason> {
        let (mac, flow) = (flow.guest().mac, Flow::Tcp(Box::new(flow)));
        let opened = self.open_flow(Kind::Opening, key, flow, (key.remote, peer), now);
        if opened.is_err() {
            // Not a reset, which would be the remote's word.
            self.outbox.push_error(IcmpError::AdministrativelyProhibited, packet, mac)?;
        }
        opened
    }
}
