//! What an operator should know about rules that are in order.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

use super::error::Excerpt;
use super::name::Name;
use super::rule::{Action, EgressRule, NamePattern, Prefix, RuleDestination, RuleProtocol, Source};

/// Zones in which anybody can have a name: pages, object stores, clouds, tunnels, and names made of
/// addresses. A short list of well-known zones (arbitrary): it reminds, it does not filter.
const HOSTING: &str = "\
    amazonaws.com appspot.com azureedge.net azurewebsites.net backblazeb2.com blogspot.com \
    cloudapp.azure.com cloudapp.net cloudfront.net core.windows.net digitaloceanspaces.com \
    duckdns.org firebaseapp.com fly.dev github.io gitlab.io glitch.me googleapis.com \
    googleusercontent.com herokuapp.com netlify.app ngrok-free.app ngrok.app ngrok.io nip.io \
    ondigitalocean.app onrender.com pages.dev r2.dev replit.app run.app s3.amazonaws.com \
    sslip.io storage.googleapis.com surge.sh trycloudflare.com vercel.app web.app windows.net \
    wordpress.com workers.dev";

/// One warning, with the rule that it is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleWarning {
    pub(super) source: Option<Source>,
    pub(super) kind: RuleWarningKind,
}

impl RuleWarning {
    /// The rule that it is about; `None` for the whole policy.
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// What to know.
    pub fn kind(&self) -> &RuleWarningKind {
        &self.kind
    }
}

impl fmt::Display for RuleWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source}: ")?;
        }
        self.kind.fmt(f)
    }
}

/// What to know. Its text is the message without the place.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RuleWarningKind {
    /// An IPv6 address looks like an address and a port.
    AddressLikePort {
        /// What could be the address.
        address: Excerpt,
        /// What could be the port.
        port: Excerpt,
    },
    /// Anybody can have a name that the rule matches.
    Hosting(Name),
    /// QUIC of a name, whose first bytes are not looked at.
    Quic(NamePattern),
    /// The rule denies everything, whatever else is allowed.
    DeniesAll,
    /// All is allowed that is not denied.
    DenyList,
}

impl fmt::Display for RuleWarningKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressLikePort { address, port } => write!(
                f,
                "{address}:{port} is one address without a port; write [{address}]:{port} for a \
                 port"
            ),
            Self::Hosting(name) => write!(f, "anybody can have a name below {name}"),
            Self::Quic(pattern) => write!(
                f,
                "the names in QUIC are not verified: this opens UDP to all hosts at the addresses \
                 of {pattern}"
            ),
            Self::DeniesAll => f.write_str("this denies everything, whatever else is allowed"),
            Self::DenyList => f.write_str(
                "a list of denials stops honest programs only; a boundary needs a list of what is \
                 allowed",
            ),
        }
    }
}

/// Whether anybody can have a name below `zone`: a top-level domain, a registry's second level such
/// as `co.uk` by its usual labels, or a zone of [`HOSTING`].
pub(super) fn is_everybodys(zone: &Name) -> bool {
    const REGISTRIES: [&str; 9] = ["ac", "co", "com", "edu", "gov", "ne", "net", "or", "org"];
    let is_registry = zone
        .as_str()
        .split_once('.')
        .is_some_and(|(second, top)| top.len() == 2 && REGISTRIES.contains(&second));
    zone.is_one_label() || is_registry || HOSTING.split(' ').any(|hosting| hosting == zone.as_str())
}

/// Adds what there is to know about a rule, whose target was written as `target`.
pub(super) fn of_rule(rule: &EgressRule, target: &str, warnings: &mut Vec<RuleWarning>) {
    let mut warn = |kind| warnings.push(RuleWarning { source: Some(rule.source.clone()), kind });
    match &rule.destination {
        RuleDestination::Any if rule.action == Action::Deny && rule.is_about_all() => {
            warn(RuleWarningKind::DeniesAll);
        }
        RuleDestination::Prefix(Prefix { address: IpAddr::V6(_), len: 128 }) => {
            if let Some((address, port)) = target.rsplit_once(':')
                && address.parse::<Ipv6Addr>().is_ok()
            {
                let (address, port) = (Excerpt::new(address), Excerpt::new(port));
                warn(RuleWarningKind::AddressLikePort { address, port });
            }
        }
        RuleDestination::Name(pattern) if rule.action != Action::Deny => {
            if let NamePattern::Below(name) | NamePattern::Tree(name) = pattern
                && HOSTING.split(' ').any(|zone| zone == name.as_str())
            {
                warn(RuleWarningKind::Hosting(name.clone()));
            }
            let has_quic_port = rule.ports.as_ref().is_none_or(|ports| {
                ports.is_empty()
                    || ports.iter().any(|range| range.first <= 443 && 443 <= range.last)
            });
            if rule.protocol == Some(RuleProtocol::Udp) && has_quic_port {
                warn(RuleWarningKind::Quic(pattern.clone()));
            }
        }
        RuleDestination::Any
        | RuleDestination::Set(_)
        | RuleDestination::Prefix(_)
        | RuleDestination::Name(_) => {}
    }
}
