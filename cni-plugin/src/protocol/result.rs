//! The result of an attachment, and its shape in each version of the specification.
//!
//! Owns one value in the terms of version 1.1.0. It is parsed from the result of earlier plugins in
//! a chain, and printed in the version of the configuration. Unknown members of earlier plugins'
//! interfaces and routes are kept as they are.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::error::CniError;
use super::field;
use super::version::Version;

/// What a container has after a chain of plugins.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct AttachmentResult {
    pub(crate) interfaces: Vec<Value>,
    pub(crate) ips: Vec<IpEntry>,
    pub(crate) routes: Vec<Value>,
    pub(crate) dns: Dns,
}

/// One address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct IpEntry {
    /// With its prefix, such as `10.0.2.100/24`.
    pub(crate) address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<String>,
    /// Index in `interfaces`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<u64>,
}

impl IpEntry {
    fn is_ipv6(&self) -> bool {
        self.address.contains(':')
    }
}

/// The intended content of a container's resolv.conf.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Dns {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) nameservers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) options: Vec<String>,
}

impl Dns {
    /// Parses an object; values other than texts are skipped.
    pub(crate) fn parse(value: &Value) -> Self {
        Self {
            nameservers: texts(field::of(value, "nameservers")),
            domain: text(field::of(value, "domain")),
            search: texts(field::of(value, "search")),
            options: texts(field::of(value, "options")),
        }
    }

    /// Adds the entries of another plugin's result, without duplicates.
    fn extend(&mut self, other: Self) {
        let add = |to: &mut Vec<String>, from: Vec<String>| {
            for value in from {
                if !to.contains(&value) {
                    to.push(value);
                }
            }
        };
        add(&mut self.nameservers, other.nameservers);
        add(&mut self.search, other.search);
        add(&mut self.options, other.options);
        if self.domain.is_empty() {
            self.domain = other.domain;
        }
    }
}

