//! Which requests get which answer, and which get none.

use super::*;
use DiscardReason::{DhcpInvalid, DhcpNotAnswered, DhcpPoolExhausted};

const OFFER: u8 = 2;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// `message` with `ciaddr` 10.0.2.`last`.
fn with_ciaddr(mut message: Vec<u8>, last: u8) -> Vec<u8> {
    message[12..16].copy_from_slice(&[10, 0, 2, last]);
    message
}

#[test]
fn each_request_gets_its_answer() {
    let wants = |last: u8| [50, 4, 10, 0, 2, last];
    let nobody = Ipv4Addr::UNSPECIFIED;
    for (name, request, expected) in [
        ("discover", request(DISCOVER, 1, &[]), (OFFER, pool(15))),
        ("discover of a free one", request(DISCOVER, 1, &wants(30)), (OFFER, pool(30))),
        ("discover of a taken one", request(DISCOVER, 1, &wants(16)), (OFFER, pool(15))),
        ("discover of a foreign one", request(DISCOVER, 1, &wants(100)), (OFFER, pool(15))),
        ("discover of none", request(DISCOVER, 1, &[50, 4, 0, 0, 0, 0]), (OFFER, pool(15))),
        ("discover with an address", with_ciaddr(request(DISCOVER, 1, &[]), 20), (OFFER, pool(15))),
        ("request of a free one", request(REQUEST, 1, &wants(17)), (ACK, pool(17))),
        ("request of a taken one", request(REQUEST, 1, &wants(16)), (NAK, nobody)),
        ("request of a foreign one", request(REQUEST, 1, &wants(14)), (NAK, nobody)),
        ("request without lease", request(REQUEST, 1, &[]), (ACK, pool(15))),
        ("request of the own one", request(REQUEST, 2, &[]), (ACK, pool(16))),
        ("renewal", with_ciaddr(request(REQUEST, 2, &[]), 16), (ACK, pool(16))),
        ("renewal of a foreign one", with_ciaddr(request(REQUEST, 2, &[]), 100), (NAK, nobody)),
        ("request to us", request(REQUEST, 1, &[54, 4, 10, 0, 2, 2]), (ACK, pool(15))),
        ("bootp", bootp(1), (ACK, pool(15))),
        ("bootp with a vendor area", [bootp(1), vec![7; 64]].concat(), (ACK, pool(15))),
        ("bootp with an address", with_ciaddr(bootp(1), 30), (ACK, pool(30))),
        ("padded", request(DISCOVER, 1, &[0; 300]), (OFFER, pool(15))),
    ] {
        let mut server = server();
        // Client 2 has .16.
        let taken = answer(&mut server, &self::request(REQUEST, 2, &wants(16)));
        assert_eq!(taken, Some((ACK, pool(16))));
        assert_eq!(answer(&mut server, &request), Some(expected), "{name}");
    }
}

#[test]
fn everything_else_gets_none() {
    let change = |at: usize, byte: u8| {
        let mut message = request(DISCOVER, 1, &[]);
        message[at] = byte;
        message
    };
    let without_end = |options: &[u8]| {
        let mut message = request(DISCOVER, 1, options);
        message.pop();
        message
    };
    for (name, message, expected) in [
        ("nothing", vec![], DhcpInvalid),
        ("one byte", vec![1], DhcpInvalid),
        ("short by one", bootp(1)[..235].to_vec(), DhcpInvalid),
        ("reply", change(0, 2), DhcpInvalid),
        ("other hardware", change(1, 6), DhcpInvalid),
        ("short hardware address", change(2, 5), DhcpInvalid),
        ("long hardware address", change(2, 255), DhcpInvalid),
        ("group hardware address", change(28, 1), DhcpInvalid),
        ("option without length", without_end(&[12]), DhcpInvalid),
        ("option beyond the end", without_end(&[12, 255, b'x']), DhcpInvalid),
        ("address beyond the end", without_end(&[50, 4, 10, 0, 2]), DhcpInvalid),
        ("address of five bytes", request(DISCOVER, 1, &[50, 5, 10, 0, 2, 15, 0]), DhcpInvalid),
        ("server of no bytes", request(DISCOVER, 1, &[54, 0]), DhcpInvalid),
        ("type of two bytes", request(DISCOVER, 1, &[53, 2, 1, 1]), DhcpInvalid),
        ("decline", request(4, 1, &[50, 4, 10, 0, 2, 15]), DhcpNotAnswered),
        ("release", request(7, 1, &[]), DhcpNotAnswered),
        ("inform", request(8, 1, &[]), DhcpNotAnswered),
        ("unknown type", request(200, 1, &[]), DhcpNotAnswered),
        ("another server", request(REQUEST, 1, &[54, 4, 10, 0, 2, 4]), DhcpNotAnswered),
    ] {
        let mut server = server();
        assert_eq!(
            server.handle_message(MacAddr::default(), &message, Instant::ZERO),
            Err(expected),
            "{name}"
        );
        let next = answer(&mut server, &request(DISCOVER, 9, &[]));
        assert_eq!(next, Some((OFFER, pool(15))), "{name} took an address");
    }
}

