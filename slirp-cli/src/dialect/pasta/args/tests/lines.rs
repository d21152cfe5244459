//! What single options mean, how they go together, and what is refused.

use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use super::*;
use crate::dialect::pasta::options::{Name, RunAs};

#[test]
fn operands_are_a_process_or_a_command() {
    let command = |words: &[&str]| Place::Command(words.iter().map(OsString::from).collect());
    let of = |path: &str| Userns::Path(path.into());
    let netns = |path: &str| Place::Netns(path.into());
    for (line, place, userns) in [
        (&[][..], command(&[]), Userns::OfPlace),
        (&["42"], Place::Process(42), Userns::OfPlace),
        (&["--", "42"], Place::Process(42), Userns::OfPlace),
        (&["0042"], Place::Process(42), Userns::OfPlace),
        (&["--netns-only", "42"], Place::Process(42), Userns::Callers),
        (&["--userns=/u", "42"], Place::Process(42), of("/u")),
        (&["1", "2"], command(&["1", "2"]), Userns::OfPlace),
        (&["42x"], command(&["42x"]), Userns::OfPlace),
        (&["--", "-5"], command(&["-5"]), Userns::OfPlace),
        (&["ls", "-t", "--mtu"], command(&["ls", "-t", "--mtu"]), Userns::OfPlace),
        (&["--netns-only", "ls"], command(&["ls"]), Userns::Callers),
        (&["--netns", "/n"], netns("/n"), Userns::Callers),
        (&["--netns", "n"], netns("/run/netns/n"), Userns::Callers),
        (&["--netns", "./n"], netns("./n"), Userns::Callers),
        (&["--netns", "a", "--netns=b"], netns("/run/netns/b"), Userns::Callers),
        (&["--netns=/n", "--userns=/u"], netns("/n"), of("/u")),
        (&["--netns=/n", "--netns-only"], netns("/n"), Userns::Callers),
    ] {
        let target = run_words(line).target;
        assert_eq!(target, Target { place, userns, quits_with_netns: true }, "{line:?}");
    }
    assert!(!run("--no-netns-quit 42").target.quits_with_netns);
    assert!(!run("42").process.is_foreground && run("-f 42").process.is_foreground);
    assert!(run("ls").process.is_foreground);
}

#[test]
fn last_word_about_verbosity_counts() {
    for (line, expected) in [
        ("42", Verbosity::Normal),
        ("-q 42", Verbosity::Quiet),
        ("-d 42", Verbosity::Debug),
        ("--trace 42", Verbosity::Trace),
        ("--trace -d 42", Verbosity::Trace),
        ("-q -d 42", Verbosity::Debug),
        ("-d -q 42", Verbosity::Quiet),
        ("ls", Verbosity::Quiet),
        ("-d ls", Verbosity::Debug),
    ] {
        assert_eq!(run(line).process.verbosity, expected, "{line}");
    }
}

#[test]
fn addresses_have_a_prefix() {
    let prefixes = |line: &str| {
        let addresses = run(line).addresses;
        (addresses.ipv4_prefix_len, addresses.ipv6_prefix_len)
    };
    for (line, expected) in [
        ("42", (None, None)),
        ("-n 20 42", (Some(20), None)),
        ("-n 255.255.240.0 42", (Some(20), None)),
        ("-n 255.255.255.255 42", (Some(32), None)),
        ("-n 24 -n 25 42", (Some(25), None)),
        ("-a 10.1.2.3 42", (Some(8), None)),
        ("-a 172.16.2.3 42", (Some(16), None)),
        ("-a 192.0.2.3 42", (Some(24), None)),
        ("-a 240.0.0.1 42", (Some(32), None)),
        ("-a 10.1.2.3 -n 28 42", (Some(28), None)),
        ("-n 28 -a 10.1.2.3 42", (Some(28), None)),
        ("-a 10.1.2.3/30 42", (Some(30), None)),
        ("-a 2001:db8::1 42", (None, Some(64))),
        ("-a 2001:db8::1/56 42", (None, Some(56))),
        ("-a 2001:db8::1/56 -n 24 42", (Some(24), Some(56))),
    ] {
        assert_eq!(prefixes(line), expected, "{line}");
    }
}

#[test]
fn host_is_reached_by_the_gateway_or_by_another_address() {
    let plain = run("42");
    assert!(plain.mapping.maps_gateway && plain.addresses.host_loopback == Addresses::default());
    let given = run("--no-map-gw --map-host-loopback 192.0.2.1 --map-host-loopback 192.0.2.2 \
         --map-host-loopback 2001:db8::1 42");
    assert!(!given.mapping.maps_gateway);
    assert_eq!(given.addresses.host_loopback.ipv4, Some([192, 0, 2, 2].into()));
    assert!(given.addresses.host_loopback.ipv6.is_some());
    let none = run("--map-host-loopback 192.0.2.1 --map-host-loopback none 42");
    assert!(!none.mapping.maps_gateway);
    assert_eq!(none.addresses.host_loopback, Addresses::default());
    let none = run("--map-guest-addr 192.0.2.1 --map-guest-addr none 42");
    assert_eq!(none.addresses.host_address, Addresses::default());
}

