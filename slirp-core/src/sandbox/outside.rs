//! What stays outside of the sandbox: one process, for all that needs the host's files.
//!
//! Owns [`Outside`], which is the way to it. What the process does is in `sys::outside`.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::netns::{NameWatch, TargetWatch};
use crate::sys::file::Identity;
use crate::sys::outside::{Duties, Helper, Watched};

/// A file that is removed at the end, unless another one has its name by then.
#[derive(Clone, Debug)]
pub struct RemovedFile {
    pub(crate) path: PathBuf,
    pub(crate) identity: Identity,
}

/// The process outside, which reads resolv.conf for those inside and removes the API socket's file
/// when the last copy of this is dropped, or this process has ended, however that comes.
///
/// An instance keeps a copy until its end: [`Builder::outside`](crate::instance::Builder::outside).
#[derive(Clone, Debug)]
pub struct Outside {
    /// Missing where there is nothing to do outside.
    helper: Option<Arc<Helper>>,
}

impl Outside {
    /// Starts the process, if there is anything for it to do. A target that is watched by its name
    /// is watched by it from here on.
    pub(super) fn start(
        resolv_conf: Option<&Path>,
        removed: Option<RemovedFile>,
        target: Option<TargetWatch>,
    ) -> io::Result<(Self, Option<TargetWatch>)> {
        let read = resolv_conf.map(name_of).transpose()?;
        let removed = removed
            .map(|file| io::Result::Ok((name_of(&file.path)?, file.identity)))
            .transpose()?;
        let duties = Duties { read, removed };
        let by_name = target.as_ref().and_then(TargetWatch::by_name);
        let is_gone = || by_name.is_some_and(NameWatch::is_gone);
        let watched = by_name.map(|name| Watched {
            wakes: name.as_fd(),
            kept: name.needs(),
            is_gone: &is_gone,
        });
        if duties.read.is_none() && duties.removed.is_none() && watched.is_none() {
            return Ok((Self { helper: None }, target));
        }
        let (helper, gone) = Helper::start(&duties, watched.as_ref())?;
        let target = match gone {
            Some(gone) => target.map(|target| target.seen_from_outside(gone)),
            None => target,
        };
        Ok((Self { helper: Some(Arc::new(helper)) }, target))
    }

    /// What resolv.conf says now. Waits for a bounded time.
    pub(crate) fn read_resolv_conf(&self) -> io::Result<Vec<u8>> {
        self.helper.as_ref().ok_or(io::ErrorKind::NotFound)?.read()
    }
}

/// The path as it is from anywhere: the process has the root directory as its working folder, so as
/// not to hold another one.
fn name_of(path: &Path) -> io::Result<CString> {
    Ok(CString::new(std::path::absolute(path)?.into_os_string().into_vec())?)
}
