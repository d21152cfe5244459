//! A log file of bounded size.
//!
//! Owns how it makes room: the first line stays, and of the others the older half goes. Everything
//! is done through one descriptor, since a sandboxed process cannot open the file again. A device
//! or a FIFO keeps nothing, so its size has no bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::libc;

use crate::dialect::pasta::version;

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// The first line, with its end.
    header: Vec<u8>,
    len: u64,
    max_len: u64,
}

impl LogFile {
    /// Makes the file at `path`, or empties it; a regular file never becomes longer than `max_len`
    /// bytes.
    ///
    /// # Errors
    /// The errors of open(2) and write(2).
    pub(super) fn create(path: &Path, max_len: u64) -> io::Result<Self> {
        // Appending, so that the process that waits for the daemon may write as well.
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        // A FIFO without a reader makes nothing wait, and a terminal does not become ours.
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = options.open(path)?;
        let is_regular = file.metadata()?.is_file();
        if is_regular {
            file.set_len(0)?;
        }
        let max_len = if is_regular { max_len } else { u64::MAX };
        let version = version::TEXT.lines().next().unwrap_or_default();
        let header = format!("{version}\n").into_bytes();
        (&file).write_all(&header)?;
        let len = len_of(&header);
        Ok(Self { file, header, len, max_len })
    }

    /// Adds a line, or as much of it as stays within the bound beside the newer half. What the disk
    /// does not take is lost.
    pub(super) fn add(&mut self, line: &[u8]) {
        let longest = self.max_len.saturating_sub(len_of(&self.header)) / 2;
        let longest = usize::try_from(longest).unwrap_or(usize::MAX);
        if line.len() > longest {
            let kept = &line[..longest.saturating_sub(1)];
            return self.add(&[kept, b"\n"].concat());
        }
        if self.len.saturating_add(len_of(line)) > self.max_len && self.make_room().is_err() {
            return;
        }
        if self.file.write_all(line).is_ok() {
            self.len += len_of(line);
        }
    }

    /// Drops the older half of the lines behind the first one.
    fn make_room(&mut self) -> io::Result<()> {
        let header_len = len_of(&self.header);
        let from = header_len + self.len.saturating_sub(header_len) / 2;
        let kept_len = usize::try_from(self.len.saturating_sub(from)).unwrap_or_default();
        let mut kept = vec![0; kept_len];
        self.file.read_exact_at(&mut kept, from)?;
        // Up to the end of the line that is cut.
        let start = kept.iter().position(|&byte| byte == b'\n').map_or(kept.len(), |at| at + 1);
        self.file.set_len(0)?;
        self.len = 0;
        let rest = [&self.header, &kept[start..]].concat();
        self.file.write_all(&rest)?;
        self.len = len_of(&rest);
        Ok(())
    }
}

fn len_of(text: &[u8]) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut() {
        let path = std::env::temp_dir().join(format!("slirp-log-long-{}", std::process::id()));
        let mut log = LogFile::create(&path, 1000).unwrap();
        for len in [300, 490, 5_000, 490, 490, 1_000, 2] {
            log.add(&[&vec![b'x'; len][..], b"\n"].concat());
            let len = std::fs::metadata(&path).unwrap().len();
            assert!(len <= 1000 && len == log.len, "{len}");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.ends_with("\nxx\n"), "{text}");
        let first = version::TEXT.lines().next();
        assert_eq!(text.lines().next(), first, "the process of the start is gone soon");
    }

    #[test]
    fn devices_and_fifos_take_lines() {
        LogFile::create(Path::new("/dev/null"), 1000).unwrap().add(b"line\n");
        let path = std::env::temp_dir().join(format!("slirp-log-fifo-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut log = LogFile::create(&path, 1000).unwrap();
        for _ in 0..100 {
            log.add(&[b'x'; 1000]);
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn oldest_lines_go_and_the_first_one_stays() {
        let path = std::env::temp_dir().join(format!("slirp-log-file-{}", std::process::id()));
        let mut log = LogFile::create(&path, 1000).unwrap();
        for number in 0..500 {
            log.add(format!("line {number}\n").as_bytes());
            let len = std::fs::metadata(&path).unwrap().len();
            assert!(len <= 1000 && len == log.len, "{len}");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("pasta "));
        let numbers: Vec<u32> =
            lines.map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect();
        assert_eq!(*numbers.last().unwrap(), 499);
        assert!(numbers.len() > 40 && numbers.windows(2).all(|two| two[0] + 1 == two[1]));
    }
}
