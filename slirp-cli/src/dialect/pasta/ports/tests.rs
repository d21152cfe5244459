//! Values of the options for ports: what they mean, what is refused, and that a printed value means
//! the same.

use proptest::prelude::*;

use super::rules::{EPHEMERAL, MAX_RULES, PortError, PortOption, PortRules};
use super::*;

use PortOption::{TcpToGuest, TcpToHost, UdpToGuest};

/// The rules of `given`, with all that is not given closed.
fn rules(given: &[(PortOption, &str)]) -> Result<PortRules, PortError> {
    let is_given = |option: &PortOption| given.iter().any(|(other, _)| other == option);
    let closed = PortOption::ALL.into_iter().filter(|option| !is_given(option));
    let closed = closed.map(|option| (option, "none"));
    PortRules::new(closed.chain(given.iter().copied()), &EPHEMERAL)
}

/// The rules of `-t TEXT`, as they are shown.
fn shown(text: &str) -> Vec<String> {
    let rules = rules(&[(TcpToGuest, text)]).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert!(rules.outbound.is_empty());
    rules.inbound.iter().map(ToString::to_string).collect()
}

fn refusal(given: &[(PortOption, &str)]) -> String {
    rules(given).expect_err(&format!("{given:?}")).to_string()
}

#[test]
fn ranges_lead_to_the_same_ports_or_to_as_many_others() {
    for (text, expected) in [
        ("none", &[][..]),
        ("22", &["TCP [*]:22  =>  22"]),
        ("22:23", &["TCP [*]:22  =>  23"]),
        ("22-80:32-90", &["TCP [*]:22-80  =>  32-90"]),
        ("1-65535", &["TCP [*]:1-65535  =>  1-65535"]),
        ("22,80:8080", &["TCP [*]:22  =>  22", "TCP [*]:80  =>  8080"]),
        (" 80,443", &["TCP [*]:80  =>  80", "TCP [*]:443  =>  443"]),
        ("80, 443", &["TCP [*]:80  =>  80", "TCP [*]:443  =>  443"]),
        ("00080", &["TCP [*]:80  =>  80"]),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn ports_are_open_at_an_address_or_an_interface() {
    for (text, expected) in [
        ("127.0.0.1/8080-8080:80-80", "TCP [127.0.0.1]:8080  =>  80"),
        ("::1/8080-8080:80-80", "TCP [::1]:8080  =>  80"),
        ("[::1]/80", "TCP [::1]:80  =>  80"),
        ("[127.0.0.1]/80", "TCP [127.0.0.1]:80  =>  80"),
        ("0.0.0.0/80", "TCP [0.0.0.0]:80  =>  80"),
        ("::ffff:127.0.0.1/80", "TCP [127.0.0.1]:80  =>  80"),
        ("0.0.0.0/80:::ffff:192.0.2.5/81", "TCP [0.0.0.0]:80  =>  [192.0.2.5]:81"),
        ("*/80", "TCP [*]:80  =>  80"),
        ("/80", "TCP [*]:80  =>  80"),
        ("%eth0/80", "TCP [*%eth0]:80  =>  80"),
        ("*%eth0/80", "TCP [*%eth0]:80  =>  80"),
        ("192.0.2.1%eth0/80:81", "TCP [192.0.2.1%eth0]:80  =>  81"),
        ("fe80::1%eth0/80", "TCP [fe80::1%eth0]:80  =>  80"),
        ("0.0.0.0/5000:192.0.2.5/6000", "TCP [0.0.0.0]:5000  =>  [192.0.2.5]:6000"),
        ("0.0.0.0/5000-5001:192.0.2.5", "TCP [0.0.0.0]:5000-5001  =>  [192.0.2.5]:5000-5001"),
        ("[::]/8080:fd00::2/80", "TCP [::]:8080  =>  [fd00::2]:80"),
        ("[::]/8080:[fd00::2]/80", "TCP [::]:8080  =>  [fd00::2]:80"),
    ] {
        assert_eq!(shown(text), [expected], "{text}");
    }
}

#[test]
fn lists_without_ports_stand_for_all_that_the_system_does_not_give_out() {
    let weak = "TCP [*]:1-49151  =>  1-49151  (best effort)";
    let scanned = format!("{weak}  (auto-scan)");
    assert_eq!(shown("all"), [weak]);
    assert_eq!(shown("auto"), [scanned.as_str()]);
    assert_eq!(
        shown("~22,~80-90"),
        [
            "TCP [*]:1-21  =>  1-21  (best effort)",
            "TCP [*]:23-79  =>  23-79  (best effort)",
            "TCP [*]:91-49151  =>  91-49151  (best effort)",
        ]
    );
    assert_eq!(shown("~2-65535"), ["TCP [*]:1  =>  1  (best effort)"]);
    assert_eq!(
        shown("0.0.0.0/all:192.0.2.5"),
        ["TCP [0.0.0.0]:1-49151  =>  [192.0.2.5]:1-49151  (best effort)"]
    );
    assert_eq!(shown("8000-8010,auto"), ["TCP [*]:8000-8010  =>  8000-8010  (auto-scan)"]);
    assert_eq!(shown("::1/auto"), ["TCP [::1]:1-49151  =>  1-49151  (best effort)  (auto-scan)"]);
    assert_eq!(
        shown("auto,~1-49149"),
        ["TCP [*]:49150-49151  =>  49150-49151  (best effort)  (auto-scan)"]
    );
    let given = PortOption::ALL.map(|option| (option, "all"));
    let odd = PortRules::new(given, &(1000..=2000)).unwrap();
    let ports: Vec<_> = odd.inbound.iter().map(|rule| rule.ports.to_string()).collect();
    assert_eq!(ports, ["1-999", "2001-65535", "1-999", "2001-65535"]);
}

#[test]
fn excluded_ports_are_left_out_wherever_they_stand() {
    for (text, expected) in [
        (
            "~8005,8000-8010",
            &["TCP [*]:8000-8004  =>  8000-8004", "TCP [*]:8006-8010  =>  8006-8010"][..],
        ),
        ("22-24:32-34,~23", &["TCP [*]:22  =>  32", "TCP [*]:24  =>  34"]),
        ("10-20,~5-10,~20-30", &["TCP [*]:11-19  =>  11-19"]),
        ("10-20,~15-17,~12-16", &["TCP [*]:10-11  =>  10-11", "TCP [*]:18-20  =>  18-20"]),
        ("10-20,~30", &["TCP [*]:10-20  =>  10-20"]),
        ("65534-65535,~65535", &["TCP [*]:65534  =>  65534"]),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn options_that_are_not_given_are_automatic() {
    let all = PortRules::new([], &EPHEMERAL).unwrap();
    let shown: Vec<_> = all.inbound.iter().chain(&all.outbound).map(ToString::to_string).collect();
    let rule =
        |protocol| format!("{protocol} [*]:1-49151  =>  1-49151  (best effort)  (auto-scan)");
    assert_eq!(shown, [rule("TCP"), rule("UDP"), rule("TCP"), rule("UDP")]);

    let some = PortRules::new([(TcpToGuest, "80"), (UdpToGuest, "none")], &EPHEMERAL).unwrap();
    assert_eq!((some.inbound.len(), some.outbound.len()), (1, 2));
}

#[test]
fn values_that_are_none_are_refused_by_their_text() {
    for text in [
        "",
        "0",
        "0-5",
        "65536",
        "abc",
        "80:81:82",
        "80-70",
        "80-",
        "-80",
        "80:",
        "80,",
        ",80",
        "80 ",
        "+80",
        "0x50",
        "1-2-3",
        "~",
        "~all",
        "all:80",
        "auto:80",
        "foo/80",
        "127.0.0.1/",
        "127.0.0.1%/80",
        "127.0.0.1/none",
        "80,none",
        "NONE",
        "[::1/80",
        "::1]/80",
        "%0123456789abcdef/80",
        "127.0.0.1/80/81",
        "80:192.0.2.1/",
        "\u{ff10}",
    ] {
        assert_eq!(refusal(&[(TcpToGuest, text)]), format!("Invalid port specifier '{text}'"));
    }
    for (text, why) in [
        ("1-2:3", "both ranges need the same number of ports"),
        ("1-2:3-5", "both ranges need the same number of ports"),
        ("80:192.0.2.1/80", "a target address needs a listening address of its family"),
        ("*/80:192.0.2.1/80", "a target address needs a listening address of its family"),
        ("::1/80:192.0.2.1", "a target address needs a listening address of its family"),
        ("all:192.0.2.1", "a target address needs a listening address of its family"),
        ("0.0.0.0/80:224.0.0.1", "the target has to be the address of one host"),
        ("0.0.0.0/80:0.0.0.0/80", "the target has to be the address of one host"),
        ("0.0.0.0/80:255.255.255.255", "the target has to be the address of one host"),
    ] {
        let expected = format!("Invalid port specifier '{text}' ({why})");
        assert_eq!(refusal(&[(TcpToGuest, text)]), expected);
    }
    assert_eq!(
        refusal(&[(TcpToGuest, "80,~80")]),
        "Failed to bind any port for '-t 80,~80', exiting"
    );
    for text in ["127.0.0.1/80", "%lo/80", "0.0.0.0/80:192.0.2.1"] {
        let expected = format!("Listening address not allowed for -T {text}");
        assert_eq!(refusal(&[(TcpToHost, text)]), expected);
    }
}

#[test]
fn rules_that_claim_one_port_conflict() {
    let conflicts = |first: &str, second: &str| {
        rules(&[(TcpToGuest, first), (TcpToGuest, second)]).is_err()
            && rules(&[(TcpToGuest, second), (TcpToGuest, first)]).is_err()
    };
    for (first, second, expected) in [
        ("80", "80", true),
        ("80", "81", false),
        ("80-90", "85", true),
        ("80", "127.0.0.1/80", true),
        ("80", "::1/80", true),
        ("0.0.0.0/80", "127.0.0.1/80", true),
        ("0.0.0.0/80", "[::]/80", false),
        ("0.0.0.0/80", "::1/80", false),
        ("127.0.0.1/80", "127.0.0.2/80", false),
        ("%lo/80", "%eth0/80", false),
        ("%lo/80", "127.0.0.1%lo/80", true),
        ("%lo/80", "80", true),
        ("auto", "auto", true),
        ("auto", "80", true),
        ("80:81", "82:81", false),
    ] {
        assert_eq!(conflicts(first, second), expected, "{first} {second}");
    }
    assert_eq!(
        refusal(&[(TcpToGuest, "8080:80"), (TcpToGuest, "127.0.0.1/8000-8090")]),
        "Forwarding configuration conflict: TCP [127.0.0.1]:8000-8090  =>  8000-8090 versus TCP \
         [*]:8080  =>  80"
    );
    assert!(refusal(&[(TcpToGuest, "80,80")]).starts_with("Forwarding configuration conflict: "));
    assert!(rules(&[(TcpToGuest, "80"), (UdpToGuest, "80"), (TcpToHost, "80")]).is_ok());
}

#[test]
fn none_is_for_options_without_rules() {
    assert!(rules(&[(TcpToGuest, "none"), (TcpToGuest, "none")]).is_ok());
    assert_eq!(rules(&[(TcpToGuest, "none"), (TcpToGuest, "80")]).unwrap().inbound.len(), 1);
    assert!(rules(&[(UdpToGuest, "80"), (TcpToGuest, "none")]).is_ok());
    for (option, letter) in [(TcpToGuest, 't'), (TcpToHost, 'T')] {
        let expected = format!("-{letter} none conflicts with previous options");
        assert_eq!(refusal(&[(option, "80"), (option, "none")]), expected);
    }
}

#[test]
fn rules_of_a_direction_are_counted() {
    let list = |count: u32| {
        let ports: Vec<_> = (1..=count).map(|at| (2 * at).to_string()).collect();
        ports.join(",")
    };
    let most = u32::try_from(MAX_RULES).unwrap();
    assert_eq!(rules(&[(TcpToGuest, &list(most))]).unwrap().inbound.len(), MAX_RULES);
    let error = refusal(&[(TcpToGuest, &list(most + 1))]);
    assert!(error.starts_with("Too many port forwarding rules for '-t 2,4,"), "{error}");
    assert!(error.ends_with("' (max 255 a direction)"), "{error}");
}

fn ports() -> impl Strategy<Value = PortRange> {
    (1_u16.., 1_u16..).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap())
}

/// A range and as many ports elsewhere.
fn pair() -> impl Strategy<Value = (PortRange, Option<PortRange>)> {
    (ports(), any::<Option<u16>>()).prop_map(|(ports, to)| {
        let len = ports.last() - ports.first();
        let to = to.map(|to| 1 + to % (u16::MAX - len));
        (ports, to.map(|to| PortRange::new(to, to + len).unwrap()))
    })
}

fn chunk(target: Option<IpAddr>) -> impl Strategy<Value = Chunk> {
    prop_oneof![
        Just(Chunk::All(target)),
        Just(Chunk::Auto),
        ports().prop_map(Chunk::Except),
        (pair(), any::<bool>()).prop_map(move |((ports, to), has_target)| Chunk::Range {
            ports,
            target: target.filter(|_| has_target),
            to,
        }),
    ]
}

/// An address, IPv4 in its only form.
fn address() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>().prop_map(|address| address.to_canonical())
}

fn spec() -> impl Strategy<Value = PortSpec> {
    let of_one_host = |address: &IpAddr| !address.is_multicast() && !address.is_unspecified();
    let target = proptest::option::of(address().prop_filter("host", of_one_host));
    let listener = (proptest::option::of(address()), proptest::option::of("[a-z][a-z0-9.]{0,14}"));
    let ports = (listener, target).prop_flat_map(|((address, interface), target)| {
        let target = target
            .filter(|target| address.is_some_and(|it: IpAddr| it.is_ipv4() == target.is_ipv4()));
        let chunks = proptest::collection::vec(chunk(target), 1..5);
        (Just(Listener { address, interface }), chunks)
    });
    prop_oneof![
        1 => Just(PortSpec::None),
        20 => ports.prop_map(|(listener, chunks)| PortSpec::Ports(listener, chunks)),
    ]
}

proptest! {
    #[test]
    fn printed_value_means_the_same(spec in spec()) {
        let text = spec.to_string();
        prop_assert_eq!(PortSpec::parse(&text), Ok(spec), "{}", text);
    }

    #[test]
    fn what_is_read_is_printed_so_that_it_means_the_same(text in "[0-9a-f:.~,/%*\\[\\] -]{0,20}") {
        if let Ok(spec) = PortSpec::parse(&text) {
            prop_assert_eq!(PortSpec::parse(&spec.to_string()), Ok(spec));
        }
    }

    /// No rule covers an excluded port, and every other port of the list is covered once.
    #[test]
    fn rules_cover_the_ports_of_the_list(
        ranges in proptest::collection::vec(ports(), 1..4),
        holes in proptest::collection::vec(ports(), 0..4),
        port in 1_u16..,
    ) {
        let mut chunks: Vec<_> = ranges.iter().map(ToString::to_string).collect();
        chunks.extend(holes.iter().map(|hole| format!("~{hole}")));
        let Ok(rules) = rules(&[(TcpToGuest, &chunks.join(","))]) else { return Ok(()) };
        let one = PortRange::new(port, port).unwrap();
        let is_in = |list: &[PortRange]| list.iter().any(|range| range.overlaps(one));
        let covering = rules.inbound.iter().filter(|rule| rule.ports.overlaps(one)).count();
        prop_assert_eq!(covering, usize::from(is_in(&ranges) && !is_in(&holes)));
    }
}
