//! A guest's record of its TCP conversations.
//!
//! Owns four conversations of known content: a byte of the guest follows from its sequence number,
//! a byte to the guest from its distance to the SYN|ACK. So any mix of repeats, overlaps and gaps
//! has one correct outcome, and any misplaced byte is noticed.

use core::net::SocketAddr;

use slirp_core::config::StackConfig;

use crate::check::TcpSeen;
use crate::packet::{ACK, FIN, RST, SYN, Tcp, VNET_LEN, ethernet, tcp};

/// Addresses of the conversations: host loopback through the gateway, a distant remote, a distant
/// remote over IPv6, and the DNS service.
const ENDS: [(&str, &str); 4] = [
    ("10.0.2.100:40000", "10.0.2.2:80"),
    ("10.0.2.100:40001", "192.0.2.1:443"),
    ("[fd00::100]:40002", "[2001:db8::1]:80"),
    ("10.0.2.100:40003", "10.0.2.3:53"),
];

/// The content of a stream at position `at`.
pub(crate) const fn content(at: u32) -> u8 {
    at.wrapping_mul(0x9e37_79b1).to_be_bytes()[0]
}

/// One conversation.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub(crate) guest: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// The sequence number of the SYN.
    pub(crate) isn: u32,
    /// The sequence number after the bytes that were sent in order.
    pub(crate) next: u32,
    /// The last acknowledgement of the stack.
    pub(crate) acknowledged: u32,
    /// The sequence number of the stack's SYN|ACK.
    pub(crate) their_isn: Option<u32>,
    /// The sequence number after everything that the stack sent.
    pub(crate) their_next: u32,
    /// Where the guest has ended its stream.
    pub(crate) ends: Vec<u32>,
    /// The sequence number after the last byte that it sent.
    pub(crate) sent_end: u32,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) conversations: Vec<Conversation>,
    /// Whether content is known and judged: every frame that was sent is in the record.
    strict: bool,
    ends: Vec<u32>,
}

impl Guest {
    pub(crate) fn new() -> Self {
        let conversations = ENDS
            .iter()
            .map(|(guest, remote)| Conversation {
                guest: guest.parse().expect("a constant"),
                remote: remote.parse().expect("a constant"),
                isn: 0,
                next: 0,
                acknowledged: 0,
                their_isn: None,
                their_next: 0,
                ends: Vec::new(),
                sent_end: 0,
            })
            .collect();
        Self { conversations, strict: false, ends: Vec::new() }
    }

    /// Content is known from now on.
    pub(crate) const fn be_strict(&mut self) {
        self.strict = true;
    }

    /// Records a segment of the stack and checks its content.
    pub(crate) fn hear(&mut self, segment: &TcpSeen<'_>) {
        let known = |c: &&mut Conversation| (c.remote, c.guest) == (segment.from, segment.to);
        let Some(conversation) = self.conversations.iter_mut().find(known) else {
            // A conversation that the target does not record.
            self.remember(segment);
            return;
        };
        if segment.flags & RST != 0 {
            return;
        }
        if segment.flags & SYN != 0 {
            conversation.their_isn = Some(segment.seq);
            conversation.their_next = segment.seq.wrapping_add(1);
        }
        if segment.flags & ACK != 0 {
            conversation.acknowledged = segment.ack;
        }
        let Some(isn) = conversation.their_isn else {
            assert!(!self.strict, "data before a SYN|ACK: {segment:?}");
            return;
        };
        let start = segment.seq.wrapping_add(u32::from(segment.flags & SYN != 0));
        if self.strict && conversation.remote.port() != 53 {
            let mut at = start.wrapping_sub(isn).wrapping_sub(1);
            for &byte in segment.payload {
                assert_eq!(byte, content(at), "byte {at} to the guest is what the host sent");
                at = at.wrapping_add(1);
            }
        }
        let len = u32::try_from(segment.payload.len()).expect("a frame fits");
        let end = start.wrapping_add(len).wrapping_add(u32::from(segment.flags & FIN != 0));
        if end.wrapping_sub(conversation.their_next) < 1 << 31 {
            conversation.their_next = end;
        }
    }

    /// Notes what `which` sends up to `end`; returns whether it sends after an end of its stream,
    /// or ends the stream before bytes that it sent. The host's data is then undefined by the
    /// guest's own fault.
    pub(crate) fn note_sent(&mut self, which: usize, end: u32, is_end: bool) -> bool {
        let is_before = |a: u32, b: u32| a.wrapping_sub(b) > u32::MAX / 2;
        let c = &mut self.conversations[which];
        let is_odd = c.ends.iter().any(|&known| is_before(known, end))
            || (is_end && is_before(end, c.sent_end));
        if is_before(c.sent_end, end) {
            c.sent_end = end;
        }
        is_odd
    }

    /// Notes that the stream of `which` ends at `seq`.
    pub(crate) fn note_end(&mut self, which: usize, seq: u32) {
        self.conversations[which].ends.push(seq);
        self.ends.push(seq);
    }

    /// Checks that the guest ended its stream at `seq`, where the host was told that it ends.
    pub(crate) fn judge_end(&self, seq: u32) {
        if self.strict {
            assert!(self.ends.contains(&seq), "no FIN at {seq}, only {:?}", self.ends);
        }
    }

    /// A reset for every conversation, at the sequence number that the stack expects.
    pub(crate) fn resets(&self, config: &StackConfig) -> Vec<Vec<u8>> {
        self.conversations
            .iter()
            .map(|c| {
                let packet = tcp(&Tcp {
                    from: c.guest,
                    to: c.remote,
                    seq: c.acknowledged,
                    ack: c.their_next,
                    flags: RST | ACK,
                    window: 0,
                    urgent: 0,
                    options: &[],
                    payload: &[],
                });
                with_vnet(config, &packet)
            })
            .collect()
    }

    fn remember(&mut self, segment: &TcpSeen<'_>) {
        self.conversations.push(Conversation {
            guest: segment.to,
            remote: segment.from,
            isn: 0,
            next: 0,
            acknowledged: segment.ack,
            their_isn: (segment.flags & SYN != 0).then_some(segment.seq),
            their_next: segment.seq.wrapping_add(1),
            ends: Vec::new(),
            sent_end: 0,
        });
    }
}

/// A frame around an IP packet, with an empty virtio-net header if the device has one.
pub(crate) fn with_vnet(config: &StackConfig, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; if config.offload.vnet_header { VNET_LEN } else { 0 }];
    frame.extend_from_slice(&ethernet(packet));
    frame
}
