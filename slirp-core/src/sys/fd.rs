//! Adoption of file descriptors that the parent process left open or that arrive over a socket
//! (`SCM_RIGHTS`, unix(7)), and of the owner of a namespace.
//!
//! Owns the step from a number to an [`OwnedFd`]. What a descriptor is for is left to its user.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Makes a foreign descriptor non-blocking and close-on-exec.
pub(crate) fn make_ours(fd: &OwnedFd) -> io::Result<()> {
    let status = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(status | OFlag::O_NONBLOCK))?;
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Takes over a descriptor that this process was started with, such as `--ready-fd=3`.
///
/// It is marked close-on-exec on the way, so a second call with the same number is refused: only a
/// descriptor without that mark can have come through execve(2), and everything that this process
/// opens by itself carries it. The three standard streams are shared with the rest of the process
/// and are therefore duplicated.
///
/// # Errors
/// `EBADF` when `number` is not an open descriptor, or one that this process opened itself.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    const STANDARD_STREAMS: std::ops::RangeInclusive<RawFd> = 0..=2;
    // SAFETY: F_GETFD only reads the descriptor table; on a number that is not open it fails with
    // EBADF (fcntl(2)).
    let flags = Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    let taken = if STANDARD_STREAMS.contains(&number) {
        // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor and leaves the old one as it is.
        Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?
    } else if flags & libc::FD_CLOEXEC == 0 {
        // SAFETY: F_SETFD only sets the close-on-exec mark of an open descriptor.
        Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        number
    } else {
        return Err(Errno::EBADF.into());
    };
    // SAFETY: the number is open. It is either our own duplicate or was inherited through execve(2)
    // and not claimed before, which its missing close-on-exec mark shows; so nothing else in this
    // process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(taken) })
}

/// Closes every inherited descriptor that has not been taken over, except the standard streams.
/// Such a descriptor has no close-on-exec mark, see [`inherited_fd`].
///
/// Only for programs that own their whole process: a program that embeds this library may use
/// descriptors without that mark, and would lose them.
///
/// # Errors
/// When `/proc/self/fd` cannot be read.
pub fn close_inherited_fds() -> io::Result<()> {
    InheritedFds::find()?.close();
    Ok(())
}

/// The numbers that are open when this is made, among them all that the parent process left open.
///
/// To list them takes the kernel about a microsecond for each, so a program that opens many makes
/// the list before.
#[derive(Debug)]
pub struct InheritedFds(Vec<RawFd>);

impl InheritedFds {
    /// Lists them.
    ///
    /// # Errors
    /// When `/proc/self/fd` cannot be read.
    pub fn find() -> io::Result<Self> {
        Ok(Self(open_fds()?))
    }

    /// As [`close_inherited_fds`].
    pub(crate) fn close(self) {
        // A standard stream would come as a duplicate and stay open.
        for number in self.0.into_iter().filter(|number| *number > 2) {
            drop(inherited_fd(number));
        }
    }
}

/// The open numbers, including the descriptor of the folder that lists them.
///
/// # Errors
/// When `/proc/self/fd` cannot be read.
#[expect(clippy::disallowed_methods, reason = "the table of descriptors is a folder")]
pub(super) fn open_fds() -> io::Result<Vec<RawFd>> {
    let entries = std::fs::read_dir("/proc/self/fd")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// Sends a descriptor over a UNIX socket, with one byte to carry it.
///
/// # Errors
/// The errors of sendmsg(2).
pub fn send_fd(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(send_with_fd(socket, &[0], Some(fd))?)
}

/// Receives a descriptor that [`send_fd`] sent, marked close-on-exec.
///
/// # Errors
/// The errors of recvmsg(2); `UnexpectedEof` when the other side has gone or sent something else.
pub fn receive_fd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (_, fd) = receive_with_fd(socket, &mut [0])?;
    fd.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The user namespace that a namespace of another kind belongs to (ioctl_ns(2), since Linux 4.9).
///
/// # Errors
/// `EPERM` when the owner is neither this process's user namespace nor below it, `ENOTTY` when
/// `namespace` is not a namespace.
pub(crate) fn owner_of(namespace: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: NS_GET_USERNS takes no argument and writes no memory.
    let owner = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_USERNS) };
    let owner = Errno::result(owner)?;
    // SAFETY: the kernel has just opened this descriptor for us; nothing else owns its number.
    Ok(unsafe { OwnedFd::from_raw_fd(owner) })
}

