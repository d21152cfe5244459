//! The settings of an attachment, from configuration, capabilities and arguments.

use std::env;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde_json::Value;
use slirp_core::instance::{MTU_MAX, MemberName};
use slirp_core::member::{MemberNameError, NAMES_CAP};
use slirp_core::netns::NamespaceId;
use slirp_core::plan::Ipv6Plan;
use slirp_core::policy::Policy;

use super::bandwidth::{self, BANDWIDTH};
use super::spelling::refuse_misspelt;
use super::{Header, addresses, flag, operator, path, port_mappings};
use crate::attachment::key::Key;
use crate::attachment::request::{MembershipRequest, Request};
use crate::protocol::environment::Environment;
use crate::protocol::error::CniError;
use crate::protocol::field;
use crate::protocol::result::{Dns, texts};

/// The smallest MTU that the original plugin takes, and its default.
const MTU_MIN: u16 = 1500;

/// Capabilities that we act on; others are an error, so that they do not seem to work.
const CAPABILITIES: [&str; 5] = ["portMappings", "ips", "mac", "dns", BANDWIDTH];
/// The capability that only a shared network uses.
const ALIASES: &str = "aliases";

/// Length of the prefix of a container's id that runtimes display.
const SHORT_ID_LEN: usize = 12;
/// The `CNI_ARGS` with which runtimes pass a container's name: nerdctl its host name; Podman, CRI-O
/// and containerd its name or its pod's.
const HOSTNAME_ARGUMENTS: [&str; 2] = ["NERDCTL_CNI_DHCP_HOSTNAME", "K8S_POD_NAME"];

/// The variable that names another program as the engine.
const PROGRAM_VARIABLE: &str = "SLIRP4NETNS";

/// All settings of a configuration.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Settings {
    pub(crate) request: Request,
    /// The name servers in the result.
    pub(crate) dns: Dns,
}

/// Reads the settings of an attachment, but not where it may go ([`policy`](super::policy)).
/// `netns_id` is the namespace at the environment's path, if
/// it is accessible.
///
/// # Errors
/// For invalid values, with their key, and for values that cannot be acted on.
pub(crate) fn settings(
    header: &Header,
    environment: &Environment,
    netns_id: Option<NamespaceId>,
) -> Result<Settings, CniError> {
    refuse_unsupported(header)?;
    refuse_misspelt(&header.object)?;
    let plan = addresses::plan(header)?;
    let chosen = addresses::chosen(header, environment, &plan)?;
    let address = chosen.0.unwrap_or_else(|| plan.recommended_guest());
    let address6 = chosen.1.or_else(|| plan.ipv6().map(Ipv6Plan::recommended_guest));
    let shared = flag(header, "shared", false)?.then(|| membership(header, environment, chosen));
    let shared = shared.transpose()?;
    let program = program()?;
    if shared.is_some() && program.is_some() {
        let message = format!("shared: true is not supported with {PROGRAM_VARIABLE}");
        return Err(CniError::unsupported(message));
    }
    let mut policy = Policy::default();
    policy.allow_host_loopback = !flag(header, "disableHostLoopback", false)?;
    policy.dns_service = !flag(header, "disableDNS", false)?;
    let capability = header.find("runtimeConfig").and_then(|c| field::of(c, "portMappings"));
    let mut ports = Vec::new();
    for value in [header.find("portMappings"), capability].into_iter().flatten() {
        ports.extend(port_mappings::parse(value, address, address6)?);
    }
    let ports = port_mappings::joined(ports);
    let mut dns = name_servers(header);
    let search_domains = dns.search.clone();
    if policy.dns_service {
        let own = [Some(plan.dns().to_string()), plan.ipv6().map(|p| p.dns().to_string())];
        for server in own.into_iter().flatten() {
            if !dns.nameservers.contains(&server) {
                dns.nameservers.push(server);
            }
        }
    }
    let netns = Path::new(&environment.netns);
    let netns = std::path::absolute(netns).unwrap_or_else(|_| netns.to_owned());
    let request = Request {
        key: key(environment),
        network: header.name.clone(),
        netns,
        netns_id,
        mtu: mtu(header)?,
        plan,
        address,
        address6,
        metric: metric(header)?,
        mac: addresses::mac(header, environment)?,
        policy,
        egress: None,
        rates: bandwidth::rates(header)?,
        operator: operator::operator(header, environment, shared.is_some())?,
        search_domains,
        outbound: addresses::outbound(header)?,
        ports,
        sandbox: flag(header, "sandbox", true)?,
        log_file: path(&header.object, "logFile")?,
        program,
        shared,
    };
    Ok(Settings { request, dns })
}

