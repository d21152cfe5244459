//! Policy files: how the programs read them.
//!
//! Owns the reading, and the variable that names such a file. What its lines mean is in
//! [`egress`](crate::egress).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::libc;

use crate::egress::TEXT_CAP;

/// The variable that names a policy file, for callers that pass no options of ours.
pub const VARIABLE: &str = "SLIRP_POLICY";

/// Why a policy file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFileError {
    /// [`VARIABLE`] is set to nothing.
    #[error("{VARIABLE} is empty")]
    VariableEmpty,
    /// The file cannot be opened or read.
    #[error("cannot read the policy {path}: {source}", path = .0.display(), source = .1)]
    Unreadable(PathBuf, #[source] io::Error),
    /// The file is not UTF-8.
    #[error("the policy {path} is not UTF-8", path = .0.display())]
    NotText(PathBuf),
}

impl PolicyFileError {
    /// A hint about what to do, if that is not obvious.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::VariableEmpty => Some("name a policy file in it, or unset it"),
            Self::Unreadable(_, error) => match error.raw_os_error()? {
                libc::ENOENT => Some("without its rules the guest would be free: give its path"),
                libc::EACCES => Some("make it readable for the user that starts the network"),
                libc::EISDIR => Some("it is a folder: give the path of a file in it"),
                _ => None,
            },
            Self::NotText(_) => Some("names are ASCII; notes and comments may be UTF-8"),
        }
    }
}

/// The path in a value of [`VARIABLE`].
///
/// # Errors
/// For a variable that is set to nothing.
pub fn named_by(variable: Option<OsString>) -> Result<Option<PathBuf>, PolicyFileError> {
    match variable {
        Some(path) if path.is_empty() => Err(PolicyFileError::VariableEmpty),
        variable => Ok(variable.map(PathBuf::from)),
    }
}

/// The text of a policy file.
///
/// # Errors
/// As for [`read_from`].
pub fn read(path: &Path) -> Result<String, PolicyFileError> {
    let file = File::open(path).map_err(|error| PolicyFileError::Unreadable(path.into(), error))?;
    read_from(file, path)
}

/// The text in `file`, which messages call `path`. A text that is too long is cut behind the cap;
/// what parses it refuses it.
///
/// # Errors
/// For a file that cannot be read, or is not UTF-8.
pub fn read_from(file: impl Read, path: &Path) -> Result<String, PolicyFileError> {
    let mut text = Vec::new();
    file.take(TEXT_CAP as u64 + 1)
        .read_to_end(&mut text)
        .map_err(|error| PolicyFileError::Unreadable(path.to_owned(), error))?;
    String::from_utf8(text).map_err(|_| PolicyFileError::NotText(path.to_owned()))
}
