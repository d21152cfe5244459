//! Ports that are open while something uses them on the other side.
//!
//! Owns what was found on both sides, and the rules that follow it. Ports at which this instance
//! listens itself are left out, or each side would keep the other's ports open for ever.
//!
//! A port that cannot be opened is tried again, after pauses that grow. Nothing else makes a look
//! expensive on which nothing has changed.
//!
//! A UDP port is open as well while the TCP port of the same number is in use: programs such as
//! iperf3 bind it only when they are asked to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use super::listening::{Reach, SocketDiag};
use super::ports::OwnPorts;
use super::settings::HostPorts;
use crate::host::forward::{Forward, ForwardProtocol};

/// Ports that are opened after one look at most, each way: the data thread does nothing else
/// meanwhile (arbitrary).
pub(super) const OPENED_CAP: usize = 1024;
/// The pause before a port is tried again. It doubles with each failure, up to [`LONGEST_PAUSE`]
/// (both arbitrary).
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The place of a rule among those that are scanned, and the port.
type Key = (usize, u16);

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
    open_forwards: BTreeMap<Key, Forward>,
    failed_forwards: Failures,
    /// Places of listeners.
    pub(super) open_ports: BTreeMap<Key, Vec<usize>>,
    pub(super) failed_ports: Failures,
    /// What the last look has found on both sides.
    pub(super) last: Option<(OwnPorts, OwnPorts)>,
    /// Whether the answer to an order is outstanding.
    pub(super) is_waiting: bool,
    pub(super) is_failure_logged: bool,
}

/// Ports that could not be opened: when each is tried again, and the pause before.
#[derive(Default, Debug)]
pub(super) struct Failures(BTreeMap<Key, (Instant, Duration)>);

