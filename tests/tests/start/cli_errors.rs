//! Refusals of the command line: texts and exit codes that scripts and clients match on.

use std::process::Command;

use slirp_tests::*;

/// Runs the binary with arguments that end it before it needs any privilege.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = output_within(PATIENCE, Command::new(binary_under_test()).args(arguments));
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn refused_arguments_print_one_message_and_the_usage() {
    let cases: &[(&[&str], &str)] = &[
        (&["--unknown", "1", "tap0"], "unrecognized option '--unknown'"),
        (&["-x", "1", "tap0"], "invalid option -- 'x'"),
        (&["1", "tap0", "--mtu"], "option '--mtu' requires an argument"),
        (&["1", "tap0", "-m"], "option requires an argument -- 'm'"),
        (&["--mtu=0", "1", "tap0"], "MTU must be a positive integer (< 65522)"),
        (&["--mtu=-1", "1", "tap0"], "MTU must be a positive integer (< 65522)"),
        (&["--mtu=65522", "1", "tap0"], "MTU must be a positive integer (< 65522)"),
        (&["-m99999999999999999999", "1", "tap0"], "MTU must be a positive integer (< 65522)"),
        (&["--exit-fd=-1", "1", "tap0"], "exit-fd must be a non-negative integer"),
        (&["--exit-fd=2x", "1", "tap0"], "exit-fd must be a non-negative integer"),
        (&["-r", "x", "1", "tap0"], "ready-fd must be a non-negative integer"),
        (&["0", "tap0"], "PID must be a positive integer"),
        (&["-c", "--", "-5", "tap0"], "PID must be a positive integer"),
        (&["12x", "tap0"], "PID must be a positive integer"),
    ];
    for (arguments, message) in cases {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
        assert!(stdout.contains("Usage: "), "{arguments:?}: {stdout}");
        assert!(!stderr.contains("Usage: "), "{arguments:?}: {stderr}");
    }
}

#[test]
fn missing_positionals_print_the_usage() {
    for arguments in [&[] as &[&str], &["-c"], &["1"]] {
        let (code, stdout, _) = run(arguments);
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(stdout.contains("Usage: "), "{arguments:?}: {stdout}");
    }
}

