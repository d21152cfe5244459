//! A recording of the guest's link, for Wireshark and tcpdump.
//!
//! Owns the file format (pcap, `LINKTYPE_ETHERNET`, nanoseconds:
//! <https://www.tcpdump.org/manpages/pcap-savefile.5.html>) and the way from the data thread to the
//! file.
//!
//! # Theory of operation
//! The data thread copies each frame into a buffer in memory and goes on; a thread of its own
//! writes the buffer out whenever there is something in it, so that a reader can follow. A file or
//! a FIFO that is slower than the network fills the buffer up to [`BUFFER_CAP`]; frames beyond that
//! are missing in the recording, which is logged. What cannot be written at all (no space, no
//! reader) ends the recording with one logged line. Neither is felt by the network.
//!
//! Frames are recorded as they cross the link. Where offloads are at work they hold up to 64 KiB,
//! and their transport checksums are not filled in yet: readers call those wrong.

#![expect(clippy::disallowed_methods, reason = "a file, a thread and the time of day")]

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

use crate::sys::errno::text_of;
use crate::wire::vnet::VNET_HEADER_LEN;

/// Bytes that wait to be written at most, while as many are being written (arbitrary: a tenth of a
/// second at 1 Gbit/s).
pub(crate) const BUFFER_CAP: usize = 12 << 20;
/// The snapshot length that the file announces: as long as Wireshark's largest, so never reached.
const SNAPSHOT_LEN: u32 = 262_144;
/// How long the end may be delayed by a reader that does not read (arbitrary).
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a writer that waits for its reader looks whether the end has come (arbitrary).
const PATIENCE_MS: u8 = 100;

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// The file is a FIFO without a reader.
    #[error("nobody reads from this FIFO; start the reader first")]
    NoReader,
    /// The file cannot be opened or made.
    #[error("{}", text_of(.0))]
    Open(#[source] io::Error),
}

/// A file that the guest's link is to be recorded in.
#[derive(Debug)]
pub struct Recording {
    file: File,
}

impl Recording {
    /// A recording in the file at `path`. One that is there is emptied and keeps its owner and
    /// mode, a new one gets the mode 0600. A FIFO must have a reader.
    ///
    /// # Errors
    /// See [`RecordingError`].
    pub fn create(path: &Path) -> Result<Self, RecordingError> {
        Self::open(path)?.emptied()
    }

    /// Like [`create`](Self::create), but leaves a file that is there as it is, for a start that
    /// may fail yet: see [`emptied`](Self::emptied).
    ///
    /// # Errors
    /// See [`RecordingError`].
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        // Without O_NONBLOCK a FIFO would make us wait for its reader, now and at every write.
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        match options.open(path) {
            Ok(file) => Ok(Self { file }),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                Err(RecordingError::NoReader)
            }
            Err(error) => Err(RecordingError::Open(error)),
        }
    }

    /// The same with nothing in its file. FIFOs and devices stay as they are.
    ///
    /// # Errors
    /// [`RecordingError::Open`] with what fstat(2) or ftruncate(2) said.
    pub fn emptied(self) -> Result<Self, RecordingError> {
        let is_file = self.file.metadata().map_err(RecordingError::Open)?.is_file();
        if is_file {
            self.file.set_len(0).map_err(RecordingError::Open)?;
        }
        Ok(self)
    }

    /// A recording in a file or pipe that is open for writing. A pipe should not block.
    pub fn to(fd: OwnedFd) -> Self {
        Self { file: fd.into() }
    }

    /// Starts the thread that writes. `has_header` says that frames come with virtio-net headers.
    pub(crate) fn start(self, has_header: bool) -> io::Result<Recorder> {
        let shared = Arc::new(Shared::default());
        shared.lock().bytes.extend_from_slice(&file_header());
        let theirs = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("slirp-pcap".into())
            .spawn(move || write_out(&theirs, self.file))?;
        let skip = if has_header { VNET_HEADER_LEN } else { 0 };
        Ok(Recorder { shared, skip, writer: Some(writer) })
    }
}

