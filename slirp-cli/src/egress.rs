//! Where the guest may go, from all doors of a command line.
//!
//! Owns the sum of options, files and the environment. What a rule means is in
//! [`slirp_core::egress`].

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use slirp_core::egress::{Action, EgressPolicy, RuleErrors};
use slirp_core::internals::policy_file::{self, PolicyFileError};
use slirp_core::policy::Policy;

pub(crate) use slirp_core::internals::policy_file::VARIABLE;

/// What the doors said.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct EgressOptions {
    /// One for each rule and setting of the command line.
    pub(crate) rules: Vec<EgressPolicy>,
    /// Files of the command line.
    pub(crate) files: Vec<PathBuf>,
    /// The value of [`VARIABLE`].
    pub(crate) variable: Option<OsString>,
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EgressFailure {
    #[error(transparent)]
    File(#[from] PolicyFileError),
    #[error(transparent)]
    Rules(#[from] RuleErrors),
}

impl EgressFailure {
    /// A hint about what to do, if that is not obvious.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File(error) => error.hint(),
            Self::Rules(_) => None,
        }
    }
}

impl EgressOptions {
    /// The policy of all doors, beside the switches in `beside`; `None` if no door gave one.
    pub(crate) fn load(&self, beside: &Policy) -> Result<Option<EgressPolicy>, EgressFailure> {
        let variable = policy_file::named_by(self.variable.clone())?;
        let mut policies = self.rules.clone();
        for path in self.files.iter().chain(&variable) {
            policies.push(parse(path)?);
        }
        if policies.is_empty() {
            return Ok(None);
        }
        let policy = EgressPolicy::merge_all(&policies)?;
        policy.check(beside)?;
        Ok(Some(policy))
    }
}

/// Whether there is anything that somebody has to be asked about.
pub(crate) fn asks(policy: &EgressPolicy) -> bool {
    policy.default_action() == Action::Ask
        || policy.rules().iter().any(|rule| rule.action == Action::Ask)
}

/// The policy of one file.
pub(crate) fn parse(path: &Path) -> Result<EgressPolicy, EgressFailure> {
    parsed(&policy_file::read(path)?, path)
}

/// The policy in `file`, which messages call `path`.
pub(crate) fn parse_from(file: impl Read, path: &Path) -> Result<EgressPolicy, EgressFailure> {
    parsed(&policy_file::read_from(file, path)?, path)
}

fn parsed(text: &str, path: &Path) -> Result<EgressPolicy, EgressFailure> {
    Ok(EgressPolicy::parse(text, &path.to_string_lossy())?)
}
