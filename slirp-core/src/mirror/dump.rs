//! The kernel's lists of links, addresses and routes: rtnetlink(7).
//!
//! Owns the socket and the three requests. What the lists say is in [`tables`](super::tables).

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::netlink::{DUMP, INTERRUPTED, Message, Messages};

/// Room for what one recv(2) gives: the kernel's lists come in pieces of up to 32 KiB.
const BUFFER_LEN: usize = 64 * 1024;
/// How often a list is read again because it has changed meanwhile (arbitrary).
const READINGS_CAP: u32 = 16;

/// Requests and the lengths of their bodies in bytes (`struct ifinfomsg`, `ifaddrmsg`, `rtmsg`).
const REQUESTS: [(u16, usize); 3] =
    [(libc::RTM_GETLINK, 16), (libc::RTM_GETADDR, 8), (libc::RTM_GETROUTE, 12)];

/// Reads the lists of the calling thread's network namespace, one after the other.
pub(super) fn read() -> io::Result<Vec<u8>> {
    read_over(&open()?, &mut 0)
}

/// Opens a socket over which the lists of the calling thread's network namespace are read.
pub(super) fn open() -> io::Result<OwnedFd> {
    let route = SockProtocol::NetlinkRoute;
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socket(AddressFamily::Netlink, SockType::Raw, flags, route)?)
}

/// Reads the lists over a socket that was opened before. `sequence` is the number of the last
/// request.
pub(super) fn read_over(socket: &OwnedFd, sequence: &mut u32) -> io::Result<Vec<u8>> {
    let mut lists = Vec::new();
    for (kind, body_len) in REQUESTS {
        let before = lists.len();
        let mut is_whole = false;
        for _ in 0..READINGS_CAP {
            lists.truncate(before);
            *sequence = sequence.wrapping_add(1);
            let request = Message::new(kind, DUMP, &vec![0; body_len]).finish(*sequence);
            send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
            if collect(socket, *sequence, &mut lists)? {
                is_whole = true;
                break;
            }
        }
        if !is_whole {
            return Err(io::Error::other("they change all the time"));
        }
    }
    Ok(lists)
}

/// Appends one list. Returns whether it has held still meanwhile.
fn collect(socket: &OwnedFd, sequence: u32, list: &mut Vec<u8>) -> io::Result<bool> {
    let mut is_whole = true;
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        let len = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let messages = buffer.get(..len).unwrap_or_default();
        if take(messages, sequence, list, &mut is_whole)? {
            return Ok(is_whole);
        }
    }
}

/// Appends the messages of one recv(2). Returns whether the list is over: its end may come with the
/// last entries.
fn take(
    messages: &[u8],
    sequence: u32,
    list: &mut Vec<u8>,
    is_whole: &mut bool,
) -> io::Result<bool> {
    // What is left of a list that was given up.
    if Messages(messages).next().is_none_or(|message| message.sequence != sequence) {
        return Ok(false);
    }
    list.extend_from_slice(messages);
    list.resize(list.len().next_multiple_of(4), 0);
    for message in Messages(messages).filter(|message| message.sequence == sequence) {
        *is_whole &= message.flags & INTERRUPTED == 0;
        if let Some(error) = message.error() {
            return Err(io::Error::from_raw_os_error(error));
        }
        if message.is_end() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: u16 = 3; // NLMSG_DONE

    #[test]
    fn entries_that_come_with_the_end_are_in_the_list() {
        let entry = Message::new(libc::RTM_NEWADDR, 0, &[2, 24, 0, 0, 7, 0, 0, 0]).finish(5);
        let end = |sequence, flags| Message::new(DONE, flags, &[0; 4]).finish(sequence);
        for (end, expected) in [
            (end(5, 0), (true, true)),
            (end(5, INTERRUPTED), (true, false)),
            (end(4, INTERRUPTED), (false, true)),
        ] {
            let (mut list, mut is_whole) = (Vec::new(), true);
            let is_over = take(&[entry.clone(), end].concat(), 5, &mut list, &mut is_whole);
            assert_eq!((is_over.unwrap(), is_whole), expected);
            let first = Messages(&list).next().unwrap();
            assert_eq!((first.kind, first.body.len()), (libc::RTM_NEWADDR, 8));
        }
    }
}
