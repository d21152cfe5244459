//! Forward rules: adding and removing them, and what arrives on their sockets.
//!
//! Owns how much is taken from one port in a turn. The sockets belong to `host::forward`; what the
//! guest sees of them is decided by the stack.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::RunError;
use super::{ACCEPTS_CAP, DATAGRAMS_CAP, ERRORS_CAP, Reactor};
use crate::discard::DiscardReason;
use crate::event::{FlowId, ForwardId, HostError};
use crate::host::forward::{
    Accepted, Forward, ForwardError, ForwardProtocol, OpenForwards, Opening, PortId,
};
use crate::host::socket::table::{HostSocket, TcpHost};
use crate::host::socket::tcp::TcpStream;
use crate::policy::Protocol;
use crate::time::Instant;

/// How long clients stay in the queues of their ports when the thread in the guest's network
/// namespace does not keep up (arbitrary: it takes some ten in that time).
const HAND_OVER_PAUSE: Duration = Duration::from_millis(1);

impl Reactor {
    /// Adds all rules, or none. Returns the rules as they are listed.
    pub(super) fn add_forwards(
        &mut self,
        forwards: &[Forward],
    ) -> Result<Vec<(ForwardId, Forward)>, ForwardError> {
        self.verify_guests(forwards.iter().copied())?;
        // Before they are open, or they might be taken for foreign ones.
        self.tell_own_ports(forwards);
        let added = self.forwards.add_all(forwards);
        self.tell_own_ports(&[]);
        // The requester logs a refusal.
        added.inspect(|rules| tracing::info!(?rules, "forward added"))
    }

    /// The same, with how each rule's ports are opened.
    pub(super) fn open_forwards(
        &mut self,
        rules: &[(Forward, Opening)],
    ) -> Result<Vec<(ForwardId, Forward)>, ForwardError> {
        let forwards: Vec<_> = rules.iter().map(|(forward, _)| *forward).collect();
        self.verify_guests(forwards.iter().copied())?;
        self.tell_own_ports(&forwards);
        let added = self.forwards.add_each(rules);
        self.tell_own_ports(&[]);
        added.inspect(|rules| tracing::info!(?rules, "forward added"))
    }

    /// Decides whether datagrams leave from the port that the guest sent them from.
    pub(crate) fn keep_udp_ports(&mut self, keeps: bool) {
        self.sockets.keeps_udp_ports = keeps;
    }

    /// Adds all of the rules, whose ports are open, or none.
    pub(crate) fn adopt_forwards(&mut self, opened: OpenForwards) -> Result<(), ForwardError> {
        self.verify_guests(opened.rules())?;
        for rule in self.forwards.adopt(opened)? {
            tracing::info!(rules = ?[rule], "forward added");
        }
        Ok(())
    }

    pub(super) fn verify_guests(
        &self,
        rules: impl Iterator<Item = Forward>,
    ) -> Result<(), ForwardError> {
        let mut guests = rules.flat_map(|rule| rule.guests());
        let invalid = guests.find(|&guest| !self.stack.is_forwardable(guest));
        invalid.map_or(Ok(()), |guest| Err(ForwardError::GuestAddress(guest.ip())))
    }

    pub(super) fn remove_forwards(&mut self, ids: RangeInclusive<u64>) -> Result<(), ForwardError> {
        let removed = self.forwards.remove_all(ids)?.into_iter().collect();
        self.on_forwards_removed(&removed);
        Ok(())
    }

    /// Notes that these rules have been removed.
    pub(super) fn on_forwards_removed(&mut self, rules: &BTreeSet<ForwardId>) {
        for id in rules {
            tracing::info!(id = id.0, "forward removed");
        }
        self.stack.handle_forwards_removed(rules, self.now());
        self.tell_rules_removed(rules);
    }

