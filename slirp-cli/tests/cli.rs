//! The real program, as far as it goes without privileges: texts, streams and exit statuses.
//!
//! Runs whole command lines against a table. How a run ends is tested in `lifetime`.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test, and says so")]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that cannot exist: above the largest limit of Linux (`PID_MAX_LIMIT`, 2^22).
const NO_PID: &str = "4194305";

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slirp4netns"));
    command.arg0("slirp4netns").stdin(Stdio::null()).env_remove("SLIRP_LOG");
    command
}

/// How long a command line that ends by itself may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `command` to its end. One that keeps running is ended, and fails the test: a command line
/// that should be refused was not.
fn output(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    finish(child, command)
}

fn finish(child: Child, command: &Command) -> Output {
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    let (sender, ended) = mpsc::channel();
    let waiting = thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    let output = ended.recv_timeout(LIMIT);
    if output.is_err() {
        // It has not been waited for, so the number is still its own.
        kill(pid, Signal::SIGKILL).unwrap();
    }
    waiting.join().unwrap().unwrap();
    output.unwrap_or_else(|_| panic!("{command:?} was still running after {LIMIT:?}"))
}

fn run(arguments: &[&str]) -> Output {
    output(program().args(arguments))
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

fn usage() -> String {
    text(&run(&["--help"]).stdout).to_owned()
}

#[test]
fn help_lists_what_works_and_nothing_else() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
    let help = text(&output.stdout);
    let mut lines = help.lines();
    assert_eq!(lines.next(), Some("Usage: slirp4netns [OPTION]... PID|PATH|FD [TAPNAME]"));
    assert!(lines.next().is_some_and(|line| !line.is_empty()));
    assert_eq!(lines.next(), Some(""));
    let left: Vec<_> = lines.map(|line| line[..25].trim_end()).collect();
    assert_eq!(
        left,
        [
            "-c, --configure",
            "-e, --exit-fd=FD",
            "-r, --ready-fd=FD",
            "-m, --mtu=MTU",
            "-6, --enable-ipv6",
            "-a, --api-socket=PATH",
            "--cidr=CIDR",
            "--disable-host-loopback",
            "--netns-type=TYPE",
            "--userns-path=PATH",
            "--enable-sandbox",
            "--enable-seccomp",
            "--outbound-addr=IPv4",
            "--outbound-addr6=IPv6",
            "--disable-dns",
            "--macaddress=MAC",
            "--target-type=TYPE",
            "-h, --help",
            "-v, --version",
            "--cidr6=PREFIX/64",
            "--publish=SPEC",
            "--dns=ADDR[:PORT]",
            "--search-domain=DOMAIN",
            "--log-level=LEVEL",
            "--pcap=FILE",
            "--exit-with-netns",
            "--busy-poll=USEC",
            "--allow=RULE",
            "--deny=RULE",
            "--ask=RULE",
            "--policy=FILE",
            "--policy-mode=MODE",
            "--audit-log=FILE",
            "--audit=LEVEL",
            "--audit-required",
            "--control-socket=PATH",
            "--control-fd=FD",
            "--rate-in=RATE",
            "--rate-out=RATE",
            "--metrics=ADDRESS",
            "--metrics-members",
        ]
    );
}

#[test]
fn help_and_version_are_one_write_each() {
    for argument in ["--help", "--version"] {
        // A datagram is what one call has written.
        let (reader, writer) = UnixDatagram::pair().unwrap();
        let mut command = program();
        let child = command
            .arg(argument)
            .stdout(OwnedFd::from(writer))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = finish(child, &command);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
        reader.set_nonblocking(true).unwrap();
        let mut buffer = [0; 1 << 16];
        let len = reader.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len], run(&[argument]).stdout);
        // The command holds the other end of the pair: nothing more is an error, not an end.
        let error = reader.recv(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{argument}");
    }
}

#[test]
fn usage_repeats_the_name_of_the_program() {
    let output = output(program().arg0("/opt/\u{e9}/s4nn").args(["--nope"]));
    assert_eq!(text(&output.stderr), "/opt/\u{e9}/s4nn: unrecognized option '--nope'\n");
    assert!(text(&output.stdout).starts_with("Usage: /opt/\u{e9}/s4nn [OPTION]... "));
}