/// The data thread's end. Dropping it writes out what there is.
#[derive(Debug)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    /// Bytes of the virtio-net header, which is not part of the frame.
    skip: usize,
    writer: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Takes a copy of a frame that crosses the link now.
    pub(crate) fn record(&mut self, frame: &[u8]) {
        let frame = frame.get(self.skip..).unwrap_or_default();
        let mut buffer = self.shared.lock();
        if buffer.is_broken {
            return;
        }
        if buffer.bytes.len() + RECORD_HEADER_LEN + frame.len() > BUFFER_CAP {
            if buffer.lost == 0 {
                tracing::warn!(
                    "the recording is slower than the network: frames are missing in it"
                );
            }
            buffer.lost += 1;
            return;
        }
        let is_awaited = buffer.bytes.is_empty();
        buffer.bytes.extend_from_slice(&record_header(frame.len()));
        buffer.bytes.extend_from_slice(frame);
        drop(buffer);
        if is_awaited {
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let lost = {
            let mut buffer = self.shared.lock();
            buffer.is_ending = true;
            buffer.lost
        };
        self.shared.changed.notify_one();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the recording's thread panicked; please report this");
        }
        if lost > 0 {
            tracing::warn!(frames = lost, "frames are missing in the recording");
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        // Nothing that is done under the lock can leave the buffer in pieces.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// Frames that did not fit.
    lost: u64,
    /// No more frames will come.
    is_ending: bool,
    /// No more frames can be written.
    is_broken: bool,
}

/// The writing thread.
fn write_out(shared: &Shared, mut file: File) {
    // A reader that left and a file that reached its largest size are errors of write(2); the
    // signals that come with them would end the process.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGPIPE);
    signals.add(Signal::SIGXFSZ);
    if let Err(errno) = signals.thread_block() {
        tracing::debug!(%errno, "signals of the recording are not held back");
    }
    let mut bytes = Vec::new();
    loop {
        let mut buffer = shared.lock();
        while buffer.bytes.is_empty() && !buffer.is_ending {
            buffer = shared.changed.wait(buffer).unwrap_or_else(PoisonError::into_inner);
        }
        if buffer.bytes.is_empty() {
            return;
        }
        std::mem::swap(&mut buffer.bytes, &mut bytes);
        drop(buffer);
        if let Err(error) = write_all(shared, &mut file, &bytes) {
            tracing::warn!(%error, "the recording ends here");
            let mut buffer = shared.lock();
            buffer.is_broken = true;
            buffer.bytes = Vec::new();
            return;
        }
        bytes.clear();
    }
}

/// Like `Write::write_all`, but waits for the reader of a FIFO, though not for ever.
fn write_all(shared: &Shared, file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    let mut ends_at = None;
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if shared.lock().is_ending {
                    let now = Instant::now();
                    if *ends_at.get_or_insert(now + END_TIMEOUT) <= now {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
                // The next write says what is wrong, if anything is.
                let _ = poll(&mut polled, PollTimeout::from(PATIENCE_MS));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

const RECORD_HEADER_LEN: usize = 16;

/// The first 24 bytes of the file, in this machine's byte order: its magic number tells which.
fn file_header() -> [u8; 24] {
    /// Marks a file whose timestamps have nanoseconds.
    const MAGIC: u32 = 0xa1b2_3c4d;
    /// Version 2.4.
    const VERSION: (u16, u16) = (2, 4);
    const LINKTYPE_ETHERNET: u32 = 1;
    let mut header = [0; 24];
    header[0..4].copy_from_slice(&MAGIC.to_ne_bytes());
    header[4..6].copy_from_slice(&VERSION.0.to_ne_bytes());
    header[6..8].copy_from_slice(&VERSION.1.to_ne_bytes());
    header[16..20].copy_from_slice(&SNAPSHOT_LEN.to_ne_bytes());
    header[20..24].copy_from_slice(&LINKTYPE_ETHERNET.to_ne_bytes());
    header
}

/// What stands before a frame of `len` bytes, with the time of day.
fn record_header(len: usize) -> [u8; RECORD_HEADER_LEN] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Unsigned, so good until 2106.
    let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let mut header = [0; RECORD_HEADER_LEN];
    header[0..4].copy_from_slice(&seconds.to_ne_bytes());
    header[4..8].copy_from_slice(&now.subsec_nanos().to_ne_bytes());
    header[8..12].copy_from_slice(&len.to_ne_bytes());
    header[12..16].copy_from_slice(&len.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn file_holds_the_frames_without_their_headers() {
        let path = std::env::temp_dir().join(format!("slirp-recording-{}", std::process::id()));
        std::fs::write(&path, [7; 100]).unwrap();
        let mut recorder = Recording::create(&path).unwrap().start(true).unwrap();
        recorder.record(b"0123456789frame");
        recorder.record(b"0123");
        drop(recorder);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bytes.len(), 24 + 16 + 5 + 16);
        assert_eq!(
            (word(&bytes, 0), word(&bytes, 16), word(&bytes, 20)),
            (0xa1b2_3c4d, 262_144, 1)
        );
        assert_eq!((word(&bytes, 32), word(&bytes, 36)), (5, 5));
        assert!(word(&bytes, 28) < 1_000_000_000);
        assert_eq!(&bytes[40..45], b"frame");
        assert_eq!(word(&bytes, 53), 0);
    }

    #[test]
    fn file_is_as_it_was_until_it_is_emptied() {
        let path =
            std::env::temp_dir().join(format!("slirp-recording-kept-{}", std::process::id()));
        std::fs::write(&path, "as it was").unwrap();
        let recording = Recording::open(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"as it was");
        drop(recording.emptied().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn new_file_is_its_owners_alone() {
        use std::os::unix::fs::MetadataExt as _;
        let path =
            std::env::temp_dir().join(format!("slirp-recording-mode-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        drop(Recording::create(&path).unwrap());
        let mode = std::fs::metadata(&path).unwrap().mode();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn full_device_ends_the_recording_and_nothing_else() {
        let mut recorder = Recording::create(Path::new("/dev/full")).unwrap().start(false).unwrap();
        while !recorder.shared.lock().is_broken {
            recorder.record(&[0; 64]);
            std::thread::yield_now();
        }
        recorder.record(&[0; 64]);
        assert!(recorder.shared.lock().bytes.is_empty());
    }

    #[test]
    fn reader_that_does_not_read_costs_frames_and_bounded_time() {
        let (mut reader, writer) = io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let status = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        let status = nix::fcntl::OFlag::from_bits_retain(status) | nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(status)).unwrap();
        let mut recorder = Recording::to(writer).start(false).unwrap();
        while recorder.shared.lock().lost == 0 {
            recorder.record(&[0; 65_536]);
        }
        assert!(recorder.shared.lock().bytes.len() <= BUFFER_CAP);
        drop(recorder);
        let mut magic = [0; 4];
        reader.read_exact(&mut magic).unwrap();
        assert_eq!(word(&magic, 0), 0xa1b2_3c4d);
    }

    #[test]
    fn reader_that_left_ends_the_recording() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let recorder = Recording::to(writer.into()).start(false).unwrap();
        while !recorder.shared.lock().is_broken {
            std::thread::yield_now();
        }
    }
}
