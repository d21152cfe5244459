//! The file that tells the number of the network's process.
//!
//! Owns when it changes: it is opened before anything is made, so that a bad path is reported in
//! time, and written once the network is ready. A start that fails leaves no file that was not
//! there before. One that was there is closed as soon as it is written: it may be the caller's
//! pipe, as `/dev/stdout` is.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The open file.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    /// Until nothing can be done with it any more.
    file: RefCell<Option<File>>,
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
                // A link may lead to a file that is not there yet.
                options.create_new(false).create(true);
                (options.open(path)?, false)
            }
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), file: RefCell::new(Some(file)), is_new })
    }

    /// Writes the number `pid`, once.
    ///
    /// # Errors
    /// The errors of ftruncate(2) and write(2).
    pub(super) fn write(&self, pid: i32) -> io::Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        match file.set_len(0) {
            // A FIFO or a terminal has no length.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            result => result?,
        }
        file.write_all(format!("{pid}\n").as_bytes())?;
        self.file.replace(self.is_new.then_some(file));
        Ok(())
    }

    /// Removes the file if we have made it. In a sandbox it cannot be removed, and is emptied.
    pub(super) fn discard(&self) {
        if self.is_new {
            let _ = self.file.take().map(|file| file.set_len(0));
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

    #[test]
    fn link_to_a_file_that_is_not_there_makes_it() {
        let name = |what: &str| format!("slirp-pid-{what}-{}", std::process::id());
        let folder = std::env::temp_dir();
        let (link, file) = (folder.join(name("link")), folder.join(name("file")));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        PidFile::open(&link).unwrap().write(42).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "42\n");
        fs::remove_file(&link).unwrap();
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn pipe_is_closed_once_it_has_the_number() {
        let (mut read, write) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&write));
        let pid_file = PidFile::open(Path::new(&path)).unwrap();
        drop(write);
        pid_file.write(42).unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut read, &mut text).unwrap();
        assert_eq!(text, "42\n");
        drop(pid_file);
    }
}
