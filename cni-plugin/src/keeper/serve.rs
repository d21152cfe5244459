//! The keeper while it serves an attachment, and how it ends.
//!
//! Owns its socket, the wait for a client, a signal, or the end of container or engine, and the
//! order of the end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::child::Engine;
use super::door::{Connection, Door};
use super::lease::NetworkLease;
use super::watch::Watch;
use super::{hold_signals, remove_unless_locked};
use crate::attachment::error::Error;
use crate::attachment::message::{ClientRequest, Ended, Info};
use crate::attachment::record::Record;
use crate::attachment::request::Addresses;
use crate::attachment::store::Files;

/// How long a container must seem to be gone before it counts as gone: a runtime may be about to
/// move it, or to bind its namespace elsewhere (arbitrary).
const GRACE: Duration = Duration::from_millis(250);

/// A served attachment.
#[derive(Debug)]
pub(super) struct Keeper {
    record: Record,
    files: Files,
    door: Door,
    signals: SignalFd,
    backend: Backend,
    watch: Watch,
}

/// What carries the attachment's traffic.
#[derive(Debug)]
pub(super) enum Backend {
    /// An engine process of the attachment's own.
    Engine(Engine),
    /// The process of a shared network.
    Network(NetworkLease),
}

impl Backend {
    /// The process that ends with the attachment.
    pub(super) fn pid(&self) -> Option<i32> {
        match self {
            Self::Engine(engine) => Some(engine.pid()),
            Self::Network(_) => None,
        }
    }

    /// Ends it, and returns when interface and host ports are gone.
    fn end(&mut self) {
        match self {
            Self::Engine(engine) => engine.end(),
            Self::Network(lease) => lease.end(),
        }
    }
}

impl AsFd for Backend {
    /// Readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Engine(engine) => engine.as_fd(),
            Self::Network(lease) => lease.as_fd(),
        }
    }
}

/// What happened.
#[derive(Debug)]
enum Event {
    Client(Connection),
    Signal,
    BackendEnded,
    ContainerEnded,
}

impl Keeper {
    /// Writes the attachment's record and makes its socket.
    pub(super) fn new(
        record: Record,
        files: Files,
        backend: Backend,
        watch: Watch,
    ) -> io::Result<Self> {
        let signals = hold_signals()?;
        let door = Door::open(&files.socket())?;
        files.write_record(&record)?;
        Ok(Self { record, files, door, signals, backend, watch })
    }

    /// The container's addresses.
    pub(super) const fn addresses(&self) -> Addresses {
        self.record.request.addresses()
    }

    /// Serves until there is a reason to end, and ends.
    pub(super) fn serve(&mut self) {
        loop {
            match self.next() {
                Ok(Event::Client(client)) => {
                    if self.is_end_asked_for(&client) {
                        tracing::info!("asked to end");
                        self.end();
                        client.answer(Ok(Ended { ended: true }));
                        return;
                    }
                }
                Ok(reason @ (Event::Signal | Event::BackendEnded | Event::ContainerEnded)) => {
                    tracing::info!(?reason, "ending");
                    self.end_alone();
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot wait");
                    self.end_alone();
                    return;
                }
            }
        }
    }

    /// Ends the engine, which frees interface and host ports, and removes the record.
    pub(super) fn end(&mut self) {
        self.backend.end();
        self.files.remove();
    }

    /// Ends without a client's request, so no client removes the lock.
    fn end_alone(&mut self) {
        self.backend.end();
        remove_unless_locked(&self.files);
    }

    fn next(&mut self) -> io::Result<Event> {
        loop {
            let mut polled = vec![
                PollFd::new(self.door.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.backend.as_fd(), PollFlags::POLLIN),
            ];
            polled.extend(self.watch.polled());
            match poll(&mut polled, self.watch.timeout()) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let is_ready = |at: usize| {
                polled.get(at).and_then(PollFd::revents).is_some_and(|events| !events.is_empty())
            };
            let (client, signal, backend) = (is_ready(0), is_ready(1), is_ready(2));
            if client && let Ok(Some(client)) = self.door.accept() {
                return Ok(Event::Client(client));
            }
            if signal && matches!(self.signals.read_signal(), Ok(Some(_))) {
                return Ok(Event::Signal);
            }
            if backend {
                return Ok(Event::BackendEnded);
            }
            if !self.watch.is_held() && !self.is_held_after_grace() {
                return Ok(Event::ContainerEnded);
            }
        }
    }

    fn is_held_after_grace(&mut self) -> bool {
        let grace = PollTimeout::try_from(GRACE).unwrap_or(PollTimeout::ZERO);
        // This only waits for time to pass.
        let _ = poll(&mut [], grace);
        self.watch.is_held()
    }

