//! Tests against scripted resolvers on loopback.

mod failover;
mod fidelity;
mod resolv_file;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::{DnsConfig, Query, run};
use crate::event::{DnsQueryId, DnsTransport};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// One query as it arrived at a resolver.
type Asked = (DnsTransport, Vec<u8>);

/// A resolver that answers as its script says, on UDP and TCP of one port.
struct Scripted {
    address: SocketAddr,
    /// What it was asked so far.
    asked: Arc<Mutex<Vec<Asked>>>,
    /// One message per question.
    questions: mpsc::UnboundedReceiver<()>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Scripted {
    /// A resolver on a free port of 127.0.0.1; the script turns a query into what is sent back.
    async fn start<S>(script: S) -> Self
    where
        S: Fn(DnsTransport, &[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static,
    {
        let (udp, tcp) = bind_pair(Ipv4Addr::LOCALHOST.into()).await;
        Self::serve(udp, tcp, script)
    }

    /// A resolver on `address`.
    async fn start_at<S>(address: SocketAddr, script: S) -> Self
    where
        S: Fn(DnsTransport, &[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static,
    {
        let udp = UdpSocket::bind(address).await.unwrap();
        let tcp = TcpListener::bind(address).await.unwrap();
        Self::serve(udp, tcp, script)
    }

    fn serve<S>(udp: UdpSocket, tcp: TcpListener, script: S) -> Self
    where
        S: Fn(DnsTransport, &[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static,
    {
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (told, questions) = mpsc::unbounded_channel();
        let log = Arc::clone(&asked);
        let script = Arc::new(move |transport, query: &[u8]| {
            log.lock().unwrap().push((transport, query.to_vec()));
            let _ = told.send(());
            script(transport, query)
        });
        let udp_script = Arc::clone(&script);
        let datagrams = tokio::spawn(async move {
            let mut buffer = vec![0; 65_535];
            loop {
                let Ok((len, peer)) = udp.recv_from(&mut buffer).await else { continue };
                for answer in udp_script(DnsTransport::Udp, &buffer[..len]) {
                    let _ = udp.send_to(&answer, peer).await;
                }
            }
        });
        let streams = tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = tcp.accept().await else { continue };
                let script = Arc::clone(&script);
                tokio::spawn(async move {
                    while let Ok(len) = stream.read_u16().await {
                        let mut query = vec![0; usize::from(len)];
                        stream.read_exact(&mut query).await.unwrap();
                        for answer in script(DnsTransport::Tcp, &query) {
                            let len = u16::try_from(answer.len()).unwrap();
                            let _ = stream.write_u16(len).await;
                            let _ = stream.write_all(&answer).await;
                        }
                    }
                });
            }
        });
        Self { address, asked, questions, tasks: [datagrams, streams] }
    }

    fn times_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn bind_pair(ip: IpAddr) -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind((ip, 0)).await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both protocols");
}

/// An address without a listener.
async fn closed_port() -> SocketAddr {
    let (udp, _tcp) = bind_pair(Ipv4Addr::LOCALHOST.into()).await;
    udp.local_addr().unwrap()
}

/// The other end of the task under test.
struct Client {
    queries: mpsc::Sender<Query>,
    answers: mpsc::UnboundedReceiver<(DnsQueryId, Option<Vec<u8>>)>,
    next_id: u64,
    wanted: BTreeMap<DnsQueryId, oneshot::Sender<Infallible>>,
}

impl Client {
    async fn send(&mut self, transport: DnsTransport, message: &[u8]) -> DnsQueryId {
        let id = DnsQueryId(self.next_id);
        self.next_id += 1;
        let message = message.to_vec();
        let (wanted, is_wanted) = oneshot::channel();
        self.wanted.insert(id, wanted);
        self.queries.send(Query { id, transport, message, is_wanted }).await.unwrap();
        id
    }

    /// The answer is no longer wanted.
    fn give_up(&mut self, id: DnsQueryId) {
        self.wanted.remove(&id);
    }

    async fn next_answer(&mut self) -> (DnsQueryId, Option<Vec<u8>>) {
        tokio::time::timeout(PATIENCE, self.answers.recv()).await.expect("an answer").unwrap()
    }

    /// Sends one query and waits for its answer, whose id is replaced by the query's.
    async fn ask(&mut self, transport: DnsTransport, message: &[u8]) -> Option<Vec<u8>> {
        let id = self.send(transport, message).await;
        let (answered, answer) = self.next_answer().await;
        assert_eq!(answered, id);
        answer.map(|mut answer| {
            answer[..2].copy_from_slice(&message[..2]);
            answer
        })
    }

    async fn ask_udp(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        self.ask(DnsTransport::Udp, message).await
    }
}

/// Runs `body` beside the task under test.
async fn with_client<B>(config: DnsConfig, body: B)
where
    B: AsyncFnOnce(Client),
{
    let (queries, from_client) = mpsc::channel(16);
    let (to_client, answers) = mpsc::unbounded_channel();
    let local = LocalSet::new();
    let task = local.spawn_local(run(config, from_client, move |id, answer| {
        let _ = to_client.send((id, answer));
    }));
    local.run_until(body(Client { queries, answers, next_id: 0, wanted: BTreeMap::new() })).await;
    local.run_until(tokio::time::timeout(PATIENCE, task)).await.expect("an orderly end").unwrap();
}

/// Fixed servers, and short times so that tests of silence are quick.
fn config_of(servers: &[SocketAddr]) -> DnsConfig {
    DnsConfig {
        servers: servers.to_vec(),
        timeout: Duration::from_millis(400),
        failover_after: Duration::from_millis(150),
        ..DnsConfig::default()
    }
}

/// A query for `name`.test of type A.
fn query(name: &str) -> Vec<u8> {
    let mut message = b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\0".to_vec();
    message.push(u8::try_from(name.len()).unwrap());
    message.extend_from_slice(name.as_bytes());
    message.extend_from_slice(b"\x04test\0\0\x01\0\x01");
    message
}

/// The answer to `query` that says `code` and holds `records` (their bytes, their number per
/// section).
fn answer(query: &[u8], code: u8, counts: [u8; 3], records: &[u8]) -> Vec<u8> {
    let mut message = query.to_vec();
    message[2] |= 0x80;
    message[3] = 0x80 | code;
    for (at, count) in [7, 9, 11].into_iter().zip(counts) {
        message[at] = count;
    }
    message.extend_from_slice(records);
    message
}

/// An A record for the question's name. Its last byte tells which resolver answered.
fn address(last: u8) -> Vec<u8> {
    let mut record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02".to_vec();
    record.push(last);
    record
}

fn answer_with(query: &[u8], last: u8) -> Vec<u8> {
    answer(query, 0, [1, 0, 0], &address(last))
}