#[test]
fn version_has_the_five_lines_that_programs_read() {
    for arguments in [&["--version"][..], &["-v"], &["--vers"], &["-c", "-vx", "--nope"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(text(&output.stderr), "");
        let lines: Vec<_> = text(&output.stdout).lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[0], "slirp4netns version 1.3.3");
        assert!(lines[1].starts_with("commit: rust-slirp-"));
        assert_eq!(lines[2], "libslirp: 4.9.1");
        assert_eq!(lines[3], "SLIRP_CONFIG_VERSION_MAX: 6");
        assert!(lines[4].starts_with("libseccomp: "));
        assert!(lines[1..].iter().all(|line| !line.contains("version")));
    }
}

#[test]
fn a_reader_that_left_is_no_error() {
    for (arguments, code) in [(&["--help"][..], 0), (&["--version"], 0), (&["--nope"], 1)] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let command = &mut program();
        command.args(arguments).stdout(writer).stderr(Stdio::piped());
        let output = finish(command.spawn().unwrap(), command);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(!text(&output.stderr).contains("roken pipe"), "{arguments:?}");
    }
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let command = &mut program();
    command.arg("--nope").stdout(Stdio::null()).stderr(writer);
    assert_eq!(finish(command.spawn().unwrap(), command).status.code(), Some(1));
}

#[test]
fn help_that_cannot_be_written_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let command = &mut program();
    command.arg("--help").stdout(full).stderr(Stdio::piped());
    let output = finish(command.spawn().unwrap(), command);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("slirp4netns: write error: "));
}

