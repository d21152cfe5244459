//! Files by device and inode, which distinguish files of one name.
//!
//! Owns [`Identity`], and [`OwnFile`], the file of a socket that we have bound.

#![expect(clippy::disallowed_methods, reason = "the file of a socket of ours is removed here")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Device and inode of a file.
pub(crate) type Identity = (u64, u64);

/// A file of ours. Dropping this removes the file, unless another one has taken its place.
#[derive(Debug)]
pub(crate) struct OwnFile {
    path: PathBuf,
    /// `None` without a file, as for an abstract socket.
    identity: Option<Identity>,
}

impl OwnFile {
    /// The file that `path` names now.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: identity(path) }
    }

    /// Its name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its device and inode; `None` if there was no file.
    pub(crate) const fn identity(&self) -> Option<Identity> {
        self.identity
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // A failure means that the file is gone or out of reach; either way nothing is left to
            // do.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<Identity> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}
