//! ClientHellos: the records around them, and the name inside.
//!
//! Owns a strict reader of what a client of TLS sends in clear text: RFC 8446 sections 4.1.2
//! (ClientHello), 4.1.4 (HelloRetryRequest), 4.2.10 (early data), 5.1 (records) and appendix D.4
//! (compatibility), RFC 6066 section 3 (server_name), RFC 9849 (encrypted_client_hello). A hello
//! may be spread over records and segments as its client likes. It is parsed once, when it is
//! whole.
//!
//! A server may answer with HelloRetryRequest, and the client then sends a second hello. Which name
//! a server takes is its own affair, so the second must have the first one's name. Records are
//! followed by their headers until one shows that no further hello can come:
//!
//! | record | what it shows |
//! | --- | --- |
//! | handshake, a ClientHello | the second hello; a third is refused |
//! | handshake, anything else | TLS 1.2 goes on, or ciphertext: done |
//! | change_cipher_spec | nothing: TLS 1.3 sends it in front of a second hello, too |
//! | alert of two bytes | nothing |
//! | application_data | ciphertext: done, or early data where it was offered |
//!
//! Early data comes before the server's answer, so it is followed for 64 KiB.

use core::net::IpAddr;

use super::{Ask, Flaw, Name, Step};
use crate::egress::verdict::Cause;

/// Longest ClientHello with its header (arbitrary; the longest that was seen had 5.4 KB).
const HELLO_CAP: usize = 16 * 1024;
/// Longer than any hello that a server takes (OpenSSL: 131,396 bytes; others less).
const FOREIGN_HELLO_CAP: usize = 1 << 18;
/// Least content of an encrypted alert: 2 bytes and a tag of 16 (RFC 5246 section 6.2.3, RFC 8446
/// section 5.2).
const ENCRYPTED_ALERT_LEN: usize = 18;
/// Least content of encrypted data: its type and a tag of 8 (RFC 8446 section 5.2, RFC 6655 section
/// 3).
const ENCRYPTED_DATA_LEN: usize = 9;
/// Most records of one ClientHello (arbitrary).
const RECORDS_CAP: u8 = 64;
/// Longest content of a record in clear text (RFC 8446 section 5.1), and of any (RFC 5246 section
/// 6.2.3).
const PLAIN_CAP: usize = 1 << 14;
const RECORD_CAP: usize = PLAIN_CAP + 2048;
const RECORD_HEADER_LEN: usize = 5;
/// Most bytes of early data that are followed (arbitrary: servers take 16 KiB, mostly).
const EARLY_DATA_CAP: usize = 64 * 1024;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const CLIENT_HELLO: u8 = 1;
const HELLO_HEADER_LEN: usize = 4;

const SERVER_NAME: u16 = 0;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// The older form that hides the name alone (draft-ietf-tls-esni-06).
const ENCRYPTED_SERVER_NAME: u16 = 0xffce;

/// What is wrong with a ClientHello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HelloFlaw {
    /// It is not whole in time.
    Slow,
    /// The guest ended its direction before it was whole.
    Incomplete,
    /// A record has another type, version or length.
    Record,
    /// It has more records than any program makes.
    Records,
    /// It is longer than any program makes it.
    Long,
    /// The handshake begins with another message.
    Message,
    /// Its fields do not add up.
    Fields,
    /// An extension comes twice.
    Twice,
    /// `server_name` has not one name of a host.
    ServerName,
    /// A third hello.
    Third,
}

impl From<HelloFlaw> for Flaw {
    fn from(flaw: HelloFlaw) -> Self {
        Self::Hello(flaw)
    }
}

/// What is kept of a hello that was let pass.
#[derive(Debug)]
struct Passed {
    host: Option<Name>,
    /// How many bytes of early data may come.
    early_data: usize,
    is_second: bool,
    /// Whether change_cipher_spec has come behind it.
    is_cipher_changed: bool,
}

/// What a record behind a hello is.
enum Behind {
    /// Its header is incomplete, or what of its content matters.
    Open,
    /// One of those in front of a second hello, up to `end`.
    Followed { end: usize },
    /// The first of a second hello.
    Hello,
    /// One that shows that no further hello can come.
    Ciphertext,
}