/// The attachment that the environment names.
pub(crate) fn key(environment: &Environment) -> Key {
    Key { container_id: environment.container_id.clone(), ifname: environment.ifname.clone() }
}

fn mtu(header: &Header) -> Result<u16, CniError> {
    let Some(value) = header.find("mtu") else { return Ok(MTU_MIN) };
    let number = value
        .as_i64()
        .ok_or_else(|| CniError::config(format!("mtu: {value} is not a number of bytes")))?;
    match u16::try_from(number) {
        // As in the original plugin.
        _ if number <= 0 => Ok(MTU_MIN),
        Ok(mtu) if (MTU_MIN..=MTU_MAX).contains(&mtu) => Ok(mtu),
        Ok(_) | Err(_) => {
            let message =
                format!("invalid MTU value {number} configured. {MTU_MIN} <= MTU <= {MTU_MAX}");
            Err(CniError::config(message))
        }
    }
}

fn metric(header: &Header) -> Result<Option<u32>, CniError> {
    let Some(value) = header.find("metric") else { return Ok(None) };
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.map(Some).ok_or_else(|| CniError::config(format!("metric: {value} is not a metric")))
}

fn refuse_unsupported(header: &Header) -> Result<(), CniError> {
    if header
        .find("ipam")
        .and_then(|ipam| field::of(ipam, "type"))
        .is_some_and(|t| !field::is_empty(t))
    {
        return Err(CniError::config("ipam plugin not supported within slirp"));
    }
    let is_shared = flag(header, "shared", false)?;
    let Some(config) = header.find("runtimeConfig") else { return Ok(()) };
    let config = config
        .as_object()
        .ok_or_else(|| CniError::config(format!("runtimeConfig: {config} is not an object")))?;
    for (name, value) in config {
        let is_known = CAPABILITIES.iter().any(|known| known.eq_ignore_ascii_case(name))
            || (is_shared && name.eq_ignore_ascii_case(ALIASES));
        if !is_known && !field::is_empty(value) {
            let message = format!("capability {name} is not supported (its value is {value})");
            return Err(CniError::unsupported(message));
        }
    }
    Ok(())
}

/// The membership of a container on a shared network.
fn membership(
    header: &Header,
    environment: &Environment,
    chosen: (Option<Ipv4Addr>, Option<Ipv6Addr>),
) -> Result<MembershipRequest, CniError> {
    let id = &environment.container_id;
    // An id that is not a valid host name (such as one with a dot) cannot be looked up.
    let is_name = |text: &str| text.parse::<MemberName>().is_ok();
    let short = id.get(..SHORT_ID_LEN).filter(|short| short.len() < id.len());
    let names = [Some(id.as_str()), short].into_iter().flatten().filter(|name| is_name(name));
    let names: Vec<String> = names.map(str::to_owned).collect();
    let mut aliases = Vec::new();
    let told = HOSTNAME_ARGUMENTS.iter().filter_map(|name| environment.argument(name));
    for alias in told.filter(|name| is_name(name)).map(str::to_owned).chain(wanted_aliases(header)?)
    {
        if !aliases.contains(&alias) && !names.contains(&alias) {
            aliases.push(alias);
        }
    }
    if names.len() + aliases.len() > NAMES_CAP {
        let message = format!("aliases: a container has at most {NAMES_CAP} names");
        return Err(CniError::config(message));
    }
    Ok(MembershipRequest {
        is_address_chosen: chosen.0.is_some(),
        is_address6_chosen: chosen.1.is_some(),
        names,
        aliases,
    })
}

