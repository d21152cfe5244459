//! Whole command lines: their commands and their refusals.

use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use slirp_core::instance::AuditLevel;
use slirp_core::plan::SlirpNetwork;
use slirp_core::policy::Policy;
use slirp_core::{Rate, Rates};
use tracing_subscriber::filter::LevelFilter;

use super::*;
use crate::operator::{AuditTarget, OperatorOptions};
use crate::wording::MetricsAddress;

fn read(line: &[&str]) -> Parsed {
    parse(line.iter().map(OsString::from))
}

fn run(line: &[&str]) -> (Target, Options) {
    match read(line).command {
        Ok(Command::Run(target, options)) => (target, *options),
        other => panic!("{line:?}: {other:?}"),
    }
}

fn options(line: &[&str]) -> Options {
    run(line).1
}

/// The text of the refusal and whether the usage follows.
fn refusal(line: &[&str]) -> (Option<String>, bool) {
    let error = read(line).command.expect_err(&line.join(" "));
    let text = error.text(OsStr::new("PROGRAM"));
    (text.map(|text| String::from_utf8(text).unwrap()), error.shows_usage())
}

#[test]
fn command_lines_of_known_callers_are_understood() {
    let pid = |tap: &str| Target::Pid { pid: 42, userns: None, tap: tap.to_owned() };
    let socket = |framing| Target::Socket("/run/s".into(), framing);
    let path = |userns: Option<&str>| Target::Path {
        netns: "/dev/null".into(),
        userns: userns.map(PathBuf::from),
        tap: "tap0".to_owned(),
    };
    for (line, expected) in [
        ("-c 42 tap0", (pid("tap0"), true, 1500, None, None)),
        // RootlessKit
        (
            "--mtu 65520 -r 3 --disable-host-loopback --cidr 10.41.0.0/16 --enable-ipv6 42 tap0",
            (pid("tap0"), false, 65_520, Some(3), None),
        ),
        (
            "--mtu 65520 -r 3 --userns-path=/dev/zero --netns-type=path /dev/null tap0",
            (path(Some("/dev/zero")), false, 65_520, Some(3), None),
        ),
        // Podman
        (
            "--disable-host-loopback --mtu=65520 --enable-ipv6 -c -r 3 -e 4 \
             --netns-type=path /dev/null tap0",
            (path(None), true, 65_520, Some(3), Some(4)),
        ),
        // Guix
        (
            "--netns-type=tapfd --enable-ipv6 --ready-fd=7 --disable-host-loopback 9",
            (Target::TapFd(9), false, 1500, Some(7), None),
        ),
        // bubblejail
        ("--ready=5 --configure 42 tap0", (pid("tap0"), true, 1500, Some(5), None)),
        // scripts
        ("42 tap0 --configure --mtu 65520", (pid("tap0"), true, 65_520, None, None)),
        ("42 -c6m1400 tap11", (pid("tap11"), true, 1400, None, None)),
        ("--target-type=netns 42 tap0", (pid("tap0"), false, 1500, None, None)),
        // User Mode Linux
        ("--target-type=bess /run/s", (socket(Framing::Packets), false, 1500, None, None)),
        ("--target-type=stream /run/s", (socket(Framing::Lengths), false, 1500, None, None)),
        ("--target-type=bess --target-type=netns 42 tap0", (pid("tap0"), false, 1500, None, None)),
        ("--target-type=foo --target-type=netns 42 tap0", (pid("tap0"), false, 1500, None, None)),
        ("--netns-type=whatever /dev/null tap0", (path(None), false, 1500, None, None)),
    ] {
        let (target, read) = run(&line.split_whitespace().collect::<Vec<_>>());
        let short = (target, read.configure, read.mtu, read.ready_fd, read.exit_fd);
        assert_eq!(short, expected, "{line}");
    }
}

#[test]
fn plan_and_policy_follow_the_options() {
    let plain = options(&["42", "tap0"]);
    assert_eq!((plain.plan, plain.policy), (SlirpNetwork::default(), Policy::default()));

    let all = options(&[
        "--cidr=10.41.0.0/16",
        "--enable-ipv6",
        "--disable-host-loopback",
        "--disable-dns",
        "-c",
        "--macaddress=02:00:00:00:00:01",
        "42",
        "tap0",
    ]);
    assert_eq!(all.plan.prefix_len(), 16);
    assert_eq!(all.plan.ipv6(), Some(&Ipv6Plan::default()));
    assert!(!all.policy.allow_host_loopback);
    assert!(!all.policy.dns_service);
    assert_eq!(all.mac.unwrap().to_string(), "02:00:00:00:00:01");
}

