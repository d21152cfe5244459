//! Reports of a failed run.
//!
//! Owns the texts that people, and tests of others, search for.

use std::io;
use std::net::IpAddr;

use nix::libc;
use slirp_core::instance::{Forward, ForwardError};
use slirp_core::launch::LaunchError;
use slirp_core::link::FrameSocketError;
use slirp_core::netns::{AttachError, AttachStep};

use crate::failure::RunFailure;

/// Tells why a run failed, with a hint if there is one.
pub(super) fn report(failure: &RunFailure) {
    for line in lines(failure) {
        tracing::error!("{line}");
    }
    if let Some(hint) = failure.hint() {
        tracing::error!("hint: {hint}");
    }
}

fn lines(failure: &RunFailure) -> Vec<String> {
    match failure {
        RunFailure::Forward(ForwardError::Bind { forward, interface, source }) => {
            vec![
                listen_failed(forward, interface.as_deref(), source),
                "Couldn't listen on requested ports".to_owned(),
            ]
        }
        RunFailure::Attach(error) => vec![attach(error)],
        RunFailure::Launch(LaunchError::Sandbox(_) | LaunchError::Seccomp(_)) => {
            vec![failure.to_string(), "Failed to sandbox process, exiting".to_owned()]
        }
        RunFailure::TargetGone(what) => vec![format!("Namespace {what} is gone, exiting")],
        RunFailure::SocketFd(number, error) => vec![invalid_fd(*number, &reason(error))],
        RunFailure::SocketFdOfPackets(number) => {
            vec![invalid_fd(*number, &of_type("SOCK_SEQPACKET"))]
        }
        // The other purpose is a pipe of ours: nothing else had the number.
        RunFailure::DescriptorTwice(number) => vec![invalid_fd(*number, NOT_OPEN)],
        RunFailure::MtuTooSmall(_)
        | RunFailure::TapFdClosed(..)
        | RunFailure::TapFd(..)
        | RunFailure::SocketPathTooLong
        | RunFailure::Socket(_)
        | RunFailure::SocketPeer(..)
        | RunFailure::TargetWatch(_)
        | RunFailure::Recording(..)
        | RunFailure::Launch(_)
        | RunFailure::Start(_)
        | RunFailure::ApiPathTooLong
        | RunFailure::ApiBind(..)
        | RunFailure::Signals(_)
        | RunFailure::Watch(_)
        | RunFailure::Detach(_)
        | RunFailure::Egress(_)
        | RunFailure::Operator(_)
        | RunFailure::Forward(_)
        | RunFailure::Run(_) => vec![failure.to_string()],
    }
}

const NOT_OPEN: &str = "the file descriptor is not open";

fn invalid_fd(number: i32, why: &str) -> String {
    format!("Invalid --fd: {number}: {why}")
}

fn of_type(name: &str) -> String {
    format!("the Unix socket is of the type {name}, not SOCK_STREAM")
}

/// Why a descriptor carries no frames of passt(1).
#[expect(clippy::wildcard_enum_match_arm, reason = "errors whose text fits")]
fn reason(error: &FrameSocketError) -> String {
    match error {
        FrameSocketError::Call { source, .. } if source.raw_os_error() == Some(libc::EBADF) => {
            NOT_OPEN.to_owned()
        }
        FrameSocketError::NotConnectionMode => of_type("SOCK_DGRAM"),
        other => other.to_string(),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "errors without a known text")]
fn attach(error: &AttachError) -> String {
    match error {
        AttachError::OpenNamespace { path, source } => {
            format!("Couldn't open network namespace {}: {}", path.display(), text_of(source))
        }
        AttachError::OpenUserNamespace { path, source } => {
            format!("Couldn't open user namespace {}: {}", path.display(), text_of(source))
        }
        AttachError::Step { step: AttachStep::EnterNetwork, source } => {
            format!("Couldn't switch to pasta namespaces: {}", text_of(source))
        }
        AttachError::Step { step: AttachStep::CreateTap, source } => {
            format!("TUNSETIFF ioctl on /dev/net/tun failed: {}", text_of(source))
        }
        AttachError::Step { step: AttachStep::OpenTun, source } => {
            format!("Failed to open() /dev/net/tun: {}", text_of(source))
        }
        other => other.to_string(),
    }
}

/// Why a port cannot be opened.
pub(super) fn listen_failed(
    forward: &Forward,
    interface: Option<&str>,
    source: &io::Error,
) -> String {
    format!("Listen failed for {}: {}", port(forward, interface), text_of(source))
}

/// A port as the messages of this dialect have it: `HOST TCP port */80`, `HOST TCP port *%eth0/80`.
fn port(forward: &Forward, interface: Option<&str>) -> String {
    let address = match forward.host.ip() {
        ip if ip.is_unspecified() => "*".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let at = interface.map_or_else(String::new, |name| format!("%{name}"));
    format!("HOST {} port {address}{at}/{}", forward.protocol, forward.host.port())
}

/// The kernel's text alone.
pub(super) fn text_of(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |number| nix::errno::Errno::from_raw(number).desc().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;

    use slirp_core::instance::ForwardProtocol;

    use super::*;

    #[test]
    fn ports_in_use_have_the_text_that_people_search_for() {
        let source = || io::Error::from_raw_os_error(libc::EADDRINUSE);
        let guest = SocketAddr::from(([192, 0, 2, 1], 80));
        for (host, text) in [
            ("0.0.0.0:5000", "Listen failed for HOST TCP port */5000: Address already in use"),
            (
                "127.0.0.1:80",
                "Listen failed for HOST TCP port 127.0.0.1/80: Address already in use",
            ),
            ("[::1]:80", "Listen failed for HOST TCP port [::1]/80: Address already in use"),
        ] {
            let forward = Forward::new(ForwardProtocol::Tcp, host.parse().unwrap(), guest);
            let error = ForwardError::Bind { forward, interface: None, source: source() };
            let failure = RunFailure::Forward(error);
            assert_eq!(lines(&failure), [text, "Couldn't listen on requested ports"]);
        }
    }

    #[test]
    fn namespace_that_cannot_be_opened_is_named() {
        let source = || io::Error::from_raw_os_error(libc::EACCES);
        let path = std::path::PathBuf::from("/proc/7/ns/x");
        for (failure, kind) in [
            (AttachError::OpenNamespace { path: path.clone(), source: source() }, "network"),
            (AttachError::OpenUserNamespace { path: path.clone(), source: source() }, "user"),
        ] {
            let text = format!("Couldn't open {kind} namespace /proc/7/ns/x: Permission denied");
            assert_eq!(lines(&RunFailure::Attach(failure)), [text]);
        }
    }

    #[test]
    fn device_in_use_has_the_text_of_the_system_call() {
        let source = io::Error::from_raw_os_error(libc::EBUSY);
        let step = AttachStep::CreateTap;
        let failure = RunFailure::Attach(AttachError::Step { step, source });
        let text = "TUNSETIFF ioctl on /dev/net/tun failed: Device or resource busy";
        assert_eq!(lines(&failure), [text]);
    }
}
