//! How many bytes have passed through a flow.

/// Payload bytes of a flow since its beginning, headers and repetitions not counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// From the guest to the remote.
    pub from_guest: u64,
    /// From the remote to the guest.
    pub to_guest: u64,
}

impl Traffic {
    pub(crate) const fn add_from_guest(&mut self, len: usize) {
        self.from_guest = self.from_guest.saturating_add(len as u64);
    }

    pub(crate) const fn add_to_guest(&mut self, len: usize) {
        self.to_guest = self.to_guest.saturating_add(len as u64);
    }

    /// Adds what a flow has moved between two moments.
    pub(crate) const fn add_growth(&mut self, before: Self, after: Self) {
        let from_guest = after.from_guest.saturating_sub(before.from_guest);
        let to_guest = after.to_guest.saturating_sub(before.to_guest);
        self.from_guest = self.from_guest.saturating_add(from_guest);
        self.to_guest = self.to_guest.saturating_add(to_guest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_stops_counting_instead_of_starting_anew() {
        let mut traffic = Traffic { from_guest: u64::MAX - 1, to_guest: 0 };
        traffic.add_from_guest(5);
        traffic.add_to_guest(5);
        assert_eq!(traffic, Traffic { from_guest: u64::MAX, to_guest: 5 });
    }
}
