//! From facts to findings, without a look at the world.
//!
//! Owns the order of the table, and what counts as which [`State`](super::finding::State). A check
//! fails where no network works before it is mended. Where networks work and lack something, it
//! warns. A check whose ground has failed already warns that it was not tried, so that one fault is
//! red once.

mod device;
mod limits;
pub(super) mod namespaces;
mod network;
mod sandbox;

use super::facts::Facts;
use super::finding::Finding;

/// All findings, in the order of the table.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        limits::kernel(facts.kernel.as_deref()),
        limits::proc(facts),
        namespaces::namespaces(facts),
        device::tun(facts),
        device::offloads(&facts.tun.attach),
        sandbox::sandbox(&facts.sandbox),
        sandbox::filter(&facts.filter),
        limits::descriptors(facts),
        limits::subordinate_ids(facts),
        limits::ports(facts),
        network::ping(facts),
        network::loopback(facts),
    ];
    findings.extend(network::resolvers(facts));
    findings.extend([network::ipv4(facts), network::ipv6(facts)]);
    findings
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use slirp_core::config::Offload;

    use super::super::facts::*;
    use super::super::finding::State;
    use super::*;

    /// A machine on which everything works.
    pub(in super::super) fn healthy() -> Facts {
        let offload = Offload {
            vnet_header: true,
            checksum: true,
            tcp_segmentation: true,
            udp_segmentation: true,
        };
        Facts {
            user: User { id: 1500, name: Some("ann".to_owned()) },
            kernel: Some("6.12.48+deb13-amd64".to_owned()),
            has_proc: true,
            namespaces: Namespaces {
                outcome: Ok(()),
                user_cap: Some(63_432),
                network_cap: Some(63_432),
                mount_cap: Some(63_432),
                clone: Some(1),
                apparmor: None,
                is_filtered: false,
                is_in_chroot: false,
                maps_root: false,
            },
            tun: Tun {
                node: Ok(Node { is_device: true, mode: 0o666, is_permitted: true }),
                has_driver: Some(true),
                open: Ok(()),
                attach: Ok(offload),
            },
            sandbox: Attempt::Worked,
            filter: Attempt::Worked,
            subordinate: Subordinate { uids: 65_536, gids: 65_536, free: 165_536, has_tools: true },
            ping: Ping { socket: Ok(()), range: Some("0 2147483647".to_owned()), group: 1500 },
            resolvers: Resolvers {
                file: Ok(()),
                asked: vec![Asked {
                    address: "127.0.0.53".to_owned(),
                    outcome: Ok(Answer { after: Duration::from_micros(700), code: 0 }),
                }],
            },
            loopback: Ok(()),
            ipv4: Ipv4 { mtu: Ok(1500), interface: Some("eth0".to_owned()) },
            ipv6: Ipv6 {
                loopback: Ok(()),
                source: Ok("2001:db8::7".to_owned()),
                disabled: Some(0),
            },
            descriptors: Some(524_288),
            first_free_port: Some(1024),
        }
    }

    /// The healthy machine after `change`.
    pub(in super::super) fn world(change: impl FnOnce(&mut Facts)) -> Facts {
        let mut facts = healthy();
        change(&mut facts);
        facts
    }

    /// State, text and remedy of a finding.
    pub(in super::super) fn told(finding: &Finding) -> (State, &str, &str) {
        (finding.state, &finding.what, finding.remedy.as_deref().unwrap_or_default())
    }

    #[test]
    fn healthy_machine_is_all_ok() {
        for finding in judge(&healthy()) {
            assert_eq!((finding.state, &finding.remedy), (State::Ok, &None), "{finding:?}");
        }
    }

    #[test]
    fn manual_page_has_each_check() {
        let page = include_str!("../../../man/slirp.1");
        let entries = page.lines().filter_map(|line| line.strip_prefix(".It Sy "));
        let names: Vec<_> = entries.flat_map(|entry| entry.split(" , ")).collect();
        for finding in judge(&healthy()) {
            assert!(names.contains(&finding.check), "{} in slirp(1)", finding.check);
        }
    }

    #[test]
    fn each_trouble_has_one_remedy_on_one_line() {
        let worlds: [fn(&mut Facts); 4] = [
            |facts| facts.namespaces.outcome = Err(NoNamespaces::Silent("it has ended".into())),
            |facts| facts.tun.attach = Err(Attempt::Skipped),
            |facts| {
                facts.kernel = None;
                facts.has_proc = false;
                facts.descriptors = Some(40);
                facts.subordinate.uids = 0;
            },
            |facts| {
                facts.sandbox = Attempt::Skipped;
                facts.filter = Attempt::Failed("no".into(), None);
                facts.resolvers.asked.clear();
                facts.first_free_port = Some(2000);
            },
        ];
        for change in worlds {
            for finding in judge(&world(change)) {
                assert_eq!(finding.state == State::Ok, finding.remedy.is_none(), "{finding:?}");
                let texts = [Some(&finding.what), finding.remedy.as_ref()];
                assert!(texts.into_iter().flatten().all(|text| text.lines().count() == 1));
            }
        }
    }

    #[test]
    fn one_fault_is_red_once() {
        let facts = world(|facts| {
            facts.namespaces.outcome =
                Err(NoNamespaces::Step(Step::MakeUser, nix::errno::Errno::ENOSPC));
            facts.tun.attach = Err(Attempt::Skipped);
            facts.sandbox = Attempt::Skipped;
        });
        let findings = judge(&facts);
        let red: Vec<_> =
            findings.iter().filter(|finding| finding.state == State::Failure).collect();
        assert_eq!(red.len(), 1, "{red:?}");
        assert_eq!(red[0].check, "user-namespaces");
    }
}
