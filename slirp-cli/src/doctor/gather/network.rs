//! The host's own addresses, and its ways out.
//!
//! A UDP socket that is connected sends nothing, and tells which way the kernel would take.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, getsockopt, socket, sockopt,
};

use super::super::facts::{Ipv4, Ipv6};
use super::{errno, number};

/// Addresses of the internet, of which only the route is looked up: a.root-servers.net.
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4));
const FAR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30));

/// How long a datagram to ourselves may take (arbitrary; it takes microseconds).
const PATIENCE: Duration = Duration::from_millis(300);

/// Whether a socket for echo requests can be made (icmp(7)).
pub(super) fn ping_socket() -> Result<(), Errno> {
    let (family, kind) = (AddressFamily::Inet, SockType::Datagram);
    socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp).map(drop)
}

/// Whether 127.0.0.1 is there, and leads to this host.
pub(super) fn loopback4() -> Result<(), Errno> {
    own(Ipv4Addr::LOCALHOST.into())
}

/// Sends a datagram to itself. An interface that is down keeps its addresses and loses packets.
fn own(address: IpAddr) -> Result<(), Errno> {
    let exchange = || {
        let socket = UdpSocket::bind((address, 0))?;
        socket.connect(socket.local_addr()?)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(&[0])?;
        socket.recv(&mut [0]).map(drop)
    };
    exchange().map_err(|error| {
        // A read that took too long.
        if error.kind() == io::ErrorKind::WouldBlock { Errno::ETIMEDOUT } else { errno(error) }
    })
}

/// A socket that would send to `far`.
fn towards(far: IpAddr) -> Result<UdpSocket, Errno> {
    let any: IpAddr = match far {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).map_err(errno)?;
    socket.connect((far, 53)).map_err(errno)?;
    Ok(socket)
}

pub(super) fn ipv4() -> Ipv4 {
    let mtu = towards(FAR).and_then(|socket| getsockopt(&socket, sockopt::IpMtu));
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    Ipv4 { mtu: mtu.map(i32::cast_unsigned), interface: default_interface(&routes) }
}

/// The interface of the first default route in `/proc/net/route`, which is sorted.
fn default_interface(routes: &str) -> Option<String> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let interface = fields.next()?;
        (fields.next() == Some("00000000")).then(|| interface.to_owned())
    })
}

pub(super) fn ipv6() -> Ipv6 {
    let source = towards(FAR6).and_then(|socket| socket.local_addr().map_err(errno));
    Ipv6 {
        loopback: own(Ipv6Addr::LOCALHOST.into()),
        source: source
            .as_ref()
            .map(SocketAddr::ip)
            .map(|ip| ip.to_string())
            .map_err(|&errno| errno),
        disabled: number("/proc/sys/net/ipv6/conf/lo/disable_ipv6"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_is_that_of_the_default_route() {
        let routes = "Iface\tDestination\tGateway\tFlags\n\
            docker0\t000011AC\t00000000\t0001\n\
            wlan0\t00000000\t0101A8C0\t0003\n\
            eth0\t00000000\t0101A8C0\t0003\n";
        assert_eq!(default_interface(routes).as_deref(), Some("wlan0"));
        assert_eq!(default_interface("Iface\tDestination\n"), None);
        assert_eq!(default_interface(""), None);
    }
}
