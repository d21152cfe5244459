//! User and network namespaces. user_namespaces(7), namespaces(7).

use nix::errno::Errno;

use super::super::facts::{Facts, Namespaces, NoNamespaces, Step, User};
use super::super::finding::Finding;

const CHECK: &str = "user-namespaces";

/// Whether `slirp run` can make its namespaces, or what forbids that.
pub(super) fn namespaces(facts: &Facts) -> Finding {
    let known = &facts.namespaces;
    let (step, errno) = match &known.outcome {
        Ok(()) => return Finding::ok(CHECK, "a user and a network namespace can be made"),
        Err(NoNamespaces::Silent(problem)) => {
            return Finding::failure(
                CHECK,
                format!("cannot be tried: {problem}"),
                "run slirp doctor outside of this container or sandbox",
            );
        }
        Err(NoNamespaces::Skipped) => {
            return Finding::warning(CHECK, "not tried, as proc is not ok", "mend proc first");
        }
        &Err(NoNamespaces::Step(step, errno)) => (step, errno),
    };
    let (cause, remedy) = cause(known, &facts.user, step, errno);
    let what = format!("{}: {}: {cause}", step.text(), errno.desc());
    Finding::failure(CHECK, what, remedy)
}

/// Why a step has failed, and what helps. The likeliest cause comes first.
pub(in super::super) fn cause(
    known: &Namespaces,
    user: &User,
    step: Step,
    errno: Errno,
) -> (String, String) {
    match (step, errno) {
        (_, Errno::ENOSPC | Errno::EUSERS) => {
            // What most kernels start with on a machine of 8 GB.
            const USUAL: u64 = 32_768;
            let (name, cap) = match step {
                Step::MakeUser | Step::MapIds => ("user.max_user_namespaces", known.user_cap),
                Step::MakeNetwork => ("user.max_net_namespaces", known.network_cap),
                Step::MakeMounts => ("user.max_mnt_namespaces", known.mount_cap),
            };
            let raise = || user.as_root(&format!("sysctl -w {name}={USUAL}"));
            match cap {
                Some(0) => (format!("forbidden ({name} is 0)"), raise()),
                Some(cap) if cap < USUAL => (format!("too many ({name} is {cap})"), raise()),
                Some(cap) => (
                    format!("forbidden by an outer namespace ({name} is {cap} here)"),
                    "run outside of it (bwrap: without --disable-userns)".to_owned(),
                ),
                None => (
                    format!("no more are allowed ({name})"),
                    format!("raise the sysctl {name}, or run outside of this container"),
                ),
            }
        }
        // PR_SET_DUMPABLE(2const): the files of such a process in /proc are root's.
        (Step::MapIds, Errno::EACCES) => (
            "the kernel keeps /proc of this program from its user, who may not read its file, or \
             gets other ids by it"
                .to_owned(),
            "make its file readable (chmod a+r) and call it without set-user-ID and set-group-ID \
             (chmod ug-s)"
                .to_owned(),
        ),
        (Step::MapIds, Errno::EPERM) if user.is_root() && !known.maps_root => (
            "root lacks CAP_SETFCAP, without which root cannot be mapped".to_owned(),
            "start the outer container with --cap-add=SETFCAP, or run as another user".to_owned(),
        ),
        (Step::MakeUser, Errno::EPERM | Errno::EACCES) if known.clone == Some(0) => (
            "forbidden (kernel.unprivileged_userns_clone is 0)".to_owned(),
            user.as_root("sysctl -w kernel.unprivileged_userns_clone=1"),
        ),
        // Since Ubuntu 23.10 the namespace is made, and its owner has no capabilities in it.
        (_, Errno::EPERM | Errno::EACCES) if known.apparmor == Some(1) => (
            "forbidden by AppArmor (kernel.apparmor_restrict_unprivileged_userns is 1)".to_owned(),
            "install the AppArmor profile of slirp, which allows userns; for all programs, as \
             root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
                .to_owned(),
        ),
        (_, Errno::EPERM | Errno::EACCES | Errno::ENOSYS) if known.is_filtered => (
            "forbidden by a filter of system calls, as containers have".to_owned(),
            "start the outer container with --security-opt seccomp=unconfined, or with a profile \
             that allows unshare and setns"
                .to_owned(),
        ),
        (Step::MakeUser, Errno::EPERM) if known.is_in_chroot => (
            "forbidden in a chroot".to_owned(),
            "enter the folder with bwrap --bind DIR / --dev-bind /dev /dev --proc /proc instead of \
             chroot"
                .to_owned(),
        ),
        (Step::MakeUser, Errno::EINVAL | Errno::ENOSYS) => (
            "the kernel has no user namespaces (CONFIG_USER_NS)".to_owned(),
            "boot a kernel with CONFIG_USER_NS=y".to_owned(),
        ),
        (Step::MakeNetwork, Errno::EINVAL) => (
            "the kernel has no network namespaces (CONFIG_NET_NS)".to_owned(),
            "boot a kernel with CONFIG_NET_NS=y".to_owned(),
        ),
        _ => (
            "a security module or an outer container forbids it".to_owned(),
            "allow user namespaces there (AppArmor: userns, SELinux: user_namespace create), or \
             run outside of it"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::super::tests::{told, world};
    use super::*;

    #[test]
    fn each_prohibition_is_told_from_the_others() {
        type Change = fn(&mut Facts);
        let rows: [(Step, Errno, Change, &str, &str); 13] = [
            (
                Step::MakeUser,
                Errno::ENOSPC,
                |facts| facts.namespaces.user_cap = Some(0),
                "unshare(CLONE_NEWUSER): No space left on device: forbidden \
                 (user.max_user_namespaces is 0)",
                "as root: sysctl -w user.max_user_namespaces=32768",
            ),
            (
                Step::MakeUser,
                Errno::ENOSPC,
                |_| (),
                "forbidden by an outer namespace (user.max_user_namespaces is 63432 here)",
                "run outside of it",
            ),
            (
                Step::MakeUser,
                Errno::ENOSPC,
                |facts| facts.namespaces.user_cap = Some(9),
                "too many (user.max_user_namespaces is 9)",
                "as root: sysctl -w user.max_user_namespaces=32768",
            ),
            (
                Step::MakeMounts,
                Errno::ENOSPC,
                |facts| facts.namespaces.mount_cap = Some(0),
                "forbidden (user.max_mnt_namespaces is 0)",
                "as root: sysctl -w user.max_mnt_namespaces=32768",
            ),
            (Step::MapIds, Errno::EACCES, |_| (), "who may not read its file", "chmod a+r"),
            (
                Step::MapIds,
                Errno::EPERM,
                |facts| facts.user.id = 0,
                "root lacks CAP_SETFCAP",
                "--cap-add=SETFCAP",
            ),
            (
                Step::MakeNetwork,
                Errno::ENOSPC,
                |facts| facts.namespaces.network_cap = Some(0),
                "forbidden (user.max_net_namespaces is 0)",
                "sysctl -w user.max_net_namespaces=32768",
            ),
            (
                Step::MakeUser,
                Errno::EPERM,
                |facts| facts.namespaces.clone = Some(0),
                "kernel.unprivileged_userns_clone is 0",
                "as root: sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                Step::MapIds,
                Errno::EPERM,
                |facts| facts.namespaces.apparmor = Some(1),
                "forbidden by AppArmor",
                "install the AppArmor profile of slirp",
            ),
            (
                Step::MakeUser,
                Errno::EPERM,
                |facts| facts.namespaces.is_filtered = true,
                "by a filter of system calls",
                "seccomp=unconfined",
            ),
            (
                Step::MakeUser,
                Errno::EPERM,
                |facts| facts.namespaces.is_in_chroot = true,
                "in a chroot",
                "bwrap",
            ),
            (Step::MakeUser, Errno::EINVAL, |_| (), "no user namespaces", "CONFIG_USER_NS=y"),
            (Step::MakeMounts, Errno::EPERM, |_| (), "a security module", "outside of it"),
        ];
        for (step, errno, change, what, remedy) in rows {
            let facts = world(|facts| {
                facts.namespaces.outcome = Err(NoNamespaces::Step(step, errno));
                change(facts);
            });
            let finding = namespaces(&facts);
            let (state, said, advised) = told(&finding);
            assert_eq!(state, State::Failure);
            assert!(said.contains(what), "{said}");
            assert!(advised.contains(remedy), "{advised}");
        }
    }

    #[test]
    fn limit_of_apparmor_alone_forbids_nothing() {
        let facts = world(|facts| facts.namespaces.apparmor = Some(1));
        assert_eq!(namespaces(&facts).state, State::Ok);
    }
}
