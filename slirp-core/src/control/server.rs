//! The API socket: one request per connection, answered and closed.
//!
//! # Theory of operation
//! A request is answered as soon as its JSON value is complete, whether or not the client ends its
//! side: some clients half-close and read to the end, some read once, some never half-close. Each
//! connection is a task, so a silent client delays no other. A connection is closed after
//! [`REQUEST_TIMEOUT`]; when [`CONNECTIONS_CAP`] is reached the oldest one is closed.
//!
//! The file is removed when the server ends, unless another file has taken its place. A sandboxed
//! process cannot reach the file; the process outside removes it then ([`ApiSocket::file`]).

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::clients::{Clients, PAUSE};
use super::protocol::{self, REQUEST_CAP, Refusal, Request};
use super::reply;
use crate::event::ForwardId;
use crate::host::forward::ForwardError;
use crate::host::handle::Handle;
use crate::host::outside::RemovedFile;
use crate::plan::{AddressPlan, AssumedGuest};
use crate::sys::file::OwnFile;

/// Connections at one time (one descriptor and about 6 KiB each); fewer where descriptors are few.
pub(crate) const CONNECTIONS_CAP: usize = 256;
/// How long a client may take for its request and for taking the reply (arbitrary; clients write
/// theirs in one go).
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How many reads discard what a client sent after its request, before the connection is closed
/// (arbitrary).
const LEFTOVERS_CAP: usize = 16;

crate::sys::calls::system_calls! {
    SYS_accept4 => "clients";
    SYS_recvfrom => "requests";
    SYS_sendto => "replies";
    SYS_shutdown => "the end of a reply";
    SYS_getsockopt => "a client that has gone";
    SYS_getsockname => "the listening socket";
    SYS_newfstatat => "whether the file is still ours";
    SYS_statx => "whether the file is still ours";
    SYS_unlinkat if crate::sys::calls::BY_NAME => "the file at the end";
    #[cfg(target_arch = "x86_64")]
    SYS_unlink => "the file at the end";
}

/// A bound API socket; dropping it removes its file.
#[derive(Debug)]
pub struct ApiSocket {
    /// Removed before the listener is closed.
    file: OwnFile,
    listener: std::os::unix::net::UnixListener,
}

impl ApiSocket {
    /// Binds `path`, in place of whatever file is there. Its mode is 0777 less the umask.
    ///
    /// # Errors
    /// The errors of unlink(2), bind(2) and listen(2); `InvalidInput` for a path of 108 bytes or
    /// more.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, path = %path.display(), "cannot remove");
            }
            Ok(()) | Err(_) => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { file: OwnFile::at(path), listener })
    }

    /// The socket's file, for a process that is about to enter a sandbox and cannot reach the file
    /// from there, see [`Sandbox::removed_file`](crate::sandbox::Sandbox::removed_file).
    pub fn file(&self) -> Option<RemovedFile> {
        Some(RemovedFile { path: self.file.path().to_owned(), identity: self.file.identity()? })
    }

    /// Serves up to `cap` clients at one time, until it is dropped.
    pub(crate) async fn serve(
        self,
        handle: Handle,
        plan: AddressPlan,
        assumed: AssumedGuest,
        cap: usize,
    ) {
        let Self { file: _file, listener } = self;
        let Ok(listener) = UnixListener::from_std(listener) else {
            tracing::error!("the API socket is not usable");
            return;
        };
        let shared = Arc::new(Shared { handle, plan, assumed, started_at: Instant::now() });
        let mut clients = Clients::new(cap, REQUEST_TIMEOUT);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => clients.serve(serve_client(stream, Arc::clone(&shared))),
                Err(error) => {
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// What every connection needs to answer requests.
struct Shared {
    handle: Handle,
    plan: AddressPlan,
    assumed: AssumedGuest,
    started_at: Instant,
}

async fn serve_client(mut stream: UnixStream, shared: Arc<Shared>) {
    let mut buffer = [0; REQUEST_CAP];
    let mut len = 0;
    let request = loop {
        let Ok(count) = stream.read(&mut buffer[len..]).await else {
            return;
        };
        len += count;
        if let Some(request) = protocol::parse(&buffer[..len], count == 0, shared.assumed) {
            break request;
        }
    };
    let reply = match request {
        Ok(request) => {
            let outcome = perform(request, &shared).await;
            outcome.unwrap_or_else(|refusal| refusal.reply())
        }
        Err(refusal) => {
            if refusal == Refusal::TooLarge {
                tracing::warn!("api_handler: too large message (>= {REQUEST_CAP} bytes)");
            }
            refusal.reply()
        }
    };
    if stream.write_all(reply.as_bytes()).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    // Closing a socket with unread data would show the client an error after the reply.
    for _ in 0..LEFTOVERS_CAP {
        match stream.try_read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
}

async fn perform(request: Request, shared: &Shared) -> Result<String, Refusal> {
    let Shared { handle, plan, started_at, .. } = shared;
    match request {
        Request::AddForward(forward) => match handle.add_forward(forward).await {
            Ok((id, rule)) => Ok(reply::added(id, &forward, &rule)),
            Err(error) => {
                tracing::warn!("forward refused: {error}");
                Err(add_refusal(&error))
            }
        },
        Request::RemoveForwards(ids) => {
            let (first, last) = (ForwardId(*ids.start()), ForwardId(*ids.end()));
            match handle.remove_forwards(first, last).await {
                Ok(()) => Ok(reply::removed()),
                Err(ForwardError::Unknown(id)) if id == first => Err(Refusal::RemoveId),
                Err(ForwardError::Unknown(_)) => Err(Refusal::RemoveIdEnd),
                Err(_) => Err(Refusal::RemoveFailed),
            }
        }
        Request::ListForwards => {
            let forwards = handle.list_forwards().await.ok_or(Refusal::Ended)?;
            Ok(reply::forwards(&forwards))
        }
        Request::ListFlows { from, limit } => list_flows(handle, from, limit).await,
        Request::Info => {
            let stats = handle.stats().await.ok_or(Refusal::Ended)?;
            Ok(reply::info(plan, &stats, started_at.elapsed()))
        }
    }
}

fn add_refusal(error: &ForwardError) -> Refusal {
    if let ForwardError::GuestAddress(address) = error {
        return Refusal::AddArgument(if address.is_ipv6() { "guest_addr6" } else { "guest_addr" });
    }
    Refusal::AddFailed(error.to_string())
}

/// Gathers parts of the list until there are `limit` flows or no more.
async fn list_flows(handle: &Handle, from: u32, limit: usize) -> Result<String, Refusal> {
    let mut flows = Vec::new();
    let mut next = Some(from);
    while let Some(first) = next
        && flows.len() < limit
    {
        let page = handle.flows(first).await.ok_or(Refusal::Ended)?;
        flows.extend(page.flows);
        next = page.next;
    }
    if let Some(beyond) = flows.get(limit) {
        next = Some(beyond.id.index);
        flows.truncate(limit);
    }
    Ok(reply::flows(&flows, next))
}

#[cfg(test)]
mod tests;
