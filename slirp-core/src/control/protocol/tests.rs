//! Every row of the contract.

use super::*;
use crate::plan::AddressPlan;

fn parsed(bytes: &[u8]) -> Option<Result<Request, Refusal>> {
    parse(bytes, true, AssumedGuest::new(AddressPlan::default(), None))
}

fn refused(request: &str) -> String {
    match parsed(request.as_bytes()) {
        Some(Err(refusal)) => refusal.reply(),
        other => panic!("{request}: {other:?}"),
    }
}

fn added_as(arguments: &str) -> Result<Forward, String> {
    let request = format!("{{\"execute\":\"add_hostfwd\",\"arguments\":{arguments}}}");
    match parsed(request.as_bytes()) {
        Some(Ok(Request::AddForward(forward))) => Ok(forward),
        Some(Err(refusal)) => Err(refusal.to_string()),
        other => panic!("{arguments}: {other:?}"),
    }
}

#[test]
fn invalid_requests_are_refused_in_the_known_words() {
    let error = |desc: &str| format!("{{\"error\":{{\"desc\":\"bad request: {desc}\"}}}}");
    for (request, desc) in [
        ("", "cannot parse JSON"),
        ("\n", "cannot parse JSON"),
        ("hello", "cannot parse JSON"),
        ("{\"execute\"", "cannot parse JSON"),
        ("[]", "json_object() failed"),
        ("7", "json_object() failed"),
        ("null", "json_object() failed"),
        ("\"list_hostfwd\"", "json_object() failed"),
        ("{}", "no execute found"),
        ("{\"execute\":7}", "no execute found"),
        ("{\"execute\":\"reboot\"}", "unknown execute"),
        ("\u{feff}{\"execute\":\"reboot\"}", "unknown execute"),
        ("\u{feff}", "cannot parse JSON"),
        ("{\"execute\":\"remove_hostfwd\"}", "remove_hostfwd: bad arguments.id"),
        (
            "{\"execute\":\"remove_hostfwd\",\"arguments\":{\"id\":\"1\"}}",
            "remove_hostfwd: bad arguments.id",
        ),
        ("{\"execute\":\"add_hostfwd\"}", "add_hostfwd: bad arguments.proto"),
    ] {
        assert_eq!(refused(request), error(desc), "{request}");
    }
}

#[test]
fn a_message_of_4096_bytes_is_too_large_and_one_less_is_not() {
    let mut message = b"{\"execute\":\"list_hostfwd\"}".to_vec();
    message.resize(4095, b' ');
    assert_eq!(parsed(&message), Some(Ok(Request::ListForwards)));
    message.push(b' ');
    assert_eq!(parsed(&message), Some(Err(Refusal::TooLarge)));
}

#[test]
fn the_first_complete_value_is_the_request_and_what_follows_does_not_matter() {
    let assumed = AssumedGuest::new(AddressPlan::default(), None);
    let whole = b"{\"execute\":\"list_hostfwd\"} and more";
    for len in 0..25 {
        assert_eq!(parse(&whole[..len], false, assumed), None, "{len}");
    }
    for len in 26..=whole.len() {
        assert_eq!(parse(&whole[..len], false, assumed), Some(Ok(Request::ListForwards)), "{len}");
    }
}

#[test]
fn podmans_request_is_understood() {
    let forward = added_as(
        "{\"proto\":\"tcp\",\"host_addr\":\"0.0.0.0\",\"host_port\":8080,\"guest_addr\":\"\",\
         \"guest_port\":80}",
    );
    assert_eq!(
        forward,
        Ok(Forward::everywhere(ForwardProtocol::Tcp, 8080, "10.0.2.100:80".parse().unwrap()))
    );
}

/// The rule in short, for a guest that has these addresses.
fn rule_for(arguments: &str, ipv6: Option<&str>) -> Result<String, String> {
    let ipv6 = ipv6.map(|text| text.parse().unwrap());
    let assumed = AssumedGuest { ipv4: "10.0.2.100".parse().unwrap(), ipv6 };
    let request = format!(
        "{{\"execute\":\"add_hostfwd\",\"arguments\":{{{arguments},\
         \"host_port\":8080,\"guest_port\":80}}}}"
    );
    match parse(request.as_bytes(), true, assumed) {
        Some(Ok(Request::AddForward(rule))) => {
            let also = if rule.also_ipv6 { " and [::]" } else { "" };
            Ok(format!("{}{also} to {}", rule.host.ip(), rule.guest.ip()))
        }
        Some(Err(refusal)) => Err(refusal.to_string()),
        other => panic!("{arguments}: {other:?}"),
    }
}

