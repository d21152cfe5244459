//! The process that becomes COMMAND.
//!
//! Owns its way into the namespaces, what it sets up there, and the state in which COMMAND starts:
//! ids, descriptors, environment, working folder, signals as the caller had them. (SIGPIPE has its
//! default action, and no real-time signal is blocked: what they were is not known any more.)

use core::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{
    Gid, Uid, execvp, getgroups, getresuid, read, setgroups, setresgid, setresuid, write,
};

use slirp_core::internals::process::{inherited_fd, set_ignored};
use slirp_core::netns::{AttachError, NamespaceId, NamespaceTarget};

use super::failure::{EntryFailure, EntryStep as Step};
use super::{Names, Place, machine, names};

/// What the two sides say to each other, one byte each.
pub(super) const ENTERED: &[u8] = b"e";
pub(super) const MAPPED: &[u8] = b"m";
pub(super) const GO: &[u8] = b"g";

/// What the supervisor hands over: the first arguments.
#[derive(Debug)]
pub(crate) struct Handover {
    connection: OwnedFd,
    supervisor: i32,
    blocked: SigSet,
    ignores_children: bool,
}

impl Handover {
    /// Takes it off the front of `arguments`; `None` if it is not there.
    pub(crate) fn take(arguments: &mut impl Iterator<Item = OsString>) -> Option<Self> {
        let mut next = || arguments.next()?.into_string().ok();
        let connection = inherited_fd(next()?.parse().ok()?).ok()?;
        let supervisor = next()?.parse().ok()?;
        let numbers = next()?;
        let numbers = || numbers.split(',').filter_map(|number| number.parse::<i32>().ok());
        let blocked = numbers().filter_map(|number| Signal::try_from(number).ok()).collect();
        let ignores_children = numbers().any(|number| number == -libc::SIGCHLD);
        Some(Self { connection, supervisor, blocked, ignores_children })
    }

    pub(super) fn say(&self, word: &[u8]) {
        // If the supervisor has gone, the next answer does not come.
        let _ = write(&self.connection, word);
    }

    fn await_word(&self, word: &[u8]) -> Result<(), EntryFailure> {
        let mut heard = [0];
        match read(&self.connection, &mut heard) {
            Ok(1) if heard == word => Ok(()),
            Ok(_) | Err(_) => Err(EntryFailure::GivenUp),
        }
    }

    /// Dies with the supervisor from here on. Changes of ids undo it.
    pub(super) fn die_with_supervisor(&self) -> Result<(), EntryFailure> {
        // Without it COMMAND would survive a supervisor that is killed.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        let is_there = machine::parent() == Some(self.supervisor);
        if is_there { Ok(()) } else { Err(EntryFailure::GivenUp) }
    }
}

/// What is executed.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its path, or its name in `$PATH`.
    pub(crate) file: OsString,
    /// Its arguments. The first is the name by which it is called.
    pub(crate) arguments: Vec<OsString>,
}

impl Program {
    /// The program that the first of `words` names, with all of them as its arguments.
    pub(crate) fn of(words: Vec<OsString>) -> Self {
        Self { file: words.first().cloned().unwrap_or_default(), arguments: words }
    }
}

/// Enters `place` and becomes `program`.
///
/// # Errors
/// See [`EntryFailure`].
pub(crate) fn enter(
    handover: &Handover,
    place: &Place,
    names: Option<&Names>,
    program: &Program,
    warn: &dyn Fn(&str),
) -> Result<Infallible, EntryFailure> {
    handover.die_with_supervisor()?;
    let entered = enter_namespaces(place)?;
    match entered.machine {
        Some(_) => machine::split(handover)?,
        None => handover.say(ENTERED),
    }
    handover.await_word(MAPPED)?;
    handover.die_with_supervisor()?;
    if entered.new_network {
        open_to_all();
    }
    if let Some(host_name) = entered.machine {
        machine::settle(host_name, entered.other_user, warn);
    }
    if let Some(names) = names {
        unshare(CloneFlags::CLONE_NEWNS).map_err(at(Step::MakeMounts))?;
        let replaced = names::replace(names, entered.other_user);
        if !replaced.map_err(|(step, errno)| EntryFailure::Step(step, errno))? {
            warn("there is no /etc/resolv.conf to replace: names may not be looked up");
        }
    }
    handover.await_word(GO)?;
    execute(handover, program)
}

/// Where this process is now.
struct Entered<'a> {
    /// Whether the network namespace is new.
    new_network: bool,
    /// Whether the user namespace is another than before.
    other_user: bool,
    /// The host name of a machine of its own.
    machine: Option<&'a OsStr>,
}

