//! The bytes of every reply.

use serde_json::Value;

use super::*;
use crate::control::protocol::{Request, parse};
use crate::event::FlowId;
use crate::flow::FlowState;
use crate::plan::{AssumedGuest, Ipv6Plan};
use crate::policy::Protocol;
use crate::traffic::Traffic;

#[test]
fn replies_that_clients_know_are_exact() {
    assert_eq!(removed(), "{\"return\":{}}");
    assert_eq!(forwards(&[]), "{\"return\":{\"entries\":[]},\"entries\":[]}");
    let rule = |protocol, host: &str, guest: &str| {
        Forward::new(protocol, host.parse().unwrap(), guest.parse().unwrap())
    };
    let tcp = rule(ForwardProtocol::Tcp, "0.0.0.0:8080", "10.0.2.100:80");
    let v4 = Forward { also_ipv6: true, ..tcp };
    assert_eq!(added(ForwardId(1), &v4, &v4), "{\"return\":{\"id\":1}}");
    let any = Forward { host: "0.0.0.0:0".parse().unwrap(), ..v4 };
    assert_eq!(added(ForwardId(2), &any, &v4), "{\"return\":{\"id\":2,\"host_port\":8080}}");
    let v6 = rule(ForwardProtocol::Udp, "[::1]:53", "[fd00::64]:53");
    let range =
        Forward { ports: 10_001, ..rule(ForwardProtocol::Udp, "127.0.0.1:10000", "10.0.2.100:1") };
    let entries = "[{\"id\":1,\"proto\":\"tcp\",\"host_addr\":\"0.0.0.0\",\"host_port\":8080,\
                   \"guest_addr\":\"10.0.2.100\",\"guest_port\":80},\
                   {\"id\":3,\"proto\":\"udp6\",\"host_addr6\":\"::1\",\"host_port\":53,\
                   \"guest_addr6\":\"fd00::64\",\"guest_port\":53},\
                   {\"id\":4,\"proto\":\"udp\",\"host_addr\":\"127.0.0.1\",\"host_port\":10000,\
                   \"host_port_end\":20000,\"guest_addr\":\"10.0.2.100\",\"guest_port\":1}]";
    assert_eq!(
        forwards(&[(ForwardId(1), v4), (ForwardId(3), v6), (ForwardId(4), range)]),
        format!("{{\"return\":{{\"entries\":{entries}}},\"entries\":{entries}}}")
    );
}

#[test]
fn entry_of_the_list_is_the_request_that_makes_the_same_rule() {
    let assumed = AssumedGuest { ipv4: "10.0.2.9".parse().unwrap(), ipv6: None };
    for (host, also_ipv6, guest) in [
        ("0.0.0.0:80", true, "10.0.2.100:80"),
        ("0.0.0.0:80", false, "10.0.2.100:80"),
        ("127.0.0.1:80", false, "10.0.2.100:80"),
        ("[::]:80", false, "10.0.2.100:80"),
        ("[::1]:80", false, "[fd00::64]:80"),
        ("127.0.0.1:80", false, "[fd00::64]:80"),
        ("0.0.0.0:80", true, "[fd00::64]:80"),
    ] {
        let rule =
            Forward::new(ForwardProtocol::Udp, host.parse().unwrap(), guest.parse().unwrap());
        let rule = Forward { also_ipv6, ports: 3, ..rule };
        let reply: Value = serde_json::from_str(&forwards(&[(ForwardId(1), rule)])).unwrap();
        let entry = &reply["entries"][0];
        let request = format!("{{\"execute\":\"add_hostfwd\",\"arguments\":{entry}}}");
        let parsed = parse(request.as_bytes(), true, assumed);
        assert_eq!(parsed, Some(Ok(Request::AddForward(rule))), "{entry}");
    }
}

