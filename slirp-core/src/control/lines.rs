//! Lines of text over a stream socket, and the descriptor that may come with one.
//!
//! Owns how long a line may be. What a line means is in [`requests`](super::requests).

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::sys::receive_with_fd;

/// Bytes of a line, either way: a policy of the longest text fits.
pub(super) const LINE_CAP: usize = 1024 * 1024;
/// Bytes that are read at a time (arbitrary; most lines are shorter).
const CHUNK_LEN: usize = 16 * 1024;

/// What a client has sent.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A line, without its end.
    Line(Vec<u8>),
    /// The beginning of a line that is too long. Nothing behind it can be read.
    TooLong,
    /// The client has ended its side.
    End,
}

/// The lines of one client.
#[derive(Default, Debug)]
pub(super) struct Lines {
    /// What was read and not returned.
    buffer: Vec<u8>,
    /// Bytes of the buffer in which no line ends.
    searched: usize,
    is_ended: bool,
    /// The descriptor that came last.
    fd: Option<OwnedFd>,
}

impl Lines {
    /// The next line. Nothing is lost if the future is dropped. What stands behind the last line
    /// end counts as a line, too.
    ///
    /// # Errors
    /// The errors of recvmsg(2).
    pub(super) async fn next(&mut self, stream: &UnixStream) -> io::Result<Incoming> {
        loop {
            let found = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n');
            if let Some(len) = found.map(|at| self.searched + at) {
                let rest = self.buffer.split_off(len + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                line.pop();
                return Ok(if len > LINE_CAP { Incoming::TooLong } else { Incoming::Line(line) });
            }
            self.searched = self.buffer.len();
            if self.searched > LINE_CAP {
                return Ok(Incoming::TooLong);
            }
            if self.is_ended {
                self.searched = 0;
                let rest = std::mem::take(&mut self.buffer);
                return Ok(if rest.is_empty() { Incoming::End } else { Incoming::Line(rest) });
            }
            self.read(stream).await?;
        }
    }

    async fn read(&mut self, stream: &UnixStream) -> io::Result<()> {
        let mut chunk = [0; CHUNK_LEN];
        loop {
            stream.readable().await?;
            let read = stream
                .try_io(Interest::READABLE, || Ok(receive_with_fd(stream.as_fd(), &mut chunk)?));
            match read {
                Ok((len, fd)) => {
                    self.buffer.extend_from_slice(&chunk[..len]);
                    self.is_ended = len == 0;
                    self.fd = fd.or_else(|| self.fd.take());
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The descriptor that came with the last line.
    pub(super) fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fd.take()
    }
}

/// Sends a whole line, end included.
///
/// # Errors
/// The errors of write(2).
pub(super) async fn send(stream: &UnixStream, line: &str) -> io::Result<()> {
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(len) => rest = &rest[len..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn on_pair(test: impl AsyncFnOnce(std::os::unix::net::UnixStream, UnixStream)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let (client, ours) = std::os::unix::net::UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            test(client, UnixStream::from_std(ours).unwrap()).await;
        });
    }

    async fn line(lines: &mut Lines, stream: &UnixStream) -> String {
        match lines.next(stream).await.unwrap() {
            Incoming::Line(line) => String::from_utf8(line).unwrap(),
            other @ (Incoming::TooLong | Incoming::End) => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_are_cut_where_they_end() {
        on_pair(async |mut client, ours| {
            let mut lines = Lines::default();
            client.write_all(b"one\n\ntwo\nth").unwrap();
            for expected in ["one", "", "two"] {
                assert_eq!(line(&mut lines, &ours).await, expected);
            }
            client.write_all(b"ree\nlast").unwrap();
            assert_eq!(line(&mut lines, &ours).await, "three");
            drop(client);
            assert_eq!(line(&mut lines, &ours).await, "last");
            assert!(matches!(lines.next(&ours).await, Ok(Incoming::End)));
        });
    }

    #[test]
    fn longest_line_passes_and_a_longer_one_does_not() {
        for (len, is_taken) in [(LINE_CAP, true), (LINE_CAP + 1, false), (3 * LINE_CAP, false)] {
            on_pair(async |mut client, ours| {
                let writer = std::thread::spawn(move || {
                    // The reader goes before all of a line that is too long is written.
                    let _ = client.write_all(&vec![b'x'; len]);
                    let _ = client.write_all(b"\n");
                });
                let got = Lines::default().next(&ours).await.unwrap();
                match got {
                    Incoming::Line(line) => assert!(is_taken && line.len() == len),
                    Incoming::TooLong => assert!(!is_taken),
                    Incoming::End => panic!("{len}"),
                }
                drop(ours);
                writer.join().unwrap();
            });
        }
    }

    #[test]
    fn descriptors_come_along_and_the_last_one_stays() {
        on_pair(async |client, ours| {
            let mut lines = Lines::default();
            let (a, b) = io::pipe().unwrap();
            crate::sys::send_fd(client.as_fd(), a.as_fd()).unwrap();
            crate::sys::send_fd(client.as_fd(), b.as_fd()).unwrap();
            let mut writer = client;
            writer.write_all(b"\n").unwrap();
            assert_eq!(line(&mut lines, &ours).await, "\0\0");
            assert!(lines.take_fd().is_some() && lines.take_fd().is_none());
        });
    }
}
