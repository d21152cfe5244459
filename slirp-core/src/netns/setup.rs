//! The configuration of a guest's interface as a list of changes, and what became of them.
//!
//! Owns [`Setup`]: the messages of rtnetlink(7) for links, addresses and default routes, in the
//! order in which they are sent. The helper process that sends them in the guest's network
//! namespace is in `sys`. All are made before it is forked; only the number of the interface and
//! its link-local address are filled in there.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeSet;
use std::io;

use crate::mac::MacAddr;
use crate::netlink::{CHANGE, CREATE, EXCLUSIVE, HEADER_LEN, Message};
use crate::sys::attach::Refused;
use crate::sys::changes::{Change, Link, OnRefusal, Unknown, Work};
use crate::sys::errno::text_of;
use crate::sys::step::AttachStep;

/// The number of `lo` in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// `IFF_UP` (netdevice(7)).
const UP: u32 = 0x1;

/// No duplicate address detection (`IFA_F_NODAD`): no other station is on the link.
pub(crate) const NO_DETECTION: u8 = 0x02;

/// The gateway is on the link even if no route says so (`RTNH_F_ONLINK`).
pub(crate) const ON_LINK: u8 = 0x04;

/// Place of the number of the interface in the message about a link or an address: both have it
/// after four bytes.
const INDEX_AT: usize = HEADER_LEN + 4;

/// Packets that the device queues for us when a frame may hold 64 KiB: the kernel's own default for
/// Ethernet. A longer queue could pin hundreds of megabytes.
const QUEUE_LEN_LARGE_FRAMES: u32 = 1_000;

/// Packets that the device queues for us when each has the size of the MTU. The kernel drops what
/// does not fit; 10,000 packets of 1500 bytes hold the window of several busy TCP connections.
const QUEUE_LEN_SMALL_FRAMES: u32 = 10_000;

/// Refused changes of a running network that are named (arbitrary); more are only counted.
const REFUSALS_CAP: usize = 8;

/// How an interface is configured. The default changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Setup {
    changes: Vec<Change>,
    /// What the caller is told of, by the place of its change.
    told: Vec<(usize, String)>,
}

/// Something that the kernel has refused.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// What the guest lacks, such as an address or a route.
    pub what: String,
    /// Why.
    pub source: io::Error,
}

/// What came of changes.
#[derive(Debug)]
pub(crate) struct Carried {
    /// What the kernel has refused.
    pub(crate) refusals: Vec<Refusal>,
    /// The messages that asked for what existed already.
    pub(crate) existing: BTreeSet<Vec<u8>>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, text_of(&self.source))
    }
}

impl Setup {
    /// Only brings the guest's loopback interface up.
    pub fn loopback() -> Self {
        let mut setup = Self::default();
        let message = link(LOOPBACK, UP).finish(0);
        setup.push(Work::Message(message, Vec::new()), OnRefusal::Fail(AttachStep::SetUp));
        setup
    }

    /// The same, and gives the guest's interface the Ethernet address `mac`, if there is one.
    pub fn unconfigured(mac: Option<MacAddr>) -> Self {
        let mut setup = Self::loopback();
        if let Some(address) = mac {
            setup.push(self::mac(address), OnRefusal::Fail(AttachStep::SetMac));
        }
        setup
    }

    pub(crate) fn push(&mut self, work: Work, on_refusal: OnRefusal) {
        self.changes.push(Change::new(work, on_refusal));
    }

    /// Adds a change that sets `what` up, of whose refusal the caller is told.
    pub(crate) fn tell(&mut self, work: Work, what: String) {
        self.told.push((self.changes.len(), what));
        self.push(work, OnRefusal::Tell);
    }

    /// What is done, in its order.
    pub(super) fn works(&self) -> impl Iterator<Item = &Work> {
        self.changes.iter().map(Change::work)
    }

    /// Whether this is done.
    pub(crate) fn contains(&self, work: &Work) -> bool {
        self.works().any(|other| other == work)
    }

