//! The process of a shared network, as one of its keepers sees it.
//!
//! Owns joining: finding the process or starting it, one keeper at a time, and leaving.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use serde_json::{Value, json};
use slirp_core::host::link::Tap;
use slirp_core::netns::NamespaceId;
use slirp_core::send_fd;
use slirp_core::wire::MacAddr;

use super::child::await_answer;
use crate::attachment::error::Error;
use crate::attachment::frame;
use crate::attachment::open;
use crate::attachment::request::Request;
use crate::attachment::shared::{NETWORK_ARGUMENT, network_files, seat_from_json, sweep};
use crate::attachment::store::Files;

/// How long the process of a network may take to answer (arbitrary; it takes some 10 ms to start).
const ANSWER_TIMEOUT_MS: u16 = 15_000;
/// How long it may take to let a member go (arbitrary; it takes milliseconds).
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How often joining is tried while one process ends and the next one starts (arbitrary: the next
/// one is started by whoever tries, so twice is enough).
const ATTEMPTS: usize = 5;

/// A place on a network. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Membership {
    stream: UnixStream,
    network: Files,
    is_ended: bool,
    /// The addresses that the network has given.
    pub(super) address: Ipv4Addr,
    pub(super) address6: Option<Ipv6Addr>,
}

impl Membership {
    /// Takes a place on the network of `request`, which is started if nobody is on it.
    ///
    /// # Errors
    /// When the network does not start, or refuses.
    pub(super) fn take(
        request: &Request,
        files: &Files,
        caller: &UnixStream,
    ) -> Result<Self, Error> {
        let network = network_files(files, &request.network);
        let taken = Self::try_take(request, &network, caller);
        if taken.is_err() {
            // What was started for us has ended with us.
            sweep(&network);
        }
        taken
    }

    fn try_take(request: &Request, network: &Files, caller: &UnixStream) -> Result<Self, Error> {
        let host = NamespaceId::of_path(Path::new("/proc/self/ns/net"))
            .map_err(|error| Error::failed(format!("/proc/self/ns/net: {error}")))?;
        let host = json!([host.device, host.inode]);
        let join = json!({
            "execute": "join",
            "request": request.to_json(),
            "hostNetns": host,
        });
        // One at a time, so that there is one process however many begin at once.
        let _lock = network.lock()?;
        for _ in 0..ATTEMPTS {
            let (stream, is_new) = match connect(network) {
                Ok(stream) => (stream, false),
                Err(error) if open::is_absent(&error) => {
                    (start(request, network, &host, caller)?, true)
                }
                Err(error) => {
                    return Err(Error::failed(format!("{}: {error}", network.socket().display())));
                }
            };
            match ask(&stream, &join, caller) {
                Ok(answer) => {
                    let (address, address6) = seat_from_json(&answer)
                        .ok_or_else(|| Error::failed("the network gave no address"))?;
                    let network = network.clone();
                    return Ok(Self { stream, network, is_ended: false, address, address6 });
                }
                // It has ended between our connection and its answer.
                Err(Refusal::Gone(error)) if !is_new => {
                    tracing::debug!(%error, "the network has just ended");
                }
                Err(Refusal::Gone(error)) => {
                    return Err(Error::failed(format!("the network has ended: {error}")));
                }
                Err(Refusal::Told(error)) => return Err(error),
            }
        }
        Err(Error::failed("the network ends again and again"))
    }

    /// Gives the container's device to the network, and opens its ports.
    ///
    /// # Errors
    /// When the network refuses.
    pub(super) fn give(
        &self,
        tap: &Tap,
        mac: Option<MacAddr>,
        caller: &UnixStream,
    ) -> Result<(), Error> {
        let gone = |error: io::Error| Error::failed(format!("the network has ended: {error}"));
        let order = json!({ "mac": mac.map(|mac| mac.to_string()) });
        frame::send(&self.stream, &order)
            .and_then(|()| send_fd(self.stream.as_fd(), tap.as_fd()))
            .map_err(gone)?;
        match receive(&self.stream, caller) {
            Ok(_) => Ok(()),
            Err(Refusal::Told(error)) => Err(error),
            Err(Refusal::Gone(error)) => Err(gone(error)),
        }
    }

