//! What the host's own network offers to guests.

use super::super::facts::{Asked, Facts, Silence};
use super::super::finding::Finding;

/// The smallest MTU of a link with IPv6 (RFC 8200 section 5), which QUIC counts on as well (RFC
/// 9000 section 14).
const MTU_MIN: u32 = 1280;
/// Words for response codes (RFC 1035 section 4.1.1).
const CODES: [&str; 6] = ["", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/// Whether echo requests of guests can leave the host (icmp(7)).
pub(super) fn ping(facts: &Facts) -> Finding {
    const CHECK: &str = "ping";
    let known = &facts.ping;
    let range = known.range.as_deref().unwrap_or("unknown");
    if known.socket.is_ok() {
        return Finding::ok(CHECK, format!("guests can ping (groups {range})"));
    }
    let what = format!(
        "guests can ping no remote: net.ipv4.ping_group_range is {range}, our group is {}",
        known.group
    );
    let command = "sysctl -w net.ipv4.ping_group_range='0 2147483647'";
    Finding::warning(CHECK, what, facts.user.as_root(command))
}

/// Whether the host's loopback is there.
pub(super) fn loopback(facts: &Facts) -> Finding {
    const CHECK: &str = "loopback";
    match facts.loopback {
        Ok(()) => Finding::ok(CHECK, "127.0.0.1 is this host"),
        Err(errno) => Finding::warning(
            CHECK,
            format!("127.0.0.1 cannot be used: {}", errno.desc()),
            facts.user.as_root("ip link set lo up"),
        ),
    }
}

/// One finding for each resolver, or the one that there is none.
pub(super) fn resolvers(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "resolver";
    let known = &facts.resolvers;
    let remedy =
        facts.user.as_root("echo 'nameserver ADDRESS' >> /etc/resolv.conf, with yours for ADDRESS");
    if let Err(errno) = known.file {
        let what = format!("/etc/resolv.conf: {}", errno.desc());
        return vec![Finding::warning(CHECK, what, remedy)];
    }
    if known.asked.is_empty() {
        return vec![Finding::warning(CHECK, "/etc/resolv.conf names no resolver", remedy)];
    }
    known.asked.iter().map(|asked| resolver(CHECK, asked)).collect()
}

fn resolver(check: &'static str, Asked { address, outcome }: &Asked) -> Finding {
    // The file is foreign, and a line of it may hold anything.
    let address: String = address.escape_debug().take(60).collect();
    let another = || format!("give slirp run --dns=ADDRESS, or mend {address} in /etc/resolv.conf");
    match outcome {
        Ok(answer) => {
            let code = CODES.get(usize::from(answer.code)).copied().unwrap_or("another code");
            let code = if code.is_empty() { String::new() } else { format!(" ({code})") };
            let millis = answer.after.as_secs_f64() * 1e3;
            Finding::ok(check, format!("{address} answers after {millis:.1} ms{code}"))
        }
        Err(Silence::NoAddress) => {
            Finding::warning(check, format!("{address} is no address"), another())
        }
        Err(Silence::Late) => {
            Finding::warning(check, format!("{address} does not answer"), another())
        }
        Err(Silence::Unreachable(errno)) => {
            Finding::warning(check, format!("{address}: {}", errno.desc()), another())
        }
    }
}

/// The way to the internet over IPv4, and its MTU.
pub(super) fn ipv4(facts: &Facts) -> Finding {
    const CHECK: &str = "ipv4";
    let interface = facts.ipv4.interface.as_deref();
    let named = interface.map(|name| format!(" of {name}")).unwrap_or_default();
    match facts.ipv4.mtu {
        Ok(mtu) if mtu < MTU_MIN => {
            let interface = interface.unwrap_or("INTERFACE");
            let command = format!("ip link set dev {interface} mtu 1500");
            let what = format!("MTU {mtu}{named}: IPv6 and QUIC need {MTU_MIN}");
            Finding::warning(CHECK, what, facts.user.as_root(&command))
        }
        Ok(mtu) => Finding::ok(CHECK, format!("the host has a way out, MTU {mtu}{named}")),
        Err(errno) => Finding::warning(
            CHECK,
            format!("the host has no way out: {}", errno.desc()),
            "connect the host to a network; ip route shows no default route",
        ),
    }
}

/// The way to the internet over IPv6.
pub(super) fn ipv6(facts: &Facts) -> Finding {
    const CHECK: &str = "ipv6";
    let known = &facts.ipv6;
    let errno = match (&known.source, known.loopback) {
        (Ok(source), _) => return Finding::ok(CHECK, format!("the host has a way out, {source}")),
        (&Err(errno), Ok(())) => {
            let what = format!("the host has no way out: {}", errno.desc());
            let remedy = "connect the host to an IPv6 network; guests have IPv4 meanwhile";
            return Finding::warning(CHECK, what, remedy);
        }
        (_, Err(errno)) => errno,
    };
    match known.disabled {
        None => Finding::warning(
            CHECK,
            "the kernel has no IPv6",
            "boot without ipv6.disable=1; guests have IPv4 meanwhile",
        ),
        Some(disabled) => {
            let (cause, command) = if disabled == 0 {
                (format!("::1 cannot be used: {}", errno.desc()), "ip link set lo up")
            } else {
                (
                    "IPv6 is off (net.ipv6.conf.all.disable_ipv6)".to_owned(),
                    "sysctl -w net.ipv6.conf.all.disable_ipv6=0",
                )
            };
            Finding::warning(CHECK, cause, facts.user.as_root(command))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::errno::Errno;

    use super::super::super::facts::Answer;
    use super::super::super::finding::State;
    use super::super::tests::{told, world};
    use super::*;

    #[test]
    fn ping_needs_the_range_of_groups() {
        let finding = ping(&world(|facts| {
            facts.ping.socket = Err(Errno::EACCES);
            facts.ping.range = Some("1 0".to_owned());
        }));
        let (state, what, remedy) = told(&finding);
        assert_eq!(state, State::Warning);
        assert!(what.ends_with("ping_group_range is 1 0, our group is 1500"), "{what}");
        assert_eq!(remedy, "as root: sysctl -w net.ipv4.ping_group_range='0 2147483647'");
    }

    #[test]
    fn each_resolver_has_a_line() {
        let asked = |address: &str, outcome| Asked { address: address.to_owned(), outcome };
        let refused = Answer { after: Duration::from_micros(1500), code: 5 };
        let facts = world(|facts| {
            facts.resolvers.asked = vec![
                asked("192.0.2.53", Ok(refused)),
                asked("192.0.2.54", Err(Silence::Late)),
                asked("192.0.2.55", Err(Silence::Unreachable(Errno::ECONNREFUSED))),
                asked("\u{1b}[2J", Err(Silence::NoAddress)),
            ];
        });
        let findings = resolvers(&facts);
        let said: Vec<_> = findings.iter().map(|found| (found.state, &*found.what)).collect();
        assert_eq!(
            said,
            [
                (State::Ok, "192.0.2.53 answers after 1.5 ms (REFUSED)"),
                (State::Warning, "192.0.2.54 does not answer"),
                (State::Warning, "192.0.2.55: Connection refused"),
                (State::Warning, "\\u{1b}[2J is no address"),
            ]
        );
        assert!(told(&findings[1]).2.contains("--dns=ADDRESS, or mend 192.0.2.54"));
    }

    #[test]
    fn file_without_resolvers_is_told_from_none() {
        let finding = &resolvers(&world(|facts| facts.resolvers.asked.clear()))[0];
        let (state, what, remedy) = told(finding);
        assert_eq!((state, what), (State::Warning, "/etc/resolv.conf names no resolver"));
        assert!(remedy.contains("nameserver ADDRESS"), "{remedy}");
        let finding = &resolvers(&world(|facts| facts.resolvers.file = Err(Errno::ENOENT)))[0];
        assert_eq!(told(finding).1, "/etc/resolv.conf: No such file or directory");
    }

    #[test]
    fn small_links_are_told() {
        let finding = ipv4(&world(|facts| facts.ipv4.mtu = Ok(576)));
        assert_eq!(
            told(&finding),
            (
                State::Warning,
                "MTU 576 of eth0: IPv6 and QUIC need 1280",
                "as root: ip link set dev eth0 mtu 1500"
            )
        );
        assert_eq!(ipv4(&world(|facts| facts.ipv4.mtu = Ok(1280))).state, State::Ok);
        let offline = ipv4(&world(|facts| facts.ipv4.mtu = Err(Errno::ENETUNREACH)));
        assert_eq!((offline.state, told(&offline).2.is_empty()), (State::Warning, false));
    }

    #[test]
    fn ways_to_have_no_ipv6_are_told_apart() {
        type Change = fn(&mut Facts);
        let rows: [(Change, &str, &str); 4] = [
            (|_| (), "Network is unreachable", "connect the host to an IPv6 network"),
            (
                |facts| {
                    facts.ipv6.loopback = Err(Errno::EADDRNOTAVAIL);
                    facts.ipv6.disabled = Some(1);
                },
                "IPv6 is off",
                "as root: sysctl -w net.ipv6.conf.all.disable_ipv6=0",
            ),
            (
                |facts| {
                    facts.ipv6.loopback = Err(Errno::EAFNOSUPPORT);
                    facts.ipv6.disabled = None;
                },
                "the kernel has no IPv6",
                "ipv6.disable=1",
            ),
            (
                |facts| facts.ipv6.loopback = Err(Errno::EADDRNOTAVAIL),
                "::1 cannot be used",
                "ip link set lo up",
            ),
        ];
        for (change, what, remedy) in rows {
            let finding = ipv6(&world(|facts| {
                facts.ipv6.source = Err(Errno::ENETUNREACH);
                change(facts);
            }));
            let (state, said, advised) = told(&finding);
            assert_eq!(state, State::Warning);
            assert!(said.contains(what), "{said}");
            assert!(advised.contains(remedy), "{advised}");
        }
    }

    #[test]
    fn loopback_can_be_down() {
        let finding = loopback(&world(|facts| facts.loopback = Err(Errno::EADDRNOTAVAIL)));
        assert_eq!(told(&finding).2, "as root: ip link set lo up");
    }
}
