//! The look at both sides, once a second, and rules that change.
//!
//! Owns its order: the kernel is asked first, and then it is read which ports are our own, so that
//! none of ours counts as foreign. Where nothing has changed, a look costs the kernel's dumps and
//! four comparisons.

use std::time::Instant;

use super::ask::Ask;
use super::listeners::PORT_SOCKETS;
use super::ports::OwnPorts;
use super::scan::{Changes, OPENED_CAP, Scan};
use super::settings::{SpliceRules, SplicesError};
use super::worker::{Worker, divide};
use crate::host::forward::{Forward, ForwardProtocol};
use crate::journal::Ending;

impl Worker {
    /// Opens and closes ports as they are in use on the other side.
    pub(super) fn scan_ports(&mut self, now: Instant) {
        let Changes { open, close, .. } = self.look_at_ports(now);
        if let Some(scan) = &mut self.scan
            && !(open.is_empty() && close.is_empty())
        {
            scan.is_waiting = true;
            self.ask(Ask::Scanned { open, close });
        }
    }

    /// Has other rules hold, or changes nothing.
    ///
    /// # Errors
    /// [`SplicesError::Range`], [`SplicesError::Listen`] and [`SplicesError::Unchangeable`].
    pub(super) fn set_rules(
        &mut self,
        rules: SpliceRules,
        now: Instant,
    ) -> Result<(), SplicesError> {
        let (scanned, open) = divide(rules.to_host)?;
        let room = self.room_inside();
        let Self { scan: Some(scan), listeners, poll, .. } = self else {
            return Err(SplicesError::Unchangeable);
        };
        let kept = scan.open_ports.values().flatten().copied().collect();
        let mut closed = listeners.follow(poll.registry(), &open, &kept, room)?;
        let (close, places) = scan.set_rules(rules.scanned, scanned);
        for at in places {
            let udp = listeners.at(at).filter(|it| it.socket.protocol() == ForwardProtocol::Udp);
            closed.extend(udp.map(|listener| listener.port));
            listeners.close(at);
        }
        self.end_clients_of(&closed, now);
        self.share_out();
        if !close.is_empty() {
            if let Some(scan) = &mut self.scan {
                scan.is_waiting = true;
            }
            self.ask(Ask::Scanned { open: Vec::new(), close });
        }
        Ok(())
    }

    /// Ends the datagrams of clients at these ports of the namespace. Their sockets have the port,
    /// which could not be opened again.
    fn end_clients_of(&mut self, ports: &[u16], now: Instant) {
        if !ports.is_empty() {
            self.end_clients(Ending::ForwardRemoved, now, |key, _| {
                !key.0 && ports.contains(&key.2.port())
            });
        }
    }

    /// The rules for ports that are in use already. They are ordered to be in force.
    pub(super) fn first_scan(&mut self, now: Instant) -> Vec<Forward> {
        let open = self.look_at_ports(now).open;
        if let Some(scan) = &mut self.scan {
            scan.is_waiting = true;
        }
        open
    }

    fn look_at_ports(&mut self, now: Instant) -> Changes {
        // What is ours is known only once the last order is carried out.
        let idle = |scan: &&mut Scan| scan.has_rules() && !scan.is_waiting;
        let Some(scan) = self.scan.as_mut().filter(idle) else {
            return Changes::default();
        };
        let (mut inside, mut host) = match scan.look() {
            Ok(found) => found,
            Err(error) => {
                if !core::mem::replace(&mut scan.is_failure_logged, true) {
                    tracing::warn!(%error, "cannot tell which ports are in use (sock_diag)");
                }
                return Changes::default();
            }
        };
        // What was opened before this look is known by now.
        if !self.read_orders(now) {
            return Changes::default();
        }
        inside.leave_foreign(&self.own_inside());
        host.leave_foreign(&self.own);
        let (ports, bridges) = (self.port_sockets(), self.bridges.descriptors());
        let Some(scan) = &mut self.scan else { return Changes::default() };
        let found = (inside, host);
        if !scan.is_due(&found, now) {
            return Changes::default();
        }
        let room = self.account.room(scan.forward_sockets(), ports, bridges);
        let changes = scan.compare_forwards(&found.0, room, now);
        let (opened, is_short) = self.compare_ports(&found.1, now);
        let is_short = is_short || changes.is_short;
        if is_short && !core::mem::replace(&mut self.is_short_logged, true) {
            tracing::warn!("not all ports in use are open on the other side (ulimit -n)");
        }
        if let Some(scan) = &mut self.scan {
            // Where a cap was reached, there may be more.
            let is_complete = changes.open.len().max(opened) < OPENED_CAP && !is_short;
            scan.last = is_complete.then_some(found);
        }
        self.share_out();
        changes
    }

    /// Has bridges have what ports leave.
    pub(super) fn share_out(&mut self) {
        self.bridges.set_descriptors(self.account.bridges(self.port_sockets()));
    }

    /// Sockets of open ports on both sides, but for those of rules that always hold on the host.
    fn port_sockets(&self) -> usize {
        self.listeners.len() + self.scan.as_ref().map_or(0, Scan::forward_sockets)
    }

    /// For how many sockets more of the namespace's loopback there is room.
    fn room_inside(&self) -> usize {
        let (inside, bridges) = (self.listeners.len(), self.bridges.descriptors());
        self.account.room(inside, self.port_sockets(), bridges)
    }

    /// Opens ports of the namespace that are in use on the host, and closes those that are not any
    /// more. Returns how many it has tried to open, and whether others have to wait for room.
    fn compare_ports(&mut self, host: &OwnPorts, now: Instant) -> (usize, bool) {
        let room = self.room_inside();
        let Self { scan: Some(scan), listeners, poll, .. } = self else { return (0, false) };
        let (mut tried, mut is_short) = (0, false);
        let cap = listeners.len() + room;
        let mut closed = Vec::new();
        for (rule, ports) in scan.ports.iter().enumerate() {
            let used = host.of(ports.protocol);
            for port in ports.guest_ports() {
                let key = (rule, port);
                match (used.contains(port), scan.open_ports.contains_key(&key)) {
                    (true, false) => {
                        if tried >= OPENED_CAP || scan.failed_ports.is_pausing(key, now) {
                            continue;
                        }
                        if listeners.len() + PORT_SOCKETS > cap {
                            is_short = true;
                            continue;
                        }
                        tried += 1;
                        let host_port = ports.host_port(port).unwrap_or(port);
                        match listeners.open(poll.registry(), ports.protocol, port, host_port) {
                            Ok(places) => {
                                tracing::debug!(port, host_port, "port of the host in use");
                                scan.failed_ports.forget(key);
                                scan.open_ports.insert(key, places);
                            }
                            Err(error) => {
                                tracing::trace!(%error, "left out");
                                scan.failed_ports.note(key, now);
                            }
                        }
                    }
                    (false, true) => {
                        tracing::debug!(port, "port of the host not in use any more");
                        let places = scan.open_ports.remove(&key).unwrap_or_default();
                        places.into_iter().for_each(|at| listeners.close(at));
                        if ports.protocol == ForwardProtocol::Udp {
                            closed.push(port);
                        }
                    }
                    (false, false) => scan.failed_ports.forget(key),
                    (true, true) => {}
                }
            }
        }
        self.end_clients_of(&closed, now);
        (tried, is_short)
    }

    /// Ports of the namespace at which this instance listens.
    fn own_inside(&self) -> OwnPorts {
        let mut own = OwnPorts::default();
        for listener in self.listeners.iter() {
            own.of_mut(listener.socket.protocol()).insert(listener.port);
        }
        own
    }
}