#[test]
fn sandbox_and_seccomp_are_asked_for_by_name() {
    for (line, expected) in [
        (&["42", "tap0"][..], (false, false)),
        (&["--enable-sandbox", "42", "tap0"], (true, false)),
        (&["--create-sandbox", "42", "tap0"], (true, false)),
        (&["--enable-seccomp", "42", "tap0"], (false, true)),
        (&["42", "tap0", "--enable-se", "--enable-sa"], (true, true)),
    ] {
        let read = options(line);
        assert_eq!((read.sandbox, read.seccomp), expected, "{line:?}");
    }
}

#[test]
fn recording_and_watching_are_asked_for_by_name() {
    let plain = options(&["42", "tap0"]);
    assert_eq!((plain.pcap, plain.exit_with_netns), (None, false));
    let both = options(&["--pcap", "/tmp/x", "--exit-with-netns", "42", "tap0"]);
    assert_eq!((both.pcap, both.exit_with_netns), (Some("/tmp/x".into()), true));
    let (text, usage) = refusal(&["--pcap=-", "42", "tap0"]);
    assert!(text.unwrap().starts_with("invalid --pcap: - (stdout "));
    assert!(!usage);
}

#[test]
fn refusals_have_the_texts_that_callers_know() {
    const MTU: &str = "MTU must be a positive integer (< 65522)";
    const EXIT_FD: &str = "exit-fd must be a non-negative integer";
    const READY_FD: &str = "ready-fd must be a non-negative integer";
    const PID: &str = "PID must be a positive integer";
    const TARGET_TYPE: &str = "--target-type must be either \"netns\" or \"bess\"";
    const MAC: &str = "--macaddr cannot be specified when --configure or -c is not specified";
    for (line, text) in [
        (&["-m", "0"][..], MTU),
        (&["--mtu=65522", "42", "tap0"], MTU),
        (&["-mabc"], MTU),
        (&["-m", ""], MTU),
        (&["-m", "0", "--unknown"], MTU),
        (&["-m", "0", "-v"], MTU),
        (&["-e", "x"], EXIT_FD),
        (&["-e", "5", "-e", "6x"], EXIT_FD),
        (&["-r", "-1"], READY_FD),
        (&["--r=5x"], READY_FD),
        (&["abc", "tap0"], PID),
        (&["0", "tap0"], PID),
        (&["--", "-5", "tap0"], PID),
        (&["--cidr", "bad", "abc", "tap0"], PID),
        (&["--macaddress=zz", "42", "tap0"], MAC),
        (&["--cidr=bad", "--macaddress=1", "abc"], MAC),
        (&["--userns-path=/nonexistent", "-m", "0"], "userns path doesn't exist: /nonexistent"),
        (
            &["--netns-type=path", "/nonexistent", "tap0"],
            "existing path expected when --netns-type=path: No such file or directory",
        ),
        (&["--netns-type=tapfd", "x"], "TAPFD must a file descriptor"),
        (&["--netns-type=tapfd", "--", "-1"], "TAPFD must a file descriptor"),
        (
            &["--cidr6=fd01::/64", "42", "tap0"],
            "--cidr6 cannot be specified when --enable-ipv6 or -6 is not specified",
        ),
        (
            &["--publish=[::1]:80:80", "--publish=80:[fd00::64]:80", "42", "tap0"],
            "--publish with an IPv6 address of the guest cannot be specified when --enable-ipv6 or \
             -6 is not specified",
        ),
        (&["--target-type=foo"], TARGET_TYPE),
        (&["--target-type=netns", "--target-type=", "abc"], TARGET_TYPE),
        // Other mistakes are reported first, wherever they stand.
        (&["--target-type=foo", "-m", "0"], MTU),
        (&["--target-type=foo", "--macaddress=1"], MAC),
        (&["--target-type=bess", "/s", "tap0"], "too many arguments"),
        (&["--target-type=bess", "-c", "/s"], "--configure conflicts with --target-type=bess"),
        (&["--target-type=stream", "-c", "/s"], "--configure conflicts with --target-type=stream"),
        (&["--target-type=stream", "/s", "tap0"], "too many arguments"),
        (&["--target-type=bess", "-c", "/s", "tap0"], "too many arguments"),
        (
            &["--netns-type=pid", "/s", "--target-type=bess"],
            "--netns-type conflicts with --target-type=bess",
        ),
        (
            &["--target-type=bess", "--userns-path=/dev/null", "/s"],
            "--userns-path conflicts with --target-type=bess",
        ),
        (
            &["--target-type=bess", "--exit-with-netns", "/s"],
            "--exit-with-netns conflicts with --target-type=bess",
        ),
        (
            &["--netns-type=tapfd", "--exit-with-netns", "5"],
            "--exit-with-netns conflicts with --netns-type=tapfd",
        ),
        (&["--nope"], "PROGRAM: unrecognized option '--nope'"),
        (&["--control-fd=-1"], "control-fd must be a non-negative integer"),
        (
            &["--audit=all", "42", "tap0"],
            "--audit cannot be specified when --audit-log is not specified",
        ),
        (
            &["--audit-required", "42", "tap0"],
            "--audit-required cannot be specified when --audit-log is not specified",
        ),
        (
            &["--metrics-members", "42", "tap0"],
            "--metrics-members cannot be specified when --metrics is not specified",
        ),
        (
            &["--control-fd=3", "--control-socket=/c", "42", "tap0"],
            "--control-fd conflicts with --control-socket",
        ),
    ] {
        assert_eq!(refusal(line), (Some(text.to_owned()), true), "{line:?}");
    }
}

