//! A helper process that stays outside of the sandbox, for work that needs the host's files.
//!
//! Owns the process, its three duties and the pipes to it. The sandboxed process is about to give
//! up its file system, and a folder's descriptor would lead back out if it kept one. The sandbox
//! decides which duties there are.
//!
//! | duty | when | what comes back |
//! | --- | --- | --- |
//! | read a file | this process asks | its content, never a descriptor |
//! | watch a target | all the time | the hang-up of a pipe, once the target is gone |
//! | remove files | this process has ended or dropped the helper | nothing |
//!
//! # Theory of operation
//! There is a pipe each way. Its hang-up tells each side that the other has ended, for whatever
//! reason. (Socket pairs are not used, because a filter that we run under may forbid them, as the
//! Guix daemon's does.) The parent sends numbers of questions, one byte each, and nothing else: the
//! files are fixed when the helper starts. An answer carries the number of its question, so that a
//! late answer is not taken for the next. As in [`fork`](super::fork), the child only does what a
//! signal handler may. It keeps only the descriptors of its duties, so that a program that waits
//! for the hang-up of a descriptor of ours does not wait for the helper. It takes no signal, and
//! cannot be traced.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, chdir, pipe2, read, write};

use super::fd::open_fds;
use super::file::Identity;

super::calls::system_calls! {
    SYS_write => "questions to the helper";
    SYS_read => "the helper's answers";
    SYS_ppoll => "the helper's answers and its end";
    SYS_wait4 => "the helper's end";
}

/// Longest file that is read, in bytes (arbitrary; an ordinary resolv.conf has a few hundred).
pub(crate) const FILE_CAP: usize = 64 * 1024;

/// An answer's header: the number of the question, an error number, and the length of the content
/// that follows, in four bytes, little-endian.
const HEADER_LEN: usize = 6;

/// Longest wait for an answer (arbitrary; it takes less than a millisecond).
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);

/// Longest wait for the helper's end (arbitrary; it takes less than a millisecond).
const END_PATIENCE: Duration = Duration::from_secs(2);

/// The duties of a helper.
#[derive(Debug, Default)]
pub(crate) struct Duties {
    /// The file that it reads, as an absolute path.
    pub(crate) read: Option<CString>,
    /// The files that it removes at the end, as absolute paths, unless another file has the name by
    /// then.
    pub(crate) removed: Vec<(CString, Identity)>,
}

/// A target for the helper to watch.
pub(crate) struct Watched<'a> {
    /// Becomes readable when `is_gone` should be asked.
    pub(crate) wakes: BorrowedFd<'a>,
    /// Further descriptors that `is_gone` needs.
    pub(crate) kept: [BorrowedFd<'a>; 3],
    /// Whether the target is gone; the helper then closes its pipe. It runs in the helper: it may
    /// neither allocate, nor take a lock, nor panic.
    pub(crate) is_gone: &'a dyn Fn() -> bool,
}

/// The helper. Dropping it lets it remove its files, and waits until it has.
#[derive(Debug)]
pub(crate) struct Helper {
    /// Questions are written here. `None` while the helper is being dropped.
    ask: Option<OwnedFd>,
    /// The reading end of that pipe. We keep it open, so that a question to a helper that has ended
    /// raises no SIGPIPE.
    _kept: OwnedFd,
    /// Answers arrive here.
    answers: OwnedFd,
    pid: Pid,
    dialogue: Mutex<Dialogue>,
}

/// The state of the current question and its answer.
#[derive(Debug, Default)]
struct Dialogue {
    /// The number of the last question.
    asked: u8,
    /// The bytes of answers that have arrived.
    arrived: Vec<u8>,
}

impl Dialogue {
    /// Takes the first complete answer: the number of its question, and the content or an error.
    fn take(&mut self) -> Option<(u8, Result<Vec<u8>, Errno>)> {
        let &[number, errno, ref len @ ..] = self.arrived.first_chunk::<HEADER_LEN>()?;
        let len = HEADER_LEN + usize::try_from(u32::from_le_bytes(*len)).ok()?;
        if self.arrived.len() < len {
            return None;
        }
        let answer: Vec<u8> = self.arrived.drain(..len).skip(HEADER_LEN).collect();
        let content = if errno == 0 { Ok(answer) } else { Err(Errno::from_raw(errno.into())) };
        Some((number, content))
    }
}