    /// Leaves the network, and returns when interface and host ports are gone.
    pub(super) fn end(&mut self) {
        self.is_ended = true;
        // It fails only where the other side has hung up.
        let _ = self.stream.shutdown(Shutdown::Write);
        let _ = self.stream.set_read_timeout(Some(END_TIMEOUT));
        match self.stream.read(&mut [0]) {
            Ok(_) => tracing::info!("the network has let us go"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => tracing::warn!(%error, "the network does not let us go"),
        }
        sweep(&self.network);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if !self.is_ended {
            self.end();
        }
    }
}

impl AsFd for Membership {
    /// Readable when the membership has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Why there is no answer, or not the one that was wanted.
enum Refusal {
    Gone(io::Error),
    Told(Error),
}

fn connect(network: &Files) -> io::Result<UnixStream> {
    let stream = open::connect(&network.socket())?;
    let peer = getsockopt(&stream.as_fd(), PeerCredentials)?;
    if peer.uid() != geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(stream)
}

/// Starts the process of a network. It is a child of ours for as long as we are there, and nobody's
/// afterwards.
fn start(
    request: &Request,
    network: &Files,
    host: &Value,
    caller: &UnixStream,
) -> Result<UnixStream, Error> {
    let failed = |error: io::Error| Error::failed(format!("cannot start the network: {error}"));
    let (stream, theirs) = UnixStream::pair().map_err(failed)?;
    Command::new("/proc/self/exe")
        .arg0("slirp")
        .args([NETWORK_ARGUMENT, network.stem(), network.scope()])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let order = json!({
        "request": request.to_json(),
        "hostNetns": host,
        "socket": network.socket().display().to_string(),
        "apiSocket": network.api_socket().display().to_string(),
    });
    match ask(&stream, &order, caller) {
        Ok(_) => Ok(stream),
        Err(Refusal::Told(error)) => Err(error),
        Err(Refusal::Gone(error)) => Err(failed(error)),
    }
}

fn ask(stream: &UnixStream, message: &Value, caller: &UnixStream) -> Result<Value, Refusal> {
    frame::send(stream, message).map_err(Refusal::Gone)?;
    receive(stream, caller)
}

fn receive(stream: &UnixStream, caller: &UnixStream) -> Result<Value, Refusal> {
    await_answer(stream.as_fd(), caller, ANSWER_TIMEOUT_MS).map_err(Refusal::Told)?;
    let answer = frame::receive(stream).map_err(Refusal::Gone)?;
    if answer["error"].is_null() {
        Ok(answer)
    } else {
        Err(Refusal::Told(Error::from_json(&answer["error"])))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::attachment::request::tests::example;
    use crate::attachment::shared::seat_to_json;
    use crate::attachment::store::tests::Scratch;

    const SEAT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 100);

    /// What a network does with a connection: hang up, or read a message and answer it.
    type Answers = Vec<Option<Value>>;

    /// Takes a place on a network that gives these answers, one for each connection. Returns how
    /// many connections there were, too.
    fn take(name: &str, answers: Answers) -> (Result<Membership, Error>, usize) {
        let scratch = Scratch::new(name);
        let files = scratch.files("a");
        let network = network_files(&files, &example().network);
        let listener = UnixListener::bind(network.socket()).unwrap();
        let serving = thread::spawn(move || {
            let mut asked = 0;
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                asked += 1;
                if let Some(answer) = answer {
                    assert_eq!(frame::receive(&stream).unwrap()["execute"], "join");
                    frame::send(&stream, &answer).unwrap();
                }
            }
            asked
        });
        let (_caller, caller) = UnixStream::pair().unwrap();
        let taken = Membership::take(&example(), &files, &caller);
        (taken, serving.join().unwrap())
    }

    #[test]
    fn place_is_the_one_that_the_network_gives() {
        let (taken, _) = take("place", vec![Some(seat_to_json(SEAT, None))]);
        let membership = taken.unwrap();
        assert_eq!((membership.address, membership.address6), (SEAT, None));
    }

    #[test]
    fn network_that_has_just_ended_is_tried_again() {
        let (taken, asked) = take("again", vec![None, None, Some(seat_to_json(SEAT, None))]);
        assert_eq!((taken.unwrap().address, asked), (SEAT, 3));
        let (taken, asked) = take("never", vec![None; ATTEMPTS]);
        assert_eq!(taken.unwrap_err().message, "the network ends again and again");
        assert_eq!(asked, ATTEMPTS);
    }

    #[test]
    fn refusal_is_passed_on_and_not_tried_again() {
        let refused = Error::failed("the network net is full").with_hint(Some("leave it"));
        let (taken, asked) = take("told", vec![Some(json!({ "error": refused.to_json() }))]);
        assert_eq!((taken.unwrap_err(), asked), (refused, 1));
        let (taken, _) = take("nonsense", vec![Some(json!({ "address": "nowhere" }))]);
        assert_eq!(taken.unwrap_err().message, "the network gave no address");
    }

    #[test]
    fn nobody_is_waited_for_when_the_caller_has_gone() {
        let (stream, _network) = UnixStream::pair().unwrap();
        let (gone, caller) = UnixStream::pair().unwrap();
        drop(gone);
        let Err(Refusal::Told(error)) = ask(&stream, &json!({}), &caller) else {
            panic!("there is no answer")
        };
        assert_eq!(error.message, "the caller has gone");
    }

    #[test]
    fn place_is_given_back_before_its_end_returns() {
        let scratch = Scratch::new("leave");
        let (stream, mut theirs) = UnixStream::pair().unwrap();
        let network = scratch.files("n");
        let mut membership =
            Membership { stream, network, is_ended: false, address: SEAT, address6: None };
        let leaving = thread::spawn(move || membership.end());
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "the network hears of it");
        assert!(!leaving.is_finished(), "interface and ports may still be there");
        drop(theirs);
        leaving.join().unwrap();
    }
}