    /// Serves ready forwarded ports, at most one share each.
    pub(super) fn serve_forwards(&mut self, now: Instant) -> Result<(), RunError> {
        for (id, protocol) in self.forwards.take_queue(now) {
            let is_drained = match protocol {
                ForwardProtocol::Tcp => self.accept(id, now),
                ForwardProtocol::Udp => self.receive_forwarded(id, now)?,
            };
            if !is_drained {
                self.forwards.queue(id);
            }
        }
        Ok(())
    }

    /// Returns whether every connection was taken.
    fn accept(&mut self, id: PortId, now: Instant) -> bool {
        for _ in 0..ACCEPTS_CAP {
            if self.inner.as_ref().is_some_and(|inner| !inner.has_room()) {
                self.forwards.pause(now + HAND_OVER_PAUSE);
                return false;
            }
            let (stream, origin, guest, other) = match self.forwards.accept(id, now) {
                Accepted::Connection { stream, origin, guest, other } => {
                    (stream, origin, guest, other)
                }
                Accepted::Lost => continue,
                Accepted::Drained => return true,
            };
            let Some(stream) = self.hand_over(stream, origin, guest, now) else { continue };
            if self.link.is_nothing() {
                self.stack.note_discard(DiscardReason::GuestNotFound);
                stream.reset();
                continue;
            }
            let opened = self.stack.handle_tcp_accepted(origin, guest, now);
            if let (Ok(flow), Some(other)) = (opened, other) {
                self.stack.set_other_guest(flow, other);
            }
            self.keep(stream, opened, now);
        }
        false
    }

    /// Keeps the connection of `stream` for the flow that was opened for it.
    fn keep(&mut self, stream: TcpStream, opened: Result<FlowId, DiscardReason>, now: Instant) {
        let Ok(flow) = opened else {
            stream.reset();
            return;
        };
        // Sockets of flows that have ended are closed before their slots are used.
        self.perform_actions(now);
        if let Err(error) = self.sockets.insert(flow, HostSocket::Tcp(TcpHost::new(stream))) {
            tracing::debug!(%error, "an accepted connection was lost");
            self.stack.handle_remote_gone(flow);
        }
    }

    /// Leads connections elsewhere that the guest has refused at one address.
    pub(super) fn ask_elsewhere(&mut self, now: Instant) {
        while let Some((stream, origin, guest)) = self.refused.pop() {
            let opened = self.stack.handle_tcp_refused(origin, guest, now);
            self.keep(stream, opened, now);
        }
    }

    /// Returns whether every datagram was taken.
    fn receive_forwarded(&mut self, id: PortId, now: Instant) -> Result<bool, RunError> {
        for _ in 0..ERRORS_CAP {
            let Some((guest, error)) = self.forwards.take_error(id) else {
                break;
            };
            // A datagram that was too large for the local kernel was refused and reported when it
            // was sent.
            if error.offender.is_some() || !matches!(error.error, HostError::TooLarge(_)) {
                self.stack.handle_inbound_udp_undelivered(guest, &error);
            }
        }
        for _ in 0..DATAGRAMS_CAP {
            let Some((origin, guest, received)) = self.forwards.receive(id, &mut self.datagram)
            else {
                return Ok(true);
            };
            if let Some(inner) = &mut self.inner
                && let Some(targets) =
                    inner.targets(origin.client, origin.local.ip(), guest, &self.stack)
            {
                let (payload, segment_len) = (received.payload, received.segment_len);
                if self.stack.judge_inbound_bridge(Protocol::Udp, &origin, targets.first, now) {
                    let passed =
                        inner.pass(id, &self.forwards, origin, targets, payload, segment_len);
                    self.stack.note(passed);
                }
                continue;
            }
            if self.link.is_nothing() {
                self.stack.note_discard(DiscardReason::GuestNotFound);
                continue;
            }
            self.stack.handle_inbound_udp(
                origin,
                guest,
                received.payload,
                received.segment_len,
                received.traffic_class,
                now,
            );
            self.write_frames(now)?;
        }
        Ok(false)
    }
}
