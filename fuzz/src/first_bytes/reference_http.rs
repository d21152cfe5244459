//! A second reader of requests, in the words of RFC 9112's grammar.
//!
//! It shares no code with the product's, and works on a whole stream: it cuts off a head at its
//! empty line, and then looks at the parts of it.

use slirp_core::egress::Cause;

use super::reference_tls::host;
use super::{Outcome, is_allowed};

/// Cuts a unit of lines off: up to and with the first empty line.
fn lines(stream: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let mut lines = Vec::new();
    let mut at = 0;
    loop {
        let end = stream[at..].windows(2).position(|pair| pair == b"\r\n")?;
        let line = &stream[at..at + end];
        if line.iter().any(|&byte| byte < 32 && byte != 9 || byte == 127) {
            return None;
        }
        at += end + 2;
        if line.is_empty() {
            let is_fit = at <= 32_768 && lines.len() <= 128;
            return is_fit.then_some((lines, at));
        }
        lines.push(line);
    }
}

fn is_token(text: &[u8]) -> bool {
    let is_fit = |&byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
    !text.is_empty() && text.iter().all(is_fit)
}

/// Name in lower case, and value.
fn fields(lines: &[&[u8]]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_at(line.iter().position(|&byte| byte == b':')?);
        if !is_token(name) {
            return None;
        }
        let mut value = &value[1..];
        while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
            value = rest;
        }
        fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()));
    }
    Some(fields)
}

/// The host of `HOST[:PORT]`: `Ok` a name, `Err` an address.
fn authority(text: &[u8], port: u16) -> Option<Result<String, std::net::IpAddr>> {
    let text = std::str::from_utf8(text).ok()?;
    let suffix = format!(":{port}");
    let bare = text.strip_suffix(&suffix).unwrap_or(text);
    if let Some(inside) = bare.strip_prefix('[') {
        let address: std::net::Ipv6Addr = inside.strip_suffix(']')?.parse().ok()?;
        return Some(Err(address.into()));
    }
    if bare.contains(':') {
        return None;
    }
    match host(bare)? {
        Some(name) => Some(Ok(name)),
        None => Some(Err(bare.parse().ok()?)),
    }
}

enum Body {
    Len(u64),
    Chunks,
    Upgrade,
}

/// The host and the body of a request with these lines.
fn head(lines: &[&[u8]], port: u16) -> Option<(Result<String, std::net::IpAddr>, Body)> {
    let (request, rest) = lines.split_first()?;
    let [method, target, version] = request.split(|&byte| byte == b' ').collect::<Vec<_>>()[..]
    else {
        return None;
    };
    let is_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return None,
    };
    let is_connect = method.eq_ignore_ascii_case(b"CONNECT");
    if !is_token(method) || is_connect || target.is_empty() || target.contains(&9) {
        return None;
    }
    let fields = fields(rest)?;
    let all = |name: &str| -> Vec<&[u8]> {
        fields.iter().filter(|(other, _)| other == name).map(|(_, value)| &value[..]).collect()
    };
    let [host] = all("host")[..] else {
        return None;
    };
    let host = authority(host, port)?;
    if target.len() > 7 && target[..7].eq_ignore_ascii_case(b"http://") {
        let end = target[7..].iter().position(|byte| b"/?".contains(byte));
        let end = end.map_or(target.len(), |end| 7 + end);
        if authority(&target[7..end], port)? != host {
            return None;
        }
    } else if target[0] != b'/' && !(target == b"*" && method == b"OPTIONS") {
        return None;
    }
    let body = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => Body::Len(0),
        ([len], []) if (1..16).contains(&len.len()) && len.iter().all(u8::is_ascii_digit) => {
            Body::Len(std::str::from_utf8(len).ok()?.parse().ok()?)
        }
        ([], [coding]) if is_1_1 && coding.eq_ignore_ascii_case(b"chunked") => Body::Chunks,
        _ => return None,
    };
    let is_followed = all("upgrade").iter().all(|value| value.eq_ignore_ascii_case(b"h2c"));
    Some((host, if is_followed { body } else { Body::Upgrade }))
}

/// The size that a line gives, and the length of that line.
fn chunk_size(stream: &[u8]) -> Option<(u64, usize)> {
    let end = stream.windows(2).position(|pair| pair == b"\r\n")?;
    let digits = std::str::from_utf8(&stream[..end]).ok()?;
    let is_fit = (1..16).contains(&end) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_fit.then_some((u64::from_str_radix(digits, 16).ok()?, end + 2))
}

pub(super) fn outcome(stream: &[u8], port: u16) -> Outcome {
    let mut outcome = Outcome::default();
    let refuse = |outcome: Outcome, cause| Outcome { refused: Some(cause), ..outcome };
    while outcome.left < stream.len() {
        let Some((lines, len)) = lines(&stream[outcome.left..]) else {
            return refuse(outcome, Cause::Http);
        };
        let Some((host, body)) = head(&lines, port) else {
            return refuse(outcome, Cause::Http);
        };
        let name = host.unwrap_or("-".into());
        outcome.asked.push(name.clone());
        if !is_allowed(&name) {
            return refuse(outcome, Cause::Name);
        }
        match body {
            Body::Upgrade => return refuse(outcome, Cause::Http),
            Body::Len(body) => skip(&mut outcome.left, len as u64 + body, stream),
            Body::Chunks => {
                outcome.left += len;
                if !chunks(&mut outcome.left, stream) {
                    return refuse(outcome, Cause::Http);
                }
            }
        }
    }
    outcome
}

fn skip(left: &mut usize, len: u64, stream: &[u8]) {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    *left = left.saturating_add(len).min(stream.len());
}

/// Whether the chunks at `left` are in order, as far as they have come.
fn chunks(left: &mut usize, stream: &[u8]) -> bool {
    while *left < stream.len() {
        match chunk_size(&stream[*left..]) {
            None => return false,
            Some((0, len)) => {
                *left += len;
                if *left == stream.len() {
                    return true;
                }
                let Some((lines, len)) = lines(&stream[*left..]) else {
                    return false;
                };
                const BANNED: [&str; 4] =
                    ["host", "content-length", "transfer-encoding", "upgrade"];
                let is_fit = fields(&lines)
                    .is_some_and(|all| all.iter().all(|(name, _)| !BANNED.contains(&&name[..])));
                if is_fit {
                    *left += len;
                }
                return is_fit;
            }
            Some((size, len)) => {
                skip(left, len as u64 + size, stream);
                let behind = &stream[*left..];
                if behind.is_empty() {
                    return true;
                }
                if !behind.starts_with(b"\r\n") {
                    return false;
                }
                *left += 2;
            }
        }
    }
    true
}