impl Helper {
    /// Starts a helper. If it watches a target, the returned descriptor hangs up when the target or
    /// the helper is gone.
    ///
    /// # Errors
    /// The errors of pipe(2) and fork(2).
    pub(crate) fn start(
        duties: &Duties,
        watched: Option<&Watched<'_>>,
    ) -> Result<(Self, Option<OwnedFd>), Errno> {
        // A question never waits for a helper that does not read.
        let (questions, ask) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let (answers, reply) = pipe2(OFlag::O_CLOEXEC)?;
        let pipe = watched.map(|_| pipe2(OFlag::O_CLOEXEC)).transpose()?;
        let (gone, tell) = pipe.unzip();
        let last = last_fd();
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: the child only calls `serve`, which makes plain system calls on values that exist
        // already, and leaves by _exit(2) without running any destructor of the program.
        let born = unsafe { nix::unistd::fork() };
        if let Ok(ForkResult::Child) = born {
            serve(questions.as_fd(), reply.as_fd(), duties, watched.zip(tell), last);
            // SAFETY: _exit(2) ends the process at once.
            unsafe { libc::_exit(0) };
        }
        // It can only fail for an invalid `how`, and the mask is the one that was saved.
        let _restored = mask.thread_set_mask();
        match born? {
            ForkResult::Parent { child } => {
                let dialogue = Mutex::default();
                let helper =
                    Self { ask: Some(ask), _kept: questions, answers, pid: child, dialogue };
                Ok((helper, gone))
            }
            // The child has left above.
            ForkResult::Child => Err(Errno::EINVAL),
        }
    }

    /// The content of the file that the helper reads, at most [`FILE_CAP`] bytes.
    ///
    /// # Errors
    /// The errors of open(2) and read(2), `EINVAL` for a file that is not regular; `ETIMEDOUT` when
    /// the helper does not answer in [`ANSWER_PATIENCE`], `EPIPE` when it has ended.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        let mut dialogue = self.dialogue.lock().unwrap_or_else(PoisonError::into_inner);
        dialogue.asked = dialogue.asked.wrapping_add(1);
        let asked = dialogue.asked;
        self.ask(asked)?;
        let mut piece = vec![0; HEADER_LEN + FILE_CAP];
        loop {
            match dialogue.take() {
                Some((number, content)) if number == asked => return Ok(content?),
                // The answer to a question that was given up.
                Some(_) => continue,
                None => {}
            }
            if !self.has_event(PollFlags::POLLIN, ANSWER_PATIENCE)? {
                return Err(Errno::ETIMEDOUT.into());
            }
            let len = read(&self.answers, &mut piece)?;
            if len == 0 {
                return Err(Errno::EPIPE.into());
            }
            dialogue.arrived.extend_from_slice(piece.get(..len).unwrap_or_default());
        }
    }

    fn ask(&self, number: u8) -> Result<(), Errno> {
        let ask = self.ask.as_ref().ok_or(Errno::EPIPE)?;
        write(ask, &[number]).map(drop)
    }

    /// Waits for one of `events` or the end of the helper. Signals of the embedding program do not
    /// end the wait. Returns whether the event came in time.
    fn has_event(&self, events: PollFlags, patience: Duration) -> Result<bool, Errno> {
        let mut polled = [PollFd::new(self.answers.as_fd(), events)];
        Ok(ppoll(&mut polled, Some(patience.into()), Some(SigSet::all()))? > 0)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.ask = None;
        // Only the hang-up counts: there may be unread answers.
        if self.has_event(PollFlags::empty(), END_PATIENCE) == Ok(true) {
            // If this program ignores its children, the kernel has reaped the helper already.
            while waitpid(self.pid, None) == Err(Errno::EINTR) {}
        }
    }
}

