//! CNI plugin of type `slirp`.
//!
//! Gives containers a network without privileges. One program has all roles: the plugin that
//! runtimes call ([`verbs`]), the hook that OCI runtimes call ([`hook`]), the long-lived processes
//! behind an attachment ([`keeper`]), which are this program again, the programs `slirp4netns` and
//! `pasta`, and tools for people ([`list`], and those of [`slirp_cli`]).
//!
//! ```text
//!  verbs hook list  the callers: a CNI runtime, an OCI runtime, a person
//!  config protocol the configuration, and the language of CNI
//!  keeper          the long-lived processes
//!  attachment      attach(request), detach(key), and the records of attachments
//! ```

mod attachment;
mod config;
mod hook;
mod keeper;
mod list;
mod protocol;
mod verbs;

use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write as _};
use std::panic;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;
use slirp_cli::words;
use slirp_core::internals::process::{LargeAlloc, close_descriptors_on_exec};

use attachment::network::NETWORK_ARGUMENT;
use attachment::stop::{ENGINE_ARGUMENT, KEEPER_ARGUMENT};
use protocol::error::CniError;
use protocol::version::Version;
use verbs::Answer;

#[global_allocator]
static ALLOC: LargeAlloc = LargeAlloc;

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let name = arguments.next();
    let name = name.as_deref().map(Path::new).and_then(Path::file_name);
    if name == Some(OsStr::new("slirp4netns")) {
        return slirp_cli::slirp4netns(env::args_os());
    }
    if name.is_some_and(slirp_cli::is_pasta) {
        return slirp_cli::pasta(env::args_os());
    }
    if name == Some(OsStr::new("pesto")) {
        return slirp_cli::pesto(env::args_os());
    }
    if hook::is_name(name) {
        return hook::run(arguments, None);
    }
    match arguments.next().as_deref().and_then(OsStr::to_str) {
        Some(KEEPER_ARGUMENT) => keeper::run(arguments),
        Some(ENGINE_ARGUMENT) => keeper::engine::run(),
        Some(NETWORK_ARGUMENT) => keeper::network::run(),
        Some("oci-hook") => hook::run(arguments, None),
        Some("help" | "--help" | "-h") => words::help(arguments),
        Some("--version" | "-V") => status(io::stdout().write_all(version().as_bytes()).is_ok()),
        Some("slirp4netns") => slirp_cli::slirp4netns(env::args_os().skip(1)),
        Some("pasta" | "passt") => slirp_cli::pasta(env::args_os().skip(1)),
        Some("pesto") => slirp_cli::pesto(env::args_os().skip(1)),
        Some("ls") => list::ls(arguments),
        Some("rm") => list::rm(arguments),
        Some("run") => slirp_cli::run_command(arguments),
        Some(slirp_cli::INSIDE_WORD) => slirp_cli::run_inside(arguments),
        Some(slirp_cli::NETWORK_WORD) => slirp_cli::run_network(arguments),
        Some("doctor") => slirp_cli::doctor(arguments),
        Some("policy") => slirp_cli::policy(arguments),
        #[cfg(feature = "tui")]
        Some("approve") => slirp_cli::approve(arguments),
        #[cfg(feature = "tui")]
        Some("top") => slirp_cli::top(arguments),
        Some("events") => slirp_cli::events(arguments),
        Some("learn") => slirp_cli::learn(arguments),
        Some(word) if !is_called_by_runtime() => words::refuse(word),
        None if !is_called_by_runtime() && env::args_os().len() > 1 => words::refuse("\u{fffd}"),
        None if !is_called_by_runtime() && io::stdin().is_terminal() => {
            words::help(core::iter::empty())
        }
        None if !is_called_by_runtime() => match hook::state_without_word() {
            Some(state) => hook::run(core::iter::empty(), Some(state)),
            None => plugin(|| verbs::answer(None)),
        },
        Some(_) | None => plugin(|| verbs::answer(env::var_os("CNI_COMMAND").as_deref())),
    }
}

/// The version, and those of the interfaces that callers know from elsewhere.
fn version() -> String {
    format!(
        "slirp {}\nslirp4netns: {}\nCNI: {}\n",
        env!("CARGO_PKG_VERSION"),
        slirp_cli::SLIRP4NETNS_INTERFACE,
        Version::texts().join(" "),
    )
}

fn is_called_by_runtime() -> bool {
    env::var_os("CNI_COMMAND").is_some_and(|command| !command.is_empty())
}

/// Answers one call. Even after a panic the runtime gets an object that reports it.
fn plugin(answer: impl FnOnce() -> Answer + panic::UnwindSafe) -> ExitCode {
    // Kernels before 5.11 lack this; our children then keep inherited descriptors open.
    let _ = close_descriptors_on_exec();
    match guarded(answer) {
        Answer::Nothing => ExitCode::SUCCESS,
        Answer::Object(object) => status(print(&object).is_ok()),
        Answer::Attached(object, pending) => match print(&object) {
            Ok(()) => match pending.commit() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    complain(&format!("{error}\n"));
                    ExitCode::FAILURE
                }
            },
            Err(error) => {
                pending.abort();
                complain(&format!("error printing slirp result: {error}\n"));
                ExitCode::FAILURE
            }
        },
        Answer::About(text) => {
            complain(&text);
            ExitCode::SUCCESS
        }
        Answer::Failure(version, error) => {
            // The exit status tells it, too.
            let _ = print(&error.object(version));
            ExitCode::FAILURE
        }
    }
}

/// The answer, or the error that a defect of ours prevented one.
fn guarded(answer: impl FnOnce() -> Answer + panic::UnwindSafe) -> Answer {
    panic::catch_unwind(answer).unwrap_or_else(|_| {
        let error = CniError::internal("the plugin panicked; please report this");
        Answer::Failure(Version::NEWEST, error)
    })
}

fn status(is_success: bool) -> ExitCode {
    if is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(object: &Value) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(format!("{object}\n").as_bytes())?;
    stdout.flush()
}

/// Writes a message for a person.
fn complain(text: &str) {
    // If it is not read, that cannot be reported either.
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_is_answered_with_an_error_object() {
        let answer = guarded(|| panic!("a defect"));
        let Answer::Failure(version, error) = answer else { panic!("{answer:?}") };
        let object = error.object(version);
        assert_eq!(object["code"], 999);
        assert_eq!(object["msg"], "the plugin panicked; please report this");
    }
}
