//! The replies of the API socket, as bytes.
//!
//! Owns their shapes. Clients compare the replies of slirp4netns byte for byte; `info` and
//! `list_flows` are our own. Refusals are worded in [`protocol`](super::protocol).

use core::fmt::{Display, Write as _};
use core::net::IpAddr;
use core::time::Duration;

use crate::event::ForwardId;
use crate::flow::FlowSummary;
use crate::host::forward::{Forward, ForwardProtocol};
use crate::plan::AddressPlan;
use crate::stats::Stats;

/// The reply to `add_hostfwd`. It names the port when the host port was 0.
pub(crate) fn added(id: ForwardId, asked: &Forward, rule: &Forward) -> String {
    let picked = match asked.host.port() {
        0 => format!(",\"host_port\":{}", rule.host.port()),
        _ => String::new(),
    };
    format!("{{\"return\":{{\"id\":{}{picked}}}}}", id.0)
}

/// The reply to `remove_hostfwd`.
pub(crate) fn removed() -> String {
    "{\"return\":{}}".to_owned()
}

/// The reply to `list_hostfwd`. slirp4netns's manual promises `return.entries` and its program
/// sends `entries`, so clients read either. An entry uses the arguments of the request that makes
/// the rule: `host_port_end` for several ports, and the IP version where it matters.
pub(crate) fn forwards(forwards: &[(ForwardId, Forward)]) -> String {
    let mut entries = String::from("[");
    for (index, (id, forward)) in forwards.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let proto = match forward.protocol {
            ForwardProtocol::Tcp => "tcp",
            ForwardProtocol::Udp => "udp",
        };
        let (host, guest) = (forward.host, forward.guest);
        let guest_six = if guest.is_ipv6() { "6" } else { "" };
        let host_six = if host.is_ipv6() { guest_six } else { "" };
        let version = match host.ip() {
            IpAddr::V4(v4) if v4.is_unspecified() && !forward.also_ipv6 => "4",
            IpAddr::V4(_) | IpAddr::V6(_) => host_six,
        };
        let end = match forward.ports {
            1 => String::new(),
            _ => format!(",\"host_port_end\":{}", forward.last_host_port()),
        };
        // Writing to a string cannot fail.
        let _ = write!(
            entries,
            "{comma}{{\"id\":{},\"proto\":\"{proto}{version}\",\"host_addr{host_six}\":\"{}\",\
             \"host_port\":{}{end},\"guest_addr{guest_six}\":\"{}\",\"guest_port\":{}}}",
            id.0,
            host.ip(),
            host.port(),
            guest.ip(),
            guest.port(),
        );
    }
    entries.push(']');
    format!("{{\"return\":{{\"entries\":{entries}}},\"entries\":{entries}}}")
}

/// The reply to `list_flows`: a part of the list, and where the next part begins.
pub(crate) fn flows(flows: &[FlowSummary], next: Option<u32>) -> String {
    let mut reply = String::from("{\"return\":{\"flows\":[");
    for (index, flow) in flows.iter().enumerate() {
        reply.push_str(if index == 0 { "" } else { "," });
        push_flow(&mut reply, flow);
    }
    let _ = match next {
        Some(next) => write!(reply, "],\"next\":{next}}}}}"),
        None => write!(reply, "],\"next\":null}}}}"),
    };
    reply
}

fn push_flow(reply: &mut String, flow: &FlowSummary) {
    let proto = flow.protocol.as_str();
    let six = if flow.guest.is_ipv6() { "6" } else { "" };
    let opened_by = if flow.is_inbound { "remote" } else { "guest" };
    let _ = write!(
        reply,
        "{{\"proto\":\"{proto}{six}\",\"opened_by\":\"{opened_by}\",\"state\":\"{}\",\
         \"guest_addr\":\"{}\",\"guest_port\":{},\"remote_addr\":\"{}\",\"remote_port\":{}",
        flow.state.as_str(),
        flow.guest.ip(),
        flow.guest.port(),
        flow.remote.ip(),
        flow.remote.port(),
    );
    if let Some(local) = flow.local {
        let _ = write!(reply, ",\"host_addr\":\"{}\",\"host_port\":{}", local.ip(), local.port());
    }
    let _ = write!(
        reply,
        ",\"age_ms\":{},\"idle_ms\":{},\"bytes_from_guest\":{},\"bytes_to_guest\":{}}}",
        flow.age.as_millis(),
        flow.idle.as_millis(),
        flow.traffic.from_guest,
        flow.traffic.to_guest,
    );
}

/// The reply to `info`.
pub(crate) fn info(plan: &AddressPlan, stats: &Stats, uptime: Duration) -> String {
    let mut reply = format!(
        "{{\"return\":{{\"version\":\"{}\",\"uptime_ms\":{},",
        env!("CARGO_PKG_VERSION"),
        uptime.as_millis()
    );
    push_plan(&mut reply, plan);
    reply.push_str(",\"counters\":{");
    push_counters(&mut reply, stats.iter());
    reply.push_str("},\"discards\":{");
    push_counters(
        &mut reply,
        stats.discards.iter().map(|(reason, count)| (reason.as_str(), count)),
    );
    reply.push_str("}}}");
    reply
}

fn push_plan(reply: &mut String, plan: &AddressPlan) {
    let mut comma = "";
    let mut push = |name: &str, value: Option<&dyn Display>| {
        if let Some(value) = value {
            let _ = write!(reply, "{comma}\"{name}\":\"{value}\"");
            comma = ",";
        }
    };
    if let Some(ipv4) = plan.ipv4() {
        let (begin, end) = ipv4.leases();
        push("network", Some(&format_args!("{}/{}", ipv4.network(), ipv4.prefix_len)));
        push("netmask", Some(&ipv4.netmask()));
        push("gateway", shown(&ipv4.gateway));
        push("dns", shown(&ipv4.resolver()));
        push("dhcp_begin", Some(&begin));
        push("dhcp_end", Some(&end));
        push("recommended_ip", Some(&ipv4.guest));
    }
    if let Some(ipv6) = plan.ipv6() {
        push("network6", Some(&format_args!("{}/{}", ipv6.network(), ipv6.prefix_len)));
        push("gateway6", shown(&ipv6.gateway));
        push("dns6", shown(&ipv6.resolver()));
        push("recommended_ip6", Some(&ipv6.guest));
    }
}

fn shown<A: Display>(address: &Option<A>) -> Option<&dyn Display> {
    address.as_ref().map(|address| address as &dyn Display)
}

fn push_counters<'n>(reply: &mut String, counters: impl Iterator<Item = (&'n str, u64)>) {
    for (index, (name, count)) in counters.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(reply, "{comma}\"{name}\":{count}");
    }
}

#[cfg(test)]
mod tests;