/// The helper's work. Its descriptors have numbers up to `last`.
fn serve(
    questions: BorrowedFd<'_>,
    reply: BorrowedFd<'_>,
    duties: &Duties,
    watched: Option<(&Watched<'_>, OwnedFd)>,
    last: libc::c_uint,
) {
    // If these fail, the helper is less tidy or protected, but it still works.
    let _protected = prctl::set_dumpable(false);
    let _named = prctl::set_name(c"slirp-outside");
    let _moved = chdir(c"/");
    let [first, second, third, wakes, tell] =
        watched.as_ref().map_or([questions.as_raw_fd(); 5], |(watched, tell)| {
            let [first, second, third] = watched.kept.map(|fd| fd.as_raw_fd());
            [first, second, third, watched.wakes.as_raw_fd(), tell.as_raw_fd()]
        });
    let (asked, told) = (questions.as_raw_fd(), reply.as_raw_fd());
    close_all_but([asked, told, first, second, third, wakes, tell], last);
    let mut watched = watched;
    let mut record = [0_u8; HEADER_LEN + FILE_CAP];
    loop {
        if watched.as_ref().is_some_and(|(watched, _)| (watched.is_gone)()) {
            // This closes the pipe.
            watched = None;
        }
        let wakes = watched.as_ref().map_or(questions, |(watched, _)| watched.wakes);
        let mut polled =
            [PollFd::new(questions, PollFlags::POLLIN), PollFd::new(wakes, PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break,
        }
        if polled.first().and_then(PollFd::any) == Some(false) {
            continue;
        }
        let mut number = [0_u8; 1];
        match read(questions, &mut number) {
            Ok(1..) => answer(reply, duties.read.as_deref(), number[0], &mut record),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Ok(0) | Err(_) => break,
        }
    }
    for (path, identity) in &duties.removed {
        if identity_of(path) == Some(*identity) {
            // SAFETY: the path is a C string; nothing can be done about a failure.
            let _removed = unsafe { libc::unlink(path.as_ptr()) };
        }
    }
}

/// Answers question `number`.
fn answer(
    reply: BorrowedFd<'_>,
    path: Option<&CStr>,
    number: u8,
    record: &mut [u8; HEADER_LEN + FILE_CAP],
) {
    let [of, status, first, second, third, fourth, content @ ..] = record;
    let read = path.ok_or(Errno::ENOENT).and_then(|path| read_file(path, content));
    *of = number;
    // Numbers of errors end far below 256 (errno(3)).
    *status = read.err().map_or(0, |errno| u8::try_from(errno as i32).unwrap_or(u8::MAX));
    let len = read.unwrap_or(0);
    [*first, *second, *third, *fourth] = u32::try_from(len).unwrap_or(0).to_le_bytes();
    let mut rest = record.get(..HEADER_LEN + len).unwrap_or_default();
    while !rest.is_empty() {
        match write(reply, rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            // Our parent has ended; the hang-up of its questions tells so, too.
            Err(_) => return,
        }
    }
}

/// Reads as much of a file as there is room for. `O_NONBLOCK` matters if the path is a FIFO.
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

/// Device and inode of `path` itself; links are not followed.
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

/// The highest number of an open descriptor, where [`close_range`] needs it. It is far below the
/// limit, which may be a thousand million.
fn last_fd() -> libc::c_uint {
    // Nothing has this number.
    if range_closed(libc::c_uint::MAX, libc::c_uint::MAX) {
        return libc::c_uint::MAX;
    }
    let last = open_fds().ok().and_then(|open| open.into_iter().max());
    last.unwrap_or(RawFd::MAX).unsigned_abs()
}

/// Closes all descriptors except `kept`, which may contain duplicates; `last` is the highest open
/// number.
fn close_all_but(mut kept: [RawFd; 7], last: libc::c_uint) {
    kept.sort_unstable();
    let mut first = 0;
    for kept in kept.map(RawFd::unsigned_abs) {
        if first < kept {
            close_range(first, kept - 1, last);
        }
        first = kept + 1;
    }
    close_range(first, libc::c_uint::MAX, last);
}

/// Whether the kernel has closed these at once.
fn range_closed(from: libc::c_uint, to: libc::c_uint) -> bool {
    // SAFETY: closing descriptors touches no memory, and the callers use none of them any more.
    unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) == 0 }
}

