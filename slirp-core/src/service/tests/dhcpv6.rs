//! The stateless server, message by message.

use super::*;
use DiscardReason::{DhcpInvalid, DhcpNotAnswered};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

const CLIENT_ID: &[u8] = &[0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
const SERVER_ID: &[u8] = &[0, 2, 0, 10, 0, 3, 0, 1, 0x52, 0x56, 0, 0, 0, 2];
const CLIENT: &str = "[fe80::ff:fe00:1]:546";

fn config() -> StackConfig {
    let plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
    StackConfig { plan, ..StackConfig::default() }
}

/// An information request with `options`.
fn request(options: &[&[u8]]) -> Vec<u8> {
    [&[11, 0xab, 0xcd, 0xef][..], &options.concat()].concat()
}

fn ask(config: &StackConfig, to: &str, message: &[u8]) -> Result<Vec<u8>, DiscardReason> {
    let (client, server) = (CLIENT.parse().unwrap(), to.parse().unwrap());
    Dhcpv6Server::new(config).handle_message(client, server, message)
}

/// The payload of a reply whose headers have been checked.
fn reply(config: &StackConfig, to: &str, from: &str, message: &[u8]) -> Vec<u8> {
    let packet = ask(config, to, message).unwrap();
    let sliced = SlicedPacket::from_ip(&packet).unwrap();
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Udp(udp))) = (sliced.net, sliced.transport)
    else {
        panic!("{packet:02x?}");
    };
    let (source, destination) = (ip.header().source(), ip.header().destination());
    assert_eq!(Ipv6Addr::from(source), from.parse::<Ipv6Addr>().unwrap());
    assert_eq!(SocketAddr::new(Ipv6Addr::from(destination).into(), 546), CLIENT.parse().unwrap());
    let header = udp.to_header();
    assert_eq!((header.source_port, header.destination_port), (547, 546));
    let sum = header.calc_checksum_ipv6_raw(source, destination, udp.payload()).unwrap();
    assert_eq!(header.checksum, sum);
    udp.payload().to_vec()
}

#[test]
fn client_is_told_what_it_asks_for() {
    let dns: &[u8] = &[0, 23, 0, 16, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
    let search: &[u8] = b"\0\x18\0\x0d\x07example\x03org\0";
    let mut with_search = config();
    with_search.search_domains = vec!["example.org".to_owned(), "no name".to_owned()];
    let mut without_dns = with_search.clone();
    without_dns.policy.dns_service = false;
    let both: &[u8] = &[0, 6, 0, 4, 0, 24, 0, 23];
    for (config, wanted, expected) in [
        (config(), &[0, 6, 0, 2, 0, 23][..], vec![dns]),
        (config(), both, vec![dns]),
        (config(), &[0, 6, 0, 2, 0, 59], vec![]),
        (config(), &[0, 6, 0, 0], vec![]),
        (config(), &[], vec![]),
        (with_search.clone(), both, vec![dns, search]),
        (with_search, &[0, 6, 0, 2, 0, 24], vec![search]),
        (without_dns, both, vec![search]),
    ] {
        let message = request(&[CLIENT_ID, &[0, 8, 0, 2, 0, 0], wanted]);
        let got = reply(&config, "[ff02::1:2]:547", "fe80::2", &message);
        let expected = [&[7, 0xab, 0xcd, 0xef], CLIENT_ID, SERVER_ID, &expected.concat()].concat();
        assert_eq!(got, expected, "{wanted:?}");
    }
}

#[test]
fn reply_comes_from_the_address_that_was_asked() {
    for (to, from) in [
        ("[ff02::1:2]:547", "fe80::2"),
        ("[fe80::2]:547", "fe80::2"),
        ("[fd00::2]:547", "fd00::2"),
        ("[fd00::3]:547", "fd00::3"),
    ] {
        // An anonymous client has no identifier (RFC 8415 section 18.2.6).
        let got = reply(&config(), to, from, &request(&[]));
        assert_eq!(got, [&[7, 0xab, 0xcd, 0xef], SERVER_ID].concat());
    }
}

#[test]
fn everything_else_gets_none() {
    let long_id = [&[0, 1, 0, 131][..], &[7; 131]].concat();
    for (name, message, expected) in [
        ("nothing", vec![], DhcpInvalid),
        ("short header", vec![11, 1, 2], DhcpInvalid),
        ("solicit", [&[1, 0, 0, 1], CLIENT_ID].concat(), DhcpNotAnswered),
        ("request", [&[3, 0, 0, 1], CLIENT_ID].concat(), DhcpNotAnswered),
        ("relay-forward", [&[12, 0, 0, 1], CLIENT_ID].concat(), DhcpNotAnswered),
        ("reply", [&[7, 0, 0, 1], CLIENT_ID].concat(), DhcpNotAnswered),
        ("short option", request(&[&[0, 6, 0]]), DhcpInvalid),
        ("option beyond the end", request(&[&[0, 6, 0, 4, 0, 23]]), DhcpInvalid),
        ("huge option", request(&[&[0, 1, 255, 255, 1]]), DhcpInvalid),
        ("half a number", request(&[&[0, 6, 0, 1, 0]]), DhcpInvalid),
        ("empty identifier", request(&[&[0, 1, 0, 0]]), DhcpInvalid),
        ("long identifier", request(&[&long_id]), DhcpInvalid),
        ("address wanted", request(&[&[0, 3, 0, 0]]), DhcpInvalid),
        ("temporary address wanted", request(&[&[0, 4, 0, 0]]), DhcpInvalid),
        ("prefix wanted", request(&[&[0, 25, 0, 0]]), DhcpInvalid),
        ("another server", request(&[&[0, 2, 0, 2, 9, 9]]), DhcpNotAnswered),
    ] {
        assert_eq!(ask(&config(), "[ff02::1:2]:547", &message), Err(expected), "{name}");
    }
    assert!(ask(&config(), "[ff02::1:2]:547", &request(&[SERVER_ID])).is_ok());
}

#[test]
fn server_listens_to_its_group_and_at_our_addresses() {
    let server = Dhcpv6Server::new(&config());
    for (destination, expected) in [
        ("[ff02::1:2]:547", true),
        ("[fd00::2]:547", true),
        ("[fe80::3]:547", true),
        ("[fd00::9]:547", false),
        ("[ff02::1:2]:546", false),
        ("[ff02::1]:547", false),
        ("10.0.2.2:547", false),
    ] {
        assert_eq!(server.is_for_us(destination.parse().unwrap()), expected, "{destination}");
    }
    let without = Dhcpv6Server::new(&StackConfig::default());
    assert!(!without.is_for_us("[ff02::1:2]:547".parse().unwrap()));
}

proptest::proptest! {
    #[test]
    fn no_message_panics(rest: Vec<u8>, is_request: bool) {
        let message = if is_request { request(&[&rest]) } else { rest };
        let _ = ask(&config(), "[ff02::1:2]:547", &message);
    }
}
