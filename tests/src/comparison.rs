//! One script, two programs: Debian's slirp4netns and the binary under test, each in a world of its
//! own.
//!
//! A script notes what programs in the guest and around it see, as pairs of a name and a text. Both
//! sides must note the same, except for the differences that the caller declares. A declared
//! difference that is not seen fails as well, so that the list never claims too much.
//!
//! Texts hold nothing that depends on chance (ports that the kernel chose, process ids, durations):
//! the script leaves that out, on both sides alike.

use std::fmt::Display;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::namespace::Account;
use crate::requirement::{Missing, skip};
use crate::slirp::SlirpBuilder;
use crate::world::World;

/// Where Debian installs it.
const UPSTREAM: &str = "/usr/bin/slirp4netns";

/// The release that the declared differences are about.
const UPSTREAM_VERSION: [&str; 2] = ["slirp4netns version 1.2.0", "libslirp: 4.7.0"];

/// Runs the binary under the name by which error messages call it.
const OURS_NAMED: &str = "exec -a slirp4netns \"$0\" \"$@\"";
/// Runs Debian's program in place of the binary under test, which the harness names as `$0`.
const UPSTREAM_NAMED: &str = "exec -a slirp4netns /usr/bin/slirp4netns \"$@\"";

/// One of the two, in its world.
#[derive(Debug)]
pub struct Side {
    /// Its world. Both worlds are alike.
    pub world: World,
    is_ours: bool,
}

impl Side {
    /// The program of this side, aimed at the guest with `--configure`. `SLIRP_TEST_OPTIONS` has no
    /// say here: what is compared are the options that the script gives.
    pub fn slirp(&self) -> SlirpBuilder<'_> {
        let text = if self.is_ours { OURS_NAMED } else { UPSTREAM_NAMED };
        self.world.slirp().without_extra_options().behind(&["bash", "-c", text])
    }

    /// Whether this is the binary under test. For preparations only, never for what is compared.
    pub fn is_ours(&self) -> bool {
        self.is_ours
    }
}

/// What a script has seen, in order.
#[derive(Debug, Default)]
pub struct Seen(Vec<(String, String)>);

impl Seen {
    /// Notes that `what` looked like `value`.
    pub fn note(&mut self, what: impl Into<String>, value: impl Display) {
        self.0.push((what.into(), value.to_string()));
    }
}

/// A difference that is meant.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// `theme: what`, as the script names it.
    pub at: &'static str,
    /// What is seen with Debian's program.
    pub theirs: &'static str,
    /// What is seen with the binary under test.
    pub ours: &'static str,
}

/// Runs `script` on both sides at once and compares what it notes.
///
/// # Panics
/// When something differs that is not in `declared`, or the reverse; with everything that is wrong.
pub fn side_by_side(
    theme: &str,
    account: Account,
    declared: &[Difference],
    script: impl Fn(&Side, &mut Seen) + Sync,
) {
    if let Err(missing) = look_for_upstream() {
        return skip(&missing);
    }
    let (ours, theirs) = match (World::of(account), World::of(account)) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(missing), _) | (_, Err(missing)) => return skip(&missing),
    };
    let run = |world, is_ours| {
        let mut seen = Seen::default();
        script(&Side { world, is_ours }, &mut seen);
        seen.0
    };
    let (ours, theirs) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| run(theirs, false));
        let ours = run(ours, true);
        match theirs.join() {
            Ok(theirs) => (ours, theirs),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    let report = compare(theme, declared, &ours, &theirs);
    assert!(report.is_empty(), "slirp4netns and the binary under test:\n{report}");
}

/// Everything that is wrong, nothing if all is as declared.
fn compare(
    theme: &str,
    declared: &[Difference],
    ours: &[(String, String)],
    theirs: &[(String, String)],
) -> String {
    let mut report = String::new();
    let mut complain = |what: &str, theirs: &str, ours: &str, why: &str| {
        // Writing to a string cannot fail.
        let _ =
            writeln!(report, "{theme}: {what}: {why}\n  theirs: {theirs:?}\n  ours:   {ours:?}");
    };
    for (index, (what, theirs)) in theirs.iter().enumerate() {
        let ours = match ours.get(index) {
            Some((name, value)) if name == what => value,
            Some(_) | None => {
                complain(what, theirs, "", "the script took another way with ours");
                break;
            }
        };
        let at = format!("{theme}: {what}");
        match declared.iter().find(|difference| difference.at == at) {
            None if ours == theirs => {}
            None => complain(what, theirs, ours, "not declared"),
            Some(declared) if declared.theirs == theirs && declared.ours == ours => {}
            Some(_) => complain(what, theirs, ours, "not as declared"),
        }
    }
    if let Some((what, ours)) = ours.get(theirs.len()) {
        complain(what, "", ours, "the script took another way with ours");
    }
    for difference in declared {
        let Some(what) = difference.at.strip_prefix(theme).and_then(|at| at.strip_prefix(": "))
        else {
            continue;
        };
        if !theirs.iter().any(|(name, _)| name == what) {
            complain(what, difference.theirs, difference.ours, "declared, but never looked at");
        }
    }
    report
}

/// Debian's program, in the release that the declared differences are about.
fn look_for_upstream() -> Result<(), Missing> {
    if !Path::new(UPSTREAM).exists() {
        return Err(Missing(format!("{UPSTREAM} is not installed")));
    }
    let output = Command::new(UPSTREAM).arg("--version").output();
    let text = output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    );
    for line in UPSTREAM_VERSION {
        if !text.lines().any(|said| said == line) {
            return Err(Missing(format!("{UPSTREAM} is not {line:?} but {text:?}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(what, value)| (what.to_owned(), value.to_owned())).collect()
    }

    const DECLARED: &[Difference] = &[Difference { at: "tcp: end", theirs: "FIN", ours: "RST" }];

    #[test]
    fn equal_and_declared_texts_pass() {
        let theirs = seen(&[("errno", "1"), ("end", "FIN")]);
        let ours = seen(&[("errno", "1"), ("end", "RST")]);
        assert_eq!(compare("tcp", DECLARED, &ours, &theirs), "");
    }

    #[test]
    fn everything_else_is_reported() {
        for (ours, theirs, why) in [
            (&[("end", "RST"), ("x", "1")][..], &[("end", "FIN"), ("x", "2")][..], "not declared"),
            (&[("end", "FIN")], &[("end", "FIN")], "not as declared"),
            (&[("x", "1")], &[("x", "1")], "never looked at"),
            (&[], &[("end", "FIN")], "another way"),
        ] {
            let report = compare("tcp", DECLARED, &seen(ours), &seen(theirs));
            assert!(report.contains(why), "{why}: {report}");
        }
    }
}
