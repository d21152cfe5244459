//! TFTP on the gateway: every transfer is refused (RFC 1350).
//!
//! Owns the refusal, which slirp4netns sends as well: a boot loader that asks for a file goes on to
//! its next choice at once instead of waiting for a timeout. No folder is served, so the file name
//! is not read.

use crate::discard::DiscardReason;

/// UDP port of the service.
pub(crate) const TFTP_PORT: u16 = 69;

const READ_REQUEST: u16 = 1;
const WRITE_REQUEST: u16 = 2;
/// Opcode 5 (error), code 2 (access violation) and its text (RFC 1350 section 5 and appendix).
const ACCESS_VIOLATION: &[u8] = b"\0\x05\0\x02Access violation\0";

/// Takes the payload of a datagram to port 69 and returns the payload of the answer.
///
/// # Errors
/// [`DiscardReason::TftpNotAnswered`] for everything but read and write requests: data,
/// acknowledgements and errors belong to a transfer, and there is none.
pub(crate) fn handle_tftp(message: &[u8]) -> Result<&'static [u8], DiscardReason> {
    let opcode = message.first_chunk().copied().map(u16::from_be_bytes);
    match opcode {
        Some(READ_REQUEST | WRITE_REQUEST) => Ok(ACCESS_VIOLATION),
        Some(_) | None => Err(DiscardReason::TftpNotAnswered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_refused_and_the_rest_is_ignored() {
        let refused = Ok(&b"\x00\x05\x00\x02Access violation\x00"[..]);
        let ignored = Err(DiscardReason::TftpNotAnswered);
        for (message, expected) in [
            (&b"\0\x01boot.img\0octet\0"[..], refused),
            (b"\0\x01..\\..\\secret\0octet\0", refused),
            (b"\0\x02core\0netascii\0", refused),
            (b"\0\x01", refused),
            (b"\0\x03\0\x01data", ignored),
            (b"\0\x04\0\x01", ignored),
            (b"\0\x05\0\x02no\0", ignored),
            (b"\0\x06blksize\x001400\0", ignored),
            (b"\x01\0boot.img\0octet\0", ignored),
            (b"\0", ignored),
            (b"", ignored),
        ] {
            assert_eq!(handle_tftp(message), expected, "{message:02x?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_message_panics(message: Vec<u8>) {
            let _ = handle_tftp(&message);
        }
    }
}
