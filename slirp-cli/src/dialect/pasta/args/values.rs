//! The values that options take: numbers, addresses and names.
//!
//! Owns their parsing, and what a refusal says about them.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use slirp_core::MacAddr;
use slirp_core::config::SearchDomain;
use slirp_core::instance::{MTU_MAX, MTU_MIN};

use super::refusal::ArgumentError;
use crate::dialect::pasta::options::{Name, RunAs};
use crate::dialect::pasta::ports;

/// Smallest size of the log file in bytes, as pasta has it: some lines have to fit.
const MIN_LOG_SIZE: u64 = 40_960;

/// Longest host name in bytes (`HOST_NAME_MAX` of Linux).
const MAX_HOSTNAME_LEN: usize = 64;

/// Longest full name in bytes (RFC 1035, section 2.3.4, as text).
const MAX_FQDN_LEN: usize = 253;

type Result<T> = std::result::Result<T, ArgumentError>;

/// Whose addresses an option takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Of a host on a network.
    Host,
    /// The same, or loopback.
    HostOrLoopback,
    /// The same, or IPv4 loopback.
    HostOrIpv4Loopback,
}

/// Takes `found`, or refuses `text` as `what`.
fn or_refuse<T>(found: Option<T>, what: &'static str, text: &OsStr) -> Result<T> {
    found.ok_or_else(|| ArgumentError::Value(what, text.display().to_string()))
}

/// A whole number without a sign.
fn number(text: &OsStr) -> Option<u64> {
    let text = text.to_str()?;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// An address of the kind that `what` is about.
pub(super) fn address(what: &'static str, text: &OsStr, kind: Kind) -> Result<IpAddr> {
    or_refuse(text.to_str().and_then(|text| of_kind(text, kind)), what, text)
}

fn of_kind(text: &str, kind: Kind) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let may_be_loopback = match kind {
        Kind::Host => false,
        Kind::HostOrLoopback => true,
        Kind::HostOrIpv4Loopback => address.is_ipv4(),
    };
    let is_host = !address.is_unspecified()
        && !address.is_multicast()
        && (may_be_loopback || !address.is_loopback());
    is_host.then_some(address)
}

/// An address of the kind that `what` is about, or `none`.
pub(super) fn address_or_none(what: &'static str, text: &OsStr) -> Result<Option<IpAddr>> {
    match text.as_bytes() {
        b"none" => Ok(None),
        _ => address(what, text, Kind::Host).map(Some),
    }
}

/// A resolver to tell the guest of, or `none`.
pub(super) fn dns(text: &OsStr) -> Result<Option<IpAddr>> {
    match text.as_bytes() {
        b"none" => Ok(None),
        _ => address("Cannot use DNS address", text, Kind::HostOrLoopback).map(Some),
    }
}

/// The guest's address, with the length of its prefix if that is given.
pub(super) fn guest_address(text: &OsStr) -> Result<(IpAddr, Option<u8>)> {
    let parse = || {
        let text = text.to_str()?;
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address = of_kind(address, Kind::Host)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let len = len.map(|len| prefix_len(len, max).ok_or(()));
        Some((address, len.transpose().ok()?))
    };
    or_refuse(parse(), "Invalid address:", text)
}

fn prefix_len(text: &str, max: u8) -> Option<u8> {
    let len = u8::try_from(number(OsStr::new(text))?).ok()?;
    (1..=max).contains(&len).then_some(len)
}

/// Length of the prefix that addresses of this class have (RFC 791, section 3.2).
pub(super) const fn class_prefix_len(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        192..=223 => 24,
        224..=255 => 32,
    }
}

/// An IPv4 netmask, with dots or as a number of bits.
pub(super) fn netmask(text: &OsStr) -> Result<u8> {
    let of_dots = |text: &str| {
        let mask = u32::from(text.parse::<Ipv4Addr>().ok()?);
        let len = mask.leading_ones();
        let is_mask = mask.checked_shl(len).unwrap_or(0) == 0 && len > 0;
        u8::try_from(len).ok().filter(|_| is_mask)
    };
    let len = text.to_str().and_then(|text| prefix_len(text, 32).or_else(|| of_dots(text)));
    or_refuse(len, "Invalid netmask:", text)
}

/// An MTU from 68 to 65521; `None` for 0, which tells the guest none.
pub(super) fn mtu(text: &OsStr) -> Result<Option<u16>> {
    let mtu = or_refuse(number(text), "Invalid MTU:", text)?;
    match u16::try_from(mtu) {
        Ok(0) => Ok(None),
        Ok(..MTU_MIN) => Err(ArgumentError::MtuTooSmall(mtu)),
        Ok(mtu) if mtu <= MTU_MAX => Ok(Some(mtu)),
        Ok(_) | Err(_) => Err(ArgumentError::MtuTooLarge(mtu)),
    }
}