    /// Serves one request. Returns whether it was a request to end, which is answered later.
    fn is_end_asked_for(&self, client: &Connection) -> bool {
        let answer = match client.receive() {
            Ok(Ok(ClientRequest::End)) => return true,
            Ok(Ok(ClientRequest::Info)) => {
                Ok(Info::Serving((&self.record.request.netns_id).into()))
            }
            Ok(Ok(ClientRequest::Enter)) => {
                Err(Error::failed("the process of the network waits for no container"))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => return false,
        };
        client.answer(answer);
        client.hang_up();
        false
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};
    use std::thread;

    use nix::sys::signal::{Signal, kill, raise};
    use nix::unistd::Pid;
    use serde_json::{Value, json};
    use slirp_core::netns::NamespaceId;

    use super::*;
    use crate::attachment::contact::Contact;
    use crate::attachment::frame;
    use crate::attachment::identity::ProcessIdentity;
    use crate::attachment::record::Form;
    use crate::attachment::request::tests::example;
    use crate::attachment::store::tests::Scratch;

    /// An attachment of this process's own namespace. Its engine is a program that ends when its
    /// standard input closes.
    fn keeper(scratch: &Scratch) -> (Keeper, Files, ProcessIdentity) {
        let (lifeline, theirs) = UnixStream::pair().unwrap();
        let child = Command::new("cat")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let engine = Engine::adopt(child, lifeline.into()).unwrap();
        let identity = ProcessIdentity::of_pid(engine.pid()).unwrap();
        let own = std::process::id().cast_signed();
        let mut request = example();
        request.netns = format!("/proc/{own}/ns/net").into();
        let id = NamespaceId::of_path(&request.netns).unwrap();
        request.netns_id = Some(id);
        let watch = Watch::start(&request.netns, id).unwrap().unwrap();
        let record = Record {
            form: Form,
            request,
            keeper: ProcessIdentity::of_pid(own).unwrap(),
            engine: Some(identity.clone()),
            mac: String::new(),
        };
        let files = scratch.files("a");
        let keeper = Keeper::new(record, files.clone(), Backend::Engine(engine), watch).unwrap();
        (keeper, files, identity)
    }

    fn kill_engine(engine: &ProcessIdentity) {
        kill(Pid::from_raw(engine.pid), Signal::SIGKILL).unwrap();
    }

    #[test]
    fn request_to_end_is_answered_when_nothing_is_left() {
        let scratch = Scratch::new("keep");
        let (mut keeper, files, engine) = keeper(&scratch);
        let id = keeper.record.request.netns_id;
        assert_eq!(files.record().as_ref(), Some(&keeper.record));
        let serving = thread::spawn(move || keeper.serve());
        let info = Contact::open(&files.socket()).unwrap().info().unwrap();
        assert_eq!((info.netns(), id.is_some()), (id, true));
        assert!(engine.is_alive());
        Contact::open(&files.socket()).unwrap().end().unwrap();
        assert!(!engine.is_alive() && !files.exist());
        serving.join().unwrap();
    }

    #[test]
    fn client_that_talks_nonsense_ends_nothing() {
        let scratch = Scratch::new("odd");
        let (mut keeper, files, _engine) = keeper(&scratch);
        let serving = thread::spawn(move || keeper.serve());
        for (nonsense, why) in [
            (
                json!({ "execute": "dance" }),
                "unknown variant `dance`, expected one of `info`, `enter`, `end` \
                 at line 1 column 18",
            ),
            (
                json!("end"),
                "invalid type: string \"end\", expected internally tagged enum ClientRequest \
                 at line 1 column 5",
            ),
            (
                json!(null),
                "invalid type: null, expected internally tagged enum ClientRequest \
                 at line 1 column 4",
            ),
        ] {
            let client = UnixStream::connect(files.socket()).unwrap();
            frame::send(&client, &nonsense).unwrap();
            let answer: Value = frame::receive(&client).unwrap();
            let told = Error::failed(format!("the request cannot be read: {why}"));
            assert_eq!(answer, json!({ "error": told }));
        }
        drop(UnixStream::connect(files.socket()).unwrap());
        let contact = Contact::open(&files.socket()).unwrap();
        contact.info().unwrap();
        Contact::open(&files.socket()).unwrap().end().unwrap();
        serving.join().unwrap();
    }

    #[test]
    fn keeper_ends_with_its_engine_and_leaves_no_file() {
        let scratch = Scratch::new("lost");
        let (mut keeper, files, engine) = keeper(&scratch);
        kill_engine(&engine);
        keeper.serve();
        assert!(!files.exist());
    }

    #[test]
    fn signal_ends_keeper_and_engine() {
        let scratch = Scratch::new("term");
        let (mut keeper, files, engine) = keeper(&scratch);
        // Sent to this thread, which blocks it for the keeper.
        raise(Signal::SIGTERM).unwrap();
        keeper.serve();
        assert!(!engine.is_alive() && !files.exist());
    }

    #[test]
    fn files_are_left_to_the_holder_of_the_lock() {
        let scratch = Scratch::new("lock");
        let (mut keeper, files, engine) = keeper(&scratch);
        let lock = files.lock().unwrap();
        kill_engine(&engine);
        keeper.serve();
        assert!(files.record().is_some());
        lock.remove();
    }
}
