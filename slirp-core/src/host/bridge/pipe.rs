//! Pipes for directions that move much.
//!
//! Owns how many there are. A pipe is two descriptors, and is given back empty.

use std::cell::Cell;
use std::io::{PipeReader, PipeWriter, pipe};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::rc::Rc;

use nix::fcntl::{FcntlArg, fcntl};

/// Directions that may have a pipe at a time (arbitrary). The others are copied.
const PIPES_CAP: usize = 64;
/// Bytes that a pipe is to hold; the kernel may refuse it (`pipe-user-pages-soft`, pipe(7)), and
/// then it holds 64 KiB.
const PIPE_LEN: i32 = 1 << 20;

crate::sys::calls::system_calls! {
    SYS_pipe2 => "connections that move much";
    SYS_fcntl if LENGTH => "connections that move much";
    SYS_splice => "connections that move much";
}

/// The length of a pipe.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
const LENGTH: crate::sys::calls::Arguments =
    crate::sys::calls::Arguments::OneOf(1, &[crate::sys::calls::word(libc::F_SETPIPE_SZ)]);

/// Descriptors of a pipe.
const DESCRIPTORS: usize = 2;
/// Divisor: of the descriptors of bridges, pipes may have one in this many (arbitrary).
const PART: usize = 8;

/// The pipes of a thread.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// How many there may be.
    cap: usize,
    /// How many are in use or free.
    count: Rc<Cell<usize>>,
    free: Vec<Pipe>,
}

/// An empty pipe, or one with bytes of one direction.
#[derive(Debug)]
pub(crate) struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
    count: Rc<Cell<usize>>,
}

impl Pipes {
    /// As many as bridges may have beside them that have so many descriptors together.
    pub(crate) fn within(descriptors: usize) -> Self {
        let cap = PIPES_CAP.min(descriptors / PART / DESCRIPTORS);
        Self { cap, count: Rc::default(), free: Vec::new() }
    }

    /// How many descriptors they may have.
    pub(crate) const fn descriptors(&self) -> usize {
        self.cap * DESCRIPTORS
    }

    /// An empty pipe, if there may be one more.
    pub(crate) fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.free.pop() {
            return Some(pipe);
        }
        if self.count.get() >= self.cap {
            return None;
        }
        let (reader, writer) = pipe().ok()?;
        // A shorter pipe takes more calls.
        let _shorter = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_LEN));
        self.count.set(self.count.get() + 1);
        Some(Pipe { reader, writer, count: Rc::clone(&self.count) })
    }

    /// Takes an empty pipe back.
    pub(crate) fn put(&mut self, pipe: Pipe) {
        // One is kept: bulk comes seldom, and then often in one connection.
        if self.free.is_empty() {
            self.free.push(pipe);
        }
    }
}

impl Pipe {
    /// Where bytes come out.
    pub(crate) fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Where bytes go in.
    pub(crate) fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.count.set(self.count.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_few_and_come_back() {
        let mut pipes = Pipes::within(1_024);
        let mut all: Vec<Pipe> = core::iter::from_fn(|| pipes.take()).collect();
        assert_eq!(all.len(), PIPES_CAP);
        all.pop();
        let again = pipes.take().unwrap();
        assert!(pipes.take().is_none());
        pipes.put(again);
        assert!(pipes.take().is_some());
    }
}