#[test]
fn host_address_is_of_either_version_unless_the_protocol_names_one() {
    let tcp = |host: &str| rule_for(&format!("\"proto\":\"tcp\",\"host_addr\":\"{host}\""), None);
    assert_eq!(tcp(""), Ok("0.0.0.0 and [::] to 10.0.2.100".into()));
    assert_eq!(tcp("0.0.0.0"), tcp(""));
    assert_eq!(tcp("127.0.0.1"), Ok("127.0.0.1 to 10.0.2.100".into()));
    assert_eq!(tcp("::"), Ok(":: to 10.0.2.100".into()));
    assert_eq!(tcp("::1"), Ok("::1 to 10.0.2.100".into()));
    for (arguments, with_ipv6, without) in [
        ("\"proto\":\"tcp\"", "0.0.0.0 and [::] to 10.0.2.100", None),
        ("\"proto\":\"tcp4\"", "0.0.0.0 to 10.0.2.100", None),
        ("\"proto\":\"udp4\",\"host_addr\":\"0.0.0.0\"", "0.0.0.0 to 10.0.2.100", None),
        ("\"proto\":\"udp\",\"host_addr\":\"::1\"", "::1 to 10.0.2.100", None),
        ("\"proto\":\"udp6\",\"host_addr\":\"::1\"", "::1 to fd00::9", Some("::1 to 10.0.2.100")),
        ("\"proto\":\"tcp6\"", ":: to fd00::9", Some(":: to 10.0.2.100")),
        ("\"proto\":\"tcp\",\"host_addr6\":\"::1\"", "::1 to fd00::9", Some("::1 to 10.0.2.100")),
        (
            "\"proto\":\"tcp\",\"host_addr\":\"127.0.0.1\",\"guest_addr6\":\"fd00::5\"",
            "127.0.0.1 to fd00::5",
            None,
        ),
        (
            "\"proto\":\"tcp6\",\"host_addr6\":\"::1\",\"guest_addr\":\"10.0.2.15\"",
            "::1 to 10.0.2.15",
            None,
        ),
    ] {
        assert_eq!(rule_for(arguments, Some("fd00::9")).as_deref(), Ok(with_ipv6), "{arguments}");
        let without = without.unwrap_or(with_ipv6);
        assert_eq!(rule_for(arguments, None).as_deref(), Ok(without), "{arguments}");
    }
}

#[test]
fn port_0_of_the_host_is_for_one_port() {
    let rule = added_as("{\"proto\":\"tcp\",\"host_port\":0,\"guest_port\":80}").unwrap();
    assert_eq!((rule.host.port(), rule.ports), (0, 1));
    for end in ["0", "9"] {
        let range = format!(
            "{{\"proto\":\"tcp\",\"host_port\":0,\"host_port_end\":{end},\"guest_port\":80}}"
        );
        let refused = "add_hostfwd: bad arguments.host_port_end".to_owned();
        assert_eq!(added_as(&range), Err(refused), "{end}");
    }
}

#[test]
fn the_first_bad_argument_is_named() {
    for (arguments, name) in [
        ("{}", "proto"),
        ("{\"proto\":\"sctp\",\"host_addr\":\"x\"}", "proto"),
        ("{\"proto\":\"tcp\",\"host_addr\":\"x\"}", "host_addr"),
        ("{\"proto\":\"tcp4\",\"host_addr\":\"::1\",\"host_port\":1}", "host_addr"),
        ("{\"proto\":\"tcp6\",\"host_addr\":\"127.0.0.1\",\"host_port\":1}", "host_addr"),
        ("{\"proto\":\"tcp\"}", "host_port"),
        ("{\"proto\":\"tcp\",\"host_port\":-1}", "host_port"),
        ("{\"proto\":\"tcp\",\"host_port\":70000}", "host_port"),
        ("{\"proto\":\"tcp\",\"host_port\":\"80\"}", "host_port"),
        ("{\"proto\":\"tcp\",\"host_port\":80,\"guest_addr\":\"x\"}", "guest_addr"),
        ("{\"proto\":\"udp\",\"host_port\":80}", "guest_port"),
        ("{\"proto\":\"udp\",\"host_port\":80,\"guest_port\":65536}", "guest_port"),
        ("{\"proto\":\"tcp\",\"host_port\":80,\"guest_addr\":\"fd00::64\"}", "guest_addr"),
        ("{\"proto\":\"udp\",\"host_port\":80,\"guest_port\":0}", "guest_port"),
        ("{\"proto\":\"tcp6\",\"host_addr6\":\"1.2.3.4\",\"host_port\":80}", "host_addr6"),
    ] {
        let expected = format!("add_hostfwd: bad arguments.{name}");
        assert_eq!(added_as(arguments), Err(expected), "{arguments}");
    }
}

#[test]
fn fractions_of_ports_are_cut_off() {
    let forward = added_as("{\"proto\":\"udp4\",\"host_port\":80.9,\"guest_port\":8e1}").unwrap();
    assert_eq!((forward.host.port(), forward.guest.port()), (80, 80));
    assert_eq!(forward.protocol, ForwardProtocol::Udp);
}

#[test]
fn ipv6_is_meant_by_the_protocol_or_by_the_arguments() {
    for arguments in [
        "{\"proto\":\"tcp6\",\"host_port\":80,\"guest_addr6\":\"fd00::64\",\"guest_port\":8080}",
        "{\"proto\":\"tcp\",\"host_port\":80,\"guest_addr6\":\"fd00::64\",\"guest_port\":8080}",
    ] {
        let forward = added_as(arguments).unwrap();
        assert_eq!(forward.host, "[::]:80".parse().unwrap());
        assert_eq!(forward.guest, "[fd00::64]:8080".parse().unwrap());
    }
}

