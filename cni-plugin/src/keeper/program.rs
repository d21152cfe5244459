//! Another program as the engine: the one that `SLIRP4NETNS` names.
//!
//! Owns its command line, which is slirp4netns(1)'s, and the way to its API socket.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::{Value, json};
use slirp_core::MacAddr;
use slirp_core::instance::{Forward, ForwardProtocol};
use slirp_core::netns::{AttachError, NamespaceTarget, interface_mac};

use super::child::{Engine, await_answer};
use crate::attachment::error::{Error, Kind};
use crate::attachment::open;
use crate::attachment::ports;
use crate::attachment::request::Request;
use crate::attachment::store::Files;

/// How long the program may take to report that it is ready (slirp-cni-plugin's 5 s).
const READY_TIMEOUT_MS: u16 = 5_000;
/// How long its API socket may take to answer (arbitrary).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the program and waits until it is ready.
///
/// # Errors
/// When it does not become ready, refuses a port, or lacks a requested feature.
pub(super) fn start(
    program: &Path,
    request: &Request,
    target: &NamespaceTarget,
    files: &Files,
    caller: &UnixStream,
) -> Result<(Engine, Option<MacAddr>), Error> {
    refuse_what_it_cannot_do(request)?;
    let of_interface = |error: AttachError| Error::failed(error.to_string());
    let ifname = &request.key.ifname;
    if interface_mac(target, ifname).map_err(of_interface)?.is_some() {
        let netns = request.netns.display();
        return Err(Error::failed(format!("interface {ifname} exists already in {netns}")));
    }
    let failed = |error: io::Error| Error::failed(format!("{}: {error}", program.display()));
    let (ready, at_ready) = io::pipe().map_err(failed)?;
    let (exit, at_exit) = io::pipe().map_err(failed)?;
    let (at_ready, exit) = (OwnedFd::from(at_ready), OwnedFd::from(exit));
    let mut command = Command::new(program);
    command.arg0("slirp4netns").args(arguments(request, &at_ready, &exit));
    if let Some(user) = target.user() {
        let path = format!("/proc/{}/fd/{}", std::process::id(), user.as_raw_fd());
        command.arg(format!("--userns-path={path}"));
    }
    if !request.ports.is_empty() {
        command.arg("--api-socket").arg(files.api_socket());
    }
    command.arg(&request.netns).arg(ifname);
    for inherited in [&at_ready, &exit] {
        fcntl(inherited, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|e| failed(e.into()))?;
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(failed)?;
    drop((at_ready, exit));
    let engine = Engine::adopt(child, at_exit.into()).map_err(failed)?;
    await_ready(ready, caller)?;
    // The program may not support ranges.
    for forward in request.ports.iter().flat_map(Forward::each) {
        forward_port(&files.api_socket(), &forward)?;
    }
    let mac = interface_mac(target, ifname).map_err(of_interface)?;
    Ok((engine, mac))
}

fn refuse_what_it_cannot_do(request: &Request) -> Result<(), Error> {
    let problem = if request.address != request.plan.recommended_guest() {
        "a static IP address"
    } else if request.metric.is_some() {
        "metric"
    } else if let Some(what) = request.beyond_first_version() {
        what
    } else {
        return Ok(());
    };
    let message = format!("{problem} is not supported with SLIRP4NETNS");
    Err(Error::new(Kind::Unsupported, message))
}

fn arguments(request: &Request, ready: &OwnedFd, exit: &OwnedFd) -> Vec<String> {
    let mut arguments = vec![
        "-c".to_owned(),
        "-m".to_owned(),
        request.mtu.to_string(),
        "-r".to_owned(),
        ready.as_raw_fd().to_string(),
        "-e".to_owned(),
        exit.as_raw_fd().to_string(),
        "--netns-type=path".to_owned(),
    ];
    let plan = &request.plan;
    let mut add = |condition: bool, argument: String| {
        if condition {
            arguments.push(argument);
        }
    };
    let is_usual = *plan.network().octets().as_slice() == [10, 0, 2, 0] && plan.prefix_len() == 24;
    add(!is_usual, format!("--cidr={}/{}", plan.network(), plan.prefix_len()));
    add(plan.ipv6().is_some(), "-6".to_owned());
    add(!request.policy.allow_host_loopback, "--disable-host-loopback".to_owned());
    add(!request.policy.dns_service, "--disable-dns".to_owned());
    if let Some(address) = request.outbound.ipv4 {
        arguments.push(format!("--outbound-addr={address}"));
    }
    if let Some(address) = request.outbound.ipv6 {
        arguments.push(format!("--outbound-addr6={address}"));
    }
    if let Some(mac) = request.mac {
        arguments.push(format!("--macaddress={mac}"));
    }
    arguments
}

fn await_ready(mut ready: io::PipeReader, caller: &UnixStream) -> Result<(), Error> {
    let failed =
        |what: &str| Error::failed(format!("await ready message from slirp4netns: {what}"));
    await_answer(ready.as_fd(), caller, READY_TIMEOUT_MS)
        .map_err(|error| failed(&error.message))?;
    let mut byte = [0];
    match ready.read(&mut byte) {
        Ok(1) if byte == *b"1" => Ok(()),
        Ok(1) => {
            let said = String::from_utf8_lossy(&byte);
            let message = format!("unexpected message from slirp4netns: {said:?}, expected 1");
            Err(Error::failed(message))
        }
        Ok(_) => Err(failed("EOF")),
        Err(error) => Err(failed(&error.to_string())),
    }
}

fn forward_port(socket: &Path, forward: &Forward) -> Result<(), Error> {
    let failed =
        |what: String| Error::failed(format!("port mapping {}: {what}", ports::shown(forward)));
    let protocol = match forward.protocol {
        ForwardProtocol::Tcp => "tcp",
        ForwardProtocol::Udp => "udp",
    };
    let request = json!({
        "execute": "add_hostfwd",
        "arguments": {
            "proto": protocol,
            "host_addr": forward.host.ip().to_string(),
            "host_port": forward.host.port(),
            "guest_addr": forward.guest.ip().to_string(),
            "guest_port": forward.guest.port(),
        },
    });
    let reply = ask(socket, &request).map_err(|error| failed(error.to_string()))?;
    match reply["error"]["desc"].as_str() {
        None => Ok(()),
        Some(text) => Err(failed(text.to_owned())),
    }
}

/// One request to an API socket of slirp4netns(1).
///
/// # Errors
/// When there is no answer, or it is not JSON.
pub(crate) fn ask(socket: &Path, request: &Value) -> io::Result<Value> {
    let mut stream = open::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(request.to_string().as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(serde_json::from_str(&reply)?)
}
