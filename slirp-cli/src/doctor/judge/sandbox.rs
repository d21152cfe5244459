//! The sandbox and the filter of system calls that every network enters. SECURITY.md.

use super::super::facts::Attempt;
use super::super::finding::Finding;

/// Whether the engine can leave the host's files behind.
pub(super) fn sandbox(attempt: &Attempt) -> Finding {
    let good = "the engine can shut itself off from files and rights";
    judged("sandbox", attempt, good, "slirp run --no-sandbox, where the guest can be trusted")
}

/// Whether the engine can give up the system calls that it does not need.
pub(super) fn filter(attempt: &Attempt) -> Finding {
    let good = "the engine can filter its system calls";
    judged("filter", attempt, good, "slirp run --no-seccomp, where the guest can be trusted")
}

fn judged(check: &'static str, attempt: &Attempt, good: &str, remedy: &str) -> Finding {
    match attempt {
        Attempt::Worked => Finding::ok(check, good),
        Attempt::Failed(problem, hint) => {
            Finding::failure(check, problem.as_str(), hint.as_deref().unwrap_or(remedy))
        }
        Attempt::Skipped => Finding::warning(
            check,
            "not tried, as it takes a user namespace",
            "mend user-namespaces first",
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
