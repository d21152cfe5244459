//! The program's output on stdout and stderr.
//!
//! Owns the two streams, and how a text is dropped when it is not read. A reader that has gone or
//! does not read never blocks the network, the signals or the end.
//!
//! # Theory of operation
//! A stream is a description that the caller shares, so `O_NONBLOCK` must not be set on it. FIFOs,
//! pipes and terminals are opened anew, and sockets are written to with `MSG_DONTWAIT`. For all
//! others (files, and descriptors that we may not reopen) poll(2) comes first: on Linux a writable
//! pipe takes `PIPE_BUF` bytes. A text that finds no room is lost; the number of lost lines is
//! written before the next text that finds room. Only the main thread waits for a slow reader, up
//! to [`PATIENCE`], and not again until there was room.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};

use slirp_core::sandbox::seccomp::SystemCall;

use crate::inherited::silence;

/// The system calls of this module once the network runs.
pub(crate) const SYSTEM_CALLS: &[SystemCall] = &[
    SystemCall::new(libc::SYS_ppoll, "whether there is room for a line"),
    #[cfg(target_arch = "x86_64")]
    SystemCall::new(libc::SYS_poll, "whether there is room for a line"),
    SystemCall::new(libc::SYS_write, "lines"),
    SystemCall::new(libc::SYS_sendto, "lines to a socket"),
];

/// How long the main thread waits for a slow reader, in milliseconds (arbitrary; a reader that
/// reads at all does so within a few).
const PATIENCE: u16 = 1000;

/// Bytes that a writable pipe takes as a whole, without blocking: `PIPE_BUF` (pipe(7)).
const PIECE_LEN: usize = libc::PIPE_BUF;

static STDOUT: Stream = Stream::new(1);
static STDERR: Stream = Stream::new(2);

/// Prepares both streams for a run, and sends panic messages to stderr like any line. `handed_over`
/// is the ready descriptor, on which the caller waits until we close it.
pub(crate) fn prepare(handed_over: Option<i32>) {
    for stream in [&STDOUT, &STDERR] {
        if handed_over != Some(stream.number) {
            stream.prepare();
        }
    }
    panic::set_hook(Box::new(report_panic));
}

/// Leaves the caller's streams, so that their other ends see them closed: `null` takes their place.
///
/// # Errors
/// The errors of dup2(2).
pub(crate) fn leave(null: &File) -> io::Result<()> {
    for stream in [&STDOUT, &STDERR] {
        // The pipe or terminal that we have opened anew counts as well.
        *stream.state() = State::new();
    }
    (0..=2).try_for_each(|number| silence(number, null))
}

