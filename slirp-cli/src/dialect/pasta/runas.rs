//! `--runas`: the identity that a process started by root takes on.
//!
//! Owns the way from names and numbers to a user and a group, and who may change to them.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, setgid, setgroups, setuid};
use slirp_core::sandbox::Identity;

use super::options::{Name, RunAs};

/// Why the process does not become another user.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunAsFailure {
    #[error("Invalid --runas option: {0} (there is no such user or group)")]
    Unknown(String),
    #[error("Cannot change to --runas {user}:{group}: only root can become another user or group")]
    NotRoot { user: u32, group: u32 },
    #[error("Cannot change to --runas {user}:{group}: {}", .source.desc())]
    Refused { user: u32, group: u32, source: Errno },
}

impl RunAs {
    /// The identity to take on; `None` if it is the caller's own.
    pub(super) fn to_take_on(&self) -> Result<Option<Identity>, RunAsFailure> {
        let (user, own_group) = match &self.user {
            // A number without a name has the group of the same number.
            Name::Id(id) => (*id, *id),
            Name::Name(name) => {
                let found = User::from_name(name).ok().flatten();
                let found = found.ok_or_else(|| RunAsFailure::Unknown(name.clone()))?;
                (found.uid.as_raw(), found.gid.as_raw())
            }
        };
        let group = match &self.group {
            None => own_group,
            Some(Name::Id(id)) => *id,
            Some(Name::Name(name)) => {
                let found = Group::from_name(name).ok().flatten();
                found.ok_or_else(|| RunAsFailure::Unknown(name.clone()))?.gid.as_raw()
            }
        };
        let present = (geteuid(), getegid());
        let is_own = (user, group) == (present.0.as_raw(), present.1.as_raw());
        match (is_own, present.0.is_root()) {
            (true, _) => Ok(None),
            (false, true) => Ok(Some(Identity { user, group })),
            (false, false) => Err(RunAsFailure::NotRoot { user, group }),
        }
    }
}

/// Takes on `identity` with the whole process, for good, before it has a second thread.
pub(super) fn become_wholly(identity: Identity) -> Result<(), RunAsFailure> {
    let Identity { user, group } = identity;
    let id = Gid::from_raw(group);
    match setgroups(&[]) {
        // As in a user namespace that an ordinary user has made (user_namespaces(7)).
        Err(Errno::EPERM) => Ok(()),
        outcome => outcome,
    }
    .and_then(|()| setgid(id))
    .and_then(|()| setuid(Uid::from_raw(user)))
    // The kernel forbids the files of /proc to a process that has changed its user.
    .and_then(|()| prctl::set_dumpable(true))
    .map_err(|source| RunAsFailure::Refused { user, group, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_a_user_and_a_group() {
        let name = |name: &str| Name::Name(name.to_owned());
        let of = |user, group| RunAs { user, group }.to_take_on();
        let own = (geteuid(), getegid());
        let ids = (Name::Id(own.0.as_raw()), Some(Name::Id(own.1.as_raw())));
        assert!(matches!(of(ids.0, ids.1), Ok(None)), "the caller's own");
        let unknown = |outcome| matches!(outcome, Err(RunAsFailure::Unknown(_)));
        assert!(unknown(of(name("no such user"), None)));
        assert!(unknown(of(Name::Id(7), Some(name("no such group")))));
        let other = of(name("nobody"), Some(Name::Id(7)));
        let nobody = User::from_name("nobody").unwrap().unwrap().uid.as_raw();
        if own.0.is_root() {
            let wanted = Identity { user: nobody, group: 7 };
            assert_eq!(other.unwrap(), Some(wanted));
            let alone = of(Name::Id(4242), None).unwrap();
            assert_eq!(alone, Some(Identity { user: 4242, group: 4242 }));
        } else {
            let text = other.unwrap_err().to_string();
            assert!(text.ends_with("only root can become another user or group"), "{text}");
        }
    }
}
