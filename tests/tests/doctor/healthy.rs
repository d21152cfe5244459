//! On a machine that is in order.

use nix::sys::signal::Signal;
use slirp_tests::*;

use crate::scene::{DRIVEN, Scene};

fn assert_all_is_ok(account: Account) -> Result<(), Missing> {
    let scene = Scene::of(account)?;
    let report = scene.report();
    report.assert_driven();
    assert_eq!(report.object["worst"], "ok", "{:#}", report.object);
    assert_eq!(report.object["slirp"], env!("CARGO_PKG_VERSION"));
    // The engine and the guest end with the doctor.
    wait_until(PATIENCE, "every process has ended", || scene.processes() == 0);
    Ok(())
}

#[test]
fn all_is_ok_for_root() {
    needs!(assert_all_is_ok(Account::Root));
}

#[test]
fn all_is_ok_for_an_ordinary_user() {
    needs!(assert_all_is_ok(Account::Ordinary));
}

#[test]
fn table_has_a_line_for_each_check_and_no_colours_in_a_pipe() {
    let scene = needs!(Scene::of(Account::Ordinary));
    let output = scene.doctor_by(&[], &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stderr, "");
    for check in DRIVEN {
        let is_of = |line: &str| line.split_whitespace().take(2).eq(["ok", check]);
        assert_eq!(output.stdout.lines().filter(|line| is_of(line)).count(), 1, "{check}");
    }
    let rates = output.stdout.lines().filter(|line| line.contains("bit/s"));
    assert_eq!(rates.count(), 4, "{}", output.stdout);
    assert!(!output.stdout.contains('\u{1b}'), "{}", output.stdout);
    assert!(output.stdout.ends_with(" ok, 0 warnings, 0 failures\n"), "{}", output.stdout);
}

#[test]
fn colours_are_for_terminals_without_no_color() {
    let scene = needs!(Scene::of(Account::Ordinary));
    let slirp = scene.slirp.to_str().unwrap();
    for (variable, is_colorful) in [("NO_COLOR=", true), ("NO_COLOR=1", false)] {
        let line = format!("{slirp} doctor --no-drive");
        let script = ["env", variable, "script", "-qec", &line, "/dev/null"];
        let output = scene.world.host.exec(&script);
        assert_eq!(output.stdout.contains("\u{1b}[32mok"), is_colorful, "{}", output.stdout);
    }
}

#[test]
fn nothing_is_made_without_the_drive() {
    let scene = needs!(Scene::of(Account::Root));
    let output = scene.doctor_by(&[], &["--no-drive"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let checks = output.stdout.lines().filter_map(|line| line.split_whitespace().nth(1));
    assert!(checks.clone().any(|check| check == "sandbox"));
    assert!(checks.clone().all(|check| !DRIVEN.contains(&check)), "{}", output.stdout);
}

#[test]
fn bad_command_line_is_told_from_a_failure() {
    let scene = needs!(Scene::of(Account::Ordinary));
    let output = scene.doctor_by(&[], &["--jsno"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        output.stderr,
        "slirp doctor: --jsno is no option of slirp doctor; did you mean --json?\n\
         Try 'slirp doctor --help'.\n"
    );
    assert_eq!(output.stdout, "");
}

#[test]
fn doctor_that_is_killed_leaves_nothing() {
    let scene = needs!(Scene::of(Account::Ordinary));
    let slirp = scene.slirp.to_str().unwrap();
    let prefix = scene.world.account().prefix();
    let doctor = scene.world.host.spawn(&[prefix, &[slirp, "doctor"]].concat());
    // The doctor, `slirp run` and what that starts.
    wait_until(PATIENCE, "the network is made", || scene.processes() > 2);
    let process = nix::unistd::Pid::from_raw(doctor.pid().try_into().unwrap());
    nix::sys::signal::kill(process, Signal::SIGKILL).unwrap();
    wait_until(PATIENCE, "every process has ended", || scene.processes() == 0);
}

#[test]
fn policy_of_the_environment_is_not_for_the_drive() {
    let scene = needs!(Scene::of(Account::Ordinary));
    let policy = scene.world.folder().join("policy");
    std::fs::write(&policy, "allow .elsewhere.example\n").unwrap();
    let variable = format!("SLIRP_POLICY={}", policy.display());
    scene.report_by(&["env", &variable, "SLIRP_LOG=trace"]).assert_driven();
}
