//! Reports of a failed run, in the lines of slirp4netns(1).

use std::io;

use slirp_core::launch::LaunchError;

use crate::console::eprint_line;
use crate::failure::RunFailure;
use crate::options::SOCKET_PATH_CAP;

/// Prints on stderr why a run failed, with a hint if there is one.
pub(super) fn report(failure: &RunFailure) {
    eprint_line(text(failure));
    if let Some(hint) = failure.hint() {
        eprint_line(format_args!("hint: {hint}"));
    }
    for line in known_end(failure) {
        eprint_line(line);
    }
}

/// The line about the failure: slirp4netns's, or our own.
fn text(failure: &RunFailure) -> String {
    match failure {
        RunFailure::TapFdClosed(number, error) => format!("TAPFD {number} is not open: {error}"),
        RunFailure::TapFd(number, error) => format!("TAPFD {number}: {error}"),
        RunFailure::SocketPathTooLong => {
            format!("the specified BESS socket path is too long (>= {SOCKET_PATH_CAP})")
        }
        RunFailure::Socket(error) => format!("child_bess: {error}"),
        RunFailure::TargetWatch(error) => format!("--exit-with-netns: {error}"),
        RunFailure::ApiPathTooLong => {
            format!("the specified API socket path is too long (>= {SOCKET_PATH_CAP})")
        }
        RunFailure::ApiBind(_, error) => format!("api_bindlisten: bind: {}", text_of(error)),
        RunFailure::MtuTooSmall(_)
        | RunFailure::DescriptorTwice(_)
        | RunFailure::Attach(_)
        | RunFailure::SocketPeer(..)
        | RunFailure::Recording(..)
        | RunFailure::Launch(_)
        | RunFailure::Start(_)
        | RunFailure::Signals(_)
        | RunFailure::Watch(_)
        | RunFailure::Forward(_)
        | RunFailure::Run(_) => failure.to_string(),
    }
}

/// The lines by which slirp4netns(1) ends such a start: its helper process opens the device, and
/// its parent does the rest.
const fn known_end(failure: &RunFailure) -> &'static [&'static str] {
    match failure {
        RunFailure::Attach(_) | RunFailure::SocketPathTooLong | RunFailure::Socket(_) => {
            &["child failed(1)"]
        }
        RunFailure::ApiPathTooLong | RunFailure::ApiBind(..) => {
            &["do_slirp is exiting", "do_slirp failed", "parent failed"]
        }
        RunFailure::Launch(LaunchError::Sandbox(_)) => {
            &["create_sandbox failed", "do_slirp is exiting", "do_slirp failed", "parent failed"]
        }
        RunFailure::Launch(LaunchError::Seccomp(_)) => {
            &["enable_seccomp failed", "do_slirp is exiting", "do_slirp failed", "parent failed"]
        }
        RunFailure::MtuTooSmall(_)
        | RunFailure::DescriptorTwice(_)
        | RunFailure::TapFdClosed(..)
        | RunFailure::TapFd(..)
        | RunFailure::SocketPeer(..)
        | RunFailure::TargetWatch(_)
        | RunFailure::Recording(..)
        | RunFailure::Launch(_)
        | RunFailure::Start(_)
        | RunFailure::Signals(_)
        | RunFailure::Watch(_)
        | RunFailure::Forward(_)
        | RunFailure::Run(_) => &[],
    }
}

/// The kernel's text alone.
fn text_of(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |number| nix::errno::Errno::from_raw(number).desc().to_owned(),
    )
}
