//! The sandbox and the filter of system calls that every network enters. SECURITY.md.

use super::super::facts::Attempt;
use super::super::finding::Finding;

/// Whether the engine can leave the host's files behind.
pub(super) fn sandbox(attempt: &Attempt) -> Finding {
    const CHECK: &str = "sandbox";
    match attempt {
        Attempt::Worked => {
            Finding::ok(CHECK, "the engine can shut itself off from files and rights")
        }
        // The hint is about options of slirp4netns.
        Attempt::Failed(problem, _) => Finding::failure(
            CHECK,
            problem.as_str(),
            "start an outer container with --cap-add=SYS_ADMIN, or give slirp run --no-sandbox for \
             commands that you trust",
        ),
        Attempt::Skipped => Finding::warning(
            CHECK,
            "not tried, as user-namespaces is not ok",
            "mend user-namespaces first",
        ),
    }
}

/// Whether the engine can give up the system calls that it does not need.
pub(super) fn filter(attempt: &Attempt) -> Finding {
    const CHECK: &str = "filter";
    match attempt {
        Attempt::Worked => Finding::ok(CHECK, "the engine can filter its system calls"),
        Attempt::Failed(problem, _) => Finding::failure(
            CHECK,
            problem.as_str(),
            "boot a kernel with CONFIG_SECCOMP_FILTER=y, or give slirp run --no-seccomp for \
             commands that you trust",
        ),
        Attempt::Skipped => {
            Finding::warning(CHECK, "not tried, as proc is not ok", "mend proc first")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::super::tests::told;
    use super::*;

    #[test]
    fn remedies_are_of_slirp_run() {
        let failed = Attempt::Failed("sandbox: unshare: no".into(), Some("--userns-path".into()));
        let finding = sandbox(&failed);
        let (state, what, remedy) = told(&finding);
        assert_eq!((state, what), (State::Failure, "sandbox: unshare: no"));
        assert!(remedy.contains("slirp run --no-sandbox"), "{remedy}");
        let finding = filter(&Attempt::Failed("seccomp: no".into(), None));
        let (state, _, remedy) = told(&finding);
        assert_eq!(state, State::Failure);
        assert!(remedy.contains("slirp run --no-seccomp"), "{remedy}");
        assert_eq!(sandbox(&Attempt::Skipped).state, State::Warning);
        assert_eq!(filter(&Attempt::Skipped).state, State::Warning);
    }
}