#[test]
fn refused_command_lines_show_the_reason_on_stderr_and_the_usage_on_stdout() {
    let usage = usage();
    for (arguments, reason) in [
        (&[][..], ""),
        (&["42"], ""),
        (&["--unknown"], "slirp4netns: unrecognized option '--unknown'\n"),
        (&["--unk=5"], "slirp4netns: unrecognized option '--unk=5'\n"),
        (&["-x"], "slirp4netns: invalid option -- 'x'\n"),
        (&["-cx"], "slirp4netns: invalid option -- 'x'\n"),
        (&["--mtu"], "slirp4netns: option '--mtu' requires an argument\n"),
        (&["-m"], "slirp4netns: option requires an argument -- 'm'\n"),
        (&["--co=5"], "slirp4netns: option '--configure' doesn't allow an argument\n"),
        (
            &["--ena"],
            "slirp4netns: option '--ena' is ambiguous; possibilities: \
             '--enable-ipv6' '--enable-sandbox' '--enable-seccomp'\n",
        ),
        (
            &["--=5"],
            "slirp4netns: option '--=5' is ambiguous; possibilities: '--configure' '--exit-fd' \
             '--ready-fd' '--mtu' '--cidr' '--disable-host-loopback' '--no-host-loopback' \
             '--netns-type' '--userns-path' '--api-socket' '--enable-ipv6' '--enable-sandbox' \
             '--create-sandbox' '--enable-seccomp' '--help' '--version' '--outbound-addr' \
             '--outbound-addr6' '--disable-dns' '--macaddress' '--target-type'\n",
        ),
        (&["--mtu=0", "42", "tap0"], "MTU must be a positive integer (< 65522)\n"),
        (&["-r", "x"], "ready-fd must be a non-negative integer\n"),
        (&["-e", "-1"], "exit-fd must be a non-negative integer\n"),
        (&["abc", "tap0"], "PID must be a positive integer\n"),
        (
            &["--macaddress=02::", "42", "tap0"],
            "--macaddr cannot be specified when --configure or -c is not specified\n",
        ),
        (&["--userns-path=/nonexistent"], "userns path doesn't exist: /nonexistent\n"),
        (
            &["--netns-type=path", "/nonexistent", "tap0"],
            "existing path expected when --netns-type=path: No such file or directory\n",
        ),
        (&["--netns-type=tapfd", "x"], "TAPFD must a file descriptor\n"),
        (&["--target-type=bess", "/s", "tap0"], "too many arguments\n"),
        (&["--target-type=bess", "-c", "/s"], "--configure conflicts with --target-type=bess\n"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(text(&output.stderr), reason, "{arguments:?}");
        assert_eq!(text(&output.stdout), usage, "{arguments:?}");
    }
}

#[test]
fn warnings_precede_the_usage_on_stdout() {
    let output = run(&["-6x"]);
    let expected = format!("WARNING: Support for IPv6 is experimental\n{}", usage());
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(text(&output.stderr), "slirp4netns: invalid option -- 'x'\n");
}

#[test]
fn refused_values_show_the_reason_alone() {
    for (arguments, reason) in [
        (&["--cidr=10.0.2.0", "42", "tap0"][..], "invalid CIDR: 10.0.2.0\n"),
        (&["--cidr=300.0.2.0/24", "42", "tap0"], "invalid network address: 300.0.2.0\n"),
        (&["--cidr=10.0.2.100/26", "42", "tap0"], "prefix length needs to be 1-25\n"),
        (
            &["--cidr=10.0.2.100/24", "42", "tap0"],
            "CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24\n",
        ),
        (
            &["-6", "--cidr6=fe80::/64", "42", "tap0"],
            "invalid --cidr6: fe80::/64: fe80::/64 cannot be a guest's network: it is loopback, \
             link-local or multicast\n",
        ),
        (&["-m", "67", NO_PID, "tap0"], "the MTU is 67, but the smallest that works is 68\n"),
        (
            &["--publish=80", "42", "tap0"],
            "invalid --publish: 80 (expected [PROTO:][ADDR:]PORT[-PORT]:[GUEST:]PORT)\n",
        ),
        (
            &["--publish=0-9:80", "42", "tap0"],
            "invalid --publish: 0-9:80 (expected [PROTO:][ADDR:]PORT[-PORT]:[GUEST:]PORT)\n",
        ),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(text(&output.stderr), reason, "{arguments:?}");
        let warning = "WARNING: Support for IPv6 is experimental\n";
        let expected = if arguments.contains(&"-6") { warning } else { "" };
        assert_eq!(text(&output.stdout), expected, "{arguments:?}");
    }
}

#[test]
fn a_bad_outbound_address_gets_the_text_of_slirp4netns_to_the_byte() {
    for (option, reason) in [
        ("--outbound-addr", "outbound-addr has to be valid ipv4 address or interface name."),
        ("--outbound-addr6", "outbound-addr6 has to be valid ipv6 address or interface name."),
    ] {
        let output = run(&[option, "no-such-if", "42", "tap0"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stderr), reason);
        let warning = format!("WARNING: Support for {option} is experimental\n");
        assert_eq!(text(&output.stdout), warning);
    }
}

#[test]
fn arguments_that_are_no_text_are_repeated_byte_by_byte() {
    let output = output(program().arg(OsStr::from_bytes(b"--\xff")));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"slirp4netns: unrecognized option '--\xff'\n");
    for argument in [&b"-\xff"[..], b"\xff", b"-m\xff", b"--cidr=\xff"] {
        let argument = OsStr::from_bytes(argument);
        let output = self::output(program().arg(argument).args([NO_PID, "tap0"]));
        assert_eq!(output.status.code(), Some(1), "{argument:?}");
    }
}

#[test]
fn a_socket_that_cannot_be_bound_is_named() {
    let long = format!("/tmp/{}", "x".repeat(108));
    let text_of_long = "the specified BESS socket path is too long (>= 108)";
    for (path, reason, hint) in [
        (
            "/nonexistent/socket",
            "child_bess: bind: No such file or directory",
            "the folder does not exist: make it first",
        ),
        (
            "/dev/null",
            "child_bess: bind: Address already in use",
            "the file there cannot be replaced by a socket: remove it, or give another path",
        ),
        (&long, text_of_long, "change into a folder near it and give a relative path"),
    ] {
        let output = run(&["--target-type=bess", path]);
        assert_eq!(output.status.code(), Some(1), "{path}");
        assert_eq!(text(&output.stderr), format!("{reason}\nhint: {hint}\nchild failed(1)\n"));
        assert_eq!(text(&output.stdout), "WARNING: BESS mode is experimental\n");
    }
}

