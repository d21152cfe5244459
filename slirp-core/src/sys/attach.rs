//! What the helper process does inside the target's namespaces: join them, open the TAP device,
//! configure it.
//!
//! Owns the order of the steps and the name of each ([`AttachStep`]). The process that runs this is
//! in [`fork`]; explanations of the steps for users are in [`netns`](crate::netns).
//! Everything here runs after fork(2) and so neither allocates nor panics.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;
use nix::unistd::{read, write};

use super::fork::{self, REPORT_LEN};
use super::ifreq::{self, InterfaceRequest};
use super::{rtnetlink, tun};
use crate::mac::MacAddr;

/// Packets that the device queues for us when a frame may hold 64 KiB: the kernel's own default for
/// Ethernet. A longer queue could pin hundreds of megabytes.
const QUEUE_LEN_LARGE_FRAMES: u16 = 1_000;

/// Packets that the device queues for us when each has the size of the MTU. The kernel drops what
/// does not fit; 10,000 packets of 1500 bytes hold the window of several busy TCP connections.
const QUEUE_LEN_SMALL_FRAMES: u16 = 10_000;

/// A step on the way to a TAP device in another network namespace.
///
/// Its text follows slirp4netns(1); scripts match it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AttachStep {
    /// Joining the network namespace.
    EnterNetwork,
    /// Opening `/dev/net/tun`.
    OpenTun,
    /// Creating the interface, or attaching to a persistent one.
    CreateTap,
    /// Opening the socket through which interfaces are configured.
    OpenSocket,
    /// Bringing the loopback interface or the TAP interface up.
    SetUp,
    /// Setting the MTU.
    SetMtu,
    /// Setting the Ethernet address.
    SetMac,
    /// Setting the IPv4 address.
    SetAddress,
    /// Setting the netmask.
    SetNetmask,
    /// Adding the default route.
    AddRoute,
    /// Checking whether the name of a new interface is taken.
    CheckName,
    /// Setting the IPv6 address.
    SetAddress6,
    /// Adding the IPv6 default route.
    AddRoute6,
}

impl AttachStep {
    const ALL: [Self; 13] = [
        Self::EnterNetwork,
        Self::OpenTun,
        Self::CreateTap,
        Self::OpenSocket,
        Self::SetUp,
        Self::SetMtu,
        Self::SetMac,
        Self::SetAddress,
        Self::SetNetmask,
        Self::AddRoute,
        Self::CheckName,
        Self::SetAddress6,
        Self::AddRoute6,
    ];
}

impl fmt::Display for AttachStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EnterNetwork => "setns(CLONE_NEWNET)",
            Self::OpenTun => "open(\"/dev/net/tun\")",
            Self::CreateTap => "ioctl(TUNSETIFF)",
            Self::OpenSocket => "cannot create socket",
            Self::SetUp => "cannot set device up",
            Self::SetMtu => "cannot set MTU",
            Self::SetMac => "cannot set MAC address",
            Self::SetAddress => "cannot set device address",
            Self::SetNetmask => "cannot set device netmask",
            Self::AddRoute => "set route",
            Self::CheckName => "interface name",
            Self::SetAddress6 => "cannot set device IPv6 address",
            Self::AddRoute6 => "set IPv6 route",
        })
    }
}

/// The helper's orders: plain values, made before the fork.
#[derive(Clone, Copy)]
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
    /// How to configure the interface, if at all.
    pub(crate) configuration: Option<Configuration>,
}

/// The guest's side of the link.
///
/// Without static IPv6 the guest makes its own addresses from our router advertisements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// MTU in bytes, 68..=65521.
    pub mtu: u16,
    /// IPv4 address of the interface.
    pub address: Ipv4Addr,
    /// Length of its network's prefix in bits, 0..=32.
    pub prefix_len: u8,
    /// Where the default route leads.
    pub gateway: Ipv4Addr,
    /// Metric of the default routes; with `None` the kernel's default (0 for IPv4, 1024 for IPv6).
    pub metric: Option<u32>,
    /// Ethernet address; with `None` the kernel picks a random one.
    pub mac: Option<MacAddr>,
    /// Whether the guest configures IPv6 from our router advertisements, unless it is static. If
    /// so, they are accepted even if the guest forwards packets, as far as `/proc/sys` is writable;
    /// otherwise a guest that runs containers of its own would lose its default route.
    pub advertised_ipv6: bool,
    /// Static IPv6: the address may be used at once and router advertisements are ignored, as far
    /// as `/proc/sys` is writable.
    pub ipv6: Option<Ipv6Configuration>,
}

