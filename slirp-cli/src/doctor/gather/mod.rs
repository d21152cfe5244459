//! Reading the world into [`Facts`].
//!
//! Owns what is read and tried, and judges nothing. Nothing is left behind, and the only packets
//! that leave this host are one question for each resolver in `/etc/resolv.conf`.

pub(super) mod attempt;
mod network;
mod resolvers;
mod trial;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{AccessFlags, User as Account, eaccess, getegid, geteuid};

use super::facts::{
    CONTAINER_IDS, Facts, Namespaces, NoNamespaces, Node, Ping, Subordinate, Tun, User,
};

const DEVICE: &str = "/dev/net/tun";

/// Reads everything. It takes as long as the slowest resolver may take, two seconds.
pub(super) fn gather() -> Facts {
    let asking = thread::spawn(resolvers::ask_all);
    let user = user();
    let has_proc = status_line("Pid:").is_some();
    let trial = trial::run(has_proc);
    let tun = Tun {
        node: node(),
        has_driver: fs::read_to_string("/proc/misc")
            .ok()
            .map(|list| list.lines().any(|line| line.trim().ends_with(" tun"))),
        open: fs::OpenOptions::new().read(true).write(true).open(DEVICE).map(drop).map_err(errno),
        attach: trial.attach,
    };
    let group = getegid().as_raw();
    let range = fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").ok();
    let range = range.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    Facts {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .ok()
            .map(|text| text.trim().into()),
        has_proc,
        namespaces: namespaces(trial.namespaces),
        tun,
        sandbox: trial.sandbox,
        filter: trial.filter,
        subordinate: subordinate(&user),
        ping: Ping { socket: network::ping_socket(), range, group },
        loopback: network::loopback4(),
        ipv4: network::ipv4(),
        ipv6: network::ipv6(),
        descriptors: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard),
        first_free_port: number("/proc/sys/net/ipv4/ip_unprivileged_port_start")
            .and_then(|port| port.try_into().ok()),
        // A panic there is a defect; the other checks are worth having.
        resolvers: asking.join().unwrap_or_else(|_| resolvers::unread()),
        user,
    }
}

/// What bears on namespaces, beside the outcome of a trial.
pub(super) fn namespaces(outcome: Result<(), NoNamespaces>) -> Namespaces {
    const SETFCAP: u64 = 1 << 31;
    let rights = status_line("CapEff:").and_then(|set| u64::from_str_radix(&set, 16).ok());
    Namespaces {
        outcome,
        user_cap: number("/proc/sys/user/max_user_namespaces"),
        network_cap: number("/proc/sys/user/max_net_namespaces"),
        mount_cap: number("/proc/sys/user/max_mnt_namespaces"),
        clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        is_filtered: status_line("Seccomp:").is_some_and(|mode| mode == "2"),
        is_in_chroot: is_in_chroot(),
        maps_root: rights.is_some_and(|rights| rights & SETFCAP != 0),
    }
}

pub(super) fn user() -> User {
    let id = geteuid();
    let account = Account::from_uid(id).ok().flatten();
    User { id: id.as_raw(), name: account.map(|account| account.name) }
}

/// The error number of `error`.
fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

/// A file with a number in it.
fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What `/proc/self/status` says behind `name`.
fn status_line(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned())
}

/// No mount is at `/` for a process whose root directory is a folder below a mount
/// (proc_pid_mountinfo(5)).
fn is_in_chroot() -> bool {
    fs::read_to_string("/proc/self/mountinfo")
        .is_ok_and(|list| list.lines().all(|line| line.split(' ').nth(4) != Some("/")))
}

fn node() -> Result<Node, Errno> {
    let meta = fs::metadata(DEVICE).map_err(errno)?;
    Ok(Node {
        is_device: meta.file_type().is_char_device(),
        mode: meta.mode() & 0o777,
        is_permitted: eaccess(DEVICE, AccessFlags::R_OK | AccessFlags::W_OK).is_ok(),
    })
}

fn subordinate(user: &User) -> Subordinate {
    let [users, groups] =
        ["/etc/subuid", "/etc/subgid"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| {
        std::env::split_paths(&folders).any(|folder: std::path::PathBuf| {
            !folder.as_os_str().is_empty() && Path::new(&folder).join(name).exists()
        })
    };
    Subordinate {
        uids: ids(&users, user),
        gids: ids(&groups, user),
        free: free_ids(&[&users, &groups]),
        has_tools: is_there("newuidmap") && is_there("newgidmap"),
    }
}

/// How many ids the lines `NAME:FIRST:COUNT` give to `user` (subuid(5)).
fn ids(list: &str, user: &User) -> u64 {
    let number = user.id.to_string();
    let count = |line: &str| {
        let (owner, rest) = line.split_once(':')?;
        let is_ours = owner == number || user.name.as_deref() == Some(owner);
        let (_, count) = rest.split_once(':').filter(|_| is_ours)?;
        count.trim().parse::<u64>().ok()
    };
    list.lines().filter_map(count).fold(0, u64::saturating_add)
}

/// The first of [`CONTAINER_IDS`] ids that no line of these lists gives to anybody.
fn free_ids(lists: &[&str]) -> u64 {
    // Where useradd(8) begins (SUB_UID_MIN of login.defs(5)).
    const FIRST: u64 = 100_000;
    let range = |line: &str| {
        let mut numbers = line.split(':').skip(1).map(|number| number.trim().parse::<u64>().ok());
        let (first, count) = (numbers.next()??, numbers.next()??);
        Some((first, first.checked_add(count)?))
    };
    let mut taken: Vec<_> = lists.iter().flat_map(|list| list.lines()).filter_map(range).collect();
    taken.sort_unstable();
    taken.into_iter().fold(
        FIRST,
        |free, (first, end)| {
            if first < free + CONTAINER_IDS { free.max(end) } else { free }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_those_of_the_name_and_of_the_number() {
        let user = User { id: 1500, name: Some("ann".to_owned()) };
        let list = "anna:1:9\nann:100000:65536\n1500:300000:10\nann:x:y\n\nann";
        assert_eq!(ids(list, &user), 65_546);
        assert_eq!(ids("", &user), 0);
    }

    #[test]
    fn free_ids_are_nobodys() {
        for (users, groups, free) in [
            ("", "", 100_000),
            ("bob:100000:65536", "", 165_536),
            ("", "bob:100000:65536", 165_536),
            ("eve:165536:65536\nbob:100000:65536", "bob:100000:65536\nann:x:y", 231_072),
            ("bob:165535:1\neve:300000:65536", "", 165_536),
            ("bob:165536:65536\nlow:1000:9", "", 100_000),
        ] {
            assert_eq!(free_ids(&[users, groups]), free, "{users:?} {groups:?}");
        }
    }
}