#[test]
fn an_ipv6_guest_is_assumed_where_the_plan_has_one() {
    let plan = AddressPlan::default().with_ipv6(crate::plan::Ipv6Plan::default());
    let assumed = AssumedGuest::new(plan, None);
    for arguments in [
        "{\"proto\":\"tcp6\",\"host_port\":80,\"guest_port\":8080}",
        "{\"proto\":\"tcp\",\"host_addr6\":\"::\",\"host_port\":80,\"guest_port\":8080}",
        "{\"proto\":\"tcp6\",\"host_port\":80,\"guest_addr6\":\"\",\"guest_port\":8080}",
    ] {
        let request = format!("{{\"execute\":\"add_hostfwd\",\"arguments\":{arguments}}}");
        let Some(Ok(Request::AddForward(forward))) = parse(request.as_bytes(), true, assumed)
        else {
            panic!("{arguments}");
        };
        assert_eq!(forward.host, "[::]:80".parse().unwrap());
        assert_eq!(forward.guest, "[fd00::100]:8080".parse().unwrap());
    }
}

#[test]
fn unknown_keys_are_ignored() {
    let forward = added_as(
        "{\"proto\":\"tcp\",\"host_port\":80,\"guest_port\":80,\"colour\":[1,{}],\
         \"host_port_end\":null}",
    );
    assert!(forward.is_ok(), "{forward:?}");
    assert_eq!(
        parsed(b"{\"arguments\":7,\"execute\":\"list_hostfwd\",\"id\":null}"),
        Some(Ok(Request::ListForwards))
    );
}

#[test]
fn a_range_is_as_many_ports_of_the_guest() {
    let range = |end: &str, guest: &str| {
        added_as(&format!(
            "{{\"proto\":\"udp\",\"host_port\":8000,\"host_port_end\":{end},\
             \"guest_port\":{guest}}}"
        ))
        .map(|rule| (rule.host.port(), rule.last_host_port(), rule.guest.port(), rule.ports))
    };
    assert_eq!(range("8002", "80"), Ok((8000, 8002, 80, 3)));
    assert_eq!(range("8000", "80"), Ok((8000, 8000, 80, 1)));
    assert_eq!(range("65535", "8000"), Ok((8000, 65_535, 8000, 57_536)));
    let bad = |name: &str| Err(format!("add_hostfwd: bad arguments.{name}"));
    for end in ["7999", "0", "-1", "65536", "\"8002\"", "[]"] {
        assert_eq!(range(end, "80"), bad("host_port_end"), "{end}");
    }
    assert_eq!(range("8002", "65534"), bad("guest_port"));
}

#[test]
fn several_rules_are_removed_by_their_first_and_last_id() {
    let remove = |arguments: &str| {
        parsed(format!("{{\"execute\":\"remove_hostfwd\",\"arguments\":{arguments}}}").as_bytes())
    };
    assert_eq!(remove("{\"id\":3}"), Some(Ok(Request::RemoveForwards(3..=3))));
    assert_eq!(remove("{\"id\":3,\"id_end\":5}"), Some(Ok(Request::RemoveForwards(3..=5))));
    for arguments in ["{\"id\":3,\"id_end\":2}", "{\"id\":3,\"id_end\":\"5\"}"] {
        assert_eq!(remove(arguments), Some(Err(Refusal::RemoveIdEnd)), "{arguments}");
    }
}

#[test]
fn a_part_of_the_flows_is_asked_for_by_where_it_begins() {
    let flows = |arguments: &str| {
        parsed(format!("{{\"execute\":\"list_flows\",\"arguments\":{arguments}}}").as_bytes())
    };
    let part = |from, limit| Some(Ok(Request::ListFlows { from, limit }));
    assert_eq!(parsed(b"{\"execute\":\"list_flows\"}"), part(0, FLOWS_CAP));
    assert_eq!(flows("{\"from\":512,\"limit\":2}"), part(512, 2));
    assert_eq!(flows("{\"from\":null,\"limit\":1000}"), part(0, 1000));
    for (arguments, name) in [
        ("{\"from\":-1}", "from"),
        ("{\"from\":\"1\"}", "from"),
        ("{\"from\":4294967296}", "from"),
        ("{\"limit\":0}", "limit"),
        ("{\"limit\":1001}", "limit"),
    ] {
        assert_eq!(flows(arguments), Some(Err(Refusal::FlowsArgument(name))), "{arguments}");
    }
}

#[test]
fn refusals_are_exact_json() {
    assert_eq!(
        Refusal::AddFailed("a \"quoted\" word".to_owned()).reply(),
        "{\"error\":{\"desc\":\"bad request: add_hostfwd: slirp_add_hostfwd failed: \
         a \\\"quoted\\\" word\"}}"
    );
}
