//! A Unix socket in the place of a TAP device, to a virtual machine.
//!
//! Owns the connection ([`FrameSocket`]) and the waiting for one ([`FrameListener`]). The type of
//! the socket (unix(7)) says how frames are told apart:
//!
//! * `SOCK_SEQPACKET`: each is a packet, without a header. User Mode Linux speaks this as
//!   `vec0:transport=bess,dst=PATH`.
//! * `SOCK_STREAM`: each follows its length ([`frame_stream`](super::frame_stream)). QEMU speaks
//!   this as `-netdev stream`.
//!
//! Nothing is left to the other side: every checksum is there, and no frame of ours exceeds the
//! MTU.
//!
//! *The end.* For packets, recv(2) says 0 for an empty one and for a peer that has gone. The two
//! are told apart by poll(2): a socket that hung up says so. What was still queued behind an empty
//! packet at that moment is lost with the peer.
//!
//! *Back-pressure.* A peer that reads slowly makes send(2) say `EAGAIN`; the event loop keeps that
//! frame, stops making new ones and waits until the socket takes it. Nothing is lost on the way.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    MsgFlags, SockType, UnixAddr, getpeername, getsockname, getsockopt, recv, send, sockopt,
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::frame_stream::{FrameStream, gone};
use crate::host::outside::RemovedFile;
use crate::sys::errno::text_of;
use crate::sys::file::OwnFile;
use crate::sys::make_ours;

/// Why there is no socket to carry frames.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameSocketError {
    /// The path and its final NUL are longer than 108 bytes (unix(7)).
    #[error("the path of the socket is too long (>= 108)")]
    PathTooLong,
    /// The descriptor is not a socket of the Unix family.
    #[error("the file descriptor is not a Unix socket")]
    NotUnix,
    /// No connection stands behind its packets.
    #[error("the Unix socket is of the type SOCK_DGRAM, not SOCK_SEQPACKET or SOCK_STREAM")]
    NotConnectionMode,
    /// The other end is closed, or there never was one.
    #[error("the Unix socket is not connected")]
    NotConnected,
    /// A system call failed.
    #[error("{call}: {}", text_of(source))]
    Call {
        /// Which one.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl FrameSocketError {
    fn call(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Call { call, source }
    }
}

/// How frames are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Framing {
    /// Each is a packet of a `SOCK_SEQPACKET` socket.
    Packets,
    /// Each follows its length, 32 bits in network byte order, in a `SOCK_STREAM` socket.
    Lengths,
}

/// A connected socket that carries frames, non-blocking and close-on-exec.
#[derive(Debug)]
pub struct FrameSocket {
    fd: OwnedFd,
    /// Of [`Framing::Lengths`].
    stream: Option<FrameStream>,
}

impl FrameSocket {
    /// Takes over one end of a connection, such as one of a socketpair(2).
    ///
    /// # Errors
    /// [`FrameSocketError`] when it is something else.
    pub fn adopt(fd: OwnedFd) -> Result<Self, FrameSocketError> {
        let kind = getsockopt(&fd, sockopt::SockType).map_err(|_| FrameSocketError::NotUnix)?;
        getsockname::<UnixAddr>(fd.as_raw_fd()).map_err(|_| FrameSocketError::NotUnix)?;
        #[expect(clippy::wildcard_enum_match_arm, reason = "socket(2) has many types")]
        let framing = match kind {
            SockType::SeqPacket => Framing::Packets,
            SockType::Stream => Framing::Lengths,
            _ => return Err(FrameSocketError::NotConnectionMode),
        };
        getpeername::<UnixAddr>(fd.as_raw_fd()).map_err(|_| FrameSocketError::NotConnected)?;
        make_ours(&fd).map_err(FrameSocketError::call("fcntl"))?;
        Ok(Self::new(fd, framing))
    }

    fn new(fd: OwnedFd, framing: Framing) -> Self {
        Self { fd, stream: (framing == Framing::Lengths).then(FrameStream::new) }
    }

