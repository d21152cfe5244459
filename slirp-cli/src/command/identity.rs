//! Which ids there are inside.
//!
//! Owns the maps of a new user namespace. A caller that may give all ids away (CAP_SETUID and
//! CAP_SETGID, as root has them) keeps all of them unless it wants one alone, so that files have
//! the owners that they had and `su` works. Others keep their own user and group alone; their
//! further groups still open files, but have no name. user_namespaces(7).

use std::fs;
use std::io;

use nix::unistd::{Gid, Pid, Uid};

use super::Ids;

/// The maps of a user namespace.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Maps {
    users: String,
    groups: String,
    /// Whether groups can be given up inside (setgroups(2)).
    may_set_groups: bool,
}

impl Maps {
    /// The maps for this process's ids and rights.
    pub(super) fn new(ids: Ids) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (user, group) = (Uid::effective(), Gid::effective());
        let wants_all = match ids {
            Ids::Kept => true,
            Ids::Root => user.is_root(),
            Ids::RootAlone => false,
        };
        if wants_all && gives_all(&read("/proc/self/status")) {
            let [users, groups] =
                ["/proc/self/uid_map", "/proc/self/gid_map"].map(|path| onto_itself(&read(path)));
            return Self { users, groups, may_set_groups: true };
        }
        let (as_user, as_group) = match ids {
            Ids::Kept => (user.as_raw(), group.as_raw()),
            Ids::Root | Ids::RootAlone => (0, 0),
        };
        Self {
            users: format!("{as_user} {user} 1\n"),
            groups: format!("{as_group} {group} 1\n"),
            may_set_groups: false,
        }
    }

    /// Gives them to the user namespace of `process`.
    ///
    /// # Errors
    /// Those of write(2).
    pub(super) fn give(&self, process: Pid) -> io::Result<()> {
        let write = |file: &str, text: &str| fs::write(format!("/proc/{process}/{file}"), text);
        if !self.may_set_groups {
            // Before the groups can be mapped without privileges.
            write("setgroups", "deny")?;
        }
        write("uid_map", &self.users)?;
        write("gid_map", &self.groups)
    }
}

/// Whether a process may map all ids, from the text of proc_pid_status(5).
fn gives_all(status: &str) -> bool {
    const SETGID_AND_SETUID: u64 = 1 << 6 | 1 << 7;
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    set & SETGID_AND_SETUID == SETGID_AND_SETUID
}

/// The map that leaves every id of `map` as it is.
fn onto_itself(map: &str) -> String {
    let mut text = String::new();
    for line in map.lines() {
        let mut words = line.split_whitespace();
        if let (Some(first), Some(count)) = (words.next(), words.nth(1)) {
            text.push_str(&format!("{first} {first} {count}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ids_stay_what_they_are() {
        assert_eq!(onto_itself("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(onto_itself("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
        assert_eq!(onto_itself(""), "");
    }

    #[test]
    fn all_ids_take_both_rights() {
        for (set, expected) in [("000001ffffffffff", true), ("00000000000000c0", true)] {
            assert_eq!(gives_all(&format!("Name:\tx\nCapEff:\t{set}\n")), expected);
        }
        for set in ["0000000000000000", "0000000000000040", "0000000000000080"] {
            assert!(!gives_all(&format!("CapEff:\t{set}\n")), "{set}");
        }
        assert!(!gives_all(""));
    }
}
