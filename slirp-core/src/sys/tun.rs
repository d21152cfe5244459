//! The ioctls of a TUN/TAP device (`Documentation/networking/tuntap.rst`, `linux/if_tun.h`).
//!
//! Owns the calls on a descriptor of `/dev/net/tun`. [`Tap`](crate::host::link::Tap) decides which
//! features to request, and in which order to give them up. Nothing here allocates, so a forked
//! child may use all of it.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::ifreq::InterfaceRequest;

/// A TAP device: Ethernet frames instead of IP packets.
pub(crate) const TAP: u16 = 0x0002;
/// No four bytes of packet information before each frame.
pub(crate) const NO_PACKET_INFORMATION: u16 = 0x1000;
/// A virtio-net header before each frame.
pub(crate) const VNET_HEADER: u16 = 0x4000;
/// One of several queues.
pub(crate) const MULTI_QUEUE: u16 = 0x0100;

/// Checksums may be left to the other side.
pub(crate) const OFFLOAD_CHECKSUM: u8 = 0x01;
/// TCP over IPv4 may come in large frames.
pub(crate) const OFFLOAD_TSO4: u8 = 0x02;
/// TCP over IPv6 may come in large frames.
pub(crate) const OFFLOAD_TSO6: u8 = 0x04;
/// Large frames may carry ECN marks.
pub(crate) const OFFLOAD_TSO_ECN: u8 = 0x08;
/// UDP over IPv4 may come with several datagrams in a frame (Linux 6.2).
pub(crate) const OFFLOAD_USO4: u8 = 0x20;
/// UDP over IPv6 may come with several datagrams in a frame (Linux 6.2).
pub(crate) const OFFLOAD_USO6: u8 = 0x40;

/// Makes `device` the interface of that name, or attaches it to a persistent one; returns the
/// interface with the name that the kernel gave it.
pub(crate) fn set_interface(
    device: BorrowedFd<'_>,
    interface: InterfaceRequest,
    flags: u16,
) -> Result<InterfaceRequest, Errno> {
    let mut request = interface.with(flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, and InterfaceRequest is at least that
    // long.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, request.as_pointer()) };
    Errno::result(done).map(|_| request)
}

/// Name and flags of the interface behind `device`.
pub(crate) fn interface(device: BorrowedFd<'_>) -> Result<(InterfaceRequest, u16), Errno> {
    let mut request = InterfaceRequest::new(b"");
    // SAFETY: TUNGETIFF writes one `struct ifreq`, and InterfaceRequest is at least that long.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNGETIFF, request.as_pointer()) };
    Errno::result(done).map(|_| (request, request.flags()))
}

/// Tells the kernel which frames this side understands (`OFFLOAD_*`); all or nothing.
pub(crate) fn set_offload(device: BorrowedFd<'_>, offload: u8) -> Result<(), Errno> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let done = unsafe {
        libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offload))
    };
    Errno::result(done).map(drop)
}

/// Sets the length of the virtio-net header in bytes.
pub(crate) fn set_vnet_header_len(device: BorrowedFd<'_>, len: u8) -> Result<(), Errno> {
    write_number(device, libc::TUNSETVNETHDRSZ, libc::c_int::from(len))
}

/// Resets the header's byte order to the host's, in case another program had set one.
///
/// A kernel that does not know the request has nothing to reset, hence no error.
pub(crate) fn use_native_byte_order(device: BorrowedFd<'_>) {
    for request in [libc::TUNSETVNETLE, libc::TUNSETVNETBE] {
        let _unknown_to_this_kernel = write_number(device, request, 0);
    }
}

fn write_number(
    device: BorrowedFd<'_>,
    request: libc::Ioctl,
    number: libc::c_int,
) -> Result<(), Errno> {
    // SAFETY: the callers' requests (TUNSETVNETHDRSZ, TUNSETVNETLE, TUNSETVNETBE) read one int.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), request, &raw const number) };
    Errno::result(done).map(drop)
}
