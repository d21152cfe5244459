//! The values that options take: numbers, networks, names and MAC addresses.
//!
//! Owns their parsing, and the texts of refusals that callers know. Addresses of the host and of
//! resolvers are parsed in [`address`](super::address), published ports in
//! [`publish`](crate::publish).

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use slirp_core::config::SearchDomain;
use slirp_core::egress::{EgressPolicy, RuleErrors};
use slirp_core::instance::{AuditLevel, MTU_MAX};
use slirp_core::plan::{Ipv6Plan, PlanError, SlirpNetwork};
use slirp_core::{MacAddr, Rate};
use tracing_subscriber::filter::LevelFilter;

use crate::operator::AuditTarget;
use crate::publish::PublishError;
use crate::wording::{self, MetricsAddress, MetricsAddressError, RateError};

/// Longest time that `--busy-poll` takes, in microseconds (arbitrary: an answer that takes longer
/// than a millisecond gains nothing from the few microseconds that polling saves).
const MAX_BUSY_POLL: u16 = 1000;

/// Longest name of a network interface in bytes (`IFNAMSIZ` less its final NUL).
const MAX_TAP_NAME_LEN: usize = 15;

/// Why a value was refused. Shown without the usage.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ValueError {
    /// Not of the form `a.b.c.d/n`.
    #[error("invalid CIDR: {0}")]
    Cidr(String),
    /// A number of the address is not an octet.
    #[error("invalid network address: {0}")]
    NetworkAddress(String),
    /// A network for which there is no address plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The value of `--cidr6`.
    #[error("invalid --cidr6: {0}: {1}")]
    Cidr6(String, PlanError),
    /// The value of `--outbound-addr`. The text has no end of line.
    #[error("outbound-addr has to be valid ipv4 address or interface name.")]
    OutboundAddr,
    /// The value of `--outbound-addr6`. The text has no end of line.
    #[error("outbound-addr6 has to be valid ipv6 address or interface name.")]
    OutboundAddr6,
    /// The value of `--dns`.
    #[error("invalid --dns: {0} (expected ADDR, ADDR:PORT or [IPv6]:PORT of one host)")]
    Dns(String),
    /// The value of `--dns` needs an interface.
    #[error("invalid --dns: {0} is link-local (expected ADDR%INTERFACE)")]
    DnsScope(String),
    /// The value of `--search-domain`.
    #[error("invalid --search-domain: {0} (expected a domain name such as example.org)")]
    SearchDomain(String),
    /// The value of `--log-level`.
    #[error("invalid --log-level: {0} (expected error, warn, info, debug or trace)")]
    LogLevel(String),
    /// The value of `--busy-poll`.
    #[error("invalid --busy-poll: {0} (expected microseconds, 0 to {MAX_BUSY_POLL})")]
    BusyPoll(String),
    /// The value of `--allow`, `--deny` or `--ask`.
    #[error(transparent)]
    Rule(#[from] RuleErrors),
    /// The value of `--policy-mode`.
    #[error("invalid --policy-mode: {0} (expected enforce or audit)")]
    PolicyMode(String),
    /// The value of `--audit-log`.
    #[error("invalid --audit-log: {0} (expected the path of a file, or fd:N)")]
    AuditLog(String),
    /// The value of `--audit`.
    #[error("invalid --audit: {0} (expected denied, decisions or all)")]
    AuditLevel(String),
    /// The value of `--rate-in` or `--rate-out`.
    #[error("invalid {0}: {1} ({2})")]
    Rate(&'static str, String, RateError),
    /// The value of `--metrics`.
    #[error("invalid --metrics: {0} ({1})")]
    Metrics(String, MetricsAddressError),
    /// The value of `--publish`.
    #[error("invalid --publish: {0} ({1})")]
    Publish(String, PublishError),
    /// A recording cannot go to stdout.
    #[error("invalid --pcap: - (stdout is taken by messages; give a file or a FIFO)")]
    PcapStdout,
    /// A part of the MAC address is not a hexadecimal byte.
    #[error("\"{0}\" is an invalid MAC address.\n{MAC_FORM}")]
    Mac(String),
    /// More than six bytes.
    #[error("\"{0}\" is an invalid MAC address.  Is it too long?\n{MAC_FORM}")]
    LongMac(String),
    /// The kernel allows any bytes in interface names; we require UTF-8.
    #[error("the name of the tap is not valid UTF-8: {0}")]
    TapName(String),
}

const MAC_FORM: &str = "macaddress has to be a valid MAC address: up to 6 bytes in hexadecimal, \
                        separated by ':', for example 52:54:00:12:34:56";

/// A whole number in base 10, as strtol(3) reads one: white space and a sign may come first, and an
/// empty text is 0. Numbers beyond 64 bits are `None`.
pub(crate) fn integer(text: &OsStr) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    skip_space(text.to_str()?).parse().ok()
}