/// Writes `text`, the run's whole output, to stdout in one piece. Waits for the reader.
///
/// # Errors
/// The errors of write(2), except `EPIPE`: a reader such as `grep -q` has seen enough.
pub(crate) fn print(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes one line to stdout; failures are ignored.
pub(crate) fn print_line(line: impl std::fmt::Display) {
    STDOUT.offer_patiently(format!("{line}\n").as_bytes());
}

/// Writes one line to stderr; failures are ignored.
pub(crate) fn eprint_line(line: impl std::fmt::Display) {
    eprint_bytes(format!("{line}\n").as_bytes());
}

/// Writes `text`, which need not be UTF-8, to stderr; failures are ignored.
pub(crate) fn eprint_bytes(text: &[u8]) {
    STDERR.offer_patiently(text);
}

/// Reports lost lines, if there is room by now: the last chance at the end of a run.
pub(crate) fn flush() {
    for stream in [&STDOUT, &STDERR] {
        stream.offer(b"");
    }
}

/// Writes log lines to stderr, from any thread, and never waits.
#[derive(Debug)]
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        STDERR.offer(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reports a panic as std's own hook does, but without waiting for a reader.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let trace = Backtrace::capture();
    let is_captured = trace.status() == BacktraceStatus::Captured;
    let trace = if is_captured { trace.to_string() } else { String::new() };
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    STDERR.offer(format!("\nthread '{name}' {panic}\n{trace}").as_bytes());
}

/// Stdout or stderr.
struct Stream {
    number: i32,
    state: Mutex<State>,
}

/// See the [module](self).
struct State {
    /// The stream's pipe or terminal, opened anew without blocking.
    own: Option<File>,
    is_socket: bool,
    /// Lines that found no room.
    lost: usize,
    /// Whether the last line that was written lacks its end; a line feed is then written first.
    is_cut: bool,
}

impl State {
    const fn new() -> Self {
        Self { own: None, is_socket: false, lost: 0, is_cut: false }
    }
}

impl Stream {
    const fn new(number: i32) -> Self {
        Self { number, state: Mutex::new(State::new()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prepare(&self) {
        let mut state = self.state();
        let Ok(status) = self.with(|fd| fstat(fd)) else { return };
        let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
        state.is_socket = kind == SFlag::S_IFSOCK;
        // Not files: a description of our own would have an offset of its own.
        if kind == SFlag::S_IFIFO || kind == SFlag::S_IFCHR {
            state.own = OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(format!("/proc/self/fd/{}", self.number))
                .ok();
        }
    }

    fn with<T>(&self, work: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        if self.number == 1 { work(io::stdout().as_fd()) } else { work(io::stderr().as_fd()) }
    }

    /// Writes `text` if there is room within [`PATIENCE`].
    fn offer_patiently(&self, text: &[u8]) {
        // This waits without the lock, so that other threads do not wait for it.
        if self.state().lost == 0 {
            let _ = self.with(|fd| has_room(fd, PollTimeout::from(PATIENCE)));
        }
        self.offer(text);
    }

    /// Writes `text` if there is room now.
    fn offer(&self, text: &[u8]) {
        let mut state = self.state();
        let lines = text.iter().filter(|&&byte| byte == b'\n').count();
        if state.lost > 0 {
            let end = if state.is_cut { "\n" } else { "" };
            let notice = format!("{end}{} lines were lost: they were not read\n", state.lost);
            if !self.write(&mut state, notice.as_bytes()) {
                state.lost += lines;
                return;
            }
            state.lost = 0;
        }
        if !self.write(&mut state, text) {
            state.lost += lines;
        }
    }

    /// Writes `text`. Returns whether it was written whole, or the reader has gone.
    fn write(&self, state: &mut State, text: &[u8]) -> bool {
        let mut rest = text;
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(PIECE_LEN)];
            let written = match &state.own {
                Some(own) => write_now(own.as_fd(), state.is_socket, piece),
                None => self.with(|fd| write_now(fd, state.is_socket, piece)),
            };
            match written {
                Ok(len) => rest = &rest[len..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    state.is_cut |= rest.len() < text.len();
                    return false;
                }
                // The reader has gone or the disk is full, so this cannot be reported.
                Err(_) => break,
            }
        }
        state.is_cut &= text.is_empty();
        true
    }
}

fn write_now(fd: BorrowedFd<'_>, is_socket: bool, piece: &[u8]) -> Result<usize, Errno> {
    if is_socket {
        return send(fd.as_raw_fd(), piece, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    }
    if !has_room(fd, PollTimeout::ZERO)? {
        return Err(Errno::EAGAIN);
    }
    nix::unistd::write(fd, piece)
}

/// Whether a write would not block, or would fail, within `timeout`.
fn has_room(fd: BorrowedFd<'_>, timeout: PollTimeout) -> Result<bool, Errno> {
    Ok(poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], timeout)? > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// A stream that writes to a pipe, opened anew like the real ones.
    fn stream(writer: &io::PipeWriter) -> Stream {
        let stream = Stream::new(writer.as_raw_fd());
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        let own = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path);
        stream.state().own = Some(own.unwrap());
        stream
    }

    #[test]
    fn lost_lines_are_counted_and_said_when_there_is_room() {
        let (mut reader, writer) = io::pipe().unwrap();
        let stream = stream(&writer);
        let line = [[b'.'; 1023].as_slice(), b"\n"].concat();
        let mut offered = 0;
        while stream.state().lost < 3 {
            stream.offer(&line);
            offered += 1;
        }
        let mut whole = vec![0; (offered - 3) * line.len()];
        reader.read_exact(&mut whole).unwrap();
        assert!(whole.chunks(line.len()).all(|it| it == line));
        stream.offer(b"afterwards\n");
        drop((stream, writer));
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "3 lines were lost: they were not read\nafterwards\n");
    }

    #[test]
    fn text_that_is_cut_ends_its_line_before_the_next() {
        let (mut reader, writer) = io::pipe().unwrap();
        let stream = stream(&writer);
        let text = [vec![b'.'; 1 << 20], b"\n".to_vec()].concat();
        stream.offer(&text);
        assert_eq!(stream.state().lost, 1);
        let mut piece = vec![0; 8192];
        reader.read_exact(&mut piece).unwrap();
        stream.offer(b"afterwards\n");
        drop((stream, writer));
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with(".\n1 lines were lost: they were not read\nafterwards\n"));
    }

    #[test]
    fn reader_that_has_gone_is_not_counted() {
        let (reader, writer) = io::pipe().unwrap();
        let stream = stream(&writer);
        drop(reader);
        stream.offer(b"unread\n");
        assert_eq!(stream.state().lost, 0);
    }
}
