//! Changes to a guest's interface: made before the fork, carried out in the helper process, or
//! later by a thread in the guest's network namespace.
//!
//! Owns what a change does ([`Work`]), what follows when the kernel refuses it ([`OnRefusal`]), and
//! the order of attempts. Which changes an interface gets is decided in
//! [`netns`](crate::netns). Nothing here allocates after the fork: a change is ready but for the
//! numbers that exist only then ([`Unknown`]), whose bytes are filled in.
//!
//! Routes depend on each other and on addresses. So what was refused is attempted again as long as
//! anything else has succeeded meanwhile.

use core::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{read, write};

use super::ifreq::{self, InterfaceRequest};
use super::rtnetlink::Rtnetlink;
use super::step::{AttachStep, StepResult};
use crate::plan::link_local_made_from;

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    work: Work,
    on_refusal: OnRefusal,
    outcome: Outcome,
}

/// What a change does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// It sends this message of rtnetlink(7), in which these bytes are filled in first. What exists
    /// already is as good as made, and what is not there as good as removed.
    Message(Vec<u8>, Vec<(usize, Unknown)>),
    /// It gives the interface this IPv4 address in place of the one that it has.
    Address(Ipv4Addr),
    /// It sets the length of that address's prefix.
    PrefixLen(u8),
    /// It writes [`STATIC_IPV6`].
    StaticIpv6,
    /// It makes the guest accept router advertisements even if it forwards packets.
    AdvertisedIpv6,
}

/// What is not known before the fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unknown {
    /// The number of the interface, 4 bytes.
    Index,
    /// The link-local address that follows from the interface's Ethernet address, 16 bytes.
    LinkLocal,
}

/// What follows when the kernel refuses a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnRefusal {
    /// There is no device. The step names the change.
    Fail(AttachStep),
    /// The caller is told.
    Tell,
    /// Nothing: it matters little, or the default works as well.
    Ignore,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Waiting,
    Done,
    /// It had been done before, by somebody else.
    Existed,
    Refused(Errno),
}

impl Change {
    pub(crate) const fn new(work: Work, on_refusal: OnRefusal) -> Self {
        Self { work, on_refusal, outcome: Outcome::Waiting }
    }

    pub(crate) const fn work(&self) -> &Work {
        &self.work
    }

    #[cfg(test)]
    pub(super) const fn refused_with(mut self, errno: Errno) -> Self {
        self.outcome = Outcome::Refused(errno);
        self
    }

    /// Why it was refused, if the caller is to be told.
    pub(crate) fn refusal(&self) -> Option<Errno> {
        match (self.outcome, self.on_refusal) {
            (Outcome::Refused(errno), OnRefusal::Tell) => Some(errno),
            (Outcome::Waiting | Outcome::Done | Outcome::Existed | Outcome::Refused(_), _) => None,
        }
    }

    /// Whether it was carried out: `Some(false)` if there was nothing to do.
    pub(crate) const fn has_changed(&self) -> Option<bool> {
        match self.outcome {
            Outcome::Done => Some(true),
            Outcome::Existed => Some(false),
            Outcome::Waiting | Outcome::Refused(_) => None,
        }
    }
}

impl Work {
    /// The message that it sends, if it sends one.
    pub(crate) fn message(&self) -> Option<&[u8]> {
        match self {
            Self::Message(message, _) => Some(message),
            Self::Address(_) | Self::PrefixLen(_) | Self::StaticIpv6 | Self::AdvertisedIpv6 => None,
        }
    }
}

/// Carries out `changes` of `interface`, each until it has succeeded or no other does.
pub(super) fn carry_out(changes: &mut [Change], interface: InterfaceRequest) -> StepResult<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let link = Link::open(interface).map_err(|errno| (AttachStep::OpenSocket, errno))?;
    link.carry_out(changes)
}

/// An interface, and the sockets through which it is configured.
#[derive(Debug)]
pub(crate) struct Link {
    control: OwnedFd,
    netlink: Rtnetlink,
    interface: InterfaceRequest,
    index: u32,
}

impl Link {
    /// The interface of that name in the network namespace of the calling thread. It stays the same
    /// one when it gets another name.
    pub(crate) fn open(interface: InterfaceRequest) -> Result<Self, Errno> {
        let control = ifreq::control_socket()?;
        let index = ifreq::index(control.as_fd(), interface)?;
        Ok(Self { control, netlink: Rtnetlink::open()?, interface, index })
    }

