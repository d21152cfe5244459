//! Which binary the tests drive, and how it gets built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary under test: `SLIRP_TEST_BINARY`, otherwise `slirp4netns` as built from this workspace
/// with the profile of the running test. Built once per test process, so that it is never stale.
///
/// # Panics
/// When the variable names no file or the build fails.
pub fn binary_under_test() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        given("SLIRP_TEST_BINARY").unwrap_or_else(|| build("slirp-cli", "slirp4netns"))
    })
}

/// The program `pasta`: `SLIRP_TEST_PASTA`, otherwise built like [`binary_under_test`].
///
/// # Panics
/// When the variable names no file or the build fails.
pub fn pasta_under_test() -> &'static Path {
    static PASTA: OnceLock<PathBuf> = OnceLock::new();
    PASTA.get_or_init(|| given("SLIRP_TEST_PASTA").unwrap_or_else(|| build("slirp-cli", "pasta")))
}

/// The program `pesto`: `SLIRP_TEST_PESTO`, otherwise built like [`binary_under_test`].
///
/// # Panics
/// When the variable names no file or the build fails.
pub fn pesto_under_test() -> &'static Path {
    static PESTO: OnceLock<PathBuf> = OnceLock::new();
    PESTO.get_or_init(|| given("SLIRP_TEST_PESTO").unwrap_or_else(|| build("slirp-cli", "pesto")))
}

/// The CNI plugin `slirp`: `SLIRP_TEST_PLUGIN`, otherwise built like [`binary_under_test`].
///
/// # Panics
/// When the variable names no file or the build fails.
pub fn plugin_under_test() -> &'static Path {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    PLUGIN.get_or_init(|| given("SLIRP_TEST_PLUGIN").unwrap_or_else(|| build("slirp-cni", "slirp")))
}

/// The program that a variable of the environment names.
fn given(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(variable)?);
    assert!(path.is_file(), "{variable}={} is no file", path.display());
    Some(path)
}

fn build(package: &str, name: &str) -> PathBuf {
    // <target>/<profile folder>/deps/<test binary>
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test.ancestors().nth(2).expect("test binaries live in <target>/<profile>/deps");
    let profile = folder.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    // Cargo's dev and test profiles share the folder `debug`.
    let profile = if profile == "debug" { "dev" } else { profile };
    let target = folder.parent().expect("the profile folder has a parent");

    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--quiet", "--package", package, "--bin", name])
        .args(["--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "building {name} failed");
    folder.join(name)
}