    /// Connects to the program that listens at `path`. A path that begins with a NUL byte names an
    /// abstract socket.
    ///
    /// # Errors
    /// [`FrameSocketError::PathTooLong`], and those of socket(2) and connect(2): `ENOENT` for a
    /// path that is not there, `ECONNREFUSED` without a listener, `EPROTOTYPE` for a socket of
    /// another type, `EAGAIN` for a listener that accepts nothing.
    pub fn connect(path: &Path, framing: Framing) -> Result<Self, FrameSocketError> {
        let address = address_of(path)?;
        let socket = new_socket(framing)?;
        socket.connect(&address).map_err(FrameSocketError::call("connect"))?;
        Ok(Self::new(socket.into(), framing))
    }

    /// How its frames are told apart.
    pub const fn framing(&self) -> Framing {
        match self.stream {
            Some(_) => Framing::Lengths,
            None => Framing::Packets,
        }
    }

    /// Reads one frame; 0 for an empty packet. A frame longer than `buf` loses its end.
    ///
    /// # Errors
    /// `EAGAIN` when there is none, [`io::ErrorKind::UnexpectedEof`] when the peer has gone, or
    /// announces a frame that is shorter than 14 bytes or longer than 65,535.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(stream) = &mut self.stream {
            return stream.read(self.fd.as_fd(), buf);
        }
        match recv(self.fd.as_raw_fd(), buf, MsgFlags::MSG_DONTWAIT) {
            Ok(0) if self.is_hung_up() => Err(gone()),
            // What we sent was not read to its end.
            Err(Errno::ECONNRESET | Errno::ENOTCONN) => Err(gone()),
            other => Ok(other?),
        }
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// `EAGAIN` while the peer has too much unread: a part may have been taken, so the same frame
    /// is to be written again, and no other before it. `EMSGSIZE` for a frame above the send buffer
    /// of a socket of packets, [`io::ErrorKind::UnexpectedEof`] when the peer has gone.
    pub fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        if let Some(stream) = &mut self.stream {
            return stream.write(self.fd.as_fd(), frame);
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.fd.as_raw_fd(), frame, flags) {
            Ok(_) => Ok(()),
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => Err(gone()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn is_hung_up(&self) -> bool {
        let half = PollFlags::from_bits_retain(libc::POLLRDHUP);
        let mut polled = [PollFd::new(self.fd.as_fd(), half)];
        // Nothing is asked for but the end, so any answer is the end; an error of the call itself
        // leaves no more to hope for.
        poll(&mut polled, PollTimeout::ZERO) != Ok(0)
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A bound socket that waits for the one peer it is there for. Dropping it removes its file, unless
/// somebody has put another one in its place.
#[derive(Debug)]
pub struct FrameListener {
    /// Removed before the socket is closed.
    file: OwnFile,
    socket: Socket,
    framing: Framing,
}

impl FrameListener {
    /// Binds `path`, in place of a socket that nobody listens at any more.
    ///
    /// # Errors
    /// As [`FrameListener::bind`]; `EADDRINUSE` also when somebody listens there.
    pub fn bind_unused(path: &Path, framing: Framing) -> Result<Self, FrameSocketError> {
        // A socket of another type is never connected, so a listener is not disturbed.
        let other = match framing {
            Framing::Packets => Framing::Lengths,
            Framing::Lengths => Framing::Packets,
        };
        let errno = match FrameSocket::connect(path, other) {
            Ok(_) => Some(libc::EADDRINUSE),
            Err(FrameSocketError::Call { source, .. }) => source.raw_os_error(),
            Err(error) => return Err(error),
        };
        let errno = match errno {
            // Who takes the path meanwhile keeps it.
            Some(libc::ENOENT) => return Self::bind_free(path, framing),
            Some(libc::ECONNREFUSED) | None => return Self::bind(path, framing),
            Some(libc::EPROTOTYPE) => libc::EADDRINUSE,
            Some(errno) => errno,
        };
        Err(FrameSocketError::call("bind")(io::Error::from_raw_os_error(errno)))
    }

    /// Binds `path`, in place of whatever socket is there. A path that begins with a NUL byte names
    /// an abstract socket.
    ///
    /// # Errors
    /// [`FrameSocketError::PathTooLong`], and those of socket(2), bind(2) and listen(2):
    /// `EADDRINUSE` when something other than a socket has this name.
    pub fn bind(path: &Path, framing: Framing) -> Result<Self, FrameSocketError> {
        use std::os::unix::fs::FileTypeExt as _;

        address_of(path)?;
        // Any other file there is not ours to remove.
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            // The bind says what is wrong, if anything is.
            let _ = fs::remove_file(path);
        }
        Self::bind_free(path, framing)
    }

    /// Binds `path`, at which there is nothing.
    fn bind_free(path: &Path, framing: Framing) -> Result<Self, FrameSocketError> {
        let address = address_of(path)?;
        let socket = new_socket(framing)?;
        socket.bind(&address).map_err(FrameSocketError::call("bind"))?;
        socket.listen(1).map_err(FrameSocketError::call("listen"))?;
        Ok(Self { file: OwnFile::at(path), socket, framing })
    }

    /// Its file, for a process that is about to enter a sandbox and cannot reach the file from
    /// there, see [`Sandbox::removed_file`](crate::sandbox::Sandbox::removed_file).
    pub fn file(&self) -> Option<RemovedFile> {
        Some(RemovedFile { path: self.file.path().to_owned(), identity: self.file.identity()? })
    }

    /// Takes the peer, without waiting. The descriptor ([`AsFd`]) becomes readable when there is
    /// one.
    ///
    /// # Errors
    /// Those of accept(2); `EAGAIN` when there is none.
    pub fn accept(&self) -> io::Result<FrameSocket> {
        let (socket, _) = self.socket.accept()?;
        socket.set_nonblocking(true)?;
        Ok(FrameSocket::new(socket.into(), self.framing))
    }
}

impl AsFd for FrameListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn new_socket(framing: Framing) -> Result<Socket, FrameSocketError> {
    let kind = match framing {
        Framing::Packets => Type::SEQPACKET,
        Framing::Lengths => Type::STREAM,
    };
    Socket::new(Domain::UNIX, kind.cloexec().nonblocking(), None)
        .map_err(FrameSocketError::call("socket"))
}

fn address_of(path: &Path) -> Result<SockAddr, FrameSocketError> {
    /// Size of `sun_path`, which ends with a NUL.
    const PATH_CAP: usize = 108;
    if path.as_os_str().as_bytes().len() >= PATH_CAP {
        return Err(FrameSocketError::PathTooLong);
    }
    SockAddr::unix(path).map_err(FrameSocketError::call("socket address"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, shutdown, socketpair};

    use super::*;

    fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    fn kind_of(result: io::Result<usize>) -> io::ErrorKind {
        result.unwrap_err().kind()
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("slirp-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn empty_packet_is_no_end_and_a_hang_up_is() {
        let (ours, theirs) = pair(SockType::SeqPacket);
        let mut socket = FrameSocket::adopt(ours).unwrap();
        let mut buf = [0; 64];
        assert_eq!(kind_of(socket.read(&mut buf)), io::ErrorKind::WouldBlock);
        send(theirs.as_raw_fd(), b"", MsgFlags::empty()).unwrap();
        send(theirs.as_raw_fd(), b"frame", MsgFlags::empty()).unwrap();
        assert_eq!(socket.read(&mut buf).unwrap(), 0);
        assert_eq!(socket.read(&mut buf).unwrap(), 5);
        drop(theirs);
        assert_eq!(kind_of(socket.read(&mut buf)), io::ErrorKind::UnexpectedEof);
        let refused = socket.write(b"frame").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn every_way_to_leave_is_a_hang_up() {
        let (ours, theirs) = pair(SockType::SeqPacket);
        let mut socket = FrameSocket::adopt(ours).unwrap();
        socket.write(b"never read").unwrap();
        drop(theirs);
        assert_eq!(kind_of(socket.read(&mut [0; 64])), io::ErrorKind::UnexpectedEof);

        let (ours, theirs) = pair(SockType::SeqPacket);
        let mut socket = FrameSocket::adopt(ours).unwrap();
        shutdown(theirs.as_raw_fd(), Shutdown::Write).unwrap();
        assert_eq!(kind_of(socket.read(&mut [0; 64])), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn full_peer_would_block() {
        let (ours, _theirs) = pair(SockType::SeqPacket);
        let mut socket = FrameSocket::adopt(ours).unwrap();
        let error = (0..100_000).find_map(|_| socket.write(&[0; 1514]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn other_descriptors_are_refused() {
        let file = fs::File::open("/dev/null").unwrap();
        let refused = FrameSocket::adopt(file.into()).unwrap_err();
        assert!(matches!(refused, FrameSocketError::NotUnix), "{refused}");
        let (datagrams, _other) = pair(SockType::Datagram);
        let refused = FrameSocket::adopt(datagrams).unwrap_err();
        assert!(matches!(refused, FrameSocketError::NotConnectionMode), "{refused}");
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let refused = FrameSocket::adopt(udp.into()).unwrap_err();
        assert!(matches!(refused, FrameSocketError::NotUnix), "{refused}");
        for framing in [Framing::Packets, Framing::Lengths] {
            let alone = new_socket(framing).unwrap();
            let refused = FrameSocket::adopt(alone.into()).unwrap_err();
            assert!(matches!(refused, FrameSocketError::NotConnected), "{refused}");
        }
    }

    #[test]
    fn peers_meet_at_a_path_which_is_removed_afterwards() {
        let folder = folder("frame-listener");
        for path in [folder.join("socket"), PathBuf::from("\0slirp-frame-socket-test")] {
            for framing in [Framing::Packets, Framing::Lengths] {
                let listener = FrameListener::bind(&path, framing).unwrap();
                assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
                let mut there = FrameSocket::connect(&path, framing).unwrap();
                let mut here = listener.accept().unwrap();
                drop(listener);
                assert!(!path.exists());
                here.write(&[1; 60]).unwrap();
                assert_eq!(there.read(&mut [0; 64]).unwrap(), 60);
            }
        }
        fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn listener_is_neither_replaced_nor_disturbed() {
        let folder = folder("frame-unused");
        let path = folder.join("socket");
        for framing in [Framing::Packets, Framing::Lengths] {
            let listener = FrameListener::bind_unused(&path, framing).unwrap();
            let error = FrameListener::bind_unused(&path, framing).unwrap_err();
            assert_eq!(error.to_string(), "bind: Address already in use");
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            drop(listener);
            // The file of a listener that has ended.
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        }
        drop(FrameListener::bind_unused(&path, Framing::Lengths).unwrap());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn path_that_another_has_taken_meanwhile_stays_with_the_other() {
        let folder = folder("frame-race");
        let path = folder.join("socket");
        let listener = FrameListener::bind_free(&path, Framing::Lengths).unwrap();
        let error = FrameListener::bind_free(&path, Framing::Lengths).unwrap_err();
        assert_eq!(error.to_string(), "bind: Address already in use");
        FrameSocket::connect(&path, Framing::Lengths).unwrap();
        drop(listener);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn paths_that_lead_nowhere_say_why() {
        let folder = folder("frame-paths");
        let text = |result: Result<FrameSocket, FrameSocketError>| result.unwrap_err().to_string();
        let path = folder.join("socket");
        assert_eq!(
            text(FrameSocket::connect(&path, Framing::Packets)),
            "connect: No such file or directory"
        );
        // The file of a listener that has ended.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_eq!(
            text(FrameSocket::connect(&path, Framing::Packets)),
            "connect: Connection refused"
        );
        // It does not stand in the way of the next one.
        drop(FrameListener::bind(&path, Framing::Packets).unwrap());
        let _stream = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let wrong = text(FrameSocket::connect(&path, Framing::Packets));
        assert_eq!(wrong, "connect: Protocol wrong type for socket");
        let long = folder.join("x".repeat(108));
        assert!(matches!(
            FrameSocket::connect(&long, Framing::Packets),
            Err(FrameSocketError::PathTooLong)
        ));
        assert!(matches!(
            FrameListener::bind(&long, Framing::Packets),
            Err(FrameSocketError::PathTooLong)
        ));
        let file = folder.join("file");
        fs::write(&file, "precious").unwrap();
        let error = FrameListener::bind(&file, Framing::Packets).unwrap_err().to_string();
        assert_eq!(error, "bind: Address already in use");
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        fs::remove_dir_all(folder).unwrap();
    }
}
