//! The file that tells the number of the network's process.
//!
//! Owns when it changes: it is opened before anything is made, so that a bad path is reported in
//! time, and written once the network is ready. A start that fails leaves no file that was not
//! there before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The open file.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    file: File,
    /// Whether we have made the file.
    is_new: bool,
}

impl PidFile {
    /// Opens the file at `path`, or makes it.
    ///
    /// # Errors
    /// The errors of open(2).
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let (file, is_new) = match options.write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                (OpenOptions::new().write(true).open(path)?, false)
            }
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), file, is_new })
    }

    /// Writes the number `pid`.
    ///
    /// # Errors
    /// The errors of ftruncate(2) and write(2).
    pub(super) fn write(&self, pid: i32) -> io::Result<()> {
        match self.file.set_len(0) {
            // A FIFO or a terminal has no length.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            result => result?,
        }
        (&self.file).write_all(format!("{pid}\n").as_bytes())
    }

    /// Removes the file if we have made it. In a sandbox it cannot be removed, and is emptied.
    pub(super) fn discard(&self) {
        if self.is_new {
            let _ = self.file.set_len(0);
            // If it is gone already, all is well.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_replaces_what_the_file_had_and_a_new_file_can_be_taken_back() {
        let path = std::env::temp_dir().join(format!("slirp-pid-{}", std::process::id()));
        PidFile::open(&path).unwrap().discard();
        assert!(!path.exists());
        PidFile::open(&path).unwrap().write(1_234_567).unwrap();
        let again = PidFile::open(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1234567\n", "until it is written");
        again.write(42).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "42\n");
        PidFile::open(&path).unwrap().discard();
        assert!(path.exists(), "it was not ours");
        fs::remove_file(&path).unwrap();
        let missing = PidFile::open(&path.join("x")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
