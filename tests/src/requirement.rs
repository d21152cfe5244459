//! What a machine must offer for the namespace tests, and the one way to skip them.

use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

/// Programs that the harness and the tests run; all are Debian packages listed in `.ci/run`.
const PROGRAMS: &[&str] = &[
    "busybox",
    "curl",
    "dig",
    "dnsmasq",
    "ip",
    "iperf3",
    "mount",
    "nft",
    "nsenter",
    "ping",
    "prlimit",
    "python3",
    "setpriv",
    "slirp4netns",
    "socat",
    "ss",
    "tcpdump",
    "traceroute",
    "unshare",
];

/// Why this machine cannot run a namespace test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub String);

/// Looks once per process for root, programs and the TUN driver.
pub(crate) fn check() -> Result<(), Missing> {
    static FOUND: OnceLock<Result<(), Missing>> = OnceLock::new();
    FOUND.get_or_init(look).clone()
}

fn look() -> Result<(), Missing> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Missing("the harness needs root to build its namespaces".to_owned()));
    }
    for program in PROGRAMS {
        is_installed(program)?;
    }
    if !Path::new("/sys/class/misc/tun").exists() {
        return Err(Missing("the kernel has no TUN driver (try modprobe tun)".to_owned()));
    }
    Ok(())
}

/// Looks for a program.
///
/// # Errors
/// [`Missing`], when no folder of `PATH` has it.
pub fn is_installed(program: &str) -> Result<(), Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(program).exists()) {
        Ok(())
    } else {
        Err(Missing(format!("{program} is not installed")))
    }
}

/// Looks for a file that no folder of `PATH` has.
///
/// # Errors
/// [`Missing`], when it is not there.
pub fn is_there(path: &str) -> Result<(), Missing> {
    if Path::new(path).exists() { Ok(()) } else { Err(Missing(format!("{path} does not exist"))) }
}

/// Says that a test is skipped, past the capture of the test runner.
///
/// # Panics
/// Where `SLIRP_REQUIRE_NETNS=1`: there a skipped test is a failed one.
pub fn skip(missing: &Missing) {
    let required = std::env::var_os("SLIRP_REQUIRE_NETNS").is_some_and(|value| value == "1");
    assert!(!required, "SLIRP_REQUIRE_NETNS=1 and {}", missing.0);
    say_skipped(missing);
}

/// Says that a test is skipped, whatever is required.
pub fn say_skipped(missing: &Missing) {
    // The line cannot be written where stderr is closed: there is no reader then.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {}", missing.0);
}

/// Hands out what a test needs, or skips the calling test.
///
/// Its argument is a `Result` whose error is [`Missing`]. A macro, because a function cannot end
/// its caller:
///
/// ```ignore
/// let world = needs!(World::root());
/// let podman = needs!(Podman::build());
/// ```
#[macro_export]
macro_rules! needs {
    ($what:expr) => {
        match $what {
            Ok(found) => found,
            Err(missing) => return $crate::skip(&missing),
        }
    };
}
