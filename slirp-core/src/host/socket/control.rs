//! Control messages and addresses of recvmsg(2), as sockets and error queues read them.

use std::net::SocketAddr;

use nix::sys::socket::SockaddrStorage;

/// Room for the control messages that we ask for: one error report (64 bytes), a local address
/// (40 bytes), a hop limit, a traffic class and a segment length (24 bytes each). Aligned as
/// cmsg(3) demands.
#[repr(align(8))]
pub(crate) struct ControlBuffer([u8; 192]);

impl ControlBuffer {
    pub(crate) const fn new() -> Self {
        Self([0; 192])
    }

    pub(crate) const fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The kernel's address as that of `std`; `None` for a family that is not IP.
pub(crate) fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some((*v4).into());
    }
    address.as_sockaddr_in6().map(|v6| (*v6).into())
}
