//! Every packet that arrives in a namespace, so that a test can say what has not arrived.
//!
//! Owns a packet socket and what is read from it: protocol, destination, payload. ARP, neighbour
//! discovery and group management are left out.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;

/// Every protocol (`ETH_P_ALL`).
const ETH_P_ALL: u16 = 3;
/// How often the recorder looks whether its test is over.
const TICK: Duration = Duration::from_millis(20);

/// What kind of packet arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A TCP segment.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An echo request or anything else of ICMP or ICMPv6.
    Icmp,
    /// A fragment without a transport header, or any other protocol.
    Other,
}

/// A packet that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// What it was.
    pub kind: Arrival,
    /// Its source; port 0 where there are no ports.
    pub from: SocketAddr,
    /// Its destination; port 0 where there are no ports.
    pub to: SocketAddr,
    /// TCP's sequence number, otherwise 0.
    pub sequence: u32,
    /// What follows the transport header.
    pub payload: Vec<u8>,
}

/// A running recording. Dropping it ends it.
#[derive(Debug)]
pub struct Recorder {
    arrived: Arc<Mutex<Vec<Arrived>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Records what arrives on `interface` of `namespace`.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn start(namespace: &Namespace, interface: &str) -> Self {
        let shown = namespace.script(&format!("ip -o link show {interface}"));
        let mac = shown.split("link/").nth(1).and_then(|link| link.split_whitespace().nth(1));
        let mac: Vec<u8> = mac
            .expect("the interface has an address")
            .split(':')
            .map(|octet| u8::from_str_radix(octet, 16).expect("a MAC address"))
            .collect();
        let is_loopback = mac == [0; 6];
        let socket = namespace
            .enter(|| {
                let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
                Socket::new(Domain::PACKET, Type::RAW, Some(protocol))
            })
            .expect("root may open packet sockets");
        socket.set_read_timeout(Some(TICK)).expect("an open socket takes a timeout");
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (list, over_too) = (Arc::clone(&arrived), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 17];
            let mut socket = &socket;
            while !over_too.load(Ordering::Relaxed) {
                let Ok(len) = socket.read(&mut buffer) else { continue };
                let frame = &buffer[..len];
                let Some(source) = frame.get(6..12) else { continue };
                // The socket sees all interfaces, and what leaves as well.
                let is_loopbacks = source == [0; 6];
                if is_loopbacks == is_loopback && (is_loopback || source != mac) {
                    list.lock().expect("no holder panics").extend(read_frame(frame));
                }
            }
        });
        Self { arrived, over, thread: Some(thread) }
    }

    /// Everything so far.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().expect("no holder panics").clone()
    }

    /// Everything so far that went to `address`.
    pub fn arrived_at(&self, address: IpAddr) -> Vec<Arrived> {
        self.arrived().into_iter().filter(|packet| packet.to.ip() == address).collect()
    }

    /// The bytes of all TCP connections to `address`, one connection after the other.
    pub fn stream(&self, address: SocketAddr) -> Vec<u8> {
        let mut packets: Vec<_> = self
            .arrived()
            .into_iter()
            .filter(|packet| packet.kind == Arrival::Tcp && packet.to == address)
            .collect();
        packets.sort_by_key(|packet| packet.from);
        let mut seen = Vec::new();
        let mut bytes = Vec::new();
        for packet in packets {
            // What is sent again counts once.
            if !packet.payload.is_empty() && !seen.contains(&(packet.from, packet.sequence)) {
                seen.push((packet.from, packet.sequence));
                bytes.extend(packet.payload);
            }
        }
        bytes
    }

    /// The datagrams that arrived at `address`.
    pub fn datagrams(&self, address: SocketAddr) -> Vec<Vec<u8>> {
        self.arrived()
            .into_iter()
            .filter(|packet| packet.kind == Arrival::Udp && packet.to == address)
            .map(|packet| packet.payload)
            .collect()
    }
}

impl Drop for Recorder {
    #[expect(clippy::print_stderr, reason = "a failing test speaks through the runner's capture")]
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic would have been printed already.
            let _ = thread.join();
        }
        if std::thread::panicking() {
            eprintln!("--- what arrived");
            for packet in self.arrived() {
                let shown = packet.payload.get(..64).unwrap_or(&packet.payload);
                let Arrived { kind, from, to, .. } = &packet;
                let len = packet.payload.len();
                eprintln!("{kind:?} {from} > {to} ({len}) {}", shown.escape_ascii());
            }
            eprintln!("---");
        }
    }
}

/// Sixteen bits at `at`.
fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn read_frame(frame: &[u8]) -> Option<Arrived> {
    let packet = frame.get(14..)?;
    match word(frame, 12)? {
        0x0800 => {
            let octets = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok();
            let header = usize::from(*packet.first()? & 0x0f) * 4;
            let end = usize::from(word(packet, 2)?).max(header).min(packet.len());
            let ends = (Ipv4Addr::from(octets(12)?).into(), Ipv4Addr::from(octets(16)?).into());
            let is_later_fragment = word(packet, 6)? & 0x1fff != 0;
            let protocol = if is_later_fragment { 255 } else { packet[9] };
            // Group management.
            (protocol != 2).then_some(())?;
            read_transport(protocol, ends, packet.get(header..end)?)
        }
        0x86dd => {
            let octets = |at: usize| <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok();
            let ends = (Ipv6Addr::from(octets(8)?).into(), Ipv6Addr::from(octets(24)?).into());
            read_transport(packet[6], ends, packet.get(40..)?)
        }
        _ => None,
    }
}

fn read_transport(protocol: u8, ends: (IpAddr, IpAddr), body: &[u8]) -> Option<Arrived> {
    let (kind, header) = match protocol {
        6 => (Arrival::Tcp, usize::from(body.get(12)? >> 4) * 4),
        17 => (Arrival::Udp, 8),
        1 => (Arrival::Icmp, 8),
        // Neighbour discovery, and listeners of groups (also behind a hop-by-hop header).
        58 if matches!(body.first()?, 130..=137 | 143) => return None,
        0 if body.first()? == &58 => return None,
        58 => (Arrival::Icmp, 8),
        _ => (Arrival::Other, 0),
    };
    let ports = match kind {
        Arrival::Tcp | Arrival::Udp => (word(body, 0)?, word(body, 2)?),
        Arrival::Icmp | Arrival::Other => (0, 0),
    };
    let sequence = match kind {
        Arrival::Tcp => u32::from_be_bytes(body.get(4..8)?.try_into().ok()?),
        Arrival::Udp | Arrival::Icmp | Arrival::Other => 0,
    };
    Some(Arrived {
        kind,
        from: (ends.0, ports.0).into(),
        to: (ends.1, ports.1).into(),
        sequence,
        payload: body.get(header..).unwrap_or_default().to_vec(),
    })
}
