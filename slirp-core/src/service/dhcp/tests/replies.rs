//! What replies look like, byte for byte.

use super::*;

/// The options of the reply to `request`, padding cut off.
fn options(server: &mut DhcpServer, request: &[u8]) -> Vec<u8> {
    let outcome = server.handle_message(MacAddr::default(), request, Instant::ZERO).unwrap();
    let options = &message(&outcome)[240..];
    let end = options.iter().rposition(|&byte| byte != 0).unwrap();
    assert_eq!(options[end], 255);
    options[..end].to_vec()
}

#[test]
fn offer_is_that_of_slirp4netns() {
    let outcome = server()
        .handle_message(MacAddr::default(), &request(DISCOVER, 1, &[]), Instant::ZERO)
        .unwrap();
    let reply = message(&outcome);
    let mut expected = vec![
        2, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, // op, htype, hlen, hops, xid
        0, 0, 0, 0, 0, 0, 0, 0, // secs, flags, ciaddr
        10, 0, 2, 15, 10, 0, 2, 2, 0, 0, 0, 0, // yiaddr, siaddr, giaddr
        2, 0, 0, 0, 0, 1, // chaddr
    ];
    expected.resize(236, 0);
    expected.extend_from_slice(&[99, 130, 83, 99, 53, 1, 2, 54, 4, 10, 0, 2, 2]);
    expected.extend_from_slice(&[1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2]);
    expected.extend_from_slice(&[6, 4, 10, 0, 2, 3, 51, 4, 0, 1, 0x51, 0x80, 255]);
    expected.resize(548, 0);
    assert_eq!(reply, expected);
    assert_eq!(outcome.leased, None);
}

#[test]
fn acknowledgement_leases_the_address() {
    let outcome = server()
        .handle_message(
            MacAddr::default(),
            &request(REQUEST, 1, &[50, 4, 10, 0, 2, 20]),
            Instant::ZERO,
        )
        .unwrap();
    let reply = message(&outcome);
    assert_eq!((reply[242], &reply[16..20]), (5, &[10, 0, 2, 20][..]));
    assert_eq!(outcome.leased, Some((pool(20), MacAddr([2, 0, 0, 0, 0, 1]))));
}

#[test]
fn refusal_says_why_and_offers_nothing() {
    let outcome = server()
        .handle_message(
            MacAddr::default(),
            &request(REQUEST, 1, &[50, 4, 10, 0, 2, 100]),
            Instant::ZERO,
        )
        .unwrap();
    let reply = message(&outcome);
    assert_eq!(reply[12..28], [0; 16]);
    let mut options = vec![53, 1, 6, 54, 4, 10, 0, 2, 2, 56, 31];
    options.extend_from_slice(b"requested address not available\xff");
    assert_eq!(reply[240..240 + options.len()], options);
    assert!(reply[240 + options.len()..].iter().all(|&byte| byte == 0));
    assert_eq!(outcome.leased, None);
}

#[test]
fn checksums_are_complete() {
    use etherparse::{SlicedPacket, TransportSlice};
    let outcome = server()
        .handle_message(MacAddr::default(), &request(DISCOVER, 1, &[]), Instant::ZERO)
        .unwrap();
    let sliced = SlicedPacket::from_ip(&outcome.packet).unwrap();
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("{sliced:?}") };
    let header = udp.to_header();
    let sum = header.calc_checksum_ipv4_raw([10, 0, 2, 2], [255; 4], udp.payload()).unwrap();
    assert_eq!(header.checksum, sum);
}

#[test]
fn further_options_come_only_when_asked_for() {
    let mut config = StackConfig { mtu: 65_520, ..StackConfig::default() };
    config.search_domains =
        vec!["example.org".to_owned(), "no name".to_owned(), "b.test".to_owned()];
    let mut server = DhcpServer::new(&config);
    let plain = options(&mut server, &request(DISCOVER, 1, &[]));
    for (asked, expected) in [
        (&[1, 3, 6, 12, 42][..], &b""[..]),
        (&[26], b"\x1a\x02\xff\xf0"),
        (&[28], b"\x1c\x04\x0a\0\x02\xff"),
        (&[15], b"\x0f\x0bexample.org"),
        (&[119], b"\x77\x15\x07example\x03org\0\x01b\x04test\0"),
        (&[119, 28], b"\x1c\x04\x0a\0\x02\xff\x77\x15\x07example\x03org\0\x01b\x04test\0"),
    ] {
        let list = [&[55, u8::try_from(asked.len()).unwrap()], asked].concat();
        let options = options(&mut server, &request(DISCOVER, 1, &list));
        assert_eq!(options, [&plain, expected].concat(), "{asked:?}");
    }
}

#[test]
fn search_domains_that_nobody_configured_are_not_told() {
    let mut server = server();
    let plain = options(&mut server, &request(DISCOVER, 1, &[]));
    assert_eq!(options(&mut server, &request(DISCOVER, 1, &[55, 2, 15, 119])), plain);
}

#[test]
fn search_domains_beyond_the_room_are_left_out() {
    let domain = format!("{}.test", "a".repeat(40));
    let config = StackConfig { search_domains: vec![domain.clone(); 50], ..StackConfig::default() };
    let mut server = DhcpServer::new(&config);
    let options = options(&mut server, &request(DISCOVER, 1, &[55, 4, 15, 26, 28, 119]));
    // What precedes them, then one as text and as many as fit as labels.
    let search = &options[33 + 4 + 6 + 2 + domain.len()..];
    assert_eq!(search[..3], [119, 4 * 47, 40]);
    assert_eq!(search.len(), 2 + 4 * 47);
}

#[test]
fn disabled_dns_service_is_not_announced() {
    let mut config = StackConfig::default();
    config.policy.dns_service = false;
    let options = options(&mut DhcpServer::new(&config), &request(DISCOVER, 1, &[]));
    assert_eq!(options[21..], [51, 4, 0, 1, 0x51, 0x80]);
}
