//! The folders in which attachments are recorded.
//!
//! Owns the choice of folders, the files of an attachment and its lock.
//!
//! # Theory of operation
//! Runtimes add and delete with different environments (a hook with an empty one, a cleanup process
//! of another service), so the folder must be found without the environment. There is a list of
//! usual folders: adding writes to the first usable one, all other commands search every folder. If
//! the configuration names a folder, only that one is used. A folder that other users can write to,
//! or that another user owns, is not used.
//!
//! Files of an attachment: `STEM.json` its record, `STEM.sock` the socket of its keeper, `STEM.api`
//! slirp4netns's API socket, `STEM.lock` the lock that is held while it is added, deleted or read.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use super::error::{Error, Kind};
use super::key::Key;
use super::open;
use super::record::Record;

/// Longest path of a socket (unix(7): 108 bytes with the final zero).
const SOCKET_PATH_CAP: usize = 107;
/// How long another process may hold the lock of an attachment (arbitrary: an addition takes a
/// fraction of a second, a deletion at most the time that a process has to end).
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the lock is tried (arbitrary).
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Longest record in bytes (arbitrary; one with thousands of ports has some 200 KiB).
const RECORD_CAP: u64 = 4 * 1024 * 1024;

/// The scope of attachments in the usual folders.
const USUAL_SCOPE: &str = "-";

/// Folders that may hold attachments, in the order in which they are tried.
#[derive(Clone, Debug)]
pub(crate) struct Candidates {
    folders: Vec<PathBuf>,
    /// See [`Candidates::scope`].
    scope: String,
}

impl Candidates {
    /// The chosen folder alone, or else the usual ones.
    pub(crate) fn new(chosen: Option<&Path>) -> Self {
        match chosen {
            Some(folder) => {
                Self { folders: vec![folder.to_owned()], scope: folder.display().to_string() }
            }
            None => Self { folders: usual_folders(), scope: USUAL_SCOPE.to_owned() },
        }
    }

    /// The first folder that can be written to; it is created if need be.
    ///
    /// # Errors
    /// When none can be written to, with the reason for each.
    pub(crate) fn create(&self) -> Result<Store, Error> {
        let mut reasons = Vec::new();
        for folder in &self.folders {
            match Store::create(folder, self.scope.clone()) {
                Ok(store) => return Ok(store),
                Err(error) => reasons.push(format!("{}: {error}", folder.display())),
            }
        }
        let message = format!("no folder for the state of attachments: {}", reasons.join("; "));
        Err(Error::failed(message).with_hint(Some("name one with stateDir")))
    }

    /// The folders that exist.
    pub(crate) fn existing(&self) -> impl Iterator<Item = Store> + '_ {
        self.folders.iter().filter_map(|folder| Store::open(folder, self.scope.clone()).ok())
    }

    /// Distinguishes attachments of one name: each chosen folder has its own scope.
    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }
}

/// The folders to use when none is chosen. `XDG_RUNTIME_DIR` comes late, since it may be set in one
/// call and not in the next.
fn usual_folders() -> Vec<PathBuf> {
    let user = geteuid();
    let mut parents = Vec::new();
    if user.is_root() {
        parents.push(PathBuf::from("/run"));
    }
    parents.push(PathBuf::from(format!("/run/user/{user}")));
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if let Some(outer) = outer_user(&map, user.as_raw()) {
        // Root in a rootless runtime's user namespace sees the folder of the user outside.
        parents.push(PathBuf::from(format!("/run/user/{outer}")));
    }
    parents.extend(env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    let is_own = |path: &PathBuf| {
        path.is_absolute()
            && fs::symlink_metadata(path)
                .is_ok_and(|meta| meta.is_dir() && meta.uid() == user.as_raw())
    };
    let mut folders: Vec<PathBuf> = Vec::new();
    let in_parents = parents.iter().filter(|path| is_own(path)).map(|path| path.join("slirp"));
    let others = [format!("/dev/shm/slirp-{user}"), format!("/tmp/slirp-{user}")];
    for folder in in_parents.chain(others.map(PathBuf::from)) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// The id of `user` outside of our user namespace, from the text of `/proc/PID/uid_map`: lines of
/// first user inside, first user outside, count (user_namespaces(7)).
fn outer_user(map: &str, user: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let nth = user.checked_sub(inside).filter(|&nth| nth < count)?;
        outside.checked_add(nth)
    })
}

/// A folder of attachments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    scope: String,
}

impl Store {
    fn create(folder: &Path, scope: String) -> io::Result<Self> {
        let longest = folder.join(format!("{:032}.sock", 0));
        if longest.as_os_str().len() > SOCKET_PATH_CAP {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path is too long for sockets in it",
            ));
        }
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(folder)
            // A file in place of the folder is reported below.
            && folder.symlink_metadata().is_err()
        {
            return Err(error);
        }
        let store = Self::open(folder, scope)?;
        nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK)?;
        Ok(store)
    }

    /// The folder, if it exists and can be trusted.
    fn open(folder: &Path, scope: String) -> io::Result<Self> {
        let meta = fs::symlink_metadata(folder)?;
        let problem = if !meta.is_dir() {
            "not a folder"
        } else if meta.uid() != geteuid().as_raw() {
            "it belongs to another user"
        } else if meta.mode() & 0o022 != 0 {
            "others may write to it"
        } else {
            return Ok(Self { folder: folder.to_owned(), scope });
        };
        Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
    }

    /// The files of an attachment.
    pub(crate) fn files(&self, key: &Key) -> Files {
        Files::new(self.folder.clone(), key.file_stem(), self.scope.clone())
    }

    /// All records that can be read.
    pub(crate) fn records(&self) -> Vec<Record> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        let is_record = |path: &&PathBuf| path.extension().is_some_and(|ext| ext == "json");
        paths.iter().filter(is_record).filter_map(|path| read_record(path)).collect()
    }
}

