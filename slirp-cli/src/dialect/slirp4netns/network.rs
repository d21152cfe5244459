//! Options about the network that `slirp run` has as well, by the same names.
//!
//! Owns what such an option does to [`Options`]. Its values are read by [`values`] and [`address`].

use std::ffi::OsStr;
use std::path::PathBuf;

use slirp_core::egress::{Action, EgressPolicy};

use super::{ValueError, address, values};
use crate::options::Options;
use crate::publish::Publish;

/// Takes option `--{long}`. Returns false if it is none of these.
pub(crate) fn take(options: &mut Options, long: &str, value: &OsStr) -> Result<bool, ValueError> {
    match long {
        "publish" => {
            // What is no UTF-8 is no address either; let the parser reject it.
            let publish = Publish::parse(&value.to_string_lossy())
                .map_err(|error| ValueError::Publish(value.display().to_string(), error))?;
            options.publish.push(publish);
        }
        "dns" => options.dns.push(address::resolver(value)?),
        "search-domain" => options.search_domains.push(values::search_domain(value)?),
        "log-level" => options.log_level = Some(values::log_level(value)?),
        "pcap" if value == "-" => return Err(ValueError::PcapStdout),
        "pcap" => options.pcap = Some(PathBuf::from(value)),
        "allow" => rule(options, Action::Allow, value)?,
        "deny" => rule(options, Action::Deny, value)?,
        "ask" => rule(options, Action::Ask, value)?,
        "policy" => options.egress.files.push(PathBuf::from(value)),
        "policy-mode" => options.egress.rules.push(values::policy_mode(value)?),
        "audit-log" => options.operator.audit_log = Some(values::audit_log(value)?),
        "audit" => options.operator.audit_level = Some(values::audit_level(value)?),
        "audit-required" => options.operator.is_audit_required = true,
        "control-socket" => options.operator.control_socket = Some(value.into()),
        "metrics" => options.operator.metrics = Some(values::metrics(value)?),
        "rate-in" => options.rates.to_guest = Some(values::rate("--rate-in", value)?),
        "rate-out" => options.rates.from_guest = Some(values::rate("--rate-out", value)?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Adds a rule of `--allow`, `--deny` or `--ask`. Messages number the rules of a line from 1.
fn rule(options: &mut Options, action: Action, value: &OsStr) -> Result<(), ValueError> {
    let rules = &mut options.egress.rules;
    let before = rules.iter().map(|policy| policy.rules().len()).sum::<usize>();
    let number = u32::try_from(before).map_or(u32::MAX, |before| before.saturating_add(1));
    // What is no UTF-8 is no rule either; let the parser reject it.
    rules.push(EgressPolicy::from_option(action, &value.to_string_lossy(), number)?);
    Ok(())
}