#[test]
fn resolvers_and_domains_add_up_until_none() {
    let services = |line: &str| run(line).services;
    assert_eq!((services("42").resolvers, services("42").search_domains), (None, None));
    let two = services("-D 192.0.2.1 -D ::1 -S example.org -S b 42");
    assert_eq!(two.resolvers.map(|list| list.len()), Some(2));
    assert_eq!(two.search_domains, Some(vec!["example.org".to_owned(), "b".to_owned()]));
    let none = services("-D 192.0.2.1 -D none -S a -S none 42");
    assert_eq!((none.resolvers, none.search_domains), (Some(vec![]), Some(vec![])));
    // `none` takes back what stands before it, and only that.
    let forward = |line: &str| run(line).addresses.dns_forward.ipv4.is_some();
    assert!(!forward("--dns-forward 192.0.2.1 --dns none 42"));
    assert!(forward("--dns none --dns-forward 192.0.2.1 42"));
    assert!(services("--dhcp-dns 42").tells_resolvers);
    assert!(services("--dhcp-search 42").tells_search_domains);
}

#[test]
fn options_imply_others() {
    let services = run("--no-icmp 42").services;
    assert!(!services.icmp && !services.ndp && services.router_advertisements);
    assert!(!run("--config-net 42").services.router_advertisements);
    let only = run("--splice-only --dns-forward 192.0.2.1 42");
    assert!(only.mapping.keeps_loopback && !only.services.icmp && only.services.tcp);
    assert_eq!(only.addresses.dns_forward, Addresses::default());
    assert_eq!(run("-4 -6 42").families, Families::Ipv6);
    assert_eq!(run("-6 -4 42").families, Families::Ipv4);
}

#[test]
fn values_of_other_options_are_taken() {
    let options =
        run("-l /l --log-size 40960 --runas 7:8 -p /pcap -P /pid -F 9 --chroot-fallback -m 0 \
         -M 02:00:00:00:00:01 -i eth0 -o 192.0.2.1 -o ::2 --outbound-if4 e4 --outbound-if6 e6 \
         --dns-host ::1 -H host --fqdn host.example.org --freebind --no-splice --no-tcp --no-udp \
         --no-dhcp --no-dhcpv6 --no-ndp --no-ra 42");
    let path = |text: &str| Some(PathBuf::from(text));
    let process = &options.process;
    assert_eq!((process.log_file.clone(), process.log_size), (path("/l"), 40_960));
    assert_eq!((process.pcap.clone(), process.pid_file.clone()), (path("/pcap"), path("/pid")));
    assert_eq!(process.runas, Some(RunAs { user: Name::Id(7), group: Some(Name::Id(8)) }));
    assert_eq!((options.guest.mtu, options.guest.template.as_deref()), (None, Some("eth0")));
    assert_eq!(options.guest.gateway_mac.to_string(), "02:00:00:00:00:01");
    assert_eq!(options.guest.hostname.as_deref(), Some("host"));
    assert_eq!(options.guest.fqdn.as_deref(), Some("host.example.org"));
    let addresses = &options.addresses;
    assert!(addresses.outbound.ipv4.is_some() && addresses.outbound.ipv6.is_some());
    assert_eq!(addresses.outbound_if4.as_deref(), Some("e4"));
    assert_eq!(addresses.outbound_if6.as_deref(), Some("e6"));
    assert!(addresses.dns_host.ipv6.is_some());
    assert!(options.mapping.freebind);
    assert_eq!(options.mapping.splice, Splice::Never);
    let services = options.services;
    assert!(!services.tcp && !services.udp && !services.dhcp && !services.dhcpv6);
    assert!(!services.ndp && !services.router_advertisements);
    let named = run("--runas nobody:nogroup 42").process.runas;
    let name = |text: &str| Name::Name(text.to_owned());
    assert_eq!(named, Some(RunAs { user: name("nobody"), group: Some(name("nogroup")) }));
}