#[test]
fn missing_end_option_is_forgiven() {
    let mut message = request(DISCOVER, 1, &[]);
    message.pop();
    assert_eq!(answer(&mut server(), &message), Some((OFFER, pool(15))));
}

#[test]
fn second_discover_keeps_the_lease() {
    let mut server = server();
    for (last, expected) in [(1, 15), (2, 16), (1, 15), (3, 17), (2, 16)] {
        let offer = answer(&mut server, &request(DISCOVER, last, &[]));
        assert_eq!(offer, Some((OFFER, pool(expected))));
    }
}

#[test]
fn full_pool_refuses_newcomers_and_keeps_its_clients() {
    let mut server = server();
    for last in 0..16 {
        let lease = answer(&mut server, &request(REQUEST, last, &[]));
        assert_eq!(lease, Some((ACK, pool(15 + last))));
    }
    for message in [request(DISCOVER, 99, &[]), request(REQUEST, 99, &[]), bootp(99)] {
        assert_eq!(
            server.handle_message(MacAddr::default(), &message, Instant::ZERO),
            Err(DhcpPoolExhausted)
        );
    }
    let wants = [50, 4, 10, 0, 2, 20];
    let refused = answer(&mut server, &request(REQUEST, 99, &wants));
    assert_eq!(refused, Some((NAK, Ipv4Addr::UNSPECIFIED)));
    assert_eq!(answer(&mut server, &request(REQUEST, 5, &wants)), Some((ACK, pool(20))));
}

#[test]
fn client_beyond_those_that_never_took_their_offer_gets_an_address() {
    let mut server = server();
    for last in 0..16 {
        answer(&mut server, &request(DISCOVER, last, &[]));
    }
    assert_eq!(answer(&mut server, &request(DISCOVER, 99, &[])), Some((OFFER, pool(15))));
    assert_eq!(answer(&mut server, &request(REQUEST, 99, &[])), Some((ACK, pool(15))));
    // The first one comes too late.
    let wants = [50, 4, 10, 0, 2, 15];
    let late = answer(&mut server, &request(REQUEST, 0, &wants));
    assert_eq!(late, Some((NAK, Ipv4Addr::UNSPECIFIED)));
}

#[test]
fn renewal_is_answered_at_the_address_that_is_renewed_and_nowhere_else() {
    let client = MacAddr([2, 0, 0, 0, 0, 1]);
    let own = [50, 4, 10, 0, 2, 15];
    for (name, request, expected) in [
        ("renewal", with_ciaddr(request(REQUEST, 1, &[]), 15), Some([10, 0, 2, 15])),
        ("bootp", with_ciaddr(bootp(1), 15), Some([10, 0, 2, 15])),
        ("discover", with_ciaddr(request(DISCOVER, 1, &[]), 15), None),
        ("of the gateway's", with_ciaddr(request(REQUEST, 1, &[]), 2), None),
        ("of another's", with_ciaddr(request(REQUEST, 1, &[]), 100), None),
        ("of a free one, at another's", with_ciaddr(request(REQUEST, 1, &own), 100), None),
        ("of a free one, at a group", with_ciaddr(request(REQUEST, 1, &own), 255), None),
    ] {
        let outcome = server().handle_message(MacAddr::default(), &request, Instant::ZERO).unwrap();
        message(&outcome);
        let to = expected.map_or(MacAddr::BROADCAST, |_| client);
        assert_eq!(outcome.packet[16..20], expected.unwrap_or([255; 4]), "{name}");
        assert_eq!(outcome.to, to, "{name}");
    }
}

