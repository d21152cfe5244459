//! A helper process that stays outside of the sandbox and does there what needs the host's files.
//!
//! Owns the process, its three duties and the way to it. This process is about to give up its file
//! system, and a descriptor of a folder that it kept would lead back out. Which duties there are is
//! decided above.
//!
//! | duty | when | what comes back |
//! | --- | --- | --- |
//! | read a file | this process asks | its content, never a descriptor |
//! | watch a target | all the time | the hang-up of a pipe, once the target is gone |
//! | remove a file | this process has ended or given the helper up | nothing |
//!
//! # Theory of operation
//! Helper and parent hold the two ends of a socket pair, which tell both of each other's end, however
//! it comes. What the parent sends are numbers of questions, one byte each, and it has nothing else to
//! say: the files are fixed when the helper starts. An answer carries the number of its question, so
//! that one which comes too late is not taken for the next. As in [`fork`](super::fork), the
//! child only does what a signal handler may. It keeps no other descriptor than those of its duties,
//! so that nobody who waits for the end of ours is kept waiting by it, takes no signal, and cannot be
//! traced.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, shutdown, socketpair,
};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, chdir, pipe2, read};

super::calls::system_calls! {
    SYS_sendto => "questions to the helper";
    SYS_recvfrom => "the helper's answers";
    SYS_shutdown => "the helper is told";
    SYS_ppoll => "the helper's answers and its end";
    #[cfg(target_arch = "x86_64")]
    SYS_poll => "the helper's answers and its end";
    SYS_wait4 => "the helper's end";
}

/// What tells one file from another: its device and inode.
pub(crate) type Identity = (u64, u64);

/// Longest file that is read, in bytes (arbitrary; an ordinary resolv.conf has a few hundred).
pub(crate) const FILE_CAP: usize = 64 * 1024;

/// In front of the file in an answer: the number of the question, and an error number.
const HEADER_LEN: usize = 2;

/// How long an answer is waited for, in milliseconds (arbitrary; it takes less than one).
const ANSWER_PATIENCE: u16 = 500;

/// How long its end is waited for, in milliseconds (arbitrary; it takes less than one).
const END_PATIENCE: u16 = 2000;

/// What a helper is for.
#[derive(Debug, Default)]
pub(crate) struct Duties {
    /// The file that it reads, as an absolute path.
    pub(crate) read: Option<CString>,
    /// The file that it removes at the end, as an absolute path, unless it is another one by then.
    pub(crate) removed: Option<(CString, Identity)>,
}

/// A target for the helper to watch.
pub(crate) struct Watched<'a> {
    /// It becomes readable when `is_gone` should be asked.
    pub(crate) wakes: BorrowedFd<'a>,
    /// What `is_gone` needs besides.
    pub(crate) kept: [BorrowedFd<'a>; 3],
    /// Whether the target is gone. It runs in the helper: it may neither allocate, nor take a lock,
    /// nor panic.
    pub(crate) is_gone: &'a dyn Fn() -> bool,
}

/// The helper. Dropping it lets it remove its file, and waits until it has.
#[derive(Debug)]
pub(crate) struct Helper {
    /// Our end of the pair.
    socket: OwnedFd,
    pid: Pid,
    /// The number of the last question.
    asked: Mutex<u8>,
}

impl Helper {
    /// Starts a helper. Where it watches a target, the descriptor hangs up when the target is gone,
    /// or the helper.
    ///
    /// # Errors
    /// Those of socketpair(2), pipe(2) and fork(2).
    pub(crate) fn start(
        duties: &Duties,
        watched: Option<&Watched<'_>>,
    ) -> Result<(Self, Option<OwnedFd>), Errno> {
        let (here, there) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let pipe = watched.map(|_| pipe2(OFlag::O_CLOEXEC)).transpose()?;
        let (gone, tell) = pipe.unzip();
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: the child only calls `serve`, which makes plain system calls on values that exist
        // already, and leaves by _exit(2) without running any destructor of the program.
        let born = unsafe { nix::unistd::fork() };
        if let Ok(ForkResult::Child) = born {
            serve(there.as_fd(), duties, watched.zip(tell));
            // SAFETY: _exit(2) ends the process at once.
            unsafe { libc::_exit(0) };
        }
        // It can only fail for an invalid `how`, and the mask is the one that we were given.
        let _restored = mask.thread_set_mask();
        match born? {
            ForkResult::Parent { child } => {
                Ok((Self { socket: here, pid: child, asked: Mutex::new(0) }, gone))
            }
            // The child has left above.
            ForkResult::Child => Err(Errno::EINVAL),
        }
    }

