//! Sets of port numbers.
//!
//! Owns [`PortSet`] and [`OwnPorts`], the ports of the host at which this instance listens.

use crate::host::forward::{Forward, ForwardProtocol};

/// Words of a set: one bit for each of 65,536 ports.
const WORDS: usize = 1024;

/// A set of ports in 8 KiB.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PortSet(Box<[u64; WORDS]>);

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl core::fmt::Debug for PortSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

const fn place(port: u16) -> (usize, u64) {
    ((port >> 6) as usize, 1 << (port & 63))
}

impl PortSet {
    /// Adds a port.
    pub(crate) fn insert(&mut self, port: u16) {
        let (word, bit) = place(port);
        self.0[word] |= bit;
    }

    /// Whether the port is in it.
    pub(crate) fn contains(&self, port: u16) -> bool {
        let (word, bit) = place(port);
        self.0[word] & bit != 0
    }

    /// The ports in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> {
        (0..=u16::MAX).filter(|&port| self.contains(port))
    }

    /// Adds all ports of another set.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(mine, theirs)| *mine |= theirs);
    }

    /// Takes out all ports of another set.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(mine, theirs)| *mine &= !theirs);
    }
}

/// A set of TCP ports and one of UDP ports.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct OwnPorts {
    pub(crate) tcp: PortSet,
    pub(crate) udp: PortSet,
}

impl OwnPorts {
    /// The ports of one protocol.
    pub(crate) const fn of(&self, protocol: ForwardProtocol) -> &PortSet {
        match protocol {
            ForwardProtocol::Tcp => &self.tcp,
            ForwardProtocol::Udp => &self.udp,
        }
    }

    /// The ports of one protocol, to be changed.
    pub(crate) const fn of_mut(&mut self, protocol: ForwardProtocol) -> &mut PortSet {
        match protocol {
            ForwardProtocol::Tcp => &mut self.tcp,
            ForwardProtocol::Udp => &mut self.udp,
        }
    }

    /// Adds the ports of the host that a rule listens at.
    pub(crate) fn add(&mut self, forward: &Forward) {
        let ports = self.of_mut(forward.protocol);
        (forward.host.port()..=forward.last_host_port()).for_each(|port| ports.insert(port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_has_what_was_put_in_and_not_taken_out() {
        let mut set = PortSet::default();
        for port in [0, 1, 63, 64, 80, 65_535] {
            set.insert(port);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 1, 63, 64, 80, 65_535]);
        let mut other = PortSet::default();
        other.insert(80);
        other.insert(81);
        set.subtract(&other);
        assert!(!set.contains(80) && set.contains(64));
        set.extend(&other);
        assert!(set.contains(80) && set.contains(81));
    }

    #[test]
    fn rule_adds_its_whole_range() {
        let (host, guest) = ("0.0.0.0:65534".parse().unwrap(), "10.0.2.100:1".parse().unwrap());
        let forward = Forward { ports: 2, ..Forward::new(ForwardProtocol::Udp, host, guest) };
        let mut own = OwnPorts::default();
        own.add(&forward);
        assert_eq!(own.of(ForwardProtocol::Udp).iter().collect::<Vec<_>>(), [65_534, 65_535]);
        assert_eq!(own.of(ForwardProtocol::Tcp).iter().count(), 0);
    }
}
