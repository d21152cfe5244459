//! What the payload of a connection takes as IP packets.

/// The packets that a connection is cut into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segments {
    /// Payload of each, in bytes; at least 1.
    mss: u64,
    /// IP and TCP header of each, in bytes.
    headers: u64,
}

impl Segments {
    /// Segments of `mss` bytes, of IPv4 or IPv6.
    pub(crate) fn new(mss: u16, is_ipv4: bool) -> Self {
        Self::of(u64::from(mss).max(1), if is_ipv4 { 40 } else { 60 })
    }

    pub(super) const fn of(mss: u64, headers: u64) -> Self {
        Self { mss, headers }
    }

    /// Bytes of IP packets that `payload` takes.
    pub(crate) fn len_of(self, payload: usize) -> u64 {
        let payload = payload as u64;
        payload.saturating_add(payload.div_ceil(self.mss).saturating_mul(self.headers))
    }

    /// The payload that `len` bytes of IP packets hold.
    pub(crate) fn payload_in(self, len: u64) -> usize {
        let whole = self.mss + self.headers;
        let payload = len / whole * self.mss + (len % whole).saturating_sub(self.headers);
        usize::try_from(payload).unwrap_or(usize::MAX)
    }
}

/// Bytes of IP packets that datagrams take: `payload` bytes in one, or in several of `each` bytes.
pub(crate) fn datagrams_len(payload: usize, each: Option<u16>, is_ipv4: bool) -> u64 {
    let headers = if is_ipv4 { 28 } else { 48 };
    let count = match each {
        Some(each) if each > 0 => payload.div_ceil(usize::from(each)).max(1),
        Some(_) | None => 1,
    };
    payload as u64 + count as u64 * headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_segment_counts_with_its_headers() {
        let segments = Segments::new(1460, true);
        for (payload, len) in [(0, 0), (1, 41), (1460, 1500), (1461, 1541), (2920, 3000)] {
            assert_eq!(segments.len_of(payload), len);
            assert_eq!(segments.payload_in(len), payload);
        }
        assert_eq!(segments.payload_in(40), 0);
        assert_eq!(segments.payload_in(1540), 1460, "a header alone holds nothing");
        assert_eq!(Segments::new(1440, false).len_of(1440), 1500);
        assert_eq!(Segments::new(0, true).len_of(2), 82);
    }

    #[test]
    fn payload_that_fits_never_takes_more() {
        for mss in [1, 536, 1460, 65_480] {
            let segments = Segments::new(mss, true);
            for len in 0..20_000 {
                assert!(segments.len_of(segments.payload_in(len)) <= len);
            }
            assert_eq!(segments.len_of(usize::MAX), u64::MAX, "{mss}");
            segments.payload_in(u64::MAX);
        }
    }

    #[test]
    fn every_datagram_counts_with_its_headers() {
        for (payload, each, len) in [
            (0, None, 28),
            (1472, None, 1500),
            (3000, Some(1000), 3084),
            (2500, Some(1000), 2584),
            (0, Some(10), 28),
            (10, Some(0), 38),
        ] {
            assert_eq!(datagrams_len(payload, each, true), len);
        }
        assert_eq!(datagrams_len(1000, None, false), 1048);
    }
}
