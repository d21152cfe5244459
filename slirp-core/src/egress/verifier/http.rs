//! Requests of HTTP/1: their heads, and where the next one begins.
//!
//! Owns a strict reader of what a client sends: RFC 9112 sections 2 (format), 3 (request line), 5
//! (fields), 6 (body length) and 7.1 (chunks), RFC 9110 section 7.2 (Host). Each request of a
//! connection is read. Where the RFC lets a recipient be lenient, bytes are refused, since the
//! server may be lenient in another way than we.
//!
//! *Refused because what follows could not be read:* CONNECT, Upgrade, the preface of HTTP/2,
//! HTTP/0.9. `Upgrade: h2c` alone passes, since cargo and Java's HttpClient send it with every
//! first request: servers mostly ignore it, and after a real change of protocol the client's next
//! bytes are that preface (RFC 7540 section 3.2), which is refused.
//! *Refused because servers read them in different ways:* line ends other than CR LF, control
//! characters, folded lines, white space around a field's name, several Host, Content-Length or
//! Transfer-Encoding fields, both of the latter, lists in them, codings other than `chunked`,
//! `chunked` in HTTP/1.0, chunk extensions (no client needs them, and servers skip them by rules of
//! their own), fields about framing or Host in a trailer, a target with another host than Host has.
//!
//! A body is skipped by its length. Bytes of heads and of the lines around chunks are looked at
//! twice: when the end of their line is searched for, and when the line is parsed.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Ask, Flaw, Name, Step};

/// Longest head (arbitrary; servers take 8 to 16 KiB).
pub(super) const HEAD_CAP: usize = 32 * 1024;
/// Most lines of a head, the request line included (arbitrary; servers take about 100 fields).
const LINES_CAP: u8 = 128;
/// Most digits of a length, decimal or hexadecimal: below 2^60, so sums cannot overflow.
const DIGITS_CAP: usize = 15;

/// What is wrong with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum HttpFlaw {
    #[error("the first bytes took too long")]
    Slow,
    #[error("the request is incomplete")]
    Incomplete,
    #[error("the request's head is longer than 32 KiB or 128 lines")]
    Long,
    #[error("the request has a control character, or a line that does not end in CR LF")]
    Control,
    #[error("the request line is not that of HTTP/1.0 or HTTP/1.1")]
    RequestLine,
    #[error("CONNECT cannot be checked")]
    Connect,
    #[error("a change of protocol (Upgrade) cannot be checked")]
    Upgrade,
    #[error("a header field of the request is malformed")]
    Field,
    #[error("the request needs exactly one Host")]
    HostCount,
    #[error("the request's Host is no name or address, or has another port")]
    Host,
    #[error("the request's target and its Host differ")]
    Target,
    #[error("the length of the request's body is ambiguous")]
    Length,
    #[error("a chunk of the request's body is malformed")]
    Chunk,
}

impl From<HttpFlaw> for Flaw {
    fn from(flaw: HttpFlaw) -> Self {
        Self::Http(flaw)
    }
}

/// Whether a byte may stand in a token (RFC 9110 section 5.6.2).
pub(super) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.')
        || matches!(byte, b'^' | b'_' | b'`' | b'|' | b'~')
}

/// Which line comes next.
#[derive(Debug)]
enum Expected {
    RequestLine,
    Field(Head),
    ChunkSize,
    /// The rest of the line that a chunk's bytes end in.
    ChunkEnd,
    Trailer,
}

/// What a head says, as far as it matters here.
#[derive(Debug)]
struct Head {
    is_1_0: bool,
    /// The host in a target of absolute form.
    target: Option<Host>,
    host: Option<Host>,
    content_length: Option<u64>,
    is_chunked: bool,
    /// Whether another protocol than HTTP/2 is offered.
    is_upgrade: bool,
}

/// Whom a request is for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Host {
    Name(Name),
    Address(IpAddr),
}

/// Reads request after request, in units that leave as a whole: a head with its body, the size of a
/// chunk with its bytes, a trailer.
#[derive(Debug)]
pub(super) struct HttpReader {
    port: u16,
    expected: Expected,
    /// Where the first unit begins that is not whole.
    unit_at: usize,
    /// Where its next line begins.
    line_at: usize,
    /// How far the end of that line was searched for.
    scanned: usize,
    /// Lines of the unit so far.
    lines: u8,
    /// Why the bytes behind those that were passed last may not leave.
    flaw: Option<Flaw>,
}

impl HttpReader {
    pub(super) const fn new(port: u16) -> Self {
        let (unit_at, line_at, scanned, lines) = (0, 0, 0, 0);
        let expected = Expected::RequestLine;
        Self { port, expected, unit_at, line_at, scanned, lines, flaw: None }
    }

