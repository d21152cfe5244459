//! The server with one address, message by message.

use core::net::SocketAddr;

use DiscardReason::{DhcpInvalid, DhcpNotAnswered};

use super::*;
use crate::config::{Personality, StackConfig, Told};
use crate::plan::{AddressPlan, Mirrored, MirroredFamily};

const CLIENT_ID: &[u8] = &[0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
const SERVER_ID: &[u8] = &[0, 2, 0, 10, 0, 3, 0, 1, 0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55];
/// An association without addresses.
const WANTED: &[u8] = &[0, 3, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0];
const GUEST: &str = "2001:db8::77";

fn config() -> StackConfig {
    let gateway = Some("2001:db8::1".parse().unwrap());
    let v6 = MirroredFamily { gateway, ..MirroredFamily::new(GUEST.parse().unwrap(), 64) };
    let mirrored = Mirrored { ipv6: Some(v6), ..Mirrored::default() };
    let plan = AddressPlan::mirrored(&mirrored).unwrap();
    let personality = Personality::Single(Told::default());
    StackConfig { plan, personality, ..StackConfig::default() }
}

fn message(kind: u8, options: &[&[u8]]) -> Vec<u8> {
    [&[kind, 0xab, 0xcd, 0xef][..], &options.concat()].concat()
}

fn ask(config: &StackConfig, message: &[u8]) -> Result<Vec<u8>, DiscardReason> {
    let client: SocketAddr = "[fe80::9]:546".parse().unwrap();
    let server = "[ff02::1:2]:547".parse().unwrap();
    let packet = Dhcpv6Server::new(config).handle_message(client, server, message)?;
    let ours: Ipv6Addr = "fe80::9855:9aff:fe55:9a55".parse().unwrap();
    assert_eq!(packet[8..24], ours.octets());
    Ok(packet[48..].to_vec())
}

/// An association that asks for `address`.
fn wants(address: &str) -> Vec<u8> {
    let address: Ipv6Addr = address.parse().unwrap();
    let mut association = vec![0, 3, 0, 40, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24];
    association.extend_from_slice(&address.octets());
    association.extend_from_slice(&[0; 8]);
    association
}

/// The association of a reply, with the guest's address for ever.
fn granted() -> Vec<u8> {
    let mut association = vec![0, 3, 0, 40, 0, 0, 0, 7];
    association.extend_from_slice(&[255; 8]);
    association.extend_from_slice(&[0, 5, 0, 24]);
    association.extend_from_slice(&GUEST.parse::<Ipv6Addr>().unwrap().octets());
    association.extend_from_slice(&[255; 8]);
    association
}

/// The association of a reply to a client that names a foreign address.
fn refused() -> Vec<u8> {
    let mut association = vec![0, 3, 0, 18, 0, 0, 0, 7];
    association.extend_from_slice(&[255; 8]);
    association.extend_from_slice(&[0, 13, 0, 2, 0, 4]);
    association
}

#[test]
fn client_gets_the_guests_address_for_ever() {
    let (own, foreign) = (wants(GUEST), wants("2001:db8::5"));
    let rapid: &[u8] = &[0, 14, 0, 0];
    let success: &[u8] = &[0, 13, 0, 2, 0, 0];
    let not_on_link: &[u8] = &[0, 13, 0, 2, 0, 4];
    for (name, kind, options, reply, expected) in [
        ("solicit", SOLICIT, vec![WANTED], ADVERTISE, granted()),
        ("solicit of another", SOLICIT, vec![&foreign], ADVERTISE, granted()),
        ("rapid", SOLICIT, vec![WANTED, rapid], REPLY, [&granted(), rapid].concat()),
        ("request", REQUEST, vec![SERVER_ID, WANTED], REPLY, granted()),
        ("request of ours", REQUEST, vec![SERVER_ID, &own], REPLY, granted()),
        ("request of another", REQUEST, vec![SERVER_ID, &foreign], REPLY, refused()),
        ("renewal", RENEW, vec![SERVER_ID, &own], REPLY, granted()),
        ("rebind", REBIND, vec![&own], REPLY, granted()),
        ("rebind of another", REBIND, vec![&foreign], REPLY, refused()),
        ("confirmation", CONFIRM, vec![&own], REPLY, success.to_vec()),
        ("confirmation of another", CONFIRM, vec![&foreign], REPLY, not_on_link.to_vec()),
        ("no address wanted", SOLICIT, vec![], ADVERTISE, vec![]),
        ("a prefix beside it", SOLICIT, vec![&[0, 25, 0, 0], WANTED], ADVERTISE, granted()),
    ] {
        let message = message(kind, &[&[CLIENT_ID], &options[..]].concat());
        let got = ask(&config(), &message).unwrap();
        let expected = [&[reply, 0xab, 0xcd, 0xef], CLIENT_ID, SERVER_ID, &expected].concat();
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn configuration_is_told_when_it_is_asked_for() {
    let told = Told {
        dns: ["1.1.1.1", "2001:db8::53", "2001:db8::54"].map(|text| text.parse().unwrap()).to_vec(),
        fqdn: Some("guest.example.org".to_owned()),
        ..Told::default()
    };
    let mut config = StackConfig { personality: Personality::Single(told), ..config() };
    config.search_domains = vec!["example.org".to_owned()];
    let dns: [&[u8]; 3] = [
        &[0, 23, 0, 32],
        &"2001:db8::53".parse::<Ipv6Addr>().unwrap().octets(),
        &"2001:db8::54".parse::<Ipv6Addr>().unwrap().octets(),
    ];
    let search = b"\0\x18\0\x0d\x07example\x03org\0";
    let name = b"\0\x27\0\x14\x04\x05guest\x07example\x03org\0";
    let all: &[u8] = &[0, 6, 0, 6, 0, 39, 0, 23, 0, 24];
    let head = |kind: u8| [&[kind, 0xab, 0xcd, 0xef], CLIENT_ID, SERVER_ID].concat();
    let configuration = [&dns.concat()[..], search, name].concat();
    let got = ask(&config, &message(SOLICIT, &[CLIENT_ID, WANTED, all])).unwrap();
    assert_eq!(got, [&head(ADVERTISE), &granted()[..], &configuration].concat());
    let information = message(11, &[CLIENT_ID, all]);
    let got = ask(&config, &information).unwrap();
    assert_eq!(got, [&head(REPLY)[..], &configuration].concat());
    // A client that tells its name hears the full one.
    let got = ask(&config, &message(11, &[CLIENT_ID, &[0, 39, 0, 2, 0, 0]])).unwrap();
    assert_eq!(got, [&head(REPLY)[..], name].concat());
}

#[test]
fn guest_of_a_host_without_ipv6_gets_no_address() {
    let v6 = MirroredFamily::new("fe80::9".parse().unwrap(), 64);
    let mirrored = Mirrored { ipv6: Some(v6), ..Mirrored::default() };
    let config = StackConfig { plan: AddressPlan::mirrored(&mirrored).unwrap(), ..config() };
    let got = ask(&config, &message(SOLICIT, &[CLIENT_ID, WANTED]));
    assert_eq!(got, Err(DhcpNotAnswered));
    assert!(ask(&config, &message(11, &[CLIENT_ID])).is_ok(), "an information request");
}

#[test]
fn what_no_client_sends_and_what_is_for_another_gets_no_reply() {
    let foreign: &[u8] = &[0, 2, 0, 2, 9, 9];
    let short: &[u8] = &[0, 3, 0, 11, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
    let torn: &[u8] = &[0, 3, 0, 16, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24];
    for (name, message, expected) in [
        ("no client", message(SOLICIT, &[WANTED]), DhcpInvalid),
        ("solicit to a server", message(SOLICIT, &[CLIENT_ID, SERVER_ID, WANTED]), DhcpInvalid),
        ("request to none", message(REQUEST, &[CLIENT_ID, WANTED]), DhcpInvalid),
        ("another server", message(REQUEST, &[CLIENT_ID, foreign, WANTED]), DhcpNotAnswered),
        ("nothing to confirm", message(CONFIRM, &[CLIENT_ID, WANTED]), DhcpNotAnswered),
        ("short association", message(SOLICIT, &[CLIENT_ID, short]), DhcpInvalid),
        ("torn address", message(SOLICIT, &[CLIENT_ID, torn]), DhcpInvalid),
        ("release", message(8, &[CLIENT_ID, SERVER_ID, WANTED]), DhcpNotAnswered),
        ("decline", message(9, &[CLIENT_ID, SERVER_ID, WANTED]), DhcpNotAnswered),
        ("relay", message(12, &[CLIENT_ID]), DhcpNotAnswered),
    ] {
        assert_eq!(ask(&config(), &message), Err(expected), "{name}");
    }
    let mut silent = config();
    silent.silence.dhcpv6 = true;
    for kind in [SOLICIT, 11] {
        let asked = ask(&silent, &message(kind, &[CLIENT_ID]));
        assert_eq!(asked, Err(DhcpNotAnswered));
    }
}

proptest::proptest! {
    #[test]
    fn no_message_panics(kind in 0_u8..13, rest: Vec<u8>, association: Vec<u8>) {
        let len = u16::try_from(association.len().min(1_000)).unwrap();
        let head = [&[0, 3][..], &len.to_be_bytes(), &association[..usize::from(len)]].concat();
        let _ = ask(&config(), &message(kind, &[CLIENT_ID, &head, &rest]));
    }
}