#[test]
fn server_listens_at_the_gateway_and_to_broadcasts() {
    let server = server();
    for (destination, expected) in [
        ("10.0.2.2:67", true),
        ("255.255.255.255:67", true),
        ("10.0.2.3:67", false),
        ("10.0.2.2:68", false),
        ("192.0.2.1:67", false),
        ("[ff02::1:2]:67", false),
    ] {
        assert_eq!(server.is_for_us(destination.parse().unwrap()), expected, "{destination}");
    }
}

proptest::proptest! {
    #[test]
    fn no_message_panics(rest: Vec<u8>, len in 0_usize..400) {
        let mut message = [&request(DISCOVER, 1, &[])[..240], &rest[..]].concat();
        message.truncate(len);
        let _ = server().handle_message(MacAddr::default(), &message, Instant::ZERO);
        let _ = server().handle_message(MacAddr::default(), &rest, Instant::ZERO);
    }

    #[test]
    fn every_answer_has_its_length_and_no_address_has_two_clients(
        requests in proptest::collection::vec((0_u8..4, 0_u8..32, 0_u8..40, 0_u8..=255), 1..60),
    ) {
        let search_domains = vec!["a".repeat(63); 9];
        let config = StackConfig { search_domains, ..StackConfig::default() };
        let mut server = DhcpServer::new(&config);
        let mut leases = BTreeMap::new();
        for (kind, last, wanted, asked) in requests {
            let options = [50, 4, 10, 0, 2, wanted, 55, 4, 119, 15, 26, asked];
            let request = request(kind, last, &options);
            let outcome = server.handle_message(MacAddr::default(), &request, Instant::ZERO);
            let Ok(outcome) = outcome else {
                continue;
            };
            assert_eq!(message(&outcome).len(), 548);
            let client = MacAddr([2, 0, 0, 0, 0, last]);
            if kind == DISCOVER {
                // Who looks for an address has none.
                leases.retain(|_, owner| *owner != client);
            }
            if let Some((address, owner)) = outcome.leased {
                leases.retain(|_, other| *other != owner);
                assert_eq!(leases.insert(address, owner), None);
            }
        }
    }
}

#[test]
fn member_of_a_shared_network_gets_its_own_address_and_nobody_elses() {
    let config = StackConfig { is_shared: true, ..StackConfig::default() };
    let mut server = DhcpServer::new(&config);
    let mac = |last: u8| MacAddr([2, 0, 0, 0, 0, last]);
    server.reserve(mac(1), Ipv4Addr::new(10, 0, 2, 101));
    server.reserve(mac(2), Ipv4Addr::new(10, 0, 2, 102));
    let offered = |outcome: DhcpOutcome| message(&outcome)[16..20].to_vec();
    for kind in [DISCOVER, REQUEST] {
        let outcome = server.handle_message(mac(2), &request(kind, 2, &[]), Instant::ZERO).unwrap();
        assert_eq!(offered(outcome), [10, 0, 2, 102]);
    }
    let wish = request(REQUEST, 2, &[50, 4, 10, 0, 2, 102]);
    assert!(server.handle_message(mac(2), &wish, Instant::ZERO).unwrap().leased.is_some());
    // The other's address is refused, another client is not spoken for, and there is no pool.
    let greed = request(REQUEST, 2, &[50, 4, 10, 0, 2, 101]);
    assert_eq!(server.handle_message(mac(2), &greed, Instant::ZERO).unwrap().leased, None);
    for (sender, client) in [(1, 2), (3, 3)] {
        let outcome =
            server.handle_message(mac(sender), &request(DISCOVER, client, &[]), Instant::ZERO);
        assert_eq!(outcome, Err(DhcpNotAnswered));
    }
    server.release(mac(2));
    let outcome = server.handle_message(mac(2), &request(DISCOVER, 2, &[]), Instant::ZERO);
    assert_eq!(outcome, Err(DhcpNotAnswered));
}
