//! The sandbox and the filter of system calls that every network enters. SECURITY.md.

use super::super::facts::Attempt;
use super::super::finding::Finding;

/// Whether the engine can leave the host's files behind.
pub(super) fn sandbox(attempt: &Attempt) -> Finding {
    let good = "the engine can shut itself off from files and rights";
    let remedy = "slirp run --no-sandbox, where the guest can be trusted";
    judged("sandbox", attempt, [good, remedy, "user-namespaces"])
}

/// Whether the engine can give up the system calls that it does not need.
pub(super) fn filter(attempt: &Attempt) -> Finding {
    let good = "the engine can filter its system calls";
    let remedy = "slirp run --no-seccomp, where the guest can be trusted";
    judged("filter", attempt, [good, remedy, "proc"])
}

/// `ground` is the check without which this one is not tried.
fn judged(check: &'static str, attempt: &Attempt, [good, remedy, ground]: [&str; 3]) -> Finding {
    match attempt {
        Attempt::Worked => Finding::ok(check, good),
        Attempt::Failed(problem, hint) => {
            Finding::failure(check, problem.as_str(), hint.as_deref().unwrap_or(remedy))
        }
        Attempt::Skipped => Finding::warning(
            check,
            format!("not tried, as {ground} is not ok"),
            format!("mend {ground} first"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::super::tests::told;
    use super::*;

    #[test]
    fn hint_of_the_library_is_the_remedy_where_there_is_one() {
        let failed = Attempt::Failed("sandbox: unshare: no".into(), Some("allow it".into()));
        let finding = sandbox(&failed);
        assert_eq!(told(&finding), (State::Failure, "sandbox: unshare: no", "allow it"));
        let finding = filter(&Attempt::Failed("seccomp: no".into(), None));
        let (state, _, remedy) = told(&finding);
        assert_eq!(state, State::Failure);
        assert!(remedy.contains("--no-seccomp"), "{remedy}");
        assert_eq!(sandbox(&Attempt::Skipped).state, State::Warning);
    }
}
