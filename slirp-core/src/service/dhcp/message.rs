//! What a DHCP or BOOTP request says (RFC 951 section 3, RFC 2131 section 2, RFC 2132).
//!
//! Owns the walk over the fixed fields and the options, with every length checked against the bytes
//! that are there. Which requests are answered, and how, is decided by the server.
//!
//! Deliberately omitted: options in the fields `sname` and `file` (option 52), which requests are
//! too short to need.

use core::net::Ipv4Addr;

use crate::discard::DiscardReason;
use crate::mac::MacAddr;

/// Length of the fields before the options, in bytes.
pub(super) const FIXED_LEN: usize = 236;
/// What precedes options (RFC 2131 section 3).
pub(super) const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Hardware type 1: Ethernet.
pub(super) const ETHERNET: u8 = 1;
/// Length of an Ethernet address.
pub(super) const ETHERNET_LEN: u8 = 6;

/// Numbers of the options that are read or written (RFC 2132, RFC 3397, RFC 3442, RFC 4039,
/// RFC 4702).
pub(super) mod option {
    pub(in super::super) const PAD: u8 = 0;
    pub(in super::super) const SUBNET_MASK: u8 = 1;
    pub(in super::super) const ROUTER: u8 = 3;
    pub(in super::super) const DNS: u8 = 6;
    pub(in super::super) const HOST_NAME: u8 = 12;
    pub(in super::super) const DOMAIN_NAME: u8 = 15;
    pub(in super::super) const MTU: u8 = 26;
    pub(in super::super) const BROADCAST: u8 = 28;
    pub(in super::super) const REQUESTED_ADDRESS: u8 = 50;
    pub(in super::super) const LEASE_TIME: u8 = 51;
    pub(in super::super) const MESSAGE_TYPE: u8 = 53;
    pub(in super::super) const SERVER_ID: u8 = 54;
    pub(in super::super) const PARAMETERS: u8 = 55;
    pub(in super::super) const MESSAGE: u8 = 56;
    pub(in super::super) const RAPID_COMMIT: u8 = 80;
    pub(in super::super) const FQDN: u8 = 81;
    pub(in super::super) const DOMAIN_SEARCH: u8 = 119;
    pub(in super::super) const CLASSLESS_ROUTES: u8 = 121;
    pub(in super::super) const END: u8 = 255;
}

const BOOT_REQUEST: u8 = 1;
const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

/// What a client wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RequestKind {
    /// DHCPDISCOVER.
    Discover,
    /// DHCPREQUEST, or BOOTP, which has no types.
    Request,
    /// Any other type.
    Other,
}

/// Type of a reply (RFC 2132 section 9.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReplyKind {
    Offer = 2,
    Ack = 5,
    Nak = 6,
}

/// A request that could be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request<'a> {
    pub(super) kind: RequestKind,
    /// Transaction id, as bytes.
    pub(super) xid: [u8; 4],
    /// The client's hardware address; leases are keyed by it.
    pub(super) client: MacAddr,
    /// The address that the client asks for (option 50), or says that it has (`ciaddr`).
    pub(super) requested: Option<Ipv4Addr>,
    /// The address at which the client can be reached (`ciaddr`).
    pub(super) present: Option<Ipv4Addr>,
    /// The server that the client has chosen (option 54).
    pub(super) server: Option<Ipv4Addr>,
    /// Whether the client wants the reply broadcast (flags).
    pub(super) wants_broadcast: bool,
    /// Whether the client takes an acknowledgement instead of an offer (option 80).
    pub(super) is_rapid: bool,
    /// Flags in front of the client's own domain name (option 81), if it tells one.
    pub(super) fqdn_flags: Option<u8>,
    /// Option numbers that the client wants to be told.
    parameters: &'a [u8],
}

impl<'a> Request<'a> {
    /// Parses the payload of a datagram to port 67.
    ///
    /// # Errors
    /// [`DiscardReason::DhcpInvalid`] when it is truncated, an option overruns it or has a wrong
    /// length, or it is not a request of an Ethernet client.
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, DiscardReason> {
        let invalid = DiscardReason::DhcpInvalid;
        let fixed: &[u8; FIXED_LEN] = message.first_chunk().ok_or(invalid)?;
        let &[op, hardware, hardware_len, _, x0, x1, x2, x3, _, _, _, _, c0, c1, c2, c3, ..] =
            fixed;
        let [.., h0, h1, h2, h3, h4, h5] = fixed[..34] else { return Err(invalid) };
        let client = MacAddr([h0, h1, h2, h3, h4, h5]);
        if op != BOOT_REQUEST
            || hardware != ETHERNET
            || hardware_len != ETHERNET_LEN
            || !client.is_valid_source()
        {
            return Err(invalid);
        }
        let mut request = Self {
            kind: RequestKind::Request,
            xid: [x0, x1, x2, x3],
            client,
            requested: None,
            present: Some(Ipv4Addr::new(c0, c1, c2, c3))
                .filter(|present| !present.is_unspecified()),
            server: None,
            wants_broadcast: fixed[10] & 0x80 != 0,
            is_rapid: false,
            fqdn_flags: None,
            parameters: &[],
        };
        // Without the cookie this is BOOTP with somebody's own vendor area.
        if let Some(options) = message[FIXED_LEN..].strip_prefix(&MAGIC_COOKIE) {
            request.read_options(options)?;
        }
        if request.kind == RequestKind::Request {
            request.requested = request.requested.or(request.present);
        }
        Ok(request)
    }

    /// Option numbers that the client wants to be told, in its order.
    pub(super) const fn parameters(&self) -> &'a [u8] {
        self.parameters
    }

    /// Whether the client wants to be told option `number`.
    pub(super) fn asks_for(&self, number: u8) -> bool {
        self.parameters.contains(&number)
    }

    /// Some clients leave out the end option where the message ends, so it is not required.
    fn read_options(&mut self, mut options: &'a [u8]) -> Result<(), DiscardReason> {
        let invalid = DiscardReason::DhcpInvalid;
        while let Some((&number, rest)) = options.split_first() {
            if number == option::PAD {
                options = rest;
                continue;
            }
            if number == option::END {
                break;
            }
            let (&len, rest) = rest.split_first().ok_or(invalid)?;
            let (value, rest) = rest.split_at_checked(usize::from(len)).ok_or(invalid)?;
            options = rest;
            let address = || value.try_into().map(|octets: [u8; 4]| Ipv4Addr::from(octets));
            match number {
                option::MESSAGE_TYPE => {
                    self.kind = match *value {
                        [DISCOVER] => RequestKind::Discover,
                        [REQUEST] => RequestKind::Request,
                        [_] => RequestKind::Other,
                        _ => return Err(invalid),
                    };
                }
                option::REQUESTED_ADDRESS => {
                    let address = address().map_err(|_| invalid)?;
                    self.requested = Some(address).filter(|address| !address.is_unspecified());
                }
                option::SERVER_ID => self.server = Some(address().map_err(|_| invalid)?),
                option::RAPID_COMMIT => self.is_rapid = true,
                option::FQDN => self.fqdn_flags = value.first().copied(),
                option::PARAMETERS => self.parameters = value,
                _ => {}
            }
        }
        Ok(())
    }
}
