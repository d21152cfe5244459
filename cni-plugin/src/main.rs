//! CNI plugin of type `slirp`.
//!
//! Answers `VERSION` and refuses every other command of the CNI specification 1.1.0 with the error
//! object that runtimes know how to show: this release cannot attach a container yet, and says so.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::{Value, json};

/// The newest version of the specification that we speak.
const NEWEST: &str = "1.1.0";

/// The versions whose `VERSION` command and error objects are those that we print.
const SUPPORTED: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", NEWEST];

/// Error codes: 1-99 of the specification's table, from 100 on the plugin's own.
mod code {
    /// Necessary environment variables are invalid.
    pub(crate) const INVALID_ENVIRONMENT: u16 = 4;
    /// The answer to `STATUS` of a plugin that cannot serve `ADD`.
    pub(crate) const NOT_AVAILABLE: u16 = 50;
    /// Known command, not implemented.
    pub(crate) const NOT_IMPLEMENTED: u16 = 100;
}

/// What one call is answered with.
#[derive(PartialEq, Debug)]
enum Answer {
    /// An object on stdout, status 0.
    Success(Value),
    /// An error object on stdout, status 1.
    Failure { code: u16, message: String },
    /// A text on stderr for a person who called the plugin by hand, status 0.
    About(String),
}

fn main() -> ExitCode {
    let (object, status) = match answer(env::var_os("CNI_COMMAND").as_deref()) {
        Answer::Success(object) => (object, ExitCode::SUCCESS),
        Answer::Failure { code, message } => {
            (json!({ "cniVersion": NEWEST, "code": code, "msg": message }), ExitCode::FAILURE)
        }
        Answer::About(text) => {
            // There is nobody to tell if nobody reads it.
            let _ = io::stderr().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
    };
    match io::stdout().write_all(format!("{object}\n").as_bytes()) {
        Ok(()) => status,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The answer to `command`. Standard input is not read: no answer depends on it.
fn answer(command: Option<&OsStr>) -> Answer {
    let Some(command) = command.filter(|command| !command.is_empty()) else {
        return Answer::About(format!(
            "CNI plugin slirp v{}\nCNI protocol versions supported: {}\n",
            env!("CARGO_PKG_VERSION"),
            SUPPORTED.join(", ")
        ));
    };
    match command.to_str() {
        Some("VERSION") => {
            Answer::Success(json!({ "cniVersion": NEWEST, "supportedVersions": SUPPORTED }))
        }
        Some("STATUS") => not_implemented("STATUS", code::NOT_AVAILABLE),
        Some(known @ ("ADD" | "DEL" | "CHECK" | "GC")) => {
            not_implemented(known, code::NOT_IMPLEMENTED)
        }
        Some(_) | None => Answer::Failure {
            code: code::INVALID_ENVIRONMENT,
            message: format!("unknown CNI_COMMAND: {}", command.display()),
        },
    }
}

fn not_implemented(command: &str, code: u16) -> Answer {
    let message = format!("{command}: only VERSION is implemented in this release");
    Answer::Failure { code, message }
}
