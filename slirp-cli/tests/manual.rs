//! The manual pages, as the programs that show them see them. What they say is held against the
//! options beside their table, and against measurements by the namespace tests.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test, and says so")]

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn pages() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let mut pages: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    assert_eq!(pages.len(), 6);
    pages
}

/// Runs a program from Debian's packages; `None` where it is not installed, which is said aloud and
/// fails where `SLIRP_REQUIRE_NETNS=1`.
fn run(program: &str, arguments: &[&str], page: &Path) -> Option<Output> {
    if !Path::new("/usr/bin").join(program).exists() {
        let required = std::env::var_os("SLIRP_REQUIRE_NETNS").is_some_and(|value| value == "1");
        assert!(!required, "SLIRP_REQUIRE_NETNS=1 and {program} is not installed");
        // A line that cannot be written is a closed stderr: nobody is there to read it.
        let _ = writeln!(io::stderr(), "SKIPPED: {program} is not installed");
        return None;
    }
    let mut command = Command::new(program);
    command.args(arguments).arg(page).stdin(Stdio::null());
    Some(command.env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8").output().unwrap())
}

#[test]
fn pages_are_without_fault_for_mandoc() {
    for page in pages() {
        let Some(output) = run("mandoc", &["-Tlint", "-Wwarning"], &page) else { return };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", said);
    }
}

#[test]
fn pages_are_shown_without_a_warning() {
    for page in pages() {
        let Some(output) = run("man", &["--warnings", "-l"], &page) else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
        let text = String::from_utf8_lossy(&output.stdout);
        let is_of_slirp4netns =
            page.ends_with("slirp4netns.1") || page.ends_with("slirp4netns-extensions.7");
        let own = if is_of_slirp4netns { &["API SOCKET"][..] } else { &[] };
        for section in ["NAME", "DESCRIPTION", "SEE ALSO"].iter().chain(own) {
            assert!(text.lines().any(|line| line == *section), "{section} in {}", page.display());
        }
    }
}