#[test]
fn help_lists_the_options_of_the_main_job() {
    for option in ["-h", "--help", "--hel"] {
        let (code, stdout, stderr) = run(&[option]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(stdout.starts_with("Usage: "), "{stdout}");
        for column in [
            "-c, --configure",
            "-e, --exit-fd=FD",
            "-r, --ready-fd=FD",
            "-m, --mtu=MTU",
            "-6, --enable-ipv6",
            "--disable-host-loopback",
            "-h, --help",
            "-v, --version",
        ] {
            assert!(stdout.lines().any(|line| line.starts_with(column)), "{column} in {stdout}");
        }
    }
}

#[test]
fn version_has_the_lines_that_clients_parse() {
    for option in ["-v", "--version", "--vers"] {
        let (code, stdout, stderr) = run(&[option]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        let lines: Vec<&str> = stdout.lines().collect();
        assert!(lines[0].starts_with("slirp4netns version 1."), "{stdout}");
        for prefix in ["commit: ", "libslirp: 4.", "SLIRP_CONFIG_VERSION_MAX: ", "libseccomp: "] {
            assert!(lines.iter().any(|line| line.starts_with(prefix)), "{prefix} in {stdout}");
        }
        let naming = lines.iter().filter(|line| line.contains("version")).count();
        assert_eq!(naming, 1, "moby takes the last line that says version: {stdout}");
    }
}

#[test]
fn reader_that_leaves_early_causes_no_complaint() {
    let script = "\"$1\" --help 2>\"$2\" | head -c1 >/dev/null; cat \"$2\"";
    let file = std::env::temp_dir().join(format!("slirp-test-epipe-{}", std::process::id()));
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(binary_under_test()).arg(&file);
    let output = output_within(PATIENCE, &mut command);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[test]
fn options_may_follow_positionals_and_be_abbreviated() {
    let world = needs!(World::root());
    let pid = world.guest.pid().to_string();
    let slirp = world
        .slirp()
        .bare()
        .options(&["-c6"])
        .positionals(&[&pid, "--mt=1400", "tap7", "-e4"])
        .start();
    assert!(world.guest.script("ip link show tap7").contains("mtu 1400"));
    drop(slirp);
}

#[test]
fn unknown_pid_is_named() {
    let world = needs!(World::root());
    let exit = world.slirp().positionals(&["99999999", "tap0"]).run();
    assert_eq!(exit.code, Some(1));
    let text = "/proc/99999999/ns/net: No such file or directory";
    assert!(exit.stderr.contains(text), "{}", exit.stderr);
}

#[test]
fn somebody_elses_container_is_refused() {
    let world = needs!(World::root());
    let exit = world.slirp().account(Account::Ordinary).run();
    assert_eq!(exit.code, Some(1));
    let refused = ["Permission denied", "Operation not permitted"];
    assert!(refused.iter().any(|text| exit.stderr.contains(text)), "{}", exit.stderr);
}

#[test]
fn own_network_namespace_is_refused_before_it_is_changed() {
    let world = needs!(World::root());
    let host = world.host.pid().to_string();
    let before = world.host.script("ip -o link; ip route");
    for (options, netns) in [
        (&[][..], host.as_str()),
        (&["--netns-type=path"], "/proc/self/ns/net"),
        (&["--netns-type=path"], &format!("/proc/{host}/ns/net")),
    ] {
        let exit = world.slirp().options(options).positionals(&[netns, "tap0"]).run();
        assert_eq!(exit.code, Some(1), "{netns}: {}", exit.stderr);
        let text = "is the network namespace that we run in ourselves\nhint: ";
        assert!(exit.stderr.contains(text), "{netns}: {}", exit.stderr);
        assert_eq!(world.host.script("ip -o link; ip route"), before, "{netns}");
    }
}

#[test]
fn fifo_in_place_of_a_namespace_holds_nobody_up() {
    let world = needs!(World::root());
    let fifo = format!("{}/fifo", world.folder().display());
    world.host.script(&format!("mkfifo {fifo}"));
    let exit = world.slirp().options(&["--netns-type=path"]).positionals(&[&fifo, "tap0"]).run();
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    let text = "setns(CLONE_NEWNET): Invalid argument\nhint: the path is not that of a network";
    assert!(exit.stderr.contains(text), "{}", exit.stderr);
    // Root gets into the network namespace without the user namespace.
    drop(world.slirp().options(&[&format!("--userns-path={fifo}")]).start());
    world.guest.script("! ip link show tap0 2>/dev/null || ip link del tap0");
    // The API socket takes the place of whatever file is there.
    drop(world.slirp().options(&[&format!("--api-socket={fifo}")]).start());
}

#[test]
fn missing_tun_device_is_named() {
    let world = needs!(World::root());
    world.host.script("mount -t tmpfs tmpfs /dev/net");
    let exit = world.slirp().run();
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("No such file or directory"), "{}", exit.stderr);
    assert!(exit.stderr.contains("tun"), "{}", exit.stderr);
}

#[test]
fn forbidden_tun_device_is_named() {
    let world = needs!(World::ordinary());
    world.host.script("chmod 0600 /dev/net/tun");
    let exit = world.slirp().run();
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("Permission denied"), "{}", exit.stderr);
    assert!(exit.stderr.contains("tun"), "{}", exit.stderr);
}

#[test]
fn taken_tap_is_busy() {
    let world = needs!(World::root());
    let first = world.slirp().start();
    let exit = world.slirp().run();
    assert_eq!(exit.code, Some(1));
    let text = "ioctl(TUNSETIFF): Device or resource busy";
    assert!(exit.stderr.contains(text), "{}", exit.stderr);
    assert!(first.facts().is_alive());
}

#[test]
fn name_of_another_kind_of_interface_is_refused() {
    let world = needs!(World::root());
    world.guest.script("ip link add tap0 type bridge");
    let exit = world.slirp().run();
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("TUNSETIFF"), "{}", exit.stderr);
}

#[test]
fn mtu_below_the_minimum_of_ipv4_is_refused_after_parsing() {
    let world = needs!(World::root());
    let exit = world.slirp().options(&["--mtu=67"]).run();
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(!exit.stderr.is_empty());
}