#[test]
fn without_operands_only_the_usage_is_shown() {
    for line in [
        &[][..],
        &["42"],
        &["abc"],
        &["--cidr", "bad"],
        &["--netns-type=path", "/nonexistent"],
        &["--netns-type=tapfd"],
        &["--target-type=bess", "-c"],
        &["--", "-c"],
        &["-"],
    ] {
        assert_eq!(refusal(line), (None, true), "{line:?}");
    }
}

#[test]
fn bad_networks_and_mac_addresses_are_refused_without_the_usage() {
    let (text, usage) = refusal(&["--cidr=bad", "-c", "--macaddress=zz", "42", "tap0"]);
    assert_eq!((text.as_deref(), usage), (Some("invalid CIDR: bad"), false));
    let (text, usage) = refusal(&["-c", "--macaddress=zz", "42", "tap0"]);
    assert!(text.unwrap().starts_with("\"zz\" is an invalid MAC address.\n"));
    assert!(!usage);
}

#[test]
fn bad_addresses_names_and_levels_are_refused_without_the_usage() {
    for (line, text) in [
        (
            &["--outbound-addr=zz"][..],
            "outbound-addr has to be valid ipv4 address or interface name.",
        ),
        (&["--outbound-addr=::1"], "outbound-addr has to be valid ipv4 address or interface name."),
        (&["--outbound-addr="], "outbound-addr has to be valid ipv4 address or interface name."),
        (
            &["--outbound-addr6=zz"],
            "outbound-addr6 has to be valid ipv6 address or interface name.",
        ),
        (
            &["--outbound-addr6=127.0.0.1"],
            "outbound-addr6 has to be valid ipv6 address or interface name.",
        ),
        // The order of slirp4netns.
        (&["--outbound-addr=zz", "--cidr=bad"], "invalid CIDR: bad"),
        (
            &["--outbound-addr6=zz", "--outbound-addr=zz"],
            "outbound-addr has to be valid ipv4 address or interface name.",
        ),
        (
            &["-c", "--macaddress=zz", "--outbound-addr6=zz"],
            "outbound-addr6 has to be valid ipv6 address or interface name.",
        ),
        (
            &["-6", "--cidr6=fd00::1/64"],
            "invalid --cidr6: fd00::1/64: needs to be a network address like fd00::/64, not like \
             fd00::1/64",
        ),
        (
            &["-6", "--cidr6=fd00::/48"],
            "invalid --cidr6: fd00::/48: the prefix length needs to be 64, not 48: guests make \
             their addresses in a /64",
        ),
        (
            &["--dns=resolver"],
            "invalid --dns: resolver (expected ADDR, ADDR:PORT or [IPv6]:PORT of one host)",
        ),
        (
            &["--search-domain=a..b"],
            "invalid --search-domain: a..b (expected a domain name such as example.org)",
        ),
        (
            &["--log-level=loud"],
            "invalid --log-level: loud (expected error, warn, info, debug or trace)",
        ),
        (&["--busy-poll=1001"], "invalid --busy-poll: 1001 (expected microseconds, 0 to 1000)"),
        (&["--busy-poll=1ms"], "invalid --busy-poll: 1ms (expected microseconds, 0 to 1000)"),
        (&["--busy-poll="], "invalid --busy-poll:  (expected microseconds, 0 to 1000)"),
        (&["--audit-log=-"], "invalid --audit-log: - (expected the path of a file, or fd:N)"),
        (&["--audit-log="], "invalid --audit-log:  (expected the path of a file, or fd:N)"),
        (&["--audit-log=fd:x"], "invalid --audit-log: fd:x (expected the path of a file, or fd:N)"),
        (&["--audit=none"], "invalid --audit: none (expected denied, decisions or all)"),
        (
            &["--rate-in=10Mbit"],
            "invalid --rate-in: 10Mbit (expected RATE[,burst=BYTES], in bits a second and bytes, \
             such as 10M or 500k)",
        ),
        (
            &["--rate-out=0"],
            "invalid --rate-out: 0 (nothing passes at a rate of 0; without a limit the guest is as \
             fast as it can)",
        ),
        (
            &["--metrics=9100"],
            "invalid --metrics: 9100 (expected unix:PATH, 127.0.0.1:PORT or [::1]:PORT)",
        ),
        (
            &["--metrics=0.0.0.0:9100"],
            "invalid --metrics: 0.0.0.0:9100 (metrics are served at 127.0.0.1:PORT, [::1]:PORT or \
             unix:PATH alone)",
        ),
        (
            &["--metrics=127.0.0.2:9100"],
            "invalid --metrics: 127.0.0.2:9100 (metrics are served at 127.0.0.1:PORT, [::1]:PORT \
             or unix:PATH alone)",
        ),
    ] {
        let line = [line, &["42", "tap0"]].concat();
        assert_eq!(refusal(&line), (Some(text.to_owned()), false), "{line:?}");
    }
}