/// The capability `aliases`: a list of names, or a list for each network, of which we use our
/// network's.
fn wanted_aliases(header: &Header) -> Result<Vec<String>, CniError> {
    let config = header.find("runtimeConfig");
    let Some(value) = config.and_then(|config| field::of(config, ALIASES)) else {
        return Ok(Vec::new());
    };
    let list = if value.is_object() { field::of(value, &header.name) } else { Some(value) };
    let Some(list) = list.filter(|list| !field::is_empty(list)) else { return Ok(Vec::new()) };
    let invalid = |what: &Value| {
        CniError::config(format!("aliases: {what} is not a container name ({MemberNameError})"))
    };
    let entries = list.as_array().ok_or_else(|| invalid(list))?.iter();
    entries
        .map(|entry| {
            let name = entry.as_str().and_then(|text| text.parse::<MemberName>().ok());
            name.map(|name| name.as_str().to_owned()).ok_or_else(|| invalid(entry))
        })
        .collect()
}

/// `dns` of the configuration; the capability's lists replace its lists.
fn name_servers(header: &Header) -> Dns {
    let mut dns = header.find("dns").map(Dns::parse).unwrap_or_default();
    let capability = header.find("runtimeConfig").and_then(|config| field::of(config, "dns"));
    if let Some(capability) = capability {
        let replace = |list: &mut Vec<String>, name: &str| {
            let given = texts(field::of(capability, name));
            if !given.is_empty() {
                *list = given;
            }
        };
        replace(&mut dns.nameservers, "servers");
        replace(&mut dns.search, "searches");
        replace(&mut dns.options, "options");
    }
    dns
}

