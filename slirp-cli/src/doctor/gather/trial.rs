//! Everything that is tried in processes of its own, in the order in which one needs the other.

use std::time::Duration;

use nix::errno::Errno;
use serde_json::Value;
use slirp_core::config::Offload;
use slirp_core::netns::{AttachError, NamespaceTarget, TapRequest, open_tap};

use super::super::facts::{Attempt, NoNamespaces, Step};
use super::attempt::{Helper, Trial};

/// How long one of them may take (arbitrary; it takes some milliseconds, and more where a machine
/// is busy).
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of each.
pub(super) struct Outcomes {
    pub(super) namespaces: Result<(), NoNamespaces>,
    pub(super) attach: Result<Offload, Attempt>,
    pub(super) sandbox: Attempt,
    pub(super) filter: Attempt,
}

/// Tries everything, if there is `/proc`: this program is started by its name there.
pub(super) fn run(has_proc: bool) -> Outcomes {
    if !has_proc {
        return Outcomes {
            namespaces: Err(NoNamespaces::Skipped),
            attach: Err(Attempt::Skipped),
            sandbox: Attempt::Skipped,
            filter: Attempt::Skipped,
        };
    }
    let (namespaces, attach) = match Helper::start(Trial::Namespaces) {
        Ok(mut helper) => {
            let namespaces = helper.told(PATIENCE).map_err(NoNamespaces::Silent).and_then(step);
            let attach = match namespaces {
                Ok(()) => attach(helper.pid()),
                Err(_) => Err(Attempt::Skipped),
            };
            (namespaces, attach)
        }
        Err(error) => (Err(NoNamespaces::Silent(error.to_string())), Err(Attempt::Skipped)),
    };
    // The sandbox takes namespaces as well.
    let sandbox = if namespaces.is_ok() { confined(Trial::Sandbox) } else { Attempt::Skipped };
    Outcomes { namespaces, attach, sandbox, filter: confined(Trial::Filter) }
}

/// The step that has failed.
fn step(told: Value) -> Result<(), NoNamespaces> {
    let Some(text) = told.get("step").and_then(Value::as_str) else { return Ok(()) };
    let number = told.get("errno").and_then(Value::as_i64);
    let errno = number.and_then(|number| i32::try_from(number).ok()).map(Errno::from_raw);
    let step = Step::ALL.into_iter().find(|step| step.text() == text);
    Err(match (step, errno) {
        (Some(step), Some(errno)) => NoNamespaces::Step(step, errno),
        _ => NoNamespaces::Silent(text.to_owned()),
    })
}

/// Puts a TAP device into the namespaces of `pid`, and lets it go again.
fn attach(pid: i32) -> Result<Offload, Attempt> {
    let request = TapRequest { name: String::new(), configure: None };
    let opened = NamespaceTarget::of_pid(pid).and_then(|target| open_tap(&target, &request));
    opened.map(|tap| tap.offload()).map_err(|error: AttachError| {
        Attempt::Failed(error.to_string(), error.hint().map(str::to_owned))
    })
}

fn confined(trial: Trial) -> Attempt {
    let told = Helper::start(trial)
        .map_err(|error| error.to_string())
        .and_then(|mut helper| helper.told(PATIENCE));
    let told = match told {
        Ok(told) => told,
        Err(problem) => return Attempt::Failed(problem, None),
    };
    let text = |key: &str| told.get(key).and_then(Value::as_str).map(str::to_owned);
    match text("error") {
        None => Attempt::Worked,
        Some(error) => Attempt::Failed(error, text("hint")),
    }
}