/// Reads records until no hello can come any more.
#[derive(Debug)]
pub(super) struct HelloReader {
    may_hide_name: bool,
    /// The hello that was let pass last.
    passed: Option<Passed>,
    /// Whether the bytes at the front are a hello.
    is_in_hello: bool,
    hello: Collected,
}

/// The records of a hello that are whole.
#[derive(Default, Debug)]
struct Collected {
    /// Where the next one begins.
    end: usize,
    records: u8,
    /// Bytes in them.
    len: usize,
    /// The first four: the header of the hello.
    header: [u8; HELLO_HEADER_LEN],
}

impl HelloReader {
    pub(super) fn new(may_hide_name: bool) -> Self {
        let hello = Collected::default();
        Self { may_hide_name, passed: None, is_in_hello: true, hello }
    }

    pub(super) fn read(&mut self, unread: &[u8], ask: &mut Ask<'_>) -> Result<Step, Flaw> {
        if self.is_in_hello {
            return self.hello(unread, ask);
        }
        match self.follow(unread)? {
            Some(step) => Ok(step),
            None => self.hello(unread, ask),
        }
    }

    /// Reads the hello at the front.
    fn hello(&mut self, unread: &[u8], ask: &mut Ask<'_>) -> Result<Step, Flaw> {
        self.is_in_hello = true;
        let is_tls = unread[0] == HANDSHAKE && unread.get(1).is_none_or(|&major| major == 3);
        if self.passed.is_none() && !is_tls {
            return Err(Flaw::NoTls);
        }
        let Some(len) = self.hello.collect(unread)? else {
            return Ok(Step::More);
        };
        let collected = core::mem::take(&mut self.hello);
        let assembled;
        let message = if collected.records == 1 {
            &unread[RECORD_HEADER_LEN..collected.end]
        } else {
            assembled = assemble(&unread[..collected.end], len);
            &assembled
        };
        let hello = Hello::parse(&message[HELLO_HEADER_LEN..])?;
        self.judge(hello, ask)?;
        Ok(if self.passed.is_some() { Step::Pass(collected.end as u64) } else { Step::Done })
    }

    fn judge(&mut self, hello: Hello, ask: &mut Ask<'_>) -> Result<(), Flaw> {
        if hello.hides_name && !self.may_hide_name {
            return Err(Flaw::Ech);
        }
        let host = hello.host;
        if let Some(passed) = &mut self.passed {
            if passed.is_second {
                return Err(HelloFlaw::Third.into());
            }
            if passed.host != host {
                return Err(Flaw::Denied { host: None, denial: Cause::Name.into() });
            }
            (passed.is_second, passed.early_data) = (true, 0);
        } else {
            ask(host.as_ref()).map_err(|denial| Flaw::Denied { host: None, denial })?;
            let early_data = if hello.offers_early_data { EARLY_DATA_CAP } else { 0 };
            self.passed = hello.may_be_retried.then_some(Passed {
                host,
                early_data,
                is_second: false,
                is_cipher_changed: false,
            });
        }
        self.is_in_hello = false;
        Ok(())
    }

    /// Reads records behind a hello. `None` says that another hello is at the front.
    fn follow(&mut self, unread: &[u8]) -> Result<Option<Step>, Flaw> {
        let mut at = 0;
        loop {
            match self.record(unread, at) {
                Ok(Behind::Followed { end }) => at = end,
                Ok(Behind::Ciphertext) => return Ok(Some(Step::Done)),
                // The records in front leave first.
                Ok(Behind::Open | Behind::Hello) | Err(_) if at > 0 => {
                    return Ok(Some(Step::Pass(at as u64)));
                }
                Ok(Behind::Open) => return Ok(Some(Step::More)),
                Ok(Behind::Hello) => return Ok(None),
                Err(flaw) => return Err(flaw),
            }
        }
    }

