//! Requests about one network interface: `struct ifreq` and the ioctls of netdevice(7).
//!
//! Owns the layout of the request and the calls; [`attach`](super::attach) decides what each
//! interface gets. Nothing here allocates, so a forked child may use all of it.

use core::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::mac::MacAddr;

/// Longest name of an interface in bytes (`IFNAMSIZ` without the final zero).
pub(crate) const NAME_CAP: usize = 15;

/// Type of an Ethernet hardware address (`ARPHRD_ETHER`), the only one that a TAP device takes.
const HARDWARE_ETHER: u16 = libc::ARPHRD_ETHER;

/// `struct ifreq` as plain bytes: a name and up to 24 bytes, depending on the request.
///
/// The kernel's structure is 40 bytes long where pointers have 64 bits and 32 elsewhere, so this
/// one is never shorter than what the kernel reads or writes.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct InterfaceRequest {
    name: [u8; NAME_CAP + 1],
    value: [u8; 24],
}

impl core::fmt::Debug for InterfaceRequest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("InterfaceRequest").field(&self.name().escape_ascii().to_string()).finish()
    }
}

impl InterfaceRequest {
    /// A request about the interface `name`, cut to [`NAME_CAP`] bytes and at its first zero byte.
    pub(crate) fn new(name: &[u8]) -> Self {
        let mut request = Self { name: [0; NAME_CAP + 1], value: [0; 24] };
        let bytes = name.iter().take(NAME_CAP).take_while(|&&byte| byte != 0);
        for (to, from) in request.name.iter_mut().zip(bytes) {
            *to = *from;
        }
        request
    }

    /// The name, without its padding.
    pub(crate) fn name(&self) -> &[u8] {
        self.name.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// The address that the kernel reads and writes: of the whole structure.
    pub(super) fn as_pointer(&mut self) -> *mut Self {
        self
    }

    /// The same name with another value, its other bytes zero.
    pub(super) fn with<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        self.value = [0; 24];
        for (to, from) in self.value.iter_mut().zip(bytes) {
            *to = from;
        }
        self
    }

    /// The value as `ifr_flags`.
    pub(super) fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.value[0], self.value[1]])
    }

    /// The value as `ifr_hwaddr`: the address of an Ethernet device.
    pub(super) fn hardware_address(&self) -> Option<MacAddr> {
        let [t0, t1, a, b, c, d, e, f, ..] = self.value;
        (u16::from_ne_bytes([t0, t1]) == HARDWARE_ETHER).then_some(MacAddr([a, b, c, d, e, f]))
    }
}

/// The socket through which interfaces are configured.
pub(super) fn control_socket() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

/// The number of the interface.
///
/// # Errors
/// `ENODEV` when there is no such interface.
pub(crate) fn index(socket: BorrowedFd<'_>, interface: InterfaceRequest) -> Result<u32, Errno> {
    let mut request = interface;
    call(socket, Call::ReadIndex, &mut request)?;
    let [i0, i1, i2, i3, ..] = request.value;
    Ok(u32::from_ne_bytes([i0, i1, i2, i3]))
}

/// Sets the IPv4 address; the kernel derives netmask and broadcast address from its class.
pub(crate) fn set_address(
    socket: BorrowedFd<'_>,
    interface: InterfaceRequest,
    address: Ipv4Addr,
) -> Result<(), Errno> {
    call(socket, Call::SetAddress, &mut interface.with(socket_address(address)))
}

/// Sets the netmask; the kernel corrects the broadcast address that it had derived.
pub(crate) fn set_netmask(
    socket: BorrowedFd<'_>,
    interface: InterfaceRequest,
    prefix_len: u8,
) -> Result<(), Errno> {
    call(socket, Call::SetNetmask, &mut interface.with(socket_address(netmask(prefix_len))))
}

/// Reads the Ethernet address of a TAP device through its own descriptor.
pub(crate) fn mac_of_device(device: BorrowedFd<'_>) -> Result<Option<MacAddr>, Errno> {
    mac_of(device, InterfaceRequest::new(b""))
}

/// Reads the Ethernet address of an interface, if it has one.
pub(crate) fn mac_of(
    socket: BorrowedFd<'_>,
    interface: InterfaceRequest,
) -> Result<Option<MacAddr>, Errno> {
    let mut request = interface;
    call(socket, Call::ReadHardwareAddress, &mut request)?;
    Ok(request.hardware_address())
}

/// The requests that take a `struct ifreq`; a closed list, which makes [`call`] safe.
#[derive(Clone, Copy)]
enum Call {
    ReadIndex,
    ReadHardwareAddress,
    SetAddress,
    SetNetmask,
}

fn call(fd: BorrowedFd<'_>, call: Call, request: &mut InterfaceRequest) -> Result<(), Errno> {
    let number = match call {
        Call::ReadIndex => libc::SIOCGIFINDEX as libc::Ioctl,
        Call::ReadHardwareAddress => libc::SIOCGIFHWADDR as libc::Ioctl,
        Call::SetAddress => libc::SIOCSIFADDR as libc::Ioctl,
        Call::SetNetmask => libc::SIOCSIFNETMASK as libc::Ioctl,
    };
    // SAFETY: each of these requests reads or writes one `struct ifreq` (netdevice(7)), and
    // `InterfaceRequest` is at least that long; on any other kind of descriptor they fail.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), number, request.as_pointer()) };
    Errno::result(done).map(drop)
}

fn netmask(prefix_len: u8) -> Ipv4Addr {
    let host_bits = 32_u32.saturating_sub(prefix_len.into());
    Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0))
}

/// `struct sockaddr_in` with port 0 (ip(7)).
fn socket_address(address: Ipv4Addr) -> [u8; 8] {
    let [f0, f1] = u16::try_from(libc::AF_INET).unwrap_or(2).to_ne_bytes();
    let [a, b, c, d] = address.octets();
    [f0, f1, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_no_shorter_than_the_kernels() {
        assert!(size_of::<InterfaceRequest>() >= size_of::<libc::ifreq>());
        assert_eq!(core::mem::offset_of!(InterfaceRequest, value), 16);
    }

    #[test]
    fn name_is_cut_to_fifteen_bytes_and_at_a_zero_byte() {
        for (given, kept) in [
            (&b"tap0"[..], &b"tap0"[..]),
            (b"", b""),
            (b"a-name-far-too-long", b"a-name-far-too-"),
            (b"tap0\0evil", b"tap0"),
        ] {
            assert_eq!(InterfaceRequest::new(given).name(), kept);
        }
    }

    #[test]
    fn any_prefix_length_has_a_netmask() {
        for (prefix_len, expected) in [
            (0, 0),
            (1, 1 << 31),
            (24, 0xffff_ff00),
            (25, 0xffff_ff80),
            (32, u32::MAX),
            (99, u32::MAX),
        ] {
            assert_eq!(netmask(prefix_len).to_bits(), expected, "/{prefix_len}");
        }
    }

    #[test]
    fn addresses_are_laid_out_in_network_order() {
        let address = socket_address(Ipv4Addr::new(10, 0, 2, 100));
        assert_eq!(address[2..], [0, 0, 10, 0, 2, 100]);
        assert_eq!(u16::from_ne_bytes([address[0], address[1]]), 2);
    }
}