/// An MTU, 1..=65521.
pub(crate) fn mtu(text: &OsStr) -> Option<u16> {
    integer(text)
        .filter(|mtu| (1..=MTU_MAX.into()).contains(mtu))
        .and_then(|mtu| mtu.try_into().ok())
}

/// The number of a file descriptor, not negative.
pub(crate) fn descriptor(text: &OsStr) -> Option<i32> {
    integer(text).and_then(|fd| i32::try_from(fd).ok()).filter(|&fd| fd >= 0)
}

/// The number of a process, positive.
pub(crate) fn pid(text: &OsStr) -> Option<i32> {
    integer(text).and_then(|pid| i32::try_from(pid).ok()).filter(|&pid| pid > 0)
}

/// The name of a TAP device, cut to the kernel's limit.
pub(crate) fn tap_name(text: &OsStr) -> Result<String, ValueError> {
    let name = text.to_str().ok_or_else(|| ValueError::TapName(text.display().to_string()))?;
    let mut end = name.len().min(MAX_TAP_NAME_LEN);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Ok(name[..end].to_owned())
}

/// The address plan of an IPv4 network such as `10.0.2.0/24`.
pub(crate) fn cidr(text: &OsStr) -> Result<SlirpNetwork, ValueError> {
    let shown = || text.display().to_string();
    let invalid = || ValueError::Cidr(shown());
    let text = text.to_str().ok_or_else(invalid)?;
    let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
    let numbers: Vec<_> = address.split('.').collect();
    if numbers.len() != 4 || !numbers.iter().all(|n| is_digits(n, 3)) || !is_digits(prefix, 2) {
        return Err(invalid());
    }
    // The parser of the standard library refuses leading zeros, as inet_pton(3) does.
    let network: Ipv4Addr =
        address.parse().map_err(|_| ValueError::NetworkAddress(address.to_owned()))?;
    let prefix_len = prefix.parse().map_err(|_| invalid())?;
    Ok(SlirpNetwork::new(network, prefix_len)?)
}

/// The address plan of an IPv6 network such as `fd00::/64`.
pub(crate) fn cidr6(text: &OsStr) -> Result<Ipv6Plan, ValueError> {
    let parsed = text.to_str().map_or(Err(PlanError::Ipv6Syntax), str::parse);
    parsed.map_err(|error| ValueError::Cidr6(text.display().to_string(), error))
}

/// A domain name.
pub(crate) fn search_domain(text: &OsStr) -> Result<String, ValueError> {
    let domain = text.to_str().and_then(SearchDomain::new);
    domain
        .map(|domain| domain.text().to_owned())
        .ok_or_else(|| ValueError::SearchDomain(text.display().to_string()))
}

/// The log level: lines of this level and more severe ones are logged.
pub(crate) fn log_level(text: &OsStr) -> Result<LevelFilter, ValueError> {
    Ok(match text.as_bytes() {
        b"error" => LevelFilter::ERROR,
        b"warn" => LevelFilter::WARN,
        b"info" => LevelFilter::INFO,
        b"debug" => LevelFilter::DEBUG,
        b"trace" => LevelFilter::TRACE,
        _ => return Err(ValueError::LogLevel(text.display().to_string())),
    })
}

/// The value of `--policy-mode`, as a policy that says nothing else.
pub(crate) fn policy_mode(value: &OsStr) -> Result<EgressPolicy, ValueError> {
    let setting = match value.as_bytes() {
        b"enforce" => "set mode enforce",
        b"audit" => "set mode audit",
        _ => return Err(ValueError::PolicyMode(value.display().to_string())),
    };
    Ok(EgressPolicy::from_entry("cli", 1, "--policy-mode", setting)?)
}

