//! The socket at which the rules for ports are changed while the network runs (`--conf-path`).
//!
//! Owns who may connect, and for how long. The bytes are those of passt ([`wire`]), which Podman
//! and RootlessKit know by its client pesto(1); what they lead to is in [`change`].
//!
//! Each client has a thread of its own, so one that stalls holds up nobody. Nothing here can delay
//! a packet.

pub(crate) mod change;
pub(crate) mod wire;

use std::io::{self, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use slirp_core::internals::control::PrivateListener;
use slirp_core::sandbox::RemovedFile;
use slirp_core::sandbox::seccomp::SystemCall;

use change::Ports;

/// The system calls of this module once the network runs.
pub(crate) const SYSTEM_CALLS: &[SystemCall] = &[
    SystemCall::new(libc::SYS_accept4, "clients of the control socket"),
    SystemCall::new(libc::SYS_getsockopt, "who a client is"),
    SystemCall::new(libc::SYS_setsockopt, "how long a client may take"),
    SystemCall::new(libc::SYS_geteuid, "who we are"),
    SystemCall::new(libc::SYS_recvfrom, "what a client wants"),
    SystemCall::new(libc::SYS_read, "what a client wants"),
    SystemCall::new(libc::SYS_sendto, "the rules for a client"),
    SystemCall::new(libc::SYS_write, "the rules for a client"),
    SystemCall::new(libc::SYS_clock_nanosleep, "too few descriptors for a client"),
];

/// Clients at one time (arbitrary). Others are hung up on.
const CLIENTS_CAP: usize = 16;
/// How long a client may take (arbitrary; pesto takes milliseconds).
const EXCHANGE_WITHIN: Duration = Duration::from_secs(10);
/// The pause after an accept that has failed (arbitrary).
const PAUSE: Duration = Duration::from_millis(100);

/// The socket, bound.
pub(crate) struct Door {
    listener: PrivateListener,
    is_near: bool,
}

impl Door {
    /// Binds `path`. With `is_near` clients have to be of our network namespace: the guest is a
    /// program that sees our files.
    ///
    /// # Errors
    /// See [`PrivateListener::bind`].
    pub(crate) fn bind(path: &Path, is_near: bool) -> io::Result<Self> {
        Ok(Self { listener: PrivateListener::bind(path)?, is_near })
    }

    /// The socket's file, for the sandbox.
    pub(crate) fn file(&self) -> Option<RemovedFile> {
        self.listener.file()
    }

    /// Serves clients in threads, until the process ends.
    ///
    /// # Errors
    /// Those of making a thread.
    pub(crate) fn serve(self, ports: Ports) -> io::Result<()> {
        let (ports, clients) = (Arc::new(ports), Arc::new(AtomicUsize::new(0)));
        let accept = move || {
            loop {
                match self.listener.accept(self.is_near) {
                    Ok(stream) => serve_in_thread(stream, &ports, &clients),
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        tracing::warn!("a client of the control socket was refused: {error}");
                    }
                    Err(error) => {
                        tracing::debug!(%error, "accept");
                        thread::sleep(PAUSE);
                    }
                }
            }
        };
        thread::Builder::new().name("pasta-control".to_owned()).spawn(accept).map(drop)
    }
}

fn serve_in_thread(stream: UnixStream, ports: &Arc<Ports>, clients: &Arc<AtomicUsize>) {
    let place = Place::take(clients);
    if clients.load(Ordering::Relaxed) > CLIENTS_CAP {
        tracing::warn!("a client of the control socket was refused: {CLIENTS_CAP} are there");
        return;
    }
    let ports = Arc::clone(ports);
    let work = move || {
        if let Err(error) = exchange(&stream, &ports) {
            tracing::warn!("a client of the control socket: {error}");
        }
        drop(place);
    };
    if let Err(error) = thread::Builder::new().name("pasta-client".to_owned()).spawn(work) {
        tracing::warn!("a client of the control socket was refused: {error}");
    }
}

/// A place among the clients.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(clients: &Arc<AtomicUsize>) -> Self {
        clients.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(clients))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one client.
fn exchange(stream: &UnixStream, ports: &Ports) -> io::Result<()> {
    stream.set_write_timeout(Some(EXCHANGE_WITHIN))?;
    let shown = ports.rules();
    (&*stream).write_all(&wire::greeting(&shown))?;
    let mut reader = Timed { stream, until: Instant::now() + EXCHANGE_WITHIN };
    let outcome = match wire::read_change(&mut reader) {
        Ok(None) => return Ok(()),
        Ok(Some(tables)) => ports.change(&shown, &tables),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error.to_string()),
        Err(error) => return Err(error),
    };
    if let Err(text) = &outcome {
        tracing::warn!("the rules for ports stay as they are: {text}");
    }
    // passt's client has hung up by now.
    let _ = (&*stream).write_all(&wire::status(outcome.as_ref().err().map(String::as_str)));
    Ok(())
}

/// A stream that is read until a moment.
pub(crate) struct Timed<'s> {
    pub(crate) stream: &'s UnixStream,
    pub(crate) until: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        match self.stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::TimedOut.into())
            }
            read => read,
        }
    }
}
