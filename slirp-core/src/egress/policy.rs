//! All rules in force.
//!
//! Owns [`EgressPolicy`]: rules and settings of all doors, compiled once. How a door's text becomes
//! rules is in `parse`, how doors add up is in `draft`.

#[cfg(test)]
mod tests;

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::compile::Compiled;
use super::draft::{Draft, Given};
use super::error::{Place, RuleError, RuleErrorKind, RuleErrors};
use super::rule::{
    Action, AddressSet, Direction, EgressRule, Prefix, RuleDestination, Setting, Settings, Source,
};
use super::warning::{RuleWarning, RuleWarningKind};
use super::{parse, text};
use crate::switches::Policy;

/// A policy; cloning it is cheap. Without rules it denies everything.
///
/// ```
/// use slirp_core::egress::{Action, EgressPolicy};
///
/// let file = EgressPolicy::parse("allow .index.example # packages\n", "agents.policy")?;
/// let option = EgressPolicy::from_option(Action::Allow, "10.9.8.7:5432", 1)?;
/// let policy = file.merge(&option)?;
/// assert_eq!(policy.default_action(), Action::Deny);
/// assert_eq!(policy.to_text(), "allow .index.example\nallow 10.9.8.7:5432\n");
///
/// let errors = EgressPolicy::parse("allow 10.0.0.1/8", "agents.policy").unwrap_err();
/// assert_eq!(
///     errors.to_string(),
///     "agents.policy:1:7: 10.0.0.1/8 has bits behind its prefix; did you mean 10.0.0.0/8?",
/// );
/// # Ok::<(), slirp_core::egress::RuleErrors>(())
/// ```
#[derive(Clone, Debug)]
pub struct EgressPolicy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: Vec<EgressRule>,
    given: Vec<Given>,
    settings: Settings,
    default: Action,
    warnings: Vec<RuleWarning>,
    compiled: Compiled,
    /// Whether a rule about what the guest opens asks, or the default does.
    asks: bool,
}

impl EgressPolicy {
    /// Reads a policy file: one rule or setting a line. `name` is the file's name as the operator
    /// gave it, for messages.
    ///
    /// # Errors
    /// Everything that is wrong with it, up to 20 errors.
    pub fn parse(text: &str, name: &str) -> Result<Self, RuleErrors> {
        let mut draft = Draft::default();
        draft.add_file(text, name, &parse::line);
        Self::new(draft)
    }

