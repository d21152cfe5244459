//! The process that stays outside of the sandbox, for everything that needs the host's files.
//!
//! Owns [`Outside`], the handle of that process. What the process does is in `sys::outside`.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sys::file::Identity;
use crate::sys::outside::{Duties, Helper, Watched};

/// A file that is removed at the end, unless another one has its name by then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemovedFile {
    pub(crate) path: PathBuf,
    pub(crate) identity: Identity,
}

/// The process outside. It reads resolv.conf for the sandboxed process. It removes the files of our
/// sockets when the last copy of this handle is dropped, or when the sandboxed process has ended
/// for any reason.
///
/// An instance keeps a copy until its end: [`Builder::outside`](crate::instance::Builder::outside).
#[derive(Clone, Debug)]
pub struct Outside {
    /// `None` when there is nothing to do outside.
    helper: Option<Arc<Helper>>,
}

impl Outside {
    /// Starts the process, if there is anything for it to do. From here on it watches `watched`, if
    /// given. The descriptor that is returned hangs up when the watched target is gone.
    pub(crate) fn start(
        resolv_conf: Option<&Path>,
        removed: Vec<RemovedFile>,
        watched: Option<&Watched<'_>>,
    ) -> io::Result<(Self, Option<OwnedFd>)> {
        let read = resolv_conf.map(name_of).transpose()?;
        let removed = removed.into_iter().map(|file| Ok((name_of(&file.path)?, file.identity)));
        let duties = Duties { read, removed: removed.collect::<io::Result<_>>()? };
        if duties.read.is_none() && duties.removed.is_empty() && watched.is_none() {
            return Ok((Self { helper: None }, None));
        }
        let (helper, gone) = Helper::start(&duties, watched)?;
        Ok((Self { helper: Some(Arc::new(helper)) }, gone))
    }

    /// What resolv.conf says now. Waits for a bounded time.
    pub(crate) fn read_resolv_conf(&self) -> io::Result<Vec<u8>> {
        self.helper.as_ref().ok_or(io::ErrorKind::NotFound)?.read()
    }
}

/// The absolute path. The process outside has the root directory as its working folder, so as not
/// to keep another folder busy.
fn name_of(path: &Path) -> io::Result<CString> {
    Ok(CString::new(std::path::absolute(path)?.into_os_string().into_vec())?)
}
