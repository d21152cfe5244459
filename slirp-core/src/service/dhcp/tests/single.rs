//! The server with one address, byte for byte.

use super::*;
use crate::config::Told;
use crate::plan::{AddressPlan, Mirrored, MirroredFamily};

const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const GUEST: [u8; 4] = [192, 0, 2, 77];

fn config(gateway: [u8; 4], prefix_len: u8, told: Told) -> StackConfig {
    let v4 = MirroredFamily {
        gateway: Some(gateway.into()),
        ..MirroredFamily::new(GUEST.into(), prefix_len)
    };
    let mirrored = Mirrored { ipv4: Some(v4), ..Mirrored::default() };
    let plan = AddressPlan::mirrored(&mirrored).unwrap();
    let personality = Personality::Single(told);
    StackConfig { plan, personality, ..StackConfig::default() }
}

fn told(change: impl FnOnce(&mut Told)) -> Told {
    let mut told = Told { mtu: Some(65_520), ..Told::default() };
    change(&mut told);
    told
}

fn ask(config: &StackConfig, request: &[u8]) -> Result<DhcpOutcome, DiscardReason> {
    DhcpServer::new(config).handle_message(CLIENT, request, Instant::ZERO)
}

/// A request without the broadcast flag.
fn unicast(kind: u8, options: &[u8]) -> Vec<u8> {
    let mut request = request(kind, 1, options);
    request[10] = 0;
    request
}

/// The options of the reply, without the end and the padding behind it.
fn options(config: &StackConfig, request: &[u8]) -> Vec<u8> {
    let outcome = ask(config, request).unwrap();
    let options = &outcome.packet[28 + 240..];
    let end = options.iter().rposition(|&byte| byte != 0).unwrap();
    assert_eq!(options[end], 255);
    options[..end].to_vec()
}

const PLAIN: &[u8] = &[
    1, 4, 255, 255, 255, 0, // mask
    3, 4, 192, 0, 2, 1, // router
    51, 4, 255, 255, 255, 255, // for ever
    54, 4, 192, 0, 2, 1, // server
    26, 2, 255, 240, // MTU
];

#[test]
fn every_client_gets_the_guests_address_for_ever() {
    let config = config([192, 0, 2, 1], 24, told(|_| {}));
    let outcome = ask(&config, &unicast(DISCOVER, &[])).unwrap();
    // IP and UDP headers, then a message of the least length.
    assert_eq!(outcome.packet.len(), 28 + 300);
    assert_eq!(outcome.packet[12..24], [192, 0, 2, 1, 192, 0, 2, 77, 0, 67, 0, 68]);
    let reply = &outcome.packet[28..];
    let mut expected = vec![
        2, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, // op, htype, hlen, hops, xid
        0, 0, 0, 0, 0, 0, 0, 0, // secs, flags, ciaddr
        192, 0, 2, 77, 192, 0, 2, 1, 0, 0, 0, 0, // yiaddr, siaddr, giaddr
        2, 0, 0, 0, 0, 1, // chaddr
    ];
    expected.resize(236, 0);
    expected.extend_from_slice(&[99, 130, 83, 99, 53, 1, 2]);
    expected.extend_from_slice(PLAIN);
    expected.push(255);
    expected.resize(300, 0);
    assert_eq!(reply, expected);
    assert_eq!((outcome.to, outcome.leased), (CLIENT, None));

    for (request, is_broadcast) in [
        (unicast(REQUEST, &[50, 4, 192, 0, 2, 77]), false),
        // Another address, which is not refused.
        (unicast(REQUEST, &[50, 4, 10, 0, 0, 1]), false),
        (unicast(REQUEST, &[54, 4, 192, 0, 2, 1]), false),
        (request(REQUEST, 1, &[]), true),
        (bootp(1), true),
    ] {
        let outcome = ask(&config, &request).unwrap();
        let reply = &outcome.packet[28..];
        assert_eq!((reply[242], &reply[16..20]), (5, &GUEST[..]));
        assert_eq!(reply[10..12], [if is_broadcast { 0x80 } else { 0 }, 0]);
        let to = if is_broadcast { [255; 4] } else { GUEST };
        assert_eq!(outcome.packet[16..20], to);
        assert_eq!(outcome.to, if is_broadcast { MacAddr::BROADCAST } else { CLIENT });
        assert_eq!(outcome.leased, Some((GUEST.into(), CLIENT)));
    }
}

#[test]
fn client_that_asks_for_rapid_commit_gets_its_lease_at_once() {
    let config = config([192, 0, 2, 1], 24, told(|_| {}));
    let outcome = ask(&config, &unicast(DISCOVER, &[80, 0])).unwrap();
    let reply = &outcome.packet[28..];
    assert_eq!(reply[240..245], [53, 1, 5, 80, 0]);
    assert_eq!(outcome.leased, Some((GUEST.into(), CLIENT)));
    // It means nothing in a request.
    let options = options(&config, &unicast(REQUEST, &[80, 0]));
    assert_eq!(options, [&[53, 1, 5], PLAIN].concat());
}

#[test]
fn what_a_client_asks_for_comes_first_and_in_its_order() {
    let config = config([192, 0, 2, 1], 24, told(|_| {}));
    let options = options(&config, &unicast(DISCOVER, &[55, 5, 12, 26, 121, 3, 6]));
    let expected: [&[u8]; 5] = [
        &[53, 1, 2],
        &[26, 2, 255, 240, 3, 4, 192, 0, 2, 1],
        &[1, 4, 255, 255, 255, 0],
        &[51, 4, 255, 255, 255, 255],
        &[54, 4, 192, 0, 2, 1],
    ];
    assert_eq!(options, expected.concat());
}