fn enter_namespaces(place: &Place) -> Result<Entered<'_>, EntryFailure> {
    let (target, named) = match place {
        Place::New { ids, machine } => {
            // One after the other, so that it is known which is refused.
            if ids.is_some() {
                unshare(CloneFlags::CLONE_NEWUSER).map_err(at(Step::MakeUser))?;
            }
            unshare(CloneFlags::CLONE_NEWNET).map_err(at(Step::MakeNetwork))?;
            if machine.is_some() {
                machine::make()?;
            }
            let machine = machine.as_deref();
            return Ok(Entered { new_network: true, other_user: ids.is_some(), machine });
        }
        Place::OfProcess(pid) => {
            (NamespaceTarget::of_pid(*pid)?, PathBuf::from(format!("/proc/{pid}/ns/net")))
        }
        Place::OfPath(path) => (NamespaceTarget::of_path(path)?, path.clone()),
    };
    let own = Path::new("/proc/self/ns/net");
    let is_own = NamespaceId::of_path(own).and_then(|own| Ok(target.network_id()? == own));
    if is_own.unwrap_or(false) {
        return Err(AttachError::OwnNamespace(named).into());
    }
    let other_user = match target.user() {
        Some(user) => enter_user_namespace(user)?,
        None => false,
    };
    setns(target.network(), CloneFlags::CLONE_NEWNET).map_err(at(Step::Enter))?;
    Ok(Entered { new_network: false, other_user, machine: None })
}

/// Enters `user`, unless we are in it already: then this returns false.
///
/// The root of that user namespace may trace whatever runs there. An account without an id there,
/// as root in the namespace of a user, therefore becomes that root first, as with nsenter(1).
fn enter_user_namespace(user: BorrowedFd<'_>) -> Result<bool, EntryFailure> {
    let id = |path: String| NamespaceId::of_path(Path::new(&path)).ok();
    let own = id("/proc/self/ns/user".to_owned());
    if own.is_some() && own == id(format!("/proc/self/fd/{}", user.as_raw_fd())) {
        return Ok(false);
    }
    // Inside it may be denied to all (`setgroups` in proc_pid_setgroups(5)). Without CAP_SETGID
    // the groups stay.
    let _ = setgroups(&[]);
    setns(user, CloneFlags::CLONE_NEWUSER).map_err(at(Step::Enter))?;
    let ids = getresuid().map_err(at(Step::TakeIds))?;
    if [ids.real, ids.effective, ids.saved].contains(&nameless()) {
        let given_up = setgroups(&[]);
        if !getgroups().map_err(at(Step::TakeIds))?.is_empty() {
            given_up.map_err(at(Step::TakeIds))?;
        }
        let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
        setresgid(group, group, group).map_err(at(Step::TakeIds))?;
        setresuid(user, user, user).map_err(at(Step::TakeIds))?;
    }
    Ok(true)
}

/// The id that users have where they have none (`overflowuid` in proc_sys_kernel(5)).
fn nameless() -> Uid {
    let text = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    Uid::from_raw(text.trim().parse().unwrap_or(65_534))
}

/// Lets everybody inside ping, and listen at ports below 1024: COMMAND has no rights for that, and
/// the network is its own. Containers may keep `/proc/sys` read-only; then these stay as they are.
fn open_to_all() {
    const SETTINGS: &str = "/proc/sys/net/ipv4";
    let group = Gid::effective();
    let range = format!("{SETTINGS}/ping_group_range");
    // Only groups that exist here can be named.
    let _ = fs::write(&range, "0 2147483647")
        .or_else(|_| fs::write(&range, format!("{group} {group}")));
    let _ = fs::write(format!("{SETTINGS}/ip_unprivileged_port_start"), "0");
}

/// Becomes `program`.
fn execute(handover: &Handover, program: &Program) -> Result<Infallible, EntryFailure> {
    let failed = |errno| EntryFailure::Execute(PathBuf::from(&program.file), errno);
    let text = |word: &OsString| CString::new(word.as_bytes()).map_err(|_| failed(Errno::EINVAL));
    let file = text(&program.file)?;
    let arguments: Vec<_> = program.arguments.iter().map(text).collect::<Result<_, _>>()?;
    set_ignored(libc::SIGPIPE, false);
    if handover.ignores_children {
        set_ignored(libc::SIGCHLD, true);
    }
    let _ = handover.blocked.thread_set_mask();
    execvp(&file, &arguments).map_err(failed)
}

/// What is run if no command is given: the user's shell.
pub(crate) fn shell(variable: Option<OsString>) -> OsString {
    variable
        .filter(|shell| !shell.is_empty())
        .unwrap_or_else(|| OsString::from_vec(b"/bin/sh".to_vec()))
}

fn at(step: Step) -> impl FnOnce(Errno) -> EntryFailure {
    move |errno| EntryFailure::Step(step, errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_shell_of_the_user_there_is_sh() {
        assert_eq!(shell(Some("/bin/fish".into())), "/bin/fish");
        assert_eq!(shell(Some("".into())), "/bin/sh");
        assert_eq!(shell(None), "/bin/sh");
    }
}
