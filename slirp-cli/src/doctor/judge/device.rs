//! `/dev/net/tun`, and what its devices can do. `Documentation/networking/tuntap.rst`.

use nix::errno::Errno;
use slirp_core::config::Offload;

use super::super::facts::{Attempt, Facts, Node};
use super::super::finding::Finding;

const CHECK: &str = "tun";

/// Whether a TAP device can be made, or what is wrong with `/dev/net/tun`.
pub(super) fn tun(facts: &Facts) -> Finding {
    let tun = &facts.tun;
    let as_root = |command: &str| facts.user.as_root(command);
    let load = || as_root("modprobe tun");
    let node = match &tun.node {
        Ok(node) => node,
        Err(Errno::ENOENT | Errno::ENOTDIR) if tun.has_driver == Some(false) => {
            return Finding::failure(CHECK, "the kernel has no TUN driver", load());
        }
        Err(Errno::ENOENT | Errno::ENOTDIR) => {
            let remedy = "mkdir -p /dev/net && mknod -m 0666 /dev/net/tun c 10 200, or give the \
                          container --device=/dev/net/tun";
            return Finding::failure(CHECK, "/dev/net/tun is missing", as_root(remedy));
        }
        Err(errno) => {
            let what = format!("/dev/net/tun: {}", errno.desc());
            return Finding::failure(CHECK, what, as_root("chmod 0755 /dev/net"));
        }
    };
    if !node.is_device {
        let remedy = "rm /dev/net/tun && mknod -m 0666 /dev/net/tun c 10 200";
        return Finding::failure(CHECK, "/dev/net/tun is no device", as_root(remedy));
    }
    if let Err(errno) = tun.open {
        let (cause, remedy) = cause(facts, node, errno);
        return Finding::failure(CHECK, format!("/dev/net/tun: {}: {cause}", errno.desc()), remedy);
    }
    match &tun.attach {
        Ok(_) => Finding::ok(CHECK, "a TAP device can be made in a namespace"),
        Err(Attempt::Failed(problem, hint)) => {
            let hint = hint.clone().unwrap_or_else(|| {
                "look for a security module or an outer container that forbids TAP devices"
                    .to_owned()
            });
            Finding::failure(CHECK, problem.as_str(), hint)
        }
        Err(Attempt::Skipped | Attempt::Worked) => Finding::warning(
            CHECK,
            "/dev/net/tun opens; no device was tried, as user-namespaces is not ok",
            "mend user-namespaces first",
        ),
    }
}

/// Why the device does not open, and what helps.
fn cause(facts: &Facts, node: &Node, errno: Errno) -> (String, String) {
    let as_root = |command: &str| facts.user.as_root(command);
    let (cause, remedy) = if errno == Errno::EACCES && !node.is_permitted {
        return (format!("its mode is {:04o}", node.mode), as_root("chmod 0666 /dev/net/tun"));
    } else if errno == Errno::EACCES {
        (
            "its file system is mounted with nodev",
            as_root("mount -o remount,dev /dev, or bind the device of the host to /dev/net/tun"),
        )
    } else if errno == Errno::EPERM {
        (
            "the devices of this cgroup do not include it",
            "start the container with --device=/dev/net/tun, or the unit with \
             DeviceAllow=/dev/net/tun"
                .to_owned(),
        )
    } else if [Errno::ENODEV, Errno::ENXIO].contains(&errno) {
        ("the kernel has no TUN driver", as_root("modprobe tun"))
    } else {
        ("it does not open", as_root("rm /dev/net/tun && mknod -m 0666 /dev/net/tun c 10 200"))
    };
    (cause.to_owned(), remedy)
}

/// What the kernel does for a TAP device.
pub(super) fn offloads(attach: &Result<Offload, Attempt>) -> Finding {
    const CHECK: &str = "offloads";
    match attach {
        Ok(Offload { tcp_segmentation: true, udp_segmentation: true, .. }) => {
            Finding::ok(CHECK, "checksums, TCP and UDP in large frames")
        }
        Ok(Offload { tcp_segmentation: true, .. }) => {
            Finding::ok(CHECK, "checksums and TCP in large frames (UDP from Linux 6.2 on)")
        }
        Ok(_) => Finding::warning(
            CHECK,
            "the kernel takes no large frames of TCP, so networks are slow",
            "use slirp run --mtu=65520, which is its default, or a newer kernel",
        ),
        Err(_) => Finding::warning(CHECK, "not tried, as tun is not ok", "mend tun first"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::State;
    use super::super::tests::{told, world};
    use super::*;

    #[test]
    fn each_fault_of_the_device_has_its_remedy() {
        type Change = fn(&mut Facts);
        let rows: [(Change, &str, &str); 9] = [
            (
                |facts| facts.tun.node = Err(Errno::ENOENT),
                "/dev/net/tun is missing",
                "as root: mkdir -p /dev/net && mknod -m 0666 /dev/net/tun c 10 200, or give the \
                 container --device=/dev/net/tun",
            ),
            (
                |facts| {
                    facts.tun.node = Err(Errno::ENOENT);
                    facts.tun.has_driver = Some(false);
                },
                "the kernel has no TUN driver",
                "as root: modprobe tun",
            ),
            (|facts| facts.tun.node = Err(Errno::EACCES), "Permission denied", "chmod 0755"),
            (
                |facts| facts.tun.node = Ok(Node { is_device: false, mode: 0, is_permitted: true }),
                "/dev/net/tun is no device",
                "rm /dev/net/tun",
            ),
            (
                |facts| {
                    let node = Node { is_device: true, mode: 0o600, is_permitted: false };
                    facts.tun.node = Ok(node);
                    facts.tun.open = Err(Errno::EACCES);
                },
                "/dev/net/tun: Permission denied: its mode is 0600",
                "as root: chmod 0666 /dev/net/tun",
            ),
            (|facts| facts.tun.open = Err(Errno::EACCES), "nodev", "remount,dev"),
            (|facts| facts.tun.open = Err(Errno::EPERM), "cgroup", "DeviceAllow=/dev/net/tun"),
            (|facts| facts.tun.open = Err(Errno::ENODEV), "no TUN driver", "modprobe tun"),
            (
                |facts| {
                    let hint = Some("no right to create interfaces".to_owned());
                    facts.tun.attach = Err(Attempt::Failed("ioctl(TUNSETIFF): no".into(), hint));
                },
                "ioctl(TUNSETIFF): no",
                "no right to create interfaces",
            ),
        ];
        for (change, what, remedy) in rows {
            let finding = tun(&world(change));
            let (state, said, advised) = told(&finding);
            assert_eq!(state, State::Failure, "{said}");
            assert!(said.contains(what), "{said}");
            assert!(advised.contains(remedy), "{advised}");
        }
    }

    #[test]
    fn device_that_was_not_tried_is_not_red() {
        let facts = world(|facts| facts.tun.attach = Err(Attempt::Skipped));
        assert_eq!(tun(&facts).state, State::Warning);
        assert_eq!(offloads(&facts.tun.attach).state, State::Warning);
    }

    #[test]
    fn older_kernels_have_fewer_offloads() {
        let tcp = Offload { checksum: true, tcp_segmentation: true, ..Offload::NOTHING };
        assert_eq!(offloads(&Ok(tcp)).state, State::Ok);
        assert_eq!(offloads(&Ok(Offload::NOTHING)).state, State::Warning);
    }
}