    /// Reads the value of the `number`th of the options `--allow`, `--ask` and `--deny`: a rule
    /// without the action.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_option(action: Action, rule: &str, number: u32) -> Result<Self, RuleErrors> {
        let mut draft = Draft::default();
        let source = Source::Entry { door: "cli", number };
        draft.add_entry(rule, &format!("--{action}"), source, &|text, source, warnings| {
            parse::option(action, text, source, warnings)
        });
        Self::new(draft)
    }

    /// Reads one rule or setting, the `number`th that the door gives. `label` is what messages call
    /// it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_entry(
        door: &'static str,
        number: u32,
        label: &str,
        entry: &str,
    ) -> Result<Self, RuleErrors> {
        let mut draft = Draft::default();
        draft.add_entry(entry, label, Source::Entry { door, number }, &parse::line);
        Self::new(draft)
    }

    /// Reads a list, each entry of which is empty, a rule or a setting. The first rule says of
    /// itself that it comes from `cni:1` if `door` is `cni`. Messages call the first entry
    /// `policy[0]` if `label` is `policy`.
    ///
    /// # Errors
    /// Everything that is wrong with it, up to 20 errors.
    pub fn from_list<'a>(
        door: &'static str,
        label: &str,
        entries: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, RuleErrors> {
        let mut draft = Draft::default();
        for (index, (entry, number)) in entries.into_iter().zip(1..).enumerate() {
            let source = Source::Entry { door, number };
            draft.add_entry(entry, &format!("{label}[{index}]"), source, &parse::line);
        }
        Self::new(draft)
    }

    /// Cuts a text into entries of a list: at line ends, and at each `;` that is neither in a note
    /// nor in a comment.
    pub fn entries(text: &str) -> impl Iterator<Item = &str> {
        parse::entries(text)
    }

    /// The sum of this policy and the other: rules and settings of both.
    ///
    /// # Errors
    /// What both set differently, at the place in `other`; too many rules.
    pub fn merge(&self, other: &Self) -> Result<Self, RuleErrors> {
        Self::merge_all([self, other])
    }

    /// The sum of all these policies. The sum of none denies everything.
    ///
    /// # Errors
    /// As for [`merge`](Self::merge).
    pub fn merge_all<'a>(policies: impl IntoIterator<Item = &'a Self>) -> Result<Self, RuleErrors> {
        let mut draft = Draft::default();
        for Self(policy) in policies {
            draft.add(&policy.rules, &policy.given, &policy.warnings);
        }
        Self::new(draft)
    }

    /// This policy without the rules that `keep` does not keep. What it sets stays.
    #[must_use]
    pub fn retain(&self, keep: impl Fn(&EgressRule) -> bool) -> Self {
        let Inner { rules, given, warnings, .. } = &*self.0;
        let rules: Vec<_> = rules.iter().filter(|rule| keep(rule)).cloned().collect();
        let is_kept = |warning: &&RuleWarning| {
            let source = warning.source.as_ref();
            source.is_none_or(|source| rules.iter().any(|rule| rule.source == *source))
        };
        let warnings = warnings.iter().filter(is_kept).cloned().collect();
        Self::of(rules, given.clone(), warnings)
    }

    fn new(draft: Draft) -> Result<Self, RuleErrors> {
        let Draft { rules, given, warnings, .. } = draft.checked()?;
        Ok(Self::of(rules, given, warnings))
    }

    fn of(rules: Vec<EgressRule>, given: Vec<Given>, warnings: Vec<RuleWarning>) -> Self {
        let mut settings = Settings::default();
        let mut default = Action::Deny;
        for Given { setting, .. } in &given {
            match *setting {
                Setting::Default(action) => default = action,
                Setting::Mode(mode) => settings.mode = Some(mode),
                Setting::Ech(may_pass) => settings.ech = Some(may_pass),
                Setting::DnsRedirect(is_on) => settings.dns_redirect = Some(is_on),
                Setting::AskTimeout(timeout) => settings.ask_timeout = Some(timeout),
                Setting::Placeholder(network) => settings.placeholder = Some(network),
            }
        }
        let compiled = Compiled::new(&rules, default);
        let asks = default == Action::Ask
            || rules
                .iter()
                .any(|rule| rule.action == Action::Ask && rule.direction == Direction::Out);
        Self(Arc::new(Inner { rules, given, settings, default, warnings, compiled, asks }))
    }

    /// Checks the whole policy: what is wrong only when the rules of all doors are together, or
    /// beside the switches in `beside`.
    ///
    /// # Errors
    /// Rules that all deny, although nobody gave a default; what `beside` makes impossible.
    pub fn check(&self, beside: &Policy) -> Result<(), RuleErrors> {
        let mut errors = Vec::new();
        for rule in &self.0.rules {
            let mut fail =
                |kind| errors.push(RuleError { place: Place::Rule(rule.source.clone()), kind });
            if !beside.allow_host_loopback && is_for_host_loopback(rule) {
                fail(RuleErrorKind::HostLoopbackDisabled);
            }
            if !beside.dns_service && rule.is_about_names() {
                fail(RuleErrorKind::NeedsDns);
            }
        }
        let has_default =
            self.0.given.iter().any(|given| matches!(given.setting, Setting::Default(_)));
        let denies = self.0.rules.iter().filter(|rule| rule.action == Action::Deny).count();
        if denies > 0 && denies == self.0.rules.len() && !has_default {
            errors.push(RuleError { place: Place::Policy, kind: RuleErrorKind::OnlyDenies });
        }
        RuleErrors::new(errors).map_or(Ok(()), Err)
    }

    /// What the operator should know about rules that are in order: some 20 warnings at most.
    pub fn warnings(&self) -> impl Iterator<Item = RuleWarning> {
        let deny_list = RuleWarning { source: None, kind: RuleWarningKind::DenyList };
        let deny_list = (self.0.default == Action::Allow).then_some(deny_list);
        self.0.warnings.iter().cloned().chain(deny_list)
    }

    /// The doors that it comes from: names of files, and `cli`, `cni`, `oci`, `api` or `library`.
    pub fn doors(&self) -> impl Iterator<Item = &str> {
        let given = self.0.given.iter().map(|given| &given.source);
        let sources = self.0.rules.iter().map(|rule| &rule.source).chain(given);
        let doors: BTreeSet<_> = sources.map(Source::door).collect();
        doors.into_iter()
    }

    /// Rules of all doors, in the order in which they were given, which means nothing.
    pub fn rules(&self) -> &[EgressRule] {
        &self.0.rules
    }

    /// How many rules there are of each action, in the order of [`Action::ALL`].
    pub fn rule_counts(&self) -> [usize; Action::ALL.len()] {
        self.0.compiled.counts
    }

    /// What it sets besides its rules.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// What becomes of that which no rule matches.
    pub fn default_action(&self) -> Action {
        self.0.default
    }

    /// Whether a rule lets the guest reach some of the host's loopback. A rule for one of the
    /// guest's `gateways` is such a rule.
    pub fn opens_host_loopback(&self, gateways: &[IpAddr]) -> bool {
        self.0.rules.iter().any(|rule| opens_host_loopback(rule, gateways))
    }

    /// Whether it may want somebody to be asked about what a guest opens.
    pub(super) fn asks(&self) -> bool {
        self.0.asks
    }

    /// Its canonical text. Read again it is an equal policy, and equal policies have the same text.
    pub fn to_text(&self) -> String {
        text::policy(self.0.given.iter().map(|given| given.setting), &self.0.rules)
    }

    /// Whether rules tell hosts apart by their names, so that first bytes have to show a name.
    pub(crate) fn names_hosts(&self) -> bool {
        self.0.compiled.names.name_hosts()
    }

    pub(super) fn compiled(&self) -> &Compiled {
        &self.0.compiled
    }
}