/// The program that `SLIRP4NETNS` names, if it is set. The program is not checked.
pub(crate) fn program() -> Result<Option<PathBuf>, CniError> {
    let Some(program) = env::var_os(PROGRAM_VARIABLE) else { return Ok(None) };
    if program.is_empty() {
        return Err(CniError::internal(format!(
            "{PROGRAM_VARIABLE} is set to nothing (hint: unset it to use the built-in engine)"
        )));
    }
    if Path::new(&program).components().count() > 1 {
        let absolute = std::path::absolute(&program);
        return Ok(Some(absolute.unwrap_or_else(|_| PathBuf::from(program))));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(&program)).find(|p| p.is_file());
    found.map(Some).ok_or_else(|| {
        CniError::internal(format!("cannot find {} in path", Path::new(&program).display()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::attachment::ports::shown;

    const NETNS: NamespaceId = NamespaceId { device: 4, inode: 7 };

    fn environment(args: &[(&str, &str)]) -> Environment {
        Environment {
            container_id: "c".to_owned(),
            netns: "/proc/7/ns/net".to_owned(),
            ifname: "eth0".to_owned(),
            args: args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            may_be_own_netns: false,
        }
    }

    fn read(mut config: Value, args: &[(&str, &str)]) -> Result<Settings, CniError> {
        config["name"] = json!("net");
        let header = Header::parse(config.to_string().as_bytes()).unwrap();
        settings(&header, &environment(args), Some(NETNS))
    }

    fn refusal(config: Value, args: &[(&str, &str)]) -> (u16, String) {
        let error = read(config, args).unwrap_err();
        (error.code, error.message)
    }

    #[test]
    fn defaults_are_those_of_the_original_plugin() {
        let settings = read(json!({ "MTU": 0 }), &[]).unwrap();
        let request = settings.request;
        assert_eq!(request.mtu, 1500);
        assert_eq!(request.address.to_string(), "10.0.2.100");
        assert!(request.policy.allow_host_loopback && request.policy.dns_service);
        assert!(request.sandbox && request.ports.is_empty() && request.address6.is_none());
        assert_eq!(settings.dns.nameservers, ["10.0.2.3"]);
    }

    #[test]
    fn every_key_is_read_in_any_case() {
        let settings = read(
            json!({
                "Mtu": 9000, "CIDR": "10.7.0.0/16", "cidr6": "fd07::/64", "metric": 5,
                "sandbox": false,
                "disablehostloopback": true, "disableDns": true, "outboundAddr": "127.0.0.1",
                "outboundaddr6": "::1", "portmappings": [{ "hostport": 1, "containerPort": 2 }],
                "logFile": "/tmp/log",
                "dns": { "nameservers": ["192.0.2.53"], "search": ["a.test"] },
                "runtimeConfig": {
                    "portMappings": [{ "hostPort": 3, "containerPort": 4, "protocol": "udp" }],
                    "ips": ["10.7.1.1/16", "fd07::9"], "mac": "02:00:00:00:00:07",
                    "dns": { "Servers": ["192.0.2.54"], "searches": [] },
                },
            }),
            &[("IP", "10.7.1.2"), ("MAC", "02:00:00:00:00:08")],
        )
        .unwrap();
        let request = settings.request;
        assert_eq!((request.mtu, request.metric, request.sandbox), (9000, Some(5), false));
        assert_eq!(request.address.to_string(), "10.7.1.1");
        assert_eq!(request.address6.unwrap().to_string(), "fd07::9");
        assert_eq!(request.mac.unwrap().to_string(), "02:00:00:00:00:07");
        assert!(!request.policy.allow_host_loopback && !request.policy.dns_service);
        assert_eq!(request.outbound.ipv4.unwrap().to_string(), "127.0.0.1");
        assert_eq!(request.outbound.ipv6.unwrap().to_string(), "::1");
        let ports: Vec<String> = request.ports.iter().map(shown).collect();
        assert_eq!(
            ports,
            ["0.0.0.0:1->2/tcp", "[::]:1->2/tcp", "0.0.0.0:3->4/udp", "[::]:3->4/udp"]
        );
        assert_eq!(request.log_file, Some("/tmp/log".into()));
        assert_eq!(settings.dns.nameservers, ["192.0.2.54"]);
        assert_eq!(settings.dns.search, ["a.test"]);
    }

    #[test]
    fn addresses_come_by_arguments_where_no_capability_says_otherwise() {
        let settings =
            read(json!({}), &[("IP", "10.0.2.7"), ("MAC", "02:00:00:00:00:08")]).unwrap();
        assert_eq!(settings.request.address.to_string(), "10.0.2.7");
        assert_eq!(settings.request.mac.unwrap().to_string(), "02:00:00:00:00:08");
        let mixed = json!({ "enableIPv6": true, "runtimeConfig": { "ips": ["fd00::9"] } });
        let settings = read(mixed, &[("IP", "10.0.2.8")]).unwrap();
        assert_eq!(settings.request.address.to_string(), "10.0.2.8");
        assert_eq!(settings.request.address6.unwrap().to_string(), "fd00::9");
        let args = json!({ "args": { "cni": { "ips": ["10.0.2.9"] } } });
        let settings = read(args, &[("IP", "10.0.2.8")]).unwrap();
        assert_eq!(settings.request.address.to_string(), "10.0.2.9");
    }

    #[test]
    fn invalid_values_are_named() {
        let mtu = |number: i64| {
            (7, format!("invalid MTU value {number} configured. 1500 <= MTU <= 65521"))
        };
        assert_eq!(refusal(json!({ "mtu": 1499 }), &[]), mtu(1499));
        assert_eq!(refusal(json!({ "mtu": 65522 }), &[]), mtu(65522));
        for (config, code, start) in [
            (json!({ "mtu": "big" }), 7, "mtu: \"big\""),
            (
                json!({ "ipam": { "type": "host-local" } }),
                7,
                "ipam plugin not supported within slirp",
            ),
            (json!({ "cidr": "10.0.2.1/24" }), 7, "cidr: invalid network \"10.0.2.1/24\""),
            (json!({ "cidr": 7 }), 7, "cidr: invalid network 7: expected one such as 10.0.2.0/24"),
            (json!({ "cidr6": "fd00::/48" }), 7, "cidr6: invalid network"),
            (json!({ "enableIPv6": "yes" }), 7, "enableIPv6: \"yes\" is neither true nor false"),
            (json!({ "outboundAddr": "no-such-if" }), 7, "outboundAddr: \"no-such-if\""),
            (json!({ "metric": -1 }), 7, "metric: -1"),
            (json!({ "logFile": "here" }), 7, "logFile: \"here\" is not an absolute path"),
            (json!({ "mac": "01:00:00:00:00:01" }), 7, "MAC address 01:00:00:00:00:01"),
            (json!({ "shared": "yes" }), 7, "shared: \"yes\" is neither true nor false"),
            (
                json!({ "shared": true, "runtimeConfig": { "aliases": ["a.b"] } }),
                7,
                "aliases: \"a.b\" is not a container name",
            ),
            (json!({ "auditLog": "a" }), 7, "auditLog: \"a\" is not an absolute path"),
            (
                json!({ "runtimeConfig": { "aliases": ["web"] } }),
                2,
                "capability aliases is not supported",
            ),
            (
                json!({ "runtimeConfig": { "bandwidth": { "ingressRate": 1 } } }),
                7,
                "ingressRate: if rate is set, burst must also be set",
            ),
            (
                json!({ "runtimeConfig": { "deviceID": "7" } }),
                2,
                "capability deviceID is not supported",
            ),
        ] {
            let (found, message) = refusal(config, &[]);
            assert!(found == code && message.starts_with(start), "{found} {message}");
        }
        for ip in ["10.0.2.2", "10.0.2.3", "10.0.2.0", "10.0.2.255", "10.0.3.1", "fd00::9", "x"] {
            let (code, message) = refusal(json!({}), &[("IP", ip)]);
            assert!(code == 7 && message.starts_with(&format!("IP address {ip}: ")), "{message}");
        }
        let (_, message) = refusal(json!({}), &[("IP", "10.0.2.7/16")]);
        assert_eq!(message, "IP address 10.0.2.7/16: the prefix of the network is /24");
    }

    #[test]
    fn names_of_a_member_are_what_the_runtime_tells() {
        let shared = |config: Value, args: &[(&str, &str)]| {
            read(config, args).unwrap().request.shared.unwrap()
        };
        let args = [("K8S_POD_NAME", "Web"), ("NERDCTL_CNI_DHCP_HOSTNAME", "not.one")];
        let membership = shared(json!({ "shared": true }), &args);
        assert_eq!(membership.names, ["c"]);
        assert_eq!(membership.aliases, ["Web"]);
        assert!(!membership.is_address_chosen);
        let membership = shared(
            json!({
                "shared": true,
                "runtimeConfig": { "ips": ["10.0.2.7"], "aliases": ["DB", "db"] },
            }),
            &[],
        );
        assert_eq!(membership.aliases, ["db"]);
        assert!(membership.is_address_chosen && !membership.is_address6_chosen);
        let by_network = json!({ "net": ["a"], "other": ["b"] });
        let config = json!({ "shared": true, "runtimeConfig": { "aliases": by_network } });
        assert_eq!(shared(config, &[]).aliases, ["a"]);
        assert_eq!(read(json!({}), &args).unwrap().request.shared, None);
    }

    #[test]
    fn capabilities_without_a_value_are_not_declared() {
        let config = json!({ "runtimeConfig": { "aliases": {}, "bandwidth": null, "other": "" } });
        assert!(read(config, &[]).is_ok());
    }
}