    /// Whether there is nothing to do.
    pub(crate) const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Carries it out on an interface of the calling thread's network namespace, and returns what
    /// the kernel has refused. Only for changes of which the caller is told.
    pub(crate) fn carry_out(mut self, link: &Link) -> Carried {
        let messages: Vec<_> =
            self.works().map(|work| work.message().unwrap_or_default().to_vec()).collect();
        if let Err((step, errno)) = link.carry_out(&mut self.changes) {
            let refusals = vec![Refusal { what: format!("{step:?}"), source: errno.into() }];
            return Carried { refusals, existing: BTreeSet::new() };
        }
        let outcomes = || messages.iter().zip(&self.changes);
        let of = |wanted: bool| {
            let found = outcomes().filter(move |(_, it)| it.has_changed() == Some(wanted));
            found.map(|(message, _)| message.clone()).collect::<BTreeSet<_>>()
        };
        let existing = &of(false) - &of(true);
        let refused = self.changes.iter().enumerate();
        let refused = refused.filter_map(|(place, change)| Some((place, change.refusal()?)));
        let mut first: Vec<_> = refused.collect();
        let count = first.len();
        first.truncate(REFUSALS_CAP);
        Carried { refusals: self.refusals(&Refused { count, first }), existing }
    }

    /// Takes the changes that send one of these messages out, and the names of all changes.
    pub(crate) fn forget(&mut self, messages: &BTreeSet<Vec<u8>>) {
        if !messages.is_empty() {
            self.told.clear();
            let is_other = |message: &[u8]| !messages.contains(message);
            self.changes.retain(|change| change.work().message().is_none_or(is_other));
        }
    }

    /// The messages that are sent.
    pub(crate) fn message_set(&self) -> BTreeSet<&[u8]> {
        self.works().filter_map(Work::message).collect()
    }

    /// The messages, in their order.
    #[cfg(test)]
    pub(crate) fn messages(&self) -> impl Iterator<Item = &[u8]> {
        self.changes.iter().filter_map(|change| match change.work() {
            Work::Message(message, _) => Some(message.as_slice()),
            Work::Address(_) | Work::PrefixLen(_) | Work::StaticIpv6 | Work::AdvertisedIpv6 => None,
        })
    }

    pub(super) fn changes(&mut self) -> &mut [Change] {
        &mut self.changes
    }

    /// What the kernel has refused, in words.
    pub(super) fn refusals(&self, refused: &Refused) -> Vec<Refusal> {
        let what_at = |place: usize| {
            let found = self.told.binary_search_by_key(&place, |&(place, _)| place);
            found.ok().and_then(|found| self.told.get(found))
        };
        let mut refusals: Vec<_> = refused
            .first
            .iter()
            .filter_map(|&(place, errno)| {
                let (_, what) = what_at(place)?;
                Some(Refusal { what: what.clone(), source: errno.into() })
            })
            .collect();
        if let Some((_, errno)) = refused.first.last()
            && refused.count > refused.first.len()
        {
            let what = format!("{} more addresses and routes", refused.count - refused.first.len());
            refusals.push(Refusal { what, source: (*errno).into() });
        }
        refusals
    }
}

/// Sets the MTU in bytes.
pub(crate) fn mtu(bytes: u16) -> Work {
    let mut message = link(0, 0);
    message.attribute(libc::IFLA_MTU, &u32::from(bytes).to_ne_bytes());
    on_interface(message)
}

/// Sets how many packets the device queues for us, whose frames have a virtio-net header or not.
/// The ioctl for it needs a capability in the initial user namespace.
pub(crate) fn queue_len(vnet_header: bool) -> Work {
    let len = if vnet_header { QUEUE_LEN_LARGE_FRAMES } else { QUEUE_LEN_SMALL_FRAMES };
    let mut message = link(0, 0);
    message.attribute(libc::IFLA_TXQLEN, &len.to_ne_bytes());
    on_interface(message)
}

