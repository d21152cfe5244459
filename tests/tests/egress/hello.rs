//! ClientHellos, made byte by byte.

#![expect(clippy::unwrap_used, reason = "hellos of tests are short")]

/// Two bytes of length and the bytes.
fn long(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// One extension.
pub(crate) fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &long(body)].concat()
}

/// The extension `server_name` with these names.
pub(crate) fn server_name(names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|name| [&[0][..], &long(name)].concat()).collect();
    extension(0, &long(&list))
}

/// The extension `supported_versions` with TLS 1.3 and 1.2.
pub(crate) fn versions() -> Vec<u8> {
    extension(43, &[4, 3, 4, 3, 3])
}

/// The extension `encrypted_client_hello` with bytes that say nothing.
pub(crate) fn encrypted_hello() -> Vec<u8> {
    let mut body = vec![0, 0, 1, 0, 1, 7];
    body.extend(long(&[0x5a; 32]));
    body.extend(long(&[0xa5; 200]));
    extension(0xfe0d, &body)
}

/// The handshake message with these extensions, without a record.
pub(crate) fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0x11; 32]);
    body.push(32);
    body.extend([0x22; 32]);
    body.extend(long(&[0x13, 1, 0x13, 2, 0xc0, 0x2f]));
    body.extend([1, 0]);
    body.extend(long(&extensions.concat()));
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1], &len[1..], &body].concat()
}

/// A record of a handshake, or of another type.
pub(crate) fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &long(content)].concat()
}

/// A message in records of `size` bytes each.
pub(crate) fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|content| record(22, content)).collect()
}

/// A whole hello in one record, for one name.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    record(22, &message(&[server_name(&[name.as_bytes()]), versions()]))
}
