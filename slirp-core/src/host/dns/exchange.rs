//! One exchange with one resolver: a query out, the matching answer back.
//!
//! Owns the sockets of an exchange, the fresh message id, and the rule for a matching answer.
//! Leaves order, retries and time limits to [`upstream`](super::upstream).
//!
//! RFC 1035 section 4.2, RFC 5452 sections 4 and 9, RFC 7766 section 8.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::event::DnsTransport;
use crate::nat::unspecified;

/// Length of the fixed header (RFC 1035 section 4.1.1).
const HEADER_LEN: usize = 12;
/// Longest message, on either transport.
const MESSAGE_CAP: usize = 65_535;

/// Why an exchange brought no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// No matching answer arrived in time.
    #[error("no answer in time")]
    TimedOut,
    /// The resolver is unreachable, or it ended the exchange.
    #[error("unreachable")]
    Unreachable(#[source] io::Error),
    /// This host has no socket left, does not know the address family or has lost the source.
    #[error("no socket")]
    NoSocket(#[source] io::Error),
}

/// A query on its way upstream: the guest's bytes, and the decoded header and questions that
/// answers are matched against.
#[derive(Debug)]
pub(super) struct Outgoing {
    message: Vec<u8>,
    op_code: OpCode,
    /// `None` when the first section cannot be decoded, as with future opcodes.
    questions: Option<Vec<Query>>,
    questions_end: usize,
}

impl Outgoing {
    /// Takes the guest's message; `None` when its header is incomplete.
    pub(super) fn new(message: Vec<u8>) -> Option<Self> {
        let Opening { header, questions, end } = decode(&message)?;
        let op_code = header.metadata.op_code;
        Some(Self { message, op_code, questions, questions_end: end })
    }

    /// Whether the answer would span several messages (RFC 5936 section 2.2, RFC 1995 section 4).
    pub(super) fn is_zone_transfer(&self) -> bool {
        self.op_code == OpCode::Query
            && self.questions.iter().flatten().any(|question| {
                matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR)
            })
    }

    /// The answer for a kind of query that is not served: the question and NOTIMP.
    pub(super) fn make_not_implemented(&self) -> Vec<u8> {
        let mut answer = self.message[..self.questions_end].to_vec();
        answer[2] |= 0x80;
        answer[3] = 4;
        answer[6..HEADER_LEN].fill(0);
        answer
    }

    /// The guest's bytes under a fresh message id.
    fn with_fresh_id(&self) -> (u16, Vec<u8>) {
        let id = Message::query().metadata.id;
        let mut message = self.message.clone();
        message[..2].copy_from_slice(&id.to_be_bytes());
        (id, message)
    }

    /// Whether `answer` belongs to this query (RFC 5452 section 9.1): a response with the id and
    /// the question that were sent. An error may come without its question, since servers that
    /// cannot read a question cannot repeat it.
    fn is_answered_by(&self, id: u16, answer: &[u8]) -> bool {
        let Some(Opening { header, questions, .. }) = decode(answer) else { return false };
        if header.metadata.id != id || header.metadata.message_type != MessageType::Response {
            return false;
        }
        let Some(asked) = &self.questions else { return true };
        match questions {
            Some(answered) if answered == *asked => true,
            Some(answered) => {
                let code = header.metadata.response_code;
                answered.is_empty()
                    && code != ResponseCode::NoError
                    && code != ResponseCode::NXDomain
            }
            None => false,
        }
    }
}

/// What an answer means for the search for a better one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Pass it on to the guest.
    Final,
    /// SERVFAIL, NOTIMP or REFUSED: another resolver may have a better answer.
    Declined,
}

/// The verdict on a matching answer.
pub(super) fn verdict(answer: &[u8]) -> Verdict {
    match answer.get(3).map(|flags| flags & 0x0f) {
        Some(2 | 4 | 5) => Verdict::Declined,
        Some(_) | None => Verdict::Final,
    }
}

/// Asks `server` once and takes at most `limit`. The query leaves from `source` if that is given
/// (of the same IP version, with port 0), and by `interface` if that is given. A truncated datagram
/// is an answer like any other: the guest sees the TC flag and repeats the query over TCP, as it
/// would without us (RFC 7766 section 5).
pub(super) async fn ask(
    server: SocketAddr,
    source: Option<SocketAddr>,
    interface: Option<String>,
    transport: DnsTransport,
    query: &Outgoing,
    limit: Duration,
) -> Result<Vec<u8>, ExchangeError> {
    let interface = interface.as_deref();
    let answer = match transport {
        DnsTransport::Udp => timeout(limit, ask_udp(server, source, interface, query)).await,
        DnsTransport::Tcp => timeout(limit, ask_tcp(server, source, interface, query)).await,
    };
    answer.unwrap_or(Err(ExchangeError::TimedOut))
}

