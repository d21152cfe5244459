//! Named sets of addresses.
//!
//! Owns which sets an address is in, which sets are protected, the IPv4 addresses that an IPv6
//! address embeds, and whether an address is a fit answer to the lookup of a name.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::rule::{AddressSet, Prefix};

/// Sets of addresses, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sets(u8);

/// All sets, each at the index of its bit.
pub(super) const ALL: [AddressSet; 7] = [
    AddressSet::HostLoopback,
    AddressSet::Host,
    AddressSet::Private,
    AddressSet::LinkLocal,
    AddressSet::Metadata,
    AddressSet::Multicast,
    AddressSet::Internet,
];

/// The index of a set in [`ALL`].
pub(super) const fn index_of(set: AddressSet) -> usize {
    match set {
        AddressSet::HostLoopback => 0,
        AddressSet::Host => 1,
        AddressSet::Private => 2,
        AddressSet::LinkLocal => 3,
        AddressSet::Metadata => 4,
        AddressSet::Multicast => 5,
        AddressSet::Internet => 6,
    }
}

const HOST_LOOPBACK: u8 = 1 << index_of(AddressSet::HostLoopback);
const HOST: u8 = 1 << index_of(AddressSet::Host);
const PRIVATE: u8 = 1 << index_of(AddressSet::Private);
const LINK_LOCAL: u8 = 1 << index_of(AddressSet::LinkLocal);
const METADATA: u8 = 1 << index_of(AddressSet::Metadata);
const MULTICAST: u8 = 1 << index_of(AddressSet::Multicast);
const INTERNET: u8 = 1 << index_of(AddressSet::Internet);

/// What is opened only by a rule that names the set, or an address or network inside it.
const PROTECTED: u8 = HOST_LOOPBACK | LINK_LOCAL | METADATA | MULTICAST;

/// The protected sets as networks.
///
/// `metadata` has what the clouds document: fd00:ec2::254 (Amazon EC2 user guide, "Access instance
/// metadata for an EC2 instance"), fd00:ec2::23 (Amazon EKS user guide, "Set up the Amazon EKS Pod
/// Identity Agent"), and fd20:ce::254 (Google Compute Engine, "View and query VM metadata").
const PROTECTED_NETWORKS: [Prefix; 18] = [
    v4([0, 0, 0, 0], 8),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([192, 0, 0, 192], 32),
    v4([100, 100, 100, 200], 32),
    v4([168, 63, 129, 16], 32),
    v4([224, 0, 0, 0], 4),
    v4([255, 255, 255, 255], 32),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    // The same loopback and link as the host's kernel takes them out of a v4-mapped address.
    v6([0, 0, 0, 0, 0, 0xffff, 0x7f00, 0], 104),
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 104),
    v6([0, 0, 0, 0, 0, 0xffff, 0xa9fe, 0], 112),
];

const fn v4(octets: [u8; 4], len: u8) -> Prefix {
    Prefix { address: IpAddr::V4(Ipv4Addr::from_octets(octets)), len }
}

const fn v6(segments: [u16; 8], len: u8) -> Prefix {
    Prefix { address: IpAddr::V6(Ipv6Addr::from_segments(segments)), len }
}

impl Sets {
    /// The sets of an address of nobody in particular on the Internet.
    pub(super) const INTERNET: Self = Self(INTERNET);

    /// The sets of `address`. Only the caller knows whether the host has it.
    pub(super) const fn of(address: IpAddr, is_hosts: bool) -> Self {
        let sets = match address {
            IpAddr::V4(v4) => of_ipv4(v4),
            IpAddr::V6(v6) => of_ipv6(v6),
        };
        let sets =
            if sets & HOST_LOOPBACK != 0 || is_hosts { (sets | HOST) & !INTERNET } else { sets };
        Self(sets)
    }

    /// Whether a rule about `set` is about the address.
    pub(super) const fn contains(self, set: AddressSet) -> bool {
        self.0 & (1 << index_of(set)) != 0
    }

    /// Whether a rule has to name one of these sets, or something inside it.
    pub(super) const fn is_protected(self) -> bool {
        self.0 & PROTECTED != 0
    }

    /// Whether a rule that lets `set` pass, one of these sets, opens the address: not if the
    /// address is protected as a member of another set.
    pub(super) const fn opens(self, set: AddressSet) -> bool {
        match set {
            AddressSet::HostLoopback
            | AddressSet::LinkLocal
            | AddressSet::Metadata
            | AddressSet::Multicast => true,
            AddressSet::Host => self.0 & (PROTECTED & !HOST_LOOPBACK) == 0,
            AddressSet::Private | AddressSet::Internet => !self.is_protected(),
        }
    }

    /// Whether the address is the host's loopback in some spelling.
    pub(super) const fn is_host_loopback(self) -> bool {
        self.0 & HOST_LOOPBACK != 0
    }

    /// Whether one remote answers at the address.
    pub(super) const fn is_unicast(self) -> bool {
        self.0 & MULTICAST == 0
    }
}

