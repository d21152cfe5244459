//! The host's network at one moment.
//!
//! Owns [`Template`], and why there may be none.

use std::io;

use super::dump;
use super::family::TemplateFamily;
use super::tables::Tables;
use crate::sys::errno::text_of;

/// The host's network at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Template {
    ipv4: Option<TemplateFamily>,
    ipv6: Option<TemplateFamily>,
}

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// The host's interfaces, addresses and routes could not be read.
    #[error("cannot read the host's interfaces, addresses and routes: {}", text_of(.0))]
    Read(#[source] io::Error),
    /// There is no interface of that name.
    #[error("the host has no interface {0}")]
    NoInterface(String),
}

impl Template {
    /// Reads the network namespace of the calling thread. For each IP version the interface of that
    /// name counts; without a name, the one that the host's routes lead to.
    ///
    /// # Errors
    /// See [`MirrorError`].
    pub fn read(ipv4: Option<&str>, ipv6: Option<&str>) -> Result<Self, MirrorError> {
        let dump = dump::read().map_err(MirrorError::Read)?;
        Self::of_dump(&dump, ipv4, ipv6)
    }

    /// The template in what [`dump`] has read.
    pub(super) fn of_dump(
        dump: &[u8],
        ipv4: Option<&str>,
        ipv6: Option<&str>,
    ) -> Result<Self, MirrorError> {
        let tables = Tables::parse(dump);
        let index = |name: Option<&str>| match name {
            None => Ok(None),
            Some(name) => match tables.links.iter().find(|link| link.name == name) {
                Some(link) => Ok(Some(link.index)),
                None => Err(MirrorError::NoInterface(name.to_owned())),
            },
        };
        let (index4, index6) = (index(ipv4)?, index(ipv6)?);
        Ok(Self {
            ipv4: TemplateFamily::choose(&tables.of_family(libc::AF_INET), index4),
            ipv6: TemplateFamily::choose(&tables.of_family(libc::AF_INET6), index6),
        })
    }

    /// What this template has become, according to what [`dump`] has read since. For each IP
    /// version the interface of that name counts, or, if there is none any more, the one that has
    /// had the name. An IP version that is lost stays as it was if it `stays`.
    pub(super) fn renewed(
        &self,
        dump: &[u8],
        ipv4: Option<&str>,
        ipv6: Option<&str>,
        stays: bool,
    ) -> Self {
        let tables = Tables::parse(dump);
        let choose = |family, name: Option<&str>, before: Option<&TemplateFamily>| {
            let wanted = name.map(|name| {
                let named = tables.links.iter().find(|link| link.name == name);
                named.map(|link| link.index).or(before.map(|before| before.index)).unwrap_or(0)
            });
            let tables = tables.of_family(family);
            match (TemplateFamily::choose(&tables, wanted), before) {
                (Some(found), Some(before)) => Some(found.keeping(before, &tables)),
                (None, Some(before)) if stays => Some(before.clone()),
                (found, _) => found,
            }
        };
        Self {
            ipv4: choose(libc::AF_INET, ipv4, self.ipv4()),
            ipv6: choose(libc::AF_INET6, ipv6, self.ipv6()),
        }
    }

    /// Whether `other` lacks an IP version that this has.
    pub(super) const fn is_more_than(&self, other: &Self) -> bool {
        (self.ipv4.is_some() && other.ipv4.is_none())
            || (self.ipv6.is_some() && other.ipv6.is_none())
    }

    /// The host's IPv4 network; `None` when no interface has a usable address.
    pub const fn ipv4(&self) -> Option<&TemplateFamily> {
        self.ipv4.as_ref()
    }

    /// The host's IPv6 network; `None` when no interface has a usable address.
    pub const fn ipv6(&self) -> Option<&TemplateFamily> {
        self.ipv6.as_ref()
    }
}