#[test]
fn refused_lines_say_why() {
    for (line, text) in [
        ("-m -1", "Invalid MTU: -1"),
        ("-m 67", "MTU 67 too small (min 68)"),
        ("-6 -m 1 42", "MTU 1 too small (min 68)"),
        ("-m abc", "Invalid MTU: abc"),
        ("-m 65522", "MTU 65522 too large (max 65521)"),
        ("-m 99999999", "MTU 99999999 too large (max 65521)"),
        ("-a 192.0.2.1 -a 192.0.2.2", "Invalid address: 192.0.2.2"),
        ("-a 127.0.0.1", "Invalid address: 127.0.0.1"),
        ("-a 0.0.0.0", "Invalid address: 0.0.0.0"),
        ("-a 224.0.0.1", "Invalid address: 224.0.0.1"),
        ("-a ::1", "Invalid address: ::1"),
        ("-a foo", "Invalid address: foo"),
        ("-a 192.0.2.1/33", "Invalid address: 192.0.2.1/33"),
        ("-a 192.0.2.1/", "Invalid address: 192.0.2.1/"),
        ("-a 192.0.2.1/24 -n 24 42", "Redundant prefix length specification"),
        ("-n 24 -a 192.0.2.1/24 42", "Redundant prefix length specification"),
        ("-n 33", "Invalid netmask: 33"),
        ("-n 255.0.255.0", "Invalid netmask: 255.0.255.0"),
        ("-n 0.0.0.0", "Invalid netmask: 0.0.0.0"),
        ("-n foo", "Invalid netmask: foo"),
        ("-M foo", "Invalid MAC address: foo"),
        ("-M 9a:55:9a:55:9a:5", "Invalid MAC address: 9a:55:9a:55:9a:5"),
        ("--ns-mac-addr 01:00:00:00:00:01", "Invalid MAC address: 01:00:00:00:00:01"),
        ("-g foo", "Invalid gateway address: foo"),
        ("-g 127.0.0.1", "Invalid gateway address: 127.0.0.1"),
        ("-g 192.0.2.1 -g 192.0.2.2", "Invalid gateway address: 192.0.2.2"),
        ("-o foo", "Invalid or redundant outbound address: foo"),
        ("-o 0.0.0.0", "Invalid or redundant outbound address: 0.0.0.0"),
        ("-o ::1", "Invalid or redundant outbound address: ::1"),
        ("-o 127.0.0.1 -o 127.0.0.2", "Invalid or redundant outbound address: 127.0.0.2"),
        ("-D foo", "Cannot use DNS address foo"),
        ("--dns-forward foo", "Invalid DNS forwarding address: foo"),
        ("--dns-forward 127.0.0.1", "Invalid DNS forwarding address: 127.0.0.1"),
        (
            "--dns-forward 192.0.2.3 --dns-forward 192.0.2.4",
            "Invalid DNS forwarding address: 192.0.2.4",
        ),
        ("--dns-host foo", "Invalid DNS host address: foo"),
        ("--map-guest-addr foo", "Invalid --map-guest-addr address: foo"),
        ("--map-host-loopback foo", "Invalid --map-host-loopback address: foo"),
        ("-S a_b/c", "Invalid search domain: a_b/c"),
        ("-H a/b", "Invalid --hostname: a/b"),
        ("-I 0123456789abcdefg", "Invalid interface name: 0123456789abcdefg"),
        ("-I a/b", "Invalid interface name: a/b"),
        ("-F -1", "Invalid --fd: -1"),
        ("--log-size 5", "Invalid --log-size: 5"),
        ("--log-size 40959", "Invalid --log-size: 40959"),
        ("--log-size abc", "Invalid --log-size: abc"),
        ("--runas 99999999999", "Invalid --runas option: 99999999999"),
        ("--runas 1234:", "Invalid --runas option: 1234:"),
        ("--runas 4294967295", "Invalid --runas option: 4294967295"),
        ("--runas 7:4294967295", "Invalid --runas option: 7:4294967295"),
        ("--pid=", "Invalid --pid: "),
        ("--netns=", "Invalid --netns: "),
        ("0", "Invalid PID 0"),
        ("99999999999", "Invalid PID 99999999999"),
        ("--netns x y", "Both --netns and PID or command given"),
        ("--netns /proc/self/ns/net 12", "Both --netns and PID or command given"),
        ("--netns-only --userns /u true", "Both --userns and --netns-only given"),
        ("--userns /u --netns-only --netns x", "Both --userns and --netns-only given"),
        ("--no-copy-routes 42", "--no-copy-routes needs --config-net"),
        ("--no-copy-addrs 42", "--no-copy-addrs needs --config-net"),
        ("--host-lo-to-ns-lo --no-splice 42", "--host-lo-to-ns-lo conflicts with --no-splice"),
        ("--no-splice --splice-only 42", "--splice-only conflicts with --no-splice"),
        ("--splice-only --no-splice 42", "--no-splice conflicts with --splice-only"),
        ("--stats 1 -f 42", "--stats needs --foreground before it"),
        ("-f --stats 0 42", "Invalid --stats: 0"),
        ("-s /tmp/x 42", "--socket is for passt mode only"),
        ("-1 42", "--one-off is for passt mode only"),
        ("--no-dhcp-dns 42", "--no-dhcp-dns is for passt mode only"),
        ("--no-dhcp-search 42", "--no-dhcp-search is for passt mode only"),
        ("--vhost-user 42", "--vhost-user is for passt mode only"),
        ("--repair-path none 42", "--repair-path is for passt mode only"),
        ("-t 65536 42", "Invalid port specifier '65536'"),
        ("-T 127.0.0.1/80 42", "Listening address not allowed for -T 127.0.0.1/80"),
        ("-t 80 -t none 42", "-t none conflicts with previous options"),
    ] {
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(refusal(&words), (text.to_owned(), false), "{line}");
    }
    assert_eq!(refusal(&["-m", ""]).0, "Invalid MTU: ");
    assert_eq!(refusal(&["-D", ""]).0, "Cannot use DNS address ");
}