    /// Carries out `changes`, each until it has succeeded or no other does.
    pub(crate) fn carry_out(&self, changes: &mut [Change]) -> StepResult<()> {
        loop {
            let mut has_progress = false;
            let mut has_refused = false;
            for change in &mut *changes {
                if let Outcome::Done | Outcome::Existed = change.outcome {
                    continue;
                }
                match (self.attempt(&mut change.work), change.on_refusal) {
                    (Ok(()), _) => {
                        change.outcome = Outcome::Done;
                        has_progress = true;
                    }
                    (Err(Errno::EEXIST), _) => {
                        change.outcome = Outcome::Existed;
                        has_progress = true;
                    }
                    (Err(errno), OnRefusal::Fail(step)) => return Err((step, errno)),
                    (Err(errno), OnRefusal::Tell | OnRefusal::Ignore) => {
                        change.outcome = Outcome::Refused(errno);
                        has_refused = true;
                    }
                }
            }
            if !(has_progress && has_refused) {
                return Ok(());
            }
        }
    }

    fn attempt(&self, work: &mut Work) -> Result<(), Errno> {
        let control = self.control.as_fd();
        match work {
            Work::Message(message, unknowns) => {
                for &(at, unknown) in &*unknowns {
                    self.fill(message, at, unknown)?;
                }
                match self.netlink.carry_out(message) {
                    Err(Errno::ESRCH | Errno::ENOENT | Errno::EADDRNOTAVAIL)
                        if is_removal(message) =>
                    {
                        Ok(())
                    }
                    other => other,
                }
            }
            Work::Address(address) => ifreq::set_address(control, self.interface, *address),
            Work::PrefixLen(len) => ifreq::set_netmask(control, self.interface, *len),
            Work::StaticIpv6 => {
                prepare_static_ipv6(&self.interface);
                Ok(())
            }
            Work::AdvertisedIpv6 => prepare_advertised_ipv6(&self.interface),
        }
    }

    fn fill(&self, message: &mut [u8], at: usize, unknown: Unknown) -> Result<(), Errno> {
        match unknown {
            Unknown::Index => put(message, at, &self.index.to_ne_bytes()),
            Unknown::LinkLocal => {
                let mac = ifreq::mac_of(self.control.as_fd(), self.interface)?;
                let address = link_local_made_from(mac.ok_or(Errno::EADDRNOTAVAIL)?);
                put(message, at, &address.octets());
            }
        }
        Ok(())
    }
}

/// Whether a message removes an address or a route.
fn is_removal(message: &[u8]) -> bool {
    let kind = message.get(4..6).and_then(|kind| kind.first_chunk());
    kind.is_some_and(|&kind| {
        [libc::RTM_DELADDR, libc::RTM_DELROUTE].contains(&u16::from_ne_bytes(kind))
    })
}

fn put(message: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in message.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// Settings of an interface whose IPv6 is static: on, without addresses and routes from router
/// advertisements, and without waiting for a duplicate of the link-local address.
const STATIC_IPV6: [(&str, &[u8]); 4] =
    [("disable_ipv6", b"0"), ("accept_ra", b"0"), ("autoconf", b"0"), ("accept_dad", b"0")];

/// Writes [`STATIC_IPV6`] as far as `/proc/sys` can be written. Otherwise the guest may get a
/// second address from our advertisements. If IPv6 stays off, setting the address fails.
fn prepare_static_ipv6(interface: &InterfaceRequest) {
    for (setting, value) in STATIC_IPV6 {
        if let Ok(file) = open_ipv6_setting(interface, setting, OFlag::O_WRONLY) {
            let _unchanged = write(&file, value);
        }
    }
}

/// Makes the guest accept router advertisements even if it forwards packets (`accept_ra` 2), unless
/// it was told to ignore them.
fn prepare_advertised_ipv6(interface: &InterfaceRequest) -> Result<(), Errno> {
    let setting = |access| open_ipv6_setting(interface, "accept_ra", access);
    let mut value = [0];
    read(&setting(OFlag::O_RDONLY)?, &mut value)?;
    // A write that does not begin at the start of the file is ignored (sysctl_writes_strict in
    // proc(5)).
    if value == *b"1" { write(&setting(OFlag::O_WRONLY)?, b"2").map(drop) } else { Ok(()) }
}

/// A file of `/proc/sys` with a setting of one interface.
fn open_ipv6_setting(
    interface: &InterfaceRequest,
    setting: &str,
    access: OFlag,
) -> Result<OwnedFd, Errno> {
    // The folder, an interface's name, a slash, the setting, a zero byte.
    let mut path = [0_u8; 64];
    let parts = [b"/proc/sys/net/ipv6/conf/", interface.name(), b"/", setting.as_bytes()];
    let bytes = parts.iter().flat_map(|part| part.iter());
    for (to, from) in path.iter_mut().take(63).zip(bytes) {
        *to = *from;
    }
    let path = core::ffi::CStr::from_bytes_until_nul(&path).map_err(|_| Errno::ENAMETOOLONG)?;
    open(path, access | OFlag::O_CLOEXEC, Mode::empty())
}
