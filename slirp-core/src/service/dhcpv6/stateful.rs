//! DHCPv6 with one address for every client, for ever, as pasta(1) has it.
//!
//! Owns what RFC 8415 section 18.3 makes of the messages that concern addresses:
//!
//! | message | reply |
//! | --- | --- |
//! | SOLICIT | ADVERTISE with the address; REPLY with rapid commit |
//! | REQUEST, RENEW, REBIND | REPLY with the address, or "not on link" if it names another |
//! | CONFIRM | REPLY: success, or "not on link" if it names another |
//! | any other | none |
//!
//! Associations beyond the first, temporary addresses and prefixes are left out of the reply.

use core::net::Ipv6Addr;

use super::{Dhcpv6Server, OPTION_IA_NA, OPTION_RAPID_COMMIT, REPLY, Request, options, push};
use crate::discard::DiscardReason;

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;

const OPTION_ADDRESS: u16 = 5;
const OPTION_STATUS: u16 = 13;

/// Status codes (RFC 8415 section 21.13).
const SUCCESS: u16 = 0;
const NOT_ON_LINK: u16 = 4;

/// Identifier and two times in front of an association's options (RFC 8415 section 21.4).
const ASSOCIATION_LEN: usize = 12;
/// A lifetime without an end (RFC 8415 section 7.7).
const FOR_EVER: [u8; 4] = [255; 4];

impl Dhcpv6Server {
    /// The reply to a message about addresses, of which there is only `guest`.
    pub(super) fn stateful(
        &self,
        guest: Ipv6Addr,
        request: &Request<'_>,
    ) -> Result<Vec<u8>, DiscardReason> {
        // Which messages name their server (RFC 8415 sections 16.2 to 16.9).
        let names_server = match request.kind {
            REQUEST | RENEW => true,
            SOLICIT | CONFIRM | REBIND => false,
            _ => return Err(DiscardReason::DhcpNotAnswered),
        };
        if request.client_id.is_none() || names_server != request.server_id.is_some() {
            return Err(DiscardReason::DhcpInvalid);
        }
        self.check_server(request)?;
        let association = request.addresses.map(Association::parse).transpose()?;
        let is_foreign =
            association.as_ref().is_some_and(|wanted| wanted.addresses.iter().any(|&a| a != guest));
        let kind = if request.kind == SOLICIT && !request.is_rapid { ADVERTISE } else { REPLY };
        let mut reply = self.begin(kind, request);
        match (request.kind, association) {
            (CONFIRM, Some(wanted)) if !wanted.addresses.is_empty() => {
                let status = if is_foreign { NOT_ON_LINK } else { SUCCESS };
                push(&mut reply, OPTION_STATUS, &status.to_be_bytes());
                return Ok(reply);
            }
            // There is nothing to confirm (RFC 8415 section 18.3.3).
            (CONFIRM, _) => return Err(DiscardReason::DhcpNotAnswered),
            (SOLICIT, Some(wanted)) => wanted.grant(guest, &mut reply),
            (_, Some(wanted)) if is_foreign => wanted.refuse(&mut reply),
            (_, Some(wanted)) => wanted.grant(guest, &mut reply),
            (_, None) => {}
        }
        if request.kind == SOLICIT && request.is_rapid {
            push(&mut reply, OPTION_RAPID_COMMIT, &[]);
        }
        self.push_configuration(&mut reply, request);
        Ok(reply)
    }
}

/// An association of addresses that a client wants (RFC 8415 section 21.4).
struct Association {
    id: [u8; 4],
    addresses: Vec<Ipv6Addr>,
}

impl Association {
    fn parse(value: &[u8]) -> Result<Self, DiscardReason> {
        let invalid = DiscardReason::DhcpInvalid;
        let id = *value.first_chunk().ok_or(invalid)?;
        let mut addresses = Vec::new();
        for option in options(value.get(ASSOCIATION_LEN..).ok_or(invalid)?) {
            let (number, value) = option?;
            if number == OPTION_ADDRESS {
                let address: [u8; 16] = *value.first_chunk().ok_or(invalid)?;
                addresses.push(Ipv6Addr::from(address));
            }
        }
        Ok(Self { id, addresses })
    }

    /// Gives the client `address`, which it never needs to renew.
    fn grant(&self, address: Ipv6Addr, reply: &mut Vec<u8>) {
        let mut lease = Vec::new();
        push(&mut lease, OPTION_ADDRESS, &[&address.octets()[..], &FOR_EVER, &FOR_EVER].concat());
        self.push(&lease, reply);
    }

    fn refuse(&self, reply: &mut Vec<u8>) {
        let mut status = Vec::new();
        push(&mut status, OPTION_STATUS, &NOT_ON_LINK.to_be_bytes());
        self.push(&status, reply);
    }

    fn push(&self, options: &[u8], reply: &mut Vec<u8>) {
        push(reply, OPTION_IA_NA, &[&self.id[..], &FOR_EVER, &FOR_EVER, options].concat());
    }
}

#[cfg(test)]
#[path = "../tests/dhcpv6_stateful.rs"]
mod tests;
