//! Nameservers for the host's resolv.conf: a real dnsmasq, and one with canned bytes.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::namespace::{Background, Namespace};
use crate::server::{TcpServer, UdpServer};
use crate::wait::{PATIENCE, wait_until};

/// A running dnsmasq with a small zone `example.test`.
#[derive(Debug)]
pub struct Dnsmasq {
    _process: Background,
}

impl Dnsmasq {
    /// Serves port 53 of `address` inside `namespace`, plus extra dnsmasq options.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn start(namespace: &Namespace, address: IpAddr, extra: &[&str]) -> Self {
        let listen = format!("--listen-address={address}");
        let mut argv = vec![
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-hosts",
            "--no-resolv",
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
            "--log-facility=-",
            "--local=/example.test/",
            // Authoritative on IPv4 only: there it adds SOA records to what it denies.
            "--auth-server=ns.example.test,lo/4",
            "--auth-zone=auth.test",
            "--auth-soa=7,hostmaster.auth.test",
            "--host-record=www.example.test,203.0.113.10,2001:db8:2::10",
            "--host-record=www.auth.test,203.0.113.10",
            "--host-record=gateway.example.test,10.0.2.2",
            "--txt-record=text.example.test,first string,second",
            "--mx-host=example.test,mail.example.test,10",
            "--srv-host=_sip._tcp.example.test,sip.example.test,5060,1,2",
            "--dns-rr=strange.example.test,65280,0001ff00deadbeef",
            &listen,
        ];
        argv.extend(extra);
        let large: Vec<String> =
            (0..60).map(|n| format!("--txt-record=large.example.test,{n:0>120}")).collect();
        argv.extend(large.iter().map(String::as_str));
        let process = namespace.spawn(&argv);
        let started = || answers(namespace, address);
        wait_until(PATIENCE, "dnsmasq answers", started);
        Self { _process: process }
    }
}

/// Whether something on port 53 of `address` answers a query for the root's name.
fn answers(namespace: &Namespace, address: IpAddr) -> bool {
    namespace.enter(|| {
        let any: IpAddr = match address {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let Ok(socket) = UdpSocket::bind((any, 0)) else { return false };
        let query = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        socket.set_read_timeout(Some(Duration::from_millis(200))).is_ok()
            && socket.connect((address, 53)).is_ok()
            && socket.send(&query).is_ok()
            && socket.recv(&mut [0; 512]).is_ok()
    })
}

/// A nameserver which answers every query with the same bytes after the query's id, and keeps the
/// queries.
#[derive(Debug)]
pub struct CannedDns {
    queries: Arc<Mutex<Vec<Vec<u8>>>>,
    _udp: UdpServer,
    _tcp: TcpServer,
}

impl CannedDns {
    /// Serves port 53 of `address` inside `namespace`. `answer` is a message whose first two bytes
    /// are replaced by the id of the query.
    pub fn start(namespace: &Namespace, address: IpAddr, answer: Vec<u8>) -> Self {
        Self::start_at(namespace, SocketAddr::new(address, 53), answer)
    }

    /// The same on any port.
    pub fn start_at(namespace: &Namespace, at: SocketAddr, answer: Vec<u8>) -> Self {
        let queries = Arc::new(Mutex::new(Vec::new()));
        let reply = move |query: &[u8]| {
            let mut bytes = answer.clone();
            let len = query.len().min(2);
            bytes[..len].copy_from_slice(&query[..len]);
            bytes
        };
        let (udp_queries, udp_reply) = (Arc::clone(&queries), reply.clone());
        let udp = UdpServer::start(namespace, at, move |socket, query, from| {
            udp_queries.lock().expect("no holder panics").push(query.to_vec());
            // The asker may have gone.
            let _ = socket.send_to(&udp_reply(query), from);
        });
        let tcp_queries = Arc::clone(&queries);
        let tcp = TcpServer::start(namespace, at, move |mut stream| {
            let mut len = [0; 2];
            while stream.read_exact(&mut len).is_ok() {
                let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
                if stream.read_exact(&mut query).is_err() {
                    return;
                }
                let bytes = reply(&query);
                tcp_queries.lock().expect("no holder panics").push(query);
                let len = u16::try_from(bytes.len()).expect("canned answers fit");
                if stream
                    .write_all(&len.to_be_bytes())
                    .and_then(|()| stream.write_all(&bytes))
                    .is_err()
                {
                    return;
                }
            }
        });
        Self { queries, _udp: udp, _tcp: tcp }
    }

    /// Every query so far, as received.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    pub fn queries(&self) -> Vec<Vec<u8>> {
        self.queries.lock().expect("no holder panics").clone()
    }
}