/// One datagram from a fresh socket, whose random port the kernel chooses. The socket is connected:
/// datagrams from elsewhere never arrive, and ICMP errors do.
async fn ask_udp(
    server: SocketAddr,
    source: Option<SocketAddr>,
    interface: Option<&str>,
    query: &Outgoing,
) -> Result<Vec<u8>, ExchangeError> {
    let source = source.unwrap_or_else(|| SocketAddr::new(unspecified(server.ip()), 0));
    let socket = UdpSocket::bind(source).await.map_err(ExchangeError::NoSocket)?;
    if let Some(name) = interface {
        socket.bind_device(Some(name.as_bytes())).map_err(ExchangeError::NoSocket)?;
    }
    socket.connect(server).await.map_err(ExchangeError::Unreachable)?;
    let (id, message) = query.with_fresh_id();
    socket.send(&message).await.map_err(ExchangeError::Unreachable)?;
    loop {
        // An ICMP error alone does not make a socket readable (epoll reports EPOLLERR only).
        let interest = Interest::READABLE | Interest::ERROR;
        let ready = socket.ready(interest).await.map_err(ExchangeError::Unreachable)?;
        if ready.is_error() {
            if let Some(error) = socket.take_error().map_err(ExchangeError::Unreachable)? {
                return Err(ExchangeError::Unreachable(error));
            }
            // Nothing is pending: clear the readiness, or it would stay set forever.
            let forget = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = socket.try_io(Interest::ERROR, forget);
        }
        if !ready.is_readable() {
            continue;
        }
        // The buffer exists only while there is something to read: silence costs no memory.
        let mut answer = vec![0; MESSAGE_CAP];
        match socket.try_recv(&mut answer) {
            Ok(len) => answer.truncate(len),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(ExchangeError::Unreachable(error)),
        }
        if query.is_answered_by(id, &answer) {
            answer.shrink_to_fit();
            return Ok(answer);
        }
        tracing::debug!(%server, len = answer.len(), "ignored a datagram that is not the answer");
    }
}

/// One message on a fresh connection.
async fn ask_tcp(
    server: SocketAddr,
    source: Option<SocketAddr>,
    interface: Option<&str>,
    query: &Outgoing,
) -> Result<Vec<u8>, ExchangeError> {
    let socket = match server {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(ExchangeError::NoSocket)?;
    if let Some(name) = interface {
        socket.bind_device(Some(name.as_bytes())).map_err(ExchangeError::NoSocket)?;
    }
    if let Some(source) = source {
        socket.bind(source).map_err(ExchangeError::NoSocket)?;
    }
    let mut stream = socket.connect(server).await.map_err(ExchangeError::Unreachable)?;
    let (id, message) = query.with_fresh_id();
    converse(&mut stream, query, id, &message).await.map_err(ExchangeError::Unreachable)
}

async fn converse(
    stream: &mut TcpStream,
    query: &Outgoing,
    id: u16,
    message: &[u8],
) -> io::Result<Vec<u8>> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await?;
    loop {
        let len = stream.read_u16().await?;
        let mut answer = Vec::new();
        stream.take(u64::from(len)).read_to_end(&mut answer).await?;
        if answer.len() < usize::from(len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if query.is_answered_by(id, &answer) {
            return Ok(answer);
        }
    }
}

/// The first two sections of a message. Records are not decoded; a relay does not judge them.
struct Opening {
    header: Header,
    /// `None` when they cannot be decoded.
    questions: Option<Vec<Query>>,
    /// Where the questions end; the end of the header when they cannot be decoded.
    end: usize,
}

fn decode(message: &[u8]) -> Option<Opening> {
    let mut decoder = BinDecoder::new(message);
    let header = Header::read(&mut decoder).ok()?;
    let questions: Result<Vec<_>, _> =
        (0..header.counts.queries).map(|_| Query::read(&mut decoder)).collect();
    let questions = questions.ok();
    let end = if questions.is_some() { decoder.index() } else { HEADER_LEN };
    Some(Opening { header, questions, end })
}
