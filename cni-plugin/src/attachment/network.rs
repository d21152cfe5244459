//! Where the process of a shared network is found, and the wait for members that leave it.
//!
//! Owns the place of its files. The process, which serves all containers of one network name, is
//! `keeper::network`.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::error::Error;
use super::message::{Done, NetworkRequest, receive_answer};
use super::store::Files;
use super::{frame, open};

/// The argument that makes our executable the process of a network.
pub(crate) const NETWORK_ARGUMENT: &str = "run-network";

/// How long the process of a network may take to answer (arbitrary; it takes microseconds).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a leaving keeper waits for the lock of the network's files (arbitrary: joining holds it
/// for some 50 ms at most).
const SWEEP_TIMEOUT: Duration = Duration::from_secs(2);

/// The files of the network `name` in the folder of `files`: `STEM.sock` is where members join,
/// `STEM.api` the API socket, `STEM.lock` the lock that is held while a member joins.
pub(crate) fn network_files(files: &Files, name: &str) -> Files {
    Files::new(files.folder().to_owned(), stem(name), files.scope().to_owned())
}

/// The name of a network's files: no attachment has this name, since no container's id is empty.
fn stem(name: &str) -> String {
    super::key::hash([&[0], name.as_bytes(), &[0]].concat())
}

/// Waits until members of a network whose keepers have ended are removed with their interfaces and
/// ports. Removes the network's files when no member is left.
pub(crate) fn await_departure(network: &Files) {
    if let Ok(stream) = open::connect(&network.socket())
        // A hang-up instead of an answer means the same.
        && let Err(error) = ask_to_settle(&stream)
    {
        tracing::debug!(%error, "the network has ended");
    }
    sweep(network);
}

fn ask_to_settle(stream: &UnixStream) -> io::Result<Result<Done, Error>> {
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    frame::send(stream, &NetworkRequest::Settle)?;
    receive_answer(stream)
}

/// Removes the files of a network that has no process, unless another process holds their lock for
/// long.
pub(crate) fn sweep(network: &Files) {
    if !network.exist() {
        return;
    }
    // This waits for the lock: keepers that leave at the same moment check one after the other, and
    // only the last of them finds the network's process gone.
    if let Ok(lock) = network.lock_within(SWEEP_TIMEOUT)
        && open::connect(&network.socket()).is_err_and(|error| open::is_absent(&error))
    {
        network.remove();
        lock.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_network_belong_to_it_alone() {
        let files = Files::new("/x".into(), "0".to_owned(), "-".to_owned());
        assert_ne!(network_files(&files, "a").stem(), network_files(&files, "b").stem());
        assert_eq!(network_files(&files, "a").stem().len(), 32);
    }
}
