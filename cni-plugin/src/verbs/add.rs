//! `ADD`: gives a container its network.

use std::path::Path;

use serde_json::{Value, json};

use super::Answer;
use crate::attachment::attach::{Pending, attach, find_namespace};
use crate::attachment::store::Candidates;
use crate::config::Header;
use crate::config::policy;
use crate::config::settings::{Settings, settings};
use crate::protocol::environment::Environment;
use crate::protocol::error::CniError;
use crate::protocol::result::{AttachmentResult, IpEntry};

/// Attaches the container and returns the result.
///
/// # Errors
/// The message begins with the original plugin's words.
pub(super) fn add(header: &Header, environment: &Environment) -> Result<Answer, CniError> {
    let context = format!("add slirp {}", environment.ifname);
    try_add(header, environment).map_err(|error| error.in_context(&context))
}

fn try_add(header: &Header, environment: &Environment) -> Result<Answer, CniError> {
    let id = find_namespace(Path::new(&environment.netns), environment.may_be_own_netns)?;
    let mut settings = settings(header, environment, Some(id))?;
    let request = &mut settings.request;
    request.egress = policy::checked(policy::texts(header)?, &request.policy)?;
    let mut result = match header.find("prevResult") {
        Some(value) => AttachmentResult::parse(value, header.version)?,
        None => AttachmentResult::default(),
    };
    let candidates = Candidates::new(header.state_dir.as_deref());
    let pending = attach(&settings.request, &candidates)?;
    result.append(ours(&settings, environment, &pending));
    Ok(Answer::Attached(result.object(header.version), pending))
}

/// Our part of the result.
fn ours(settings: &Settings, environment: &Environment, pending: &Pending) -> AttachmentResult {
    let request = &settings.request;
    let plan = &request.plan;
    let mut ips = vec![IpEntry {
        address: format!("{}/{}", pending.addresses.address, plan.prefix_len()),
        gateway: Some(plan.gateway().to_string()),
        interface: Some(0),
    }];
    let route = |destination: &str, gateway: String| {
        let mut route = json!({ "dst": destination, "gw": gateway });
        if let Some(metric) = request.metric {
            route["priority"] = json!(metric);
        }
        route
    };
    let mut routes: Vec<Value> = vec![route("0.0.0.0/0", plan.gateway().to_string())];
    if let (Some(plan), Some(address)) = (plan.ipv6(), pending.addresses.address6) {
        ips.push(IpEntry {
            address: format!("{address}/{}", slirp_core::plan::Ipv6Plan::PREFIX_LEN),
            gateway: Some(plan.gateway().to_string()),
            interface: Some(0),
        });
        routes.push(route("::/0", plan.gateway().to_string()));
    }
    AttachmentResult {
        interfaces: vec![json!({
            "name": environment.ifname,
            "mac": pending.mac,
            "mtu": request.mtu,
            "sandbox": environment.netns,
        })],
        ips,
        routes,
        dns: settings.dns.clone(),
    }
}