#[test]
fn other_mistakes_are_reported_before_ports() {
    assert_eq!(refusal(&["-t", "bad", "-m", "abc"]).0, "Invalid MTU: abc");
    assert_eq!(
        refusal(&["-t", "bad", "--netns=x", "y"]).0,
        "Both --netns and PID or command given"
    );
}

#[test]
fn grammar_is_getopts_and_the_usage_follows() {
    for (line, text) in [
        (&["--x"][..], "pasta: unrecognized option '--x'"),
        // Podman looks for this text with another option that a version does not know.
        (&["--map-guest-addrs", "1"], "pasta: unrecognized option '--map-guest-addrs'"),
        (&["-Z"], "pasta: invalid option -- 'Z'"),
        (&["-v"], "pasta: invalid option -- 'v'"),
        (&["-m"], "pasta: option requires an argument -- 'm'"),
        (&["--mtu"], "pasta: option '--mtu' requires an argument"),
        (&["--debug=1"], "pasta: option '--debug' doesn't allow an argument"),
        (
            &["--ip"],
            "pasta: option '--ip' is ambiguous; possibilities: '--ipv4-only' '--ipv6-only'",
        ),
        (&["--tcp"], "pasta: option '--tcp' is ambiguous; possibilities: '--tcp-ports' '--tcp-ns'"),
    ] {
        assert_eq!(refusal(line), (text.to_owned(), true), "{line:?}");
    }
    let options = run_words(&["-fqm1400", "--addr", "192.0.2.1", "-t8080", "--udp-p=53", "42"]);
    assert_eq!(options.guest.mtu, Some(1400));
    assert_eq!(ports(&options)[..2], ["[*]:8080  =>  8080", "[*]:53  =>  53"]);
}

#[test]
fn help_and_version_act_when_they_are_reached() {
    assert_eq!(read(&["--help", "--nope"]).command, Ok(Command::Help));
    assert_eq!(read(&["-h"]).command, Ok(Command::Help));
    assert_eq!(read(&["--vers", "-m", "abc"]).command, Ok(Command::Version));
    assert_eq!(refusal(&["-m", "abc", "--version"]).0, "Invalid MTU: abc");
    assert!(matches!(read(&["ls", "--version"]).command, Ok(Command::Run(_))));
}

#[test]
fn warnings_are_for_runs_that_may_speak() {
    let warnings = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let warnings = read(&words).warnings;
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (line, expected) in [
        ("-e 42", &[][..]),
        ("--config-net --no-copy-routes 42", &["--no-copy-routes will be dropped soon"]),
        ("--config-net --no-copy-routes -q 42", &[]),
        ("-f --stats 5 42", &["--stats has no effect"]),
        ("-m 1280 42", &[]),
        ("-m 0 42", &[]),
        ("-m 1279 42", &["MTU 1279 is too small for IPv6 (min 1280)"]),
        ("-4 -m 1279 42", &[]),
        ("-m 68 42", &["MTU 68 is too small for IPv6 (min 1280)"]),
        ("-4 -m 68 42", &[]),
        ("-F 9 42", &["--fd has no effect"]),
        ("--chroot-fallback 42", &["--chroot-fallback has no effect"]),
    ] {
        assert_eq!(warnings(line), expected, "{line}");
    }
}

#[test]
fn no_bytes_make_the_parser_panic() {
    let strange = OsString::from_vec(vec![0xff, 0xfe]);
    let words = OPTIONS.iter().map(|option| OsString::from(format!("--{}", option.long)));
    for first in words.chain(["--".into(), "5".into()]) {
        for second in [strange.clone(), OsString::new(), "5".into()] {
            let line = [first.clone(), second, strange.clone(), strange.clone()];
            if let Err(error) = parse(Mode::Pasta, line, &EPHEMERAL).command {
                let _ = error.text(&strange);
            }
        }
    }
}
