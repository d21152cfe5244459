//! Tells when a program of a namespace has read a file, so that tests need not guess when it has.

use std::ffi::OsString;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::namespace::Namespace;

/// Notes that a file is read from now on, also when another file takes its place.
#[derive(Debug)]
pub struct FileWatch {
    events: Inotify,
    name: OsString,
}

impl FileWatch {
    /// Watches `name` in `folder`, an absolute path, of the namespace's own mounts.
    ///
    /// # Panics
    /// When there is no such folder.
    pub fn start(namespace: &Namespace, folder: &str, name: &str) -> Self {
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        let events = Inotify::init(flags).expect("the kernel has inotify");
        let folder = format!("/proc/{}/root{folder}", namespace.pid());
        // Closed by a reader: it has the content by then.
        events
            .add_watch(folder.as_str(), AddWatchFlags::IN_CLOSE_NOWRITE)
            .expect("the folder is there");
        Self { events, name: name.into() }
    }

    /// Whether a program has read it since the last call.
    pub fn has_been_read(&self) -> bool {
        // Nothing to read is an error here, and means that nothing has happened.
        let events = self.events.read_events().unwrap_or_default();
        events.iter().any(|event| event.name.as_ref() == Some(&self.name))
    }
}
