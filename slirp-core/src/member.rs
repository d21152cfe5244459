//! A member of a shared network: one guest of several behind the same stack.
//!
//! Owns plain values: the addresses and names of a member, and the rules for its names. Which
//! frames pass between members is decided in `switch`; what the stack does for a
//! member is decided in [`stack`](crate::stack).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use crate::mac::MacAddr;
use crate::plan::{AddressPlan, link_local_made_from};

/// Members of one network at one time (arbitrary; each costs its link's descriptor and some 100
/// bytes, and a group frame is written once for each).
pub const MEMBERS_CAP: usize = 256;
/// Names of one member, of both kinds (arbitrary; some 100 bytes each).
pub const NAMES_CAP: usize = 16;
/// Longest name in bytes (RFC 1035 section 2.3.4: one label).
const LABEL_CAP: usize = 63;

/// Identifier of one membership; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemberId(pub u64);

/// The addresses and names of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Ethernet address of its interface. It may use others as well; no other member may use this.
    pub mac: MacAddr,
    /// Its address in the network's plan. No other member may use it.
    pub address: Ipv4Addr,
    /// Its IPv6 address in the network's plan. No other member may use it.
    pub address6: Option<Ipv6Addr>,
    /// Names of this member alone; they hide equal aliases of other members. A reverse look-up of
    /// its addresses gives the first.
    pub names: Vec<MemberName>,
    /// Names that several members may share, such as the name of a service.
    pub aliases: Vec<MemberName>,
}

impl Member {
    /// Checks that `plan` lets a guest have this member's addresses and that it has few enough
    /// names.
    ///
    /// # Errors
    /// [`MemberError::Address`] with the address that it cannot have,
    /// [`MemberError::TooManyNames`], [`MemberError::Mac`].
    pub fn validate(&self, plan: &AddressPlan) -> Result<(), MemberError> {
        let v4 = self.address;
        let has_v4 = plan.ipv4().is_some_and(|family| {
            family.contains(v4) && v4 != family.network() && Some(v4) != family.broadcast()
        });
        if !has_v4 || plan.is_ours(v4.into()) {
            return Err(MemberError::Address(v4.into()));
        }
        if let Some(v6) = self.address6 {
            let has_v6 =
                plan.ipv6().is_some_and(|family| family.contains(v6) && v6 != family.network());
            if !has_v6 || plan.is_ours(v6.into()) {
                return Err(MemberError::Address(v6.into()));
            }
        }
        if !self.mac.is_valid_source() {
            return Err(MemberError::Mac(self.mac));
        }
        if self.names.len() + self.aliases.len() > NAMES_CAP {
            return Err(MemberError::TooManyNames);
        }
        Ok(())
    }

    /// Its addresses of either family.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        core::iter::once(IpAddr::V4(self.address)).chain(self.address6.map(IpAddr::V6))
    }

    /// All addresses that belong to it from the start: the assigned ones, and the ones that its
    /// interface makes from its Ethernet address (RFC 4862), which other members could guess.
    pub fn own_addresses(&self, plan: &AddressPlan) -> impl Iterator<Item = IpAddr> {
        let mac = self.mac;
        let made = plan.ipv6().map(|family| {
            [Some(link_local_made_from(mac)), family.address_made_from(mac)]
                .map(|made| made.map(IpAddr::V6))
        });
        self.addresses().chain(made.into_iter().flatten().flatten())
    }
}

