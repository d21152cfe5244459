//! The page that a collector reads.
//!
//! Owns the names of the metrics, what each means, and the two dialects of the text. Labels never
//! hold names, addresses or rules: how many samples there are is bounded by this program, and by
//! the number of members where they are counted one by one. Such a family has no sum beside them: a
//! collector adds them up. Of the verdicts only those have a sample that were given already.

mod writer;

use core::time::Duration;

pub(super) use self::writer::Dialect;
use self::writer::{Label, Writer};
use crate::egress::Action;
use crate::rates::RateDirection;
use crate::stats::{MemberStats, PerProtocol, PolicyStats, Stats};

/// Everything that is known, on one page.
pub(super) fn write(stats: &Stats, started_at: Duration, dialect: Dialect) -> String {
    let mut page = Writer::new(dialect);
    page.info("slirp_build", "The program that runs.", "version", env!("CARGO_PKG_VERSION"));
    page.gauge("slirp_start_time_seconds", "When the network started, in Unix time.");
    page.sample_seconds("", &[], started_at);
    link(&mut page, stats);
    flows(&mut page, stats);
    rates(&mut page, stats);
    names(&mut page, stats);
    if let Some(audit) = &stats.audit {
        page.counter("slirp_audit_events", "Events that were given to the audit log.");
        page.total(&[], audit.taken);
        page.counter("slirp_audit_lost", "Events for which the audit log had no room.");
        page.total(&[], audit.lost);
    }
    page.gauge("slirp_approvers", "Who may decide questions at this moment.");
    page.sample("", &[], stats.approvers);
    if let Some(policy) = &stats.policy {
        policies(&mut page, policy, stats.by_member.as_deref());
    }
    page.finish()
}

fn link(page: &mut Writer, stats: &Stats) {
    page.counter("slirp_frames", "Frames that crossed the guest's link.");
    for (direction, count) in directions(stats.frames_from_guest, stats.frames_to_guest) {
        page.total(&[("direction", direction)], count);
    }
    page.counter("slirp_frame_bytes", "Bytes of these frames, link headers included.");
    for (direction, count) in directions(stats.bytes_from_guest, stats.bytes_to_guest) {
        page.total(&[("direction", direction)], count);
    }
    page.counter("slirp_member_frames", "Frames from member to member of a shared network.");
    page.total(&[], stats.frames_between_members);
    page.counter("slirp_member_frame_bytes", "Bytes of these frames, link headers included.");
    page.total(&[], stats.bytes_between_members);
    page.gauge("slirp_members", "Members of a shared network.");
    page.sample("", &[], stats.members);
    page.counter("slirp_discards", "Frames, packets and requests that were discarded.");
    for (reason, count) in stats.discards.iter() {
        page.total(&[("reason", reason.as_str())], count);
    }
}

fn flows(page: &mut Writer, stats: &Stats) {
    page.gauge("slirp_flows", "Flows that are open.");
    let open = |page: &mut Writer, labels: &[Label<'_>], open: &PerProtocol<u64>| {
        for (protocol, &count) in open.iter() {
            page.sample("", &with(labels, &[("proto", protocol.as_str())]), count);
        }
    };
    match &stats.by_member {
        None => open(page, &[], &stats.open),
        Some(members) => {
            for member in members {
                open(page, &[("member", &member.id.0.to_string())], &member.open);
            }
        }
    }
    page.counter("slirp_flows_opened", "Flows that were opened, by the guest or by a remote.");
    for (protocol, by, count) in [
        ("tcp", "guest", stats.tcp_opened),
        ("tcp", "remote", stats.tcp_accepted),
        ("udp", "guest", stats.udp_opened),
        ("udp", "remote", stats.udp_accepted),
        ("icmp", "guest", stats.echo_opened),
    ] {
        page.total(&[("proto", protocol), ("by", by)], count);
    }
    page.counter("slirp_connect_failures", "TCP connections that the host could not make.");
    for (error, count) in stats.connect_failures.iter() {
        page.total(&[("reason", error.as_str())], count);
    }
    page.counter("slirp_flow_bytes", "Payload bytes of flows.");
    for (protocol, traffic) in stats.traffic.iter() {
        for (direction, count) in directions(traffic.from_guest, traffic.to_guest) {
            page.total(&[("proto", protocol.as_str()), ("direction", direction)], count);
        }
    }
    page.counter("slirp_flows_parked", "TCP flows that were put to sleep to save memory.");
    page.total(&[], stats.tcp_parked);
    page.gauge("slirp_ring_memory_bytes", "Bytes that the rings of TCP flows hold.");
    page.sample("", &[], stats.ring_memory);
}