    /// Looks at the record at `at`, behind a hello.
    fn record(&mut self, unread: &[u8], at: usize) -> Result<Behind, Flaw> {
        let Some(passed) = &mut self.passed else {
            return Ok(Behind::Ciphertext);
        };
        let Some(record) = Record::at(unread, at)? else {
            return Ok(Behind::Open);
        };
        let len = RECORD_HEADER_LEN + record.len;
        match record.kind {
            CHANGE_CIPHER_SPEC if record.len == 1 => passed.is_cipher_changed = true,
            ALERT if record.len == 2 => {}
            ALERT if passed.is_cipher_changed && record.len >= ENCRYPTED_ALERT_LEN => {
                return Ok(Behind::Ciphertext);
            }
            APPLICATION_DATA if record.len < ENCRYPTED_DATA_LEN => {
                return Err(HelloFlaw::Record.into());
            }
            APPLICATION_DATA if passed.early_data <= len => return Ok(Behind::Ciphertext),
            APPLICATION_DATA => passed.early_data -= len,
            HANDSHAKE if record.len > 0 => {
                return Ok(match record.may_be_hello(unread, passed.is_cipher_changed) {
                    None => Behind::Open,
                    Some(true) => Behind::Hello,
                    Some(false) => Behind::Ciphertext,
                });
            }
            _ => return Err(HelloFlaw::Record.into()),
        }
        Ok(Behind::Followed { end: at + len })
    }
}

impl Collected {
    /// Takes the records of `unread` that are whole. Returns the length of the hello with its
    /// header once all of it is there.
    fn collect(&mut self, unread: &[u8]) -> Result<Option<usize>, Flaw> {
        while let Some(record) = Record::at(unread, self.end)? {
            if record.kind != HANDSHAKE || !(1..=PLAIN_CAP).contains(&record.len) {
                return Err(HelloFlaw::Record.into());
            }
            if self.records == RECORDS_CAP {
                return Err(HelloFlaw::Records.into());
            }
            if unread.get(RECORD_HEADER_LEN).is_some_and(|&message| message != CLIENT_HELLO) {
                return Err(HelloFlaw::Message.into());
            }
            let Some(content) = record.content(unread) else {
                return Ok(None);
            };
            for (to, from) in self.header.iter_mut().skip(self.len).zip(content) {
                *to = *from;
            }
            self.end = record.at + RECORD_HEADER_LEN + record.len;
            self.records += 1;
            self.len += record.len;
            if self.len < HELLO_HEADER_LEN {
                continue;
            }
            let [_, len @ ..] = self.header;
            let len = HELLO_HEADER_LEN + u24(len);
            if len > HELLO_CAP {
                return Err(HelloFlaw::Long.into());
            }
            if self.len > len {
                return Err(HelloFlaw::Fields.into());
            }
            if self.len == len {
                return Ok(Some(len));
            }
        }
        Ok(None)
    }
}

/// The content of whole records, `len` bytes.
fn assemble(records: &[u8], len: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(len);
    let mut rest = records;
    while let [_, _, _, high, low, behind @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        content.extend_from_slice(&behind[..len]);
        rest = &behind[len..];
    }
    content
}

/// The header of a record.
#[derive(Clone, Copy, Debug)]
struct Record {
    at: usize,
    kind: u8,
    len: usize,
}

impl Record {
    /// The record at `at`, if its header is there.
    fn at(unread: &[u8], at: usize) -> Result<Option<Self>, Flaw> {
        let Some(&[kind, major, _, high, low, ..]) = unread.get(at..) else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if major != 3 || len > RECORD_CAP {
            return Err(HelloFlaw::Record.into());
        }
        Ok(Some(Self { at, kind, len }))
    }

    /// Its content, once all of it is there.
    fn content(self, unread: &[u8]) -> Option<&[u8]> {
        unread[self.at + RECORD_HEADER_LEN..].get(..self.len)
    }