#[test]
fn only_what_is_to_be_told_is_told() {
    let no_mtu = config([192, 0, 2, 1], 24, Told::default());
    let plain = &PLAIN[..PLAIN.len() - 4];
    assert_eq!(options(&no_mtu, &unicast(DISCOVER, &[])), [&[53, 1, 2], plain].concat());

    let mut full = config(
        [192, 0, 2, 1],
        24,
        told(|told| {
            told.dns = ["1.1.1.1", "2001:db8::53", "1.1.1.2", "1.1.1.3", "1.1.1.4"]
                .map(|text| text.parse().unwrap())
                .to_vec();
            told.host_name = Some("guest".to_owned());
            told.fqdn = Some("guest.example.org".to_owned());
        }),
    );
    full.search_domains = vec!["example.org".to_owned(), "b.test".to_owned()];
    let more: &[u8] = b"\x06\x0c\x01\x01\x01\x01\x01\x01\x01\x02\x01\x01\x01\x03\x0c\x05guest";
    let name = b"\x05guest\x07example\x03org\0";
    let search = b"\x77\x15\x07example\x03org\0\x01b\x04test\0";
    let full_name = |flags: u8| [&[81, 22, flags, 255, 255][..], name].concat();
    for (sent, expected) in [
        (&[][..], [more, search].concat()),
        // A client that tells its name, and one that wants its address record updated as well.
        (&[81, 3, 4, 0, 0], [more, &full_name(0x0c), search].concat()),
        (&[81, 3, 5, 0, 0], [more, &full_name(0x0e), search].concat()),
    ] {
        let options = options(&full, &unicast(DISCOVER, sent));
        assert_eq!(options, [&[53, 1, 2], PLAIN, &expected].concat(), "{sent:?}");
    }
    let asked = options(&full, &unicast(DISCOVER, &[55, 1, 81]));
    assert_eq!(asked, [&[53, 1, 2], &full_name(0x0c)[..], PLAIN, more, search].concat());
}

#[test]
fn gateway_outside_the_guests_network_is_reached_by_a_route_of_its_own() {
    let routes: &[u8] = &[121, 14, 32, 10, 9, 8, 1, 0, 0, 0, 0, 0, 10, 9, 8, 1];
    let far = config([10, 9, 8, 1], 32, Told::default());
    let expected: [&[u8]; 6] = [
        &[53, 1, 2],
        &[1, 4, 255, 255, 255, 255],
        &[3, 4, 10, 9, 8, 1],
        &[51, 4, 255, 255, 255, 255],
        &[54, 4, 10, 9, 8, 1],
        routes,
    ];
    assert_eq!(options(&far, &unicast(DISCOVER, &[])), expected.concat());
}

#[test]
fn other_messages_and_other_servers_get_no_reply() {
    let config = config([192, 0, 2, 1], 24, Told::default());
    let not_answered = Err(DiscardReason::DhcpNotAnswered);
    for request in [
        unicast(4, &[]),
        unicast(7, &[]),
        unicast(8, &[]),
        unicast(REQUEST, &[54, 4, 192, 0, 2, 2]),
    ] {
        assert_eq!(ask(&config, &request), not_answered);
    }
    let mut silent = config.clone();
    silent.silence.dhcp = true;
    assert_eq!(ask(&silent, &unicast(DISCOVER, &[])), not_answered);
    // Nobody could be the server without a gateway.
    let v4 = Some(MirroredFamily::new(GUEST.into(), 24));
    let mirrored = Mirrored { ipv4: v4, ..Mirrored::default() };
    let plan = AddressPlan::mirrored(&mirrored).unwrap();
    assert_eq!(ask(&StackConfig { plan, ..config }, &unicast(DISCOVER, &[])), not_answered);
}

#[test]
fn long_names_and_many_domains_stay_within_what_clients_take() {
    let mut config = config(
        [10, 9, 8, 1],
        32,
        told(|told| {
            told.host_name = Some("x".repeat(255));
            told.fqdn = Some(["a".repeat(60).as_str(); 4].join("."));
        }),
    );
    config.search_domains = vec!["a".repeat(60); 9];
    let outcome = ask(&config, &unicast(DISCOVER, &[81, 1, 0])).unwrap();
    assert!(outcome.packet.len() <= 576, "{}", outcome.packet.len());
}

#[test]
fn names_that_a_client_asks_for_first_leave_the_lease_in_the_reply() {
    let mut config = config([10, 9, 8, 1], 32, told(|told| told.host_name = Some("x".repeat(200))));
    config.search_domains = ["a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(60)].into();
    for asked in [[12, 119], [119, 12]] {
        let request = unicast(DISCOVER, &[&[55, 2], &asked[..]].concat());
        let options = options(&config, &request);
        let mut left = &options[..];
        let mut numbers = Vec::new();
        while let [number, len, rest @ ..] = left {
            numbers.push(*number);
            left = &rest[usize::from(*len)..];
        }
        for needed in [1, 3, 51, 54, 121, 26, 12] {
            assert!(numbers.contains(&needed), "{needed} of {numbers:?}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_request_panics(options: Vec<u8>, kind in 0_u8..9) {
        let config = config([10, 9, 8, 1], 32, told(|told| told.fqdn = Some("a.b".to_owned())));
        let _ = ask(&config, &request(kind, 1, &options));
    }
}