impl PartialEq for EgressPolicy {
    /// Whether both say the same, in any order and from any source.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.to_text() == other.to_text()
    }
}

impl Eq for EgressPolicy {}

/// Whether the rule opens some of the host's loopback.
fn opens_host_loopback(rule: &EgressRule, gateways: &[IpAddr]) -> bool {
    let is_open = rule.direction == Direction::Out && rule.action != Action::Deny;
    let is_among_others = match rule.destination {
        RuleDestination::Set(set) => set == AddressSet::Host,
        RuleDestination::Prefix(Prefix { address, len }) => {
            len == if address.is_ipv4() { 32 } else { 128 } && gateways.contains(&address)
        }
        RuleDestination::Any | RuleDestination::Name(_) => false,
    };
    (is_open && is_among_others) || is_for_host_loopback(rule)
}

/// Whether the rule is for nothing but addresses that lead to the host's loopback.
fn is_for_host_loopback(rule: &EgressRule) -> bool {
    let is_loopback = match rule.destination {
        RuleDestination::Set(set) => set == AddressSet::HostLoopback,
        RuleDestination::Prefix(Prefix { address: IpAddr::V4(v4), len }) => {
            matches!(v4.octets()[0], 0 | 127) && len >= 8
        }
        RuleDestination::Prefix(Prefix { address, len }) => {
            len == 128 && (address.is_loopback() || address.is_unspecified())
        }
        RuleDestination::Any | RuleDestination::Name(_) => false,
    };
    is_loopback && rule.direction == Direction::Out && rule.action != Action::Deny
}
