//! The bytes on the control socket of pasta's rules for ports, as passt 2026_07 and its client
//! pesto exchange them (protocol version 2).
//!
//! Owns both ends' encoding: the greeting of the network with its tables, the tables of a client
//! that wants others, and the status that our network sends afterwards. Numbers are big-endian.
//!
//! ```text
//! network: "basil:s\0"  u32 version  u32 bytes of a table's name  u32 bytes of an interface's name
//!          { u8 table  name[128]  u32 abilities  u32 count  count rules }  u8 0
//! client:  { u8 table  u32 count  count rules }  u8 0
//! network: u32 bytes of a text  the text: why nothing has changed; no text if it has
//! rule:    address[16]  target[16]  interface[16]  u16 first  u16 last  u16 to  u8 protocol
//!          u8 flags
//! ```
//!
//! IPv4 addresses are mapped into IPv6 (RFC 4291, section 2.5.5.2). The status is ours: a client
//! that does not know it has hung up by then.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv6Addr};

use slirp_core::instance::ForwardProtocol;

use crate::dialect::pasta::ports::rules::{MAX_RULES, PortRule, PortRules};
use crate::dialect::pasta::ports::{
    Listener, MAX_INTERFACE_LEN, PortRange, interface, is_of_one_host,
};

/// What the network's first bytes are.
const MAGIC: &[u8; 8] = b"basil:s\0";
/// The version of the protocol.
pub(crate) const VERSION: u32 = 2;
/// Bytes of a table's name.
const NAME_LEN: usize = 128;
/// Bytes of an interface's name (`IFNAMSIZ`).
const INTERFACE_LEN: usize = MAX_INTERFACE_LEN + 1;
/// Bytes of a rule.
const RULE_LEN: usize = 56;
/// Longest text of a status that a client reads (arbitrary).
const TEXT_CAP: usize = 4096;

/// Bits of a rule.
const EVERYWHERE: u8 = 1;
const WEAK: u8 = 2;
const SCANNED: u8 = 4;

/// All abilities: IPv4, IPv6, TCP, UDP, scans, interfaces.
const ABILITIES: u32 = 0b11_1111;

/// Numbers of protocols (`IPPROTO_TCP`, `IPPROTO_UDP`).
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The rules of a table.
pub(crate) type Rules = Vec<PortRule>;

/// A table of rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Table {
    /// Ports of the host that lead to the guest.
    Host,
    /// Ports of the guest's loopback that lead to the host's.
    Splice,
}

impl Table {
    pub(crate) const ALL: [Self; 2] = [Self::Host, Self::Splice];

    /// Its number.
    const fn number(self) -> u8 {
        match self {
            Self::Host => 1,
            Self::Splice => 3,
        }
    }

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Host => "HOST",
            Self::Splice => "SPLICE",
        }
    }

    fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.number() == number)
    }

    /// Its rules.
    pub(crate) fn rules(self, rules: &PortRules) -> &Vec<PortRule> {
        match self {
            Self::Host => &rules.inbound,
            Self::Splice => &rules.outbound,
        }
    }

    /// Its rules, to be changed.
    pub(crate) fn rules_mut(self, rules: &mut PortRules) -> &mut Vec<PortRule> {
        match self {
            Self::Host => &mut rules.inbound,
            Self::Splice => &mut rules.outbound,
        }
    }
}

/// What the other end sends is not this protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, Malformed(what))
}

/// What the network says first.
pub(crate) fn greeting(rules: &PortRules) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for number in [VERSION, length(NAME_LEN), length(INTERFACE_LEN)] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    for table in Table::ALL {
        bytes.push(table.number());
        bytes.extend_from_slice(&padded::<NAME_LEN>(table.name()));
        bytes.extend_from_slice(&ABILITIES.to_be_bytes());
        push_rules(&mut bytes, table.rules(rules));
    }
    bytes.push(0);
    bytes
}

/// What a client says that wants these rules.
pub(crate) fn change(rules: &PortRules) -> Vec<u8> {
    let mut bytes = Vec::new();
    for table in Table::ALL {
        bytes.push(table.number());
        push_rules(&mut bytes, table.rules(rules));
    }
    bytes.push(0);
    bytes
}

/// What has come of a change: nothing to say, or why it was not made.
pub(crate) fn status(refusal: Option<&str>) -> Vec<u8> {
    let text = refusal.unwrap_or_default();
    let text = &text[..text.floor_char_boundary(TEXT_CAP)];
    [&length(text.len()).to_be_bytes(), text.as_bytes()].concat()
}