/// A file, or `fd:N`. `-` is refused: stdout is taken by messages.
pub(crate) fn audit_log(text: &OsStr) -> Result<AuditTarget, ValueError> {
    let invalid = || ValueError::AuditLog(text.display().to_string());
    match text.as_bytes() {
        b"" | b"-" => Err(invalid()),
        [b'f', b'd', b':', number @ ..] => {
            let number = str::from_utf8(number).ok().filter(|number| is_digits(number, 10));
            let number = number.and_then(|number| number.parse().ok());
            number.map(AuditTarget::Descriptor).ok_or_else(invalid)
        }
        _ => Ok(AuditTarget::File(PathBuf::from(text))),
    }
}

/// How much the audit log has.
pub(crate) fn audit_level(text: &OsStr) -> Result<AuditLevel, ValueError> {
    text.to_str()
        .and_then(wording::audit_level)
        .ok_or_else(|| ValueError::AuditLevel(text.display().to_string()))
}

/// The value of `option`, a limit.
pub(crate) fn rate(option: &'static str, text: &OsStr) -> Result<Rate, ValueError> {
    let shown = text.to_string_lossy();
    wording::rate(&shown).map_err(|error| ValueError::Rate(option, shown.into_owned(), error))
}

/// Where metrics are served.
pub(crate) fn metrics(text: &OsStr) -> Result<MetricsAddress, ValueError> {
    MetricsAddress::parse(text)
        .map_err(|error| ValueError::Metrics(text.display().to_string(), error))
}

/// Microseconds, 0..=1000.
pub(crate) fn busy_poll(text: &OsStr) -> Result<Duration, ValueError> {
    let micros = text.to_str().filter(|text| is_digits(text, 4)).and_then(|text| text.parse().ok());
    micros
        .filter(|&micros: &u16| micros <= MAX_BUSY_POLL)
        .map(|micros| Duration::from_micros(micros.into()))
        .ok_or_else(|| ValueError::BusyPoll(text.display().to_string()))
}

/// A MAC address of up to six hexadecimal bytes with `:` between them; missing ones are 0.
///
/// Stricter than slirp4netns in one point: it ignores what follows the digits of a byte, so that
/// `02-11-22-33-44-55` is taken for `02:00:00:00:00:00`; we refuse that.
pub(crate) fn mac(text: &OsStr) -> Result<MacAddr, ValueError> {
    let shown = || text.display().to_string();
    let parts: Vec<_> = text.as_bytes().split(|&byte| byte == b':').collect();
    let mut mac = MacAddr::default();
    if parts.len() > mac.0.len() {
        return Err(ValueError::LongMac(shown()));
    }
    for (byte, part) in mac.0.iter_mut().zip(parts) {
        let digits = str::from_utf8(part).map_err(|_| ValueError::Mac(shown()))?;
        let digits = skip_space(digits);
        let digits = digits.strip_prefix("0x").or(digits.strip_prefix("0X")).unwrap_or(digits);
        *byte = u8::from_str_radix(digits, 16).map_err(|_| ValueError::Mac(shown()))?;
    }
    Ok(mac)
}

/// The text after leading white space as isspace(3) defines it. `trim_ascii_start` does not know
/// the vertical tab.
fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r'])
}