/// Sets the Ethernet address.
pub(crate) fn mac(mac: MacAddr) -> Work {
    let mut message = link(0, 0);
    message.attribute(libc::IFLA_ADDRESS, &mac.0);
    on_interface(message)
}

/// Brings the interface up.
pub(crate) fn up() -> Work {
    on_interface(link(0, UP))
}

/// Gives the interface an address that may be used at once.
pub(crate) fn address(address: IpAddr, prefix_len: u8) -> Work {
    let flags = if address.is_ipv6() { NO_DETECTION } else { 0 };
    let mut message = address_message(address, prefix_len, flags, libc::RT_SCOPE_UNIVERSE);
    message.attribute(libc::IFA_LOCAL, &octets(address));
    message.attribute(libc::IFA_ADDRESS, &octets(address));
    on_interface(message)
}

/// Gives the interface the link-local address that the kernel would give it once it is up, but one
/// that may be used at once.
pub(crate) fn link_local() -> Work {
    let any = Ipv6Addr::UNSPECIFIED;
    let mut message = address_message(any.into(), 64, NO_DETECTION, libc::RT_SCOPE_LINK);
    let at = message.attribute(libc::IFA_LOCAL, &any.octets());
    let unknowns = vec![(INDEX_AT, Unknown::Index), (at, Unknown::LinkLocal)];
    Work::Message(message.finish(0), unknowns)
}

/// Adds a default route with this metric; with `None` the kernel's default (0 for IPv4, 1024 for
/// IPv6). `flags` is 0 or [`ON_LINK`].
pub(crate) fn default_route(gateway: IpAddr, metric: Option<u32>, flags: u8) -> Work {
    // An IPv4 route without a metric comes before others of its kind, as with the ioctl that
    // slirp4netns uses.
    let exclusive = if gateway.is_ipv4() && metric.is_none() { 0 } else { EXCLUSIVE };
    // struct rtmsg: family, lengths of destination and source, type of service, table, protocol,
    // scope, type, flags.
    let body = [
        family(gateway),
        0,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_BOOT,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
    ];
    let flags = u32::from(flags).to_ne_bytes();
    let kind = libc::RTM_NEWROUTE;
    let mut message =
        Message::new(kind, CHANGE | CREATE | exclusive, &[&body[..], &flags].concat());
    message.attribute(libc::RTA_GATEWAY, &octets(gateway));
    if let Some(metric) = metric {
        message.attribute(libc::RTA_PRIORITY, &metric.to_ne_bytes());
    }
    let at = message.attribute(libc::RTA_OIF, &[0; 4]);
    Work::Message(message.finish(0), vec![(at, Unknown::Index)])
}

/// The family of an address as the kernel numbers it.
pub(crate) fn family(address: IpAddr) -> u8 {
    let number = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(number).unwrap_or_default()
}

/// The bytes of an address as the value of an attribute.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A message that sets these flags of a link and keeps all others.
pub(super) fn link(index: u32, flags: u32) -> Message {
    // struct ifinfomsg: family and type, which do not matter, index, flags, which of them change.
    let body = [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()];
    Message::new(libc::RTM_NEWLINK, CHANGE, &body.concat())
}

/// A message about an address, before its attributes.
pub(crate) fn address_message(address: IpAddr, prefix_len: u8, flags: u8, scope: u8) -> Message {
    // struct ifaddrmsg: family, prefix, flags, scope, index.
    let body = [family(address), prefix_len, flags, scope, 0, 0, 0, 0];
    Message::new(libc::RTM_NEWADDR, CHANGE | CREATE | EXCLUSIVE, &body)
}

/// A message about a link or an address, whose interface is filled in.
pub(crate) fn on_interface(message: Message) -> Work {
    Work::Message(message.finish(0), vec![(INDEX_AT, Unknown::Index)])
}
