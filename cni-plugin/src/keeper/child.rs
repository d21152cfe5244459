//! The engine, as its keeper sees it.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slirp_core::internals::process::{ProcessFd, send_fd};
use slirp_core::link::Tap;

use crate::attachment::error::Error;
use crate::attachment::frame;
use crate::attachment::message::{Done, EngineOrder, receive_answer};
use crate::attachment::request::Request;
use crate::attachment::stop::ENGINE_ARGUMENT;
use crate::attachment::store::Files;

/// How long an engine may take to start (arbitrary; it takes some 10 ms).
const START_TIMEOUT_MS: u16 = 15_000;
/// How long an engine may take to end before it is killed (arbitrary; it takes milliseconds).
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A running engine. Dropping it kills it, unless it has ended.
#[derive(Debug)]
pub(super) struct Engine {
    child: Child,
    process: ProcessFd,
    /// The socket that the engine reads; the engine ends when it hangs up.
    lifeline: Option<OwnedFd>,
}

impl Engine {
    /// Starts an engine on `tap` and waits until the network works.
    ///
    /// # Errors
    /// Why the network does not work; the engine has ended then.
    pub(super) fn start(
        tap: &Tap,
        user_namespace: Option<BorrowedFd<'_>>,
        request: &Request,
        files: &Files,
        caller: &UnixStream,
    ) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::failed(format!("cannot start the engine: {error}"));
        let (stream, theirs) = UnixStream::pair().map_err(failed)?;
        let child = Command::new("/proc/self/exe")
            .arg0("slirp")
            .args([ENGINE_ARGUMENT, files.stem(), files.scope()])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let lifeline = stream.try_clone().map_err(failed)?;
        let engine = Self::adopt(child, lifeline.into()).map_err(failed)?;
        let order = EngineOrder {
            request: request.clone(),
            api_socket: files.api_socket(),
            user_namespace: user_namespace.is_some(),
        };
        frame::send(&stream, &order)
            .and_then(|()| send_fd(stream.as_fd(), tap.as_fd()))
            .and_then(|()| user_namespace.map_or(Ok(()), |fd| send_fd(stream.as_fd(), fd)))
            .map_err(failed)?;
        await_answer(stream.as_fd(), caller, START_TIMEOUT_MS)?;
        receive_answer::<Done>(&stream).map_err(failed)?.map(|Done {}| engine)
    }

    /// Takes over a child that ends when `lifeline` hangs up.
    pub(super) fn adopt(child: Child, lifeline: OwnedFd) -> io::Result<Self> {
        let process = ProcessFd::open(child.id().cast_signed())?;
        Ok(Self { child, process, lifeline: Some(lifeline) })
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Ends the engine, which frees interface and host ports, and waits until it has ended.
    pub(super) fn end(&mut self) {
        if let Some(lifeline) = self.lifeline.take() {
            // A pipe refuses shutdown(2); closing it hangs up.
            let _ = nix::sys::socket::shutdown(
                std::os::fd::AsRawFd::as_raw_fd(&lifeline),
                nix::sys::socket::Shutdown::Both,
            );
        }
        if !self.process.wait(END_TIMEOUT).unwrap_or(false) {
            tracing::warn!("the engine does not end and is killed");
            // The child has not been waited for, so its number is not reused.
            let _ = self.child.kill();
        }
        match self.child.wait() {
            Ok(status) => tracing::info!(%status, "the engine has ended"),
            Err(error) => tracing::warn!(%error, "the engine cannot be waited for"),
        }
    }
}

impl AsFd for Engine {
    /// Readable when the engine has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.lifeline.is_some() {
            // The child has not been waited for, so its number is not reused.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits until `answer` is readable, as long as the caller is there.
///
/// # Errors
/// After the timeout, or when the caller has gone.
pub(super) fn await_answer(
    answer: BorrowedFd<'_>,
    caller: &UnixStream,
    timeout_ms: u16,
) -> Result<(), Error> {
    let mut polled =
        [PollFd::new(answer, PollFlags::POLLIN), PollFd::new(caller.as_fd(), PollFlags::POLLIN)];
    let count = loop {
        match poll(&mut polled, PollTimeout::from(timeout_ms)) {
            Err(Errno::EINTR) => {}
            other => break other.map_err(|errno| Error::failed(errno.desc()))?,
        }
    };
    match (count, polled) {
        (0, _) => Err(Error::failed("timeout")),
        // The caller sends nothing before it gets an answer, so this is its hang-up.
        (_, [answer, _]) if answer.any() != Some(true) => Err(Error::failed("the caller has gone")),
        _ => Ok(()),
    }
}

/// Shuts a socket down in both directions.
pub(super) fn hang_up(stream: &UnixStream) {
    // It fails only if the other side has hung up.
    let _ = stream.shutdown(Shutdown::Both);
}