/// The files of one attachment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    stem: String,
    scope: String,
}

impl Files {
    /// The files of the attachment with this stem.
    pub(crate) fn new(folder: PathBuf, stem: String, scope: String) -> Self {
        Self { folder, stem, scope }
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.stem))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("sock")
    }

    pub(crate) fn api_socket(&self) -> PathBuf {
        self.path("api")
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn stem(&self) -> &str {
        &self.stem
    }

    /// See [`Candidates::scope`].
    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }

    /// Whether any file of this attachment exists.
    pub(crate) fn exist(&self) -> bool {
        ["json", "sock", "api", "lock"].iter().any(|ext| self.path(ext).symlink_metadata().is_ok())
    }

    /// The record, if there is a readable one.
    pub(crate) fn record(&self) -> Option<Record> {
        read_record(&self.path("json"))
    }

    /// Writes the record atomically.
    ///
    /// # Errors
    /// The errors of open(2), write(2) and rename(2).
    pub(crate) fn write_record(&self, record: &Record) -> io::Result<()> {
        let next = self.path("json.new");
        // Removes any remains, so that the file is created anew and ours.
        let _ = fs::remove_file(&next);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        fs::rename(&next, self.path("json"))
    }

    /// Removes everything but the lock.
    pub(crate) fn remove(&self) {
        for extension in ["json", "json.new", "sock", "api"] {
            // Most often the file does not exist.
            let _ = fs::remove_file(self.path(extension));
        }
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// [`Kind::Busy`] when another process holds it for long; [`Kind::Failed`] when it cannot be
    /// created.
    pub(crate) fn lock(&self) -> Result<Lock, Error> {
        self.lock_within(LOCK_TIMEOUT)
    }

    /// Waits for the lock for up to `timeout`.
    ///
    /// # Errors
    /// The errors of [`lock`](Self::lock).
    pub(crate) fn lock_within(&self, timeout: Duration) -> Result<Lock, Error> {
        let started_at = Instant::now();
        loop {
            match self.try_lock() {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) if started_at.elapsed() < timeout => thread::sleep(LOCK_PAUSE),
                Ok(None) => {
                    let message = "another process is at work on this attachment";
                    return Err(Error::new(Kind::Busy, message));
                }
                Err(error) => {
                    let message = format!("{}: {error}", self.path("lock").display());
                    return Err(Error::failed(message));
                }
            }
        }
    }

    /// The lock, if it is free.
    ///
    /// # Errors
    /// The errors of open(2) and flock(2).
    pub(crate) fn try_lock(&self) -> io::Result<Option<Lock>> {
        let path = self.path("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // A FIFO of that name without a reader is an error instead of a wait.
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(&path)?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        // The former holder may have removed the file meanwhile.
        let is_same = |meta: fs::Metadata| {
            file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (meta.dev(), meta.ino()))
        };
        Ok(fs::symlink_metadata(&path).is_ok_and(is_same).then_some(Lock { _file: file, path }))
    }
}

/// The right to add, delete or read an attachment.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
    path: PathBuf,
}

impl Lock {
    /// Releases the lock and removes its file: the attachment is gone.
    pub(crate) fn remove(self) {
        // While we hold it, no other process can hold a lock on another file of this name.
        let _ = fs::remove_file(&self.path);
    }
}

fn read_record(path: &Path) -> Option<Record> {
    let bytes = open::read(path, RECORD_CAP).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder for one test, removed at its end.
    pub(crate) struct Scratch(pub(crate) PathBuf);

    impl Scratch {
        /// `name` stands for the test and must be short, because paths of sockets are short.
        pub(crate) fn new(name: &str) -> Self {
            let folder = env::temp_dir().join(format!("slirp-{name}-{}", std::process::id()));
            fs::create_dir(&folder).unwrap();
            Self(folder)
        }

        /// The files of an attachment, or of a network, in it.
        pub(crate) fn files(&self, stem: &str) -> Files {
            Files::new(self.0.clone(), stem.to_owned(), USUAL_SCOPE.to_owned())
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            // A failing test may have left files behind.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn user_outside_follows_the_map() {
        let rootless = "         0       1500          1\n         1     100000      65536\n";
        assert_eq!(outer_user(rootless, 0), Some(1500));
        assert_eq!(outer_user(rootless, 5), Some(100_004));
        assert_eq!(outer_user(rootless, 70_000), None);
        assert_eq!(outer_user("0 0 4294967295\n", 1500), Some(1500));
        assert_eq!(outer_user("", 0), None);
    }

    #[test]
    fn chosen_folder_is_the_only_one() {
        let candidates = Candidates::new(Some(Path::new("/somewhere")));
        assert_eq!(candidates.folders, [Path::new("/somewhere")]);
        assert_eq!(candidates.scope(), "/somewhere");
        let usual = Candidates::new(None);
        assert!(usual.folders.len() >= 2, "{:?}", usual.folders);
        assert_eq!(usual.scope(), USUAL_SCOPE);
    }

    #[test]
    fn fifo_in_the_place_of_a_file_blocks_no_caller() {
        let folder = env::temp_dir().join(format!("slirp-store-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let files = Files::new(folder.clone(), "0".to_owned(), USUAL_SCOPE.to_owned());
        for extension in ["json", "lock"] {
            nix::unistd::mkfifo(&files.path(extension), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        assert!(files.record().is_none());
        let error = files.try_lock().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENXIO));
        fs::remove_dir_all(folder).unwrap();
    }
}
