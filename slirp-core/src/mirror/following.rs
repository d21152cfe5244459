//! A guest that follows its host: what it has, and what it gets when the host's network changes.
//!
//! Owns [`Following`], the state between two readings. Who reads when is in
//! [`thread`](super::thread); what a template means for the guest is the
//! caller's.

use core::fmt;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::guest;
use super::monitor::Monitor;
use super::resolvers::HostResolvers;
use super::template::Template;
use crate::config::Personality;
use crate::netns::Setup;
use crate::netns::difference::difference;
use crate::plan::AddressPlan;
use crate::sys::changes::OnRefusal;

/// What a guest gets of a template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Followed {
    /// Which addresses it sees, and what they mean.
    pub plan: AddressPlan,
    /// How DHCP, DHCPv6 and router advertisements give it its configuration.
    pub personality: Personality,
    /// The search domains that it is told.
    pub search_domains: Vec<String>,
    /// How its interface is configured; the default leaves it alone.
    pub setup: Setup,
}

/// Derives what a guest gets; `None` if that cannot be used.
type Derive = dyn Fn(&Template, &HostResolvers) -> Option<Followed> + Send + Sync;

/// A guest that gets other addresses, routes and resolvers whenever its host does.
///
/// Only addresses and routes that were set from here are changed; those of the guest stay. Neither
/// the name of the interface nor its MTU follow.
#[derive(Clone)]
pub struct Following {
    template: Template,
    resolvers: HostResolvers,
    names: [Option<String>; 2],
    present: Followed,
    /// The setup before the present one.
    former: Setup,
    /// Messages of addresses and routes that the guest, or its kernel, had before its host. They
    /// are left alone until the host has lost them.
    foreign: BTreeSet<Vec<u8>>,
    derive: Arc<Derive>,
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following").field("template", &self.template).finish_non_exhaustive()
    }
}

impl PartialEq for Following {
    fn eq(&self, other: &Self) -> bool {
        let facts = |it: &Self| (it.template.clone(), it.names.clone(), it.present.clone());
        facts(self) == facts(other)
    }
}

impl Eq for Following {}

/// What changes for a guest.
#[derive(Debug)]
pub(crate) struct Changes {
    /// The plan, how it is told, and search domains, if they are others than before.
    pub(crate) plan: Option<(AddressPlan, Personality, Vec<String>)>,
    /// The changes of the interface.
    pub(crate) setup: Setup,
}

/// What came of a reading.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) changes: Changes,
    /// Whether the host has lost an IP version that the guest still has.
    pub(crate) is_lost: bool,
}

impl Following {
    /// A guest that has `present`, which `derive` has made of `template` and `resolvers`. For IPv4
    /// and IPv6 the interface of that name counts, as for [`Template::read`].
    pub fn new(
        template: Template,
        resolvers: HostResolvers,
        ipv4: Option<&str>,
        ipv6: Option<&str>,
        present: Followed,
        derive: impl Fn(&Template, &HostResolvers) -> Option<Followed> + Send + Sync + 'static,
    ) -> Self {
        let names = [ipv4.map(ToOwned::to_owned), ipv6.map(ToOwned::to_owned)];
        let (former, foreign) = (Setup::default(), BTreeSet::new());
        Self { template, resolvers, names, present, former, foreign, derive: Arc::new(derive) }
    }

    /// Leaves alone what `existing` messages have asked for, unless the setup before had it.
    pub(crate) fn disown(&mut self, mut existing: BTreeSet<Vec<u8>>) {
        let former = self.former.message_set();
        existing.retain(|message| !former.contains(&**message));
        self.present.setup.forget(&existing);
        self.foreign.extend(existing);
    }

    /// From now on the host's resolv.conf(5) has this content. One without resolvers does not
    /// count: whoever writes the file may not be done.
    pub(crate) fn note_resolv_conf(&mut self, content: &[u8]) {
        let found = HostResolvers::parse(content);
        if !(found.ipv4.is_empty() && found.ipv6.is_empty()) {
            self.resolvers = found;
        }
    }

    /// Reads the host's network again. What the host has lost stays the guest's if it `stays`.
    ///
    /// # Errors
    /// See [`Monitor::read`].
    pub(crate) fn read(&mut self, monitor: &mut Monitor, stays: bool) -> io::Result<Reading> {
        monitor.read().map(|dump| self.follow(&dump, stays))
    }

    /// Follows to what [`dump`](super::dump) has read.
    pub(super) fn follow(&mut self, dump: &[u8], stays: bool) -> Reading {
        let [ipv4, ipv6] = &self.names;
        let (ipv4, ipv6) = (ipv4.as_deref(), ipv6.as_deref());
        let is_lost =
            stays && self.template.is_more_than(&self.template.renewed(dump, ipv4, ipv6, false));
        self.template = self.template.renewed(dump, ipv4, ipv6, stays);
        let mut wanted =
            (self.derive)(&self.template, &self.resolvers).unwrap_or_else(|| self.present.clone());
        keep_local(&self.present.setup, &mut wanted.setup);
        let sent = wanted.setup.message_set();
        self.foreign.retain(|message| sent.contains(&**message));
        wanted.setup.forget(&self.foreign);
        let setup = difference(&self.present.setup, &wanted.setup);
        let told = |it: &Followed| (it.plan, it.personality.clone(), it.search_domains.clone());
        let plan = (told(&wanted) != told(&self.present)).then(|| told(&wanted));
        self.former = core::mem::replace(&mut self.present, wanted).setup;
        Reading { changes: Changes { plan, setup }, is_lost }
    }
}

/// Has a guest that leaves the local mode keep its address there, as far as open connections need
/// it.
fn keep_local(present: &Setup, wanted: &mut Setup) {
    let Some((local, remainder)) = guest::local_remainder() else { return };
    let was_local = present.contains(&local) || present.contains(&remainder);
    if was_local && !wanted.contains(&local) {
        wanted.push(remainder, OnRefusal::Ignore);
    }
}

/// Where a following guest's interface is.
#[derive(Debug)]
pub(crate) struct Place {
    /// The guest's network namespace.
    pub(crate) network: OwnedFd,
    /// The name of the interface.
    pub(crate) interface: String,
}