impl Failures {
    pub(super) fn note(&mut self, key: Key, now: Instant) {
        let pause = match self.0.get(&key) {
            Some(&(_, pause)) => (pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        self.0.insert(key, (now + pause, pause));
    }

    /// The port is open, or not in use any more.
    pub(super) fn forget(&mut self, key: Key) {
        self.0.remove(&key);
    }

    /// Whether it is too early to try a port again.
    pub(super) fn is_pausing(&self, key: Key, now: Instant) -> bool {
        self.0.get(&key).is_some_and(|&(at, _)| at > now)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.0.values().any(|&(at, _)| at <= now)
    }
}

/// Which rules to open and to close.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) open: Vec<Forward>,
    pub(super) close: Vec<Forward>,
    /// Whether there are ports that have to wait for room.
    pub(super) is_short: bool,
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
            failed_forwards: Failures(BTreeMap::new()),
            open_ports: BTreeMap::new(),
            failed_ports: Failures(BTreeMap::new()),
            last: None,
            is_waiting: false,
            is_failure_logged: false,
        }
    }

    /// Whether there is anything to look for.
    pub(super) const fn has_rules(&self) -> bool {
        !self.forwards.is_empty() || !self.ports.is_empty()
    }

    /// Other rules hold from now on. Ports that are open and that one of them covers stay open.
    /// Returns the forward rules to close, and the places of listeners to close.
    pub(super) fn set_rules(
        &mut self,
        forwards: Vec<Forward>,
        ports: Vec<HostPorts>,
    ) -> (Vec<Forward>, Vec<usize>) {
        let (mut close, mut places) = (Vec::new(), Vec::new());
        for ((_, port), rule) in core::mem::take(&mut self.open_forwards) {
            match forwards.iter().position(|forward| forward.each().any(|one| one == rule)) {
                Some(at) => drop(self.open_forwards.insert((at, port), rule)),
                None => close.push(rule),
            }
        }
        for ((at, port), listeners) in core::mem::take(&mut self.open_ports) {
            let before = self.ports.get(at).map(|rule| (rule.protocol, rule.host_port(port)));
            let covers = |rule: &HostPorts| {
                rule.host_port(port).is_some()
                    && Some((rule.protocol, rule.host_port(port))) == before
            };
            match ports.iter().position(covers) {
                Some(at) => drop(self.open_ports.insert((at, port), listeners)),
                None => places.extend(listeners),
            }
        }
        (self.forwards, self.ports) = (forwards, ports);
        (self.failed_forwards, self.failed_ports) = (Failures::default(), Failures::default());
        self.last = None;
        (close, places)
    }

    /// The last order was carried out, but for the rules that `failed`. They are tried again.
    pub(super) fn on_answer(&mut self, failed: &[Forward], now: Instant) {
        self.is_waiting = false;
        let failed: BTreeSet<_> = failed.iter().map(|rule| (rule.protocol, rule.host)).collect();
        let failures = &mut self.failed_forwards;
        self.open_forwards.retain(|&key, rule| {
            let is_open = !failed.contains(&(rule.protocol, rule.host));
            if is_open {
                failures.forget(key);
            } else {
                failures.note(key, now);
            }
            is_open
        });
    }

    /// Whether ports are to be compared: they have changed, or one is to be tried again.
    pub(super) fn is_due(&self, found: &(OwnPorts, OwnPorts), now: Instant) -> bool {
        self.last.as_ref() != Some(found)
            || self.failed_forwards.is_due(now)
            || self.failed_ports.is_due(now)
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

    /// How many sockets the rules that are in force have, or will have.
    pub(super) fn forward_sockets(&self) -> usize {
        self.open_forwards.values().map(Forward::sockets).sum()
    }

    /// The rules whose ports are in use `inside`, and those whose ports are not any more. There is
    /// `room` for so many sockets.
    pub(super) fn compare_forwards(
        &mut self,
        inside: &OwnPorts,
        mut room: usize,
        now: Instant,
    ) -> Changes {
        let mut changes = Changes::default();
        for (rule, forward) in self.forwards.iter().enumerate() {
            let used = inside.of(forward.protocol);
            for index in 0..forward.ports {
                let one = forward.port(index);
                let key = (rule, one.host.port());
                match (used.contains(key.1), self.open_forwards.contains_key(&key)) {
                    (true, false) => {
                        if changes.open.len() >= OPENED_CAP
                            || self.failed_forwards.is_pausing(key, now)
                        {
                            continue;
                        }
                        if let Some(left) = room.checked_sub(one.sockets()) {
                            room = left;
                            self.open_forwards.insert(key, one);
                            changes.open.push(one);
                        } else {
                            changes.is_short = true;
                        }
                    }
                    (false, true) => changes.close.extend(self.open_forwards.remove(&key)),
                    (false, false) => self.failed_forwards.forget(key),
                    (true, true) => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(rule: Forward) -> Scan {
        let open = || SocketDiag::open().unwrap();
        Scan::new(open(), open(), vec![rule], Vec::new())
    }

    fn rule(ports: u16) -> Forward {
        let at = |address: [u8; 4]| (address, 1_000).into();
        let rule = Forward::new(ForwardProtocol::Tcp, at([0, 0, 0, 0]), at([10, 0, 2, 100]));
        Forward { ports, ..rule }
    }

    #[test]
    fn port_that_cannot_be_opened_is_tried_again_after_pauses_that_grow() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut scan = scan(rule(2));
        let mut found = <(OwnPorts, OwnPorts)>::default();
        found.0.tcp.insert(1_000);
        found.0.tcp.insert(1_001);
        assert!(scan.is_due(&found, start));
        let open = scan.compare_forwards(&found.0, usize::MAX, start).open;
        assert_eq!(open.len(), 2);
        scan.last = Some(found.clone());
        scan.on_answer(&open[..1], start);
        let mut tries = Vec::new();
        for second in 0..200 {
            if scan.is_due(&found, at(second)) {
                let changes = scan.compare_forwards(&found.0, usize::MAX, at(second));
                assert!(changes.close.is_empty());
                assert_eq!(changes.open, &open[..1]);
                scan.on_answer(&changes.open, at(second));
                tries.push(second);
            }
        }
        assert_eq!(tries, [1, 3, 7, 15, 31, 63, 123, 183]);
        assert_eq!(scan.compare_forwards(&found.0, usize::MAX, at(243)).open.len(), 1);
        scan.on_answer(&[], at(243));
        assert!(!scan.is_due(&found, at(1_000)), "it is open");
        // A port that is not in use any more is a new one when it is again.
        scan.compare_forwards(&OwnPorts::default(), usize::MAX, at(1_000));
        scan.on_answer(&[], at(1_000));
        assert_eq!(scan.compare_forwards(&found.0, usize::MAX, at(1_001)).open.len(), 2);
    }

    #[test]
    fn port_that_another_rule_covers_stays_open() {
        let now = Instant::now();
        let mut scan = scan(rule(2));
        let mut inside = OwnPorts::default();
        (1_000..1_010).for_each(|port| inside.tcp.insert(port));
        let open = scan.compare_forwards(&inside, usize::MAX, now).open;
        scan.on_answer(&[], now);
        let ports = |protocol, host| {
            let (is_weak, is_scanned) = (false, true);
            HostPorts { protocol, guest: 5_000, host, ports: 2, is_weak, is_scanned }
        };
        scan.ports = vec![ports(ForwardProtocol::Tcp, 80), ports(ForwardProtocol::Udp, 80)];
        scan.open_ports = BTreeMap::from([((0, 5_001), vec![7]), ((1, 5_000), vec![8, 9])]);
        // The second port is in no rule any more, and UDP leads elsewhere.
        let rules = vec![ports(ForwardProtocol::Udp, 90), ports(ForwardProtocol::Tcp, 80)];
        let (close, places) = scan.set_rules(vec![rule(1)], rules);
        assert_eq!((close, places), (vec![open[1]], vec![8, 9]));
        assert_eq!(scan.open_ports, BTreeMap::from([((1, 5_001), vec![7])]));
        let changes = scan.compare_forwards(&inside, usize::MAX, now);
        assert!(changes.open.is_empty() && changes.close.is_empty(), "it is open already");
        assert_eq!(scan.set_rules(Vec::new(), Vec::new()).0, [open[0]]);
        assert!(!scan.has_rules());
    }

    #[test]
    fn ports_without_room_wait_until_others_close() {
        let now = Instant::now();
        let everywhere = Forward { protocol: ForwardProtocol::Udp, also_ipv6: true, ..rule(10) };
        let mut scan = scan(everywhere);
        let mut inside = OwnPorts::default();
        (1_000..1_005).for_each(|port| inside.udp.insert(port));
        let changes = scan.compare_forwards(&inside, 7, now);
        assert!((changes.open.len(), changes.is_short) == (3, true), "two sockets each");
        scan.on_answer(&changes.open[..1], now);
        assert_eq!(scan.forward_sockets(), 4);
        let changes = scan.compare_forwards(&inside, 2, now);
        assert_eq!(changes.open[0].host.port(), 1_003, "the one that failed is tried later");
        assert!(changes.is_short);
        inside = OwnPorts::default();
        inside.udp.insert(1_004);
        let changes = scan.compare_forwards(&inside, 2, now);
        assert_eq!((changes.open.len(), changes.close.len()), (1, 3));
        assert!(!changes.is_short && scan.forward_sockets() == 2);
    }

    #[test]
    fn many_ports_are_opened_some_at_a_time() {
        let now = Instant::now();
        let mut scan = scan(rule(3_000));
        let mut inside = OwnPorts::default();
        (1_000..4_000).for_each(|port| inside.tcp.insert(port));
        let mut opened = Vec::new();
        for _ in 0..4 {
            opened.push(scan.compare_forwards(&inside, usize::MAX, now).open.len());
            scan.on_answer(&[], now);
        }
        assert_eq!(opened, [OPENED_CAP, OPENED_CAP, 3_000 - 2 * OPENED_CAP, 0]);
    }
}