    /// Whether a record of handshake messages may be a hello; `None` while that is open. Behind
    /// change_cipher_spec it may be ciphertext of a resumed session of TLS 1.2. That begins with a
    /// length that no server takes, but for one record in 2^14, which is refused. The length is not
    /// compared with ours: a server may take longer hellos.
    fn may_be_hello(self, unread: &[u8], may_be_ciphertext: bool) -> Option<bool> {
        let content = &unread[self.at + RECORD_HEADER_LEN..];
        if *content.first()? != CLIENT_HELLO {
            return Some(false);
        }
        if !may_be_ciphertext || self.len < HELLO_HEADER_LEN {
            return Some(true);
        }
        let [_, len @ ..] = *content.first_chunk::<HELLO_HEADER_LEN>()?;
        Some(u24(len) < FOREIGN_HELLO_CAP)
    }
}

/// What a ClientHello says, as far as it matters here.
#[derive(Debug)]
struct Hello {
    /// `None` without `server_name`, or if it has an address.
    host: Option<Name>,
    offers_early_data: bool,
    /// Whether it may be from TLS 1.3, where a server may ask for a second one.
    may_be_retried: bool,
    hides_name: bool,
}

impl Hello {
    /// Reads the body of a ClientHello.
    fn parse(body: &[u8]) -> Result<Self, HelloFlaw> {
        let mut fields = Fields(body);
        fields.take(2 + 32)?;
        let session_id = fields.prefixed8()?;
        let cipher_suites = fields.prefixed16()?;
        let compressions = fields.prefixed8()?;
        if session_id.0.len() > 32
            || cipher_suites.0.is_empty()
            || cipher_suites.0.len() % 2 != 0
            || compressions.0.is_empty()
        {
            return Err(HelloFlaw::Fields);
        }
        let mut hello =
            Self { host: None, offers_early_data: false, may_be_retried: false, hides_name: false };
        if fields.0.is_empty() {
            return Ok(hello);
        }
        let mut extensions = fields.prefixed16()?;
        if !fields.0.is_empty() {
            return Err(HelloFlaw::Fields);
        }
        let mut seen = [0_u64; 1 << 10];
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let content = extensions.prefixed16()?;
            let (word, bit) = (&mut seen[usize::from(kind >> 6)], 1 << (kind & 63));
            if *word & bit != 0 {
                return Err(HelloFlaw::Twice);
            }
            *word |= bit;
            match kind {
                SERVER_NAME => hello.host = server_name(content)?,
                EARLY_DATA => hello.offers_early_data = true,
                SUPPORTED_VERSIONS => hello.may_be_retried = true,
                ENCRYPTED_CLIENT_HELLO | ENCRYPTED_SERVER_NAME => hello.hides_name = true,
                _ => {}
            }
        }
        Ok(hello)
    }
}

/// The one name in the extension; `None` if it is an address.
fn server_name(mut extension: Fields<'_>) -> Result<Option<Name>, HelloFlaw> {
    let mut read = || {
        let mut list = extension.prefixed16()?;
        let kind = list.u8()?;
        let name = list.prefixed16()?.0;
        Ok((list.0.is_empty() && extension.0.is_empty() && kind == 0).then_some(name))
    };
    let flaw = |_: HelloFlaw| HelloFlaw::ServerName;
    let name = read().map_err(flaw)?.and_then(|name| str::from_utf8(name).ok());
    let name = name.ok_or(HelloFlaw::ServerName)?;
    if name.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    Name::new(name).map(Some).ok_or(HelloFlaw::ServerName)
}

/// Bytes that are read from the front.
#[derive(Clone, Copy, Debug)]
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn take(&mut self, len: usize) -> Result<&'b [u8], HelloFlaw> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(HelloFlaw::Fields)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, HelloFlaw> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Result<u16, HelloFlaw> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn prefixed8(&mut self) -> Result<Self, HelloFlaw> {
        let len = self.u8()?;
        self.take(len.into()).map(Self)
    }

    fn prefixed16(&mut self) -> Result<Self, HelloFlaw> {
        let len = self.u16()?;
        self.take(len.into()).map(Self)
    }
}

fn u24([high, mid, low]: [u8; 3]) -> usize {
    usize::from(high) << 16 | usize::from(mid) << 8 | usize::from(low)
}
