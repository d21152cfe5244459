//! Consecutive datagrams of the guest, gathered so that one call sends them.
//!
//! Owns one train: datagrams with equal addresses and header fields and of one length (the last may
//! be shorter), as `UDP_SEGMENT` takes them (udp(7)). Without this offload in the guest's device or
//! program, each datagram arrives in a frame of its own, and one call for each would cost more than
//! all other work. A train ends with the first frame that does not continue it, and with the batch
//! of frames. So no datagram is reordered, and none waits for frames that have not been read.

use crate::event::Datagram;
use crate::host::socket::udp::{BATCH_LEN_CAP, SEGMENTS_CAP};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Train {
    /// The first datagram, without its payload.
    first: Option<Datagram<'static>>,
    payload: Vec<u8>,
    /// Length of the first datagram.
    segment_len: u16,
    /// Whether a shorter datagram has ended the train, so that no other can join.
    is_ended: bool,
}

impl Train {
    /// Copies the first datagram of a train. Returns whether other datagrams can join it.
    pub(super) fn try_begin(&mut self, datagram: &Datagram<'_>) -> bool {
        let Some((way, payload)) = split(datagram) else {
            return false;
        };
        let Ok(segment_len) = u16::try_from(payload.len()) else {
            return false;
        };
        self.first = Some(way);
        self.payload.clear();
        self.payload.extend_from_slice(payload);
        self.segment_len = segment_len;
        self.is_ended = false;
        true
    }

    /// Copies a datagram that continues the train. Returns whether it does.
    pub(super) fn try_join(&mut self, datagram: &Datagram<'_>) -> bool {
        if self.first.is_none() || self.is_ended {
            return false;
        }
        let Some((way, payload)) = split(datagram) else {
            return false;
        };
        let segment_len = usize::from(self.segment_len);
        let len = self.payload.len() + payload.len();
        let continues = self.first == Some(way)
            && payload.len() <= segment_len
            && len <= BATCH_LEN_CAP
            && len <= segment_len * SEGMENTS_CAP;
        if continues {
            self.payload.extend_from_slice(payload);
            self.is_ended = payload.len() < segment_len;
        }
        continues
    }

    /// Takes the train and so ends it; `None` when there is none.
    pub(super) fn take(&mut self) -> Option<Datagram<'_>> {
        let first = self.first.take()?;
        let segment_len =
            (self.payload.len() > usize::from(self.segment_len)).then_some(self.segment_len);
        Some(match first {
            Datagram::Udp { flow, guest, remote, envelope, .. } => {
                Datagram::Udp { flow, guest, remote, payload: &self.payload, segment_len, envelope }
            }
            Datagram::InboundUdp { flow, origin, envelope, .. } => {
                Datagram::InboundUdp { flow, origin, payload: &self.payload, segment_len, envelope }
            }
            echo @ Datagram::Echo { .. } => echo,
        })
    }
}

/// Splits a datagram into header fields and payload. `None` for a datagram that cannot be part of a
/// train: an echo request, a datagram that is segmented already, and an empty one, which cannot be
/// a segment.
const fn split<'a>(datagram: &Datagram<'a>) -> Option<(Datagram<'static>, &'a [u8])> {
    let (way, payload) = match *datagram {
        Datagram::Udp { flow, guest, remote, payload, segment_len: None, envelope } => (
            Datagram::Udp { flow, guest, remote, payload: &[], segment_len: None, envelope },
            payload,
        ),
        Datagram::InboundUdp { flow, origin, payload, segment_len: None, envelope } => {
            let way =
                Datagram::InboundUdp { flow, origin, payload: &[], segment_len: None, envelope };
            (way, payload)
        }
        Datagram::Udp { .. } | Datagram::InboundUdp { .. } | Datagram::Echo { .. } => return None,
    };
    if payload.is_empty() { None } else { Some((way, payload)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Envelope, FlowId};

    const ENVELOPE: Envelope = Envelope { hop_limit: 63, traffic_class: 0, dont_fragment: true };

    fn datagram(port: u16, payload: &[u8], envelope: Envelope) -> Datagram<'_> {
        let flow = FlowId { index: 0, generation: 1 };
        let remote = ([192, 0, 2, 1], port).into();
        let guest = ([10, 0, 2, 100], 5000).into();
        Datagram::Udp { flow, guest, remote, payload, segment_len: None, envelope }
    }

    fn plain(payload: &[u8]) -> Datagram<'_> {
        datagram(9, payload, ENVELOPE)
    }

    fn taken(train: &mut Train) -> Option<(Vec<u8>, Option<u16>)> {
        match train.take()? {
            Datagram::Udp { payload, segment_len, .. } => Some((payload.to_vec(), segment_len)),
            Datagram::InboundUdp { .. } | Datagram::Echo { .. } => panic!("not what was put in"),
        }
    }

    #[test]
    fn datagrams_of_one_length_leave_together_and_a_shorter_one_is_the_last() {
        let mut train = Train::default();
        assert!(!train.try_join(&plain(b"1111")), "nothing to join");
        assert!(train.try_begin(&plain(b"1111")));
        assert!(train.try_join(&plain(b"2222")));
        assert!(!train.try_join(&plain(b"33333")), "longer");
        assert!(train.try_join(&plain(b"333")));
        assert!(!train.try_join(&plain(b"4444")), "behind a shorter one");
        assert_eq!(taken(&mut train), Some((b"11112222333".to_vec(), Some(4))));
        assert_eq!(taken(&mut train), None);
        assert!(train.try_begin(&plain(b"alone")));
        assert_eq!(taken(&mut train), Some((b"alone".to_vec(), None)));
    }

    #[test]
    fn what_goes_elsewhere_or_otherwise_does_not_join() {
        let mut train = Train::default();
        assert!(!train.try_begin(&plain(b"")));
        assert!(train.try_begin(&plain(b"1111")));
        let envelopes = [
            Envelope { hop_limit: 1, ..ENVELOPE },
            Envelope { traffic_class: 1, ..ENVELOPE },
            Envelope { dont_fragment: false, ..ENVELOPE },
        ];
        for envelope in envelopes {
            assert!(!train.try_join(&datagram(9, b"2222", envelope)), "{envelope:?}");
        }
        assert!(!train.try_join(&datagram(10, b"2222", ENVELOPE)));
        assert!(!train.try_join(&plain(b"")));
        assert!(train.try_join(&plain(b"2222")));
    }

    #[test]
    fn a_train_is_no_longer_than_one_call_takes() {
        for (len, count) in [(100, SEGMENTS_CAP), (1400, 46), (40_000, 1)] {
            let payload = vec![7; len];
            let mut train = Train::default();
            assert!(train.try_begin(&plain(&payload)));
            let joined = (0..100).take_while(|_| train.try_join(&plain(&payload))).count();
            assert_eq!(joined + 1, count, "{len}");
        }
    }
}
