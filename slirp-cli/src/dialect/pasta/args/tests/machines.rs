//! Command lines of passt(1): those of its callers, and those that belong to pasta(1).

use super::*;

fn read_passt(line: &str) -> Parsed {
    parse(Mode::Passt, line.split_whitespace().map(OsString::from), &EPHEMERAL)
}

fn passt(line: &str) -> PastaOptions {
    match read_passt(line).command {
        Ok(Command::Run(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

fn passt_refusal(line: &str) -> (String, bool) {
    let error = read_passt(line).command.expect_err(line);
    let text = error.text(OsStr::new("passt"));
    (String::from_utf8(text).unwrap(), error.shows_usage())
}

#[test]
fn callers_connect_their_machine() {
    let socket = |path: Option<&str>, is_one_off| Place::Socket {
        path: path.map(PathBuf::from),
        is_one_off,
    };
    for (caller, line, place) in [
        ("nobody", "", socket(None, false)),
        (
            "libvirt",
            "--one-off --socket /run/s --mac-addr 52:54:00:aa:bb:cc --pid /run/p --mtu 1500 \
             --interface eth0 --log-file /run/l --address 192.0.2.5 --netmask 24 \
             --tcp-ports 192.0.2.1/2001-2002:10001-10002,~2002 --udp-ports 4000",
            socket(Some("/run/s"), true),
        ),
        ("QEMU", "--quiet --pid /run/p --fd 3", Place::Descriptor(3)),
        ("crun", "-t all -u all --no-dhcp-dns --no-map-gw --fd 9", Place::Descriptor(9)),
        ("muvm", "-q -f --fd 7 -t 8080-8080:80-80 -u 53-53:53-53", Place::Descriptor(7)),
    ] {
        assert_eq!(passt(line).target.place, place, "{caller}");
    }
}

#[test]
fn machine_has_no_ports_but_those_that_are_given() {
    let options = passt("-t 80");
    assert_eq!(
        ports(&options),
        ["80  =>  80", "", "", ""].map(|it| match it {
            "" => String::new(),
            rule => format!("[*]:{rule}"),
        })
    );
    assert_eq!(passt("").ports, PortRules::default());
}

#[test]
fn machine_is_told_of_resolvers_unless_it_is_not_to_be() {
    let told = |line: &str| {
        let services = passt(line).services;
        (services.tells_resolvers, services.tells_search_domains)
    };
    assert_eq!(told(""), (true, true));
    assert_eq!(told("--no-dhcp-dns"), (false, true));
    assert_eq!(told("--no-dhcp-search"), (true, false));
}

#[test]
fn what_is_of_pasta_or_not_offered_is_refused() {
    let pasta = |name: &str| format!("--{name} is for pasta mode only");
    let unsupported = |name: &str| {
        format!("--{name} is not supported: connect the machine to the socket of --socket or --fd")
    };
    for (line, text) in [
        ("--config-net", pasta("config-net")),
        ("--netns /n", pasta("netns")),
        ("-T 80", pasta("tcp-ns")),
        ("--dhcp-dns", pasta("dhcp-dns")),
        ("--vhost-user --socket /s", unsupported("vhost-user")),
        ("--print-capabilities", unsupported("print-capabilities")),
        ("7", "Extra non-option argument: 7".to_owned()),
        ("-t auto", "'auto' port forwarding is only allowed for pasta".to_owned()),
        ("--fd 3 -s /s", "--fd conflicts with --socket".to_owned()),
    ] {
        assert_eq!(passt_refusal(line), (text, false), "{line}");
    }
    let (text, shows_usage) = passt_refusal("--bogus");
    assert_eq!((text.as_str(), shows_usage), ("passt: unrecognized option '--bogus'", true));
    for option in ["--repair-path none", "--migrate-exit", "--migrate-no-linger"] {
        let parsed = read_passt(option);
        assert_eq!(parsed.warnings.len(), 1, "{option}");
        assert!(parsed.command.is_ok(), "{option}");
    }
}