pub(crate) fn is_digits(text: &str, max_len: usize) -> bool {
    (1..=max_len).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn numbers_are_read_like_strtol() {
        for (text, expected) in [
            ("15", Some(15)),
            ("", Some(0)),
            (" \t\x0b+15", Some(15)),
            ("-1", Some(-1)),
            ("007", Some(7)),
            (" ", None),
            ("15 ", None),
            ("0x10", None),
            ("5x", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(integer(OsStr::new(text)), expected, "{text:?}");
        }
        assert_eq!(integer(OsStr::from_bytes(b"\xff")), None);
    }

    #[test]
    fn mtu_is_1_to_65521() {
        for (text, expected) in [
            ("1", Some(1)),
            ("65521", Some(65_521)),
            ("0", None),
            ("", None),
            ("65522", None),
            ("-5", None),
            ("4294968796", None),
        ] {
            assert_eq!(mtu(OsStr::new(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn a_tap_name_is_cut_to_15_bytes() {
        for (text, expected) in [
            ("tap0", "tap0"),
            ("", ""),
            ("0123456789abcdefgh", "0123456789abcde"),
            ("0123456789abcd\u{e9}", "0123456789abcd"),
        ] {
            assert_eq!(tap_name(OsStr::new(text)).unwrap(), expected);
        }
        assert!(tap_name(OsStr::from_bytes(b"\xff")).is_err());
    }

    #[test]
    fn a_bad_network_gets_the_text_that_says_what_is_wrong() {
        const PREFIX: &str = "prefix length needs to be 1-25";
        for (text, error) in [
            ("", "invalid CIDR: "),
            ("10.0.2.0", "invalid CIDR: 10.0.2.0"),
            ("10.0.2.0/", "invalid CIDR: 10.0.2.0/"),
            ("10.0.2/24", "invalid CIDR: 10.0.2/24"),
            ("10.0.2.0/24x", "invalid CIDR: 10.0.2.0/24x"),
            ("10.0.2.0/026", "invalid CIDR: 10.0.2.0/026"),
            ("+1.0.2.0/24", "invalid CIDR: +1.0.2.0/24"),
            ("1000.0.2.0/24", "invalid CIDR: 1000.0.2.0/24"),
            ("fd00::/64", "invalid CIDR: fd00::/64"),
            ("300.0.2.0/24", "invalid network address: 300.0.2.0"),
            ("010.0.2.0/24", "invalid network address: 010.0.2.0"),
            ("10.0.2.0/0", PREFIX),
            ("10.0.2.0/99", PREFIX),
            ("10.0.2.100/26", PREFIX),
            (
                "10.0.2.100/24",
                "CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24",
            ),
        ] {
            assert_eq!(cidr(OsStr::new(text)).unwrap_err().to_string(), error);
        }
        assert!(cidr(OsStr::from_bytes(b"\xff/24")).is_err());
        let plan = cidr(OsStr::new("10.41.0.0/16")).unwrap();
        assert_eq!(plan.gateway(), Ipv4Addr::new(10, 41, 0, 2));
    }

    #[test]
    fn log_levels_have_their_five_names() {
        for (text, level) in [
            ("error", LevelFilter::ERROR),
            ("warn", LevelFilter::WARN),
            ("info", LevelFilter::INFO),
            ("debug", LevelFilter::DEBUG),
            ("trace", LevelFilter::TRACE),
        ] {
            assert_eq!(log_level(OsStr::new(text)), Ok(level));
        }
        for text in ["", "off", "WARN", "5", "slirp_core=trace"] {
            assert_eq!(log_level(OsStr::new(text)), Err(ValueError::LogLevel(text.to_owned())));
        }
    }

    #[test]
    fn a_mac_address_has_up_to_six_bytes() {
        for (text, bytes) in [
            ("02:11:22:33:44:55", [2, 0x11, 0x22, 0x33, 0x44, 0x55]),
            ("1:2", [1, 2, 0, 0, 0, 0]),
            (" 0X1:+2", [1, 2, 0, 0, 0, 0]),
            ("0x1:Ff", [1, 0xff, 0, 0, 0, 0]),
            ("001:2", [1, 2, 0, 0, 0, 0]),
        ] {
            assert_eq!(mac(OsStr::new(text)), Ok(MacAddr(bytes)), "{text}");
        }
        for text in ["", "zz", ":1", "1:", "1::2", "100:1", "-1:2", "01-02"] {
            let error = mac(OsStr::new(text)).unwrap_err().to_string();
            let first = format!("\"{text}\" is an invalid MAC address.");
            assert_eq!(error.lines().next(), Some(first.as_str()));
            assert!(
                error
                    .lines()
                    .nth(1)
                    .unwrap()
                    .starts_with("macaddress has to be a valid MAC address")
            );
        }
        let error = mac(OsStr::new("1:2:3:4:5:6:7")).unwrap_err().to_string();
        assert!(
            error.starts_with("\"1:2:3:4:5:6:7\" is an invalid MAC address.  Is it too long?\n")
        );
        assert!(mac(OsStr::from_bytes(b"\xff")).is_err());
    }
}
