//! Ports that are open while something uses them on the other side.
//!
//! Owns what was found on both sides, and the rules that follow it. Ports at which this instance
//! listens itself are left out, or each side would keep the other's ports open for ever.
//!
//! A UDP port is open as well while the TCP port of the same number is in use: programs such as
//! iperf3 bind it only when they are asked to.

use std::collections::BTreeMap;
use std::io;

use super::listening::{Reach, SocketDiag};
use super::ports::OwnPorts;
use super::settings::HostPorts;
use crate::host::forward::{Forward, ForwardProtocol};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Scan {
    host: SocketDiag,
    inside: SocketDiag,
    /// Rules for ports of the host.
    forwards: Vec<Forward>,
    /// Rules for ports of the namespace.
    pub(super) ports: Vec<HostPorts>,
    /// Rules that are in force, or were ordered to be, by the rule that they are of, and port.
    open_forwards: BTreeMap<(usize, u16), Forward>,
    /// Places of listeners.
    pub(super) open_ports: BTreeMap<(usize, u16), Vec<usize>>,
    /// What the last look has found on both sides.
    pub(super) last: Option<(OwnPorts, OwnPorts)>,
    /// Whether the answer to an order is outstanding.
    pub(super) is_waiting: bool,
    pub(super) is_failure_logged: bool,
}

/// Which rules to open and to close.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) open: Vec<Forward>,
    pub(super) close: Vec<Forward>,
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
    pub(super) fn look(&mut self) -> io::Result<(OwnPorts, OwnPorts)> {
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
    pub(super) fn compare_forwards(&mut self, inside: &OwnPorts) -> Changes {
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
    pub(super) fn leave_foreign(&mut self, own: &Self) {
        self.tcp.subtract(&own.tcp);
        self.udp.subtract(&own.udp);
        self.udp.extend(&self.tcp);
    }
}
