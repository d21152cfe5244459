//! Default routes of a network namespace, in all of its routing tables: rtnetlink(7).
//!
//! `/proc/net/route` shows the main table alone, and plugins for source based routing move routes
//! out of it.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// Length of `struct nlmsghdr`, in bytes: length, type, flags, sequence number and port of the
/// sender (netlink(7)).
const HEADER_LEN: usize = 16;
/// Length of `struct rtmsg`, in bytes (rtnetlink(7)).
const ROUTE_LEN: usize = 12;
/// Length of `struct rtnexthop`, in bytes: length, flags, weight and interface (rtnetlink(7)).
const HOP_LEN: usize = 8;
/// Room for one answer, in bytes: the most that the kernel puts into one (`netlink_dump`).
const ANSWER_CAP: usize = 32 * 1024;

/// The `gateways` without a default route through the interface `index`, in the namespace of the
/// calling thread.
///
/// # Errors
/// The errors of socket(2), send(2) and recv(2), and the kernel's error answers; `EBADMSG` for a
/// malformed answer.
pub(super) fn without_route(index: u32, mut gateways: Vec<IpAddr>) -> io::Result<Vec<IpAddr>> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(netlink.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut answer = vec![0; ANSWER_CAP];
    loop {
        let len = match recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut rest = answer.get(..len).filter(|rest| !rest.is_empty()).ok_or(Errno::EBADMSG)?;
        while !rest.is_empty() {
            let message = next_message(&mut rest).ok_or(Errno::EBADMSG)?;
            let body = message.get(HEADER_LEN..).ok_or(Errno::EBADMSG)?;
            match number16(message, 4).ok_or(Errno::EBADMSG)? {
                libc::RTM_NEWROUTE => gateways.retain(|&to| !is_default_route(body, index, to)),
                kind if i32::from(kind) == libc::NLMSG_DONE => return Ok(gateways),
                kind if i32::from(kind) == libc::NLMSG_ERROR => {
                    let error = number32(body, 0).ok_or(Errno::EBADMSG)?.cast_signed();
                    return Err(Errno::from_raw(error.wrapping_neg()).into());
                }
                _ => {}
            }
        }
    }
}

/// The request for all routes of all tables and families.
fn request() -> Vec<u8> {
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or_default();
    let len = HEADER_LEN + ROUTE_LEN;
    let mut bytes = u32::try_from(len).unwrap_or_default().to_ne_bytes().to_vec();
    bytes.extend(libc::RTM_GETROUTE.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number, sender and all route fields are zero, which means any.
    bytes.resize(len, 0);
    bytes
}

/// Takes the first message off `rest`.
fn next_message<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(number32(rest, 0)?).ok()?;
    let message = rest.get(..len).filter(|message| message.len() >= HEADER_LEN)?;
    *rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some(message)
}

/// Whether this body of a message, `struct rtmsg` and attributes, is a default route to a gateway
/// through an interface.
fn is_default_route(body: &[u8], index: u32, gateway: IpAddr) -> bool {
    // Family, length of the destination, ..., type in byte 7.
    let [_, 0, _, _, _, _, _, libc::RTN_UNICAST, ..] = body else { return false };
    let attributes = body.get(ROUTE_LEN..).unwrap_or_default();
    let leads_there = |interface: Option<u32>, attributes: &[u8]| {
        interface == Some(index)
            && value(attributes, libc::RTA_GATEWAY).is_some_and(|bytes| match gateway {
                IpAddr::V4(gateway) => bytes == gateway.octets(),
                IpAddr::V6(gateway) => bytes == gateway.octets(),
            })
    };
    let interface = value(attributes, libc::RTA_OIF).and_then(|bytes| number32(bytes, 0));
    let hops = value(attributes, libc::RTA_MULTIPATH).unwrap_or_default();
    leads_there(interface, attributes)
        || blocks(hops)
            .any(|hop| leads_there(number32(hop, 4), hop.get(HOP_LEN..).unwrap_or_default()))
}

/// The value of the first attribute of this type.
fn value(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    blocks(attributes).find(|block| number16(block, 2) == Some(kind))?.get(4..)
}

/// Attributes, or next hops: each begins with its length and ends at a multiple of four bytes.
fn blocks(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let len = usize::from(number16(bytes, 0)?);
        let block = bytes.get(..len).filter(|block| block.len() >= 4)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(block)
    })
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(value.len() + 4).unwrap();
        [&len.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
    }

    fn route(destination_len: u8, kind: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let head = [0, destination_len, 0, 0, 77, 0, 0, kind, 0, 0, 0, 0];
        [head.as_slice(), &attributes.concat()].concat()
    }

    #[test]
    fn default_route_is_one_of_any_table_through_this_interface_to_this_gateway() {
        let to = [10, 0, 2, 2];
        let gateway = IpAddr::from(to);
        let through = |index: u32| attribute(libc::RTA_OIF, &index.to_ne_bytes());
        let via = attribute(libc::RTA_GATEWAY, &to);
        let own = [through(3), via.clone()];
        let body = route(0, libc::RTN_UNICAST, &own);
        assert!(is_default_route(&body, 3, gateway));
        assert!(!is_default_route(&body, 4, gateway), "another interface");
        assert!(!is_default_route(&body, 3, IpAddr::from([10, 0, 2, 9])), "another gateway");
        let body = route(15, libc::RTN_UNICAST, &own);
        assert!(!is_default_route(&body, 3, gateway), "another destination");
        let body = route(0, libc::RTN_UNREACHABLE, &own);
        assert!(!is_default_route(&body, 3, gateway), "no way at all");
        let body = route(0, libc::RTN_UNICAST, &own);
        let ends = (0..body.len()).filter(|&end| is_default_route(&body[..end], 3, gateway));
        assert_eq!(ends.count(), 0, "a route that is cut off");
    }

    #[test]
    fn each_next_hop_of_a_route_counts() {
        let [first, second] = ["fd00::2", "fd01::2"].map(|text| text.parse::<IpAddr>().unwrap());
        let hop = |index: u32, gateway: IpAddr| {
            let IpAddr::V6(gateway) = gateway else { panic!("{gateway}") };
            let via = attribute(libc::RTA_GATEWAY, &gateway.octets());
            let len = u16::try_from(HOP_LEN + via.len()).unwrap();
            [&len.to_ne_bytes(), [0, 0].as_slice(), &index.to_ne_bytes(), &via].concat()
        };
        let hops = [hop(3, first), hop(4, second)].concat();
        let body = route(0, libc::RTN_UNICAST, &[attribute(libc::RTA_MULTIPATH, &hops)]);
        assert!(is_default_route(&body, 3, first));
        assert!(is_default_route(&body, 4, second));
        assert!(!is_default_route(&body, 3, second));
    }

    #[test]
    fn kernel_answers_and_no_route_leads_to_an_unknown_gateway() {
        let nobody: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(without_route(u32::MAX, vec![nobody]).unwrap(), [nobody]);
    }
}
