//! Lines that a child process writes, each waited for no longer than it is worth.

use std::io::{self, BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::process::ChildStdout;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The standard output of a child that writes each line in one piece.
#[derive(Debug)]
pub(super) struct Lines(BufReader<ChildStdout>);

impl Lines {
    pub(super) fn new(stdout: ChildStdout) -> Self {
        Self(BufReader::new(stdout))
    }

    /// The next line, or `None` at the end. `TimedOut` if it takes longer than `patience`.
    pub(super) fn next(&mut self, patience: Duration) -> io::Result<Option<String>> {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        while self.0.buffer().is_empty() {
            match poll(&mut [PollFd::new(self.0.get_ref().as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut line = String::new();
        let len = self.0.read_line(&mut line)?;
        Ok((len > 0).then_some(line))
    }
}
