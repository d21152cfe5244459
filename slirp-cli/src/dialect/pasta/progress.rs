//! What a person is told while a network starts, runs and ends: the summary, and why it ends.

use slirp_core::MacAddr;

use super::network::Host;
use super::options::{Families, PastaOptions};
use crate::milestone::Milestone;
use crate::options::{Options, OwnPlan};

/// Tells about a milestone.
pub(super) fn report(options: &PastaOptions, orders: &Options, milestone: Milestone<'_>) {
    match milestone {
        Milestone::Started { mac, .. } => {
            if let Some(own) = &orders.own_plan {
                summary(options, own, mac).iter().for_each(|line| tracing::info!("{line}"));
            }
        }
        Milestone::TargetGone(what) => tracing::info!("Namespace {what} is gone, exiting"),
        Milestone::DeviceOpened(name, _) => tracing::info!("Namespace interface: {name}"),
        Milestone::PeerAwaited(path) => {
            let path = path.display();
            tracing::info!("UNIX domain socket bound at {path}");
            tracing::info!(
                "You can now start qemu with: -device virtio-net-pci,netdev=s \
                 -netdev stream,id=s,server=off,addr.type=unix,addr.path={path}"
            );
        }
        Milestone::ReadyFdClosed(_)
        | Milestone::ExitFdClosed(_)
        | Milestone::PeerConnected(..)
        | Milestone::ExitFdHungUp
        | Milestone::PeerGone(_) => {}
    }
}

/// The lines about what is copied of the host, and by which interfaces traffic leaves.
pub(super) fn interfaces(options: &PastaOptions, host: &Host) -> Vec<String> {
    let mut names = Vec::new();
    let mut lines = Vec::new();
    for (family, other, template) in [
        ("IPv4", Families::Ipv6, host.template.ipv4()),
        ("IPv6", Families::Ipv4, host.template.ipv6()),
    ] {
        match template {
            _ if options.families == other => {}
            Some(template) => names.push(format!("{} ({family})", template.interface)),
            None => {
                lines.push(format!("{family}: no external interface as template, use local mode"));
            }
        }
    }
    if !names.is_empty() {
        lines.push(format!("Template interface: {}", names.join(", ")));
    }
    let addresses = &options.addresses;
    let outbound = [("IPv4", &addresses.outbound_if4), ("IPv6", &addresses.outbound_if6)];
    let outbound = outbound
        .iter()
        .filter_map(|(family, name)| name.as_ref().map(|name| format!("{name} ({family})")));
    let outbound: Vec<_> = outbound.collect();
    if !outbound.is_empty() {
        lines.push(format!("Outbound interface: {}", outbound.join(", ")));
    }
    lines
}

/// The lines of the summary.
fn summary(options: &PastaOptions, own: &OwnPlan, mac: Option<MacAddr>) -> Vec<String> {
    let mut lines = vec!["MAC:".to_owned(), format!("    host: {}", options.guest.gateway_mac)];
    lines.extend(mac.map(|mac| format!("    guest: {mac}")));
    if let Some(family) = own.plan.ipv4() {
        lines.push("IPv4:".to_owned());
        lines.push(format!("    assign: {}/{}", family.guest, family.prefix_len));
        lines.extend(family.gateway.map(|gateway| format!("    router: {gateway}")));
    }
    if let Some(family) = own.plan.ipv6() {
        lines.push("IPv6:".to_owned());
        lines.push(format!("    assign: {}/{}", family.guest, family.prefix_len));
        lines.extend(family.gateway.map(|gateway| format!("    router: {gateway}")));
    }
    let rules = &options.ports;
    for (heading, rules) in [
        ("Inbound forwarding rules (HOST):", &rules.inbound),
        ("Outbound forwarding rules (SPLICE):", &rules.outbound),
    ] {
        if !rules.is_empty() {
            lines.push(heading.to_owned());
            lines.extend(rules.iter().map(|rule| format!("    {rule}")));
        }
    }
    lines
}
