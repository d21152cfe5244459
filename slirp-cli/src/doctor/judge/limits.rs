//! The kernel, and the limits that it sets for this user.

use nix::sys::resource::RLIM_INFINITY;

use super::super::facts::{CONTAINER_IDS, Facts};
use super::super::finding::Finding;

/// The oldest kernel that has everything but extras: close_range(2) can mark descriptors.
const KERNEL_MIN: (u32, u32) = (5, 11);
/// Below this hard limit no network has room for connections; some 24 descriptors are its own.
const DESCRIPTORS_MIN: u64 = 48;
/// Below this a browser is short of connections (arbitrary; 4096 is the hard limit of a kernel's
/// first process).
const DESCRIPTORS_MANY: u64 = 4096;

pub(super) fn kernel(release: Option<&str>) -> Finding {
    const CHECK: &str = "kernel";
    let Some(release) = release else {
        let what = "its version cannot be read (/proc/sys/kernel/osrelease)";
        return Finding::warning(CHECK, what, "see whether uname -r says 5.11 or more");
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) < KERNEL_MIN => Finding::warning(
            CHECK,
            format!("Linux {release} is older than 5.11; parts of the protection are missing"),
            "boot Linux 5.11 or newer",
        ),
        _ => Finding::ok(CHECK, format!("Linux {release}")),
    }
}

pub(super) fn proc(facts: &Facts) -> Finding {
    const CHECK: &str = "proc";
    if facts.has_proc {
        return Finding::ok(CHECK, "/proc tells of this process");
    }
    let remedy = facts.user.as_root("mount -t proc proc /proc");
    Finding::failure(CHECK, "/proc is not mounted", remedy)
}

pub(super) fn descriptors(facts: &Facts) -> Finding {
    const CHECK: &str = "descriptors";
    let Some(hard) = facts.descriptors else {
        return Finding::warning(CHECK, "the limit cannot be read", "see what ulimit -Hn says");
    };
    let name = facts.user.name.clone().unwrap_or_else(|| facts.user.id.to_string());
    let remedy = format!(
        "set LimitNOFILE=524288 in the unit, or as root: echo '{name} hard nofile 524288' >> \
         /etc/security/limits.conf, and log in again"
    );
    if hard < DESCRIPTORS_MIN {
        let what = format!("the hard limit is {hard}, too few for a network");
        return Finding::failure(CHECK, what, remedy);
    }
    if hard < DESCRIPTORS_MANY {
        let what = format!("the hard limit is {hard}, and every connection takes one");
        return Finding::warning(CHECK, what, remedy);
    }
    let limit = if hard == RLIM_INFINITY { "none".to_owned() } else { hard.to_string() };
    Finding::ok(CHECK, format!("the hard limit is {limit}"))
}

pub(super) fn subordinate_ids(facts: &Facts) -> Finding {
    const CHECK: &str = "subordinate-ids";
    if facts.user.is_root() {
        return Finding::ok(CHECK, "root needs none");
    }
    let known = &facts.subordinate;
    let Some(name) = &facts.user.name else {
        let what = "this user has no name, and so no ids for containers";
        return Finding::warning(CHECK, what, "log in as a user of /etc/passwd");
    };
    if known.uids < CONTAINER_IDS || known.gids < CONTAINER_IDS {
        let range = format!("{}-{}", known.free, known.free + (CONTAINER_IDS - 1));
        let command = format!("usermod --add-subuids {range} --add-subgids {range} {name}");
        let what = format!(
            "containers need {CONTAINER_IDS}; {name} has {} in /etc/subuid, {} in /etc/subgid",
            known.uids, known.gids
        );
        return Finding::warning(CHECK, what, facts.user.as_root(&command));
    }
    if !known.has_tools {
        let what = "containers need newuidmap and newgidmap";
        return Finding::warning(CHECK, what, "install the package uidmap (Fedora: shadow-utils)");
    }
    Finding::ok(CHECK, format!("{} users and {} groups for containers", known.uids, known.gids))
}

pub(super) fn ports(facts: &Facts) -> Finding {
    const CHECK: &str = "ports";
    let Some(first) = facts.first_free_port.filter(|_| !facts.user.is_root()) else {
        return Finding::ok(CHECK, "every port can be published");
    };
    if first <= 1024 {
        return Finding::ok(CHECK, format!("ports from {first} on can be published"));
    }
    let command = "sysctl -w net.ipv4.ip_unprivileged_port_start=1024";
    let what = format!("no port below {first} can be published");
    Finding::warning(CHECK, what, facts.user.as_root(command))
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::super::tests::{told, world};
    use super::*;

    #[test]
    fn old_kernels_are_told() {
        for (release, state) in [
            (Some("6.12.48+deb13-amd64"), State::Ok),
            (Some("5.11.0"), State::Ok),
            (Some("5.10.0-35-amd64"), State::Warning),
            (Some("4.18.0-553.el8"), State::Warning),
            // What is not understood is left alone.
            (Some("next"), State::Ok),
            (None, State::Warning),
        ] {
            assert_eq!(kernel(release).state, state, "{release:?}");
        }
    }

    #[test]
    fn few_descriptors_are_few_connections() {
        for (hard, state) in [
            (Some(20), State::Failure),
            (Some(64), State::Warning),
            (Some(1024), State::Warning),
            (Some(4096), State::Ok),
            (Some(u64::MAX), State::Ok),
            (None, State::Warning),
        ] {
            let finding = descriptors(&world(|facts| facts.descriptors = hard));
            assert_eq!(finding.state, state, "{hard:?}");
        }
        let finding = descriptors(&world(|facts| facts.descriptors = Some(64)));
        assert!(told(&finding).2.contains("'ann hard nofile 524288'"), "{finding:?}");
    }

    #[test]
    fn containers_of_an_ordinary_user_need_ids_and_tools() {
        let none = subordinate_ids(&world(|facts| {
            facts.subordinate.gids = 0;
            facts.subordinate.free = 231_072;
        }));
        let (state, what, remedy) = told(&none);
        assert_eq!(state, State::Warning);
        assert!(what.contains("0 in /etc/subgid"), "{what}");
        assert!(remedy.ends_with("--add-subgids 231072-296607 ann"), "{remedy}");
        let tools = subordinate_ids(&world(|facts| facts.subordinate.has_tools = false));
        assert_eq!((tools.state, told(&tools).2.contains("uidmap")), (State::Warning, true));
        let nameless = subordinate_ids(&world(|facts| facts.user.name = None));
        assert_eq!(nameless.state, State::Warning);
        let root = subordinate_ids(&world(|facts| {
            facts.user.id = 0;
            facts.subordinate.uids = 0;
        }));
        assert_eq!(root.state, State::Ok);
    }

    #[test]
    fn ports_are_free_for_root_and_from_a_number_on() {
        let few = |facts: &mut Facts| facts.first_free_port = Some(20_000);
        let finding = ports(&world(few));
        assert_eq!(
            told(&finding),
            (
                State::Warning,
                "no port below 20000 can be published",
                "as root: sysctl -w net.ipv4.ip_unprivileged_port_start=1024"
            )
        );
        let root = world(|facts| {
            few(facts);
            facts.user.id = 0;
        });
        assert_eq!(ports(&root).state, State::Ok);
        assert_eq!(ports(&world(|facts| facts.first_free_port = Some(80))).state, State::Ok);
    }

    #[test]
    fn proc_is_needed() {
        let finding = proc(&world(|facts| facts.has_proc = false));
        let expected =
            (State::Failure, "/proc is not mounted", "as root: mount -t proc proc /proc");
        assert_eq!(told(&finding), expected);
    }
}