fn rates(page: &mut Writer, stats: &Stats) {
    page.gauge("slirp_rate_limit_bits", "Bits a second that guests without own limits may move.");
    for direction in RateDirection::ALL {
        if let Some(rate) = stats.rates.of(direction) {
            page.sample("", &[("direction", word(direction))], rate.bits_per_second);
        }
    }
    page.counter("slirp_rate_limited_seconds", "How long traffic has waited for a rate.");
    let [from_guest, to_guest] =
        [stats.rate_limited_micros_from_guest, stats.rate_limited_micros_to_guest];
    for (direction, micros) in directions(from_guest, to_guest) {
        let time = Duration::from_micros(micros);
        page.sample_seconds("_total", &[("direction", direction)], time);
    }
    page.counter("slirp_rate_dropped", "Datagrams that a rate had no room for.");
    for (direction, count) in directions(stats.rate_dropped_from_guest, stats.rate_dropped_to_guest)
    {
        page.total(&[("direction", direction)], count);
    }
}

const fn word(direction: RateDirection) -> &'static str {
    match direction {
        RateDirection::ToGuest => "to_guest",
        RateDirection::FromGuest => "from_guest",
    }
}

fn names(page: &mut Writer, stats: &Stats) {
    page.counter("slirp_dns_queries", "DNS queries of guests, by what they were answered.");
    for (answered, count) in stats.names.iter() {
        page.total(&[("answer", answered.as_str())], count);
    }
    page.histogram("slirp_dns_upstream_seconds", "How long the host's resolvers took to answer.");
    page.buckets(&[], &stats.names.upstream);
}

fn policies(page: &mut Writer, all: &PolicyStats, members: Option<&[MemberStats]>) {
    let each = |page: &mut Writer, write: &dyn Fn(&mut Writer, &[Label<'_>], &PolicyStats)| {
        let Some(members) = members else { return write(page, &[], all) };
        for member in members {
            if let Some(policy) = &member.policy {
                write(page, &[("member", &member.id.0.to_string())], policy);
            }
        }
    };
    page.gauge("slirp_policy_rules", "Rules of the egress policy in force.");
    each(page, &|page, labels, policy| {
        for (action, count) in Action::ALL.iter().zip(policy.rules) {
            page.sample("", &with(labels, &[("action", action.as_str())]), count);
        }
    });
    page.gauge("slirp_policy_revision", "How often an egress policy has come into force.");
    each(page, &|page, labels, policy| page.sample("", labels, policy.revision));
    page.counter("slirp_policy_verdicts", "What the rules say about new flows and datagrams.");
    each(page, &|page, labels, policy| {
        for (action, cause, protocol, count) in policy.verdicts.iter().filter(|each| each.3 > 0) {
            let own = [
                ("verdict", action.as_str()),
                ("cause", cause.as_str()),
                ("proto", protocol.as_str()),
            ];
            page.total(&with(labels, &own), count);
        }
    });
    page.counter("slirp_policy_verified", "Verdicts about first bytes of connections.");
    each(page, &|page, labels, policy| {
        for (shown, result, count) in policy.verified.iter().filter(|each| each.2 > 0) {
            let result = result.map_or_else(|cause| cause.as_str(), |()| "pass");
            page.total(&with(labels, &[("kind", shown.as_str()), ("result", result)]), count);
        }
    });
    page.gauge("slirp_questions", "Questions about flows that wait for a decision.");
    each(page, &|page, labels, policy| page.sample("", labels, policy.questions.open));
    page.counter("slirp_questions_ended", "Questions about flows, by how they ended.");
    each(page, &|page, labels, policy| {
        for (outcome, count) in policy.questions.iter() {
            page.total(&with(labels, &[("outcome", outcome.as_str())]), count);
        }
    });
    page.histogram("slirp_question_held_seconds", "How long questions were open.");
    each(page, &|page, labels, policy| page.buckets(labels, &policy.questions.held));
    page.gauge("slirp_policy_names_bound", "Names whose addresses the guest has learned.");
    each(page, &|page, labels, policy| page.sample("", labels, policy.names));
    page.gauge("slirp_policy_bindings", "Addresses of these names.");
    each(page, &|page, labels, policy| page.sample("", labels, policy.bindings));
    page.gauge("slirp_dns_distinct_names", "Names that were looked up under one wildcard.");
    each(page, &|page, labels, policy| page.sample("", labels, policy.distinct_names));
    page.counter("slirp_policy_bindings_evicted", "Addresses that have made room for others.");
    each(page, &|page, labels, policy| page.total(labels, policy.bindings_evicted));
}

fn with<'l>(labels: &[Label<'l>], own: &[Label<'l>]) -> Vec<Label<'l>> {
    [labels, own].concat()
}

const fn directions(from_guest: u64, to_guest: u64) -> [(&'static str, u64); 2] {
    [("from_guest", from_guest), ("to_guest", to_guest)]
}

#[cfg(test)]
mod tests;