/// Receives one message of at most `record.len()` bytes and the descriptor that may come with it.
///
/// Returns the length of the message; zero when the other side has gone.
///
/// # Errors
/// The errors of recvmsg(2), except `EINTR`, after which it tries again.
pub(crate) fn receive_with_fd(
    socket: BorrowedFd<'_>,
    record: &mut [u8],
) -> Result<(usize, Option<OwnedFd>), Errno> {
    // As many as a message may have (unix(7)): the kernel installs what there is room for, and of
    // several all but the last are closed here.
    let mut control = cmsg_space!([RawFd; 253]);
    loop {
        let mut parts = [io::IoSliceMut::new(record)];
        let message = match recvmsg::<()>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut received = None;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                for number in numbers {
                    // SAFETY: the kernel has just installed this descriptor for us (unix(7),
                    // SCM_RIGHTS); nothing else owns its number.
                    received = Some(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
        }
        return Ok((message.bytes, received));
    }
}

/// Sends `record` and `attached` in one message, without allocating, so that a forked child may
/// call it.
///
/// # Errors
/// The errors of sendmsg(2), except `EINTR`, after which it tries again.
pub(super) fn send_with_fd(
    socket: BorrowedFd<'_>,
    record: &[u8],
    attached: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    /// Room for one control message with one descriptor, aligned for the message header.
    #[repr(C)]
    union Control {
        header: libc::cmsghdr,
        // CMSG_SPACE(sizeof(int)) is 24 bytes where pointers have 64 bits and 16 elsewhere.
        bytes: [u8; 32],
    }
    let mut control = Control { bytes: [0; 32] };
    let mut part =
        libc::iovec { iov_base: record.as_ptr().cast_mut().cast(), iov_len: record.len() };
    // SAFETY: msghdr is a plain C structure; all zero means no address, no data, no control part.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(fd) = attached {
        let len = u32::try_from(size_of::<RawFd>()).unwrap_or(4);
        message.msg_control = (&raw mut control).cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
        let (space, header_len) = unsafe { (libc::CMSG_SPACE(len), libc::CMSG_LEN(len)) };
        message.msg_controllen = space as _;
        // SAFETY: the control part is aligned for cmsghdr and larger than CMSG_SPACE(4), so the
        // first header and the four bytes of its data lie inside it.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = header_len as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd.as_raw_fd());
        }
    }
    loop {
        // SAFETY: the message points to `part`, `record` and `control`, which outlive the call, and
        // the kernel only reads them.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        match Errno::result(sent) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => return Ok(()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "descriptors to play with are files")]
mod tests {
    use std::os::fd::{AsFd, IntoRawFd};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn descriptor_crosses_a_socket_close_on_exec() {
        let (a, b) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send_with_fd(a.as_fd(), b"with", Some(file.as_fd())).unwrap();
        send_with_fd(a.as_fd(), b"bare", None).unwrap();
        drop(a);
        let mut record = [0; 8];
        let (len, fd) = receive_with_fd(b.as_fd(), &mut record).unwrap();
        assert_eq!(&record[..len], b"with");
        let flags = fcntl(fd.unwrap(), FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        let (len, fd) = receive_with_fd(b.as_fd(), &mut record).unwrap();
        assert!(&record[..len] == b"bare" && fd.is_none());
        let (len, fd) = receive_with_fd(b.as_fd(), &mut record).unwrap();
        assert!(len == 0 && fd.is_none(), "the end of the connection is an empty message");
    }

    #[test]
    fn inherited_descriptor_is_adopted_once() {
        let file = std::fs::File::open("/dev/null").unwrap();
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let number = file.into_raw_fd();
        let adopted = inherited_fd(number).unwrap();
        assert_eq!(adopted.as_raw_fd(), number);
        let second = inherited_fd(number).unwrap_err();
        assert_eq!(second.raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn namespace_has_an_owner_and_nothing_else_has() {
        let inode = |fd: &OwnedFd| nix::sys::stat::fstat(fd).unwrap().st_ino;
        let open = |path: &str| OwnedFd::from(std::fs::File::open(path).unwrap());
        let user = open("/proc/self/ns/user");
        match owner_of(open("/proc/self/ns/net").as_fd()) {
            Ok(owner) => assert_eq!(inode(&owner), inode(&user)),
            // If the tests run in a user namespace, the network namespace may still belong to an
            // outer one.
            Err(errno) => assert_eq!(errno, Errno::EPERM),
        }
        assert_eq!(owner_of(open("/dev/null").as_fd()).unwrap_err(), Errno::ENOTTY);
    }

    #[test]
    fn closed_number_is_refused_and_a_standard_stream_is_duplicated() {
        assert_eq!(inherited_fd(1_000_000).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(inherited_fd(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert!(inherited_fd(2).unwrap().as_raw_fd() > 2);
    }
}
