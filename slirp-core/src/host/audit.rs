//! The audit log: what an egress policy has decided, one JSON object a line.
//!
//! Owns the file and how much is written there.

#![expect(clippy::disallowed_methods, reason = "a file")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// How much an audit log has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
#[non_exhaustive]
pub enum AuditLevel {
    /// What was refused, or would have been.
    Denied,
    /// Every verdict about a flow, and refused lookups.
    #[default]
    Decisions,
    /// Every lookup, and every name in first bytes, too.
    All,
}

/// A file that what an egress policy decides is written to.
#[derive(Debug)]
pub struct AuditLog {
    file: File,
    level: AuditLevel,
    is_required: bool,
}

impl AuditLog {
    /// Appends to the file at `path`. A new one gets the mode 0600. A FIFO must have a reader.
    ///
    /// # Errors
    /// The errors of open(2).
    pub fn append(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        // Without O_NONBLOCK a FIFO would make us wait for its reader, now and at every write.
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        Ok(Self::to(options.open(path)?.into()))
    }

    /// A log in a file or pipe that is open for writing.
    pub fn to(fd: OwnedFd) -> Self {
        Self { file: fd.into(), level: AuditLevel::default(), is_required: false }
    }

    /// How much it has (default [`AuditLevel::Decisions`]).
    #[must_use]
    pub fn level(self, level: AuditLevel) -> Self {
        Self { level, ..self }
    }

    /// Whether new flows are refused while it cannot be written (default: it loses lines and says
    /// how many).
    #[must_use]
    pub fn required(self, is_required: bool) -> Self {
        Self { is_required, ..self }
    }
}