#[test]
fn an_unknown_process_is_named() {
    let output = run(&["-c", NO_PID, "tap0"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        format!(
            "/proc/{NO_PID}/ns/net: No such file or directory\n\
             hint: there is no process of this number, or it has ended\nchild failed(1)\n"
        )
    );
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_failed_start_closes_the_ready_descriptor_without_a_word() {
    let (mut reader, writer) = io::pipe().unwrap();
    // Descriptor 0 is the one that a child can be given without privileges or unsafe code.
    let output = output(program().args(["-r", "0", NO_PID, "tap0"]).stdin(writer));
    assert_eq!(output.status.code(), Some(1));
    let mut message = Vec::new();
    reader.read_to_end(&mut message).unwrap();
    assert_eq!(message, b"");
}

#[test]
fn one_descriptor_cannot_be_the_device_and_a_signal() {
    let output = run(&["--netns-type=tapfd", "-r", "5", "5"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "descriptor 5 is given for two purposes\n");
}

#[test]
fn a_device_descriptor_that_is_not_open_is_refused() {
    let output = run(&["--netns-type=tapfd", "900"]);
    assert_eq!(output.status.code(), Some(1));
    let reason = text(&output.stderr);
    assert!(reason.starts_with("TAPFD 900 is not open: "), "{reason}");
    assert_eq!(text(&output.stdout), "");
}

/// A file with this text, removed when the test is over.
struct PolicyFile(PathBuf);

impl PolicyFile {
    fn new(name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = std::env::temp_dir().join(format!("slirp-cli-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn option(&self) -> String {
        format!("--policy={}", self.0.display())
    }
}

impl Drop for PolicyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_rule_that_is_none_is_refused_with_its_column() {
    for (argument, reason) in [
        ("--allow=", "--allow: column 1: a destination is missing\n"),
        ("--deny=a.example:0", "--deny: column 11: ports are 1 to 65535\n"),
        (
            "--allow=0.0.0.0/0",
            "--allow: column 1: say \"allow any\" (all destinations) or \"allow internet\"\n",
        ),
        ("--policy-mode=off", "invalid --policy-mode: off (expected enforce or audit)\n"),
    ] {
        let output = run(&[argument, NO_PID, "tap0"]);
        assert_eq!(output.status.code(), Some(1), "{argument}");
        assert_eq!(text(&output.stderr), reason, "{argument}");
        assert_eq!(text(&output.stdout), "", "{argument}");
    }
}

#[test]
fn a_policy_that_cannot_be_had_ends_the_start() {
    let own = std::process::id().to_string();
    let bad = PolicyFile::new("bad", "allow a.example\n\nalow b.example\nallow a..b\n");
    let shown = bad.0.display();
    let two = format!(
        "{shown}:3:1: \"alow\" is no action: allow, deny or ask\n{shown}:4:7: a label is empty\n"
    );
    let binary = PolicyFile::new("binary", b"allow \xff\n");
    let not_text = format!(
        "the policy {} is not UTF-8\nhint: names are ASCII; notes and comments may be UTF-8\n",
        binary.0.display()
    );
    let large = PolicyFile::new("large", vec![b'#'; 2 << 20]);
    let too_long = "1 MiB";
    for (arguments, expected) in [
        (&[bad.option().as_str()][..], two.as_str()),
        (&[binary.option().as_str()], &not_text),
        (&[large.option().as_str()], too_long),
        (
            &["--policy=/nonexistent/rules"],
            "cannot read the policy /nonexistent/rules: No such file or directory (os error 2)\n\
             hint: without its rules the guest would be free: give its path\n",
        ),
        (&["--deny=a.example"], "this policy only denies: add \"allow any\" for a deny list\n"),
        (&["--allow=any", "--deny=any"], "the default was already given at cli:1: allow\n"),
        (&["--allow=a.example", "--disable-dns"], "cli:1: "),
        (&["--allow=host-loopback", "--disable-host-loopback"], "cli:1: "),
    ] {
        let mut arguments = arguments.to_vec();
        arguments.extend([own.as_str(), "tap0"]);
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

#[test]
fn the_environment_names_a_policy_as_well_and_an_empty_name_is_refused() {
    let own = std::process::id().to_string();
    let bad = PolicyFile::new("environment", "allow\n");
    let missing = format!("{}:1:6: a destination is missing\n", bad.0.display());
    for (value, expected) in [
        (bad.0.to_str().unwrap(), missing.as_str()),
        ("", "SLIRP_POLICY is empty\nhint: name a policy file in it, or unset it\n"),
    ] {
        let output = output(program().env("SLIRP_POLICY", value).args([own.as_str(), "tap0"]));
        assert_eq!(output.status.code(), Some(1), "{value}");
        assert_eq!(text(&output.stderr), expected);
    }
}

/// Runs a command line whose target is this process, which is refused before anything is made.
fn refused_start(command: &mut Command, arguments: &[&str]) -> String {
    let own = std::process::id().to_string();
    let output = output(command.args(arguments).args([own.as_str(), "tap0"]));
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    text(&output.stderr).to_owned()
}

#[test]
fn what_an_operator_cannot_have_ends_the_start() {
    let long = format!("--control-socket=/tmp/{}", "x".repeat(108));
    let plain = PolicyFile::new("plain", "");
    let control = format!("--control-socket={}", plain.0.display());
    let no_socket = format!(
        "--control-socket: {0}: Address already in use (os error 98)\n\
         hint: {0}: a program serves it, or it is no socket: give another\n",
        plain.0.display()
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap();
    let listen = format!("--metrics={port}");
    let in_use = format!(
        "--metrics: cannot listen at {port}: Address already in use (os error 98)\n\
         hint: another program has this port, which ss -tlnp shows\n"
    );
    for (argument, reason) in [
        (
            "--audit-log=/nonexistent/log",
            "cannot write the audit log /nonexistent/log: No such file or directory (os error 2)\n\
             hint: the folder does not exist: make it first\n",
        ),
        ("--audit-log=fd:900", "--audit-log: descriptor 900 is not open: "),
        ("--control-fd=900", "--control-fd: descriptor 900 is not open: "),
        (
            &long,
            "--control-socket: the path of the socket is too long (>= 108)\n\
             hint: change into a folder near it and give a relative path\n",
        ),
        (
            "--control-socket=/nonexistent/s",
            "--control-socket: /nonexistent/s: No such file or directory (os error 2)\n\
             hint: /nonexistent/s: the folder does not exist: make it first\n",
        ),
        (&control, &no_socket),
        ("--metrics=unix:/nonexistent/m", "--metrics: /nonexistent/m: No such file"),
        (&listen, &in_use),
    ] {
        let said = refused_start(&mut program(), &[argument]);
        assert!(said.starts_with(reason), "{argument}: {said}");
    }
    assert_eq!(std::fs::read(&plain.0).unwrap(), b"");
}

#[test]
fn descriptors_of_another_kind_are_refused() {
    let (reader, _writer) = io::pipe().unwrap();
    let said = refused_start(program().stdin(reader), &["--audit-log=fd:0"]);
    assert_eq!(said, "--audit-log: descriptor 0 is not open for writing\n");
    let (datagrams, _theirs) = UnixDatagram::pair().unwrap();
    let internet = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for fd in
        [OwnedFd::from(datagrams), OwnedFd::from(internet), File::open("/dev/null").unwrap().into()]
    {
        let said = refused_start(program().stdin(fd), &["--control-fd=0"]);
        assert_eq!(
            said,
            "--control-fd: descriptor 0 is no stream socket of the UNIX domain\n\
             hint: give one end of socketpair(AF_UNIX, SOCK_STREAM)\n"
        );
    }
}

#[test]
fn control_descriptor_without_a_peer_is_refused() {
    let path = std::env::temp_dir().join(format!("slirp-cli-{}-listens", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let said = refused_start(program().stdin(OwnedFd::from(listener)), &["--control-fd=0"]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        said,
        "--control-fd: descriptor 0 has no peer: it listens, or was never connected\n\
         hint: give one end of socketpair(AF_UNIX, SOCK_STREAM); several clients are served at \
         --control-socket=PATH\n"
    );
}

#[test]
fn one_descriptor_has_one_purpose() {
    for arguments in [
        &["--control-fd=5", "-r", "5", NO_PID, "tap0"][..],
        &["--control-fd=5", "-e", "5", NO_PID, "tap0"],
        &["--control-fd=5", "--audit-log=fd:5", NO_PID, "tap0"],
        &["--audit-log=fd:5", "-r", "5", "-e", "5", NO_PID, "tap0"],
        &["--control-fd=5", "--netns-type=tapfd", "5"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(text(&output.stderr), "descriptor 5 is given for two purposes\n");
    }
}
