//! The table from `errno` to what the guest is told.
//!
//! Owns the one place where a number of the kernel becomes a [`HostError`]. What the guest sees for
//! each of them (a reset, an ICMP message, silence) is decided on the pure side. The numbers are
//! explained in errno(3), connect(2), ip(7), ipv6(7), udp(7) and tcp(7); how the kernel maps ICMP
//! codes to them is RFC 1122 sections 3.2.2 and 4.2.3.9.

use std::io;

use crate::event::HostError;

impl HostError {
    /// What `errno` means for the guest.
    ///
    /// Total: a number that is not in the table is [`HostError::NetworkUnreachable`], so that the
    /// guest hears of the failure instead of waiting for its own timeout.
    pub(crate) const fn from_errno(errno: i32) -> Self {
        match errno {
            libc::ECONNREFUSED => Self::Refused,
            libc::ECONNRESET | libc::ECONNABORTED | libc::EPIPE => Self::Reset,
            libc::EHOSTUNREACH | libc::EHOSTDOWN => Self::HostUnreachable,
            libc::ETIMEDOUT => Self::TimedOut,
            libc::EMSGSIZE => Self::TooLarge(None),
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EADDRNOTAVAIL
            | libc::EAGAIN => Self::Exhausted,
            // ENETUNREACH, EPERM (a packet filter), EACCES, EAFNOSUPPORT (no IPv6), …
            _ => Self::NetworkUnreachable,
        }
    }

    /// The same for an error of `std::io`; one that carries no number counts as unexpected.
    pub(crate) fn from_io(error: &io::Error) -> Self {
        error.raw_os_error().map_or(Self::NetworkUnreachable, Self::from_errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! rows {
        ($( $test:ident: $errno:ident => $error:expr, )+) => {
            $(
                #[test]
                fn $test() {
                    assert_eq!(HostError::from_errno(libc::$errno), $error);
                    let error = io::Error::from_raw_os_error(libc::$errno);
                    assert_eq!(HostError::from_io(&error), $error);
                }
            )+
        };
    }

    rows! {
        econnrefused_is_refused: ECONNREFUSED => HostError::Refused,
        econnreset_is_reset: ECONNRESET => HostError::Reset,
        econnaborted_is_reset: ECONNABORTED => HostError::Reset,
        epipe_is_reset: EPIPE => HostError::Reset,
        ehostunreach_is_host_unreachable: EHOSTUNREACH => HostError::HostUnreachable,
        ehostdown_is_host_unreachable: EHOSTDOWN => HostError::HostUnreachable,
        etimedout_is_timed_out: ETIMEDOUT => HostError::TimedOut,
        emsgsize_is_too_large: EMSGSIZE => HostError::TooLarge(None),
        emfile_is_exhausted: EMFILE => HostError::Exhausted,
        enfile_is_exhausted: ENFILE => HostError::Exhausted,
        enobufs_is_exhausted: ENOBUFS => HostError::Exhausted,
        enomem_is_exhausted: ENOMEM => HostError::Exhausted,
        eaddrnotavail_is_exhausted: EADDRNOTAVAIL => HostError::Exhausted,
        eagain_is_exhausted: EAGAIN => HostError::Exhausted,
        enetunreach_is_network_unreachable: ENETUNREACH => HostError::NetworkUnreachable,
        eperm_is_network_unreachable: EPERM => HostError::NetworkUnreachable,
        eacces_is_network_unreachable: EACCES => HostError::NetworkUnreachable,
        eafnosupport_is_network_unreachable: EAFNOSUPPORT => HostError::NetworkUnreachable,
        an_unexpected_errno_is_network_unreachable: EXDEV => HostError::NetworkUnreachable,
    }

    #[test]
    fn an_error_without_a_number_is_network_unreachable() {
        let error = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(HostError::from_io(&error), HostError::NetworkUnreachable);
    }
}
