//! A name server whose answers a test writes record by record.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use crate::namespace::Namespace;
use crate::server::{TcpServer, UdpServer};

/// The longest answer in one datagram; longer ones are truncated to nothing.
const DATAGRAM_CAP: usize = 1232;

/// Types of records by their names.
const TYPES: [(&str, u16); 5] = [("A", 1), ("CNAME", 5), ("TXT", 16), ("AAAA", 28), ("HTTPS", 65)];

/// The number of a type such as `A`.
///
/// # Panics
/// When the type is none that tests use.
pub fn record_type(name: &str) -> u16 {
    TYPES.iter().find(|known| known.0 == name).expect("tests use few types").1
}

/// A question that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The name as it was spelled, without the root's dot.
    pub name: String,
    /// The type.
    pub kind: u16,
    /// The whole message.
    pub message: Vec<u8>,
}

/// A server of one zone, which answers by UDP and TCP and keeps the questions.
#[derive(Debug)]
pub struct NameServer {
    zone: Arc<Mutex<HashMap<String, Vec<String>>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    _udp: UdpServer,
    _tcp: TcpServer,
}

impl NameServer {
    /// Serves port 53 of `address` inside `namespace`, at first without any name.
    pub fn start(namespace: &Namespace, address: IpAddr) -> Self {
        let at = SocketAddr::new(address, 53);
        let zone = Arc::new(Mutex::new(HashMap::new()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answer = {
            let (zone, asked) = (Arc::clone(&zone), Arc::clone(&asked));
            move |query: &[u8]| {
                let (question, end) = read_question(query)?;
                let name = question.name.to_ascii_lowercase();
                let zone: &HashMap<String, Vec<String>> = &zone.lock().expect("no holder panics");
                let records = zone.get(&name).or_else(|| zone.get("*"));
                let answer = make_answer(&query[..end], &name, question.kind, records);
                asked.lock().expect("no holder panics").push(question);
                Some(answer)
            }
        };
        let by_udp = answer.clone();
        let udp = UdpServer::start(namespace, at, move |socket, query, from| {
            let Some(mut bytes) = by_udp(query) else { return };
            if bytes.len() > DATAGRAM_CAP {
                let (_, end) = read_question(query).expect("it was read before");
                bytes.truncate(end);
                bytes[2] |= 2;
                bytes[6..8].fill(0);
            }
            // The asker may have gone.
            let _ = socket.send_to(&bytes, from);
        });
        let tcp = TcpServer::start(namespace, at, move |mut stream| {
            let mut len = [0; 2];
            while stream.read_exact(&mut len).is_ok() {
                let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
                let Some(bytes) = stream.read_exact(&mut query).ok().and_then(|()| answer(&query))
                else {
                    return;
                };
                let len = u16::try_from(bytes.len()).expect("answers fit").to_be_bytes();
                if stream.write_all(&[&len, &bytes[..]].concat()).is_err() {
                    return;
                }
            }
        });
        Self { zone, asked, _udp: udp, _tcp: tcp }
    }

    /// The answer section for `name`, in this order: `OWNER TTL TYPE DATA`. Of records other than
    /// CNAME, a question gets those of its type. The name `*` stands for all that are not given.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    pub fn set(&self, name: &str, records: &[&str]) {
        let records = records.iter().map(|&record| record.to_owned()).collect();
        self.zone.lock().expect("no holder panics").insert(name.to_owned(), records);
    }

    /// One address of `name`.
    pub fn set_address(&self, name: &str, address: &str) {
        let kind = if address.contains(':') { "AAAA" } else { "A" };
        self.set(name, &[&format!("{name} 60 {kind} {address}")]);
    }

    /// Every question so far.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no holder panics").clone()
    }

    /// The names that were asked for, in lower case.
    pub fn asked_names(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.name.to_ascii_lowercase()).collect()
    }
}

/// The first question of a message and where it ends.
fn read_question(message: &[u8]) -> Option<(Asked, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let len = usize::from(*message.get(at)?);
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at + 1..at + 1 + len)?).into_owned());
        at += 1 + len;
    }
    let kind = u16::from_be_bytes(message.get(at + 1..at + 3)?.try_into().ok()?);
    message.get(at + 5 - 1)?;
    Some((Asked { name: labels.join("."), kind, message: message.to_vec() }, at + 5))
}

/// An uncompressed name; nothing stands for the root.
pub(crate) fn wire_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("labels are short"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn make_answer(question: &[u8], name: &str, kind: u16, records: Option<&Vec<String>>) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] = 0x81;
    answer[3] = if records.is_some() { 0x80 } else { 0x83 };
    answer[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    let mut count = 0_u16;
    for record in records.into_iter().flatten() {
        let mut fields = record.splitn(4, ' ');
        let mut field = || fields.next().expect("a record has four fields");
        let (owner, ttl, type_name, data) = (field(), field(), field(), field());
        let own_kind = record_type(type_name);
        if own_kind != kind && own_kind != record_type("CNAME") {
            continue;
        }
        let data = match type_name {
            "A" => data.parse::<std::net::Ipv4Addr>().expect("an address").octets().to_vec(),
            "AAAA" => data.parse::<std::net::Ipv6Addr>().expect("an address").octets().to_vec(),
            "CNAME" => wire_name(data),
            _ => [&[u8::try_from(data.len()).expect("a short text")], data.as_bytes()].concat(),
        };
        // A pointer to the question, or the name itself.
        let owner = if owner == name { vec![0xc0, 12] } else { wire_name(owner) };
        let ttl: u32 = ttl.parse().expect("a number of seconds");
        let len = u16::try_from(data.len()).expect("records are short");
        answer.extend(owner);
        answer.extend(own_kind.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend(len.to_be_bytes());
        answer.extend(data);
        count += 1;
    }
    answer[6..8].copy_from_slice(&count.to_be_bytes());
    answer
}