/// Reads the greeting of a network.
///
/// # Errors
/// Those of reading; `InvalidData` if it is none.
pub(crate) fn read_greeting(stream: &mut impl Read) -> io::Result<PortRules> {
    let magic: [u8; 8] = read(stream)?;
    if magic != *MAGIC {
        return Err(malformed("this is no control socket of pasta"));
    }
    if read_number(stream)? != VERSION {
        return Err(malformed("the network speaks another version of the protocol"));
    }
    let lengths = (read_number(stream)?, read_number(stream)?);
    if lengths != (length(NAME_LEN), length(INTERFACE_LEN)) {
        return Err(malformed("the network's names have other lengths"));
    }
    let mut rules = PortRules::default();
    loop {
        let number = read::<1>(stream)?[0];
        if number == 0 {
            return Ok(rules);
        }
        let _name: [u8; NAME_LEN] = read(stream)?;
        let _abilities = read_number(stream)?;
        let table = Table::of_number(number).ok_or(malformed("a table of an unknown number"))?;
        *table.rules_mut(&mut rules) = read_rules(stream, table)?;
    }
}

/// Reads what a client wants: tables, of which it may leave some as they are. `None` if it hangs up
/// at once.
///
/// # Errors
/// Those of reading; `InvalidData` for anything else.
pub(crate) fn read_change(stream: &mut impl Read) -> io::Result<Option<Vec<(Table, Rules)>>> {
    let mut tables: Vec<(Table, Rules)> = Vec::new();
    loop {
        let number = match read::<1>(stream) {
            Ok([number]) => number,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && tables.is_empty() => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if number == 0 {
            return Ok(Some(tables));
        }
        let table = Table::of_number(number).ok_or(malformed("a table of an unknown number"))?;
        if tables.iter().any(|(other, _)| *other == table) {
            return Err(malformed("a table twice"));
        }
        tables.push((table, read_rules(stream, table)?));
    }
}

/// Reads a status; `None` if the network says nothing.
///
/// # Errors
/// Those of reading.
pub(crate) fn read_status(stream: &mut impl Read) -> io::Result<Option<Result<(), String>>> {
    let len = match read_number(stream) {
        Ok(len) => usize::try_from(len).unwrap_or(usize::MAX).min(TEXT_CAP),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = vec![0; len];
    stream.read_exact(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(Some(if text.is_empty() { Ok(()) } else { Err(text) }))
}

fn push_rules(bytes: &mut Vec<u8>, rules: &[PortRule]) {
    bytes.extend_from_slice(&length(rules.len()).to_be_bytes());
    for rule in rules {
        bytes.extend_from_slice(&encode(rule));
    }
}

fn read_rules(stream: &mut impl Read, table: Table) -> io::Result<Vec<PortRule>> {
    let count = usize::try_from(read_number(stream)?).unwrap_or(usize::MAX);
    if count > MAX_RULES {
        return Err(malformed("more than 255 rules in a table"));
    }
    let decode = |bytes| decode(&bytes, table).map_err(malformed);
    (0..count).map(|_| read::<RULE_LEN>(stream).and_then(decode)).collect()
}

fn encode(rule: &PortRule) -> [u8; RULE_LEN] {
    let Listener { address, interface } = &rule.listener;
    let mut flags = if address.is_none() { EVERYWHERE } else { 0 };
    flags |= if rule.is_weak { WEAK } else { 0 };
    flags |= if rule.is_scanned { SCANNED } else { 0 };
    let protocol = match rule.protocol {
        ForwardProtocol::Tcp => TCP,
        ForwardProtocol::Udp => UDP,
    };
    let mut bytes = [0; RULE_LEN];
    let mut rest = &mut bytes[..];
    for part in [
        &octets(*address)[..],
        &octets(rule.target),
        &padded::<INTERFACE_LEN>(interface.as_deref().unwrap_or_default()),
        &rule.ports.first().to_be_bytes(),
        &rule.ports.last().to_be_bytes(),
        &rule.to.to_be_bytes(),
        &[protocol, flags],
    ] {
        let (here, behind) = rest.split_at_mut(part.len());
        here.copy_from_slice(part);
        rest = behind;
    }
    bytes
}

fn decode(bytes: &[u8; RULE_LEN], table: Table) -> Result<PortRule, &'static str> {
    let mut rest = &bytes[..];
    let address = address(take(&mut rest));
    let target = address_or_none(take(&mut rest));
    let name: [u8; INTERFACE_LEN] = take(&mut rest);
    let [first, last, to] = [(); 3].map(|()| u16::from_be_bytes(take(&mut rest)));
    let [protocol, flags] = take(&mut rest);
    let is_everywhere = flags & EVERYWHERE != 0;
    let protocol = match protocol {
        TCP => ForwardProtocol::Tcp,
        UDP => ForwardProtocol::Udp,
        _ => return Err("a rule of an unknown protocol"),
    };
    if flags & !(EVERYWHERE | WEAK | SCANNED) != 0 {
        return Err("a rule with unknown flags");
    }
    let ports = PortRange::new(first, last).ok_or("a rule without ports, or with port 0")?;
    if to == 0 || to.checked_add(last - first).is_none() {
        return Err("a rule that leads to ports which do not exist");
    }
    let len = name.iter().position(|&byte| byte == 0).ok_or("a name without an end")?;
    let interface = match std::str::from_utf8(&name[..len]) {
        Ok("") => None,
        Ok(name) => Some(interface(name).ok_or("an invalid name of an interface")?),
        Err(_) => return Err("an invalid name of an interface"),
    };
    if is_everywhere && address != IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        return Err("a rule for all addresses with an address");
    }
    let listener = match table {
        Table::Host => Listener { address: (!is_everywhere).then_some(address), interface },
        // These ports are on the loopback, however that is written.
        Table::Splice => Listener::default(),
    };
    if target.is_some_and(|target| {
        !is_of_one_host(target)
            || is_everywhere
            || target.is_ipv4() != address.is_ipv4()
            || table == Table::Splice
    }) {
        return Err("a rule with a target that cannot be");
    }
    let (is_weak, is_scanned) = (flags & WEAK != 0, flags & SCANNED != 0);
    Ok(PortRule { protocol, listener, ports, target, to, is_weak, is_scanned })
}

fn octets(address: Option<IpAddr>) -> [u8; 16] {
    match address {
        None => [0; 16],
        Some(IpAddr::V4(address)) => address.to_ipv6_mapped().octets(),
        Some(IpAddr::V6(address)) => address.octets(),
    }
}

fn address(octets: [u8; 16]) -> IpAddr {
    let address = Ipv6Addr::from(octets);
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

fn address_or_none(octets: [u8; 16]) -> Option<IpAddr> {
    (octets != [0; 16]).then(|| address(octets))
}

/// A text, filled up with zeros.
fn padded<const LEN: usize>(text: &str) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    for (place, byte) in bytes.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    bytes
}

fn take<const LEN: usize>(rest: &mut &[u8]) -> [u8; LEN] {
    let Some((head, tail)) = rest.split_first_chunk::<LEN>() else { return [0; LEN] };
    *rest = tail;
    *head
}

fn read<const LEN: usize>(stream: &mut impl Read) -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_number(stream: &mut impl Read) -> io::Result<u32> {
    read(stream).map(u32::from_be_bytes)
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::pasta::ports::rules::{EPHEMERAL, PortOption};

    fn rules(line: &str) -> PortRules {
        let words: Vec<_> = line.split_whitespace().collect();
        let given = words.chunks(2).map(|pair| {
            let option = PortOption::ALL.into_iter().find(|it| pair[0].ends_with(it.letter()));
            (option.unwrap(), pair[1])
        });
        PortRules::given(given, &EPHEMERAL).unwrap()
    }

    const ALL: &str = "-t 8080:80 -t 127.0.0.1/90-92:100-102 -t [::1]%lo/90 -u 0.0.0.0/53,~80 \
                       -t 192.0.2.1/5000:192.0.2.5/6000 -u auto,5000-5010 -T 22 -U ~1-1000";

    #[test]
    fn rules_arrive_as_they_were_sent() {
        let sent = rules(ALL);
        assert_eq!(read_greeting(&mut &greeting(&sent)[..]).unwrap(), sent);
        let tables = read_change(&mut &change(&sent)[..]).unwrap().unwrap();
        assert_eq!(tables, Table::ALL.map(|table| (table, table.rules(&sent).clone())));
    }

    #[test]
    fn bytes_are_those_of_pesto() {
        let bytes = change(&rules("-t 127.0.0.1%eth0/8080-8081:80-81"));
        let mut expected = vec![1, 0, 0, 0, 1];
        expected.extend_from_slice(b"\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01");
        expected.extend_from_slice(&[0; 16]);
        expected.extend_from_slice(b"eth0\0\0\0\0\0\0\0\0\0\0\0\0");
        expected.extend_from_slice(&[0x1f, 0x90, 0x1f, 0x91, 0, 80, 6, 0]);
        expected.extend_from_slice(&[3, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, expected);
        let bytes = greeting(&PortRules::default());
        assert_eq!(bytes[..20], *b"basil:s\0\0\0\0\x02\0\0\0\x80\0\0\0\x10");
        assert_eq!((bytes.len(), bytes[20], &bytes[21..26]), (20 + 2 * 137 + 1, 1, &b"HOST\0"[..]));
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        let bytes = change(&rules(ALL));
        assert!(read_change(&mut &bytes[..0]).unwrap().is_none());
        for len in 1..bytes.len() {
            let error = read_change(&mut &bytes[..len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{len}");
        }
    }

    #[test]
    fn hostile_tables_are_refused() {
        let good = change(&rules("-t 192.0.2.1/80:192.0.2.5/80"));
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            read_change(&mut &bytes[..]).map_err(|error| error.to_string())
        };
        // The rule begins at 5: addresses, name at 37, ports at 53, protocol at 59, flags at 60.
        for (at, byte, text) in [
            (0, 2, "a table of an unknown number"),
            (1, 1, "more than 255 rules in a table"),
            (61, 1, "a table twice"),
            (59, 1, "a rule of an unknown protocol"),
            (60, 8, "a rule with unknown flags"),
            (60, EVERYWHERE, "a rule for all addresses with an address"),
            (54, 0, "a rule without ports, or with port 0"),
            (58, 0, "a rule that leads to ports which do not exist"),
            (37, b'/', "an invalid name of an interface"),
            (37, 0xff, "an invalid name of an interface"),
            (33, 224, "a rule with a target that cannot be"),
            (31, 0, "a rule with a target that cannot be"),
        ] {
            assert_eq!(with(at, byte).unwrap_err(), text, "byte {at}");
        }
        let mut bytes = good.clone();
        bytes[53..59].copy_from_slice(&[0, 80, 0, 90, 0xff, 0xff]);
        let error = read_change(&mut &bytes[..]).unwrap_err().to_string();
        assert_eq!(error, "a rule that leads to ports which do not exist");
        bytes[37..53].fill(b'x');
        bytes[53..59].copy_from_slice(&[0, 80, 0, 80, 0, 80]);
        let error = read_change(&mut &bytes[..]).unwrap_err().to_string();
        assert_eq!(error, "a name without an end");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_can_be_sent(
            mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            at in 0_usize..62,
            byte in proptest::num::u8::ANY,
        ) {
            let _ = read_greeting(&mut &bytes[..]);
            let _ = read_status(&mut &bytes[..]);
            let _ = read_change(&mut &bytes[..]);
            // Nearly a good one, or only such a rule is hardly ever read.
            bytes = change(&rules("-t 192.0.2.1%lo/80-90:192.0.2.5/100-110"));
            bytes[at] ^= byte;
            if let Ok(Some(tables)) = read_change(&mut &bytes[..]) {
                let mut rules = PortRules::default();
                tables.iter().for_each(|(table, its)| table.rules_mut(&mut rules).clone_from(its));
                let again = read_change(&mut &change(&rules)[..]).unwrap().unwrap();
                for (table, its) in tables {
                    proptest::prop_assert!(again.contains(&(table, its)));
                }
            }
        }
    }

    #[test]
    fn status_is_a_text_or_nothing() {
        assert_eq!(status(None), [0; 4]);
        assert_eq!(read_status(&mut &status(Some("no"))[..]).unwrap(), Some(Err("no".to_owned())));
        assert_eq!(read_status(&mut &status(None)[..]).unwrap(), Some(Ok(())));
        let long = format!("x{}", "\u{e9}".repeat(TEXT_CAP));
        let Some(Err(text)) = read_status(&mut &status(Some(&long))[..]).unwrap() else { panic!() };
        assert!(long.starts_with(&text), "cut between two letters");
        assert_eq!(read_status(&mut &[][..]).unwrap(), None, "passt says nothing");
    }
}