    /// What is in the file that the helper reads, at most [`FILE_CAP`] bytes of it.
    ///
    /// # Errors
    /// Those of open(2) and read(2), `EINVAL` for what is no regular file; `ETIMEDOUT` from a helper
    /// that does not answer in [`ANSWER_PATIENCE`], `EPIPE` from one that has ended.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = asked.wrapping_add(1);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        send(self.socket.as_raw_fd(), &[*asked], flags)?;
        let mut record = vec![0; HEADER_LEN + FILE_CAP];
        loop {
            let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            if poll(&mut polled, PollTimeout::from(ANSWER_PATIENCE))? == 0 {
                return Err(Errno::ETIMEDOUT.into());
            }
            let len = recv(self.socket.as_raw_fd(), &mut record, MsgFlags::MSG_DONTWAIT)?;
            match record.get(..len) {
                Some([number, 0, ..]) if number == &*asked => {
                    record.truncate(len);
                    record.drain(..HEADER_LEN);
                    return Ok(record);
                }
                Some([number, errno, ..]) if number == &*asked => {
                    return Err(Errno::from_raw((*errno).into()).into());
                }
                // The answer to a question that we have given up.
                Some([_, _, ..]) => {}
                Some(_) | None => return Err(Errno::EPIPE.into()),
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _told = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        // Nothing but its hang-up counts: there may be answers that nobody has read.
        let mut hung_up = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        if poll(&mut hung_up, PollTimeout::from(END_PATIENCE)) == Ok(1) {
            // Whoever ignores its children has reaped it already.
            let _reaped = waitpid(self.pid, None);
        }
    }
}

/// What the helper does.
fn serve(parent: BorrowedFd<'_>, duties: &Duties, watched: Option<(&Watched<'_>, OwnedFd)>) {
    // Failure of these would mean less tidiness or protection, but no harm to what it is for.
    let _protected = prctl::set_dumpable(false);
    let _named = prctl::set_name(c"slirp-outside");
    let _moved = chdir(c"/");
    let mut kept = [parent.as_raw_fd(); 6];
    if let Some((watched, tell)) = &watched {
        let [first, second, third] = watched.kept.map(|fd| fd.as_raw_fd());
        let (wakes, tell) = (watched.wakes.as_raw_fd(), tell.as_raw_fd());
        kept = [parent.as_raw_fd(), wakes, first, second, third, tell];
    }
    close_all_but(kept);
    let mut watched = watched;
    let mut record = [0_u8; HEADER_LEN + FILE_CAP];
    loop {
        if watched.as_ref().is_some_and(|(watched, _)| (watched.is_gone)()) {
            // This closes the pipe.
            watched = None;
        }
        let wakes = watched.as_ref().map_or(parent, |(watched, _)| watched.wakes);
        let mut polled =
            [PollFd::new(parent, PollFlags::POLLIN), PollFd::new(wakes, PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        if polled.first().and_then(PollFd::any) == Some(false) {
            continue;
        }
        let mut number = [0_u8; 1];
        match read(parent, &mut number) {
            Ok(0) => break,
            Ok(_) => answer(parent, duties.read.as_deref(), number[0], &mut record),
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
    if let Some((path, identity)) = &duties.removed
        && identity_of(path) == Some(*identity)
    {
        // SAFETY: the path is a C string; nothing can be done about a failure.
        let _removed = unsafe { libc::unlink(path.as_ptr()) };
    }
}

/// Answers question `number`.
fn answer(
    parent: BorrowedFd<'_>,
    path: Option<&CStr>,
    number: u8,
    record: &mut [u8; HEADER_LEN + FILE_CAP],
) {
    let [of, status, content @ ..] = record;
    *of = number;
    let read = path.ok_or(Errno::ENOENT).and_then(|path| read_file(path, content));
    // Numbers of errors end far below 256 (errno(3)).
    *status = read.err().map_or(0, |errno| u8::try_from(errno as i32).unwrap_or(u8::MAX));
    let len = HEADER_LEN + read.unwrap_or(0);
    let sent =
        send(parent.as_raw_fd(), record.get(..len).unwrap_or_default(), MsgFlags::MSG_NOSIGNAL);
    if let Err(Errno::EMSGSIZE) = sent {
        // Buffers of sockets are small here (net.core.wmem_default).
        let refused = [number, u8::try_from(Errno::EMSGSIZE as i32).unwrap_or(u8::MAX)];
        let _sent = send(parent.as_raw_fd(), &refused, MsgFlags::MSG_NOSIGNAL);
    }
}

/// Reads as much of a file as there is room for. Not blocking matters for a FIFO of that name.
fn read_file(path: &CStr, content: &mut [u8]) -> Result<usize, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = open(path, flags, Mode::empty())?;
    if SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(Errno::EINVAL);
    }
    let mut len = 0;
    loop {
        match read(&file, content.get_mut(len..).unwrap_or_default())? {
            0 => return Ok(len),
            count => len += count,
        }
    }
}

/// Device and inode of `path` itself, not of what it links to.
fn identity_of(path: &CStr) -> Option<Identity> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: lstat(2) reads a C string and writes one `struct stat` when it succeeds.
    let stat = unsafe {
        if libc::lstat(path.as_ptr(), stat.as_mut_ptr()) != 0 {
            return None;
        }
        stat.assume_init()
    };
    Some((stat.st_dev, stat.st_ino))
}

/// Closes all descriptors but these, which may be named twice.
fn close_all_but(mut kept: [RawFd; 6]) {
    kept.sort_unstable();
    let mut first = 0;
    for kept in kept.map(RawFd::unsigned_abs) {
        if first < kept {
            close_range(first, kept - 1);
        }
        first = kept + 1;
    }
    close_range(first, libc::c_uint::MAX);
}

fn close_range(first: libc::c_uint, last: libc::c_uint) {
    // SAFETY: closing descriptors touches no memory, and this process uses none of them.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if closed != 0 {
        close_one_by_one(first, last);
    }
}

