//! The control socket: policy, questions, events and limits, for a launcher or a person.
//!
//! Owns the socket, and who may connect. Lines of JSON go both ways ([`lines`](super::lines)): a
//! greeting from us, then [requests](super::requests) and replies, any number of them on a
//! [connection](super::connection), and events from the [`hub`](super::hub). Changes of the policy
//! are in [`rules`](super::rules). All of it runs on the control thread, so that no client can
//! delay a packet.
//!
//! # Who may connect
//! The file has the mode 0600 before anybody can connect, and a peer must have our user id or 0,
//! as our user namespace sees it. That says little about a guest without privileges of the host:
//! its root is our own user outside. So the peer's socket must be of the network namespace that
//! this process is in: guests have another one, and so has whatever they make below it
//! ([`network_of`]). This holds for processes that are in no guest as well. They are to be given
//! one end of a socketpair(2), which has no name, and whose other end is the launcher's choice.
//!
//! A connection more than [`CONNECTIONS_CAP`] is refused in words; no other one is closed for it,
//! as that might be the one that decides.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::task::JoinSet;

use super::clients::PAUSE;
use super::connection::{Connection, Shared};
use super::follow::{Beginning, follow};
use super::hub::Hub;
use super::own_file::{admitted, listen_at, peer_of};
use super::rules::Rules;
use super::verdicts::{Peer, Verdicts};
use crate::host::handle::Handle;
use crate::host::outside::RemovedFile;
use crate::plan::AssumedGuest;
use crate::policy::Policy;
use crate::sys::file::OwnFile;
use crate::sys::peer::network_of;

/// Connections at one time (each has one descriptor, and at most 1 MiB of a request).
pub(crate) const CONNECTIONS_CAP: usize = 32;

crate::sys::calls::system_calls! {
    SYS_accept4 => "clients";
    SYS_getsockopt => "who a client is";
    SYS_geteuid => "who we are";
    SYS_recvmsg => "requests";
    SYS_sendto => "replies";
    SYS_shutdown => "the end of a connection";
    SYS_newfstatat => "whether the file is still ours";
    SYS_statx => "whether the file is still ours";
    SYS_unlinkat if crate::sys::calls::BY_NAME => "the file at the end";
    #[cfg(target_arch = "x86_64")]
    SYS_unlink => "the file at the end";
}

/// A control socket; dropping it removes its file.
#[derive(Debug)]
pub struct ControlSocket {
    door: Door,
}

#[derive(Debug)]
enum Door {
    /// Removed before the listener is closed.
    Listener { file: OwnFile, listener: UnixListener },
    /// One connection, which has no name that a guest could find.
    Stream(UnixStream),
}

impl ControlSocket {
    /// Binds `path`, in place of a socket that nobody serves. Its mode is 0600.
    ///
    /// # Errors
    /// `AddrInUse` when somebody serves the socket, or the file is none; the errors of bind(2) and
    /// listen(2).
    pub fn bind(path: &Path) -> io::Result<Self> {
        let (file, listener) = listen_at(path)?;
        if let Err(errno) = network_of(listener.as_fd()) {
            tracing::warn!(%errno, "Linux 5.14 could tell guests from other clients");
        }
        Ok(Self { door: Door::Listener { file, listener } })
    }

    /// Serves the peer of `stream`, one end of a socketpair(2), and nobody else.
    ///
    /// # Errors
    /// `NotConnected` if it has no peer, as a socket that listens; the errors of getpeername(2) and
    /// fcntl(2).
    pub fn from_stream(stream: OwnedFd) -> io::Result<Self> {
        let stream = UnixStream::from(stream);
        stream.peer_addr()?;
        stream.set_nonblocking(true)?;
        Ok(Self { door: Door::Stream(stream) })
    }

    /// The socket's file, if it has one, for a process that is about to enter a sandbox, see
    /// [`Sandbox::removed_file`](crate::sandbox::Sandbox::removed_file).
    pub fn file(&self) -> Option<RemovedFile> {
        match &self.door {
            Door::Listener { file, .. } => {
                Some(RemovedFile { path: file.path().to_owned(), identity: file.identity()? })
            }
            Door::Stream(_) => None,
        }
    }

    /// Serves clients until it is dropped. `switches` is what no policy can allow.
    pub(crate) async fn serve(self, handle: Handle, switches: Policy, assumed: AssumedGuest) {
        let (hub, mut approvers) = Hub::new();
        let (beginning, begun) = Beginning::new();
        let shared = Arc::new(Shared {
            rules: Rules::new(handle.clone(), switches),
            handle,
            assumed,
            started_at: Instant::now(),
            born_at: SystemTime::now(),
            hub: Arc::new(hub),
            verdicts: Verdicts::default(),
            beginning,
        });
        let mut tasks = JoinSet::new();
        let expiring = Arc::clone(&shared);
        tasks.spawn(async move { expiring.rules.expire().await });
        let told = Arc::clone(&shared);
        tasks.spawn(async move {
            follow(begun, &told.hub, || told.handle.questions()).await;
        });
        let counted = shared.handle.clone();
        tasks.spawn(async move {
            while approvers.changed().await.is_ok() {
                let count = *approvers.borrow_and_update();
                counted.set_deciding_clients(count).await;
            }
        });
        match self.door {
            Door::Listener { file, listener } => accept_all(&file, listener, shared).await,
            Door::Stream(stream) => {
                // The launcher has made both ends.
                let peer = peer_of(stream.as_fd()).map(|peer| Peer::of(&peer)).unwrap_or_default();
                match tokio::net::UnixStream::from_std(stream) {
                    Ok(stream) => Connection::new(shared, stream, peer).serve().await,
                    Err(error) => tracing::error!(%error, "the control socket is not usable"),
                }
                // Rules still end.
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn accept_all(_file: &OwnFile, listener: UnixListener, shared: Arc<Shared>) {
    let ours = network_of(listener.as_fd()).ok();
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the control socket is not usable");
            return;
        }
    };
    let mut clients = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "accept");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while clients.try_join_next().is_some() {}
        let admitted = match admitted(stream.as_fd(), ours) {
            Ok(_) if clients.len() >= CONNECTIONS_CAP => {
                Err(format!("{CONNECTIONS_CAP} connections are open already"))
            }
            admitted => admitted.map_err(|unwelcome| unwelcome.to_string()),
        };
        match admitted {
            Ok(peer) => {
                clients
                    .spawn(Connection::new(Arc::clone(&shared), stream, Peer::of(&peer)).serve());
            }
            Err(unwelcome) => {
                tracing::debug!(%unwelcome, "a client of the control socket was refused");
                // A new connection takes a line at once; the client goes either way.
                let line = format!("{{\"error\":{{\"desc\":\"{unwelcome}\"}}}}\n");
                let _ = stream.try_write(line.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests;
