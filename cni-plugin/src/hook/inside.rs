//! The hook in the container's own namespaces: `createContainer`, the second of two stages.
//!
//! Most often the network exists already and there is nothing to do. If the first stage could not
//! access the container's namespaces, a keeper waits for this hook ([`keeper`](crate::keeper),
//! *waiting*), and the hook hands it the namespace.
//!
//! The state that runtimes pass here names a process in the container's PID namespace: 1 with runc,
//! 0 with crun. Neither number is usable.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::Path;

use slirp_core::netns::NamespaceId;

use super::options::Options;
use super::state::State;
use super::{Failure, NETWORK, log};
use crate::attachment::contact::{Contact, Entered};
use crate::attachment::key::Key;
use crate::attachment::record::Record;
use crate::attachment::store::Candidates;

/// Our own network namespace.
const OWN: &str = "/proc/self/ns/net";

/// Whether this process is in the container, or a keeper waits for it there.
pub(super) fn is_inside(state: &State, candidates: &Candidates) -> bool {
    let own = NamespaceId::of_path(Path::new(OWN)).ok();
    let is_of_ours = |record: &Record| record.request.netns_id.is_none_or(|id| Some(id) == own);
    state.status != "stopped"
        && (is_in_inner_pid_namespace()
            || records(&state.id, candidates).any(|record| is_of_ours(&record)))
}

/// Attachments that hooks have made for this container.
fn records(id: &str, candidates: &Candidates) -> impl Iterator<Item = Record> {
    candidates.existing().flat_map(|store| store.records()).filter(move |record| {
        record.request.network == NETWORK && record.request.key.container_id == id
    })
}

/// Whether `/proc`, which is still the runtime's, shows a PID namespace further out than ours.
fn is_in_inner_pid_namespace() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_whitespace().count() > 1)
}

/// Hands the container's namespace to the waiting keeper.
///
/// # Errors
/// When there is neither a network nor a waiting keeper, and when the network does not come up.
pub(super) fn enter(
    state: &State,
    options: &Options,
    candidates: &Candidates,
) -> Result<(), Failure> {
    let key = Key { container_id: state.id.clone(), ifname: options.ifname().to_owned() };
    for store in candidates.existing() {
        let files = store.files(&key);
        let is_awaited =
            |record: Record| record.request.key == key && record.request.netns_id.is_none();
        if !files.record().is_some_and(is_awaited) {
            continue;
        }
        let gone = |error| Failure(format!("the process of the network does not answer: {error}"));
        let own = File::open(OWN).map_err(|error| Failure(format!("{OWN}: {error}")))?;
        let contact = Contact::open(&files.socket()).map_err(gone)?;
        return match contact.enter(own.as_fd()).map_err(gone)?? {
            Entered::Started { .. } => {
                if let Some(record) = files.record() {
                    log::note(&record.request);
                }
                Ok(())
            }
            Entered::Waiting { .. } if is_in_inner_pid_namespace() => {
                let message = "this is not the container that the process of the network waits for";
                Err(Failure(message.to_owned()))
            }
            Entered::Waiting { .. } => Ok(()),
        };
    }
    // The network's keeper may not be visible: the container may have other users than its runtime.
    if has_interface(options.ifname()) {
        return Ok(());
    }
    Err(Failure(format!(
        "the container has no interface {} yet, and nobody waits to make one (this stage is the \
         second of two; use this hook as \"createRuntime\" as well)",
        options.ifname()
    )))
}

/// Whether our network namespace has an interface of this name.
fn has_interface(name: &str) -> bool {
    let table = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    table.lines().filter_map(|line| line.split_once(':')).any(|(found, _)| found.trim() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_those_of_our_own_namespace() {
        assert!(has_interface("lo"));
        assert!(!has_interface("l") && !has_interface(""));
    }
}
