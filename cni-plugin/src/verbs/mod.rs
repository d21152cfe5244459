//! The commands of the CNI specification.
//!
//! Owns the way from a call to its answer. The work on containers is in
//! [`attachment`](crate::attachment).

mod add;
mod check;
mod del;
mod gc;
mod routes;
mod status;

use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::attachment::attach::Pending;
use crate::attachment::error::{Error, Kind};
use crate::config::Header;
use crate::protocol::environment::{Command, Environment};
use crate::protocol::error::{CniError, code};
use crate::protocol::version::Version;

/// How long `VERSION` waits for an input that it does not need (arbitrary: a runtime that sends one
/// does so at once).
const VERSION_INPUT_TIMEOUT_MS: u16 = 100;

/// The answer to one call.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Nothing on stdout, status 0.
    Nothing,
    /// An object on stdout, status 0.
    Object(Value),
    /// An object on stdout, status 0; the attachment stays if it could be printed.
    Attached(Value, Pending),
    /// A text on stderr for a user that called the plugin by hand, status 0.
    About(String),
    /// An error object on stdout, status 1.
    Failure(Version, CniError),
}

/// The answer to the call that the environment and standard input describe.
pub(crate) fn answer(command: Option<&OsStr>) -> Answer {
    let Some(command) = command.filter(|command| !command.is_empty()) else {
        return Answer::About(format!(
            "CNI plugin slirp v{}\nCNI protocol versions supported: {}\n",
            env!("CARGO_PKG_VERSION"),
            Version::texts().join(", ")
        ));
    };
    let (command, environment) = match environment(command) {
        Ok((Command::Version, _)) => return Answer::Object(versions()),
        Ok(read) => read,
        Err(error) => return Answer::Failure(Version::NEWEST, error),
    };
    let mut input = Vec::new();
    if let Err(error) = io::stdin().read_to_end(&mut input) {
        let message = format!("error reading from stdin: {error}");
        return Answer::Failure(Version::NEWEST, CniError::new(code::IO, message));
    }
    let header = match Header::parse(&input) {
        Ok(header) => header,
        Err((version, error)) => return Answer::Failure(version, error),
    };
    let version = header.version;
    let done = match command {
        Command::Add => add::add(&header, &environment),
        Command::Del => del::del(&header, &environment).map(|()| Answer::Nothing),
        Command::Check => since(version, Version::V040, "CHECK")
            .and_then(|()| check::check(&header, &environment))
            .map(|()| Answer::Nothing),
        Command::Gc => since(version, Version::V110, "GC")
            .and_then(|()| gc::gc(&header))
            .map(|()| Answer::Nothing),
        Command::Status => since(version, Version::V110, "STATUS")
            .and_then(|()| status::status(&header))
            .map(|()| Answer::Nothing),
        Command::Version => Ok(Answer::Object(versions())),
    };
    done.unwrap_or_else(|error| Answer::Failure(version, error))
}

fn environment(command: &OsStr) -> Result<(Command, Environment), CniError> {
    let command = Command::parse(&command.to_string_lossy())?;
    Ok((command, Environment::read(command, |name| env::var_os(name))?))
}

fn since(version: Version, first: Version, command: &str) -> Result<(), CniError> {
    if version >= first {
        return Ok(());
    }
    let message = format!("config version does not allow {command}");
    Err(CniError::new(code::INCOMPATIBLE_VERSION, message))
}

/// The answer to `VERSION`, in the version of the input if it is a known one.
fn versions() -> Value {
    let version = version_of_input().unwrap_or(Version::NEWEST.as_str());
    json!({ "cniVersion": version, "supportedVersions": Version::texts() })
}

fn version_of_input() -> Option<&'static str> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return None;
    }
    let mut polled = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let is_there =
        poll(&mut polled, PollTimeout::from(VERSION_INPUT_TIMEOUT_MS)).is_ok_and(|n| n > 0);
    let mut input = Vec::new();
    if !is_there || stdin.lock().read_to_end(&mut input).is_err() {
        return None;
    }
    let value: Value = serde_json::from_slice(&input).ok()?;
    let text = crate::protocol::field::of(&value, "cniVersion")?.as_str()?;
    Version::ALL.into_iter().find(|(_, known)| *known == text).map(|(_, known)| known)
}

impl From<Error> for CniError {
    fn from(error: Error) -> Self {
        let code = match error.kind {
            Kind::ContainerGone => code::UNKNOWN_CONTAINER,
            Kind::NotNamespace => code::INVALID_ENVIRONMENT,
            Kind::OwnNamespace => code::INVALID_NETNS,
            Kind::Busy => code::TRY_AGAIN_LATER,
            Kind::Unsupported => code::UNSUPPORTED_FIELD,
            Kind::Failed => code::INTERNAL,
        };
        Self { code, message: error.message, details: error.hint }
    }
}
