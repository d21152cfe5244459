//! Other rules for ports while the network runs.
//!
//! Owns the rules in force, and which forward rules of the network they are. A client says which
//! rules it wants instead of those that it was shown; only the difference is carried out, on the
//! rules in force by then. So clients do not undo each other's work, and a port that stays is never
//! closed. A change is made as a whole or not at all.

use std::sync::{Mutex, PoisonError};

use slirp_core::instance::{ForwardError, ForwardId, Handle, SpliceRules};
use slirp_core::plan::{AddressPlan, AssumedGuest};

use super::wire::{Rules, Table};
use crate::dialect::pasta::failure::listen_failed;
use crate::dialect::pasta::network::{check_families, is_carried, published, splice_rules};
use crate::dialect::pasta::options::PastaOptions;
use crate::dialect::pasta::ports::rules::{MAX_RULES, PortError, PortRule, PortRules};

/// See the [module](self).
pub(crate) struct Ports {
    handle: Handle,
    options: PastaOptions,
    plan: AddressPlan,
    guest: AssumedGuest,
    state: Mutex<State>,
}

struct State {
    rules: PortRules,
    /// The rules of the host's ports that are not scanned.
    open: Vec<Open>,
}

/// A rule, and the forward rule that it is.
type Open = (PortRule, ForwardId);

impl Ports {
    /// The rules of `options`, which are in force.
    pub(crate) fn new(options: &PastaOptions, plan: AddressPlan, handle: Handle) -> Self {
        let guest = AssumedGuest::new(plan, None);
        let mut ids = handle.blocking().list_forwards().unwrap_or_default().into_iter();
        let mut open = Vec::new();
        // The forward rules of the start come first, in the order of the options.
        for rule in options.ports.inbound.iter().filter(|rule| is_listed(options, rule)) {
            open.extend(ids.next().map(|(id, _)| (rule.clone(), id)));
        }
        let state = State { rules: options.ports.clone(), open };
        Self { handle, options: options.clone(), plan, guest, state: Mutex::new(state) }
    }

    /// The rules in force.
    pub(crate) fn rules(&self) -> PortRules {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rules.clone()
    }

    /// Makes the change from the rules that were `shown` to these tables.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub(crate) fn change(
        &self,
        shown: &PortRules,
        tables: &[(Table, Rules)],
    ) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = merged(&state.rules, shown, tables).map_err(|error| error.to_string())?;
        check_families(&next.inbound, &self.plan).map_err(|error| error.to_string())?;
        if next == state.rules {
            return Ok(());
        }
        let before = self.spliced(&state.rules);
        let spliced = self.spliced(&next);
        if spliced != before {
            self.splice(spliced)?;
        }
        if let Err(error) = self.follow(&mut state, &next) {
            // What was in force can be so again.
            let _ = self.splice(before);
            return Err(error);
        }
        for table in Table::ALL {
            let (old, new) = (table.rules(&state.rules), table.rules(&next));
            old.iter().filter(|it| !new.contains(it)).for_each(|it| tracing::info!("closed: {it}"));
            new.iter().filter(|it| !old.contains(it)).for_each(|it| tracing::info!("opened: {it}"));
        }
        state.rules = next;
        Ok(())
    }

    fn spliced(&self, rules: &PortRules) -> SpliceRules {
        splice_rules(&self.options, &self.plan, self.guest, rules)
    }

    fn splice(&self, rules: SpliceRules) -> Result<(), String> {
        self.handle.blocking().set_splices(rules).map_err(|error| error.to_string())
    }

    /// Opens and closes ports of the host.
    fn follow(&self, state: &mut State, next: &PortRules) -> Result<(), String> {
        let is_old = |rule: &PortRule| state.open.iter().any(|(old, _)| old == rule);
        let wanted = next.inbound.iter().filter(|rule| is_listed(&self.options, rule));
        let fresh: Vec<PortRule> = wanted.clone().filter(|rule| !is_old(rule)).cloned().collect();
        let wanted: Vec<&PortRule> = wanted.collect();
        let (kept, gone): (Vec<_>, Vec<_>) =
            state.open.drain(..).partition(|(rule, _)| wanted.contains(&rule));
        state.open = kept;
        // A port that leads elsewhere from now on has to be closed first.
        let is_taken = gone.iter().any(|(old, _)| fresh.iter().any(|new| new.conflicts(old)));
        if is_taken {
            self.close(&gone);
        }
        match self.open(&fresh) {
            Ok(opened) => {
                if !is_taken {
                    self.close(&gone);
                }
                state.open.extend(opened);
                Ok(())
            }
            Err(error) => {
                let rules: Vec<PortRule> = gone.iter().map(|(rule, _)| rule.clone()).collect();
                let again = if is_taken { self.open(&rules) } else { Ok(gone) };
                match again {
                    Ok(again) => state.open.extend(again),
                    Err(error) => tracing::error!("Couldn't open a port again: {error}"),
                }
                Err(error)
            }
        }
    }

    fn open(&self, rules: &[PortRule]) -> Result<Vec<Open>, String> {
        if rules.is_empty() {
            return Ok(Vec::new());
        }
        let ports = rules.iter().map(|rule| published(&self.options, &self.plan, rule));
        let all = ports.map(|one| (one.forward(self.guest), one.opening)).collect();
        let opened = match self.handle.blocking().open_forwards(all) {
            Ok(opened) => opened,
            Err(ForwardError::Bind { forward, interface, source }) => {
                return Err(listen_failed(&forward, interface.as_deref(), &source));
            }
            Err(error) => return Err(error.to_string()),
        };
        Ok(rules.iter().cloned().zip(opened.into_iter().map(|(id, _)| id)).collect())
    }

    fn close(&self, rules: &[Open]) {
        for &(_, id) in rules {
            // Only an end of the network can have removed it.
            let _ = self.handle.blocking().remove_forward(id);
        }
    }
}

