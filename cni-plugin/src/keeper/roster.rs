//! The address book of a shared network's members.
//!
//! Owns their assignment. An address that the runtime has chosen is assigned if it is free. Other
//! members get the lowest free address from the plan's recommended one on (`.100`, `::100`). Equal
//! requests in equal order get equal addresses. An address is free again when its member has gone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use slirp_core::MacAddr;
use slirp_core::plan::{Ipv6Plan, SlirpNetwork};

use crate::attachment::error::Error;
use crate::attachment::key::Key;
use crate::attachment::request::{Addresses, Request};

/// The addresses of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Assignment {
    number: u64,
    key: Key,
    addresses: Addresses,
    mac: Option<MacAddr>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Roster {
    network: String,
    plan: SlirpNetwork,
    assigned: Vec<Assignment>,
}

impl Roster {
    pub(super) fn new(network: &str, plan: SlirpNetwork) -> Self {
        Self { network: network.to_owned(), plan, assigned: Vec::new() }
    }

    /// Gives addresses to the member `number` that makes this request.
    ///
    /// # Errors
    /// When another member has the requested address, with that member's container; when none is
    /// left.
    pub(super) fn take(&mut self, number: u64, request: &Request) -> Result<Addresses, Error> {
        let membership = request.shared.clone().unwrap_or_default();
        let address = if membership.is_address_chosen {
            self.refuse_if_taken(IpAddr::V4(request.address))?;
            request.address
        } else {
            self.free_address()?
        };
        let address6 = match (self.plan.ipv6(), request.address6) {
            (Some(_), Some(chosen)) if membership.is_address6_chosen => {
                self.refuse_if_taken(IpAddr::V6(chosen))?;
                Some(chosen)
            }
            (Some(plan), _) => self.free_address6(plan),
            (None, _) => None,
        };
        let key = request.key.clone();
        let addresses = Addresses { address, address6 };
        self.assigned.push(Assignment { number, key, addresses, mac: None });
        Ok(addresses)
    }

    /// Notes the Ethernet address of a member.
    ///
    /// # Errors
    /// When another member has it, with that member's container.
    pub(super) fn note_mac(&mut self, number: u64, mac: MacAddr) -> Result<(), Error> {
        if let Some(holder) = self.assigned.iter().find(|member| member.mac == Some(mac)) {
            let message = format!("the Ethernet address {mac} is that of {}", shown(&holder.key));
            return Err(Error::failed(message));
        }
        if let Some(member) = self.assigned.iter_mut().find(|member| member.number == number) {
            member.mac = Some(mac);
        }
        Ok(())
    }

    /// Takes back the addresses of a member.
    pub(super) fn leave(&mut self, number: u64) {
        self.assigned.retain(|member| member.number != number);
    }

    fn holder(&self, address: IpAddr) -> Option<&Assignment> {
        self.assigned.iter().find(|Assignment { addresses: their, .. }| {
            IpAddr::V4(their.address) == address || their.address6.map(IpAddr::V6) == Some(address)
        })
    }

    fn refuse_if_taken(&self, address: IpAddr) -> Result<(), Error> {
        match self.holder(address) {
            None => Ok(()),
            Some(holder) => {
                let message = format!("the IP address {address} is that of {}", shown(&holder.key));
                Err(Error::failed(message))
            }
        }
    }

    fn free_address(&self) -> Result<Ipv4Addr, Error> {
        let (first, end) = (self.plan.recommended_guest(), self.plan.broadcast());
        let mut all = (first.to_bits()..end.to_bits()).map(Ipv4Addr::from_bits);
        all.find(|&address| self.holder(IpAddr::V4(address)).is_none()).ok_or_else(|| {
            let last = Ipv4Addr::from_bits(end.to_bits() - 1);
            Error::failed(format!(
                "the network {} has no address left: its {} containers have all from {first} to \
                 {last}",
                self.network,
                self.assigned.len()
            ))
            .with_hint(Some("remove containers, or choose a larger network with cidr"))
        })
    }

    fn free_address6(&self, plan: &Ipv6Plan) -> Option<Ipv6Addr> {
        let first = plan.recommended_guest().to_bits();
        // These are more addresses than there can be members.
        let mut all = (first..first + 0x1_0000).map(Ipv6Addr::from_bits);
        all.find(|&address| self.holder(IpAddr::V6(address)).is_none())
    }
}

fn shown(key: &Key) -> String {
    format!("container {} ({})", key.container_id, key.ifname)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::request::MembershipRequest;
    use crate::attachment::request::tests::example;

    fn request(container: &str, address: Option<&str>) -> Request {
        let mut request = example();
        request.key.container_id = container.to_owned();
        request.plan = SlirpNetwork::new(Ipv4Addr::new(10, 0, 2, 128), 25)
            .unwrap()
            .with_ipv6(Ipv6Plan::default());
        request.address6 = None;
        request.shared = Some(MembershipRequest {
            is_address_chosen: address.is_some(),
            ..MembershipRequest::default()
        });
        if let Some(address) = address {
            request.address = address.parse().unwrap();
        }
        request
    }

    fn roster() -> Roster {
        Roster::new("net", request("a", None).plan)
    }

    fn last(taken: Result<Addresses, Error>) -> u8 {
        taken.unwrap().address.octets()[3]
    }

    #[test]
    fn lowest_free_address_is_next() {
        let mut roster = roster();
        assert_eq!(last(roster.take(1, &request("a", None))), 228);
        assert_eq!(last(roster.take(2, &request("b", Some("10.0.2.229")))), 229);
        let Addresses { address, address6 } = roster.take(3, &request("c", None)).unwrap();
        assert_eq!(address.octets()[3], 230);
        assert_eq!(address6.unwrap().to_string(), "fd00::102");
        roster.leave(1);
        assert_eq!(last(roster.take(4, &request("d", None))), 228, "free with its member");
    }

    #[test]
    fn address_of_another_is_refused_with_its_holder() {
        let mut roster = roster();
        roster.take(1, &request("a", None)).unwrap();
        let error = roster.take(2, &request("b", Some("10.0.2.228"))).unwrap_err();
        assert_eq!(error.message, "the IP address 10.0.2.228 is that of container a (eth0)");
        roster.leave(1);
        assert_eq!(last(roster.take(2, &request("b", Some("10.0.2.228")))), 228);
    }

    #[test]
    fn full_network_says_so() {
        let mut roster = roster();
        for number in 0..27 {
            roster.take(number, &request("a", None)).unwrap();
        }
        let error = roster.take(27, &request("b", None)).unwrap_err();
        assert_eq!(
            error.message,
            "the network net has no address left: its 27 containers have all from 10.0.2.228 to \
             10.0.2.254"
        );
        assert_eq!(last(roster.take(28, &request("c", Some("10.0.2.140")))), 140, "below .100");
    }

    #[test]
    fn ethernet_address_of_another_is_refused_with_its_holder() {
        let mut roster = roster();
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        roster.take(1, &request("a", None)).unwrap();
        roster.take(2, &request("b", None)).unwrap();
        roster.note_mac(1, mac).unwrap();
        let error = roster.note_mac(2, mac).unwrap_err();
        assert_eq!(
            error.message,
            "the Ethernet address 02:00:00:00:00:09 is that of container a (eth0)"
        );
    }
}
