//! Ports that are open while something uses them on the other side.
//!
//! Owns the comparison of both sides, once a second. Ports at which this instance listens itself
//! are left out, or each side would keep the other's ports open for ever. Where nothing has changed
//! a look costs the kernel's dumps and four comparisons.
//!
//! A UDP port is open as well while the TCP port of the same number is in use: programs such as
//! iperf3 bind it only when they are asked to.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use super::ask::Ask;
use super::listening::{Reach, SocketDiag};
use super::ports::OwnPorts;
use super::settings::HostPorts;
use super::worker::Worker;
use crate::host::forward::{Forward, ForwardProtocol};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Scan {
    host: SocketDiag,
    inside: SocketDiag,
    /// Rules for ports of the host.
    forwards: Vec<Forward>,
    /// Rules for ports of the namespace.
    ports: Vec<HostPorts>,
    /// Rules that are in force, or were ordered to be, by the rule that they are of, and port.
    open_forwards: BTreeMap<(usize, u16), Forward>,
    /// Places of listeners.
    open_ports: BTreeMap<(usize, u16), Vec<usize>>,
    /// What the last look has found on both sides.
    last: Option<(OwnPorts, OwnPorts)>,
    /// Whether the answer to an order is outstanding.
    is_waiting: bool,
    is_failure_logged: bool,
}

/// Which rules to open and to close.
#[derive(Default)]
struct Changes {
    open: Vec<Forward>,
    close: Vec<Forward>,
}

impl Scan {
    /// Looks at the host through `host`, and at the namespace through `inside`.
    pub(super) const fn new(
        host: SocketDiag,
        inside: SocketDiag,
        forwards: Vec<Forward>,
        ports: Vec<HostPorts>,
    ) -> Self {
        Self {
            host,
            inside,
            forwards,
            ports,
            open_forwards: BTreeMap::new(),
            open_ports: BTreeMap::new(),
            last: None,
            is_waiting: false,
            is_failure_logged: false,
        }
    }

    /// The last order was carried out, but for the rules that `failed`. They are tried again.
    pub(super) fn on_answer(&mut self, failed: &[Forward]) {
        self.is_waiting = false;
        if !failed.is_empty() {
            self.open_forwards.retain(|_, forward| !failed.contains(forward));
            self.last = None;
        }
    }

    /// The ports in use inside, and on the host.
    fn look(&mut self) -> io::Result<(OwnPorts, OwnPorts)> {
        let (tcp, udp) = (ForwardProtocol::Tcp, ForwardProtocol::Udp);
        let inside = OwnPorts {
            tcp: self.inside.ports(tcp, Reach::Anywhere)?,
            udp: self.inside.ports(udp, Reach::Anywhere)?,
        };
        let host = OwnPorts {
            tcp: self.host.ports(tcp, Reach::Loopback)?,
            udp: self.host.ports(udp, Reach::Loopback)?,
        };
        Ok((inside, host))
    }

    /// The rules whose ports are in use `inside`, and those whose ports are not any more.
    fn compare_forwards(&mut self, inside: &OwnPorts) -> Changes {
        let mut changes = Changes::default();
        for (rule, forward) in self.forwards.iter().enumerate() {
            let used = inside.of(forward.protocol);
            for index in 0..forward.ports {
                let one = forward.port(index);
                let key = (rule, one.host.port());
                match (used.contains(key.1), self.open_forwards.contains_key(&key)) {
                    (true, false) => {
                        self.open_forwards.insert(key, one);
                        changes.open.push(one);
                    }
                    (false, true) => changes.close.extend(self.open_forwards.remove(&key)),
                    (true, true) | (false, false) => {}
                }
            }
        }
        changes
    }
}

impl OwnPorts {
    /// Takes our own ports out. What is left of the TCP ports counts for UDP as well.
    fn leave_foreign(&mut self, own: &Self) {
        self.tcp.subtract(&own.tcp);
        self.udp.subtract(&own.udp);
        self.udp.extend(&self.tcp);
    }
}

impl Worker {
    /// Opens and closes ports as they are in use on the other side.
    pub(super) fn scan_ports(&mut self, now: Instant) {
        let Changes { open, close } = self.look_at_ports(now);
        if let Some(scan) = &mut self.scan
            && !(open.is_empty() && close.is_empty())
        {
            scan.is_waiting = true;
            self.ask(Ask::Scanned { open, close });
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
        let Some(scan) = self.scan.as_mut().filter(|scan| !scan.is_waiting) else {
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
        let Some(scan) = &mut self.scan else { return Changes::default() };
        let found = Some((inside, host));
        if scan.last == found {
            return Changes::default();
        }
        scan.last = found;
        let Some((inside, host)) = scan.last.take() else { return Changes::default() };
        let changes = scan.compare_forwards(&inside);
        let is_complete = self.compare_ports(&host, now);
        if let Some(scan) = &mut self.scan
            && is_complete
        {
            scan.last = Some((inside, host));
        }
        changes
    }

    /// Opens ports of the namespace that are in use on the host, and closes those that are not any
    /// more. Returns whether all of them could be opened.
    fn compare_ports(&mut self, host: &OwnPorts, now: Instant) -> bool {
        let Self { scan: Some(scan), listeners, poll, .. } = self else { return true };
        let mut is_complete = true;
        let mut closed = Vec::new();
        for (rule, ports) in scan.ports.iter().enumerate() {
            let used = host.of(ports.protocol);
            for port in ports.guest_ports() {
                let key = (rule, port);
                match (used.contains(port), scan.open_ports.contains_key(&key)) {
                    (true, false) => {
                        let host_port = ports.host_port(port).unwrap_or(port);
                        match listeners.open(poll.registry(), ports.protocol, port, host_port) {
                            Ok(places) => {
                                tracing::debug!(port, host_port, "port of the host in use");
                                scan.open_ports.insert(key, places);
                            }
                            Err(error) => {
                                tracing::trace!(%error, "left out");
                                is_complete = false;
                            }
                        }
                    }
                    (false, true) => {
                        tracing::debug!(port, "port of the host not in use any more");
                        let places = scan.open_ports.remove(&key).unwrap_or_default();
                        places.into_iter().for_each(|at| listeners.close(at));
                        closed.push((ports.protocol, port));
                    }
                    (true, true) | (false, false) => {}
                }
            }
        }
        // Their sockets have the port, which could not be opened again.
        for (protocol, port) in closed {
            if protocol == ForwardProtocol::Udp {
                self.end_clients(now, |key, _| !key.0 && key.2.port() == port);
            }
        }
        is_complete
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
