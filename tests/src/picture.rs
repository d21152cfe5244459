//! What a network looks like from inside, in the words of `ip -j`.

use serde_json::Value;

/// An interface with its addresses and routes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// The names of the interfaces that are up, except for the loopback.
    pub up: Vec<String>,
    /// Largest packet in bytes.
    pub mtu: u64,
    /// Addresses of a wider scope than the link, with their prefix lengths, in the kernel's order.
    pub addresses: Vec<String>,
    /// The default gateways of IPv4 and IPv6.
    pub gateways: [Option<String>; 2],
    /// Routes of the main table through it, without preferred sources, lifetimes and states.
    pub routes: Vec<String>,
    /// Those of the whole namespace that cannot be used yet.
    pub tentative: Vec<String>,
}

impl Picture {
    /// The one of `interface`; `run` runs a shell script in its network namespace.
    ///
    /// # Panics
    /// When the interface is not there, or `ip` says something else than JSON.
    pub fn of(interface: &str, run: impl Fn(&str) -> String) -> Self {
        // One process for all: five lists, one a line.
        let text = run(&format!(
            "ip -j addr show dev {interface}; echo; ip -j link show up; echo
            ip -j -4 -d route show table main; echo; ip -j -6 -d route show table main; echo
            ip -j addr show tentative; echo"
        ));
        let mut lists = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut list = || -> Vec<Value> {
            let line = lists.next().unwrap_or("[]");
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        let [shown, up, ipv4, ipv6, tentative] = [list(), list(), list(), list(), list()];
        let shown = shown.iter().find(|one| one["ifname"] == interface).expect("it is there");
        let gateways = [&ipv4, &ipv6].map(|routes| {
            let default = routes.iter().find(|route| route["dst"] == "default")?;
            Some(default["gateway"].as_str()?.to_owned())
        });
        Self {
            up: names(&up),
            mtu: shown["mtu"].as_u64().expect("a number"),
            addresses: addresses(shown),
            gateways,
            routes: routes(interface, [ipv4, ipv6].concat()),
            tentative: tentative.iter().flat_map(addresses).collect(),
        }
    }
}

fn names(links: &[Value]) -> Vec<String> {
    let names = links.iter().filter_map(|link| link["ifname"].as_str());
    names.filter(|name| *name != "lo").map(ToOwned::to_owned).collect()
}

fn addresses(interface: &Value) -> Vec<String> {
    let list = interface["addr_info"].as_array();
    list.into_iter()
        .flatten()
        .filter(|address| address["local"].is_string() && address["scope"] != "link")
        .map(|one| format!("{}/{}", one["local"].as_str().unwrap_or_default(), one["prefixlen"]))
        .collect()
}

fn routes(interface: &str, mut routes: Vec<Value>) -> Vec<String> {
    routes.retain(|route| route["dev"] == interface);
    for fields in routes.iter_mut().filter_map(Value::as_object_mut) {
        for field in ["dev", "prefsrc", "expires", "flags", "nhid", "nh_info"] {
            fields.remove(field);
        }
    }
    let mut lines: Vec<_> = routes.iter().map(ToString::to_string).collect();
    lines.sort();
    lines
}
