//! What a guest is told whose first bytes were refused.
//!
//! Owns the bytes: a TLS alert (RFC 8446 section 6.2) or an HTTP response (RFC 9110 section
//! 15.5.4), so that programs print a reason instead of waiting.

use super::Flaw;

/// A fatal alert, `access_denied` (49), in a record of version 3.3, which clients of all versions
/// of TLS take.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// The answer to `unread`, which is refused for `flaw`.
pub(super) fn to(flaw: &Flaw, unread: &[u8]) -> Vec<u8> {
    match flaw {
        _ if unread.first() == Some(&0x16) => ACCESS_DENIED.to_vec(),
        Flaw::Hello(_) | Flaw::Ech => ACCESS_DENIED.to_vec(),
        Flaw::NoTls if is_http(unread) => forbidden("this port is for TLS"),
        Flaw::NoTls => Vec::new(),
        Flaw::Http(flaw) => forbidden(&flaw.to_string()),
        Flaw::Denied { host, denial } => {
            let host = host.as_deref().unwrap_or("a host without a name");
            let note = denial.note.as_deref().unwrap_or_default();
            let space = if note.is_empty() { "" } else { " " };
            forbidden(&format!("{host} is not allowed.{space}{note}"))
        }
    }
}

/// Whether a request of HTTP begins here, as programs that people use would write it.
fn is_http(unread: &[u8]) -> bool {
    ["GET ", "HEAD ", "POST ", "PUT "].iter().any(|method| unread.starts_with(method.as_bytes()))
}

fn forbidden(reason: &str) -> Vec<u8> {
    let body = format!("blocked by egress policy: {reason}\n");
    let head = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nCache-Control: no-store\r\n\
                Content-Type: text/plain; charset=utf-8\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