/// The texts of a list; empty for any other value.
pub(crate) fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl AttachmentResult {
    /// Reads a `prevResult`.
    ///
    /// # Errors
    /// When it is not an object, or its version is unknown.
    pub(crate) fn parse(value: &Value, version: Version) -> Result<Self, CniError> {
        let object = value
            .as_object()
            .ok_or_else(|| CniError::config("could not parse prevResult: it is not an object"))?;
        let named = field::find(object, "cniVersion").and_then(Value::as_str).unwrap_or_default();
        let version = match (named, Version::parse(named)) {
            ("", _) => version,
            (_, Some(version)) => version,
            (_, None) => {
                let message = format!("could not parse prevResult: version {named:?} is not known");
                return Err(CniError::config(message));
            }
        };
        let dns = field::find(object, "dns").map(Dns::parse).unwrap_or_default();
        if version < Version::V030 {
            return Ok(Self { dns, ..Self::from_oldest(object) });
        }
        let list = |name: &str| {
            let values = field::find(object, name).and_then(Value::as_array);
            values.cloned().unwrap_or_default()
        };
        let ips = list("ips");
        let ips = ips.iter().map(|ip| IpEntry {
            address: text(field::of(ip, "address")),
            gateway: field::of(ip, "gateway").and_then(Value::as_str).map(str::to_owned),
            interface: field::of(ip, "interface").and_then(Value::as_u64),
        });
        Ok(Self { ips: ips.collect(), interfaces: list("interfaces"), routes: list("routes"), dns })
    }

    /// The shape of versions before 0.3.0.
    fn from_oldest(object: &Map<String, Value>) -> Self {
        let mut result = Self::default();
        for name in ["ip4", "ip6"] {
            let Some(ip) = field::find(object, name) else { continue };
            result.ips.push(IpEntry {
                address: text(field::of(ip, "ip")),
                gateway: field::of(ip, "gateway").and_then(Value::as_str).map(str::to_owned),
                interface: None,
            });
            let routes = field::of(ip, "routes").and_then(Value::as_array);
            result.routes.extend(routes.into_iter().flatten().cloned());
        }
        result
    }

    /// Appends our result and adjusts its interface indexes.
    pub(crate) fn append(&mut self, ours: Self) {
        let offset = u64::try_from(self.interfaces.len()).unwrap_or(u64::MAX);
        self.interfaces.extend(ours.interfaces);
        self.ips.extend(ours.ips.into_iter().map(|ip| IpEntry {
            interface: ip.interface.map(|index| index.saturating_add(offset)),
            ..ip
        }));
        self.routes.extend(ours.routes);
        self.dns.extend(ours.dns);
    }

    /// The object that is printed.
    pub(crate) fn object(&self, version: Version) -> Value {
        let mut object =
            if version < Version::V030 { self.oldest() } else { self.current(version) };
        object.insert("cniVersion".to_owned(), json!(version.as_str()));
        if version < Version::V100 || self.dns != Dns::default() {
            object.insert("dns".to_owned(), json!(self.dns));
        }
        Value::Object(object)
    }

    fn current(&self, version: Version) -> Map<String, Value> {
        let ips = self.ips.iter().map(|ip| {
            let mut object = json!(ip);
            if version < Version::V100 {
                object["version"] = json!(if ip.is_ipv6() { "6" } else { "4" });
            }
            object
        });
        let mut object = Map::new();
        object.insert("interfaces".to_owned(), self.newer_members_cut(&self.interfaces, version));
        object.insert("ips".to_owned(), ips.collect());
        object.insert("routes".to_owned(), self.newer_members_cut(&self.routes, version));
        object
    }

    /// Members that came with 1.1.0 are omitted in earlier versions.
    fn newer_members_cut(&self, values: &[Value], version: Version) -> Value {
        const NEWER: [&str; 7] =
            ["mtu", "socketPath", "pciID", "advmss", "priority", "table", "scope"];
        let mut values = values.to_vec();
        if version < Version::V110 {
            for object in values.iter_mut().filter_map(Value::as_object_mut) {
                object.retain(|name, _| !NEWER.contains(&name.as_str()));
            }
        }
        Value::Array(values)
    }

    /// The first address of each family, with the routes of that family.
    fn oldest(&self) -> Map<String, Value> {
        let mut object = Map::new();
        for (name, is_ipv6) in [("ip4", false), ("ip6", true)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.is_ipv6() == is_ipv6) else { continue };
            let is_of_family =
                |route: &&Value| text(field::of(route, "dst")).contains(':') == is_ipv6;
            let routes: Vec<Value> = self.routes.iter().filter(is_of_family).cloned().collect();
            let mut entry = json!({ "ip": ip.address });
            if let Some(gateway) = &ip.gateway {
                entry["gateway"] = json!(gateway);
            }
            if !routes.is_empty() {
                entry["routes"] = self.newer_members_cut(&routes, Version::V010);
            }
            object.insert(name.to_owned(), entry);
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> AttachmentResult {
        let ip = |address: &str, gateway: &str| IpEntry {
            address: address.to_owned(),
            gateway: Some(gateway.to_owned()),
            interface: Some(0),
        };
        AttachmentResult {
            interfaces: vec![json!({
                "name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1500, "sandbox": "/n",
            })],
            ips: vec![ip("10.0.2.100/24", "10.0.2.2"), ip("fd00::100/64", "fd00::2")],
            routes: vec![
                json!({ "dst": "0.0.0.0/0", "gw": "10.0.2.2", "priority": 7 }),
                json!({ "dst": "::/0", "gw": "fd00::2" }),
            ],
            dns: Dns { nameservers: vec!["10.0.2.3".to_owned()], ..Dns::default() },
        }
    }

    #[test]
    fn shape_before_0_3_0_has_an_object_per_family() {
        assert_eq!(
            ours().object(Version::V020),
            json!({
                "cniVersion": "0.2.0",
                "ip4": {
                    "ip": "10.0.2.100/24", "gateway": "10.0.2.2",
                    "routes": [{ "dst": "0.0.0.0/0", "gw": "10.0.2.2" }],
                },
                "ip6": {
                    "ip": "fd00::100/64", "gateway": "fd00::2",
                    "routes": [{ "dst": "::/0", "gw": "fd00::2" }],
                },
                "dns": { "nameservers": ["10.0.2.3"] },
            })
        );
    }

    #[test]
    fn shape_up_to_0_4_0_says_the_family_and_1_1_0_the_mtu() {
        for version in [Version::V030, Version::V031, Version::V040] {
            let object = ours().object(version);
            assert_eq!(object["ips"][0]["version"], "4");
            assert_eq!(object["ips"][1]["version"], "6");
            assert_eq!(object["interfaces"][0].get("mtu"), None);
            assert_eq!(object["routes"][0].get("priority"), None);
        }
        let object = ours().object(Version::V110);
        assert_eq!(object["ips"][0].get("version"), None);
        assert_eq!(object["interfaces"][0]["mtu"], 1500);
        assert_eq!(object["routes"][0]["priority"], 7);
    }

    #[test]
    fn empty_dns_is_left_out_from_1_0_0_on() {
        let result = AttachmentResult { dns: Dns::default(), ..ours() };
        assert_eq!(result.object(Version::V040)["dns"], json!({}));
        assert_eq!(result.object(Version::V100).get("dns"), None);
    }

    #[test]
    fn result_of_the_plugin_before_us_is_kept_and_ours_comes_behind() {
        let before = json!({
            "cniVersion": "1.1.0",
            "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/n", "odd": 1 }],
            "ips": [{ "address": "127.0.0.1/8", "interface": 0 }],
            "dns": { "nameservers": ["10.0.2.3", "192.0.2.53"], "search": ["example.org"] },
        });
        let mut result = AttachmentResult::parse(&before, Version::V110).unwrap();
        result.append(ours());
        let object = result.object(Version::V110);
        assert_eq!(object["interfaces"][0]["odd"], 1);
        assert_eq!(object["ips"][1]["interface"], 1);
        assert_eq!(object["ips"][1]["address"], "10.0.2.100/24");
        assert_eq!(object["dns"]["nameservers"], json!(["10.0.2.3", "192.0.2.53"]));
    }

    #[test]
    fn each_shape_is_read_back() {
        for (version, _) in Version::ALL {
            let object = ours().object(version);
            let read = AttachmentResult::parse(&object, version).unwrap();
            assert_eq!(read.object(version), object, "{version:?}");
        }
    }
}
