//! What the helper process does inside the target's namespaces: join them, open the TAP device,
//! configure it.
//!
//! Owns the order of the steps and the helper's report. The process that runs this is in [`fork`],
//! the configuration in [`changes`](super::changes), the names of the steps in [`AttachStep`];
//! explanations of the steps for users are in [`netns`](crate::netns).
//! Everything here runs after fork(2) and so neither allocates nor panics.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;

use super::changes::{self, Change};
use super::fork;
use super::ifreq::{self, InterfaceRequest, control_socket};
use super::step::{AttachStep, StepResult};
use super::tun;
use crate::mac::MacAddr;

/// Changes that the report names as refused; more are only counted (arbitrary).
const REFUSALS_CAP: usize = 60;
/// Length of a step and its error number, and of a change and its error number, in bytes.
const PAIR_LEN: usize = 8;
/// Length of the report in bytes: the number of refused changes, then each with its error number,
/// or a step and its error number.
const REPORT_LEN: usize = PAIR_LEN * (1 + REFUSALS_CAP);

type Report = [u8; REPORT_LEN];

/// The helper's orders, made before the fork.
pub(crate) struct Order<'a> {
    /// The network namespace to join.
    pub(crate) net: BorrowedFd<'a>,
    /// The user namespace to join before it.
    pub(crate) user: Option<BorrowedFd<'a>>,
    /// The name of the interface.
    pub(crate) interface: InterfaceRequest,
    /// Whether an existing interface of that name, persistent or not, is an error; otherwise a
    /// persistent one is attached to.
    pub(crate) exclusive: bool,
    /// Whether to ask for a virtio-net header.
    pub(crate) vnet_header: bool,
    /// How to configure the interface.
    pub(crate) changes: &'a mut [Change],
}

/// Changes that the kernel has refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    /// How many.
    pub(crate) count: usize,
    /// Places in the order of the first of them, and why.
    pub(crate) first: Vec<(usize, Errno)>,
}

/// Why there is no device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// A step failed inside the namespaces.
    Step(AttachStep, Errno),
    /// The helper process itself failed.
    Helper(fork::Failure),
}

/// Opens the device in a helper process that joins the namespaces; this process stays where it is.
pub(crate) fn open_in_namespaces(mut order: Order<'_>) -> Result<(OwnedFd, Refused), Failure> {
    // SAFETY: `attach` and everything that it calls in this module, in `changes`, `ifreq`,
    // `rtnetlink` and `tun` work on values on the stack and on the order, and make plain system
    // calls; the wrappers of nix that it uses (setns, open of a C string, read, write, socket,
    // send, recv) do the same. `report` and `pair` only move numbers.
    let outcome = unsafe {
        fork::run(|| match attach(&mut order) {
            Ok(device) => (report(order.changes), Some(device)),
            Err((step, errno)) => {
                let mut report = [0; REPORT_LEN];
                put(&mut report, 0, pair(step as u32, errno));
                (report, None)
            }
        })
    };
    match outcome {
        Ok((report, Some(device))) => Ok((device, refused(&report))),
        Ok((report, None)) => Err(failure(&report)),
        Err(failure) => Err(Failure::Helper(failure)),
    }
}

/// Carries out `changes` in the namespaces, by a helper process. They are of no interface but the
/// loopback one.
pub(crate) fn change_in_namespaces(
    net: BorrowedFd<'_>,
    user: Option<BorrowedFd<'_>>,
    changes: &mut [Change],
) -> Result<(), Failure> {
    const DONE: [u8; PAIR_LEN] = [0xff; PAIR_LEN];
    // SAFETY: as in `open_in_namespaces`.
    let outcome = unsafe {
        fork::run(|| {
            let loopback = InterfaceRequest::new(b"lo");
            let done = join(net, user).and_then(|()| changes::carry_out(changes, loopback));
            (done.map_or_else(|(step, errno)| pair(step as u32, errno), |()| DONE), None)
        })
    };
    match outcome.map_err(Failure::Helper)?.0 {
        DONE => Ok(()),
        report => Err(failure(&report)),
    }
}

/// The Ethernet address of an interface in the namespaces, looked up by a helper process; `None`
/// when there is no such interface, zero when it has no Ethernet address.
pub(crate) fn interface_mac(
    net: BorrowedFd<'_>,
    user: Option<BorrowedFd<'_>>,
    interface: InterfaceRequest,
) -> Result<Option<MacAddr>, Failure> {
    const FOUND: u8 = 0xff;
    // SAFETY: as in `open_in_namespaces`; the closure adds one ioctl.
    let outcome = unsafe {
        fork::run(|| {
            let found = join(net, user).and_then(|()| {
                control_socket()
                    .and_then(|socket| ifreq::mac_of(socket.as_fd(), interface))
                    .map_err(|errno| (AttachStep::CheckName, errno))
            });
            let report = match found {
                Ok(mac) => {
                    let [a, b, c, d, e, f] = mac.unwrap_or_default().0;
                    [FOUND, FOUND, a, b, c, d, e, f]
                }
                Err((step, errno)) => pair(step as u32, errno),
            };
            (report, None)
        })
    };
    match outcome.map_err(Failure::Helper)?.0 {
        [FOUND, FOUND, a, b, c, d, e, f] => Ok(Some(MacAddr([a, b, c, d, e, f]))),
        report => match failure(&report) {
            Failure::Step(AttachStep::CheckName, Errno::ENODEV) => Ok(None),
            failure @ (Failure::Step(..) | Failure::Helper(_)) => Err(failure),
        },
    }
}

