//! The configuration of an interface whose addresses are known beforehand.
//!
//! Owns [`Configuration`], plain data, and the changes that carry it out. An interface that copies
//! the host's is configured by [`mirror`](crate::mirror).

use core::net::{Ipv4Addr, Ipv6Addr};

use super::setup::{self, Setup};
use crate::mac::MacAddr;
use crate::plan::{Ipv6Plan, SlirpNetwork};
use crate::sys::changes::{OnRefusal, Work};
use crate::sys::step::AttachStep;

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

impl Ipv6Configuration {
    /// What an address plan recommends to a guest with a fixed address.
    pub fn for_plan(plan: &Ipv6Plan) -> Self {
        Self {
            address: plan.recommended_guest(),
            prefix_len: Ipv6Plan::PREFIX_LEN,
            gateway: plan.gateway(),
        }
    }
}

impl Configuration {
    /// The IPv4 configuration that a network with slirp4netns's numbers recommends, and router
    /// advertisements if it has IPv6.
    pub fn for_plan(plan: &SlirpNetwork, mtu: u16) -> Self {
        Self {
            mtu,
            address: plan.recommended_guest(),
            prefix_len: plan.prefix_len(),
            gateway: plan.gateway(),
            metric: None,
            mac: None,
            advertised_ipv6: plan.ipv6().is_some(),
            ipv6: None,
        }
    }
}

impl Configuration {
    /// The changes that carry it out, for a device whose frames have a virtio-net header or not.
    pub(super) fn setup(&self, vnet_header: bool) -> Setup {
        use AttachStep as Step;
        let must = OnRefusal::Fail;
        let mut setup = Setup::loopback();
        setup.push(setup::mtu(self.mtu), must(Step::SetMtu));
        // This only affects speed, and the default works.
        setup.push(setup::queue_len(vnet_header), OnRefusal::Ignore);
        if let Some(mac) = self.mac {
            setup.push(setup::mac(mac), must(Step::SetMac));
        }
        setup.push(Work::Address(self.address), must(Step::SetAddress));
        setup.push(Work::PrefixLen(self.prefix_len), must(Step::SetNetmask));
        if self.ipv6.is_some() {
            setup.push(Work::StaticIpv6, OnRefusal::Ignore);
        } else if self.advertised_ipv6 {
            let what = "the default route of IPv6, should it forward packets";
            setup.tell(Work::AdvertisedIpv6, what.to_owned());
        }
        // Brought up after the addresses, so that the interface is never up half configured, and
        // before the routes, which need it.
        setup.push(setup::up(), must(Step::SetUp));
        let route = |gateway| setup::default_route(gateway, self.metric, 0);
        setup.push(route(self.gateway.into()), must(Step::AddRoute));
        if let Some(ipv6) = &self.ipv6 {
            let address = setup::address(ipv6.address.into(), ipv6.prefix_len);
            setup.push(address, must(Step::SetAddress6));
            setup.push(route(ipv6.gateway.into()), must(Step::AddRoute6));
        }
        setup
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recommended_configuration_follows_the_plan() {
        let configuration = Configuration::for_plan(&SlirpNetwork::default(), 1500);
        assert_eq!(configuration.address, Ipv4Addr::new(10, 0, 2, 100));
        assert_eq!(configuration.gateway, Ipv4Addr::new(10, 0, 2, 2));
        assert_eq!(configuration.prefix_len, 24);
    }
}