/// The guest's side of the link in IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6Configuration {
    /// Address of the interface.
    pub address: Ipv6Addr,
    /// Length of its network's prefix in bits, 0..=128.
    pub prefix_len: u8,
    /// Where the default route leads.
    pub gateway: Ipv6Addr,
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
pub(crate) fn open_in_namespaces(order: Order<'_>) -> Result<OwnedFd, Failure> {
    // SAFETY: `attach` and everything that it calls in this module, in `ifreq`, `rtnetlink` and
    // `tun` work on values on the stack and make plain system calls; the wrappers of nix that it
    // uses (setns, open of a C string, read, write, socket, send, recv) do the same. `encode` only
    // moves numbers.
    let outcome = unsafe {
        fork::run(|| match attach(&order) {
            Ok((device, is_prepared)) => ([u8::from(is_prepared); REPORT_LEN], Some(device)),
            Err((step, errno)) => (encode(step, errno), None),
        })
    };
    match outcome {
        Ok((report, Some(device))) => {
            if report == [0; REPORT_LEN] {
                tracing::debug!(
                    "the guest's IPv6 loses its default route where it forwards packets"
                );
            }
            Ok(device)
        }
        Ok((report, None)) => Err(decode(report)),
        Err(failure) => Err(Failure::Helper(failure)),
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
                Err((step, errno)) => encode(step, errno),
            };
            (report, None)
        })
    };
    match outcome.map_err(Failure::Helper)?.0 {
        [FOUND, FOUND, a, b, c, d, e, f] => Ok(Some(MacAddr([a, b, c, d, e, f]))),
        report => match decode(report) {
            Failure::Step(AttachStep::CheckName, Errno::ENODEV) => Ok(None),
            failure @ (Failure::Step(..) | Failure::Helper(_)) => Err(failure),
        },
    }
}

type StepResult<T> = Result<T, (AttachStep, Errno)>;

fn join(net: BorrowedFd<'_>, user: Option<BorrowedFd<'_>>) -> StepResult<()> {
    if let Some(user) = user {
        // Fails with EINVAL when we are in it already; if it fails for another reason and was
        // needed, joining the network namespace fails next and is reported.
        let _already_there = setns(user, CloneFlags::CLONE_NEWUSER);
    }
    setns(net, CloneFlags::CLONE_NEWNET).map_err(|errno| (AttachStep::EnterNetwork, errno))
}