fn join(net: BorrowedFd<'_>, user: Option<BorrowedFd<'_>>) -> StepResult<()> {
    if let Some(user) = user {
        // Fails with EINVAL when we are in it already; if it fails for another reason and was
        // needed, joining the network namespace fails next and is reported.
        let _already_there = setns(user, CloneFlags::CLONE_NEWUSER);
    }
    setns(net, CloneFlags::CLONE_NEWNET).map_err(|errno| (AttachStep::EnterNetwork, errno))
}

/// Opens the device and configures it.
fn attach(order: &mut Order<'_>) -> StepResult<OwnedFd> {
    use AttachStep as Step;
    join(order.net, order.user)?;
    if order.exclusive {
        check_name(order.interface).map_err(|errno| (Step::CheckName, errno))?;
    }
    // A descriptor of /dev/net/tun belongs to the namespace that it was opened in.
    let device =
        open(c"/dev/net/tun", OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty())
            .map_err(|errno| (Step::OpenTun, errno))?;
    let interface = create(device.as_fd(), order).map_err(|errno| (Step::CreateTap, errno))?;
    changes::carry_out(order.changes, interface)?;
    Ok(device)
}

/// Fails with `EEXIST` when there is an interface of this name. TUNSETIFF does not: it attaches to
/// a persistent device.
fn check_name(interface: InterfaceRequest) -> Result<(), Errno> {
    match ifreq::index(control_socket()?.as_fd(), interface) {
        Ok(_) => Err(Errno::EEXIST),
        Err(Errno::ENODEV) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Creates the interface or attaches to a persistent one.
///
/// `EINVAL` means that the kernel does not know one of the flags, or that a persistent interface
/// was made for several queues and must be opened that way.
fn create(device: BorrowedFd<'_>, order: &Order<'_>) -> Result<InterfaceRequest, Errno> {
    let plain = tun::TAP | tun::NO_PACKET_INFORMATION;
    let mut outcome = Err(Errno::EINVAL);
    for flags in [
        plain | tun::VNET_HEADER,
        plain | tun::VNET_HEADER | tun::MULTI_QUEUE,
        plain,
        plain | tun::MULTI_QUEUE,
    ] {
        if flags & tun::VNET_HEADER != 0 && !order.vnet_header {
            continue;
        }
        outcome = tun::set_interface(device, order.interface, flags);
        if !matches!(outcome, Err(Errno::EINVAL)) {
            break;
        }
    }
    outcome
}

fn pair(number: u32, errno: Errno) -> [u8; PAIR_LEN] {
    let [n0, n1, n2, n3] = number.to_ne_bytes();
    let [e0, e1, e2, e3] = (errno as i32).to_ne_bytes();
    [n0, n1, n2, n3, e0, e1, e2, e3]
}

fn read_pair([n0, n1, n2, n3, e0, e1, e2, e3]: [u8; PAIR_LEN]) -> (u32, Errno) {
    let errno = Errno::from_raw(i32::from_ne_bytes([e0, e1, e2, e3]));
    (u32::from_ne_bytes([n0, n1, n2, n3]), errno)
}

fn put(report: &mut Report, place: usize, pair: [u8; PAIR_LEN]) {
    for (to, from) in report.iter_mut().skip(place.saturating_mul(PAIR_LEN)).zip(pair) {
        *to = from;
    }
}

/// What became of the changes.
fn report(changes: &[Change]) -> Report {
    let mut report = [0; REPORT_LEN];
    let mut count = 0_u32;
    for (number, change) in (0_u32..).zip(changes) {
        if let Some(errno) = change.refusal() {
            count = count.saturating_add(1);
            put(&mut report, count as usize, pair(number, errno));
        }
    }
    put(&mut report, 0, pair(count, Errno::UnknownErrno));
    report
}

fn refused(report: &Report) -> Refused {
    let (pairs, _) = report.as_chunks::<PAIR_LEN>();
    let mut pairs = pairs.iter().map(|&pair| read_pair(pair));
    let count = pairs.next().map_or(0, |(count, _)| count as usize);
    let first = pairs.take(count).map(|(number, errno)| (number as usize, errno)).collect();
    Refused { count, first }
}

fn failure(report: &[u8]) -> Failure {
    let (number, errno) =
        report.first_chunk().map_or((u32::MAX, Errno::EIO), |&pair| read_pair(pair));
    AttachStep::ALL
        .into_iter()
        .find(|&step| step as u32 == number)
        .map_or(Failure::Helper(fork::Failure::Silent(None)), |step| Failure::Step(step, errno))
}

#[cfg(test)]
mod tests {
    use super::changes::{OnRefusal, Work};
    use super::*;

    #[test]
    fn each_step_survives_the_report() {
        for step in AttachStep::ALL {
            let told = failure(&pair(step as u32, Errno::EBUSY));
            assert_eq!(told, Failure::Step(step, Errno::EBUSY));
        }
        assert_eq!(failure(&[0xff; 8]), Failure::Helper(fork::Failure::Silent(None)));
    }

    #[test]
    fn more_refusals_than_the_report_holds_are_counted() {
        let change = || Change::new(Work::StaticIpv6, OnRefusal::Tell).refused_with(Errno::EPERM);
        for len in [0, 1, REFUSALS_CAP, REFUSALS_CAP + 1, 1000] {
            let changes: Vec<_> = (0..len).map(|_| change()).collect();
            let refused = refused(&report(&changes));
            assert_eq!(refused.count, len);
            let first = (0..len.min(REFUSALS_CAP)).map(|number| (number, Errno::EPERM));
            assert_eq!(refused.first, first.collect::<Vec<_>>());
        }
    }
}
