//! Every row of the contract.

use super::*;

fn parsed(bytes: &[u8]) -> Option<Result<Request, Refusal>> {
    parse(bytes, true, &AddressPlan::default())
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
fn requests_that_are_no_commands_are_refused_in_the_known_words() {
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
    let plan = AddressPlan::default();
    let whole = b"{\"execute\":\"list_hostfwd\"} and more";
    for len in 0..25 {
        assert_eq!(parse(&whole[..len], false, &plan), None, "{len}");
    }
    for len in 26..=whole.len() {
        assert_eq!(parse(&whole[..len], false, &plan), Some(Ok(Request::ListForwards)), "{len}");
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
        Ok(Forward {
            protocol: ForwardProtocol::Tcp,
            host: "0.0.0.0:8080".parse().unwrap(),
            guest: "10.0.2.100:80".parse().unwrap(),
        })
    );
}

#[test]
fn the_first_bad_argument_is_named() {
    for (arguments, name) in [
        ("{}", "proto"),
        ("{\"proto\":\"sctp\",\"host_addr\":\"x\"}", "proto"),
        ("{\"proto\":\"tcp\",\"host_addr\":\"x\"}", "host_addr"),
        ("{\"proto\":\"tcp\",\"host_addr\":\"::1\",\"host_port\":1}", "host_addr"),
        ("{\"proto\":\"tcp\"}", "host_port"),
        ("{\"proto\":\"tcp\",\"host_port\":0}", "host_port"),
        ("{\"proto\":\"tcp\",\"host_port\":-1}", "host_port"),
        ("{\"proto\":\"tcp\",\"host_port\":70000}", "host_port"),
        ("{\"proto\":\"tcp\",\"host_port\":\"80\"}", "host_port"),
        ("{\"proto\":\"tcp\",\"host_port\":80,\"guest_addr\":\"x\"}", "guest_addr"),
        ("{\"proto\":\"udp\",\"host_port\":80}", "guest_port"),
        ("{\"proto\":\"udp\",\"host_port\":80,\"guest_port\":65536}", "guest_port"),
        ("{\"proto\":\"tcp6\",\"host_port\":80,\"guest_port\":80}", "guest_addr6"),
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
fn replies_are_exact() {
    assert_eq!(added(ForwardId(1)), "{\"return\":{\"id\":1}}");
    assert_eq!(removed(), "{\"return\":{}}");
    assert_eq!(
        Refusal::AddFailed.reply(),
        "{\"error\":{\"desc\":\"bad request: add_hostfwd: slirp_add_hostfwd failed\"}}"
    );
    assert_eq!(listed(&[]), "{\"return\":{\"entries\":[]},\"entries\":[]}");
    let v4 = Forward {
        protocol: ForwardProtocol::Tcp,
        host: "0.0.0.0:8080".parse().unwrap(),
        guest: "10.0.2.100:80".parse().unwrap(),
    };
    let v6 = Forward {
        protocol: ForwardProtocol::Udp,
        host: "[::1]:53".parse().unwrap(),
        guest: "[fd00::64]:53".parse().unwrap(),
    };
    let entries = "[{\"id\":1,\"proto\":\"tcp\",\"host_addr\":\"0.0.0.0\",\"host_port\":8080,\
                   \"guest_addr\":\"10.0.2.100\",\"guest_port\":80},\
                   {\"id\":3,\"proto\":\"udp6\",\"host_addr6\":\"::1\",\"host_port\":53,\
                   \"guest_addr6\":\"fd00::64\",\"guest_port\":53}]";
    assert_eq!(
        listed(&[(ForwardId(1), v4), (ForwardId(3), v6)]),
        format!("{{\"return\":{{\"entries\":{entries}}},\"entries\":{entries}}}")
    );
}

#[test]
fn info_is_json_and_has_every_discard_reason() {
    let plan = AddressPlan::default().with_ipv6(crate::plan::Ipv6Plan::default());
    let reply: Value = serde_json::from_str(&info(&plan, &Stats::default())).unwrap();
    assert_eq!(reply["return"]["gateway"], "10.0.2.2");
    assert_eq!(reply["return"]["dns6"], "fd00::3");
    for reason in crate::discard::DiscardReason::ALL {
        assert_eq!(reply["return"]["discards"][reason.as_str()], 0);
    }
}