    pub(super) fn read(&mut self, unread: &[u8], ask: &mut Ask<'_>) -> Result<Step, Flaw> {
        if let Some(flaw) = self.flaw.take() {
            return Err(flaw);
        }
        loop {
            let line = self.next_line(unread).map_err(Flaw::from);
            match line.and_then(|line| line.map(|line| self.on_line(line, ask)).transpose()) {
                Ok(None) => return Ok(self.pass()),
                Ok(Some(None)) => {}
                Ok(Some(Some(body))) => {
                    let end = self.line_at as u64 + body;
                    match usize::try_from(end) {
                        Ok(end) if end < unread.len() => self.begin_at(end),
                        Ok(_) | Err(_) => {
                            self.begin_at(0);
                            return Ok(Step::Pass(end));
                        }
                    }
                }
                Err(flaw) if self.unit_at == 0 => return Err(flaw),
                Err(flaw) => {
                    self.flaw = Some(flaw);
                    return Ok(self.pass());
                }
            }
        }
    }

    const fn begin_at(&mut self, at: usize) {
        (self.unit_at, self.line_at, self.scanned, self.lines) = (at, at, at, 0);
    }

    /// Lets whole units leave.
    fn pass(&mut self) -> Step {
        let leaving = core::mem::take(&mut self.unit_at);
        self.line_at -= leaving;
        self.scanned -= leaving;
        if leaving == 0 { Step::More } else { Step::Pass(leaving as u64) }
    }

    /// Takes the next line, if its end is there.
    fn next_line<'u>(&mut self, unread: &'u [u8]) -> Result<Option<&'u [u8]>, HttpFlaw> {
        let is_control = |&byte: &u8| (byte < b' ' && byte != b'\t') || byte == 0x7f;
        let fresh = unread[self.scanned..].iter().position(is_control);
        let end = fresh.map_or(unread.len(), |fresh| self.scanned + fresh);
        self.scanned = end;
        let line = match unread[end..] {
            _ if end - self.unit_at > HEAD_CAP - 2 => return Err(HttpFlaw::Long),
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => &unread[self.line_at..end],
            _ => return Err(HttpFlaw::Control),
        };
        self.line_at = end + 2;
        self.scanned = self.line_at;
        if self.lines == LINES_CAP && !line.is_empty() {
            return Err(HttpFlaw::Long);
        }
        self.lines = self.lines.saturating_add(1);
        Ok(Some(line))
    }

    /// Reads a line. Returns the length of what follows without lines if the unit ends here.
    fn on_line(&mut self, line: &[u8], ask: &mut Ask<'_>) -> Result<Option<u64>, Flaw> {
        let (next, end) = match &mut self.expected {
            Expected::RequestLine => (Expected::Field(Head::parse(line, self.port)?), None),
            Expected::Field(head) if line.is_empty() => {
                head.judge(ask)?;
                match head.body()? {
                    Some(len) => (Expected::RequestLine, Some(len)),
                    None => (Expected::ChunkSize, Some(0)),
                }
            }
            Expected::Field(head) => {
                head.on_field(field(line)?, self.port)?;
                return Ok(None);
            }
            Expected::ChunkSize => match digits(line, 16).ok_or(HttpFlaw::Chunk)? {
                0 => (Expected::Trailer, Some(0)),
                len => (Expected::ChunkEnd, Some(len)),
            },
            Expected::ChunkEnd if line.is_empty() => (Expected::ChunkSize, Some(0)),
            Expected::ChunkEnd => return Err(HttpFlaw::Chunk.into()),
            Expected::Trailer if line.is_empty() => (Expected::RequestLine, Some(0)),
            Expected::Trailer => {
                let (name, _) = field(line)?;
                return match Known::of(name) {
                    Some(_) => Err(HttpFlaw::Field.into()),
                    None => Ok(None),
                };
            }
        };
        self.expected = next;
        Ok(end)
    }
}

/// The fields that matter here.
enum Known {
    Host,
    ContentLength,
    TransferEncoding,
    Upgrade,
}

impl Known {
    fn of(name: &[u8]) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match () {
            () if is("Host") => Some(Self::Host),
            () if is("Content-Length") => Some(Self::ContentLength),
            () if is("Transfer-Encoding") => Some(Self::TransferEncoding),
            () if is("Upgrade") => Some(Self::Upgrade),
            () => None,
        }
    }
}

