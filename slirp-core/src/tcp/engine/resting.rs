//! Connections that are parked or end, and the rings that they give back.
//!
//! Owns parking and waking, the exchange of rings under a connection, and [`Engine::retire`], the
//! one way back for rings.

use core::mem;
use core::net::{IpAddr, SocketAddr};

use super::{Engine, HEADROOM, TICK};
use crate::member::MemberId;
use crate::tcp::connection::{Connection, Parked};
use crate::tcp::memory::{Lease, Level, MIN_HELD};
use crate::tcp::rings::Rings;
use crate::tcp::segment::{self, Segment};
use crate::time::Instant;
use crate::wire::frame::IpHeader;

impl Engine {
    /// Takes the rings of a connection that has ended. The pool keeps them for the next one, unless
    /// memory is tight. After a panic of smoltcp the extent of writes is unknown, so these rings
    /// are not reused.
    pub(crate) fn retire(&mut self, connection: Connection) {
        let is_reusable = !connection.is_killed() && !self.is_memory_tight(&connection);
        let (rings, lease) = connection.into_rings();
        if is_reusable {
            self.pool.give_back(rings, &lease);
        }
        self.memory.release(lease);
    }

    /// Puts `next` in the place of `connection`, which is retired.
    pub(super) fn replace(&mut self, connection: &mut Connection, next: Connection) {
        let former = mem::replace(connection, next);
        self.retire(former);
    }

    /// Rings for a new connection of `guest`.
    pub(super) fn lend_rings(&mut self, guest: SocketAddr) -> (Rings, Lease) {
        let rings = self.pool.rings(self.memory.level_for(guest.ip()));
        self.leased(rings, guest.ip())
    }

    /// Rings that were just taken from the pool, with the lease that counts them.
    fn leased(&mut self, rings: Rings, guest: IpAddr) -> (Rings, Lease) {
        let lease = rings.lease(&mut self.memory, guest, self.pool.ticks);
        (rings, lease)
    }

    /// The state of an idle connection, if it can be described without its socket and rings. The
    /// caller then [`retire`](Self::retire)s the connection.
    pub(crate) fn park(&mut self, connection: &Connection, now: Instant) -> Option<Parked> {
        if self.poll_at(connection, now).is_some() {
            return None;
        }
        connection.parked()
    }

    /// [`park`](Self::park)s a connection before its time if memory is tight and that would help.
    pub(crate) fn park_early(&mut self, connection: &Connection, now: Instant) -> Option<Parked> {
        let is_worth_it = self.is_memory_tight(connection) && connection.held() > MIN_HELD;
        if is_worth_it { self.park(connection, now) } else { None }
    }

    /// Wakes a parked connection.
    pub(crate) fn unpark(&mut self, parked: &Parked, now: Instant) -> Option<Connection> {
        let lent = self.lend_rings(parked.guest);
        self.resume(parked, lent, now)
    }

    /// Gives a connection a larger ring to the guest, if it is quiet at this moment. The guest
    /// notices nothing.
    pub(crate) fn grow(&mut self, connection: &mut Connection, now: Instant) {
        let Some(parked) = self.park(connection, now) else {
            return;
        };
        let guest = parked.guest.ip();
        let rings = self.pool.grown_rings(self.memory.level_for(guest));
        let lent = self.leased(rings, guest);
        if let Some(grown) = self.resume(&parked, lent, now) {
            self.replace(connection, grown);
        }
    }

    /// Exchanges the rings of a connection that is quiet at this moment for new ones, if memory is
    /// tight and that would help, or if the connection does not need the pages that it holds. The
    /// guest notices nothing.
    pub(crate) fn renew_early(&mut self, connection: &mut Connection, now: Instant) {
        let parked = if self.pool.hold_excess(&connection.lease) {
            self.park(connection, now)
        } else {
            self.park_early(connection, now)
        };
        let Some(parked) = parked else {
            return;
        };
        let lent = self.leased(self.pool.new_rings(), parked.guest.ip());
        if let Some(renewed) = self.resume(&parked, lent, now) {
            self.replace(connection, renewed);
        }
    }

    /// Leads a new socket through a handshake with itself, to the state in `parked`.
    fn resume(
        &mut self,
        parked: &Parked,
        lent: (Rings, Lease),
        now: Instant,
    ) -> Option<Connection> {
        let (_, engine_mss) = self.segment_sizes(&parked.options, parked.remote.ip());
        let engine_mss = engine_mss.min(parked.engine_mss_cap());
        let syn = segment::emit_syn(
            parked.guest,
            parked.remote,
            parked.guest_next.wrapping_sub(1),
            parked.window,
            &parked.options.emit(engine_mss),
        );
        let opening = parked.opening();
        let sizes = (parked.guest_mss, engine_mss);
        let connection = Connection::answering(&opening, parked.options, sizes, lent);
        self.bring_up(connection, |engine, connection| {
            connection.listen()?;
            engine.ingress(connection, &syn, now).ok()?;
            let len = engine.egress(connection, now).ok()??;
            let answer = &engine.frame[HEADROOM..HEADROOM + len];
            let answer = Segment::parse(&IpHeader::parse(answer).ok()?, answer).ok()?;
            let ack = segment::emit_ack(
                parked.guest,
                parked.remote,
                parked.guest_next,
                answer.seq.wrapping_add(1),
                parked.window,
            );
            engine.ingress(connection, &ack, now).ok()?;
            connection.resume(parked, answer.seq.wrapping_add(1)).then_some(())
        })
    }

    /// Whether this connection may have a larger ring: its ring is small, and the guest's cap of
    /// large rings is not reached.
    pub(crate) fn may_grow(&self, connection: &Connection) -> bool {
        !connection.is_grown() && self.memory.may_grow(&connection.lease)
    }

    /// Whether memory is tight for the guest's connections; then they are parked or get new rings
    /// early, and the host is read in smaller pieces.
    pub(crate) fn is_memory_tight(&self, connection: &Connection) -> bool {
        self.memory.level(&connection.lease) >= Level::Tight
    }

    /// Whether more memory is held than `before`, and the guest's connections hold too much.
    pub(crate) fn is_memory_exhausted(&self, connection: &Connection, before: usize) -> bool {
        connection.held() > before && self.memory.level(&connection.lease) == Level::Exhausted
    }

    /// Bytes that the rings of all connections hold.
    pub(crate) const fn ring_memory(&self) -> usize {
        self.memory.used()
    }

    /// Whether any connection holds rings.
    pub(crate) const fn is_in_use(&self) -> bool {
        self.memory.is_in_use()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.tick_at
    }

    /// Frees rings that no connection has needed lately. Due every second while there are
    /// connections.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let has_free = self.pool.tick();
        self.tick_at = (has_free || self.is_in_use()).then(|| now + TICK);
    }

    /// A member of a shared network has joined or has a new address. It gets its own part of the
    /// memory.
    pub(crate) fn handle_member(&mut self, id: MemberId, addresses: impl Iterator<Item = IpAddr>) {
        self.memory.assign(id, addresses);
    }

    /// A member has left.
    pub(crate) fn handle_member_removed(&mut self, id: MemberId) {
        self.memory.unassign(id);
    }
}