fn close_range(from: libc::c_uint, to: libc::c_uint, last: libc::c_uint) {
    if !range_closed(from, to) {
        // Before Linux 5.9.
        for number in from..=to.min(last) {
            // SAFETY: as above; a number that is not open is refused.
            let _closed = RawFd::try_from(number).map(|number| unsafe { libc::close(number) });
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests read and remove files")]
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
        (path, Duties { read: None, removed: vec![(name, identity)] })
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
    fn every_file_is_removed() {
        let (first, mut duties) = file("first");
        let (second, more) = file("second");
        duties.removed.extend(more.removed);
        drop(Helper::start(&duties, None).unwrap());
        assert!(!first.exists() && !second.exists());
    }

    #[test]
    fn another_file_of_the_same_name_stays() {
        let (path, duties) = file("other");
        let (helper, _) = Helper::start(&duties, None).unwrap();
        // The first file stays, so that its inode is not reused for the second.
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
        let duties = Duties { read: Some(c_string(&path)), removed: Vec::new() };
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
        let duties = Duties { read: Some(c_string(&path)), removed: Vec::new() };
        let (helper, _) = Helper::start(&duties, None).unwrap();
        // A question whose answer was not awaited.
        helper.ask(200).unwrap();
        let mut polled = [PollFd::new(helper.answers.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::NONE).unwrap();
        std::fs::write(&path, "new").unwrap();
        assert_eq!(helper.read().unwrap(), b"new");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn file_is_removed_although_an_answer_was_never_read() {
        let (path, mut duties) = file("unread");
        duties.read = Some(c_string(&path));
        let (helper, _) = Helper::start(&duties, None).unwrap();
        helper.ask(1).unwrap();
        let mut polled = [PollFd::new(helper.answers.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::NONE).unwrap();
        // As if this process were killed.
        let pid = helper.pid;
        let ends = [helper.ask.as_ref().unwrap(), &helper._kept, &helper.answers];
        let ends = ends.map(AsRawFd::as_raw_fd);
        core::mem::forget(helper);
        for end in ends {
            nix::unistd::close(end).unwrap();
        }
        waitpid(pid, None).unwrap();
        assert!(!path.exists());
    }

    /// Makes close_range(2) fail as if it were missing, in this thread and its children.
    #[cfg(target_arch = "x86_64")]
    fn lose_close_range() {
        use seccompiler::*;
        let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        let rules = [(libc::SYS_close_range, Vec::new())].into_iter().collect();
        let arch = TargetArch::x86_64;
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, arch).unwrap();
        apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn nothing_else_stays_open_where_close_range_is_missing() {
        let path = path("fds");
        std::fs::write(&path, "one").unwrap();
        let duties = Duties { read: Some(c_string(&path)), removed: Vec::new() };
        // Other tests open and close descriptors of this process all the time; this one stays open.
        let ours = std::fs::File::open(&path).unwrap();
        let on_old_kernel = std::thread::spawn(move || {
            lose_close_range();
            let (helper, _) = Helper::start(&duties, None).unwrap();
            // It answers when it has closed them.
            assert_eq!(helper.read().unwrap(), b"one");
            let folder = format!("/proc/{}/fd", helper.pid);
            let open = std::fs::read_dir(folder).unwrap().flatten();
            open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect::<Vec<_>>()
        });
        let open = on_old_kernel.join().unwrap();
        assert!(open.len() >= 2 && !open.contains(&path), "{open:?}");
        drop(ours);
        std::fs::remove_file(&path).unwrap();
    }

    extern "C" fn ignore(_: libc::c_int) {}

    #[test]
    fn signal_to_the_thread_that_waits_for_an_answer_loses_none() {
        use nix::sys::signal::{SaFlags, SigAction, SigHandler, Signal, kill, sigaction};
        use nix::sys::wait::{WaitPidFlag, WaitStatus};
        let path = path("signal");
        std::fs::write(&path, "one").unwrap();
        let duties = Duties { read: Some(c_string(&path)), removed: Vec::new() };
        let (helper, _) = Helper::start(&duties, None).unwrap();
        let pid = helper.pid;
        kill(pid, Signal::SIGSTOP).unwrap();
        let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(stopped, WaitStatus::Stopped(pid, Signal::SIGSTOP));
        let action = SigAction::new(SigHandler::Handler(ignore), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGURG, &action) }.unwrap();
        let (tell, thread) = std::sync::mpsc::channel();
        let asking = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            helper.read()
        });
        let thread = thread.recv().unwrap();
        let stat = || std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
        while !stat().contains(") S ") {
            std::thread::yield_now();
        }
        let own = std::process::id();
        // SAFETY: tgkill(2) takes three numbers.
        unsafe { libc::syscall(libc::SYS_tgkill, own, thread, libc::SIGURG) };
        while stat().contains(") R ") {
            std::thread::yield_now();
        }
        kill(pid, Signal::SIGCONT).unwrap();
        assert_eq!(asking.join().unwrap().unwrap(), b"one");
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