/// Before Linux 5.9.
fn close_one_by_one(first: libc::c_uint, last: libc::c_uint) {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let end = limit.map_or(1024, |(soft, _)| soft).min(u64::from(last).saturating_add(1));
    for number in u64::from(first)..end {
        // SAFETY: as above; a number that is not open is refused.
        let _closed = RawFd::try_from(number).map(|number| unsafe { libc::close(number) });
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "what is read and removed are files")]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::{Path, PathBuf};

    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("slirp-outside-{}-{name}", std::process::id()))
    }

    fn c_string(path: &Path) -> CString {
        CString::new(path.as_os_str().as_bytes()).unwrap()
    }

    fn file(name: &str) -> (PathBuf, Duties) {
        let path = path(name);
        std::fs::write(&path, "").unwrap();
        let name = c_string(&path);
        let identity = identity_of(&name).unwrap();
        (path, Duties { read: None, removed: Some((name, identity)) })
    }

    #[test]
    fn file_is_gone_when_it_has_been_dropped_and_no_process_is_left() {
        let (path, duties) = file("gone");
        let (helper, _) = Helper::start(&duties, None).unwrap();
        let pid = helper.pid;
        assert!(path.exists());
        drop(helper);
        assert!(!path.exists());
        assert_eq!(nix::sys::signal::kill(pid, None), Err(Errno::ESRCH));
    }

    #[test]
    fn another_file_of_the_same_name_stays() {
        let (path, duties) = file("other");
        let (helper, _) = Helper::start(&duties, None).unwrap();
        // The first one exists on, so that its inode is not given to the second.
        let kept = path.with_extension("kept");
        std::fs::rename(&path, &kept).unwrap();
        std::fs::write(&path, "").unwrap();
        drop(helper);
        assert!(path.exists() && kept.exists());
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(kept).unwrap();
    }

    #[test]
    fn file_is_read_as_it_is_at_each_question() {
        let path = path("read");
        let duties = Duties { read: Some(c_string(&path)), removed: None };
        let (helper, _) = Helper::start(&duties, None).unwrap();
        let errno = || helper.read().unwrap_err().raw_os_error();
        assert_eq!(errno(), Some(libc::ENOENT));
        std::fs::write(&path, "one").unwrap();
        assert_eq!(helper.read().unwrap(), b"one");
        std::fs::write(&path, "another").unwrap();
        assert_eq!(helper.read().unwrap(), b"another");
        let long = vec![b'#'; FILE_CAP + 1];
        std::fs::write(&path, &long).unwrap();
        assert_eq!(helper.read().unwrap(), long[..FILE_CAP]);
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, Mode::S_IRUSR).unwrap();
        assert_eq!(errno(), Some(libc::EINVAL), "a FIFO without a writer");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(errno(), Some(libc::EINVAL), "a folder");
        std::fs::remove_dir(&path).unwrap();
    }

    #[test]
    fn late_answer_is_not_taken_for_the_next() {
        let path = path("late");
        std::fs::write(&path, "old").unwrap();
        let duties = Duties { read: Some(c_string(&path)), removed: None };
        let (helper, _) = Helper::start(&duties, None).unwrap();
        // A question whose answer nobody waited for.
        send(helper.socket.as_raw_fd(), &[200], MsgFlags::empty()).unwrap();
        let mut polled = [PollFd::new(helper.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::NONE).unwrap();
        std::fs::write(&path, "new").unwrap();
        assert_eq!(helper.read().unwrap(), b"new");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn helper_that_has_ended_is_noticed() {
        let (helper, _) = Helper::start(&Duties::default(), None).unwrap();
        nix::sys::signal::kill(helper.pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        waitpid(helper.pid, None).unwrap();
        assert_eq!(helper.read().unwrap_err().raw_os_error(), Some(libc::EPIPE));
    }

    #[test]
    fn end_of_a_target_hangs_up() {
        let (wakes, waker) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let is_gone = || {
            let mut polled = [PollFd::new(wakes.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, PollTimeout::ZERO) == Ok(1)
        };
        let fd = wakes.as_fd();
        let watched = Watched { wakes: fd, kept: [fd; 3], is_gone: &is_gone };
        let (_helper, gone) = Helper::start(&Duties::default(), Some(&watched)).unwrap();
        let gone = gone.unwrap();
        let hung_up = |timeout| {
            let mut polled = [PollFd::new(gone.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, timeout)
        };
        assert_eq!(hung_up(PollTimeout::ZERO), Ok(0));
        drop(waker);
        assert_eq!(hung_up(PollTimeout::NONE), Ok(1));
    }
}
