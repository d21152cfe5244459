//! Netlink messages as bytes: what comes from the kernel, and what is sent to it.
//!
//! Owns the framing of messages and attributes ([`Messages`], [`Attributes`], [`Message`]). It
//! opens no socket and knows no family of messages: the meaning of a body is with its reader.
//! Lengths that lead out of the bytes end an iteration. netlink(7), rtnetlink(7).

/// Length of `struct nlmsghdr` in bytes: length, type, flags, sequence number, port.
pub(crate) const HEADER_LEN: usize = 16;
/// Length of an attribute's header in bytes: length, type.
const ATTRIBUTE_HEADER_LEN: usize = 4;

/// The type of an attribute without its two flags (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// `NLM_F_REQUEST | NLM_F_ACK`: do it and say so.
pub(crate) const CHANGE: u16 = 0x1 | 0x4;
/// `NLM_F_CREATE`: besides [`CHANGE`], make what does not exist.
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_EXCL`: besides [`CREATE`], refuse if it exists.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_REQUEST | NLM_F_DUMP`: list everything.
pub(crate) const DUMP: u16 = 0x1 | 0x300;
/// `NLM_F_DUMP_INTR`: the list has changed while it was read.
pub(crate) const INTERRUPTED: u16 = 0x10;

/// A message of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'m> {
    /// Its type.
    pub(crate) kind: u16,
    /// Its flags.
    pub(crate) flags: u16,
    /// The sequence number of the request that it answers; 0 for a notification.
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) body: &'m [u8],
}

impl Received<'_> {
    /// The error that the message reports: 0 for an acknowledgement, `None` for another type.
    pub(crate) fn error(&self) -> Option<i32> {
        let is_error = i32::from(self.kind) == libc::NLMSG_ERROR;
        let error = self.body.first_chunk().map_or(0, |error| i32::from_ne_bytes(*error));
        is_error.then_some(error.wrapping_neg())
    }

    /// Whether the message ends a list.
    pub(crate) fn is_end(&self) -> bool {
        i32::from(self.kind) == libc::NLMSG_DONE
    }
}

/// The messages in the bytes of one or more receptions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Messages<'m>(pub(crate) &'m [u8]);

impl<'m> Iterator for Messages<'m> {
    type Item = Received<'m>;

    fn next(&mut self) -> Option<Received<'m>> {
        let &[l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] =
            self.0.first_chunk::<HEADER_LEN>()?;
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let body = self.0.get(HEADER_LEN..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Received {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            body,
        })
    }
}

/// Attributes, each with its type and value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'m>(pub(crate) &'m [u8]);

impl<'m> Iterator for Attributes<'m> {
    type Item = (u16, &'m [u8]);

    fn next(&mut self) -> Option<(u16, &'m [u8])> {
        let &[l0, l1, k0, k1] = self.0.first_chunk::<ATTRIBUTE_HEADER_LEN>()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(ATTRIBUTE_HEADER_LEN..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & TYPE_MASK, value))
    }
}

/// A message that is being written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A message that begins with `body`, which attributes may follow.
    pub(crate) fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut message = vec![0; HEADER_LEN];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(body);
        Self(message)
    }

    /// Appends an attribute and returns where its value begins.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> usize {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        let len = u16::try_from(ATTRIBUTE_HEADER_LEN + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        let at = self.0.len();
        self.0.extend_from_slice(value);
        at
    }

    /// The message as it is sent, with this sequence number.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// An IP address as the value of an attribute.
pub(crate) fn address(value: &[u8]) -> Option<core::net::IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(core::net::IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(core::net::IpAddr::from)).ok()
}

/// A number as the value of an attribute.
pub(crate) fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = Message::new(7, CHANGE, &[1, 2, 3, 4]);
        assert_eq!(message.attribute(3, b"odd"), HEADER_LEN + 8);
        assert_eq!(message.attribute(4, &9_u32.to_ne_bytes()), HEADER_LEN + 16);
        let bytes = message.finish(11);
        let [read] = Messages(&bytes).collect::<Vec<_>>()[..] else { panic!("one message") };
        assert_eq!((read.kind, read.flags, read.sequence), (7, CHANGE, 11));
        let (body, attributes) = read.body.split_at(4);
        assert_eq!(body, [1, 2, 3, 4]);
        let read: Vec<_> = Attributes(attributes).collect();
        assert_eq!(read, [(3, &b"odd"[..]), (4, &9_u32.to_ne_bytes())]);
    }

    #[test]
    fn cut_bytes_end_an_iteration() {
        let mut message = Message::new(7, CHANGE, &[0; 4]);
        message.attribute(3, &[0; 8]);
        let bytes = message.finish(0);
        for len in 0..bytes.len() {
            assert!(Messages(&bytes[..len]).next().is_none(), "{len} bytes");
        }
        let attributes = &bytes[HEADER_LEN + 4..];
        for len in 0..attributes.len() {
            assert!(Attributes(&attributes[..len]).next().is_none(), "{len} bytes");
        }
        // A length that is shorter than its header.
        assert!(Messages(&[3; HEADER_LEN]).next().is_none());
        assert!(Messages(&[0; HEADER_LEN]).next().is_none());
        assert!(Attributes(&[3, 0, 1, 0]).next().is_none());
    }

    #[test]
    fn acknowledgement_is_told_from_an_error() {
        let answer = |error: i32| {
            let kind = u16::try_from(libc::NLMSG_ERROR).unwrap();
            Message::new(kind, 0, &error.to_ne_bytes()).finish(0)
        };
        for (error, expected) in [(0, 0), (-libc::EEXIST, libc::EEXIST), (i32::MIN, i32::MIN)] {
            let bytes = answer(error);
            assert_eq!(Messages(&bytes).next().and_then(|read| read.error()), Some(expected));
        }
    }
}
