//! Templates and guests of recorded hosts.
//!
//! Each file of `recorded` has the kernel's messages for the links, addresses and routes of a
//! network namespace; of links only names and MTUs. The interfaces that matter are `eth0` (5) and
//! `eth1` (6).

mod choices;
mod hostile;
mod templates;

use super::tables::Tables;
use super::*;
use crate::netlink::Messages;
use crate::netns::Setup;

macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("recorded/", $name, ".rtnl"))
    };
}

const PLAIN: &[u8] = recorded!("plain");
const SEVERAL: &[u8] = recorded!("several");
const OFF_LINK: &[u8] = recorded!("off_link");
const MULTIPATH: &[u8] = recorded!("multipath");
const SPLIT_DEFAULT: &[u8] = recorded!("split_default");
const NO_DEFAULT: &[u8] = recorded!("no_default");
const POINT_TO_POINT: &[u8] = recorded!("point_to_point");
const IPV6_ONLY: &[u8] = recorded!("ipv6_only");
const NEXT_HOP_OBJECTS: &[u8] = recorded!("next_hop_objects");
const VIA_IPV6: &[u8] = recorded!("via_ipv6");
const LOOPBACK_ONLY: &[u8] = recorded!("loopback_only");

fn template(recorded: &[u8]) -> Template {
    Template::of_dump(recorded, None, None).unwrap()
}

fn guest(recorded: &[u8]) -> Guest {
    Guest::new(&template(recorded), &Choice::default())
}

/// The addresses and routes of a setup, in the words of ip(8).
fn lines(setup: &Setup) -> Vec<String> {
    setup.messages().flat_map(|message| Messages(message).map(line)).flatten().collect()
}

fn line(message: crate::netlink::Received<'_>) -> Option<String> {
    let bytes = crate::netlink::Message::new(message.kind, 0, message.body).finish(0);
    let tables = Tables::parse(&bytes);
    if let [address] = &tables.addresses[..] {
        let flags = if address.flags & 0x200 != 0 { " noprefixroute" } else { "" };
        let detection = if address.flags & 0x02 != 0 { " nodad" } else { "" };
        let peer = match address.peer {
            peer if peer == address.local => String::new(),
            peer => format!(" peer {peer}"),
        };
        return Some(format!(
            "address {}{peer}/{}{flags}{detection}",
            address.local, address.prefix_len
        ));
    }
    let [route] = &tables.routes[..] else { return None };
    let mut line = match route.destination {
        None => "default".to_owned(),
        Some((prefix, len)) => format!("{prefix}/{len}"),
    };
    for hop in &route.hops {
        if let Some(gateway) = hop.gateway {
            line += &format!(" via {gateway}");
        }
        if hop.weight != 1 {
            line += &format!(" weight {}", hop.weight);
        }
        if hop.flags != 0 {
            assert_eq!(hop.flags, crate::netns::setup::ON_LINK);
            line += " onlink";
        }
    }
    if route.metric != 0 {
        line += &format!(" metric {}", route.metric);
    }
    Some(line)
}
