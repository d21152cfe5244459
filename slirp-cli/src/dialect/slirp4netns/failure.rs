//! Reports of a failed run, in the lines of slirp4netns(1).

use std::io;

use slirp_core::launch::LaunchError;

use crate::console::eprint_line;
use crate::failure::RunFailure;
use crate::options::SOCKET_PATH_CAP;

/// Prints on stderr why a run failed, with a hint if there is one.
pub(super) fn report(failure: &RunFailure) {
    let (line, end) = lines(failure);
    eprint_line(line);
    if let Some(hint) = failure.hint() {
        eprint_line(format_args!("hint: {hint}"));
    }
    for line in end {
        eprint_line(line);
    }
}

/// The line about the failure, slirp4netns's or our own, and the lines by which slirp4netns(1) ends
/// such a start: its helper process opens the device, and its parent does the rest.
fn lines(failure: &RunFailure) -> (String, &'static [&'static str]) {
    const CHILD: &[&str] = &["child failed(1)"];
    const PARENT: &[&str] = &["do_slirp is exiting", "do_slirp failed", "parent failed"];
    match failure {
        RunFailure::TapFdClosed(number, error) => {
            (format!("TAPFD {number} is not open: {error}"), &[])
        }
        RunFailure::TapFd(number, error) => (format!("TAPFD {number}: {error}"), &[]),
        RunFailure::SocketFd(..) | RunFailure::SocketFdOfPackets(_) => (failure.to_string(), &[]),
        RunFailure::SocketPathTooLong => {
            (format!("the specified BESS socket path is too long (>= {SOCKET_PATH_CAP})"), CHILD)
        }
        RunFailure::Socket(error) => (format!("child_bess: {error}"), CHILD),
        RunFailure::Attach(_) => (failure.to_string(), CHILD),
        RunFailure::TargetWatch(error) => (format!("--exit-with-netns: {error}"), &[]),
        RunFailure::ApiPathTooLong => {
            (format!("the specified API socket path is too long (>= {SOCKET_PATH_CAP})"), PARENT)
        }
        RunFailure::ApiBind(_, error) => {
            (format!("api_bindlisten: bind: {}", text_of(error)), PARENT)
        }
        RunFailure::Launch(LaunchError::Sandbox(_)) => (
            failure.to_string(),
            &["create_sandbox failed", "do_slirp is exiting", "do_slirp failed", "parent failed"],
        ),
        RunFailure::Launch(LaunchError::Seccomp(_)) => (
            failure.to_string(),
            &["enable_seccomp failed", "do_slirp is exiting", "do_slirp failed", "parent failed"],
        ),
        RunFailure::MtuTooSmall(_)
        | RunFailure::DescriptorTwice(_)
        | RunFailure::SocketPeer(..)
        | RunFailure::Recording(..)
        | RunFailure::Launch(_)
        | RunFailure::Start(_)
        | RunFailure::Signals(_)
        | RunFailure::Watch(_)
        | RunFailure::Detach(_)
        | RunFailure::Forward(_)
        | RunFailure::Egress(_)
        | RunFailure::Operator(_)
        | RunFailure::TargetGone(_)
        | RunFailure::Run(_) => (failure.to_string(), &[]),
    }
}

/// The kernel's text alone.
fn text_of(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |number| nix::errno::Errno::from_raw(number).desc().to_owned(),
    )
}
