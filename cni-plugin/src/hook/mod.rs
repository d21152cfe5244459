//! The OCI hook: a network without any CNI runtime, by two lines of `config.json`.
//!
//! # Theory of operation
//! An OCI runtime starts a hook with the state of a container on standard input (runtime-spec,
//! "State" and "POSIX-platform Hooks"). A container that has a process gets a network; a container
//! without one loses it. So one command line serves as `createRuntime`, `prestart`, `poststart` and
//! `poststop`, and needs no argument. Options come by arguments, then by annotations.
//!
//! `createContainer` is different: there the hook runs in the container's namespaces ([`inside`]).
//! crun hides the container's process from its own user until the program runs, so for an ordinary
//! user `createRuntime` starts a keeper that waits, and `createContainer` hands it the namespace.
//! In all other cases that stage finds its work done.
//!
//! The hook succeeds without doing anything if it is not responsible for the network: the
//! configuration joins a namespace by path, or the namespace has a network of ours already.
//!
//! Runtimes wait for the end of our standard output and error; the long-lived processes have
//! neither. crun discards the output of hooks, so the last lines are also kept in a file ([`log`]).
//! crun also starts hooks with nearly all signals blocked; the long-lived processes unblock them.
//!
//! | status in the state | process | what happens |
//! | --- | --- | --- |
//! | any but `stopped`, in the container's namespaces | any | up, second stage |
//! | `creating`, `created`, `running` | yes | up |
//! | any | no | down |
//! | `stopped` | any | down |

mod down;
mod inside;
mod log;
mod options;
mod state;
mod up;

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slirp_cli::words::{OCI_HOOK, help};
use slirp_core::internals::process::close_descriptors_on_exec;

use crate::attachment::error::Error;
use crate::attachment::store::Candidates;
use crate::protocol::error::CniError;
use options::{Arguments, Direction};
use state::State;

/// Ending of a program name that makes the word superfluous: `slirp-hook`, `oci-hook`.
const NAME_ENDING: &[u8] = b"hook";

/// The network of the attachments that hooks make, for `slirp ls`.
const NETWORK: &str = "oci-hook";

/// How long a caller without arguments may take to send a state (arbitrary: runtimes do so at
/// once).
const STATE_TIMEOUT_MS: u16 = 1_000;

/// Why a hook failed: a message for a person, in one line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(with_hint(&error.message, &error.hint))
    }
}

impl From<CniError> for Failure {
    fn from(error: CniError) -> Self {
        Self(with_hint(&error.message, &error.details))
    }
}

fn with_hint(message: &str, hint: &str) -> String {
    if hint.is_empty() { message.to_owned() } else { format!("{message} ({hint})") }
}

/// Whether the program was started under a name that means the hook.
pub(crate) fn is_name(name: Option<&OsStr>) -> bool {
    let file = name.and_then(|name| Path::new(name).file_name());
    file.is_some_and(|file| file.as_encoded_bytes().ends_with(NAME_ENDING))
}

/// The state of a container on standard input, if a runtime sends one although it used neither the
/// word nor the name. Without this, such a hook would succeed without doing anything.
pub(crate) fn state_without_word() -> Option<Vec<u8>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return None;
    }
    let mut polled = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let is_there = poll(&mut polled, PollTimeout::from(STATE_TIMEOUT_MS)).is_ok_and(|n| n > 0);
    let mut input = Vec::new();
    if !is_there || stdin.lock().read_to_end(&mut input).is_err() {
        return None;
    }
    State::parse(&input).is_ok().then_some(input)
}

/// Runs as a hook with these arguments. `input` is the state if it has been read already.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>, input: Option<Vec<u8>>) -> ExitCode {
    // Kernels before 5.11 lack this; our children then keep inherited descriptors open.
    let _ = close_descriptors_on_exec();
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(failure) => {
            log::complain(&Candidates::new(None), None, "", &failure);
            return ExitCode::FAILURE;
        }
    };
    if arguments.wants_help {
        return help([OCI_HOOK.name.into()].into_iter());
    }
    let candidates = Candidates::new(arguments.state_dir.as_deref());
    let fail = |id: &str, failure: &Failure| {
        log::complain(&candidates, arguments.log_file.as_deref(), id, failure);
        ExitCode::FAILURE
    };
    let state = match read(input) {
        Ok(state) => state,
        Err(failure) => return fail("", &failure),
    };
    let is_inside =
        arguments.direction != Some(Direction::Down) && inside::is_inside(&state, &candidates);
    let direction = arguments.direction.unwrap_or_else(|| state.direction());
    let done = match direction {
        Direction::Up | Direction::Down if is_inside => {
            up::second_stage(&state, &arguments, &candidates)
        }
        Direction::Up => up::up(&state, &arguments, &candidates),
        Direction::Down => down::down(&state, &arguments, &candidates),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&state.id, &failure),
    }
}

fn read(input: Option<Vec<u8>>) -> Result<State, Failure> {
    let input = match input {
        Some(input) => input,
        None => {
            let mut input = Vec::new();
            io::stdin().read_to_end(&mut input).map_err(|error| {
                Failure(format!("the container's state cannot be read: {error}"))
            })?;
            input
        }
    };
    State::parse(&input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_end_with_hook_mean_the_hook() {
        for (name, is_hook) in [
            ("/usr/local/bin/slirp-oci-hook", true),
            ("slirp-hook", true),
            ("hook", true),
            ("slirp", false),
            ("/usr/lib/hook/slirp", false),
            ("", false),
        ] {
            assert_eq!(is_name(Some(OsStr::new(name))), is_hook, "{name}");
        }
        assert!(!is_name(None));
    }
}