/// Opens the device; also returns whether IPv6 is set up as requested.
fn attach(order: &Order<'_>) -> StepResult<(OwnedFd, bool)> {
    use AttachStep as Step;
    join(order.net, order.user)?;
    if order.exclusive {
        check_name(order.interface).map_err(|errno| (Step::CheckName, errno))?;
    }
    // A descriptor of /dev/net/tun belongs to the namespace that it was opened in.
    let device =
        open(c"/dev/net/tun", OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty())
            .map_err(|errno| (Step::OpenTun, errno))?;
    let (interface, vnet_header) =
        create(device.as_fd(), order).map_err(|errno| (Step::CreateTap, errno))?;
    let is_prepared = match &order.configuration {
        Some(configuration) => configure(interface, vnet_header, configuration)?,
        None => true,
    };
    Ok((device, is_prepared))
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

/// The socket through which interfaces are configured.
fn control_socket() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

/// Creates the interface or attaches to a persistent one; also returns whether it has a virtio-net
/// header.
///
/// `EINVAL` means that the kernel does not know one of the flags, or that a persistent interface
/// was made for several queues and must be opened that way.
fn create(device: BorrowedFd<'_>, order: &Order<'_>) -> Result<(InterfaceRequest, bool), Errno> {
    let plain = tun::TAP | tun::NO_PACKET_INFORMATION;
    let mut outcome = Err(Errno::EINVAL);
    for flags in [
        plain | tun::VNET_HEADER,
        plain | tun::VNET_HEADER | tun::MULTI_QUEUE,
        plain,
        plain | tun::MULTI_QUEUE,
    ] {
        let vnet_header = flags & tun::VNET_HEADER != 0;
        if vnet_header && !order.vnet_header {
            continue;
        }
        outcome = tun::set_interface(device, order.interface, flags)
            .map(|interface| (interface, vnet_header));
        if !matches!(outcome, Err(Errno::EINVAL)) {
            break;
        }
    }
    outcome
}

fn configure(
    interface: InterfaceRequest,
    vnet_header: bool,
    wanted: &Configuration,
) -> StepResult<bool> {
    use AttachStep as Step;
    const UP: u16 = 0x1;
    let step = |step: Step| move |errno: Errno| (step, errno);
    let control = control_socket().map_err(step(Step::OpenSocket))?;
    let control = control.as_fd();
    ifreq::add_flags(control, InterfaceRequest::new(b"lo"), UP).map_err(step(Step::SetUp))?;
    ifreq::set_mtu(control, interface, wanted.mtu).map_err(step(Step::SetMtu))?;
    // This only affects speed, and the default works.
    let queue_len = if vnet_header { QUEUE_LEN_LARGE_FRAMES } else { QUEUE_LEN_SMALL_FRAMES };
    let index = ifreq::index(control, interface).map_err(step(Step::SetUp))?;
    let _unchanged = rtnetlink::set_queue_len(index, queue_len);
    if let Some(mac) = wanted.mac {
        ifreq::set_mac(control, interface, mac).map_err(step(Step::SetMac))?;
    }
    ifreq::set_address(control, interface, wanted.address).map_err(step(Step::SetAddress))?;
    ifreq::set_netmask(control, interface, wanted.prefix_len).map_err(step(Step::SetNetmask))?;
    let is_prepared = if wanted.ipv6.is_some() {
        prepare_static_ipv6(&interface);
        true
    } else {
        !wanted.advertised_ipv6 || prepare_advertised_ipv6(&interface)
    };
    // Brought up after the addresses, so that the interface is never up half configured, and before
    // the routes, which need it.
    ifreq::add_flags(control, interface, UP).map_err(step(Step::SetUp))?;
    let route = match wanted.metric {
        None => ifreq::add_default_route(control, interface, wanted.gateway),
        Some(_) => rtnetlink::add_default_route4(index, wanted.gateway, wanted.metric),
    };
    match route {
        // The interface was configured before.
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err((Step::AddRoute, errno)),
    }
    if let Some(ipv6) = &wanted.ipv6 {
        configure_ipv6(index, ipv6, wanted.metric)?;
    }
    Ok(is_prepared)
}

fn configure_ipv6(index: u32, wanted: &Ipv6Configuration, metric: Option<u32>) -> StepResult<()> {
    use AttachStep as Step;
    match rtnetlink::add_address6(index, wanted.address, wanted.prefix_len) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err((Step::SetAddress6, errno)),
    }
    match rtnetlink::add_default_route6(index, wanted.gateway, metric) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err((Step::AddRoute6, errno)),
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
/// it was told to ignore them. Returns whether that succeeded.
fn prepare_advertised_ipv6(interface: &InterfaceRequest) -> bool {
    let accept = || {
        let setting = |access| open_ipv6_setting(interface, "accept_ra", access);
        let mut value = [0];
        read(&setting(OFlag::O_RDONLY)?, &mut value)?;
        // A write that does not begin at the start of the file is ignored (sysctl_writes_strict in
        // proc(5)).
        if value == *b"1" { write(&setting(OFlag::O_WRONLY)?, b"2").map(drop) } else { Ok(()) }
    };
    let outcome: Result<(), Errno> = accept();
    outcome.is_ok()
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

fn encode(step: AttachStep, errno: Errno) -> [u8; REPORT_LEN] {
    let [s0, s1, s2, s3] = (step as u32).to_ne_bytes();
    let [e0, e1, e2, e3] = (errno as i32).to_ne_bytes();
    [s0, s1, s2, s3, e0, e1, e2, e3]
}

fn decode([s0, s1, s2, s3, e0, e1, e2, e3]: [u8; REPORT_LEN]) -> Failure {
    let number = u32::from_ne_bytes([s0, s1, s2, s3]);
    let errno = Errno::from_raw(i32::from_ne_bytes([e0, e1, e2, e3]));
    AttachStep::ALL
        .into_iter()
        .find(|&step| step as u32 == number)
        .map_or(Failure::Helper(fork::Failure::Silent(None)), |step| Failure::Step(step, errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_survives_the_report() {
        for step in AttachStep::ALL {
            assert_eq!(decode(encode(step, Errno::EBUSY)), Failure::Step(step, Errno::EBUSY));
        }
        assert_eq!(decode([0xff; REPORT_LEN]), Failure::Helper(fork::Failure::Silent(None)));
    }
}