/// A MAC address of one station: six bytes of two hexadecimal digits, with `:` between them.
pub(super) fn mac(text: &OsStr) -> Result<MacAddr> {
    let parse = || {
        let parts: Vec<_> = text.to_str()?.split(':').collect();
        let mut mac = MacAddr::default();
        if parts.len() != mac.0.len() {
            return None;
        }
        for (byte, part) in mac.0.iter_mut().zip(parts) {
            let is_byte = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| is_byte)?;
        }
        mac.is_valid_source().then_some(mac)
    };
    or_refuse(parse(), "Invalid MAC address:", text)
}

/// The name of an interface.
pub(super) fn interface(text: &OsStr) -> Result<String> {
    or_refuse(text.to_str().and_then(ports::interface), "Invalid interface name:", text)
}

/// A path, with `what` about an empty one.
pub(super) fn path(what: &'static str, text: &OsStr) -> Result<PathBuf> {
    or_refuse((!text.is_empty()).then(|| PathBuf::from(text)), what, text)
}

/// The path of a network namespace: itself, or the one of `ip netns` of this name.
pub(super) fn netns(text: &OsStr) -> Result<PathBuf> {
    let path = path("Invalid --netns:", text)?;
    let is_name = !text.as_bytes().contains(&b'/');
    Ok(if is_name { PathBuf::from("/run/netns").join(path) } else { path })
}

/// The number of a process, positive.
pub(super) fn pid(text: &OsStr) -> Result<i32> {
    let pid = number(text).and_then(|pid| i32::try_from(pid).ok()).filter(|&pid| pid > 0);
    or_refuse(pid, "Invalid PID", text)
}

/// The number of a descriptor.
pub(super) fn descriptor(text: &OsStr) -> Result<i32> {
    or_refuse(number(text).and_then(|fd| i32::try_from(fd).ok()), "Invalid --fd:", text)
}

/// The size of the log file in bytes.
pub(super) fn log_size(text: &OsStr) -> Result<u64> {
    or_refuse(number(text).filter(|&size| size >= MIN_LOG_SIZE), "Invalid --log-size:", text)
}

/// The seconds between statistics.
pub(super) fn seconds(text: &OsStr) -> Result<u64> {
    or_refuse(number(text).filter(|&seconds| seconds > 0), "Invalid --stats:", text)
}

/// `UID[:GID]` or `LOGIN[:GROUP]`.
pub(super) fn runas(text: &OsStr) -> Result<RunAs> {
    let name = |text: &str| match text.parse() {
        // For setuid(2) and setgid(2) it is no user and no group: nothing would change.
        Ok(u32::MAX) => None,
        Ok(id) => Some(Name::Id(id)),
        // A number beyond 32 bits is no name.
        Err(_) if text.is_empty() || number(OsStr::new(text)).is_some() => None,
        Err(_) => Some(Name::Name(text.to_owned())),
    };
    let parse = || {
        let text = text.to_str()?;
        match text.split_once(':') {
            Some((user, group)) => Some(RunAs { user: name(user)?, group: Some(name(group)?) }),
            None => Some(RunAs { user: name(text)?, group: None }),
        }
    };
    or_refuse(parse(), "Invalid --runas option:", text)
}

/// A search domain, or `none`.
pub(super) fn search_domain(text: &OsStr) -> Result<Option<String>> {
    if text == "none" {
        return Ok(None);
    }
    let domain = text.to_str().and_then(SearchDomain::new);
    let domain = domain.map(|domain| domain.text().to_owned());
    or_refuse(domain, "Invalid search domain:", text).map(Some)
}

/// The host name that `--hostname` takes.
pub(super) fn hostname(text: &OsStr) -> Result<String> {
    name("Invalid --hostname:", text, MAX_HOSTNAME_LEN)
}

/// The full name that `--fqdn` takes.
pub(super) fn fqdn(text: &OsStr) -> Result<String> {
    name("Invalid --fqdn:", text, MAX_FQDN_LEN)
}

fn name(what: &'static str, text: &OsStr, max_len: usize) -> Result<String> {
    let name = text.to_str().filter(|text| text.len() <= max_len);
    or_refuse(name.filter(|text| SearchDomain::new(text).is_some()), what, text).map(str::to_owned)
}