impl Head {
    /// Reads a request line.
    fn parse(line: &[u8], port: u16) -> Result<Self, HttpFlaw> {
        let mut words = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(HttpFlaw::RequestLine);
        };
        let is_token = !method.is_empty() && method.iter().copied().all(is_token_byte);
        let is_1_0 = version == b"HTTP/1.0";
        if !is_token || target.contains(&b'\t') || !(is_1_0 || version == b"HTTP/1.1") {
            return Err(HttpFlaw::RequestLine);
        }
        if method.eq_ignore_ascii_case(b"CONNECT") {
            return Err(HttpFlaw::Connect);
        }
        let scheme = target.split_at_checked(7);
        let target = match (target, scheme) {
            ([b'/', ..], _) => None,
            (b"*", _) if method == b"OPTIONS" => None,
            (_, Some((scheme, rest))) if scheme.eq_ignore_ascii_case(b"http://") => {
                let is_end = |byte: &u8| matches!(byte, b'/' | b'?');
                let authority = rest.split(is_end).next().unwrap_or_default();
                Some(Host::parse(authority, port).ok_or(HttpFlaw::RequestLine)?)
            }
            _ => return Err(HttpFlaw::RequestLine),
        };
        let (host, content_length, is_chunked, is_upgrade) = (None, None, false, false);
        Ok(Self { is_1_0, target, host, content_length, is_chunked, is_upgrade })
    }

    fn on_field(&mut self, (name, value): (&[u8], &[u8]), port: u16) -> Result<(), HttpFlaw> {
        match Known::of(name) {
            Some(Known::Host) if self.host.is_some() => return Err(HttpFlaw::HostCount),
            Some(Known::Host) => {
                self.host = Some(Host::parse(value, port).ok_or(HttpFlaw::Host)?);
            }
            Some(Known::ContentLength | Known::TransferEncoding)
                if self.content_length.is_some() || self.is_chunked =>
            {
                return Err(HttpFlaw::Length);
            }
            Some(Known::ContentLength) => {
                self.content_length = Some(digits(value, 10).ok_or(HttpFlaw::Length)?);
            }
            Some(Known::TransferEncoding) => {
                if self.is_1_0 || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HttpFlaw::Length);
                }
                self.is_chunked = true;
            }
            Some(Known::Upgrade) => self.is_upgrade |= !value.eq_ignore_ascii_case(b"h2c"),
            None => {}
        }
        Ok(())
    }

    /// Judges the host of a head that is whole.
    fn judge(&self, ask: &mut Ask<'_>) -> Result<(), Flaw> {
        let host = self.host.as_ref().ok_or(HttpFlaw::HostCount)?;
        if self.target.as_ref().is_some_and(|target| target != host) {
            return Err(HttpFlaw::Target.into());
        }
        ask(host.name()).map_err(|denial| Flaw::Denied { host: Some(host.text()), denial })
    }

    /// The length of the body; `None` if it comes in chunks.
    const fn body(&self) -> Result<Option<u64>, HttpFlaw> {
        match (self.is_upgrade, self.is_chunked, self.content_length) {
            (true, _, _) => Err(HttpFlaw::Upgrade),
            (false, true, _) => Ok(None),
            (false, false, Some(len)) => Ok(Some(len)),
            (false, false, None) => Ok(Some(0)),
        }
    }
}

impl Host {
    /// Reads `HOST` or `HOST:PORT`, where the port has to be the flow's.
    fn parse(text: &[u8], flow_port: u16) -> Option<Self> {
        let text = str::from_utf8(text).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (Self::Address(address.parse::<Ipv6Addr>().ok()?.into()), port)
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                let address = host.parse::<Ipv4Addr>().map(|address| Self::Address(address.into()));
                (address.ok().or_else(|| Name::new(host).map(Self::Name))?, port)
            }
        };
        let is_port = port.is_empty() || port.strip_prefix(':')? == flow_port.to_string();
        is_port.then_some(host)
    }

    const fn name(&self) -> Option<&Name> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }

    fn text(&self) -> Box<str> {
        match self {
            Self::Name(name) => name.as_str().into(),
            Self::Address(address) => address.to_string().into(),
        }
    }
}

/// A field's name, and its value without white space around it.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), HttpFlaw> {
    let colon = line.iter().position(|&byte| byte == b':').ok_or(HttpFlaw::Field)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token_byte) {
        return Err(HttpFlaw::Field);
    }
    Ok((name, value.trim_ascii()))
}

/// A number of digits alone.
fn digits(text: &[u8], radix: u32) -> Option<u64> {
    if !(1..=DIGITS_CAP).contains(&text.len()) {
        return None;
    }
    let digit = |&byte: &u8| char::from(byte).to_digit(radix).map(u64::from);
    text.iter().try_fold(0, |sum, byte| Some(sum * u64::from(radix) + digit(byte)?))
}