#[test]
fn flows_are_json_with_all_that_is_known_of_each() {
    let flow = FlowSummary {
        id: FlowId { index: 3, generation: 9 },
        protocol: Protocol::Tcp,
        guest: "10.0.2.100:5000".parse().unwrap(),
        remote: "192.0.2.1:443".parse().unwrap(),
        local: Some("198.51.100.1:6000".parse().unwrap()),
        is_inbound: false,
        state: FlowState::Open,
        age: Duration::from_millis(1500),
        idle: Duration::from_micros(2999),
        traffic: Traffic { from_guest: 1, to_guest: u64::MAX },
    };
    let six = FlowSummary {
        protocol: Protocol::Echo,
        guest: "[fd00::64]:7".parse().unwrap(),
        remote: "[2001:db8::1]:0".parse().unwrap(),
        local: None,
        is_inbound: true,
        state: FlowState::Parked,
        ..flow
    };
    assert_eq!(
        flows(&[flow, six], Some(4)),
        "{\"return\":{\"flows\":[\
         {\"proto\":\"tcp\",\"opened_by\":\"guest\",\"state\":\"open\",\
         \"guest_addr\":\"10.0.2.100\",\"guest_port\":5000,\
         \"remote_addr\":\"192.0.2.1\",\"remote_port\":443,\
         \"host_addr\":\"198.51.100.1\",\"host_port\":6000,\
         \"age_ms\":1500,\"idle_ms\":2,\
         \"bytes_from_guest\":1,\"bytes_to_guest\":18446744073709551615},\
         {\"proto\":\"icmp6\",\"opened_by\":\"remote\",\"state\":\"parked\",\
         \"guest_addr\":\"fd00::64\",\"guest_port\":7,\
         \"remote_addr\":\"2001:db8::1\",\"remote_port\":0,\
         \"age_ms\":1500,\"idle_ms\":2,\
         \"bytes_from_guest\":1,\"bytes_to_guest\":18446744073709551615}],\"next\":4}}"
    );
    assert_eq!(flows(&[], None), "{\"return\":{\"flows\":[],\"next\":null}}");
}

#[test]
fn info_is_json_with_the_plan_every_counter_and_every_discard_reason() {
    let plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
    let reply = info(&plan, &Stats::default(), Duration::from_millis(1234));
    let reply: Value = serde_json::from_str(&reply).unwrap();
    let reply = &reply["return"];
    assert_eq!(reply["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(reply["uptime_ms"], 1234);
    for (name, value) in [
        ("network", "10.0.2.0/24"),
        ("netmask", "255.255.255.0"),
        ("gateway", "10.0.2.2"),
        ("dns", "10.0.2.3"),
        ("dhcp_begin", "10.0.2.15"),
        ("dhcp_end", "10.0.2.30"),
        ("recommended_ip", "10.0.2.100"),
        ("network6", "fd00::/64"),
        ("gateway6", "fd00::2"),
        ("dns6", "fd00::3"),
        ("recommended_ip6", "fd00::100"),
    ] {
        assert_eq!(reply[name], value, "{name}");
    }
    // The Debug form names every field. The last one, the discards, is checked separately.
    let shown = format!("{:?}", Stats::default());
    let (_, fields) = shown.split_once('{').unwrap();
    let (counters, _) = fields.split_once(", discards").unwrap();
    let names: Vec<_> =
        counters.split(',').map(|field| field.split_once(':').unwrap().0.trim()).collect();
    for name in &names {
        assert_eq!(reply["counters"][name], 0, "{name}");
    }
    assert_eq!(reply["counters"].as_object().unwrap().len(), names.len());
    for reason in crate::discard::DiscardReason::ALL {
        assert_eq!(reply["discards"][reason.as_str()], 0);
    }
}

#[test]
fn info_of_an_ipv4_network_has_no_ipv6_addresses() {
    let reply = info(&AddressPlan::default(), &Stats::default(), Duration::ZERO);
    let reply: Value = serde_json::from_str(&reply).unwrap();
    assert_eq!(reply["return"].get("gateway6"), None);
}
