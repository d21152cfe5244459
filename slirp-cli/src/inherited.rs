//! Descriptors that the caller opened and handed over by number.
//!
//! Owns `--ready-fd` and `--exit-fd`. They are taken over before anything else is opened. A number
//! that is closed now may belong to one of our own files a moment later, and we must not mistake
//! that file for the caller's.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::{libc, unistd};

use slirp_core::internals::process::inherited_fd;
use slirp_core::sandbox::seccomp::SystemCall;

/// The readiness message. Callers read exactly this byte.
const READY: &[u8] = b"1";

/// The system calls of this module once the network runs.
pub(crate) const SYSTEM_CALLS: &[SystemCall] = &[
    SystemCall::new(libc::SYS_write, "readiness"),
    SystemCall::new(libc::SYS_close, "readiness"),
    SystemCall::new(libc::SYS_dup3, "/dev/null in the place of a standard stream"),
    #[cfg(target_arch = "x86_64")]
    SystemCall::new(libc::SYS_dup2, "/dev/null in the place of a standard stream"),
];

/// The descriptor on which readiness is reported.
#[derive(Debug)]
pub(crate) struct ReadyFd {
    file: File,
    /// If the descriptor is a standard stream, its number and the file to put in its place: those
    /// numbers stay in use. The file is opened here, since later no file can be opened for writing.
    standard: Option<(i32, File)>,
}

impl ReadyFd {
    /// Takes over descriptor `number`; `None` if it is not open for writing. A caller cannot be
    /// waiting on a descriptor that does not exist.
    pub(crate) fn take(number: i32) -> Option<Self> {
        let file = File::from(inherited_fd(number).ok()?);
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL).ok()?);
        if flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
            return None;
        }
        // Standard streams come as duplicates, so that their numbers are never free for the next
        // socket, which would then get our messages.
        let standard = if (0..=2).contains(&number) {
            let null = OpenOptions::new().read(true).write(true).open("/dev/null").ok();
            null.map(|null| (number, null))
        } else {
            None
        };
        Some(Self { file, standard })
    }

    /// The descriptor that is written to.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Reports that the network is ready and closes the descriptor. Returns whether it was told: an
    /// error means that the caller has gone.
    pub(crate) fn tell(mut self) -> bool {
        let is_told = self.file.write_all(READY).is_ok();
        drop(self.file);
        if let Some((number, null)) = self.standard {
            let _ = silence(number, &null);
        }
        is_told
    }
}

/// The descriptor whose hang-up ends the run.
#[derive(Debug)]
pub(crate) enum ExitFd {
    /// An open descriptor.
    Open(OwnedFd),
    /// A number that was not open when we started. It counts as hung up, as it does for poll(2).
    Closed,
}

impl ExitFd {
    /// Takes over descriptor `number`.
    pub(crate) fn take(number: i32) -> Self {
        inherited_fd(number).map_or(Self::Closed, Self::Open)
    }
}

/// Puts `null` in the place of a standard stream, so that its other end sees it closed.
pub(crate) fn silence(number: i32, null: &File) -> io::Result<()> {
    match number {
        0 => unistd::dup2_stdin(null)?,
        1 => unistd::dup2_stdout(null)?,
        _ => unistd::dup2_stderr(null)?,
    }
    Ok(())
}
