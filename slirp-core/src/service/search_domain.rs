//! Search domains in the form in which DHCP, DHCPv6 and router advertisements carry them.
//!
//! Owns the check that a text is a domain name and its encoding as a sequence of labels (RFC 1035
//! section 3.1), which RFC 3397 section 2, RFC 8415 section 10 and RFC 8106 section 5.2 take over.
//! Names are never compressed: the latter two forbid it, and some DHCP clients cannot decompress
//! names.

/// Longest encoded name in bytes, its root label included (RFC 1035 section 2.3.4).
const NAME_CAP: usize = 255;
/// Longest label in bytes (RFC 1035 section 2.3.4).
const LABEL_CAP: usize = 63;

/// A domain name that has been checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SearchDomain {
    text: String,
    labels: Vec<u8>,
}

impl SearchDomain {
    /// The valid ones of `texts`.
    pub(crate) fn list(texts: &[impl AsRef<str>]) -> Vec<Self> {
        texts.iter().filter_map(|text| Self::new(text.as_ref())).collect()
    }

    /// Takes `text` such as `example.org`, with or without a final dot. `None` when it is not a
    /// domain name: labels have 1 to 63 letters, digits, hyphens or underscores. Clients hand these
    /// names to scripts and write them to files, so other characters are refused.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut labels = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if !label.bytes().all(is_name) || label.is_empty() || label.len() > LABEL_CAP {
                return None;
            }
            labels.push(u8::try_from(label.len()).ok()?);
            labels.extend_from_slice(label.as_bytes());
        }
        labels.push(0);
        (labels.len() <= NAME_CAP).then(|| Self { text: text.to_owned(), labels })
    }

    /// The name without a final dot.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name as labels; ends with the root label.
    pub(crate) fn labels(&self) -> &[u8] {
        &self.labels
    }
}

/// As many of `domains`, in order, as fit into `cap` bytes together.
pub(crate) fn encode_list(domains: &[SearchDomain], cap: usize) -> Vec<u8> {
    let mut list = Vec::new();
    for domain in domains {
        if list.len() + domain.labels.len() > cap {
            break;
        }
        list.extend_from_slice(&domain.labels);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_labels() {
        for text in ["example.org", "example.org."] {
            let domain = SearchDomain::new(text).unwrap();
            assert_eq!(domain.labels(), b"\x07example\x03org\0");
            assert_eq!(domain.text(), "example.org");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long_label = "a".repeat(64);
        let long_name = ["a".repeat(63).as_str(); 4].join(".");
        for text in ["", ".", "a..b", ".a", "a b", "a\nb", "$(x).org", &long_label, &long_name] {
            assert_eq!(SearchDomain::new(text), None, "{text:?}");
        }
        let longest = format!("{}.{}", ["a".repeat(63).as_str(); 3].join("."), "a".repeat(61));
        assert_eq!(SearchDomain::new(&longest).unwrap().labels().len(), NAME_CAP);
    }

    #[test]
    fn list_ends_before_the_name_that_does_not_fit() {
        let domains = ["a.b", "c.d", "e.f"].map(|text| SearchDomain::new(text).unwrap());
        assert_eq!(encode_list(&domains, 14), b"\x01a\x01b\0\x01c\x01d\0");
        assert_eq!(encode_list(&domains, 4), b"");
    }
}
