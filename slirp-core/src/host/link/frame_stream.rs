//! Ethernet frames in a stream of bytes: each behind its length, a 32-bit number in network byte
//! order.
//!
//! Owns what is known of a frame that has come, or was sent, in part. QEMU (`-netdev stream`),
//! libkrun and libvirt speak this with passt.
//!
//! *No frame waits in us.* The poller knows of what waits in the socket, and of nothing else. So
//! no more is read than one frame and the length of the next, behind which bytes are still to come.

use std::io;
use std::os::fd::BorrowedFd;

use socket2::SockRef;

/// Bytes of a length.
const PREFIX: usize = size_of::<u32>();
/// The longest frame that a length may announce.
const FRAME_CAP: usize = 65_535;
/// The shortest: an Ethernet header.
const FRAME_MIN: usize = 14;
/// Frames to the peer are filled up to this (IEEE 802.3, without the checksum): drivers in virtual
/// machines drop what is shorter.
const PADDED: usize = 60;

crate::sys::calls::system_calls! {
    SYS_recvfrom => "frames of a virtual machine";
    SYS_sendmsg => "frames for a virtual machine";
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct FrameStream {
    /// The frame that is being read and its length, then the length of the next.
    buffer: Box<[u8]>,
    filled: usize,
    /// Bytes of the frame that is being written, and of its length, that the socket has taken.
    written: usize,
}

impl FrameStream {
    pub(super) fn new() -> Self {
        let buffer = vec![0; PREFIX + FRAME_CAP + PREFIX].into_boxed_slice();
        Self { buffer, filled: 0, written: 0 }
    }

    /// Reads one frame. One longer than `frame` loses its end.
    ///
    /// # Errors
    /// `EAGAIN` when there is no whole one, [`io::ErrorKind::UnexpectedEof`] when the peer has gone
    /// or sends something else.
    pub(super) fn read(&mut self, fd: BorrowedFd<'_>, frame: &mut [u8]) -> io::Result<usize> {
        loop {
            let wanted = match self.announced() {
                None => PREFIX,
                Some(len @ FRAME_MIN..=FRAME_CAP) => {
                    let end = PREFIX + len;
                    if self.filled >= end {
                        let taken = len.min(frame.len());
                        frame[..taken].copy_from_slice(&self.buffer[PREFIX..PREFIX + taken]);
                        self.buffer.copy_within(end..self.filled, 0);
                        self.filled -= end;
                        return Ok(taken);
                    }
                    end + PREFIX
                }
                Some(len) => {
                    tracing::warn!(len, "the peer announced a frame that is none: it is left");
                    return Err(gone());
                }
            };
            let room = &mut self.buffer[self.filled..wanted];
            match io::Read::read(&mut &*SockRef::from(&fd), room) {
                Ok(0) => return Err(gone()),
                Ok(len) => self.filled += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(gone()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The length of the frame that is being read, once it is there.
    fn announced(&self) -> Option<usize> {
        let prefix = self.buffer[..self.filled].first_chunk()?;
        Some(usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX))
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// `EAGAIN` while the peer has too much unread: the same frame is to be written again, and no
    /// other before it. [`io::ErrorKind::UnexpectedEof`] when the peer has gone.
    pub(super) fn write(&mut self, fd: BorrowedFd<'_>, frame: &[u8]) -> io::Result<()> {
        let padding = &[0; PADDED][..PADDED.saturating_sub(frame.len())];
        let len = frame.len() + padding.len();
        let prefix = u32::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?.to_be_bytes();
        while self.written < PREFIX + len {
            let mut skipped = self.written;
            let parts = [&prefix[..], frame, padding].map(|part| {
                let rest = &part[skipped.min(part.len())..];
                skipped = skipped.saturating_sub(part.len());
                io::IoSlice::new(rest)
            });
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            match SockRef::from(&fd).send_vectored_with_flags(&parts, flags) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let has_left = [
                        io::ErrorKind::BrokenPipe,
                        io::ErrorKind::ConnectionReset,
                        io::ErrorKind::NotConnected,
                    ];
                    return Err(if has_left.contains(&error.kind()) { gone() } else { error });
                }
            }
        }
        self.written = 0;
        Ok(())
    }
}

/// What reading and writing say once the peer has gone.
pub(super) fn gone() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (UnixStream, UnixStream, FrameStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, theirs, FrameStream::new())
    }

    fn announced(frame: &[u8]) -> Vec<u8> {
        [&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat()
    }

    fn kind_of<T: core::fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
        result.unwrap_err().kind()
    }

    #[test]
    fn frames_are_whole_wherever_the_stream_is_cut() {
        let frames: Vec<Vec<u8>> =
            [14_u8, 60, 200].iter().map(|&len| vec![len; usize::from(len)]).collect();
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| announced(frame)).collect();
        let mut buf = [0; 65_535];
        for piece in 1..bytes.len() {
            let (ours, mut theirs, mut stream) = pair();
            let mut read = Vec::new();
            for part in bytes.chunks(piece) {
                theirs.write_all(part).unwrap();
                while let Ok(len) = stream.read(ours.as_fd(), &mut buf) {
                    read.push(buf[..len].to_vec());
                }
            }
            assert_eq!(read, frames, "pieces of {piece}");
        }
    }

    #[test]
    fn frame_that_has_come_is_never_left_to_a_silent_socket() {
        // What is read ahead is never a whole frame: then the poller would not wake us for it.
        let (ours, mut theirs, mut stream) = pair();
        theirs.write_all(&[announced(&[1; 14]), announced(&[2; 14])].concat()).unwrap();
        let mut buf = [0; 64];
        assert_eq!(stream.read(ours.as_fd(), &mut buf).unwrap(), 14);
        let mut rest = [0; 64];
        assert_eq!((&ours).read(&mut rest).unwrap(), 14, "the second frame is in the socket");
    }

    #[test]
    fn longest_frame_passes_and_other_lengths_end_the_connection() {
        let mut buf = vec![0; FRAME_CAP];
        let (ours, mut theirs, mut stream) = pair();
        theirs.write_all(&announced(&vec![7; FRAME_CAP])).unwrap();
        assert_eq!(stream.read(ours.as_fd(), &mut buf).unwrap(), FRAME_CAP);
        for len in [0, 13, 65_536, u32::MAX] {
            let (ours, mut theirs, mut stream) = pair();
            theirs.write_all(&len.to_be_bytes()).unwrap();
            let read = stream.read(ours.as_fd(), &mut buf);
            assert_eq!(kind_of(read), io::ErrorKind::UnexpectedEof, "{len}");
        }
    }

    #[test]
    fn peer_that_left_has_gone_in_both_directions() {
        let (ours, mut theirs, mut stream) = pair();
        theirs.write_all(&announced(&[7; 14])[..10]).unwrap();
        drop(theirs);
        assert_eq!(kind_of(stream.read(ours.as_fd(), &mut [0; 64])), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind_of(stream.write(ours.as_fd(), &[0; 64])), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn frame_that_is_taken_in_part_goes_on_where_it_stopped() {
        let (ours, mut theirs, mut stream) = pair();
        let frames: Vec<Vec<u8>> = (0..100_u8).map(|fill| vec![fill; 30_000]).collect();
        let mut received = Vec::new();
        let mut refusals = 0;
        for frame in &frames {
            while let Err(error) = stream.write(ours.as_fd(), frame) {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                refusals += 1;
                let mut piece = [0; 7001];
                let len = theirs.read(&mut piece).unwrap();
                received.extend_from_slice(&piece[..len]);
            }
        }
        drop(ours);
        theirs.read_to_end(&mut received).unwrap();
        assert!(refusals > 0, "the socket was never full");
        let expected: Vec<u8> = frames.iter().flat_map(|frame| announced(frame)).collect();
        assert!(received == expected, "the stream is out of step");
    }

    #[test]
    fn short_frames_are_filled_up() {
        let (ours, mut theirs, mut stream) = pair();
        stream.write(ours.as_fd(), &[9; 42]).unwrap();
        let mut frame = [1; 64];
        theirs.read_exact(&mut frame).unwrap();
        assert_eq!(frame[..4], 60_u32.to_be_bytes());
        assert!(frame[4..46].iter().all(|&byte| byte == 9));
        assert!(frame[46..].iter().all(|&byte| byte == 0));
    }
}
