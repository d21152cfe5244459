//! Writes ClientHellos.

/// A ClientHello in the making.
#[derive(Clone)]
pub(super) struct Hello {
    pub(super) extensions: Vec<(u16, Vec<u8>)>,
    /// Longest fragment of a record.
    pub(super) fragment_len: usize,
}

pub(super) const SERVER_NAME: u16 = 0;
pub(super) const EARLY_DATA: u16 = 42;
pub(super) const SUPPORTED_VERSIONS: u16 = 43;
pub(super) const ECH: u16 = 0xfe0d;

impl Hello {
    /// One of TLS 1.3 for `name`.
    pub(super) fn to(name: &str) -> Self {
        Self::without_name().with(SERVER_NAME, server_name(&[(0, name.as_bytes())]))
    }

    pub(super) fn without_name() -> Self {
        let hello = Self { extensions: Vec::new(), fragment_len: 1 << 14 };
        hello.with(10, vec![0, 2, 0, 29]).with(SUPPORTED_VERSIONS, vec![2, 3, 4])
    }

    pub(super) fn with(mut self, kind: u16, content: Vec<u8>) -> Self {
        self.extensions.push((kind, content));
        self
    }

    pub(super) fn without(mut self, kind: u16) -> Self {
        self.extensions.retain(|(other, _)| *other != kind);
        self
    }

    /// In records of at most `fragment_len` bytes.
    pub(super) fn in_fragments_of(mut self, fragment_len: usize) -> Self {
        self.fragment_len = fragment_len;
        self
    }

    /// With padding, so that the message has `len` bytes.
    pub(super) fn padded_to(self, len: usize) -> Self {
        let padding = len - self.clone().with(21, Vec::new()).message().len();
        self.with(21, vec![0; padding])
    }

    pub(super) fn body(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        for (kind, content) in &self.extensions {
            extensions.extend(kind.to_be_bytes());
            extensions.extend(prefixed16(content));
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(prefixed16(&extensions));
        body
    }

    pub(super) fn message(&self) -> Vec<u8> {
        message(1, &self.body())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.message().chunks(self.fragment_len).flat_map(|part| record(22, part)).collect()
    }
}

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, len @ ..] = u32::try_from(body.len()).expect("it is short").to_be_bytes();
    [&[kind], &len[..], body].concat()
}

pub(super) fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &prefixed16(content)].concat()
}

pub(super) fn server_name(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, name) in entries {
        list.push(*kind);
        list.extend(prefixed16(name));
    }
    prefixed16(&list)
}

pub(super) fn prefixed16(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).expect("it is short").to_be_bytes()[..], content].concat()
}