const fn of_ipv4(address: Ipv4Addr) -> u8 {
    match address.octets() {
        [0 | 127, ..] => HOST_LOOPBACK,
        [169, 254, 169, 254] | [169, 254, 170, 2 | 23] => LINK_LOCAL | METADATA,
        [169, 254, ..] => LINK_LOCAL,
        [100, 100, 100, 200] => PRIVATE | METADATA,
        [192, 0, 0, 192] | [168, 63, 129, 16] => METADATA,
        [10, ..]
        | [192, 168, ..]
        | [172, 16..=31, ..]
        | [100, 64..=127, ..]
        | [198, 18..=19, ..] => PRIVATE,
        [224..=239, ..] | [255, 255, 255, 255] => MULTICAST,
        // Reserved (RFC 1112 section 4), and protocol assignments (RFC 6890 section 2.2.2).
        [240..=255, ..] | [192, 0, 0, _] => 0,
        _ => INTERNET,
    }
}

const fn of_ipv6(address: Ipv6Addr) -> u8 {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => HOST_LOOPBACK,
        // A v4-mapped address is its IPv4 address, and no address of the Internet besides.
        [0, 0, 0, 0, 0, 0xffff, high, low] => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            of_ipv4(Ipv4Addr::new(a, b, c, d)) & !INTERNET
        }
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23 | 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => {
            PRIVATE | METADATA
        }
        // fc00::/7, and the site-local addresses of old, fec0::/10.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => PRIVATE,
        [0xfe80..=0xfebf, ..] => LINK_LOCAL,
        [0xff00..=0xffff, ..] => MULTICAST,
        _ => INTERNET,
    }
}

/// Whether all of `network` is in one protected set.
pub(super) fn is_inside_protected(network: Prefix) -> bool {
    PROTECTED_NETWORKS
        .into_iter()
        .any(|protected| protected.len <= network.len && contains(protected, network.address))
}

/// Whether `address` is in `network`.
pub(super) fn contains(network: Prefix, address: IpAddr) -> bool {
    match (network.address, address) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
            masked(network.address, network.len) == masked(address, network.len)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// The first `len` bits of an address, the rest zero.
pub(super) fn masked(address: IpAddr, len: u8) -> u128 {
    let (bits, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let behind = width - u32::from(len).min(width);
    bits.checked_shr(behind).and_then(|bits| bits.checked_shl(behind)).unwrap_or(0)
}

/// The IPv4 addresses that a translator or a tunnel would make of an IPv6 address: NAT64 (RFC 6052
/// section 2.1, RFC 8215), 6to4 (RFC 3056 section 2), Teredo's server and client (RFC 4380 section
/// 4), IPv4-compatible, v4-mapped and v4-translated (RFC 4291 section 2.5.5, RFC 2765 section 2.1).
pub(crate) fn embedded(address: IpAddr) -> [Option<Ipv4Addr>; 2] {
    let IpAddr::V6(address) = address else { return [None, None] };
    let [.., a, b, c, d] = address.octets();
    let last = Ipv4Addr::new(a, b, c, d);
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None, None],
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _]
        | [0, 0, 0, 0, 0xffff, 0, _, _]
        | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => [Some(last), None],
        [0x64, 0xff9b, 1, ..] => {
            // Its operator chooses where the IPv4 address is: at the end, or around bits 64 to 71
            // right behind the prefix. The form that is not used is all zero.
            let [_, _, _, _, _, _, a, b, _, c, d, ..] = address.octets();
            let split = Ipv4Addr::new(a, b, c, d);
            match (split.is_unspecified(), last.is_unspecified()) {
                (true, _) => [Some(last), None],
                (false, true) => [Some(split), None],
                (false, false) => [Some(split), Some(last)],
            }
        }
        [0x2002, ..] => {
            let [_, _, a, b, c, d, ..] = address.octets();
            [Some(Ipv4Addr::new(a, b, c, d)), None]
        }
        [0x2001, 0, ..] => {
            let [_, _, _, _, a, b, c, d, ..] = address.octets();
            let client = Ipv4Addr::from_bits(!last.to_bits());
            [Some(Ipv4Addr::new(a, b, c, d)), Some(client)]
        }
        _ => [None, None],
    }
}

/// What kind of answer to the lookup of a name an address is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Fitness {
    /// Any name may have it.
    Public,
    /// A name may have it whose rule says `private=yes`.
    Private,
    /// No name leads there.
    Never,
}

impl Fitness {
    /// Of an address in `sets`, without what it embeds. `placeholders` stand for names that are
    /// asked about.
    pub(super) fn of(address: IpAddr, sets: Sets, placeholders: Prefix) -> Self {
        let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        if sets.is_protected() || is_mapped || contains(placeholders, address) {
            Self::Never
        } else if sets.0 & HOST != 0 {
            Self::Private
        } else if sets.0 & INTERNET != 0 || is_benchmark(address) {
            Self::Public
        } else {
            Self::Private
        }
    }
}

/// 198.18.0.0/15 (RFC 2544): proxies on the host answer each lookup with an address out of it.
fn is_benchmark(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if matches!(v4.octets(), [198, 18 | 19, ..]))
}

/// A destination, as far as rules are about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// `None` for an address about which no rule says anything but by its sets.
    pub(super) address: Option<IpAddr>,
    pub(super) sets: Sets,
    /// Other addresses that stand for it alone.
    pub(super) spellings: &'a [IpAddr],
    /// Whether names count here.
    pub(super) fitness: Fitness,
}
