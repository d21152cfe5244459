//! The process of a shared network, as one of its keepers sees it.
//!
//! Owns joining (finding the process or starting it, one keeper at a time) and leaving.

use std::io::{self, Read as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use slirp_core::MacAddr;
use slirp_core::internals::process::send_fd;
use slirp_core::link::Tap;

use super::child::await_answer;
use crate::attachment::error::{Error, Kind};
use crate::attachment::frame;
use crate::attachment::message::{
    Device, Done, HostNetns, Join, NetworkOrder, NetworkRequest, receive_answer,
};
use crate::attachment::network::{NETWORK_ARGUMENT, network_files, sweep};
use crate::attachment::open;
use crate::attachment::request::{Addresses, Request};
use crate::attachment::store::Files;

/// How long the process of a network may take to answer (arbitrary; it takes some 10 ms to start).
const ANSWER_TIMEOUT_MS: u16 = 15_000;
/// How long it may take to remove a member (arbitrary; it takes milliseconds).
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How often joining is tried while one process ends and the next one starts (arbitrary: the keeper
/// that tries starts the next one, so two would be enough).
const ATTEMPTS: usize = 5;

/// A lease of addresses on a shared network. Dropping it gives them back.
#[derive(Debug)]
pub(super) struct NetworkLease {
    stream: UnixStream,
    network: Files,
    is_ended: bool,
    /// The addresses that the network assigned.
    pub(super) addresses: Addresses,
}

impl NetworkLease {
    /// Takes a lease on the network of `request`, whose process is started if there is none.
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
            // The process that was started for us has ended with us.
            sweep(&network);
        }
        taken
    }

    fn try_take(request: &Request, network: &Files, caller: &UnixStream) -> Result<Self, Error> {
        let host_netns = HostNetns::own()
            .map_err(|error| Error::failed(format!("/proc/self/ns/net: {error}")))?;
        let join = Join { request: Box::new(request.clone()), host_netns };
        let unknown_before = request.beyond_first_version();
        let join = match unknown_before {
            None => NetworkRequest::Join(join),
            Some(_) => NetworkRequest::JoinUnderPolicy(join),
        };
        // One keeper at a time, so that there is one process however many keepers start at once.
        let _lock = network.lock()?;
        for _ in 0..ATTEMPTS {
            let (stream, is_new) = match connect(network) {
                Ok(stream) => (stream, false),
                Err(error) if open::is_absent(&error) => {
                    (start(request, network, host_netns, caller)?, true)
                }
                Err(error) => {
                    return Err(Error::failed(format!("{}: {error}", network.socket().display())));
                }
            };
            match ask(&stream, &join, caller) {
                Ok(addresses) => {
                    let network = network.clone();
                    return Ok(Self { stream, network, is_ended: false, addresses });
                }
                // The process has ended between our connection and its answer.
                Err(Refusal::Gone(error)) if !is_new => {
                    tracing::debug!(%error, "the network has just ended");
                }
                Err(Refusal::Gone(error)) => {
                    return Err(Error::failed(format!("the network has ended: {error}")));
                }
                Err(Refusal::Told(error))
                    if let Some(what) = unknown_before
                        && is_about_a_word(&error) =>
                {
                    let message = format!(
                        "the network {} is served by a process of an earlier version, which does \
                         not know {what}",
                        request.network
                    );
                    let hint = "remove the other containers of the network first";
                    return Err(Error::new(Kind::Unsupported, message).with_hint(Some(hint)));
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
        frame::send(&self.stream, &Device { mac })
            .and_then(|()| send_fd(self.stream.as_fd(), tap.as_fd()))
            .map_err(gone)?;
        match receive(&self.stream, caller) {
            Ok(Done {}) => Ok(()),
            Err(Refusal::Told(error)) => Err(error),
            Err(Refusal::Gone(error)) => Err(gone(error)),
        }
    }

    /// Leaves the network, and returns when interface and host ports are gone.
    pub(super) fn end(&mut self) {
        self.is_ended = true;
        // It fails only if the other side has hung up.
        let _ = self.stream.shutdown(Shutdown::Write);
        let _ = self.stream.set_read_timeout(Some(END_TIMEOUT));
        match self.stream.read(&mut [0]) {
            Ok(_) => tracing::info!("the container has left the network"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => tracing::warn!(%error, "the container cannot leave the network"),
        }
        sweep(&self.network);
    }
}

impl Drop for NetworkLease {
    fn drop(&mut self) {
        if !self.is_ended {
            self.end();
        }
    }
}

impl AsFd for NetworkLease {
    /// Readable when the lease has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Why there is no lease.
enum Refusal {
    Gone(io::Error),
    Told(Error),
}

fn connect(network: &Files) -> io::Result<UnixStream> {
    let stream = open::connect(&network.socket())?;
    open::pid_of_own(&stream)?;
    Ok(stream)
}

/// Whether the process of a network did not know the word of a request: serde's words.
fn is_about_a_word(error: &Error) -> bool {
    error.message.contains("unknown variant")
}

/// Starts the process of a network. It is our child while we live, and is re-parented afterwards.
fn start(
    request: &Request,
    network: &Files,
    host_netns: HostNetns,
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
    let order = NetworkOrder {
        // The policy is the member's, not the network's.
        request: Request { egress: None, ..request.clone() },
        host_netns,
        socket: network.socket(),
        api_socket: network.api_socket(),
    };
    match ask(&stream, &order, caller) {
        Ok(Done {}) => Ok(stream),
        Err(Refusal::Told(error)) => Err(error),
        Err(Refusal::Gone(error)) => Err(failed(error)),
    }
}

fn ask<T: DeserializeOwned>(
    stream: &UnixStream,
    message: &impl Serialize,
    caller: &UnixStream,
) -> Result<T, Refusal> {
    frame::send(stream, message).map_err(Refusal::Gone)?;
    receive(stream, caller)
}

fn receive<T: DeserializeOwned>(stream: &UnixStream, caller: &UnixStream) -> Result<T, Refusal> {
    await_answer(stream.as_fd(), caller, ANSWER_TIMEOUT_MS).map_err(Refusal::Told)?;
    match receive_answer(stream) {
        Ok(answer) => answer.map_err(Refusal::Told),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(Refusal::Told(Error::failed(format!("the network is not understood: {error}"))))
        }
        Err(error) => Err(Refusal::Gone(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use serde_json::{Value, json};

    use super::*;
    use crate::attachment::request::tests::example;
    use crate::attachment::store::tests::Scratch;

    const GIVEN: Addresses = Addresses { address: Ipv4Addr::new(10, 9, 0, 100), address6: None };

    /// A network's reactions to a connection: to hang up, or to read a message and answer it.
    type Answers = Vec<Option<Value>>;

    /// Takes a lease on a network that gives these answers, one for each connection. Also returns
    /// the number of connections.
    fn take(name: &str, answers: Answers) -> (Result<NetworkLease, Error>, usize) {
        take_for(&example(), "join", name, answers)
    }

    fn take_for(
        request: &Request,
        word: &'static str,
        name: &str,
        answers: Answers,
    ) -> (Result<NetworkLease, Error>, usize) {
        let scratch = Scratch::new(name);
        let files = scratch.files("a");
        let network = network_files(&files, &request.network);
        let listener = UnixListener::bind(network.socket()).unwrap();
        let serving = thread::spawn(move || {
            let mut asked = 0;
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                asked += 1;
                if let Some(answer) = answer {
                    let asked: Value = frame::receive(&stream).unwrap();
                    assert_eq!(asked["execute"], word);
                    frame::send(&stream, &answer).unwrap();
                }
            }
            asked
        });
        let (_caller, caller) = UnixStream::pair().unwrap();
        let taken = NetworkLease::take(request, &files, &caller);
        (taken, serving.join().unwrap())
    }

    #[test]
    fn place_is_the_one_that_the_network_gives() {
        let (taken, _) = take("place", vec![Some(json!(GIVEN))]);
        assert_eq!(taken.unwrap().addresses, GIVEN);
    }

    #[test]
    fn network_that_has_just_ended_is_tried_again() {
        let (taken, asked) = take("again", vec![None, None, Some(json!(GIVEN))]);
        assert_eq!((taken.unwrap().addresses, asked), (GIVEN, 3));
        let (taken, asked) = take("never", vec![None; ATTEMPTS]);
        assert_eq!(taken.unwrap_err().message, "the network ends again and again");
        assert_eq!(asked, ATTEMPTS);
    }

    #[test]
    fn refusal_is_passed_on_and_not_tried_again() {
        let refused = Error::failed("the network net is full").with_hint(Some("leave it"));
        let (taken, asked) = take("told", vec![Some(json!({ "error": refused }))]);
        assert_eq!((taken.unwrap_err(), asked), (refused, 1));
        let (taken, _) = take("nonsense", vec![Some(json!({ "address": "nowhere" }))]);
        assert_eq!(
            taken.unwrap_err().message,
            "the network is not understood: invalid IPv4 address syntax"
        );
    }

    #[test]
    fn network_of_an_earlier_version_does_not_take_a_container_with_a_policy() {
        let request = Request { egress: Some(Vec::new()), ..example() };
        // The answer of version 0.1.0.
        let refused = Error::failed(
            "the request cannot be read: unknown variant `join-under-policy`, expected `join` or \
             `settle` at line 1 column 30",
        );
        let answers = vec![Some(json!({ "error": refused }))];
        let (taken, _) = take_for(&request, "join-under-policy", "older", answers);
        let error = taken.unwrap_err();
        assert_eq!(error.kind, Kind::Unsupported);
        assert!(error.message.contains("of an earlier version"), "{}", error.message);
    }

    #[test]
    fn wait_ends_when_the_caller_has_gone() {
        let (stream, _network) = UnixStream::pair().unwrap();
        let (gone, caller) = UnixStream::pair().unwrap();
        drop(gone);
        let Err(Refusal::Told(error)) = ask::<Done>(&stream, &json!({}), &caller) else {
            panic!("there is no answer")
        };
        assert_eq!(error.message, "the caller has gone");
    }

    #[test]
    fn place_is_given_back_before_its_end_returns() {
        let scratch = Scratch::new("leave");
        let (stream, mut theirs) = UnixStream::pair().unwrap();
        let network = scratch.files("n");
        let mut lease = NetworkLease { stream, network, is_ended: false, addresses: GIVEN };
        let leaving = thread::spawn(move || lease.end());
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "the network hears of it");
        assert!(!leaving.is_finished(), "interface and ports may still be there");
        drop(theirs);
        leaving.join().unwrap();
    }
}
