//! Rates, levels of the audit log and addresses of metrics, as people write them.
//!
//! Owns their grammar, which options and configuration keys of all programs share.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use slirp_core::Rate;
use slirp_core::instance::{AuditLevel, MetricsSocket};

/// Why a text is no rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RateError {
    /// Not of the form `RATE[,burst=BYTES]`.
    #[error("expected RATE[,burst=BYTES], in bits a second and bytes, such as 10M or 500k")]
    Form,
    /// A limit of 0 bits a second.
    #[error("nothing passes at a rate of 0; without a limit the guest is as fast as it can")]
    NoRate,
    /// A bucket that holds nothing.
    #[error("nothing passes with a burst of 0 bytes")]
    NoBurst,
    /// A number beyond 64 bits.
    #[error("the number is too large")]
    TooLarge,
}

/// Reads `RATE[,burst=BYTES]`. Both numbers may end in `k`, `M` or `G`, which are decimal.
///
/// # Errors
/// See [`RateError`].
pub fn rate(text: &str) -> Result<Rate, RateError> {
    let (rate, burst) = match text.split_once(',') {
        Some((rate, option)) => {
            let burst = option.strip_prefix("burst=").ok_or(RateError::Form)?;
            (rate, Some(amount(burst)?))
        }
        None => (text, None),
    };
    match (amount(rate)?, burst) {
        (0, _) => Err(RateError::NoRate),
        (_, Some(0)) => Err(RateError::NoBurst),
        (bits_per_second, burst) => Ok(Rate { bits_per_second, burst }),
    }
}

/// A whole number with a decimal suffix or none.
fn amount(text: &str) -> Result<u64, RateError> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1_000_000_000),
        Some(_) | None => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RateError::Form);
    }
    let number: u64 = digits.parse().map_err(|_| RateError::TooLarge)?;
    number.checked_mul(factor).ok_or(RateError::TooLarge)
}

/// How much the audit log has: `denied`, `decisions` or `all`.
pub fn audit_level(text: &str) -> Option<AuditLevel> {
    match text {
        "denied" => Some(AuditLevel::Denied),
        "decisions" => Some(AuditLevel::Decisions),
        "all" => Some(AuditLevel::All),
        _ => None,
    }
}

/// Where metrics are served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetricsAddress {
    /// A socket of this path.
    Unix(PathBuf),
    /// A port of 127.0.0.1 or ::1.
    Loopback(SocketAddr),
}

/// Why a text is no address of metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MetricsAddressError {
    /// Neither a socket nor an address with a port.
    #[error("expected unix:PATH, 127.0.0.1:PORT or [::1]:PORT")]
    Form,
    /// Another address.
    #[error("metrics are served at 127.0.0.1:PORT, [::1]:PORT or unix:PATH alone")]
    NotLoopback,
}

impl MetricsAddress {
    /// Reads `unix:PATH`, `127.0.0.1:PORT` or `[::1]:PORT`.
    ///
    /// # Errors
    /// See [`MetricsAddressError`].
    pub fn parse(text: &OsStr) -> Result<Self, MetricsAddressError> {
        if let Some(path) = text.as_bytes().strip_prefix(b"unix:") {
            let path = Some(PathBuf::from(OsStr::from_bytes(path)));
            let path = path.filter(|path| !path.as_os_str().is_empty());
            return path.map(Self::Unix).ok_or(MetricsAddressError::Form);
        }
        let address: Option<SocketAddr> = text.to_str().and_then(|text| text.parse().ok());
        // Nobody would learn which port the system has picked.
        let address = address.filter(|address| address.port() != 0);
        let address = address.ok_or(MetricsAddressError::Form)?;
        let localhosts = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        match localhosts.contains(&address.ip()) {
            true => Ok(Self::Loopback(address)),
            false => Err(MetricsAddressError::NotLoopback),
        }
    }

    /// The path of its socket, if it has one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Loopback(_) => None,
        }
    }

    /// Makes the socket.
    ///
    /// # Errors
    /// The errors of bind(2) and listen(2).
    pub fn bind(&self) -> io::Result<MetricsSocket> {
        match self {
            Self::Unix(path) => MetricsSocket::bind(path),
            Self::Loopback(address) => MetricsSocket::bind_tcp(*address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_decimal_suffixes_and_a_burst_or_none() {
        for (text, bits_per_second, burst) in [
            ("1", 1, None),
            ("64k", 64_000, None),
            ("10M", 10_000_000, None),
            ("10m", 10_000_000, None),
            ("1G", 1_000_000_000, None),
            ("2500000,burst=100k", 2_500_000, Some(100_000)),
            ("1K,burst=1", 1_000, Some(1)),
            ("18446744073709551615", u64::MAX, None),
        ] {
            assert_eq!(rate(text), Ok(Rate { bits_per_second, burst }), "{text}");
        }
        for text in [
            "",
            "k",
            "M",
            "10Mbit",
            "1.5M",
            "-1",
            "+1",
            " 1",
            "1 ",
            "0x10",
            "1,",
            "1,burst",
            "10M,100k",
            "1,burst=",
            "1,burst=1,burst=1",
            "1,Burst=1",
            "1,burst=1x",
            "1\u{e4}",
            "burst=1",
        ] {
            assert_eq!(rate(text), Err(RateError::Form), "{text}");
        }
        assert_eq!(rate("0"), Err(RateError::NoRate));
        assert_eq!(rate("0k,burst=1"), Err(RateError::NoRate));
        assert_eq!(rate("1,burst=0"), Err(RateError::NoBurst));
        assert_eq!(rate("18446744073709551616"), Err(RateError::TooLarge));
        assert_eq!(rate("18446744074G"), Err(RateError::TooLarge));
        assert_eq!(rate("1,burst=99999999999G"), Err(RateError::TooLarge));
    }

    #[test]
    fn metrics_are_served_on_this_host_alone() {
        let parse = |text: &str| MetricsAddress::parse(OsStr::new(text));
        assert_eq!(parse("unix:/run/m"), Ok(MetricsAddress::Unix("/run/m".into())));
        assert_eq!(parse("unix:m"), Ok(MetricsAddress::Unix("m".into())));
        for text in ["127.0.0.1:9100", "[::1]:9100"] {
            assert_eq!(parse(text), Ok(MetricsAddress::Loopback(text.parse().unwrap())));
        }
        for text in
            ["", "unix:", "/run/m", "9100", ":9100", "localhost:9100", "127.0.0.1", "127.0.0.1:0"]
        {
            assert_eq!(parse(text), Err(MetricsAddressError::Form), "{text}");
        }
        for text in ["0.0.0.0:9100", "[::]:9100", "127.0.0.9:1", "[::ffff:127.0.0.1]:9100"] {
            assert_eq!(parse(text), Err(MetricsAddressError::NotLoopback), "{text}");
        }
    }

    #[test]
    fn levels_of_the_audit_log_are_words() {
        assert_eq!(audit_level("denied"), Some(AuditLevel::Denied));
        assert_eq!(audit_level("decisions"), Some(AuditLevel::default()));
        assert_eq!(audit_level("all"), Some(AuditLevel::All));
        assert_eq!(audit_level("ALL"), None);
    }
}