/// Whether the rule is a forward rule of the network for as long as it is in force.
fn is_listed(options: &PastaOptions, rule: &PortRule) -> bool {
    is_carried(options, rule) && !rule.is_scanned
}

/// The rules in force with the difference between the tables and what was shown.
fn merged(
    rules: &PortRules,
    shown: &PortRules,
    tables: &[(Table, Rules)],
) -> Result<PortRules, PortError> {
    let mut merged = rules.clone();
    for (table, wanted) in tables {
        let shown = table.rules(shown);
        let rules = table.rules_mut(&mut merged);
        rules.retain(|rule| !shown.contains(rule) || wanted.contains(rule));
        for rule in wanted.iter().filter(|rule| !shown.contains(rule)) {
            add(rules, rule)?;
        }
    }
    Ok(merged)
}

/// Adds a rule that is in no other one's way.
pub(crate) fn add(rules: &mut Vec<PortRule>, rule: &PortRule) -> Result<(), PortError> {
    if let Some(other) = rules.iter().find(|other| other.conflicts(rule)) {
        return Err(PortError::Conflict(Box::new(rule.clone()), Box::new(other.clone())));
    }
    if rules.len() == MAX_RULES {
        return Err(PortError::Full);
    }
    rules.push(rule.clone());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::pasta::ports::rules::{EPHEMERAL, PortOption};

    fn rules(ports: &[&str]) -> PortRules {
        let given = ports.iter().map(|text| (PortOption::TcpToGuest, *text));
        PortRules::given(given, &EPHEMERAL).unwrap()
    }

    fn change(force: &[&str], shown: &[&str], wanted: &[&str]) -> Result<Vec<String>, String> {
        let tables = [(Table::Host, rules(wanted).inbound)];
        let merged = merged(&rules(force), &rules(shown), &tables);
        let text = |rule: &PortRule| rule.ports.to_string();
        Ok(merged.map_err(|error| error.to_string())?.inbound.iter().map(text).collect())
    }

    #[test]
    fn difference_is_made_on_the_rules_in_force() {
        let of = |ports: &[&str]| Ok(ports.iter().map(|&port| port.to_owned()).collect());
        assert_eq!(change(&["1", "2"], &["1", "2"], &["2", "3"]), of(&["2", "3"]));
        // Another client has added 4 and removed 2 meanwhile.
        assert_eq!(change(&["1", "4"], &["1", "2"], &["2", "3"]), of(&["4", "3"]));
        assert_eq!(change(&["1"], &["1"], &[]), of(&[]));
        let conflict = change(&["1", "3-5"], &["1"], &["1", "4"]).unwrap_err();
        assert_eq!(
            conflict,
            "Forwarding configuration conflict: TCP [*]:4  =>  4 versus TCP [*]:3-5  =>  3-5"
        );
    }

    #[test]
    fn table_that_is_left_out_stays() {
        let (force, tables) = (rules(&["1"]), [(Table::Splice, Vec::new())]);
        assert_eq!(merged(&force, &force, &tables), Ok(force));
    }
}
