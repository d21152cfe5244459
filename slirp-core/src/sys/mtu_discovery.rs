//! Whether the kernel may fragment what a socket sends (`IP_MTU_DISCOVER`, ip(7);
//! `IPV6_MTU_DISCOVER`, ipv6(7)).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;

/// Length of the options' value, an int, in bytes.
const INT_LEN: libc::socklen_t = libc::c_int::BITS / 8;

/// Makes an IPv4 or IPv6 socket refuse datagrams above the path's MTU, as far as the host knows it,
/// or fragment them. Either way datagrams that fit are sent with "don't fragment".
///
/// # Errors
/// The errors of setsockopt(2).
pub(crate) fn set_dont_fragment(socket: BorrowedFd<'_>, is_ipv6: bool, on: bool) -> io::Result<()> {
    let (level, name, mode) = match (is_ipv6, on) {
        (false, true) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        (false, false) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT),
        (true, true) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
        (true, false) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT),
    };
    // SAFETY: both options take an int (ip(7), ipv6(7)); the kernel reads as many bytes as an int
    // has from `mode`, which lives until the call returns.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(&mode).cast(), INT_LEN)
    };
    Errno::result(set)?;
    Ok(())
}