#[test]
fn only_the_texts_of_slirp4netns_about_outbound_addresses_do_not_end_their_line() {
    for (line, ends) in [
        (&["--outbound-addr=zz", "42", "tap0"][..], false),
        (&["--outbound-addr6=zz", "42", "tap0"], false),
        (&["--cidr=zz", "42", "tap0"], true),
        (&["--dns=zz", "42", "tap0"], true),
        (&["-x"], true),
    ] {
        assert_eq!(read(line).command.unwrap_err().ends_line(), ends, "{line:?}");
    }
}

#[test]
fn our_own_options_are_taken_in_the_order_of_the_line() {
    let plain = options(&["42", "tap0"]);
    assert_eq!(plain.outbound, OutboundAddresses::default());
    assert_eq!((plain.dns, plain.search_domains, plain.log_level), (vec![], vec![], None));
    assert_eq!(plain.busy_poll, Duration::from_micros(20));

    let all = options(&[
        "-6",
        "--cidr6=fd12:3456::/64",
        "--outbound-addr=127.0.0.1",
        "--outbound-addr6=::1",
        "--dns=192.0.2.53:5353",
        "--dn",
        "2001:db8::53",
        "--search-domain=example.org.",
        "--search=example.test",
        "--log-level=error",
        "--log=debug",
        "--busy-poll=1000",
        "--busy=0",
        "42",
        "tap0",
    ]);
    assert_eq!(all.plan.ipv6().unwrap().to_owned(), "fd12:3456::/64".parse().unwrap());
    assert_eq!(all.outbound.ipv4, Some([127, 0, 0, 1].into()));
    assert_eq!(all.outbound.ipv6, Some("::1".parse().unwrap()));
    let dns = ["192.0.2.53:5353", "[2001:db8::53]:53"].map(|text| text.parse().unwrap());
    assert_eq!(all.dns, dns);
    assert_eq!(all.search_domains, ["example.org", "example.test"]);
    assert_eq!(all.log_level, Some(LevelFilter::DEBUG));
    assert_eq!(all.busy_poll, Duration::ZERO);
}

#[test]
fn operators_have_a_log_a_socket_rates_and_metrics() {
    let plain = options(&["42", "tap0"]);
    assert_eq!((plain.operator, plain.rates), (OperatorOptions::default(), Rates::default()));

    let all = options(&[
        "--audit-log=a.log",
        "--audit=all",
        "--audit-required",
        "--control-socket=/run/c",
        "--rate-in=10M",
        "--rate-out=1k",
        "--rate-out=2M,burst=100k",
        "--metrics=unix:/run/m",
        "--metrics-members",
        "42",
        "tap0",
    ]);
    let operator = OperatorOptions {
        audit_log: Some(AuditTarget::File("a.log".into())),
        audit_level: Some(AuditLevel::All),
        is_audit_required: true,
        control_socket: Some("/run/c".into()),
        control_fd: None,
        metrics: Some(MetricsAddress::Unix("/run/m".into())),
        has_member_metrics: true,
    };
    assert_eq!(all.operator, operator);
    let rate = |bits_per_second, burst| Some(Rate { bits_per_second, burst });
    let rates = Rates::new(rate(10_000_000, None), rate(2_000_000, Some(100_000)));
    assert_eq!(all.rates, rates);

    let numbers = options(&["--audit-log=fd:7", "--control-fd", " 8", "42", "tap0"]).operator;
    assert_eq!(numbers.audit_log, Some(AuditTarget::Descriptor(7)));
    assert_eq!(numbers.control_fd, Some(8));
    assert_eq!(numbers.descriptors().collect::<Vec<_>>(), [7, 8]);
    let named = options(&["--audit-log=./fd:7", "42", "tap0"]).operator;
    assert_eq!(named.audit_log, Some(AuditTarget::File("./fd:7".into())));
}