/// Why a member was not added or removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemberError {
    /// The instance has a single guest.
    #[error("the network is not shared")]
    NotShared,
    /// No guest can have this address in the network's plan.
    #[error("no member of the network can have the address {0}")]
    Address(IpAddr),
    /// Another member has it.
    #[error("the address {0} is another member's")]
    AddressTaken(IpAddr),
    /// Not a unicast address, or one of ours.
    #[error("no member can have the Ethernet address {0}")]
    Mac(MacAddr),
    /// Another member has it.
    #[error("the Ethernet address {0} is another member's")]
    MacTaken(MacAddr),
    /// There are [`MEMBERS_CAP`] members already.
    #[error("there are {MEMBERS_CAP} members already")]
    TooMany,
    /// It has more than [`NAMES_CAP`] names.
    #[error("a member has {NAMES_CAP} names at most")]
    TooManyNames,
    /// The member's device cannot be watched.
    #[error("the member's device cannot be watched")]
    Device,
    /// It has an egress policy, for which the addresses of the host cannot be read.
    #[error("cannot read the addresses of the host, for which its egress policy asks")]
    HostAddresses,
    /// No member has this id (any more).
    #[error("there is no such member")]
    Unknown,
    /// The instance has ended.
    #[error("the network has ended")]
    Ended,
}

/// A name of one label: letters, digits, `-` and `_`, in lower case.
///
/// A single label, so that no member can take the name of a host on the internet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemberName(String);

/// A text that cannot be a member's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a name is one label of at most 63 letters, digits, '-' and '_', and not localhost")]
pub struct MemberNameError;

impl MemberName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MemberName {
    type Err = MemberNameError;

    /// Reads a name in any case.
    ///
    /// # Errors
    /// [`MemberNameError`].
    fn from_str(text: &str) -> Result<Self, MemberNameError> {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_label = (1..=LABEL_CAP).contains(&text.len())
            && text.bytes().all(is_inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        // RFC 6761 section 6.3: `localhost` is the host that asks.
        if !is_label || text.eq_ignore_ascii_case("localhost") {
            return Err(MemberNameError);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Ipv6Plan;

    fn member(address: &str, address6: Option<&str>) -> Member {
        Member {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            address: address.parse().unwrap(),
            address6: address6.map(|text| text.parse().unwrap()),
            names: Vec::new(),
            aliases: Vec::new(),
        }
    }

    #[test]
    fn names_are_one_label_in_lower_case() {
        for (text, name) in [
            ("web", Some("web")),
            ("Web_1", Some("web_1")),
            ("4f1c", Some("4f1c")),
            ("", None),
            ("a.b", None),
            ("-a", None),
            ("a-", None),
            ("a b", None),
            ("\u{e4}", None),
            ("LOCALHOST", None),
        ] {
            let parsed = text.parse::<MemberName>().ok();
            assert_eq!(parsed.as_ref().map(MemberName::as_str), name, "{text}");
        }
        assert!("x".repeat(63).parse::<MemberName>().is_ok());
        assert!("x".repeat(64).parse::<MemberName>().is_err());
    }

    #[test]
    fn addresses_are_those_of_the_plan_and_not_ours() {
        let plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
        assert_eq!(member("10.0.2.100", Some("fd00::100")).validate(&plan), Ok(()));
        for bad in ["10.0.2.0", "10.0.2.2", "10.0.2.3", "10.0.2.255", "10.0.3.1"] {
            let address = bad.parse().unwrap();
            assert_eq!(member(bad, None).validate(&plan), Err(MemberError::Address(address)));
        }
        for bad in ["fd00::", "fd00::2", "fd00::3", "fd01::9"] {
            let address = bad.parse().unwrap();
            let member = member("10.0.2.100", Some(bad));
            assert_eq!(member.validate(&plan), Err(MemberError::Address(address)));
        }
        let without = member("10.0.2.100", Some("fd00::100")).validate(&AddressPlan::default());
        assert!(without.is_err(), "the plan has no IPv6");
    }

    #[test]
    fn number_of_names_is_bounded() {
        let name = |index: usize| format!("n{index}").parse().unwrap();
        let mut full = member("10.0.2.100", None);
        full.names = (0..NAMES_CAP).map(name).collect();
        assert_eq!(full.validate(&AddressPlan::default()), Ok(()));
        full.aliases = vec![name(99)];
        assert_eq!(full.validate(&AddressPlan::default()), Err(MemberError::TooManyNames));
    }
}
