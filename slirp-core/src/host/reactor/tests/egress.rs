//! Egress policies, with the addresses of the real host.

use std::net::UdpSocket;

use nix::ifaddrs::getifaddrs;

use super::scene::{Scene, await_readable};
use super::*;
use crate::egress::EgressPolicy;
use crate::host::mailbox::EgressError;
use crate::member::MemberId;
use crate::stack::{Established, Revision};

fn policy(text: &str) -> EgressPolicy {
    EgressPolicy::parse(text, "test").unwrap()
}

/// A service on the host's loopback, and its port at the gateway.
fn service() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, ([10, 0, 2, 2], port).into())
}

#[test]
fn policy_is_exchanged_while_the_loop_runs() {
    let (service, at) = service();
    let egress = Some(policy("allow host-loopback"));
    let mut scene = Scene::new(StackConfig { egress, ..StackConfig::default() });
    scene.reactor.adopt_addresses(None).unwrap();
    scene.send(5000, at, b"text");
    await_readable(&service);
    assert_eq!(scene.discards(DiscardReason::EgressDenied), 0);
    let set = scene.reactor.set_egress(None, policy(""), Established::Cut, None).unwrap();
    assert_eq!(set, Revision(2));
    scene.send(5000, at, b"text");
    assert_eq!(scene.discards(DiscardReason::EgressDenied), 1);
    let unknown = scene.reactor.set_egress(Some(MemberId(1)), policy(""), Established::Cut, None);
    assert!(matches!(unknown, Err(EgressError::UnknownMember)), "{unknown:?}");
}

#[test]
fn addresses_of_the_hosts_interfaces_are_the_host() {
    let interfaces = getifaddrs().unwrap().filter_map(|interface| interface.address);
    let own = interfaces
        .filter_map(|address| address.as_sockaddr_in().map(|v4| v4.ip()))
        .find(|address| !address.is_loopback());
    let Some(own) = own else {
        println!("SKIPPED: this host has no address");
        return;
    };
    let mut scene = Scene::new(StackConfig::default());
    for (lines, denied) in [("allow any\nallow private", 0), ("allow any\ndeny host", 1)] {
        scene.reactor.set_egress(None, policy(lines), Established::Keep, None).unwrap();
        scene.send(5000, (own, 9).into(), b"text");
        assert_eq!(scene.discards(DiscardReason::EgressDenied), denied, "{lines}");
    }
}
