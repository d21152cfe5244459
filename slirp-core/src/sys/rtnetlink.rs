//! Addresses and routes that the ioctls of netdevice(7) cannot express: rtnetlink(7).
//!
//! Owns the messages and the wait for their acknowledgement. [`attach`](super::attach) decides what
//! each interface gets. Nothing here allocates, so a forked child may use all of it.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// Room for the longest message: headers of 16 and 12 bytes and three attributes of at most 20.
const MESSAGE_CAP: usize = 128;

/// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE` (netlink(7)).
const CREATE: u16 = CHANGE | 0x200 | 0x400;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const CHANGE: u16 = 0x1 | 0x4;

/// No duplicate address detection: no other station is on the link (`IFA_F_NODAD`).
const NO_DETECTION: u8 = 0x02;

/// A message that is being written. Bytes that do not fit are dropped, and the kernel then refuses
/// the message.
struct Message {
    bytes: [u8; MESSAGE_CAP],
    len: usize,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self { bytes: [0; MESSAGE_CAP], len: 4 };
        message.push(&kind.to_ne_bytes());
        message.push(&flags.to_ne_bytes());
        // Sequence number and port of the sender, which are not used.
        message.push(&[0; 8]);
        message
    }

    fn push(&mut self, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(bytes) {
            *to = *from;
        }
        self.len = self.len.saturating_add(bytes.len()).min(MESSAGE_CAP);
    }

    /// An attribute, whose value has a multiple of four bytes.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
        self.push(&len.to_ne_bytes());
        self.push(&kind.to_ne_bytes());
        self.push(value);
    }

    /// Sends the message and waits for the kernel's acknowledgement.
    fn carry_out(mut self) -> Result<(), Errno> {
        let len = u32::try_from(self.len).unwrap_or(u32::MAX).to_ne_bytes();
        for (to, from) in self.bytes.iter_mut().zip(len) {
            *to = from;
        }
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        let bytes = self.bytes.get(..self.len).ok_or(Errno::EMSGSIZE)?;
        send(netlink.as_raw_fd(), bytes, MsgFlags::empty())?;
        let mut answer = [0_u8; 256];
        let len = loop {
            match recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        // struct nlmsghdr (16 bytes, the type after the length), then the error, negative or 0.
        match (len, answer) {
            (20.., [_, _, _, _, t0, t1, _, _, _, _, _, _, _, _, _, _, e0, e1, e2, e3, ..])
                if i32::from(u16::from_ne_bytes([t0, t1])) == libc::NLMSG_ERROR =>
            {
                match i32::from_ne_bytes([e0, e1, e2, e3]) {
                    0 => Ok(()),
                    error => Err(Errno::from_raw(error.wrapping_neg())),
                }
            }
            _ => Err(Errno::EBADMSG),
        }
    }
}

fn family(number: libc::c_int) -> u8 {
    u8::try_from(number).unwrap_or_default()
}

/// Sets the length of an interface's transmit queue in packets. The ioctl for it needs a capability
/// in the initial user namespace.
///
/// # Errors
/// The kernel's.
pub(crate) fn set_queue_len(index: u32, packets: u16) -> Result<(), Errno> {
    let mut message = Message::new(libc::RTM_NEWLINK, CHANGE);
    message.push(&[0; 4]);
    message.push(&index.to_ne_bytes());
    message.push(&[0; 8]);
    message.attribute(libc::IFLA_TXQLEN, &u32::from(packets).to_ne_bytes());
    message.carry_out()
}

/// Gives an interface an IPv6 address that may be used at once.
///
/// # Errors
/// `EACCES` when IPv6 is disabled on the interface, `EEXIST` when it has the address already.
pub(crate) fn add_address6(index: u32, address: Ipv6Addr, prefix_len: u8) -> Result<(), Errno> {
    let mut message = Message::new(libc::RTM_NEWADDR, CREATE);
    // struct ifaddrmsg: family, prefix, flags, scope, index.
    message.push(&[family(libc::AF_INET6), prefix_len, NO_DETECTION, 0]);
    message.push(&index.to_ne_bytes());
    message.attribute(libc::IFA_LOCAL, &address.octets());
    message.attribute(libc::IFA_ADDRESS, &address.octets());
    message.carry_out()
}

/// Adds the IPv4 default route with a metric.
///
/// # Errors
/// `EEXIST` when there is a default route with this metric.
pub(crate) fn add_default_route4(
    index: u32,
    gateway: Ipv4Addr,
    metric: Option<u32>,
) -> Result<(), Errno> {
    add_default_route(family(libc::AF_INET), index, &gateway.octets(), metric)
}

/// Adds the IPv6 default route.
///
/// # Errors
/// `EEXIST` when there is a default route with this metric through this interface.
pub(crate) fn add_default_route6(
    index: u32,
    gateway: Ipv6Addr,
    metric: Option<u32>,
) -> Result<(), Errno> {
    add_default_route(family(libc::AF_INET6), index, &gateway.octets(), metric)
}

fn add_default_route(
    family: u8,
    index: u32,
    gateway: &[u8],
    metric: Option<u32>,
) -> Result<(), Errno> {
    let mut message = Message::new(libc::RTM_NEWROUTE, CREATE);
    // struct rtmsg: family, lengths of destination and source, type of service, table, protocol,
    // scope, type, flags.
    message.push(&[
        family,
        0,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_BOOT,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
    ]);
    message.push(&[0; 4]);
    message.attribute(libc::RTA_GATEWAY, gateway);
    message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
    if let Some(metric) = metric {
        message.attribute(libc::RTA_PRIORITY, &metric.to_ne_bytes());
    }
    message.carry_out()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_message_fits() {
        let mut message = Message::new(libc::RTM_NEWROUTE, CREATE);
        message.push(&[0; 12]);
        message.attribute(libc::RTA_GATEWAY, &[0; 16]);
        message.attribute(libc::RTA_OIF, &[0; 4]);
        message.attribute(libc::RTA_PRIORITY, &[0; 4]);
        assert_eq!(message.len, 16 + 12 + 20 + 8 + 8);
        assert!(message.len < MESSAGE_CAP);
    }

    #[test]
    fn kernel_refuses_an_interface_that_does_not_exist() {
        let refused = add_address6(i32::MAX.cast_unsigned(), Ipv6Addr::LOCALHOST, 64);
        assert!(matches!(refused, Err(Errno::ENODEV | Errno::EPERM)), "{refused:?}");
    }
}