#[test]
fn help_and_version_act_when_they_are_reached() {
    for (line, command) in [
        (&["--help"][..], Command::Help),
        (&["--he"], Command::Help),
        (&["-hx"], Command::Help),
        (&["-c", "-v", "--nope"], Command::Version),
        (&["--vers"], Command::Version),
        (&["--cidr", "bad", "-v"], Command::Version),
        (&["--target-type=foo", "-v"], Command::Version),
        (&["abc", "tap0", "--help"], Command::Help),
    ] {
        assert_eq!(read(line).command, Ok(command), "{line:?}");
    }
}

#[test]
fn warnings_come_in_the_order_of_their_causes() {
    use Warning::{
        BessExperimental, ConfigureWithTapFd, CreateSandboxDeprecated, DnsDisabled,
        Ipv6Experimental, NoHostLoopbackDeprecated, OutboundAddr6Experimental,
        OutboundAddrExperimental, SeccompExperimental, TooManyArguments,
    };
    for (line, warnings) in [
        (&["42", "tap0"][..], &[][..]),
        (&["42", "tap0", "more", "words"], &[TooManyArguments]),
        (&["no number", "tap0", "more"], &[TooManyArguments]),
        (&["--netns-type=path", "/nonexistent", "tap0", "more"], &[TooManyArguments]),
        (
            &["-6", "--no-host-loopback", "42", "tap0", "more"],
            &[Ipv6Experimental, NoHostLoopbackDeprecated, TooManyArguments],
        ),
        (&["-6x"], &[Ipv6Experimental]),
        (&["--enable-sandbox", "42", "tap0"], &[]),
        (
            &["--enable-seccomp", "--create-sandbox", "42", "tap0"],
            &[SeccompExperimental, CreateSandboxDeprecated],
        ),
        (
            &["--outbound-addr6=::1", "--outbound-addr=127.0.0.1", "42", "tap0"],
            &[OutboundAddr6Experimental, OutboundAddrExperimental],
        ),
        (&["--outbound-addr=zz", "-x"], &[OutboundAddrExperimental]),
        (&["--dns=192.0.2.53", "--disable-dns", "42", "tap0"], &[DnsDisabled]),
        (&["--dns=192.0.2.53", "42", "tap0"], &[]),
        (&["--netns-type=tapfd", "5", "tap0"], &[]),
        (&["--netns-type=tapfd", "5", "tap0", "more"], &[TooManyArguments]),
        (&["--netns-type=tapfd", "-c", "5"], &[ConfigureWithTapFd]),
        (&["--target-type=bess", "-6", "/s"], &[Ipv6Experimental, BessExperimental]),
        (&["--target-type=stream", "/s"], &[]),
    ] {
        assert_eq!(read(line).warnings, warnings, "{line:?}");
    }
    assert!(!options(&["--no-host-loopback", "42", "tap0"]).policy.allow_host_loopback);
}

#[test]
fn no_bytes_make_the_parser_panic() {
    let strange = OsString::from_vec(vec![0xff, 0xfe]);
    let words = [
        "-c",
        "-e",
        "-r",
        "-m",
        "-6",
        "-a",
        "--cidr",
        "--netns-type",
        "--netns-type=path",
        "--netns-type=tapfd",
        "--userns-path",
        "--macaddress",
        "--cidr6",
        "--outbound-addr",
        "--outbound-addr6",
        "--dns",
        "--search-domain",
        "--log-level",
        "--busy-poll",
        "--audit-log",
        "--control-fd",
        "--rate-in",
        "--metrics",
        "--publish",
        "--target-type",
        "--",
        "5",
    ];
    for first in words {
        for second in words {
            let line = [first.into(), second.into(), strange.clone(), strange.clone()];
            let parsed = parse(line);
            if let Err(error) = parsed.command {
                let _ = error.text(&strange);
            }
        }
    }
}
