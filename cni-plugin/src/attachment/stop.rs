//! Ending the processes of an attachment reliably.
//!
//! # Theory of operation
//! A keeper is asked through its socket; the kernel tells which user owns it. A keeper without a
//! socket, or one that does not answer, is found by its record, or by its command line if the
//! record is gone as well. It is signalled through a descriptor, never by a bare number. Either way
//! this returns when interface and ports are free.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use slirp_core::internals::process::ProcessFd;

use super::contact::Contact;
use super::error::Error;
use super::identity::{ProcessIdentity, is_running};
use super::network::{await_departure, network_files};
use super::store::Files;

/// The argument that makes our executable a keeper; stem and scope of the attachment's files follow
/// it.
pub(crate) const KEEPER_ARGUMENT: &str = "keep-attachment";
/// The argument that makes our executable an engine.
pub(crate) const ENGINE_ARGUMENT: &str = "run-attachment";

/// How long a process may take to end after SIGTERM (slirp-cni-plugin's 5 s).
const TERM_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a process may take to end after SIGKILL (slirp-cni-plugin's 1 s).
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// Ends the processes of an attachment, if there are any.
///
/// # Errors
/// When one of them outlives SIGKILL.
pub(crate) fn stop(files: &Files) -> Result<(), Error> {
    let record = files.record();
    if let Ok(contact) = Contact::open(&files.socket()) {
        let ended = contact.end();
        match (&contact.process, ended) {
            // A keeper that does not end by itself is ended. Its socket is closed a moment before
            // its end.
            (Some(process), ended) => {
                if ended.is_err() || !has_ended(process, KILL_TIMEOUT) {
                    end(process)?;
                }
            }
            (None, Ok(())) => {}
            (None, Err(error)) => {
                return Err(Error::failed(format!(
                    "slirp did not terminate, and cannot be seen from this PID namespace: {error}"
                )));
            }
        }
    }
    // The engine ends with its keeper, whatever ended the keeper; this waits for it.
    let written = record.iter().flat_map(|record| [Some(&record.keeper), record.engine.as_ref()]);
    for identity in written.flatten() {
        if let Some(process) = identity.find() {
            end(&process)?;
        }
    }
    // The process of a shared network notices the keeper's end; this waits for that.
    if let Some(record) = record
        && record.request.shared.is_some()
    {
        await_departure(&network_files(files, &record.request.network));
    }
    Ok(())
}

/// Ends processes that serve the attachment with this stem and scope although their record is gone.
///
/// # Errors
/// When one of them outlives SIGKILL.
pub(crate) fn stop_unrecorded(stem: &str, scope: &str) -> Result<(), Error> {
    processes_of(stem, scope).iter().try_for_each(end)
}

/// Processes of this user that were started for the attachment, keepers before engines.
fn processes_of(stem: &str, scope: &str) -> Vec<ProcessFd> {
    let mut found = Vec::new();
    for role in [KEEPER_ARGUMENT, ENGINE_ARGUMENT] {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let Ok(process) = ProcessFd::open(pid) else { continue };
            // Checked after the descriptor was opened, so the number is not reused in between.
            if is_ours(pid, [role, stem, scope]) && is_running(&process) {
                found.push(process);
            }
        }
    }
    found
}

/// Whether a process runs as this user and its first arguments are `words`.
fn is_ours(pid: i32, words: [&str; 3]) -> bool {
    // Files in `/proc` of a process that may not be traced belong to root; `status` tells its true
    // user.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if status.starts_with("Name:\tslirp-outside\n") {
        // The process outside of the engine's sandbox has the engine's command line, since it was
        // forked from it. It ends with the engine, and SIGTERM does not end it before.
        return false;
    }
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let user = user.and_then(|ids| ids.split_whitespace().next()?.parse::<u32>().ok());
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let given = command.split(|&byte| byte == 0).skip(1).take(words.len());
    user == Some(geteuid().as_raw()) && given.eq(words.iter().map(|word| word.as_bytes()))
}

/// SIGTERM, then SIGKILL.
fn end(process: &ProcessFd) -> Result<(), Error> {
    if has_ended(process, Duration::ZERO) {
        return Ok(());
    }
    for (signal, timeout) in [(Signal::SIGTERM, TERM_TIMEOUT), (Signal::SIGKILL, KILL_TIMEOUT)] {
        // The process may have ended just now; the wait tells.
        let _ = process.signal(signal as i32);
        if has_ended(process, timeout) {
            return Ok(());
        }
    }
    Err(Error::failed("slirp did not terminate (timeout)"))
}

fn has_ended(process: &ProcessFd, within: Duration) -> bool {
    process.wait(within).unwrap_or(false)
}

/// The number of the keeper of this attachment, if it runs.
pub(crate) fn is_served(files: &Files) -> Option<i32> {
    if let Ok(contact) = Contact::open(&files.socket())
        && contact.info().is_ok()
    {
        let known = files.record().map(|record| record.keeper.pid);
        return Some(known.unwrap_or_default());
    }
    let record = files.record()?;
    let alive = |identity: &ProcessIdentity| identity.is_alive().then_some(identity.pid);
    alive(&record.keeper)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::attachment::store::tests::Scratch;

    #[test]
    fn unrecorded_engine_is_ended_but_not_the_process_that_stays_outside_of_its_sandbox() {
        let scratch = Scratch::new("stop");
        // The shell's script; it takes the process name that it reads from standard input.
        let script = "read name; printf %s $name > /proc/$$/comm; echo named; read end";
        fs::write(scratch.0.join(ENGINE_ARGUMENT), script).unwrap();
        let scope = scratch.0.display().to_string();
        let start = |name: &str| {
            let mut child = Command::new("sh")
                .args([ENGINE_ARGUMENT, "stem", &scope])
                .current_dir(&scratch.0)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            std::io::Write::write_all(&mut stdin, format!("{name}\n").as_bytes()).unwrap();
            let mut named = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut named).unwrap();
            assert_eq!(named, "named\n");
            (child, stdin)
        };
        let (mut outside, _stays) = start("slirp-outside");
        let (mut engine, _runs) = start("slirp-engine");
        stop_unrecorded("another", &scope).unwrap();
        assert!(engine.try_wait().unwrap().is_none());
        stop_unrecorded("stem", &scope).unwrap();
        assert!(!engine.wait().unwrap().success(), "a signal ended it");
        assert!(outside.try_wait().unwrap().is_none());
        outside.kill().unwrap();
        outside.wait().unwrap();
    }
}
